"""Process managers: reactions, commands, deadlines, compensation, and crashes anywhere in between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import wraps
from itertools import islice
from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.envelope import metadata
from esim.errors import InvalidArgument
from esim.event import Event
from esim.memory import MemoryStore
from esim.messages import Dispatcher
from esim.process import CommandRefused, Deadline, DeadlinePassed, Due, Met, Process, ProcessManager
from esim.projection import on
from esim.repository import Repository
from esim.shop import Customer, Inventory, Item, Order, OrderPlaced, StockReserved
from esim.shop_checkout import (
    CancelOrder,
    Checkout,
    CheckoutManager,
    DailySales,
    HomesDirectory,
    Mailbox,
    ReserveStock,
    checkout_manager,
)
from esim.spec import given
from esim.store import EventStore
from esim.subscription import Subscription

MUG = Item(sku="mug", quantity=2, price=Decimal("7.50"))
TEA = Item(sku="tea", quantity=1, price=Decimal("3.20"))


class Shop:
    """A small shop with stock, one customer, and its checkout."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.orders, self.stock = Repository(store, Order), Repository(store, Inventory)
        people = Repository(store, Customer)
        people.run("ann", Customer.register, customer="ann", name="Ann", email="a@b.c", address="Lane 1")
        for sku in ("mug", "tea"):
            self.stock.run(sku, Inventory.receive, sku=sku, quantity=5)
        self.checkout = checkout_manager(store)

    def place(self, id: str = "o-1", *items: Item) -> None:
        self.orders.run(id, Order.place, customer="ann", items=items or (MUG, TEA))

    def pay(self, id: str = "o-1") -> None:
        total = self.orders.load(id).state.total
        self.orders.run(id, Order.pay, payment=f"p {id}", amount=total, method="card")

    def status(self, id: str = "o-1") -> tuple[str, str]:
        row = self.checkout.df().set_index("id").loc[id]
        return row.status, self.orders.load(id).state.status

    def free(self) -> tuple[int, int]:
        return self.stock.load("mug").state.available, self.stock.load("tea").state.available


@pytest.fixture(params=[EventStore, MemoryStore])
def shop(request) -> Iterator[Shop]:
    with request.param(clock=ManualClock(), ids=SeededIds(1)) as store:
        yield Shop(store)


# --- the shop's checkout -----------------------------------------------------------------------------------


def test_an_order_is_reserved_paid_and_shipped(shop):
    shop.place()
    shop.checkout.catch_up()
    assert shop.status() == ("waiting for payment", "pending")
    assert shop.free() == (3, 4)
    assert [due.name for _, due in shop.checkout.due()] == ["payment"]
    shop.pay()
    shop.checkout.catch_up()
    assert shop.status() == ("shipped", "shipped")
    assert shop.stock.load("mug").state.on_hand == 3
    assert shop.checkout.due() == []
    shipped = shop.store.read("Order/o-1").last()
    assert shipped.event.address == "Lane 1"
    assert shop.checkout.lag == 0


def test_an_order_that_is_not_paid_within_a_day_is_cancelled_and_its_stock_free_again(shop):
    shop.place()
    shop.checkout.catch_up()
    shop.store.clock.advance(hours=23)
    assert shop.status() == ("waiting for payment", "pending")
    shop.store.clock.advance(hours=1)
    shop.checkout.catch_up()
    assert shop.status() == ("cancelled", "cancelled")
    assert shop.free() == (5, 5)
    passed = shop.store.read("checkout_manager/o-1").first().event
    assert passed == DeadlinePassed(deadline="payment", due=passed.due)


def test_an_order_of_what_is_missing_is_cancelled_and_paid_back(shop):
    shop.place("o-1", MUG, TEA.but(quantity=99))
    shop.pay()
    shop.checkout.catch_up()
    assert shop.status() == ("cancelled", "cancelled")
    assert shop.free() == (5, 5)
    order = shop.orders.load("o-1").state
    assert order.refunded == order.paid == order.total
    refused = shop.store.read("checkout_manager/o-1").first().event
    assert refused.command == "ReserveStock"
    assert refused.reason == "only 5 of tea are free, not 99"


