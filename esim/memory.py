"""A store in plain Python lists, for simulations and tests that need tens of thousands of fresh stores.

Same contract as the DuckDB store, no file, nothing to install. SQL is answered by a copy in DuckDB.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING
from uuid import UUID

from esim.arguments import storable
from esim.clock import Clock, Ids
from esim.contract import Payload, Snapshot, Store
from esim.envelope import Row
from esim.errors import StoreClosed
from esim.query import Filter, Query
from esim.reading import Recorded
from esim.writing import Batch

if TYPE_CHECKING:
    import pandas as pd


class MemoryStore(Store):
    """The whole log in this process's memory; gone when the object is."""

    def __init__(self, clock: Clock | None = None, ids: Ids | None = None) -> None:
        """Begin empty; time and ids as in `Store`."""
        super().__init__(clock, ids)
        self._rows: list[Row] = []
        self._streams: dict[str, list[Row]] = {}
        self._by_id: dict[UUID, Row] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._lock = RLock()
        self._closed = False

    @property
    def position(self) -> int:
        """The position of the last event; 0 in an empty store."""
        return len(self._open())

    def version(self, stream: str) -> int:
        """Return the version a stream is at; 0 if it does not exist."""
        self._open()
        return len(self._streams.get(storable(stream, "stream"), ()))

    def streams(self, category: str | None = None, position: int | None = None) -> list[str]:
        """Return the stream ids (of one category) in order of their first event, up to a `position`."""
        bound = len(self._open()) if position is None else position
        wanted = category if category is None else storable(category, "category")
        begun = [name for name, rows in list(self._streams.items()) if rows[0][0] <= bound]
        return [name for name in begun if wanted in (None, name.partition("/")[0])]

    def _payloads(self, stream: str, after: int, until: int | None, position: int | None) -> list[Payload]:
        self._open()
        rows = self._streams.get(stream, [])[after:until]
        return [row[2:6] for row in rows if position is None or row[0] <= position]

    def snapshot(self, stream: str) -> Snapshot | None:
        """Return the latest snapshot of a stream, or None."""
        self._open()
        return self._snapshots.get(stream)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the stream's former one."""
        self._open()
        self._snapshots[snapshot.stream] = snapshot

    def sql(self, query: str, params: Sequence[object] | dict[str, object] | None = None) -> pd.DataFrame:
        """Return the rows of a reading statement over a copy of the log in DuckDB; see `Store.sql`."""
        return self._sql_as_of(query, params, self.position)

    def close(self) -> None:
        """Refuse every later use."""
        self._closed = True

    def _open(self) -> list[Row]:
        if self._closed:
            raise StoreClosed("this store in memory is closed, and its events are gone: make a new one")
        return self._rows

    def _commit(self, batch: Batch) -> Recorded:
        with self._lock:
            rows, new = self._admit(batch)
            if new:
                self._keep(rows)
        return Recorded(rows, [draft.event for draft in batch.drafts] if new else None)

    def _keep(self, rows: list[Row]) -> None:
        for row in rows:
            self._streams.setdefault(row[1], []).append(row)
            if row[9] is not None:
                self._by_id[row[9]] = row
        self._rows.extend(rows)
        self._last_recorded = rows[-1][10]

    def rewind(self, rows: Sequence[Row], snapshots: Mapping[str, Snapshot] | None = None) -> None:
        """Hold just these rows, whatever was there: for simulations, which go back to an earlier moment."""
        with self._lock:
            self._rows, self._streams, self._by_id = [], {}, {}
            self._snapshots = dict(snapshots or {})
            self._last_recorded = 0
            self.era += 1
            if rows:
                self._keep(list(rows))

    def _heads(self, streams: set[str]) -> dict[str, int]:
        return {stream: self.version(stream) for stream in streams}

    def _find(self, event_ids: list[UUID]) -> dict[UUID, Row]:
        return {key: self._by_id[key] for key in event_ids if key in self._by_id}

    def _last_match(self, query: Query, after: int) -> int:
        rows = islice(reversed(self._rows), max(len(self._rows) - after, 0))
        return next((row[0] for row in rows if query.matches(row[3], row[12] or ())), 0)

    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]:
        if wanted.stream is None:  # positions are places in the list, counted from 1
            rows = self._open()[wanted.after : wanted.until]
        else:
            rows = list(self._streams.get(wanted.stream, ()))
        ordered = reversed(rows) if wanted.backward else iter(rows)
        yield list(islice(filter(wanted.admits, ordered), wanted.limit))

    def _count(self, wanted: Filter) -> int:
        return sum(map(wanted.admits, list(self._open())))

    def _position_at(self, recorded: int) -> int:
        return bisect_right(self._open(), recorded, key=lambda row: row[10])

    def _sql_as_of(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int
    ) -> pd.DataFrame:
        from esim.store import EventStore  # the only need for DuckDB here

        with EventStore() as copy:
            copy.restore(self._open())
            return copy._sql_as_of(query, params, until)

    def __repr__(self) -> str:
        return f"<MemoryStore: {len(self._rows):,} events in {len(self._streams):,} streams>"
