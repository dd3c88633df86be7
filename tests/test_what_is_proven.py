"""Proofs that would be false, and counterexamples that would be none: each was once, or could be."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esim import stage as stages
from esim.bus import Bus
from esim.contract import Snapshot
from esim.effects import Effects
from esim.envelope import metadata
from esim.errors import InvalidArgument, TokenMismatch, Unsteady
from esim.event import Event
from esim.invariant import (
    always,
    completed_xor_compensated,
    contiguous_versions,
    equals_fold,
    eventually,
    never_negative,
    no_effect_twice,
    nothing_lost,
    rows_equal_replay,
    sometimes,
)
from esim.memory import MemoryStore
from esim.repository import Repository
from esim.retry import RetryPolicy
from esim.rows import Key, Row, Rows
from esim.scenario import consume, follow, task
from esim.simulation import Faults, World, crash_matrix, explore, replay, simulate
from esim.state import State
from esim.store import EventStore
from esim.subscription import Subscription


class Rung(Event):
    bell: str


class Hung(Event):
    bell: str


class Bell(Row):
    name: Key[str]


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


def test_a_task_that_is_started_again_may_die_after_the_last_thing_that_it_does():
    """Before anybody has noted that it is done: it does all of it once more."""
    world = World()
    mail = world.service("mail")

    def nightly() -> None:
        mail("ann")

    found = explore(
        [], [task(nightly, restart=True)], [no_effect_twice("mail")], faults=Faults(crash=1), world=world
    )
    assert found.counterexample is not None
    assert found.counterexample.confirmed == "confirmed on a DuckDB store: the same end"
    assert [one.text for one in found.counterexample.run.steps] == [
        "mail('ann')",
        "is about to end",
        "dies between its steps",
        "mail('ann')",
        "is about to end",
    ]


def test_a_task_that_is_started_again_is_so_after_an_error_too():
    """What supervises it does not ask why it ended; what it had in memory is lost."""

    def actors(store: Any) -> list[Any]:
        return [task(lambda: store.append("Bell/1", Rung(bell="a")), name="ringer", restart=True)]

    once = always(lambda look: len(look.log) <= 1)
    found = explore([], actors, {"once": once}, faults=Faults(unknown=1))
    assert found.counterexample is not None
    assert found.counterexample.confirmed.startswith("confirmed")

    world = World()
    mail, tried = world.service("mail"), world.memory("tried", list)

    def send() -> None:
        tried.value.append("ann")
        mail(len(tried.value))

    sent = eventually(lambda look: [call.arguments for call in look.calls("mail")] == [{"args": (1,)}])
    actors = [task(send, restart=True)]
    assert explore([], actors, {"sent": sent}, faults=Faults(error=2), world=world).holds


def test_a_task_that_fails_each_time_it_is_started_has_no_end():
    """Nor has it in reality."""

    def lost() -> None:
        raise KeyError("mug")

    found = explore([], [task(lost, restart=True)])
    assert found.counterexample is not None
    assert found.counterexample.invariant == "it comes to an end"
    assert "KeyError: 'mug'" in repr(found)


@pytest.mark.parametrize("history", [[], HISTORY])
def test_what_is_tried_again_for_ever_has_no_end_although_time_passes(history, monkeypatch):
    """Not one state comes again, as each is later than the one before; still it is told."""
    monkeypatch.setattr(stages, "MOST_STEPS", 200)

    async def again() -> None:
        await asyncio.sleep(60)
        raise ConnectionError("nobody answers")

    found = explore(history, [task(again, restart=True)], confirm=None)
    assert found.counterexample is not None
    assert found.counterexample.invariant == "it comes to an end"
    assert "no end after" in found.counterexample.message


NINE = datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("prune", [True, False])
def test_the_same_lease_at_another_time_is_another_state(prune):
    """Whoever dies after an hour of work finds it over, and who dies at once does not."""
    world = World()
    lease, done = world.table("lease", {"until": NINE}), world.table("done")

    def actors(store: Any) -> list[Any]:
        async def work() -> None:
            if not done and lease["until"] <= store.clock.now():
                lease["until"] = store.clock.now() + timedelta(minutes=30)
                await asyncio.sleep(3600)
                done["o-1"] = True

        return [task(work, restart=True)]

    once = always(lambda look: look.table("lease")["until"] < NINE + timedelta(hours=1))
    given = {"faults": Faults(crash=1), "world": world, "prune": prune, "confirm": None}
    assert explore([], actors, {"begun once": once}, **given).counterexample is not None


def test_a_dead_letter_of_another_time_is_another_state():
    """Whoever looks for those that are an hour old finds it, or not."""

    def ring(event: Rung) -> None:
        if event.bell == "a":
            raise ValueError("cracked")

    async def wait() -> None:
        await asyncio.sleep(3600)

    early = eventually(lambda look: [one.enqueued_at.hour for one in look.dead_letters()] == [9])
    actors = [follow(ring, retry=RetryPolicy(max_attempts=1)), task(wait)]
    history = [*HISTORY, ("Bell/2", Rung(bell="b"))]
    assert explore(history, actors, {"early": early}).holds
    assert not explore(history, actors, {"early": early}, faults=Faults(preempt=2), confirm=None).holds


def test_who_waits_until_a_lease_is_over_comes_to_an_end():
    """Nothing but the time changes between one start and the next, and that is enough."""
    world = World()
    lease, done = world.table("lease", {"until": NINE + timedelta(minutes=25)}), world.table("done")

    def actors(store: Any) -> list[Any]:
        async def work() -> None:
            await asyncio.sleep(600)
            if store.clock.now() < lease["until"]:
                raise RuntimeError("another has the lease")
            done["o-1"] = True

        return [task(work, restart=True)]

    assert explore([], actors, {"done": lambda look: "o-1" in look.table("done")}, world=world).holds


def notify(event: Rung, effects: Effects) -> None:
    """Have a mail sent, by a function that is not of the world."""
    effects.call(send_mail, event.bell)


def send_mail(to: str) -> None: ...


@pytest.mark.parametrize(
    "check", [no_effect_twice("send_mial"), always(lambda look: len(look.calls("send_mial")) < 2)]
)
@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_a_name_that_nobody_answers_to_proves_nothing(check, strategy):
    """It may be misspelt; the right one is named."""
    found = explore(HISTORY, [notify], check, faults=Faults(crash=1), strategy=strategy, schedules=99)
    assert not found.holds and found.counterexample is None
    assert "nobody has called 'send_mial'; did you mean 'send_mail'?" in repr(found)


@pytest.mark.parametrize(
    "check",
    [
        no_effect_twice("mail"),
        nothing_lost("mail", Hung, by="bell"),
        never_negative("nothing"),
        equals_fold("nothing", lambda events: {}),
        contiguous_versions(),
        rows_equal_replay(),
        completed_xor_compensated(Rung, Rung, started=Hung),
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_what_is_ready_made_proves_nothing_where_it_had_nothing_to_look_at(check, strategy):
    """No call, no event, no row, no start of a process."""
    world = World()
    mail = world.service("mail")
    world.table("nothing")

    def write(event: Hung, rows: Rows[Bell]) -> None:
        mail(event.bell)

    found = explore([], [write], {"it": check}, world=world, strategy=strategy, schedules=9)
    assert not found.holds
    assert "'it' had nothing to look at" in repr(found)


def test_memory_of_nobody_is_told():
    """It would never be lost."""
    world = World()
    world.memory("done", set, of="wroker")
    with pytest.raises(InvalidArgument, match=r"'done' is the memory of 'wroker', .*did you mean 'worker'"):
        explore([], [task(lambda: None, name="worker")], world=world)


def test_a_queue_of_another_world_is_told():
    """Nobody publishes to it; the same of one that a cell run again has replaced."""
    world, other = World(), World()
    former = world.queue("q")
    for wrong in (former, other.queue("q")):
        world.queue("q")
        with pytest.raises(InvalidArgument, match="consumes 'q', which is no queue of the simulated world"):
            explore([], [consume(wrong, lambda body: None, "clerk")], world=world)


@pytest.mark.parametrize("confirm", ["duckdb", "kill"])
@pytest.mark.parametrize("how", ["plain", "swallows all", "async"])
def test_what_must_always_hold_holds_between_two_writes_of_plain_code(how, confirm):
    """Whoever looks between them sees it broken; the run ends there, in memory as in reality."""
    world = World()
    shelf = world.table("shelf", {"mug": 0, "cup": 0})

    def take(event: Rung) -> None:
        shelf["mug"] -= 1
        try:
            shelf["mug"] += 1
        except BaseException:
            if how == "plain":
                raise
        shelf["cup"] = 7

    async def taking(event: Rung) -> None:
        take(event)

    handler = taking if how == "async" else take
    checks = [never_negative("shelf")]
    found = explore(HISTORY, [handler], checks, world=world, confirm=confirm).counterexample
    assert found is not None
    assert found.message == "mug is -1"
    assert found.run.steps[-1].text == "mug: 0 → -1"
    assert dict(found.run.look.table("shelf")) == {"mug": -1, "cup": 0}
    assert "the same end" in found.confirmed


def test_what_comes_about_between_two_writes_has_been_seen():
    """A `sometimes` looks at the same states as an `always`."""
    world = World()
    open_ = world.table("doors", {"open": 0})

    def pass_through(event: Rung) -> None:
        open_["open"] = 1
        open_["open"] = 0

    seen = sometimes(lambda look: look.table("doors")["open"] == 1)
    assert explore(HISTORY, [pass_through], {"seen": seen}, world=world).holds


def test_what_was_changed_by_hand_is_told():
    """A simulation begins with the world as it was made, and drops nothing without a word."""
    world = World()
    shelf, news = world.table("shelf"), world.queue("news")

    def take(event: Rung) -> None:
        shelf["mug"] = shelf["mug"] - 1

    right = eventually(lambda look: look.table("shelf")["mug"] == 8)
    shelf["mug"] = 9
    news.publish("mugs")
    for run in (explore, simulate):
        with pytest.raises(InvalidArgument, match="by hand since it was made: shelf, news"):
            run(HISTORY, [take], {"right": right}, world=world)
    world.reset()
    shelf = world.table("shelf", {"mug": 9})
    verdict = explore(HISTORY, [take], {"right": right}, faults=Faults(crash=1), world=world)
    assert verdict.counterexample is not None
    assert dict(shelf) == {"mug": 9}  # as it was made, whatever the last run has left
    assert verdict.counterexample.run.look.table("shelf")["mug"] == 7
    assert explore(HISTORY, [take], {"right": right}, world=world).holds
    shelf["mug"] = 10
    shelf["mug"] = 9  # taken back
    assert explore(HISTORY, [take], {"right": right}, world=world).holds


def test_a_part_of_the_world_that_is_made_with_the_actors_is_told():
    """It would be another one in each run."""
    world = World()
    mail = world.service("mail")

    def actors(store: Any) -> list[Any]:
        done = world.table("done")

        def thank(event: Rung) -> None:
            if event.bell not in done:
                mail(event.bell)
                done[event.bell] = True

        return [thank]

    for _ in range(2):
        with pytest.raises(InvalidArgument, match="'done' is made where the actors are made"):
            explore(HISTORY, actors, [no_effect_twice("mail")], faults=Faults(crash=1), world=world)


def test_a_table_may_be_filled_where_the_actors_are_made():
    """That is before the run, and in each."""
    world = World()
    shelf = world.table("shelf")

    def actors(store: Any) -> list[Any]:
        shelf["mug"] = 9

        def take(event: Rung) -> None:
            shelf["mug"] = shelf["mug"] - 1

        return [take]

    right = eventually(lambda look: look.table("shelf")["mug"] == 8)
    assert explore(HISTORY, actors, {"right": right}, world=world).holds


def test_what_a_process_read_when_it_started_would_be_another_after_its_death():
    """Nobody starts it again here, so nothing is said of it; without crashes all is well."""
    world = World()
    shelf = world.table("shelf", {"mug": 9})
    right = {"right": eventually(lambda look: look.table("shelf")["mug"] == 8)}

    def actors(store: Any) -> list[Any]:
        start = shelf["mug"]

        def recount(event: Rung, recorded: Any) -> None:
            shelf["mug"] = start - recorded.position

        return [recount]

    with pytest.raises(Unsteady, match="'start' of recount is another when the actors are made anew"):
        explore(HISTORY, actors, right, faults=Faults(crash=1), world=world)
    assert explore(HISTORY, actors, right, faults=Faults(duplicate=1), world=world).holds


def test_what_a_task_was_handed_when_it_started_would_be_another_after_its_death():
    """Arguments are read where the actors are made, like any other value."""
    world = World()
    shelf = world.table("shelf", {"mug": 9})

    def put(left: int) -> None:
        shelf["mug"] = left - 1

    def actors(store: Any) -> list[Any]:
        return [task(put, shelf["mug"], restart=True)]

    with pytest.raises(Unsteady, match="'argument 1' of put is another"):
        explore(HISTORY, actors, faults=Faults(crash=1), world=world)


def test_what_can_be_made_but_once_is_told():
    """A process that is started again would fail at it."""

    def actors(store: Any) -> list[Any]:
        store.append("Tower/1", Rung(bell="b"), expected="no_stream")
        return []

    with pytest.raises(Unsteady, match=r"cannot be made anew after a run.*'Tower/1' is at version 1"):
        explore(HISTORY, actors, faults=Faults(crash=1))


def test_what_is_kept_in_memory_only_after_several_faults_is_told():
    """No run that is watched comes there; what changed in any schedule is no base for a proof."""
    world, kept = World(), set[str]()
    ask = world.service("ask")

    def stubborn(event: Rung) -> Any:
        for _ in range(2):
            with suppress(ConnectionError):
                return ask(event.bell)
        return kept.add(event.bell)

    with pytest.raises(Unsteady, match="'kept' of stubborn changed"):
        explore(HISTORY, [stubborn], faults=Faults(error=2), world=world)
    assert kept == set()


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
    """A payment that is declined is declined again, and no call is counted; others go on."""
    world = World()
    paid = world.table("paid")

    @world.service(once_by="key")
    def pay(key: str) -> None:
        if key == "a":
            raise ValueError("declined")

    def settle(event: Rung) -> None:
        pay(key=event.bell)
        paid[event.bell] = True

    checks = {
        "one has paid": eventually(lambda look: dict(look.table("paid")) == {"b": True}),
        "one call was carried out": eventually(
            lambda look: {one.arguments["key"] for one in look.calls("pay")} == {"b"}
        ),
    }
    history = [*HISTORY, ("Bell/2", Rung(bell="b"))]
    found = explore(history, [settle], checks, faults=Faults(crash=1, unknown=1), world=world)
    assert found.holds
    assert "gives up 1 of 2 events: ValueError: declined" in repr(found)


@pytest.mark.parametrize("tasks", [2, 3])
def test_a_lock_of_asyncio_between_tasks_keeps_its_word(tasks):
    """One waits for another that has it, and goes on once it is given back; no third gets in between."""
    world = World()
    shelf = world.table("shelf", {"n": 0})

    def actors(store: Any) -> list[Any]:
        lock = asyncio.Lock()

        async def count() -> None:
            async with lock:
                before = shelf["n"]
                await asyncio.sleep(0)
                shelf["n"] = before + 1

        return [task(count, name=f"task {n}") for n in range(tasks)]

    def without(store: Any) -> list[Any]:
        async def count() -> None:
            before = shelf["n"]
            await asyncio.sleep(0)
            shelf["n"] = before + 1

        return [task(count, name=f"task {n}") for n in range(tasks)]

    right = {"all": eventually(lambda look: look.table("shelf")["n"] == tasks)}
    given = {"world": world, "faults": Faults(preempt=3)}
    assert explore([], actors, right, **given).holds
    assert explore([], without, right, **given).counterexample is not None


@pytest.mark.parametrize("restart", [False, True])
def test_who_waits_for_ever_is_told_once_nobody_else_goes_on(restart):
    """And not before; nothing frees it, nor has it start again."""
    world = World()
    seen = world.table("seen")

    def actors(store: Any) -> list[Any]:
        never = asyncio.Event()

        def other() -> Any:
            for n in range(5):
                seen[n] = True
                yield

        return [task(never.wait, name="waits", restart=restart), task(other)]

    run = simulate([], actors, world=world)
    assert run.broken == ("it comes to an end", "waits waits for what never comes")
    failed = next(step for step in run.steps if step.failed)
    assert failed.text == "waits for ever"
    assert failed is run.steps[-1]
    assert len(run.look.table("seen")) == 5


@pytest.mark.parametrize("restart", [False, True])
def test_two_locks_that_are_taken_in_opposite_order_are_a_deadlock(restart):
    """Where one overtakes the other, and also if what must hold does: nothing gives a lock back by itself."""
    world = World()
    money = world.table("money", {"a": 10, "b": 10})

    def actors(store: Any) -> list[Any]:
        one, other = asyncio.Lock(), asyncio.Lock()

        async def move(first: asyncio.Lock, second: asyncio.Lock) -> None:
            async with first:
                await asyncio.sleep(0)
                async with second:
                    money["a"], money["b"] = money["b"], money["a"]

        locks = {"ann": (one, other), "bob": (other, one)}
        return [task(move, *two, name=name, restart=restart) for name, two in locks.items()]

    right = {"right": eventually(lambda look: dict(look.table("money")) == {"a": 10, "b": 10})}
    assert explore([], actors, right, world=world).holds
    found = explore([], actors, right, faults=Faults(preempt=1), world=world).counterexample
    assert found.invariant == "it comes to an end"
    assert found.message == "ann and bob wait for what never comes"
    assert found.confirmed == "confirmed on a DuckDB store: there is no end there either"


@pytest.mark.parametrize("plain", [False, True])
def test_a_handler_that_waits_for_ever_is_no_dead_letter(plain):
    """No retry comes after what does not end: an async handler, or an effect of a plain one."""

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    async def waits(event: Rung) -> None:
        await never()

    def calls(event: Rung, effects: Effects) -> None:
        effects.call(answer)

    world = World()
    answer = world.service(never)
    found = explore(HISTORY, [calls if plain else waits], world=world).counterexample
    name = "calls" if plain else "waits"
    assert (found.invariant, found.message) == ("it comes to an end", f"{name} waits for what never comes")


def test_work_in_a_thread_is_done_in_its_place():
    """`to_thread` gives what the function gives, or raises what it raises, and others may go on meanwhile."""
    world = World()
    shelf = world.table("shelf", {"n": 0})

    def add(n: int) -> int:
        if n > 1:
            raise ValueError("too many")
        return shelf["n"] + n

    async def threaded(event: Rung) -> None:
        shelf["n"] = await asyncio.to_thread(add, 1)
        try:
            await asyncio.get_running_loop().run_in_executor(None, add, 2)
        except ValueError:
            shelf["refused"] = True

    def fine(look: Any) -> bool:
        return dict(look.table("shelf")) == {"n": 1, "refused": True} and not look.dead_letters()

    assert explore(HISTORY, [threaded], {"fine": eventually(fine)}, world=world).holds


def test_what_an_event_loop_cannot_do_here_is_told():
    """A socket is no dead letter."""

    async def connects(event: Rung) -> None:
        await asyncio.open_connection("shop.example", 80)

    with pytest.raises(InvalidArgument, match="create_connection of an event loop is not simulated"):
        explore(HISTORY, [connects])


def test_a_task_that_a_handler_leaves_running_is_told_in_both_worlds():
    """It is the same dead letter, and neither world has what it would have done later on."""
    world = World()
    shelf = world.table("shelf", {"n": 9})

    async def deducts(event: Rung) -> None:
        async def corrects() -> None:
            await asyncio.sleep(0.01)
            shelf["n"] = 99

        shelf["n"] -= 1
        asyncio.create_task(corrects())  # noqa: RUF006 - the bug

    run = simulate(HISTORY, [deducts], world=world)
    simulated = run.look.dead_letters()[0].cause_message, run.look.table("shelf")["n"]
    world.reset()
    with EventStore() as store:
        store.append(*HISTORY[0])
        letters = Subscription(store, deducts).catch_up().dead_letters.df()
    assert (letters.cause_message[0], shelf["n"]) == simulated
    assert simulated[0].startswith("corrects() is left running")
    assert simulated[1] == 8


@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
def test_a_loop_that_would_wait_in_real_time_is_refused():
    """In the place of a handler that is async; outside of the simulation it is as before.

    It is tried in a thread of its own: asyncio refuses it where a loop is running, as in a notebook.
    """

    def runs(event: Rung) -> None:
        asyncio.run(asyncio.sleep(0))

    with ThreadPoolExecutor(1) as other:
        with pytest.raises(InvalidArgument, match=r"asyncio\.run makes an event loop.*write async def"):
            other.submit(explore, HISTORY, [runs]).result()
        assert other.submit(asyncio.run, asyncio.sleep(0, "soon")).result() == "soon"


def by_a_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def by_a_pool(work: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.mark.parametrize("begin", [by_a_thread, by_a_pool])
@pytest.mark.parametrize("to", ["shelf", "log"])
def test_a_thread_that_the_code_begins_is_refused(begin, to, capfd, monkeypatch):
    """As nobody goes through its races; told once, in plain words, and not by a traceback of the thread."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # in place of that of the tests
    world = World()
    shelf = world.table("shelf")

    def actors(store: Any) -> list[Any]:
        def append() -> None:
            store.append("Note/1", Rung(bell="b"))

        def put() -> None:
            shelf["n"] = 1

        return [task(begin, put if to == "shelf" else append)]

    with pytest.raises(InvalidArgument, match=f"a thread that the code has begun uses {to}.*to_thread"):
        explore([], actors, faults=Faults(crash=1), world=world)
    assert "Traceback" not in capfd.readouterr().err


