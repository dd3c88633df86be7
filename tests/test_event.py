"""Events and values: strict, frozen, stable by name; the registry, tags, the context and the envelope."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from esim import event as registry
from esim.clock import ManualClock, SeededIds
from esim.envelope import NewEvent, RecordedEvent, caused_by, context, metadata
from esim.errors import EsimError, InvalidArgument, InvalidEvent, UnknownEventType
from esim.event import (
    Event,
    Tag,
    batch_decoder,
    current,
    decode,
    encode,
    event_class,
    known_events,
    renewed,
    tags_of,
    type_name,
)
from esim.memory import MemoryStore
from esim.value import Money, Value

HOSTILE = "<script>alert('x')</script> & \"quoted\" é 日本"


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Priced(Event):
    price: Money


class Line(Value):
    sku: str
    price: Money
    ready: datetime | None = None


class Ordered(Event):
    customer: Annotated[str, Tag()]
    lines: tuple[Line, ...] = ()
    rates: dict[str, Decimal] = {}
    at: datetime | None = None


class Everything(Event, type="every.thing", schema_version=3):
    text: str
    whole: int
    flag: bool
    ratio: float
    money: Money
    exact: Decimal
    moment: datetime
    day: date
    hour: time
    span: timedelta
    key: UUID
    size: Size
    choice: Literal["a", "b"]
    maybe: int | None
    either: int | str
    many: tuple[str, ...]
    pair: tuple[int, str]
    bag: frozenset[int]
    names: dict[str, int]
    line: Line
    lines: list[Line]
    raw: bytes


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Forget the classes that a test defines."""
    by_type, by_name = dict(registry._by_type), dict(registry._by_name)
    yield
    registry._by_type.clear()
    registry._by_type.update(by_type)
    registry._by_name.clear()
    registry._by_name.update(by_name)


def run_cell(namespace: dict[str, Any], source: str) -> None:
    """Execute a notebook cell: the same code in the same namespace, as often as one likes."""
    namespace.setdefault("__name__", "__main__")
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)


# --- making events -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "Ordered cannot be made: 'customer' is missing"),
        ({"custmer": "a"}, "'custmer' is not a field; did you mean 'customer'?"),
        ({"customer": 3}, "'customer' is 3: input should be a valid string"),
        (
            {"customer": "a", "rates": {"x": 1.5}},
            "'rates.x': 1.5 is a float, and floats lose cents: write Decimal",
        ),
        ({"customer": "a", "lines": [{"sku": "m", "price": 7.5}]}, "'lines.0.price': 7.5 is a float"),
        (
            {"customer": "a", "lines": [{"sku": "m", "cost": 1}]},
            "'lines.0.price' is missing; 'lines.0.cost' is not a field",
        ),
        ({"customer": "a", "at": datetime(2026, 1, 1)}, "'at' is 2026-01-01 00:00:00, a time without a zone"),
        ({"customer": "a", "at": "2026-01-01T00:00:00"}, "a time without a zone: write tzinfo=UTC"),
        (
            {"customer": "a", "lines": [{"sku": "m", "price": 1, "ready": datetime(2026, 1, 1)}]},
            "'lines.0.ready' is 2026-01-01 00:00:00, a time without a zone",
        ),
        ({"customer": "a", "lines": "none"}, "'lines' is 'none': input should be a valid tuple"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], told: str):
    """The message names the event, the field at any depth, its value and the cause, without any link."""
    with pytest.raises(InvalidEvent) as caught:
        Ordered(**fields)
    assert told in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_problem_is_told_at_once():
    """Two mistakes need one look, not two."""
    with pytest.raises(InvalidEvent, match=r"'customer' is missing.*'lines' is 3"):
        Ordered(lines=3)


@pytest.mark.parametrize("amount", ["1.505", "1e30", "NaN", "Infinity", "-sNaN", "ten", True, None, 0.1])
def test_money_is_exact_or_refused(amount: Any):
    """Fractions of a cent, sums beyond 18 digits, not-a-number, booleans and floats are no money."""
    value = Decimal(amount) if isinstance(amount, str) and amount != "ten" else amount
    with pytest.raises(InvalidEvent, match="'price'"):
        Line(sku="a", price=value)


