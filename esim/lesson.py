"""What notebooks teach with: a `check` that shows its claim, and exercises that answer at once.

A check that holds shows a line with a tick; one that does not raises, so that a notebook run from top to
bottom proves everything it says. An exercise knows its question, its checks, its hints and a solution to look
at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from esim import display
from esim.errors import EsimError, SpecFailed


@dataclass(frozen=True)
class Shown:
    """A line or block of text that a cell ends with."""

    text: str
    mark: str = ""

    def __repr__(self) -> str:
        return f"{self.mark} {self.text}".strip()

    def _repr_html_(self) -> str:
        body = display.escape(self.text).replace("\n", "<br>")
        mark = f"<b>{display.escape(self.mark)}</b> " if self.mark else ""
        return f'<div style="font-family:inherit;white-space:pre-wrap">{mark}{body}</div>'


def check(claim: str, holds: object) -> Shown:
    """Show `claim` with a tick if `holds` is true. Raises SpecFailed naming the claim otherwise.

    >>> check("an order has one total", 1 + 1 == 2)
    ✓ an order has one total
    """
    if not holds:
        raise SpecFailed(f"this does not hold: {claim}")
    return Shown(claim, "✓")


@dataclass
class Exercise:
    """A question with instant answers: `check(answer)`, `hint()` (the next one each time), `solution()`."""

    question: str
    checks: Sequence[tuple[str, Callable[[Any], object]]]
    """What must hold of an answer: a sentence in the learner's words, and a function that says so."""
    hints: Sequence[str] = ()
    solved: str = ""
    """The source of a solution; the tests run it."""
    _given: int = field(default=0, repr=False)

    def check(self, answer: Any) -> Shown:
        """Try an answer: say what holds and what does not yet; never raises for a wrong answer."""
        for sentence, holds in self.checks:
            try:
                fine = bool(holds(answer))
            except EsimError as error:
                return Shown(f"not yet: {sentence} ({error})", "✗")
            except Exception as error:  # noqa: BLE001 - whatever a learner's code raises is told, not thrown
                return Shown(f"not yet: {sentence} (your answer raised {type(error).__name__}: {error})", "✗")
            if not fine:
                return Shown(f"not yet: {sentence}", "✗")
        return Shown("; ".join(sentence for sentence, _ in self.checks), "✓")

    def hint(self) -> Shown:
        """Give the next hint; the last one again when there are no more."""
        if not self.hints:
            return Shown("there is no hint for this one; solution() shows a way")
        self._given = min(self._given + 1, len(self.hints))
        return Shown(f"hint {self._given} of {len(self.hints)}: {self.hints[self._given - 1]}")

    def solution(self) -> Shown:
        """Show one way to solve it."""
        return Shown(self.solved.strip() or "no solution is written down for this one")

    def __repr__(self) -> str:
        return f"Exercise: {self.question}\ntry .check(your_answer), .hint(), .solution()"

    def _repr_html_(self) -> str:
        text = display.escape(self.question).replace("\n", "<br>")
        help_ = "try <code>.check(your_answer)</code>, <code>.hint()</code>, <code>.solution()</code>"
        bar = f"border-left:3px solid {display.MUTED};padding:2px 12px"
        return f'<div style="{bar}"><b>Exercise.</b> {text}<br>{help_}</div>'
