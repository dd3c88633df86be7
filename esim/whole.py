"""A coroutine with all that it has begun: in esim's own delivery and in a simulation alike.

As by `asyncio.run`, what it leaves behind is ended before it counts as ended itself: generators that were
left early are closed, and tasks are cancelled. One that would have gone on is an error: it would do its work
after the event was told to be handled, nobody would see it fail, and no crash would have it done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import CancelledError
from typing import Any

from esim.errors import InvalidArgument

LAST = 5.0
"""Seconds that a coroutine has to end once it is cancelled."""
Tasks = Iterable[asyncio.Task[Any]]


async def whole(awaitable: Awaitable[Any], left: Callable[[], Awaitable[Tasks]]) -> Any:
    """Return what an awaitable gives once all that it has begun has ended; `left` finds what has not.

    Raises what it raises, `concurrent.futures.CancelledError`, an Exception, if it is cancelled from within,
    and InvalidArgument if it leaves a task running.
    """
    try:
        value = await awaitable
    except asyncio.CancelledError:
        await _ended(await left())
        raise CancelledError("the coroutine was cancelled from within") from None
    except (Exception, KeyboardInterrupt, SystemExit):
        await _ended(await left())
        raise
    tasks = await left()
    running = sorted({_name(task) for task in tasks if not _is_ending(task)})
    await _ended(tasks)
    if running:
        raise InvalidArgument(
            f"{', '.join(running)} is left running: nobody would wait for it, see it fail, or do it again "
            "after a crash; await it, or begin it in an asyncio.TaskGroup, which does"
        )
    return value


async def _ended(tasks: Tasks) -> None:
    """Cancel tasks that are not ending already, and wait until they have, within reason."""
    for task in tasks:
        if not _is_ending(task):
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LAST)


def _is_ending(task: asyncio.Task[Any]) -> bool:
    """Say whether a task was cancelled, or closes a generator."""
    return bool(task.cancelling()) or type(task.get_coro()).__name__ == "async_generator_athrow"


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return f"{getattr(coroutine, '__name__', type(coroutine).__name__)}()"
