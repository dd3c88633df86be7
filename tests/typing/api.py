"""The public API's inferred types, and the mistakes that type checkers find; checked, never run.

Each `ignore` is an assertion: mypy warns of one that is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, Self, assert_type

import pandas as pd

from esim import (
    Aggregate,
    Bus,
    Effects,
    Event,
    EventLog,
    EventStore,
    Key,
    ManualClock,
    MemoryStore,
    Projection,
    RecordedEvent,
    Repository,
    RetryPolicy,
    Row,
    Rows,
    SeededIds,
    SqlProjection,
    State,
    Store,
    Subscription,
    Value,
    Write,
    fold,
    given,
    on,
)
from esim.logdraft import Draft
from esim.messages import Command, Dispatcher, command
from esim.reading import Recorded, Selection
from esim.result import Result
from esim.spec import Spec


class Note(Value):
    text: str


class Opened(Event, type="account.opened", schema_version=2):
    owner: str
    notes: tuple[Note, ...] = ()


class Credited(Event):
    amount: Decimal


class Account(State[Opened | Credited]):
    status: Literal["new", "open"] = "new"
    balance: Decimal = Decimal(0)

    def open(self, owner: str) -> Opened:
        return Opened(owner=owner)

    def credit(self, amount: Decimal) -> Credited | None:
        return Credited(amount=amount) if amount else None

    def open_with(self, owner: str, amount: Decimal) -> Iterable[Opened | Credited]:
        return [Opened(owner=owner), Credited(amount=amount)]

    def evolve(self, event: Opened | Credited) -> Self:
        match event:
            case Opened():
                return self.but(status="open")
            case Credited(amount=amount):
                return self.but(balance=self.balance + amount)


class Forgetful(State[Opened | Credited]):
    def evolve(self, event: Opened | Credited) -> Self:  # type: ignore[return]  # pyright: ignore[reportReturnType] - no case for Credited
        match event:
            case Opened():
                return self


class Balance(Row):
    owner: Key[str]
    amount: Decimal = Decimal(0)


class Balances(Projection[Balance]):
    @on(Opened)
    def opened(self, event: Opened, rows: Rows[Balance]) -> None:
        assert_type(rows.get(event.owner), Balance | None)
        rows.put(Balance(owner=event.owner))

    @on(Opened, Credited)
    def any(
        self, event: Opened | Credited, rows: Rows[Balance], recorded: RecordedEvent[Opened | Credited]
    ) -> None:
        assert_type(recorded.event, Opened | Credited)

    @on(Credited)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the handler takes another event
    def wrong(self, event: Opened, rows: Rows[Balance]) -> None: ...


class Total(SqlProjection):
    query = "select sum(amount) as amount from Credited"


def recording(store: Store) -> None:
    assert_type(store.append("Account/a", Opened(owner="ann")), Recorded)
    assert_type(store.append("Account/a", [Credited(amount=Decimal(1))], expected="stream_exists"), Recorded)
    assert_type(store.append_all([Write("Account/a", Opened(owner="ann"), "no_stream")]), Recorded)
    store.append("Account/a", Opened(owner="ann"), expected="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no such expectation
    Opened(owner=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - not text
    Opened()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - no owner
    Opened(owner="ann").owner = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - facts are frozen


def reading(store: Store) -> None:
    assert_type(store.read(type=Opened), Selection)
    assert_type(iter(store.read("Account/a")), Iterator[RecordedEvent[Any]])
    assert_type(store.read().first(), RecordedEvent[Any] | None)
    assert_type(store.df(), pd.DataFrame)
    assert_type(store.sql("select 1"), pd.DataFrame)
    assert_type(store.as_of(3), Store)
    assert_type(store.version("Account/a"), int)
    assert_type(store.position, int)
    store.read(kind=Opened)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - the word is type


def deciding(accounts: Repository[Account]) -> None:
    assert_type(accounts.run("a", Account.open, owner="ann"), RecordedEvent[Opened])
    assert_type(accounts.run("a", Account.credit, amount=Decimal(1)), RecordedEvent[Credited] | None)
    assert_type(accounts.run("a", Account.open_with, owner="ann", amount=Decimal(1)), Recorded)
    assert_type(accounts.run("a", Account.open, owner="ann").event.owner, str)
    assert_type(accounts.load("a"), Aggregate[Account])
    assert_type(accounts.load("a", at=1).state.balance, Decimal)
    assert_type(accounts.new("b").decide(Account.open, owner="bob"), Aggregate[Account])
    assert_type(accounts.save(accounts.new("b").decide(Account.open, owner="bob")), Recorded)
    assert_type(accounts.history("a"), pd.DataFrame)
    assert_type(fold(Account, [Opened(owner="ann")]), Account)
    accounts.run("a", Account.open)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - no owner
    accounts.run("a", Account.open, owner=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - not text
    accounts.new("b").decide(Account.open, owner=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - not text


def projecting(balances: Balances, total: Total) -> None:
    assert_type(balances.get("ann"), Balance | None)
    assert_type(balances.df(), pd.DataFrame)
    assert_type(balances.as_of(3), pd.DataFrame)
    assert_type(balances.position, int)
    assert_type(total.df(), pd.DataFrame)


def receipt(opened: Opened, effects: Effects) -> None:
    effects.call(print, opened.owner)


def delivering(store: EventStore) -> None:
    mails = Subscription(store, receipt, retry=RetryPolicy(max_attempts=3), checkpoint="after_handler")
    assert_type(mails.catch_up(), Subscription)
    assert_type(mails.dead_letters.redrive(), pd.DataFrame)
    assert_type(mails.lag, int)
    assert_type(Bus(store).publish("Account/a", Opened(owner="ann")), Recorded)
    Subscription(store, receipt, checkpoint="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no mode


def commanding(store: EventStore) -> None:
    open_account = command(Account.open)
    assert_type(open_account("a", owner="ann"), Command)
    assert_type(Dispatcher(store).send(open_account("a", owner="ann"), key="k"), Recorded)
    open_account("a", owner=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - not text
    open_account("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - no owner


def specifying() -> None:
    scene = given(Opened(owner="ann"))
    assert_type(scene.when(Account.credit, amount=Decimal(1)).then(Credited(amount=Decimal(1))), Spec)
    assert_type(scene.when(Account.open, owner="bob").then_refused("open"), Spec)
    assert_type(scene.when(Balances).then(Balance(owner="ann")), Spec)


def analysing(log: EventLog) -> None:
    assert_type(log.only("Opened").sized(2), EventLog)
    assert_type(log.directly_follows(), Result)
    assert_type(log.variants().df, pd.DataFrame)
    assert_type(log.check(Account), Result)
    assert_type(log.conformance([("Opened", "Credited"), (None, "Opened")]), Result)
    assert_type(log.draft("Account"), Draft)
    log.between(keep="some")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no way to keep
    EventLog("log.csv", sort="up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no order


recording(MemoryStore(clock=ManualClock(step=timedelta(hours=1)), ids=SeededIds(1)))
reading(EventStore())
deciding(Repository(EventStore("accounts.duckdb"), Account))
projecting(Balances(EventStore()), Total(EventStore()))
delivering(EventStore())
commanding(EventStore())
analysing(EventLog("log.csv"))
