"""The store that lasts: events in one DuckDB table, in a file that belongs to this process, or in memory.

Appends are combined: whoever gets the writer lock commits what all waiting threads have prepared, so that
many threads share the price of one durable commit. Stream heads live in process memory, which is sound
because the file belongs to one process; the UNIQUE index on (stream, version) has the last word. One flush is
one statement, hence all or nothing without BEGIN and COMMIT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from esim import typed
from esim.clock import Clock, Ids, from_micros
from esim.connection import Connection, frame
from esim.contract import Snapshot, Store
from esim.errors import EsimError, InvalidArgument
from esim.event import Event, Row, current, known_events
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
_COLUMNS = """position, stream, version, type, schema_version, data, correlation_id, causation_id, user_id,
 event_id::VARCHAR, epoch_us(recorded_at), epoch_us(occurred_at), tags, metadata"""


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

    # --- writing -------------------------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> Recorded:
        ticket = _Ticket(batch)
        self._waiting.append(ticket)
        try:
            with self._db.lock:
                if not ticket.done:
                    self._drain()
        except BaseException:
            ticket.withdraw(self._waiting)
            raise
        return ticket.result()

    def _drain(self) -> None:
        """Commit what every waiting thread has prepared; a batch that must look into the log goes alone."""
        group: list[_Ticket] = []
        while self._waiting:
            ticket = self._waiting.popleft()
            if ticket.looks:
                self._settle(group)
                group = []
            self._stage(ticket)
            group.append(ticket)
            if ticket.looks:
                self._settle(group)
                group = []
        self._settle(group)

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
                self._remember(group)
                self._write(rows)
        except BaseException as error:
            self._settle_failed(group, rows[-1][0], error)
            if not isinstance(error, Exception):
                raise
        else:
            self._heads_cache.update(self._staged)
            self._position = self._tail
        self._staged.clear()
        for ticket in group:
            ticket.done = True

    def _settle_failed(self, group: list[_Ticket], last: int, error: BaseException) -> None:
        """Ask the log itself whether the group was written, which an interrupt leaves open."""
        told = (
            error
            if isinstance(error, Exception)
            else EsimError("interrupted before it was written: append again")
        )
        for ticket in group:
            ticket.error, ticket.failed = ticket.error or told, ticket.error is None
        self._forget()
        for ticket in group:
            if ticket.failed and self._position >= last:
                ticket.error = None

    def _forget(self) -> None:
        """Read the head again from the log: nothing in memory is trusted after a failure."""
        head = self._db.cursor().execute(
            "SELECT coalesce(max(position), 0), coalesce(epoch_us(max(recorded_at)), 0) FROM esim.events"
        )
        self._position, self._last_recorded = head.fetchall()[0]
        self._tail = self._position
        self._staged: dict[str, int] = {}
        self._heads_cache: dict[str, int] = {}

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
            self._flush("esim.events", [_stored(row) for row in rows])
            return
        con = self._db.write
        con.register("esim_new_rows", _arrow(rows))
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
            return self._position - start

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
        known = self._heads_cache.get(stream)
        if known is None:
            query = "SELECT coalesce(max(version), 0) FROM esim.events WHERE stream = ?"
            known = self._heads_cache.setdefault(stream, self._rows(query, [stream])[0][0])
        return known

    def streams(self, category: str | None = None, position: int | None = None) -> list[str]:
        """Return the stream ids (of one category) in order of their first event, up to a `position`."""
        where, params = _where(Filter(category=category, until=position, until_version=1))
        query = f"SELECT stream FROM esim.events WHERE {where} ORDER BY position"
        return [row[0] for row in self._rows(query, params)]

    def payloads(
        self, stream: str, after: int = 0, until: int | None = None, position: int | None = None
    ) -> list[tuple[int, str, int, str]]:
        """Return a stream's payloads; see `Store.payloads`."""
        bounds = [("version >", after or None), ("version <=", until), ("position <=", position)]
        given = [(text, value) for text, value in bounds if value is not None]
        where = "".join(f" AND {text} ?" for text, _ in given)
        query = "SELECT version, type, schema_version, data FROM esim.events WHERE stream = ?" + where
        found = self._rows(query, [stream, *(value for _, value in given)])
        found.sort()
        return found

    def snapshot(self, stream: str) -> Snapshot | None:
        """Return the latest snapshot of a stream, or None."""
        query = "SELECT stream, version, stamp, state FROM esim.snapshots WHERE stream = ?"
        found = self._rows(query, [stream])
        return Snapshot(*found[0]) if found else None

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the stream's former one."""
        with self._db.lock:
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
        known = [*self._types(), *self._read_models()]
        return frame(self._db.read_only(query, params, self.tables(query, hi=until), known))

    def tables(self, query: str, lo: int = 0, hi: int | None = None) -> dict[str, str]:
        """Return the names that a query may read, each with its SELECT, over positions in (lo, hi].

        The typed tables that it mentions are caught up first. Read models are as they were last stored; they
        are of the present, and left out where the positions are bounded.
        """
        wanted = typed.referenced(self._db, query, self._types())
        typed.catch_up(self._db, wanted, known_events())
        bounded = lo > 0 or hi is not None
        return {**({} if bounded else self._read_models()), **typed.views(wanted, lo, hi)}

    def _types(self) -> set[str]:
        """Return the event types of the log and those whose classes are known here, by name in any case."""
        logged = {row[0] for row in self._rows("SELECT DISTINCT type FROM esim.events")}
        folded = {name.casefold() for name in logged}
        return logged | {name for name in known_events() if name.casefold() not in folded}

    def _read_models(self) -> dict[str, str]:
        query = (
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'read' AND table_name NOT LIKE '%~%'"
        )
        hidden = "COLUMNS(lambda name: name NOT IN ('_key', '_row'))"
        return {name: f"SELECT {hidden} FROM read.{quoted(name)}" for (name,) in self._rows(query)}

    def copy_to(self, path: str | PathLike[str]) -> None:
        """Copy the whole store into a new file, which is opened as any store, also by another process."""
        with self._db.lock:
            self._db.copy_to(path)

    def close(self) -> None:
        """Let go of the file; every later use raises StoreClosed. Closing twice is fine."""
        self._db.close()

    def _rows(self, query: str, params: Sequence[object] = ()) -> list[Any]:
        return self._db.cursor().execute(query, params).fetchall()

    def _heads(self, streams: set[str]) -> dict[str, int]:
        unknown = [name for name in streams if name not in self._staged and name not in self._heads_cache]
        if len(unknown) > 1:
            query = """SELECT stream, max(version) FROM esim.events
                       WHERE stream IN (SELECT unnest(?::VARCHAR[])) GROUP BY stream"""
            found: dict[str, int] = dict(self._rows(query, [unknown]))
            for name in unknown:
                self._heads_cache.setdefault(name, found.get(name, 0))
        return {name: self._staged.get(name) or self.version(name) for name in streams}

    def _find(self, event_ids: list[UUID]) -> dict[UUID, Row]:
        query = f"SELECT {_COLUMNS} FROM esim.events WHERE event_id IN (SELECT unnest(?::UUID[]))"
        return {UUID(row[9]): row for row in self._rows(query, [[str(key) for key in event_ids]])}

    def _last_match(self, query: Query, after: int) -> int:
        where, params = _where(Filter(query=query, after=after))
        found = self._rows(f"SELECT coalesce(max(position), 0) FROM esim.events WHERE {where}", params)
        return int(found[0][0])

    def _position_at(self, recorded: int) -> int:
        query = "SELECT coalesce(max(position), 0) FROM esim.events WHERE recorded_at <= ?"
        return int(self._rows(query, [_naive(recorded)])[0][0])

    def _count(self, wanted: Filter) -> int:
        where, params = _where(wanted)
        return int(self._rows(f"SELECT count(*) FROM esim.events WHERE {where}", params)[0][0])

    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]:
        left = wanted.limit
        for lower, upper in self._windows(wanted):
            if left is not None and left <= 0:
                return
            where, params = _where(wanted)
            order = "ORDER BY position" + (" DESC" if wanted.backward else "")
            limit = "" if left is None else f" LIMIT {int(left)}"
            bounded = f"{where} AND position > ? AND position <= ? {order}{limit}"
            query = f"SELECT {_COLUMNS} FROM esim.events WHERE {bounded}"
            table = self._db.cursor().sql(query, params=[*params, lower, upper]).to_arrow_table()
            rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            left = None if left is None else left - len(rows)
            if rows:
                yield rows

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
            return f"<EventStore {self._name}: closed>"
        return f"<EventStore {self._name}: {self._position:,} event{'' if self._position == 1 else 's'}>"

    @property
    def _name(self) -> str:
        return "in memory" if self.path is None else repr(self.path.name)


