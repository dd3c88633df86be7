"""Bugs of sagas: what must happen across streams and over time stops halfway, or happens twice."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

from esim.bug import Case, bug
from esim.contract import Store
from esim.envelope import RecordedEvent
from esim.errors import Refused
from esim.faults import Faults
from esim.invariant import Look, always, completed_xor_compensated, eventually, sometimes
from esim.mugs import (
    CancelMug,
    GiveBackMug,
    MugCancelled,
    MugOrdered,
    MugPaid,
    MugReturned,
    MugTaken,
    Order,
    PayMug,
    Shelf,
    TakeMug,
    comes_to,
    happens,
    orders,
)
from esim.process import CommandRefused, Deadline, DeadlinePassed, Met, Process, ProcessManager
from esim.repository import Repository
from esim.rows import on
from esim.scenario import consume, follow, task
from esim.world import World


class Checkout(Process):
    """How far one checkout is."""

    mugs: int = 0


class CheckoutManager(ProcessManager[Checkout]):
    """Takes a mug for an order, has it paid, and puts the mug back if that is refused."""

    @on(MugOrdered)
    def begin(self, event: MugOrdered, process: Checkout) -> Any:
        """Take a mug off the shelf."""
        return process.but(mugs=event.quantity), TakeMug(process.id, order=process.id)

    @on(MugTaken)
    def pay(self, _: MugTaken, process: Checkout) -> Any:
        """Have it paid."""
        return PayMug(process.id, amount=5 * process.mugs)

    @on(CommandRefused)
    def undo(self, event: CommandRefused, process: Checkout) -> Any:
        """Put the mug back, and call the order off."""
        if event.command == "PayMug":
            return GiveBackMug(process.id, order=process.id), CancelMug(process.id)
        return None


@bug(
    "sagas",
    "saga step failing halfway",
    faults=Faults(crash=1),
    defence="a process manager: each refusal is an event, and has its compensation",
)
def half_a_checkout(world: World) -> Case:
    """The mug is taken off the shelf, the card is refused, and nobody puts the mug back."""

    def by_hand(store: Store) -> Any:
        shelves, all_orders = Repository(store, Shelf), Repository(store, Order)

        def checkout(event: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
            shelves.run(recorded.id, Shelf.take, recorded.id)
            with suppress(Refused):  # the customer was told
                all_orders.run(recorded.id, Order.pay, 5 * event.quantity)

        return [checkout]

    halves = completed_xor_compensated(MugPaid, MugReturned, started=MugTaken)
    checks = {"paid, or put back": halves, "a mug is taken": happens(MugTaken)}
    return Case(orders(1, 20), by_hand, [CheckoutManager], checks)


@bug(
    "sagas",
    "saga step failing halfway",
    "duplicate",
    faults=Faults(crash=1),
    defence="a command is sent under a key of its cause, and takes effect once",
)
def commanded_twice(world: World) -> Case:
    """A mug is taken for an order; the process dies, hears of the order again, and takes one more."""

    def by_hand(store: Store) -> Any:
        def reserve(_: MugOrdered, recorded: RecordedEvent[MugOrdered]) -> None:
            store.append(f"Shelf/{recorded.id}", MugTaken(order=recorded.id))

        return [reserve]

    def once(look: Look) -> bool:
        taken = [one.event.order for one in look.store.read(type=MugTaken)]
        return len(taken) == len(set(taken))

    return Case(
        orders(1, 1),
        by_hand,
        [CheckoutManager],
        {
            "an order takes one mug": always(once),
            "each has its mug": comes_to(lambda look: len(list(look.store.read(type=MugTaken))), 2),
        },
    )


@bug(
    "sagas",
    "concurrent writers",
    "saga step failing halfway",
    faults=Faults(preempt=2),
    defence="the timer asks the order itself, which knows whether it is still open",
)
def paid_and_called_off(world: World) -> Case:
    """The time to pay is over just as the payment comes in: the order is paid, and called off."""

    def pay(store: Store) -> None:
        with suppress(Refused):  # it was called off: the money goes back
            Repository(store, Order).run("1", Order.pay, 5)

    def naive(store: Store) -> Generator[str]:
        paid = bool(list(store.read("MugOrder/1", type=MugPaid)))
        yield "has looked"
        if not paid:
            store.append("MugOrder/1", MugCancelled())

    def mended(store: Store) -> Generator[str]:
        yield "the time is over"
        with suppress(Refused):  # it is paid
            Repository(store, Order).run("1", Order.cancel)

    def not_both(look: Look) -> bool:
        return not {"MugPaid", "MugCancelled"} <= {one.type for one in look.log}

    return Case(
        orders(1),
        lambda store: [task(naive, store, name="timer"), task(pay, store, name="bank")],
        lambda store: [task(mended, store, name="timer"), task(pay, store, name="bank")],
        {
            "paid or called off, not both": always(not_both),
            "sometimes paid": sometimes(lambda look: look.log[-1].type == "MugPaid"),
            "sometimes called off": sometimes(lambda look: look.log[-1].type == "MugCancelled"),
        },
    )


@bug(
    "sagas",
    "reordering across streams",
    "saga step failing halfway",
    faults=Faults(reorder=1, duplicate=1),
    defence="a compensation that comes first leaves a tombstone, which what it undoes will find",
)
def undone_before_it_was_done(world: World) -> Case:
    """The shop calls a reservation off, which overtakes the reservation; the mug stays reserved for ever."""
    todo, reserved = world.queue("todo"), world.table("reserved")

    def shop() -> None:
        todo.publish(("reserve", "order 1"))
        todo.publish(("release", "order 1"))

    def naive(message: tuple[str, str]) -> None:
        what, order = message
        if what == "reserve":
            reserved[order] = "yes"
        else:
            reserved.pop(order, None)

    def mended(message: tuple[str, str]) -> None:
        what, order = message
        if what == "reserve":
            reserved.setdefault(order, "yes")
        else:
            reserved[order] = "called off"

    free = eventually(lambda look: look.table("reserved").get("order 1") != "yes")
    return Case(
        [],
        [task(shop), consume(todo, naive, "shelf")],
        [task(shop), consume(todo, mended, "shelf")],
        {
            "what is called off is free": free,
            "both were heard of": sometimes(lambda look: "order 1" in look.table("reserved")),
        },
    )


class PatientCheckout(Process):
    """A checkout that waits for the bank."""


class Patient(ProcessManager[PatientCheckout]):
    """Waits for the bank, however long it takes."""

    @on(MugOrdered)
    def begin(self, _: MugOrdered, process: PatientCheckout) -> Any:
        """Take a mug off the shelf."""
        return TakeMug(process.id, order=process.id)


class Impatient(ProcessManager[PatientCheckout]):
    """Waits a day for the bank."""

    @on(MugOrdered)
    def begin(self, _: MugOrdered, process: PatientCheckout) -> Any:
        """Take a mug off the shelf, and wait a day."""
        return TakeMug(process.id, order=process.id), Deadline("payment", hours=24)

    @on(MugPaid)
    def paid(self, _: MugPaid, __: PatientCheckout) -> Any:
        """Wait no more."""
        return Met("payment")

    @on(DeadlinePassed)
    def too_late(self, _: DeadlinePassed, process: PatientCheckout) -> Any:
        """Call the order off; it refuses if it is paid after all."""
        return CancelMug(process.id)

    @on(MugCancelled)
    def undo(self, _: MugCancelled, process: PatientCheckout) -> Any:
        """Put the mug back."""
        return GiveBackMug(process.id, order=process.id)


@bug(
    "sagas",
    "lost message",
    "saga step failing halfway",
    faults=Faults(lost=1, crash=1),
    defence="a deadline: what has not come by then is taken as a no, and compensated",
)
def waits_for_ever(world: World) -> Case:
    """The bank is asked for the money, the question is lost, and the mug is kept for a payment for ever."""
    bank = world.queue("bank")

    def ask(_: MugTaken, recorded: RecordedEvent[MugTaken]) -> None:
        bank.publish(recorded)

    def with_a(manager: Any) -> Any:
        def actors(store: Store) -> list[Any]:
            def pays(recorded: RecordedEvent[MugTaken]) -> None:
                with suppress(Refused):  # it is paid already, or called off
                    Repository(store, Order).run(recorded.event.order, Order.pay, 5)

            return [follow(manager), ask, consume(bank, pays, "clerk")]

        return actors

    def is_settled(look: Look) -> bool:
        paid, back = (any(one.type == kind for one in look.log) for kind in ("MugPaid", "MugReturned"))
        return paid != back

    return Case(orders(1), with_a(Patient), with_a(Impatient), {"paid, or put back": eventually(is_settled)})
