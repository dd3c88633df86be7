"""Typed tables: columns from a model, caught up from the log, rebuilt when a shape changes, lossless."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

import duckdb
import pytest
from pydantic import BaseModel, Field, create_model, field_serializer

from esim import typed
from esim.columns import columns_of
from esim.connection import Connection, frame
from esim.errors import InvalidArgument, InvalidEvent
from esim.storefile import quoted

Money = Annotated[Decimal, Field(max_digits=18, decimal_places=2)]
Sku = NewType("Sku", str)


class Colour(Enum):
    RED = "red"


class Item(BaseModel):
    sku: Sku
    quantity: int = 1
    price: Money = Decimal(0)


class Placed(BaseModel):
    customer: str
    items: tuple[Item, ...] = ()
    total: Money = Decimal(0)


class Tree(BaseModel):
    children: tuple[Tree, ...] = ()


class Nothing(BaseModel):
    pass


class Shouted(BaseModel):
    word: int

    @field_serializer("word")
    def shout(self, word: int) -> str:
        return f"{word}!"


ITEM = 'STRUCT("sku" VARCHAR, "quantity" BIGINT, "price" DECIMAL(18,2))'
CLASSES: dict[str, type[BaseModel]] = {"Placed": Placed}


class Log:
    """A log in a connection, with what the tests say about it."""

    def __init__(self, path: Path | None = None) -> None:
        self.con = Connection(path)
        self.head = 0

    def put(self, type: str, *payloads: BaseModel | str, stream: str = "Order/o-1") -> None:
        """Record payloads of one type."""
        for payload in payloads:
            self.head += 1
            text = payload if isinstance(payload, str) else payload.model_dump_json()
            self.con.write.execute(
                "INSERT INTO esim.events(position, category, stream, version, type, schema_version, "
                "event_id, recorded_at, occurred_at, data) VALUES (?, ?, ?, ?, ?, 1, uuid(), ?, ?, ?)",
                [
                    self.head,
                    stream.partition("/")[0],
                    stream,
                    self.head,
                    type,
                    *[datetime(2026, 1, 5, 9)] * 2,
                    text,
                ],
            )

    def catch_up(self, *types: str, **classes: type[BaseModel]) -> None:
        """Bring types up to date with the classes of this moment."""
        typed.catch_up(self.con, types, classes)

    def rows(self, query: str, *types: str, lo: int = 0, hi: int | None = None) -> list[dict[Any, Any]]:
        """Return what a query finds in the views of some types."""
        found = frame(self.con.read_only(query, None, typed.views({*types, typed.EVENTS}, lo, hi)))
        rows: list[dict[Any, Any]] = found.to_dict("records")
        return rows


@pytest.fixture
def log() -> Iterator[Log]:
    """An empty log in memory."""
    made = Log()
    yield made
    made.con.close()


# --- columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        (str, "VARCHAR"), (int, "BIGINT"), (bool, "BOOLEAN"), (float, "DOUBLE"), (datetime, "TIMESTAMPTZ"),
        (date, "DATE"), (UUID, "UUID"), (timedelta, "VARCHAR"), (Literal["a", "b"], "VARCHAR"),
        (Literal[1, 2], "BIGINT"),
        (Literal[1, "a"], "JSON"), (Colour, "VARCHAR"), (Sku, "VARCHAR"), (Decimal, "DECIMAL(38,18)"),
        (Money, "DECIMAL(18,2)"), (Annotated[Decimal, Field(decimal_places=3)], "DECIMAL(38,3)"),
        (Annotated[Decimal, Field(max_digits=50, decimal_places=2)], "VARCHAR"),
        (Optional[int], "BIGINT"),  # noqa: UP045 - the older spelling is to work too
        (Money | None, "DECIMAL(18,2)"), (int | str, "JSON"), (Any, "JSON"), (object, "JSON"),
        (list[int], "BIGINT[]"),
        (tuple[Money, ...], "DECIMAL(18,2)[]"), (set[str], "VARCHAR[]"), (frozenset[UUID], "UUID[]"),
        (list, "JSON"),
        (tuple[int, int], "BIGINT[]"), (dict[str, Money], "MAP(VARCHAR, DECIMAL(18,2))"),
        (dict[int, str], "JSON"),
        (Item, ITEM), (tuple[Item, ...], f"{ITEM}[]"), (Item | None, ITEM),
        (dict[str, Item], f"MAP(VARCHAR, {ITEM})"),
        (Tree, 'STRUCT("children" JSON[])'), (Nothing, "JSON"), (Shouted, 'STRUCT("word" JSON)'),
    ],
)  # fmt: skip
def test_each_annotation_has_its_column_type(hint: Any, kind: str) -> None:
    """A field's type decides the column's; what SQL cannot say is JSON."""
    assert columns_of(create_model("Fact", field=(hint, ...))) == [("field", kind)]


def test_a_constraint_on_the_field_itself_counts() -> None:
    """`Field(max_digits=…)` as the default says the same as in the annotation."""

    class Paid(BaseModel):
        amount: Decimal = Field(max_digits=9, decimal_places=4)

    assert columns_of(Paid) == [("amount", "DECIMAL(9,4)")]


def test_columns_keep_the_order_of_the_fields() -> None:
    """The table reads like the class."""
    assert [name for name, _ in columns_of(Placed)] == ["customer", "items", "total"]


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "shown"),
    [
        (Money, Decimal("30.00"), "30.00"), (Money, Decimal("9999999999999999.99"), "9999999999999999.99"),
        (Decimal, Decimal("0.1"), "0.100000000000000000"),
        (Decimal, Decimal("1.60"), "1.600000000000000000"),
        (Decimal, Decimal("1E+3"), "1000.000000000000000000"), (int, 2**63 - 1, "9223372036854775807"),
        (str, "O'Brien \"x\" \\ \u2603", "O'Brien \"x\" \\ \u2603"), (bool, True, "True"),
        (float, 0.1, "0.1"),
        (UUID, UUID(int=7), "00000000-0000-0000-0000-000000000007"), (date, date(2026, 1, 5), "2026-01-05"),
        (Colour, Colour.RED, "red"), (list[Money], [Decimal("1.50")], "[Decimal('1.50')]"),
        (dict[str, Money], {"a b": Decimal("2.5")}, "{'a b': Decimal('2.50')}"),
        (Tree, Tree(children=(Tree(),)), None),
        (datetime, datetime(2026, 1, 5, 9, 0, 0, 123456, UTC), "2026-01-05 09:00:00.123456+00:00"),
    ],
)  # fmt: skip
def test_a_value_arrives_without_loss(log: Log, hint: Any, value: Any, shown: str | None) -> None:
    """What the model held is what SQL shows; Decimals are exact although they are stored as JSON strings."""
    model = create_model("Fact", field=(hint, ...))
    log.put("Fact", model(field=value))
    log.catch_up("Fact", Fact=model)
    found = log.rows("SELECT field FROM Fact", "Fact")[0]["field"]
    assert str(found) == (shown or "{'children': ['{\"children\":[]}']}")


def test_the_header_says_where_an_event_is(log: Log) -> None:
    """Position, stream, the id after the slash, version and both times stand before the payload."""
    log.put("Placed", Placed(customer="ann"), stream="Order/o/1")
    log.catch_up("Placed", **CLASSES)
    row = log.rows("SELECT * EXCLUDE (items) FROM Placed", "Placed")[0]
    at = datetime(2026, 1, 5, 9, tzinfo=UTC)
    assert row == {
        "position": 1, "stream": "Order/o/1", "id": "o/1", "version": 1, "recorded_at": at,
        "occurred_at": at,
        "customer": "ann", "total": Decimal(0),
    }  # fmt: skip


def test_a_stream_without_a_slash_is_its_own_id(log: Log) -> None:
    """The id of a plain stream is the whole."""
    log.put("Placed", Placed(customer="ann"), stream="desk")
    log.catch_up("Placed", **CLASSES)
    assert log.rows("SELECT id FROM Placed", "Placed") == [{"id": "desk"}]


def test_nested_lists_can_be_unnested(log: Log) -> None:
    """Lines of an order are structs that SQL sums exactly."""
    items = (Item(sku=Sku("a"), quantity=2, price=Decimal("1.10")), Item(sku=Sku("b"), price=Decimal("0.05")))
    log.put("Placed", Placed(customer="ann", items=items))
    log.catch_up("Placed", **CLASSES)
    query = "SELECT sum(i.quantity * i.price) AS total FROM (SELECT unnest(items) AS i FROM Placed)"
    assert log.rows(query, "Placed") == [{"total": Decimal("2.25")}]


def test_a_field_named_like_the_header_gets_an_underscore(log: Log) -> None:
    """`position` and `Stream` of a payload are there beside the envelope's."""
    model = create_model("Moved", position=(int, ...), Stream=(str, ...), position_=(int, 5))
    log.put("Moved", model(position=7, Stream="x"))
    log.catch_up("Moved", Moved=model)
    assert log.rows("SELECT position, position_, Stream_, position__ FROM Moved", "Moved") == [
        {"position": 1, "position_": 7, "Stream_": "x", "position__": 5}
    ]


