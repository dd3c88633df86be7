"""What every read model shares: a table beside the log, and a checkpoint that moves in the same transaction.

A read model stands at a position. Catching up reads the log from there to the head, works without holding the
writer lock, and then commits new rows and the new checkpoint together, so that neither is ahead of the other.
Two read models of one name in a process take turns and look at the checkpoint first: no event counts twice.
A rebuild fills a table beside the old one and swaps them in one transaction. A changed definition has another
stamp; the table of the former one is stale and is rebuilt when the read model next catches up.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakKeyDictionary

from esim import display
from esim.arguments import whole
from esim.bar import Bar
from esim.contract import Moment, Store, must_be_store
from esim.errors import InvalidArgument, NotCaughtUp, ProjectionFailed, StoreClosed
from esim.event import definitions, known_events
from esim.query import Filter
from esim.stamp import Stamp
from esim.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from esim.answer import Answer
    from esim.store import EventStore

_LONGEST = 1e9  # seconds that somebody may wait
_PAUSE = 0.01  # seconds between two looks at the head of the log
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


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


def snake_case(name: str) -> str:
    """Return the name of a class as that of a table: `CustomerSpend` as `customer_spend`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class ReadModel(ABC):
    """A table that follows the log; see `Projection` and `SqlProjection`."""

    name: ClassVar[str] = ""
    """The table's name in SQL: the class's in snake_case, unless given."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name or snake_case(cls.__name__)
        if not _NAME.fullmatch(cls.name) or cls.name == "events":
            raise InvalidArgument(
                f"{cls.__name__}: {cls.name!r} is no name for a read model's table: use lower-case letters, "
                "digits and _, and not 'events', which is the log; class …(…, name='…') gives another"
            )

    def __init__(self, store: Store) -> None:
        """Follow `store`; nothing is computed yet. A store that is not DuckDB is mirrored in memory."""
        self.store = must_be_store(store)
        self._home = _home(store)
        self._turn = _turn(self._home, self.name)
        self._refuse_twin()
        self._seen, self._meant = -1, Stamp("")
        self._live: Table | None = None

    def _refuse_twin(self) -> None:
        twin = next((kind for kind in known_events() if kind.casefold() == self.name), None)
        if twin:
            raise InvalidArgument(
                f"{type(self).__name__}: the table name {self.name!r} is that of the event type {twin!r}; "
                "give another: class …(…, name='…')"
            )

    @property
    def _stamp(self) -> str:
        """The stamp of the definition as it is now: what it leans on may be defined anew."""
        if self._seen != definitions() or self._meant.outdated:
            self._seen, self._meant = definitions(), self._stamped()
        return self._meant.text

    # --- what a kind of read model supplies ----------------------------------------------------------------

    @abstractmethod
    def _stamped(self) -> Stamp:
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
        """Compute the table anew beside the old one, which stays readable, and swap them in a transaction."""
        with self._exclusive():
            self._replace(self._head())
        return self

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Take turns with other read models of this name; after an error trust nothing in memory."""
        self._home._db.check()  # a forked child would wait for ever for a turn that its parent has
        with self._turn.lock:
            if self._turn.busy:
                raise ProjectionFailed(
                    f"a handler of {self.name!r} asks for the table it is filling: use `rows`"
                )
            try:
                self._turn.busy = True
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

    def _replace(self, head: int) -> None:
        self._live = None
        beside = self._table(self.name + "~new")
        beside.drop()
        self._advance(beside, 0, head)
        beside.become(self.name, head)
        self._live = beside

    def _head(self) -> int:
        """Return the head of the log, with a mirror brought up to it."""
        if self._home is not self.store:
            with self._home._db.lock:  # or two threads would bring the same events
                rows = self.store._scan(Filter(after=self._home.position))
                self._home.restore(row for window in rows for row in window)
        return self._home.position

    def wait_for(self, position: int, timeout: float = 5.0) -> Self:
        """Catch up until the table has seen `position`, such as that of an event just appended.

        Where the log is shorter yet, wait for other threads to append, at most `timeout` seconds.
        Raises NotCaughtUp after that.
        """
        position = whole(position, "position")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < _LONGEST:
            raise InvalidArgument(f"timeout={timeout!r}: give seconds")
        pause = threading.Event()
        for _ in range(max(int(timeout / _PAUSE), 0)):
            if self.store.position >= position:
                break
            pause.wait(_PAUSE)
        if self.store.position < position:
            raise NotCaughtUp(
                f"{type(self).__name__} cannot see position {position:,}: the log ends at "
                f"{self.store.position:,}, and nobody appended within {timeout:g} s; append first, "
                "or wait longer with timeout=…"
            )
        return self.catch_up()

    # --- looking -------------------------------------------------------------------------------------------

    def df(self, *, fresh: bool = True) -> pd.DataFrame:
        """Return the rows as a dataframe in order of the key; `fresh=False`: as they are stored."""
        from esim.answer import frame

        if fresh:
            self.catch_up()
        return frame(self._stored())

    def as_of(self, moment: Moment) -> pd.DataFrame:
        """Return the rows as they were at a position or recorded time, computed aside; nothing is stored."""
        from esim.answer import frame

        self._head()
        return frame(self._aside(self.store.position_at(moment)))

    def _stored(self, limit: str = "") -> Answer:
        table = self._table(self.name)
        stored = table.checkpoint()
        if stored is None:
            return self._aside(0)
        order = self._order() if stored.stamp == self._stamp else ""  # a former definition had other columns
        return self._home._db.read_only(f"{table.select} {order} {limit}")

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            return f"<{name} {self._described()}>"
        except StoreClosed:
            return f"<{name} of a closed store>"

    def _described(self) -> str:
        where = f"at position {self.position:,} of {self.store.position:,}"
        table = self._table(self.name)
        stored = table.checkpoint()
        if stored is None:
            return f"{where}: not computed yet"
        count = self._home._db.fetch(f"SELECT count(*) FROM {table.path}")[0][0]
        names = ", ".join(self._stored("LIMIT 0").table.column_names)
        stale = "" if stored.stamp == self._stamp else ", of a former definition"
        return f"{where}: {count:,} row{'' if count == 1 else 's'} ({names}){stale}"

    def _repr_html_(self) -> str:
        try:
            caption, shown = f"{type(self).__name__} {self._described()}", self._stored("LIMIT 10").table
        except StoreClosed:
            return display.escape(repr(self))
        rows = [[display.escape(str(value)) for value in row.values()] for row in shown.to_pylist()]
        return display.table(shown.column_names, rows, caption)


def windows(after: int, until: int, size: int, label: str) -> Iterator[tuple[int, int]]:
    """Give position bounds of `size` one after the other; work of over two seconds shows a progress bar."""
    with Bar(after, until, label) as bar:
        for low in range(after, max(until, after + 1), size):  # an empty log has one empty window
            high = min(low + size, until)
            yield low, high
            bar.at(high)