@pytest.mark.parametrize("amount", [Decimal("7.50"), "7.50", Decimal("7.5"), Decimal("-0.01"), 7])
def test_money_may_be_written_as_decimal_text_or_whole_number(amount: Any):
    """What has no rounding error is taken as it is."""
    assert Line(sku="a", price=amount).price == Decimal(str(amount))


def test_times_become_utc():
    """An aware time of any zone is the same moment in UTC."""
    at = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    made = Ordered(customer="a", at=at, lines=(Line(sku="m", price=Decimal(1), ready=at),))
    assert made.at == made.lines[0].ready == at
    assert (made.at.tzinfo, made.lines[0].ready.tzinfo) == (UTC, UTC)


def test_fields_are_given_by_name():
    """A positional value is refused with the way to write it."""
    with pytest.raises(InvalidEvent, match=r"by name: Line\(sku=…, price=…, ready=…\)"):
        Line("mug", Decimal(1))


@pytest.mark.parametrize(
    "change",
    [
        lambda event: setattr(event, "customer", "b"),
        lambda event: setattr(event, "new", "b"),
        lambda event: delattr(event, "customer"),
    ],
)
def test_an_event_cannot_be_changed(change: Any):
    """Setting and deleting are refused with a way out."""
    made = Ordered(customer="a")
    with pytest.raises(InvalidEvent, match="frozen: record"):
        change(made)
    assert made == Ordered(customer="a")


def test_a_copy_with_other_values_is_validated():
    """but() gives a new event, or says what does not fit."""
    made = Ordered(customer="a")
    assert made.but(customer="b") == Ordered(customer="b")
    assert made.customer == "a"
    with pytest.raises(InvalidEvent, match=r"'rates.x'"):
        made.but(rates={"x": 0.5})
    with pytest.raises(InvalidEvent, match="did you mean 'customer'"):
        made.but(custom="x")


def test_events_are_equal_by_type_and_values():
    """Equal values of the same class are equal; another class is not."""
    assert Line(sku="a", price=Decimal("7.5")) == Line(sku="a", price=Decimal("7.50"))
    assert hash(Line(sku="a", price=Decimal("7.5"))) == hash(Line(sku="a", price=Decimal("7.50")))

    class Other(Event):
        customer: str

    assert Ordered(customer="a") != Other(customer="a")


def test_events_can_be_copied_and_pickled():
    """An event crosses process borders whole."""
    made = Ordered(customer="a", lines=(Line(sku="m", price=Decimal("1.60")),))
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made  # noqa: S301


def test_reprs_are_code_and_html_is_escaped():
    """The text can be pasted, and hostile text in the table is text."""
    made = Ordered(customer=HOSTILE)
    assert eval(repr(made), {"Ordered": Ordered}) == made  # noqa: S307
    assert "<script" not in made._repr_html_()
    assert "&lt;script&gt;" in made._repr_html_()


# --- defining events ---------------------------------------------------------------------------------------


def test_a_type_is_named_by_its_class_or_by_hand():
    """The stored name is the class name unless one is given; the module plays no part."""
    assert (type_name(Ordered), Ordered.schema_version) == ("Ordered", 1)
    assert (type_name(Everything), Everything.schema_version) == ("every.thing", 3)
    assert type_name("any") == "any"
    assert event_class("every.thing") is known_events()["every.thing"] is Everything


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, None, 40_000])
def test_a_bad_schema_version_is_refused(version: Any):
    """Shapes count from 1."""
    with pytest.raises(InvalidArgument, match="schema_version is"):
        type("Bad", (Event,), {"__module__": __name__}, schema_version=version)


@pytest.mark.parametrize("name", ["", " ", 3, "a\0b"])
def test_a_bad_type_name_is_refused(name: Any):
    """A type has a name that can be read."""
    with pytest.raises(InvalidArgument, match="type is"):
        type("Bad", (Event,), {"__module__": __name__}, type=name)
    assert name not in known_events()


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("field", ["event_type", "schema_version", "but"])
def test_a_field_cannot_hide_what_every_event_has(field: str):
    """A clash of names is told where the class is defined."""
    with pytest.raises(InvalidArgument, match=f"Bad.{field} would hide"):
        type("Bad", (Event,), {"__module__": __name__, "__annotations__": {field: str}})


def test_a_subclass_is_a_type_of_its_own():
    """Deriving an event takes the fields and the tags, not the stored name."""

    class Reordered(Ordered):
        again: int

    assert Reordered.event_type == "Reordered"
    assert tags_of(Reordered(customer="a", again=1)) == ("customer:a",)
    assert event_class("Ordered") is Ordered


