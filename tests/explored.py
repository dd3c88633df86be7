"""Two ways to go through every schedule: the engine's, and one that is too simple to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from esim.confirm import ending_of
from esim.explore import Search
from esim.recording import ENDLESS
from esim.scenario import Scenario
from esim.stage import Stage


class Walk:
    """Makes the choices of one list, then takes the first option; keeps how many there were."""

    records = False
    watches = True

    def __init__(self, scenario: Scenario, choices: Sequence[int]) -> None:
        self.given = choices
        self.asked: list[int] = []
        self.verdicts: set[str] = set()
        stage = Stage(scenario)
        self._always = [(name, one) for name, one in scenario.invariants.items() if one.when == "always"]
        first = stage.begin(scenario.faults.budgets())
        if stage.play(self, first):
            for name, one in scenario.invariants.items():
                if one.when == "eventually" and one.broken(stage.look) is not None:
                    self.verdicts.add(name)
            self.ending: str | None = repr(ending_of(stage, None))
        else:
            self.ending = None
            self.verdicts.add(ENDLESS)

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:
        assert stage.choices == len(self.asked)
        self.asked.append(len(options))
        at = len(self.asked) - 1
        return self.given[at] if at < len(self.given) else 0

    def rest(self, stage: Stage) -> bool:
        return self.step(stage)

    def step(self, stage: Stage) -> bool:
        for name, one in self._always:
            if one.broken(stage.look) is not None:
                self.verdicts.add(name)
        return True

    def note(self, stage: Stage, lane: str, told: str, fault: str) -> None:
        pass


def one_by_one(scenario: Scenario) -> tuple[set[str], set[str], int]:
    """Run each schedule from its beginning, on a stage of its own, and merge nothing.

    Returns what is broken in any, how they end, and how many there are.
    """
    verdicts: set[str] = set()
    endings: set[str] = set()
    schedules, waiting = 0, [()]
    while waiting:
        given: tuple[int, ...] = waiting.pop()
        walk = Walk(scenario, given)
        schedules += 1
        verdicts |= walk.verdicts
        if walk.ending is not None:
            endings.add(walk.ending)
        for at in range(len(given), len(walk.asked)):
            zeros = (0,) * (at - len(given))
            waiting += [(*given, *zeros, other) for other in range(1, walk.asked[at])]
    return verdicts, endings, schedules


class Everything(Search):
    """A search that goes on where something is broken, and keeps what and how the runs end."""

    def __init__(self, scenario: Scenario, *, prune: bool) -> None:
        super().__init__(Stage(scenario), scenario.invariants, prune=prune)
        self.verdicts: set[str] = set()
        self.endings: set[str] = set()
        for broken in self.nodes(scenario.faults, "exhaustive"):
            if broken is not None:
                self.verdicts.add(broken.invariant)

    def _check(self, stage: Stage, key: Any) -> None:
        if key not in self._checked:
            self._checked.add(key)
            self.verdicts |= {name for name, one in self._always if one.broken(stage.look) is not None}

    def _check_end(self) -> None:
        key: Any = self.stage.key()
        if key not in self.ends:
            self.ends.add(key)
            self.endings.add(repr(ending_of(self.stage, None)))
            self.verdicts |= {name for name, one in self._finally if one.broken(self.stage.look) is not None}


def all_at_once(scenario: Scenario, *, prune: bool = True) -> tuple[set[str], set[str], int]:
    """Go through every schedule by the engine's search; see `one_by_one`."""
    search = Everything(scenario, prune=prune)
    return search.verdicts, search.endings, search.count.runs
