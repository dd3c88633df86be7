"""Read models: Python and SQL projections follow the log, never count twice, and can be computed anew."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.clock import ManualClock
from esim.contract import Store
from esim.envelope import RecordedEvent, metadata
from esim.errors import InvalidArgument, NotCaughtUp, ProjectionFailed, SqlRefused
from esim.event import Event, Tag
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.store import EventStore
from esim.value import Money, Value

HOSTILE = "<img src=x onerror=alert(1)>'\"; drop table read.customer_spend; --\0é"


class Bought(Event):
    customer: Annotated[str, Tag()]
    total: Money


class Returned(Event):
    customer: Annotated[str, Tag()]
    total: Money


class Noted(Event):
    text: str


class Spend(Row):
    customer: Key[str]
    orders: int = 0
    spent: Money = Decimal(0)


class CustomerSpend(Projection[Spend]):
    @on(Bought)
    def bought(self, event: Bought, rows: Rows[Spend]) -> None:
        row = rows.get(event.customer) or Spend(customer=event.customer)
        rows.put(row.but(orders=row.orders + 1, spent=row.spent + event.total))

    @on(Returned)
    def returned(self, event: Returned, rows: Rows[Spend]) -> None:
        row = rows.get(event.customer)
        if row is None or row.orders == 1:
            rows.delete(event.customer)
        else:
            rows.put(row.but(orders=row.orders - 1, spent=row.spent - event.total))


class Sales(SqlProjection):
    query = "SELECT customer, count(*) n, sum(total) total FROM Bought GROUP BY customer"
    key = ("customer",)
    combine = {"n": "sum", "total": "sum"}


def bought(customer: str = "ann", total: int = 1) -> Bought:
    return Bought(customer=customer, total=Decimal(total))


def returned(customer: str = "ann", total: int = 1) -> Returned:
    return Returned(customer=customer, total=Decimal(total))


def told(projection: Any, **options: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in projection.df(**options).itertuples(index=False)]


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request: pytest.FixtureRequest) -> Any:
    with request.param(clock=ManualClock(step=timedelta(minutes=1))) as made:
        yield made


# --- following the log -------------------------------------------------------------------------------------


def test_rows_follow_the_events_of_several_streams(store: Store) -> None:
    """A projection gathers the events of all streams into rows by key."""
    store.append("Order/1", bought("ann", 3))
    store.append("Order/2", bought("bob", 5))
    store.append("Order/3", bought("ann", 4))
    assert told(CustomerSpend(store)) == [("ann", 2, Decimal(7)), ("bob", 1, Decimal(5))]


def test_each_event_is_seen_once(store: Store) -> None:
    """Repeated catch-ups, another instance and another window size hand over each event exactly once."""
    seen: list[int] = []

    class Seen(Projection[Spend]):
        window = 2

        @on(Bought)
        def bought(self, event: Bought, rows: Rows[Spend], recorded: RecordedEvent[Bought]) -> None:
            seen.append(recorded.position)

    for number in range(5):
        store.append(f"Order/{number}", [bought(), Noted(text="between")])
        Seen(store).catch_up().catch_up()
    assert seen == [1, 3, 5, 7, 9]


def test_two_instances_do_not_count_twice(store: Store) -> None:
    """An instance whose rows are at hand notices that another one has moved on."""
    first, second = CustomerSpend(store), CustomerSpend(store)
    for turn in (first, second, second, first, second):
        store.append("Order/1", bought())
        turn.catch_up()
    assert told(first) == told(second) == [("ann", 5, Decimal(5))]


def test_a_new_instance_goes_on_where_the_file_stands(tmp_path: Any) -> None:
    """After reopening the file the projection handles only what is new."""
    with EventStore(tmp_path / "shop.duckdb") as store:
        store.append("Order/1", [bought(), bought("bob")])
        CustomerSpend(store).catch_up()
    with EventStore(tmp_path / "shop.duckdb") as store:
        spend = CustomerSpend(store)
        assert spend.position == 2
        store.append("Order/1", bought(total=2))
        assert told(spend) == [("ann", 2, Decimal(3)), ("bob", 1, Decimal(1))]


def test_a_deleted_row_is_gone_and_can_come_back(store: Store) -> None:
    """Deleting takes effect in the table, within one catch-up and across several."""
    spend = CustomerSpend(store)
    store.append("Order/1", [bought(), returned()])
    assert told(spend) == []
    store.append("Order/1", bought(total=9))
    assert told(spend) == [("ann", 1, Decimal(9))]
    store.append("Order/1", returned(total=9))
    assert told(spend) == [] and spend.get("ann") is None


def test_an_empty_log_gives_an_empty_table_with_its_columns(store: Store) -> None:
    """Before the first event there are columns and no rows, by handlers and by SQL, fresh or not."""
    for model in (CustomerSpend(store), Sales(store)):
        assert len(model.df(fresh=False)) == len(model.df()) == len(model.rebuild().df()) == 0
        assert model.df().columns[0] == "customer"


def test_a_type_without_a_class_is_no_obstacle(tmp_path: Any) -> None:
    """Events of unknown classes are passed over unread when the projection does not subscribe to them."""
    with EventStore(tmp_path / "shop.duckdb") as store:
        who = (None, None, None, UUID(int=1))
        store.restore([(1, "Order/1", 1, "LostType", 1, "{}", *who, 0, None, None, None)])
        store.append("Order/1", bought())
        assert told(CustomerSpend(store)) == [("ann", 1, Decimal(1))]
        assert told(Sales(store)) == [("ann", 1, Decimal(1))]
        lost = type("Lost", (SqlProjection,), {"query": "SELECT count(*) n FROM LostType"})
        assert told(lost(store)) == [(1,)]


def test_a_category_or_tags_narrow_the_log(store: Store) -> None:
    """`category=` and `tag=` let only some events of the subscribed types through."""

    class InShops(CustomerSpend, category="Shop"):
        pass

    class OfAnn(CustomerSpend, tag="customer:ann"):
        pass

    store.append("Shop/1", [bought("ann"), bought("bob")])
    store.append("Web/1", [bought("ann", 5)])
    assert told(InShops(store)) == [("ann", 1, Decimal(1)), ("bob", 1, Decimal(1))]
    assert told(OfAnn(store)) == [("ann", 2, Decimal(6))]
    assert OfAnn.over(store.read()) == {"ann": OfAnn(store).get("ann")}


def test_hostile_text_stays_text(store: Store) -> None:
    """Quotes, markup and NUL in keys are stored and found as they are, and escaped in HTML."""
    store.append("Order/1", bought(HOSTILE))
    spend = CustomerSpend(store)
    assert told(spend) == [(HOSTILE, 1, Decimal(1))]
    assert spend.get(HOSTILE) == Spend(customer=HOSTILE, orders=1, spent=Decimal(1))
    assert "<img" not in spend._repr_html_() and "&lt;img" in spend._repr_html_()


class Part(Value):
    sku: str
    price: Money


class Rich(Row):
    customer: Key[str | None]
    day: Key[datetime]
    parts: tuple[Part, ...] = ()
    notes: dict[str, int] = {}
    share: Decimal = Decimal(0)
    odd: int | str | None = None


class Riches(Projection[Rich]):
    @on(Bought)
    def bought(self, event: Bought, rows: Rows[Rich], recorded: RecordedEvent[Bought]) -> None:
        customer = event.customer or None
        day = recorded.recorded_at.replace(hour=0, minute=0, second=0, microsecond=0)
        row = rows.get((customer, day)) or Rich(customer=customer, day=day)
        part = Part(sku=HOSTILE, price=event.total)
        share = (event.total / 3).quantize(Decimal("1e-18"))
        rows.put(row.but(parts=(*row.parts, part), notes={**row.notes, "k": 1}, share=share, odd="text"))


def test_every_kind_of_value_survives_the_table(store: Store) -> None:
    """Several keys, an empty key, times, nested values and open types come back as they were."""
    for customer in ("ann", "", "", "ann"):
        store.append("Order/1", bought(customer, 5))
        Riches(store).catch_up()
    expected = Riches.over(store.read())
    assert len(expected) == 2 and len(expected[None, datetime(2026, 1, 1, tzinfo=UTC)].parts) == 2
    assert {key: Riches(store).get(key) for key in expected} == expected
    assert list(Riches(store).df().customer.isna()) == [False, True]


def test_few_rows_at_hand_give_the_same_rows(store: Store) -> None:
    """A projection with more rows than it may hold looks the others up, and ends with the same rows."""

    class Tight(CustomerSpend):
        at_hand, window = 2, 3

    for number in range(30):
        store.append("Order/1", [bought(f"c{number * 7 % 11}", number), returned(f"c{number % 5}", 1)])
    tight = Tight(store).catch_up()
    assert told(tight) == told(CustomerSpend(store))


# --- definitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [("return 1 * total", "return 10 * total", ("ann", 20)), ("x: int = 0", "x: str = '?'", ("ann", 2, "?"))],
)
def test_a_changed_handler_or_row_rebuilds_the_table(
    store: Store, before: str, after: str, expected: tuple[Any, ...]
) -> None:
    """Running the cell again with other code or columns makes the stored table stale, and it is rebuilt."""
    cell = (
        "class Worth(Row):\n    customer: Key[str]\n    worth: int\n    x: int = 0\n"
        "class Worths(Projection[Worth]):\n    def value(self, total):\n        return 1 * total\n"
        "    @on(Bought)\n    def b(self, event, rows):\n"
        "        rows.put(Worth(customer=event.customer, worth=self.value(event.total)))\n"
    )
    store.append("Order/1", bought(total=2))
    for text, rows in ((cell, ("ann", 2, 0)), (cell.replace(before, after), expected)):
        namespace = {**globals()}
        exec(text, namespace)
        assert told(namespace["Worths"](store))[0][: len(rows)] == rows


def test_a_stamp_is_the_same_in_every_process() -> None:
    """Sets in a handler's code, whose order changes from process to process, do not make a table stale."""
    program = (
        "from esim.memory import MemoryStore\nfrom esim.projection import *\nfrom esim.event import Event\n"
        "class A(Event): x: str\nclass N(Row):\n    x: Key[str]\n"
        "class Ns(Projection[N]):\n    @on(A)\n    def a(self, event, rows):\n"
        "        if event.x in {'card', 'bank', 'wallet', 'cash'}: rows.put(N(x=event.x))\n"
        "print(Ns(MemoryStore())._stamp)"
    )
    command, seeds = [sys.executable, "-c", program], ("1", "2", "3")
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in seeds]
    stamps = [
        subprocess.run(command, env=one, capture_output=True, check=True).stdout for one in environments
    ]
    assert len(set(stamps)) == 1 and len(stamps[0]) > 20


