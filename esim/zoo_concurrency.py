"""Bugs of concurrency: two look, both decide, and each is right but for the other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from esim.bug import Case, bug
from esim.contract import Store
from esim.errors import ConditionFailed, Conflict
from esim.faults import Faults
from esim.invariant import always, no_effect_twice, nothing_lost
from esim.mugs import MugOrdered, MugTaken, NameTaken, comes_to, orders
from esim.query import Condition, Query
from esim.scenario import consume, follow, task
from esim.world import World


@bug(
    "concurrency",
    "concurrent writers",
    "no expected version",
    faults=Faults(preempt=2),
    defence="append with the version that was looked at; on a conflict, look again",
)
def two_look_at_one_mug(world: World) -> Case:
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
            "and is taken": comes_to(lambda look: len(look.log), 1),
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

    once = {
        "one mug is taken once": always(lambda look: len(look.log) <= 1),
        "and is taken": comes_to(lambda look: len(look.log), 1),
    }
    return Case([], lambda store: all_of(store, naive), lambda store: all_of(store, mended), once)


@bug(
    "concurrency",
    "concurrent writers",
    faults=Faults(preempt=2),
    defence="an append condition on the tag of the name, checked in the same transaction",
)
def one_name_for_two(world: World) -> Case:
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

    once = {
        "a name is one account's": always(lambda look: len(look.log) <= 1),
        "and is somebody's": comes_to(lambda look: len(look.log), 1),
    }
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

    right = {"both are counted": comes_to(lambda look: look.table("sold")["mugs"], 1 + 1)}
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
        "prices are the last ones": comes_to(lambda look: dict(look.table("price")), {"mug": 7, "cup": 3})
    }
    return Case([], naive, mended, right)


@bug(
    "concurrency",
    "timeout with a late finisher",
    faults=Faults(late=1, preempt=1),
    defence="a fencing number goes with each write, and the table refuses an older one",
)
def the_late_finisher(world: World) -> Case:
    """A worker is taken for dead, another does its work, the manager corrects it; then the first wakes up."""
    jobs, done = world.queue("jobs"), world.queue("done")
    price, corrected = world.table("price", {"mug": (0, 0)}), world.table("corrected")

    def shop() -> None:
        jobs.publish((1, 5))

    def manager(_: str) -> None:
        if "mug" not in corrected:
            corrected["mug"] = True
            price["mug"] = 7, 2

    def naive(job: tuple[int, int]) -> None:
        price["mug"] = job[1], job[0]
        done.publish("a price is set")

    def mended(job: tuple[int, int]) -> None:
        number, amount = job
        if number >= price["mug"][1]:
            price["mug"] = amount, number
        done.publish("a price is set")

    def all_of(worker: Any) -> list[Any]:
        workers = [consume(jobs, worker, name) for name in ("worker 1", "worker 2")]
        return [task(shop), consume(done, manager), *workers]

    right = {"the correction stays": comes_to(lambda look: look.table("price")["mug"][0], 7)}
    return Case([], all_of(naive), all_of(mended), right)
