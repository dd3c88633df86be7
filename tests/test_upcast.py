"""Upcasters: old stored bytes read in today's shape, by streams, types, SQL, projections and snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import pytest

from esim.contract import Store
from esim.envelope import NewEvent, Row
from esim.errors import ConditionFailed, DuplicateEventId, InvalidArgument, InvalidEvent, UpcasterFailed
from esim.event import Event, Tag, encode
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Rows, SqlProjection, on
from esim.projection import Row as TableRow
from esim.query import Condition, Query
from esim.repository import Repository
from esim.spec import given
from esim.state import State, fold
from esim.store import EventStore
from esim.upcast import read_as, retired, roads, sources
from esim.value import Money, Value

BACKENDS = ("file", "duckdb", "memory")


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    path = tmp_path / "log.duckdb" if request.param == "file" else None
    with MemoryStore() if request.param == "memory" else EventStore(path) as made:
        yield made


def stored(store: Store, *raws: tuple[str, str, int, str]) -> Store:
    """Put payloads (stream, type, schema version, text) into a store as an older program left them."""
    start = store.position
    rows: list[Row] = []
    for number, (stream, kind, shape, text) in enumerate(raws, start + 1):
        version = store.version(stream) + 1 + sum(row[1] == stream for row in rows)
        at = 1_767_600_000_000_000 + number
        key = f"00000000-0000-7000-8000-{number:012d}"
        rows.append(
            (number, stream, version, kind, shape, text, None, None, None, UUID(key), at, None, (), None)
        )
    if isinstance(store, MemoryStore):
        store._keep(rows)
    else:
        assert isinstance(store, EventStore)
        store.restore(rows)
    return store


# --- what an older shape is read as ------------------------------------------------------------------------


class Item(Value):
    sku: str
    quantity: int


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class OptionalAdded(Event, schema_version=2):
    name: str
    note: str | None = None


class DefaultAdded(Event, schema_version=2, upcasters=[None]):
    name: str
    currency: str = "EUR"


class RequiredAdded(Event, schema_version=2, upcasters=[lambda old: {**old, "currency": "EUR"}]):
    name: str
    currency: str


class Renamed(Event, schema_version=2, upcasters=[lambda old: {"customer": old["name"]}]):
    customer: str


def _mail(old: dict[str, Any]) -> dict[str, Any]:
    return {"mail": old.pop("e_mail", None), **old}


class OptionalRenamed(Event, schema_version=2, upcasters=[_mail]):
    name: str
    mail: str | None = None


class TypeRenamed(Event, was="FormerName"):
    name: str


class TypeChanged(
    Event, schema_version=2, upcasters=[lambda old: {"number": int(old["number"].lstrip("#"))}]
):
    number: int


class UnitChanged(
    Event, schema_version=2, upcasters=[lambda old: {"total": Decimal(old["cents"]).scaleb(-2)}]
):
    total: Money


def _split(old: dict[str, Any]) -> dict[str, Any]:
    first, _, last = old["name"].partition(" ")
    return {"first": first, "last": last}


class FieldSplit(Event, schema_version=2, upcasters=[_split]):
    first: str
    last: str


class FieldsMerged(
    Event, schema_version=2, upcasters=[lambda old: {"name": f"{old['first']} {old['last']}"}]
):
    name: str


class Address(Value):
    street: str
    town: str


class MovedToNested(Event, schema_version=2, upcasters=[lambda old: {"address": old}]):
    address: Address


class Removed(Event, schema_version=2, upcasters=[lambda old: {"name": old["name"]}]):
    name: str


class ValueAdded(Event, schema_version=2):
    size: Size | Literal["xl"]


def _sizes(old: dict[str, Any]) -> dict[str, Any]:
    return {"size": {"m": "l"}.get(old["size"], old["size"])}


class ValueRemoved(Event, schema_version=2, upcasters=[_sizes]):
    size: Size


def _items(old: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"sku": sku, "quantity": 1} for sku in old["items"]]}


class ItemChanged(Event, schema_version=2, upcasters=[_items]):
    items: tuple[Item, ...]


CASES: dict[str, tuple[str, str, Event]] = {
    "an optional field is added": ("OptionalAdded", '{"name":"ann"}', OptionalAdded(name="ann")),
    "a required field with a default is added": ("DefaultAdded", '{"name":"ann"}', DefaultAdded(name="ann")),
    "a required field without a default is added": (
        "RequiredAdded",
        '{"name":"ann"}',
        RequiredAdded(name="ann", currency="EUR"),
    ),
    "a required field is renamed": ("Renamed", '{"name":"ann"}', Renamed(customer="ann")),
    "an optional field is renamed": (
        "OptionalRenamed",
        '{"name":"ann","e_mail":"a@b.c"}',
        OptionalRenamed(name="ann", mail="a@b.c"),
    ),
    "an optional field that is absent is renamed": (
        "OptionalRenamed",
        '{"name":"ann"}',
        OptionalRenamed(name="ann"),
    ),
    "a type is renamed": ("FormerName", '{"name":"ann"}', TypeRenamed(name="ann")),
    "a field has another type": ("TypeChanged", '{"number":"#17"}', TypeChanged(number=17)),
    "a field has another unit": ("UnitChanged", '{"cents":1999}', UnitChanged(total=Decimal("19.99"))),
    "a field is split": ("FieldSplit", '{"name":"Ann Lee"}', FieldSplit(first="Ann", last="Lee")),
    "fields are merged": ("FieldsMerged", '{"first":"Ann","last":"Lee"}', FieldsMerged(name="Ann Lee")),
    "fields move into a nested value": (
        "MovedToNested",
        '{"street":"1 Road","town":"Zürich"}',
        MovedToNested(address=Address(street="1 Road", town="Zürich")),
    ),
    "a field is removed": ("Removed", '{"name":"ann","fax":"123"}', Removed(name="ann")),
    "a value is added to an enumeration": ("ValueAdded", '{"size":"s"}', ValueAdded(size=Size.SMALL)),
    "a value is removed from an enumeration": ("ValueRemoved", '{"size":"m"}', ValueRemoved(size=Size.LARGE)),
    "the items of a nested list change": (
        "ItemChanged",
        '{"items":["mug","tea"]}',
        ItemChanged(items=(Item(sku="mug", quantity=1), Item(sku="tea", quantity=1))),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_old_bytes_are_read_in_todays_shape(store: Store, case: str):
    """A reader gets today's event, in Python and in SQL, and the stored bytes stay as they are."""
    kind, text, expected = CASES[case]
    stored(store, ("Case/c", kind, 1, text))
    store.append("Case/c", expected)
    old, new = store.read("Case/c")
    assert old.event == new.event == expected
    assert type(old.event) is type(expected)
    assert old.type == new.type == expected.event_type
    assert len(store.read(type=type(expected))) == 2
    assert store.df()["data"].tolist() == [text, encode(expected)]
    table = store.sql(f'select * exclude (position, version, recorded_at) from "{expected.event_type}"')
    assert table.iloc[0].astype(str).tolist() == table.iloc[1].astype(str).tolist()


