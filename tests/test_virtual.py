"""Coroutines without waiting: asyncio's own tasks, on a loop whose time is virtual."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from esim.faults import ForeignWorld, Stuck
from esim.virtual import Coroutines, pausing


def run(awaitable: Any) -> tuple[Any, int]:
    """Return what a coroutine gives, and how often it paused."""
    return outcome(pausing(awaitable))


def outcome(steps: Any) -> tuple[Any, int]:
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def test_what_is_not_awaitable_comes_back_at_once():
    """Without a pause."""
    assert run(7) == (7, 0)


def test_sleeping_takes_no_time_and_keeps_its_order():
    """A day and a second: the second is over first."""
    told: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        told.append(name)

    async def both() -> float:
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(sleeper("day", 86_400), sleeper("second", 1))
        return asyncio.get_running_loop().time() - begun

    assert run(both())[0] == 86_400
    assert told == ["second", "day"]


def test_each_await_that_waits_is_a_place_to_stop_at():
    """One that is ready at once is none."""

    async def three() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    async def none() -> str:
        return "done"

    assert run(three()) == ("done", 3)
    assert run(none()) == ("done", 0)


def test_timeouts_locks_and_cancelling_work():
    """As on asyncio's own loop."""

    async def late() -> str:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        except TimeoutError:
            return "too late"
        return "in time"

    async def locked() -> list[int]:
        lock, told = asyncio.Lock(), []

        async def one(number: int) -> None:
            async with lock:
                told.append(number)
                await asyncio.sleep(1)
                told.append(number)

        await asyncio.gather(one(1), one(2))
        return told

    async def cancelled() -> bool:
        task = asyncio.create_task(asyncio.sleep(99))
        await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        return isinstance(outcome, asyncio.CancelledError)

    assert run(late())[0] == "too late"
    assert run(locked())[0] == [1, 1, 2, 2]
    assert run(cancelled())[0] is True


def test_what_a_coroutine_raises_is_raised():
    """With its own class."""

    async def bad() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(bad())


def test_waiting_for_what_never_comes_is_told():
    """It does not hang."""

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="waits for something that never comes"):
        run(forever())


def test_a_result_is_given_at_once_and_nothing_is_left_running():
    """Also within one another; it is known whether one runs."""
    waiter = Coroutines()
    inside: list[bool] = []
    before = asyncio._get_running_loop()  # other tests may have left one

    async def one() -> int:
        inside.append(waiter.inside())
        await asyncio.sleep(3)
        return 1

    assert waiter.result(one()) == 1
    assert inside == [True]
    assert not waiter.inside()
    assert asyncio._get_running_loop() is before


class Patient:
    """A pace whose owner waits for others, until told that there is none."""

    def __init__(self) -> None:
        self.idle: Any = None
        self.alone = False

    def time(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")

    def block(self, idle: Any) -> bool:
        self.idle = idle
        return not self.alone


def test_what_two_coroutines_share_is_of_one_loop():
    """An event, and a queue: who waits is idle until the other, or plain code, has done its part."""
    gate, queue = asyncio.Event(), asyncio.Queue()

    async def waits() -> str:
        await gate.wait()
        return await queue.get()

    async def gives() -> None:
        await asyncio.sleep(0)
        await queue.put("mug")

    pace = Patient()
    waiting, giving = pausing(waits(), pace), pausing(gives())
    next(waiting)
    next(waiting)
    assert pace.idle()
    gate.set()
    assert not pace.idle()
    for _ in range(2):
        next(waiting)
    assert pace.idle()
    assert list(giving)
    assert not pace.idle()
    assert outcome(waiting)[0] == "mug"


def test_what_waits_in_vain_is_told():
    """Once there is nobody else to wait for."""
    pace = Patient()
    waiting = pausing(asyncio.Event().wait(), pace)
    for _ in range(3):
        next(waiting)
    pace.alone = True
    with pytest.raises(Stuck, match="waits for something that never comes"):
        next(waiting)


def test_a_coroutine_may_be_waited_for_within_another():
    """The task of the outer one is the current one again afterwards."""

    async def inner() -> int:
        await asyncio.sleep(1)
        return 1

    async def outer() -> bool:
        before = asyncio.current_task()
        assert Coroutines().result(inner()) == 1
        await asyncio.sleep(1)
        return asyncio.current_task() is before

    assert run(outer())[0]


def test_a_copy_of_what_holds_the_loop_holds_the_same():
    """A lock that was waited for knows its loop; where it is copied, it is for the same."""
    lock = asyncio.Lock()

    async def twice() -> None:
        async def once() -> None:
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(once(), once())

    run(twice())
    lock = copy.deepcopy(lock)
    run(twice())


def test_what_would_be_called_later_on_is_refused():
    """After the coroutine that has asked for it has ended, there is no loop to call it; before, there is."""
    told: list[str] = []

    async def asks(seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, told.append, "called")
        await asyncio.sleep(1)

    run(asks(0.5))
    assert told == ["called"]
    with pytest.raises(ForeignWorld, match="call_later"):
        run(asks(60))
