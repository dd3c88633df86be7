"""What a store in memory keeps, as parts that a simulation can take a picture of, put back, and compare."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from esim.clock import ManualClock, uuid7
from esim.memory import MemoryStore
from esim.process import Process
from esim.progress_memory import MemoryProgress, kept
from esim.subscription import Subscription
from esim.world import Part, frozen


class StageClock(ManualClock):
    """The virtual clock of a stage; a process may have it wrong."""

    skew = timedelta(0)

    def now(self) -> datetime:
        """Return the time as the process at hand sees it."""
        return self._now + self.skew if self.skew else self._now

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
    """The events of a store in memory; ids do not tell logs apart, nor do times where clocks are right."""

    name = "log"

    def __init__(self, store: MemoryStore, ids: CountedIds, *, timed: bool) -> None:
        """Stand for the log of `store`, whose ids are counted by `ids`; `timed`: clocks may be wrong."""
        self._store, self._ids, self._timed = store, ids, timed

    def snapshot(self) -> Any:
        """Return the rows, and how many ids were given out."""
        return tuple(self._store._rows), self._ids.count

    def restore(self, state: Any) -> None:
        """Put back what `snapshot` returned."""
        self._store.rewind(state[0])
        self._ids.count = state[1]

    def frozen(self) -> Hashable:
        """Return streams, types and payloads in order, and times where these are at stake."""
        if self._timed:
            return tuple([(row[1], row[3], row[5], row[10], row[11]) for row in self._store._rows])
        return tuple([(row[1], row[3], row[5]) for row in self._store._rows])


class Kept(Part):
    """What is kept of one subscription."""

    def __init__(self, store: MemoryStore, subscription: Subscription) -> None:
        """Stand for what `store` keeps of `subscription`."""
        self.name = f"kept {subscription.name}"
        self._of, self._store, self._subscription = subscription.name, store, subscription
        subscription._progress = _Watched(store, subscription.name, subscription.handler.row, self)

    def snapshot(self) -> Any:
        """Return a copy."""
        return kept(self._store)[self._of].copy()

    def restore(self, state: Any) -> None:
        """Put back a copy."""
        kept(self._store)[self._of] = state.copy()

    def frozen(self) -> Hashable:
        """Return checkpoint, rows, letters, ledger and inbox, without ids and times."""
        mine = kept(self._store)[self._of]
        mark = mine.mark
        plain = (mark.position, mark.begun, mark.trying, mark.part, mark.attempts, mark.gate, mark.paused)
        if not (mine.letters or mine.effects or mine.inbox or mine.rows):
            return plain, mark.told
        letters = [
            (one.position, one.part, one.sequence_index, one.attempts, one.cause_message)
            for one in mine.letters.values()
            if one is not None
        ]
        effects = [
            (one.position, one.key.partition(":")[2], one.effect, one.arguments, one.status)
            for one in mine.effects.values()
        ]
        inbox = [(position, key.partition(":")[2]) for key, position in mine.inbox.items()]
        rows = [_row(row, self._store) for row in mine.rows.values() if row is not None]
        return plain, mark.told, tuple(letters), tuple(effects), tuple(sorted(inbox)), frozenset(rows)


class _Watched(MemoryProgress):
    """Progress that tells its part when it changes."""

    def __init__(self, store: MemoryStore, name: str, row: Any, part: Kept) -> None:
        super().__init__(store, name, row)
        self._part = part

    def commit(self, *args: Any, **kwargs: Any) -> None:
        self._part.stale = True
        super().commit(*args, **kwargs)

    def sent(self, *args: Any, **kwargs: Any) -> None:
        self._part.stale = True
        super().sent(*args, **kwargs)

    def go_back(self, *args: Any, **kwargs: Any) -> None:
        self._part.stale = True
        super().go_back(*args, **kwargs)


def _row(row: Any, store: MemoryStore) -> Hashable:
    """Return a row; deadlines of a process by how far off they are, as absolute times differ in every run."""
    if isinstance(row, Process) and row.deadlines:
        now = store.clock.now()
        due = tuple([(one.name, (one.due - now).total_seconds()) for one in row.deadlines])
        return frozen(row.but(deadlines=())), due
    return frozen(row)
