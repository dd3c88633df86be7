"""Bugs of order and of concurrency: what comes late, overtakes, or happens at the same time."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from esim.bug import Case, bug
from esim.contract import Store
from esim.effects import Effects
from esim.envelope import NewEvent, RecordedEvent
from esim.errors import ConditionFailed, Conflict
from esim.faults import Faults
from esim.invariant import Look, always, eventually, no_effect_twice, nothing_lost, sometimes
from esim.mugs import MugOrdered, MugPaid, MugPriced, MugSent, MugTaken, NameTaken, orders
from esim.query import Condition, Query
from esim.retry import RetryPolicy
from esim.scenario import consume, follow, task
from esim.world import World

# --- order -------------------------------------------------------------------------------------------------


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
    right = {"the price is the last one": eventually(lambda look: look.table("price")["mug"][0] == 7)}  # noqa: PLR2004
    return Case(history, [publisher, consume(news, naive)], [publisher, consume(news, mended)], right)


@bug(
    "order",
    "reordering across streams",
    faults=Faults(reorder=1, duplicate=1),
    defence="each fact has its own place, and the answer is worked out from those that are there",
)
def paid_before_it_was_ordered(world: World) -> Case:
    """The payment comes from another system, and before the order that it is for; it is dropped as unknown."""
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

    paid = {
        "what is paid is known as paid": eventually(lambda look: look.table("status").get("o-1") == "paid")
    }
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

    right = {"each mug is counted": eventually(lambda look: look.table("sold")["mugs"][0] == 1 + 2)}
    return Case(orders(1, 2), [announce, consume(news, naive)], reads_the_log, right)


@bug(
    "order",
    "clock skew",
    "timestamps for order",
    faults=Faults(skew=1),
    defence="the position in the log is the order; a time is only something that an event says",
)
def the_slow_clock_wins(world: World) -> Case:
    """Two tills set a price; the later one's clock is 90 minutes slow, so the earlier price is kept as newer."""
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


# --- concurrency -------------------------------------------------------------------------------------------


@bug(
    "concurrency",
    "concurrent writers",
    "no expected version",
    faults=Faults(preempt=2),
    defence="append with the version that was looked at; on a conflict, look again",
)
def two_look_one_mug(world: World) -> Case:  # noqa: ARG001 - it happens in the log
    """One mug is left; Ann and Bob look, both see it, and both take it."""

    def taken(store: Store) -> int:
        return len(list(store.read("Shelf/mug")))

    def naive(store: Store) -> Generator[str]:
        free = not taken(store)
        yield "has looked"
        if free:
            store.append("Shelf/mug", MugTaken())

    def mended(store: Store) -> Generator[str]:
        while True:
            version, free = store.version("Shelf/mug"), not taken(store)
            yield "has looked"
            if not free:
                return
            try:
                store.append("Shelf/mug", MugTaken(), expected=version or "no_stream")
            except Conflict:
                continue
            return

    def both(store: Store, buys: Any) -> list[Any]:
        return [task(buys, store, name="ann"), task(buys, store, name="bob")]

    return Case(
        [],
        lambda store: both(store, naive),
        lambda store: both(store, mended),
        {
            "one mug is taken once": always(lambda look: len(look.log) <= 1),
            "and is taken": eventually(lambda look: len(look.log) == 1),
        },
    )


@bug(
    "concurrency",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="decide from the log, not from a read model, which may be behind",
)
def decided_on_yesterday(world: World) -> Case:
    """Whether a mug is left is looked up in a read model that has not seen the last order yet."""
    shelf = world.table("shelf", {"left": 1})

    def count(event: MugTaken) -> None:
        shelf["left"] = 1 - event.quantity

    def naive(store: Store) -> None:
        if shelf["left"]:
            store.append("Shelf/mug", MugTaken())

    def mended(store: Store) -> None:
        version = store.version("Shelf/mug")
        if not version:
            store.append("Shelf/mug", MugTaken(), expected="no_stream")

    def all_of(store: Store, buys: Any) -> list[Any]:
        return [count, task(buys, store, name="ann"), task(buys, store, name="bob")]

    once = {"one mug is taken once": always(lambda look: len(look.log) <= 1)}
    return Case([], lambda store: all_of(store, naive), lambda store: all_of(store, mended), once)


@bug(
    "concurrency",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="an append condition on the tag of the name, checked in the same transaction",
)
def one_name_for_two(world: World) -> Case:  # noqa: ARG001 - it happens in the log
    """Each account is a stream of its own, so no version guards that the name `ann` is given only once."""
    named_ann = Query.of(NameTaken, "name:ann")

    def naive(store: Store, account: str) -> Generator[str]:
        free = not list(store.read(query=named_ann))
        yield "has looked"
        if free:
            store.append(account, NameTaken(name="ann"), expected="no_stream")

    def mended(store: Store, account: str) -> Generator[str]:
        seen, free = store.position, not list(store.read(query=named_ann))
        yield "has looked"
        if free:
            try:
                store.append(account, NameTaken(name="ann"), condition=Condition(named_ann, after=seen))
            except ConditionFailed:
                yield "asks for another name"

    def both(store: Store, join: Any) -> list[Any]:
        return [task(join, store, f"Account/{n}", name=f"guest {n}") for n in (1, 2)]

    once = {"a name is one account's": always(lambda look: len(look.log) <= 1)}
    return Case([], lambda store: both(store, naive), lambda store: both(store, mended), once)