def test_an_unknown_type_is_told_with_near_names():
    """The message names the type, a near one, and how to read without a class."""
    with pytest.raises(UnknownEventType, match=r"'Orderd'.*did you mean 'Ordered'.*\.data"):
        event_class("Orderd")


EVENT_CELL = "from esim import Event, Money\nclass Paid(Event):\n    amount: Money\n"


def test_a_cell_may_be_run_again():
    """The latest definition counts; events of the former one are renewed, and stored ones decode to it."""
    cell: dict[str, Any] = {}
    run_cell(cell, EVENT_CELL)
    old = cell["Paid"]
    run_cell(cell, EVENT_CELL + "    note: str = ''\n")
    assert current(old) is cell["Paid"] is event_class("Paid") is not old
    assert renewed(old(amount=1)) == cell["Paid"](amount=1)
    assert list(batch_decoder([old])(["Paid"], ['{"amount":"1.00"}'])) == [cell["Paid"](amount="1.00")]


def test_a_renamed_type_leaves_the_former_name_readable():
    """A class that is given another stored name still decodes what was stored under the former one."""
    cell: dict[str, Any] = {}
    run_cell(cell, EVENT_CELL)
    run_cell(cell, EVENT_CELL.replace("(Event)", "(Event, type='order.paid')"))
    assert cell["Paid"].event_type == "order.paid"
    assert decode("Paid", '{"amount":"1.00"}').amount == 1


def test_an_event_that_no_longer_fits_its_class_is_not_recorded():
    """It could never be read again; the message says why, and nothing is written."""
    cell: dict[str, Any] = {}
    run_cell(cell, EVENT_CELL)
    made = cell["Paid"](amount=1)
    run_cell(cell, EVENT_CELL.replace("amount: Money", "total: Money"))
    for new in (made, [made], NewEvent(made)):
        with MemoryStore() as store:
            with pytest.raises(
                InvalidEvent, match=r"made before its class was defined anew.*'total' is missing"
            ):
                store.append("Order/1", new)
            assert store.position == 0


def test_events_of_a_former_cell_can_be_appended():
    """An event made before its cell was run again is as good as any."""
    cell: dict[str, Any] = {}
    run_cell(cell, EVENT_CELL)
    made = cell["Paid"](amount=1)
    run_cell(cell, EVENT_CELL)
    with MemoryStore() as store:
        store.append("Order/1", made)
        assert store.read().first().event == cell["Paid"](amount=1)


def test_completion_shows_the_domains_names():
    """Fields and esim's own verbs, none of pydantic's thirty."""
    names = set(dir(Ordered(customer="a")))
    assert {"customer", "lines", "rates", "at", "but"} <= names
    assert not {name for name in names if name.startswith(("_", "model_"))}
    assert not {"copy", "dict", "json", "parse_obj", "construct"} & (names | set(dir(Ordered)))


# --- encoding ----------------------------------------------------------------------------------------------

