"""Bugs of order: what comes late, overtakes, or never comes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from esim.bug import Case, bug
from esim.contract import Store
from esim.effects import Effects
from esim.envelope import NewEvent, RecordedEvent
from esim.faults import Faults
from esim.invariant import Look, always, eventually, sometimes
from esim.mugs import MugOrdered, MugPriced, MugSent, comes_to, orders
from esim.retry import RetryPolicy
from esim.scenario import consume, follow, task
from esim.world import World


@bug(
    "order",
    "later event applied past a dead one",
    faults=Faults(poison=1),
    defence="later events of a stream wait behind a dead one; other streams flow",
)
def overtaken_by_its_future(world: World) -> Case:
    """An order cannot be booked and is skipped; its next event is handled, and an unbooked mug is sent."""

    @world.service(once_by="key")
    def book(order: str, key: str) -> None: ...

    @world.service(once_by="key")
    def send(order: str, key: str) -> None: ...

    def warehouse(event: MugOrdered | MugSent, recorded: RecordedEvent[Any], effects: Effects) -> None:
        effects.call(book if isinstance(event, MugOrdered) else send, order=recorded.id)

    def booked_before(look: Look) -> bool:
        booked = {call.arguments["order"] for call in look.calls("book")}
        return all(call.arguments["order"] in booked for call in look.calls("send"))

    history = [*orders(1, 1), ("MugOrder/1", MugSent()), ("MugOrder/2", MugSent())]
    twice = RetryPolicy(max_attempts=2)
    naive = follow(warehouse, retry=twice, on_exhausted="skip")
    mended = follow(warehouse, retry=twice, on_exhausted="dead_letter")
    sent = sometimes(lambda look: len(look.calls("send")) == 1)
    return Case(history, [naive], [mended], {"sent is booked": always(booked_before), "one is sent": sent})


@bug(
    "order",
    "reordering within a stream",
    faults=Faults(reorder=1, duplicate=1),
    defence="the version of the stream is kept with the value, and what is older is passed over",
)
def last_to_arrive_wins(world: World) -> Case:
    """The price goes to 5, then to 7; the messages change places, and the old price stays for ever."""
    news, price = world.queue("news"), world.table("price", {"mug": (0, 0)})

    def naive(recorded: RecordedEvent[MugPriced]) -> None:
        price["mug"] = recorded.event.amount, 0

    def mended(recorded: RecordedEvent[MugPriced]) -> None:
        if recorded.version > price["mug"][1]:
            price["mug"] = recorded.event.amount, recorded.version

    def publisher(recorded: RecordedEvent[MugPriced]) -> None:
        news.publish(recorded)

    history = [("Price/mug", MugPriced(amount=amount)) for amount in (5, 7)]
    right = {"the price is the last one": comes_to(lambda look: look.table("price")["mug"][0], 7)}
    return Case(history, [publisher, consume(news, naive)], [publisher, consume(news, mended)], right)


@bug(
    "order",
    "reordering across streams",
    faults=Faults(reorder=1, duplicate=1),
    defence="each fact has its own place, and the answer is worked out from those that are there",
)
def paid_before_it_was_ordered(world: World) -> Case:
    """The payment overtakes the order that it is for, and is dropped, as nobody knows such an order."""
    news, status, facts = world.queue("news"), world.table("status"), world.table("facts")

    def shop() -> None:
        news.publish(("o-1", "ordered"))
        news.publish(("o-1", "paid"))

    def naive(message: tuple[str, str]) -> None:
        order, what = message
        if what == "ordered":
            status.setdefault(order, "open")
        elif order in status:
            status[order] = "paid"

    def mended(message: tuple[str, str]) -> None:
        facts[message] = True
        order, _ = message
        if {(order, "ordered"), (order, "paid")} <= set(facts):
            status[order] = "paid"

    paid = {"what is paid is known as paid": comes_to(lambda look: look.table("status").get("o-1"), "paid")}
    return Case([], [task(shop), consume(news, naive)], [task(shop), consume(news, mended)], paid)


@bug(
    "order",
    "lost message",
    faults=Faults(lost=2),
    defence="a message is only a hint that there is news; what is new is read from the log",
)
def the_message_that_never_came(world: World) -> Case:
    """What was ordered is announced by messages, one is lost, and the sum is wrong without a trace."""
    news, sold = world.queue("news"), world.table("sold", {"mugs": (0, 0)})

    def announce(recorded: RecordedEvent[MugOrdered]) -> None:
        news.publish(recorded)

    def naive(recorded: RecordedEvent[MugOrdered]) -> None:
        sold["mugs"] = sold["mugs"][0] + recorded.event.quantity, 0

    def reads_the_log(store: Store) -> Any:
        def mended(_: object = None) -> None:
            for one in store.read(type=MugOrdered, after=sold["mugs"][1]):
                sold["mugs"] = sold["mugs"][0] + one.event.quantity, one.position

        def every_hour() -> Generator[str]:
            yield "waits an hour"
            mended()

        return [announce, consume(news, mended, "mended"), task(every_hour)]

    right = {"each mug is counted": comes_to(lambda look: look.table("sold")["mugs"][0], 1 + 2)}
    return Case(orders(1, 2), [announce, consume(news, naive)], reads_the_log, right)


@bug(
    "order",
    "clock skew",
    "timestamps for order",
    faults=Faults(skew=1),
    defence="the position in the log is the order; a time is only something that an event says",
)
def the_slow_clock_wins(world: World) -> Case:
    """Two tills set a price; the clock of the later one is slow, so the earlier price counts as newer."""
    price = world.table("price", {"mug": (0, None)})

    def till(store: Store, amount: int) -> None:
        store.append("Price/mug", NewEvent(MugPriced(amount=amount), occurred_at=store.clock.now()))

    def naive(event: MugPriced, recorded: RecordedEvent[MugPriced]) -> None:
        last = price["mug"][1]
        if last is None or recorded.occurred_at >= last:
            price["mug"] = event.amount, recorded.occurred_at

    def mended(event: MugPriced, recorded: RecordedEvent[MugPriced]) -> None:
        last = price["mug"][1]
        if last is None or recorded.position > last:
            price["mug"] = event.amount, recorded.position

    def is_the_last(look: Look) -> bool:
        return bool(look.table("price")["mug"][0] == look.log[-1].event.amount)

    def both(store: Store, handler: Any) -> list[Any]:
        return [task(till, store, 5, name="till 1"), task(till, store, 7, name="till 2"), handler]

    return Case(
        [],
        lambda store: both(store, naive),
        lambda store: both(store, mended),
        {"the price is the last one": eventually(is_the_last)},
    )
