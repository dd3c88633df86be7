"""Coroutines on a virtual event loop: nothing is waited for, and each await is a place to stop at.

The loop runs asyncio's own tasks and futures. Where nothing is left to run but to wait for a timer, whoever
sets its pace is told for how long; by itself it goes on to the timer at once.
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
from typing import Any, Protocol, cast


class Pace(Protocol):
    """How time passes for whoever waits."""

    def time(self) -> float:
        """Return the time in seconds, from whenever on."""
        ...

    def sleep(self, seconds: float) -> None:
        """Have so many seconds pass before the coroutine goes on."""
        ...


class _AtOnce:
    """A time of its own, which passes as soon as somebody waits."""

    def __init__(self) -> None:
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class VirtualLoop:
    """As much of an event loop as coroutines need that sleep, gather, time out and wait for each other.

    It is none by class, as it has no sockets, signals or child processes.
    """

    def __init__(self, pace: Pace) -> None:
        """Have time pass as `pace` says."""
        self._pace = pace
        self._reached = pace.time()
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return max(self._pace.time(), self._reached)

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
        return self.call_at(self.time() + delay, callback, *args, context=context)

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

    def doze(self) -> None:
        """Wait for the next timer, if nothing else is left to do."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if self._timers and not self._soon:
            left = self._timers[0][0] - self.time()
            self._reached = self._timers[0][0]  # whatever the rounding
            if left > 0:
                self._pace.sleep(left)

    def run_one(self) -> bool:
        """Run what comes next; say whether there was something."""
        while self._timers and self._timers[0][0] <= self.time():
            self._soon.append(heapq.heappop(self._timers)[2])
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


def pausing(result: Any, pace: Pace | None = None) -> Generator[str, None, Any]:
    """Return what an awaitable gives, with a yield wherever it waits; any other value as it is.

    Where it has nothing to do but to wait for a time, `pace` is told before the yield.
    Raises what it raises, and RuntimeError if it waits for what never comes.
    """
    if not inspect.isawaitable(result):
        return result
    loop = VirtualLoop(_AtOnce() if pace is None else pace)
    task = loop.create_task(_waiting(result))
    try:
        while True:
            if not loop.run_one():
                raise RuntimeError("a coroutine waits for something that never comes")
            if task.done():
                return task.result()
            loop.doze()
            yield "awaits"
    finally:
        loop.abandon()


async def _waiting(result: Any) -> Any:
    return await result


class Coroutines:
    """Gives what coroutines give."""

    def __init__(self, pace: Pace | None = None, plain: Pace | None = None) -> None:
        """Have time pass at a `pace` where others may go on meanwhile, and as `plain` says in plain code."""
        self._pace, self._plain = pace, plain

    @staticmethod
    def inside() -> bool:
        """Say whether this is asked by a coroutine."""
        return isinstance(events._get_running_loop(), VirtualLoop)

    def steps(self, awaitable: Any) -> Generator[str, None, Any]:
        """Wait for an awaitable step by step."""
        return pausing(awaitable, self._pace)

    def result(self, awaitable: Any) -> Any:
        """Return what an awaitable gives, or raise what it raises."""
        steps = pausing(awaitable, self._plain)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value
