"""Bugs of designs made by hand: a plain emitter, numbers and times for order, two writes for one fact."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from esim.bug import Case, bug
from esim.bus import Bus
from esim.contract import Store
from esim.faults import Faults
from esim.invariant import Look, always, eventually, no_effect_twice, nothing_lost, sometimes
from esim.mugs import MugOrdered, MugPaid, MugSent, MugTaken, comes_to, happens
from esim.scenario import consume, task
from esim.world import World
from esim.writing import Write

_HAND = "hand-written designs"


@bug(
    _HAND,
    "crash between store and publish",
    faults=Faults(crash=1),
    defence="the log is the only write; who announces it follows the log",
)
def stored_and_not_told(world: World) -> Case:
    """The order is stored, then announced to the others; in between the process dies, and nobody is told."""
    news = world.queue("news")

    @world.service(once_by="customer")
    def post(customer: str) -> None: ...

    def naive(store: Store) -> None:
        store.append("MugOrder/1", MugOrdered(customer="ann"))
        news.publish("ann")

    def mended(store: Store) -> None:
        store.append("MugOrder/1", MugOrdered(customer="ann"))

    def announce(event: MugOrdered) -> None:
        news.publish(event.customer)

    return Case(
        [],
        lambda store: [task(naive, store, name="shop"), consume(news, post, "postman")],
        lambda store: [task(mended, store, name="shop"), announce, consume(news, post, "postman")],
        {
            "who ordered is written to": nothing_lost("post", MugOrdered, by="customer"),
            "and not twice": no_effect_twice("post"),
            "somebody orders": happens(MugOrdered),
        },
    )


@bug(
    _HAND,
    "crash between store and publish",
    faults=Faults(crash=1),
    defence="what is announced is read from the log, so it was stored before",
)
def told_and_not_stored(world: World) -> Case:
    """To be sure that nobody is left out the order is announced first; it is never stored."""
    news = world.queue("news")

    @world.service(once_by="customer")
    def post(customer: str) -> None: ...

    def naive(store: Store) -> None:
        news.publish("ann")
        store.append("MugOrder/1", MugOrdered(customer="ann"))

    def mended(store: Store) -> None:
        store.append("MugOrder/1", MugOrdered(customer="ann"))

    def announce(event: MugOrdered) -> None:
        news.publish(event.customer)

    def is_stored(look: Look) -> bool:
        stored = {one.event.customer for one in look.log}
        return all(call.arguments["customer"] in stored for call in look.calls("post"))

    return Case(
        [],
        lambda store: [task(naive, store, name="shop"), consume(news, post, "postman")],
        lambda store: [task(mended, store, name="shop"), announce, consume(news, post, "postman")],
        {
            "who is written to has an order": eventually(is_stored),
            "and somebody is": sometimes(lambda look: len(look.calls("post")) == 1),
        },
    )


class Emitter:
    """The event emitter that everybody has written once: functions in a list, called in turn."""

    def __init__(self, *listeners: Callable[[MugOrdered], None]) -> None:
        """Call these."""
        self.listeners = listeners

    def emit(self, event: MugOrdered) -> None:
        """Call each listener with an event."""
        for listener in self.listeners:
            listener(event)


@bug(
    _HAND,
    "plain emitter",
    "transient exception n times",
    faults=Faults(error=1),
    defence="each handler is a subscription: its own checkpoint, its own retries",
)
def one_listener_stops_the_others(world: World) -> Case:
    """A plain emitter calls its listeners in turn; the post fails once, and the bill is never written."""

    @world.service(once_by="customer")
    def post(customer: str) -> None: ...

    @world.service(once_by="customer")
    def bill(customer: str) -> None: ...

    def letter(event: MugOrdered) -> None:
        post(event.customer)

    def invoice(event: MugOrdered) -> None:
        bill(event.customer)

    emitter = Emitter(letter, invoice)

    def naive(store: Store) -> None:
        (stored,) = store.append("MugOrder/1", MugOrdered(customer="ann"))
        emitter.emit(stored.event)

    def mended(store: Store) -> None:
        store.append("MugOrder/1", MugOrdered(customer="ann"))

    return Case(
        [],
        lambda store: [task(naive, store, name="shop")],
        lambda store: [task(mended, store, name="shop"), letter, invoice],
        {
            "who ordered is billed": nothing_lost("bill", MugOrdered, by="customer"),
            "and is written to": nothing_lost("post", MugOrdered, by="customer"),
            "somebody orders": happens(MugOrdered),
        },
    )


@bug(
    _HAND,
    "plain emitter",
    "crash before handling",
    "crash between store and publish",
    faults=Faults(crash=1),
    defence="a subscription, whose place in the log is kept, and not a bus, which lives in memory",
)
def forgotten_by_the_bus(world: World) -> Case:
    """A bus in memory hands the order on; the process dies first, and after its restart that is old news."""

    @world.service(once_by="customer")
    def post(customer: str) -> None: ...

    def letter(event: MugOrdered) -> None:
        post(event.customer)

    def shop(store: Store) -> None:
        store.append("MugOrder/1", MugOrdered(customer="ann"))

    def by_bus(store: Store) -> list[Any]:
        Bus(store).subscribe(letter)
        return [task(shop, store)]

    return Case(
        [],
        by_bus,
        lambda store: [task(shop, store), letter],
        {
            "who ordered is written to": nothing_lost("post", MugOrdered, by="customer"),
            "and not twice": no_effect_twice("post"),
            "somebody orders": happens(MugOrdered),
        },
    )


@bug(
    _HAND,
    "number before commit",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="positions are given in the order of commits, so that nothing appears behind a reader",
)
def a_number_before_its_time(world: World) -> Case:
    """Rows are numbered, then written; 2 is written before 1, the reader goes on from 2, and never sees 1."""
    rows, sequence = world.table("rows"), world.memory("sequence", lambda: [0])
    news, sold = world.queue("news"), world.table("sold", {"mugs": 0, "read": 0})

    def by_hand(mugs: int) -> Generator[str]:
        number = sequence.value[0] = sequence.value[0] + 1
        yield f"has number {number}"
        rows[number] = mugs
        news.publish("news")

    def reader(_: str) -> None:
        for number in sorted(number for number in rows if number > sold["read"]):
            sold["mugs"] += rows[number]
            sold["read"] = number

    def in_the_log(store: Store, mugs: int) -> Generator[str]:
        yield "has made up its mind"
        store.append("Shelf/mug", MugTaken(quantity=mugs))

    def follower(event: MugTaken) -> None:
        sold["mugs"] += event.quantity

    def tills(sells: Any, *args: Any) -> list[Any]:
        return [task(sells, *args, 1, name="till 1"), task(sells, *args, 2, name="till 2")]

    return Case(
        [],
        [*tills(by_hand), consume(news, reader)],
        lambda store: [*tills(in_the_log, store), follower],
        {"all that was sold is seen": comes_to(lambda look: look.table("sold")["mugs"], 1 + 2)},
    )


@bug(
    _HAND,
    "timestamps for order",
    "clock skew",
    faults=Faults(preempt=1, skew=1),
    defence="read on from a position; two events have the same time, and no two the same position",
)
def read_on_from_a_time(world: World) -> Case:
    """A reader asks for all that is newer than what it saw last; two mugs are sold in the same moment."""
    news, sold = world.queue("news"), world.table("sold", {"mugs": 0, "read": 0})

    def till(store: Store, mugs: int) -> None:
        store.append("Shelf/mug", MugTaken(quantity=mugs))
        news.publish("news")

    def by(mark: str) -> Any:
        def actors(store: Store) -> list[Any]:
            def reader(_: str) -> None:
                for one in store.read(after=sold["read"]):
                    sold["mugs"] += one.event.quantity
                    sold["read"] = getattr(one, mark)

            tills = [task(till, store, mugs, name=f"till {mugs}") for mugs in (1, 2)]
            return [*tills, consume(news, reader)]

        return actors

    all_seen = comes_to(lambda look: look.table("sold")["mugs"], 1 + 2)
    return Case([], by("recorded_at"), by("position"), {"all that was sold is seen": all_seen})


@bug(
    _HAND,
    "crash between two writes",
    faults=Faults(crash=1),
    defence="what is decided at once is appended at once: all, or nothing",
)
def half_a_decision(world: World) -> Case:
    """To pay and to take the mug is one decision and two appends; the process dies in between."""
    paid, taken = Write("MugOrder/1", MugPaid()), Write("Shelf/1", MugTaken(order="1"))

    def naive(store: Store) -> None:
        store.append_all([paid])
        store.append_all([taken])

    def mended(store: Store) -> None:
        store.append_all([paid, taken])

    both = {
        "both, or neither": always(lambda look: len(look.log) != 1),
        "sometimes both": sometimes(lambda look: len(look.log) == 2),
    }
    return Case([], lambda store: [task(naive, store)], lambda store: [task(mended, store)], both)


@bug(
    _HAND,
    "no expected version",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="each one records what has happened, and the state is folded from both",
)
def saved_over_each_other(world: World) -> Case:
    """Two clerks load the same order, change it, and save it whole; who saves last undoes the other."""
    rows = world.table("rows", {"order 1": {"paid": False, "sent": False}})

    def naive(fact: str) -> Generator[str]:
        order = dict(rows["order 1"])
        yield "has loaded the order"
        rows["order 1"] = {**order, fact: True}

    def mended(store: Store, event: MugPaid | MugSent) -> Generator[str]:
        yield "has made up their mind"
        store.append("MugOrder/1", event)

    def both_known(look: Look) -> bool:
        recorded = {one.type for one in look.log}
        return all(look.table("rows")["order 1"].values()) or recorded == {"MugPaid", "MugSent"}

    return Case(
        [],
        [task(naive, "paid", name="cashier"), task(naive, "sent", name="packer")],
        lambda store: [
            task(mended, store, MugPaid(), name="cashier"),
            task(mended, store, MugSent(), name="packer"),
        ],
        {"the order is paid and sent": eventually(both_known)},
    )
