"""How fast schedules are explored, beside Hypothesis as the explorer of the same stage in the same run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from esim import Event
from esim.explore import Search
from esim.faults import Faults
from esim.invariant import eventually
from esim.scenario import Scenario
from esim.stage import Stage
from esim.world import World

if TYPE_CHECKING:
    from tests.benchmarks.figures import Bench

Line = dict[str, Any]


class Placed(Event):
    """An order of some of a thing."""

    sku: str
    quantity: int


def scenario(events: int, followers: int, faults: Faults, *, right: bool) -> Scenario:
    """Return orders that are taken off a shelf, each at each delivery: the handler is not idempotent."""
    world = World()
    shelves = [world.table(f"shelf {number}", {"mug": 9}) for number in range(followers)]

    def follower(number: int) -> Callable[..., None]:
        def deduct(event: Placed) -> None:
            shelf = shelves[number]
            shelf[event.sku] = shelf[event.sku] - event.quantity

        deduct.__name__ = f"deduct_{number}"
        deduct.__annotations__["event"] = Placed
        return deduct

    history = [(f"Order/{number}", Placed(sku="mug", quantity=1)) for number in range(events)]
    check = {"right": eventually(lambda look: look.table("shelf 0")["mug"] == 9 - events)} if right else {}
    return Scenario(history, [follower(n) for n in range(followers)], check, faults=faults, world=world)


def searched(given: Scenario, *, prune: bool = True) -> tuple[Search, float, bool]:
    """Search to the end, or to the first counterexample; return the CPU seconds, and if one came."""
    search = Search(Stage(given), given.invariants, prune=prune)
    gc.collect()
    start = time.process_time()
    broken = next((one for one in search.nodes(given.faults, "exhaustive") if one is not None), None)
    return search, time.process_time() - start, broken is not None


def simulation(bench: Bench) -> Iterator[Line]:
    """Schedules explored, CPU of the fastest round: a small scenario, three subscriptions, and Hypothesis.

    A search with pruning is about every schedule within the bounds, as many as are run without it.
    """
    rounds = 10 if bench.scale > 1 else 100
    faults = Faults(crash=1, duplicate=1)
    found = {
        prune: [searched(scenario(3, 1, faults, right=False), prune=prune) for _ in range(rounds)]
        for prune in (False, True)
    }
    within = found[False][0][0].count.runs  # without pruning each schedule within the bounds is run
    for prune, each in found.items():
        count, seconds = each[0][0].count, min(spent for _, spent, _ in each)
        yield {
            "what": "pruned" if prune else "each run to its end",
            "events": 3,
            "schedules": within,
            "runs": count.runs,
            "schedules_per_s": within / seconds,
            "runs_per_s": count.runs / seconds,
        }
    naive = within / min(spent for _, spent, _ in found[False])
    search, _, broken = searched(scenario(3, 1, faults, right=True))
    assert broken
    yield {"what": "first counterexample", "run": search.count.runs}
    search, seconds, _ = searched(scenario(5, 3, Faults(crash=1), right=False))
    yield {
        "what": "three subscriptions, five events, one crash",
        "schedules": search.count.schedules,
        "s": seconds,
    }
    runs, seconds = by_hypothesis(scenario(3, 1, faults, right=False), 100 if bench.scale > 1 else 1000)
    yield {
        "what": "hypothesis, stateful, the same stage",
        "runs": runs,
        "runs_per_s": runs / seconds,
        "ratio": naive / (runs / seconds),
    }


def by_hypothesis(given: Scenario, examples: int) -> tuple[int, float]:
    """Let a rule-based state machine choose the faults of each step; return examples and CPU seconds."""
    stage = Stage(given)
    first = stage.begin(given.faults.budgets())
    done = [0]

    class Machine(RuleBasedStateMachine):
        records = watches = False

        @initialize()
        def begin(self) -> None:
            stage.driver, stage.world.gate = self, stage  # type: ignore[assignment]  # it drives the stage
            stage.back_to(first)
            done[0] += 1
            self.player, self.choice = stage.players[0], 0

        def pick(self, stage: Stage, options: Any, lane: str, told: str) -> int:
            chosen, self.choice = min(self.choice, len(options) - 1), 0
            return chosen

        def note(self, *_: Any) -> None:
            """Nothing is told."""

        @rule(choice=st.integers(0, 1))
        def step(self, choice: int) -> None:
            self.choice = choice
            if self.player.ready():
                stage._step(self.player)

        def teardown(self) -> None:
            self.choice = 0
            while self.player.ready():
                stage._step(self.player)
            self.player.let_go()

    quiet = settings(
        max_examples=examples,
        stateful_step_count=20,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    gc.collect()
    start = time.process_time()
    run_state_machine_as_test(Machine, settings=quiet)
    return done[0], time.process_time() - start