def test_fields_that_differ_in_case_are_both_there(log: Log) -> None:
    """SQL names know no case, so the second one is renamed and comes as JSON."""
    model = create_model("Odd", a=(int, ...), A=(int, ...))
    log.put("Odd", model(a=1, A=2))
    log.catch_up("Odd", Odd=model)
    assert log.rows("SELECT a, A_ FROM Odd", "Odd") == [{"a": 1, "A_": "2"}]


@pytest.mark.parametrize(
    "name", ['Odd"; DROP TABLE esim.events; --', "it's", "order.paid", "select", "a b/c~d", "Ä"]
)
def test_any_type_or_field_name_is_only_a_name(log: Log, name: str) -> None:
    """Hostile names of types and of nested fields are quoted everywhere."""
    inner = create_model("Inner", **{name: (int, ...)})  # type: ignore[call-overload]
    model = create_model("Outer", **{name: (int, ...), "nested": (inner, ...)})  # type: ignore[call-overload]
    log.put(name, model(**{name: 7, "nested": inner(**{name: 8})}))
    typed.catch_up(log.con, [name], {name: model})
    row = log.rows(f"SELECT * FROM {quoted(name)}", name)[0]
    assert (row[name], row["nested"]) == (7, {name: 8})
    assert log.con.cursor().execute("SELECT count(*) FROM esim.events").fetchall() == [(1,)]


