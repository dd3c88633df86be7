"""Histories, actors, and what tells one scenario from another."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from esim.envelope import NewEvent, caused_by
from esim.errors import InvalidArgument
from esim.event import Event
from esim.faults import Faults
from esim.memory import MemoryStore
from esim.process import Process, ProcessManager
from esim.projection import on
from esim.retry import RetryPolicy
from esim.scenario import (
    SIDES,
    Consume,
    Follow,
    Scenario,
    Task,
    actor_of,
    consume,
    follow,
    side_of,
    task,
    writes_of,
)
from esim.stage import Stage
from esim.subscription import Subscription
from esim.world import World
from esim.writing import Write

ROOT = Path(__file__).parent.parent


class Placed(Event):
    n: int = 1


def note(event: Placed) -> None: ...


class Managing(ProcessManager[Process]):
    @on(Placed)
    def placed(self, event: Placed, process: Process) -> None: ...


ONE = [("Order/1", Placed())]


def print_of(*, history: Any = ONE, actors: Any = (note,), **given: Any) -> str:
    return Stage(Scenario(list(history), list(actors), **given)).fingerprint


def differ(one: str, two: str) -> list[str]:
    return [side for side in SIDES if side_of(one, side) != side_of(two, side)]


def test_a_history_is_writes_pairs_or_a_store():
    """Each gives the same events in the same order."""
    store = MemoryStore()
    store.append("Order/1", [Placed(n=1), Placed(n=2)])
    pairs = [("Order/1", Placed(n=1)), ("Order/1", [Placed(n=2)]), Write("Order/2", Placed(n=3))]
    assert [one.stream for one in writes_of(pairs)] == ["Order/1", "Order/1", "Order/2"]
    assert [row[5] for row in Scenario(store, []).rows] == ['{"n":1}', '{"n":2}']
    assert writes_of([]) == ()


@pytest.mark.parametrize("wrong", ["Order/1", Placed(), Write("Order/1", Placed()), 7, None])
def test_what_is_no_history_is_told(wrong):
    """One event, one write or a text is none."""
    with pytest.raises(InvalidArgument, match="is no history"):
        writes_of(wrong)


@pytest.mark.parametrize(
    "wrong", [Placed(), ("Order/1",), ("Order/1", "x"), ("Order/1", ["x"]), (1, Placed())]
)
def test_what_is_no_write_is_told(wrong):
    """With what to give instead."""
    with pytest.raises(InvalidArgument, match="is no write: give"):
        writes_of([wrong])


def test_actors_are_what_they_are_meant_as():
    """Handlers and managers follow, other functions run by themselves, specs stay as they are."""
    queue = World().queue("q")
    assert isinstance(actor_of(note), Follow)
    assert isinstance(actor_of(Managing), Follow)
    assert isinstance(actor_of(lambda: None), Task)
    assert isinstance(actor_of(consume(queue, note)), Consume)
    spec = follow(note, batch=2)
    assert actor_of(spec) is spec
    assert task(partial(note, Placed())).name == "note"
    for wrong in (7, "note", Placed):
        with pytest.raises(InvalidArgument, match="cannot act"):
            actor_of(wrong)
    with pytest.raises(InvalidArgument, match="hand in its handler"):
        actor_of(Subscription(MemoryStore(), note))
    with pytest.raises(InvalidArgument, match="give 'after' or 'before'"):
        consume(queue, note, ack="never")
    with pytest.raises(InvalidArgument, match=r"'q' is no queue: make one by world\.queue"):
        consume("q", note)
    for attempts in (0, -1, 1.5):
        with pytest.raises(InvalidArgument, match=f"attempts={attempts}: give a whole number, 1 and up"):
            consume(queue, note, attempts=attempts)
    with pytest.raises(
        InvalidArgument, match=r"follow\(inbx=…\): a subscription has no such option; did you mean 'inbox'"
    ):
        follow(note, inbx=True)


def test_a_handler_that_does_not_say_for_what_is_no_task():
    """A function that wants an argument was meant to be given an event."""
    for wrong in (lambda event: None, lambda event, recorded: None):
        with pytest.raises(InvalidArgument, match="does not say which events it handles"):
            Stage(Scenario(ONE, [wrong]))


def test_what_cannot_be_called_as_it_will_be_is_told_at_once():
    """A task with its arguments, a consumer with a message."""
    queue = World().queue("q")
    for wrong in (lambda: task(5), lambda: task(lambda a: 1), lambda: task(lambda: 1, 2)):
        with pytest.raises(InvalidArgument, match=r"write task\(function, its arguments, …\)"):
            wrong()
    with pytest.raises(InvalidArgument, match="is given one message at a time"):
        consume(queue, lambda: 1)
    assert task(lambda *several: 1, 2).name == task(print).name.replace("print", "<lambda>")


def test_nobody_acts_only_where_that_is_said():
    """A `return` that was forgotten, and None, are not nobody; an empty list is."""

    def forgot(store: Any) -> None:
        follow(note)

    with pytest.raises(InvalidArgument, match="forgot returned None: a function of the store returns a list"):
        Stage(Scenario(ONE, forgot))
    with pytest.raises(InvalidArgument, match=r"nobody acts: hand in .* or \[\]"):
        Scenario(ONE, None)
    assert Stage(Scenario(ONE, [])).players == []


def test_one_function_by_itself_is_a_task_or_makes_actors_by_what_it_takes():
    """A store, or nothing."""
    assert [player.name for player in Stage(Scenario([], rings)).players] == ["rings"]
    assert [player.name for player in Stage(Scenario([], lambda store: [rings])).players] == ["rings"]
    with pytest.raises(InvalidArgument, match="asks for 'b', which a handler is not given"):
        Stage(Scenario([], lambda a, b: None))


def rings() -> None: ...


def test_actors_that_need_the_store_are_made_for_it():
    """A function of the store returns them; one actor needs no list."""
    found: list[Any] = []

    def actors(store: Any) -> list[Any]:
        found.append(store)
        return [note]

    stage = Stage(Scenario([("Order/1", Placed())], actors))
    assert found == [stage.store]
    assert [player.name for player in Stage(Scenario([], note)).players] == ["note"]


def test_two_of_one_name_have_names_of_their_own():
    """So that lanes and choices tell them apart."""
    stage = Stage(Scenario([], [task(note, Placed(), name="a"), task(note, Placed(), name="a")]))
    assert [player.name for player in stage.players] == ["a", "a 2"]


def test_the_same_scenario_has_the_same_fingerprint():
    """However often it is made."""
    assert print_of() == print_of()


@pytest.mark.parametrize(
    ("other", "sides"),
    [
        ({"history": (("Order/1", Placed(n=2)),)}, ["history"]),
        ({"history": (("Order/2", Placed()),)}, ["history"]),
        ({"actors": (follow(note, "other"),)}, ["actors"]),
        ({"actors": (follow(note, inbox=True),)}, ["actors"]),
        ({"actors": (follow(note, retry=RetryPolicy(jitter="none")),)}, ["actors"]),
        ({"faults": Faults(crash=1)}, ["faults"]),
    ],
)
def test_each_side_of_a_scenario_has_digits_of_its_own(other, sides):
    """What differs is named by the side."""
    assert differ(print_of(), print_of(**other)) == sides


ENVELOPES: list[dict[str, Any]] = [
    {"occurred_at": datetime(2026, 1, 1, 9, 5, tzinfo=UTC)},
    {"tags": ("late",)},
    {"metadata": {"till": 2}},
    {"user_id": "ann"},
    {"correlation_id": "c-1"},
    {"causation_id": "c-1"},
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=lambda one: next(iter(one)))
def test_what_the_envelopes_of_a_history_say_is_a_part_of_it(envelope):
    """Whether they are written, or those of a store: a handler may go by any of it."""
    written = [Write("Order/1", NewEvent(Placed(), **envelope))]
    bare, recorded = MemoryStore(), MemoryStore()
    bare.append("Order/1", Placed())
    recorded.append_all(written)
    assert differ(print_of(), print_of(history=written)) == ["history"]
    assert differ(_print_of_store(bare), _print_of_store(recorded)) == ["history"]


def _print_of_store(store: MemoryStore) -> str:
    return Stage(Scenario(store, [note])).fingerprint


def test_an_event_with_an_empty_envelope_is_the_event():
    """And so it is where it is expected to come wherever it comes."""
    assert print_of() == print_of(history=[Write("Order/1", [NewEvent(Placed())])])


def test_which_version_a_write_expects_is_a_part_of_a_history():
    """And which id an event is given."""
    any_version = print_of()
    at_first = print_of(history=[Write("Order/1", Placed(), "no_stream")])
    with_id = print_of(history=[Write("Order/1", NewEvent(Placed(), event_id=UUID(int=7)))])
    assert differ(any_version, at_first) == differ(any_version, with_id) == ["history"]


def test_a_store_that_is_filled_again_is_the_same_history():
    """Its ids and the times of its recording are others; which event is the cause of which is the same."""

    def filled(cause: int) -> MemoryStore:
        store = MemoryStore()
        recorded = [store.append("Order/1", Placed()) for _ in range(2)]
        with caused_by(recorded[cause][0]):
            store.append("Order/2", Placed())
        return store

    assert _print_of_store(filled(0)) == _print_of_store(filled(0))
    assert differ(_print_of_store(filled(0)), _print_of_store(filled(1))) == ["history"]


def test_what_a_handler_was_given_beforehand_is_a_part_of_it():
    """As what a task or a consumer was."""

    def at(event: Placed, rate: int) -> None: ...

    one, two = (print_of(actors=[follow(partial(at, rate=rate))]) for rate in (1, 2))
    assert differ(one, two) == ["actors"]


def test_the_world_is_a_side_too():
    """What is in it at the beginning."""
    one, two, three = World(), World(), World()
    one.table("stock", {"mug": 1})
    two.table("stock", {"mug": 2})
    three.table("stock", {"mug": 1})
    assert differ(print_of(world=one), print_of(world=two)) == ["world"]
    assert print_of(world=one) == print_of(world=three)


def test_a_fingerprint_is_the_same_in_another_process():
    """Texts hash differently there; a token would be of no use."""
    code = (
        "from tests.test_scenario import *\n"
        "world = World(); world.table('t', {'a': {'x', 'y'}, 'b': note}); world.memory('m', set)\n"
        "print(print_of(world=world, actors=(follow(note, sends=[note]), Managing)))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