def test_a_customer_without_an_address_gets_the_money_back(shop):
    shop.orders.run("o-1", Order.place, customer="nobody", items=[MUG])
    shop.pay()
    shop.checkout.catch_up()
    assert shop.status() == ("cancelled", "cancelled")
    assert shop.orders.load("o-1").state.refund_due == 0
    assert shop.free() == (5, 5)


def test_two_orders_for_the_last_piece_end_in_one_parcel_and_one_refund(shop):
    for id in ("o-1", "o-2"):
        shop.place(id, MUG.but(quantity=4))
        shop.pay(id)
    shop.checkout.catch_up()
    assert shop.status("o-1") == ("shipped", "shipped")
    assert shop.status("o-2") == ("cancelled", "cancelled")
    assert shop.stock.load("mug").state.on_hand == 1


def test_a_replay_sends_no_command_again_and_gives_the_same_processes(shop):
    shop.place()
    shop.pay()
    shop.place("o-2")
    shop.checkout.catch_up()
    before, head = shop.checkout.df(), shop.store.position
    shop.checkout.replay()
    assert shop.store.position == head
    assert shop.checkout.df().equals(before)


def test_everything_of_a_checkout_is_one_correlation(shop):
    shop.place()
    shop.pay()
    shop.checkout.catch_up()
    placed, paid = (one for one in shop.store.read("Order/o-1", until_version=2))
    for stream in ("Inventory/mug", "Order/o-1"):
        for one in shop.store.read(stream, after=paid.position):
            assert one.correlation_id in (str(placed.event_id), str(paid.event_id))
            assert one.causation_id.startswith("checkout_manager")


def test_the_handlers_around_it_mail_and_count(shop):
    mailbox = Mailbox()
    mails = Subscription(shop.store, mailbox.write)
    sales = Subscription(shop.store, DailySales)
    shop.place()
    shop.pay()
    shop.place("o-2", MUG.but(quantity=99))
    shop.checkout.catch_up()
    mails.catch_up()
    assert sorted((order, text) for order, text, _ in mailbox.sent) == [
        ("o-1", "we have received your 18.20"),
        ("o-1", "your parcel o-1 is on its way to Lane 1"),
        ("o-2", "your order is cancelled: only 3 of mug are free, not 99"),
    ]
    assert sales.catch_up().df().amount.tolist() == [Decimal("18.20")]


def _catch_up_or_die(checkout: CheckoutManager, left: int) -> int:
    """Deliver until `left` points have passed and die there; return how many are left."""
    for _ in checkout.steps():
        left -= 1
        if not left:
            break
    return left


@pytest.mark.parametrize("paid", [True, False])
def test_a_crash_at_any_point_changes_nothing_in_the_end(paid):
    """Whatever point of the whole checkout the process dies at, the outcome is the same."""

    def run(left: int) -> tuple[Any, int]:
        with EventStore(clock=ManualClock(), ids=SeededIds(1)) as store:
            shop = Shop(store)
            shop.place("o-1", MUG)
            if paid:
                shop.pay()
            left = _catch_up_or_die(shop.checkout, left)
            store.clock.advance(hours=25)
            again = checkout_manager(store).catch_up()
            shop.checkout = again
            kinds = sorted(one.type for one in store.read())
            return (shop.status(), shop.free(), kinds, len(again.dead_letters)), left

    whole, left = run(10_000)
    points = 10_000 - left
    assert points > 10
    for point in range(1, points + 1):
        assert run(point)[0] == whole, point


def test_a_running_manager_tells_deadlines_by_itself(shop):
    shop.place()
    shop.checkout.start().wait_for(shop.store.position)
    shop.store.clock.advance(days=2)
    shop.store.append("Note/n", OrderPlaced(customer="ann", items=(), total=Decimal(0)))
    shop.checkout.wait_for(shop.store.position).stop()
    shop.checkout.catch_up()
    assert shop.status() == ("cancelled", "cancelled")


# --- reactions ---------------------------------------------------------------------------------------------


class Started(Event):
    name: str


class Finished(Event):
    task: str


class Job(Process):
    steps: int = 0


