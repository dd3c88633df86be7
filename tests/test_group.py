"""Consumer groups: every event once, the events of a stream in order."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest

from esim.clock import ManualClock
from esim.errors import HandlerFailed, InvalidArgument
from esim.event import Event
from esim.group import ConsumerGroup
from esim.memory import MemoryStore
from esim.projection import Projection, on
from esim.retry import RetryPolicy
from esim.rows import Key, Row
from esim.store import EventStore


class Paid(Event):
    amount: int


class Spend(Row):
    id: Key[str]


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request):
    """Sixty payments in twelve streams, in a store of either kind."""
    with request.param(clock=ManualClock()) as opened:
        for number in range(60):
            opened.append(f"Order/{number % 12}", Paid(amount=number))
        yield opened


def test_every_event_is_handled_once_and_each_stream_in_order_by_one_member(store):
    seen: dict[str, list[int]] = defaultdict(list)
    threads: dict[str, set[str]] = defaultdict(set)

    @on(Paid)
    def handler(event, recorded):
        seen[recorded.stream].append(recorded.version)
        threads[recorded.stream].add(threading.current_thread().name)

    group = ConsumerGroup(store, handler, 3).catch_up()
    assert seen == {f"Order/{number}": [1, 2, 3, 4, 5] for number in range(12)}
    assert all(len(names) == 1 for names in threads.values())
    assert repr(group) == "<ConsumerGroup 'handler' of 3 at position 60>"


def test_a_running_group_follows_the_log_and_redrives(store):
    seen: list[int] = []
    failing = [True]

    @on(Paid)
    def handler(event):
        if event.amount == 7 and failing:
            raise ValueError("no")
        seen.append(event.amount)

    group = ConsumerGroup(store, handler, 2, "pair", retry=RetryPolicy(max_attempts=1)).start()
    last = store.append("Order/1", Paid(amount=60))[-1].position
    for member in group.members:
        member.wait_for(last)
    group.stop()
    assert sorted(seen) == [number for number in range(61) if number % 12 != 7]
    failing.clear()
    assert group.redrive().handled.tolist() == [True] * 5
    assert sorted(seen) == list(range(61))


def test_a_member_that_stops_is_told(store):
    @on(Paid)
    def handler(event):
        raise ValueError("no")

    with pytest.raises(HandlerFailed, match="-of-2 stopped"):
        ConsumerGroup(store, handler, 2, on_exhausted="stop", retry=RetryPolicy(max_attempts=1)).catch_up()


def test_a_group_has_members_and_writes_no_rows(store):
    class Spends(Projection[Spend]):
        @on(Paid)
        def paid(self, event, rows, recorded):
            rows.put(Spend(id=recorded.id))

    with pytest.raises(InvalidArgument, match="members"):
        ConsumerGroup(store, lambda event: None, 0)
    with pytest.raises(InvalidArgument, match="table of its own"):
        ConsumerGroup(store, Spends, 2)
