"""The time machine without a browser: its steps, its static forms, and what it never imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from esim import view
from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.errors import InvalidArgument, StreamNotFound
from esim.event import Event
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.repository import Repository
from esim.shop import Item, Order, OrderCancelled, OrderPlaced
from esim.state import State
from esim.value import Money
from esim.view import TimeMachine, page, timeline
from esim.view.steps import ABSENT
from esim.view.words import text_of

HOSTILE = "<img src=x onerror=alert(1)></script><!--"


class Basket(Row):
    """What one customer ordered."""

    customer: Key[str]
    orders: int = 0
    spent: Money = Decimal(0)


class Baskets(Projection[Basket]):
    """Orders and money per customer, until they cancel."""

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced, rows: Rows[Basket]) -> None:
        """Add an order."""
        row = rows.get(event.customer) or Basket(customer=event.customer)
        rows.put(row.but(orders=row.orders + 1, spent=row.spent + event.total))

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled, rows: Rows[Basket]) -> None:
        """Forget alice."""
        rows.delete("alice")


class Methods(SqlProjection):
    """Payments by method."""

    query = "SELECT method, count(*) AS n, sum(amount) AS amount FROM OrderPaid GROUP BY method"
    key = ("method",)


class Unheard(Event):
    """An event that no order knows."""

    note: str = ""


@pytest.fixture
def store() -> Store:
    """Return a log of two orders whose events alternate; one carries hostile text."""
    store = MemoryStore(clock=ManualClock("2026-03-02T09:00:00Z", step=timedelta(hours=1)), ids=SeededIds(1))
    orders = Repository(store, Order)
    cups = Item(sku="cup", quantity=4, price=Decimal("5.60"))
    pot = Item(sku="pot", quantity=1, price=Decimal("31.00"))
    orders.run("o-1", Order.place, customer="alice", items=[cups, pot])
    orders.run("o-2", Order.place, customer="bob", items=[cups])
    orders.run("o-1", Order.pay, payment="p-1", amount=Decimal("53.40"), method="card")
    orders.run("o-2", Order.pay, payment="p-2", amount=Decimal("22.40"), method="bank")
    orders.run("o-1", Order.cancel, reason=HOSTILE)
    return store


@pytest.fixture
def orders(store: Store) -> Repository[Order]:
    """Return the repository of the orders in the log."""
    return Repository(store, Order)


class Tags(HTMLParser):
    """Collects the names of elements and attributes of a piece of HTML."""

    def __init__(self, html: str) -> None:
        """Read `html`."""
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)


# --- one stream --------------------------------------------------------------------------------------------


def test_a_stream_has_a_step_for_each_version_and_one_before(orders: Repository[Order]) -> None:
    """The slider runs from before the first event to the last version."""
    steps = timeline(orders, "o-1").steps
    assert [step.label for step in steps] == [f"version {n}" for n in range(5)]
    assert [step.event and step.event.type for step in steps] == [
        *(None, "OrderPlaced", "OrderPaid", "OrderCancelled", "RefundRequested"),
    ]


def test_each_step_holds_the_state_after_it(orders: Repository[Order]) -> None:
    """The states are those that the repository loads at each version."""
    for version, step in enumerate(timeline(orders, "o-1").steps):
        state = orders.load("o-1", at=version).state if version else Order.initial()
        assert step.state is not None
        shown = {field.name: field.text for field in step.state.fields}
        assert shown == {name: text_of(getattr(state, name)) for name in Order.model_fields}


def test_a_changed_field_carries_what_stood_there_before(orders: Repository[Order]) -> None:
    """Only the fields that the event changed have a `before`."""
    paid = timeline(orders, "o-1").steps[2]
    assert paid.state is not None
    assert {field.name: field.before for field in paid.state.fields if field.before is not None} == {
        "status": "pending",
        "paid": "0",
    }
    assert paid.changes == ("status: pending → paid", "paid: 0 → 53.40")


def test_an_event_shows_its_envelope_and_payload(orders: Repository[Order]) -> None:
    """Place, time and payload are text, a list of records line by line."""
    event = timeline(orders, "o-1").steps[1].event
    assert event is not None
    assert (event.stream, event.version, event.position) == ("Order/o-1", 1, 1)
    assert [(field.name, field.text) for field in event.facts] == [("recorded", "2026-03-02 09:00:00 UTC")]
    assert [field.text for field in event.data] == [
        *("alice", "sku cup · quantity 4 · price 5.60\nsku pot · quantity 1 · price 31.00", "53.40"),
    ]


def test_a_limit_keeps_the_last_steps_and_says_so(orders: Repository[Order]) -> None:
    """The first step then holds the state before the events shown, not the initial one."""
    made = timeline(orders, "o-1", limit=2)
    assert [step.label for step in made.steps] == ["version 2", "version 3", "version 4"]
    assert made.steps[0].state is not None
    assert made.steps[0].state.fields[0].text == "paid"
    assert "the last 2 of 4 events" in made.notes[0]


def test_a_fold_that_fails_is_shown_in_place_of_the_state(store: Store, orders: Repository[Order]) -> None:
    """The log stays readable, and the problem is named at the step where it begins."""
    store.append("Order/o-1", Unheard())
    step = timeline(orders, "o-1").steps[-1]
    assert step.state is not None
    assert step.state.problem.startswith("UnknownEventType: Order does not know the event type 'Unheard'")
    assert "does not know the event type" in page.static_html(timeline(orders, "o-1"))


# --- a whole store -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Baskets, Methods])
def test_read_models_are_as_of_each_position(store: Store, kind: type[Baskets | Methods]) -> None:
    """What a step shows is what `as_of` gives for its position."""
    model = kind(store)
    made = timeline(store, projections=[model])
    table = made.tables[0]
    for position, step in enumerate(made.steps):
        shown = [table.pool[row] for row in step.rows[0] if row != ABSENT]
        frame = model.as_of(position)
        assert sorted(shown) == sorted(tuple(map(text_of, row)) for row in frame.itertuples(index=False))
        assert table.columns == tuple(frame.columns)


def test_read_models_stand_beside_a_single_stream_too(store: Store, orders: Repository[Order]) -> None:
    """Between two versions other streams have moved the read model on."""
    made = timeline(orders, "o-1", projections=[Baskets(store)])
    assert made.steps[2].changes[-1] == "Baskets bob: new row, orders 1, spent 22.40"
    assert made.steps[3].changes[-1] == "Baskets alice: row removed"


def test_a_limit_starts_read_models_from_the_whole_past(store: Store) -> None:
    """Rows from before the first step shown are there from the start."""
    made = timeline(store, projections=[Baskets(store)], limit=2)
    assert made.tables[0].keys == (("alice",), ("bob",))
    assert made.steps[0].rows == ((0, 1),)


def test_a_big_read_model_shows_first_what_changes(store: Store) -> None:
    """At most 20 rows are shown; those that change in the steps come before those that rest."""
    orders = Repository(store, Order)
    for number in range(30):
        items = [Item(sku="cup", quantity=1, price=Decimal(1))]
        orders.run(f"x-{number}", Order.place, customer=f"a-{number:02}", items=items)
    table = timeline(store, projections=[Baskets(store)], limit=1).tables[0]
    assert table.note == "20 of 31 rows"
    assert ("a-29",) in table.keys
    assert timeline(store, projections=[Baskets(store)]).tables[0].note == (
        "20 of 32 rows; 12 others change in these steps, unseen"
    )


def test_numbers_are_known_as_such(store: Store) -> None:
    """Columns of numbers are marked, so that they can be set flush right."""
    assert timeline(store, projections=[Baskets(store)]).tables[0].numeric == (False, True, True)
    assert timeline(store, projections=[Methods(store)]).tables[0].numeric == (False, True, True)


def test_states_are_folded_per_stream(store: Store) -> None:
    """A change is against the same stream's state before, whatever happened in between."""
    steps = timeline(store, states=[Order]).steps
    assert steps[3].changes == ("status: pending → paid", "paid: 0 → 53.40")
    assert steps[4].changes == ("status: pending → paid", "paid: 0 → 22.40")


