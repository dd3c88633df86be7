"""How far a subscription is, in the tables of its store's own file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from esim.answer import frame
from esim.effects import Effect
from esim.errors import InvalidArgument
from esim.progress import Entry, Letter, Mark, Progress, Registered, Waiting
from esim.rows import Row, Rows
from esim.storefile import DuckDB, first, quoted
from esim.tables import RowTable, order_by

if TYPE_CHECKING:
    import pandas as pd

    from esim.connection import Connection

_AT_HAND = 500_000  # rows are held in memory between two batches
_MARK = Mark._fields
_SET = ", ".join(f"{name} = ${number}" for number, name in enumerate(_MARK, 2))
_LETTER = ", ".join(Letter._fields)


class TableProgress(Progress):
    """The lines of one subscription in schema `esim`, and its rows in schema `read`."""

    def __init__(self, db: Connection, name: str, row: type[Row] | None = None) -> None:
        """Stand for the subscription `name`, whether it is known or not."""
        self.db, self.name, self.row = db, name, row
        self._table = None if row is None else RowTable[Any](db, name, "", row)

    def names(self) -> list[str]:
        return [row[0] for row in self.db.fetch("SELECT name FROM esim.subscriptions ORDER BY name")]

    def known(self) -> Registered | None:
        query = f"SELECT {', '.join(Registered._fields)} FROM esim.subscriptions WHERE name = ?"
        found = self.db.fetch(query, [self.name])
        return Registered(*found[0]) if found else None

    def register(self, registered: Registered, mark: Mark) -> None:
        taken = "SELECT 1 FROM esim.checkpoints WHERE name = ?"
        if self._table is not None and self.db.fetch(taken, [f"read.{self.name}"]):
            raise InvalidArgument(
                f"a read model {self.name!r} follows the log by itself in the table of that name: "
                "give the subscription another name=…"
            )
        known = self.known()
        values = [self.name, *registered, *_values(mark)]
        places = ", ".join("?" * len(values))
        names = ", ".join(("name", *Registered._fields, *_MARK))
        with self.db.transaction() as con:
            con.execute("DELETE FROM esim.subscriptions WHERE name = ?", [self.name])
            con.execute(f"INSERT INTO esim.subscriptions ({names}) VALUES ({places})", values)
            if known is not None and known.columns != registered.columns:
                con.execute(f"DROP TABLE IF EXISTS read.{quoted(self.name)}")
            if self._table is not None:
                self._table.create(con)

    def load(self) -> Mark:
        query = f"SELECT {', '.join(_MARK)} FROM esim.subscriptions WHERE name = ?"
        found = self.db.fetch(query, [self.name])
        return Mark(*found[0]) if found else Mark()

    def commit(
        self,
        mark: Mark,
        *,
        letters: Sequence[Letter] = (),
        gone: Sequence[int] = (),
        effects: Sequence[Effect] = (),
        inbox: Sequence[tuple[str, int]] = (),
        at: datetime | None = None,
        rows: Rows[Any] | None = None,
    ) -> None:
        with self.db.transaction() as con:
            if self._table is not None and rows is not None and rows.changed:
                self._table.write(con, rows)
            con.execute(f"UPDATE esim.subscriptions SET {_SET} WHERE name = $1", [self.name, *_values(mark)])
            for letter in letters:
                _put(con, "esim.dead_letters", letter)
            for dead_letter_id in gone:
                con.execute("DELETE FROM esim.dead_letters WHERE dead_letter_id = ?", [dead_letter_id])
            for effect in effects:
                _put(con, "esim.effects", [self.name, *effect, at, None])
            for key, position in inbox:
                _put(con, "esim.inbox", [self.name, key, position])
        if self._table is not None and rows is not None:
            rows.settle(self._table, _AT_HAND)

    def go_back(self, mark: Mark, *, again: bool) -> None:
        after = [self.name, mark.position]
        with self.db.transaction() as con:
            con.execute("DELETE FROM esim.dead_letters WHERE subscription = $1 AND position > $2", after)
            con.execute("DELETE FROM esim.inbox WHERE subscription = $1 AND position > $2", after)
            if again:
                con.execute("DELETE FROM esim.effects WHERE subscription = $1 AND position > $2", after)
            if self._table is not None:
                con.execute(f"DELETE FROM {self._table.path}")
            con.execute(f"UPDATE esim.subscriptions SET {_SET} WHERE name = $1", [self.name, *_values(mark)])

    def inherit(self, names: Iterable[str], positions: Collection[int]) -> None:
        query = """UPDATE esim.{} SET subscription = $1
                   WHERE subscription = $2 AND position IN (SELECT unnest($3::BIGINT[]))"""
        with self.db.transaction() as con:
            for name in names:
                for table in ("effects", "inbox"):
                    con.execute(query.format(table), [self.name, name, list(positions)])

    def remove(self) -> None:
        with self.db.transaction() as con:
            con.execute(f"DROP TABLE IF EXISTS read.{quoted(self.name)}")
            con.execute("DELETE FROM esim.subscriptions WHERE name = ?", [self.name])
            for table in ("dead_letters", "effects", "inbox"):
                con.execute(f"DELETE FROM esim.{table} WHERE subscription = ?", [self.name])

    def rows(self, after: int, until: int) -> Rows[Any]:
        assert self._table is not None  # noqa: S101 - asked only of a handler with rows
        self._table.rows = None  # whatever was at hand, only what is committed counts
        return self._table.ready(after, max(until, after), _AT_HAND)

    def all_rows(self) -> list[Any]:
        assert self._table is not None  # noqa: S101 - asked only of a handler with rows
        return list(self._table.all(""))

    def holding(self, field: str) -> list[Any]:
        assert self._table is not None  # noqa: S101 - asked only of a handler with rows
        return list(self._table.all(f"WHERE len({quoted(field)}) > 0"))

    def letters(self) -> list[Letter]:
        query = f"SELECT {_LETTER} FROM esim.dead_letters WHERE subscription = ? ORDER BY position, part"
        return [Letter(*row) for row in self.db.fetch(query, [self.name])]

    def next_letter(self) -> int:
        return int(self.db.fetch("SELECT coalesce(max(dead_letter_id), 0) + 1 FROM esim.dead_letters")[0][0])

    def effect(self, key: str) -> str | None:
        query = "SELECT status FROM esim.effects WHERE subscription = ? AND key = ?"
        found = self.db.fetch(query, [self.name, key])
        return found[0][0] if found else None

    def waiting(self, status: Literal["pending", "failed"]) -> list[Waiting]:
        query = f"""SELECT {", ".join(Waiting._fields)} FROM esim.effects
                    WHERE subscription = ? AND status = ? ORDER BY position, part, number"""
        return [Waiting(*row) for row in self.db.fetch(query, [self.name, status])]

    def tried(self, key: str, attempts: int) -> None:
        query = "UPDATE esim.effects SET attempts = $3 WHERE subscription = $1 AND key = $2"
        with self.db.transaction() as con:
            con.execute(query, [self.name, key, attempts])

    def sent(self, key: str, at: datetime, failure: str | None, attempts: int) -> None:
        query = """UPDATE esim.effects SET status = $3, last_touched = $4, cause = $5, attempts = $6
                   WHERE subscription = $1 AND key = $2"""
        with self.db.transaction() as con:
            con.execute(query, [self.name, key, "failed" if failure else "done", at, failure, attempts])

    def handled(self, key: str) -> bool:
        query = "SELECT 1 FROM esim.inbox WHERE subscription = ? AND key = ?"
        return bool(self.db.fetch(query, [self.name, key]))

    def farthest(self, table: str) -> int:
        query = f"SELECT coalesce(max(position), 0) FROM esim.{table} WHERE subscription = ?"
        return int(self.db.fetch(query, [self.name])[0][0])

    def ledger(self) -> list[Entry]:
        query = """SELECT position, name, arguments, status, attempts, cause, key, last_touched
                   FROM esim.effects WHERE subscription = ? ORDER BY position, part, number"""
        return [Entry(*row) for row in self.db.fetch(query, [self.name])]

    def row_frame(self) -> pd.DataFrame:
        assert self._table is not None and self.row is not None  # noqa: S101 - asked only where there are rows
        return frame(self.db.read_only(f"{self._table.select} {order_by(self.row.key_fields)}"))


def _values(mark: Mark) -> list[Any]:
    return list(mark)


def _put(con: DuckDB, table: str, values: Sequence[Any]) -> None:
    first(con, f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", list(values))
