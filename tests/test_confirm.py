"""Counterexamples run again on a DuckDB store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from esim import confirm
from esim.effects import Effects
from esim.event import Event
from esim.faults import Faults
from esim.invariant import eventually, no_effect_twice
from esim.recording import Recording, Run
from esim.scenario import Scenario
from esim.simulation import consume, explore, follow, task
from esim.stage import Stage
from esim.world import World


class Rung(Event):
    bell: str


def test_what_is_broken_at_a_moment_is_confirmed_at_that_moment():
    """An invariant that is broken in the middle of a catch-up ends the run there on each kind of store."""
    world = World()
    mail = world.service("mail")

    def write(event: Rung) -> None:
        mail(event.bell)

    history = [("Bell/1", Rung(bell="a")), ("Bell/2", Rung(bell="b"))]
    found = explore(
        history, [follow(write)], [no_effect_twice("mail")], faults=Faults(crash=1), world=world
    ).counterexample
    assert found is not None
    assert found.confirmed == "confirmed on a DuckDB store: the same end"


def test_what_goes_round_in_circles_is_confirmed():
    """A run without an end has none on a DuckDB store either, and how far it came is not compared."""
    world = World()
    queue = world.queue("queue")

    def again(body: str) -> None:
        queue.publish(body)

    found = explore([], [task(queue.publish, "x"), consume(queue, again)], [], world=world).counterexample
    assert found is not None
    assert found.invariant == "it comes to an end"
    assert found.confirmed == "confirmed on a DuckDB store: there is no end there either"


def naive(*, preempt: int = 0) -> Scenario:
    """Return a handler that writes twice if it dies, and a task that may come between."""
    world = World()
    seen = world.table("seen", {"a": 0})

    def note(event: Rung) -> None:
        seen["a"] += 1

    def other() -> Iterator[None]:
        yield
        yield

    once = eventually(lambda look: look.table("seen")["a"] == 1)
    faults = Faults(crash=1, preempt=preempt)
    actors = [note, task(other)]
    return Scenario([("Bell/1", Rung(bell="a"))], actors, {"once": once}, faults=faults, world=world)


def test_a_real_kill_confirms_and_tells_how_many_there_were():
    """SIGKILL, as a process that is out of memory gets it."""
    found = explore(naive(), confirm="kill").counterexample
    assert found.confirmed == "confirmed by really killing 1 process: the same end"


def test_where_nobody_dies_nobody_is_said_to_be_killed():
    """It was another process all the same, on a file."""
    found = explore(naive(), faults=Faults(duplicate=1), confirm="kill").counterexample
    assert found.confirmed == "confirmed in a process of its own, where nobody dies: the same end"


def test_what_was_called_before_a_kill_is_not_forgotten():
    """A function that is not of the world is called by two processes: the calls are outside of both."""

    def send_mail(bell: str) -> None: ...

    def write(event: Rung, effects: Effects) -> None:
        effects.call(send_mail, event.bell)

    twice = {"twice": no_effect_twice("send_mail")}
    found = explore([("Bell/1", Rung(bell="a"))], [write], twice, faults=Faults(crash=1), confirm="kill")
    assert found.counterexample.confirmed == "confirmed by really killing 1 process: the same end"


@pytest.mark.parametrize("how", ["duckdb", "kill"])
def test_what_takes_too_long_to_confirm_is_said(monkeypatch, how):
    """The time of the search is that of the confirmation, too, unless it is very little, or very much."""
    monkeypatch.setattr(confirm, "_LEAST", 0.0)
    scenario = naive()
    stage = Stage(scenario)
    run = Recording.of(stage, {}, {}, strict=True).run(stage.begin(scenario.faults.budgets()), checks=False)
    confirmed = {"duckdb": confirm.on_duckdb, "kill": confirm.with_kills}[how]
    assert confirmed(scenario, run, 0.0).endswith("did not come to an end in 0 s")
    assert [confirm._patience(seconds) for seconds in (None, 1e9, 30, 0)] == [60, 60, 30, 0]


def test_a_difference_is_said_and_named(monkeypatch):
    """A counterexample that does not come about outside is not called confirmed."""
    real = confirm.ending_of

    def other(stage: Any, broken: Any) -> Any:
        made = real(stage, broken)
        return made if stage.kept else made._replace(world={"seen": "another"})

    monkeypatch.setattr(confirm, "ending_of", other)
    told = explore(naive(), confirm="duckdb").counterexample.confirmed
    assert told == "NOT confirmed on a DuckDB store: world differ"


def test_what_cannot_be_killed_is_said():
    """Two at work share one process here, and to kill it would kill both."""
    scenario = naive(preempt=2)
    stage = Stage(scenario)
    first = stage.begin(scenario.faults.budgets())
    choices: dict[int, int] = {}

    def run() -> Run:
        return Recording.of(stage, {}, choices, strict=True).run(first, checks=False)

    choices[next(one.number for one in run().asked if one.options == ("note", "other") and one.step)] = 1
    choices[next(one.number for one in run().asked if one.options == ("other", "note"))] = 1
    back = max(choices)
    dies = (one.number for one in run().asked if one.process == "note" and "crash" in one.options)
    choices[next(number for number in dies if number > back)] = 1
    told = confirm.with_kills(scenario, run())
    assert told.startswith("not confirmed by killing: ")
    assert "another process is at work when one dies" in told
