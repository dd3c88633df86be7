"""One cursor on which everything about a log is asked: interruptible, with progress, and tidy.

Tables of a log are temporary tables of this cursor, so that an EventStore's own file stays as it is. A table
is dropped once no log needs it; as that may be noticed anywhere, its name waits until the next question.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from esim.answer import Answer, answer, frame, statement, told
from esim.bar import Bar
from esim.connection import Connection
from esim.errors import InvalidArgument, InvalidLog, SqlRefused
from esim.storefile import DuckDB, Parameters, literal

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from esim.contract import Store

T = TypeVar("T")


class Kept:
    """A temporary table that lives as long as this object."""

    def __init__(self, name: str) -> None:
        """Stand for the table `name`."""
        self.name = name


class Session:
    """The database of one log and all that is filtered from it."""

    def __init__(self, db: Connection, owned: Store | Connection | None, memory: str | None = None) -> None:
        """Ask on a cursor of `db`; `owned` is closed with this, and `memory` bounds a database of our own."""
        self.db = db
        self._owned = owned
        self._lock = threading.RLock()
        self._waste: list[str] = []
        self._count = 0
        self._active: object = None
        self.bounded = memory is not None
        """Whether memory is to be spared."""
        self.cursor: DuckDB = db._fresh()
        db._lent.add(self.cursor)  # so that a store that is closed lets go of its file
        weakref.finalize(self, _return, db, self.cursor).atexit = False
        self.cursor.execute("SET enable_progress_bar = true")
        self.cursor.execute("SET enable_progress_bar_print = false")
        if memory is not None:
            self._bound(memory)

    def _bound(self, memory: str) -> None:
        folder = tempfile.mkdtemp(prefix="esim-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            self.cursor.execute(f"SET memory_limit = {literal(memory)}")
        except duckdb.Error:
            raise InvalidArgument(f"memory={memory!r}: give an amount, as '512MB' or '4GB'") from None
        self.cursor.execute(f"SET temp_directory = {literal(folder)}")

    def run(self, sql: str, params: Parameters = None) -> None:
        """Carry out a statement of our own."""
        self._work(lambda: self.cursor.execute(sql, params))

    def rows(self, sql: str, params: Parameters = None) -> list[Any]:
        """Return the rows of a query of our own."""
        return self._work(lambda: self.cursor.execute(sql, params).fetchall())

    def arrow(self, sql: str) -> pa.Table:
        """Return the rows of a query of our own as an Arrow table."""
        return self._work(lambda: self.cursor.sql(sql).to_arrow_table())

    def frame(self, sql: str, params: Parameters = None) -> pd.DataFrame:
        """Return the rows of a query of our own as a dataframe: whole numbers whole, times aware in UTC."""

        def work() -> Answer:
            relation = self.cursor.sql(sql, params=params)
            return Answer(relation.to_arrow_table(), tuple(str(each) for each in relation.types))

        return frame(self._work(work))

    def users(self, sql: str, params: Parameters, known: Callable[[], list[str]]) -> pd.DataFrame:
        """Return the rows of a user's one reading statement. Raises SqlRefused for anything else."""
        with self._lock:
            try:
                with self.db.heard:
                    text = statement(self.cursor, sql)
                return frame(self._work(lambda: answer(self.cursor, text, params)))
            except duckdb.Error as error:
                raise SqlRefused(told(error, known())) from None

    def keep(self, select: str) -> Kept:
        """Make a temporary table of a SELECT."""
        with self._lock:
            self._count += 1
            kept = Kept(f"log_{self._count}")
            self.run(f"CREATE TEMP TABLE {kept.name} AS {select}")
            weakref.finalize(kept, self._waste.append, kept.name).atexit = False
            return kept

    @contextmanager
    def lent(self, table: pa.Table) -> Iterator[str]:
        """Have an Arrow table be one of the database for a while, and give its name."""
        with self._lock:
            self.cursor.register("esim_lent", table)
            try:
                yield "esim_lent"
            finally:
                self.cursor.unregister("esim_lent")

    def hold(self, table: pa.Table) -> Kept:
        """Make a temporary table of an Arrow table."""
        with self.lent(table) as name:
            return self.keep(f"SELECT * FROM {name}")

    def use(self, views: object, define: Callable[[], dict[str, str]]) -> None:
        """Make the views of one log the ones that queries see, unless they are so already."""
        if self._active is views:
            return
        with self._lock:
            self._active = None
            for name, select in define().items():
                self.run(f"CREATE OR REPLACE TEMP VIEW {name} AS {select}")
            self._active = views

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads away while a question of several statements is answered."""
        with self._lock:
            yield

    def _work(self, work: Callable[[], T]) -> T:
        self.db.check()
        with self._lock, self.db.heard:
            while self._waste:
                self.cursor.execute(f"DROP TABLE IF EXISTS {self._waste.pop()}")
            with Bar(0, 100, "asking the log", "%") as bar:
                return self.db.interruptibly(self.cursor, work, lambda: bar.at(self._percent()))

    def _percent(self) -> int:
        return max(0, min(99, int(self.cursor.query_progress())))

    def close(self) -> None:
        """Let go of everything; a store that was handed in stays open."""
        if self._owned is not None:
            self._owned.close()


def _return(db: Connection, cursor: DuckDB) -> None:
    """Close the cursor of a session that is gone, and with it its temporary tables."""
    db._lent.discard(cursor)
    with suppress(duckdb.Error):
        cursor.close()


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn DuckDB's errors about a source into InvalidLog, which keeps what it says of line and column."""
    try:
        yield
    except duckdb.Error as error:
        told = str(error).partition("\nLINE ")[0]  # of our statement, which nobody asked for
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        raise InvalidLog(f"{what} cannot be read: {' '.join(lines[:6])[:600]}") from None