def test_an_event_without_fields_has_its_header(log: Log) -> None:
    """An empty payload is no obstacle."""
    log.put("Nothing", Nothing())
    log.catch_up("Nothing", Nothing=Nothing)
    assert log.rows("SELECT position FROM Nothing", "Nothing") == [{"position": 1}]


def test_a_type_without_events_is_an_empty_view(log: Log) -> None:
    """A class that is known but never recorded can be queried."""
    log.catch_up("Placed", **CLASSES)
    assert log.rows("SELECT count(*) AS n, sum(total) AS t FROM Placed", "Placed") == [{"n": 0, "t": None}]


# --- catching up -------------------------------------------------------------------------------------------


def test_catching_up_adds_each_event_once(log: Log) -> None:
    """New events are added; catching up again adds nothing; other types do not disturb."""
    for customer in ("ann", "bob"):
        log.put("Placed", Placed(customer=customer))
        log.put("Other", "{}")
        log.catch_up("Placed", **CLASSES)
        log.catch_up("Placed", **CLASSES)
    assert log.rows("SELECT position, customer FROM Placed", "Placed") == [
        {"position": 1, "customer": "ann"}, {"position": 3, "customer": "bob"},
    ]  # fmt: skip


def test_nothing_new_writes_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query on a log at rest makes no transaction."""
    log.put("Placed", Placed(customer="ann"))
    log.catch_up("Placed", **CLASSES)
    monkeypatch.setattr(log.con, "transaction", None)
    log.catch_up("Placed", **CLASSES)


def test_typed_tables_survive_reopening(tmp_path: Path) -> None:
    """The tables and how far they are lie in the file."""
    log = Log(tmp_path / "shop.duckdb")
    log.put("Placed", Placed(customer="ann"))
    log.catch_up("Placed", **CLASSES)
    log.con.close()
    log.con = Connection(tmp_path / "shop.duckdb")
    log.put("Placed", Placed(customer="bob"))
    log.catch_up("Placed", **CLASSES)
    assert [row["customer"] for row in log.rows("FROM Placed", "Placed")] == ["ann", "bob"]
    log.con.close()


def test_a_changed_shape_rebuilds_with_the_class_defaults(log: Log) -> None:
    """Events recorded before a field existed show its default, nested ones too."""
    log.put("Placed", '{"customer": "ann", "items": [{"sku": "a"}]}')
    log.catch_up("Placed", Placed=create_model("Placed", customer=(str, ...)))
    log.put("Placed", Placed(customer="bob", total=Decimal("2.50")))
    log.catch_up("Placed", **CLASSES)
    rows = log.rows("SELECT customer, items, total FROM Placed", "Placed")
    assert rows == [
        {"customer": "ann", "items": [{"sku": "a", "quantity": 1, "price": Decimal(0)}], "total": Decimal(0)},
        {"customer": "bob", "items": [], "total": Decimal("2.50")},
    ]


def test_mending_goes_in_windows(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old shapes in several windows are each taken once."""
    monkeypatch.setattr(typed, "_WINDOW", 2)
    for n in range(5):
        log.put("Placed", f'{{"customer": "c{n}"}}', Placed(customer=f"d{n}"))
    log.catch_up("Placed", **CLASSES)
    assert log.rows("SELECT count(*) AS n, count(DISTINCT position) AS d FROM Placed", "Placed") == [
        {"n": 10, "d": 10}
    ]


