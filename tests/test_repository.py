"""The repository: loading, deciding, saving, its cache, its snapshots and the way back through time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from threading import Barrier, Thread
from typing import Annotated, Any, Literal, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.envelope import NewEvent
from esim.errors import (
    Conflict,
    InvalidArgument,
    InvalidState,
    ReadOnlyStore,
    Refused,
    StreamNotFound,
    UnknownEventType,
)
from esim.event import Event
from esim.memory import MemoryStore
from esim.reading import Recorded
from esim.repository import Repository
from esim.state import State, fold, is_mutable
from esim.store import EventStore
from esim.value import Money, Value


class Line(Value):
    sku: str
    price: Money


class Opened(Event):
    owner: str


class Added(Event):
    line: Line
    at: datetime


class Paid(Event):
    amount: Money


class Reopened(Event):
    pass


class Stray(Event):
    pass


CartEvent = Opened | Added | Paid | Reopened
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Cart(State[CartEvent]):
    status: Literal["new", "open", "paid"] = "new"
    owner: str = ""
    lines: tuple[Line, ...] = ()
    total: Decimal = Decimal("0.00")
    last: datetime | None = None

    def open(self, owner: str) -> Opened:
        self.must_be("new")
        return Opened(owner=owner)

    def add(self, sku: str, price: Decimal) -> Added | None:
        self.must_be("open")
        return None if price == 0 else Added(line=Line(sku=sku, price=price), at=NOON)

    def add_all(self, *skus: str) -> list[Added]:
        self.must_be("open")
        return [Added(line=Line(sku=sku, price=Decimal("1.50")), at=NOON) for sku in skus]

    def pay(self) -> Paid:
        self.must_be("open")
        if not self.lines:
            raise Refused("the cart is empty")
        return Paid(amount=self.total)

    def reopen(self) -> Reopened:
        self.must_be("paid")
        return Reopened()

    def evolve(self, event: CartEvent) -> Self:
        match event:
            case Opened(owner=owner):
                return self.but(status="open", owner=owner)
            case Added(line=line, at=at):
                return self.but(lines=(*self.lines, line), total=self.total + line.price, last=at)
            case Paid():
                return self.but(status="paid")
            case Reopened():
                return self.but(status="open")


class Bag(State[Opened | Reopened], category="Bag"):
    names: list[str] = []
    nested: dict[str, list[int]] = {}

    def open(self, owner: str) -> Opened:
        return Opened(owner=owner)

    def evolve(self, event: Opened | Reopened) -> Self:
        match event:
            case Opened(owner=owner):
                return self.but(names=[*self.names, owner], nested={**self.nested, owner: [1]})
            case Reopened():
                return self.but(names=[])


def memory() -> MemoryStore:
    return MemoryStore(clock=ManualClock("2026-01-05T09:00:00Z", step=timedelta(minutes=1)), ids=SeededIds(1))


@pytest.fixture(params=["memory", "duckdb"])
def store(request: pytest.FixtureRequest) -> Any:
    clock = ManualClock("2026-01-05T09:00:00Z", step=timedelta(minutes=1))
    with (MemoryStore if request.param == "memory" else EventStore)(clock=clock, ids=SeededIds(1)) as made:
        yield made


def filled(store: Store, **kwargs: Any) -> Repository[Cart]:
    """Return carts with one: opened, two lines, paid."""
    carts = Repository(store, Cart, **kwargs)
    carts.run("c-1", Cart.open, "ann")
    carts.run("c-1", Cart.add, "mug", Decimal("7.50"))
    carts.run("c-1", Cart.add, "pot", Decimal("20.00"))
    carts.run("c-1", Cart.pay)
    return carts


# --- deciding ----------------------------------------------------------------------------------------------


def test_run_returns_the_recorded_event(store: Store) -> None:
    """A decision that returns one event gives it back in its envelope."""
    one = Repository(store, Cart).run("c-1", Cart.open, "ann")
    assert (one.event, one.stream, one.version) == (Opened(owner="ann"), "Cart/c-1", 1)


def test_run_returns_all_of_several_events(store: Store) -> None:
    """A decision that returns a list gives all its events, recorded as one."""
    carts = Repository(store, Cart)
    carts.run("c-1", Cart.open, owner="ann")
    several = carts.run("c-1", Cart.add_all, "a", "b")
    assert isinstance(several, Recorded)
    assert [one.version for one in several] == [2, 3]


def test_run_writes_nothing_for_no_event(store: Store) -> None:
    """A decision that returns None gives None, and one that returns an empty list an empty record."""
    carts = Repository(store, Cart)
    carts.run("c-1", Cart.open, "ann")
    assert carts.run("c-1", Cart.add, "mug", Decimal(0)) is None
    assert list(carts.run("c-1", Cart.add_all)) == []
    assert store.position == 1


def test_a_refusal_passes_through_and_writes_nothing(store: Store) -> None:
    """Refused comes out as the decision raised it."""
    carts = Repository(store, Cart)
    with pytest.raises(Refused, match="the cart is new, not open"):
        carts.run("c-1", Cart.pay)
    assert store.position == 0


def test_an_invalid_state_is_not_recorded() -> None:
    """Events after which the state would break its own types are refused before they are written."""

    class Tiny(State[Opened]):
        owner: Annotated[str, Field(max_length=3)] = ""

        def open(self, owner: str) -> Opened:
            return Opened(owner=owner)

        def evolve(self, event: Opened) -> Self:
            return self.but(owner=event.owner)

    store = memory()
    with pytest.raises(InvalidState, match="owner"):
        Repository(store, Tiny).run("t", Tiny.open, "annabel")
    assert store.position == 0


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        ("pay", "'pay' is not a decision: give the method itself, as in Cart.pay"),
        (None, "None is not a decision"),
        (Cart().open, "give the decision unbound, Cart.open"),
        (Bag.open, "Bag.open decides on a Bag, and this is a repository of Cart"),
        (lambda cart: 5, "a decision returned 5"),
        (lambda cart: "no", "a decision returned 'no'"),
    ],
)
def test_what_is_no_decision_is_named(decision: Any, told: str) -> None:
    """Text, nothing, a bound method, another state's method and odd results each say what to give."""
    with pytest.raises(InvalidArgument, match=told):
        Repository(memory(), Cart).run("c-1", decision)


