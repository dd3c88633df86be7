"""Effects: by which key each is known, which function does it, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.effects import Effects
from esim.errors import InvalidArgument
from esim.event import Event
from esim.memory import MemoryStore
from esim.retry import RetryPolicy
from esim.rows import on
from esim.spec import called, given
from esim.store import EventStore
from esim.subscription import Subscription

ONCE = RetryPolicy(max_attempts=1)


class Placed(Event):
    order: str


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request) -> Iterator[Store]:
    """A store of one order; of either kind."""
    with request.param(clock=ManualClock(), ids=SeededIds(3)) as opened:
        opened.append("Order/o-1", Placed(order="o-1"))
        yield opened


sent: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    """Begin with an outside world that has seen nothing."""
    sent.clear()


def mail(order: str) -> None:
    sent.append(("mail", order))


def stock(order: str) -> None:
    sent.append(("stock", order))


async def post(order: str) -> str:
    await asyncio.sleep(0)
    sent.append(("post", order))
    return f"posted {order}"


# --- keys --------------------------------------------------------------------------------------------------


def test_a_key_names_the_event_the_function_and_which_of_its_calls_it_is(store):
    @on(Placed)
    def handler(event, effects):
        for function in (mail, stock, mail):
            effects.call(function, event.order)

    ledger = Subscription(store, handler).catch_up().effects()
    first = store.read().first().event_id
    assert ledger.key.tolist() == [f"{first}:mail:1", f"{first}:stock:1", f"{first}:mail:2"]


def test_a_fix_may_put_its_effects_in_another_order(store):
    """What was done before the failure is not done again, and what was not is."""
    broken = [True]

    @on(Placed)
    def handler(event, effects):
        if broken:
            effects.call(mail, event.order)
            raise ValueError("no")
        effects.call(stock, event.order)
        effects.call(mail, event.order)

    mine = Subscription(store, handler, retry=ONCE).catch_up()
    broken.clear()
    assert mine.dead_letters.redrive().handled.tolist() == [True]
    assert sent == [("mail", "o-1"), ("stock", "o-1")]


def test_an_outbox_keeps_the_order_of_the_calls_whatever_their_functions_are_called(store):
    @on(Placed)
    def handler(event, effects):
        for number in range(12):
            effects.call((stock, mail)[number % 2], str(number))

    mine = Subscription(store, handler, outbox=True).catch_up()
    assert [order for _, order in sent] == [str(number) for number in range(12)]
    assert mine.effects().effect.tolist() == ["stock", "mail"] * 6


# --- functions ---------------------------------------------------------------------------------------------


def elsewhere(name: str, module: str) -> Any:
    """Return a function of that name from another module."""
    made = ModuleType(module)
    exec(f"def {name}(order): made.append(order)", made.__dict__)
    made.__dict__["made"] = []
    return getattr(made, name)


class Letters:
    def send(self, text: str) -> None:
        sent.append(("letter", id(self), text))


class Texts:
    def send(self, text: str) -> None:
        sent.append(("text", text))


@pytest.mark.parametrize("outbox", [False, True])
@pytest.mark.parametrize("other", [Texts().send, elsewhere("send", "shop.mails")])
def test_two_functions_of_one_name_are_told_apart_by_an_error(store, outbox, other):
    @on(Placed)
    def handler(event, effects):
        effects.call(Letters().send, "by letter")
        effects.call(other, "by text")

    letters = Subscription(store, handler, outbox=outbox, retry=ONCE).catch_up().dead_letters.df()
    assert "two functions are called 'send'" in letters.cause_message[0]
    assert f"{other.__module__}.{other.__qualname__}" in letters.cause_message[0]


def test_two_functions_of_one_name_are_told_among_those_that_a_relay_is_given(store):
    with pytest.raises(InvalidArgument, match=r"two functions are called 'send'.*Letters\.send.*Texts\.send"):
        Subscription(store, plain, sends=[Letters().send, Texts().send])

    @on(Placed)
    def handler(event, effects):
        effects.call(Texts().send, "by text")

    mine = Subscription(store, handler, outbox=True, sends=[Letters().send]).catch_up()
    assert "two functions are called 'send'" in mine.dead_letters.df().cause_message[0]


def test_the_method_of_two_objects_cannot_wait_for_both_in_an_outbox(store):
    one, other = Letters(), Letters()

    @on(Placed)
    def handler(event, effects):
        effects.call(one.send, "a")
        effects.call(other.send, "b")

    boxed = Subscription(store, handler, "boxed", outbox=True).catch_up()
    assert "'send' of two objects" in boxed.dead_letters.df().cause_message[0]
    Subscription(store, handler, "direct").catch_up()
    assert [(whose, text) for _, whose, text in sent] == [(id(one), "a"), (id(other), "b")]


def test_a_function_whose_cell_was_run_again_takes_the_place_of_the_former(store):
    def made(number: int) -> Any:
        def note(order: str) -> None:
            sent.append((number, order))

        return note

    latest = [made(1)]

    @on(Placed)
    def handler(event, effects):
        effects.call(latest[0], event.order)

    mine = Subscription(store, handler, outbox=True).catch_up()
    latest[0] = made(2)
    store.append("Order/o-2", Placed(order="o-2"))
    mine.catch_up()
    assert sent == [(1, "o-1"), (2, "o-2")]


def spread(channel: str, *people: str, **fields: int) -> None:
    sent.append((channel, people, fields))


def placed_first(order: str, /, total: int = 0, *, urgent: bool = False) -> None:
    sent.append((order, total, urgent))


def starred(order: str, *people: str, key: str = "") -> None:
    sent.append((order, people, bool(key)))


@pytest.mark.parametrize("outbox", [False, True])
def test_whatever_parameters_a_function_has_an_outbox_calls_it_as_the_handler_did(store, outbox):
    @on(Placed)
    def handler(event, effects):
        effects.call(spread, "#ops", total=5)
        effects.call(spread, "#ops", "ann", "bob", total=5, count=2)
        effects.call(placed_first, event.order)
        effects.call(placed_first, event.order, 3, urgent=True)
        effects.call(starred, event.order, "ann")

    mine = Subscription(store, handler, outbox=outbox).catch_up()
    assert sent == [
        ("#ops", (), {"total": 5}),
        ("#ops", ("ann", "bob"), {"total": 5, "count": 2}),
        ("o-1", 0, False),
        ("o-1", 3, True),
        ("o-1", ("ann",), True),
    ]
    assert mine.effects().status.tolist() == ["done"] * 5


def handler_of_stars(event: Placed, effects: Effects) -> None:
    """Ask for a call with a star and with names of its own."""
    effects.call(spread, "#ops", "ann", total=5)


def test_a_call_with_stars_is_written_as_it_would_be_made():
    held = given().when(handler_of_stars, Placed(order="o-1")).then(called(spread, "#ops", "ann", total=5))
    assert "called(spread, '#ops', 'ann', total=5)" in repr(held)


def test_an_effect_that_its_function_takes_no_more_has_failed(store):
    def note(order: str, text: str) -> None: ...

    former = note

    def note(order: str) -> None:
        sent.append((order,))

    @on(Placed)
    def handler(event, effects):
        effects.call(former, event.order, "a")

    mine = Subscription(store, handler, outbox=True)
    steps = mine.steps()
    assert any(point.name == "committed" for point in steps)
    steps.close()  # type: ignore[attr-defined]
    ledger = Subscription(store, handler, outbox=True, sends=[note]).catch_up().effects()
    assert ledger.status.tolist() == ["failed"]
    assert ledger.cause[0] == "TypeError: note() takes no 'text'"
    assert sent == []


# --- async -------------------------------------------------------------------------------------------------


@on(Placed)
def plain(event: Placed, effects: Effects) -> None:
    sent.append(effects.call(post, event.order))


def test_an_async_effect_of_a_plain_handler_is_done_before_its_call_returns(store):
    async def in_a_notebook() -> Any:
        return Subscription(store, plain).catch_up().effects()

    with ThreadPoolExecutor(1) as other:  # this thread may have a loop of the browser tests
        ledger = other.submit(asyncio.run, in_a_notebook()).result()
    assert sent == [("post", "o-1"), "posted o-1"]
    assert ledger.status.tolist() == ["done"]


def test_an_async_effect_that_nobody_awaits_is_told_and_is_not_on_the_ledger(store):
    @on(Placed)
    async def forgetful(event, effects):
        effects.call(post, event.order)

    mine = Subscription(store, forgetful).catch_up()
    letters = mine.dead_letters.df()
    assert "nobody awaited it: write await effects.call(post, …)" in letters.cause_message[0]
    assert letters.attempts[0] == 1
    assert sent == []
    assert mine.effects().empty


def test_an_async_effect_can_be_awaited_also_where_it_is_not_done(store):
    """At a further attempt, on the ledger, gated by a replay, in the outbox, in a specification."""
    failing = [True]
    gave: list[Any] = []

    @on(Placed)
    async def handler(event, effects):
        gave.append(await effects.call(post, event.order))
        if failing:
            failing.pop()
            raise ValueError("after the effect")

    mine = Subscription(store, handler).catch_up()
    assert gave == ["posted o-1"] * 2
    mine.replay()
    Subscription(store, handler, "boxed", outbox=True).catch_up()
    handler.__dict__["handles"] = (Placed,)
    given().when(handler, Placed(order="o-2")).then(called(post, "o-2"))
    assert gave == ["posted o-1", "posted o-1", None, None, None]
    assert sent == [("post", "o-1")] * 2