MONEY = st.decimals(-(10**15), 10**15, places=2)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINES = st.builds(Line, sku=TEXT, price=MONEY, ready=st.none() | MOMENTS)
EVERYTHING = st.builds(
    Everything,
    text=TEXT,
    whole=st.integers(),
    flag=st.booleans(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    money=MONEY,
    exact=st.decimals(allow_nan=False, allow_infinity=False),
    moment=MOMENTS,
    day=st.dates(),
    hour=st.times(),
    span=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    key=st.uuids(),
    size=st.sampled_from(Size),
    choice=st.sampled_from(["a", "b"]),
    maybe=st.none() | st.integers(),
    either=st.integers() | TEXT,
    many=st.lists(TEXT, max_size=3),
    pair=st.tuples(st.integers(), TEXT),
    bag=st.frozensets(st.integers(), max_size=3),
    names=st.dictionaries(TEXT, st.integers(), max_size=3),
    line=LINES,
    lines=st.lists(LINES, max_size=2),
    raw=TEXT.map(str.encode),
)


@given(EVERYTHING)
def test_what_is_encoded_decodes_to_the_same(made: Everything):
    """Every field type survives the stored text, and the text is stable."""
    text = encode(made)
    again = decode("every.thing", text)
    assert again == made
    assert type(again) is Everything
    assert encode(again) == text


@given(MONEY)
def test_money_keeps_every_digit(amount: Decimal):
    """The stored text has the digits as they were written, trailing zeros included."""
    assert encode(Line(sku="a", price=amount)) == f'{{"sku":"a","price":"{amount}","ready":null}}'


@given(st.from_regex(r"\s?-?[0-9]{0,18}(\.[0-9]{0,3})?(e[0-9])?\n?", fullmatch=True) | st.text(max_size=6))
def test_money_is_read_from_stored_text_as_pydantic_reads_it(text: str):
    """Checking plain digits by a pattern accepts, refuses and gives just what the full check does."""
    plain = TypeAdapter(Annotated[Decimal, Field(max_digits=18, decimal_places=2, allow_inf_nan=False)])
    stored = f'{{"price":{json.dumps(text)}}}'
    try:
        told = plain.validate_json(json.dumps(text))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        with pytest.raises(InvalidEvent, match=re.escape(f"{reason[:1].lower()}{reason[1:]}")) as refused:
            decode("Priced", stored)
        assert "'price' is" in str(refused.value)
    else:
        assert str(cast("Priced", decode("Priced", stored)).price) == str(told)


def test_decoding_builds_no_event_through_python(monkeypatch: pytest.MonkeyPatch):
    """The fast path of every rebuild: no Python code of ours runs for an event or a nested value."""
    made = Ordered(customer="a", lines=(Line(sku="m", price=Decimal(1)), Line(sku="n", price=Decimal(2))))
    calls: list[object] = []
    monkeypatch.setattr(Value, "__init__", lambda self, **_: calls.append(self))
    assert decode("Ordered", encode(made)) == made
    assert list(batch_decoder([Ordered])(["Ordered"], [encode(made)])) == [made]
    assert calls == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"customer": 3}', "'customer' is 3"),
        ("{}", "'customer' is missing"),
        ('{"customer": "a", "new": 1}', "'new' is not a field"),
        ('{"customer', "invalid JSON"),
        ("[]", "Ordered cannot be made"),
    ],
)
def test_a_stored_payload_that_does_not_fit_is_told(text: str, told: str):
    """The message shows the payload and what is wrong with it, alone or in a batch."""
    with pytest.raises(InvalidEvent, match="stored payload") as caught:
        decode("Ordered", text)
    assert told in str(caught.value)
    with pytest.raises(InvalidEvent, match="stored payload"):
        list(batch_decoder([Ordered])(["Ordered"], [text]))


def test_a_batch_knows_only_its_classes():
    """A type outside of the given classes is told with those that are known."""
    with pytest.raises(UnknownEventType, match="is not among Ordered"):
        list(batch_decoder([Ordered])(["every.thing"], ["{}"]))


# --- tags --------------------------------------------------------------------------------------------------


def test_tags_come_from_marked_fields():
    """One for a value, one for each item, none for None, under the field's name or another; no doubles."""

    class Rated(Event):
        film: Annotated[str, Tag()]
        by: Annotated[int | None, Tag("user")] = None
        genres: Annotated[tuple[str, ...], Tag("genre")] = ()
        plain: str = "no tag"

    assert tags_of(Rated(film="Alien")) == ("film:Alien",)
    full = Rated(film="a:b", by=0, genres=("x", "y", "x"))
    assert tags_of(full) == ("film:a:b", "user:0", "genre:x", "genre:y")


def test_the_tag_of_an_enum_is_its_value_and_sets_are_in_order():
    """As in the payload, and the same in every process."""

    class Packed(Event):
        size: Annotated[Size, Tag()]
        labels: Annotated[frozenset[str], Tag("label")] = frozenset()

    packed = Packed(size=Size.LARGE, labels=frozenset("dbac"))
    assert tags_of(packed) == ("size:l", "label:a", "label:b", "label:c", "label:d")
    assert encode(packed) == '{"size":"l","labels":["a","b","c","d"]}'


# --- what could not be read again --------------------------------------------------------------------------


