"""Half a year in the life of the shop: customers, staff and stock as processes that take real decisions.

A process is a generator that acts through repositories and yields the time at which it goes on; a heap runs
all of them in order of time and sets the store's manual clock before each step. Nothing is drawn but from the
seed, so the same seed gives the same history.
"""

from __future__ import annotations

import heapq
import random
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from esim import shop
from esim.clock import ManualClock
from esim.contract import Store
from esim.envelope import RecordedEvent, caused_by, metadata
from esim.errors import InvalidArgument, Refused
from esim.repository import Repository
from esim.shop import Customer, Inventory, Item, Method, Order

START = datetime(2026, 1, 1, tzinfo=UTC)
CUSTOMERS, DAYS = 2100, 181
"""How many customers register in how many days, unless other figures are given."""

Process = Iterator[datetime]
Cause = RecordedEvent[Any]
Placed = RecordedEvent[shop.OrderPlaced]
Paid = RecordedEvent[shop.OrderPaid]
Shipped = RecordedEvent[shop.OrderShipped]
Delivered = RecordedEvent[shop.OrderDelivered]

_PRICES = """
mug-blue 7.50 mug-white 6.90 teapot 34.00 kettle 49.90 bowl 9.20 plate-deep 8.40 plate-flat 8.10
espresso-cup 5.60 saucer 3.10 spoon-set 18.00 knife-bread 27.50 knife-chef 64.00 board-oak 39.00
pan-24 45.00 pan-28 52.00 pot-3l 58.00 pot-5l 72.00 sieve 11.30 grater 13.70 whisk 8.80 ladle 9.90
apron 24.00 towel-linen 12.50 jar-1l 6.20 jar-2l 8.60 carafe 19.80 glass-water 4.40 glass-wine 7.90
candle 5.20 tray 21.00 salt-mill 32.00 pepper-mill 32.00 scale 29.90 timer 14.90 tea-sencha 12.00
tea-assam 10.50 coffee-1kg 23.90
"""
_WARES = tuple(zip(_PRICES.split()[::2], map(Decimal, _PRICES.split()[1::2]), strict=True))
_GIVEN = "Alice Bjørn Chloé Dmitri Émile Fatma Göran Hanna Ivo Jana Kofi Łukasz María Nguyễn"
_FAMILY = "Achebe Brandão Çelik Dvořák Eriksen Fischer Grünwald Horváth Ivanova Jørgensen Kowalska Lefèvre"
_ODD_NAMES = ("山田 太郎", "Ζωή Παπαδοπούλου", "عمر الخطيب", "Robert <b>Tables</b>", "Anne-Marie d’Aubigné")
_STREETS = ("Kirchweg", "Rue des Lilas", "Station Road", "Calle Mayor", "Storgata", "Ulica Długa", "Via Roma")
_CARRIERS = ("post", "parcel-van", "bike")
_HOURS = (  # how many shop in which hour, from 0:00 UTC
    *(2, 1, 1, 1, 1, 2, 4, 8, 12, 14, 15, 15),
    *(16, 14, 13, 13, 14, 16, 20, 25, 27, 22, 12, 5),
)
_WEEKDAYS = (1.0, 0.95, 0.95, 1.0, 1.05, 1.15, 1.3)  # Monday first
_SALE = datetime(2026, 5, 15, tzinfo=UTC)
_PATIENCE = timedelta(days=6)
_SATURDAY, _ODD_EVERY, _WEDDING, _TOO_OFTEN = 5, 250, 100, 2
_METHODS: tuple[Method, ...] = ("card", "wallet", "bank")
_HOURS_TO_PAY = {"wallet": (0.01, 0.1), "card": (0.03, 0.5), "bank": (20, 100)}
_DETAIL = re.compile("|".join((r"[\d.]*\d", *(sku for sku, _ in _WARES))))


def simulate_shop(
    store: Store, *, seed: int = 7, customers: int = CUSTOMERS, days: int = DAYS
) -> Counter[str]:
    """Let the shop run from 2026-01-01 and record what happens in `store`; return how often what was refused.

    `customers` is how many register in `days` days; orders follow from them. The store's clock must be a
    ManualClock: it is set forward to the moment of each event. A store in memory is by far the fastest.
    Raises InvalidArgument for another clock.
    """
    if not isinstance(store.clock, ManualClock):
        raise InvalidArgument(
            f"the shop sets the time, and {store.clock!r} cannot be set: open the store with a ManualClock"
        )
    house = _Shop(store, store.clock, random.Random(seed))
    house.open(customers, days)
    house.run(START + timedelta(days=days))
    return house.refusals


