"""What a delivery leaves behind wherever it is interrupted, or dies: nothing half, nothing twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from esim import delivery, effects, intake, letters, rows
from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.effects import Effects
from esim.event import Event
from esim.memory import MemoryStore
from esim.points import Point
from esim.projection import Key, Row, Rows, on
from esim.retry import RetryPolicy
from esim.store import EventStore
from esim.subscription import Subscription
from esim.upcast import retired

MODULES = {module.__file__ for module in (delivery, effects, intake, letters, rows)}


class Crash(BaseException):
    """The process ends here."""


class Paid(Event):
    customer: str
    amount: int


class Transferred(Event):
    giver: str
    taker: str
    amount: int


class Account(Row):
    customer: Key[str]
    total: int = 0
    events: int = 0


@pytest.fixture(autouse=True)
def split() -> Iterator[None]:
    """A move is read as two payments."""

    def by(old: dict[str, Any]) -> list[Event]:
        return [
            Paid(customer=old["giver"], amount=-old["amount"]),
            Paid(customer=old["taker"], amount=old["amount"]),
        ]

    class Transferred(Event):
        giver: str
        taker: str
        amount: int

    retired(Transferred, by=by, into=Paid)
    yield

    class Transferred(Event):  # type: ignore[no-redef]
        giver: str
        taker: str
        amount: int


def filled(store: Store) -> Any:
    """Return a store of payments and moves in two streams; the move of 5 cannot be handled."""
    for number in range(1, 5):
        store.append(f"Account/{number % 2}", Paid(customer=f"c{number % 3}", amount=number))
        store.append(f"Account/{number % 2}", Transferred(giver="c0", taker="c1", amount=number))
    return store


class Ledger:
    """A handler that adds up payments, and asks for a letter about each; it fails for one taker."""

    __name__ = __qualname__ = "ledger"

    def __init__(self, *, failing: int = 0, times: int = 10**9) -> None:
        self.failing, self.times = failing, times

    def __call__(self, event: Paid, rows: Rows[Account], effects: Effects) -> None:
        row = rows.get(event.customer) or Account(customer=event.customer)
        rows.put(row.but(total=row.total + event.amount, events=row.events + 1))
        effects.call(write, event.customer, event.amount)
        if event.amount == self.failing and event.customer == "c1" and self.times > 0:
            self.times -= 1
            raise ConnectionError("no answer")


mailed: list[tuple[str, int]] = []


def write(customer: str, amount: int) -> None:
    """Write to a customer."""
    mailed.append((customer, amount))


def subscribed(store: Store, **options: Any) -> Subscription:
    ledger = Ledger(**options.pop("fails", {}))
    retry = RetryPolicy(max_attempts=2)
    return Subscription(store, ledger, "ledger", sends=[write], retry=retry, inbox=True, **options)


def found(subscription: Subscription) -> Any:
    """Return all that a delivery leaves: rows, ledger, dead letters, position."""
    accounts = subscription.df().to_dict("records")
    ledger = subscription.effects()[["position", "arguments", "key"]].to_dict("records")
    parked = subscription.dead_letters.df()[["position", "sequence_index", "event_id"]].to_dict("records")
    return accounts, ledger, parked, subscription.position


def must_be_whole(subscription: Subscription) -> None:
    """Check that rows and ledger hold what was handled up to the checkpoint, and nothing else."""
    accounts, ledger, parked, _ = found(subscription)
    assert sum(row["events"] for row in accounts) == len(ledger)
    assert len({(one["position"], one["event_id"], one["sequence_index"]) for one in parked}) == len(parked)
    assert all(one["position"] <= subscription.position + 1 for one in ledger)


def interrupted_before(line: int, error: type[BaseException]) -> Any:
    """Return a trace function that raises before the `line`-th line that a delivery runs through."""
    left = [line]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in MODULES:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise error
        return trace

    return trace


def stopped_before(
    line: int,
    error: type[BaseException],
    subscription: Subscription,
    act: Callable[[Subscription], object] = Subscription.catch_up,
) -> bool:
    """Catch up until just before a line; say whether it was reached."""
    former = sys.gettrace()
    sys.settrace(interrupted_before(line, error))
    try:
        act(subscription)
    except error:
        return True
    finally:
        sys.settrace(former)
    return False


@pytest.mark.parametrize(
    ("batch", "fails", "stride"),
    [(1, {}, 67), (4, {"failing": 3}, 41), (100, {"failing": 3, "times": 1}, 23), (100, {"failing": 3}, 71)],
    ids=str,
)
def test_an_interrupt_anywhere_leaves_whole_events_and_loses_and_doubles_none(batch, fails, stride):
    """Before lines all over a delivery: parts of split events, failing ones, parked ones included."""
    again = {} if "times" in fails else fails
    whole = found(subscribed(filled(memory()), batch=batch, fails=fails).catch_up())
    line, came = 1, True
    while came:
        store = filled(memory())
        came = stopped_before(line, KeyboardInterrupt, subscribed(store, batch=batch, fails=fails))
        must_be_whole(subscribed(store, batch=batch))
        rest = subscribed(store, batch=batch, fails=again)
        assert found(rest.catch_up()) == whole, f"interrupted before line {line}"
        line += stride
    assert line > 500


def memory() -> MemoryStore:
    return MemoryStore(clock=ManualClock(), ids=SeededIds(3))


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_parts_that_were_committed_with_a_failed_attempt_are_not_handled_again_after_a_crash(kind):
    """The second part of a split event fails, and the process dies before the next attempt."""
    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        filled(store)
        steps = subscribed(store, batch=100, fails={"failing": 3}).steps()
        assert any(point == Point("retry", 6) for point in steps)
        steps.close()  # type: ignore[attr-defined]
        rest = subscribed(store, batch=100).catch_up()
        assert rest.df().events.sum() == 12
        assert len(rest.effects()) == 12


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_a_failing_part_takes_nothing_from_the_outbox_that_an_earlier_part_has_put_there(kind):
    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        filled(store)
        mailed.clear()
        rest = subscribed(store, batch=100, fails={"failing": 3, "times": 1}).catch_up()
        assert len(rest.dead_letters) == 0
        assert mailed.count(("c0", -3)) == mailed.count(("c1", 3)) == 1


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_a_catch_up_that_is_stopped_between_two_parts_goes_on_with_the_second(kind):
    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        filled(store)
        mine = subscribed(store, batch=100)
        with mine._turn() as one:
            steps = one.steps(store.position)
            assert any(point == Point("handled", 2) for point in steps)
            steps.close()
        assert mine.position == 1
        assert subscribed(store, batch=100).catch_up().df().events.sum() == 12


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_attempts_that_are_interrupted_while_they_wait_count_in_the_next_run(kind):
    """Ctrl-C in each back-off, however often: there are as many attempts as the policy allows."""
    tries: list[int] = []

    @on(Paid)
    def failing(event):
        tries.append(event.amount)
        raise ValueError("no")

    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        store.append("Account/1", Paid(customer="a", amount=1))
        for number in range(1, 5):
            mine = Subscription(store, failing, retry=RetryPolicy(max_attempts=3))
            mine._sleep = interrupted  # type: ignore[method-assign]
            with suppress(KeyboardInterrupt):
                mine.catch_up()
            assert len(tries) <= 3, number
        assert len(tries) == 3
        assert mine.dead_letters.df().attempts.tolist() == [3]


def interrupted(_: float) -> None:
    """Be interrupted instead of waiting."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_an_attempt_that_is_stopped_before_it_is_made_does_not_count(kind):
    """Whoever stops it in each back-off gets as many attempts as the policy allows, and no fewer."""
    tries: list[int] = []

    @on(Paid)
    def failing(event):
        tries.append(event.amount)
        raise ValueError("no")

    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        store.append("Account/1", Paid(customer="a", amount=1))
        for number in range(1, 4):
            mine = Subscription(store, failing, retry=RetryPolicy(max_attempts=4))
            mine._sleep = lambda _, one=mine: one._halting.set()  # type: ignore[method-assign,misc]
            mine.catch_up()
            assert (len(tries), mine._progress.load().attempts) == (number, number)
        Subscription(store, failing, retry=RetryPolicy(max_attempts=4)).catch_up()
        assert len(tries) == 4
        assert mine.dead_letters.df().attempts.tolist() == [4]


