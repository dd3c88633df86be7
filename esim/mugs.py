"""A shop that sells mugs: the few events, rows and states that the bugs of the zoo are shown with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from esim import display
from esim.errors import Refused
from esim.event import Event, Tag
from esim.invariant import Invariant, Look, eventually, sometimes
from esim.messages import command
from esim.rows import Key, Row
from esim.state import State


class MugOrdered(Event):
    """Somebody orders mugs; the stream is that of the order."""

    customer: str = "ann"
    quantity: int = 1
    price: int = 5


class MugPaid(Event):
    """An order is paid."""

    amount: int = 5


class MugSent(Event):
    """An order is on its way."""


class MugCancelled(Event):
    """An order is called off."""


class MugPriced(Event):
    """Mugs have another price from now on."""

    amount: int


class MugTaken(Event):
    """Mugs are taken off the shelf for an order."""

    order: str = ""
    quantity: int = 1


class MugReturned(Event):
    """Mugs are put back on the shelf."""

    order: str = ""
    quantity: int = 1


class NameTaken(Event):
    """Somebody has chosen a user name."""

    name: Annotated[str, Tag("name")]


class Count(Row):
    """How many there are of something, and by which code that was counted."""

    of: Key[str]
    number: int = 0
    code: int = 0


def counted(look: Look, table: str, of: str = "mug") -> Any:
    """Return a count of a handler: from its rows if it writes some, or else from a table."""
    found = [row for row in written(look) if isinstance(row, Count) and row.of == of]
    return found[0].number if found else look.table(table).get(of, 0)


def comes_to(count: Callable[[Look], Any], expected: Any) -> Invariant:
    """Return the invariant that in the end something comes to what is expected; it says what it has found."""

    def comes_to(look: Look) -> None:
        found = count(look)
        assert found == expected, f"it is {display.plain(found)}, not {display.plain(expected)}"  # noqa: S101

    return eventually(comes_to)


def happens(kind: type[Event]) -> Invariant:
    """Return the check that an event of a class is recorded at some moment: else there is nothing to ask."""

    def happens(look: Look) -> bool:
        return any(one.type == kind.event_type for one in look.log)

    return sometimes(happens)


def written(look: Look) -> list[Row]:
    """Return the rows that subscriptions have committed."""
    names = [name for name, one in look._subscriptions.items() if one.handler.row is not None]
    return [row for name in names for row in look.rows(name)]


class Shelf(State[MugTaken | MugReturned]):
    """A shelf with one mug on it."""

    left: int = 1

    def take(self, order: str) -> MugTaken:
        """Take a mug for an order."""
        if not self.left:
            raise Refused("the shelf is empty")
        return MugTaken(order=order)

    def give_back(self, order: str) -> MugReturned:
        """Put a mug back."""
        return MugReturned(order=order)

    def evolve(self, event: MugTaken | MugReturned) -> Self:
        """Count."""
        match event:
            case MugTaken(quantity=quantity):
                return self.but(left=self.left - quantity)
            case MugReturned(quantity=quantity):
                return self.but(left=self.left + quantity)


class Order(State[MugOrdered | MugPaid | MugSent | MugCancelled], category="MugOrder"):
    """An order, from its placing to its end."""

    status: Literal["new", "open", "paid", "sent", "cancelled"] = "new"

    def pay(self, amount: int) -> MugPaid:
        """Pay it, while it is open."""
        self.must_be("open")
        if amount > LIMIT:
            raise Refused(f"the card is good for {LIMIT}, not for {amount}")
        return MugPaid(amount=amount)

    def send(self) -> MugSent:
        """Send it off."""
        self.must_be("paid")
        return MugSent()

    def cancel(self) -> MugCancelled:
        """Call it off, while it is open."""
        self.must_be("open")
        return MugCancelled()

    def evolve(self, event: MugOrdered | MugPaid | MugSent | MugCancelled) -> Self:
        """Go on to the next status."""
        match event:
            case MugOrdered():
                return self.but(status="open")
            case MugPaid():
                return self.but(status="paid")
            case MugSent():
                return self.but(status="sent")
            case MugCancelled():
                return self.but(status="cancelled")


LIMIT = 50
TakeMug, GiveBackMug = command(Shelf.take, "TakeMug"), command(Shelf.give_back, "GiveBackMug")
PayMug, CancelMug = command(Order.pay, "PayMug"), command(Order.cancel, "CancelMug")


def orders(*quantities: int, customer: str = "") -> list[tuple[str, Event]]:
    """Return a history of orders, one for each quantity, of different customers unless one is given."""
    names = ["ann", "bob", "cem", "dee"]
    return [
        (f"MugOrder/{number}", MugOrdered(customer=customer or names[number - 1], quantity=quantity))
        for number, quantity in enumerate(quantities, 1)
    ]
