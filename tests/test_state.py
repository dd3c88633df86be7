"""States: decisions are pure, evolve is total, a fold is a fold, mistakes are told where they are made."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from esim import event as registry
from esim import state as states
from esim.clock import ManualClock
from esim.errors import EsimError, InvalidArgument, InvalidState, Refused, UnknownEventType
from esim.event import Event
from esim.memory import MemoryStore
from esim.repository import Repository
from esim.state import Aggregate, State, current_state, decided, fold, is_mutable, state_of
from esim.store import EventStore
from esim.value import Money

HOSTILE = "<img src=x onerror=alert(1)> & é"


class Opened(Event):
    owner: str


class Credited(Event):
    amount: Money


class Debited(Event):
    amount: Money


class Closed(Event):
    pass


class Foreign(Event):
    note: str


AccountEvent = Opened | Credited | Debited


class Account(State[AccountEvent]):
    status: Literal["new", "open"] = "new"
    owner: str = ""
    balance: Money = Decimal(0)

    def open(self, owner: str) -> Opened:
        self.must_be("new")
        return Opened(owner=owner)

    def credit(self, *amounts: Decimal) -> list[Credited]:
        return [Credited(amount=amount) for amount in amounts]

    def debit(self, amount: Decimal) -> Debited:
        self.must_be("open")
        if amount > self.balance:
            raise Refused(f"the balance is {self.balance}, which is less than {amount}")
        return Debited(amount=amount)

    def tidy(self) -> None:
        """Decide on nothing."""

    def split(self) -> Iterator[Event]:
        yield Credited(amount=Decimal(1))
        yield Debited(amount=Decimal(1))

    def blunder(self) -> Foreign:
        return Foreign(note="not mine")

    def mumble(self) -> Any:
        return "Opened"

    def evolve(self, event: AccountEvent) -> Self:
        match event:
            case Opened(owner=owner):
                return self.but(status="open", owner=owner)
            case Credited(amount=amount):
                return self.but(balance=self.balance + amount)
            case Debited(amount=amount):
                return self.but(balance=self.balance - amount)


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Forget the classes that a test defines."""
    kept = [(book, dict(book)) for book in (registry._by_type, registry._by_name, states._latest)]
    yield
    for book, before in kept:
        book.clear()
        book.update(before)


# --- folding -----------------------------------------------------------------------------------------------


def test_a_fold_is_the_state_after_the_events():
    """From the initial state, one event after the other."""
    events = [Opened(owner="ann"), Credited(amount=Decimal("5.50")), Debited(amount=Decimal("0.50"))]
    assert fold(Account, events) == Account(status="open", owner="ann", balance=Decimal(5))
    assert fold(Account, []) == Account.initial() == Account()


def test_recorded_events_fold_as_well():
    """Whatever was read from a store can be folded as it is."""
    with MemoryStore() as store:
        recorded = store.append("Account/a", [Opened(owner="ann"), Credited(amount=Decimal(3))])
        assert fold(Account, recorded) == fold(Account, store.read("Account/a"))
        assert fold(Account, store.read()).balance == 3


EVENTS = st.lists(
    st.one_of(
        st.builds(Opened, owner=st.text(max_size=3)),
        st.builds(Credited, amount=st.decimals(0, 1000, places=2)),
        st.builds(Debited, amount=st.decimals(0, 1000, places=2)),
    ),
    max_size=8,
)


@given(EVENTS, EVENTS)
def test_a_fold_can_be_split_anywhere(first: list[Event], rest: list[Event]):
    """Folding all is folding the rest from where the first part ended."""
    assert fold(Account, first + rest) == fold(Account, rest, initial=fold(Account, first))


@given(EVENTS)
def test_an_aggregate_decides_as_a_fold_evolves(events: list[Event]):
    """Deciding on events one by one gives the state of their fold, and keeps them as uncommitted."""
    aggregate = Aggregate("a", Account())
    for event in events:
        aggregate = aggregate.decide(lambda _, event=event: event)
    assert aggregate.state == fold(Account, events)
    assert aggregate.uncommitted == tuple(events)