LOSSY = {
    "computed": (
        "@computed_field\n    @property\n    def total(self) -> int: return 1",
        "total is a computed_field",
    ),
    "excluded": ("a: int = Field(default=1, exclude=True)", "a is excluded"),
    "by alias": (
        "model_config = ConfigDict(serialize_by_alias=True)\n    a: int = Field(alias='A')",
        "different names",
    ),
    "model": ("a: tuple[Loose, ...]", r"write class Loose\(Value\)"),
    "dataclass": ("a: Point | None = None", r"write class Point\(Value\)"),
    "named tuple": ("a: dict[str, Pair]", r"write class Pair\(Value\)"),
    "typed dict": ("a: Annotated[list[Spot], Field(min_length=1)]", r"write class Spot\(Value\)"),
}
LOOSE = """
from dataclasses import dataclass
from typing import Annotated, NamedTuple
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict
from esim import Event, Value
class Loose(BaseModel): at: int
@dataclass
class Point: x: int
class Pair(NamedTuple): x: int
class Spot(TypedDict): x: int
"""


@pytest.mark.parametrize("base", ["Event", "Value"])
@pytest.mark.parametrize("name", LOSSY)
def test_a_class_whose_events_could_not_be_read_again_is_refused(name: str, base: str):
    """When it is defined, not when it is too late: what is left out, added, renamed, or not strict inside."""
    body, told = LOSSY[name]
    cell: dict[str, Any] = {}
    with pytest.raises(InvalidArgument, match=told):
        run_cell(cell, f"{LOOSE}\nclass Made({base}):\n    {body}\n")


def test_a_field_with_an_alias_is_stored_and_read_by_its_name():
    """The alias is only another way to give it."""

    class Placed(Event):
        order_id: str = Field(alias="orderId")

    assert encode(Placed(orderId="o-1")) == '{"order_id":"o-1"}'
    assert decode("Placed", '{"order_id":"o-1"}') == Placed(order_id="o-1")


def test_what_a_subclass_adds_to_a_nested_value_is_refused():
    """It would not be recorded."""

    class Gift(Line):
        note: str = ""

    with pytest.raises(InvalidEvent, match=r"'lines\.0\.note' is not a field"):
        Ordered(customer="ann", lines=[Gift(sku="mug", price="7.50", note="for you")])


@pytest.mark.parametrize(
    "value",
    [math.nan, {"x": [math.inf]}, -math.inf, object(), {"x": "\ud800"}, "\ud800"],
    ids=["nan", "inf inside", "-inf", "object", "half a character inside", "half a character"],
)
def test_a_value_without_a_json_form_is_refused_and_nothing_is_recorded(value: Any):
    """Where a field takes anything, the way into the log does not."""

    class Anything(Event):
        value: Any

    with MemoryStore() as store:
        with pytest.raises(InvalidEvent, match="Anything cannot be recorded as JSON"):
            store.append("A/1", Anything(value=value))
        assert store.position == 0
        assert store.append("A/1", Anything(value="NaN, Infinity"))[0].data == {"value": "NaN, Infinity"}


def test_bytes_of_any_kind_survive():
    """Also those that are no UTF-8."""

    class Scanned(Event):
        raw: bytes

    made = Scanned(raw=bytes(range(256)))
    assert decode("Scanned", encode(made)) == made


# --- new events and context --------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["text", Ordered, {"customer": "a"}, None])
def test_only_an_event_can_be_new(thing: Any):
    """A NewEvent wraps an instance of an Event class."""
    with pytest.raises(InvalidArgument, match="is not an Event"):
        NewEvent(thing)


@pytest.mark.parametrize(
    "wrong", [{"event_id": "zzz"}, {"event_id": 3}, {"occurred_at": datetime(2026, 1, 1)}]
)
def test_a_bad_envelope_is_refused(wrong: dict[str, Any]):
    """Ids are UUIDs, times are aware."""
    with pytest.raises(InvalidArgument):
        NewEvent(Ordered(customer="a"), **wrong)


def test_a_new_event_takes_what_is_plainly_meant():
    """Ids and times as text, one tag alone, other ids as anything with a text."""
    key = UUID(int=5)
    new = NewEvent(
        Ordered(customer="a"), event_id=str(key), occurred_at="2026-01-01T00:00:00Z", tags="t:1", user_id=7
    )
    assert (new.event_id, new.tags, new.user_id) == (key, ("t:1",), "7")
    assert new.occurred_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_contexts_nest_and_end():
    """Inner blocks add to outer ones; after each block things are as before."""
    with metadata(user_id="ann", page=1):
        with metadata(correlation_id="c", page=2, user_id=UUID(int=1)):
            assert (context().user_id, context().correlation_id) == (str(UUID(int=1)), "c")
            assert context().extra == {"page": 2}
        assert (context().user_id, context().correlation_id, context().extra) == ("ann", None, {"page": 1})
    assert (context().user_id, context().extra) == (None, None)


