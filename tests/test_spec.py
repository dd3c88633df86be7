"""Specifications: what holds, what fails and how it tells, and what they are as values."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument, Refused, SpecFailed
from esim.event import Event
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.source import Source
from esim.spec import Asked, Spec, given
from esim.state import State
from esim.value import Money


class Mood(Enum):
    GOOD = "good"


class Opened(Event):
    owner: str
    mood: Mood = Mood.GOOD


class Deposited(Event):
    amount: Money
    at: datetime = datetime(2026, 1, 5, tzinfo=UTC)


class Account(State[Opened | Deposited]):
    owner: str = ""
    balance: Decimal = Decimal(0)

    def open(self, owner: str) -> Opened:
        if self.owner:
            raise Refused(f"the account is {self.owner}'s already")
        return Opened(owner=owner)

    def deposit(self, *amounts: Decimal) -> list[Deposited]:
        return [Deposited(amount=amount) for amount in amounts]

    def evolve(self, event: Opened | Deposited) -> Self:
        match event:
            case Opened(owner=owner):
                return self.but(owner=owner)
            case Deposited(amount=amount):
                return self.but(balance=self.balance + amount)


class Savings(Account, category="Savings"):
    pass


class Owner(Row):
    owner: Key[str]
    accounts: int = 0


class Owners(Projection[Owner]):
    @on(Opened)
    def opened(self, event: Opened, rows: Rows[Owner], recorded: RecordedEvent[Opened]) -> None:
        row = rows.get(event.owner) or Owner(owner=event.owner)
        rows.put(row.but(accounts=row.accounts + 1))


class Balances(SqlProjection):
    query = """select owner, count(*) as deposits, sum(amount) as balance, null::varchar as note
               from Deposited d join Opened o using (stream) group by owner"""
    key = ("owner",)


class Largest(SqlProjection):
    query = "select stream, max(amount) as amount from Deposited group by stream"
    key = ("stream",)
    combine = {"amount": "max"}


class Wrong(SqlProjection):
    query = "select stream, avg(amount) as amount from Deposited group by stream"
    key = ("stream",)
    combine = {"amount": "sum"}


ANN, BOB = Opened(owner="ann"), Opened(owner="bob")
FIVE = Deposited(amount=Decimal("5.00"))


def failure(of: Any) -> str:
    """Return the message of the specification that does not hold."""
    with pytest.raises(SpecFailed) as raised:
        of()
    return str(raised.value)


# --- decisions ---------------------------------------------------------------------------------------------


def test_a_decision_gives_its_event() -> None:
    """What the decision returns is compared, and the state after it can be looked at."""
    held = given().when(Account.open, owner="ann").then(ANN)
    assert isinstance(held, Spec)
    assert (held.state, held.asked.before) == (Account(owner="ann"), Account())


def test_several_events_are_compared_in_order() -> None:
    """A list of events must come whole and in the order given."""
    asked = given(ANN).when(Account.deposit, Decimal("5.00"), Decimal(1))
    asked.then(FIVE, Deposited(amount=Decimal(1)))
    assert "came Decimal('5.00')" in failure(lambda: asked.then(Deposited(amount=Decimal(1)), FIVE))


def test_a_refusal_is_told_by_a_part_of_its_text() -> None:
    """Any refusal, or one whose text holds the given words."""
    asked = given(ANN).when(Account.open, owner="bob")
    asked.then_refused()
    asked.then_refused("ann's already")
    assert "the reason does not hold 'too late'" in failure(lambda: asked.then_refused("too late"))
    assert "it was refused" in failure(asked.then_nothing)


def test_nothing_is_an_outcome_too() -> None:
    """A decision without events holds as nothing, and as nothing else."""
    asked = given(ANN).when(Account.deposit)
    asked.then_nothing()
    assert "it was not refused" in failure(asked.then_refused)
    assert "is missing" in failure(lambda: asked.then(FIVE))


def test_an_inherited_or_free_decision_takes_its_state_by_name() -> None:
    """`state=` says on what to decide where the decision does not tell."""
    given(ANN, state=Savings).when(Savings.open, "bob").then_refused("ann's")

    def close(account: Account) -> None:
        return None

    given(ANN, state=Account).when(close).then_nothing()
    with pytest.raises(InvalidArgument, match="give the state class as well"):
        given(ANN).when(close)


def test_a_decision_knows_one_stream() -> None:
    """Events of two streams cannot be folded into one state."""
    with pytest.raises(InvalidArgument, match="Account/a, Account/b"):
        given(("Account/a", ANN), ("Account/b", BOB)).when(Account.open, "eve")


def test_recorded_events_may_be_given() -> None:
    """Events read from a store stand beside plain ones."""
    store = MemoryStore()
    store.append("Account/a", ANN)
    given(*store.read(), ("Account/a", FIVE)).when(Account.open, "bob").then_refused("ann's")


@pytest.mark.parametrize("odd", ["text", None, ("Account/a",), ("Account/a", "text"), (1, ANN), Opened])
def test_what_did_not_happen_cannot_be_given(odd: Any) -> None:
    """Only events, pairs of a stream and an event, and recorded events are given."""
    with pytest.raises(InvalidArgument, match="did not happen"):
        given(odd)


@pytest.mark.parametrize("odd", ["open", None, Account, 3])
def test_what_cannot_be_asked_is_named(odd: Any) -> None:
    """A text, nothing, and a state class are neither decided nor projected."""
    with pytest.raises(InvalidArgument, match="neither decided nor projected"):
        given().when(odd)


# --- projections -------------------------------------------------------------------------------------------


def test_a_projection_gives_its_rows_in_any_order() -> None:
    """Each event is delivered twice and counts once; rows have no order."""
    asked = given(("Account/a", ANN), ("Account/b", BOB), ("Account/c", ANN)).when(Owners)
    asked.then(Owner(owner="bob", accounts=1), Owner(owner="ann", accounts=2))


def test_a_wrong_row_is_told_by_its_fields() -> None:
    """Rows are matched by key; missing ones and unexpected ones are named."""
    asked = given(("Account/a", ANN), ("Account/b", BOB)).when(Owners)
    told = failure(lambda: asked.then(Owner(owner="ann", accounts=2), Owner(owner="eve", accounts=1)))
    assert "Owner.accounts: expected 2, came 1" in told
    assert "Owner(owner='eve', accounts=1) is missing" in told
    assert "Owner(owner='bob', accounts=1) was not expected" in told


def test_a_projection_that_differs_when_delivered_twice_fails() -> None:
    """A handler that leans on something besides its events gives other rows, and fails the specification."""
    ticks = count(1)

    class Ticking(Projection[Owner]):
        @on(Opened)
        def opened(self, event: Opened, rows: Rows[Owner]) -> None:
            rows.put(Owner(owner=event.owner, accounts=next(ticks)))

    told = failure(lambda: given(ANN).when(Ticking))
    assert "other rows when every event is delivered twice" in told
    assert "Owner.accounts: expected 1, came 2" in told


def test_a_query_gives_its_rows_as_dicts() -> None:
    """Whole numbers, exact Decimals and None, in any order of rows."""
    asked = given(("A/a", ANN), ("A/a", FIVE), ("A/a", FIVE), ("A/b", BOB), ("A/b", FIVE)).when(Balances)
    ann = {"owner": "ann", "deposits": 2, "balance": Decimal("10.00"), "note": None}
    bob = {"owner": "bob", "deposits": 1, "balance": Decimal(5), "note": None}
    held = asked.then(bob, ann)
    assert "balance" in held._repr_html_()
    told = failure(lambda: asked.then(ann))
    assert f"{asked.outcome.items[1]!r} was not expected" in told
    given().when(Balances).then_nothing()


def test_a_query_that_cannot_be_merged_so_fails() -> None:
    """Event by event and in one go must agree: an average cannot be summed."""
    events = (("A/a", FIVE), ("A/b", FIVE), ("A/a", FIVE))
    given(*events).when(Largest).then(
        {"stream": "A/a", "amount": Decimal(5)}, {"stream": "A/b", "amount": Decimal(5)}
    )
    told = failure(lambda: given(*events).when(Wrong))
    assert "Wrong gives other rows event by event than in one go" in told
    assert "'amount': 10" in told


def test_a_query_sees_recorded_events_wherever_they_stood() -> None:
    """A part of a log, with gaps in its positions, is as good as one from the beginning."""
    store = MemoryStore()
    store.append("A/a", [ANN, FIVE, FIVE])
    given(*store.read(type=Deposited)).when(Largest).then({"stream": "A/a", "amount": Decimal(5)})


# --- failures and values -----------------------------------------------------------------------------------

FAILING = [
    lambda: given(ANN).when(Account.deposit, Decimal("5.00")).then(Deposited(amount=Decimal(4))),
    lambda: given(ANN).when(Account.open, owner="bob").then(BOB),
    lambda: given(ANN, state=Savings).when(Savings.open, "bob").then_refused("for another reason"),
    lambda: given().when(Account.open, owner="ann").then_refused(),
    lambda: given().when(Account.open, owner="ann").then_nothing(),
    lambda: given(("Account/a", ANN)).when(Owners).then(Owner(owner="ann", accounts=3)),
]


@pytest.mark.parametrize("of", FAILING)
def test_a_failure_is_a_program_that_fails_likewise(of: Any) -> None:
    """The reproduction runs as pasted, with its imports, and fails with the very same message."""
    told = failure(of)
    program = "\n".join(line.removeprefix("  ") for line in told.partition("reproduce:\n")[2].splitlines())
    here = {name: value for name, value in globals().items() if isinstance(value, type)}
    lines = [line for line in program.splitlines() if f"from {__name__} " not in line]
    assert failure(lambda: exec("\n".join(lines), here)) == told


def test_a_failure_says_what_was_expected_what_came_and_what_differs() -> None:
    """The first line is the whole story in short; the rest are its parts."""
    told = failure(FAILING[0]).splitlines()
    differs = "Deposited.amount: expected Decimal('4'), came Decimal('5.00')"
    assert told[0] == f"after 1 event, Account.deposit: {differs}"
    assert [line for line in told if line.endswith(":")] == [
        "expected:",
        "came:",
        "difference:",
        "reproduce:",
    ]
    assert f"  {differs}" in told


def test_a_specification_shows_itself_escaped() -> None:
    """The table has its three parts, each event's badge, and no markup from data."""
    held = given(Opened(owner="<img src=x onerror=alert(1)>")).when(Account.open, "<b>").then_refused("<img")
    shown = held._repr_html_()
    assert all(part in shown for part in ("given", "when", "then ✓", "refused", ">Opened</span>"))
    assert "<img" not in shown and "<b></b>" not in shown and "&lt;img" in shown


