"""The rows of a read model and the handlers that write them: pure Python, no database in sight.

A `Row` is a frozen model whose `Key[...]` fields identify it. `Rows` is what a handler sees: a dict of rows
that remembers which ones changed, and asks its source for a row it does not hold. `on` marks a method as the
handler of event types; what is wrong with one is said when its class is defined.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from types import FunctionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from pydantic import create_model

from esim import display
from esim.errors import InvalidArgument, InvalidEvent
from esim.event import Event
from esim.value import Value, fields_of

T = TypeVar("T")
P = ParamSpec("P")
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
R = TypeVar("R", bound="Row")
R_co = TypeVar("R_co", bound="Row", covariant=True)
F = TypeVar("F", bound=Callable[..., None])


class _KeyMark:
    def __repr__(self) -> str:
        return "Key"


Key = Annotated[T, _KeyMark()]
"""Marks a field that identifies its row: `customer: Key[str]`. Several such fields make a tuple."""


class Row(Value):
    """One row of a read model: `class Spend(Row)`, frozen, with at least one `Key[...]` field."""

    key_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        fields = cls.__pydantic_fields__
        folded = {name.casefold() for name in fields}
        if len(folded) < len(fields):
            raise InvalidArgument(
                f"{cls.__name__} has columns that differ in case alone: SQL cannot tell them apart"
            )
        marked = (
            name for name, field in fields.items() if any(isinstance(m, _KeyMark) for m in field.metadata)
        )
        cls.key_fields = tuple(marked)


def _key_model(row_type: Any) -> Any:
    """Return a model of the key fields alone, which makes of given values what the row would."""
    fields = {name: row_type.__pydantic_fields__[name] for name in row_type.key_fields}
    parts: dict[str, Any] = {name: (info.annotation, info) for name, info in fields.items()}
    return create_model("Key", __base__=Value, **parts)


_key_models: Callable[[Any], Any] = lru_cache(maxsize=256)(_key_model)


def _plain_key(row_type: type[Row]) -> object:
    """Return the type of a key whose values need no look: of one field of text or whole numbers."""
    if len(row_type.key_fields) != 1:
        return None
    info = row_type.__pydantic_fields__[row_type.key_fields[0]]
    return info.annotation if info.annotation in (str, int) and len(info.metadata) == 1 else None


class Source(Protocol[R_co]):
    """Where rows are kept that are not at hand."""

    def find(self, key: Any) -> R_co | None:
        """Return the row of a key, or None."""
        ...

    def all(self) -> Iterable[R_co]:
        """Return every row."""
        ...


class Rows(Generic[R]):
    """The rows of a read model by key, as a handler sees them: `get`, `put`, `delete`, iterate, count.

    A key is the value of the one key field, or a tuple where there are several; what the field would make of
    a value counts, so that `get("5")` and `get(5)` ask for the same row. Iteration goes by key.
    """

    def __init__(self, row_type: type[R], source: Source[R] | None = None) -> None:
        """Begin with no row, or with those of `source`, which are fetched when asked for."""
        self.position = self.part = 0
        self.changed: dict[Any, None] = {}
        self._type = row_type
        self._source = source
        self._held: dict[Any, R | None] = {}  # None: known to be absent
        self.key_of: Callable[[R], Any] = attrgetter(*row_type.key_fields)
        self._plain = _plain_key(row_type)
        self._before: dict[Any, tuple[bool, R | None, bool]] | None = None

    def get(self, key: Any) -> R | None:
        """Return the row of `key`, or None. Raises InvalidArgument for what cannot be a key of these rows."""
        try:
            return self._held[key]
        except (KeyError, TypeError):
            return self._fetch(self._canonical(key))

    def put(self, row: R) -> None:
        """Add a row, or replace the one of the same key."""
        if type(row) is not self._type:
            row = self._adopted(row)
        self._set(self.key_of(row), row)

    def delete(self, key: Any) -> None:
        """Remove the row of `key`; nothing happens where there is none."""
        self._set(self._canonical(key), None)

    def _set(self, key: Any, row: R | None) -> None:
        if self._before is not None:
            self._before.setdefault(key, (key in self._held, self._held.get(key), key in self.changed))
        self._held[key] = row
        self.changed[key] = None

    def begin(self) -> None:
        """Remember from here on what `undo` needs."""
        self._before = {}

    def undo(self) -> None:
        """Take back every change since `begin`; an interrupt may have cut a change or an undo short."""
        for key, (held, row, changed) in (self._before or {}).items():
            if held:
                self._held[key] = row
            else:
                self._held.pop(key, None)
            if not changed:
                self.changed.pop(key, None)
        self._before = {}

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[R]:
        self.hold()
        found = [(key, row) for key, row in self._held.items() if row is not None]
        return iter([row for _, row in sorted(found, key=lambda pair: _order(pair[0]))])

    def __len__(self) -> int:
        self.hold()
        return sum(row is not None for row in self._held.values())

    def hold(self) -> None:
        """Fetch all rows that are not at hand, so that from now on none needs to be looked up."""
        if self._source is not None:
            before = self._before or {}
            for row in self._source.all():
                key = self.key_of(row)
                if key in before and not before[key][0]:  # changed unseen: undo cannot fetch it any more
                    before[key] = (True, row, before[key][2])
                self._held.setdefault(key, row)
            self._source = None

    def changes(self) -> Iterator[tuple[Any, R | None]]:
        """Give each changed key with its row, None where it was deleted."""
        return ((key, self._held[key]) for key in self.changed)

    def settle(self, source: Source[R], limit: int) -> None:
        """Forget what changed, now that `source` has it, and let go of the oldest rows beyond `limit`."""
        self.changed = {}
        if len(self._held) > limit:
            surplus = len(self._held) - limit // 2
            for key in list(self._held)[:surplus]:
                del self._held[key]
            self._source = source

    def _fetch(self, key: Any) -> R | None:
        if key not in self._held and self._source is not None:
            self._held[key] = self._source.find(key)
        return self._held.get(key)

    def _canonical(self, key: Any) -> Any:
        """Return a key with each part as its field holds it: equal in memory is equal in the table."""
        if type(key) is self._plain:
            return key
        names = self._type.key_fields
        parts = key if len(names) > 1 else (key,)
        if not isinstance(parts, tuple) or len(parts) != len(names):
            told = f"{display.short(key)} is not a key of {self._type.__name__}"
            raise InvalidArgument(f"{told}: give ({', '.join(names)})")
        try:
            return self.key_of(_key_models(self._type)(**dict(zip(names, parts, strict=True))))
        except InvalidEvent as error:
            told = f"{display.short(key)} is not a key of {self._type.__name__}"
            raise InvalidArgument(f"{told}: {str(error).partition(': ')[2]}") from None

    def _adopted(self, row: Any) -> R:
        """Return a row of a re-defined class of the same name as one of ours."""
        if isinstance(row, Row) and type(row).__qualname__ == self._type.__qualname__:
            return self._type(**fields_of(row))
        raise InvalidArgument(
            f"{display.short(row)} is not a {self._type.__name__}: put rows of the declared class"
        )

    def __repr__(self) -> str:
        kept = "" if self._source is None else ", others in the table"
        return f"<Rows of {self._type.__name__}: {len(self._held):,} at hand{kept}>"


def _order(key: Any) -> tuple[tuple[bool, Any], ...]:
    parts = (
        part.value if isinstance(part, Enum) else part for part in (key if isinstance(key, tuple) else (key,))
    )
    return tuple((part is None, part) for part in parts)


# --- handlers ----------------------------------------------------------------------------------------------

Takes = Callable[Concatenate[Any, T, P], Any]


@overload
def on(first: type[E1], /) -> Callable[[Takes[E1, P]], Takes[E1, P]]: ...
@overload
def on(first: type[E1], second: type[E2], /) -> Callable[[Takes[E1 | E2, P]], Takes[E1 | E2, P]]: ...
@overload
def on(
    first: type[E1], second: type[E2], third: type[E3], /
) -> Callable[[Takes[E1 | E2 | E3, P]], Takes[E1 | E2 | E3, P]]: ...
@overload
def on(*events: type[Event]) -> Callable[[F], F]: ...
def on(*events: type[Event]) -> Callable[[Any], Any]:
    """Mark a method `(self, event, rows)` or `(self, event, rows, recorded)` as the handler of event types.

    Raises InvalidArgument if no event class is given.
    """
    wrong = [one for one in events if not (isinstance(one, type) and issubclass(one, Event))]
    if wrong or not events:
        raise InvalidArgument(
            f"@on({', '.join(map(repr, wrong))}): give event classes, as @on(OrderPlaced, OrderPaid)"
        )

    def mark(method: F) -> F:
        method.__dict__["handles"] = events
        return method

    return mark


class Handler(NamedTuple):
    """A method that handles event types: its name, itself, the types, and whether it wants the envelope."""

    name: str
    call: FunctionType
    events: tuple[type[Event], ...]
    recorded: bool


def handlers_of(cls: type) -> dict[str, Handler]:
    """Return the handlers of a projection by stored type name. Raises InvalidArgument if one is wrong."""
    found: dict[str, Handler] = {}
    for handler in _marked(cls):
        for event in handler.events:
            other = found.setdefault(event.event_type, handler)
            if other is not handler:
                raise InvalidArgument(
                    f"{cls.__name__}.{other.name} and .{handler.name} both handle {event.event_type}: "
                    "an event has one handler in a projection, so put both parts into one"
                )
    if not found:
        raise InvalidArgument(f"{cls.__name__} handles no event: mark a method with @on(SomeEvent)")
    return found


def _marked(cls: type) -> Iterator[Handler]:
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    for name in names:
        method = inspect.getattr_static(cls, name)
        if isinstance(method, FunctionType) and "handles" in method.__dict__:
            yield Handler(name, method, method.__dict__["handles"], _wants_recorded(cls, method))


def _wants_recorded(cls: type, method: FunctionType) -> bool:
    """Say whether a handler takes the recorded event too. Raises InvalidArgument for a wrong signature."""
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
        raise InvalidArgument(
            f"{cls.__name__}.{method.__name__} is async or yields: a projection's handler is a plain def"
        )
    signature = inspect.signature(method)
    for count, recorded in ((4, True), (3, False)):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return recorded
    raise InvalidArgument(
        f"{cls.__name__}.{method.__name__}{signature} cannot be called as a handler: write "
        f"def {method.__name__}(self, event, rows) or def {method.__name__}(self, event, rows, recorded)"
    )


def functions_of(cls: type, stop: type) -> list[FunctionType]:
    """Return every function that a class and its bases below `stop` define, for a stamp of their code."""
    bases = [base for base in cls.__mro__ if issubclass(base, stop) and base is not stop]
    members = (getattr(value, "__func__", value) for base in bases for _, value in sorted(vars(base).items()))
    return [member for member in members if isinstance(member, FunctionType)]
