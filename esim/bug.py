"""A bug as a specimen: its story, code that has it, code that is cured of it, and the faults that show it.

Both codes come from one function, so that they have the world, the history and the invariants in common:
a cure that asks for less than the bug was blamed for would be none.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esim import display
from esim.contract import Store
from esim.faults import Faults
from esim.scenario import Scenario
from esim.simulation import explore
from esim.subscription import Subscription, _latest
from esim.verdict import Verdict
from esim.world import World


@dataclass(frozen=True)
class Case:
    """What a specimen is made of: a history, who acts in the naive and in the mended code, what must hold."""

    history: Any
    naive: Any
    mended: Any
    invariants: Mapping[str, Any]
    mended_history: Any = None
    """The same facts where the cure is in the way that they are read."""


@dataclass(frozen=True)
class Bug:
    """A classic bug; `find()` looks for a schedule that shows it, `prove()` goes through all of its cure."""

    name: str
    group: str
    story: str
    defence: str
    rows: tuple[str, ...]
    """The rows of the catalogue of faults that it stands for."""
    faults: Faults
    make: Callable[[World], Case]

    @property
    def naive(self) -> Scenario:
        """The scenario of the code that has the bug, in a world of its own."""
        world = World()
        case = self.make(world)
        return Scenario(case.history, case.naive, case.invariants, faults=self.faults, world=world)

    @property
    def mended(self) -> Scenario:
        """The scenario of the code that is cured, in a world of its own."""
        world = World()
        case = self.make(world)
        history = case.history if case.mended_history is None else case.mended_history
        return Scenario(history, case.mended, case.invariants, faults=self.faults, world=world)

    @property
    def code(self) -> str:
        """The source of both codes."""
        lines = textwrap.dedent(inspect.getsource(self.make)).splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("def "))
        return "\n".join(lines[start:])

    def find(self, **options: Any) -> Verdict:
        """Explore the code that has the bug; `options` are those of `explore`."""
        return explore(self.naive, **options)

    def prove(self, **options: Any) -> Verdict:
        """Explore the code that is cured, within the same bounds."""
        return explore(self.mended, **options)

    def __repr__(self) -> str:
        return f"<Bug {self.name!r} ({self.group}): {self.story}>"


def bug(
    group: str, *rows: str, faults: Faults | None = None, defence: str
) -> Callable[[Callable[[World], Case]], Bug]:
    """Make a `Bug` of a function that sets its case up; name and story are the function's own."""

    def made(make: Callable[[World], Case]) -> Bug:
        story = " ".join((inspect.getdoc(make) or "").split())
        name = make.__name__.replace("_", " ")
        return Bug(name, group, story, defence, rows, faults or Faults(), make)

    return made


class Gallery:
    """Bugs side by side: the story, the shortest counterexample as a picture, and the proof of the cure."""

    def __init__(self, bugs: Iterable[Bug]) -> None:
        """Find each bug, and prove its cure."""
        self.seen: Sequence[tuple[Bug, Verdict, Verdict]] = [(one, one.find(), one.prove()) for one in bugs]

    @property
    def holds(self) -> bool:
        """Whether each bug was found and confirmed, and each cure proven."""
        return all(
            found.counterexample is not None
            and found.counterexample.confirmed.startswith("confirmed")
            and proven.holds
            for _, found, proven in self.seen
        )

    def __repr__(self) -> str:
        lines = [f"{one.name}\n  {found!r}\n  {proven!r}" for one, found, proven in self.seen]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(_plate(*each) for each in self.seen)


def _plate(one: Bug, found: Verdict, proven: Verdict) -> str:
    said, broken = display.escape, found.counterexample
    picture = "" if broken is None else broken.run.image()
    mark = f'<b style="color:{display.FAILURE}">✗</b>' if broken else "?"
    where = f"found in run {found.runs:,}, {broken.confirmed}: {broken.token}" if broken else repr(found)
    muted = f'style="color:{display.MUTED};font-size:90%"'
    return (
        '<div style="padding:10px 0 14px 0;border-top:1px solid #8a8f9866">'
        f"<div><b>{said(one.name)}</b> <span {muted}>· {said(', '.join(one.rows))}</span></div>"
        f'<div style="padding:2px 0 6px 0">{said(one.story)}</div>'
        f'<div style="overflow-x:auto">{picture}</div>'
        f"<div {muted}>{mark} {said(where)}</div>"
        f'<div style="padding-top:6px"><b>{"✓" if proven.holds else "?"}</b> {said(one.defence)}</div>'
        f"<div {muted}>{said(repr(proven).strip('<>'))}</div>"
        f"<details><summary {muted}>the code, naive and mended</summary>"
        f"<pre {muted}>{said(one.code)}</pre></details></div>"
    )


def subscription_of(store: Store, name: str) -> Subscription:
    """Return the subscription of a name that follows a store in a simulation, to replay or redrive it."""
    return _latest[store][name]