def test_a_payload_that_does_not_fit_is_named(log: Log) -> None:
    """The error names type, position, column and value; the table stays as it was."""
    log.put("Placed", Placed(customer="ann"))
    log.catch_up("Placed", **CLASSES)
    log.put("Placed", '{"customer": "bob", "items": [], "total": "much"}')
    with pytest.raises(InvalidEvent, match=r"Placed at position 2 does not fit .* column 'total' is 'much'"):
        log.catch_up("Placed", **CLASSES)
    assert [row["customer"] for row in log.rows("FROM Placed", "Placed")] == ["ann"]


def test_a_wrong_type_is_never_a_silent_null(log: Log) -> None:
    """A nested value of another type raises, where plain from_json would give null."""
    lines = '[{"sku": "a", "quantity": "many", "price": "1.00"}]'
    log.put("Placed", f'{{"customer": "bob", "items": {lines}, "total": "1.00"}}')
    with pytest.raises(InvalidEvent, match=r"items\.0\.quantity"):
        log.catch_up("Placed", **CLASSES)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(int, 2**70), (Decimal, Decimal(10) ** 25), (Decimal, Decimal("-1e30"))],
)
def test_a_number_too_large_for_its_column_makes_it_text(log: Log, hint: Any, value: Any) -> None:
    """Exact, and the type can be asked as before, now, after more events, and from another process."""
    model = create_model("Count", n=(hint, ...), who=(str, "ann"))
    log.put("Count", model(n=7), model(n=value))
    for more in range(2):
        log.catch_up("Count", Count=model)
        rows = log.rows("SELECT n, who FROM Count ORDER BY position", "Count")
        assert [(hint(row["n"]), row["who"]) for row in rows] == [
            (7, "ann"),
            (value, "ann"),
            *[(8, "ann")] * more,
        ]
        log.put("Count", model(n=8))
    log.catch_up("Count")
    assert len(log.rows("FROM Count", "Count")) == 4


