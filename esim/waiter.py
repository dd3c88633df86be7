"""What coroutines give, for code that is not async, also where an event loop runs already, as in Jupyter."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Awaitable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from esim.whole import LAST, whole

_STEP = 0.05  # seconds after which a waiting thread looks whether it was interrupted


class Waiter:
    """Runs coroutines one after the other in an event loop of its own, in a thread of its own.

    What one leaves behind is ended with it; see `esim.whole`.
    """

    def __init__(self) -> None:
        """Begin without a thread: most handlers are not async."""
        _alive.add(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: weakref.finalize[..., Waiter] | None = None

    def _begun(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_task_factory(_noted)
            self._thread = threading.Thread(target=_run, args=[self._loop], name="esim-async", daemon=True)
            self._thread.start()
            self._end = weakref.finalize(self, _stop, self._loop)
        return self._loop

    def result(self, awaitable: Awaitable[Any]) -> Any:
        """Return what an awaitable gives, or raise what it raises; an interrupt cancels it."""
        running = asyncio.run_coroutine_threadsafe(_outcome(awaitable), self._begun())
        try:
            while not running.done():
                with suppress(TimeoutError):  # of this wait; one of the awaitable itself comes below
                    running.exception(_STEP)
        except BaseException:
            running.cancel()
            raise
        value, ends = running.result()
        if ends is not None:
            raise ends
        return value

    def inside(self) -> bool:
        """Say whether this is asked from within a coroutine that it runs."""
        return self._thread is not None and threading.current_thread() is self._thread

    def steps(self, awaitable: Awaitable[Any]) -> Iterator[None]:
        """Wait for an awaitable, all at once: a waiter of a simulation gives a step wherever it waits."""
        self.result(awaitable)
        return iter(())

    def close(self) -> None:
        """End the loop and its thread, once what runs in it has ended."""
        if self._end is not None and self._thread is not None:
            self._end()
            self._thread.join(LAST)
        self._loop = self._thread = self._end = None


_alive: weakref.WeakSet[Waiter] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for waiter in list(_alive):
        waiter.close()


_begun: ContextVar[weakref.WeakSet[asyncio.Task[Any]]] = ContextVar("_begun")
"""The tasks that were begun by what is awaited at present."""


def _noted(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Return a new task, and note by whom it was begun."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    if (begun := _begun.get(None)) is not None:
        begun.add(task)
    return task


async def _outcome(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return what an awaitable gives, or what the loop would take as a word to itself."""
    _begun.set(weakref.WeakSet())
    try:
        return await whole(awaitable, _left), None
    except (KeyboardInterrupt, SystemExit, CancelledError) as ends:
        return None, ends


async def _left() -> list[asyncio.Task[Any]]:
    """Return the tasks that have not ended of those that were begun by what is awaited."""
    await asyncio.sleep(0)  # generators that were left are closed by tasks that begin now
    return [task for task in _begun.get() if not task.done()]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop's thread end it; takes no lock, as garbage may be collected where one is held."""
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)
