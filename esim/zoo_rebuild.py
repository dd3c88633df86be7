"""Bugs of rebuilding and of evolution: the log is read once more, by other code than at first."""

from __future__ import annotations

from typing import Any

from esim.bug import Case, bug, subscription_of
from esim.contract import Store
from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.event import Event
from esim.faults import Faults
from esim.invariant import Look, always, eventually, no_effect_twice, nothing_lost
from esim.mugs import Count, MugOrdered, comes_to, counted, orders, written
from esim.retry import RetryPolicy
from esim.rows import Rows
from esim.scenario import follow, task
from esim.shapes import Payload
from esim.world import World

_ONCE = RetryPolicy(max_attempts=1)


@bug(
    "rebuild and evolution",
    "replay with side effects",
    faults=Faults(error=2),
    defence="effects go by a ledger, and are gated while events are replayed",
)
def letters_from_the_past(world: World) -> Case:
    """The subscription is replayed to fill a new column, and everybody is written to once more."""

    @world.service
    def post(customer: str) -> None: ...

    def naive(event: MugOrdered) -> None:
        post(event.customer)

    def mended(event: MugOrdered, effects: Effects) -> None:
        effects.call(post, customer=event.customer)

    def replayed(handler: Any) -> Any:
        def again(store: Store) -> None:
            subscription_of(store, "letters").reset()

        return lambda store: [follow(handler, "letters"), task(again, store)]

    return Case(
        orders(1, 1),
        replayed(naive),
        replayed(mended),
        {
            "everybody is written to": nothing_lost("post", MugOrdered, by="customer"),
            "and nobody twice": no_effect_twice("post"),
        },
    )