@bug(
    "concurrency",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="nothing is awaited between reading and writing: the write is one step",
)
def lost_at_an_await(world: World) -> Case:
    """A handler reads a count, awaits something, and writes the count plus one; another wrote in between."""
    todo, sold = world.queue("todo"), world.table("sold", {"mugs": 0})

    async def asks_the_tax_office() -> None:
        import asyncio

        await asyncio.sleep(0)

    def shop() -> None:
        todo.publish("order 1")
        todo.publish("order 2")

    async def naive(_: str) -> None:
        before = sold["mugs"]
        await asks_the_tax_office()
        sold["mugs"] = before + 1

    async def mended(_: str) -> None:
        await asks_the_tax_office()
        sold["mugs"] += 1

    def two(worker: Any) -> list[Any]:
        return [task(shop), consume(todo, worker, "worker 1"), consume(todo, worker, "worker 2")]

    right = {"both are counted": eventually(lambda look: look.table("sold")["mugs"] == 1 + 1)}
    return Case([], two(naive), two(mended), right)


@bug(
    "concurrency",
    "two consumers of one subscription",
    faults=Faults(preempt=2),
    defence="each of the two has a share of the streams, and a checkpoint of its own",
)
def two_with_one_cursor(world: World) -> Case:
    """The worker was started twice by mistake; both read the same cursor, and write to the same customer."""
    cursor = world.table("cursor", {"at": 0})

    @world.service
    def post(customer: str) -> None: ...

    def naive(store: Store) -> Generator[str]:
        while (one := store.read(after=cursor["at"]).first()) is not None:
            yield f"has read {one.position}"
            post(one.event.customer)
            cursor["at"] = one.position

    def mended(event: MugOrdered) -> None:
        post(event.customer)

    return Case(
        orders(1, 1, 1),
        lambda store: [task(naive, store, name="worker 1"), task(naive, store, name="worker 2")],
        [follow(mended, f"worker {n}", partition=(n - 1, 2)) for n in (1, 2)],
        {
            "nobody is written to twice": no_effect_twice("post"),
            "and everybody is": nothing_lost("post", MugOrdered, by="customer"),
        },
    )


@bug(
    "concurrency",
    "two consumers of one subscription",
    "reordering within a stream",
    faults=Faults(preempt=2),
    defence="a queue for each share of the streams: what belongs together has one consumer",
)
def competing_for_a_stream(world: World) -> Case:
    """Two workers share a queue to be faster: one takes the old price, the other the new one, and wins."""
    news, price = world.queue("news"), world.table("price")
    shares = {"mug": news, "cup": world.queue("news of cups")}

    def shop(queues: dict[str, Any]) -> None:
        for what, amount in (("mug", 5), ("mug", 7), ("cup", 3)):
            queues[what].publish((what, amount))

    def worker(message: tuple[str, int]) -> None:
        price[message[0]] = message[1]

    naive = [
        task(shop, {"mug": news, "cup": news}),
        consume(news, worker, "worker 1"),
        consume(news, worker, "worker 2"),
    ]
    mended = [
        task(shop, shares),
        consume(shares["mug"], worker, "worker 1"),
        consume(shares["cup"], worker, "worker 2"),
    ]
    right = {
        "prices are the last ones": eventually(lambda look: dict(look.table("price")) == {"mug": 7, "cup": 3})
    }
    return Case([], naive, mended, right)


@bug(
    "concurrency",
    "timeout with a late finisher",
    faults=Faults(late=1, preempt=1),
    defence="a fencing number goes with each write, and the table refuses an older one",
)
def the_late_finisher(world: World) -> Case:
    """A worker is taken for dead and another does its work, and the next; then the first one wakes up."""
    news, price = world.queue("news"), world.table("price", {"mug": (0, 0)})

    def shop() -> None:
        news.publish((1, 5))
        news.publish((2, 7))

    def naive(message: tuple[int, int]) -> None:
        price["mug"] = message[1], 0

    def mended(message: tuple[int, int]) -> None:
        number, amount = message
        if number > price["mug"][1]:
            price["mug"] = amount, number

    def two(worker: Any) -> list[Any]:
        return [task(shop), consume(news, worker, "worker 1"), consume(news, worker, "worker 2")]

    right = {"the price is the last one": eventually(lambda look: look.table("price")["mug"][0] == 7)}  # noqa: PLR2004
    return Case([], two(naive), two(mended), right)
