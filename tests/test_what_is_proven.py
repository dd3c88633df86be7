"""Proofs that would be false, and counterexamples that would be none: each was once, or could be."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from esim.envelope import metadata
from esim.errors import InvalidArgument, TokenMismatch, Unsteady
from esim.event import Event
from esim.invariant import always, eventually, no_effect_twice, sometimes
from esim.memory import MemoryStore
from esim.scenario import consume, follow, task
from esim.simulation import Faults, World, explore, replay, simulate


class Rung(Event):
    bell: str


HISTORY = [("Bell/1", Rung(bell="a"))]


def test_a_message_that_a_follower_publishes_may_come_twice():
    """The duplicate is the queue's, not one more delivery of the follower's event."""
    world = World()
    queue, seen = world.queue("queue"), world.table("seen", {"n": 0})

    def publish(event: Rung) -> None:
        queue.publish(event.bell)

    def count(_: str) -> None:
        seen["n"] += 1

    def once(look: Any) -> bool:
        return look.table("seen")["n"] <= 1

    actors = [follow(publish, checkpoint="before_handler"), consume(queue, count)]
    verdict = explore(HISTORY, actors, once, faults=Faults(duplicate=1), world=world)
    assert verdict.counterexample is not None
    assert verdict.counterexample.run.broken is not None


def test_a_world_that_is_not_handed_in_is_told():
    """Nothing of it could be taken back, or go wrong."""
    other = World()
    mail, table = other.service("mail"), other.table("table")
    queue = other.queue("queue")

    def by_mail(event: Rung) -> None:
        mail(event.bell)

    def by_table(event: Rung) -> None:
        table[event.bell] = True

    def by_queue(event: Rung) -> None:
        queue.publish(event.bell)

    for handler in (by_mail, by_table, by_queue):
        with pytest.raises(InvalidArgument, match="of a World that the simulation does not know"):
            explore(HISTORY, [handler], [no_effect_twice()], faults=Faults(crash=1))
    table["by hand"] = True


def test_what_a_dead_coroutine_would_do_on_its_way_out_does_not_count():
    """Its `finally` is not run, whenever its memory is collected."""
    world = World()
    doors = world.table("doors", {"opened": 0, "closed": 0})

    async def pass_through(_: Rung) -> None:
        doors["opened"] += 1
        try:
            await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))
        finally:
            doors["closed"] += 1

    balance = always(lambda look: look.table("doors")["closed"] <= look.table("doors")["opened"])
    left = sometimes(lambda look: look.table("doors")["closed"] < look.table("doors")["opened"] - 1)
    checks = {"balance": balance, "one was left open": left}
    assert explore(HISTORY, [pass_through], checks, faults=Faults(crash=2), world=world).holds


def test_things_that_call_themselves_equal_are_told_apart():
    """An entity is equal by its name, whatever it holds: states are compared by what they hold."""

    class Shelf:
        def __init__(self, name: str, left: int) -> None:
            self.name, self.left = name, left

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Shelf) and self.name == other.name

        def __hash__(self) -> int:
            return hash(self.name)

    world = World()
    shelves = world.table("shelves", {"mug": Shelf("mug", 9)})

    def take(_: Rung) -> None:
        shelves["mug"] = Shelf("mug", shelves["mug"].left - 1)

    right = eventually(lambda look: look.table("shelves")["mug"].left == 8)
    assert not explore(HISTORY, [take], {"right": right}, faults=Faults(crash=1), world=world).holds


def test_a_store_as_history_keeps_its_envelopes():
    """Correlation and ids are those that were recorded."""
    store = MemoryStore()
    with metadata(correlation_id="story"):
        recorded = store.append("Bell/1", Rung(bell="a"))
    same = eventually(
        lambda look: [(o.correlation_id, o.event_id) for o in look.log] == [("story", recorded[0].event_id)]
    )
    assert explore(store, [], {"same": same}).holds


def test_what_never_came_about_is_no_sometimes():
    """A check that gives nothing has not seen it."""
    world = World()
    table = world.table("table")

    def note(event: Rung) -> None:
        table[event.bell] = None

    seen = sometimes(lambda look: look.table("table").get("never"))
    assert not explore(HISTORY, [note], {"seen": seen}, world=world).holds


def test_a_check_that_raises_or_cannot_be_one_is_told():
    with pytest.raises(InvalidArgument, match="raised KeyError: 'mug'"):
        explore(HISTORY, [], {"mugs": always(lambda look: look.tables["mug"])})

    async def later(_: Any) -> bool:
        return True

    with pytest.raises(InvalidArgument, match="is async or yields"):
        explore(HISTORY, [], {"later": always(later)})


def test_chance_is_named_also_where_only_a_fault_leads_to():
    """The first fault of each kind is watched as well."""
    world = World()
    ask, won = world.service("ask"), world.table("won")

    def dice(event: Rung) -> None:
        try:
            ask(event.bell)
        except ConnectionError:
            won[event.bell] = random.random() < 2

    with pytest.raises(Unsteady, match=r"dice calls random\.random"):
        explore(HISTORY, [dice], faults=Faults(error=1), world=world)


def test_a_choice_that_is_never_reached_is_told():
    """A token whose faults have no place says nothing of the code as it is."""
    verdict = explore(HISTORY, [], lambda look: False, faults=Faults(crash=1))
    assert verdict.counterexample is not None
    token = verdict.counterexample.token.rpartition(":")[0] + ":999.1"
    with pytest.raises(TokenMismatch, match="choice 999 is never reached"):
        replay(token, HISTORY, [], lambda look: False, faults=Faults(crash=1))


def test_a_run_by_chance_is_replayed_by_its_token():
    world = World()
    seen = world.table("seen", {"n": 0})

    def count(_: Rung) -> None:
        seen["n"] += 1

    faults = Faults(crash=0.4)
    run = simulate(HISTORY, [count], faults=faults, world=world, seed=1)
    again = replay(run.token, HISTORY, [count], faults=faults, world=world)
    assert run.choices == again.choices != {}
    assert run.df().equals(again.df())


def test_a_run_is_looked_at_as_it_ended():
    """What is in memory, and changed after the last thing that was told, too."""
    world = World()
    memory = world.memory("memory", dict)

    def remember() -> None:
        memory.value["n"] = 1

    assert "{'n': 1}" in repr(simulate([], [task(remember)], world=world).look._part("memory", type(memory)))


def test_a_verdict_says_whether_others_may_go_first():
    """Without preemptions the processes take their turns in order, and it says so."""
    assert "take their turns in the order" in explore(HISTORY, []).granularity
    assert "another can go first" in explore(HISTORY, [], faults=Faults(preempt=1)).granularity


def test_a_retry_finds_what_half_a_handler_has_written():
    """A table's write fails, too: what was written before it is there when the event is tried again."""
    world = World()
    one, two = world.table("one", {"n": 0}), world.table("two", {"n": 0})

    def both(event: Rung) -> None:
        one["n"] += 1
        two["n"] += 1

    once = eventually(lambda look: look.table("one")["n"] == 1)
    found = explore(HISTORY, [both], {"once": once}, faults=Faults(error=1), world=world).counterexample
    assert [(step.lane, step.fault) for step in found.run.steps if step.fault] == [("two", "error")]


