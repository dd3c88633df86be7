"""The sample domain: a small online shop, told in the past tense and decided by pure methods.

An order is placed, paid, shipped and delivered; until it is shipped it may be cancelled. Stock is kept per
article (sku) and reserved per order; a customer moves house and may be blocked. Each of the three is a
`State`: its methods are the decisions, `evolve` says what a fact changes.

Cancelling a paid order returns two events, `OrderCancelled` and `RefundRequested`: they are recorded in one
append, so that no crash in between can leave the shop with money it owes and nobody who knows. Paying it back
takes days and may fail, so that is a decision of its own, `refund`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from esim.envelope import RecordedEvent
from esim.errors import Refused
from esim.event import Event, Tag
from esim.messages import injected
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.state import State
from esim.value import Money, Value

Sku = Annotated[str, Tag("sku")]
OrderId = Annotated[str, Tag("order")]
CustomerId = Annotated[str, Tag("customer")]
Method = Literal["card", "bank", "wallet"]
Count = Annotated[int, Field(gt=0)]


class Directory(ABC):
    """Who knows where customers live."""

    @abstractmethod
    def address_of(self, customer: str) -> str:
        """Return a customer's address. Raises Refused if it is not known."""


# --- orders ------------------------------------------------------------------------------------------------


class Item(Value):
    """One line of an order: how many of which article, at the price agreed on."""

    sku: str
    quantity: Count
    price: Annotated[Money, Field(ge=0)]

    @property
    def subtotal(self) -> Decimal:
        """The price of the whole line."""
        return self.quantity * self.price


def total_of(items: Iterable[Item]) -> Decimal:
    """Return what the items cost together.

    >>> total_of([Item(sku="mug", quantity=2, price=Decimal("7.50"))])
    Decimal('15.00')
    """
    return sum((item.subtotal for item in items), Decimal(0))


class OrderPlaced(Event):
    """A customer ordered some items."""

    customer: CustomerId
    items: tuple[Item, ...]
    total: Money

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if total_of(self.items) != self.total:
            raise ValueError(f"the items add up to {total_of(self.items)}, but the total says {self.total}")
        return self


class OrderPaid(Event):
    """The money for an order came in."""

    payment: Annotated[str, Tag()]
    amount: Money
    method: Method


class OrderShipped(Event):
    """The parcel left the warehouse for an address."""

    parcel: str
    carrier: str
    address: str


class OrderDelivered(Event):
    """The parcel arrived."""

    signed_by: str | None = None


class OrderCancelled(Event):
    """An order was called off before it was shipped."""

    reason: str


class RefundRequested(Event):
    """The shop owes money back."""

    amount: Money
    reason: str


class OrderRefunded(Event):
    """The money that the shop owed was paid back."""

    refund: str
    amount: Money


OrderEvent = (
    OrderPlaced | OrderPaid | OrderShipped | OrderDelivered | OrderCancelled | RefundRequested | OrderRefunded
)


