"""Coroutines without waiting: asyncio's own tasks, on a loop whose time is virtual."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from esim.virtual import Coroutines, pausing


def run(awaitable: Any) -> tuple[Any, int]:
    """Return what a coroutine gives, and how often it paused."""
    steps, pauses = pausing(awaitable), 0
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

    with pytest.raises(RuntimeError, match="waits for something that never comes"):
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