def test_the_death_of_a_caller_does_not_stop_the_bank_halfway():
    """What a service does, it does in a process of its own: its caller's crash is nothing to it."""
    world = World()
    balance, ledger = world.table("balance", {"ann": 10}), world.table("ledger")

    @world.service(once_by="key")
    def charge(key: str, amount: int) -> None:
        balance["ann"] -= amount
        ledger[key] = amount

    def bill(event: Rung) -> None:
        charge(key=event.bell, amount=1)

    def agree(look: Any) -> bool:
        return 10 - look.table("balance")["ann"] == sum(look.table("ledger").values())

    assert explore(
        HISTORY, [bill], {"books agree": eventually(agree)}, faults=Faults(crash=2), world=world
    ).holds


def test_who_honours_keys_gives_the_same_answer_again():
    """A second call of a key is not carried out, and answered as the first was."""
    world = World()
    seats = world.table("seats")

    @world.service(once_by="key")
    def reserve(key: str) -> str:
        return f"r-{key}"

    def book(event: Rung) -> None:
        seats[event.bell] = reserve(key=event.bell).upper()

    both = eventually(lambda look: dict(look.table("seats")) == {"a": "R-A"})
    assert explore(HISTORY, [book], {"booked": both}, faults=Faults(crash=2), world=world).holds


def test_answers_that_differ_are_other_states():
    """Which answer a key got is what its retries will get: two states that differ in it are not merged."""
    world = World()
    numbers, given = world.table("numbers", {"next": 1, "tries": 0}), world.table("given")

    @world.service(once_by="key")
    def number(key: str) -> int:
        return numbers["next"]

    def ask(event: Rung) -> None:
        numbers["tries"] += 1
        given["answer"] = number(key=event.bell)

    def change() -> Any:
        numbers["next"] = 2
        yield
        numbers["next"] = 1

    def again(look: Any) -> bool:
        return look.table("numbers")["tries"] == 2 and look.table("given").get("answer") == 2

    def late(look: Any) -> bool:
        return again(look) and look.table("numbers")["next"] == 1

    checks = {"the same again": sometimes(again), "and later": sometimes(late)}
    assert explore(HISTORY, [ask, task(change)], checks, faults=Faults(preempt=3, crash=1), world=world).holds


def test_what_a_service_refuses_is_not_carried_out():
    """A payment that is declined is declined again, and no call is counted."""
    world = World()
    paid = world.table("paid")

    @world.service(once_by="key")
    def pay(key: str) -> None:
        raise ValueError("declined")

    def settle(event: Rung) -> None:
        pay(key=event.bell)
        paid[event.bell] = True

    checks = {
        "nobody has paid": always(lambda look: not look.table("paid")),
        "nothing was carried out": always(lambda look: not look.calls("pay")),
    }
    assert explore(HISTORY, [settle], checks, faults=Faults(crash=1, unknown=1), world=world).holds