# --- mistakes ----------------------------------------------------------------------------------------------


def test_a_forgotten_event_is_named():
    """An evolve without a case for one of its events says which one and what to write."""

    class Forgetful(State[Opened | Closed]):
        def evolve(self, event: Opened | Closed) -> Self:
            match event:
                case Opened():
                    return self
            return None  # type: ignore[return-value]

    with pytest.raises(InvalidState, match=r"Forgetful.evolve returns None for Closed.*case Closed\(\)"):
        fold(Forgetful, [Opened(owner="a"), Closed()])


def test_an_evolve_that_returns_something_else_is_named():
    """What is no state is shown."""

    class Odd(State[Opened]):
        def evolve(self, event: Opened) -> Any:
            return event

    with pytest.raises(InvalidState, match=r"Odd.evolve returns Opened\(owner='a'\) for Opened"):
        fold(Odd, [Opened(owner="a")])


@pytest.mark.parametrize("recorded", [False, True])
def test_a_foreign_event_is_named(*, recorded: bool):
    """A type that is not among a state's is told with those that are."""
    events: Iterable[Any] = [Foreign(note="x")]
    if recorded:
        events = MemoryStore().append("A/1", events)
    with pytest.raises(UnknownEventType, match="'Foreign'; its events are Credited, Debited, Opened"):
        fold(Account, events)


def test_only_events_can_be_folded():
    """Anything else is shown and refused."""
    with pytest.raises(InvalidArgument, match="'Opened' is not an event"):
        fold(Account, ["Opened"])


def test_a_state_needs_defaults():
    """A stream begins empty, so each field has a value before the first event."""

    class Bare(State[Opened]):
        owner: str
        age: int

    with pytest.raises(InvalidState, match="Bare needs a default for owner, age"):
        fold(Bare, [])


def test_a_state_needs_events_and_an_evolve():
    """What is missing is told with the line to write."""

    class Silent(State):  # type: ignore[type-arg]
        pass

    class Still(State[Opened]):
        pass

    with pytest.raises(InvalidState, match=r"class Silent\(State\[ThisHappened"):
        fold(Silent, [Opened(owner="a")])
    with pytest.raises(InvalidState, match="Still has no evolve"):
        fold(Still, [Opened(owner="a")])


@pytest.mark.parametrize("wrong", [int, "Later", Opened | int])
def test_what_is_no_event_class_in_a_states_union_is_told(wrong: Any):
    """A name that is not defined yet, or another class, is not dropped in silence."""
    made = type("Wrong", (State[wrong],), {"__module__": __name__})
    with pytest.raises(InvalidState, match="which is no event class"):
        fold(made, [])


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("field", ["category", "evolve", "initial", "but"])
def test_a_field_cannot_hide_what_every_state_has(field: str):
    """A clash of names is told where the class is defined."""
    with pytest.raises(InvalidArgument, match=f"Bad.{field} would hide"):
        type("Bad", (State[Opened],), {"__module__": __name__, "__annotations__": {field: int}, field: 1})


def test_a_category_is_the_class_name_or_given_and_holds_no_slash():
    """The category is the first half of the stream id."""

    class Order(State[Opened], category="sales-order"):
        pass

    assert (Account.category, Order.category) == ("Account", "sales-order")
    assert Aggregate("o-1", Order()).stream == "sales-order/o-1"
    with pytest.raises(InvalidArgument, match="holds a slash"):
        type("Bad", (State[Opened],), {"__module__": __name__}, category="a/b")


# --- states ------------------------------------------------------------------------------------------------

One = TypeVar("One", bound=Event)
Alias = TypeAliasType("Alias", Opened | Credited)


