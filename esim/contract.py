"""What every store promises, and all of it that does not depend on where the events are kept.

An append is prepared (encoded, tagged, given its context) outside any lock, then admitted under the store's
one writer lock: expected versions and the append condition are checked, positions, versions, ids and times
assigned, and all rows written or none. A backend supplies a handful of hooks at the end of `Store`.

References: the dynamic consistency boundary, dcb.events (queries, tags, append conditions).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

from esim.arguments import storable, whole
from esim.clock import Clock, Ids, RandomIds, SystemClock, micros, utc
from esim.envelope import Row
from esim.errors import ConditionFailed, DuplicateEventId, InvalidArgument, ReadOnlyStore
from esim.query import Condition, Filter, Query, Types, tag_names, type_names
from esim.reading import Recorded, Selection, frame
from esim.upcast import read_as, roads
from esim.writing import Batch, Events, Expected, Write, check, prepare, same

if TYPE_CHECKING:
    import pandas as pd

Moment = int | datetime
Payload = tuple[int, str, int, str]
"""A version, and the type, schema version and JSON text of what happened then."""


class Snapshot(NamedTuple):
    """A state saved at a version of its stream, with the stamp of the fold that made it."""

    stream: str
    version: int
    stamp: str
    state: str


class Store(ABC):
    """A log of events in streams; see the module's text for what it promises."""

    clock: Clock
    ids: Ids
    era = 0
    """How often the log was put back to an earlier one: what is cached of it counts in one era only."""

    def __init__(self, clock: Clock | None = None, ids: Ids | None = None) -> None:
        """Take time from `clock` (the system's) and event ids from `ids` (random, version 7)."""
        self.clock = SystemClock() if clock is None else clock
        self.ids = RandomIds() if ids is None else ids
        if not callable(getattr(self.clock, "now", None)):
            raise InvalidArgument(f"clock={clock!r} has no now(): pass a ManualClock, or leave it out")
        if not callable(self.ids):
            raise InvalidArgument(f"ids={ids!r} makes no ids: pass SeededIds(…), or leave it out")
        self._last_recorded = 0
        self._listeners: list[Callable[[], None]] = []

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
        recorded = self._commit(prepare(writes, condition))
        for listener in tuple(self._listeners):
            listener()
        return recorded

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

        `type`: one or several (any of them); `tag`: one or several (all of them); `query` in their place.
        `after` (exclusive) and `until` (inclusive): a position, or an aware time compared with `recorded_at`.
        Raises InvalidArgument for a naive time or for `query` beside `type` or `tag`.
        """
        if query is not None and (type is not None or tag is not None):
            raise InvalidArgument("give either query, or type and tag: a query says both")
        if not isinstance(query, Query | None):
            raise InvalidArgument(f"query={query!r}: write Query.of(types=…, tags=…)")
        if type is not None and not type_names(type):
            raise InvalidArgument(f"type={type!r} names no type: leave it out to read events of every type")
        stream = stream if stream is None else storable(stream, "stream")
        category = category if category is None else storable(category, "category")
        wanted = Query.of(type, tag) if type_names(type) or tag_names(tag) else query or Query()
        bounds = self._bound(after) or 0, self._bound(until)
        upper = None if until_version is None else whole(until_version, "until_version")
        versions = whole(after_version, "after_version"), upper
        most = None if limit is None else whole(limit, "limit")
        return Selection(self, Filter(stream, category, wanted, *bounds, *versions, backward, most))

    def df(self, stream: str | None = None, **wanted: Any) -> pd.DataFrame:
        """Return events as a dataframe, filtered as in `read`; one row per event, in order of position.

        Columns: position, stream, version, type, data (JSON text), recorded_at and occurred_at (UTC), tags,
        correlation_id, causation_id, user_id, event_id, schema_version, metadata.
        """
        return self.read(stream, **wanted).df()

    def position_at(self, moment: Moment) -> int:
        """Return the last position at a moment: itself (up to the head), or by an aware recorded time."""
        if isinstance(moment, datetime):
            return self._position_at(micros(utc(moment)))
        return min(_position(moment), self.position)

    def as_of(self, moment: Moment) -> Store:
        """Return the store as it was at a position or recorded time: same reading, no writing."""
        return AsOf(self, self.position_at(moment))

    def _bound(self, moment: Moment | None) -> int | None:
        if moment is None or isinstance(moment, datetime):
            return None if moment is None else self.position_at(moment)
        return _position(moment)

    def _frame(self, wanted: Filter) -> pd.DataFrame:
        rows = [row for window in self._scan(wanted) for row in window]
        return frame(rows)

    def _admit(self, batch: Batch) -> tuple[list[Row], bool]:
        """Return the rows of a batch and whether they are new; the writer lock is held."""
        known = self._repeated(batch)
        if known is not None:
            return known, False
        if batch.condition is not None:
            leading = Filter(query=batch.condition.query).leading().query
            found = self._last_match(leading, batch.condition.after)
            if found:
                raise ConditionFailed(batch.condition.query, batch.condition.after, found)
        heads = self._heads({stream for stream, _, _ in batch.runs})
        for stream, count, expected in batch.runs:
            check(stream, expected, heads[stream])
            heads[stream] += count
        return self._assign(batch, heads), True

    def _assign(self, batch: Batch, heads: dict[str, int]) -> list[Row]:
        now = self.clock.now()
        recorded = max(micros(now if now.tzinfo is UTC else utc(now)), self._last_recorded)
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
        return [same(draft, known) for draft in batch.drafts]

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
    def streams(self, category: str | None = None, position: int | None = None) -> list[str]:
        """Return the stream ids (of one category) in order of their first event, up to a `position`."""

    def payloads(
        self, stream: str, after: int = 0, until: int | None = None, position: int | None = None
    ) -> list[Payload]:
        """Return (version, type, schema version, JSON text) of a stream's events in order of version.

        They are as upcasters leave them. `after` (exclusive) and `until` (inclusive) are versions; `position`
        (inclusive) bounds the log.
        """
        stored = self._payloads(stream, max(after, 0), until, position)
        return [(row[0], *read) for row in stored for read in read_as(*row[1:])] if roads() else stored

    @abstractmethod
    def snapshot(self, stream: str) -> Snapshot | None:
        """Return the latest snapshot of a stream, or None."""

    @abstractmethod
    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the stream's former one."""

    @abstractmethod
    def sql(self, query: str, params: Sequence[object] | dict[str, object] | None = None) -> pd.DataFrame:
        """Return the rows of one reading SQL statement as a dataframe.

        Tables: `events`, one per event type (its payload as typed columns), and each projection's. Decimals
        stay exact, times are UTC. Raises SqlRefused for anything that is not a single reading statement.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; every later use raises StoreClosed. Closing twice is fine."""

    @abstractmethod
    def _payloads(
        self, stream: str, after: int, until: int | None, position: int | None
    ) -> list[Payload]: ...
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


