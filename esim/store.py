"""The store that lasts: events in one DuckDB table, in a file that belongs to this process, or in memory.

Appends are combined: whoever gets the writer lock commits what all waiting threads have prepared, so that
many threads share the price of one durable commit. Stream heads live in process memory, which is sound
because the file belongs to one process; the UNIQUE index on (stream, version) has the last word. One flush is
one statement, hence all or nothing without BEGIN and COMMIT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import duckdb

from esim import typed
from esim.arguments import storable
from esim.clock import Clock, Ids
from esim.connection import Connection, frame
from esim.contract import Payload, Snapshot, Store
from esim.envelope import Row
from esim.errors import InvalidArgument, NotWritten
from esim.event import Event, current, known_events
from esim.eventtable import COLUMNS, arrow, naive, rows_of, stored, where
from esim.eventtable import frame as event_frame
from esim.query import Filter, Query
from esim.reading import Recorded
from esim.storefile import quoted
from esim.writing import Batch

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

WINDOW = 100_000
"""How many positions a long reading takes at a time, so that memory stays bounded."""

_BULK = 200  # from about this many rows on, Arrow is faster than the appender
_SCANNED = 10_000  # a look-up of a stream's head costs about as much as scanning so many events
_MOST_SCANNED = 2_000_000  # of a longer log the heads of all streams could fill the memory


class EventStore(Store):
    """A durable, append-only event log with SQL: `EventStore("shop.duckdb")`, or `EventStore()` in memory.

    Use it as a context manager, or `close()` it, to let go of the file. Threads may share it.
    """

    def __init__(
        self, path: str | PathLike[str] | None = None, *, clock: Clock | None = None, ids: Ids | None = None
    ) -> None:
        """Open the file at `path`, or create it; without a path the log lives in memory.

        Raises StoreLocked if someone else holds the file, NotAStore if it is not an esim store.
        """
        super().__init__(clock, ids)
        self._db = Connection(path)
        self._waiting: deque[_Ticket] = deque()
        self._appenders: dict[str, Any] = {}
        self._remembered: set[type[Event]] = set()
        self._forget()
        self._pass_over(self._position)

    # --- writing -------------------------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> Recorded:
        self._db.check()
        ticket = _Ticket(batch)
        self._waiting.append(ticket)
        try:
            with self._db.lock:
                if not ticket.done and ticket.error is None:
                    self._drain()
        except BaseException:
            with suppress(ValueError):  # where nobody has begun it, it is taken back
                self._waiting.remove(ticket)
            raise
        return ticket.result()

    def _drain(self) -> None:
        """Commit what every waiting thread has prepared; a batch that must look into the log goes alone."""
        group: list[_Ticket] = []
        try:
            while self._waiting:
                ticket = self._waiting[0]
                if group and (ticket.looks or group[-1].looks):
                    self._settle(group)
                    group = []
                group.append(ticket)
                self._waiting.popleft()
                self._stage(ticket)
            self._settle(group)
        except BaseException as error:  # an interrupt, anywhere: no thread may take its append for recorded
            self._settle_failed(group, error)
            raise

    def _stage(self, ticket: _Ticket) -> None:
        try:
            rows, new = self._admit(ticket.batch)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that asked
            ticket.error = error
            return
        ticket.rows, ticket.new = rows, new
        if new:
            self._staged.update((row[1], row[2]) for row in rows)
            self._tail = rows[-1][0]
            self._last_recorded = rows[-1][10]

    def _settle(self, group: list[_Ticket]) -> None:
        rows = [row for ticket in group if ticket.new for row in ticket.rows]
        try:
            if rows:
                with self._db.heard:
                    self._remember(group)
                    self._write(rows)
        except Exception as error:  # noqa: BLE001 - it is raised in the threads that asked
            self._settle_failed(group, error)
            return
        self._known_heads.update(self._staged)
        self._position = self._tail
        self._staged.clear()
        for ticket in group:
            ticket.done = True

    def _settle_failed(self, group: list[_Ticket], error: BaseException) -> None:
        """Ask the log itself which appends were written, which an interrupt leaves open."""
        told = _not_written(error)
        open_ = [ticket for ticket in group if not ticket.done and ticket.error is None]
        for ticket in open_:
            ticket.error = told
            with suppress(ValueError):
                self._waiting.remove(ticket)
        self._forget()
        for ticket in open_:
            if ticket.rows and (not ticket.new or ticket.rows[-1][0] <= self._position):
                ticket.error = None

    def _forget(self) -> None:
        """Read the head again from the log: nothing in memory is trusted after a failure."""
        head = "SELECT coalesce(max(position), 0), coalesce(epoch_us(max(recorded_at)), 0) FROM esim.events"
        self._position, self._last_recorded = self._db.fetch(head)[0]
        self._tail = self._position
        self._staged: dict[str, int] = {}
        self._known_heads: dict[str, int] = {}
        self._all_known = self._position == 0
        self._look_ups = 0

    def _remember(self, group: list[_Ticket]) -> None:
        """Keep the columns of event classes that this process records for the first time."""
        classes = {type(draft.event) for ticket in group if ticket.new for draft in ticket.batch.drafts}
        if not classes <= self._remembered:
            typed.remember(self._db, {cls.event_type: current(cls) for cls in classes - self._remembered})
            self._remembered |= classes

    def _write(self, rows: Sequence[Row]) -> None:
        """Make rows durable in one statement, or in one transaction where there are tags to keep as well."""
        tags = [(tag, row[0]) for row in rows for tag in row[12] or ()]
        if not tags:
            self._insert(rows)
            return
        with self._db.transaction():
            self._insert(rows)
            self._flush("esim.tags", tags)

    def _insert(self, rows: Sequence[Row]) -> None:
        if len(rows) < _BULK:
            self._flush("esim.events", [stored(row) for row in rows])
            return
        con = self._db.write
        con.register("esim_new_rows", arrow(rows))
        try:
            con.execute("INSERT INTO esim.events SELECT * FROM esim_new_rows")
        finally:
            con.unregister("esim_new_rows")

    def _flush(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        appender = self._appenders.get(table) or self._db.write.appender(table)
        try:
            appender.append_rows(rows)
            appender.flush()
        except BaseException:
            self._appenders.pop(table, None)
            appender.clear()  # what a failed flush leaves behind would go out with the next one
            raise
        self._appenders[table] = appender

    def restore(self, rows: Iterable[Row]) -> int:
        """Record rows as they are, envelope included, after the present head; return how many.

        For seed data and copies. Raises InvalidArgument unless positions go on densely from the head.
        """
        window: list[Row] = []
        with self._db.lock:
            start = self._position
            for expected, row in enumerate(rows, start + 1):
                if row[0] != expected:
                    raise InvalidArgument(f"row at position {row[0]} cannot follow position {expected - 1}")
                window.append(row)
                if len(window) == WINDOW:
                    self._restore(window)
                    window = []
            if window:
                self._restore(window)
            self._pass_over(self._position - start)
            return self._position - start

    def _pass_over(self, count: int) -> None:
        """Let a sequence of ids go past those that the log has, so that none comes twice."""
        skip = getattr(self.ids, "skip", None)
        if skip is not None:
            skip(count)

    def _restore(self, rows: list[Row]) -> None:
        try:
            self._write(rows)
        finally:
            self._forget()

    def _next_position(self) -> int:
        return int(self._tail) + 1

    # --- reading -------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The file's path, or None in memory."""
        return self._db.path

    @property
    def position(self) -> int:
        """The position of the last event; 0 in an empty store."""
        self._db.check()
        return self._position

    def version(self, stream: str) -> int:
        """Return the version a stream is at; 0 if it does not exist."""
        self._db.check()
        known = self._known_heads.get(stream)
        if known is None:
            storable(stream, "stream")
        if known is None and not self._all_known:
            query = "SELECT coalesce(max(version), 0) FROM esim.events WHERE stream = ?"
            known = self._known_heads.setdefault(stream, self._db.fetch(query, [stream])[0][0])
        return known or 0

    def streams(self, category: str | None = None, position: int | None = None) -> list[str]:
        """Return the stream ids (of one category) in order of their first event, up to a `position`."""
        wanted = category if category is None else storable(category, "category")
        tests, params = where(Filter(category=wanted, until=position, until_version=1))
        query = f"SELECT stream FROM esim.events WHERE {tests} ORDER BY position"
        return [row[0] for row in self._db.fetch(query, params)]

    def _payloads(self, stream: str, after: int, until: int | None, position: int | None) -> list[Payload]:
        bounds = [("version >", after or None), ("version <=", until), ("position <=", position)]
        given = [(text, value) for text, value in bounds if value is not None]
        where = "".join(f" AND {text} ?" for text, _ in given)
        query = "SELECT version, type, schema_version, data FROM esim.events WHERE stream = ?" + where
        found = self._db.fetch(query, [stream, *(value for _, value in given)])
        found.sort()
        return found

    def snapshot(self, stream: str) -> Snapshot | None:
        """Return the latest snapshot of a stream, or None."""
        query = "SELECT stream, version, stamp, state FROM esim.snapshots WHERE stream = ?"
        found = self._db.fetch(query, [stream])
        return Snapshot(*found[0]) if found else None

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the stream's former one."""
        with self._db.lock, self._db.heard:
            self._db.write.execute(
                "INSERT OR REPLACE INTO esim.snapshots VALUES (?, ?, ?, ?)", list(snapshot)
            )

    def sql(self, query: str, params: Sequence[object] | dict[str, object] | None = None) -> pd.DataFrame:
        """Return the rows of one reading SQL statement as a dataframe; see `Store.sql`."""
        return self._query(query, params, None)

    def _sql_as_of(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int
    ) -> pd.DataFrame:
        return self._query(query, params, until)

    def _query(
        self, query: str, params: Sequence[object] | dict[str, object] | None, until: int | None
    ) -> pd.DataFrame:
        storable(query, "query")
        if isinstance(params, str) or not isinstance(params, Sequence | Mapping | None):
            raise InvalidArgument(f"params={params!r}: give a list for ? and $1, or a dict for $name")

        def known() -> list[str]:
            return [*self._types(), *(self._read_models() if until is None else ())]

        return frame(self._db.read_only(query, params, self.tables(query, hi=until), known))

    def tables(self, query: str, lo: int = 0, hi: int | None = None) -> dict[str, str]:
        """Return the names that a query may read, each with its SELECT, over positions in (lo, hi].

        The typed tables that it mentions are caught up first. Read models are as they were last stored; they
        are of the present, and left out where the positions are bounded.
        """
        wanted = self.types_in(query)
        bounded = lo > 0 or hi is not None
        models = {} if bounded else self._read_models()
        wanted -= self._shared(wanted, models)
        typed.catch_up(self._db, wanted, known_events())
        return {**models, **typed.views({*wanted, typed.EVENTS}, lo, hi)}

    def _shared(self, types: set[str], models: Mapping[str, str]) -> set[str]:
        """Return the types without events whose name a read model has. Raises InvalidArgument for others."""
        both = {name for name in types if name.casefold() in models}
        for name in sorted(both):
            if self.read(type=name).first() is not None:
                raise InvalidArgument(
                    f"{name!r} is an event type of this log and a read model's table as well: "
                    "give the projection another name: class …(…, name='…')"
                )
        return both

    def types_in(self, query: str) -> set[str]:
        """Return the event types whose typed tables a query names."""
        return typed.referenced(self._db, query, self._types())

    def _types(self) -> set[str]:
        """Return the event types of the log and those whose classes are known here, by name in any case."""
        logged = {row[0] for row in self._db.fetch("SELECT DISTINCT type FROM esim.events")}
        folded = {name.casefold() for name in logged}
        return logged | {name for name in known_events() if name.casefold() not in folded}

    def _read_models(self) -> dict[str, str]:
        query = (
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'read' AND table_name NOT LIKE '%~%'"
        )
        hidden = "COLUMNS(lambda name: name NOT IN ('_key', '_row'))"
        return {name: f"SELECT {hidden} FROM read.{quoted(name)}" for (name,) in self._db.fetch(query)}

    def copy_to(self, path: str | PathLike[str]) -> None:
        """Copy the whole store into a new file, which is opened as any store, also by another process."""
        with self._db.lock:
            self._db.copy_to(path)

    def close(self) -> None:
        """Let go of the file; every later use raises StoreClosed. Closing twice is fine."""
        self._db.close()

    def _heads(self, streams: set[str]) -> dict[str, int]:
        unknown = [name for name in streams if name not in self._staged and name not in self._known_heads]
        if unknown and not self._all_known:
            self._look_up(unknown)
        return {name: self._staged.get(name) or self._known_heads.get(name, 0) for name in streams}

    def _look_up(self, streams: list[str]) -> None:
        """Fetch the heads of streams, or those of all once that costs no more than the look-ups so far."""
        self._look_ups += 1
        whole = self._position <= min(_SCANNED * self._look_ups, _MOST_SCANNED)
        if whole:
            found = self._db.fetch("SELECT stream, max(version) FROM esim.events GROUP BY stream")
        else:
            query = """SELECT stream, max(version) FROM esim.events
                       WHERE stream IN (SELECT unnest(?::VARCHAR[])) GROUP BY stream"""
            found = self._db.fetch(query, [streams])
        self._known_heads.update(dict.fromkeys(streams, 0) | dict(found))
        self._all_known = whole

    def _find(self, event_ids: list[UUID]) -> dict[UUID, Row]:
        query = f"SELECT {COLUMNS} FROM esim.events WHERE event_id IN (SELECT unnest(?::UUID[]))"
        return {UUID(row[9]): row for row in self._db.fetch(query, [[str(key) for key in event_ids]])}

    def _last_match(self, query: Query, after: int) -> int:
        tests, params = where(Filter(query=query, after=after))
        found = self._db.fetch(f"SELECT coalesce(max(position), 0) FROM esim.events WHERE {tests}", params)
        return int(found[0][0])

    def _position_at(self, recorded: int) -> int:
        query = "SELECT coalesce(max(position), 0) FROM esim.events WHERE recorded_at <= ?"
        return int(self._db.fetch(query, [naive(recorded)])[0][0])

    def _count(self, wanted: Filter) -> int:
        tests, params = where(wanted)
        return int(self._db.fetch(f"SELECT count(*) FROM esim.events WHERE {tests}", params)[0][0])

    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]:
        return map(rows_of, self._tables(wanted))

    def _frame(self, wanted: Filter) -> pd.DataFrame:
        import pyarrow as pa

        tables = list(self._tables(wanted))
        return event_frame(pa.concat_tables(tables)) if tables else super()._frame(wanted)

    def _tables(self, wanted: Filter) -> Iterator[pa.Table]:
        """Give the wanted events as Arrow, window by window; none is empty."""
        left = wanted.limit
        for lower, upper in self._windows(wanted):
            if left is not None and left <= 0:
                return
            tests, params = where(wanted)
            order = "ORDER BY position" + (" DESC" if wanted.backward else "")
            limit = "" if left is None else f" LIMIT {int(left)}"
            bounded = f"{tests} AND position > ? AND position <= ? {order}{limit}"
            query = f"SELECT {COLUMNS} FROM esim.events WHERE {bounded}"
            with self._db.reading:
                table = self._db.cursor().sql(query, params=[*params, lower, upper]).to_arrow_table()
            left = None if left is None else left - table.num_rows
            if table.num_rows:
                yield table

    def _windows(self, wanted: Filter) -> Iterator[tuple[int, int]]:
        """Give the position bounds to read one after the other; the head is fixed when reading starts."""
        low, high = wanted.after, min(self.position, self.position if wanted.until is None else wanted.until)
        if wanted.stream is not None:
            yield low, high
            return
        starts = range(low, high, WINDOW)
        for start in reversed(starts) if wanted.backward else starts:
            yield start, min(start + WINDOW, high)

    def __repr__(self) -> str:
        if self._db.closed:
            return f"<EventStore {self._db.name}: closed>"
        return f"<EventStore {self._db.name}: {self._position:,} event{'' if self._position == 1 else 's'}>"


def _not_written(error: BaseException) -> Exception:
    """Return what the threads are told whose appends failed together."""
    if isinstance(error, duckdb.Error):
        told = NotWritten(
            f"the append could not be written: {str(error).partition(chr(10))[0]}; nothing of it was kept, "
            "so make room or mend the cause, and append again"
        )
        told.__cause__ = error
        return told
    return (
        error
        if isinstance(error, Exception)
        else NotWritten("interrupted before it was written: append again")
    )


class _Ticket:
    """One thread's append on its way through the writer lock."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.rows: list[Row] = []
        self.new = False
        self.done = False
        self.error: BaseException | None = None

    @property
    def looks(self) -> bool:
        """Say whether admission must look into the log itself, past what is staged."""
        return self.batch.condition is not None or any(draft.event_id for draft in self.batch.drafts)

    def result(self) -> Recorded:
        """Return what was recorded, or raise what went wrong."""
        if self.error is not None:
            raise self.error
        return Recorded(self.rows, [draft.event for draft in self.batch.drafts] if self.new else None)