class Base(State[One], Generic[One]):
    count: int = 0


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (State[Opened], (Opened,)),
        (State[Opened | Credited], (Opened, Credited)),
        (State[Alias], (Opened, Credited)),
        (State[Alias | Closed], (Opened, Credited, Closed)),
        (State[Annotated[Opened | Closed, "a note"]], (Opened, Closed)),
        (Base[Opened | Closed], (Opened, Closed)),
        (Account, (Opened, Credited, Debited)),
    ],
)
def test_a_state_knows_its_events(state: type[State[Any]], events: tuple[type[Event], ...]):
    """One class, a union, an alias of one, or through a generic base of one's own."""
    derived = type("Derived", (state,), {"__module__": __name__})
    assert derived.event_types() == events


def test_but_gives_a_copy_and_knows_its_fields():
    """The former state stays; an unknown field is told with a near one."""
    before = Account()
    assert before.but(balance=Decimal(3)).balance == 3
    assert before.balance == 0
    with pytest.raises(InvalidState, match="Account has no field 'balanse'; did you mean 'balance'"):
        before.but(balanse=Decimal(3))


def test_but_gives_whole_states():
    """A copy can be compared, pickled, shown and copied again as any state."""
    copy = Account().but(owner="ann")
    assert copy == Account(owner="ann")
    assert pickle.loads(pickle.dumps(copy)).but(status="open") == Account(owner="ann", status="open")  # noqa: S301
    assert copy.model_dump() == {"status": "new", "owner": "ann", "balance": Decimal(0)}


@pytest.mark.parametrize("wrong", [{"status": "gone"}, {"balance": 0.5}, {"balanse": 1}])
def test_a_state_that_does_not_fit_cannot_be_made(wrong: dict[str, Any]):
    """Making a state by hand validates it as an event, with a state's error."""
    with pytest.raises(InvalidState, match="Account cannot be made"):
        Account(**wrong)


def test_a_state_cannot_be_changed():
    """Setting a field is refused with the way to a copy."""
    with pytest.raises(InvalidState, match=r"Account.balance .*frozen: take a copy with but"):
        Account().balance = Decimal(1)  # type: ignore[misc]


def test_defaults_are_not_shared():
    """A container that a default gives belongs to one state."""

    class Bag(State[Opened]):
        names: list[str] = []

    assert Bag().names is not Bag().names


@pytest.mark.parametrize(
    ("kind", "mutable"),
    [
        (tuple[str, ...], False),
        (frozenset[int], False),
        (Money | None, False),
        (dict[str, int], True),
        (Any, True),
    ],
)
def test_what_could_be_changed_in_place_is_known(kind: Any, *, mutable: bool):
    """Only plain values and frozen containers of them are safe to share."""
    made = type("Held", (State[Opened],), {"__module__": __name__, "__annotations__": {"x": kind}, "x": None})
    assert is_mutable(made) is mutable


def test_must_be_names_what_is_and_what_should_be():
    """The refusal reads as a sentence."""
    Account().must_be("new", "open")
    with pytest.raises(Refused, match=r"^the account is new, not open or closed$"):
        Account().must_be("open", "closed")


def test_completion_shows_the_domains_names():
    """Fields, decisions and esim's verbs, on the class and on a state, none of pydantic's."""
    for thing in (Account, Account()):
        names = set(dir(thing))
        assert {"balance", "owner", "status", "open", "credit", "debit", "evolve", "but", "must_be"} <= names
        assert not {name for name in names if name.startswith("model_") or name in {"copy", "json", "dict"}}


def test_states_are_shown_escaped():
    """Hostile text is text in the HTML of states and aggregates."""
    state = Account(owner=HOSTILE)
    for html in (state._repr_html_(), Aggregate(HOSTILE, state)._repr_html_()):
        assert "<img" not in html
        assert "&lt;img" in html


# --- decisions ---------------------------------------------------------------------------------------------


