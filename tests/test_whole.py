"""A coroutine with all that it has begun: esim's own delivery and a simulation treat it alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from esim.errors import InvalidArgument
from esim.virtual import Coroutines
from esim.waiter import Waiter

Result = Callable[[Any], Any]


@pytest.fixture(params=["real", "simulated"])
def result(request: pytest.FixtureRequest) -> Iterator[Result]:
    """Return what waits for a coroutine, in both worlds."""
    if request.param == "simulated":
        yield Coroutines().result
        return
    waiter = Waiter()
    yield waiter.result
    waiter.close()


def test_a_task_that_is_left_running_is_an_error_and_is_cancelled(result):
    """It would go on unseen, until the process ends."""
    done: list[str] = []

    async def later() -> None:
        try:
            await asyncio.sleep(60)
            done.append("later")
        finally:
            done.append("cancelled")

    async def leaves() -> None:
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
        done.append("left" if not task.done() else "")

    with pytest.raises(InvalidArgument, match=r"later\(\) is left running.*TaskGroup"):
        result(leaves())
    assert done == ["left", "cancelled"]


def test_what_a_coroutine_that_fails_has_begun_is_cancelled(result):
    """As of a gather whose first has failed; its error is the one that is told."""
    done: list[str] = []

    async def fails() -> None:
        raise ValueError("no")

    async def other() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            done.append("cancelled")

    async def both() -> None:
        await asyncio.gather(other(), fails())

    with pytest.raises(ValueError, match="no"):
        result(both())
    assert done == ["cancelled"]


def test_a_task_that_was_told_to_end_may_end_after_its_coroutine(result):
    """As those that were not the first; what they do on their way is done."""
    done: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            done.append("slow")

    async def first() -> str:
        ended, left = await asyncio.wait(
            [asyncio.create_task(slow()), asyncio.create_task(asyncio.sleep(0))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in left:
            task.cancel()
        return f"{len(ended)} ended"

    assert result(first()) == "1 ended"
    assert done == ["slow"]


def test_a_task_of_a_group_is_none_that_is_left(result):
    """Nor one that is awaited."""

    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    async def all_of_them() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(3)]
        return sum([task.result() for task in tasks]) + await asyncio.create_task(one())

    assert result(all_of_them()) == 4


def test_what_is_waited_for_meanwhile_ends_nothing_of_others(result):
    """By a thread that works for a coroutine: the coroutine is none that it leaves behind."""

    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    async def waits() -> int:
        first = asyncio.create_task(asyncio.to_thread(result, one()))
        second = asyncio.create_task(asyncio.sleep(0.01, 2))
        return await first + await second

    assert result(waits()) == 3


@pytest.mark.parametrize("last", [False, True])
def test_an_async_generator_that_is_left_early_is_closed(result, last):
    """What it does on its way out is done, also where it awaits, and where nothing comes after it."""
    done: list[str] = []

    async def rows() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            await asyncio.sleep(0)
            done.append("given back")

    async def reads() -> None:
        async for number in rows():
            if number:
                break
        if not last:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done.append("goes on")

    result(reads())
    assert done == ["given back"] + ["goes on"] * (not last)


def test_one_that_is_cancelled_from_within_has_failed(result):
    """By an Exception, so that whoever tries again does."""

    async def gone() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CancelledError, match="from within"):
        result(gone())


def test_an_async_generator_of_the_dead_does_nothing(capfd):
    """Whoever dies gives nothing back; and nothing is told of it on the screen."""
    from esim.virtual import pausing

    done: list[str] = []

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            done.append("given back")

    async def reads() -> None:
        async for _ in rows():
            await asyncio.sleep(1)

    async def has_read() -> None:
        async for _ in rows():
            break
        await asyncio.sleep(1)

    for one in (reads, has_read):
        steps = pausing(one())
        next(steps)
        steps.close()
    gc.collect()
    assert not done
    assert capfd.readouterr() == ("", "")
