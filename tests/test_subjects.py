"""What a specification can ask: handlers and process managers, and kinds of one's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from esim import subjects
from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument, SpecFailed
from esim.event import Event
from esim.process import Deadline, DeadlinePassed, Met, Process, ProcessManager
from esim.projection import Key, Row, Rows, on
from esim.shop import Item, OrderPaid, OrderPlaced, StockReserved
from esim.shop_checkout import CheckoutManager, Mailbox, ReserveStock, ShipOrder
from esim.spec import called, given
from esim.subjects import Outcome


class Opened(Event):
    owner: str


class Closed(Event):
    owner: str


class Count(Row):
    owner: Key[str]
    number: int = 0


SENT: list[tuple[str, int]] = []


def send_mail(to: str, number: int = 1) -> str:
    SENT.append((to, number))
    return "sent"


def welcome(event: Opened, effects: Effects, recorded: RecordedEvent[Opened]) -> None:
    effects.call(send_mail, event.owner, number=recorded.position)


async def welcome_later(event: Opened, effects: Effects) -> None:
    effects.call(send_mail, event.owner)


def count(event: Opened | Closed, rows: Rows[Count]) -> None:
    row = rows.get(event.owner) or Count(owner=event.owner)
    rows.put(row.but(number=row.number + 1))


class Reminder(Process):
    opened: int = 0


class Remind(ProcessManager[Reminder]):
    @on(Opened)
    def opened(self, event, process):
        return process.but(opened=process.opened + 1), Deadline("close", days=1, seconds=5)

    @on(Closed)
    def closed(self, event, process):
        return Met("close")

    @on(DeadlinePassed)
    def passed(self, event, process): ...


def test_the_calls_of_a_handler_are_noted_and_not_done():
    SENT.clear()
    asked = given(Opened(owner="ann")).when(welcome, Opened(owner="bob"))
    held = asked.then(called(send_mail, "bob", number=2))
    assert SENT == []
    assert repr(held).endswith("called(send_mail, to='bob', number=2)>")
    assert "called(send_mail, to=&#x27;bob&#x27;, number=2)" in held._repr_html_()
    given(Opened(owner="ann")).when(welcome_later).then(called(send_mail, to="ann"))
    given(Closed(owner="ann")).when(welcome).then_nothing()


def test_a_call_that_did_not_come_is_told_with_what_came():
    with pytest.raises(SpecFailed, match=r"expected called\(send_mail, to='eve'.*came called\(.*'bob'"):
        given().when(welcome, Opened(owner="bob")).then(called(send_mail, "eve", number=1))
    with pytest.raises(SpecFailed, match=r"from esim\.spec import called"):
        given().when(welcome, Opened(owner="bob")).then(called(send_mail, "eve"))
    assert called(send_mail, "ann") != called(send_mail, "bob")
    assert len({called(send_mail, "ann"), called(send_mail, to="ann")}) == 1


def test_the_rows_of_a_handler_are_those_after_all_events():
    events = Opened(owner="ann"), Closed(owner="ann"), Opened(owner="bob")
    given(*events).when(count).then(Count(owner="bob", number=1), Count(owner="ann", number=2))
    given(*events[:2]).when(count, events[2]).then(Count(owner="ann", number=2), Count(owner="bob", number=1))


def test_a_process_manager_answers_what_happens_now():
    order = OrderPlaced(
        customer="ann", items=(Item(sku="mug", quantity=2, price=Decimal(3)),), total=Decimal(6)
    )
    paid = OrderPaid(payment="p-1", amount=Decimal(6), method="card")
    placed = ("Order/o-1", order)
    reserved = ("Inventory/mug", StockReserved(sku="mug", order="o-1", quantity=2))
    given(placed).when(CheckoutManager).then(
        ReserveStock("mug", order="o-1", quantity=2), Deadline("payment", hours=24)
    )
    held = (
        given(placed, reserved)
        .when(CheckoutManager, ("Order/o-1", paid))
        .then(Met("payment"), ShipOrder("o-1", parcel="parcel o-1"))
    )
    assert "from esim.shop_checkout import CheckoutManager, ShipOrder" in held.program()
    given(placed).when(CheckoutManager, reserved).then_nothing()


def test_the_program_of_a_specification_can_be_pasted():
    held = given(("Box/b-1", Opened(owner="ann"))).when(Remind, ("Box/b-1", Closed(owner="ann")))
    scope: dict[str, Any] = {"Remind": Remind}
    exec(held.then(Met("close")).program().replace("from tests", "# from tests"), globals(), scope)
    given(("Box/b-1", Opened(owner="ann"))).when(Remind).then(Deadline("close", days=1, seconds=5))
    assert repr(Deadline("x", hours=36)) == "Deadline('x', hours=36)"
    assert repr(Deadline("x", days=1, seconds=5)) == "Deadline('x', days=1, seconds=5)"
    assert repr(Deadline("x", microseconds=7)) == "Deadline('x', microseconds=7)"


def test_after_a_handler_come_events_and_nothing_else():
    with pytest.raises(InvalidArgument, match="'ann' did not happen"):
        given().when(welcome, "ann")
    with pytest.raises(InvalidArgument, match="welcome takes no owner=…"):
        given().when(welcome, owner="ann")
    with pytest.raises(InvalidArgument, match="reacts to nothing"):
        given().when(7)
    with pytest.raises(InvalidArgument, match="asks for 'other'"):
        given().when(wrong, Opened(owner="ann"))


def wrong(event: Opened, other: int) -> None: ...


def test_what_a_handler_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        given().when(broken, Opened(owner="ann"))


def broken(event: Opened) -> None:
    _ = 1 / 0


def test_methods_of_objects_are_asked_too():
    box, paid = Mailbox(), OrderPaid(payment="p", amount=Decimal("7.50"), method="card")
    asked = given().when(box.write, ("Order/o-1", paid))
    asked.then(called(box.send_mail, "o-1", text="we have received your 7.50"))
    assert box.sent == []


def test_another_kind_of_subject_plugs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module registers how its own subjects are asked; the rest stays as it is."""
    monkeypatch.setattr(subjects, "_kinds", list(subjects._kinds))

    class Upper:
        def __repr__(self) -> str:
            return "UPPER"

    @subjects.kind(lambda subject: isinstance(subject, Upper))
    def upper(scene: Any, subject: Upper, args: Any, kwargs: Any) -> Outcome:
        return Outcome(tuple(one.event.but(owner=one.event.owner.upper()) for one in scene.events))

    given(Opened(owner="ann")).when(Upper()).then(Opened(owner="ANN"))
    with pytest.raises(SpecFailed, match=r"Opened\.owner: expected 'bob', came 'ANN'"):
        given(Opened(owner="ann")).when(Upper()).then(Opened(owner="bob"))