@pytest.mark.parametrize(
    ("kind", "text"), [("OptionalAdded", '{"name":3}'), ("RequiredAdded", '{"nam":"ann"}')]
)
def test_what_does_not_fit_after_its_upcasters_is_told(store: Store, kind: str, text: str):
    """An upcaster may give what the class refuses: the reader is told which field, and why."""
    stored(store, ("Case/c", kind, 1, text))
    [one] = store.read()
    with pytest.raises(InvalidEvent, match="'nam"):
        _ = one.event


def test_a_required_field_needs_an_upcaster(store: Store):
    """Without one, an old payload is refused by name of the missing field."""

    class Bare(Event, type="RequiredAdded", schema_version=2):
        name: str
        currency: str

    stored(store, ("Case/c", "RequiredAdded", 1, '{"name":"ann"}'))
    [one] = store.read()
    with pytest.raises(InvalidEvent, match="Bare cannot be made: 'currency' is missing"):
        _ = one.event


class Count(TableRow):
    n: Key[int]
    events: int = 0


# --- chains ------------------------------------------------------------------------------------------------


def test_a_chain_goes_up_shape_by_shape(store: Store):
    """Each stored shape takes the steps from there on; today's takes none, nor does a later one."""
    taken: list[int] = []

    def step(number: int) -> Any:
        return lambda old: (taken.append(number), {"n": old["n"] + number})[1]

    class Grown(Event, schema_version=4, upcasters=(step(1), None, step(3))):
        n: int

    stored(store, *(("Case/c", "Grown", shape, '{"n":0}') for shape in (1, 2, 3, 4, 5)))
    assert [one.event.n for one in store.read()] == [4, 3, 3, 0, 0]
    assert taken == [1, 3, 3, 3]


