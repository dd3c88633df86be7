"""What an exploration has found: a counterexample, or a proof within bounds that are said."""

from __future__ import annotations

from pathlib import Path

from esim import display
from esim.explore import Search
from esim.pytestfile import Found, write_test
from esim.recording import Run
from esim.scenario import Scenario
from esim.wobble import Steady

_DIES = (
    "a process can die before and after each event, each commit and each write, call, append and message of "
    "a handler, and at each await"
)
_PREEMPTS = (
    "another can go first at the same places but for those inside plain code, at yields and at awaits, "
    "also one that waits for a time"
)
_IN_TURN = (
    "processes take their turns in the order in which they were given, and no time passes while one is at "
    "work, unless it sleeps or is late: allow preemptions for others"
)


class Counterexample:
    """A schedule that breaks an invariant: a picture, and a token that replays it."""

    def __init__(self, run: Run, confirmed: str, found: Found) -> None:
        """Keep a run that has broken something, and how it was confirmed and found."""
        self.run, self.confirmed, self._found = run, confirmed, found
        self.scenario, self.token = run.scenario, run.token
        self.invariant, self.message = run.broken or ("", "")

    def to_pytest(self, path: str | Path, *, module: str | None = None, name: str | None = None) -> Path:
        """Write a test that replays this schedule, and explores the others: it fails until all hold.

        `module` and `name`: where the test imports the `Scenario` from; by default the module that has it.
        If none has, what a notebook's cells or a script explored is written beside the test, as a module.
        The test explores for as long as it takes; what was found by chance, as it was looked for.
        Raises InvalidArgument where there is no scenario to import, or another than this counterexample's,
        and where the code that makes it would change a file or a store each time that the test is run; what
        C code writes, as DuckDB's `COPY … TO`, is found out on Linux alone, by the error it gets.
        """
        target = Path(path)
        write_test(target, self.run, self._found, module, name)
        return target

    def __repr__(self) -> str:
        confirmed = f"; {self.confirmed}" if self.confirmed else ""
        return f"<Counterexample {self.token}: {self.invariant!r} is broken: {self.message}{confirmed}>"

    def _repr_html_(self) -> str:
        return f"<div>{display.escape(repr(self).strip('<>'))}</div>{self.run.image()}"


class Verdict:
    """What is known after an exploration."""

    def __init__(
        self,
        scenario: Scenario,
        search: Search,
        exhausted: bool,  # noqa: FBT001 - by name where it is made
        stopped: str,
        counterexample: Counterexample | None,
        *,
        steady: Steady,
    ) -> None:
        """Keep what a search has counted and found, and what could not be tried before."""
        self.scenario, self.exhausted, self.stopped = scenario, exhausted, stopped
        count = search.count
        self.schedules, self.merged, self.states = count.schedules, count.merged, count.states
        self.runs = count.runs
        """How many of the schedules were run; the others lead to states that were met before."""
        self.counterexample = counterexample
        self.unseen = [] if counterexample else sorted(search.unseen)
        """The names of what should sometimes have come true, or looks at what there never was."""
        self.empty = [] if counterexample else search.empty()
        """Why a proof is empty: what never came true, had nothing to look at, or does nothing but fail."""
        self.failing = [f"without a fault, {one.told}" for one in search.failing]
        """What the processes fail at without any fault."""
        turns = _PREEMPTS if scenario.faults.preempt else _IN_TURN
        self.granularity = "; ".join(one for one in (_DIES, turns, steady.untried) if one)
        """Where schedules may differ."""
        self.reserves = steady.reserves
        """What a proof takes for granted, beside its bounds: that what was not tried for real is alike."""

    @property
    def holds(self) -> bool:
        """Whether it is proven, within the bounds: nothing is broken, all was gone through, none is empty."""
        return self.counterexample is None and self.exhausted and not self.empty

    @property
    def bounds(self) -> str:
        """The faults that were allowed, in words."""
        return self.scenario.faults.told()

    def _told(self) -> str:
        number = f"{self.schedules:,} schedule{'' if self.schedules == 1 else 's'}"
        if self.counterexample is not None:
            found = self.counterexample
            where = f"found in run {self.runs:,}: {found.token}"
            return f"broken: {found.invariant!r}, {found.message}; {where}{self._failing()}"
        if self.empty and self.exhausted:
            return f"an empty proof: {'; '.join(self.empty)} ({number} with {self.bounds}){self._failing()}"
        asked = [repr(name) for name, one in self.scenario.invariants.items() if one.when != "sometimes"]
        held = f"{', '.join(asked)} {'holds' if len(asked) == 1 else 'hold'}"
        held = held if asked else "nothing was asked but that it comes to an end, and that holds"
        if self.exhausted:
            told = f"{held} in every schedule with {self.bounds} ({number}, {self.states:,} states)"
            return f"proven: {told}{self._failing()}{self._reserved()}"
        if not self.schedules:
            return f"not exhausted, as {self.stopped}: no schedule was run to its end"
        told = f"{held} in {number} with {self.bounds} ({self.states:,} states)"
        empty = "".join(f"; {one}" for one in self.empty)
        return f"not exhausted, as {self.stopped}: {told}{empty}{self._failing()}{self._reserved()}"

    def _failing(self) -> str:
        return "".join(f"; {one}" for one in self.failing if one not in self.empty)

    def _reserved(self) -> str:
        return "".join(f"; {one}" for one in self.reserves)

    def __repr__(self) -> str:
        return f"<{self._told()}>"

    def _repr_html_(self) -> str:
        mark = "✗" if self.counterexample else "✓" if self.holds else "?"
        color = f"color:{display.FAILURE};" if self.counterexample else ""
        head = f'<div style="{color}font-weight:600">{mark} {display.escape(self._told())}</div>'
        where = f'<div style="color:{display.MUTED};font-size:90%">{display.escape(self.granularity)}</div>'
        if self.counterexample is None:
            return head + where
        confirmed = f"<div>{display.escape(self.counterexample.confirmed)}</div>"
        return head + confirmed + self.counterexample.run.image()