@bug(
    "rebuild and evolution",
    "crash in a rebuild",
    faults=Faults(crash=2),
    defence="rows and checkpoint go back together, so that a rebuild goes on where it died",
)
def half_rebuilt(world: World) -> Case:
    """A table is emptied and filled again from the log by hand; halfway the process dies."""
    shelf = world.table("shelf")

    def naive(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        shelf[recorded.position] = event.quantity

    def by_hand(store: Store) -> None:
        for key in list(shelf):
            del shelf[key]
        for one in store.read(type=MugOrdered):
            shelf[one.position] = one.event.quantity

    def mended(event: MugOrdered, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug")
        rows.put(row.but(number=row.number + event.quantity))

    def by_esim(store: Store) -> None:
        subscription_of(store, "mended").reset()

    def is_whole(look: Look) -> bool:
        return bool((counted(look, "shelf") if written(look) else sum(look.table("shelf").values())) == 1 + 2)

    return Case(
        orders(1, 2),
        lambda store: [naive, task(by_hand, store, name="rebuild")],
        lambda store: [follow(mended, batch=1), task(by_esim, store, name="rebuild")],
        {"every order is counted": eventually(is_whole)},
    )


@bug(
    "rebuild and evolution",
    "handler changed mid-replay",
    faults=Faults(crash=2),
    defence="rows know by which code they were made; those of other code are made anew from the log",
)
def two_codes_in_one_table(world: World) -> Case:
    """While a replay runs, a new version is deployed; after a restart it goes on with the old one's sums."""
    deployed = world.table("deployed", {"code": 1})
    code = world.memory("code", lambda: deployed["code"], of="sums")

    def deploy() -> None:
        deployed["code"] = 2

    def naive(event: MugOrdered, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug")
        rows.put(row.but(number=row.number + event.quantity * code.value))

    def all_over(store: Store) -> Any:
        def mended(_: MugOrdered, recorded: RecordedEvent[MugOrdered], rows: Rows[Count]) -> None:
            row = rows.get("mug") or Count(of="mug")
            known = row.number if row.code == code.value else None
            unread = store.read(after=0 if known is None else recorded.position - 1, until=recorded.position)
            number = sum(one.event.quantity * code.value for one in unread)
            rows.put(row.but(number=(known or 0) + number, code=code.value))

        return [task(deploy), follow(mended, "sums", batch=1)]

    def of_one_code(look: Look) -> bool:
        return counted(look, "deployed") in {(1 + 2) * 1, (1 + 2) * 2}

    once = {"one code made the table": eventually(of_one_code)}
    return Case(orders(1, 2), [task(deploy), follow(naive, "sums", batch=1)], all_over, once)


@bug(
    "rebuild and evolution",
    "replay with side effects",
    "crash in a rebuild",
    faults=Faults(crash=1),
    defence="what was agreed is in the event, and nothing else is asked",
)
def the_prices_of_today(world: World) -> Case:
    """The handler looks up what a mug costs; rebuilt a year later, last year's turnover is another."""
    price = world.table("price", {"mug": 5})

    def naive(event: MugOrdered, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug")
        rows.put(row.but(number=row.number + event.quantity * price["mug"]))

    def mended(event: MugOrdered, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug")
        rows.put(row.but(number=row.number + event.quantity * event.price))

    def a_year_later(store: Store) -> None:
        price["mug"] = 7
        subscription_of(store, "turnover").reset()

    def rebuilt(handler: Any) -> Any:
        return lambda store: [follow(handler, "turnover"), task(a_year_later, store)]

    right = {"the turnover stays": comes_to(lambda look: counted(look, "price"), (1 + 2) * 5)}
    return Case(orders(1, 2), rebuilt(naive), rebuilt(mended), right)


def _takes_it_as_it_is(old: Payload) -> Payload:
    return {"cents": old["euros"]}


def _in_cents(old: Payload) -> Payload:
    return {"cents": old["euros"] * 100}


class MugBilledInEuros(Event):
    """A bill as it was written last year, as the naive code reads it."""

    euros: int


class MugBilled(Event, schema_version=2, was="MugBilledInEuros", upcasters=(_takes_it_as_it_is,)):
    """A bill of today, whose upcaster has forgotten that a euro has a hundred cents."""

    cents: int


class CupBilledInEuros(Event):
    """The same bill, as the mended code reads it."""

    euros: int


class CupBilled(Event, schema_version=2, was="CupBilledInEuros", upcasters=(_in_cents,)):
    """The same bill of today, with an upcaster that was tried with an example."""

    cents: int


@bug(
    "rebuild and evolution",
    "upcaster bug",
    faults=Faults(crash=1),
    defence="upcasters are tried with old events; the log was not rewritten, so mending one is enough",
)
def a_euro_is_a_cent(world: World) -> Case:
    """Amounts are now in cents; the upcaster hands old bills on as they are, and the turnover shrinks."""

    def turnover(event: MugBilled | CupBilled, rows: Rows[Count]) -> None:
        row = rows.get("mug") or Count(of="mug")
        rows.put(row.but(number=row.number + event.cents))

    right = {"old bills count in full": comes_to(lambda look: counted(look, ""), 500 + 700)}
    return Case(
        [("Bill/1", MugBilledInEuros(euros=5)), ("Bill/2", MugBilled(cents=700))],
        [turnover],
        [turnover],
        right,
        mended_history=[("Bill/1", CupBilledInEuros(euros=5)), ("Bill/2", CupBilled(cents=700))],
    )


@bug(
    "rebuild and evolution",
    "crash while dead-lettering",
    faults=Faults(crash=1),
    defence="the dead letter and the checkpoint are one commit",
)
def two_letters_for_one_failure(world: World) -> Case:
    """An order that fails is put among the failures by hand; the process dies before it notes that."""
    bills, failures = world.table("bills"), world.queue("failures")

    def bill(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        bills[recorded.position] = 60 // event.quantity

    def naive(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
        try:
            bill(event, recorded)
        except ZeroDivisionError:
            failures.publish(recorded.position)

    def is_known_once(look: Look) -> bool:
        parked = [letter.position for letter in look.dead_letters()]
        return [*look.table("bills"), *look.queue("failures"), *parked] == [1, 2]

    return Case(
        orders(3, 0),
        [naive],
        [follow(bill, retry=RetryPolicy(max_attempts=2))],
        {"each order is billed, or has one letter": eventually(is_known_once)},
    )


@bug(
    "rebuild and evolution",
    "crash while redriving",
    faults=Faults(crash=1),
    defence="the effect has a key, and the receiver takes each key once",
)
def redriven_halfway(world: World) -> Case:
    """Dead letters are handled again; the process dies in the midst of one, and the post goes out twice."""
    prices = world.table("prices", {"ann": 5})

    @world.service
    def post(customer: str) -> None: ...

    @world.service(once_by="key")
    def post_with_key(customer: str, key: str) -> None: ...

    @world.service(once_by="key")
    def charge(amount: int, key: str) -> None: ...

    def naive(event: MugOrdered, effects: Effects) -> None:
        amount = prices[event.customer]
        post(event.customer)
        effects.call(charge, amount=amount)

    def mended(event: MugOrdered, effects: Effects) -> None:
        amount = prices[event.customer]
        effects.call(post_with_key, customer=event.customer)
        effects.call(charge, amount=amount)

    def repaired(handler: Any) -> Any:
        def repair(store: Store) -> None:
            prices["bob"] = 6
            letters = subscription_of(store, "letters").dead_letters
            if len(letters):
                letters.redrive()

        return lambda store: [
            follow(handler, "letters", retry=_ONCE),
            task(repair, store, restart=True),
        ]

    bob = eventually(lambda look: any(call.arguments.get("customer") == "bob" for call in look.calls()))
    return Case(
        [("MugOrder/1", MugOrdered(customer="bob"))],
        repaired(naive),
        repaired(mended),
        {"bob is written to": bob, "and not twice": always(_no_letter_twice)},
    )


def _no_letter_twice(look: Look) -> bool:
    letters = [call.arguments["customer"] for call in look.calls() if "customer" in call.arguments]
    return len(letters) == len(set(letters))
