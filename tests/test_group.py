"""Consumer groups: every event once, the events of a stream in order."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest

from esim.clock import ManualClock
from esim.effects import Effects
from esim.errors import HandlerFailed, InvalidArgument, Superseded
from esim.event import Event
from esim.group import ConsumerGroup
from esim.memory import MemoryStore
from esim.projection import Projection, on
from esim.retry import RetryPolicy
from esim.rows import Key, Row
from esim.store import EventStore
from esim.subscription import subscriptions


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


def test_a_group_of_another_number_of_members_goes_on_where_the_former_stand(store):
    seen: list[int] = []

    def note(amount: int) -> None:
        seen.append(amount)

    @on(Paid)
    def handler(event, effects: Effects):
        effects.call(note, event.amount)

    three = ConsumerGroup(store, handler, 3, inbox=True).start()
    for member in three.members:
        member.wait_for(60)
    group = ConsumerGroup(store, handler, 2, inbox=True)
    last = store.append("Order/1", Paid(amount=60))[-1].position
    group = ConsumerGroup(store, handler, 2, inbox=True).catch_up()
    assert sorted(seen) == list(range(61))
    assert group.position == last
    with pytest.raises(Superseded):
        three.catch_up()
    assert subscriptions(store).name.tolist() == ["handler-1-of-2", "handler-2-of-2"]
    assert sum(len(member.effects()) for member in group.members) == 61
    ConsumerGroup(store, handler, 2, inbox=True).members[0].replay(effects="again")
    assert len(seen) > 61


def test_members_that_stand_apart_are_not_changed_in_number(store):
    failing = [True]

    @on(Paid)
    def handler(event):
        if event.amount == 7 and failing:
            raise ValueError("no")

    group = ConsumerGroup(store, handler, 3, retry=RetryPolicy(max_attempts=1))
    group.members[0].catch_up()
    with pytest.raises(InvalidArgument, match="3 members, which stand at position 0 and 60"):
        ConsumerGroup(store, handler, 2)
    group.catch_up()
    with pytest.raises(
        InvalidArgument, match="stand at position 60 with 5 dead letters: catch up with members=3"
    ):
        ConsumerGroup(store, handler, 2)
    failing.clear()
    group.redrive()
    assert ConsumerGroup(store, handler, 5).position == 60


def test_a_group_has_members_and_writes_no_rows(store):
    class Spends(Projection[Spend]):
        @on(Paid)
        def paid(self, event, rows, recorded):
            rows.put(Spend(id=recorded.id))

    with pytest.raises(InvalidArgument, match="members"):
        ConsumerGroup(store, lambda event: None, 0)
    with pytest.raises(InvalidArgument, match="table of its own"):
        ConsumerGroup(store, Spends, 2)
