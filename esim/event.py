"""An event is a frozen, typed fact; recording puts it into an envelope.

The class says the shape, a registry maps stored type names to the latest class of that name, and a context
carries who, why and when. A log is readable without its classes: a recorded event holds the JSON text, and
decodes it only when `.event` is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import UUID

from pydantic import ValidationError

from esim import display
from esim.clock import from_micros, utc
from esim.errors import EsimError, InvalidArgument, InvalidEvent, UnknownEventType
from esim.value import Value, explain, refuse_hiding

E_co = TypeVar("E_co", bound="Event", covariant=True)


class Tag:
    """Marks a field whose value becomes a tag: `customer: Annotated[str, Tag()]` gives `customer:alice`.

    The tag's key is the field's name unless another is given; a tuple or list gives one tag per item. Only an
    event's own fields give tags, not those of a `Value` inside it.
    """

    def __init__(self, key: str | None = None) -> None:
        """Use `key` in place of the field's name."""
        self.key = key

    def __repr__(self) -> str:
        return f"Tag({self.key!r})" if self.key else "Tag()"


_SHAPES = 32_767  # what the store's column holds
_by_type: dict[str, type[Event]] = {}
_by_name: dict[tuple[str, str], type[Event]] = {}


class Event(Value):
    """A fact that happened, in the past tense: `class OrderPaid(Event): amount: Money`.

    The stored type name is the class name, or `class OrderPaid(Event, type="order.paid")`; `schema_version`
    counts the shapes that this type has had. Defining a class again replaces the former one.
    """

    event_type: ClassVar[str] = "Event"
    schema_version: ClassVar[int] = 1
    _tagged: ClassVar[tuple[tuple[str, str], ...]] = ()
    _instead: ClassVar[str] = "record another event"

    def __init_subclass__(cls, *, type: str | None = None, schema_version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(schema_version, int) or not 1 <= schema_version <= _SHAPES:
            raise InvalidArgument(
                f"{cls.__name__}: schema_version is {schema_version!r}; it counts 1, 2, 3, …"
            )
        if type is not None and (not isinstance(type, str) or not type.strip() or "\0" in type):
            raise InvalidArgument(f"{cls.__name__}: type is {type!r}; write a name, such as 'order.paid'")
        cls.event_type = type or cls.__name__
        cls.schema_version = schema_version

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        refuse_hiding(cls, Event)
        marks = ((name, mark) for name, field in cls.__pydantic_fields__.items() for mark in field.metadata)
        cls._tagged = tuple((name, mark.key or name) for name, mark in marks if isinstance(mark, Tag))
        _by_type[cls.event_type] = cls
        _by_name[cls.__module__, cls.__qualname__] = cls
        note_definition()

    def _repr_html_(self) -> str:
        return display.card(display.badge(self.event_type), display.fields(self.__dict__))


# --- the registry ------------------------------------------------------------------------------------------


def event_class(name: str) -> type[Event]:
    """Return the latest class of a stored type name. Raises UnknownEventType if it is not defined here."""
    try:
        return _by_type[name]
    except KeyError:
        raise UnknownEventType(
            f"no class for event type {name!r} is defined in this process"
            f"{display.did_you_mean(name, list(_by_type))}; define or import it, or read `.data` as a dict"
        ) from None


def known_events() -> dict[str, type[Event]]:
    """Return every event class defined in this process, by stored type name."""
    return dict(_by_type)


def current(cls: type[Event]) -> type[Event]:
    """Return the latest definition of a class: the same one, unless its cell was run again."""
    return _by_name.get((cls.__module__, cls.__qualname__), cls)


_definitions = 0


def note_definition() -> None:
    """Count one more definition of an event or a state, so that caches of classes know when to look again."""
    global _definitions  # noqa: PLW0603 - one registry in a process, as the classes themselves
    _definitions += 1


def definitions() -> int:
    """Return how many events and states were defined so far in this process."""
    return _definitions


def type_name(event: str | type[Event]) -> str:
    """Return the stored type name of a class, or the name itself."""
    return event if isinstance(event, str) else event.event_type


def renewed(event: Event) -> Event:
    """Return the event as an instance of the latest definition of its class."""
    latest = current(type(event))
    return event if type(event) is latest else latest(**dict(event))


def decode(type: str, text: str, cls: type[Event] | None = None) -> Event:
    """Return the event of a stored payload `text`, by `cls` or by the class registered for its `type`.

    Raises UnknownEventType without a class, and InvalidEvent if the payload does not fit it.
    """
    found = cls or event_class(type)
    try:
        return found.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InvalidEvent(f"stored payload {display.short(text)}: {explain(found, error)}") from None


def encode(event: Event) -> str:
    """Return the payload of an event as the JSON text that is stored; Decimals are exact strings."""
    return event.__pydantic_serializer__.to_json(event).decode()


def tags_of(event: Event) -> tuple[str, ...]:
    """Return the tags that the event's marked fields give (`film:Alien`), in the order of the fields."""
    found: list[str] = []
    for name, key in event._tagged:
        value = getattr(event, name)
        items = value if isinstance(value, list | tuple | set | frozenset) else [value]
        found += [f"{key}:{item}" for item in items if item is not None]
    return tuple(dict.fromkeys(found))


# --- the envelope ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event on its way into a store, with what its envelope shall say; None leaves it to the context."""

    event: Event
    event_id: UUID | None = None
    occurred_at: datetime | None = None
    tags: tuple[str, ...] = ()
    correlation_id: str | None = None
    causation_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.event, Event):
            raise InvalidArgument(
                f"{display.short(self.event)} is not an Event: make an instance of your class"
            )
        if self.occurred_at is not None:
            object.__setattr__(self, "occurred_at", utc(self.occurred_at))
        if self.event_id is not None and not isinstance(self.event_id, UUID):
            object.__setattr__(self, "event_id", _uuid(self.event_id))
        object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))
        for name in ("correlation_id", "causation_id", "user_id"):
            object.__setattr__(self, name, _text(getattr(self, name)))