class Order(State[OrderEvent]):
    """An order from basket to doorstep, or back."""

    status: Literal["new", "pending", "paid", "shipped", "delivered", "cancelled"] = "new"
    customer: str = ""
    items: tuple[Item, ...] = ()
    total: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    refund_due: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)

    def place(self, customer: str, items: Iterable[Item]) -> OrderPlaced:
        """Order some items; the total follows from them."""
        self.must_be("new")
        lines = tuple(items)
        if not lines:
            raise Refused("an order needs at least one item")
        twice = [sku for sku, count in Counter(item.sku for item in lines).items() if count > 1]
        if twice:
            raise Refused(f"{twice[0]} is on several lines of the order: put it on one, quantities added up")
        return OrderPlaced(customer=customer, items=lines, total=total_of(lines))

    def pay(self, payment: str, amount: Decimal, method: Method) -> OrderPaid:
        """Take the money, all of it at once."""
        self.must_be("pending")
        if amount != self.total:
            raise Refused(f"the total is {self.total}, not {amount}")
        return OrderPaid(payment=payment, amount=amount, method=method)

    def ship(self, parcel: str, carrier: str, address: str) -> OrderShipped:
        """Hand a paid order to a carrier."""
        self.must_be("paid")
        return OrderShipped(parcel=parcel, carrier=carrier, address=address)

    def ship_home(self, parcel: str, directory: Directory = injected()) -> OrderShipped:
        """Hand a paid order to the shop's own carrier, for where the customer lives now."""
        return self.ship(parcel, "Heron Post", directory.address_of(self.customer))

    def deliver(self, signed_by: str | None = None) -> OrderDelivered:
        """Note that the parcel arrived."""
        self.must_be("shipped")
        return OrderDelivered(signed_by=signed_by)

    def cancel(self, reason: str) -> tuple[OrderCancelled] | tuple[OrderCancelled, RefundRequested]:
        """Call the order off while it is still in the house; what was paid is owed from then on."""
        self.must_be("pending", "paid")
        cancelled = OrderCancelled(reason=reason)
        if not self.paid:
            return (cancelled,)
        return cancelled, RefundRequested(amount=self.paid, reason=reason)

    def request_refund(self, amount: Decimal, reason: str) -> RefundRequested:
        """Ask for money back for a delivered order, all or some."""
        self.must_be("delivered")
        if not 0 < amount <= self.refundable:
            raise Refused(f"{amount} cannot be refunded: between 0.01 and {self.refundable} can")
        return RefundRequested(amount=amount, reason=reason)

    def refund(self, refund: str) -> OrderRefunded:
        """Pay back what is owed."""
        if not self.refund_due:
            raise Refused("nothing is owed on this order: request a refund first")
        return OrderRefunded(refund=refund, amount=self.refund_due)

    @property
    def refundable(self) -> Decimal:
        """What was paid and neither paid back nor owed."""
        return self.paid - self.refunded - self.refund_due

    def evolve(self, event: OrderEvent) -> Self:  # noqa: PLR0911 - a case for each event
        """Return the order after `event`."""
        match event:
            case OrderPlaced(customer=customer, items=items, total=total):
                return self.but(status="pending", customer=customer, items=items, total=total)
            case OrderPaid(amount=amount):
                return self.but(status="paid", paid=amount)
            case OrderShipped():
                return self.but(status="shipped")
            case OrderDelivered():
                return self.but(status="delivered")
            case OrderCancelled():
                return self.but(status="cancelled")
            case RefundRequested(amount=amount):
                return self.but(refund_due=self.refund_due + amount)
            case OrderRefunded(amount=amount):
                return self.but(refund_due=self.refund_due - amount, refunded=self.refunded + amount)


# --- inventory ---------------------------------------------------------------------------------------------


class StockReceived(Event):
    """A supplier's delivery was put on the shelf."""

    sku: Sku
    quantity: Count


class StockReserved(Event):
    """Some of the stock was put aside for an order."""

    sku: Sku
    order: OrderId
    quantity: Count


class StockReleased(Event):
    """What was put aside for an order is free again."""

    sku: Sku
    order: OrderId
    quantity: Count


class StockShipped(Event):
    """What was put aside for an order left the house."""

    sku: Sku
    order: OrderId
    quantity: Count


StockEvent = StockReceived | StockReserved | StockReleased | StockShipped


class Inventory(State[StockEvent]):
    """The stock of one article: what is on the shelf, and which orders have a claim on it."""

    sku: str = ""
    on_hand: Annotated[int, Field(ge=0)] = 0
    reserved: Mapping[str, int] = {}

    def receive(self, sku: str, quantity: int) -> StockReceived:
        """Put a supplier's delivery on the shelf."""
        if self.sku not in ("", sku):
            raise Refused(f"this is the shelf of {self.sku}, not of {sku}")
        return StockReceived(sku=sku, quantity=quantity)

    def reserve(self, order: str, quantity: int) -> StockReserved:
        """Put stock aside for an order, as far as there is enough."""
        if order in self.reserved:
            raise Refused(f"order {order} has {self.reserved[order]} of {self.sku} reserved already")
        if quantity > self.available:
            raise Refused(f"only {self.available} of {self.sku or 'this article'} are free, not {quantity}")
        return StockReserved(sku=self.sku, order=order, quantity=quantity)

    def release(self, order: str) -> StockReleased:
        """Give back what was put aside for an order."""
        return StockReleased(sku=self.sku, order=order, quantity=self.claim(order))

    def ship(self, order: str) -> StockShipped:
        """Take what was put aside for an order out of the house."""
        return StockShipped(sku=self.sku, order=order, quantity=self.claim(order))

    def claim(self, order: str) -> int:
        """Return how many are put aside for an order. Raises Refused if none are."""
        if order not in self.reserved:
            raise Refused(f"nothing of {self.sku or 'this article'} is reserved for order {order}")
        return self.reserved[order]

    @property
    def available(self) -> int:
        """What is on the shelf and not put aside; never negative."""
        return self.on_hand - sum(self.reserved.values())

    def evolve(self, event: StockEvent) -> Self:
        """Return the stock after `event`."""
        match event:
            case StockReceived(sku=sku, quantity=quantity):
                return self.but(sku=sku, on_hand=self.on_hand + quantity)
            case StockReserved(order=order, quantity=quantity):
                return self.but(reserved={**self.reserved, order: quantity})
            case StockReleased(order=order):
                return self.but(reserved=_without(self.reserved, order))
            case StockShipped(order=order, quantity=quantity):
                return self.but(on_hand=self.on_hand - quantity, reserved=_without(self.reserved, order))


