"""What a store in memory keeps, as parts that a simulation can take a picture of, put back, and compare."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from esim.clock import _EPOCH, ManualClock, uuid7
from esim.contract import Store
from esim.envelope import Row
from esim.frozen import frozen
from esim.memory import MemoryStore
from esim.part import Part
from esim.progress import Entry, Letter
from esim.progress_memory import kept
from esim.store import EventStore
from esim.subscription import Subscription


class StageClock(ManualClock):
    """The virtual clock of a stage; a process may have it wrong."""

    skew = timedelta(0)

    def now(self) -> datetime:
        """Return the time as the process at hand sees it."""
        return self._now + self.skew if self.skew else self._now

    def time(self) -> float:
        """Return the time in seconds, as it is."""
        return (self._now - _EPOCH).total_seconds()

    def block(self, idle: Callable[[], bool]) -> bool:  # noqa: ARG002 - as nobody goes on meanwhile
        """Say that there is no waiting for others in plain code."""
        return False

    def jump(self, to: datetime) -> None:
        """Stand at a moment, earlier or later."""
        self._now = to


class CountedIds:
    """Event ids by number: the same run gives the same ids, from any moment on."""

    def __init__(self) -> None:
        """Begin with number 1."""
        self.count = 0

    def __call__(self, at: datetime, count: int) -> list[UUID]:  # noqa: ARG002 - the number is all
        """Return the next ids."""
        first = self.count + 1
        self.count += count
        return [uuid7(0, number) for number in range(first, self.count + 1)]


class Log(Part):
    """The events of a store in memory, and the snapshots that it keeps."""

    name = "log"

    def __init__(self, store: MemoryStore, ids: CountedIds) -> None:
        """Stand for the log of `store`, whose ids are counted by `ids`."""
        self._store, self._ids = store, ids
        self._rows: list[Row] = []
        self._told: list[int] = []
        self._numbers: dict[Hashable, int] = {}

    def snapshot(self) -> Any:
        """Return the rows, the snapshots, and how many ids were given out."""
        return tuple(self._store._rows), dict(self._store._snapshots), self._ids.count

    def restore(self, state: Any) -> None:
        """Put back what `snapshot` returned."""
        rows, snapshots, self._ids.count = state
        self._store.rewind(rows, snapshots)

    def frozen(self) -> Hashable:
        """Return a number for each row, in order, the same for rows that say the same; and the snapshots."""
        rows, same = self._store._rows, 0
        for known, row in zip(self._rows, rows, strict=False):
            if known is not row:
                break
            same += 1
        if same < len(rows) or same < len(self._rows):
            self._rows[same:] = rows[same:]
            self._told[same:] = [self._numbers.setdefault(row[1:], len(self._numbers)) for row in rows[same:]]
        return tuple(self._told), frozenset(self._store._snapshots.values())


def restore(store: Store, rows: Sequence[Row]) -> None:
    """Have a store hold recorded events as they were recorded."""
    if isinstance(store, EventStore):
        store.restore(rows)
    elif isinstance(store, MemoryStore):
        store.rewind(rows)


_PASSING = ("dead_letter_id", "event_id", "diagnostics", "key")
"""What of letters and of the ledger differs between states in which the same can follow."""


class Kept(Part):
    """What is kept of one subscription."""

    def __init__(self, store: MemoryStore, subscription: Subscription) -> None:
        """Stand for what `store` keeps of `subscription`."""
        self.name = f"kept {subscription.name}"
        self._of, self._store, self._subscription = subscription.name, store, subscription
        self._all = kept(store)
        self._all[self._of].watch = self

    def snapshot(self) -> Any:
        """Return a copy."""
        return self._all[self._of].copy()

    def restore(self, state: Any) -> None:
        """Put back a copy."""
        self._all[self._of] = state.copy()
        self._subscription._delivery = None  # what it has in memory is of another moment

    def frozen(self) -> Hashable:
        """Return checkpoint, rows, letters, ledger and inbox, without what is of one run alone."""
        mine = self._all[self._of]
        mark = mine.mark
        if not (mine.letters or mine.effects or mine.inbox or mine.rows):
            return mark
        letters = tuple([_LETTER(one) for one in mine.letters.values() if one is not None])
        effects = tuple([(one.key.partition(":")[2], _ENTRY(one)) for one in mine.effects.values()])
        inbox = frozenset([(position, key.partition(":")[2]) for key, position in mine.inbox.items()])
        rows = frozenset([frozen(row) for row in mine.rows.values() if row is not None])
        return mark, letters, effects, inbox, rows


_LETTER = attrgetter(*(name for name in Letter._fields if name not in _PASSING))
_ENTRY = attrgetter(*(name for name in Entry._fields if name not in _PASSING))