def test_an_async_subscriber_of_a_bus_waits_by_the_virtual_clock():
    """A day in no time, and in the thread of the simulation."""
    world = World()
    shelf = world.table("shelf")

    def actors(store: Any) -> list[Any]:
        async def tomorrow(event: Rung) -> None:
            await asyncio.sleep(86_400)
            shelf[event.bell] = store.clock.now().day

        Bus(store).subscribe(tomorrow)
        return [task(store.append, "Bell/7", Rung(bell="b"))]

    run = simulate([], actors, world=world).must_hold()
    assert dict(run.look.table("shelf")) == {"b": 2}


@pytest.mark.parametrize("outbox", [False, True])
def test_an_async_handler_awaits_its_effects(outbox):
    """Be they of the world, carried out once by key, or only noted; nothing is a dead letter."""
    world = World()
    books = world.table("books", {"in": 0, "out": 0})

    async def send_mail(to: str, key: str) -> None: ...

    @world.service(once_by="key")
    async def charge(key: str, amount: int) -> str:
        books["in"] += amount
        await asyncio.sleep(1)
        books["out"] += amount
        return f"receipt of {amount}"

    async def thank(event: Rung, effects: Effects) -> None:
        await effects.call(send_mail, "ann")
        receipt = await effects.call(charge, amount=1)
        assert outbox or receipt in ("receipt of 1", None)

    def done(look: Any) -> bool:
        calls = len(look.calls("send_mail")) >= 1 == len(look.calls("charge"))
        return calls and not look.dead_letters() and look.table("books")["out"] == 1

    even = always(lambda look: look.table("books")["in"] == look.table("books")["out"])
    actors = [follow(thank, outbox=outbox, sends=[charge, send_mail] if outbox else [])]
    checks = {"done": eventually(done), "in is out": even}
    verdict = explore(HISTORY, actors, checks, faults=Faults(crash=2, duplicate=1), world=world)
    assert verdict.holds, verdict


