"""The search for a schedule that breaks an invariant: all within the bounds, those of fewest faults first.

A run goes on by default, with nothing wrong. At each place where something else could have been chosen, that
choice is put aside with the moment it can be made from, and taken up later. A state that was met before,
with the same faults left, is not gone through again: what could follow is known. So a proof is about every
schedule within the bounds, although few are run to their end.

References: state hashing as in G. Holzmann's "SPIN"; fewest deviations first as in M. Musuvathi and S.
Qadeer's iterative context bounding; shrinking as in D. MacIver's "Hypothesis".
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Literal, NamedTuple

from esim.errors import InvalidArgument
from esim.faults import MEANINGS, Faults
from esim.invariant import Invariant
from esim.player import Failing, failing
from esim.recording import ENDLESS
from esim.stage import WHO, Moment, Stage, TimeIsOver

Strategy = Literal["exhaustive", "random", "few_preemptions"]
Choices = dict[int, int]
"""Which option was taken at which choice, for those that are not 0."""


_IN_FLIGHT = [kind for kind in Faults.all_names() if kind not in ("crash", "duplicate")]
"""Faults after which a process goes on with what it has in memory: its run is done again up to them."""


_MOST_FAULTS = 1_000_000


class Broken(NamedTuple):
    """An invariant that does not hold after certain choices, and why."""

    invariant: str
    message: str
    choices: Choices


class _Node(NamedTuple):
    moment: Moment
    tail: Choices
    until: int
    choices: Choices


@dataclass
class Count:
    """What a search has gone through."""

    schedules: int = 0
    runs: int = 0
    merged: int = 0
    states: int = 0
    steps: int = 0


class Search:
    """A search through the schedules of a stage; it drives each run itself."""

    records = False

    def __init__(self, stage: Stage, invariants: Mapping[str, Invariant], *, prune: bool = True) -> None:
        """Look for schedules of `stage` that break one of `invariants`; without `prune` each is run."""
        self.stage, self.prune = stage, prune
        self.afresh: Callable[[], object] | None = None
        """Makes what tasks share anew before each run; all begin at the first moment then, and none merge."""
        self._always = [(name, one) for name, one in invariants.items() if one.when == "always"]
        self._finally = [(name, one) for name, one in invariants.items() if one.when == "eventually"]
        self.watches = any(one.when != "eventually" for one in invariants.values())
        self.unseen = {
            name: one for name, one in invariants.items() if one.when == "sometimes" or one.about is not None
        }
        self.failing: list[Failing] = []
        """What the processes fail at without any fault."""
        self.count = Count()
        self.ends: set[Hashable] = set()
        self._seen: set[Hashable] = set()
        self._checked: set[Hashable] = set()
        self._frontier: list[tuple[int, int, _Node]] = []
        self._pushed = 0
        self._node: _Node
        self._base: Moment
        self._path: set[Hashable] = set()
        self._deep = True
        self._few = 0
        self._taken: Choices = {}
        self._broken: tuple[str, str] | None = None

    # --- the search ----------------------------------------------------------------------------------------

    def nodes(self, faults: Faults, strategy: Strategy, below: float = inf) -> Iterator[Broken | None]:
        """Run schedule after schedule, `below` so many faults; give what each has broken, if anything."""
        budgets = faults.budgets()
        first = self.stage.begin(budgets)
        self._deep = self.afresh is None and any(budgets[kind] for kind in _IN_FLIGHT)
        self.prune = self.prune and self.afresh is None
        self._few = budgets["preempt"] if strategy == "few_preemptions" else 0
        self._node = _Node(first, {}, first.choices, {})
        self._push(self._node)
        while self._frontier and len(self._frontier[0][2].choices) < below:
            _, _, node = heapq.heappop(self._frontier)
            broken = self.run(node)
            if self.count.runs == 1:
                self.failing = failing(self.stage.players)
            yield broken

    def empty(self) -> list[str]:
        """Return why a proof would be empty, if it would."""
        failing = [f"without a fault, {one.told}" for one in self.failing if one.wholly]
        never = [
            f"{name!r} never came true" if one.when == "sometimes" else f"{name!r} had nothing to look at"
            for name, one in sorted(self.unseen.items())
        ]
        return failing + self.stage.look.unknown() + never

    @property
    def left(self) -> bool:
        """Whether there is a schedule that was not run: so it is before the first one."""
        return not self._pushed or bool(self._frontier)

    def run(self, node: _Node) -> Broken | None:
        """Run one schedule, and put aside what else could be chosen on its way."""
        self.count.schedules += 1
        self.count.runs += 1
        self._node, self._path, self._taken = node, set(), dict(node.choices)
        self._base, self._broken = node.moment, None
        if self.afresh is not None:
            self.afresh()
        try:
            if self.stage.play(self, node.moment):
                self._check_end()
            elif self._broken is None and (why := self.stage.endless()):
                self._broken = ENDLESS, why
        except TimeIsOver:
            self.count.schedules -= 1
            self.count.runs -= 1
            raise
        finally:
            self.count.steps += self.stage.steps
        return None if self._broken is None else Broken(*self._broken, dict(self._taken))

    def _push(self, node: _Node, *, preempt: bool = False) -> None:
        self._pushed += 1
        cost = len(node.choices)
        if self._few:  # those with fewer preemptions first, whatever else goes wrong
            cost += _MOST_FAULTS * (self._few - self.stage.left["preempt"] + preempt)
        heapq.heappush(self._frontier, (cost, self._pushed, node))

    # --- what the stage asks -------------------------------------------------------------------------------

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:  # noqa: ARG002
        """Take what the schedule says; beyond it nothing goes wrong, and what could is put aside."""
        at = stage.choices
        node = self._node
        if at < node.until:
            return node.tail.get(at, 0)
        for index in range(1, len(options)):
            self._aside(stage, at, index, options[index], lane)
        return 0

    def _aside(self, stage: Stage, at: int, index: int, kind: str, lane: str) -> None:
        player, players, preempt = stage.at, stage.players, lane == WHO
        again = kind == "duplicate" and player is not None and player.subscription is not None
        mortal = kind == "crash" or (again and player is not None and lane == player.name)
        alone = len(players) == 1 or not any(one.working for one in players if one is not player)
        if preempt or player is None or not alone or not mortal or self.afresh is not None:
            choices = {**self._node.choices, at: index}
            base = self._base.choices
            since = {number: choice for number, choice in choices.items() if number >= base}
            self._push(_Node(self._base, since, at + 1, choices), preempt=preempt)
            return
        died, left = (players.index(player), kind), stage.left_after(kind)
        key = stage.key(), left, tuple([one.kept() for one in players]), died
        if self.prune and key in self._seen:
            self.count.schedules += 1
            self.count.merged += 1
            return
        self._seen.add(key)
        choices = {**self._node.choices, at: index}
        self._push(_Node(stage.moment(died), {}, at + 1, choices))

    def rest(self, stage: Stage) -> bool:
        """Go on unless what could follow is known already."""
        key = stage.rest_key()
        self._check(stage, key[0])
        if self._broken is not None:
            return False
        if key in self._path:
            self._broken = ENDLESS, "the same state comes again and again"
            return False
        if self.prune and stage.choices >= self._node.until:
            if key in self._seen:
                self.count.merged += 1
                return False
            self._seen.add(key)
        self._path.add(key)
        if self._deep:
            self._base = stage.moment()
        return True

    def step(self, stage: Stage) -> bool:
        """Check what must always hold; go on if it does."""
        self._check(stage, stage.key())
        return self._broken is None

    def note(self, stage: Stage, lane: str, told: str, fault: str) -> None:
        """Pass over it: a search keeps no timeline."""

    # --- invariants ----------------------------------------------------------------------------------------

    def _check(self, stage: Stage, key: tuple[Hashable, ...]) -> None:
        if key in self._checked:
            return
        self._checked.add(key)
        self.count.states += 1
        for name, invariant in self._always:
            why = invariant.broken(stage.look)
            if why is not None:
                self._broken = name, why
                return
        for name, invariant in list(self.unseen.items()):
            if invariant.had_any(stage.look):
                del self.unseen[name]

    def _check_end(self) -> None:
        key = self.stage.key()
        if key in self.ends:
            return
        self.ends.add(key)
        for name, invariant in self._finally:
            why = invariant.broken(self.stage.look)
            if why is not None:
                self._broken = name, why
                return


class Chance:
    """Choices by chance, from a seed."""

    def __init__(self, seed: str, probability: Mapping[str, float] | float) -> None:
        """Let each kind of fault happen with its probability, wherever it can."""
        self._random = random.Random(seed)  # noqa: S311 - reproducibility is the point, not secrecy
        self._probability = probability
        self.choices: Choices = {}

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:  # noqa: ARG002
        """Take the first option, or by chance another."""
        chosen = 0
        for index in range(1, len(options)):
            if self._random.random() < self._of(options[index], lane):
                chosen = index
                break
        if chosen:
            self.choices[stage.choices] = chosen
        return chosen

    def _of(self, option: str, lane: str) -> float:
        """Return how probable an option is: a kind of fault, or one of several that may go."""
        if not isinstance(self._probability, Mapping):
            return self._probability
        kind = option if option in MEANINGS else "preempt" if lane == WHO else "reorder"
        return self._probability.get(kind, 0.0)


def check_strategy(strategy: str) -> None:
    """Raise InvalidArgument unless there is such a strategy."""
    if strategy not in ("exhaustive", "random", "few_preemptions"):
        raise InvalidArgument(f"strategy={strategy!r}: give 'exhaustive', 'random' or 'few_preemptions'")


def check_limits(seconds: object, schedules: object) -> None:
    """Raise InvalidArgument unless these are a time and a number, or None."""
    for name, value, kind in (("seconds", seconds, (int, float)), ("schedules", schedules, (int,))):
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or not value >= 0):
            raise InvalidArgument(f"{name}={value!r}: give a number, or None for no limit")


def deadline(seconds: float | None) -> Callable[[], bool]:
    """Return a function that says whether so many seconds are over."""
    if seconds is None:
        return lambda: False
    end = monotonic() + seconds
    return lambda: monotonic() > end
