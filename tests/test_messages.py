"""Commands as messages, the dispatcher that carries them out, and queries that read what was written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, Self

import pytest

from esim.envelope import caused_by
from esim.errors import InvalidArgument, InvalidEvent, NotCaughtUp, Refused
from esim.event import Event
from esim.memory import MemoryStore
from esim.messages import Command, Dispatcher, command, command_class, injected
from esim.projection import Key, Projection, Row, SqlProjection, on
from esim.state import State
from esim.store import EventStore
from esim.value import Money


class Prices:
    """What a thing costs today."""

    def __init__(self, **prices: str) -> None:
        self.prices = prices

    def of(self, sku: str) -> Decimal:
        return Decimal(self.prices[sku])


class Ordered(Event):
    sku: str
    total: Money


class Settled(Event):
    amount: Money
    method: Literal["card", "bank"]


class Purchase(State[Ordered | Settled]):
    total: Decimal = Decimal(0)
    paid: bool = False

    def order(self, sku: str, quantity: int = 1, prices: Prices = injected()) -> Ordered:
        """Order a thing at today's price."""
        return Ordered(sku=sku, total=quantity * prices.of(sku))

    def settle_up(self, amount: Decimal, method: Literal["card", "bank"] = "card") -> Settled:
        if self.paid:
            raise Refused("it is paid already")
        return Settled(amount=amount, method=method)

    def twice(self) -> tuple[Settled, Settled]:
        return (self.settle_up(Decimal(1)), self.settle_up(Decimal(2)))

    def nothing(self) -> Settled | None:
        return None

    def vague(self, what) -> None: ...

    def open_ended(self, *what: str) -> None: ...

    def about(self, id: str) -> None: ...

    def evolve(self, event: Ordered | Settled) -> Self:
        match event:
            case Ordered(total=total):
                return self.but(total=total)
            case Settled():
                return self.but(paid=True)


class Due(Row):
    id: Key[str]
    total: Money


class Dues(Projection[Due]):
    @on(Ordered)
    def ordered(self, event, rows, recorded):
        rows.put(Due(id=recorded.id, total=event.total))


class Income(SqlProjection):
    query = "select method, sum(amount) as amount from Settled group by 1"
    key = ("method",)


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request):
    """An empty store of each kind that lives in memory."""
    with request.param() as opened:
        yield opened


@pytest.fixture
def desk(store):
    """A dispatcher with a price list."""
    return Dispatcher(store, provides=[Prices(mug="7.50", tea="3.20")])


Order, Settle = command(Purchase.order), command(Purchase.settle_up)


def test_a_command_has_the_decisions_own_parameters_and_the_id():
    assert Order.__name__ == "OrderPurchase"
    assert Settle.__name__ == "SettleUpPurchase"
    assert list(Order.__pydantic_fields__) == ["id", "sku", "quantity"]
    assert Order.__doc__ == "Order a thing at today's price."
    assert Order("p-1", sku="mug").quantity == 1
    assert Order("p-1", "mug", 3) == Order("p-1", sku="mug", quantity=3)
    with pytest.raises(InvalidEvent, match="'sku' is missing"):
        Order("p-1")
    with pytest.raises(InvalidEvent, match="method"):
        Settle("p-1", amount=Decimal(1), method="cash")


def test_a_command_comes_back_from_its_json():
    asked = Settle("p-1", amount=Decimal("7.50"), method="bank")
    text = asked.model_dump_json()
    assert command_class("SettleUpPurchase").model_validate_json(text) == asked


def test_a_dispatcher_carries_out_commands_and_hands_in_what_they_need(store, desk):
    (ordered,) = desk.send(Order("p-1", sku="mug", quantity=2))
    assert ordered.event == Ordered(sku="mug", total=Decimal("15.00"))
    assert [one.event.amount for one in desk.send(command(Purchase.twice)("p-1"))] == [1, 2]
    assert len(desk.send(command(Purchase.nothing)("p-1"))) == 0
    assert store.version("Purchase/p-1") == 3


def test_a_refusal_reaches_who_sent_the_command_and_nothing_is_recorded(store, desk):
    desk.send(Settle("p-1", amount=Decimal(1)))
    with pytest.raises(Refused, match="paid already"):
        desk.send(Settle("p-1", amount=Decimal(1)))
    assert store.position == 1


