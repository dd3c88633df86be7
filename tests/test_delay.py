"""A subscription that is late, and a search that puts few preemptions first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from esim.event import Event
from esim.invariant import always, eventually
from esim.scenario import task
from esim.simulation import Faults, World, explore, simulate


class Rung(Event):
    bell: str


HISTORY = [("Bell/1", Rung(bell="a"))]


def test_a_delayed_subscription_goes_on_an_hour_later_and_others_meanwhile():
    """Two follow the same log; the first is late, and hears the bell after the second."""
    world = World()
    heard = world.table("heard")

    def one(event: Rung) -> None:
        heard["one"] = len(heard)

    def two(event: Rung) -> None:
        heard["two"] = len(heard)

    first = always(lambda look: look.table("heard").get("two") != 0)
    both = eventually(lambda look: len(look.table("heard")) == 2)
    checks = {"the first is first": first, "both hear": both}
    verdict = explore(HISTORY, [one, two], checks, faults=Faults(delay=1), world=world)
    assert verdict.counterexample is not None
    assert verdict.counterexample.invariant == "the first is first"
    assert [step.fault for step in verdict.counterexample.run.steps if step.fault] == ["delay"]
    assert verdict.counterexample.confirmed.startswith("confirmed")


def test_a_delay_is_an_hour_of_the_virtual_clock():
    run = simulate(HISTORY, [lambda_free], faults=Faults(delay=1.0), seed=1)
    assert run.stage.clock.now() - run.stage.first.now == timedelta(hours=1)


def lambda_free(event: Rung) -> None:
    """Do nothing."""


def test_few_preemptions_come_first_whatever_else_goes_wrong():
    """A bug that two crashes bring out is found before one that a preemption and a crash do."""
    world = World()
    table = world.table("table", {"crashes": 0})

    def actors(store: Any) -> list[Any]:
        def work(name: str) -> Iterator[None]:
            table[name] = table.get(name, 0) + 1
            yield
            table[name] = table[name] + 1

        return [task(work, name, name=name, restart=True) for name in ("a", "b")]

    def once(look: Any) -> bool:
        return all(look.table("table").get(name, 0) < 4 for name in ("a", "b"))

    faults = Faults(crash=2, preempt=2)
    found = explore(
        [], actors, {"once": always(once)}, faults=faults, world=world, strategy="few_preemptions"
    )
    assert found.counterexample is not None
    told = [step.fault for step in found.counterexample.run.steps if step.fault]
    assert "preempt" not in told