class Jobs(ProcessManager[Job]):
    by = {Finished: "task"}

    @on(Started)
    def started(self, event, job):
        return job.but(steps=1), Deadline("late", minutes=10), Deadline("later", hours=1)

    @on(Finished)
    def finished(self, event, job):
        return Met("late"), job.but(steps=job.steps + 1)

    @on(DeadlinePassed)
    def passed(self, event, job):
        return job.but(steps=job.steps + 100)


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request) -> Iterator[Store]:
    with request.param(clock=ManualClock(), ids=SeededIds(1)) as opened:
        yield opened


def test_deadlines_are_set_met_and_told_once(store):
    store.append("Job/a", Started(name="a"))
    jobs = Jobs(store).catch_up()
    assert [(id, due.name) for id, due in jobs.due()] == [("a", "late"), ("a", "later")]
    store.append("Done/x", Finished(task="a"))
    store.clock.advance(minutes=30)
    jobs.catch_up()
    assert [due.name for _, due in jobs.due()] == ["later"]
    assert jobs.df().steps.tolist() == [2]
    store.clock.advance(hours=1)
    jobs.catch_up().catch_up()
    assert jobs.due() == []
    assert jobs.df().steps.tolist() == [102]
    assert [one.event.deadline for one in store.read(type=DeadlinePassed)] == ["later"]


def test_a_deadline_that_is_over_belongs_to_the_story_of_the_event_that_set_it(store):
    """So does what comes of it; an event without a correlation begins one of its own."""

    class Nagging(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return Deadline("late", minutes=10)

        @on(DeadlinePassed)
        def passed(self, event, job):
            return CancelOrder(job.id, reason="late")

    with metadata(correlation_id="story"):
        store.append("Job/a", Started(name="a"))
    (alone,) = store.append("Job/b", Started(name="b"))
    nagging = Nagging(store).catch_up()
    store.clock.advance(hours=1)
    nagging.catch_up()
    for kind in (DeadlinePassed, CommandRefused):
        assert [one.correlation_id for one in store.read(type=kind)] == ["story", str(alone.event_id)]


def test_a_deadline_counts_from_the_event_and_not_from_when_it_was_seen(store):
    store.append("Job/a", Started(name="a"))
    store.clock.advance(minutes=20)
    jobs = Jobs(store).catch_up()
    assert jobs.df().steps.tolist() == [101]


def test_an_event_whose_field_is_none_belongs_to_no_process(store):
    class Called(Event):
        task: str | None = None

    class Calls(ProcessManager[Job]):
        by = {Called: "task"}

        @on(Called)
        def called(self, event, job):
            return job.but(steps=job.steps + 1)

    store.append("Call/1", [Called(), Called(task="a"), Called()])
    calls = Calls(store).catch_up()
    assert calls.df().id.tolist() == ["a"]
    assert calls.lag == len(calls.dead_letters) == 0
    given(Called(task="a")).when(Calls, Called()).then_nothing()


class Failing(ProcessManager[Job]):
    @on(Started)
    def started(self, event, job):
        return job.but(steps=1), Deadline("late", minutes=10)

    @on(DeadlinePassed)
    def passed(self, event, job):
        raise ValueError("no")


@pytest.mark.parametrize("on_exhausted", ["dead_letter", "skip"])
def test_a_deadline_whose_reaction_fails_is_told_once(store, on_exhausted):
    """It stays in the row, as nobody has taken it away, and is not due any more."""
    store.append("Job/a", Started(name="a"))
    store.clock.advance(hours=1)
    failing = Failing(store, on_exhausted=on_exhausted)
    assert len(list(islice(failing.steps(), 1_000))) < 1_000
    failing.catch_up()
    assert failing.due() == []
    assert len(store.read(type=DeadlinePassed)) == 1
    assert failing.df().deadlines.map(len).tolist() == [1]


def test_a_deadline_that_was_met_before_it_was_told_is_not_told_whatever_was_late(store):
    """The manager was down for two days; what it then asks for comes before the deadlines."""

    class Hasty(ProcessManager[Job]):
        by = {StockReserved: "order"}

        @on(Started)
        def started(self, event, job):
            return ReserveStock("tea", order=job.id, quantity=1), Deadline("stock", hours=24)

        @on(StockReserved)
        def reserved(self, event, job):
            return Met("stock"), job.but(steps=1)

        @on(DeadlinePassed)
        def passed(self, event, job):
            return job.but(steps=-1)

    Repository(store, Inventory).run("tea", Inventory.receive, sku="tea", quantity=5)
    store.append("Job/a", Started(name="a"))
    store.clock.advance(hours=48)
    hasty = Hasty(store).catch_up()
    assert hasty.df().steps.tolist() == [1]
    assert len(store.read(type=DeadlinePassed)) == 0


def test_a_deadline_that_is_told_after_it_was_met_or_set_anew_is_passed_over(store):
    """Somebody else may have appended between the look at the clock and the telling."""
    store.append("Job/a", Started(name="a"))
    jobs = Jobs(store).catch_up()
    (_, late), (_, later) = jobs.due()
    store.append("Done/x", Finished(task="a"))
    store.append("jobs/a", DeadlinePassed(deadline=late.name, due=late.due))
    store.append("jobs/a", DeadlinePassed(deadline=later.name, due=late.due))
    assert jobs.catch_up().df().steps.tolist() == [2]
    assert [due for _, due in jobs.due()] == [later]


def test_each_deadline_is_told_between_two_points_at_which_the_process_may_die(store):
    for name in "ab":
        store.append(f"Job/{name}", Started(name=name))
    store.clock.advance(minutes=30)
    told = [point.name for point in Jobs(store).steps() if point.name in ("tell", "told")]
    assert told == ["tell", "told"] * 2


def test_a_deadline_of_which_nobody_would_hear_is_told_when_it_is_set(store):
    class Deaf(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return Deadline("late", minutes=10)

    store.append("Job/a", Started(name="a"))
    deaf = Deaf(store).catch_up()
    cause = deaf.dead_letters.df().cause_message[0]
    assert cause.startswith("a reaction to Started set Deadline('late', seconds=600)")
    assert "@on(DeadlinePassed)" in cause
    assert deaf.due() == []


def test_a_deadline_of_a_former_version_that_nobody_hears_of_any_more_is_dropped(store):
    store.append("Job/a", Started(name="a"))
    Jobs(store).catch_up()

    class Jobs2(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return job.but(steps=1)

    store.clock.advance(hours=2)
    assert Jobs2(store, name="jobs", adopt=True).catch_up().df().deadlines.map(len).tolist() == [0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "a/b"}, "name='a/b'"),
        ({"category": "Job"}, "category=.*jobs/"),
        ({"tag": "x:y"}, "tag=.*jobs/"),
        ({"partition": (0, 2)}, "partition=.*jobs/"),
    ],
)
def test_a_manager_that_would_not_hear_its_own_deadlines_is_told_at_once(store, options, told):
    with pytest.raises(InvalidArgument, match=told):
        Jobs(store, **options)