def test_a_decision_may_be_inherited() -> None:
    """A subclass decides with what it inherits."""

    class Gift(Cart, category="Gift"):
        wrapped: bool = True

    assert Repository(memory(), Gift).run("g", Gift.open, "ann").stream == "Gift/g"


# --- conflicts ---------------------------------------------------------------------------------------------


def rival(store: Store, times: int) -> Any:
    """Return a decision during which somebody else appends, `times` times."""
    left = iter(range(times))

    def slow(cart: Cart) -> Added:
        if next(left, None) is not None:
            store.append("Cart/c-1", Added(line=Line(sku="rival", price=Decimal(1)), at=NOON))
        return Added(line=Line(sku=f"after {len(cart.lines)}", price=Decimal(2)), at=NOON)

    return slow


def test_a_conflict_is_decided_again_and_counted(store: Store) -> None:
    """The second try decides on what the rival did; the count shows in the repr."""
    carts = Repository(store, Cart)
    carts.run("c-1", Cart.open, "ann")
    carts.run("c-1", rival(store, 2))
    assert [line.sku for line in carts.load("c-1").state.lines] == ["rival", "rival", "after 2"]
    assert carts.conflicts == 2
    assert "2 conflicts retried" in repr(carts)


def test_tries_are_bounded_and_told(store: Store) -> None:
    """When the retries are used up the last conflict is raised with the number of tries."""
    carts = Repository(store, Cart, retries=2)
    with pytest.raises(Conflict) as raised:
        carts.run("c-1", rival(store, 9))
    assert raised.value.__notes__ == [
        "decided 3 times, each time on a fresh load; someone else was faster (retries=2)"
    ]
    assert store.version("Cart/c-1") == 3


