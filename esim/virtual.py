"""Coroutines on a virtual event loop: nothing is waited for, and each await is a place to stop at.

The loop runs asyncio's own tasks and futures. Where nothing is left to run but to wait for a timer, whoever
sets its pace is told for how long; by itself it goes on to the timer at once. Each coroutine that is gone
through has a loop of its own, and all that code sees of them is one: so what several of them share, such as
a lock, is of one loop, and who waits for it goes on once another gives it back.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import sys
from asyncio import events, tasks
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, cast

from esim.faults import ForeignWorld, Stuck
from esim.whole import whole


class Pace(Protocol):
    """How time passes for whoever waits."""

    def time(self) -> float:
        """Return the time in seconds, from whenever on."""
        ...

    def sleep(self, seconds: float) -> None:
        """Have so many seconds pass before the coroutine goes on."""
        ...

    def block(self, idle: Callable[[], bool]) -> bool:
        """Wait while it is `idle`, as there is nothing to do; say whether anybody else may change that."""
        ...


class _AtOnce:
    """A time of its own, which passes as soon as somebody waits."""

    def __init__(self) -> None:
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def block(self, idle: Callable[[], bool]) -> bool:  # noqa: ARG002 - there is nobody else
        return False


class _OneLoop:
    """What code sees of every loop: it hands on what it is asked to the loop whose turn it is.

    It is none by class, as it has no sockets, signals or child processes.
    """

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

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have a function called next, by the loop of whoever waits for it."""
        loop = (context or copy_context()).get(_MINE) or _MINE.get()
        return loop.call_soon(callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its time comes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(_MINE.get(), name, None)
        if found is None:
            raise ForeignWorld(
                f"{name} of an event loop is not simulated: it has no sockets, signals, threads or child "
                "processes; keep them out of what is explored, behind a service of the world"
            )
        return found

    def __reduce__(self) -> str:
        return "_ONE"  # also if what it is a part of is copied


_ONE = _OneLoop()
_SEEN = cast("asyncio.AbstractEventLoop", _ONE)
_MINE: ContextVar[VirtualLoop] = ContextVar("_MINE")
"""The loop that runs the code at hand."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is that of its number, in each run the same."""

    def __init__(self, coro: Any, number: int, **options: Any) -> None:
        self._number = number  # it is asked for as the task is made
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop:
    """As much of an event loop as coroutines need that sleep, gather, time out and wait for each other."""

    _turn = 1

    def __init__(self, pace: Pace) -> None:
        """Have time pass as `pace` says."""
        self._pace = pace
        self._reached = pace.time()
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._context, self._abandoned = copy_context(), False
        self._context.run(_MINE.set, self)

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return max(self._pace.time(), self._reached)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=_SEEN)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Return a task of this loop."""
        task = _Task(coro, self._turn * (len(self._tasks) + 2), loop=_SEEN, **options)  # -1 is no hash
        self._tasks.append(task)
        return task

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002 - its threads have no work
        function: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Call a function in the place of a thread, at once; whoever awaits it goes on a moment later."""
        future = self.create_future()
        try:
            self.call_soon(_settle, future, function(*args), None)
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            self.call_soon(_settle, future, None, error)
        return future

    def run(self, awaitable: Any) -> asyncio.Task[Any]:
        """Return the task of what this loop is for."""
        return self.create_task(whole(awaitable, self._left), context=self._context)

    async def _left(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, but for the one at hand."""
        if self._soon:
            await asyncio.sleep(0)  # generators that were left are closed by tasks that begin now
        return [task for task in self._tasks if task is not asyncio.current_task() and not task.done()]

    def ended(self) -> None:
        """Raise ForeignWorld if a function is to be called later, when what this loop is for has ended."""
        if any(not timer.cancelled() for _, _, timer in self._timers):
            raise ForeignWorld(
                "call_later, or call_at, of an event loop is not simulated beyond the end of what called it: "
                "await asyncio.sleep(…) and call the function then"
            )

    def _close(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Have a generator that was left early be closed, unless whoever has left it is dead."""
        if not self._abandoned:
            self.call_soon(lambda: self.create_task(generator.aclose()), context=self._context)

    def abandon(self) -> None:
        """Close the coroutines that have not ended, at once and not when garbage is collected."""
        self._abandoned = True
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
        handle = asyncio.Handle(callback, args, _SEEN, context)
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
        handle = asyncio.TimerHandle(when, callback, args, _SEEN, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def doze(self) -> None:
        """Wait for the next timer, if nothing else is left to do."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if self._timers and not self._soon:
            left = self._timers[0][0] - self.time()
            self._reached = self._timers[0][0]  # whatever the rounding
            if left > 0:
                self._pace.sleep(left)

    def idle(self) -> bool:
        """Say whether there is nothing to run."""
        return not self._soon

    def run_one(self) -> bool:
        """Run what comes next; say whether there was something."""
        while self._timers and self._timers[0][0] <= self.time():
            self._soon.append(heapq.heappop(self._timers)[2])
        if not self._soon:
            return False
        handle = self._soon.popleft()
        if not handle.cancelled():
            with _running(self._close):
                handle._run()
        return True


@contextmanager
def turned_round() -> Iterator[None]:
    """Have the tasks in a set be in another order than else."""
    VirtualLoop._turn = -1
    try:
        yield
    finally:
        VirtualLoop._turn = 1


@contextmanager
def _running(close: Callable[[AsyncGenerator[Any, Any]], None]) -> Iterator[None]:
    """Be the running loop, also where a task of it runs already; `close` is for generators left early."""
    former, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
    outer = asyncio.current_task(_SEEN) if former is _SEEN else None
    if outer is not None:
        tasks._leave_task(_SEEN, outer)
    events._set_running_loop(_SEEN)
    sys.set_asyncgen_hooks(firstiter=None, finalizer=close)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)
        events._set_running_loop(former)
        if outer is not None:
            tasks._enter_task(_SEEN, outer)


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return  # nobody waits any more
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def pausing(result: Any, pace: Pace | None = None) -> Generator[str, None, Any]:
    """Return what an awaitable gives, with a yield wherever it waits; any other value as it is.

    Where it has nothing to do but to wait for a time, or for another, `pace` is told before the yield.
    Raises what it raises, and Stuck if it waits for what never comes.
    """
    if not inspect.isawaitable(result):
        return result
    pace = _AtOnce() if pace is None else pace
    loop = VirtualLoop(pace)
    task = loop.run(result)
    try:
        while True:
            if loop.run_one():
                if task.done():
                    value = task.result()
                    loop.ended()
                    return value
                loop.doze()
            elif not pace.block(loop.idle):
                raise Stuck("a coroutine waits for something that never comes")
            yield "awaits"
    finally:
        loop.abandon()


class Coroutines:
    """Gives what coroutines give."""

    def __init__(self, pace: Pace | None = None, plain: Pace | None = None) -> None:
        """Have time pass at a `pace` where others may go on meanwhile, and as `plain` says in plain code."""
        self._pace, self._plain = pace, plain

    @staticmethod
    def inside() -> bool:
        """Say whether this is asked by a coroutine."""
        return events._get_running_loop() is _SEEN

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
