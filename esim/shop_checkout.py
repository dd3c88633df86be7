"""The shop's checkout, from the order to the parcel: a process manager, and the handlers around it.

An order's goods are reserved, then its payment is waited for, then it is shipped. Where goods are missing, or
the money does not come within a day, the order is cancelled, its reservations are released, and what was
paid is paid back. Beside it customers get e-mails, and analysts their daily sales.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal

from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.errors import Refused
from esim.messages import Dispatcher, command
from esim.process import CommandRefused, Deadline, DeadlinePassed, Met, Process, ProcessManager
from esim.projection import Key, Projection, Row, Rows, on
from esim.shop import (
    AddressChanged,
    CustomerRegistered,
    Directory,
    Inventory,
    Item,
    Order,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    RefundRequested,
    StockReserved,
)
from esim.store import EventStore
from esim.value import Money

ReserveStock = command(Inventory.reserve, "ReserveStock")
ReleaseStock = command(Inventory.release, "ReleaseStock")
ShipStock = command(Inventory.ship, "ShipStock")
ShipOrder = command(Order.ship_home, "ShipOrder")
CancelOrder = command(Order.cancel, "CancelOrder")
RefundOrder = command(Order.refund, "RefundOrder")


class Checkout(Process):
    """How far an order is; `reserved` are the articles that are put aside for it."""

    status: Literal["new", "reserving", "waiting for payment", "shipping", "shipped", "cancelled"] = "new"
    items: tuple[Item, ...] = ()
    reserved: tuple[str, ...] = ()
    paid: bool = False


class CheckoutManager(ProcessManager[Checkout]):
    """Inventory, shipping, and cancellation with refund."""

    by = {StockReserved: "order"}  # noqa: RUF012 - declared, never changed

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced, checkout: Checkout) -> object:
        """Reserve the goods, and give the customer a day to pay."""
        reserve = [ReserveStock(one.sku, order=checkout.id, quantity=one.quantity) for one in event.items]
        return checkout.but(status="reserving", items=event.items), *reserve, Deadline("payment", hours=24)

    @on(StockReserved)
    def reserved(self, event: StockReserved, checkout: Checkout) -> object:
        """Note what is put aside; what came too late is released."""
        if checkout.status == "cancelled":
            return ReleaseStock(event.sku, order=checkout.id)
        return self._go_on(checkout.but(reserved=(*checkout.reserved, event.sku)))

    @on(OrderPaid)
    def paid(self, event: OrderPaid, checkout: Checkout) -> object:  # noqa: ARG002 - that it is paid says it
        """Ship, if the goods are there."""
        return Met("payment"), *self._go_on(checkout.but(paid=True))

    @on(OrderShipped)
    def shipped(self, event: OrderShipped, checkout: Checkout) -> object:  # noqa: ARG002 - that it is says it
        """Take the goods out of the stock."""
        leave = [ShipStock(sku, order=checkout.id) for sku in checkout.reserved]
        return checkout.but(status="shipped"), *leave

    @on(DeadlinePassed)
    def timed_out(self, event: DeadlinePassed, checkout: Checkout) -> object:
        """Call off what was not paid."""
        return CancelOrder(checkout.id, reason=f"no {event.deadline} within a day")

    @on(CommandRefused)
    def refused(self, event: CommandRefused, checkout: Checkout) -> object:
        """Call the order off if something is missing; other refusals have nothing to mend."""
        if event.command in ("ReserveStock", "ShipOrder") and checkout.status not in ("cancelled", "shipped"):
            return CancelOrder(checkout.id, reason=event.reason)
        return None

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled, checkout: Checkout) -> object:  # noqa: ARG002 - that it is says it
        """Release what was reserved."""
        release = [ReleaseStock(sku, order=checkout.id) for sku in checkout.reserved]
        return checkout.but(status="cancelled"), *release, Met("payment")

    @on(RefundRequested)
    def owed(self, event: RefundRequested, checkout: Checkout) -> object:  # noqa: ARG002 - the order knows it
        """Pay back what is owed."""
        return RefundOrder(checkout.id, refund=f"refund of {checkout.id}")

    def _go_on(self, checkout: Checkout) -> tuple[object, ...]:
        """Return what comes next, once something is reserved or paid."""
        if checkout.status == "cancelled" or len(checkout.reserved) < len(checkout.items):
            return (checkout,)
        if not checkout.paid:
            return (checkout.but(status="waiting for payment"),)
        return checkout.but(status="shipping"), ShipOrder(checkout.id, parcel=f"parcel {checkout.id}")


class Home(Row):
    """Where a customer lives."""

    customer: Key[str]
    address: str


class Homes(Projection[Home]):
    """The present addresses."""

    @on(CustomerRegistered, AddressChanged)
    def moved(self, event: CustomerRegistered | AddressChanged, rows: Rows[Home]) -> None:
        """Note the address."""
        rows.put(Home(customer=event.customer, address=event.address))


class HomesDirectory(Directory):
    """A directory of customers that looks into a read model."""

    def __init__(self, store: EventStore) -> None:
        """Look at the customers of `store`."""
        self._homes = Homes(store)

    def address_of(self, customer: str) -> str:
        """Return where a customer lives. Raises Refused if nobody knows."""
        home = self._homes.get(customer)
        if home is None:
            raise Refused(f"customer {customer!r} has no address")
        return home.address


def checkout_manager(store: EventStore) -> CheckoutManager:
    """Return the checkout of a shop, with all that its decisions need."""
    return CheckoutManager(store, Dispatcher(store, provides=[HomesDirectory(store)]))


class Sale(Row):
    """What was paid on a day (UTC)."""

    day: Key[date]
    orders: int = 0
    amount: Money = Decimal(0)


class DailySales(Projection[Sale]):
    """Analytics: the payments of each day."""

    @on(OrderPaid)
    def paid(self, event: OrderPaid, rows: Rows[Sale], recorded: RecordedEvent[OrderPaid]) -> None:
        """Add a payment to its day."""
        day = (recorded.occurred_at or recorded.recorded_at).date()
        sale = rows.get(day) or Sale(day=day)
        rows.put(sale.but(orders=sale.orders + 1, amount=sale.amount + event.amount))


class Mailbox:
    """An outside world that keeps the e-mails it was given, by key, as a mail server would."""

    def __init__(self) -> None:
        """Begin empty."""
        self.sent: list[tuple[str, str, str]] = []

    def send_mail(self, order: str, text: str, key: str) -> None:
        """Take an e-mail about an order."""
        self.sent.append((order, text, key))

    @on(OrderPaid, OrderShipped, OrderCancelled)
    def write(
        self,
        event: OrderPaid | OrderShipped | OrderCancelled,
        recorded: RecordedEvent[OrderPaid | OrderShipped | OrderCancelled],
        effects: Effects,
    ) -> None:
        """Tell the customer what happened."""
        match event:
            case OrderPaid():
                text = f"we have received your {event.amount}"
            case OrderShipped():
                text = f"your {event.parcel} is on its way to {event.address}"
            case OrderCancelled():
                text = f"your order is cancelled: {event.reason}"
        effects.call(self.send_mail, recorded.id, text)