class _Stage:
    """Runs processes in order of simulated time, and throws the dice for them."""

    def __init__(self, clock: ManualClock, dice: random.Random) -> None:
        self.clock, self.dice = clock, dice
        self.refusals: Counter[str] = Counter()
        self._queue: list[tuple[datetime, int, Process]] = []
        self._turns = count()

    def begin(self, at: datetime, process: Process) -> None:
        """Let a process start at a time."""
        heapq.heappush(self._queue, (at, next(self._turns), process))

    def run(self, until: datetime) -> None:
        """Take every process on, in order of time, up to a moment; what is open then stays open."""
        while self._queue and self._queue[0][0] < until:
            at, _, process = heapq.heappop(self._queue)
            self.clock.set(at)
            with self.refusals_counted():
                self._step(process)

    def _step(self, process: Process) -> None:
        goes_on = next(process, None)
        if goes_on is not None:
            self.begin(goes_on, process)

    @contextmanager
    def refusals_counted(self) -> Iterator[None]:
        """Go on after the block if the shop refuses something in it, and count the refusal."""
        try:
            yield
        except Refused as refusal:
            self.refusals[_DETAIL.sub("…", str(refusal))] += 1

    @property
    def now(self) -> datetime:
        """The simulated time."""
        return self.clock.now()

    def chance(self, share: float) -> bool:
        """Say yes in this share of cases."""
        return self.dice.random() < share

    def within(self, low: float, high: float) -> datetime:
        """Return a moment between `low` and `high` hours from now, in whole seconds."""
        return self.now + timedelta(seconds=int(self.dice.uniform(low, high) * 3600))

    def working(self, at: datetime, opens: int = 7, closes: int = 17) -> datetime:
        """Return the moment itself if people are at work then, or one early on their next working day."""
        if at.weekday() < _SATURDAY and opens <= at.hour < closes:
            return at
        day = _midnight(at + timedelta(days=1 if at.hour >= closes else 0))
        while day.weekday() >= _SATURDAY:
            day += timedelta(days=1)
        return day + timedelta(seconds=self.dice.randrange(opens * 3600, (opens + 3) * 3600))

    def leisure(self, at: datetime) -> datetime:
        """Return a moment on that day or soon after when people shop: more on Sundays and in the evening."""
        day = _midnight(at)
        while not self.chance(_WEEKDAYS[day.weekday()] / max(_WEEKDAYS)):
            day += timedelta(days=1)
        hour = self.dice.choices(range(24), _HOURS)[0]
        return day + timedelta(seconds=hour * 3600 + self.dice.randrange(3600))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


@contextmanager
def _acting(user: str, cause: Cause) -> Iterator[None]:
    """Let a user act because of something, for every event recorded in this block."""
    with caused_by(cause), metadata(user_id=user):
        yield