def test_a_context_ends_with_an_error_too():
    """Whoever raises inside a block leaves no context behind."""
    with pytest.raises(EsimError), metadata(user_id="ann"):
        raise EsimError("out")
    assert context().user_id is None


def test_a_naive_time_in_a_context_is_refused():
    """The world's time needs a zone as well."""
    with pytest.raises(InvalidArgument, match="no time zone"), metadata(occurred_at=datetime(2026, 1, 1)):
        pytest.fail("the block is not entered")


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_metadata_that_has_no_json_form_is_refused(value: Any):
    """Nothing is stored that could not be read again, such as an object's address."""
    with MemoryStore() as store:
        with metadata(thing=value), pytest.raises(InvalidArgument, match="cannot be kept as JSON"):
            store.append("A/1", Ordered(customer="a"))
        assert store.position == 0


def test_metadata_keeps_plain_values_and_texts_of_others():
    """Numbers, lists and dicts as they are; times, Decimals and UUIDs as their text."""
    given_ = {"n": 1, "l": [1, {"a": None}], "d": Decimal("1.60"), "t": date(2026, 1, 1)}
    with MemoryStore() as store, metadata(**given_):
        told = store.append("A/1", Ordered(customer="a"))[0].metadata
    assert told == {"n": 1, "l": [1, {"a": None}], "d": "1.60", "t": "2026-01-01"}


# --- recorded events ---------------------------------------------------------------------------------------


@pytest.fixture
def recorded() -> RecordedEvent[Any]:
    """One recorded event with a full envelope."""
    store = MemoryStore(ManualClock("2026-01-05T09:00:00Z"), SeededIds(1))
    new = NewEvent(
        Everything.__pydantic_validator__.validate_json(SAMPLE),
        occurred_at="2026-01-04T00:00:00Z",
        tags=("t:1",),
        metadata={"page": 1},
        user_id="ann",
    )
    return store.append("Thing/a/b", new)[0]


SAMPLE = """{
"text":"x", "whole":1, "flag":true, "ratio":0.5, "money":"1.60", "exact":"2", "moment":"2026-01-05T09:00:00Z",
"day":"2026-01-05", "hour":"09:00:00", "span":"P1D", "key":"00000000-0000-0000-0000-000000000001", "size":"s",
"choice":"a", "maybe":null, "either":3, "many":[], "pair":[1,"a"], "bag":[], "names":{}, "raw":"",
"line":{"sku":"m","price":"7.50","ready":null}, "lines":[]}"""


def test_an_envelope_says_everything(recorded: RecordedEvent[Any]):
    """Place, type, ids, times, tags and metadata, each in its own type."""
    assert (recorded.position, recorded.stream, recorded.version) == (1, "Thing/a/b", 1)
    assert (recorded.category, recorded.id) == ("Thing", "a/b")
    assert (recorded.type, recorded.schema_version) == ("every.thing", 3)
    assert recorded.recorded_at == datetime(2026, 1, 5, 9, tzinfo=UTC)
    assert recorded.occurred_at == datetime(2026, 1, 4, tzinfo=UTC)
    assert (recorded.tags, recorded.metadata, recorded.user_id) == (("t:1",), {"page": 1}, "ann")
    assert (recorded.causation_id, recorded.correlation_id) == (None, None)
    assert isinstance(recorded.event_id, UUID)
    assert recorded.data["money"] == "1.60"
    assert recorded.event.money == Decimal("1.60")


def test_a_recorded_event_is_equal_to_itself_read_again(recorded: RecordedEvent[Any]):
    """Equal by id and content, usable in sets, not equal to anything else."""
    again = RecordedEvent(recorded._row)
    assert recorded == again
    assert len({recorded, again}) == 1
    assert recorded != "text"


def test_a_cause_gives_its_effects_a_correlation(recorded: RecordedEvent[Any]):
    """The block's context names the cause and the story that it belongs to."""
    with caused_by(recorded) as inner:
        assert inner.causation_id == inner.correlation_id == str(recorded.event_id)
