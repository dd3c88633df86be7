"""The outbox: what is sent when, what a crash costs, and what becomes of effects that cannot be done."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.effects import Effects
from esim.errors import HandlerFailed, InvalidArgument
from esim.event import Event
from esim.memory import MemoryStore
from esim.retry import CircuitBreaker, RetryPolicy
from esim.rows import on
from esim.store import EventStore
from esim.subscription import Subscription, subscriptions

ROOT = Path(__file__).parent.parent


class Paid(Event):
    amount: int


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request) -> Iterator[Store]:
    """A store of five payments in as many streams; of either kind."""
    with request.param(clock=ManualClock(), ids=SeededIds(3)) as opened:
        for number in range(1, 6):
            opened.append(f"Order/{number}", Paid(amount=number))
        yield opened


class World:
    """An outside world that is down, or kills the process, where it is told to."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.tries: list[int] = []
        self.deadly: set[int] = set()
        self.down: set[int] = set()

    def mail(self, amount: int) -> None:
        self.tries.append(amount)
        if amount in self.deadly:
            raise Crash
        if amount in self.down:
            raise ConnectionError(f"no answer for {amount}")
        self.sent.append(amount)


@pytest.fixture
def world() -> World:
    return World()


def mailing(store: Store, world: World, *, attempts: int = 2, **options: Any) -> Subscription:
    """Return a subscription that mails about payments, made anew as by another process."""

    @on(Paid)
    def mails(event: Paid, effects: Effects) -> None:
        if event.amount in options.get("bad", ()):
            raise ValueError("bad")
        effects.call(world.mail, event.amount)

    told = {"outbox": True, "sends": [world.mail], **options}
    told.pop("bad", None)
    return Subscription(store, mails, retry=RetryPolicy(max_attempts=attempts, initial_interval=0), **told)


def statuses(subscription: Subscription) -> list[str]:
    return subscription.effects().status.tolist()


