"""How far a subscription is, and what must be kept of it: the contract, whatever keeps it.

One commit holds the checkpoint, the rows that handlers wrote, dead letters, the ledger of effects and the
inbox: they stand or fall together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_type_hints

from esim.effects import Effect, Status
from esim.rows import Row, Rows

if TYPE_CHECKING:
    import pandas as pd


class Mark(NamedTuple):
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


class Registered(NamedTuple):
    """What a subscription was when it was registered.

    Its handler, its mode, the columns of its rows, and which events it is for.
    """

    handler: str
    checkpoint: str
    columns: str | None
    wanted: str


class Letter(NamedTuple):
    """An event that its subscription cannot handle: a dead letter, or one that waits behind it.

    It stands for one `part` of a stored event, or, as a `whole`, for that and all later ones: where upcasters
    fail nobody knows how many there are. If it is `gated` a replay made it, and its effects are not done.
    """

    dead_letter_id: int
    subscription: str
    sequence_id: str
    sequence_index: int
    event_id: str
    position: int
    part: int
    whole: bool
    gated: bool
    attempts: int
    cause_type: str | None
    cause_message: str | None
    enqueued_at: datetime
    last_touched: datetime
    diagnostics: str | None


class Waiting(NamedTuple):
    """An effect that is to be done; `attempts` are those that are noted, by this process or former ones."""

    key: str
    name: str
    arguments: str
    attempts: int


class Entry(NamedTuple):
    """One line of the ledger, as it is shown."""

    position: int
    effect: str
    arguments: str
    status: Status
    attempts: int
    cause: str | None
    key: str
    last_touched: datetime


class Overview(NamedTuple):
    """One subscription of a store, as it is shown."""

    name: str
    handler: str
    checkpoint: str
    position: int
    lag: int
    state: str
    attempts: int
    dead_letters: int
    failed_effects: int

    @property
    def failures(self) -> str:
        """What it could not do, in words: nothing, dead letters, failed effects."""
        counted = ((self.dead_letters, "dead letter"), (self.failed_effects, "failed effect"))
        return ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for count, what in counted if count)


class Progress(ABC):
    """What is kept of the subscription `name`; `row` is the class of the rows that its handler writes."""

    name: str
    row: type[Row] | None

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all subscriptions that are kept beside this one, and its own."""

    @abstractmethod
    def known(self) -> Registered | None:
        """Return what the subscription was registered as, or None."""

    @abstractmethod
    def register(self, registered: Registered, mark: Mark) -> None:
        """Keep the subscription, in place of what was kept under its name; its rows stay.

        A table of other columns is made anew: its subscription stands at the beginning, and has no rows.
        Raises InvalidArgument if a read model has its name, and it has rows.
        """

    @abstractmethod
    def load(self) -> Mark:
        """Return where the subscription stands."""

    @abstractmethod
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
        """Make all of this durable, or nothing; `letters` replace those of the same id."""

    @abstractmethod
    def go_back(self, mark: Mark, *, again: bool) -> None:
        """Stand at an earlier `mark`, and forget the rows and what came of the events after it.

        The ledger keeps what was done, unless it is to be done `again`.
        """

    @abstractmethod
    def inherit(self, names: Iterable[str], positions: Collection[int]) -> None:
        """Take over what other subscriptions have on the ledger and in the inbox of events at `positions`."""

    @abstractmethod
    def remove(self) -> None:
        """Forget the subscription, and its rows."""

    @abstractmethod
    def rows(self, after: int, until: int) -> Rows[Any]:
        """Return the handler's rows as they stand at position `after`, to handle the events up to `until`."""

    @abstractmethod
    def all_rows(self) -> list[Any]:
        """Return every row that is committed."""

    @abstractmethod
    def holding(self, field: str) -> list[Any]:
        """Return the rows whose `field`, a list, is not empty."""

    @abstractmethod
    def letters(self) -> list[Letter]:
        """Return the dead letters in order of position."""

    @abstractmethod
    def next_letter(self) -> int:
        """Return an id that no dead letter of this store has."""

    @abstractmethod
    def effect(self, key: str) -> str | None:
        """Return the status of an effect, or None if it is not on the ledger."""

    @abstractmethod
    def waiting(self, status: Literal["pending", "failed"]) -> list[Waiting]:
        """Return what waits in the outbox, or has failed, in order."""

    @abstractmethod
    def tried(self, key: str, attempts: int) -> None:
        """Note how many attempts there were at an effect of the outbox."""

    @abstractmethod
    def sent(self, key: str, at: datetime, failure: str | None, attempts: int) -> None:
        """Note that an effect of the outbox is done, or why it failed, and after how many attempts."""

    @abstractmethod
    def handled(self, key: str) -> bool:
        """Say whether the inbox has an event."""

    @abstractmethod
    def farthest(self, table: str) -> int:
        """Return the last position that the `inbox` or the ledger (`effects`) names; 0 if it is empty."""

    @abstractmethod
    def ledger(self) -> list[Entry]:
        """Return the ledger in order of position."""

    @abstractmethod
    def row_frame(self) -> pd.DataFrame:
        """Return the rows as a dataframe in order of their key."""


def frame(lines: Sequence[Any], kind: type[Any]) -> pd.DataFrame:
    """Return lines of the bookkeeping, of the named tuple `kind`, as a dataframe; times are aware UTC."""
    import pandas as pd

    columns = dict(zip(kind._fields, zip(*lines, strict=True), strict=True)) if lines else {}
    made = {}
    for name, hint in get_type_hints(kind).items():
        values: Sequence[Any] = columns.get(name, ())
        if hint is datetime:
            aware = [value.replace(tzinfo=UTC) for value in values]
            made[name] = pd.Series(aware, dtype="datetime64[us, UTC]")
        else:
            made[name] = pd.Series(values, dtype="int64" if hint is int else "str")
    return pd.DataFrame(made)