@pytest.mark.parametrize(
    ("shared", "use", "told"),
    [
        (asyncio.Event, lambda one: one.set(), "'_value'"),
        (threading.Event, lambda one: one.set(), "'_flag'"),
        (queue.Queue, lambda one: one.put("a"), "'queue'"),
        (asyncio.Queue, lambda one: one.put_nowait("a"), "'_queue'"),
    ],
)
def test_what_tasks_share_and_a_death_would_lose_is_told(shared, use, told):
    """An event that is set would not be after a death; where nobody dies, it is made anew for each run."""

    def actors(store: Any) -> list[Any]:
        one = shared()
        return [task(lambda: use(one), name="who uses it")]

    with pytest.raises(Unsteady, match=f"{told} of one of .* changed"):
        explore([], actors, faults=Faults(crash=1))
    assert explore([], actors, faults=Faults(delay=1)).holds


def test_a_crash_matrix_of_what_is_kept_in_memory_is_none():
    """A crash would lose it, and the matrix would say that it does no harm."""
    kept, world = set[str](), World()
    mail = world.service("mail")

    def thank(event: Rung) -> None:
        if event.bell not in kept:
            kept.add(event.bell)
            mail(event.bell)

    with pytest.raises(Unsteady, match="'kept' of thank changed"):
        crash_matrix(HISTORY, [thank], [no_effect_twice("mail")], world=world)
    assert kept == set()


