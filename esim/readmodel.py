"""What every read model shares: a table beside the log, and a checkpoint that moves in the same transaction.

A read model stands at a position. Catching up reads the log from there to the head, works without holding the
writer lock, and then commits new rows and the new checkpoint together, so the one is never ahead of the other.
Two read models of one name in a process take turns and compare the checkpoint first: none counts an event twice.
A rebuild fills a table beside the old one and swaps them in one transaction. A changed definition has another
stamp; the table of the former one is stale and is rebuilt when the read model next catches up.
"""

from __future__ import annotations

import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from esim import display
from esim.contract import Filter, Moment, Store
from esim.errors import InvalidArgument, NotCaughtUp, ProjectionFailed, StoreClosed
from esim.event import known_events
from esim.rows import R, Row, Rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from esim.connection import Answer, Connection, DuckDB
    from esim.store import EventStore

_PAUSE = 0.01  # seconds between two looks at the head of the log
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


class Checkpoint(NamedTuple):
    """The position that a table stands at, and the stamp of the definition that filled it."""

    position: int
    stamp: str


class Table:
    """One read model's table in schema `read`, with its checkpoint. Columns named `_…` are for esim alone."""

    def __init__(self, db: Connection, name: str, stamp: str) -> None:
        """Stand for the table `name`, whether it exists or not; `stamp` goes into its checkpoints."""
        self.db, self.name, self.stamp = db, name, stamp

    @property
    def path(self) -> str:
        """The table's name as it is written in SQL."""
        return _path(self.name)

    @property
    def select(self) -> str:
        """The SELECT of the columns that users see."""
        return f"SELECT * EXCLUDE (_key, _row) FROM {self.path}" if self._has_keys() else f"SELECT * FROM {self.path}"

    def _has_keys(self) -> bool:
        query = "SELECT 1 FROM duckdb_columns() WHERE schema_name = 'read' AND table_name = ? AND column_name = '_key'"
        return bool(self.db.cursor().execute(query, [self.name]).fetchall())

    def checkpoint(self) -> Checkpoint | None:
        """Return where the stored table stands, or None if there is none."""
        query = "SELECT position, stamp FROM esim.checkpoints WHERE name = ?"
        found = self.db.cursor().execute(query, [_mark(self.name)]).fetchall()
        return Checkpoint(*found[0]) if found else None

    @contextmanager
    def advance(self, position: int) -> Iterator[DuckDB]:
        """Commit what the block does to the table together with the checkpoint, or neither."""
        with self.db.transaction() as con:
            con.execute("CREATE SCHEMA IF NOT EXISTS read")
            yield con
            self._check_in(con, position)

    def _check_in(self, con: DuckDB, position: int) -> None:
        values = [_mark(self.name), position, self.stamp]
        con.execute("INSERT OR REPLACE INTO esim.checkpoints VALUES (?, ?, ?)", values)

    def drop(self) -> None:
        """Remove the table and its checkpoint."""
        with self.db.transaction() as con:
            self._drop(con)

    def _drop(self, con: DuckDB) -> None:
        con.execute("CREATE SCHEMA IF NOT EXISTS read")
        con.execute(f"DROP TABLE IF EXISTS {self.path}")
        con.execute("DELETE FROM esim.checkpoints WHERE name = ?", [_mark(self.name)])

    def become(self, name: str, position: int) -> None:
        """Take the place of the table `name` in one transaction."""
        with self.db.transaction() as con:
            con.execute(f"DROP TABLE IF EXISTS {_path(name)}")
            con.execute(f"ALTER TABLE {self.path} RENAME TO {quoted(name)}")
            con.execute("DELETE FROM esim.checkpoints WHERE name = ?", [_mark(self.name)])
            Table(self.db, name, self.stamp)._check_in(con, position)
        self.name = name