def test_a_specification_without_a_then_asks_for_one() -> None:
    """What was only asked says what came and how to hold it."""
    asked = given(ANN).when(Account.deposit)
    assert isinstance(asked, Asked)
    assert repr(asked).endswith(".when(Account.deposit) gave nothing: hold it by .then(…)>")
    assert "came" in asked._repr_html_()


def test_a_specification_is_a_stable_value() -> None:
    """Its text is the sentence, and its parts are there to be exported."""
    held = given(ANN).when(Account.open, owner="bob").then_refused()
    assert repr(held).startswith(
        "<holds: given(Opened(owner='ann', mood=Mood.GOOD)).when(Account.open, owner='bob')"
    )
    assert repr(held).endswith("→ Refused: the account is ann's already>")
    assert (held.asked.subject, held.asked.kwargs, held.asked.scene.events[0].event) == (
        Account.open,
        {"owner": "bob"},
        ANN,
    )
    assert held.program().endswith('.then_refused("the account is ann\'s already")')


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1,), "b": [Decimal("1.50"), None]},
        {1, 2},
        frozenset({"x"}),
        Mood.GOOD,
        datetime(2026, 1, 5, tzinfo=UTC),
        [Path("a") / "b"],
        Fraction(1, 2),
        FIVE,
    ],
)
def test_source_makes_the_value_again(value: Any) -> None:
    """What is written evaluates, with its imports, to an equal value of the same type."""
    source = Source()
    text = source(value)
    scope = {"Mood": Mood, "Deposited": Deposited}
    exec("\n".join(line for line in source.imports() if __name__ not in line), scope)
    again = eval(text, scope)  # noqa: S307 - what is written must run
    assert again == value and type(again) is type(value)