def test_calls_that_differ_in_their_key_alone_are_not_the_same():
    """Where the key is all that a service is given."""
    world = World()
    mail = world.service("mail")

    def send(event: Rung) -> None:
        mail(key=event.bell)

    history = [*HISTORY, ("Bell/2", Rung(bell="b"))]
    assert explore(history, [send], [no_effect_twice("mail")], world=world).holds
    found = explore(history, [send], [no_effect_twice("mail")], faults=Faults(crash=1), world=world)
    assert found.counterexample is not None


def test_what_a_simulation_left_in_memory_is_no_base_for_a_proof():
    """It leaves nothing: what is explored after it is told as it would have been before."""
    kept, world = dict[str, int](), World()
    shelf = world.table("shelf", {"mug": 9})

    def take(event: Rung) -> None:
        shelf["mug"] = kept.setdefault("first", shelf["mug"]) - 1

    right = {"right": eventually(lambda look: look.table("shelf")["mug"] == 8)}
    assert simulate(HISTORY, [take], right, world=world).broken is None
    assert kept == {}
    with pytest.raises(Unsteady, match="'kept' of take changed"):
        explore(HISTORY, [take], right, faults=Faults(crash=2), world=world)


class Summed(State[Rung]):
    """How often a bell was rung."""

    count: int = 0

    def evolve(self, event: Rung) -> Summed:
        """Count it."""
        return self.but(count=self.count + 1)

    def ring(self) -> Rung:
        """Ring."""
        return Rung(bell="a")