def test_a_decision_changes_nothing_but_gives_a_new_aggregate():
    """The former aggregate stays as it is; branches are free."""
    start = Aggregate("a", Account()).decide(Account.open, owner="ann")
    rich = start.decide(Account.credit, Decimal(9), Decimal(1))
    poor = start.decide(Account.credit, Decimal(1))
    assert (start.state.balance, rich.state.balance, poor.state.balance) == (0, 10, 1)
    assert (len(start.uncommitted), len(rich.uncommitted), rich.version) == (1, 3, 0)
    assert repr(poor).startswith("<Account/a at version 0, 2 uncommitted: Account(")


def test_a_decision_may_return_one_several_or_no_events():
    """An event, a list, an iterator or None."""
    start = Aggregate("a", Account()).decide(Account.open, "ann")
    assert start.decide(Account.tidy) == start
    assert start.decide(Account.split).uncommitted[1:] == (
        Credited(amount=Decimal(1)),
        Debited(amount=Decimal(1)),
    )


def test_a_refusal_leaves_the_aggregate():
    """Refused passes through with its own words."""
    start = Aggregate("a", Account(status="open"))
    with pytest.raises(Refused, match="the balance is 0, which is less than 5"):
        start.decide(Account.debit, Decimal(5))
    assert start.uncommitted == ()


def test_what_a_decision_must_not_return_is_shown():
    """Text is no event; an event of another state is named."""
    with pytest.raises(InvalidArgument, match="a decision returned 'Opened'"):
        Aggregate("a", Account()).decide(Account.mumble)
    with pytest.raises(UnknownEventType, match="'Foreign'"):
        Aggregate("a", Account()).decide(Account.blunder)


def test_a_state_that_breaks_its_own_types_is_refused():
    """`but` does not validate; the whole state is validated once, after the decision."""

    class Careless(State[Opened]):
        status: Literal["new", "open"] = "new"

        def open(self) -> Opened:
            return Opened(owner="a")

        def evolve(self, event: Opened) -> Self:
            return self.but(status="opne")

    with pytest.raises(InvalidState, match="after its events, Careless cannot be made: 'status' is 'opne'"):
        Aggregate("a", Careless()).decide(Careless.open)


# --- cells that are run again ------------------------------------------------------------------------------

EVENT_CELL = "class Opened(Event):\n    owner: str = 'nobody'\n"
STATE_CELL = """class Account(State[Opened]):
    count: int = 0
    def open(self, owner: str = 'ann') -> Opened:
        return Opened(owner=owner)
    def evolve(self, event):
        match event:
            case Opened(): return self.but(count=self.count + 1)
"""


def run_cell(namespace: dict[str, Any], source: str) -> None:
    """Execute a notebook cell in a namespace."""
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)


CELLS = {"event": EVENT_CELL, "state": STATE_CELL}


@pytest.mark.parametrize("again", [order for n in range(4) for order in itertools.product(CELLS, repeat=n)])
def test_cells_may_be_run_again_in_any_order(again: tuple[str, ...]):
    """After each re-run, old and new events fold, the old repository decides, and the log reads."""
    cell: dict[str, Any] = {"__name__": "__main__", "Event": Event, "State": State}
    run_cell(cell, EVENT_CELL)
    run_cell(cell, STATE_CELL)
    first_event, first_state = cell["Opened"], cell["Account"]
    accounts = Repository(MemoryStore(), first_state)
    for count, name in enumerate(["", *again], 1):
        run_cell(cell, CELLS.get(name, ""))
        accounts.run("a", cell["Account"].open)
        accounts.run("b", first_state.open)
        assert accounts.load("a").state.count == accounts.load("b").state.count == count
        mixed = [first_event(), cell["Opened"](), *accounts.store.read("Account/a")]
        assert fold(cell["Account"], mixed).count == fold(first_state, mixed).count == 2 + count