# --- what kills the process --------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 10])
def test_an_effect_that_kills_the_process_has_failed_after_max_attempts_restarts(
    store, world, attempts, batch
):
    world.deadly = {2}
    deaths = 0
    while True:
        mails = mailing(store, world, attempts=attempts, batch=batch)
        try:
            mails.catch_up()
            break
        except Crash:
            deaths += 1
            assert deaths <= attempts
    assert deaths == attempts == world.tries.count(2)
    assert world.sent == [1, 3, 4, 5]
    failed = mails.effects().iloc[1]
    assert (failed.status, failed.attempts) == ("failed", attempts)
    assert failed.cause == f"ProcessDied: the process died while it was sent ({attempts} times)"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_an_effect_that_really_kills_the_process_has_failed_after_max_attempts_restarts(tmp_path):
    script = """
import os, signal, sys
from esim import *
class Paid(Event):
    amount: int
def mail(amount: int):
    if amount == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    print(amount)
def mails(event: Paid, effects: Effects):
    effects.call(mail, event.amount)
with EventStore(sys.argv[1], clock=ManualClock()) as store:
    if not store.position:
        store.append("Order/1", [Paid(amount=number) for number in range(3)])
    mails = Subscription(store, mails, outbox=True, retry=RetryPolicy(max_attempts=2), sends=[mail])
    print(mails.catch_up().effects().status.tolist())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "log.duckdb")]
    told = [subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False) for _ in range(3)]
    assert [one.returncode for one in told[:2]] == [-signal.SIGKILL] * 2
    assert told[2].stdout.split("\n")[-3:-1] == ["2", "['done', 'failed', 'done']"], told[2].stderr


@pytest.mark.parametrize(("attempts", "lost"), [(1, 1), (2, 0), (3, 0)])
def test_a_crash_at_any_point_gives_up_what_was_under_way_at_most_if_it_was_the_last_attempt(
    world, attempts, lost
):
    """Nothing else fails, and nothing is sent twice but that."""
    store = MemoryStore(clock=ManualClock(), ids=SeededIds(3))
    for amount in range(1, 6):
        store.append(f"Order/{amount}", Paid(amount=amount))
    number, reached = 0, True
    while reached:
        number, reached = number + 1, False
        world.sent.clear()
        steps = mailing(store, world, name=f"m{number}", attempts=attempts, batch=10).steps()
        for count, _ in enumerate(steps, 1):
            if count == number:
                steps.close()  # type: ignore[attr-defined]
                reached = True
        rest = mailing(store, world, name=f"m{number}", attempts=attempts, batch=10).catch_up()
        assert len(world.sent) <= 5 + reached
        given_up = statuses(rest).count("failed") + len(rest.dead_letters)
        assert 5 - len(set(world.sent)) <= given_up <= lost * reached
    assert number > 15


def test_attempts_that_failed_before_a_crash_count_after_it(store, world):
    world.down = {1}
    steps = mailing(store, world, attempts=3).steps()
    waits = 0
    for point in steps:
        waits += point.name == "retry effect"
        if waits == 2:
            steps.close()  # type: ignore[attr-defined]
            break
    assert world.tries == [1, 1]
    mails = mailing(store, world, attempts=3).catch_up()
    assert world.tries.count(1) == 3
    assert statuses(mails) == ["failed", *["done"] * 4]


# --- what was handled is sent ------------------------------------------------------------------------------


def test_effects_of_what_was_handled_are_sent_although_the_subscription_stops(store, world):
    with pytest.raises(HandlerFailed, match="position 4"):
        mailing(store, world, bad=(4,), on_exhausted="stop", batch=10).catch_up()
    assert world.sent == [1, 2, 3]


def test_effects_of_what_was_handled_are_sent_although_the_circuit_is_open(store, world):
    mails = mailing(store, world, bad=(4,), breaker=CircuitBreaker(1, 60), batch=10).catch_up()
    assert mails.state == "circuit open"
    assert world.sent == [1, 2, 3]


def test_effects_of_an_earlier_process_are_sent_before_anything_is_handled(store, world):
    steps = mailing(store, world).steps()
    assert any(point.name == "committed" for point in steps)
    steps.close()  # type: ignore[attr-defined]
    with pytest.raises(HandlerFailed):
        mailing(store, world, bad=(1, 2, 3, 4, 5), on_exhausted="stop").catch_up()
    assert world.sent == [1]


@pytest.mark.parametrize("known", [True, False])
def test_what_waits_is_sent_or_told_also_where_the_outbox_is_given_up(store, world, known):
    steps = mailing(store, world).steps()
    assert any(point.name == "committed" for point in steps)
    steps.close()  # type: ignore[attr-defined]
    if known:
        mails = mailing(store, world, outbox=False).catch_up()
        assert statuses(mails) == ["done"] * 5
        assert world.sent == [1, 2, 3, 4, 5]
    else:

        @on(Paid)
        def mails(event): ...

        with pytest.raises(InvalidArgument, match=r"'mail' waits in the outbox.*sends=\[mail\]"):
            Subscription(store, mails, adopt=True).catch_up()


# --- what failed -------------------------------------------------------------------------------------------


def test_failed_effects_are_seen_and_sent_again_once_the_world_is_mended(store, world):
    world.down = {2, 4}
    mails = mailing(store, world).catch_up()
    assert repr(mails) == "<Subscription 'mails' at position 5 of 5: idle, 2 failed effects>"
    assert repr(mails.dead_letters) == (
        "<0 dead letters, and 0 waiting behind them; 2 failed effects, to resend()>"
    )
    assert "2 failed effects" in mails._repr_html_()
    assert subscriptions(store).failed_effects.tolist() == [2]
    world.down = {4}
    told = mailing(store, world).dead_letters.resend()
    assert told.position.tolist() == [2, 4]
    assert told.status.tolist() == ["done", "failed"]
    assert told.cause[1] == "ConnectionError: no answer for 4"
    world.down.clear()
    mails = mailing(store, world)
    assert mails.dead_letters.resend("mail").status.tolist() == ["done"]
    assert sorted(world.sent) == [1, 2, 3, 4, 5]
    assert repr(mails) == "<Subscription 'mails' at position 5 of 5: idle>"
    assert mails.dead_letters.resend().empty


def test_sending_again_names_what_there_is(store, world):
    world.down = {2}
    letters = mailing(store, world).catch_up().dead_letters
    with pytest.raises(InvalidArgument, match="no effect 'mial' has failed; did you mean 'mail'"):
        letters.resend("mial")


def test_a_resend_tries_as_often_as_the_policy_says_and_notes_nothing_of_a_crash(store, world):
    world.down = {2}
    mails = mailing(store, world, attempts=3).catch_up()
    world.tries.clear()
    mails.dead_letters.resend()
    assert world.tries == [2, 2, 2]
    world.deadly = {2}
    with pytest.raises(Crash):
        mails.dead_letters.resend()
    world.deadly, world.down = set(), set()
    assert mails.dead_letters.resend().status.tolist() == ["done"]