def ringing_twice(world: World) -> Any:
    """Return a task that rings twice, by a repository with snapshots, and says which snapshot there is."""
    told = world.table("told")

    def actors(store: Any) -> list[Any]:
        bells = Repository(store, Summed, snapshot_every=1)

        def ring() -> None:
            while store.version("Summed/1") < 2:
                bells.run("1", Summed.ring)
            kept = store.snapshot("Summed/1")
            told["version"] = kept.version if kept else 0

        return [task(ring, restart=True)]

    return actors


@pytest.mark.parametrize("prune", [True, False])
def test_a_snapshot_is_there_after_a_crash_as_the_events_are(prune):
    """Who begins anew finds the one that was saved last, of whichever event that is."""
    world = World()
    actors, given = ringing_twice(world), {"faults": Faults(crash=1), "world": world, "prune": prune}
    there = eventually(lambda look: look.table("told")["version"] > 0)
    assert explore([], actors, {"there": there}, **given).holds
    last = eventually(lambda look: look.table("told")["version"] == 2)
    found = explore([], actors, {"the last": last}, **given, confirm="kill").counterexample
    assert found is not None
    assert found.confirmed == "confirmed by really killing 1 process: the same end"
    assert [step.text for step in found.run.steps if step.fault] == ["dies before log"]