def test_a_former_name_goes_up_the_same_chain(store: Store):
    """Shapes count on when a type gets another name, and several former names may lead to one."""

    class Named(
        Event, schema_version=3, was=("First", "Second"), upcasters=(lambda o: {"n": o["n"] + 1}, None)
    ):
        n: int

    stored(
        store, ("C/c", "First", 1, '{"n":1}'), ("C/c", "Second", 2, '{"n":1}'), ("C/c", "Named", 3, '{"n":1}')
    )
    assert [one.event.n for one in store.read(type=Named)] == [2, 1, 1]
    assert {one.type for one in store.read()} == {"Named"}
    assert set(sources(["Named"])) == {"Named", "First", "Second"}


def test_an_upcaster_may_pass_an_event_over(store: Store):
    """None means that there is nothing to read; versions keep the gap."""

    class Kept(Event, schema_version=2, upcasters=[lambda old: old if old["n"] else None]):
        n: int

    stored(store, *(("C/c", "Kept", 1, f'{{"n":{n}}}') for n in (0, 1, 0, 2)))
    assert [(one.event.n, one.version) for one in store.read()] == [(1, 2), (2, 4)]
    assert len(store.read()) == 2
    assert store.sql("select n from Kept order by position")["n"].tolist() == [1, 2]
    store.append("C/c", Kept(n=3), expected=4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_gap_between_shapes_is_refused_when_the_class_is_defined(count: int):
    """Too few or too many upcasters are told before anything is read."""
    with pytest.raises(InvalidArgument, match="schema_version 3, and upcasters from shape"):
        type("Gap", (Event,), {"__annotations__": {}}, schema_version=3, upcasters=[None] * count)


@pytest.mark.parametrize("step", ["text", 3, dict, lambda a, b: {}])
def test_an_upcaster_that_cannot_be_called_is_refused_when_the_class_is_defined(step: Any):
    """It takes one payload; what does not is told at once, not at the first old event."""
    with pytest.raises(InvalidArgument, match="the upcaster from shape 1 is"):
        type("Odd", (Event,), {"__annotations__": {}}, schema_version=2, upcasters=[step])


@pytest.mark.parametrize("was", ["Same", ("",), (3,), ("Other", "Same")])
def test_a_former_name_that_is_none_is_refused(was: Any):
    """A type was not called as it is called now, nor by nothing."""
    with pytest.raises(InvalidArgument, match="was="):
        type("Same", (Event,), {"__annotations__": {}}, was=was)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda old: old["gone"], r"raised KeyError: 'gone', given \{'n': 1\}"),
        (lambda old: [old], "returned .*: return a dict"),
        (lambda old: 3, "returned 3: return a dict"),
        (lambda old: {"n": object()}, "no JSON form"),
    ],
)
def test_an_upcaster_that_fails_is_named_with_its_event(store: Store, step: Any, told: str):
    """Reading stops with the place in the log, the upcaster and the cause; nothing is lost."""

    class Failing(Event, schema_version=2, upcasters=[step]):
        n: int

    class Failures(Projection[Count]):
        @on(Failing)
        def counted(self, event: Failing, rows: Rows[Count]) -> None:
            rows.put(Count(n=event.n))

    stored(store, ("C/c", "Failing", 1, '{"n":1}'))
    for reading in (lambda: list(store.read()), lambda: Failures(store).catch_up()):
        with pytest.raises(UpcasterFailed, match=told) as raised:
            reading()
        assert "'C/c' version 1, position 1: the upcaster" in str(raised.value)
    with pytest.raises(UpcasterFailed, match=told):
        store.sql("select * from Failing")
    assert store.df()["data"].tolist() == ['{"n":1}']


# --- retired types -----------------------------------------------------------------------------------------


class Came(Event):
    who: Annotated[str, Tag()]


class Left(Event):
    who: str


def _moved(old: dict[str, Any]) -> list[Event]:
    return [Left(who=old["who"]), Came(who=old["who"])]


class Guests(State[Came | Left]):
    inside: int = 0

    def evolve(self, event: Came | Left) -> Self:
        match event:
            case Came():
                return self.but(inside=self.inside + 1)
            case Left():
                return self.but(inside=self.inside - 1)


