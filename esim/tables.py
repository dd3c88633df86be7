"""A read model's table in DuckDB: its rows, and the checkpoint that is committed with them.

A table of rows keeps, beside the typed columns that users see, each row as JSON and its key as text: loading
a row gives exactly what was put, and a key is found by one comparison whatever its types, NULL included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from esim.rows import R, Row, Rows
from esim.value import fields_of

if TYPE_CHECKING:
    import pyarrow as pa

    from esim.connection import Connection, DuckDB


class Checkpoint(NamedTuple):
    """The position that a table stands at, and the stamp of the definition that filled it."""

    position: int
    stamp: str


class Table:
    """One read model's table in schema `read`, and its checkpoint."""

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
        return f"SELECT COLUMNS(lambda name: name NOT IN ('_key', '_row')) FROM {self.path}"

    def checkpoint(self) -> Checkpoint | None:
        """Return where the stored table stands, or None if there is none."""
        query = "SELECT position, stamp FROM esim.checkpoints WHERE name = ?"
        found = self.db.fetch(query, [_mark(self.name)])
        return Checkpoint(*found[0]) if found else None

    @contextmanager
    def advance(self, position: int) -> Iterator[DuckDB]:
        """Commit what the block does to the table together with the checkpoint, or neither."""
        with self.db.transaction() as con:
            yield con
            self._check_in(con, position)

    def _check_in(self, con: DuckDB, position: int) -> None:
        values = [_mark(self.name), position, self.stamp]
        found = con.execute("UPDATE esim.checkpoints SET position = $2, stamp = $3 WHERE name = $1", values)
        if found.fetchall() == [(0,)]:
            con.execute("INSERT INTO esim.checkpoints VALUES (?, ?, ?)", values)

    def drop(self) -> None:
        """Remove the table and its checkpoint."""
        with self.db.transaction() as con:
            self._drop(con)

    def _drop(self, con: DuckDB) -> None:
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
        from esim.columns import columns_of

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
        found = self.db.fetch(query, [_key_text(key)])
        return self._read(found[0][0]) if found else None

    def all(self, where: str = "") -> Iterator[R]:
        """Return every stored row, or those that a WHERE clause chooses."""
        return (self._read(row) for (row,) in self.db.fetch(f"SELECT _row FROM {self.path} {where}"))

    def count(self) -> int:
        """Return how many rows are stored."""
        return int(self.db.fetch(f"SELECT count(*) FROM {self.path}")[0][0])

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
    return to_json([_plain(part) for part in (key if isinstance(key, tuple) else (key,))]).decode()


def _plain(part: object) -> object:
    if isinstance(part, Decimal):
        return format(part.normalize(), "f") if part else "0"
    if isinstance(part, BaseModel):
        return {name: _plain(value) for name, value in fields_of(part).items()}
    if isinstance(part, tuple):
        return [_plain(each) for each in part]
    if isinstance(part, frozenset):
        return sorted((_plain(each) for each in part), key=to_json)
    return part


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _path(name: str) -> str:
    return f"read.{quoted(name)}"


def _mark(name: str) -> str:
    return f"read.{name}"


def order_by(key: Sequence[str]) -> str:
    """Return the ORDER BY of key columns."""
    return f"ORDER BY {', '.join(map(quoted, key))}" if key else ""