@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_a_careful_attempt_that_is_stopped_before_it_is_made_does_not_count(kind):
    """After a crash each attempt is noted first; one that was only about to be made is not, any more."""
    tries: list[int] = []

    @on(Paid)
    def deadly(event):
        tries.append(event.amount)
        raise SystemExit

    with kind(clock=ManualClock(), ids=SeededIds(3)) as store:
        store.append("Account/1", Paid(customer="a", amount=1))
        with suppress(SystemExit):
            Subscription(store, deadly).catch_up()
        with Subscription(store, deadly)._turn() as one:
            steps = one.steps(store.position)
            assert any(name == "handle" for name, _ in steps)
            assert one.mark.attempts == 2
            steps.close()
            assert one.mark.attempts == 1
        assert tries == [1]


def test_an_interrupt_anywhere_in_a_redrive_leaves_whole_events_and_loses_and_doubles_none():
    def parked() -> MemoryStore:
        store = filled(memory())
        assert len(subscribed(store, fails={"failing": 1}).catch_up().dead_letters) == 6
        return store

    whole = found(redriven(subscribed(parked())))
    line, came = 1, True
    while came:
        store = parked()
        came = stopped_before(line, KeyboardInterrupt, subscribed(store), redriven)
        must_be_whole(subscribed(store))
        assert found(redriven(subscribed(store))) == whole, f"interrupted before line {line}"
        line += 19
    assert line > 300


def redriven(subscription: Subscription) -> Subscription:
    subscription.dead_letters.redrive()
    return subscription