class Presence(TableRow):
    who: Key[str]
    seen: str = ""


class Presences(Projection[Presence]):
    @on(Came, Left)
    def seen(self, event: Came | Left, rows: Rows[Presence]) -> None:
        row = rows.get(event.who) or Presence(who=event.who)
        rows.put(row.but(seen=row.seen + event.event_type[0]))


class Comings(SqlProjection):
    query = "select who, count(*) as times from Came group by who"
    key = ("who",)
    combine = {"times": "sum"}


@pytest.fixture
def house(store: Store) -> Store:
    """One comes, one moves (which is one event of old and two of today), one leaves."""
    store.append("Guests/g", Came(who="ann"))
    stored(store, ("Guests/g", "Moved", 1, '{"who":"bob"}'))
    store.append("Guests/g", Left(who="ann"))
    retired("Moved", by=_moved, into=(Left, Came))
    return store


def test_a_retired_type_is_read_as_several_events(house: Store):
    """The parts share the envelope of the stored event and come in order, backwards in the other one."""
    events = list(house.read())
    told = [(one.position, one.version, one.part, one.event) for one in events]
    assert told[1:3] == [(2, 2, 0, Left(who="bob")), (2, 2, 1, Came(who="bob"))]
    assert [one.position for one in events] == [1, 2, 2, 3]
    assert list(house.read(backward=True)) == events[::-1]
    assert events[1] != events[2]
    assert (len(house.read()), house.position, house.version("Guests/g")) == (4, 3, 3)
    assert [one.part for one in house.read(limit=2)] == [0, 0]
    assert house.read().first() == events[0]
    assert house.read().last() == events[-1]


def test_what_a_retired_type_is_read_as_can_be_asked_for_by_type(house: Store):
    """Each part is found by its own type, and the other one is not given with it."""
    assert [(one.position, one.part) for one in house.read(type=Came)] == [(1, 0), (2, 1)]
    assert [(one.position, one.part) for one in house.read(type=Left)] == [(2, 0), (3, 0)]
    assert house.read(type=Came, backward=True, limit=1).first() == house.read(type=Came).last()
    assert house.sql("select who from Came order by position")["who"].tolist() == ["ann", "bob"]
    assert house.sql("select who from Moved")["who"].tolist() == ["bob"]  # as it is stored


def test_states_and_read_models_see_every_part(house: Store):
    """A fold, a repository, projections in Python and in SQL, incremental or in one go, all agree."""
    assert fold(Guests, house.read()).inside == Repository(house, Guests).load("g").state.inside == 0
    rows = {"ann": "CL", "bob": "LC"}
    assert {key: row.seen for key, row in Presences.over(house.read()).items()} == rows
    assert Presences(house).df().set_index("who")["seen"].to_dict() == rows
    comings = Comings(house)
    assert comings.df().set_index("who")["times"].to_dict() == {"ann": 1, "bob": 1}
    house.append("Guests/g", Came(who="ann"))
    stored(house, ("Guests/h", "Moved", 1, '{"who":"ann"}'))
    assert comings.df().set_index("who")["times"].to_dict() == {"ann": 3, "bob": 1}
    assert comings.rebuild().df().set_index("who")["times"].to_dict() == {"ann": 3, "bob": 1}
    given(*house.read()).when(Presences).then(
        Presence(who="ann", seen="CLCLC"), Presence(who="bob", seen="LC")
    )


def test_a_retired_type_may_be_read_as_nothing(house: Store):
    """Without a way to split it, each of its events is passed over; the log keeps them."""
    retired("Moved")
    assert [one.position for one in house.read()] == [1, 3]
    assert Repository(house, Guests).load("g").version == 3
    assert house.df()["type"].tolist() == ["Came", "Moved", "Left"]


def test_defining_a_class_of_a_retired_type_takes_it_back(house: Store):
    """The latest definition counts, as everywhere: a re-run cell with the old class reads the old type."""

    class Moved(Event):
        who: str

    assert [one.type for one in house.read()] == ["Came", "Moved", "Left"]
    retired(Moved, by=_moved, into=(Left, Came))
    assert [one.type for one in house.read()] == ["Came", "Left", "Came", "Left"]


