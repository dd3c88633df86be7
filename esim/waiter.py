"""What coroutines give, for code that is not async, also where an event loop runs already, as in Jupyter."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

_STEP = 0.05  # seconds after which a waiting thread looks whether it was interrupted


class Waiter:
    """Runs coroutines one after the other in an event loop of its own, in a thread of its own."""

    def __init__(self) -> None:
        """Begin without a thread: most handlers are not async."""
        self._made: tuple[ThreadPoolExecutor, asyncio.Runner] | None = None
        self._end: weakref.finalize[..., Waiter] | None = None

    def _begun(self) -> tuple[ThreadPoolExecutor, asyncio.Runner]:
        if self._made is None:
            thread = ThreadPoolExecutor(1, "esim-async")
            self._made = thread, thread.submit(asyncio.Runner).result()
            self._end = weakref.finalize(self, _close, *self._made)
        return self._made

    def result(self, awaitable: Awaitable[Any]) -> Any:
        """Return what an awaitable gives, or raise what it raises; an interrupt cancels it."""
        thread, runner = self._begun()
        running = thread.submit(_run, runner, awaitable, contextvars.copy_context())
        try:
            while True:
                try:
                    return running.result(_STEP)
                except TimeoutError:
                    if running.done():
                        raise
        except BaseException:
            if not running.done():
                loop = runner.get_loop()
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
            raise

    def close(self) -> None:
        """End the loop and its thread, once what runs in it has ended."""
        if self._end is not None:
            self._end()
        self._made = self._end = None


def _run(runner: asyncio.Runner, awaitable: Awaitable[Any], context: contextvars.Context) -> Any:
    async def awaited() -> Any:
        return await awaitable

    return runner.run(awaited(), context=context)


def _close(thread: ThreadPoolExecutor, runner: asyncio.Runner) -> None:
    with suppress(RuntimeError):  # the process ends, and has ended the thread
        thread.submit(runner.close)
    thread.shutdown(wait=True)
