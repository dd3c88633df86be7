"""What is kept of subscriptions in memory: a commit is whole, wherever an interrupt comes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest

from esim import progress_memory
from esim.clock import ManualClock
from esim.effects import Effect
from esim.event import Event
from esim.memory import MemoryStore
from esim.progress import Mark, Registered
from esim.progress_memory import MemoryProgress
from esim.projection import Key, Row, Rows
from esim.subscription import Subscription


class Paid(Event):
    customer: str


class Count(Row):
    customer: Key[str]
    number: int = 0


def interrupted_at(line: int) -> Any:
    """Return a trace function that raises KeyboardInterrupt before the `line`-th line of the module."""
    left = [line]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != progress_memory.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("line", range(1, 60))
def test_an_interrupt_leaves_all_of_a_commit_or_nothing(line):
    store = MemoryStore(clock=ManualClock())
    progress = MemoryProgress(store, "count", Count)
    progress.register(Registered("count", "transactional", None, "{}"), Mark())
    rows = progress.rows(0, 1)
    rows.put(Count(customer="ann", number=1))
    effect = Effect("key", 1, 0, 1, "mail", "{}", "done", 1)
    sys.settrace(interrupted_at(line))
    try:
        progress.commit(
            Mark(1, 1), effects=[effect], inbox=[("id", 1)], at=datetime(2026, 1, 1, tzinfo=UTC), rows=rows
        )
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    found = MemoryProgress(store, "count", Count)
    kept = (found.load().position, len(found.all()), len(found.ledger()), found.handled("id"))
    assert kept in ((0, 0, 0, False), (1, 1, 1, True))
    done = sys.gettrace() is None and kept[0] == 1
    assert done or line < 59


def test_subscriptions_are_kept_as_long_as_their_store():
    def count(event: Paid, rows: Rows[Count]) -> None:
        rows.put(Count(customer=event.customer, number=1))

    store = MemoryStore()
    store.append("Order/o-1", Paid(customer="ann"))
    count.__annotations__.update(event=Paid, rows=Rows[Count])
    assert Subscription(store, count).catch_up().df().customer.tolist() == ["ann"]
    assert Subscription(store, count).position == 1
    assert Subscription(MemoryStore(), count).position == 0