def test_managers_do_not_hear_of_each_others_deadlines(store):
    class Others(ProcessManager[Job]):
        @on(DeadlinePassed)
        def passed(self, event, job):
            return job.but(steps=-1)

    store.append("Job/a", Started(name="a"))
    others = Others(store)
    store.clock.advance(hours=2)
    Jobs(store).catch_up()
    assert len(others.catch_up().df()) == 0


def test_reactions_are_plain_values():
    manager = CheckoutManager.__new__(CheckoutManager)
    reaction = manager.placed(OrderPlaced(customer="a", items=(TEA,), total=TEA.price), Checkout(id="o-1"))
    assert tuple(reaction) == (
        Checkout(id="o-1", status="reserving", items=(TEA,)),
        ReserveStock("tea", order="o-1", quantity=1),
        Deadline("payment", hours=24),
    )
    late = manager.reserved(
        StockReserved(sku="tea", order="o-1", quantity=1), Checkout(id="o-1", status="cancelled")
    )
    assert late.name == "ReleaseStock"
    assert Met("a") != Met("b")
    assert repr(Deadline("a", timedelta(hours=1))) == "Deadline('a', hours=1)"
    hour = timedelta(hours=1)
    assert {Deadline("a", hour), Deadline("a", hours=1), Met("a")} == {Deadline("a", hours=1), Met("a")}
    assert repr(Met("a")) == "Met('a')"