def test_older_shapes_of_a_retired_type_go_up_first(store: Store):
    """What splits a type knows its last shape only."""
    stored(store, ("G/g", "Moved", 1, '{"name":"ann"}'), ("G/g", "Moved", 2, '{"who":"bob"}'))
    retired("Moved", by=_moved, into=(Left, Came), upcasters=[lambda old: {"who": old["name"]}])
    assert [one.event.who for one in store.read(type=Came)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"by": _moved}, "give `by` and the classes"),
        ({"into": Came}, "give `by` and the classes"),
        ({"by": _moved, "into": ("Came",)}, "'Came' in `into` is not an Event class"),
        ({"by": lambda old, new: [old, new], "into": Came}, "write a function of one payload"),
        ({"by": "text", "into": Came}, "write a function of one payload"),
    ],
)
def test_a_retirement_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str):
    """What is missing or wrong is said at once, and nothing is registered."""
    with pytest.raises(InvalidArgument, match=told):
        retired("Moved", **wrong)
    assert "Moved" not in roads()


def test_a_type_cannot_be_retired_into_itself():
    """What would lead back to itself is refused when it is registered."""
    with pytest.raises(InvalidArgument, match="leads back to 'Came'"):
        retired("Came", by=_moved, into=(Left, Came))


def test_a_type_cannot_be_retired_in_a_circle():
    """Nor by way of others, be they retired or renamed; and what is refused is not registered."""

    class Seen(Event):
        who: str

    class Heard(Event):
        who: str

    class Noticed(Event, was="Heard"):
        who: str

    retired("Seen", by=lambda old: Heard(**old), into=Heard)
    with pytest.raises(
        InvalidArgument, match=r"retired\('Noticed'\) leads back to 'Noticed', by way of 'Seen'"
    ):
        retired("Noticed", by=lambda old: Seen(**old), into=(Came, Seen))
    assert "Noticed" not in roads()


def test_what_a_retired_type_is_read_as_may_be_retired_or_renamed_later(store: Store):
    """The way is followed to its end, whoever asks; the order of the parts stays."""
    stored(store, ("H/h", "Moved", 1, '{"who":"ann"}'), ("H/h", "Fled", 1, '{"who":"bob"}'))

    class Fled(Event):
        who: str

    class Away(Event):
        who: str

    retired("Moved", by=lambda old: [Fled(**old), Came(**old)], into=(Fled, Came))
    retired("Fled", by=lambda old: Away(**old), into=Away)
    assert [(one.position, one.part, one.type) for one in store.read()] == [
        *((1, 0, "Away"), (1, 1, "Came"), (2, 0, "Away"))
    ]
    assert [one.event.who for one in store.read(type=Away)] == ["ann", "bob"]
    assert store.sql("select who from Away order by position")["who"].tolist() == ["ann", "bob"]

    class Gone(Event, was="Away"):
        who: str

    assert [one.type for one in store.read()] == ["Gone", "Came", "Gone"]
    assert store.sql("select who from Gone order by position")["who"].tolist() == ["ann", "bob"]
    assert [one.event for one in store.read(type=Gone)] == [Gone(who="ann"), Gone(who="bob")]


def test_a_former_name_of_a_former_name_is_followed(store: Store):
    """What was renamed twice in a session is read as the latest."""
    stored(store, ("H/h", "Walked", 1, '{"who":"ann"}'))

    class Strolled(Event, was="Walked"):
        who: str

    class Sauntered(Event, was="Strolled", schema_version=2, upcasters=[lambda old: {"name": old["who"]}]):
        name: str

    assert [one.event for one in store.read()] == [Sauntered(name="ann")]
    assert len(store.read(type=Sauntered)) == 1


@pytest.mark.parametrize(
    ("by", "told"),
    [
        (lambda old: [Kept_(n=1)], r"gave Kept_\(n=1\): it is to give Left, Came"),
        (lambda old: ["text"], "gave 'text'"),
        (lambda old: 3, "raised TypeError"),
        (lambda old: old["gone"], "raised KeyError: 'gone'"),
    ],
)
def test_a_split_that_fails_is_told_with_its_event(house: Store, by: Any, told: str):
    """It may give events of the declared types only."""
    retired("Moved", by=by, into=(Left, Came))
    with pytest.raises(UpcasterFailed, match=told) as raised:
        list(house.read())
    assert "position 2: " in str(raised.value)


class Kept_(Event):  # noqa: N801 - it is not one of the types that tests look for
    n: int


# --- what is derived from the log --------------------------------------------------------------------------


