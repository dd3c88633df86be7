"""The same orders in esim and in the library `eventsourcing`: five fields, and a nested list of two lines."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from esim import Event, Key, Money, Projection, Row, Rows, State, Value, on

NAMES = ("Placed", "Changed", "Paid", "Shipped", "Closed")


class Line(Value):
    sku: str
    quantity: int
    price: Money


class _Fact(Event):
    customer: str
    lines: tuple[Line, ...]
    total: Money
    note: str
    number: int


class BenchPlaced(_Fact):
    pass


class BenchChanged(_Fact):
    pass


class BenchPaid(_Fact):
    pass


class BenchShipped(_Fact):
    pass


class BenchClosed(_Fact):
    pass


CLASSES = (BenchPlaced, BenchChanged, BenchPaid, BenchShipped, BenchClosed)
BenchFact = BenchPlaced | BenchChanged | BenchPaid | BenchShipped | BenchClosed


class Bench(State[BenchFact]):
    """The last total and note, and how many events there were."""

    customer: str = ""
    total: Decimal = Decimal(0)
    note: str = ""
    count: int = 0

    def evolve(self, event: BenchFact) -> Self:
        match event:
            case BenchPlaced() | BenchChanged() | BenchPaid() | BenchShipped() | BenchClosed():
                return self.but(
                    customer=event.customer, total=event.total, note=event.note, count=self.count + 1
                )


class Total(Row):
    customer: Key[str]
    events: int = 0
    total: Money = Decimal(0)


class Totals(Projection[Total]):
    """Events and money by customer, over every type."""

    @on(*CLASSES)
    def counted(self, event: BenchFact, rows: Rows[Total]) -> None:
        row = rows.get(event.customer) or Total(customer=event.customer)
        rows.put(row.but(events=row.events + 1, total=row.total + event.total))


class PaidTotals(Projection[Total]):
    """The same over one type in five."""

    @on(BenchPaid)
    def counted(self, event: BenchPaid, rows: Rows[Total]) -> None:
        row = rows.get(event.customer) or Total(customer=event.customer)
        rows.put(row.but(events=row.events + 1, total=row.total + event.total))


def facts(count: int, *, start: int = 0) -> list[BenchFact]:
    """Return `count` events, the five types in turn, a hundred customers."""
    return [CLASSES[number % 5](**_values(number)) for number in range(start, start + count)]


def _values(number: int) -> dict[str, Any]:
    price = Decimal(100 + number % 900) / 100
    lines = (Line(sku="mug", quantity=1, price=price), Line(sku="tea", quantity=2, price=price))
    note = f"order number {number}, please ring twice"
    return {
        "customer": f"c-{number % 100}",
        "lines": lines,
        "total": 3 * price,
        "note": note,
        "number": number,
    }


class Peer(Aggregate):
    """The same order, written as the peer's own documentation shows: decorated methods on an aggregate."""

    @event("Created")
    def __init__(self) -> None:
        self.customer, self.total, self.note, self.count = "", Decimal(0), "", 0

    def _take(self, customer: str, total: Decimal, note: str) -> None:
        self.customer, self.total, self.note = customer, total, note
        self.count += 1

    @event("Placed")
    def placed(self, customer: str, lines: list[Any], total: Decimal, note: str, number: int) -> None:
        self._take(customer, total, note)

    @event("Changed")
    def changed(self, customer: str, lines: list[Any], total: Decimal, note: str, number: int) -> None:
        self._take(customer, total, note)

    @event("Paid")
    def paid(self, customer: str, lines: list[Any], total: Decimal, note: str, number: int) -> None:
        self._take(customer, total, note)

    @event("Shipped")
    def shipped(self, customer: str, lines: list[Any], total: Decimal, note: str, number: int) -> None:
        self._take(customer, total, note)

    @event("Closed")
    def closed(self, customer: str, lines: list[Any], total: Decimal, note: str, number: int) -> None:
        self._take(customer, total, note)


_DECISIONS = (Peer.placed, Peer.changed, Peer.paid, Peer.shipped, Peer.closed)


def peer_app(path: Path) -> Application[UUID]:
    """Return the peer's application on an SQLite file, with its defaults."""
    return Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})


def trigger(order: Peer, count: int, *, start: int = 0) -> None:
    """Trigger the same `count` events on the peer's aggregate."""
    for number in range(start, start + count):
        values = _values(number)
        values["lines"] = [dict(line) for line in values["lines"]]
        _DECISIONS[number % 5](order, **values)


def peer_events(app: Application[UUID], page: int = 10_000) -> Iterator[Any]:
    """Give every event of the peer's log, decoded, in order."""
    start = 1
    while True:
        notes = app.recorder.select_notifications(start=start, limit=page)
        yield from map(app.mapper.to_domain_event, notes)
        if len(notes) < page:
            return
        start = notes[-1].id + 1