def test_threads_lose_nothing(store: Store) -> None:
    """Two repositories on one store, four threads: every acknowledged line is there exactly once."""
    first, second = Repository(store, Cart, retries=100), Repository(store, Cart, retries=100)
    first.run("c-1", Cart.open, "ann")
    start = Barrier(4)

    def work(carts: Repository[Cart], name: int) -> None:
        start.wait()
        for number in range(10):
            carts.run("c-1", Cart.add, f"{name}-{number}", Decimal(1))

    threads = [Thread(target=work, args=([first, second][n % 2], n)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    lines = first.load("c-1").state.lines
    assert sorted(line.sku for line in lines) == sorted(f"{a}-{b}" for a in range(4) for b in range(10))
    assert first.load("c-1").state == second.load("c-1").state == fold(Cart, store.read("Cart/c-1"))


# --- loading and saving ------------------------------------------------------------------------------------


def test_load_folds_the_stream(store: Store) -> None:
    """An aggregate has its id, its state and its version."""
    cart = filled(store).load("c-1")
    assert (cart.id, cart.version, cart.state.status, cart.state.total) == (
        "c-1",
        4,
        "paid",
        Decimal("27.50"),
    )


def test_an_unknown_id_names_near_ones(store: Store) -> None:
    """Loading what does not exist says what does."""
    with pytest.raises(StreamNotFound, match=r"Cart 'c1' was recorded; did you mean 'c-1'"):
        filled(store).load("c1")


@pytest.mark.parametrize("id", ["", None, 3, "Cart/c-1", "a\0b"])
def test_an_odd_id_is_refused(id: Any) -> None:
    """Empty, foreign and whole stream ids are told apart from ids."""
    with pytest.raises(InvalidArgument):
        Repository(memory(), Cart).load(id)


def test_save_records_what_was_decided(store: Store) -> None:
    """Several decisions on an aggregate are saved as one append."""
    carts = Repository(store, Cart)
    carts.save(carts.new("c-1").decide(Cart.open, "ann").decide(Cart.add, "mug", Decimal(3)))
    assert (carts.load("c-1").version, carts.load("c-1").state.total) == (2, Decimal("3.00"))


def test_a_second_save_is_a_conflict(store: Store) -> None:
    """Saving the same aggregate again cannot append twice; a fresh load goes on."""
    carts = Repository(store, Cart)
    cart = carts.new("c-1").decide(Cart.open, "ann")
    carts.save(cart)
    with pytest.raises(Conflict):
        carts.save(cart)
    carts.save(carts.load("c-1").decide(Cart.add, "mug", Decimal(3)))
    assert store.position == 2


def test_an_aggregate_without_events_or_of_another_kind_is_not_saved() -> None:
    """There must be something to save, and it must be ours."""
    carts, bags = Repository(memory(), Cart), Repository(memory(), Bag)
    with pytest.raises(InvalidArgument, match="nothing to save"):
        carts.save(carts.new("c-1"))
    with pytest.raises(InvalidArgument, match="not an aggregate of Cart"):
        carts.save(bags.new("c-1").decide(Bag.open, "ann"))  # type: ignore[arg-type]  # on purpose


def test_a_foreign_event_is_named(store: Store) -> None:
    """An event type that the state does not know stops the load with its name."""
    store.append("Cart/c-1", Stray())
    with pytest.raises(UnknownEventType, match="Cart does not know the event type 'Stray'"):
        Repository(store, Cart).load("c-1")


# --- back in time ------------------------------------------------------------------------------------------


def test_load_at_a_version(store: Store) -> None:
    """Every version from 0 to the head can be loaded; a later one is named."""
    carts = filled(store)
    assert [len(carts.load("c-1", at=version).state.lines) for version in range(5)] == [0, 0, 1, 2, 2]
    with pytest.raises(InvalidArgument, match="is at version 4; there is no 5: give 0 to 4"):
        carts.load("c-1", at=5)
    with pytest.raises(StreamNotFound):
        carts.load("c-2", at=1)


def test_load_at_a_version_from_a_dataframe(store: Store) -> None:
    """A version taken from a history's column works as a plain number does."""
    carts = filled(store)
    assert carts.load("c-1", at=carts.history("c-1").version.iloc[2]).version == 3


@pytest.mark.parametrize("at", [True, "3", 2.0, -1, datetime(2026, 1, 5)])
def test_a_moment_that_is_none_is_refused(at: Any) -> None:
    """Truth values, text, fractions, negative numbers and naive times are no moments."""
    with pytest.raises(InvalidArgument):
        filled(memory()).load("c-1", at=at)


def test_load_at_a_recorded_time(store: Store) -> None:
    """A time gives what was recorded by then; before the first event there is nothing."""
    carts = filled(store)
    third = next(one for one in store.read("Cart/c-1") if one.version == 3)
    assert carts.load("c-1", at=third.recorded_at).version == 3
    with pytest.raises(StreamNotFound, match=r"by 2026-01-01.*: its first was recorded at 2026-01-05"):
        carts.load("c-1", at=datetime(2026, 1, 1, tzinfo=UTC))


def test_load_by_what_had_occurred(store: Store) -> None:
    """Late news counts from when it happened, in order of version; what has no time counts when recorded."""
    late, early = NOON + timedelta(days=1), NOON - timedelta(days=1)
    line = [Added(line=Line(sku=name, price=Decimal(1)), at=NOON) for name in ("late", "early")]
    store.append("Cart/c-1", [Opened(owner="ann"), NewEvent(line[0], occurred_at=late)])
    store.append("Cart/c-1", NewEvent(line[1], occurred_at=early))
    carts = Repository(store, Cart)
    found = carts.load("c-1", occurred_at=NOON)
    assert [one.sku for one in found.state.lines] == ["early"]
    assert [one.sku for one in carts.load("c-1", occurred_at=late).state.lines] == ["late", "early"]
    with pytest.raises(StreamNotFound, match="by 2026-01-01"):
        carts.load("c-1", occurred_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_partial_view_never_enters_the_cache(store: Store) -> None:
    """Saving what was decided on a view by occurrence leaves loads equal to the fold of the log."""
    store.append("Cart/c-1", Opened(owner="ann"))
    line = Added(line=Line(sku="later", price=Decimal(1)), at=NOON)
    store.append("Cart/c-1", NewEvent(line, occurred_at=NOON + timedelta(days=9)))
    store.append("Cart/c-1", NewEvent(line, occurred_at=NOON - timedelta(days=9)))
    carts = Repository(store, Cart)
    carts.load("c-1")
    carts.save(carts.load("c-1", occurred_at=NOON).decide(Cart.pay))
    assert carts.load("c-1").state == fold(Cart, store.read("Cart/c-1"))


def test_a_store_as_of_a_position_is_read_and_not_written(store: Store) -> None:
    """A repository over the past loads it, lists it, and refuses to decide."""
    filled(store)
    past = Repository(store.as_of(2), Cart, snapshot_every=1)
    assert (past.load("c-1").version, past.ids(), len(past.history("c-1"))) == (2, ["c-1"], 2)
    with pytest.raises(ReadOnlyStore):
        past.run("c-1", Cart.pay)


# --- history -----------------------------------------------------------------------------------------------


def test_history_shows_each_event_and_what_it_changed(store: Store) -> None:
    """One row per event with the state after it and the fields it set, old and new."""
    table = filled(store).history("c-1")
    assert list(table.columns) == [
        *("version", "position", "recorded_at", "event", "data", "changed"),
        *("status", "owner", "lines", "total", "last"),
    ]
    assert list(table.event) == ["Opened", "Added", "Added", "Paid"]
    assert table.changed[0] == "status: new → open; owner: '' → ann"
    assert table.changed[3] == "status: open → paid"
    assert list(table.total) == [Decimal(0), Decimal("7.50"), Decimal("27.50"), Decimal("27.50")]
    assert str(table.recorded_at.dtype) == "datetime64[us, UTC]"


def test_blame_tells_who_set_each_field(store: Store) -> None:
    """A field's present value stands beside the event that set it last; a default has nobody."""
    carts = Repository(store, Cart)
    carts.run("c-1", Cart.open, "ann")
    carts.run("c-1", Cart.add, "mug", Decimal(3))
    table = carts.blame("c-1").set_index("field")
    assert dict(table.set_by.dropna()) == {
        **dict.fromkeys(("status", "owner"), "Opened"),
        **dict.fromkeys(("lines", "total", "last"), "Added"),
    }
    assert (table.value["total"], table.version["total"], table.position["status"]) == (Decimal("3.00"), 2, 1)
    store.append("Bag/b", Reopened())
    assert Repository(store, Bag).blame("b").set_by.isna().all()


def test_a_field_named_as_a_column_keeps_apart() -> None:
    """A state's own `version` stands beside the stream's."""

    class Document(State[Opened]):
        version: str = "draft"

        def evolve(self, event: Opened) -> Self:
            return self.but(version=event.owner)

    store = memory()
    store.append("Document/d", Opened(owner="final"))
    row = Repository(store, Document).history("d").iloc[0]
    assert (row.version, row.version_) == (1, "final")


@pytest.mark.parametrize("look", [Repository.history, Repository.blame])
def test_an_unknown_id_has_no_history(look: Any) -> None:
    """Looking back at what does not exist is an error, not an empty table."""
    with pytest.raises(StreamNotFound, match="c-2"):
        look(filled(memory()), "c-2")


# --- the cache ---------------------------------------------------------------------------------------------


class Counted(MemoryStore):
    """A store that counts the payloads it hands out."""

    handed = 0

    def payloads(self, *args: Any, **kwargs: Any) -> Any:
        found = super().payloads(*args, **kwargs)
        self.handed += len(found)
        return found


def test_a_warm_load_reads_only_what_is_newer() -> None:
    """After a load, the next reads nothing, and after another append just that."""
    store = Counted()
    store.append("Cart/c-1", [Opened(owner="ann"), Paid(amount=Decimal(0))])
    carts = Repository(store, Cart)
    handed = []
    for _ in range(2):
        carts.load("c-1"), carts.load("c-1")
        handed.append(store.handed)
        store.append("Cart/c-1", Reopened())
    assert handed == [2, 3]


def test_run_reads_nothing_it_recorded_itself() -> None:
    """What a repository appends goes into its cache without being read again."""
    store = Counted()
    carts = filled(store)
    assert (carts.load("c-1").version, store.handed) == (4, 0)


def test_the_cache_holds_the_states_used_last() -> None:
    """With room for two, the third pushes out the one not used for longest."""
    store = Counted()
    for id in "abc":
        store.append(f"Cart/{id}", Opened(owner=id))
    carts = Repository(store, Cart, cache=2)
    for id in "abaca":
        carts.load(id)
    assert store.handed == 3
    assert carts.load("b").state.owner == "b"
    assert store.handed == 4


def test_a_state_with_containers_is_handed_out_as_a_copy() -> None:
    """Changing a loaded list or a nested one in place harms no later load."""
    store = memory()
    bags = Repository(store, Bag)
    bags.run("b", Bag.open, "ann")
    for _ in range(2):
        bag = bags.load("b").state
        bag.names.append("spoilt")
        bag.nested["ann"].append(2)
    assert bags.load("b").state == fold(Bag, store.read("Bag/b"))


CELL = """
class Doc(State[Opened]):
    name: str = ""
    def evolve(self, event):
        match event:
            case Opened(owner=owner): return self.but(name={value})
"""


def cell(text: str, **names: Any) -> dict[str, Any]:
    """Run a cell in a namespace of its own, as a notebook does."""
    scope = {"__name__": __name__, "State": State, "Opened": Opened, **names}
    run_again(text, scope)
    return scope


def run_again(text: str, scope: dict[str, Any]) -> None:
    """Run a cell's text in its namespace, without this module's own future imports."""
    exec(compile(text, "<cell>", "exec", dont_inherit=True), scope)


def test_a_cell_run_again_drops_the_cache() -> None:
    """A changed evolve, and a changed function that it calls, show at the next load."""
    store = memory()
    store.append("Doc/d", Opened(owner="ann"))
    scope = cell("def told(x): return x\n" + CELL.format(value="told(owner)"))
    docs = Repository(store, scope["Doc"])
    names = [docs.load("d").state.name]
    for text in ("def told(x): return x.upper()", CELL.format(value="told(owner) + '!'")):
        run_again(text, scope)
        names.append(docs.load("d").state.name)
    assert names == ["ann", "ANN", "ANN!"]


# --- snapshots ---------------------------------------------------------------------------------------------


def test_a_snapshot_spares_the_replay() -> None:
    """Another repository starts from the snapshot and reads only what follows it."""
    store = Counted()
    filled(store, snapshot_every=3)
    assert store.snapshot("Cart/c-1").version == 3
    cart = Repository(store, Cart, snapshot_every=3).load("c-1")
    assert store.handed == 1
    assert cart.state == fold(Cart, store.read("Cart/c-1"))


@pytest.mark.parametrize(
    ("value", "before", "now"),
    [
        pytest.param("owner", "", CELL.format(value="owner + '!'"), id="evolve"),
        pytest.param("told(owner)", "def told(x): return x", "def told(x): return x + '!'", id="helper"),
        pytest.param("owner + end", "end = ''", "end = '!'", id="constant"),
        pytest.param("owner + ends['a']", "ends = {'a': ''}", "ends = {'a': '!'}", id="table"),
        pytest.param("owner + ends['a']", "ends = {'a': ''}", "ends['a'] = '!'", id="table in place"),
        pytest.param("owner + Ends.a", "class Ends: a = ''", "class Ends: a = '!'", id="other class"),
        pytest.param("owner + Ends.a", "class Ends: a = ''", "Ends.a = '!'", id="class in place"),
        pytest.param(
            "self.told(owner)",
            "",
            CELL.format(value="self.told(owner)").replace(
                "    def evolve",
                "    def told(self, x): return x + self.end\n    end_: str = ''\n"
                "    @property\n    def end(self): return '!'\n    def evolve",
            ),
            id="method and property",
        ),
    ],
)
def test_a_stale_snapshot_is_replayed(value: str, before: str, now: str) -> None:
    """Whatever changes in what the fold leans on, the log is folded anew."""
    store = memory()
    first = CELL.format(value=value)
    if "self." in value:
        first = now.replace("'!'", "''")
    scope = cell(f"{before}\n{first}")
    docs = Repository(store, scope["Doc"], snapshot_every=1)
    docs.run("d", lambda doc: Opened(owner="ann"))
    assert store.snapshot("Doc/d") is not None
    run_again(now, scope)
    again = Repository(store, scope["Doc"], snapshot_every=1)
    assert (docs.load("d").state.name, again.load("d").state.name) == ("ann!", "ann!")


def test_another_event_shape_makes_a_snapshot_stale() -> None:
    """A new default in a nested value of an event counts as a change."""
    code = """
class Part(Value):
    text: str = "{default}"
class Noted(Event):
    part: Part = Part()
class Note(State[Noted]):
    text: str = ""
    def note(self): return Noted()
    def evolve(self, event): return self.but(text=event.part.text)
"""
    stamps = []
    for default in ("a", "a", "b"):
        scope = cell(code.format(default=default), Value=Value, Event=Event)
        store = memory()
        notes = Repository(store, scope["Note"], snapshot_every=1)
        notes.run("n", scope["Note"].note)
        stamps.append(store.snapshot("Note/n").stamp)
    assert stamps[0] == stamps[1] != stamps[2]


@pytest.mark.parametrize("text", ["", "{", '{"status": "unheard of"}', '{"gone": 1}'])
def test_a_damaged_snapshot_is_replayed(text: str) -> None:
    """A snapshot that is no such state is ignored: the log is the truth."""
    store = memory()
    filled(store, snapshot_every=1)
    store.save_snapshot(store.snapshot("Cart/c-1")._replace(state=text))
    assert Repository(store, Cart, snapshot_every=1).load("c-1").state.total == Decimal("27.50")


def test_a_snapshot_beyond_the_head_is_ignored() -> None:
    """A snapshot of a version that the stream does not have cannot be of this stream."""
    store = memory()
    filled(store, snapshot_every=1)
    store.save_snapshot(store.snapshot("Cart/c-1")._replace(version=9))
    assert Repository(store, Cart, snapshot_every=1).load("c-1").version == 4


def test_a_state_that_does_not_survive_json_has_no_snapshots() -> None:
    """Its events are recorded, nothing wrong is kept, and the repository says why."""

    class Loose(State[Opened]):
        seen: Any = None

        def open(self, owner: str) -> Opened:
            return Opened(owner=owner)

        def evolve(self, event: Opened) -> Self:
            return self.but(seen=(event.owner,))

    store = memory()
    loose = Repository(store, Loose, snapshot_every=1)
    assert loose.run("x", Loose.open, "ann").version == 1
    assert store.snapshot("Loose/x") is None
    assert loose.no_snapshots == "Loose does not survive JSON (seen is ('ann',), and comes back as ['ann'])"
    assert "no snapshots: Loose does not survive JSON" in repr(loose)


def test_a_fold_that_nobody_can_look_into_has_no_snapshots_and_no_cache() -> None:
    """What may change unseen is asked anew at each load, and the repository says why."""
    store = memory()
    before = "import array\nends = array.array('i', [1])\n"
    scope = cell(before + CELL.format(value="owner + '!' * ends[0]"))
    docs = Repository(store, scope["Doc"], snapshot_every=1)
    docs.run("d", lambda doc: Opened(owner="ann"))
    assert docs.load("d").state.name == "ann!"
    run_again("ends[0] = 2", scope)
    assert docs.load("d").state.name == "ann!!"
    assert store.snapshot("Doc/d") is None
    assert docs.no_snapshots == (
        "nobody could tell when they are stale: ends is a array.array, which may change unseen"
    )


def test_a_failing_snapshot_does_not_hide_that_events_are_recorded() -> None:
    """When a snapshot cannot be written the decision still returns its event, and the reason is told."""

    class Full(MemoryStore):
        def save_snapshot(self, snapshot: Any) -> None:
            raise OSError("no space left")

    carts = Repository(Full(), Cart, snapshot_every=1)
    assert carts.run("c-1", Cart.open, "ann").version == 1
    assert carts.no_snapshots == "OSError: no space left"


def test_a_snapshot_outlives_the_process(tmp_path: Path) -> None:
    """A store opened again goes on from its snapshots: the tampered one shows that it was used."""
    path = tmp_path / "carts.duckdb"
    with EventStore(path) as store:
        filled(store, snapshot_every=4)
        kept = store.snapshot("Cart/c-1")
        assert kept is not None
        store.save_snapshot(kept._replace(state=kept.state.replace("27.50", "99.00")))
    with EventStore(path) as store:
        assert Repository(store, Cart, snapshot_every=4).load("c-1").state.total == Decimal("99.00")
        assert Repository(store, Cart).load("c-1").state.total == Decimal("27.50")


# --- equal by every way ------------------------------------------------------------------------------------

COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just(Cart.open), st.tuples(st.text(max_size=3))),
        st.tuples(st.just(Cart.add), st.tuples(st.text(max_size=3), st.decimals(0, 99, places=2))),
        st.tuples(st.just(Cart.add_all), st.lists(st.text(max_size=2), max_size=3).map(tuple)),
        st.tuples(st.sampled_from([Cart.pay, Cart.reopen]), st.just(())),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(first=st.text(max_size=3), commands=COMMANDS, every=st.integers(1, 5))
def test_every_way_to_load_gives_the_same(first: str, commands: list[Any], every: int) -> None:
    """Warm, cold, from snapshots, at each version: always the fold of the stream's prefix."""
    store = memory()
    warm, kept = Repository(store, Cart), Repository(store, Cart, snapshot_every=every)
    warm.run("c", Cart.open, first)
    for number, (decision, args) in enumerate(commands):
        try:
            (warm, kept)[number % 2].run("c", decision, *args)
        except Refused:
            continue
    whole = list(store.read("Cart/c"))
    assert warm.load("c").state == kept.load("c").state == fold(Cart, whole)
    for version in range(len(whole) + 1):
        assert warm.load("c", at=version).state == fold(Cart, whole[:version])
    for cold in (Repository(store, Cart), Repository(store, Cart, snapshot_every=every)):
        assert cold.load("c").state == fold(Cart, whole)


class Boxed(Value):
    names: list[str] = []


class Sealed(Value):
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("kind", "shared"),
    [
        (tuple[Sealed, ...], True),
        (dict[str, int], False),
        (tuple[Boxed, ...], False),
        (Sequence[str], False),
        (frozenset[Decimal] | None, True),
        (Literal["a", "b"], True),
        (Any, False),
        (tuple[str, list[int]], False),
    ],
)
def test_only_what_is_frozen_at_every_depth_is_shared(kind: Any, shared: object) -> None:
    """A loaded state is the cached one itself only if nothing in it can be changed in place."""
    made = create_model("Made", __base__=State[Opened], field=(kind, None))
    assert is_mutable(made) is not shared


@pytest.mark.parametrize(
    "wrong",
    [
        {"store": "x"},
        {"store": None},
        {"retries": "a"},
        {"retries": -1},
        {"cache": None},
        {"snapshot_every": 0},
    ],
)
def test_a_repository_of_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    """When it is made, with the argument's name."""
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Repository(**{"store": memory(), "state": Cart, **wrong})


class Emptied(Event):
    pass


class Basket(State[Added | Emptied]):
    items: tuple[str, ...] = ()
    emptied: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def size(self) -> int:
        return len(self.items)

    def empty(self) -> Emptied:
        assert self.size == len(self.items)
        return Emptied()

    def evolve(self, event: Added | Emptied) -> Self:
        match event:
            case Added():
                return self.but(items=(*self.items, "x"))
            case Emptied():
                return self.but(items=(), emptied=self.emptied + 1)


def test_a_state_that_is_false_has_a_history_as_any_other() -> None:
    """An empty basket has a length of 0, and is a state all the same."""
    store = MemoryStore()
    baskets = Repository(store, Basket)
    for _ in range(2):
        baskets.run("b", Basket.empty)
    assert baskets.load("b").state.emptied == 2
    assert baskets.history("b")["emptied"].tolist() == [1, 2]
    assert baskets.blame("b").set_index("field").loc["emptied", "version"] == 2


def test_a_cached_property_belongs_to_one_state_alone() -> None:
    """A copy works it out anew, and a decision may read it."""
    store = MemoryStore()
    baskets = Repository(store, Basket)
    basket = Basket()
    assert basket.size == 0
    assert basket.but(items=("a", "b")).size == 2
    baskets.run("b", Basket.empty)
    baskets.run("b", Basket.empty)
    assert baskets.load("b").version == 2


@pytest.mark.parametrize("cache", [1024, 0])
def test_an_aggregate_whose_last_event_is_read_as_none_still_decides(cache: int) -> None:
    """The version of an aggregate is that of its stream, whatever upcasters leave of it."""

    def drop(payload: dict[str, Any]) -> dict[str, Any] | None:
        return payload if payload["fee"] > 2 else None

    class Slip(Event):
        fee: int

    with EventStore() as store:
        store.append("Member/1", [Slip(fee=5), Slip(fee=1)])

        class Slip(Event, schema_version=2, upcasters=(drop,)):  # type: ignore[no-redef]
            fee: int

        class Member(State[Slip]):
            fees: int = 0

            def charge(self, fee: int) -> Slip:
                return Slip(fee=fee)

            def evolve(self, event: Slip) -> Self:
                return self.but(fees=self.fees + event.fee)

        members = Repository(store, Member, cache=cache)
        assert members.load("1").version == 2
        for fee in (7, 8):
            members.run("1", Member.charge, fee)
        assert (members.load("1").version, members.load("1").state.fees) == (4, 20)
        assert (members.load("1", at=2).version, members.load("1", at=2).state.fees) == (2, 5)