def must_be_store(store: Store) -> Store:
    """Return a store unchanged. Raises InvalidArgument for anything else."""
    if not isinstance(store, Store):
        raise InvalidArgument(f"{store!r} is no store: open one, as EventStore('shop.duckdb'), and pass that")
    return store


def _position(moment: int) -> int:
    return whole(moment, "moment", "give a position (0 and up) or an aware datetime")


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
        last = self.read(stream).last()
        return last.version if last else 0

    def streams(self, category: str | None = None, position: int | None = None) -> list[str]:
        """Return the stream ids (of one category) that existed, in order of their first event."""
        bound = self._position if position is None else min(position, self._position)
        return self._store.streams(category, bound)

    def _payloads(self, stream: str, after: int, until: int | None, position: int | None) -> list[Payload]:
        bound = self._position if position is None else min(position, self._position)
        return self._store._payloads(stream, after, until, bound)

    def snapshot(self, stream: str) -> Snapshot | None:  # noqa: ARG002 - the present's are of no use
        """Return None: snapshots are of the present."""
        return None

    def save_snapshot(self, snapshot: Snapshot) -> None:  # noqa: ARG002 - refused whatever it is
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

    def _commit(self, batch: Batch) -> Recorded:  # noqa: ARG002 - refused whatever it is
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
        return wanted._replace(until=until)

    def _position_at(self, recorded: int) -> int:
        return min(self._store._position_at(recorded), self._position)

    def _sql_as_of(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int
    ) -> pd.DataFrame:
        return self._store._sql_as_of(query, params, min(until, self._position))

    def __repr__(self) -> str:
        return f"<{repr(self._store).partition(':')[0].strip('<>')} as of position {self._position:,}>"