def test_all_digits_of_a_number_fit_before_the_point(log: Log) -> None:
    """A Decimal of thirty digits whose places are not said has a column that takes any of them."""
    model = create_model("Count", n=(Annotated[Decimal, Field(max_digits=30)], ...))
    log.put("Count", model(n="9" * 30), model(n="1.5"))
    log.catch_up("Count", Count=model)
    assert log.rows("SELECT max(n) AS n FROM Count", "Count") == [{"n": Decimal("9" * 30)}]


def test_another_default_fills_the_table_anew(log: Log) -> None:
    """Events that lack the field show what the class says today."""
    log.put("Count", '{"n": 1}')
    for default in ("ann", "bob"):
        model = create_model("Count", n=(int, ...), who=(str, default))
        log.catch_up("Count", Count=model)
        assert log.rows("SELECT who FROM Count", "Count") == [{"who": default}]


def test_one_broken_type_does_not_stop_the_others(log: Log) -> None:
    """The types after the broken one are caught up before it is reported."""
    log.put("Count", '{"n": "x"}')
    log.put("Placed", Placed(customer="ann"))
    with pytest.raises(InvalidEvent, match="Count at position 1"):
        log.catch_up("Count", "Placed", Count=create_model("Count", n=(int, ...)), **CLASSES)
    assert len(log.rows("FROM Placed", "Placed")) == 1


def test_types_that_differ_in_case_are_refused(log: Log) -> None:
    """SQL could not tell them apart, so the second is named."""
    log.put("Placed", Placed(customer="ann"))
    log.put("placed", Placed(customer="bob"))
    log.catch_up("Placed", **CLASSES)
    with pytest.raises(InvalidArgument, match="'Placed' and 'placed' differ in case alone"):
        log.catch_up("placed", **CLASSES)


# --- without classes ---------------------------------------------------------------------------------------


def test_the_last_known_columns_serve_without_the_class(log: Log) -> None:
    """A process that lacks the class reads by the columns that were stored."""
    log.put("Placed", Placed(customer="ann", total=Decimal("1.50")))
    log.catch_up("Placed", **CLASSES)
    log.put("Placed", Placed(customer="bob", total=Decimal("2.50")), '{"customer": "cid"}')
    log.catch_up("Placed")
    assert log.rows("SELECT sum(total) AS t, count(*) AS n FROM Placed", "Placed") == [
        {"t": Decimal("4.00"), "n": 3}
    ]


def test_a_type_never_seen_is_read_off_its_payloads(log: Log) -> None:
    """Without class or stored columns the JSON itself says what there is."""
    log.put("Ghost", '{"n": 1, "lines": [{"q": 1.5}]}', '{"word": "boo", "n": null, "void": null}')
    log.catch_up("Ghost")
    rows = log.rows("SELECT n, lines, word, void FROM Ghost ORDER BY position", "Ghost")
    assert (rows[0]["n"], rows[0]["lines"], rows[1]["word"]) == (1, [{"q": 1.5}], "boo")


def test_an_inferred_shape_grows_with_its_payloads(log: Log) -> None:
    """New fields of an unknown type appear, and its class takes over once it is there."""
    log.put("Ghost", '{"customer": "ann"}')
    log.catch_up("Ghost")
    log.put("Ghost", '{"customer": "bob", "total": "1.50"}')
    log.catch_up("Ghost")
    assert [row["total"] for row in log.rows("SELECT total FROM Ghost WHERE position = 2", "Ghost")] == [
        "1.50"
    ]
    log.catch_up("Ghost", Ghost=Placed)
    assert log.rows("SELECT sum(total) AS t FROM Ghost", "Ghost") == [{"t": Decimal("1.50")}]


# --- views and queries -------------------------------------------------------------------------------------


def test_bounds_show_the_log_as_it_was(log: Log) -> None:
    """A view after position 1 up to 2 shows what lies between, events included."""
    log.put("Placed", *(Placed(customer=name) for name in ("ann", "bob", "cid")))
    log.catch_up("Placed", **CLASSES)
    query = "SELECT customer FROM Placed JOIN events USING (position)"
    assert log.rows(query, "Placed", lo=1, hi=2) == [{"customer": "bob"}]
    assert log.rows(query, "Placed", hi=0) == []


