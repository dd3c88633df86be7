"""What every store promises, and all of it that does not depend on where the events are kept.

An append is prepared (encoded, tagged, given its context) outside any lock, then admitted under the store's
one writer lock: expected versions and the append condition are checked, positions, versions, ids and times
assigned, and all rows written or none. A backend supplies a handful of hooks at the end of `Store`.

References: the dynamic consistency boundary, dcb.events (queries, tags, append conditions).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload
from uuid import UUID

from esim import display
from esim.clock import Clock, Ids, RandomIds, SystemClock, micros, utc
from esim.errors import (
    ConditionFailed,
    Conflict,
    DuplicateEventId,
    InvalidArgument,
    ReadOnlyStore,
)
from esim.event import Event, NewEvent, RecordedEvent, Row, context, encode, tags_of, type_name

if TYPE_CHECKING:
    import pandas as pd

Expected = int | Literal["no_stream", "stream_exists", "any"]
Moment = int | datetime
Types = str | type[Event] | Iterable[str | type[Event]]
Events = Event | NewEvent | Iterable[Event | NewEvent]


# --- queries -----------------------------------------------------------------------------------------------


def _names(types: Types | None) -> tuple[str, ...]:
    if types is None:
        return ()
    return (type_name(types),) if isinstance(types, str | type) else tuple(type_name(one) for one in types)


def _tags(tags: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)


@dataclass(frozen=True)
class QueryItem:
    """Matches an event of any of `types` (any type if empty) that carries all of `tags`."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", _names(self.types))
        object.__setattr__(self, "tags", _tags(self.tags))
        if not self.types and not self.tags:
            raise InvalidArgument("a query item with neither types nor tags: name one, or use Query.all()")

    def matches(self, type: str, tags: Iterable[str]) -> bool:
        """Say whether an event of this type with these tags matches."""
        return (not self.types or type in self.types) and set(self.tags) <= set(tags)


class Query:
    """Which events matter to a decision: those that match any of its items.

    >>> Query.of(types=["CourseDefined"], tags=["course:c1"]).matches("CourseDefined", ["course:c1"])
    True
    """

    def __init__(self, *items: QueryItem) -> None:
        """Combine items: an event matches if it matches one of them."""
        self.items = items

    @classmethod
    def of(cls, types: Types | None = None, tags: str | Iterable[str] | None = None) -> Query:
        """Return a query of one item. Raises InvalidArgument if both are empty."""
        return cls(QueryItem(_names(types), _tags(tags)))

    @classmethod
    def all(cls) -> Query:
        """Return the query that every event matches."""
        return cls()

    def matches(self, type: str, tags: Iterable[str]) -> bool:
        """Say whether an event of this type with these tags matches."""
        return not self.items or any(item.matches(type, tags) for item in self.items)

    def __or__(self, other: Query) -> Query:
        return Query(*self.items, *other.items) if self.items and other.items else Query()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"Query({', '.join(map(repr, self.items))})" if self.items else "Query.all()"


@dataclass(frozen=True)
class Condition:
    """An append condition: fail if an event that matches `query` was recorded after position `after`."""

    query: Query
    after: int = 0


@dataclass(frozen=True)
class Write:
    """Events for one stream with the version it is expected to be at."""

    stream: str
    events: Events
    expected: Expected = "any"


@dataclass(frozen=True)
class Filter:
    """Which recorded events a reading wants; bounds are `after` (exclusive) and `until` (inclusive)."""

    stream: str | None = None
    category: str | None = None
    query: Query = field(default_factory=Query)
    after: int = 0
    until: int | None = None
    after_version: int = 0
    until_version: int | None = None
    backward: bool = False
    limit: int | None = None

    def admits(self, row: Row) -> bool:
        """Say whether a stored row passes, leaving `limit` and the order aside."""
        return (
            (self.stream is None or row[1] == self.stream)
            and (self.category is None or row[1].partition("/")[0] == self.category)
            and row[0] > self.after
            and (self.until is None or row[0] <= self.until)
            and row[2] > self.after_version
            and (self.until_version is None or row[2] <= self.until_version)
            and self.query.matches(row[3], row[12] or ())
        )


class Snapshot(NamedTuple):
    """A state saved at a version of its stream, with the stamp of the fold that made it."""

    stream: str
    version: int
    stamp: str
    state: str


# --- results -----------------------------------------------------------------------------------------------


