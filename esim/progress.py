"""How far a subscription is, kept in the store's own file.

One commit holds the checkpoint, the rows that handlers wrote, dead letters, the ledger of effects and the
inbox: they stand or fall together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from esim.effects import Effect
from esim.storefile import DuckDB, first, quoted

if TYPE_CHECKING:
    import pandas as pd

    from esim.connection import Connection
    from esim.rows import Rows
    from esim.tables import RowTable


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a subscription stands in the log.

    Everything up to `position` is done with. `begun` is how far the batch goes that was begun last: if that
    is farther, the process died in it. The event at `trying` (and `part`) has failed `attempts` times.
    Effects of events up to `gate` are not done. `told` is why it stopped, if a handler stopped it.
    """

    position: int = 0
    begun: int = 0
    trying: int = 0
    part: int = 0
    attempts: int = 0
    gate: int = 0
    paused: bool = False
    told: str | None = None


class Letter(NamedTuple):
    """An event that its subscription cannot handle: a dead letter, or one that waits behind it."""

    dead_letter_id: int
    subscription: str
    sequence_id: str
    sequence_index: int
    event_id: str
    position: int
    part: int
    attempts: int
    cause_type: str | None
    cause_message: str | None
    enqueued_at: datetime
    last_touched: datetime
    diagnostics: str | None


_MARK = [field.name for field in fields(Mark)]
_SET = ", ".join(f"{name} = ${number}" for number, name in enumerate(_MARK, 2))
_LETTER = ", ".join(Letter._fields)
LETTERS = """SELECT dead_letter_id, subscription, sequence_id, sequence_index, event_id, position, attempts,
 cause_type, cause_message, enqueued_at AT TIME ZONE 'UTC' AS enqueued_at,
 last_touched AT TIME ZONE 'UTC' AS last_touched, diagnostics FROM esim.dead_letters"""
LEDGER = """SELECT position, name AS effect, arguments, status, cause, key,
 last_touched AT TIME ZONE 'UTC' AS last_touched FROM esim.effects
 WHERE subscription = $1 ORDER BY position, length(key), key"""


