"""Consumer groups: every event once, the events of a stream in order."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from esim.clock import ManualClock
from esim.effects import Effects
from esim.errors import HandlerFailed, InvalidArgument, Superseded
from esim.event import Event
from esim.group import ConsumerGroup
from esim.intake import share_of
from esim.memory import MemoryStore
from esim.progress import Mark
from esim.projection import Projection, on
from esim.retry import RetryPolicy
from esim.rows import Key, Row
from esim.store import EventStore
from esim.subscription import Subscription, subscriptions


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


@pytest.mark.parametrize("members", [1, 3, 5])
@pytest.mark.parametrize("reset", [True, False])
def test_no_effect_is_done_again_by_a_group_of_another_number_of_members(store, members, reset):
    """Neither gated ones, as each member knows how far it is replayed, nor those on the ledger of another."""
    seen: list[int] = []

    def note(amount: int) -> None:
        seen.append(amount)

    @on(Paid)
    def handler(event, effects: Effects):
        effects.call(note, event.amount)

    two = ConsumerGroup(store, handler, 2, "group").catch_up()
    if reset:
        for member in two.members:
            member.reset()
    group = ConsumerGroup(store, handler, members, "group")
    if not reset:
        for member in group.members:  # as if only the ledger could tell
            member._progress.commit(Mark())
    group.catch_up()
    assert sorted(seen) == list(range(60))
    lines = [line for member in group.members for line in member.effects().position]
    assert sorted(lines) == list(range(1, 61))
    streams = [{event.stream for event in events_of(store, member)} for member in group.members]
    assert sum(map(len, streams)) == 12


def events_of(store, member):
    """Give the events whose effects are on the ledger of a member."""
    positions = set(member.effects().position)
    return [event for event in store.read() if event.position in positions]


def test_a_group_that_was_half_made_before_the_process_died_is_made_anew(store):
    """Members that have done nothing yet stand in nobody's way, and take nobody's place."""
    seen: list[int] = []

    @on(Paid)
    def handler(event):
        seen.append(event.amount)

    ConsumerGroup(store, handler, 2).catch_up()
    Subscription(store, handler, "handler-1-of-3", partition=(0, 3))
    assert ConsumerGroup(store, handler, 2).catch_up().position == 60
    assert subscriptions(store).name.tolist() == ["handler-1-of-2", "handler-2-of-2"]
    Subscription(store, handler, "handler-1-of-3", partition=(0, 3))
    assert ConsumerGroup(store, handler, 3).catch_up().position == 60
    assert sorted(seen) == list(range(60))


def test_members_that_are_replayed_from_different_places_are_not_changed_in_number(store):
    """Up to where effects are gated is not the same for all, until they have caught up."""

    @on(Paid)
    def handler(event, effects: Effects): ...

    group = ConsumerGroup(store, handler, 2).catch_up()
    group.members[0].reset()
    store.append("Order/1", Paid(amount=60))
    group.members[1].catch_up().reset()
    with pytest.raises(InvalidArgument, match=r"replayed up to position 60 and 61.*catch up with members=2"):
        ConsumerGroup(store, handler, 3)
    group.catch_up()
    assert ConsumerGroup(store, handler, 3).position == 61


def test_an_interrupt_ends_a_groups_catch_up_after_the_events_at_hand(store):
    """Every member is asked to end, and stands where it has come to; the next catch-up goes on there."""
    seen: list[int] = []
    both, ended = threading.Barrier(3), threading.Event()

    @on(Paid)
    def handler(event, recorded):
        if not ended.is_set():
            both.wait(30)
            assert group.members[share_of(recorded.stream, 2)]._halting.wait(30)
        seen.append(event.amount)

    def interrupt() -> None:
        both.wait(30)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    group = ConsumerGroup(store, handler, 2)
    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        group.catch_up()
    other.join(30)
    assert len(seen) == 2
    ended.set()
    group.catch_up()
    assert sorted(seen) == list(range(60))


def test_an_interrupt_while_the_members_are_still_being_started_ends_those_that_run(store, monkeypatch):
    """Also the one whose start was interrupted: nobody holds what would tell that it runs."""
    seen: list[int] = []
    begun, ended = threading.Event(), threading.Event()

    @on(Paid)
    def handler(event):
        if not ended.is_set():
            begun.set()
            assert group.members[0]._halting.wait(5)
        seen.append(event.amount)

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args, **named):
            super().submit(*args, **named)
            begun.wait(30)
            self._threads.clear()  # as where the start of the thread was interrupted
            raise KeyboardInterrupt

    group = ConsumerGroup(store, handler, 2)
    with monkeypatch.context() as patch:
        patch.setattr("esim.group.ThreadPoolExecutor", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            group.catch_up()
    assert len(seen) == 1
    ended.set()
    assert group.catch_up().position == 60
    assert sorted(seen) == list(range(60))


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