def test_states_that_differ_in_their_snapshots_are_told_apart():
    """Whoever dies before the first event finds the snapshot that was saved before it, or none."""
    world = World()
    told = world.table("told")

    def actors(store: Any) -> list[Any]:
        def ring() -> None:
            known = store.snapshot("Bell/1")
            told["known"] = known is not None
            store.save_snapshot(Snapshot("Bell/1", 0, "1", "{}"))

        return [task(ring, restart=True)]

    never = always(lambda look: not look.table("told").get("known"))
    assert explore([], actors, {"never": never}, world=world).holds
    assert not explore([], actors, {"never": never}, faults=Faults(crash=1), world=world).holds


@pytest.mark.parametrize(
    ("make", "wait", "free"),
    [
        (asyncio.Event, lambda one: one.wait(), lambda one: one.set()),
        (asyncio.Queue, lambda one: one.get(), lambda one: one.put_nowait("a")),
        (lambda: asyncio.Semaphore(0), lambda one: one.acquire(), lambda one: one.release()),
    ],
)
def test_what_tasks_share_may_be_kept_in_the_memory_of_the_world(make, wait, free):
    """As the message says that refuses it elsewhere: one waits until the other is there, whoever is first."""
    world = World()
    done, memory = world.table("done"), world.memory("shared", lambda: {"one": make()})

    async def waits() -> None:
        await wait(memory.value["one"])
        done["waits"] = True

    async def frees() -> None:
        await asyncio.sleep(0)
        free(memory.value["one"])
        done["frees"] = "waits" not in done

    check = {"both": eventually(lambda look: dict(look.table("done")) == {"waits": True, "frees": True})}
    verdict = explore([], [task(waits), task(frees)], check, faults=Faults(preempt=2), world=world)
    assert verdict.holds, verdict


def test_an_event_that_a_crash_loses_is_waited_for_in_vain():
    """It was set, and whoever starts again waits for one of his own."""
    world = World()
    memory = world.memory("paid", asyncio.Event, of="ships")

    async def ships() -> None:
        await memory.value.wait()

    async def pays() -> None:
        memory.value.set()

    actors = [task(pays), task(ships, restart=True)]
    assert explore([], actors, world=world).counterexample is None
    found = explore([], actors, faults=Faults(crash=1), world=world).counterexample
    assert (found.invariant, found.message) == ("it comes to an end", "ships waits for what never comes")