class _Shop(_Stage):
    """The customers and the staff of the shop; each method that yields is a process."""

    def __init__(self, store: Store, clock: ManualClock, dice: random.Random) -> None:
        super().__init__(clock, dice)
        self.orders = Repository(store, Order)
        self.inventory = Repository(store, Inventory)
        self.customers = Repository(store, Customer)
        self.unpaid: Counter[str] = Counter()
        self._orders, self._payments, self._parcels, self._refunds = count(1), count(1), count(1), count(1)

    def open(self, customers: int, days: int) -> None:
        """Fill the shelves and let the customers come, a quarter of them in the first four weeks."""
        for place, (sku, _) in enumerate(_WARES):
            lot = max(2, customers * 9 // (200 + 12 * place))
            self.begin(START + timedelta(hours=6, minutes=place), self.shelf(sku, lot))
        spans = [28 if self.chance(0.25) else days for _ in range(customers)]
        arrivals = sorted(
            self.leisure(START + timedelta(days=1 + self.dice.randrange(span))) for span in spans
        )
        for number, at in enumerate(arrivals, 1):
            self.begin(at, self.customer(number))

    # --- customers -----------------------------------------------------------------------------------------

    def customer(self, number: int) -> Process:
        """Register, order at once, and come back a few times; a few hardly ever pay."""
        customer = f"c-{number:04}"
        self.register(customer, number)
        careless = self.chance(0.03)
        for _ in range(min(25, int(self.dice.paretovariate(0.85)))):
            yield self.within(0.05, 0.8)
            self.begin(self.now, self.journey(customer, careless=careless))
            yield self.next_visit()

    def register(self, customer: str, number: int) -> None:
        name = f"{self.dice.choice(_GIVEN.split())} {self.dice.choice(_FAMILY.split())}"
        if number % _ODD_EVERY == 0:
            name = _ODD_NAMES[number // _ODD_EVERY % len(_ODD_NAMES)]
        with metadata(user_id=customer):
            email, address = f"{customer}@example.org", self.address()
            self.customers.run(customer, Customer.register, customer, name, email, address)

    def address(self) -> str:
        return f"{self.dice.choice(_STREETS)} {self.dice.randrange(1, 120)}"

    def next_visit(self) -> datetime:
        """Return when a customer comes back, which the sale may bring forward."""
        at = self.now + timedelta(days=self.dice.randrange(2, 60))
        if self.now < _SALE < at and self.chance(0.4):
            at = _SALE
        return self.leisure(at)

    def block(self, customer: str) -> Process:
        with metadata(user_id="accounting"):
            self.customers.run(customer, Customer.block, reason="two orders not paid")
        if self.chance(0.5):
            yield self.working(self.within(300, 900))
            with metadata(user_id="accounting"):
                self.customers.run(customer, Customer.unblock)

    # --- an order from basket to doorstep, or back ---------------------------------------------------------

    def journey(self, customer: str, *, careless: bool) -> Process:
        """Follow one order; a refusal on the way (it was cancelled meanwhile) ends the journey."""
        placed = self.place(customer)
        waiting = self.reserve(placed, placed.event.items)
        if self.chance(0.045):
            self.begin(self.within(0.1, 50), self.change_of_mind(placed))
        paid = yield from self.payment(placed, forgotten=self.chance(0.6 if careless else 0.03))
        shipped = paid and (yield from self.shipping(placed, paid, waiting))
        if shipped and not self.chance(0.004):  # the others are lost on the way
            delivered = yield from self.delivery(shipped)
            yield from self.afterwards(delivered, placed)

    def place(self, customer: str) -> Placed:
        """Order what is in the basket, on the web or, days before it is recorded, by letter."""
        self.customers.load(customer).state.must_be("active")
        number = next(self._orders)
        channel = "mail" if self.chance(0.015) else "web"
        written = self.now - timedelta(days=self.dice.randrange(2, 6), hours=3) if channel == "mail" else None
        journey = f"{channel}-{number}"
        with metadata(correlation_id=journey, user_id=customer, occurred_at=written, channel=channel):
            return self.orders.run(f"o-{number:05}", Order.place, customer, self.basket(number))

    def basket(self, number: int) -> list[Item]:
        """Choose what to order, mostly a line or two, popular wares more often; once for a wedding."""
        lines = 30 if number == _WEDDING else min(6, int(self.dice.expovariate(0.9)) + 1)
        luck = {ware: self.dice.random() ** (1 + place / 12) for place, ware in enumerate(_WARES)}
        chosen = sorted(_WARES, key=luck.__getitem__, reverse=True)[:lines]
        return [Item(sku=sku, quantity=self.quantity(), price=price) for sku, price in chosen]

    def quantity(self) -> int:
        return self.dice.choices((1, 2, 3, 4, 6), (60, 20, 5, 8, 7))[0]

    def reserve(self, placed: Placed, items: Sequence[Item]) -> list[Item]:
        """Put aside what there is, and return what has to wait for a delivery."""
        waiting = list(items)
        for item in items:
            with _acting("shop", placed), self.refusals_counted():
                self.inventory.run(item.sku, Inventory.reserve, order=placed.id, quantity=item.quantity)
                waiting.remove(item)
        return waiting

    def payment(self, placed: Placed, *, forgotten: bool) -> Generator[datetime, None, Paid | None]:
        """Pay within minutes or days, or not at all; now and then too little at first, or once more later."""
        order, total = placed.id, placed.event.total
        if forgotten:
            yield self.working(self.within(7 * 24, 8 * 24))
            self.cancel(placed, "shop", "not paid in seven days")
            self.warn(placed.event.customer)
            return None
        method = self.dice.choices(_METHODS, (60, 25, 15))[0]
        payment = f"p-{next(self._payments):05}"
        yield self.within(*_HOURS_TO_PAY[method])
        with _acting(placed.event.customer, placed):
            if self.chance(0.01):
                self.pay_wrongly(order, payment, total - Decimal("0.50"), method)
            paid = self.orders.run(order, Order.pay, payment, total, method)
            if self.chance(0.015):  # an impatient second click
                self.pay_wrongly(order, payment, total, method)
        return paid

    def pay_wrongly(self, order: str, payment: str, amount: Decimal, method: Method) -> None:
        """Try to pay, in vain."""
        with self.refusals_counted():
            self.orders.run(order, Order.pay, payment, amount, method)

    def warn(self, customer: str) -> None:
        self.unpaid[customer] += 1
        if self.unpaid[customer] == _TOO_OFTEN:
            self.begin(self.working(self.now), self.block(customer))

    def shipping(
        self, placed: Placed, paid: Paid, waiting: list[Item]
    ) -> Generator[datetime, None, Shipped | None]:
        """Wait for what is missing, not for ever; then pack, and send it where the customer lives by then."""
        order, customer, patience = placed.id, placed.event.customer, self.now + _PATIENCE
        yield self.working(self.within(10, 60))
        self.orders.load(order).state.must_be("paid")
        while waiting := self.reserve(placed, waiting):
            if self.now > patience:
                self.cancel(placed, "shop", "out of stock")
                return None
            yield self.working(self.within(20, 28))
            self.orders.load(order).state.must_be("paid")
        if self.chance(0.02):
            with metadata(user_id=customer):
                self.customers.run(customer, Customer.move, address=self.address())
            yield self.working(self.within(1, 20))
        return self.send(placed, paid)

    def send(self, placed: Placed, paid: Paid) -> Shipped:
        """Give the parcel to a carrier, and take its contents off the shelves."""
        parcel, carrier = f"x-{next(self._parcels):05}", self.dice.choices(_CARRIERS, (60, 30, 10))[0]
        packer, address = self.packer(), self.customers.load(placed.event.customer).state.address
        with _acting(packer, paid):
            shipped = self.orders.run(placed.id, Order.ship, parcel, carrier, address)
        with _acting(packer, shipped):
            for item in placed.event.items:
                self.inventory.run(item.sku, Inventory.ship, order=placed.id)
        return shipped

    def packer(self) -> str:
        return f"warehouse-{self.dice.randrange(1, 4)}"

    def delivery(self, shipped: Shipped) -> Generator[datetime, None, Delivered]:
        """Bring the parcel; the post tells so only the next morning."""
        at = self.working(self.within(20, 6.5 * 24), opens=8, closes=20)
        late = shipped.event.carrier == "post" and self.chance(0.1)
        yield _midnight(at) + timedelta(hours=30) if late else at
        with _acting(shipped.event.carrier, shipped), metadata(occurred_at=at if late else None):
            return self.orders.run(shipped.id, Order.deliver)

    def afterwards(self, delivered: Delivered, placed: Placed) -> Process:
        """Send something back now and then, and get the money for it."""
        if not self.chance(0.04):
            return
        yield self.within(10, 12 * 24)
        amount = placed.event.total if self.chance(0.5) else placed.event.items[0].subtotal
        with _acting(placed.event.customer, delivered):
            if self.chance(0.1):
                with self.refusals_counted():
                    self.orders.run(placed.id, Order.request_refund, 2 * amount + 100, "sent back")
            asked = self.orders.run(placed.id, Order.request_refund, amount=amount, reason="sent back")
        yield from self.pay_back(asked)

    def pay_back(self, asked: Cause) -> Process:
        yield self.working(self.within(20, 6 * 24))
        with _acting("accounting", asked):
            self.orders.run(asked.id, Order.refund, refund=f"r-{next(self._refunds):04}")

    def change_of_mind(self, placed: Placed) -> Process:
        """Cancel at the customer's wish."""
        self.cancel(placed, placed.event.customer, "changed my mind")
        yield from ()

    def cancel(self, placed: Placed, user: str, reason: str) -> None:
        """Call an order off, free its stock, and see to the refund if it was paid."""
        with _acting(user, placed):
            facts = self.orders.run(placed.id, Order.cancel, reason=reason)
        with _acting("shop", facts[0]):
            for item in placed.event.items:
                if placed.id in self.inventory.load(item.sku).state.reserved:
                    self.inventory.run(item.sku, Inventory.release, order=placed.id)
        if len(facts) > 1:
            self.begin(self.now, self.pay_back(facts[1]))

    # --- stock ---------------------------------------------------------------------------------------------

    def shelf(self, sku: str, lot: int) -> Process:
        """Receive a lot, wait until it runs low, order another, which takes days to come."""
        while True:
            with metadata(user_id=self.packer()):
                self.inventory.run(sku, Inventory.receive, sku=sku, quantity=lot + self.dice.randrange(lot))
            while self.inventory.load(sku).state.available > lot // 3:
                yield self.working(self.within(20, 26))
            yield self.working(self.within(48, 9 * 24))
