"""The envelope of an event: what is said on its way in, and what a recorded event carries.

A context says who, why and when for all that is appended inside it. A recorded event holds the JSON text, and
decodes it only when `.event` is asked for, so that a log is readable without its classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast
from uuid import UUID, uuid5

from esim import display
from esim.arguments import all_storable, storable
from esim.clock import from_micros, utc
from esim.errors import EsimError, InvalidArgument
from esim.event import Event, decode

E_co = TypeVar("E_co", bound=Event, covariant=True)


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
        object.__setattr__(self, "tags", all_storable(self.tags, "tags"))
        if not isinstance(self.metadata, Mapping | None):
            raise InvalidArgument(f"metadata={self.metadata!r}: give a dict")
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
    return None if value is None else storable(str(value), "an id")


class Context(NamedTuple):
    """What the envelope of each event says that is appended inside `metadata(...)` or `caused_by(...)`."""

    correlation_id: str | None = None
    causation_id: str | None = None
    user_id: str | None = None
    occurred_at: datetime | None = None
    extra: Mapping[str, Any] | None = None
    key: str | None = None
    cause: Callable[[], RecordedEvent[Any] | None] | None = None


_context: ContextVar[Context] = ContextVar("esim_context", default=Context())  # noqa: B039 - it is frozen


def context() -> Context:
    """Return the context in force in this thread or task."""
    here = _context.get()
    if here.cause is None:
        return here
    recorded = here.cause()
    if recorded is None:
        return here._replace(cause=None)
    cause = str(recorded.event_id)
    correlation = here.correlation_id or recorded.correlation_id or cause
    return here._replace(causation_id=here.causation_id or cause, correlation_id=correlation, cause=None)


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
        outer.key,
        outer.cause,
    )
    token = _context.set(merged)
    try:
        yield merged
    finally:
        _context.reset(token)


@contextmanager
def caused_by(recorded: RecordedEvent[Event]) -> Iterator[Context]:
    """Make `recorded` the cause of every event appended in this block, in the same correlation."""
    if not isinstance(recorded, RecordedEvent):
        raise InvalidArgument(f"{display.short(recorded)} is no recorded event: give what a store returned")
    cause = str(recorded.event_id)
    with metadata(causation_id=cause, correlation_id=recorded.correlation_id or cause) as inner:
        yield inner


class Reacting:
    """A block in which what `cause` returns, if any, is the cause of each event; it is asked at an append."""

    def __init__(self, cause: Callable[[], RecordedEvent[Any] | None]) -> None:
        """Ask `cause`."""
        self._cause = cause
        self._outer: Context | None = None
        self._inner = Context(cause=cause)

    def __enter__(self) -> None:
        outer = _context.get()
        if outer is not self._outer:
            self._outer = outer
            self._inner = Context(user_id=outer.user_id, extra=outer.extra, cause=self._cause)
        self._token = _context.set(self._inner)

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Derive the ids of the events of the one append in this block from `key`: see `derived_id`."""
    token = _context.set(_context.get()._replace(key=key))
    try:
        yield
    finally:
        _context.reset(token)


def derived_id(key: str, number: int) -> UUID:
    """Return the id of the `number`-th event (from 0) that an append under `key` records."""
    return uuid5(_KEYED, f"{number} {key}")


_KEYED = UUID("6b1b1f2e-8a53-5c86-9d7e-0c6ff04ee3a4")

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
    aware UTC; `json` is the payload text, `data` the same as a dict, `event` the typed event. Where upcasters
    split one stored event into several, these share its envelope and differ in `part`.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("position", "stream", "version", "type", "schema_version", "data"),
        *("correlation_id", "causation_id", "user_id", "event_id", "recorded_at", "occurred_at"),
        *("tags", "metadata"),
    )
    __slots__ = ("_event", "_row", "part")

    def __init__(self, row: Row, event: Event | None = None, *, part: int = 0) -> None:
        """Wrap a stored `row`; `event` is its decoded payload where it is at hand."""
        self._row = row
        self._event = event
        self.part = part

    def _frozen_(self) -> tuple[Row, int]:
        """Return what it is, whether it was decoded or not."""
        return (*self._row[:12], tuple(self._row[12] or ()), *self._row[13:]), self.part

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

    def event_as(self, classes: Mapping[str, Any]) -> Event:
        """Return the typed event by the class of its type among `classes`, else by the one known here."""
        if self._event is None:
            row = self._row
            self._event = decode(row[3], row[5], classes.get(row[3]))
        return self._event

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
        return (self.event_id, self.part, self._row[:6]) == (other.event_id, other.part, other._row[:6])

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