class Progress:
    """The lines of one subscription in the tables of its store."""

    def __init__(self, db: Connection, name: str) -> None:
        """Stand for the subscription `name`, whether it is known or not."""
        self.db, self.name = db, name

    def known(self) -> tuple[str, str, str | None] | None:
        """Return handler, checkpoint mode and columns of the rows as they were registered, or None."""
        query = "SELECT handler, checkpoint, columns FROM esim.subscriptions WHERE name = ?"
        found = self.db.fetch(query, [self.name])
        return found[0] if found else None

    def register(self, handler: str, checkpoint: str, columns: str | None, mark: Mark) -> None:
        """Keep the subscription, in place of what was kept under its name."""
        values = [self.name, handler, checkpoint, columns, *(getattr(mark, name) for name in _MARK)]
        places = ", ".join("?" * len(values))
        with self.db.transaction() as con:
            names = ", ".join(("name", "handler", "checkpoint", "columns", *_MARK))
            con.execute("DELETE FROM esim.subscriptions WHERE name = ?", [self.name])
            con.execute(f"INSERT INTO esim.subscriptions ({names}) VALUES ({places})", values)

    def load(self) -> Mark:
        """Return where the subscription stands."""
        query = f"SELECT {', '.join(_MARK)} FROM esim.subscriptions WHERE name = ?"
        found = self.db.fetch(query, [self.name])
        return Mark(*found[0]) if found else Mark()

    def commit(
        self,
        mark: Mark,
        *,
        letters: Iterable[Letter] = (),
        gone: Iterable[int] = (),
        effects: Iterable[Effect] = (),
        inbox: Iterable[tuple[str, int]] = (),
        at: datetime | None = None,
        rows: tuple[RowTable[Any], Rows[Any]] | None = None,
    ) -> None:
        """Make all of this durable, or nothing; `letters` replace those of the same id."""
        with self.db.transaction() as con:
            if rows is not None and rows[1].changed:
                rows[0].write(con, rows[1])
            values = [getattr(mark, name) for name in _MARK]
            con.execute(f"UPDATE esim.subscriptions SET {_SET} WHERE name = $1", [self.name, *values])
            for letter in letters:
                _put(con, "esim.dead_letters", letter)
            for dead_letter_id in gone:
                con.execute("DELETE FROM esim.dead_letters WHERE dead_letter_id = ?", [dead_letter_id])
            for effect in effects:
                _put(con, "esim.effects", [self.name, *effect, at, None])
            for key, position in inbox:
                _put(con, "esim.inbox", [self.name, key, position])

    def go_back(self, position: int, gate: int, table: RowTable[Any] | None, *, again: bool) -> None:
        """Stand at an earlier position, and forget what came of the events after it.

        The ledger keeps what was done, unless it is to be done `again`.
        """
        after = [self.name, position]
        with self.db.transaction() as con:
            con.execute("DELETE FROM esim.dead_letters WHERE subscription = $1 AND position > $2", after)
            con.execute("DELETE FROM esim.inbox WHERE subscription = $1 AND position > $2", after)
            if again:
                con.execute("DELETE FROM esim.effects WHERE subscription = $1 AND position > $2", after)
            if table is not None:
                con.execute(f"DELETE FROM {table.path}")
            mark = Mark(position=position, begun=position, gate=gate)
            values = [getattr(mark, name) for name in _MARK]
            con.execute(f"UPDATE esim.subscriptions SET {_SET} WHERE name = $1", [self.name, *values])

    def remove(self) -> None:
        """Forget the subscription, and drop its rows."""
        with self.db.transaction() as con:
            con.execute(f"DROP TABLE IF EXISTS read.{quoted(self.name)}")
            con.execute("DELETE FROM esim.subscriptions WHERE name = ?", [self.name])
            for table in ("dead_letters", "effects", "inbox"):
                con.execute(f"DELETE FROM esim.{table} WHERE subscription = ?", [self.name])

    # --- looking -------------------------------------------------------------------------------------------

    def letters(self) -> list[Letter]:
        """Return the dead letters in order of their sequences."""
        query = f"SELECT {_LETTER} FROM esim.dead_letters WHERE subscription = ? ORDER BY position, part"
        return [Letter(*row) for row in self.db.fetch(query, [self.name])]

    def next_letter(self) -> int:
        """Return an id that no dead letter of this store has."""
        return int(self.db.fetch("SELECT coalesce(max(dead_letter_id), 0) + 1 FROM esim.dead_letters")[0][0])

    def effect(self, key: str) -> str | None:
        """Return the status of an effect, or None if it is not on the ledger."""
        query = "SELECT status FROM esim.effects WHERE subscription = ? AND key = ?"
        found = self.db.fetch(query, [self.name, key])
        return found[0][0] if found else None

    def pending(self) -> list[tuple[str, str, str]]:
        """Return key, name and arguments of what waits in the outbox, in order."""
        query = """SELECT key, name, arguments FROM esim.effects
                   WHERE subscription = ? AND status = 'pending' ORDER BY position, length(key), key"""
        return self.db.fetch(query, [self.name])

    def sent(self, key: str, at: datetime, failure: str | None) -> None:
        """Note that an effect of the outbox is done, or why it failed."""
        query = """UPDATE esim.effects SET status = $3, last_touched = $4, cause = $5
                   WHERE subscription = $1 AND key = $2"""
        with self.db.transaction() as con:
            con.execute(query, [self.name, key, "failed" if failure else "done", at, failure])

    def handled(self, key: str) -> bool:
        """Say whether the inbox has an event."""
        query = "SELECT 1 FROM esim.inbox WHERE subscription = ? AND key = ?"
        return bool(self.db.fetch(query, [self.name, key]))

    def farthest(self, table: str) -> int:
        """Return the last position that the inbox or the ledger names; 0 if it is empty."""
        query = f"SELECT coalesce(max(position), 0) FROM esim.{table} WHERE subscription = ?"
        return int(self.db.fetch(query, [self.name])[0][0])

    def frame(self, query: str, params: Sequence[object] | Mapping[str, object]) -> pd.DataFrame:
        """Return rows of the bookkeeping as a dataframe."""
        from esim.answer import frame

        return frame(self.db.read_only(query, params))


def _put(con: DuckDB, table: str, values: Sequence[Any]) -> None:
    first(con, f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", list(values))