class Recorded(Sequence[RecordedEvent[Any]]):
    """The events of one append as recorded, in order of position."""

    def __init__(self, rows: Sequence[Row], events: Sequence[Event] | None = None) -> None:
        """Wrap stored rows and, where at hand, their typed events."""
        self._rows = rows
        self._events = events

    @overload
    def __getitem__(self, index: int) -> RecordedEvent[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Recorded: ...
    def __getitem__(self, index: int | slice) -> RecordedEvent[Any] | Recorded:
        if isinstance(index, slice):
            return Recorded(self._rows[index], self._events[index] if self._events else None)
        return RecordedEvent(self._rows[index], self._events[index] if self._events else None)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"[{', '.join(repr(one) for one in self[:5])}{', …' if len(self) > 5 else ''}]"

    def _repr_html_(self) -> str:
        return events_table(self[:10], len(self))


class Selection:
    """Recorded events that match a reading: iterate (again and again), count with `len`, or take `df()`."""

    def __init__(self, store: Store, wanted: Filter) -> None:
        """Ask `store` for the events that `wanted` describes; nothing is read until it is used."""
        self._store = store
        self._wanted = wanted

    def __iter__(self) -> Iterator[RecordedEvent[Any]]:
        for rows in self._store._scan(self._wanted):
            yield from map(RecordedEvent, rows)

    def __len__(self) -> int:
        count = self._store._count(self._wanted)
        return count if self._wanted.limit is None else min(count, self._wanted.limit)

    def __bool__(self) -> bool:
        return self.first() is not None

    def first(self) -> RecordedEvent[Any] | None:
        """Return the first event, or None."""
        return next(iter(Selection(self._store, replace(self._wanted, limit=1))), None)

    def last(self) -> RecordedEvent[Any] | None:
        """Return the last event, or None."""
        if self._wanted.limit is not None:
            return next(iter(list(self)[-1:]), None)
        return Selection(self._store, replace(self._wanted, backward=not self._wanted.backward)).first()

    def df(self) -> pd.DataFrame:
        """Return the events as a dataframe, one row each, columns as `Store.df` says."""
        return self._store._frame(self._wanted)

    def __repr__(self) -> str:
        count = len(self)
        return f"<{count:,} event{'' if count == 1 else 's'}>"

    def _repr_html_(self) -> str:
        few = replace(self._wanted, limit=min(self._wanted.limit or 10, 10))
        return events_table(Selection(self._store, few), len(self))


def events_table(events: Iterable[RecordedEvent[Any]], total: int) -> str:
    """Return recorded events as an HTML table that says how many of `total` it shows."""
    rows = [
        (str(one.position), display.escape(one.stream), str(one.version))
        + (display.badge(one.type), display.fields(one.data))
        for one in events
    ]
    more = f"the first {len(rows)} of {total:,} events" if total > len(rows) else ""
    return display.table(("position", "stream", "version", "event", "data"), rows, more)


# --- the store ---------------------------------------------------------------------------------------------


class Draft(NamedTuple):
    """One prepared event: its row but for position, version, id and recorded time, which admission assigns."""

    stream: str
    type: str
    schema_version: int
    data: str
    correlation_id: str | None
    causation_id: str | None
    user_id: str | None
    event_id: UUID | None
    occurred_at: int | None
    tags: tuple[str, ...]
    metadata: str | None
    event: Event


class Batch(NamedTuple):
    """One append on its way: drafts in order, what is expected of each run of them, and the condition."""

    drafts: list[Draft]
    runs: list[tuple[str, int, Expected]]
    condition: Condition | None


def stream_id(stream: str) -> str:
    """Return a stream id unchanged. Raises InvalidArgument unless it is text like `Order/o-1`."""
    if not isinstance(stream, str) or not stream.strip() or stream.startswith("/") or stream.endswith("/"):
        raise InvalidArgument(
            f"{stream!r} is not a stream id: write category, slash, id, such as 'Order/o-1'"
        )
    if "\0" in stream:
        raise InvalidArgument(f"stream id {stream!r} holds a NUL character: take it out")
    return stream


def _expected(value: Expected) -> Expected:
    named = value in ("no_stream", "stream_exists", "any")
    if not named and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidArgument(
            f"expected={value!r}: give a version (0 and up), 'no_stream', 'stream_exists' or 'any'"
        )
    return value


def _draft(stream: str, item: Event | NewEvent) -> Draft:
    new = item if isinstance(item, NewEvent) else None
    event = new.event if new else item
    if not isinstance(event, Event):
        raise InvalidArgument(f"{display.short(event)} is not an Event: append instances of Event classes")
    here = context()
    tags = tags_of(event)
    occurred = (new and new.occurred_at) or here.occurred_at
    extra = {**(here.extra or {}), **((new and new.metadata) or {})}
    return Draft(
        stream,
        event.event_type,
        event.schema_version,
        encode(event),
        (new and new.correlation_id) or here.correlation_id,
        (new and new.causation_id) or here.causation_id,
        (new and new.user_id) or here.user_id,
        new.event_id if new else None,
        micros(occurred) if occurred else None,
        tuple(dict.fromkeys((*tags, *new.tags))) if new and new.tags else tags,
        json.dumps(extra, default=str) if extra else None,
        event,
    )


def prepare(writes: Iterable[Write], condition: Condition | None) -> Batch:
    """Return writes encoded and checked as far as no store is needed. Raises InvalidArgument if one is empty."""
    drafts: list[Draft] = []
    runs: list[tuple[str, int, Expected]] = []
    for write in writes:
        stream = stream_id(write.stream)
        items = (write.events,) if isinstance(write.events, Event | NewEvent) else tuple(write.events)
        if not items:
            raise InvalidArgument(f"nothing to append to {stream!r}: give at least one event")
        drafts += [_draft(stream, item) for item in items]
        runs.append((stream, len(items), _expected(write.expected)))
    if not drafts:
        raise InvalidArgument("nothing to append: give at least one write")
    return Batch(drafts, runs, condition)


class Store(ABC):
    """A log of events in streams; see the module's text for what it promises."""

    clock: Clock
    ids: Ids

    def __init__(self, clock: Clock | None = None, ids: Ids | None = None) -> None:
        """Take time from `clock` (the system's) and event ids from `ids` (random, version 7)."""
        self.clock = clock or SystemClock()
        self.ids = ids or RandomIds()
        self._last_recorded = 0

    def append(
        self,
        stream: str,
        events: Events,
        *,
        expected: Expected = "any",
        condition: Condition | None = None,
    ) -> Recorded:
        """Record one event or several in a stream, all or nothing, and return them as recorded.

        `expected` is the version the stream must be at, or a rule; `condition` must hold. Appending event ids
        that are there already, unchanged, writes nothing and returns the recorded ones.
        Raises Conflict, ConditionFailed, DuplicateEventId, InvalidArgument; then nothing is written.
        """
        return self.append_all((Write(stream, events, expected),), condition=condition)

    def append_all(self, writes: Iterable[Write], *, condition: Condition | None = None) -> Recorded:
        """Record events in several streams, all or nothing; positions follow the order of `writes`.

        Raises as `append` does.
        """
        return self._commit(prepare(writes, condition))

    def read(
        self,
        stream: str | None = None,
        *,
        category: str | None = None,
        type: Types | None = None,
        tag: str | Iterable[str] | None = None,
        query: Query | None = None,
        after: Moment | None = None,
        until: Moment | None = None,
        after_version: int = 0,
        until_version: int | None = None,
        backward: bool = False,
        limit: int | None = None,
    ) -> Selection:
        """Return the recorded events that match all that is given, in order of position (or `backward`).

        `type`: one or several (any of them); `tag`: one or several (all of them); `query`: instead of these two.
        `after` (exclusive) and `until` (inclusive): a position, or an aware time compared with `recorded_at`.
        Raises InvalidArgument for a naive time or for `query` beside `type` or `tag`.
        """
        if query is not None and (type is not None or tag is not None):
            raise InvalidArgument("give either query, or type and tag: a query says both")
        if limit is not None and limit < 0:
            raise InvalidArgument(f"limit={limit}: it cannot be negative")
        wanted = Query.of(type, tag) if _names(type) or _tags(tag) else query or Query()
        bounds = self._bound(after) or 0, self._bound(until)
        versions = after_version, until_version
        return Selection(self, Filter(stream, category, wanted, *bounds, *versions, backward, limit))

    def df(self, stream: str | None = None, **wanted: Any) -> pd.DataFrame:
        """Return events as a dataframe, filtered as in `read`; one row per event, in order of position.

        Columns: position, stream, version, type, data (JSON text), recorded_at and occurred_at (UTC), tags,
        correlation_id, causation_id, user_id, event_id, schema_version, metadata.
        """
        return self.read(stream, **wanted).df()

    def position_at(self, moment: Moment) -> int:
        """Return the last position at a moment: itself (not beyond the head), or by an aware recorded time."""
        if isinstance(moment, datetime):
            return self._position_at(micros(utc(moment)))
        if isinstance(moment, bool) or not isinstance(moment, int) or moment < 0:
            raise InvalidArgument(
                f"{moment!r} is not a moment: give a position (0 and up) or an aware datetime"
            )
        return min(moment, self.position)

    def as_of(self, moment: Moment) -> Store:
        """Return the store as it was at a position or recorded time: same reading, no writing."""
        return AsOf(self, self.position_at(moment))

    def _bound(self, moment: Moment | None) -> int | None:
        return (
            None if moment is None else self.position_at(moment) if isinstance(moment, datetime) else moment
        )

    def _frame(self, wanted: Filter) -> pd.DataFrame:
        rows = [row for window in self._scan(wanted) for row in window]
        return frame(rows)

    def _admit(self, batch: Batch) -> tuple[list[Row], bool]:
        """Return the rows of a batch and whether they are new; the writer lock is held."""
        known = self._repeated(batch)
        if known is not None:
            return known, False
        if batch.condition is not None:
            found = self._last_match(batch.condition.query, batch.condition.after)
            if found:
                raise ConditionFailed(batch.condition.query, batch.condition.after, found)
        heads = self._heads({stream for stream, _, _ in batch.runs})
        for stream, count, expected in batch.runs:
            check(stream, expected, heads[stream])
            heads[stream] += count
        return self._assign(batch, heads), True

    def _assign(self, batch: Batch, heads: dict[str, int]) -> list[Row]:
        now = self.clock.now()
        recorded = max(micros(now), self._last_recorded)
        drafts = batch.drafts
        fresh = iter(self.ids(now, sum(1 for draft in drafts if draft.event_id is None)))
        versions = dict(heads)
        for stream, count, _ in batch.runs:
            versions[stream] -= count
        rows: list[Row] = []
        for position, draft in enumerate(drafts, self._next_position()):
            version = versions[draft[0]] = versions[draft[0]] + 1
            row = (position, draft[0], version, *draft[1:7], draft[7] or next(fresh), recorded, *draft[8:11])
            rows.append(row)
        return rows

    def _repeated(self, batch: Batch) -> list[Row] | None:
        """Return the recorded rows if every event of the batch is there already, or None if all are new."""
        given = [draft.event_id for draft in batch.drafts if draft.event_id is not None]
        if not given:
            return None
        if len(set(given)) < len(given):
            raise DuplicateEventId("one append names the same event id twice: give each event its own")
        known = self._find(given)
        if not known:
            return None
        return [_same(draft, known) for draft in batch.drafts]

    def _next_position(self) -> int:
        return self.position + 1

    # --- what a backend supplies ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def position(self) -> int:
        """The position of the last event; 0 in an empty store."""

    @abstractmethod
    def version(self, stream: str) -> int:
        """Return the version a stream is at; 0 if it does not exist."""

    @abstractmethod
    def streams(self, category: str | None = None) -> list[str]:
        """Return the stream ids (of one category) in order of their first event."""

    @abstractmethod
    def payloads(
        self, stream: str, after: int = 0, until: int | None = None, position: int | None = None
    ) -> list[tuple[int, str, int, str]]:
        """Return (version, type, schema version, JSON text) of a stream's events in order of version.

        `after` (exclusive) and `until` (inclusive) are versions; `position` (inclusive) bounds the log.
        """

    @abstractmethod
    def snapshot(self, stream: str) -> Snapshot | None:
        """Return the latest snapshot of a stream, or None."""

    @abstractmethod
    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the stream's former one."""

    @abstractmethod
    def sql(self, query: str, params: Sequence[object] | dict[str, object] | None = None) -> pd.DataFrame:
        """Return the rows of one reading SQL statement as a dataframe.

        Tables: `events`, one per event type (its payload as typed columns), and each projection's. Decimals stay
        exact, times are UTC. Raises SqlRefused for anything that is not a single reading statement.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; every later use raises StoreClosed. Closing twice is fine."""

    @abstractmethod
    def _commit(self, batch: Batch) -> Recorded: ...
    @abstractmethod
    def _heads(self, streams: set[str]) -> dict[str, int]: ...
    @abstractmethod
    def _find(self, event_ids: list[UUID]) -> dict[UUID, Row]: ...
    @abstractmethod
    def _last_match(self, query: Query, after: int) -> int: ...
    @abstractmethod
    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]: ...
    @abstractmethod
    def _count(self, wanted: Filter) -> int: ...
    @abstractmethod
    def _position_at(self, recorded: int) -> int: ...
    @abstractmethod
    def _sql_as_of(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int
    ) -> pd.DataFrame: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check(stream: str, expected: Expected, actual: int) -> None:
    """Raise Conflict unless a stream at version `actual` is as expected."""
    fine = {"any": True, "no_stream": actual == 0, "stream_exists": actual > 0}
    if not fine.get(str(expected), expected == actual):
        raise Conflict(stream, expected, actual)