def test_a_changed_cell_changes_what_a_repository_does():
    """The latest evolve counts, for what is cached as well."""
    cell: dict[str, Any] = {"__name__": "__main__", "Event": Event, "State": State}
    run_cell(cell, EVENT_CELL)
    run_cell(cell, STATE_CELL)
    accounts = Repository(MemoryStore(), cell["Account"])
    accounts.run("a", cell["Account"].open)
    run_cell(cell, STATE_CELL.replace("+ 1", "+ 10"))
    assert accounts.load("a").state.count == 10
    assert current_state(accounts.state) is cell["Account"]


def test_a_decision_knows_its_state():
    """The class in whose body a decision stands, in its latest definition."""
    assert state_of(Account.debit) is Account
    with pytest.raises(InvalidArgument, match="belongs to no State"):
        state_of(len)


# --- typical mistakes --------------------------------------------------------------------------------------


class Rang(Event):
    by: str


class Bell(State[Rang]):
    rings: int = 0

    def ring(self, by: str) -> Rang:
        return Rang(by=by)

    def forget(self) -> Any:
        Rang(by="nobody")

    def hush(self) -> None:
        self.must_be("loud")

    def evolve(self, event: Rang) -> Self:
        return self.but(rings=self.rings + 1)


BELL = Aggregate("1", Bell())


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda: Bell.rign, r"Bell has no 'rign'; did you mean 'ring'"),
        (lambda: Bell().rigns, r"Bell has no 'rigns'; did you mean 'rings'"),
        (lambda: Rang(by="a").bye, r"Rang has no 'bye'; did you mean 'by'"),
        (lambda: BELL.decide(Bell.ring, bye="a"), r"Bell.ring\(self, by.*missing a required.*'by'"),
        (lambda: BELL.decide(Bell.ring), r"Bell.ring\(.*missing a required argument: 'by'"),
        (lambda: BELL.decide(Bell.forget), r"Bell.forget makes an event and returns nothing"),
        (lambda: fold(Bell, Rang(by="a")), r"is no list of events: write fold\(Bell, \[…\]\)"),
        (lambda: decided({"by": "a"}), r"a decision returned \{'by': 'a'\}"),
        (lambda: MemoryStore().append("Bell/1", {"by": "a"}), r"\{'by': 'a'\} is not an Event"),
        (lambda: ManualClock("2026-01-01T00:00:00Z").advance(hour=1), r"no 'hour'; did you mean 'hours'"),
        (lambda: EventStore(":memory:"), r"EventStore\(\) without a path lives in memory"),
    ],
)  # fmt: skip
def test_a_typical_mistake_is_told_in_one_line(mistake: Any, told: str) -> None:
    """What was written, what is wrong with it, and what was probably meant."""
    with pytest.raises(EsimError, match=told):
        mistake()


def test_a_missing_name_is_missing_in_pythons_way() -> None:
    """`hasattr` and `getattr` with a default work on events, states and their classes."""
    assert not hasattr(Bell, "rign")
    assert getattr(Bell(), "rigns", 7) == 7


def test_a_decision_that_only_refuses_returns_nothing() -> None:
    """It makes no event, so nothing was forgotten; and a TypeError inside a decision stays one."""

    class Loud(Bell):
        status: str = "loud"

        def broken(self) -> Rang:
            return Rang(by=1 + "a")

    assert Aggregate("1", Loud()).decide(Loud.hush).uncommitted == ()
    with pytest.raises(TypeError, match="unsupported operand"):
        Aggregate("1", Loud()).decide(Loud.broken)


def test_two_classes_of_one_stored_name_cannot_be_in_one_state() -> None:
    """Nobody could say which of them an event is."""

    class First(Event, type="twin"):
        pass

    class Second(Event, type="twin"):
        pass

    class Both(State[First | Second]):
        pass

    with pytest.raises(InvalidState, match="First and Second are both stored as 'twin'"):
        Both.event_types()