def test_a_table_of_a_former_definition_says_so(store: Store) -> None:
    """Until it is rebuilt, a stale table is shown as it is, with its own columns and a word in the repr."""
    store.append("Order/1", bought())
    CustomerSpend(store).catch_up()
    other = type("CustomerSpend", (SqlProjection,), {"query": "SELECT 1 AS one", "key": "one"})(store)
    assert list(other.df(fresh=False).columns) == ["customer", "orders", "spent"]
    assert repr(other).endswith("1 row (customer, orders, spent), of a former definition>")
    assert told(other) == [(1,)] and repr(other).endswith("1 row (one)>")
    assert told(CustomerSpend(store)) == [("ann", 1, Decimal(1))]


def test_a_row_class_defined_again_is_taken(store: Store) -> None:
    """Running the row's cell again does not break a projection that was defined before it."""
    namespace: dict[str, Any] = {**globals()}
    cell = "class Again(Row):\n    customer: Key[str]\n    orders: int = 0\n"
    exec(cell, namespace)
    handler = "@on(Bought)\n    def b(self, event, rows): rows.put(Again(customer=event.customer))\n"
    body = f"class Uses(Projection[Again]):\n    {handler}"
    exec(body, namespace)
    exec(cell, namespace)
    store.append("Order/1", bought())
    assert told(namespace["Uses"](store)) == [("ann", 0)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "class X(Projection[Spend]):\n    @on(Bought)\n    def f(self, event): ...",
            r"X\.f\(self, event\) .*recorded",
        ),
        ("class X(Projection[Spend]):\n    @on(Bought)\n    async def f(self, event, rows): ...", "async"),
        ("class X(Projection[Spend]):\n    def f(self, event, rows): ...", "handles no event"),
        ("class X(Projection[Spend]):\n    @on()\n    def f(self, event, rows): ...", "give event classes"),
        (
            "class X(Projection[Spend]):\n    @on('Bought')\n    def f(self, event, rows): ...",
            "give event classes",
        ),
        ("class X(Projection):\n    @on(Bought)\n    def f(self, event, rows): ...", "names no row"),
        ("class X(Projection[Bare]):\n    @on(Bought)\n    def f(self, event, rows): ...", "has no key"),
        (
            "class X(CustomerSpend):\n    @on(Bought)\n    def again(self, event, rows): ...",
            "both handle Bought",
        ),
        ("class X(CustomerSpend, name='events'): ...", "no name for a read model"),
        ("class X(CustomerSpend, name='a; drop table b'): ...", "no name for a read model"),
        ("class X(Row):\n    a: Key[str]\n    A: int", "case alone"),
        ("class X(SqlProjection): ...", "has no query"),
        ("class X(Sales):\n    combine = {'n': 'avg'}", "'avg'"),
    ],
)
def test_a_wrong_definition_is_refused_where_it_stands(body: str, message: str) -> None:
    """A definition that cannot work raises InvalidArgument that names the fault and the way out."""

    class Bare(Row):
        customer: str

    with pytest.raises(InvalidArgument, match=message):
        exec(body, {**globals(), "Bare": Bare})