def test_a_changed_upcaster_makes_snapshots_and_read_models_anew(tmp_path: Path):
    """States, rows and typed tables that an earlier upcaster had a part in are computed again."""

    def defined(factor: int) -> type[Event]:
        class Weighed(
            Event, type="Weighed", schema_version=2, upcasters=[lambda old: {"n": old["n"] * factor}]
        ):
            n: int

        return Weighed

    def looked(store: EventStore, weighed: type[Event]) -> list[Any]:
        class Scale(State[weighed], category="Scale"):  # type: ignore[valid-type]
            total: int = 0

            def evolve(self, event: Any) -> Self:
                return self.but(total=self.total + event.n)

        class Weights(Projection[Count]):
            @on(weighed)
            def seen(self, event: Any, rows: Rows[Count]) -> None:
                rows.put(Count(n=event.n))

        class Sums(SqlProjection):
            query = "select stream, sum(n) as n from Weighed group by 1"
            key = ("stream",)
            combine = {"n": "sum"}

        scales = Repository(store, Scale, snapshot_every=1)
        scale = scales.load("s")
        scales.save(scale.decide(lambda state: [weighed(n=0)]))
        table = store.sql("select n from Weighed where n > 0")["n"]
        return [scale.state.total, Weights(store).df()["n"].max(), Sums(store).df()["n"].sum(), table.sum()]

    path = tmp_path / "log.duckdb"
    with EventStore(path) as store:
        stored(store, ("Scale/s", "Weighed", 1, '{"n":1}'))
        assert looked(store, defined(10)) == [10] * 4
    with EventStore(path) as again:
        assert looked(again, defined(10)) == [10] * 4
        assert looked(again, defined(7)) == [7] * 4


def test_a_read_model_follows_an_upcaster_that_is_defined_while_it_lives(house: Store):
    """The same object is right after the definitions change: it need not be made anew."""
    presences = Presences(house)
    assert presences.df()["seen"].tolist() == ["CL", "LC"]
    retired("Moved")
    assert presences.df()["seen"].tolist() == ["CL"]


def test_an_append_condition_sees_what_an_old_event_is_read_as(house: Store):
    """A query by today's type is broken by an event that is read as one."""
    with pytest.raises(ConditionFailed):
        house.append("G/x", Left(who="x"), condition=Condition(Query.of(Came), after=1))
    house.append("G/x", Left(who="x"), condition=Condition(Query.of(Came), after=2))


def test_repeating_an_append_after_its_shape_has_changed_is_a_repetition(store: Store):
    """The same event id with the payload that the stored one is read as today writes nothing."""
    stored(store, ("C/c", "Renamed", 1, '{"name":"ann"}'))
    [one] = store.read()
    [again] = store.append("C/c", NewEvent(Renamed(customer="ann"), event_id=one.event_id))
    assert (again, again.event, store.position) == (one, Renamed(customer="ann"), 1)
    with pytest.raises(DuplicateEventId):
        store.append("C/c", NewEvent(Renamed(customer="bob"), event_id=one.event_id))


def test_the_past_is_read_in_todays_shape_too(house: Store):
    """As of a position or a version, upcasters have their say as well."""
    past = house.as_of(2)
    assert [one.part for one in past.read()] == [0, 0, 1]
    assert past.sql("select who from Came order by position")["who"].tolist() == ["ann", "bob"]
    assert Repository(house, Guests).load("g", at=2).state.inside == 1


def test_reading_costs_nothing_where_no_upcaster_is_registered():
    """Most processes have none, and then there is nothing to look up."""
    assert not {kind for kind in roads() if kind in ("Came", "Left", "OptionalAdded", "DefaultAdded")}
    assert read_as("Came", 1, "text") == [("Came", 1, "text")]


def test_an_append_repeated_after_a_field_with_a_default_was_added_is_the_same() -> None:
    """What counts is what both are read as."""

    class Told(Event):
        n: int

    store, event_id = MemoryStore(), UUID(int=5)
    store.append("S/1", NewEvent(Told(n=1), event_id=event_id))

    class Told(Event):  # type: ignore[no-redef]
        n: int
        unit: str = "EUR"

    assert len(store.append("S/1", NewEvent(Told(n=1), event_id=event_id))) == 1
    assert store.position == 1
    with pytest.raises(DuplicateEventId):
        store.append("S/1", NewEvent(Told(n=1, unit="USD"), event_id=event_id))
