"""Coroutines on a virtual event loop: nothing is waited for, and each await is a place to stop at.

The loop runs asyncio's own tasks and futures. Its time moves on only when nothing else is left to run, to
the next timer at once.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from asyncio import events
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any, cast


class VirtualLoop:
    """As much of an event loop as coroutines need that sleep, gather, time out and wait for each other.

    It is none by class, as it has no sockets, signals or child processes.
    """

    def __init__(self) -> None:
        """Begin at time 0."""
        self._now = 0.0
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._now

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def is_running(self) -> bool:
        """Return True: it is asked by what runs in it."""
        return True

    def is_closed(self) -> bool:
        """Return False: there is nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Drop it: what a dead process leaves undone is no error here."""

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=cast("asyncio.AbstractEventLoop", self))

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Return a task of this loop."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=cast("asyncio.AbstractEventLoop", self), **options)
        self._tasks.append(task)
        return task

    def abandon(self) -> None:
        """Close the coroutines that have not ended, at once and not when garbage is collected."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own way to say so
                with suppress(BaseException):  # what they do on their way out does not count
                    task.get_coro().close()
        self._tasks.clear()

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have a function called next."""
        handle = asyncio.Handle(callback, args, cast("asyncio.AbstractEventLoop", self), context)
        self._soon.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have a function called after a time."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have a function called at a time."""
        handle = asyncio.TimerHandle(when, callback, args, cast("asyncio.AbstractEventLoop", self), context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its time comes."""

    def run_one(self) -> bool:
        """Run what comes next; say whether there was something."""
        while not self._soon and self._timers:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._now = max(self._now, when)
                self._soon.append(timer)
        if not self._soon:
            return False
        handle = self._soon.popleft()
        if not handle.cancelled():
            former = events._get_running_loop()
            events._set_running_loop(cast("asyncio.AbstractEventLoop", self))
            try:
                handle._run()
            finally:
                events._set_running_loop(former)
        return True


def pausing(result: Any) -> Generator[str, None, Any]:
    """Return what an awaitable gives, with a yield wherever it waits; any other value as it is.

    Raises what it raises, and RuntimeError if it waits for what never comes.
    """
    if not inspect.isawaitable(result):
        return result
    loop = VirtualLoop()
    task = loop.create_task(_waiting(result))
    try:
        while True:
            if not loop.run_one():
                raise RuntimeError("a coroutine waits for something that never comes")
            if task.done():
                return task.result()
            yield "awaits"
    finally:
        loop.abandon()


async def _waiting(result: Any) -> Any:
    return await result


class Coroutines:
    """Gives what coroutines give, at once."""

    @staticmethod
    def inside() -> bool:
        """Say whether this is asked by a coroutine."""
        return isinstance(events._get_running_loop(), VirtualLoop)

    @staticmethod
    def steps(awaitable: Any) -> Generator[str, None, Any]:
        """Wait for an awaitable step by step."""
        return pausing(awaitable)

    def result(self, awaitable: Any) -> Any:
        """Return what an awaitable gives, or raise what it raises."""
        steps = pausing(awaitable)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value