def test_a_store_needs_no_classes(store: Store) -> None:
    """Without states the events alone are shown."""
    step = timeline(store).steps[-1]
    assert step.state is None
    assert step.event is not None
    assert step.event.type == "RefundRequested"


def test_streams_narrow_a_store(store: Store) -> None:
    """Two streams are merged by position; one stream counts in versions."""
    both = timeline(store, streams=["Order/o-2", "Order/o-1"], limit=3)
    assert [step.label for step in both.steps[1:]] == ["position 4", "position 5", "position 6"]
    assert [step.label for step in timeline(store, streams="Order/o-2").steps] == [
        *("version 0", "version 1", "version 2"),
    ]


def test_an_empty_store_has_one_step() -> None:
    """There is nothing to see, and no error."""
    empty = MemoryStore()
    assert [step.label for step in timeline(empty, projections=[Baskets(empty)]).steps] == ["position 0"]


def test_a_store_as_of_a_position_ends_there(store: Store) -> None:
    """The way to look at an earlier part of a long log."""
    assert timeline(store.as_of(3), limit=2).steps[-1].label == "position 3"


# --- refusals and limits -----------------------------------------------------------------------------------


def test_a_stream_without_events_is_not_found(orders: Repository[Order]) -> None:
    """The message names the stream and the nearest one."""
    with pytest.raises(StreamNotFound, match="'Order/o-11' has no events; did you mean 'Order/o-1'"):
        timeline(orders, "o-11")


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [({"id": "Order/o-1"}, "write streams='Order/o-1'"), ({"limit": 0}, "at least one step")],
)
def test_arguments_that_make_no_sense_are_refused(
    store: Store, arguments: dict[str, str], way_out: str
) -> None:
    """The message says what to write instead."""
    with pytest.raises(InvalidArgument, match=way_out):
        timeline(store, **arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_a_repository_needs_an_id(orders: Repository[Order]) -> None:
    """Which stream is meant cannot be guessed."""
    with pytest.raises(InvalidArgument, match="needs the id of one stream"):
        TimeMachine(orders)


def test_a_heavy_log_keeps_fewer_steps(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Rather than send megabytes to a browser, older steps are left out, and that is said."""
    monkeypatch.setattr(sys.modules["esim.view.steps"], "MAX_BYTES", 2_000)
    made = timeline(store, limit=100)
    assert len(json.dumps(made.as_json())) <= 2_000
    assert "of 6 events" in made.notes[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "''"),
        (None, "None"),
        ({"b", "a"}, "a, b"),
        ([1, 2], "1, 2"),
        ({"a": [1, {"b": 2}]}, "a: 1, b 2"),
        (list(range(10)), "0, 1, 2, 3, 4, 5, 6, 7, … and 2 more"),
        ("a\nb\u202ec\x00", "a⏎ b\\u202ec\\x00"),
        ("x" * 400, "x" * 300 + "… (400 characters)"),
        (float("nan"), "None"),
    ],
)
def test_values_become_short_plain_text(value: object, text: str) -> None:
    """No value can be long, span lines on its own, or turn the direction of what is read."""
    assert text_of(value) == text


# --- forms -------------------------------------------------------------------------------------------------


def test_the_static_form_needs_no_style_and_runs_nothing(store: Store, orders: Repository[Order]) -> None:
    """It holds tables and inline styles only, and hostile text as text."""
    html = TimeMachine(orders, "o-1", projections=[Baskets(store)]).static()._repr_html_()
    tags = Tags(html)
    assert tags.names <= {*("div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "br", "b")}
    assert tags.attributes == {"style"}
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "status: pending → paid" in html


def test_the_static_form_says_how_many_steps_it_leaves_out(store: Store) -> None:
    """A long table is cut at its last 30 rows."""
    store.append("Order/o-3", [Unheard(note=str(n)) for n in range(40)])
    html = TimeMachine(store).static()._repr_html_()
    assert "16 earlier steps are not in this table" in html
    assert html.count("<tr>") == 31


def test_text_is_stable_and_tells_the_steps(orders: Repository[Order]) -> None:
    """No address and no time of the run; the same log gives the same text."""
    machine = TimeMachine(orders, "o-1")
    assert repr(machine) == "<TimeMachine Order/o-1: version 0 to version 4>"
    lines = repr(machine.static()).splitlines()
    assert lines[:2] == ["time machine: Order/o-1", "  version 0: before"]
    assert lines[3] == "  version 2: OrderPaid (status: pending → paid; paid: 0 → 53.40)"


def test_without_anywidget_the_static_form_is_shown(
    monkeypatch: pytest.MonkeyPatch, orders: Repository[Order]
) -> None:
    """No widget, no error."""
    monkeypatch.setattr(sys.modules["esim.view.widget"], "find_spec", lambda name: None)
    bundle = TimeMachine(orders, "o-1")._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}


@pytest.mark.skipif(find_spec("anywidget") is None, reason="anywidget is not installed")
def test_the_widget_stands_beside_the_static_form(orders: Repository[Order]) -> None:
    """The front end chooses; showing the same object again shows the same widget."""
    machine = TimeMachine(orders, "o-1")
    first, second = machine._repr_mimebundle_(), machine._repr_mimebundle_()
    assert set(first) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert first == second
    assert machine.widget().timeline == machine.timeline.as_json()


def test_nothing_heavy_is_imported_until_shown() -> None:
    """`import esim.view` brings neither widgets nor pandas."""
    heavy = "{'anywidget', 'ipywidgets', 'pandas', 'IPython', 'traitlets'}"
    code = f"import sys, esim.view; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_page_keeps_hostile_text_inside_its_data(tmp_path: Path, orders: Repository[Order]) -> None:
    """Neither `</script>` nor `<!--` in a payload can end or open anything, and the data survives."""
    machine = TimeMachine(orders, "o-1")
    html = machine.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == machine.timeline.as_json()
    assert html.count("</script>") == 2
    assert "<!--" not in html


def test_the_script_never_makes_html_of_text() -> None:
    """The module knows no way of turning a string into elements, and no address."""
    script = page.asset("time_machine.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?:", script)


def test_the_package_exports_what_it_says() -> None:
    """Every public name is there and documented."""
    assert all(getattr(view, name).__doc__ for name in view.__all__)
    assert issubclass(Order, State)