def test_a_reaction_that_returns_something_else_is_a_dead_letter(store):
    class Odd(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return "done"

    store.append("Job/a", Started(name="a"))
    letters = Odd(store).catch_up().dead_letters.df()
    assert letters.cause_message[0].startswith("a reaction to Started returned 'done'")


def test_a_class_that_is_no_process_manager_is_told_when_it_is_defined():
    with pytest.raises(InvalidArgument, match="names no process"):

        class Bare(ProcessManager):
            @on(Started)
            def started(self, event, job): ...

    with pytest.raises(InvalidArgument, match="reacts to no event"):

        class Deaf(ProcessManager[Job]): ...

    with pytest.raises(InvalidArgument, match=r"write def started\(self, event, process\)"):

        class Short(ProcessManager[Job]):
            @on(Started)
            def started(self, job): ...

    with pytest.raises(InvalidArgument, match="no field 'name_'; did you mean 'name'"):

        class Lost(ProcessManager[Job]):
            by = {Started: "name_"}

            @on(Started)
            def started(self, event, job): ...

    with pytest.raises(InvalidArgument, match="both react to Started"):

        class Twice(ProcessManager[Job]):
            @on(Started)
            def one(self, event, job): ...

            @on(Started)
            def two(self, event, job): ...

    class Needy(Process):
        owner: str

    with pytest.raises(InvalidArgument, match="owner has no default"):

        class Manager(ProcessManager[Needy]):
            @on(Started)
            def started(self, event, job): ...

    with pytest.raises(InvalidArgument, match=r"Later\.started is async"):

        class Later(ProcessManager[Job]):
            @on(Started)
            async def started(self, event, job): ...

    with pytest.raises(InvalidArgument, match="write hours=24"):
        Deadline("x", hour=24)
    with pytest.raises(InvalidArgument, match="give a time to come"):
        Deadline("x", hours=-1)


def test_a_reaction_changes_no_other_process(store):
    class Odd(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return Job(id="another")

    store.append("Job/j-1", Started(name="a"))
    odd = Odd(store).catch_up()
    assert "of 'j-1' returned the process 'another'" in odd.dead_letters.df().cause_message[0]
    assert odd.df().empty


def test_a_refused_command_is_told_in_the_stream_of_its_process(store):
    class Hasty(ProcessManager[Job]):
        @on(Started)
        def started(self, event, job):
            return CancelOrder("o-9", reason="too late")

        @on(CommandRefused)
        def refused(self, event, job):
            return job.but(steps=7)

    store.append("Job/a", Started(name="a"))
    hasty = Hasty(store, Dispatcher(store)).catch_up()
    assert hasty.df().to_dict("records")[0]["id"] == "a"
    assert hasty.df().steps.tolist() == [7]
    assert store.read("hasty/a").first().event.target == "o-9"


def test_a_command_whose_decision_has_a_bug_is_sent_again_once_it_is_mended(store, monkeypatch):
    @wraps(Inventory.reserve)
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    class Reserving(ProcessManager[Job]):
        by = {StockReserved: "order"}

        @on(Started)
        def started(self, event, job):
            return ReserveStock("tea", order=job.id, quantity=1)

        @on(StockReserved)
        def reserved(self, event, job):
            return job.but(steps=1)

    Repository(store, Inventory).run("tea", Inventory.receive, sku="tea", quantity=5)
    store.append("Job/a", Started(name="a"))
    with monkeypatch.context() as patched:
        patched.setattr(Inventory, "reserve", broken)
        reserving = Reserving(store).catch_up()
    assert repr(reserving).endswith("idle, 1 failed effect>")
    told = reserving.dead_letters.resend("send_command")
    assert told.status.tolist() == ["done"]
    assert reserving.catch_up().df().steps.tolist() == [1]


def test_a_directory_says_whom_it_does_not_know(shop):
    with pytest.raises(Exception, match="'eve' has no address"):
        HomesDirectory(shop.store).address_of("eve")
    assert Due(name="x", due=shop.store.clock.now()).name == "x"
