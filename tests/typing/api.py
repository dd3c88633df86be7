"""The public API's inferred types, checked by mypy and pyright; never run."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, Self, assert_type

from esim import Aggregate, Event, EventStore, MemoryStore, RecordedEvent, Repository, State, fold
from esim.reading import Recorded


class Opened(Event):
    owner: str


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


accounts = Repository(EventStore(), Account)
assert_type(accounts, Repository[Account])
assert_type(accounts.run("a", Account.open, owner="ann"), RecordedEvent[Opened])
assert_type(accounts.run("a", Account.credit, amount=Decimal(1)), RecordedEvent[Credited] | None)
assert_type(accounts.run("a", Account.open_with, owner="ann", amount=Decimal(1)), Recorded)
assert_type(accounts.run("a", Account.open, owner="ann").event.owner, str)
assert_type(accounts.load("a"), Aggregate[Account])
assert_type(accounts.load("a", at=1).state.balance, Decimal)
assert_type(accounts.new("b").decide(Account.open, owner="bob"), Aggregate[Account])
assert_type(fold(Account, [Opened(owner="ann")]), Account)
assert_type(Repository(MemoryStore(), Account).save(accounts.new("b")), Recorded)

accounts.run("a", Account.open)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - no owner
accounts.run("a", Account.open, owner=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - not text
Opened(owner=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - not text
