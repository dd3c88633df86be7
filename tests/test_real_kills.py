"""What the simulation says of a crash is what comes of a process that is really killed, at every place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from esim.confirm import Ending, ending_of, killed
from esim.effects import Effects
from esim.explore import Choices
from esim.faults import Faults
from esim.process import ProcessManager
from esim.projection import on
from esim.recording import Recording, Run
from esim.scenario import Scenario, consume, follow, task
from esim.stage import Stage
from esim.world import World
from tests.scenarios import NO_WAIT, SCENARIOS, Buying, Placed, ReserveIt, placed
from tests.test_mutations import a_redrive_loses_nothing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")


def letters_of_what_always_fails() -> Scenario:
    """One event fails at every attempt; those of its stream wait behind it."""
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        if event.sku == "mug":
            raise ValueError("no mugs")
        seen[event.quantity] = True

    return Scenario(placed(2, streams=1), [follow(note, retry=NO_WAIT)], world=world)


class Reserving(ProcessManager[Buying]):
    @on(Placed)
    def placed(self, event: Placed, process: Buying) -> Any:
        return process.but(state="waits"), ReserveIt(process.id, sku=event.sku)


def a_process_that_sends_a_command() -> Scenario:
    """Its row, and what it asks for, are one commit; the command is sent after that, under a key."""
    return Scenario([("Buy/1", Placed(sku="mug"))], [Reserving])


def a_message_of_a_queue() -> Scenario:
    """It comes again to a consumer that died with it."""
    world = World()
    queue, seen = world.queue("orders"), world.table("seen", {"mug": 0})

    def publish() -> None:
        queue.publish("mug")

    def take(sku: str) -> None:
        seen[sku] += 1

    return Scenario([], [task(publish), consume(queue, take)], world=world)


def a_call_that_is_only_noted() -> Scenario:
    """What it calls is not of the world: a stand-in keeps the calls, which a death does not undo."""

    def thank(event: Placed, effects: Effects) -> None:
        effects.call(send_mail, event.sku)

    return Scenario(placed(2), [follow(thank)])


def send_mail(about: str, key: str) -> None: ...


MADE: list[Callable[[], Scenario]] = [
    a_call_that_is_only_noted,
    SCENARIOS["a_table_after_the_handler"],
    SCENARIOS["a_mail_before_the_handler"],
    SCENARIOS["rows_in_one_transaction"],
    SCENARIOS["rows_of_a_projection_in_batches"],
    SCENARIOS["an_inbox"],
    SCENARIOS["an_outbox"],
    SCENARIOS["a_repository_under_two_async_writers"],
    SCENARIOS["a_bus"],
    SCENARIOS["a_memory_of_what_was_seen"],
    a_process_that_sends_a_command,
    a_message_of_a_queue,
    letters_of_what_always_fails,
    a_redrive_loses_nothing,
]


def run(scenario: Scenario, choices: Choices) -> Run:
    stage = Stage(scenario)
    first = stage.begin(scenario.faults.budgets())
    return Recording.of(stage, {}, choices, strict=True).run(first, checks=False)


def simulated(scenario: Scenario, choices: Choices) -> Ending:
    made = run(scenario, choices)
    assert made.look is made.stage.look
    return ending_of(made.stage, None)


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.__name__)
def test_every_crash_ends_as_a_real_kill_does(made):
    """For each place where the process can die: the same log, checkpoints, rows, letters and world."""
    base = made()
    scenario = Scenario((), base.actors, (), faults=Faults(crash=1), world=base.world)
    scenario.history = base.history[:1]  # each process opens a file: one event keeps it short
    crashes = [one.number for one in run(scenario, {}).asked if "crash" in one.options]
    assert crashes
    differ: dict[int, Any] = {}
    for number in crashes:
        expected = simulated(scenario, {number: 1})
        found, kills = killed(scenario, {number: 1})
        assert kills == 1
        if found != expected:
            differ[number] = (expected, found)
    assert differ == {}


def test_the_kills_are_seen_in_what_is_left():
    """The comparison can fail: another crash leaves another world."""
    made = SCENARIOS["a_table_after_the_handler"]()
    scenario = made.with_faults(Faults(crash=1))
    places = [one for one in run(scenario, {}).asked if "crash" in one.options]
    before, after = places[0].number, next(one.number for one in places if one.place == "after the handler")
    assert simulated(scenario, {before: 1}) != simulated(scenario, {after: 1})
    assert killed(scenario, {after: 1})[0] != simulated(scenario, {before: 1})
