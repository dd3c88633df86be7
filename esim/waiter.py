"""What coroutines give, for code that is not async, also where an event loop runs already, as in Jupyter."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_STEP = 0.05  # seconds after which a waiting thread looks whether it was interrupted


class Waiter:
    """Runs coroutines one after the other in an event loop of its own, in a thread of its own."""

    def __init__(self) -> None:
        """Begin without a thread: most handlers are not async."""
        self._thread: ThreadPoolExecutor | None = None
        self._runner: asyncio.Runner | None = None

    def result(self, awaitable: Awaitable[Any]) -> Any:
        """Return what an awaitable gives, or raise what it raises; an interrupt cancels it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "esim-async")
            self._runner = self._thread.submit(asyncio.Runner).result()
        context = contextvars.copy_context()
        running = self._thread.submit(self._run, awaitable, context)
        try:
            while True:
                try:
                    return running.result(_STEP)
                except TimeoutError:
                    if running.done():
                        raise
        except BaseException:
            if not running.done() and self._runner is not None:
                loop = self._runner.get_loop()
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
            raise

    def _run(self, awaitable: Awaitable[Any], context: contextvars.Context) -> Any:
        async def awaited() -> Any:
            return await awaitable

        assert self._runner is not None  # noqa: S101 - made before the first submit
        return self._runner.run(awaited(), context=context)

    def close(self) -> None:
        """End the loop and its thread, once what runs in it has ended."""
        if self._thread is not None and self._runner is not None:
            self._thread.submit(self._runner.close)
            self._thread.shutdown(wait=False)
        self._thread = self._runner = None
