"""Events that could not be handled, kept beside the log with the cause; and effects that could not be done.

Events are kept in sequence: no event of a stream is handled before an earlier one of it. `redrive` hands them
to the handler as it is now, `evict` gives one up for good. `resend` does effects that have failed once more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from esim import display
from esim.arguments import whole
from esim.delivery import Delivery
from esim.errors import InvalidArgument, said
from esim.points import Point, Step, mortal
from esim.progress import Entry, Letter, Progress, frame

if TYPE_CHECKING:
    import pandas as pd


class _Tried(NamedTuple):
    """What became of a letter that was redriven."""

    dead_letter_id: int
    sequence_id: str
    position: int
    handled: bool
    cause: str | None


class DeadLetters:
    """The dead letters of one subscription."""

    def __init__(self, progress: Progress, turn: Callable[[], AbstractContextManager[Delivery]]) -> None:
        """Stand for those of `progress`; `turn` gives the delivery to whoever changes them."""
        self._progress, self._turn = progress, turn

    def __len__(self) -> int:
        return len(self._progress.letters())

    def df(self) -> pd.DataFrame:
        """Return the dead letters as a dataframe, in order of position.

        Columns: dead_letter_id, subscription, sequence_id (the stream), sequence_index (0 is the one that
        failed first, later ones may only wait), event_id, position, attempts, cause_type, cause_message,
        enqueued_at and last_touched (UTC), diagnostics (JSON).
        """
        return frame(self._progress.letters(), Letter).drop(columns=["part", "whole", "gated"])

    def redrive(self, sequence: str | None = None) -> pd.DataFrame:
        """Hand the letters (of one sequence) to the handler again, each sequence until one fails.

        Returns a row for each letter that was tried: dead_letter_id, sequence_id, position, handled, cause.
        What is handled is no letter any more; what fails stays, with another attempt and its new cause.
        Raises InvalidArgument if there is no such sequence.
        """
        import pandas as pd

        tried: list[_Tried] = []
        with self._turn() as delivery, closing(self._redriven(delivery, sequence, tried)) as steps:
            for _ in steps:
                pass
        return pd.DataFrame(tried, columns=_Tried._fields)

    def steps(self, sequence: str | None = None) -> Iterator[Point]:
        """Redrive step by step: give each point at which the process could die; see `Subscription.steps`."""
        with self._turn() as delivery:
            yield from mortal(self._redriven(delivery, sequence, []))

    def _redriven(self, delivery: Delivery, sequence: str | None, tried: list[_Tried]) -> Generator[Step]:
        letters = sorted(self._progress.letters(), key=lambda one: (one.sequence_id, one.sequence_index))
        names = list(dict.fromkeys(letter.sequence_id for letter in letters))
        if sequence is not None and sequence not in names:
            told = display.did_you_mean(str(sequence), names)
            raise InvalidArgument(f"no dead letter is of the sequence {sequence!r}{told}")
        for name, group in groupby(letters, key=lambda one: one.sequence_id):
            if sequence not in (None, name):
                continue
            for letter in group:
                error = yield from delivery.redrive(letter)
                cause = said(error) if error else None
                tried.append(_Tried(letter.dead_letter_id, name, letter.position, error is None, cause))
                if error is not None:
                    break

    def resend(self, effect: str | None = None) -> pd.DataFrame:
        """Do the effects (of one function, by its name) that failed in the outbox once more, in order.

        Returns their lines of the ledger as they are then. Raises InvalidArgument if none of that function
        has failed, or a function is not known here: pass the subscription sends=[…].
        """
        failed = {one.key: one.name for one in self._progress.waiting("failed")}
        if effect is not None and effect not in failed.values():
            told = display.did_you_mean(str(effect), list(dict.fromkeys(failed.values())))
            raise InvalidArgument(f"no effect {effect!r} has failed{told}")
        with self._turn() as delivery, closing(delivery.resend(effect)) as steps:
            for _ in steps:
                pass
        tried = {key for key, name in failed.items() if effect in (None, name)}
        return frame([line for line in self._progress.ledger() if line.key in tried], Entry)

    def evict(self, dead_letter_id: int) -> None:
        """Give a letter up: its event is never handled. Those that waited behind it stay for a redrive.

        Raises InvalidArgument if there is no such letter.
        """
        wanted = whole(dead_letter_id, "dead_letter_id")
        with self._turn() as delivery:
            letters = {letter.dead_letter_id: letter for letter in self._progress.letters()}
            if wanted not in letters:
                known = ", ".join(map(str, list(letters)[:10])) or "none"
                raise InvalidArgument(f"there is no dead letter {wanted}; there is {known}")
            for _ in delivery.dismiss(letters[wanted]):
                pass

    def __repr__(self) -> str:
        letters = self._progress.letters()
        failed = sum(letter.cause_type is not None for letter in letters)
        dead = f"{failed} dead letter{'' if failed == 1 else 's'}"
        waiting = f"{len(letters) - failed} waiting behind {'it' if failed == 1 else 'them'}"
        count = len(self._progress.waiting("failed"))
        effects = f"; {count} failed effect{'' if count == 1 else 's'}, to resend()" if count else ""
        return f"<{dead}, and {waiting}{effects}>"

    def _repr_html_(self) -> str:
        rows = [
            [display.escape(_short(value)) for value in _shown(letter)] for letter in self._progress.letters()
        ]
        header = ("id", "sequence", "position", "attempts", "cause")
        return display.table(header, rows, repr(self).strip("<>"))


def _shown(letter: Letter) -> tuple[object, ...]:
    waits = f"waits behind {letter.sequence_id}'s first"
    cause = f"{letter.cause_type}: {letter.cause_message}" if letter.cause_type else waits
    return letter.dead_letter_id, letter.sequence_id, letter.position, letter.attempts, cause


def _short(value: object) -> str:
    return display.cut(str(value), 100)