class RowTable(Table, Generic[R]):
    """A table of rows: beside the typed columns, each row's own JSON and its key's, which are exact."""

    def __init__(self, db: Connection, name: str, stamp: str, row_type: type[R]) -> None:
        """Stand for the table `name` of `row_type`."""
        from esim.typed import columns_of

        super().__init__(db, name, stamp)
        self.row_type = row_type
        self.rows: Rows[R] | None = None
        self.structure = dict(columns_of(row_type))

    def ready(self, after: int, until: int, limit: int) -> Rows[R]:
        """Return the rows as of position `after`: those at hand, or fetched, all at once where that pays."""
        if self.rows is None or self.rows.position != after:
            self.rows = Rows(self.row_type, self if after else None)
            self.rows.position = after
            if after and self.count() <= min(limit, 10 * (until - after)):
                self.rows.hold()
        return self.rows

    def find(self, key: Any) -> R | None:
        """Return the stored row of a key, or None."""
        query = f"SELECT _row FROM {self.path} WHERE _key = ?"
        found = self.db.cursor().execute(query, [_key_text(key)]).fetchall()
        return self._read(found[0][0]) if found else None

    def all(self) -> Iterator[R]:
        """Return every stored row."""
        return (self._read(row) for (row,) in self.db.cursor().execute(f"SELECT _row FROM {self.path}").fetchall())

    def count(self) -> int:
        """Return how many rows are stored."""
        return int(self.db.cursor().execute(f"SELECT count(*) FROM {self.path}").fetchall()[0][0])

    def create(self, con: DuckDB) -> None:
        """Make the table unless it is there."""
        columns = "".join(f", {quoted(name)} {kind}" for name, kind in self.structure.items())
        con.execute(f"CREATE TABLE IF NOT EXISTS {self.path} (_key VARCHAR, _row VARCHAR{columns})")

    def write(self, con: DuckDB, rows: Rows[R]) -> None:
        """Write the rows that changed."""
        self.create(con)
        changed = [(_key_text(key), None if row is None else text_of(row)) for key, row in rows.changes()]
        if not changed:
            return
        with registered(con, pairs(changed)):
            con.execute(f"DELETE FROM {self.path} WHERE _key IN (SELECT key FROM esim_new)")
            con.execute(
                f"INSERT INTO {self.path} SELECT key, row, unnest(from_json_strict(row, ?)) "
                "FROM esim_new WHERE row IS NOT NULL",
                [json.dumps(self.structure)],
            )

    def _read(self, text: str) -> R:
        return self.row_type.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]


@contextmanager
def registered(con: DuckDB, table: pa.Table) -> Iterator[None]:
    """Let statements on `con` read an Arrow table under the name esim_new."""
    con.register("esim_new", table)
    try:
        yield
    finally:
        with suppress(duckdb_error()):  # in a failed transaction, whose rollback drops the name itself
            con.unregister("esim_new")


def duckdb_error() -> type[Exception]:
    """Return DuckDB's base error, imported no sooner than it is needed."""
    import duckdb

    return duckdb.Error


def pairs(changed: Sequence[tuple[str, str | None]]) -> pa.Table:
    """Return pairs of key and row as an Arrow table."""
    import pyarrow as pa

    keys, rows = zip(*changed, strict=True) if changed else ((), ())
    return pa.table({"key": pa.array(keys, pa.string()), "row": pa.array(rows, pa.string())})


def text_of(row: Row) -> str:
    """Return a row as its JSON text."""
    return row.__pydantic_serializer__.to_json(row).decode()


def _key_text(key: Any) -> str:
    """Return a key as text that is the same for equal keys."""
    parts = key if isinstance(key, tuple) else (key,)
    plain = [format(part.normalize(), "f") if isinstance(part, Decimal) else part for part in parts]
    return to_json(plain).decode()


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _path(name: str) -> str:
    return f"read.{quoted(name)}"


def _mark(name: str) -> str:
    return f"read.{name}"


