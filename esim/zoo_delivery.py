"""Bugs of delivery: what was done is done again, or never, because a process died or a service failed."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from esim.bug import Case, bug
from esim.contract import Store
from esim.effects import Effects
from esim.envelope import NewEvent, RecordedEvent
from esim.faults import Faults
from esim.invariant import Look, always, eventually, no_effect_twice, nothing_lost
from esim.mugs import Count, MugOrdered, comes_to, counted, orders
from esim.retry import CircuitBreaker, RetryPolicy
from esim.rows import Rows
from esim.scenario import consume, follow, task
from esim.world import World

_ONCE = RetryPolicy(max_attempts=1)


@bug(
    "delivery",
    "crash after effect before checkpoint",
    faults=Faults(crash=1),
    defence="rows and checkpoint in one transaction",
)
def counted_twice(world: World) -> Case:
    """The mugs are taken off the shelf, the process dies before it notes that, and takes them off again."""
    shelf = world.table("shelf", {"mug": 9})

    def naive(event: MugOrdered) -> None:
        shelf["mug"] -= event.quantity

    def mended(event: MugOrdered, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug", number=9)
        rows.put(row.but(number=row.number - event.quantity))

    right = comes_to(lambda look: counted(look, "shelf"), 9 - 1 - 2)
    return Case(orders(1, 2), [naive], [mended], {"each mug is counted once": right})


@bug(
    "delivery",
    "crash after checkpoint before handling",
    faults=Faults(crash=1),
    defence="note it afterwards, and give each letter a key by which the post knows it",
)
def noted_too_early(world: World) -> Case:
    """An order is noted as handled before it is; the process dies in between, and nobody writes to Ann."""

    @world.service(once_by="key")
    def post(customer: str, key: str) -> None: ...

    def letter(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    naive = follow(letter, checkpoint="before_handler")
    mended = follow(letter, checkpoint="after_handler")
    return Case(orders(1, 1), [naive], [mended], _everybody_once())


@bug(
    "delivery",
    "crash before handling",
    faults=Faults(crash=1),
    defence="acknowledge what is done, not what is taken",
)
def acknowledged_when_taken(world: World) -> Case:
    """A worker acknowledges a message as it takes it, and dies with the message in its hands."""
    todo = world.queue("todo")

    @world.service(once_by="key")
    def post(customer: str, key: str) -> None: ...

    def shop() -> None:
        todo.publish("ann")
        todo.publish("bob")

    def worker(customer: str) -> None:
        post(customer, key=f"letter to {customer}")

    everybody = {"everybody is written to": comes_to(_served, ["ann", "bob"])}
    naive = [task(shop, restart=True), consume(todo, worker, ack="before")]
    mended = [task(shop, restart=True), consume(todo, worker, ack="after")]
    return Case([], naive, mended, everybody | {"and nobody twice": no_effect_twice("post")})


@bug(
    "delivery",
    "crash between two writes",
    faults=Faults(crash=1),
    defence="one write: the count and the note in the same row",
)
def two_writes(world: World) -> Case:
    """The order is noted, then the mugs are counted; the process dies between the two, and the note lies."""
    noted, shelf = world.table("noted"), world.table("shelf", {"mug": (9, 0)})

    def naive(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        if recorded.position not in noted:
            noted[recorded.position] = True
            shelf["mug"] = shelf["mug"][0] - event.quantity, 0

    def mended(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        left, seen = shelf["mug"]
        if recorded.position > seen:
            shelf["mug"] = left - event.quantity, recorded.position

    right = comes_to(lambda look: look.table("shelf")["mug"][0], 9 - 1 - 2)
    return Case(orders(1, 2), [naive], [mended], {"each mug is counted once": right})


@bug(
    "delivery",
    "crash in the relay",
    faults=Faults(crash=1, unknown=1),
    defence="the key of the effect goes with it, and the receiver takes each key once",
)
def sent_twice_by_the_relay(world: World) -> Case:
    """An outbox loses nothing; but its relay dies after sending a letter, before it has ticked that off."""

    @world.service
    def post(customer: str) -> None: ...

    @world.service(once_by="key")
    def post_with_key(customer: str, key: str) -> None: ...

    def naive(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    def mended(event: MugOrdered, effects: Effects) -> None:
        effects.call(post_with_key, customer=event.customer)

    everybody = {"everybody is written to": comes_to(_served, ["ann", "bob"])}
    return Case(
        orders(1, 1),
        [follow(naive, outbox=True, sends=[post])],
        [follow(mended, outbox=True, sends=[post_with_key])],
        everybody | {"and nobody twice": no_effect_twice()},
    )


@bug(
    "delivery",
    "commit outcome unknown",
    faults=Faults(unknown=1),
    defence="the event is given its id before the first try; the store takes each id once",
)
def was_it_stored(world: World) -> Case:
    """The answer to an append is lost, so the shop appends again: one click, two orders."""

    def insist(store: Store, order: MugOrdered | NewEvent) -> None:
        try:
            store.append("MugOrder/1", order)
        except TimeoutError:
            store.append("MugOrder/1", order)

    click = NewEvent(MugOrdered(), event_id=UUID("00000000-0000-7000-8000-00000000c11c"))
    return Case(
        [],
        lambda store: [task(insist, store, MugOrdered())],
        lambda store: [task(insist, store, click)],
        {
            "one click is one order": always(lambda look: len(look.log) <= 1),
            "and is not lost": comes_to(lambda look: len(look.log), 1),
        },
    )


@bug(
    "delivery",
    "transient exception n times",
    faults=Faults(error=2),
    defence="let it raise, and have the delivery tried again, a few times, with a pause",
)
def swallowed_error(world: World) -> Case:
    """The post is not reachable for a moment; the handler logs the error, and goes on as if it was done."""

    @world.service(once_by="key")
    def post(customer: str, key: str) -> None: ...

    def naive(event: MugOrdered, effects: Effects) -> None:
        with suppress(ConnectionError):  # it will be in the logs
            effects.call(post, customer=event.customer)

    def mended(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    return Case(orders(1, 1), [naive], [follow(mended, retry=RetryPolicy(max_attempts=3))], _everybody_once())


@bug(
    "delivery",
    "poison",
    faults=Faults(poison=1),
    defence="after a few attempts the event is put among the dead letters, where it can be seen",
)
def stuck_behind_poison(world: World) -> Case:
    """One order cannot be handled, however often it is tried, and everybody behind it waits for ever."""

    @world.service(once_by="key")
    def post(customer: str, key: str) -> None: ...

    def letter(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    twice = RetryPolicy(max_attempts=2)
    naive = follow(letter, retry=twice, on_exhausted="stop")
    mended = follow(letter, retry=twice, on_exhausted="dead_letter")
    return Case(orders(1, 1, 1), [naive], [mended], _everybody_once())


@bug(
    "delivery",
    "poison",
    defence="count the attempts, and drop the message among the failures after the last",
)
def comes_back_for_ever(world: World) -> Case:
    """A message that cannot be handled is put back to the end of the queue, to be tried later: for ever."""
    todo, bills = world.queue("todo"), world.table("bills")

    def shop() -> None:
        todo.publish(0)  # somebody ordered no mugs
        todo.publish(3)

    def each(mugs: int) -> None:
        bills[mugs] = 60 // mugs

    def naive(mugs: int) -> None:
        try:
            each(mugs)
        except ZeroDivisionError:
            todo.publish(mugs)

    billed = {"the others are billed": comes_to(lambda look: look.table("bills")[3], 20)}
    return Case([], [task(shop), consume(todo, naive)], [task(shop), consume(todo, each)], billed)


@bug(
    "delivery",
    "downstream down for long",
    faults=Faults(outage=1),
    defence="a circuit breaker: what is down is not the event's fault, so wait, and give up none",
)
def given_up_in_an_outage(world: World) -> Case:
    """The post is closed for six calls; three attempts are soon used up, and healthy orders are given up."""

    @world.service(once_by="key", outage=6)
    def post(customer: str, key: str) -> None: ...

    def letter(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    naive = follow(letter, retry=RetryPolicy(max_attempts=3))
    mended = follow(letter, retry=_ONCE, breaker=CircuitBreaker(failures=1, cooldown=60))
    everybody = {"everybody is written to": comes_to(_served, ["ann", "bob"])}
    return Case(orders(1, 1), [naive], [mended], everybody)


@bug(
    "delivery",
    "duplicate",
    faults=Faults(duplicate=2),
    defence="an inbox: the ids of handled events are kept, and known ones passed over",
)
def welcomed_twice(world: World) -> Case:
    """Delivery is at least once, and the handler adds a bonus each time that it hears of an order."""
    points = world.table("points", {"ann": 0})

    def bonus(event: MugOrdered) -> None:
        points[event.customer] += event.quantity

    right = {"a point for each mug": comes_to(lambda look: look.table("points")["ann"], 1 + 2)}
    return Case(orders(1, 2, customer="ann"), [bonus], [follow(bonus, inbox=True)], right)


@bug(
    "delivery",
    "duplicate",
    faults=Faults(duplicate=1),
    defence="an event is known by its id, never by what it says",
)
def equal_is_not_the_same(world: World) -> Case:
    """To be safe from duplicates, equal orders are passed over; Ann orders one mug, and then one more."""
    seen = world.table("seen")

    def by_content(event: MugOrdered) -> None:
        seen[event.customer, event.quantity] = event.quantity

    def by_id(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        seen[recorded.event_id] = event.quantity

    right = {"two mugs are sold": comes_to(lambda look: sum(look.table("seen").values()), 1 + 1)}
    return Case(orders(1, 1, customer="ann"), [by_content], [by_id], right)


@bug(
    "delivery",
    "duplicate",
    "crash after effect before checkpoint",
    faults=Faults(crash=1, duplicate=1),
    defence="what is remembered is written down, in the same write as what is done",
)
def remembered_in_memory(world: World) -> Case:
    """Handled messages are remembered in a set, and the set is in the memory of a process that dies."""
    todo, points = world.queue("todo"), world.table("points")
    seen = world.memory("seen", set, of="worker")

    def shop() -> None:
        todo.publish(("order 1", 3))

    def naive(message: tuple[str, int]) -> None:
        if message[0] not in seen.value:
            seen.value.add(message[0])
            points["ann"] = points.get("ann", 0) + message[1]

    def mended(message: tuple[str, int]) -> None:
        points[message[0]] = message[1]

    return Case(
        [],
        [task(shop, restart=True), consume(todo, naive, "worker")],
        [task(shop, restart=True), consume(todo, mended, "worker")],
        {"three points for ann": eventually(lambda look: sum(look.table("points").values()) == 3)},
    )


@bug(
    "delivery",
    "crash after effect before checkpoint",
    faults=Faults(crash=1),
    defence="the key is that of the event and the effect: the same at each attempt",
)
def another_key_each_time(world: World) -> Case:
    """The card service honours idempotency keys, and the shop makes a new one for each attempt."""
    tries = world.table("tries", {"number": 0})

    @world.service(once_by="key")
    def charge(customer: str, key: str) -> None: ...

    def naive(event: MugOrdered) -> None:
        tries["number"] += 1
        charge(event.customer, key=f"payment {tries['number']}")

    def mended(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        tries["number"] += 1
        charge(event.customer, key=f"payment of {recorded.event_id}")

    pays_once = {
        "nobody pays twice": no_effect_twice("charge", by=["customer"]),
        "and everybody pays": comes_to(_served, ["ann", "bob"]),
    }
    return Case(orders(1, 1), [naive], [mended], pays_once)


def _served(look: Look) -> list[str]:
    return sorted({call.arguments["customer"] for call in look.calls()})


def _everybody_once() -> dict[str, object]:
    return {
        "everybody is written to, or known": nothing_lost("post", MugOrdered, by="customer"),
        "and nobody twice": no_effect_twice("post"),
    }
