"""State is what events add up to: decisions read it and return events, `evolve` takes one event further.

Nothing here mutates. A decision is an ordinary method that returns the event (or events, or nothing) it
decides on, or raises `Refused`; `fold` is the left fold of `evolve`; an `Aggregate` pairs a state with its
place in a stream and the events that are not saved yet.

References: Jérémie Chassaing, "Functional Event Sourcing Decider" (2021).
"""

from __future__ import annotations

import dis
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from types import FunctionType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from esim import display
from esim.envelope import RecordedEvent
from esim.errors import EsimError, InvalidArgument, InvalidEvent, InvalidState, Refused, UnknownEventType
from esim.event import Event, batch_decoder, current, note_definition, renewed
from esim.stamp import Stamp, stamp
from esim.upcast import code
from esim.value import Value, explain, fields_of, refuse_hiding

E = TypeVar("E", bound=Event)
S = TypeVar("S", bound="State[Any]")
P = ParamSpec("P")
Decided = Event | Iterable[Event] | None


class State(Value, Generic[E]):
    """What a stream's events add up to: `class Order(State[OrderEvent])`, immutable, with defaults.

    Methods other than `evolve` that return events are its decisions. `category` (the class name unless given)
    is the first half of the stream id: `class Order(State[OrderEvent], category="sales-order")`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    category: ClassVar[str] = "State"
    _recorded: ClassVar[bool] = False
    _invalid: ClassVar[type[EsimError]] = InvalidState

    def __init_subclass__(cls, *, category: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.category = category or cls.__name__
        if "/" in cls.category:
            raise InvalidArgument(
                f"category {cls.category!r} holds a slash, which ends a category: leave it out"
            )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        refuse_hiding(cls, State)
        _latest[cls.__module__, cls.__qualname__] = cls
        note_definition()

    def evolve(self, event: E) -> Self:  # noqa: ARG002 - subclasses use it
        """Return the state after `event`: one `case` for each event type, and no default case."""
        raise InvalidState(
            f"{type(self).__name__} has no evolve: write `def evolve(self, event)` with a case each"
        )

    def but(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields, not validated. Raises InvalidState if unknown."""
        copy = object.__new__(type(self))
        own = fields_of(self)
        values = {**own, **changes}
        if len(values) != len(own):
            raise InvalidState(self._unknown(changes))
        object.__setattr__(copy, "__dict__", values)
        object.__setattr__(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        object.__setattr__(copy, "__pydantic_extra__", None)
        private = self.__pydantic_private__
        object.__setattr__(copy, "__pydantic_private__", private and dict(private))
        return copy

    def _unknown(self, changes: Iterable[str]) -> str:
        known = list(fields_of(self))
        name = next(name for name in changes if name not in known)
        return f"{type(self).__name__} has no field {name!r}{display.did_you_mean(name, known)}"

    def must_be(self, *statuses: str) -> None:
        """Raise Refused unless the field `status` is one of `statuses`."""
        status = getattr(self, "status", None)
        if status not in statuses:
            raise Refused(f"the {type(self).__name__.lower()} is {status}, not {' or '.join(statuses)}")

    @classmethod
    def initial(cls) -> Self:
        """Return the state before the first event. Raises InvalidState if a field has no default."""
        bare = [name for name, info in cls.__pydantic_fields__.items() if info.is_required()]
        if bare:
            raise InvalidState(f"{cls.__name__} needs a default for {', '.join(bare)}: a stream begins empty")
        return cls()

    @classmethod
    def event_types(cls) -> tuple[type[Event], ...]:
        """Return the latest definitions of the event classes in `State[...]`. Raises InvalidState if none."""
        for base in cls.__mro__:
            args = getattr(base, "__pydantic_generic_metadata__", {}).get("args") or ()
            found = tuple(current(part) for part in _members(args[0])) if args else ()
            if found:
                return _distinct(cls, found)
        raise InvalidState(
            f"{cls.__name__} names no events: write `class {cls.__name__}(State[ThisHappened | …])`"
        )

    def checked(self) -> Self:
        """Return this state with every field validated. Raises InvalidState naming what does not fit."""
        try:
            return type(self).__pydantic_validator__.validate_python(fields_of(self))  # type: ignore[no-any-return]
        except (ValidationError, InvalidEvent) as error:
            told = explain(type(self), error) if isinstance(error, ValidationError) else str(error)
            raise InvalidState(f"after its events, {told}") from None

    def _repr_html_(self) -> str:
        return display.card(f"<b>{display.escape(type(self).__name__)}</b>", display.fields(fields_of(self)))


_latest: dict[tuple[str, str], type[State[Any]]] = {}


def current_state(cls: type[S]) -> type[S]:
    """Return the latest definition of a state class: the same one, unless its cell was run again."""
    return cast("type[S]", _latest.get((cls.__module__, cls.__qualname__), cls))


def state_of(decision: Callable[..., Any]) -> type[State[Any]]:
    """Return the latest state class in whose body a decision stands. Raises InvalidArgument if none."""
    owner = getattr(decision, "__qualname__", "").rpartition(".")[0]
    found = _latest.get((getattr(decision, "__module__", ""), owner))
    if found is None:
        raise InvalidArgument(
            f"{getattr(decision, '__qualname__', decision)} belongs to no State: give the state class as well"
        )
    return found


def _distinct(owner: type, events: tuple[type[Event], ...]) -> tuple[type[Event], ...]:
    """Return event classes unchanged. Raises InvalidState if two of them are stored under one name."""
    by_type: dict[str, type[Event]] = {}
    for one in events:
        other = by_type.setdefault(one.event_type, one)
        if other is not one:
            raise InvalidState(
                f"{owner.__name__}: {other.__name__} and {one.__name__} are both stored as "
                f"{one.event_type!r}: give one of them another type, or leave it out"
            )
    return events


def _members(union: Any) -> Iterator[type[Event]]:
    union = getattr(union, "__value__", union)
    if isinstance(union, type) and issubclass(union, Event):
        yield union
    elif get_args(union):
        parts = get_args(union)
        for part in parts[:1] if get_origin(union) is Annotated else parts:
            yield from _members(part)
    elif union is not Any and not isinstance(union, TypeVar):
        name = getattr(union, "__forward_arg__", None) or getattr(union, "__name__", union)
        raise InvalidState(f"State[…] names {name}, which is no event class here: define the class first")


def fold(state_type: type[S], events: Iterable[Event | RecordedEvent[Any]], initial: S | None = None) -> S:
    """Return the state of `state_type` after `events`, from its initial state or from `initial`.

    Raises UnknownEventType for an event that is not among the state's, InvalidState if `evolve` forgets one.
    """
    if not isinstance(events, Iterable) or isinstance(events, Value | Mapping):
        raise InvalidArgument(
            f"{display.short(events)} is no list of events: write fold({state_type.__name__}, […])"
        )
    known = {cls.event_type: cls for cls in state_type.event_types()}
    return evolve_all(state_type.initial() if initial is None else initial, _own(state_type, known, events))


def _own(
    owner: type[S], known: dict[str, type[Event]], events: Iterable[Event | RecordedEvent[Any]]
) -> Iterator[Event]:
    decoded = batch_decoder(known.values())
    for item in events:
        if isinstance(item, RecordedEvent):
            yield from _decoded(owner, decoded, item)
        elif not isinstance(item, Event):
            raise InvalidArgument(f"{display.short(item)} is not an event: fold events, or recorded events")
        elif item.event_type in known:
            yield item if type(item) is known[item.event_type] else renewed(item)
        else:
            raise UnknownEventType(foreign(owner, item.event_type))


def _decoded(
    owner: type[S], decoder: Callable[..., Iterator[Event]], item: RecordedEvent[Any]
) -> Iterator[Event]:
    try:
        yield from decoder((item.type,), (item.json,))
    except UnknownEventType:
        raise UnknownEventType(foreign(owner, item.type)) from None


def foreign(owner: type[State[Any]], name: str) -> str:
    """Return the message for an event type that is not among a state's."""
    known = sorted(cls.event_type for cls in owner.event_types())
    return (
        f"{owner.__name__} does not know the event type {name!r}; its events are {', '.join(known)}: "
        "add the class to State[…] and a case to evolve"
    )


def evolve_all(state: S, events: Iterable[Event]) -> S:
    """Return the state after typed events known to be its own. Raises InvalidState as `fold` does."""
    kind = type(state)
    for event in events:
        after = state.evolve(event)
        if type(after) is not kind and not isinstance(after, State):
            raise InvalidState(
                f"{kind.__name__}.evolve returns {display.short(after)} for {type(event).__name__}: "
                f"write `case {type(event).__name__}(): return self.but(…)`"
            )
        state = after
    return state


@cache
def is_mutable(state_type: type[Any]) -> bool:
    """Say whether some field of a state can hold what could be changed in place, at any depth.

    Only plain values, tuples, frozen sets and frozen models of them are known to be safe.
    """
    return not all(
        _frozen(info.annotation, (state_type,)) for info in state_type.__pydantic_fields__.values()
    )


_ATOMS = (int, float, complex, str, bytes, Decimal, date, time, timedelta, UUID, Enum, type(None))


def _frozen(annotation: Any, inside: tuple[type, ...]) -> bool:
    annotation = getattr(annotation, "__value__", annotation)
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = () if kind in inside else kind.__pydantic_fields__.values()
        return bool(kind.model_config.get("frozen")) and all(
            _frozen(info.annotation, (*inside, kind)) for info in fields
        )
    if isinstance(kind, type) and issubclass(kind, _ATOMS):
        return True
    parts = [part for part in get_args(annotation) if part is not Ellipsis]
    if kind is Annotated:
        return _frozen(parts[0], inside)
    safe = kind in (tuple, frozenset, Union, UnionType)
    return safe and bool(parts) and all(_frozen(part, inside) for part in parts)


@dataclass(frozen=True)
class Aggregate(Generic[S]):
    """One stream's state, the version it stands at in the store, and the events decided on but not saved."""

    id: str
    state: S
    version: int = 0
    uncommitted: tuple[Event, ...] = field(default=())

    @property
    def stream(self) -> str:
        """The stream id: category, slash, id."""
        return f"{type(self.state).category}/{self.id}"

    def decide(
        self, decision: Callable[Concatenate[S, P], Decided], /, *args: P.args, **kwargs: P.kwargs
    ) -> Aggregate[S]:
        """Return this aggregate with the decision's events in its state and among its uncommitted ones.

        Raises what the decision raises (`Refused`), and InvalidState if the state after it does not validate.
        """
        events = decided(asked(decision, self.state, *args, **kwargs))
        return replace(self, state=after(self.state, events), uncommitted=(*self.uncommitted, *events))

    def __repr__(self) -> str:
        pending = f", {len(self.uncommitted)} uncommitted" if self.uncommitted else ""
        return f"<{self.stream} at version {self.version}{pending}: {self.state!r}>"

    def _repr_html_(self) -> str:
        pending = f", {len(self.uncommitted)} uncommitted" if self.uncommitted else ""
        head = f"<b>{display.escape(self.stream)}</b>"
        return display.card(
            head, display.fields(fields_of(self.state)), note=f"version {self.version}{pending}"
        )


def asked(decision: Callable[..., Any], state: State[Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a decision says. Raises InvalidArgument if it was called or written wrongly."""
    name = getattr(decision, "__qualname__", repr(decision))
    try:
        result = decision(state, *args, **kwargs)
    except TypeError:
        signature = inspect.signature(decision)
        try:
            signature.bind(state, *args, **kwargs)
        except TypeError as misfit:
            raise InvalidArgument(f"{name}{signature}: {misfit}") from None
        raise
    if result is None and isinstance(decision, FunctionType) and _forgot_return(decision):
        raise InvalidArgument(f"{name} makes an event and returns nothing: write return before it")
    return result


def _forgot_return(decision: FunctionType) -> bool:
    """Say whether a function names an event class and never returns a value."""
    code = decision.__code__
    known = (decision.__globals__.get(name) for name in code.co_names)
    if not any(isinstance(one, type) and issubclass(one, Event) for one in known):
        return False
    steps = list(dis.get_instructions(code))
    return all(
        (step.opname == "RETURN_CONST" or before.opname.startswith("LOAD_CONST"))
        and (step if step.opname == "RETURN_CONST" else before).argval is None
        for before, step in itertools.pairwise(steps)
        if step.opname in ("RETURN_VALUE", "RETURN_CONST")
    )


def decided(result: Decided) -> tuple[Event, ...]:
    """Return what a decision returned as a tuple of events. Raises InvalidArgument for anything else."""
    if result is None:
        return ()
    several = isinstance(result, Iterable) and not isinstance(result, Value | str | Mapping)
    events = cast("tuple[Event, ...]", tuple(result) if several else (result,))
    wrong = [event for event in events if not isinstance(event, Event)]
    if wrong:
        raise InvalidArgument(
            f"a decision returned {display.short(wrong[0])}: return an event, several, or None"
        )
    return events


def after(state: S, events: Iterable[Event]) -> S:
    """Return the state after freshly decided events, validated as a whole."""
    events = tuple(events)
    return fold(type(state), events, initial=state).checked() if events else state


def untouchable(state: S) -> S:
    """Return the state, or a deep copy where a container in it could be changed in place."""
    return deepcopy(state) if is_mutable(cast("Any", type(state))) else state


def exact_json(state: State[Any]) -> tuple[str | None, str | None]:
    """Return a state as JSON text from which exactly the same comes back, or None and why there is none."""
    name = type(state).__name__
    try:
        text = state.__pydantic_serializer__.to_json(state, by_alias=True, round_trip=True).decode()
        back = type(state).__pydantic_validator__.validate_json(text)
    except (PydanticSerializationError, ValidationError) as error:
        return None, f"{name} does not survive JSON ({display.cut(str(error).splitlines()[0], 100)})"
    for part, value in fields_of(state).items():
        if _exact(value) != _exact(getattr(back, part)):
            told = f"{part} is {display.short(value)}, and comes back as {display.short(getattr(back, part))}"
            return None, f"{name} does not survive JSON ({told})"
    return text, None


def _exact(value: object) -> object:
    """Return what tells a value from all others: its type at every depth, and a Decimal's trailing zeros."""
    if isinstance(value, BaseModel):
        return type(value), _exact(fields_of(value))
    if isinstance(value, Mapping):
        return type(value), [(_exact(key), _exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return type(value), [_exact(item) for item in value]
    if isinstance(value, AbstractSet):
        return type(value), sorted((_exact(item) for item in value), key=repr)
    return type(value), str(value) if isinstance(value, Decimal) else value


def state_stamp(state_type: type[State[Any]]) -> Stamp:
    """Return the stamp of a state's fold: `evolve` with what it leans on, the fields, the events' shapes."""
    events = state_type.event_types()
    names = [one.event_type for one in events]
    return stamp(state_type, state_type.evolve, *names, *events, *code(names))
