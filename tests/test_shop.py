"""The shop's life cycle, told as specifications: given these facts, when this is asked, then that follows."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from esim.clock import ManualClock
from esim.envelope import NewEvent, metadata
from esim.errors import InvalidEvent, Refused
from esim.event import Event, tags_of
from esim.repository import Repository
from esim.shop import (
    AddressChanged,
    Customer,
    CustomerBlocked,
    CustomerRegistered,
    CustomerUnblocked,
    Inventory,
    Item,
    Order,
    OrderCancelled,
    OrderDelivered,
    OrderPaid,
    OrderPlaced,
    OrderRefunded,
    OrderShipped,
    OrderSummaries,
    OrderSummary,
    RefundRequested,
    Revenue,
    StockReceived,
    StockReleased,
    StockReserved,
    StockShipped,
    total_of,
)
from esim.spec import given
from esim.state import fold
from esim.store import EventStore

MUGS = Item(sku="mug", quantity=2, price=Decimal("7.50"))
TEAPOT = Item(sku="teapot", quantity=1, price=Decimal("34.00"))
TOTAL = Decimal("49.00")
placed = OrderPlaced(customer="c-1", items=(MUGS, TEAPOT), total=TOTAL)
paid = OrderPaid(payment="p-1", amount=TOTAL, method="card")
shipped = OrderShipped(parcel="x-1", carrier="post", address="Storgata 1")
delivered = OrderDelivered(signed_by="Zoë")
cancelled = OrderCancelled(reason="too late")
owed = RefundRequested(amount=TOTAL, reason="too late")
refunded = OrderRefunded(refund="r-1", amount=TOTAL)


# --- orders ------------------------------------------------------------------------------------------------


def test_placing_adds_up_the_total() -> None:
    """The total of a new order follows from its items."""
    given().when(Order.place, customer="c-1", items=[MUGS, TEAPOT]).then(placed)


def test_an_order_is_placed_once() -> None:
    """The same order cannot be placed again."""
    given(placed).when(Order.place, customer="c-1", items=[MUGS]).then_refused(
        "the order is pending, not new"
    )


def test_an_order_needs_items() -> None:
    """An empty basket is no order."""
    given().when(Order.place, customer="c-1", items=[]).then_refused("an order needs at least one item")


def test_an_article_stands_on_one_line() -> None:
    """Two lines of one article are refused, because stock is reserved per article and order."""
    given().when(Order.place, customer="c-1", items=[MUGS, MUGS]).then_refused("mug is on several lines")


def test_paying_the_total() -> None:
    """A pending order takes its total."""
    pay = {"payment": "p-1", "amount": TOTAL, "method": "card"}
    given(placed).when(Order.pay, **pay).then(paid)


def test_paying_another_amount() -> None:
    """Anything but the total is refused, with both amounts."""
    pay = {"payment": "p-1", "amount": Decimal("48.50"), "method": "bank"}
    given(placed).when(Order.pay, **pay).then_refused("the total is 49.00, not 48.50")


@pytest.mark.parametrize(
    ("before", "status"),
    [
        ([], "new"),
        ([placed, paid], "paid"),
        ([placed, paid, shipped], "shipped"),
        ([placed, cancelled], "cancelled"),
    ],
)
def test_only_a_pending_order_is_paid(before: list[Event], status: str) -> None:
    """Paying too early, twice or too late is refused in the words of the status."""
    pay = {"payment": "p-2", "amount": TOTAL, "method": "card"}
    given(*before).when(Order.pay, **pay).then_refused(f"the order is {status}, not pending")


def test_shipping_a_paid_order() -> None:
    """What is paid goes out."""
    ship = {"parcel": "x-1", "carrier": "post", "address": "Storgata 1"}
    given(placed, paid).when(Order.ship, **ship).then(shipped)


def test_an_unpaid_order_stays_here() -> None:
    """No parcel leaves before the money is in."""
    ship = {"parcel": "x-1", "carrier": "post", "address": "Storgata 1"}
    given(placed).when(Order.ship, **ship).then_refused("the order is pending, not paid")


def test_delivering_a_shipped_order() -> None:
    """A parcel on its way arrives."""
    given(placed, paid, shipped).when(Order.deliver, signed_by="Zoë").then(delivered)


def test_what_was_not_sent_cannot_arrive() -> None:
    """Delivery needs a parcel."""
    given(placed, paid).when(Order.deliver).then_refused("the order is paid, not shipped")


def test_cancelling_an_unpaid_order() -> None:
    """Nothing is owed where nothing was paid."""
    given(placed).when(Order.cancel, reason="too late").then(cancelled)


def test_cancelling_a_paid_order_leads_to_a_refund() -> None:
    """Both facts come from one decision, so both are recorded or neither."""
    given(placed, paid).when(Order.cancel, reason="too late").then(cancelled, owed)


@pytest.mark.parametrize(
    ("before", "status"),
    [([placed, paid, shipped], "shipped"), ([placed, paid, shipped, delivered], "delivered"), ([], "new")],
)
def test_what_is_sent_cannot_be_cancelled(before: list[Event], status: str) -> None:
    """Only an order that is still in the house can be called off."""
    refusal = f"the order is {status}, not pending or paid"
    given(*before).when(Order.cancel, reason="too late").then_refused(refusal)


def test_paying_back_what_is_owed() -> None:
    """A refund pays exactly what was requested."""
    given(placed, paid, cancelled, owed).when(Order.refund, refund="r-1").then(refunded)


@pytest.mark.parametrize("before", [[placed, paid], [placed, paid, cancelled, owed, refunded]])
def test_nothing_is_paid_back_twice(before: list[Event]) -> None:
    """Without a debt there is no refund."""
    given(*before).when(Order.refund, refund="r-2").then_refused("nothing is owed on this order")


def test_some_money_back_for_a_delivered_order() -> None:
    """A customer who sends the mugs back gets their price."""
    part = RefundRequested(amount=Decimal("15.00"), reason="chipped")
    ask = {"amount": Decimal("15.00"), "reason": "chipped"}
    given(placed, paid, shipped, delivered).when(Order.request_refund, **ask).then(part)


@pytest.mark.parametrize("amount", [Decimal("34.01"), Decimal(0), Decimal(-5)])
def test_no_more_back_than_was_paid(amount: Decimal) -> None:
    """What is owed already counts against what can still be asked for."""
    part = RefundRequested(amount=Decimal("15.00"), reason="chipped")
    before = (placed, paid, shipped, delivered, part)
    refusal = f"{amount} cannot be refunded: between 0.01 and 34.00 can"
    given(*before).when(Order.request_refund, amount=amount, reason="all chipped").then_refused(refusal)


def test_a_refund_needs_a_delivery() -> None:
    """Before that, an order is cancelled instead."""
    ask = {"amount": Decimal(1), "reason": "chipped"}
    given(placed, paid).when(Order.request_refund, **ask).then_refused("the order is paid, not delivered")


def test_the_money_of_an_order_adds_up() -> None:
    """What was paid is kept, owed or paid back."""
    order = fold(Order, [placed, paid, cancelled, owed])
    assert [order.paid, order.refund_due, order.refunded, order.refundable] == [TOTAL, TOTAL, 0, 0]
    order = fold(Order, [refunded], initial=order)
    assert [order.paid, order.refund_due, order.refunded, order.refundable] == [TOTAL, 0, TOTAL, 0]


def test_a_wrong_total_is_no_event() -> None:
    """An order event whose items and total disagree cannot be made at all."""
    with pytest.raises(
        InvalidEvent, match=r"cannot be made: the items add up to 49\.00, but the total says 50"
    ):
        placed.but(total=Decimal(50))


def test_lines_are_exact() -> None:
    """Subtotals and totals are Decimals, to the cent."""
    thirds = [Item(sku=f"s-{n}", quantity=3, price=Decimal("0.10")) for n in range(3)]
    assert thirds[0].subtotal == Decimal("0.30")
    assert total_of(thirds) == Decimal("0.90")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"quantity": 0}, "quantity"), ({"price": 7.5}, "floats lose cents"), ({"price": Decimal(-1)}, "price")],
)
def test_an_impossible_line_is_refused(wrong: dict[str, object], says: str) -> None:
    """No line without articles, with a float for money, or with a negative price."""
    with pytest.raises(InvalidEvent, match=says):
        MUGS.but(**wrong)


# --- inventory ---------------------------------------------------------------------------------------------

stock = StockReceived(sku="mug", quantity=5)
reserved = StockReserved(sku="mug", order="o-1", quantity=2)


def test_receiving_stock() -> None:
    """A delivery goes on the shelf, the first as well as the next."""
    given().when(Inventory.receive, sku="mug", quantity=5).then(stock)
    given(stock).when(Inventory.receive, sku="mug", quantity=5).then(stock)


def test_each_article_has_its_own_shelf() -> None:
    """A teapot does not go where the mugs are."""
    refusal = "this is the shelf of mug, not of teapot"
    given(stock).when(Inventory.receive, sku="teapot", quantity=1).then_refused(refusal)


def test_reserving_stock() -> None:
    """What is free can be put aside."""
    given(stock).when(Inventory.reserve, order="o-1", quantity=2).then(reserved)


def test_reserved_stock_is_not_free() -> None:
    """What is put aside for one order is not there for another: stock never falls below zero."""
    refusal = "only 3 of mug are free, not 4"
    given(stock, reserved).when(Inventory.reserve, order="o-2", quantity=4).then_refused(refusal)


def test_an_unknown_article_is_not_free() -> None:
    """Nothing can be reserved before the first delivery."""
    given().when(Inventory.reserve, order="o-1", quantity=1).then_refused("only 0 of this article are free")


def test_an_order_reserves_once() -> None:
    """A second reservation of the same order is refused: its line is reserved as a whole."""
    refusal = "order o-1 has 2 of mug reserved already"
    given(stock, reserved).when(Inventory.reserve, order="o-1", quantity=1).then_refused(refusal)


def test_releasing_and_shipping_take_the_claim() -> None:
    """Both give the quantity that was put aside."""
    given(stock, reserved).when(Inventory.release, order="o-1").then(
        StockReleased(sku="mug", order="o-1", quantity=2)
    )
    given(stock, reserved).when(Inventory.ship, order="o-1").then(
        StockShipped(sku="mug", order="o-1", quantity=2)
    )


def test_what_is_not_reserved_stays() -> None:
    """Without a claim nothing is released or shipped."""
    refusal = "nothing of mug is reserved for order o-2"
    given(stock, reserved).when(Inventory.release, order="o-2").then_refused(refusal)
    given(stock, reserved).when(Inventory.ship, order="o-2").then_refused(refusal)


def test_stock_adds_up() -> None:
    """Released stock is free again, shipped stock is gone."""
    back = fold(Inventory, [stock, reserved, StockReleased(sku="mug", order="o-1", quantity=2)])
    gone = fold(Inventory, [stock, reserved, StockShipped(sku="mug", order="o-1", quantity=2)])
    assert (back.on_hand, back.available, dict(back.reserved)) == (5, 5, {})
    assert (gone.on_hand, gone.available, dict(gone.reserved)) == (3, 3, {})


# --- customers ---------------------------------------------------------------------------------------------

known = CustomerRegistered(customer="c-1", name="Zoë", email="zoe@example.org", address="Storgata 1")
blocked = CustomerBlocked(customer="c-1", reason="two orders not paid")


def test_registering() -> None:
    """Somebody new opens an account."""
    account = {"customer": "c-1", "name": "Zoë", "email": "zoe@example.org", "address": "Storgata 1"}
    given().when(Customer.register, **account).then(known)
    given(known).when(Customer.register, **account).then_refused("the customer is active, not new")


def test_an_address_for_mail_is_needed() -> None:
    """What is no e-mail address is refused."""
    account = {"customer": "c-1", "name": "Zoë", "email": "zoe", "address": "Storgata 1"}
    given().when(Customer.register, **account).then_refused("'zoe' is not an e-mail address")


def test_moving_house() -> None:
    """A new address is a fact, the same one is none; blocked customers move as well."""
    moved = AddressChanged(customer="c-1", address="Via Roma 2")
    given(known).when(Customer.move, address="Via Roma 2").then(moved)
    given(known, blocked).when(Customer.move, address="Via Roma 2").then(moved)
    given(known, moved).when(Customer.move, address="Via Roma 2").then_nothing()


def test_strangers_do_not_move() -> None:
    """An account comes first."""
    given().when(Customer.move, address="Via Roma 2").then_refused(
        "the customer is new, not active or blocked"
    )


def test_blocking_and_unblocking() -> None:
    """Each follows on the other only."""
    given(known).when(Customer.block, reason="two orders not paid").then(blocked)
    given(known, blocked).when(Customer.block, reason="again").then_refused(
        "the customer is blocked, not active"
    )
    given(known, blocked).when(Customer.unblock).then(CustomerUnblocked(customer="c-1"))
    given(known).when(Customer.unblock).then_refused("the customer is active, not blocked")


def test_unblocked_customers_are_active() -> None:
    """The last word counts."""
    assert fold(Customer, [known, blocked, CustomerUnblocked(customer="c-1")]).status == "active"


# --- tags and read models ----------------------------------------------------------------------------------


def test_conditions_find_what_they_need_by_tags() -> None:
    """Customers, payments, e-mail addresses, articles and orders can be asked for by tag."""
    assert tags_of(placed) == ("customer:c-1",)
    assert tags_of(paid) == ("payment:p-1",)
    assert tags_of(known) == ("customer:c-1", "email:zoe@example.org")
    assert tags_of(reserved) == ("sku:mug", "order:o-1")


def test_summaries_show_each_order() -> None:
    """One row an order: status, money, and when it was placed, which for a letter is when it was written."""
    store = EventStore(clock=ManualClock("2026-01-05T09:00:00Z"))
    written = datetime(2026, 1, 2, 8, tzinfo=UTC)
    store.append("Order/o-1", [NewEvent(placed, occurred_at=written), paid, cancelled, owed, refunded])
    store.append("Order/o-2", [placed, paid, shipped, delivered])
    rows = OrderSummaries(store).df().set_index("order")
    assert rows["status"].to_dict() == {"o-1": "cancelled", "o-2": "delivered"}
    assert rows["refunded"].to_dict() == {"o-1": Decimal("49.00"), "o-2": Decimal("0.00")}
    assert rows["placed_at"].to_dict() == {"o-1": written, "o-2": store.clock.now()}


def test_summaries_follow_an_order_to_the_end() -> None:
    """Events of one order change its row only, however often they are delivered."""
    first = OrderSummary(
        order="o-1",
        customer="c-1",
        status="delivered",
        total=TOTAL,
        placed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    story = [("Order/o-1", event) for event in (placed, paid, shipped, delivered)]
    given(*story, ("Order/o-2", placed)).when(OrderSummaries).then(
        first, first.but(order="o-2", status="pending")
    )


def test_revenue_by_way_of_payment() -> None:
    """What came in is counted and summed per method, as it comes in."""
    store = EventStore()
    revenue = Revenue(store)
    for number, method in enumerate(("card", "card", "bank")):
        store.append(f"Order/o-{number}", [placed, paid.but(payment=f"p-{number}", method=method)])
        revenue.catch_up()
    rows = revenue.df().set_index("method")
    assert rows["payments"].to_dict() == {"bank": 1, "card": 2}
    assert rows["amount"].to_dict() == {"bank": Decimal("49.00"), "card": Decimal("98.00")}


def test_a_day_in_the_shop() -> None:
    """The decisions run through repositories, and what they recorded tells the story."""
    store = EventStore(clock=ManualClock("2026-01-05T09:00:00Z"))
    orders, inventory = Repository(store, Order), Repository(store, Inventory)
    inventory.run("mug", Inventory.receive, sku="mug", quantity=3)
    with metadata(user_id="c-1", correlation_id="web-1"):
        orders.run("o-1", Order.place, customer="c-1", items=[MUGS])
        inventory.run("mug", Inventory.reserve, order="o-1", quantity=2)
        orders.run("o-1", Order.pay, payment="p-1", amount=Decimal(15), method="wallet")
        with pytest.raises(Refused, match="only 1 of mug are free"):
            inventory.run("mug", Inventory.reserve, order="o-2", quantity=2)
    assert [recorded.type for recorded in store.read(tag="order:o-1")] == ["StockReserved"]
    assert {recorded.correlation_id for recorded in store.read(after=1)} == {"web-1"}
    assert inventory.load("mug").state.available == 1