def _uuid(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidArgument(
            f"event_id={value!r} is not a UUID: pass uuid.UUID(…), or leave it out"
        ) from None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Context:
    """What the envelope of each event says that is appended inside `metadata(...)` or `caused_by(...)`."""

    correlation_id: str | None = None
    causation_id: str | None = None
    user_id: str | None = None
    occurred_at: datetime | None = None
    extra: Mapping[str, Any] | None = None


_context: ContextVar[Context] = ContextVar("esim_context", default=Context())  # noqa: B039 - it is frozen


def context() -> Context:
    """Return the context in force in this thread or task."""
    return _context.get()


@contextmanager
def metadata(
    *,
    user_id: str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    occurred_at: datetime | str | None = None,
    **extra: Any,
) -> Iterator[Context]:
    """Say who, why and when for every event appended in this block; inner blocks add to outer ones.

    `occurred_at` is aware. Other keywords go into the envelope's `metadata` as JSON.
    """
    outer = _context.get()
    merged = Context(
        _text(correlation_id) or outer.correlation_id,
        _text(causation_id) or outer.causation_id,
        _text(user_id) or outer.user_id,
        utc(occurred_at) if occurred_at is not None else outer.occurred_at,
        {**(outer.extra or {}), **extra} or None,
    )
    token = _context.set(merged)
    try:
        yield merged
    finally:
        _context.reset(token)


@contextmanager
def caused_by(recorded: RecordedEvent[Event]) -> Iterator[Context]:
    """Make `recorded` the cause of every event appended in this block, in the same correlation."""
    cause = str(recorded.event_id)
    with metadata(causation_id=cause, correlation_id=recorded.correlation_id or cause) as inner:
        yield inner


Row = tuple[
    int,
    str,
    int,
    str,
    int,
    str,
    str | None,
    str | None,
    str | None,
    "UUID | None",
    int,
    "int | None",
    Any,
    Any,
]
"""The stored columns of one event, in `RecordedEvent.COLUMNS` order; times are microseconds of UTC."""


class RecordedEvent(Generic[E_co]):
    """An event and its envelope, as recorded: never changes, decodes its payload when asked.

    `position` counts the whole log from 1, `version` its stream from 1; `recorded_at` and `occurred_at` are
    aware UTC; `json` is the stored payload text, `data` the same as a dict, `event` the typed event.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("position", "stream", "version", "type", "schema_version", "data"),
        *("correlation_id", "causation_id", "user_id", "event_id", "recorded_at", "occurred_at"),
        *("tags", "metadata"),
    )
    __slots__ = ("_event", "_row")

    def __init__(self, row: Row, event: Event | None = None) -> None:
        """Wrap a stored `row`; `event` is its decoded payload where it is at hand."""
        self._row = row
        self._event = event

    @property
    def position(self) -> int:
        """The place in the whole log, from 1."""
        return self._row[0]

    @property
    def stream(self) -> str:
        """The stream id, `category/id`."""
        return self._row[1]

    @property
    def category(self) -> str:
        """The part of the stream id before the first slash."""
        return self._row[1].partition("/")[0]

    @property
    def id(self) -> str:
        """The part of the stream id after the first slash (the whole where there is none)."""
        category, slash, rest = self._row[1].partition("/")
        return rest if slash else category

    @property
    def version(self) -> int:
        """The place in the stream, from 1."""
        return self._row[2]

    @property
    def type(self) -> str:
        """The stored type name."""
        return self._row[3]

    @property
    def schema_version(self) -> int:
        """Which shape of the type the payload has, from 1."""
        return self._row[4]

    @property
    def json(self) -> str:
        """The payload as stored: JSON text."""
        return self._row[5]

    @property
    def data(self) -> dict[str, Any]:
        """The payload as a dict; needs no class."""
        return cast("dict[str, Any]", json.loads(self._row[5]))

    @property
    def event(self) -> E_co:
        """The typed event. Raises UnknownEventType if its class is not defined here."""
        if self._event is None:
            self._event = decode(self._row[3], self._row[5])
        return cast("E_co", self._event)

    @property
    def correlation_id(self) -> str | None:
        """What larger story this event belongs to."""
        return self._row[6]

    @property
    def causation_id(self) -> str | None:
        """The id of the event (or command) that directly caused this one."""
        return self._row[7]

    @property
    def user_id(self) -> str | None:
        """On whose behalf it was recorded."""
        return self._row[8]

    @property
    def event_id(self) -> UUID:
        """The event's own id; appending the same id again changes nothing."""
        value = self._row[9]
        return value if isinstance(value, UUID) else UUID(str(value))

    @property
    def recorded_at(self) -> datetime:
        """When the store recorded it, aware UTC; never goes back along positions."""
        return from_micros(self._row[10])

    @property
    def occurred_at(self) -> datetime | None:
        """When it happened in the world, aware UTC, where that was said."""
        return None if self._row[11] is None else from_micros(self._row[11])

    @property
    def tags(self) -> tuple[str, ...]:
        """The event's tags, for append conditions and queries."""
        return tuple(self._row[12] or ())

    @property
    def metadata(self) -> dict[str, Any]:
        """Everything else the context said, as a dict."""
        value = self._row[13]
        return dict(json.loads(value)) if isinstance(value, str) else {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedEvent):
            return NotImplemented
        return self.event_id == other.event_id and self._row[:6] == other._row[:6]

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        where = f"{self.stream} version {self.version}, position {self.position}"
        try:
            return f"{self.event!r}  # {where}"
        except EsimError:  # its class is not here: show what is stored
            return f"{self.type}({display.arguments(self.data)})  # {where}"

    def _repr_html_(self) -> str:
        where = f"{self.stream} · version {self.version} · position {self.position}"
        return display.card(display.badge(self.type), display.fields(self.data), note=where)


def batch_decoder(
    classes: Iterable[type[Event]],
) -> Callable[[Sequence[str], Sequence[str]], Iterator[Event]]:
    """Return a function that decodes columns of type names and payload texts by the given classes.

    The latest definition of each class is used. Raises as `decode`, and UnknownEventType for a type outside.
    """
    latest = {cls.event_type: current(cls) for cls in classes}
    validators = {name: cls.__pydantic_validator__.validate_json for name, cls in latest.items()}

    def decode_all(types: Sequence[str], texts: Sequence[str]) -> Iterator[Event]:
        for name, text in zip(types, texts, strict=True):
            try:
                yield validators[name](text)
            except (KeyError, ValidationError):
                yield decode(name, text, _among(latest, name))

    return decode_all


def _among(latest: Mapping[str, type[Event]], name: str) -> type[Event]:
    if name not in latest:
        raise UnknownEventType(
            f"event type {name!r} is not among {', '.join(sorted(latest))}: "
            "add its class to the union of events, or read only the others"
        )
    return latest[name]
