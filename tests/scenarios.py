"""Small scenarios of every kind, for the proofs about the simulator itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Literal

from esim.bus import Bus
from esim.contract import Store
from esim.envelope import keyed
from esim.errors import Conflict, Refused
from esim.event import Event
from esim.faults import Faults
from esim.invariant import always, contiguous_versions, eventually, never_negative, no_effect_twice
from esim.messages import command
from esim.process import CommandRefused, Deadline, DeadlinePassed, Process, ProcessManager
from esim.projection import Key, Projection, Row, Rows, on
from esim.repository import Repository
from esim.retry import CircuitBreaker, RetryPolicy
from esim.scenario import Scenario, consume, follow, task
from esim.state import State
from esim.world import World


class Placed(Event):
    sku: str
    quantity: int = 1


class Reserved(Event):
    sku: str


class Released(Event):
    sku: str


class Stock(Row):
    sku: Key[str]
    sold: int = 0


NO_WAIT = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter="none")
Made = Callable[[], Scenario]
SCENARIOS: dict[str, Made] = {}


def scenario(function: Made) -> Made:
    SCENARIOS[function.__name__] = function
    return function


def placed(count: int, streams: int = 9) -> list[tuple[str, Event]]:
    skus = ("mug", "cup")
    return [(f"Order/{n % streams}", Placed(sku=skus[n % 2], quantity=n + 1)) for n in range(count)]


# --- a subscription in each mode ---------------------------------------------------------------------------


@scenario
def a_table_after_the_handler() -> Scenario:
    world = World()
    stock = world.table("stock", {"mug": 9, "cup": 9})

    def deduct(event: Placed) -> None:
        stock[event.sku] -= event.quantity

    check = eventually(lambda look: look.table("stock")["mug"] == 8)
    return Scenario(placed(2), [deduct], {"right": check}, faults=Faults(crash=2, duplicate=1), world=world)


@scenario
def a_mail_before_the_handler() -> Scenario:
    world = World()
    mail = world.service("mail")

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.sku)

    checks = [no_effect_twice(), eventually(lambda look: len(look.calls("mail")) == 2)]
    actors = [follow(notify, checkpoint="before_handler")]
    return Scenario(placed(2), actors, checks, faults=Faults(crash=1, error=1), world=world)


@scenario
def rows_in_one_transaction() -> Scenario:
    def sell(event: Placed, rows: Rows[Stock]) -> None:
        row = rows.get(event.sku) or Stock(sku=event.sku)
        rows.put(row.but(sold=row.sold + event.quantity))

    check = eventually(lambda look: sum(row.sold for row in look.rows()) == 3)
    return Scenario(placed(2), [sell], {"right": check}, faults=Faults(crash=2, error=1))


@scenario
def rows_of_a_projection_in_batches() -> Scenario:
    class Sold(Projection[Stock]):
        @on(Placed)
        def placed(self, event: Placed, rows: Rows[Stock]) -> None:
            row = rows.get(event.sku) or Stock(sku=event.sku)
            rows.put(row.but(sold=row.sold + event.quantity))

    check = eventually(lambda look: sum(row.sold for row in look.rows()) == 6)
    return Scenario(placed(3), [follow(Sold, batch=2)], {"right": check}, faults=Faults(crash=1, poison=1))


@scenario
def an_inbox() -> Scenario:
    world = World()
    stock = world.table("stock", {"mug": 9, "cup": 9})

    def deduct(event: Placed) -> None:
        stock[event.sku] -= event.quantity

    check = eventually(lambda look: look.table("stock")["mug"] == 8)
    actors = [follow(deduct, inbox=True)]
    return Scenario(placed(2), actors, {"right": check}, faults=Faults(crash=1, duplicate=2), world=world)


@scenario
def an_outbox() -> Scenario:
    world = World()

    @world.service
    def mail(sku: str, key: str) -> None:
        pass

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.sku)

    checks = [no_effect_twice(), eventually(lambda look: len(look.calls("mail")) >= 1)]
    actors = [follow(notify, outbox=True, retry=NO_WAIT, sends=[mail])]
    faults = Faults(crash=1, error=1, unknown=1)
    return Scenario(placed(1), actors, checks, faults=faults, world=world)


@scenario
def an_outbox_to_one_who_knows_the_key() -> Scenario:
    world = World()

    @world.service(once_by="key")
    def mail(sku: str, key: str) -> None:
        pass

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.sku)

    checks = [no_effect_twice(), eventually(lambda look: len(look.calls("mail")) == 2)]
    actors = [follow(notify, outbox=True, retry=NO_WAIT, sends=[mail])]
    return Scenario(placed(2), actors, checks, faults=Faults(crash=1, unknown=1), world=world)


# --- failures ----------------------------------------------------------------------------------------------


@scenario
def dead_letters_of_one_stream() -> Scenario:
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.quantity] = seen.get(event.quantity, 0) + 1

    check = always(lambda look: len(look.dead_letters()) < 3)
    actors = [follow(note, retry=NO_WAIT)]
    faults = Faults(poison=1, crash=1)
    return Scenario(placed(3, streams=2), actors, {"few": check}, faults=faults, world=world)


@scenario
def letters_of_different_errors() -> Scenario:
    world = World()
    flag, mail = world.table("flag", {"kind": 0}), world.service("mail")

    def fail(event: Placed) -> None:
        try:
            mail(event.sku)
        except TimeoutError:
            raise ValueError("it failed") from None
        except ConnectionError:
            raise KeyError("it failed") from None

    def kinds(look: Any) -> bool:
        return {letter.cause_type for letter in look.dead_letters()} <= {"KeyError"}

    once = RetryPolicy(max_attempts=1)
    faults = Faults(error=1, unknown=1)
    assert flag
    return Scenario(
        placed(2), [follow(fail, retry=once)], {"kinds": always(kinds)}, faults=faults, world=world
    )


@scenario
def a_process_that_dies_of_an_event() -> Scenario:
    world = World()
    tries = world.table("tries", {"mug": 0})

    def die(event: Placed) -> None:
        tries["mug"] += 1

    actors = [follow(die, retry=NO_WAIT, batch=2)]
    check = eventually(lambda look: not look.dead_letters())
    return Scenario(placed(2), actors, {"none": check}, faults=Faults(crash=3), world=world)


@scenario
def retries_that_wait() -> Scenario:
    world = World()
    mail = world.service("mail", outage=2)

    def notify(event: Placed) -> None:
        mail(event.sku)

    check = eventually(lambda look: len(look.calls("mail")) >= 2)
    policy = RetryPolicy(max_attempts=3)
    faults = Faults(outage=1, error=1, crash=1)
    return Scenario(placed(2), [follow(notify, retry=policy)], {"told": check}, faults=faults, world=world)


@scenario
def a_circuit_that_opens() -> Scenario:
    world = World()
    mail = world.service("mail", outage=3)

    def notify(event: Placed) -> None:
        mail(event.sku)

    def tick() -> None:
        mail("tick")

    once = RetryPolicy(max_attempts=1)
    actors = [follow(notify, retry=once, breaker=CircuitBreaker(failures=2, cooldown=5.0)), task(tick)]
    check = eventually(lambda look: len(look.dead_letters()) < 2)
    faults = Faults(outage=1, crash=1, error=1)
    return Scenario(placed(3), actors, {"few": check}, faults=faults, world=world)


@scenario
def a_subscription_that_stops() -> Scenario:
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.quantity] = True

    actors = [follow(note, retry=NO_WAIT, on_exhausted="stop")]
    check = eventually(lambda look: len(look.table("seen")) == 2)
    return Scenario(placed(2), actors, {"all": check}, faults=Faults(error=2, poison=1), world=world)


# --- queues ------------------------------------------------------------------------------------------------


@scenario
def a_queue_that_loses_doubles_and_mixes() -> Scenario:
    world = World()
    queue, last = world.queue("orders"), world.table("last", {"n": 0})

    def publish() -> Iterator[None]:
        for number in (1, 2, 3):
            queue.publish(number)
            yield

    def take(body: int) -> None:
        last["n"] = body

    check = eventually(lambda look: look.table("last")["n"] == 3)
    faults = Faults(lost=1, duplicate=1, reorder=1)
    return Scenario([], [task(publish), consume(queue, take)], {"last": check}, faults=faults, world=world)


@scenario
def two_consumers_of_one_queue() -> Scenario:
    world = World()
    queue, stock = world.queue("orders"), world.table("stock", {"mug": 9})

    def publish() -> None:
        queue.publish("mug")
        queue.publish("mug")

    def take(sku: str) -> None:
        stock[sku] -= 1

    actors = [task(publish), consume(queue, take, "one"), consume(queue, take, "two", ack="before")]
    check = eventually(lambda look: look.table("stock")["mug"] == 7)
    faults = Faults(crash=1, late=1, preempt=1)
    return Scenario([], actors, {"right": check}, faults=faults, world=world)


@scenario
def a_message_that_fails() -> Scenario:
    world = World()
    queue, mail = world.queue("orders"), world.service("mail")

    def publish() -> None:
        queue.publish({"sku": "mug", "tries": 0})
        queue.publish({"sku": "cup", "tries": 0})

    def take(body: dict[str, Any]) -> None:
        body["tries"] += 1
        mail(body["sku"], body["tries"])

    check = always(lambda look: all(call.arguments["args"][1] == 1 for call in look.calls("mail")))
    actors = [task(publish), consume(queue, take, attempts=2)]
    faults = Faults(error=1, crash=1)
    return Scenario([], actors, {"fresh": check}, faults=faults, world=world)


# --- writers -----------------------------------------------------------------------------------------------


class Seat(State[Reserved | Released]):
    taken: bool = False

    def reserve(self, sku: str) -> Reserved:
        if self.taken:
            raise Refused("it is taken")
        return Reserved(sku=sku)

    def release(self, sku: str) -> Released:
        return Released(sku=sku)

    def evolve(self, event: Reserved | Released) -> Any:
        match event:
            case Reserved():
                return self.but(taken=True)
            case Released():
                return self.but(taken=False)


def _once(look: Any) -> bool:
    return sum(one.type == "Reserved" for one in look.log) <= 1


@scenario
def two_writers_without_an_expected_version() -> Scenario:
    def actors(store: Store) -> list[Any]:
        def reserve() -> Iterator[None]:
            free = store.version("Seat/1") == 0
            yield
            if free:
                store.append("Seat/1", Reserved(sku="1"))

        return [task(reserve, name="ann"), task(reserve, name="bob")]

    checks = {"once": always(_once), "versions": contiguous_versions()}
    return Scenario([], actors, checks, faults=Faults(preempt=2, crash=1))


@scenario
def two_writers_with_an_expected_version() -> Scenario:
    def actors(store: Store) -> list[Any]:
        def reserve() -> Iterator[None]:
            free = store.version("Seat/1") == 0
            yield
            if free:
                try:
                    store.append("Seat/1", Reserved(sku="1"), expected="no_stream")
                except Conflict:
                    yield

        return [task(reserve, name="ann"), task(reserve, name="bob")]

    return Scenario([], actors, {"once": always(_once)}, faults=Faults(preempt=2, crash=1, unknown=1))


@scenario
def a_repository_under_two_async_writers() -> Scenario:
    def actors(store: Store) -> list[Any]:
        seats = Repository(store, Seat)

        async def reserve(name: str) -> None:
            await asyncio.sleep(0)
            try:
                seats.run("1", Seat.reserve, sku=name)
            except Refused:
                return
            await asyncio.sleep(0)
            seats.run("1", Seat.release, sku=name)

        return [task(reserve, "a", name="ann", restart=True), task(reserve, "b", name="bob")]

    check = eventually(lambda look: look.store.version("Seat/1") % 2 == 0)
    return Scenario([], actors, {"even": check}, faults=Faults(preempt=2, crash=1))


@scenario
def an_append_whose_outcome_is_unknown() -> Scenario:
    def actors(store: Store) -> list[Any]:
        def twice(key: str) -> None:
            for _ in range(2):
                try:
                    with keyed(key):
                        store.append("Order/1", Placed(sku="mug"))
                except TimeoutError:
                    continue
                return

        return [task(twice, "a", name="first"), task(twice, "a", name="second", restart=True)]

    check = always(lambda look: len(look.log) <= 1)
    return Scenario([], actors, {"once": check}, faults=Faults(unknown=1, crash=1, preempt=1))


@scenario
def a_wrong_clock() -> Scenario:
    world = World()
    times = world.table("times")

    def actors(store: Store) -> list[Any]:
        def write(name: str) -> None:
            times[name] = store.clock.now().hour

        return [task(write, "a", name="first"), task(write, "b", name="second")]

    check = eventually(lambda look: set(look.table("times").values()) == {9})
    return Scenario([], actors, {"same": check}, faults=Faults(skew=1, preempt=1), world=world)


# --- several -----------------------------------------------------------------------------------------------


@scenario
def three_subscriptions() -> Scenario:
    world = World()
    stock, mail = world.table("stock", {"mug": 9, "cup": 9}), world.service("mail")

    def deduct(event: Placed) -> None:
        stock[event.sku] -= event.quantity

    def notify(event: Placed) -> None:
        mail(event.sku)

    def sell(event: Placed, rows: Rows[Stock]) -> None:
        rows.put(Stock(sku=event.sku, sold=event.quantity))

    check = eventually(lambda look: look.table("stock")["mug"] == 8)
    faults = Faults(crash=1, preempt=1)
    return Scenario(placed(1), [deduct, notify, sell], {"right": check}, faults=faults, world=world)


@scenario
def a_chain_of_handlers() -> Scenario:
    world = World()
    seen = world.table("seen")

    def actors(store: Store) -> list[Any]:
        def reserve(event: Placed) -> None:
            store.append("Stock/1", Reserved(sku=event.sku))

        def note(event: Reserved) -> None:
            seen[event.sku] = seen.get(event.sku, 0) + 1

        return [reserve, note]

    check = eventually(lambda look: dict(look.table("seen")) == {"mug": 1})
    faults = Faults(crash=1, preempt=1)
    return Scenario(placed(1), actors, {"once": check}, faults=faults, world=world)


@scenario
def a_bus() -> Scenario:
    world = World()
    stock = world.table("stock", {"mug": 9, "cup": 9})

    def actors(store: Store) -> list[Any]:
        bus = Bus(store)

        def deduct(event: Placed) -> None:
            stock[event.sku] -= event.quantity

        bus.subscribe(deduct)

        def publish() -> Iterator[None]:
            for number in (1, 2):
                bus.publish(f"Order/{number}", Placed(sku="mug", quantity=number))
                yield

        return [task(publish)]

    check = eventually(lambda look: look.table("stock")["mug"] == 9 - sum(o.event.quantity for o in look.log))
    return Scenario([], actors, {"all": check}, faults=Faults(crash=1), world=world)


# --- memory ------------------------------------------------------------------------------------------------


@scenario
def a_memory_of_what_was_seen() -> Scenario:
    world = World()
    stock, seen = world.table("stock", {"mug": 9, "cup": 9}), world.memory("seen", set)

    def deduct(event: Placed) -> None:
        if event.quantity not in seen.value:
            seen.value.add(event.quantity)
            stock[event.sku] -= event.quantity

    check = eventually(lambda look: look.table("stock")["mug"] == 8)
    return Scenario(placed(2), [deduct], {"right": check}, faults=Faults(crash=1, duplicate=2), world=world)


class Counts:
    """A plain class, as somebody would write it for a cache."""

    def __init__(self) -> None:
        self.by_sku: dict[str, int] = {}


@scenario
def a_memory_of_a_plain_class() -> Scenario:
    world = World()
    table, counts = world.table("counts"), world.memory("counted", Counts)

    def count(event: Placed) -> None:
        mine = counts.value.by_sku
        mine[event.sku] = mine.get(event.sku, 0) + 1
        table[event.sku] = mine[event.sku]

    check = eventually(lambda look: dict(look.table("counts")) == {"mug": 2, "cup": 1})
    return Scenario(placed(3), [count], {"right": check}, faults=Faults(crash=1, duplicate=1), world=world)


@scenario
def a_memory_that_changes_after_a_write() -> Scenario:
    world = World()
    table, memory = world.table("sold", {"all": 0}), world.memory("cache", lambda: defaultdict(int))

    def count(event: Placed) -> None:
        cache = memory.value
        table["all"] += 1
        cache["all"] += 1
        if cache["all"] == 2:
            table["two"] = True

    check = eventually(lambda look: "two" in look.table("sold"))
    return Scenario(placed(2), [count], {"two": check}, faults=Faults(crash=2, duplicate=1), world=world)


@scenario
def a_table_of_lists() -> Scenario:
    world = World()
    lists, mail = world.table("lists"), world.service("mail")

    def note(event: Placed) -> None:
        found = lists.get("all", [])
        mail(event.sku)
        found.append(event.quantity)
        lists["all"] = found

    check = eventually(lambda look: look.table("lists")["all"] == [1, 2])
    return Scenario(placed(2), [note], {"right": check}, faults=Faults(crash=1, error=1), world=world)


@scenario
def a_table_whose_first_row_counts() -> Scenario:
    world = World()
    rows, first = world.table("rows"), world.table("first")

    def put(name: str, other: str) -> None:
        rows[name] = True

    def look() -> None:
        first["row"] = next(iter(rows), None)

    actors = [task(put, "a", "b", name="ann"), task(put, "b", "a", name="bob"), task(look)]
    check = eventually(lambda look: look.table("first").get("row") != "b")
    return Scenario([], actors, {"a": check}, faults=Faults(preempt=2), world=world)


@scenario
def true_is_not_one_and_minus_one_not_minus_two() -> Scenario:
    world = World()
    table, mail = world.table("table", {"x": 1, "y": -1}), world.service("mail")

    def change(event: Placed) -> None:
        try:
            mail()
        except ConnectionError:
            table["x"], table["y"] = True, -2
        except TimeoutError:
            table["x"], table["y"] = 1.0, -1.0

    def told(look: Any) -> bool:
        return repr(look.table("table")["x"]) != "True"

    faults = Faults(error=1, unknown=1)
    return Scenario(placed(2), [change], {"one": eventually(told)}, faults=faults, world=world)


# --- time --------------------------------------------------------------------------------------------------


class Buy(State[Placed | Reserved | Released]):
    status: Literal["new", "placed", "reserved", "released"] = "new"

    def reserve(self, sku: str) -> Reserved:
        self.must_be("placed", "new")
        return Reserved(sku=sku)

    def release(self, sku: str) -> Released:
        self.must_be("placed", "new", "reserved")
        return Released(sku=sku)

    def evolve(self, event: Placed | Reserved | Released) -> Any:
        match event:
            case Placed():
                return self.but(status="placed")
            case Reserved():
                return self.but(status="reserved")
            case Released():
                return self.but(status="released")


ReserveIt = command(Buy.reserve)
ReleaseIt = command(Buy.release)


class Buying(Process):
    state: str = "new"


class Buyer(ProcessManager[Buying]):
    @on(Placed)
    def placed(self, event: Placed, process: Buying) -> Any:
        return process.but(state="waits"), Deadline("stock", minutes=1), ReserveIt(process.id, sku=event.sku)

    @on(DeadlinePassed)
    def passed(self, event: DeadlinePassed, process: Buying) -> Any:
        return process.but(state="late"), ReleaseIt(process.id, sku="mug")

    @on(CommandRefused)
    def refused(self, event: CommandRefused, process: Buying) -> Any:
        return process.but(state="refused")


@scenario
def a_process_manager_with_a_deadline() -> Scenario:
    check = eventually(lambda look: [one.type for one in look.log].count("Released") == 1)
    checks = {"released": check, "versions": contiguous_versions()}
    return Scenario([("Buy/1", Placed(sku="mug"))], [Buyer], checks, faults=Faults(crash=1, unknown=1))


@scenario
def two_deadlines_and_a_mail_that_waits() -> Scenario:
    world = World()
    mail = world.service("mail", outage=2)

    def notify(event: Placed) -> None:
        mail(event.sku)

    policy = RetryPolicy(max_attempts=5, initial_interval=50.0, jitter="none")
    history = [(f"Buy/{n}", Placed(sku=f"{n}")) for n in range(2)]
    actors = [follow(notify, retry=policy), Buyer]
    check = always(lambda look: [one.stream for one in look.log][-1] != "Buy/1")
    faults = Faults(error=1, outage=1)
    return Scenario(history, actors, {"last": check}, faults=faults, world=world)


@scenario
def an_event_that_is_recorded_early_or_late() -> Scenario:
    """A deadline counts from when an event was recorded; another has its own wait meanwhile."""
    world = World()
    mail, notes = world.service("mail"), world.table("notes")

    def actors(store: Store) -> list[Any]:
        def notify(event: Reserved) -> None:
            mail(event.sku)
            store.append("Buy/1", Placed(sku="mug"))

        def tick(event: Released) -> None:
            notes["late"] = (store.clock.now() - store.read().first().recorded_at).total_seconds() > 70

        waits = RetryPolicy(max_attempts=5, initial_interval=45.0, jitter="none")
        return [follow(notify, retry=waits, category="Start"), Buyer, tick]

    history = [("Start/1", Reserved(sku="a")), ("Start/2", Reserved(sku="b"))]
    check = eventually(lambda look: look.table("notes").get("late") is not True)
    return Scenario(history, actors, {"early": check}, faults=Faults(error=2), world=world)


@scenario
def two_that_wait_by_their_outbox() -> Scenario:
    world = World()

    @world.service
    def mail(sku: str) -> None:
        pass

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.sku)

    waits = RetryPolicy(max_attempts=3, initial_interval=40.0, backoff_coefficient=1.0, jitter="none")
    actors = [follow(notify, outbox=True, retry=waits, sends=[mail]), Buyer]
    check = always(lambda look: len(look.calls("mail")) < 2 or len(look.log) < 3)
    history = [("Buy/1", Placed(sku="mug"))]
    faults = Faults(error=2, unknown=1)
    return Scenario(history, actors, {"order": check}, faults=faults, world=world)


@scenario
def a_deadline_that_passes_while_a_task_is_late() -> Scenario:
    def actors(store: Store) -> list[Any]:
        def customer() -> Iterator[str]:
            store.append("Buy/1", Placed(sku="mug"))
            yield "thinks it over"
            store.append("Buy/1", Reserved(sku="mug"))

        return [Buyer, task(customer, restart=True)]

    check = always(lambda look: look.log[-1].type != "Released" if look.log else True)
    return Scenario([], actors, {"last": check}, faults=Faults(preempt=1, delay=1))


@scenario
def two_that_sleep_in_turn() -> Scenario:
    world = World()
    table, mail = world.table("table"), world.service("mail")

    async def handle(event: Placed) -> None:
        await asyncio.sleep(90)
        mail(event.sku)
        table[event.sku] = len(table)

    async def other() -> None:
        for number in range(2):
            await asyncio.sleep(60)
            table[number] = len(table)

    check = eventually(lambda look: look.table("table")["mug"] == 1)
    faults = Faults(crash=1, preempt=1)
    return Scenario(placed(1), [handle, task(other)], {"between": check}, faults=faults, world=world)


# --- without end, and negative -----------------------------------------------------------------------------


@scenario
def a_moment_between_two_writes() -> Scenario:
    world = World()
    stock, mail = world.table("stock", {"mug": 0, "cup": 1}), world.service("mail")

    def lend(event: Placed) -> None:
        stock[event.sku] -= 1
        mail(event.sku)
        stock[event.sku] += 1

    checks = {
        "never negative": never_negative("stock"),
        "nobody is told of it": always(lambda look: all(stock.values()) or len(look.calls("mail")) < 2),
    }
    return Scenario(placed(2), [lend], checks, faults=Faults(crash=1, error=1), world=world)


@scenario
def a_message_that_comes_again_for_ever() -> Scenario:
    world = World()
    queue, seen = world.queue("orders"), world.table("seen", {"mug": 1})

    def publish() -> None:
        queue.publish("mug")

    def take(sku: str) -> None:
        if seen[sku] < 1:
            queue.publish(sku)
        else:
            seen[sku] -= 1

    actors = [task(publish), consume(queue, take)]
    return Scenario([], actors, [never_negative("seen")], faults=Faults(duplicate=1, lost=1), world=world)