def _same(draft: Draft, known: dict[UUID, Row]) -> Row:
    row = known.get(draft.event_id) if draft.event_id else None
    if row is None:
        raise DuplicateEventId(
            f"some event ids of this append are recorded already and others are not ({draft.type} in "
            f"{draft.stream!r} is new): repeat an append whole, or give new events new ids"
        )
    if (row[1], row[3], json.loads(row[5])) != (draft.stream, draft.type, json.loads(draft.data)):
        raise DuplicateEventId(
            f"event id {draft.event_id} is taken by {row[3]} in {row[1]!r} at position {row[0]}, which is another "
            "event: give this one its own id"
        )
    return row


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return stored rows as the dataframe that `Store.df` documents."""
    import pandas as pd

    names = RecordedEvent.COLUMNS
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: () for name in names}
    table = pd.DataFrame(
        {name: pd.Series(values, dtype=_DTYPES.get(name, "object")) for name, values in columns.items()}
    )
    for name in ("recorded_at", "occurred_at"):
        table[name] = pd.to_datetime(table[name].astype("Int64"), unit="us", utc=True).astype(
            "datetime64[us, UTC]"
        )
    return table[list(FRAME)]


FRAME = (
    *(
        "position",
        "stream",
        "version",
        "type",
        "data",
        "recorded_at",
        "occurred_at",
        "tags",
        "correlation_id",
    ),
    *("causation_id", "user_id", "event_id", "schema_version", "metadata"),
)
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("position", "version", "schema_version", "recorded_at"), "int64"),
    **dict.fromkeys(
        ("stream", "type", "data", "correlation_id", "causation_id", "user_id", "metadata"), "str"
    ),
    "occurred_at": "Int64",
}


class AsOf(Store):
    """A store as it was at a position: every reading stops there, every writing is refused."""

    def __init__(self, store: Store, position: int) -> None:
        """Look at `store` up to `position`."""
        super().__init__(store.clock, store.ids)
        self._store = store
        self._position = position

    @property
    def position(self) -> int:
        """The position this view stops at."""
        return self._position

    def version(self, stream: str) -> int:
        """Return the version a stream was at; 0 if it did not exist yet."""
        found = self.payloads(stream)
        return found[-1][0] if found else 0

    def streams(self, category: str | None = None) -> list[str]:
        """Return the stream ids (of one category) that existed, in order of their first event."""
        return [name for name in self._store.streams(category) if self.version(name)]

    def payloads(
        self, stream: str, after: int = 0, until: int | None = None, position: int | None = None
    ) -> list[tuple[int, str, int, str]]:
        """Return a stream's payloads as `Store.payloads` does, up to this view's position."""
        bound = self._position if position is None else min(position, self._position)
        return self._store.payloads(stream, after, until, bound)

    def snapshot(self, stream: str) -> Snapshot | None:
        """Return None: snapshots are of the present."""
        return None

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Raise ReadOnlyStore."""
        raise ReadOnlyStore(self._refusal())

    def sql(self, query: str, params: Sequence[object] | dict[str, object] | None = None) -> pd.DataFrame:
        """Return the rows of a reading statement over the log as it was; see `Store.sql`."""
        return self._store._sql_as_of(query, params, self._position)

    def close(self) -> None:
        """Do nothing: the store this looks at stays open."""

    def _refusal(self) -> str:
        return (
            f"this is the store as of position {self._position}, and the past takes no writes: use the store"
        )

    def _commit(self, batch: Batch) -> Recorded:
        raise ReadOnlyStore(self._refusal())

    def _heads(self, streams: set[str]) -> dict[str, int]:
        return {stream: self.version(stream) for stream in streams}

    def _find(self, event_ids: list[UUID]) -> dict[UUID, Row]:
        return {key: row for key, row in self._store._find(event_ids).items() if row[0] <= self._position}

    def _last_match(self, query: Query, after: int) -> int:
        last = Selection(self, Filter(query=query, after=after, backward=True)).first()
        return last.position if last else 0

    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]:
        return self._store._scan(self._bounded(wanted))

    def _count(self, wanted: Filter) -> int:
        return self._store._count(self._bounded(wanted))

    def _frame(self, wanted: Filter) -> pd.DataFrame:
        return self._store._frame(self._bounded(wanted))

    def _bounded(self, wanted: Filter) -> Filter:
        until = self._position if wanted.until is None else min(wanted.until, self._position)
        return replace(wanted, until=until)

    def _position_at(self, recorded: int) -> int:
        return min(self._store._position_at(recorded), self._position)

    def _sql_as_of(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int
    ) -> pd.DataFrame:
        return self._store._sql_as_of(query, params, min(until, self._position))

    def __repr__(self) -> str:
        return f"<{self._store!r} as of position {self._position}>"
