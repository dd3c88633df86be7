"""One run after another on a stage: how actors live, die, wait, and go first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from esim import stage as stages
from esim.bus import Bus
from esim.errors import InvalidArgument
from esim.event import Event
from esim.explore import Search
from esim.faults import Faults
from esim.invariant import always, eventually, no_effect_twice
from esim.recording import Recording
from esim.retry import CircuitBreaker, RetryPolicy
from esim.scenario import Scenario, consume, follow, task
from esim.simulation import explore, simulate
from esim.stage import Stage
from esim.subscription import Subscription
from esim.world import World


class Placed(Event):
    n: int = 1


class Paid(Event):
    n: int = 1


HISTORY = [("Order/1", Placed(n=1)), ("Order/2", Placed(n=2))]


def broken(*given: Any, **named: Any) -> str | None:
    found = explore(*given, **named, confirm=None).counterexample
    return found and found.invariant


def counting(world: World) -> Any:
    table = world.table("seen")

    def note(event: Placed) -> None:
        table[event.n] = table.get(event.n, 0) + 1

    return note


def test_a_duplicate_is_of_the_last_event_that_was_for_the_subscription():
    """Events of other types, which come after it in the log, do not take its place."""
    world = World()
    once = eventually(lambda look: look.table("seen")[1] == 1)
    history = [("Order/1", Placed(n=1)), ("Order/1", Paid()), ("Order/1", Paid())]
    assert (
        broken(history, [counting(world)], {"once": once}, faults=Faults(duplicate=1), world=world) == "once"
    )


def test_a_handler_that_swallows_everything_dies_all_the_same():
    """`except BaseException` catches the crash; nothing is done after it, and nobody else dies of it."""
    world = World()
    table, mail = world.table("t", {"done": False}), world.service("mail")

    def stubborn() -> None:
        with suppress(BaseException):
            mail("x")

    def other() -> None:
        table["done"] = True

    scenario = Scenario([], [task(stubborn), task(other)], faults=Faults(crash=1), world=world)
    stage = Stage(scenario)
    first = stage.begin(scenario.faults.budgets())
    run = Recording.of(stage, {}, {0: 1}, strict=True).run(first, checks=False)
    assert [(step.lane, step.fault) for step in run.steps if step.fault] == [("stubborn", "crash")]
    assert run.look.table("t")["done"]
    assert [player.ended for player in stage.players] == ["dead", "done"]


def test_what_is_in_a_finally_is_not_done_by_the_dead():
    """A crash leaves no time to tidy up."""
    world = World()
    table, mail = world.table("t"), world.service("mail")

    def tidy(event: Placed) -> None:
        try:
            mail(event.n)
        finally:
            table[event.n] = len(look_calls())

    def look_calls() -> list[Any]:
        return world.calls("mail")

    honest = always(lambda look: 0 not in look.table("t").values())
    assert broken(HISTORY[:1], [tidy], {"honest": honest}, faults=Faults(crash=1), world=world) is None


def test_memory_is_lost_by_the_death_of_its_process_alone():
    """`of` names whose it is."""
    world = World()
    mine, table = world.memory("mine", list, of="idle"), world.table("t", {"sum": 0})

    def note(event: Placed) -> None:
        mine.value.append(event.n)
        table["sum"] = sum(mine.value)

    def idle() -> None: ...

    kept = {"kept": eventually(lambda look: look.table("t")["sum"] >= 3)}
    assert broken(HISTORY, [note, idle], kept, faults=Faults(crash=1), world=world) is None
    mine.of = "note"
    assert broken(HISTORY, [note, idle], kept, faults=Faults(crash=1), world=world) == "kept"


def test_a_task_begins_anew_only_if_it_is_told_to():
    """A dead one is dead."""
    for restart, found in ((False, "done"), (True, None)):
        world = World()
        table, mail = world.table("t"), world.service("mail")

        def work(table: Any = table, mail: Any = mail) -> None:
            mail("x")
            table["done"] = True

        done = eventually(lambda look: "done" in look.table("t"))
        actors = [task(work, restart=restart)]
        assert broken([], actors, {"done": done}, faults=Faults(crash=1), world=world) == found


@pytest.mark.parametrize("kind", ["yields", "awaits"])
def test_another_goes_first_where_a_task_yields_or_awaits(kind):
    """A lost update needs one preemption, and is not there without."""
    world = World()
    table = world.table("t", {"n": 0})

    def yields() -> Iterator[None]:
        seen = table["n"]
        yield
        table["n"] = seen + 1

    async def awaits() -> None:
        seen = table["n"]
        await asyncio.sleep(0)
        table["n"] = seen + 1

    function = {"yields": yields, "awaits": awaits}[kind]
    both = eventually(lambda look: look.table("t")["n"] == 2)
    actors = [task(function, name="ann"), task(function, name="bob")]
    assert broken([], actors, {"both": both}, faults=Faults(preempt=1), world=world) == "both"
    assert broken([], actors, {"both": both}, world=world) is None


@pytest.mark.parametrize(("ack", "twice", "lost"), [("after", "twice", None), ("before", None, "lost")])
def test_a_message_comes_again_after_a_crash_or_is_gone_where_it_is_acknowledged_before(ack, twice, lost):
    """At least once, or at most once."""
    world = World()
    queue, mail = world.queue("q"), world.service("mail")

    def take(body: str) -> None:
        mail(body)

    consumer, given = consume(queue, take, ack=ack), {"faults": Faults(crash=1), "world": world}
    checks = {"lost": eventually(lambda look: look.calls("mail"))}
    assert broken([], [task(queue.publish, "x"), consumer], {"twice": no_effect_twice()}, **given) == twice
    assert broken([], [task(queue.publish, "x", restart=True), consumer], checks, **given) == lost


def test_a_consumer_that_is_taken_for_dead_has_a_rival():
    """Both handle the message."""
    world = World()
    queue, mail = world.queue("q"), world.service("mail")

    def take(body: str) -> None:
        mail(body)

    actors = [task(queue.publish, "x"), consume(queue, take, "one"), consume(queue, take, "two")]
    checks = [no_effect_twice()]
    assert broken([], actors, checks, faults=Faults(late=1, preempt=1), world=world) == "no effect twice"
    assert broken([], actors, checks, faults=Faults(preempt=2), world=world) is None


def test_waiting_takes_virtual_time_alone():
    """Retries an hour apart, and a circuit that cools down for a day."""
    world = World()
    mail = world.service("mail", outage=3)
    times = world.table("times")

    def actors(store: Any) -> list[Any]:
        def notify(event: Placed) -> None:
            times[len(times)] = store.clock.now().hour
            mail(event.n)

        waits = RetryPolicy(max_attempts=2, initial_interval=3600, maximum_interval=3600, jitter="none")
        return [follow(notify, retry=waits, breaker=CircuitBreaker(failures=1, cooldown=3 * 3600))]

    run = simulate(HISTORY[:1], actors, world=world, faults=Faults(outage=1.0))
    hours = list(run.look.table("times").values())
    assert hours[:4] == [9, 10, 13, 16]


def test_what_may_not_be_sent_is_noted_and_not_done():
    """A function that is not of the world stands for a service; also where it is told beforehand."""
    sent: list[int] = []

    def send(n: int) -> None:
        sent.append(n)

    def notify(event: Placed, effects: Any) -> None:
        effects.call(send, event.n)

    for options in ({}, {"outbox": True, "sends": [send]}):
        run = simulate(HISTORY, [follow(notify, **options)])
        assert [call.arguments["n"] for call in run.look.calls("send")] == [1, 2]
    assert sent == []


def test_a_subscription_of_the_scenarios_own_is_looked_at_and_put_back():
    """A task may catch up, replay and redrive; its progress is part of the state."""
    world = World()
    note = counting(world)

    def actors(store: Any) -> list[Any]:
        subscription = Subscription(store, note, "mine")
        return [task(subscription.steps, restart=True), task(subscription.replay, name="again")]

    twice = eventually(lambda look: look.position("mine") == 2 and min(look.table("seen").values()) >= 2)
    verdict = explore(
        HISTORY, actors, {"twice": twice}, faults=Faults(crash=1, preempt=1), world=world, confirm=None
    )
    assert verdict.counterexample is not None  # who goes first finds nothing to replay
    assert broken(HISTORY, actors, {"twice": twice}, world=world) is None


def test_a_subscription_that_is_made_meanwhile_is_told():
    """It would be no part of the state."""
    world = World()
    handler = counting(world)

    def actors(store: Any) -> list[Any]:
        def late() -> None:
            Subscription(store, handler, "late").catch_up()

        return [task(late)]

    with pytest.raises(InvalidArgument, match="late: a subscription is made while"):
        explore(HISTORY, actors, world=world)


def test_a_bus_knows_nothing_of_what_was_before_a_crash():
    """What it had not delivered is lost with its process."""
    world = World()
    mail = world.service("mail")

    def actors(store: Any) -> list[Any]:
        bus = Bus(store)
        bus.subscribe(Placed, lambda event: mail(event.n))
        return [task(bus.publish, "Order/1", Placed(n=7))]

    told = eventually(lambda look: len(look.calls("mail")) == len(look.log))
    assert broken([], actors, {"told": told}, faults=Faults(crash=1), world=world) == "told"
    assert broken([], actors, {"told": told}, world=world) is None


def test_two_stages_share_a_world_and_do_not_mix():
    """A search goes on where it was, though another has used the tables since."""
    world = World()
    note = counting(world)
    right = {"right": always(lambda look: max(look.table("seen").values(), default=0) < 3)}
    one, two = (
        Scenario(HISTORY, [note], right, faults=Faults(crash=1, duplicate=1), world=world) for _ in "12"
    )
    alone = list(Search(Stage(one), one.invariants).nodes(one.faults, "exhaustive"))
    turns = [Search(Stage(each), each.invariants) for each in (one, two)]
    runs = [search.nodes(one.faults, "exhaustive") for search in turns]
    told: list[list[Any]] = [[], []]
    for _ in range(len(alone)):
        for index, run in enumerate(runs):
            told[index].append(next(run))
    assert told == [alone, alone]
    assert turns[0].count == turns[1].count


def test_a_run_that_goes_on_for_ever_is_ended(monkeypatch):
    """After so many steps it is said to have no end."""
    monkeypatch.setattr(stages, "MOST_STEPS", 50)

    def spin() -> Iterator[None]:
        while True:
            yield

    scenario = Scenario([], [task(spin)])
    stage = Stage(scenario)
    assert Recording.of(stage, {}, {}, strict=True).run(stage.begin(Faults().budgets()), checks=False)
    assert stage.steps == 51


def test_the_store_is_as_it_was_after_a_run():
    """No gate is left, neither at the store nor in the world."""
    world = World()
    stage = Stage(Scenario(HISTORY, [counting(world)], world=world))
    Recording.of(stage, {}, {}, strict=True).run(stage.begin(Faults().budgets()), checks=False)
    assert world.gate is None
    stage.store.append("Order/9", Placed())
    assert stage.store.position == 3


def test_nothing_goes_wrong_at_the_appends_of_a_service_that_is_at_work():
    """What it stores is stored by a process of its own, whatever becomes of its caller."""
    world = World()

    def actors(store: Any) -> list[Any]:
        def ring() -> None:
            world.gate.sheltered = True
            store.append("Order/3", Placed(n=3))
            world.gate.sheltered = False
            store.append("Order/4", Placed(n=4))

        return [task(ring)]

    scenario = Scenario([], actors, faults=Faults(crash=1, unknown=1), world=world)
    stage = Stage(scenario)
    run = Recording.of(stage, {}, {}, strict=True).run(stage.begin(scenario.faults.budgets()), checks=False)
    asked = [one.told for one in run.asked if one.lane == "log"]
    assert asked == ["Placed → Order/4"]