def test_the_events_view_has_the_whole_envelope(log: Log) -> None:
    """Times are aware, and the payload is JSON that SQL can reach into."""
    log.put("Placed", Placed(customer="ann"))
    row = log.rows("SELECT id, recorded_at, data->>'customer' AS customer, tags FROM events")[0]
    assert row == {
        "id": "o-1",
        "recorded_at": datetime(2026, 1, 5, 9, tzinfo=UTC),
        "customer": "ann",
        "tags": None,
    }


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("FROM Placed", {"Placed"}),
        ('FROM placed p JOIN "Order.Paid" USING (stream)', {"Placed", "order.paid"}),
        ("EXPLAIN ANALYZE SELECT 1 FROM (FROM Placed)", {"Placed"}), ("SELECT 'Placed' FROM events", set()),
        ('WITH x AS (FROM Placed) SELECT (SELECT count(*) FROM "a""b") FROM x', {"Placed", 'a"b'}),
        ("DESCRIBE Placed", {"Placed"}), ("SHOW Placed", {"Placed"}),
        ("FROM query_table('Placed')", {"Placed"}),
        ("FROM Unnamed, query_table('Placed')", {"Unnamed", "Placed"}),
        ("SELECT 1", set()), ("SELEC nonsense", set()),
    ],
)  # fmt: skip
def test_only_the_types_that_a_query_names_are_caught_up(log: Log, query: str, names: set[str]) -> None:
    """The parser tells which types a query names, in any case; else any mention counts."""
    assert typed.referenced(log.con, query, ["Placed", "order.paid", 'a"b', "Unnamed"]) == names


def test_the_cursor_of_a_broken_query_stays_usable(log: Log) -> None:
    """Asking what a broken query names leaves the thread's cursor alone."""
    typed.referenced(log.con, "SELECT FROM WHERE", ["Placed"])
    assert log.con.cursor().execute("SELECT 1").fetchall() == [(1,)]


def test_a_million_is_no_special_case(log: Log) -> None:
    """A batch beyond one vector and one row group keeps count, order and sums."""
    log.con.write.execute(
        "INSERT INTO esim.events(position, category, stream, version, type, schema_version, event_id, "
        "recorded_at, data) SELECT i, 'Order', 'Order/' || i, 1, 'Placed', 1, uuid(), "
        "TIMESTAMP '2026-01-05', "
        '\'{"customer":"c\' || i || \'","items":[],"total":"0.01"}\' FROM range(1, 130001) r(i)'
    )
    log.catch_up("Placed", **CLASSES)
    query = "SELECT count(*) AS n, sum(total) AS t, bool_and(customer = 'c' || position) AS same FROM Placed"
    assert log.rows(query, "Placed") == [{"n": 130000, "t": Decimal("1300.00"), "same": True}]


def test_a_failed_catch_up_leaves_no_table(log: Log) -> None:
    """The table and its checkpoint come together or not at all."""
    log.put("Count", '{"n": "x"}')
    with pytest.raises(InvalidEvent):
        log.catch_up("Count", Count=create_model("Count", n=(int, ...)))
    with pytest.raises(duckdb.CatalogException):
        log.con.cursor().execute('FROM typed."Count"')
    assert log.con.cursor().execute("FROM esim.event_types").fetchall() == []


def test_a_file_is_typed_for_those_who_have_no_classes(tmp_path):
    """Money stays exact in SQL for a process that never saw the classes, queried before or not."""
    path = tmp_path / "shop.duckdb"
    writer = (
        "from decimal import Decimal\nfrom esim import Event, EventStore, Money\n"
        "class Sold(Event):\n    price: Money\n"
        "sold = [Sold(price=Decimal('1.50')), Sold(price=Decimal('2.25'))]\n"
        f"EventStore({str(path)!r}).append('Shop/1', sold)\n"
    )
    subprocess.run([sys.executable, "-c", writer], check=True)
    reader = (
        "from esim import EventStore\n"
        f"print(EventStore({str(path)!r}).sql('select sum(price) as total from Sold')['total'][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", reader], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "3.75"