class _Ticket:
    """One thread's append on its way through the writer lock."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.rows: list[Row] = []
        self.new = False
        self.done = False
        self.failed = False
        self.error: BaseException | None = None

    @property
    def looks(self) -> bool:
        """Say whether admission must look into the log itself, past what is staged."""
        return self.batch.condition is not None or any(draft.event_id for draft in self.batch.drafts)

    def withdraw(self, waiting: deque[_Ticket]) -> None:
        """Take the append back where nobody has begun it."""
        if self in waiting:
            waiting.remove(self)

    def result(self) -> Recorded:
        """Return what was recorded, or raise what went wrong."""
        if self.error is not None:
            raise self.error
        return Recorded(self.rows, [draft.event for draft in self.batch.drafts] if self.new else None)


def _where(wanted: Filter) -> tuple[str, Sequence[object]]:
    """Return a filter as SQL with one placeholder for every value."""
    simple: Mapping[str, object] = {
        "stream = ?": wanted.stream,
        "category = ?": wanted.category,
        "position > ?": wanted.after or None,
        "position <= ?": wanted.until,
        "version > ?": wanted.after_version or None,
        "version <= ?": wanted.until_version,
    }
    parts = [text for text, value in simple.items() if value is not None]
    params = [value for value in simple.values() if value is not None]
    items = [_item(item.types, item.tags) for item in wanted.query.items]
    if items:
        parts.append("(" + " OR ".join(text for text, _ in items) + ")")
        params += [value for _, values in items for value in values]
    return " AND ".join(parts) or "true", params


def _item(types: tuple[str, ...], tags: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    tagged = ["position IN (SELECT position FROM esim.tags WHERE tag = ?)"] * len(tags)
    typed_as = [f"type IN ({', '.join('?' * len(types))})"] if types else []
    return "(" + " AND ".join(typed_as + tagged) + ")", types + tags


def _naive(micros: int | None) -> Any:
    return None if micros is None else from_micros(micros).replace(tzinfo=None)


def _stored(row: Row) -> tuple[Any, ...]:
    """Return a row in the order and types of the events table."""
    return (
        *(row[0], row[1].partition("/")[0], *row[1:5], row[9], _naive(row[10]), _naive(row[11]), row[5]),
        *(*row[6:9], list(row[12]) if row[12] else None, row[13]),
    )


def _arrow(rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table in the order and types of the events table."""
    import pyarrow as pa

    position, stream, version, kind, shape, data, *who, event_id, recorded, occurred, tags, metadata = zip(
        *rows, strict=True
    )
    text = pa.string()
    ids = [(one if isinstance(one, UUID) else UUID(one)).bytes for one in event_id]
    columns: list[tuple[str, Any, Any]] = [
        ("position", position, pa.int64()),
        ("category", [name.partition("/")[0] for name in stream], text),
        ("stream", stream, text),
        ("version", version, pa.int32()),
        ("type", kind, text),
        ("schema_version", shape, pa.int16()),
        ("event_id", ids, pa.uuid()),
        ("recorded_at", recorded, pa.timestamp("us")),
        ("occurred_at", occurred, pa.timestamp("us")),
        ("data", data, text),
        *zip(("correlation_id", "causation_id", "user_id"), who, (text, text, text), strict=True),
        ("tags", [list(one) if one else None for one in tags], pa.list_(text)),
        ("metadata", metadata, text),
    ]
    return pa.table({name: pa.array(values, kind_) for name, values, kind_ in columns})
