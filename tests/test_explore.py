"""The search itself: what comes first, what is merged, what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from esim.errors import InvalidArgument
from esim.event import Event
from esim.explore import Chance, Search, check_strategy
from esim.faults import Faults
from esim.invariant import always, eventually, sometimes
from esim.scenario import Scenario, follow
from esim.stage import Stage
from esim.world import World


class Placed(Event):
    n: int = 1


def search(*, prune: bool = True, invariants: Any = (), count: int = 3, **faults: int) -> Search:
    """Return a search for what breaks a handler that writes into two tables."""
    world = World()
    one, two = world.table("one"), world.table("two")

    def note(event: Placed) -> None:
        one[event.n] = one.get(event.n, 0) + 1
        two[event.n] = two.get(event.n, 0) + 1

    history = [(f"Order/{n}", Placed(n=n)) for n in range(count)]
    scenario = Scenario(history, [follow(note)], invariants, faults=Faults(**faults), world=world)
    return Search(Stage(scenario), scenario.invariants, prune=prune)


def gone_through(made: Search) -> list[Any]:
    return [one for one in made.nodes(made.stage.scenario.faults, "exhaustive") if one]


def test_schedules_with_fewer_faults_come_first():
    """The number of faults in the runs never falls."""
    made = search(crash=2, duplicate=1, prune=False)
    runs = made.nodes(made.stage.scenario.faults, "exhaustive")
    sizes = [len(made._node.choices) for _ in runs]
    assert sizes == sorted(sizes)
    assert set(sizes) == {0, 1, 2, 3}


def test_what_was_met_before_is_not_run_again():
    """Far fewer runs, and the same ends."""
    merged, each = search(crash=2), search(crash=2, prune=False)
    gone_through(merged)
    gone_through(each)
    assert merged.count.runs * 3 < each.count.runs
    assert merged.count.merged > 0 == each.count.merged
    assert len(merged.ends) == len(each.ends)


def test_an_invariant_is_looked_at_once_for_each_state():
    """However many schedules lead there."""
    looked: list[str] = []

    def fine(look: Any) -> bool:
        looked.append(repr((dict(look.table("one")), dict(look.table("two")), look.position())))
        return True

    made = search(crash=2, invariants={"fine": always(fine)}, count=2)
    gone_through(made)
    assert len(looked) == made.count.states
    assert len(set(looked)) > 5


def test_what_is_broken_comes_with_its_choices():
    """Those that a replay needs, and no zero."""
    once = eventually(lambda look: max(look.table("one").values()) == 1)
    found = gone_through(search(crash=1, invariants={"once": once}))
    assert found[0].invariant == "once"
    assert len(found[0].choices) == 1
    assert 0 not in found[0].choices.values()


def test_a_moment_is_seen_even_if_it_passes():
    """`sometimes` is satisfied between two writes of one handler's event, too."""
    between = sometimes(lambda look: len(look.table("one")) > len(look.table("two")))
    never = sometimes(lambda look: len(look.table("one")) < len(look.table("two")))
    made = search(crash=1, invariants={"between": between, "never": never})
    gone_through(made)
    assert list(made.unseen) == ["never"]


def test_there_is_one_schedule_without_faults():
    """And one run."""
    made = search()
    gone_through(made)
    assert (made.count.schedules, made.count.runs) == (1, 1)


@pytest.mark.parametrize(
    ("options", "lane", "probability", "expected"),
    [
        (("", "crash"), "note", {"crash": 1.0}, 1),
        (("", "crash"), "note", {"error": 1.0}, 0),
        (("", "crash", "error"), "mail", {"error": 1.0}, 2),
        (("takes a", "takes b"), "consumer", {"reorder": 1.0}, 1),
        (("takes a", "takes b"), "consumer", {"preempt": 1.0}, 0),
        (("ann", "bob"), "who goes on", {"preempt": 1.0}, 1),
        (("ann", "bob"), "who goes on", {"reorder": 1.0}, 0),
        (("", "crash"), "note", 1.0, 1),
        (("", "crash"), "note", 0.0, 0),
    ],
)
def test_chance_goes_by_the_kind_of_fault(options, lane, probability, expected):
    """Also where the options are processes, or messages."""
    assert Chance("seed", probability).pick(search().stage, options, lane, "") == expected


def test_a_strategy_that_is_not_there_is_told():
    """With those that are."""
    with pytest.raises(InvalidArgument, match="give 'exhaustive', 'random' or 'few_preemptions'"):
        check_strategy("best")
