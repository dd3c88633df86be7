"""Who is late, by how the virtual clock goes on, and a search that puts few preemptions first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from esim.event import Event
from esim.invariant import always, eventually
from esim.process import Deadline, DeadlinePassed, Met, Process, ProcessManager
from esim.rows import on
from esim.scenario import Task, consume, task
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
    assert run.last.now - run.stage.first.now == timedelta(hours=1)


def lambda_free(event: Rung) -> None:
    """Do nothing."""


class Ordered(Event): ...


class Paid(Event): ...


class Waiting(Process): ...


class Timer(ProcessManager[Waiting]):
    """Waits so long for a payment."""

    hours: ClassVar[float] = 0.5

    @on(Ordered)
    def begin(self, event: Ordered, process: Waiting) -> Any:
        return Deadline("pay", hours=self.hours)

    @on(Paid)
    def paid(self, event: Paid, process: Waiting) -> Any:
        return Met("pay")

    @on(DeadlinePassed)
    def late(self, event: DeadlinePassed, process: Waiting) -> Any:
        return process


class DayTimer(Timer):
    """Waits a day."""

    hours = 24


def orders_then_pays(store: Any) -> Task:
    """Return a task that orders, does something else, and pays."""

    def customer() -> Iterator[str]:
        store.append("Order/1", Ordered())
        yield "thinks it over"
        store.append("Order/1", Paid())

    return task(customer)


def paid_late(actors: Any, **faults: int) -> list[str] | None:
    """Return the faults of the shortest run in which a payment comes after the deadline."""

    def in_time(look: Any) -> bool:
        return [one.type for one in look.log][-2:] != ["esim.DeadlinePassed", "Paid"]

    found = explore([], actors, {"in time": always(in_time)}, faults=Faults(**faults)).counterexample
    if found is None:
        return None
    assert found.confirmed == "confirmed on a DuckDB store: the same end"
    return [one.fault for one in found.run.steps if one.fault]


@pytest.mark.parametrize("timer", [Timer, DayTimer])
def test_a_deadline_may_pass_while_another_process_is_between_two_steps(timer):
    """The timer sets it first, and goes first again when its time has come, however long that is."""

    def actors(store: Any) -> list[Any]:
        return [timer, orders_then_pays(store)]

    assert paid_late(actors, preempt=2) == ["preempt", "preempt"]
    assert paid_late(actors, crash=1, unknown=1) is None


def test_a_task_that_is_late_goes_on_an_hour_later():
    """At a yield, at an await, before it begins; not past a deadline of a day."""

    def actors(store: Any, timer: Any = Timer) -> list[Any]:
        return [timer, orders_then_pays(store)]

    async def pay(store: Any) -> None:
        await asyncio.sleep(0)
        store.append("Order/1", Paid())

    assert paid_late(actors, delay=1) == ["delay"]
    assert paid_late(lambda store: actors(store, DayTimer), delay=1) is None
    for paying in (pay, lambda store: store.append("Order/1", Paid()) and None):

        def two(store: Any, paying: Any = paying) -> list[Any]:
            return [task(store.append, "Order/1", Ordered(), name="ann"), Timer, task(paying, store)]

        assert paid_late(two, delay=1) == ["delay"]


def test_who_consumes_a_message_may_be_late():
    """Before it is handled, and at an await of an async handler."""
    world = World()
    queue = world.queue("payments")

    def actors(store: Any) -> list[Any]:
        def order() -> None:
            store.append("Order/1", Ordered())
            queue.publish("pay")

        async def pay(message: str) -> None:
            store.append("Order/1", Paid())

        return [order, Timer, consume(queue, pay, "bank")]

    def in_time(look: Any) -> bool:
        return [one.type for one in look.log][-2:] != ["esim.DeadlinePassed", "Paid"]

    checks = {"in time": always(in_time)}
    assert explore([], actors, checks, world=world).holds
    found = explore([], actors, checks, faults=Faults(delay=1), world=world).counterexample
    assert found is not None
    assert [(one.lane, one.text) for one in found.run.steps if one.fault] == [
        ("bank", "goes on an hour later (is about to handle it)")
    ]


@pytest.mark.parametrize("kind", ["task", "handler", "consumer"])
def test_what_sleeps_lets_others_go_first_and_their_deadlines_pass(kind):
    """The loop's time is the stage's: it takes no fault to be late by it."""
    world = World()
    queue = world.queue("payments")

    def actors(store: Any) -> list[Any]:
        async def pay() -> None:
            await asyncio.sleep(7_200)
            store.append("Order/1", Paid())

        async def handle(event: Ordered) -> None:
            await pay()

        async def consumer(message: str) -> None:
            await pay()

        order = task(store.append, "Order/1", Ordered(), name="ann")
        kinds = {
            "task": [task(pay)],
            "handler": [handle],
            "consumer": [task(queue.publish, "pay"), consume(queue, consumer, "bank")],
        }
        return [order, *kinds[kind], Timer]

    def in_time(look: Any) -> bool:
        return [one.type for one in look.log][-2:] != ["esim.DeadlinePassed", "Paid"]

    found = explore([], actors, {"in time": always(in_time)}, world=world).counterexample
    assert found is not None
    assert found.run.last.now - found.run.stage.first.now == timedelta(hours=2)


def test_who_wakes_up_may_go_before_those_who_could_have_gone_meanwhile():
    """They go first while it sleeps; that they are slower still takes a preemption."""
    world = World()
    table = world.table("table")

    async def dozes() -> None:
        await asyncio.sleep(0.01)
        table["dozes"] = len(table)

    def works() -> None:
        table["works"] = len(table)

    last = {"dozes is last": eventually(lambda look: look.table("table")["dozes"] == 1)}
    given = {"invariants": last, "world": world}
    assert explore([], [dozes, works], **given).holds
    found = explore([], [dozes, works], faults=Faults(preempt=1), **given).counterexample
    assert found is not None
    assert [one.text for one in found.run.steps if one.fault] == ["goes first (0:00:00.010000 later)"]


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