def _without(claims: Mapping[str, int], order: str) -> Mapping[str, int]:
    return {key: quantity for key, quantity in claims.items() if key != order}


# --- customers ---------------------------------------------------------------------------------------------


class CustomerRegistered(Event):
    """Somebody opened an account."""

    customer: CustomerId
    name: str
    email: Annotated[str, Tag()]
    address: str


class AddressChanged(Event):
    """A customer moved house."""

    customer: CustomerId
    address: str


class CustomerBlocked(Event):
    """A customer may not order until further notice."""

    customer: CustomerId
    reason: str


class CustomerUnblocked(Event):
    """A customer may order again."""

    customer: CustomerId


CustomerEvent = CustomerRegistered | AddressChanged | CustomerBlocked | CustomerUnblocked


class Customer(State[CustomerEvent]):
    """Who orders, and where the parcels go."""

    status: Literal["new", "active", "blocked"] = "new"
    customer: str = ""
    name: str = ""
    email: str = ""
    address: str = ""

    def register(self, customer: str, name: str, email: str, address: str) -> CustomerRegistered:
        """Open an account."""
        self.must_be("new")
        if "@" not in email:
            raise Refused(f"{email!r} is not an e-mail address: it has no @")
        return CustomerRegistered(customer=customer, name=name, email=email, address=address)

    def move(self, address: str) -> AddressChanged | None:
        """Change the address; nothing happens if it is the same."""
        self.must_be("active", "blocked")
        return None if address == self.address else AddressChanged(customer=self.customer, address=address)

    def block(self, reason: str) -> CustomerBlocked:
        """Stop the customer from ordering."""
        self.must_be("active")
        return CustomerBlocked(customer=self.customer, reason=reason)

    def unblock(self) -> CustomerUnblocked:
        """Let the customer order again."""
        self.must_be("blocked")
        return CustomerUnblocked(customer=self.customer)

    def evolve(self, event: CustomerEvent) -> Self:
        """Return the customer after `event`."""
        match event:
            case CustomerRegistered(customer=customer, name=name, email=email, address=address):
                return self.but(status="active", customer=customer, name=name, email=email, address=address)
            case AddressChanged(address=address):
                return self.but(address=address)
            case CustomerBlocked():
                return self.but(status="blocked")
            case CustomerUnblocked():
                return self.but(status="active")


# --- read models -------------------------------------------------------------------------------------------


class OrderSummary(Row):
    """One order as a clerk wants to see it."""

    order: Key[str]
    customer: str
    status: str
    total: Money
    refunded: Money = Decimal(0)
    placed_at: datetime


class OrderSummaries(Projection[OrderSummary]):
    """All orders, one row each; an order by letter counts as placed when it was written."""

    @on(OrderPlaced)
    def placed(
        self, event: OrderPlaced, rows: Rows[OrderSummary], recorded: RecordedEvent[OrderPlaced]
    ) -> None:
        """Begin a row."""
        at = recorded.occurred_at or recorded.recorded_at
        who, total = event.customer, event.total
        rows.put(OrderSummary(order=recorded.id, customer=who, status="pending", total=total, placed_at=at))

    @on(OrderPaid, OrderShipped, OrderDelivered, OrderCancelled)
    def moved_on(self, event: Event, rows: Rows[OrderSummary], recorded: RecordedEvent[Event]) -> None:
        """Note the status that the event's name says: OrderPaid, paid."""
        if row := rows.get(recorded.id):
            rows.put(row.but(status=event.event_type.removeprefix("Order").lower()))

    @on(OrderRefunded)
    def refunded(
        self, event: OrderRefunded, rows: Rows[OrderSummary], recorded: RecordedEvent[OrderRefunded]
    ) -> None:
        """Add what was paid back."""
        if row := rows.get(recorded.id):
            rows.put(row.but(refunded=row.refunded + event.amount))


class Revenue(SqlProjection):
    """What came in, by way of payment."""

    query = "SELECT method, count(*) AS payments, sum(amount) AS amount FROM OrderPaid GROUP BY method"
    key = ("method",)
    combine = {"payments": "sum", "amount": "sum"}  # noqa: RUF012 - declared, never changed