def test_a_command_sent_again_under_its_key_does_nothing_more(store, desk):
    first = desk.send(Settle("p-1", amount=Decimal(1)), key="pay p-1")
    again = desk.send(Settle("p-1", amount=Decimal(1)), key="pay p-1")
    assert list(first) == list(again)
    assert first[0].causation_id == "pay p-1"
    both = desk.send(command(Purchase.twice)("p-2"), key="two")
    assert list(desk.send(command(Purchase.twice)("p-2"), key="two")) == list(both)
    assert store.position == 3


def test_the_correlation_of_who_sends_goes_on(store, desk):
    cause = desk.send(Order("p-1", sku="tea"))[0]
    with caused_by(cause):
        paid = desk.send(Settle("p-1", amount=Decimal(3)))[0]
    assert paid.causation_id == str(cause.event_id)


def test_what_nobody_provides_is_named(store):
    with pytest.raises(InvalidArgument, match=r"needs prices, a Prices, .*provides=\[prices\]"):
        Dispatcher(store).send(Order("p-1", sku="mug"))
    assert store.position == 0
    with pytest.raises(InvalidArgument, match="nobody handed in"):
        Purchase().order("mug")


def test_two_that_could_be_meant_are_named(store):
    desk = Dispatcher(store, provides=[Prices(mug="7.50"), Prices(tea="3.20")])
    with pytest.raises(InvalidArgument, match="provides 2: which one is meant"):
        desk.send(Order("p-1", sku="mug"))


def test_a_command_takes_no_more_arguments_than_its_decision():
    with pytest.raises(InvalidArgument, match=r"takes 2 arguments after the id .*, and here are 3"):
        Order("p-1", "mug", 1, "tea")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Purchase.vague, "'what' has no type"),
        (Purchase.open_ended, r"takes \*what"),
        (Purchase.about, "'id'"),
        (len, "no decision"),
        ("order", "no decision"),
        (test_what_nobody_provides_is_named, "belongs to no State"),
    ],
)
def test_what_is_no_decision_of_named_parameters_makes_no_command(wrong, told):
    with pytest.raises(InvalidArgument, match=told):
        command(wrong)


def test_what_is_no_command_is_not_carried_out(desk):
    with pytest.raises(InvalidArgument, match=r"command\(Order.pay\)"):
        desk.send("pay")
    with pytest.raises(InvalidArgument, match="did you mean 'OrderPurchase'"):
        command_class("OrderPurchas")


def test_a_query_shows_what_is_stored_and_on_request_what_was_just_written(store, desk):
    desk.send(Order("p-1", sku="mug"))
    assert desk.ask(Dues, "p-1").total == Decimal("7.50")
    second = desk.send(Order("p-2", sku="tea"))
    assert desk.ask(Dues, "p-2") is None
    assert len(desk.ask(Dues)) == 1
    assert desk.ask(Dues, "p-2", after=second).total == Decimal("3.20")
    assert len(desk.ask(Dues, after=store.position)) == 2


def test_a_query_of_sql_answers_alike(desk):
    desk.send(Settle("p-1", amount=Decimal(5)))
    assert desk.ask(Income, "card") == {"method": "card", "amount": Decimal("5.00")}
    paid = desk.send(Settle("p-2", amount=Decimal(6)))
    assert desk.ask(Income, "card")["amount"] == 5
    assert desk.ask(Income, "card", after=paid)["amount"] == 11


def test_a_query_for_what_is_not_written_yet_is_told(desk):
    with pytest.raises(NotCaughtUp, match="position 5"):
        desk._models.setdefault(Dues, Dues(desk.store)).wait_for(5, timeout=0)
    wrong: Any = "dues"
    with pytest.raises(InvalidArgument, match="no projection"):
        desk.ask(wrong)


def test_a_decision_that_is_defined_anew_is_carried_out_as_it_is_now(store):
    namespace: dict[str, Any] = {"__name__": __name__, "State": State, "Settled": Settled, "Decimal": Decimal}
    source = """
class Till(State[Settled]):
    def take(self) -> Settled:
        return Settled(amount=Decimal({amount}), method="card")
    def evolve(self, event: Settled):
        return self
"""
    exec(source.format(amount=1), namespace)
    take, desk = command(namespace["Till"].take), Dispatcher(store)
    desk.send(take("t"))
    exec(source.format(amount=2), namespace)
    assert desk.send(take("t"))[0].event.amount == 2
    assert issubclass(take, Command)