def test_a_table_cannot_take_the_name_of_an_event_type(store: Store) -> None:
    """An event type and a read model cannot share a name in SQL."""

    class Odd(Event, type="odd_thing"):
        pass

    class OddThing(CustomerSpend):
        pass

    with pytest.raises(InvalidArgument, match="'odd_thing' is that of the event type"):
        OddThing(store)


def test_a_key_of_the_wrong_shape_is_refused() -> None:
    """Asking for one value where a row has two keys is an error, not an absent row."""
    with pytest.raises(InvalidArgument, match=r"give \(customer, day\)"):
        Riches.empty().get("ann")
    with pytest.raises(InvalidArgument, match="not a Spend"):
        CustomerSpend.empty().put(3)  # type: ignore[arg-type]


# --- the pure part -----------------------------------------------------------------------------------------


def test_a_second_delivery_changes_nothing() -> None:
    """`deliver` drops an event whose position has been delivered."""
    store, rows = MemoryStore(), CustomerSpend.empty()
    for recorded in store.append("Order/1", [bought(), Noted(text=""), bought()]):
        CustomerSpend.deliver(rows, recorded)
        CustomerSpend.deliver(rows, recorded)
    assert list(rows) == [Spend(customer="ann", orders=2, spent=Decimal(2))]
    assert len(rows) == 1 and "ann" in rows and "bob" not in rows


