"""How far a subscription on a store in memory is: kept as long as the store, and as fast as simulations ask.

A commit is noted whole, in one assignment, before it is carried out: an interrupt in between leaves it to
whoever looks next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from esim.effects import Effect, Status
from esim.memory import MemoryStore
from esim.progress import Entry, Letter, Mark, Progress, Registered, Waiting
from esim.rows import Row, Rows

if TYPE_CHECKING:
    import pandas as pd


class _Commit(NamedTuple):
    """What a commit changes; None takes away."""

    mark: Mark
    letters: dict[int, Letter | None]
    effects: dict[str, Entry]
    inbox: dict[str, int]
    rows: dict[Any, Row | None]


@dataclass(eq=False)
class Kept:
    """What outlives a crash of one subscription."""

    registered: Registered
    mark: Mark
    letters: dict[int, Letter | None] = field(default_factory=dict)
    effects: dict[str, Entry] = field(default_factory=dict)
    inbox: dict[str, int] = field(default_factory=dict)
    rows: dict[Any, Row | None] = field(default_factory=dict)
    noted: _Commit | None = None
    watch: Any = None
    """Something whose `stale` is set by every change."""

    def copy(self) -> Kept:
        """Return what later changes leave alone; a commit under way is carried out first."""
        if self.noted is not None:
            _carry_out(self, self.noted)
        kept = (dict(self.letters), dict(self.effects), dict(self.inbox), dict(self.rows))
        return Kept(self.registered, self.mark, *kept, watch=self.watch)


_kept: WeakKeyDictionary[MemoryStore, dict[str, Kept]] = WeakKeyDictionary()


def kept(store: MemoryStore) -> dict[str, Kept]:
    """Return what is kept of the subscriptions of a store, by name. Raises StoreClosed."""
    store._open()
    return _kept.setdefault(store, {})


class MemoryProgress(Progress):
    """What is kept of one subscription, in dicts."""

    def __init__(self, store: MemoryStore, name: str, row: type[Row] | None = None) -> None:
        """Stand for the subscription `name`, whether it is known or not."""
        self.store, self.name, self.row = store, name, row
        self._all = kept(store)

    def _kept(self) -> Kept:
        self.store._open()
        mine = self._all[self.name]
        if mine.noted is not None:
            _carry_out(mine, mine.noted)
        return mine

    def names(self) -> list[str]:
        return sorted(kept(self.store))

    def known(self) -> Registered | None:
        return kept(self.store)[self.name].registered if self.name in kept(self.store) else None

    def register(self, registered: Registered, mark: Mark) -> None:
        mine = kept(self.store).setdefault(self.name, Kept(registered, mark))
        mine.registered, mine.mark = registered, mark

    def load(self) -> Mark:
        return self._kept().mark

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
        mine = self._kept()
        if not (letters or gone or effects or inbox or (rows is not None and rows.changed)):
            mine.mark = mark
            _changed(mine)
            return
        entries = {one.key: _entry(one, at) for one in effects}
        changed = {} if rows is None or not rows.changed else dict(rows.changes())
        removed: dict[int, Letter | None] = dict.fromkeys(gone)
        mine.noted = _Commit(
            mark, removed | {one.dead_letter_id: one for one in letters}, entries, dict(inbox), changed
        )
        _carry_out(mine, mine.noted)
        if rows is not None:
            rows.changed = {}

    def go_back(self, mark: Mark, *, again: bool) -> None:
        mine, position = self._kept(), mark.position
        earlier = Kept(mine.registered, mark, watch=mine.watch)
        for one in self.letters():
            if one.position <= position:
                earlier.letters[one.dead_letter_id] = one
        earlier.inbox = {key: at for key, at in mine.inbox.items() if at <= position}
        earlier.effects = {
            key: one for key, one in mine.effects.items() if not again or one.position <= position
        }
        kept(self.store)[self.name] = earlier
        _changed(earlier)

    def inherit(self, names: Iterable[str], positions: Collection[int]) -> None:
        mine, here = self._kept(), frozenset(positions)
        _changed(mine)
        for name in names:
            other = MemoryProgress(self.store, name)._kept()
            mine.effects |= {key: one for key, one in other.effects.items() if one.position in here}
            mine.inbox |= {key: at for key, at in other.inbox.items() if at in here}

    def remove(self) -> None:
        kept(self.store).pop(self.name, None)

    def rows(self, after: int, until: int) -> Rows[Any]:  # noqa: ARG002 - all of them are at hand
        assert self.row is not None  # noqa: S101 - asked only of a handler with rows
        return Rows(self.row, self)

    def find(self, key: Any) -> Any:
        """Return the row of a key, or None."""
        return self._kept().rows.get(key)

    def all(self) -> list[Any]:
        """Return every row."""
        return [row for row in self._kept().rows.values() if row is not None]

    def all_rows(self) -> list[Any]:
        return self.all()

    def holding(self, field: str) -> list[Any]:
        return [row for row in self.all() if getattr(row, field)]

    def letters(self) -> list[Letter]:
        letters = self._kept().letters
        if not letters:  # each life of a process asks
            return []
        found = (one for one in letters.values() if one is not None)
        return sorted(found, key=lambda one: (one.position, one.part))

    def next_letter(self) -> int:
        taken = (max(mine.letters, default=0) for mine in kept(self.store).values())
        return max(taken, default=0) + 1

    def effect(self, key: str) -> str | None:
        found = self._kept().effects.get(key)
        return found and found.status

    def waiting(self, status: Literal["pending", "failed"]) -> list[Waiting]:
        found = (one for one in self.ledger() if one.status == status) if self._kept().effects else ()
        return [Waiting(one.key, one.effect, one.arguments, one.attempts) for one in found]

    def tried(self, key: str, attempts: int) -> None:
        mine = self._kept()
        mine.effects[key] = mine.effects[key]._replace(attempts=attempts)
        _changed(mine)

    def sent(self, key: str, at: datetime, failure: str | None, attempts: int) -> None:
        mine = self._kept()
        status: Status = "failed" if failure else "done"
        mine.effects[key] = mine.effects[key]._replace(
            status=status, last_touched=at, cause=failure, attempts=attempts
        )
        _changed(mine)

    def handled(self, key: str) -> bool:
        return key in self._kept().inbox

    def farthest(self, table: str) -> int:
        mine = self._kept()
        positions = (
            mine.inbox.values() if table == "inbox" else (one.position for one in mine.effects.values())
        )
        return max(positions, default=0)

    def ledger(self) -> list[Entry]:
        return sorted(self._kept().effects.values(), key=lambda one: one.position)  # then as they were asked

    def row_frame(self) -> pd.DataFrame:
        from esim.progress_table import TableProgress  # the only need for DuckDB here
        from esim.store import EventStore

        assert self.row is not None  # noqa: S101 - asked only of a handler with rows
        rows = Rows(self.row)
        for row in self.all():
            rows.put(row)
        with EventStore() as copy:
            table = TableProgress(copy._db, self.name, self.row)
            table.register(self._kept().registered, Mark())
            table.commit(Mark(), rows=rows)
            return table.row_frame()


def _carry_out(mine: Kept, commit: _Commit) -> None:
    mine.letters.update(commit.letters)
    mine.effects.update(commit.effects)
    mine.inbox.update(commit.inbox)
    mine.rows.update(commit.rows)
    mine.mark = commit.mark
    mine.noted = None
    _changed(mine)


def _changed(mine: Kept) -> None:
    if mine.watch is not None:
        mine.watch.stale = True


def _entry(effect: Effect, at: datetime | None) -> Entry:
    assert at is not None  # noqa: S101 - effects come with the time
    return Entry(
        *(effect.position, effect.name, effect.arguments, effect.status, effect.attempts, None),
        *(effect.key, at),
    )
