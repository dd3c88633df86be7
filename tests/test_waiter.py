"""Coroutines that code without a loop waits for."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import CancelledError
from concurrent.futures.thread import _global_shutdown_lock

import pytest

from esim import waiter
from esim.waiter import Waiter


async def soon(value: int) -> int:
    return value


async def late() -> None:
    raise TimeoutError("no answer")


async def gone() -> None:
    raise asyncio.CancelledError


async def end() -> None:
    raise SystemExit


def test_one_that_is_forgotten_ends_wherever_garbage_is_collected():
    """Also in the middle of what makes a thread, whose lock is held then."""
    waits = Waiter()
    assert waits.result(soon(1)) == 1
    loop, thread = waits._loop, waits._thread
    with _global_shutdown_lock:
        del waits
        gc.collect()
    assert thread is not None
    thread.join(10)
    assert loop is not None and loop.is_closed()


def test_each_awaitable_gives_its_own_result_however_short_the_looks_are(monkeypatch):
    monkeypatch.setattr(waiter, "_STEP", 0.0)
    waits = Waiter()
    assert [waits.result(soon(number)) for number in range(100)] == list(range(100))
    waits.close()


def test_what_an_awaitable_raises_is_raised():
    waits = Waiter()
    with pytest.raises(SystemExit):
        waits.result(end())
    with pytest.raises(TimeoutError, match="no answer"):
        waits.result(late())
    with pytest.raises(CancelledError, match="from within"):
        waits.result(gone())
    assert waits.result(soon(7)) == 7
    waits.close()