def test_rows_iterate_by_key() -> None:
    """Rows come in order of their key, however they were put."""
    rows = CustomerSpend.empty()
    for name in "cab":
        rows.put(Spend(customer=name))
    rows.delete("b")
    assert [row.customer for row in rows] == ["a", "c"]


def test_neither_pandas_nor_duckdb_is_needed_to_define_and_fold() -> None:
    """Importing the module, defining a projection and folding events load no database and no dataframe."""
    program = (
        "import sys\nfrom esim.event import Event\nfrom esim.memory import MemoryStore\n"
        "from esim.projection import *\nclass A(Event): x: str\nclass N(Row):\n    x: Key[str]\n"
        "class Ns(Projection[N]):\n    @on(A)\n    def a(self, event, rows): rows.put(N(x=event.x))\n"
        "store = MemoryStore()\nstore.append('S/1', A(x='1'))\n"
        "assert Ns.over(store.read()) == {'1': N(x='1')}\n"
        "print({'pandas', 'duckdb', 'pyarrow', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


EVENTS = st.lists(
    st.builds(lambda kind, name, total: kind(customer=name, total=Decimal(total)),
              st.sampled_from([Bought, Returned]), st.sampled_from(["a", "b", "", "ß'"]), st.integers(0, 9)),
    max_size=25,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, pauses=st.sets(st.integers(0, 25)), size=st.integers(1, 9), at_hand=st.integers(0, 4))
def test_any_windows_equal_a_rebuild_and_the_pure_fold(
    events: list[Event], pauses: set[int], size: int, at_hand: int
) -> None:
    """However the log is cut, incremental work, a rebuild and a plain fold give the same rows."""

    class Cut(CustomerSpend):
        window = size

    Cut.at_hand = at_hand
    with EventStore() as store:
        cut, sales = Cut(store), Sales(store)
        for number, event in enumerate(events):
            store.append(f"Order/{number % 3}", event)
            if number in pauses:
                cut.catch_up()
                sales.catch_up()
        rows, sold = told(cut), told(sales)
        assert rows == [
            (row.customer, row.orders, row.spent) for _, row in sorted(Cut.over(store.read()).items())
        ]
        assert (
            rows
            == told(cut.rebuild())
            == [tuple(row) for row in cut.as_of(store.position).itertuples(index=False)]
        )
        assert sold == told(sales.rebuild())


# --- looking -----------------------------------------------------------------------------------------------


def test_as_of_shows_the_read_model_as_it_was(store: Store) -> None:
    """`as_of` takes a position or a recorded time and leaves the stored table alone."""
    recorded = [store.append("Order/1", bought(total=number))[0] for number in (1, 2, 3)]
    for model, count in ((CustomerSpend(store), "orders"), (Sales(store), "n")):
        assert list(model.as_of(2)[count]) == list(model.as_of(recorded[1].recorded_at)[count]) == [2]
        assert len(model.as_of(0)) == 0 and model.position == 0
        assert list(model.as_of(99)[count]) == [3]


def test_a_projection_of_the_past_sees_the_past(store: Store) -> None:
    """A projection over `store.as_of(...)` stops there."""
    store.append("Order/1", [bought(), bought()])
    assert told(CustomerSpend(store.as_of(1))) == [("ann", 1, Decimal(1))]


def test_users_sql_reads_the_table_by_its_name() -> None:
    """`store.sql` sees the stored table without the columns that are for esim alone."""

    class Ranked(CustomerSpend, name="ranking"):
        pass

    with EventStore() as store:
        store.append("Order/1", bought())
        Ranked(store).catch_up()
        assert list(store.sql("SELECT * FROM ranking").columns) == ["customer", "orders", "spent"]
        with pytest.raises(SqlRefused):
            store.sql("DELETE FROM read.ranking")


def test_repr_says_where_it_stands_and_what_it_holds(store: Store) -> None:
    """The repr names position, head, rows and columns, before and after catching up and closing."""
    spend = CustomerSpend(store)
    store.append("Order/1", bought())
    assert repr(spend) == "<CustomerSpend at position 0 of 1: not computed yet>" and spend.lag == 1
    spend.catch_up()
    assert (
        repr(spend) == "<CustomerSpend at position 1 of 1: 1 row (customer, orders, spent)>"
        and spend.lag == 0
    )
    assert "<td" in spend._repr_html_()
    store.close()
    assert "closed" in repr(spend) and "closed" in spend._repr_html_()


def test_wait_for_reads_your_own_write(store: Store) -> None:
    """After `wait_for(position)` the table holds that event."""
    spend = CustomerSpend(store)
    recorded = store.append("Order/1", bought())
    assert told(spend.wait_for(recorded[-1].position), fresh=False) == [("ann", 1, Decimal(1))]


def test_wait_for_waits_for_another_thread(store: Store) -> None:
    """`wait_for` a position beyond the head returns once another thread has appended."""
    spend = CustomerSpend(store)
    other = threading.Thread(target=lambda: store.append("Order/1", bought()))
    other.start()
    assert spend.wait_for(1, timeout=30).position == 1
    other.join()


def test_wait_for_gives_up(store: Store) -> None:
    """A position that nobody reaches ends in NotCaughtUp, which says where the log ends."""
    with pytest.raises(NotCaughtUp, match=r"position 7: the log ends at 0"):
        CustomerSpend(store).wait_for(7, timeout=0)


# --- by SQL ------------------------------------------------------------------------------------------------


def test_a_query_is_merged_by_key(store: Store) -> None:
    """With `combine` only new events are queried, and their rows are added to the stored ones."""
    sales = Sales(store)
    store.append("Order/1", [bought("ann", 1), bought("bob", 2)])
    sales.catch_up()
    store.append("Order/1", [bought("ann", 3), bought("eve", 4)])
    assert told(sales) == [("ann", 2, Decimal(4)), ("bob", 1, Decimal(2)), ("eve", 1, Decimal(4))]
    assert (
        sales.get("ann") == {"customer": "ann", "n": 2, "total": Decimal(4)} and sales.get("nobody") is None
    )


class Extremes(SqlProjection):
    query = """SELECT nullif(data->>'customer', '') AS who, count(*) n,
        min((data->>'total')::DECIMAL(9, 2)) low, max((data->>'total')::DECIMAL(9, 2)) high,
        arg_min(position, position) one, arg_max(position, position) latest,
        sum(CASE WHEN type = 'Returned' THEN 1 END) back FROM events GROUP BY who"""
    key = ("who",)
    combine = {"n": "sum", "low": "min", "high": "max", "one": "first", "latest": "last", "back": "sum"}


def test_every_way_to_combine_equals_one_query_over_everything(store: Store) -> None:
    """Sum, min, max, first and last merge to what one query gives, with NULL keys and NULL values."""
    extremes = Extremes(store)
    for event in (bought("", 5), bought("a", 3), returned("", 7), bought("", 1), returned("a", 9)):
        store.append("Order/1", event)
        extremes.catch_up()
    merged = extremes.df().astype(object)
    assert merged.where(merged.notna(), None).to_dict("records") == [
        {"who": "a", "n": 2, "low": 3, "high": 9, "one": 2, "latest": 5, "back": 1},
        {"who": None, "n": 3, "low": 1, "high": 7, "one": 1, "latest": 4, "back": 1},
    ]
    assert extremes.df().equals(extremes.rebuild().df()) and extremes.df().equals(extremes.as_of(5))


def test_a_total_needs_no_key(store: Store) -> None:
    """Without a key, `combine` keeps one row."""

    class Total(SqlProjection):
        query = "SELECT count(*) n, sum(total) total FROM Bought"
        combine = {"n": "sum", "total": "sum"}

    total = Total(store).catch_up()
    for _ in range(3):
        store.append("Order/1", [bought(), returned()])
        total.catch_up()
    assert told(total) == [(3, Decimal(3))] and total.get() == {"n": 3, "total": Decimal(3)}


def test_a_query_that_cannot_be_merged_is_computed_again(store: Store) -> None:
    """Without `combine` the result is whole: an average over all events, not over the new ones."""

    class Average(SqlProjection):
        query = "SELECT customer, avg(total)::DOUBLE mean FROM Bought GROUP BY customer"
        key = ("customer",)

    average = Average(store)
    for total in (1, 2, 6):
        store.append("Order/1", bought(total=total))
        average.catch_up()
    assert told(average) == [("ann", 3.0)]


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"query": "DELETE FROM esim.events"}, SqlRefused, "DELETE"),
        ({"query": "SELECT nonsense FROM Bought"}, SqlRefused, "nonsense"),
        ({"query": "SELECT customer, 1 n FROM Bought"}, ProjectionFailed, "2 rows for 1 keys"),
        ({"query": "SELECT customer, 1 n, 2 m FROM Bought LIMIT 1"}, ProjectionFailed, "'m' is in neither"),
        ({"query": "SELECT 'x' customer, 1 AS k"}, ProjectionFailed, "'n' is not among"),
    ],
)
def test_a_wrong_query_is_refused_and_keeps_nothing(
    store: Store, attributes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A query that writes, fails, or gives other columns or repeated keys raises, and stores nothing."""
    wrong = type("Wrong", (SqlProjection,), {"key": "customer", "combine": {"n": "sum"}, **attributes})(store)
    store.append("Order/1", [bought(), bought()])
    with pytest.raises(error, match=message):
        wrong.catch_up()
    assert wrong.position == 0 and store.position == 2


def test_a_changed_query_rebuilds_the_table(store: Store) -> None:
    """Another query under the same name makes the stored table stale."""
    store.append("Order/1", [bought(total=4), bought(total=5)])
    assert told(Sales(store)) == [("ann", 2, Decimal(9))]
    other = type("Sales", (SqlProjection,), {"query": "SELECT count(*) n FROM Bought"})
    assert told(other(store)) == [(2,)]


def test_a_reopened_file_shows_its_read_models_to_sql(tmp_path: Any) -> None:
    """A stored table is there for queries in a process that never defined its projection."""
    path = tmp_path / "shop.duckdb"
    with EventStore(path) as store:
        store.append("Shop/1", [bought("ann", 3), bought("ann", 4)])
        CustomerSpend(store).catch_up()
    with EventStore(path) as store:
        assert store.sql("select * from customer_spend").values.tolist() == [["ann", 2, Decimal("7.00")]]


def test_a_misspelt_table_is_answered_with_the_names_there_are(store: Store) -> None:
    """The error of an unknown table lists event types and stored read models."""
    home = EventStore()
    home.append("Shop/1", bought())
    CustomerSpend(home).catch_up()
    with pytest.raises(SqlRefused, match=r"Bought.*customer_spend"):
        home.sql("select * from Buoght")


def test_a_type_that_never_happened_is_an_empty_table(store: Store) -> None:
    """A class without an event yet can be queried by its columns."""
    assert store.sql("select text, position from Noted").empty


def test_a_live_projection_follows_a_constant_that_is_bound_anew() -> None:
    """The next catch-up finds another stamp, and computes everything by the new meaning."""
    code = """
FACTOR = 2
class Count(Row):
    customer: Key[str]
    n: int = 0
class Counts(Projection[Count]):
    @on(Bought)
    def bought(self, event, rows):
        row = rows.get(event.customer) or Count(customer=event.customer)
        rows.put(row.but(n=row.n + FACTOR))
"""
    scope = dict(globals())
    exec(compile(code, "<cell>", "exec", dont_inherit=True), scope)
    store = EventStore()
    counts = scope["Counts"](store)
    store.append("Order/1", Bought(customer="ann", total=Decimal(1)))
    assert counts.get("ann").n == 2
    scope["FACTOR"] = 10
    store.append("Order/2", Bought(customer="ann", total=Decimal(1)))
    assert counts.get("ann").n == 20


def test_two_projections_of_one_memory_store_catch_up_in_two_threads() -> None:
    """They share the mirror of the log, and each event comes into it once."""

    class Notes(Row):
        text: Key[str]

    class NoteTexts(Projection[Notes]):
        @on(Noted)
        def noted(self, event: Noted, rows: Rows[Notes]) -> None:
            rows.put(Notes(text=event.text))

    store = MemoryStore()
    models = [CustomerSpend(store), NoteTexts(store)]
    wrong: list[Exception] = []

    def follow(model: Any) -> None:
        try:
            while model.position < 200:
                model.catch_up()
                model.as_of(model.store.position)
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            wrong.append(error)

    threads = [threading.Thread(target=follow, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for number in range(100):
        store.append(f"Order/{number}", Bought(customer="ann", total=Decimal(1)))
        store.append("Note/1", Noted(text=str(number)))
    for thread in threads:
        thread.join()
    assert wrong == []
    assert models[0].get("ann").orders == 100
    assert len(models[1].df()) == 100


class Size(Enum):
    BIG = "big"


class Pair(Value):
    a: Decimal
    b: frozenset[str] = frozenset()


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "money": (Money, [Decimal("5.00"), Decimal(5), Decimal("5.0"), 5, "5", "5.00"]),
    "no money": (Money, [Decimal("0.00"), Decimal("-0"), 0, "0"]),
    "decimal": (Decimal, [Decimal("1E+2"), 100, "100.0"]),
    "whole": (int, [1, True, 1.0, "1", Decimal(1)]),
    "float": (float, [5.0, 5, "5"]),
    "uuid": (UUID, [UUID(int=7), str(UUID(int=7)), UUID(int=7).hex]),
    "enum": (Size, [Size.BIG, "big"]),
    "time": (datetime, [datetime(2026, 1, 5, 12, tzinfo=UTC), "2026-01-05T13:00:00+01:00"]),
    "value": (Pair, [Pair(a=Decimal("1.0"), b={"x", "y"}), {"a": "1", "b": ["y", "x"]}]),
    "none": (str | None, [None]),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_that_mean_the_same_are_the_same_in_memory_and_in_the_table(name: str) -> None:
    """Whichever way a key is written: a row at hand, a row in the table and a deleted one are found alike."""
    hint, ways = KEYS[name]

    class One(Row):
        key: Key[hint]
        n: int = 0

    class Ones(Projection[One]):
        @on(Noted)
        def noted(self, event: Noted, rows: Rows[One]) -> None:
            way = ways[int(event.text)]
            row = rows.get(way)
            rows.put(One(key=way, n=(row.n if row else 0) + 1))

    class Gone(Projection[One]):
        @on(Noted)
        def noted(self, event: Noted, rows: Rows[One]) -> None:
            if event.text == "0":
                rows.put(One(key=ways[0]))
            else:
                rows.delete(ways[int(event.text)])

    store = EventStore()
    for number in range(len(ways)):
        store.append("Note/1", Noted(text=str(number)))
        assert Ones(store).catch_up().get(ways[0]).n == number + 1  # each time from the table
    assert [Ones(store).get(way).n for way in ways] == [len(ways)] * len(ways)
    assert len(Ones(store).df()) == len(Ones.over(store.read())) == 1
    assert len(Ones(store).rebuild().df()) == 1
    for last in range(1, len(ways)):
        gone = EventStore()
        gone.append("Note/1", Noted(text="0"))
        Gone(gone).catch_up()
        gone.append("Note/1", Noted(text=str(last)))
        assert Gone(gone).df().empty


@pytest.mark.parametrize("wrong", [("a", "b"), {}, [1], "x", datetime(2026, 1, 5)])
def test_what_cannot_be_a_key_is_refused(wrong: Any) -> None:
    """Names the value and what the key is, whether the table is empty or not."""

    class One(Row):
        at: Key[datetime]

    class Ones(Projection[One]):
        @on(Noted)
        def noted(self, event: Noted, rows: Rows[One]) -> None: ...

    with pytest.raises(InvalidArgument, match=r"is not a key of One: .*at"):
        Ones(EventStore()).get(wrong)


def test_a_projection_of_nonsense_is_refused() -> None:
    """No store, no position, no seconds: each named."""
    for store in (None, "x"):
        with pytest.raises(InvalidArgument, match="is no store"):
            CustomerSpend(store)
    for wrong, told in (({"position": "5"}, "position="), ({"position": 0, "timeout": "x"}, "timeout=")):
        with pytest.raises(InvalidArgument, match=told):
            CustomerSpend(EventStore()).wait_for(**wrong)


@pytest.mark.parametrize("kind", ["plain", "aware"])
def test_what_a_handler_appends_names_its_cause(kind: str) -> None:
    """By itself, whether the handler takes the envelope or not; who called for the rows is no cause."""

    class Seen(Row):
        customer: Key[str]

    class Base(Projection[Seen], name="base"):
        def react(self, event: Bought) -> None:
            self.store.append("Note/1", Noted(text=event.customer))

        @on(Bought)
        def bought(self, event: Bought, rows: Rows[Seen]) -> None:
            self.react(event)

    class Aware(Base, name="aware"):
        @on(Bought)
        def bought(self, event: Bought, rows: Rows[Seen], recorded: RecordedEvent[Bought]) -> None:
            self.react(event)

    store = EventStore()
    with metadata(correlation_id="visit", user_id="desk"):
        first = store.append("Order/1", Bought(customer="ann", total=Decimal(1)))[0]
    second = store.append("Order/2", Bought(customer="bob", total=Decimal(1)))[0]
    with metadata(correlation_id="somebody looks", causation_id="else"):
        (Aware if kind == "aware" else Base)(store).catch_up()
    effects = list(store.read("Note/1"))
    assert [(one.causation_id, one.correlation_id) for one in effects] == [
        (str(first.event_id), "visit"),
        (str(second.event_id), str(second.event_id)),
    ]


def test_first_and_last_are_those_of_sql() -> None:
    """A projection that catches up in two steps equals one in one step, NULL included."""
    both = []
    for pause in (True, False):
        store = EventStore()
        for text in ("", "b", ""):
            store.append("Note/1", Noted(text=text))
            if pause:
                Ends(store).catch_up()
        both.append(Ends(store).df().astype(object).where(lambda table: table.notna(), None).values.tolist())
    assert both[0] == both[1] == [["Note", None, None]]


class Ends(SqlProjection):
    query = """SELECT category, first(nullif(text, '') ORDER BY position) AS a,
               last(nullif(text, '') ORDER BY position) AS z
               FROM Noted JOIN events USING (position) GROUP BY category"""
    key = "category"
    combine = {"a": "first", "z": "last"}


def test_a_sql_projection_follows_the_shape_of_its_events() -> None:
    """A changed default changes what its typed table shows, so it is computed anew."""

    class Charged(Event):
        amount: int

    with EventStore() as store:
        store.append("Fee/1", Charged(amount=1))

        class Charged(Event):  # type: ignore[no-redef]
            amount: int
            currency: str = "EUR"

        class ByCurrency(SqlProjection):
            query = "SELECT currency, sum(amount) AS total FROM Charged GROUP BY 1"
            key = ("currency",)
            combine = {"total": "sum"}

        fees = ByCurrency(store)
        assert fees.df().to_dict("records") == [{"currency": "EUR", "total": 1}]

        class Charged(Event):  # type: ignore[no-redef]
            amount: int
            currency: str = "USD"

        store.append("Fee/1", Charged(amount=5))
        assert fees.df().to_dict("records") == [{"currency": "USD", "total": 6}]


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), -1, "1", True])
def test_a_time_that_nobody_can_wait_is_told(timeout: Any) -> None:
    """Before anything is waited for."""
    with EventStore() as store, pytest.raises(InvalidArgument, match="give seconds"):
        CustomerSpend(store).wait_for(1, timeout=timeout)


class Kept:
    """Rows of a read model as a table keeps them, in a dict."""

    def __init__(self, *names: str) -> None:
        self.rows = {name: Spend(customer=name, orders=1) for name in names}

    def find(self, key: Any) -> Spend | None:
        return self.rows.get(key)

    def all(self) -> list[Spend]:
        return list(self.rows.values())

    def commit(self, rows: Rows[Spend], limit: int) -> None:
        for key, row in rows.changes():
            self.rows.pop(key, None)
            if row is not None:
                self.rows[key] = row
        rows.settle(self, limit)


STEPS = st.tuples(st.sampled_from(["put", "delete", "get", "all", "commit"]), st.sampled_from("abcd"))


@given(events=st.lists(st.tuples(st.lists(STEPS, max_size=6), st.booleans()), max_size=8))
def test_what_a_failed_handler_did_to_the_rows_is_taken_back_whatever_it_was(
    events: list[tuple[list[tuple[str, str]], bool]],
) -> None:
    """The rows are those of the handlers that did not fail, also where one failed after it looked at all."""
    table = Kept("a", "b", "c")
    rows, expected = Rows(Spend, table), dict(table.rows)
    for number, (steps, fails) in enumerate(events, 2):
        rows.begin()
        after = dict(expected)
        for name, key in steps:
            match name:
                case "put":
                    after[key] = Spend(customer=key, orders=number)
                    rows.put(after[key])
                case "delete":
                    after.pop(key, None)
                    rows.delete(key)
                case "get":
                    assert rows.get(key) == after.get(key)
                case "all":
                    assert {row.customer: row for row in rows} == after
        if fails:
            rows.undo()
        else:
            expected = after
        if ("commit", "a") in steps:
            table.commit(rows, limit=2)
    assert {row.customer: row for row in rows} == expected
    table.commit(rows, limit=2)
    assert table.rows == expected