@dataclass
class _Turn:
    """Whose turn it is among the read models of one name on one store."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    busy: bool = False


_turns: WeakKeyDictionary[Store, dict[str, _Turn]] = WeakKeyDictionary()
_mirrors: WeakKeyDictionary[Store, EventStore] = WeakKeyDictionary()
_making = threading.Lock()


def _turn(store: Store, name: str) -> _Turn:
    with _making:
        return _turns.setdefault(store, {}).setdefault(name, _Turn())


def _home(store: Store) -> EventStore:
    """Return the DuckDB store that keeps the tables: the store itself, or a mirror of it in memory."""
    from esim.store import EventStore

    if isinstance(store, EventStore):
        return store
    with _making:
        return _mirrors.get(store) or _mirrors.setdefault(store, EventStore())


class ReadModel(ABC):
    """A table that follows the log; see `Projection` and `SqlProjection`."""

    name: ClassVar[str] = ""
    """The table's name in SQL: the class's in snake_case, unless given."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
        if not _NAME.fullmatch(cls.name) or cls.name == "events":
            raise InvalidArgument(
                f"{cls.__name__}: {cls.name!r} is no name for a table of a read model: use lower-case letters, digits "
                "and _, and not 'events', which is the log; class …(…, name='…') gives another"
            )

    def __init__(self, store: Store) -> None:
        """Follow `store`; nothing is computed yet. A store that is not DuckDB is mirrored in memory."""
        self.store = store
        self._home = _home(store)
        self._turn = _turn(self._home, self.name)
        self._refuse_twin()
        self._stamp = self._stamped()
        self._live: Table | None = None
        self._show(self._table(self.name))

    def _refuse_twin(self) -> None:
        twin = next((kind for kind in known_events() if kind.casefold() == self.name), None)
        if twin:
            raise InvalidArgument(
                f"{type(self).__name__}: the table name {self.name!r} is that of the event type {twin!r}; "
                "give another: class …(…, name='…')"
            )

    # --- what a kind of read model supplies ----------------------------------------------------------------

    @abstractmethod
    def _stamped(self) -> str:
        """Return the stamp of the definition."""

    @abstractmethod
    def _table(self, name: str) -> Table:
        """Return the table of a name."""

    @abstractmethod
    def _advance(self, table: Table, after: int, until: int) -> None:
        """Bring the table from one position to the next, with its checkpoint."""

    @abstractmethod
    def _aside(self, until: int) -> Answer:
        """Return the rows as of a position, without storing anything."""

    @abstractmethod
    def _order(self) -> str:
        """Return the ORDER BY of the rows."""

    # --- following the log ---------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position up to which the stored table has seen the log; 0 before the first catch-up."""
        found = self._table(self.name).checkpoint()
        return found.position if found else 0

    @property
    def lag(self) -> int:
        """How many positions the stored table is behind the head of the log."""
        return self.store.position - self.position

    def catch_up(self) -> Self:
        """Bring the table up to the head of the log as it is now; a stale table is rebuilt.

        Raises ProjectionFailed if a handler or the query fails; what was committed before stays.
        """
        with self._exclusive():
            head = self._head()
            stored = self._table(self.name).checkpoint()
            if stored is not None and stored.stamp != self._stamp:
                self._replace(head)
            elif stored is None or stored.position < head:
                self._go_on(stored.position if stored else 0, head)
        return self

    def rebuild(self) -> Self:
        """Compute the table anew beside the old one, which stays readable, and swap them in one transaction."""
        with self._exclusive():
            self._replace(self._head())
        return self

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Take turns with other read models of this name; after an error trust nothing in memory."""
        with self._turn.lock:
            if self._turn.busy:
                raise ProjectionFailed(f"a handler of {self.name!r} asks for the table it is filling: use `rows`")
            self._turn.busy = True
            try:
                yield
            except BaseException:
                self._live = None
                raise
            finally:
                self._turn.busy = False

    def _go_on(self, position: int, head: int) -> None:
        if self._live is None:
            self._live = self._table(self.name)
        self._advance(self._live, position, head)
        self._show(self._live)

    def _replace(self, head: int) -> None:
        self._live = None
        beside = self._table(self.name + "~new")
        beside.drop()
        self._advance(beside, 0, head)
        beside.become(self.name, head)
        self._live = beside
        self._show(beside)

    def _show(self, table: Table) -> None:
        if table.checkpoint() is not None:
            self._home.show(self.name, table.select)

    def _head(self) -> int:
        """Return the head of the log, with a mirror brought up to it."""
        if self._home is not self.store:
            rows = self.store._scan(Filter(after=self._home.position))
            self._home.restore(row for window in rows for row in window)
        return self._home.position

    def wait_for(self, position: int, timeout: float = 5.0) -> Self:
        """Catch up until the table has seen `position`, such as that of an event just appended.

        Where the log is shorter yet, wait for other threads to append, at most `timeout` seconds.
        Raises NotCaughtUp after that.
        """
        pause = threading.Event()
        for _ in range(max(int(timeout / _PAUSE), 0)):
            if self.store.position >= position:
                break
            pause.wait(_PAUSE)
        if self.store.position < position:
            raise NotCaughtUp(
                f"{type(self).__name__} cannot see position {position:,}: the log ends at {self.store.position:,}, and "
                f"nobody appended within {timeout:g} s; append first, or wait longer with timeout=…"
            )
        return self.catch_up()

    # --- looking -------------------------------------------------------------------------------------------

    def df(self, *, fresh: bool = True) -> pd.DataFrame:
        """Return the rows as a dataframe in order of the key; `fresh=False` gives the table as it is stored."""
        from esim.connection import frame

        if fresh:
            self.catch_up()
        return frame(self._stored())

    def as_of(self, moment: Moment) -> pd.DataFrame:
        """Return the rows as they were at a position or recorded time, computed aside; nothing is stored."""
        from esim.connection import frame

        self._head()
        return frame(self._aside(self.store.position_at(moment)))

    def _stored(self, limit: str = "") -> Answer:
        table = self._table(self.name)
        if table.checkpoint() is None:
            return self._aside(0)
        return self._home._db.read_only(f"{table.select} {self._order()} {limit}")

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            return f"<{name} {self._described()}>"
        except StoreClosed:
            return f"<{name} of a closed store>"

    def _described(self) -> str:
        where = f"at position {self.position:,} of {self.store.position:,}"
        table = self._table(self.name)
        if table.checkpoint() is None:
            return f"{where}: not computed yet"
        count = self._home._db.cursor().execute(f"SELECT count(*) FROM {table.path}").fetchall()[0][0]
        names = ", ".join(self._stored("LIMIT 0").table.column_names)
        return f"{where}: {count:,} row{'' if count == 1 else 's'} ({names})"

    def _repr_html_(self) -> str:
        try:
            caption, shown = f"{type(self).__name__} {self._described()}", self._stored("LIMIT 10").table
        except StoreClosed:
            return display.escape(repr(self))
        rows = [[display.escape(str(value)) for value in row.values()] for row in shown.to_pylist()]
        return display.table(shown.column_names, rows, caption)


def order_by(key: Sequence[str]) -> str:
    """Return the ORDER BY of key columns."""
    return f"ORDER BY {', '.join(map(quoted, key))}" if key else ""


def windows(after: int, until: int, size: int, label: str) -> Iterator[tuple[int, int]]:
    """Give position bounds of `size` one after the other; work of over two seconds shows a progress bar."""
    from tqdm import tqdm

    with tqdm(total=until - after, desc=label, unit=" events", delay=2, leave=False) as bar:
        for low in range(after, max(until, after + 1), size):  # an empty log has one empty window
            high = min(low + size, until)
            yield low, high
            bar.update(high - low)
