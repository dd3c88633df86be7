"""What every store promises: each backend (DuckDB file, DuckDB in memory, pure memory) passes this file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import event as registry
from esim.clock import ManualClock, SeededIds
from esim.contract import Snapshot, Store
from esim.envelope import NewEvent, caused_by, metadata
from esim.errors import (
    ConditionFailed,
    Conflict,
    DuplicateEventId,
    InvalidArgument,
    ReadOnlyStore,
    SqlRefused,
    StoreClosed,
    UnknownEventType,
)
from esim.event import Event, Tag
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Row, Rows, on
from esim.query import Condition, Query, QueryItem
from esim.store import EventStore
from esim.value import Money, Value
from esim.writing import Write

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
HALF = "\ud800"  # of a character, which no encoding knows
HOSTILE = "<b>'\"; DROP TABLE events; --%_\\ é 日本 🙂 $1 ? \n"
BACKENDS = ("file", "duckdb", "memory")


class Part(Value):
    sku: str
    quantity: int
    price: Money


class Placed(Event):
    customer: Annotated[str, Tag()]
    parts: tuple[Part, ...] = ()
    total: Money = Decimal(0)


class Paid(Event):
    amount: Money
    method: str = "card"


class Sent(Event, type='order.sent"; drop table events; --'):
    address: str
    skus: Annotated[tuple[str, ...], Tag("sku")] = ()


class Noted(Event):
    text: str


def opened(backend: str, folder: Path) -> Store:
    clock, ids = ManualClock(START, step=timedelta(seconds=1)), SeededIds(7)
    if backend == "memory":
        return MemoryStore(clock, ids)
    return EventStore(folder / "log.duckdb" if backend == "file" else None, clock=clock, ids=ids)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind; its clock moves by a second at each append."""
    with opened(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def shop(store: Store) -> Store:
    """The little shop, to be written to."""
    return filled(store)


@pytest.fixture(scope="module", params=BACKENDS)
def still(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The little shop, shared by tests that only read it."""
    with opened(request.param, tmp_path_factory.mktemp("still")) as made:
        yield filled(made)


def filled(store: Store) -> Store:
    """Record six events in three streams of two categories, at START + 0, 1, 2, 3 and 4 seconds."""
    mug = Part(sku="mug", quantity=2, price=Decimal("7.50"))
    store.append("Order/o-1", Placed(customer="ann", parts=(mug,), total=Decimal("15.00")))
    store.append("Order/o-2", Placed(customer="bob", total=Decimal("3.10")))
    store.append("Order/o-1", [Paid(amount=Decimal("15.00")), Sent(address="1 Road", skus=("mug", "pen"))])
    store.append("Note/n-1", Noted(text=HOSTILE))
    store.append("Order/o-2", Paid(amount=Decimal("3.10"), method="bank"))
    return store


def notes(*texts: str) -> list[Noted]:
    return [Noted(text=text) for text in texts]


def positions(events: Any) -> list[int]:
    return [one.position for one in events]


def texts(events: Any) -> list[str]:
    return [one.event.text for one in events]


# --- appending ---------------------------------------------------------------------------------------------


def test_versions_and_positions_are_dense_and_ordered(still: Store):
    """Positions count the log from 1, versions each stream from 1, without gaps."""
    told = [(one.position, one.stream, one.version) for one in still.read()]
    assert told == [
        (1, "Order/o-1", 1),
        (2, "Order/o-2", 1),
        (3, "Order/o-1", 2),
        (4, "Order/o-1", 3),
        (5, "Note/n-1", 1),
        (6, "Order/o-2", 2),
    ]
    assert (still.position, still.version("Order/o-1"), still.version("Order/none")) == (6, 3, 0)


def test_an_append_returns_what_was_recorded(store: Store):
    """The events come back in their envelopes, as a later reading gives them."""
    recorded = store.append("Order/o-1", [Placed(customer="ann"), Paid(amount=Decimal(1))])
    assert list(recorded) == list(store.read())
    assert [one.event for one in recorded] == [one.event for one in store.read()]
    assert (recorded[1].version, recorded[-1].type, len(recorded)) == (2, "Paid", 2)


@pytest.mark.parametrize("expected", [0, "any", "no_stream"])
def test_an_absent_stream_meets(store: Store, expected: Any):
    """A stream that is not there is at version 0, does not exist, and is anything."""
    assert store.append("Order/o-1", notes("a"), expected=expected)[0].version == 1


@pytest.mark.parametrize("expected", [2, "any", "stream_exists"])
def test_a_present_stream_meets(store: Store, expected: Any):
    """A stream at version 2 is at version 2, exists, and is anything."""
    store.append("Order/o-1", notes("a", "b"))
    assert store.append("Order/o-1", notes("c"), expected=expected)[0].version == 3


@pytest.mark.parametrize(
    ("there", "expected"),
    [(0, 1), (0, "stream_exists"), (2, 0), (2, 1), (2, 3), (2, "no_stream")],
)
def test_a_wrong_expected_version_writes_nothing(store: Store, there: int, expected: Any):
    """A Conflict names the stream, what was expected and what is; the log stays as it was."""
    if there:
        store.append("Order/o-1", notes("a", "b"))
    with pytest.raises(Conflict) as caught:
        store.append("Order/o-1", notes("c"), expected=expected)
    assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("Order/o-1", expected, there)
    assert "'Order/o-1' is at version" in str(caught.value)
    assert (store.position, len(store.read()), store.version("Order/o-1")) == (there, there, there)


def test_versions_are_checked_anew_after_a_conflict(store: Store):
    """A refused append leaves no trace in the store's idea of its streams."""
    store.append("Order/o-1", notes("a"))
    with pytest.raises(Conflict):
        store.append_all([Write("Order/o-2", notes("b")), Write("Order/o-1", notes("c"), 0)])
    assert store.append("Order/o-2", notes("d"), expected="no_stream")[0].position == 2
    assert store.append("Order/o-1", notes("e"), expected=1)[0].position == 3


def test_streams_are_written_all_or_none(store: Store):
    """One wrong version among several streams keeps every one of them as it was."""
    store.append("Order/o-1", notes("a"))
    writes = [Write("Order/o-2", notes("b")), Write("Order/o-1", notes("c", "d"), 5)]
    with pytest.raises(Conflict, match="'Order/o-1' is at version 1, not 5"):
        store.append_all(writes)
    assert (store.streams(), store.position) == (["Order/o-1"], 1)


def test_positions_follow_the_order_of_the_writes(store: Store):
    """Several streams in one append: the first write's events come first."""
    recorded = store.append_all(
        [Write("B/1", notes("a", "b")), Write("A/1", notes("c")), Write("B/1", notes("d"), 2)]
    )
    assert [(one.stream, one.version) for one in recorded] == [("B/1", 1), ("B/1", 2), ("A/1", 1), ("B/1", 3)]
    assert positions(recorded) == [1, 2, 3, 4]
    assert texts(store.read()) == ["a", "b", "c", "d"]


def test_one_append_has_one_recorded_time(store: Store):
    """All events of an append are recorded at the same moment."""
    recorded = store.append_all([Write("A/1", notes("a", "b")), Write("B/1", notes("c"))])
    assert {one.recorded_at for one in recorded} == {START}


def test_any_iterable_of_events_is_taken(store: Store):
    """A generator and a tuple do as well as a list."""
    store.append("A/1", (Noted(text=text) for text in "ab"))
    store.append_all(Write("A/1", (Noted(text=text),)) for text in "cd")
    assert texts(store.read("A/1")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("size", [1, 2, 199, 200, 201, 1000])
def test_batches_of_every_size_arrive_whole(store: Store, size: int):
    """Small and large appends give the same rows, tags and ids included."""
    sent = [Sent(address=str(n), skus=(f"s{n % 3}", "all")) for n in range(size)]
    recorded = store.append("Order/o-1", sent)
    with metadata(user_id="u"):
        store.append("Order/o-1", notes("after"), expected=size)
    assert list(recorded) == list(store.read(until=size))
    assert [one.event for one in store.read(until=size)] == sent
    assert len(store.read(tag="sku:s0")) == len([one for one in sent if "s0" in one.skus])
    assert len({one.event_id for one in store.read()}) == size + 1


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [[], (), iter(())])
def test_an_empty_append_is_refused(store: Store, events: Any):
    """Nothing to append is a mistake, and is told as one."""
    with pytest.raises(InvalidArgument, match="nothing to append to 'A/1'"):
        store.append("A/1", events)
    assert store.position == 0


def test_no_writes_at_all_are_refused(store: Store):
    """An append over no streams is a mistake too."""
    with pytest.raises(InvalidArgument, match="at least one write"):
        store.append_all([])


def test_one_empty_write_among_others_is_refused(store: Store):
    """The other streams of the append are not written either."""
    with pytest.raises(InvalidArgument, match="nothing to append to 'B/1'"):
        store.append_all([Write("A/1", notes("a")), Write("B/1", [])])
    assert store.position == 0


@pytest.mark.parametrize("stream", ["", " ", "/", "/o-1", "Order/", "a\0b", None, 7, b"Order/o-1"])
def test_a_bad_stream_id_is_refused(store: Store, stream: Any):
    """The message shows the id and how one looks."""
    with pytest.raises(InvalidArgument, match="stream id"):
        store.append(stream, notes("a"))
    assert store.position == 0


@pytest.mark.parametrize("expected", [-1, True, 1.0, "1", "exists", None])
def test_a_bad_expected_version_is_refused(store: Store, expected: Any):
    """Only whole numbers and the three rules are expectations."""
    with pytest.raises(InvalidArgument, match="expected="):
        store.append("A/1", notes("a"), expected=expected)
    assert store.position == 0


@pytest.mark.parametrize(
    "thing", ["text", {"text": "a"}, 3, Noted, Part(sku="a", quantity=1, price=Decimal(1))]
)
def test_only_events_can_be_appended(store: Store, thing: Any):
    """Anything that is not an instance of an Event class is shown and refused."""
    with pytest.raises(InvalidArgument, match="is not an Event"):
        store.append("A/1", [Noted(text="a"), thing])
    with pytest.raises(InvalidArgument, match="is not an Event"):
        store.append("A/1", thing)
    assert store.position == 0


@pytest.mark.parametrize(
    "wanted",
    [
        {"after": datetime(2026, 1, 1)},
        {"until": datetime(2026, 1, 1)},
        {"after": "yesterday"},
        {"after": -1},
        {"until": True},
        {"limit": -1},
        {"limit": 1.5},
        {"after_version": -1},
        {"until_version": "2"},
        {"stream": 5},
        {"stream": HALF},
        {"category": 5},
        {"type": int},
        {"type": 5},
        {"type": ["Noted", 5]},
        {"type": []},
        {"type": HALF},
        {"tag": 5},
        {"tag": ["a:1", 5]},
        {"tag": HALF},
        {"query": "x"},
        {"query": Query(), "type": "Noted"},
        {"tag": "a:1", "query": Query()},
    ],
)
def test_a_reading_that_makes_no_sense_is_refused(store: Store, wanted: dict[str, Any]):
    """Naive times, negative limits and double queries are told at once, not at the first use."""
    with pytest.raises(InvalidArgument):
        store.read(**wanted)


def test_a_bound_beyond_every_log_is_a_bound(store: Store):
    """However large the number, it is compared and nothing else."""
    store.append("A/1", notes("a"))
    assert len(list(store.read(limit=2**70, until=2**70, until_version=2**70))) == 1
    assert list(store.read(after=2**70)) == list(store.read(after_version=2**70)) == []
    assert store.payloads("A/1", after=-3) == store.payloads("A/1")
    with pytest.raises(Conflict):
        store.append("A/1", notes("b"), expected=2**70)


BAD_USES: dict[str, Callable[[Store], object]] = {
    "append_all of a pair": lambda store: store.append_all([("A/1", notes("a"))]),
    "append_all of None": lambda store: store.append_all(None),
    "condition of text": lambda store: store.append("A/1", notes("a"), condition="x"),
    "tags of None": lambda store: store.append("A/1", NewEvent(Noted(text="a"), tags=None)),
    "tags of numbers": lambda store: store.append("A/1", NewEvent(Noted(text="a"), tags=(1,))),
    "half a tag": lambda store: store.append("A/1", NewEvent(Noted(text="a"), tags=HALF)),
    "half a user": lambda store: store.append("A/1", NewEvent(Noted(text="a"), user_id=HALF)),
    "half a stream": lambda store: store.append(f"A/{HALF}", notes("a")),
    "metadata of a number": lambda store: store.append("A/1", NewEvent(Noted(text="a"), metadata=5)),
    "half a text in metadata": lambda store: store.append(
        "A/1", NewEvent(Noted(text="a"), metadata={"a": HALF})
    ),
    "a time before all years": lambda store: store.append(
        "A/1",
        NewEvent(Noted(text="a"), occurred_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))),
    ),
    "version of a number": lambda store: store.version(5),
    "streams of a number": lambda store: store.streams(5),
    "sql of None": lambda store: store.sql(None),
    "sql with params of text": lambda store: store.sql("SELECT ?", "a"),
    "sql with params of a number": lambda store: store.sql("SELECT ?", 5),
    "half a query": lambda store: store.sql(f"SELECT '{HALF}'"),
    "item of a number": lambda _: QueryItem(types=5),
    "item with a tag of a number": lambda _: QueryItem(tags=5),
    "query of text": lambda _: Query("x"),
    "caused by text": lambda _: caused_by("x").__enter__(),
}


@pytest.mark.parametrize("use", BAD_USES)
def test_whatever_is_handed_in_wrongly_is_named(store: Store, use: str):
    """A clear error of our own, never that of a library, and nothing is written."""
    with pytest.raises(InvalidArgument):
        BAD_USES[use](store)
    assert store.position == 0


@pytest.mark.parametrize("wrong", [{"clock": 5}, {"ids": 5}])
@pytest.mark.parametrize("kind", [EventStore, MemoryStore])
def test_a_clock_and_ids_must_be_such(kind: Any, wrong: dict[str, Any]):
    """Said when the store is opened."""
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        kind(**wrong).append("A/1", notes("a"))


def test_a_clock_without_a_zone_is_refused(store: Store):
    """What it says could be any of 24 moments."""

    class Naive:
        def now(self) -> datetime:
            return datetime(2026, 1, 1)

    store.clock = Naive()
    with pytest.raises(InvalidArgument, match="no time zone"):
        store.append("A/1", notes("a"))
    assert store.position == 0


FAR = {
    "SELECT 'infinity'::TIMESTAMPTZ AS x": "294247-01-10",
    "SELECT '290000-01-01'::TIMESTAMPTZ AS x": "290000-01-01",
    "SELECT '290000-01-01'::DATE AS x": "290000-01-01",
    "SELECT '0001-01-01 (BC)'::DATE AS x": "0000-01-01",
    "SELECT map([{'a': 1}], [2]) AS x": "[({'a': 1}, 2)]",
    "SELECT map([[1]], [2]) AS x": "[([1], 2)]",
}


@pytest.mark.parametrize("query", FAR)
def test_values_that_python_does_not_have_are_shown_all_the_same(still: Store, query: str):
    """Times beyond its years as text, maps with strange keys as pairs."""
    found = still.sql(query)
    assert str(found["x"][0]).startswith(FAR[query])
    assert FAR[query] in repr(found)


# --- the same event again ----------------------------------------------------------------------------------


def known(number: int, text: str = "a") -> NewEvent:
    return NewEvent(Noted(text=text), event_id=UUID(int=number))


def test_appending_the_same_ids_again_changes_nothing(store: Store):
    """A repeated append gives what was recorded, whatever was expected, and writes nothing."""
    first = store.append("A/1", [known(1), known(2)], expected=0)
    again = store.append("A/1", [known(1), known(2)], expected=0)
    assert list(again) == list(first)
    assert [one.event for one in again] == [Noted(text="a")] * 2
    assert (store.position, again[0].recorded_at) == (2, START)


def test_a_repetition_in_parts_is_refused(store: Store):
    """Some ids recorded and others not: that is no repetition, and it writes nothing."""
    store.append("A/1", [known(1), known(2)])
    with pytest.raises(DuplicateEventId, match="others are not"):
        store.append("A/1", [known(2), known(3)])
    with pytest.raises(DuplicateEventId):
        store.append("A/1", [known(1), NewEvent(Noted(text="b"))])
    assert store.position == 2


@pytest.mark.parametrize("other", [("A/2", known(1)), ("A/1", known(1, "b"))])
def test_an_id_taken_by_another_event_is_refused(store: Store, other: tuple[str, NewEvent]):
    """The same id in another stream or with another payload is another event; the message names the first."""
    store.append("A/1", known(1))
    with pytest.raises(DuplicateEventId, match=r"taken by Noted in 'A/1' at position 1"):
        store.append(*other)
    assert store.position == 1


def test_one_append_cannot_name_an_id_twice(store: Store):
    """Two events of one append need two ids."""
    with pytest.raises(DuplicateEventId, match="twice"):
        store.append("A/1", [known(1), known(1)])
    assert store.position == 0


def test_a_repetition_over_several_streams_is_one(store: Store):
    """A multi-stream append is repeated as a whole, and its condition is not asked again."""
    writes = [Write("A/1", known(1), 0), Write("B/1", known(2), 0)]
    condition = Condition(Query.of("Noted"))
    first = store.append_all(writes, condition=condition)
    assert list(store.append_all(writes, condition=condition)) == list(first)
    assert store.position == 2


# --- append conditions -------------------------------------------------------------------------------------


def tagged(*tags: str, text: str = "a") -> NewEvent:
    return NewEvent(Noted(text=text), tags=tags)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query.of("Noted"), 3),
        (Query.of(Paid), 4),
        (Query.of(["Noted", Paid]), 4),
        (Query.of(tags="a:1"), 3),
        (Query.of(tags=["a:1", "b:1"]), 2),
        (Query.of("Paid", "a:1"), 0),
        (Query.of("Noted", ["a:1", "b:1"]), 2),
        (Query(QueryItem(("Paid",)), QueryItem((), ("a:2",))), 4),
        (Query(QueryItem(("Paid",), ("a:1",)), QueryItem(("Noted",), ("b:1",))), 2),
        (Query.all(), 4),
        (Query.of("Never"), 0),
    ],
)
def test_a_condition_holds_if_nothing_matches_after(store: Store, query: Query, found: int):
    """Types are ORed, tags ANDed, items ORed; only events after the given position count."""
    store.append("A/1", tagged("a:2"))
    store.append("A/2", tagged("a:1", "b:1"))
    store.append("A/3", tagged("a:1"))
    store.append("A/4", Paid(amount=Decimal(1)))
    if found:
        with pytest.raises(ConditionFailed) as caught:
            store.append("B/1", notes("x"), condition=Condition(query, after=found - 1))
        assert caught.value.position == found
        assert (caught.value.query, caught.value.after) == (query, found - 1)
    assert store.position == 4
    store.append("B/1", notes("x"), condition=Condition(query, after=found))
    assert store.position == 5
    assert max(positions(store.read(query=query, until=4)), default=0) == found


def test_a_condition_and_a_version_must_both_hold(store: Store):
    """A broken condition or a wrong version each keep the append out."""
    store.append("A/1", tagged("a:1"))
    with pytest.raises(ConditionFailed):
        store.append("A/1", notes("x"), expected=1, condition=Condition(Query.of(tags="a:1")))
    with pytest.raises(Conflict):
        store.append("A/1", notes("x"), expected=0, condition=Condition(Query.of(tags="a:9")))
    assert store.position == 1


def test_a_failed_condition_is_a_conflict(store: Store):
    """Whoever retries conflicts retries failed conditions as well."""
    store.append("A/1", notes("x"))
    with pytest.raises(Conflict, match=r"position 1 matches Query.*read again"):
        store.append("A/1", notes("y"), condition=Condition(Query.of("Noted")))


@pytest.mark.parametrize(
    "wrong", [("Noted", 0), (Query.all(), -1), (Query.all(), None), (Query.all(), START)]
)
def test_a_bad_condition_is_refused(wrong: Any):
    """A condition is a query and a position."""
    with pytest.raises(InvalidArgument):
        Condition(*wrong)


def test_an_empty_query_item_is_refused():
    """An item that names nothing would match everything by accident."""
    with pytest.raises(InvalidArgument, match=r"Query.all\(\)"):
        QueryItem()


# --- many at once ------------------------------------------------------------------------------------------


def race(*work: Callable[[], object]) -> list[BaseException | None]:
    """Run all at the same moment, each in a thread of its own; return what each raised."""
    barrier = threading.Barrier(len(work))
    raised: list[BaseException | None] = [None] * len(work)

    def run(index: int) -> None:
        barrier.wait()
        try:
            work[index]()
        except Exception as error:  # noqa: BLE001 - it is the result
            raised[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_racing_writers_exactly_one_wins(store: Store):
    """Eight threads expect the same version, round after round: one event each round, seven conflicts."""
    for version in range(10):
        raised = race(*[lambda v=version: store.append("A/1", notes("x"), expected=v)] * 8)
        assert raised.count(None) == 1
        assert all(isinstance(error, Conflict) for error in raised if error)
        assert store.version("A/1") == version + 1
    assert [one.version for one in store.read("A/1")] == list(range(1, 11))


def test_of_racing_conditions_exactly_one_holds(store: Store):
    """Eight threads claim the same tag in streams of their own: one gets it."""

    def claim(number: int) -> None:
        store.append(f"User/{number}", tagged("name:ann"), condition=Condition(Query.of(tags="name:ann")))

    raised = race(*[lambda n=n: claim(n) for n in range(8)])
    assert raised.count(None) == 1
    assert all(isinstance(error, ConditionFailed) for error in raised if error)
    assert len(store.read(tag="name:ann")) == 1


def test_of_racing_repetitions_one_is_recorded(store: Store):
    """Eight threads append the same event id: all succeed, with one event in the log."""
    assert race(*[lambda: store.append("A/1", known(1))] * 8) == [None] * 8
    assert store.position == 1


def test_threads_lose_nothing(store: Store):
    """Eight threads append one by one and in batches: everything is there, densely numbered."""

    def work(number: int) -> None:
        for count in range(20):
            store.append(f"A/{number}", notes(f"{count}"), expected=2 * count)
            store.append_all([Write("A/all", tagged("t:1")), Write(f"A/{number}", notes("x"))])

    assert race(*[lambda n=n: work(n) for n in range(8)]) == [None] * 8
    read = list(store.read())
    assert positions(read) == list(range(1, 8 * 60 + 1))
    for stream in store.streams():
        assert [one.version for one in read if one.stream == stream] == list(
            range(1, store.version(stream) + 1)
        )
    assert (len(read), store.version("A/all"), len(store.read(tag="t:1"))) == (480, 160, 160)


def test_a_reader_never_sees_the_past_change(store: Store):
    """While writers run, each reading begins with exactly what the one before gave."""
    seen: list[list[tuple[int, str]]] = [[]]
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            store.append(f"A/{number % 3}", notes(*"abc"))

    def read() -> None:
        while not done.is_set():
            head = store.position
            now = [(one.position, one.stream) for one in store.read()]
            assert len(now) >= head
            assert now[: len(seen[-1])] == seen[-1]
            assert [position for position, _ in now] == list(range(1, len(now) + 1))
            seen.append(now)

    def write_all() -> None:
        try:
            assert race(write, write) == [None] * 2
        finally:
            done.set()

    assert race(read, write_all) == [None] * 2
    assert store.position == 360


# --- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"stream": "Order/o-1"}, [1, 3, 4]),
        ({"stream": "Order/none"}, []),
        ({"category": "Order"}, [1, 2, 3, 4, 6]),
        ({"category": "Ord"}, []),
        ({"type": "Paid"}, [3, 6]),
        ({"type": Paid}, [3, 6]),
        ({"type": [Paid, "Noted"]}, [3, 5, 6]),
        ({"type": Sent}, [4]),
        ({"tag": "customer:ann"}, [1]),
        ({"tag": "sku:pen"}, [4]),
        ({"tag": ["sku:pen", "sku:mug"]}, [4]),
        ({"tag": ["sku:pen", "customer:ann"]}, []),
        ({"query": Query(QueryItem(("Paid",)), QueryItem((), ("sku:mug",)))}, [3, 4, 6]),
        ({"query": Query.all()}, [1, 2, 3, 4, 5, 6]),
        ({"after": 2}, [3, 4, 5, 6]),
        ({"until": 2}, [1, 2]),
        ({"after": 2, "until": 4}, [3, 4]),
        ({"after": 9}, []),
        ({"until": 0}, []),
        ({"until": 99}, [1, 2, 3, 4, 5, 6]),
        ({"after": START}, [2, 3, 4, 5, 6]),
        ({"until": START}, [1]),
        ({"until": START - timedelta(microseconds=1)}, []),
        ({"after": START + timedelta(seconds=1), "until": START + timedelta(seconds=2)}, [3, 4]),
        ({"until": datetime(2026, 1, 5, 10, 0, 1, tzinfo=timezone(timedelta(hours=1)))}, [1, 2]),
        ({"stream": "Order/o-1", "after_version": 1}, [3, 4]),
        ({"stream": "Order/o-1", "until_version": 2}, [1, 3]),
        ({"stream": "Order/o-1", "after_version": 1, "until_version": 2}, [3]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 0}, []),
        ({"category": "Order", "type": Paid, "after": 3}, [6]),
        ({"stream": "Order/o-2", "category": "Note"}, []),
    ],
)
def test_a_reading_gives_what_matches_forward_and_backward(
    still: Store, wanted: dict[str, Any], found: list[int]
):
    """Every filter alone and some together, in both directions, counted and as a dataframe too."""
    chosen = still.read(**wanted)
    assert positions(chosen) == found
    assert positions(chosen) == found, "a selection can be read again"
    assert (len(chosen), bool(chosen)) == (len(found), bool(found))
    assert chosen.df()["position"].tolist() == found
    assert still.df(**wanted)["position"].tolist() == found
    first, last = chosen.first(), chosen.last()
    assert [first and first.position, last and last.position] == (
        [found[0], found[-1]] if found else [None] * 2
    )
    backward = still.read(**wanted, backward=True)
    limit = wanted.get("limit", 6)
    everything = found if "limit" not in wanted else [1, 2, 3, 4, 5, 6]
    assert positions(backward) == everything[::-1][:limit]


def test_a_selection_ends_where_the_log_stood_when_it_was_read(store: Store):
    """Appending inside the loop over a reading does not make it endless."""
    store.append("A/1", notes("a", "b"))
    for one in store.read():
        store.append("A/1", notes(one.event.text + "!"))
    assert texts(store.read()) == ["a", "b", "a!", "b!"]


def test_a_half_read_selection_blocks_nobody(shop: Store):
    """An iterator that is left in the middle keeps no later reading or writing waiting."""
    left = iter(shop.read())
    assert next(left).position == 1
    shop.append("Note/n-2", notes("b"))
    assert len(shop.read()) == 7
    assert [one.position for one in left] == [2, 3, 4, 5, 6]


def test_a_selection_reads_what_is_there_when_it_is_used(store: Store):
    """A selection is a question, not an answer: asked later, it knows more."""
    chosen = store.read(type=Noted)
    assert len(chosen) == 0
    store.append("A/1", notes("a"))
    assert texts(chosen) == ["a"]


def test_streams_come_in_order_of_their_first_event(still: Store):
    """All stream ids, or those of one category."""
    assert still.streams() == ["Order/o-1", "Order/o-2", "Note/n-1"]
    assert still.streams("Order") == ["Order/o-1", "Order/o-2"]
    assert still.streams("none") == []
    assert still.streams("Order", position=1) == still.streams(position=1) == ["Order/o-1"]


def test_payloads_are_a_streams_versions_types_and_texts(still: Store):
    """The fast path of a repository: exclusive lower, inclusive upper version, and a bound on positions."""
    whole = still.payloads("Order/o-1")
    assert [row[:3] for row in whole] == [(1, "Placed", 1), (2, "Paid", 1), (3, Sent.event_type, 1)]
    assert whole[1][3] == still.read("Order/o-1", type=Paid).first().json
    assert still.payloads("Order/o-1", after=1, until=2) == whole[1:2]
    assert still.payloads("Order/o-1", position=3) == whole[:2]
    assert still.payloads("Order/o-1", after=3) == still.payloads("Order/none") == []


def test_representations_tell_what_is_there(still: Store):
    """Stores, selections and recorded events read well and without an address."""
    assert "6" in repr(still)
    assert repr(still.read(type=Paid)) == "<2 events>"
    assert repr(still.read("Order/o-1", type=Paid).first()) == (
        "Paid(amount=Decimal('15.00'), method='card')  # Order/o-1 version 2, position 3"
    )
    assert "0x" not in repr(still) + repr(still.as_of(2))


def test_tables_of_events_are_escaped(still: Store):
    """Hostile text is shown as text in every HTML view."""
    chosen = still.read("Note/n-1")
    for html in (chosen._repr_html_(), chosen.first()._repr_html_(), still.read()._repr_html_()):
        assert "<b>" not in html.replace("<b>Note", "")
        assert "&lt;b&gt;" in html


# --- the envelope ------------------------------------------------------------------------------------------


def test_the_context_reaches_every_event(store: Store):
    """Who, why and when come from the block; inner blocks add to outer ones, the event has the last word."""
    moment = datetime(2025, 12, 24, 18, tzinfo=timezone(timedelta(hours=2)))
    with metadata(user_id="ann", correlation_id="c-1", occurred_at=moment, source="web"):
        with metadata(causation_id="k-1", user_id="bob", page=3):
            store.append("A/1", notes("a"))
        store.append("A/1", NewEvent(Noted(text="b"), user_id="eve", occurred_at=START, metadata={"page": 1}))
    store.append("A/1", notes("c"))
    a, b, c = store.read()
    assert (a.user_id, a.correlation_id, a.causation_id) == ("bob", "c-1", "k-1")
    assert (a.occurred_at, a.occurred_at.tzinfo) == (datetime(2025, 12, 24, 16, tzinfo=UTC), UTC)
    assert a.metadata == {"source": "web", "page": 3}
    assert (b.user_id, b.causation_id, b.occurred_at) == ("eve", None, START)
    assert b.metadata == {"source": "web", "page": 1}
    assert (c.user_id, c.correlation_id, c.causation_id, c.occurred_at, c.metadata) == (*[None] * 4, {})


def test_effects_name_their_cause(store: Store):
    """Inside caused_by, causation is the cause's id and correlation goes on, or begins with it."""
    cause = store.append("A/1", notes("a"))[0]
    with caused_by(cause):
        effect = store.append("A/2", notes("b"))[0]
    with caused_by(effect):
        last = store.append("A/3", notes("c"))[0]
    first_id = str(cause.event_id)
    assert (effect.causation_id, effect.correlation_id) == (first_id, first_id)
    assert (last.causation_id, last.correlation_id) == (str(effect.event_id), first_id)


def test_threads_have_contexts_of_their_own(store: Store):
    """A context in one thread says nothing about another's appends."""
    with metadata(user_id="ann"):
        assert race(lambda: store.append("A/1", notes("a"))) == [None]
    assert store.read().first().user_id is None


def test_the_same_clock_and_seed_give_the_same_log(store: Store, tmp_path: Path):
    """Ids and times are repeatable, the same on every backend, and the ids are of version 7."""
    with opened("memory", tmp_path) as other:
        for one in (store, other):
            one.append("A/1", [Placed(customer="ann"), *notes("a")])
            one.append("A/2", notes("b"))
        assert list(store.read()) == list(other.read())
        assert [one.recorded_at for one in store.read()] == [one.recorded_at for one in other.read()]
    assert {one.event_id.version for one in store.read()} == {7}


def test_a_recorded_time_never_goes_back(store: Store):
    """A clock that is set back does not make a later position look earlier."""
    clock = store.clock
    assert isinstance(clock, ManualClock)
    store.append("A/1", notes("a"))
    clock.set(START - timedelta(days=1))
    store.append("A/1", notes("b"))
    clock.set(START + timedelta(days=1))
    store.append("A/1", notes("c"))
    times = [one.recorded_at for one in store.read()]
    assert times == [START, START, START + timedelta(days=1)]
    assert positions(store.read(until=START)) == [1, 2]


def test_times_keep_their_microseconds(store: Store):
    """Recorded and occurred times come back exactly, far past and far future included."""
    moments = [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(9999, 12, 30, 1, 2, 3, 4, tzinfo=UTC),
    ]
    store.append("A/1", [NewEvent(Noted(text="a"), occurred_at=moment) for moment in moments])
    assert [one.occurred_at for one in store.read()] == moments
    assert store.df()["occurred_at"].dt.to_pydatetime().tolist() == moments


@pytest.mark.parametrize("text", [HOSTILE, "", "\0", "\ufeff", "{}", "null", "a" * 100_000, "'", "\\u0000"])
def test_any_text_survives_wherever_it_stands(store: Store, text: str):
    """Payload, tag, user, ids and metadata come back as they were given."""
    with metadata(user_id=text + "u", correlation_id=text + "c", causation_id=text + "k", note=text):
        store.append("A/1", NewEvent(Noted(text=text), tags=(f"note:{text}",)))
    found = store.read(tag=f"note:{text}").first()
    assert found is not None
    assert (found.event, found.data) == (Noted(text=text), {"text": text})
    assert (found.user_id, found.correlation_id, found.causation_id) == (text + "u", text + "c", text + "k")
    assert (found.metadata, found.tags) == ({"note": text}, (f"note:{text}",))


@pytest.mark.parametrize(
    "stream", [HOSTILE, "Order/a/b", "plain", "Ünï/日本", "A/" + "x" * 5000, "A/%", "'/'"]
)
def test_any_stream_id_is_only_a_name(store: Store, stream: str):
    """Quotes, slashes and wild cards in a stream id find that stream and no other."""
    store.append("A/other", notes("other"))
    recorded = store.append(stream, notes("a"), expected=0)[0]
    store.append(stream, notes("b"), expected=1)
    assert (recorded.category, recorded.stream) == (stream.partition("/")[0], stream)
    assert texts(store.read(stream)) == ["a", "b"]
    assert stream in store.streams(recorded.category)
    assert [row[0] for row in store.payloads(stream)] == [1, 2]
    assert store.version(stream) == 2


def test_a_log_is_readable_without_its_classes(store: Store):
    """Rows, data and dataframes need no class; the typed event says clearly which one is missing."""

    class Forgotten(Event, type="long.gone"):
        amount: Money
        tags: tuple[str, ...] = ("x",)

    store.append("A/1", Forgotten(amount=Decimal("1.60")))

    del registry._by_type["long.gone"]
    found = store.read().first()
    assert (found.type, found.data) == ("long.gone", {"amount": "1.60", "tags": ["x"]})
    assert "long.gone(amount='1.60'" in repr(found)
    assert "long.gone" in found._repr_html_()
    assert store.df()["data"].tolist() == ['{"amount":"1.60","tags":["x"]}']
    with pytest.raises(UnknownEventType, match="long"):
        _ = found.event
    assert store.sql('SELECT amount FROM "long.gone"')["amount"].map(str).tolist() == ["1.60"]


# --- dataframes and SQL ------------------------------------------------------------------------------------


def test_a_dataframe_has_stable_columns(still: Store):
    """Names, order and types of the columns are a promise; times are aware and in UTC."""
    frame = still.df()
    assert frame.dtypes.astype(str).to_dict() == {
        "position": "int64",
        "stream": "str",
        "version": "int64",
        "type": "str",
        "data": "str",
        "recorded_at": "datetime64[us, UTC]",
        "occurred_at": "datetime64[us, UTC]",
        "tags": "object",
        "correlation_id": "str",
        "causation_id": "str",
        "user_id": "str",
        "event_id": "str",
        "schema_version": "int64",
        "metadata": "str",
    }
    assert frame["recorded_at"].iloc[0] == pd.Timestamp(START)
    assert frame["occurred_at"].isna().all()
    assert [list(tags) for tags in frame["tags"]][:4] == [
        ["customer:ann"],
        ["customer:bob"],
        [],
        ["sku:mug", "sku:pen"],
    ]
    assert frame["event_id"].map(str).tolist() == [str(one.event_id) for one in still.read()]


def test_an_empty_dataframe_has_the_same_columns(still: Store):
    """No events, same names and types."""
    none = still.df(type="Never")
    assert len(none) == 0
    assert none.dtypes.astype(str).to_dict() == still.df().dtypes.astype(str).to_dict()


def test_a_dataframe_is_the_same_on_every_backend(still: Store, tmp_path: Path):
    """What pure memory gives, DuckDB gives too, to the value."""
    (tmp_path / "other").mkdir()
    with opened("memory", tmp_path / "other") as other:
        for one in still.read():
            other.append(one.stream, NewEvent(one.event, event_id=one.event_id))
        left, right = still.df(), other.df()
    pd.testing.assert_frame_equal(left.drop(columns="recorded_at"), right.drop(columns="recorded_at"))
    for column in left:
        assert [type(value) for value in left[column]] == [type(value) for value in right[column]], column


def test_every_type_is_a_typed_view(still: Store):
    """Money is exact, nested lists and structs have their fields, the header says where an event is."""
    paid = still.sql("SELECT method, sum(amount) AS amount FROM Paid GROUP BY method ORDER BY method")
    assert paid["method"].tolist() == ["bank", "card"]
    assert paid["amount"].tolist() == [Decimal("3.10"), Decimal("15.00")]
    parts = still.sql(
        "SELECT part.sku, part.quantity * part.price AS worth FROM (SELECT unnest(parts) AS part FROM Placed)"
    )
    assert parts.to_numpy().tolist() == [["mug", Decimal("15.00")]]
    assert still.sql("SELECT stream, version FROM Paid ORDER BY position").to_numpy().tolist() == [
        ["Order/o-1", 2],
        ["Order/o-2", 2],
    ]


def test_a_type_name_is_only_a_name(still: Store):
    """A hostile type name is a view when quoted, and does nothing else."""
    name = Sent.event_type.replace('"', '""')
    assert still.sql(f'SELECT address FROM "{name}"')["address"].tolist() == ["1 Road"]
    assert still.position == 6


def test_views_grow_with_the_log(shop: Store):
    """A view shows what was appended after it was first asked."""
    assert shop.sql("SELECT count(*) AS n FROM Paid")["n"].tolist() == [2]
    shop.append("Order/o-3", Paid(amount=Decimal(1)))
    assert shop.sql("SELECT count(*) AS n, sum(amount) AS s FROM Paid")["n"].tolist() == [3]


def test_the_events_view_has_the_envelope(still: Store):
    """All types in one view, with times in UTC."""
    frame = still.sql(
        "SELECT type, recorded_at, tags FROM events WHERE stream = 'Order/o-1' ORDER BY position"
    )
    assert frame["type"].tolist() == ["Placed", "Paid", Sent.event_type]
    assert frame["recorded_at"].iloc[0] == pd.Timestamp(START)
    assert str(frame["recorded_at"].dt.tz) == "UTC"
    assert list(frame["tags"].iloc[2]) == ["sku:mug", "sku:pen"]


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT count(*) AS n FROM Noted WHERE text = ?", [HOSTILE]),
        ("SELECT count(*) AS n FROM Noted WHERE text = $text", {"text": HOSTILE}),
    ],
)
def test_parameters_are_bound_not_pasted(still: Store, query: str, params: Any):
    """Hostile text as a parameter is a value."""
    assert still.sql(query, params)["n"].tolist() == [1]
    assert still.position == 6


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM events",
        "DELETE FROM esim.events",
        "UPDATE esim.events SET data = '{}'",
        "INSERT INTO esim.tags VALUES ('a', 1)",
        "DROP TABLE esim.events",
        "TRUNCATE esim.events",
        "CREATE TABLE t (a INT)",
        "CREATE OR REPLACE TEMP VIEW events AS SELECT 1",
        "ALTER TABLE esim.events ADD COLUMN a INT",
        "SELECT 1; DELETE FROM esim.events",
        "WITH x AS (DELETE FROM esim.events RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE DELETE FROM esim.events",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "ATTACH 'other.duckdb'",
        "SET threads = 1",
        "PRAGMA database_size",
        "INSTALL httpfs",
        "BEGIN",
        "CALL checkpoint()",
        "PREPARE x AS DELETE FROM esim.events",
        "SELEKT 1",
        "SELECT * FROM nowhere",
        "",
        ";",
        "-- nothing",
    ],
)
def test_what_is_not_one_reading_statement_is_refused(still: Store, query: str):
    """Users' SQL changes nothing, whatever it says."""
    before = list(still.read())
    with pytest.raises(SqlRefused):
        still.sql(query)
    assert list(still.read()) == before


def test_what_a_dataframe_holds_can_be_asked_with(still: Store):
    """Positions, versions and times out of a dataframe are moments as any."""
    row = still.df().iloc[3]
    assert still.as_of(row["position"]).position == 4
    assert still.as_of(row["recorded_at"]).position == 4
    assert positions(still.read(row["stream"], after=row["position"] - 1)) == [4]
    assert positions(still.read(row["stream"], after_version=row["version"] - 1)) == [4]
    assert positions(still.read(until=row["recorded_at"], after=row["recorded_at"])) == []


def test_a_version_from_a_dataframe_can_be_expected(shop: Store):
    """An append may expect the version that a dataframe shows."""
    versions = shop.df("Order/o-1")["version"]
    assert shop.append("Order/o-1", notes("a"), expected=versions.iloc[-1])[0].version == 4
    with pytest.raises(Conflict, match="at version 4, not 3"):
        shop.append("Order/o-1", notes("a"), expected=versions.iloc[-1])


# --- the store as it was -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "position"),
    [
        (0, 0),
        (3, 3),
        (99, 6),
        (START - timedelta(seconds=1), 0),
        (START + timedelta(seconds=2), 4),
        (START + timedelta(seconds=2.5), 4),
        (START + timedelta(days=1), 6),
    ],
)
def test_the_past_is_what_was_recorded_up_to_a_moment(still: Store, moment: Any, position: int):
    """A position or a recorded time; every way of reading stops there."""
    past = still.as_of(moment)
    before = list(still.read(until=position))
    assert past.position == position
    assert list(past.read()) == before
    assert list(past.read(backward=True)) == before[::-1]
    assert len(past.read(category="Order")) == len([one for one in before if one.category == "Order"])
    assert past.df()["position"].tolist() == list(range(1, position + 1))
    assert past.streams() == list(dict.fromkeys(one.stream for one in before))
    for stream in still.streams():
        own = [one for one in before if one.stream == stream]
        assert past.version(stream) == len(own)
        assert [row[3] for row in past.payloads(stream)] == [one.json for one in own]
    assert past.sql("SELECT count(*) AS n FROM events")["n"].tolist() == [position]
    assert past.sql("SELECT count(*) AS n FROM Paid")["n"].tolist() == [
        len([one for one in before if one.type == "Paid"])
    ]


def test_the_past_stays_as_it_was(shop: Store):
    """Appending to the store changes nothing in a view taken before."""
    past = shop.as_of(shop.position)
    shop.append("Order/o-1", notes("new"))
    assert (past.position, len(past.read()), past.version("Order/o-1")) == (6, 6, 3)
    assert past.read("Order/o-1", until=99).last().position == 4


def test_a_view_of_a_view_is_the_earlier_one(still: Store):
    """Looking back from the past reaches no further forward."""
    past = still.as_of(4)
    assert past.as_of(2).position == 2
    assert past.as_of(6).position == 4
    assert past.as_of(START + timedelta(days=1)).position == 4
    assert past.as_of(6).sql("SELECT count(*) AS n FROM events")["n"].tolist() == [4]


def test_the_past_takes_no_writes(shop: Store):
    """Appends and snapshots are refused with a way out, and the store is untouched."""
    past = shop.as_of(3)
    with pytest.raises(ReadOnlyStore, match="as of position 3"):
        past.append("Order/o-1", notes("x"))
    with pytest.raises(ReadOnlyStore):
        past.append_all([Write("Order/o-1", notes("x"))])
    with pytest.raises(ReadOnlyStore):
        past.save_snapshot(Snapshot("Order/o-1", 1, "stamp", "{}"))
    assert (shop.position, shop.snapshot("Order/o-1")) == (6, None)


@pytest.mark.parametrize("moment", [-1, True, "2026", 1.5, None, datetime(2026, 1, 1)])
def test_a_bad_moment_is_refused(still: Store, moment: Any):
    """Only positions and aware times are moments."""
    with pytest.raises(InvalidArgument):
        still.as_of(moment)


def test_closing_a_view_leaves_the_store_open(still: Store):
    """A view of the past is no owner."""
    with still.as_of(2) as past:
        assert past.position == 2
    assert still.position == 6


# --- snapshots and closing ---------------------------------------------------------------------------------


def test_a_snapshot_is_kept_for_each_stream(shop: Store):
    """The latest one replaces the former; others are untouched; the past has none."""
    shop.save_snapshot(Snapshot("Order/o-1", 1, "one", "{}"))
    shop.save_snapshot(Snapshot("Order/o-1", 2, "two", json.dumps([HOSTILE])))
    shop.save_snapshot(Snapshot(HOSTILE, 1, "three", '{"a": "é"}'))
    assert shop.snapshot("Order/o-1") == Snapshot("Order/o-1", 2, "two", json.dumps([HOSTILE]))
    assert shop.snapshot(HOSTILE) == Snapshot(HOSTILE, 1, "three", '{"a": "é"}')
    assert shop.snapshot("Order/o-2") is None
    assert shop.as_of(6).snapshot("Order/o-1") is None


USES: dict[str, Callable[[Store], object]] = {
    "append": lambda store: store.append("A/1", notes("a")),
    "read": lambda store: list(store.read()),
    "read by time": lambda store: store.read(until=START),
    "len": lambda store: len(store.read()),
    "df": lambda store: store.df(),
    "sql": lambda store: store.sql("SELECT 1"),
    "position": lambda store: store.position,
    "version": lambda store: store.version("Order/o-1"),
    "streams": lambda store: store.streams(),
    "payloads": lambda store: store.payloads("Order/o-1"),
    "as_of": lambda store: store.as_of(1),
    "snapshot": lambda store: store.snapshot("Order/o-1"),
    "save_snapshot": lambda store: store.save_snapshot(Snapshot("Order/o-1", 1, "a", "{}")),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_store_refuses_every_use(shop: Store, use: str):
    """Closing twice is fine; afterwards everything says that the store is closed."""
    shop.close()
    shop.close()
    with pytest.raises(StoreClosed):
        USES[use](shop)
    assert repr(shop)


def test_a_file_is_as_it_was_when_opened_again(tmp_path: Path):
    """Reopening goes on with positions, versions, ids, tags, snapshots and the last recorded time."""
    with opened("file", tmp_path) as store:
        store.append("A/1", [known(1), tagged("t:1")])
        store.clock.set(START + timedelta(days=1))  # type: ignore[attr-defined]
        store.append("A/2", notes("b"))
        store.save_snapshot(Snapshot("A/1", 2, "stamp", "{}"))
        before = list(store.read())
    with opened("file", tmp_path) as store:
        assert list(store.read()) == before
        assert store.append("A/1", known(1))[0].position == 1
        assert store.append("A/1", notes("c"), expected=2)[0].position == 4
        assert store.read().last().recorded_at == START + timedelta(days=1)
        assert (len(store.read(tag="t:1")), store.snapshot("A/1").version) == (1, 2)


# --- any sequence of appends -------------------------------------------------------------------------------

STREAMS = st.sampled_from(["A/1", "A/2", "B/1"])
ITEMS = st.lists(
    st.tuples(st.sampled_from(["x", "y"]), st.sets(st.sampled_from(["t:1", "t:2"]))), min_size=1, max_size=3
)
EXPECTED = st.one_of(st.integers(0, 4), st.sampled_from(["any", "no_stream", "stream_exists"]))
WRITES = st.lists(st.tuples(STREAMS, EXPECTED, ITEMS), min_size=1, max_size=3)
CONDITIONS = st.none() | st.tuples(st.sampled_from(["t:1", "t:2"]), st.integers(0, 6))


class Model:
    """The contract as a plain list of (stream, version, text, tags)."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, str, set[str]]] = []

    def version(self, stream: str) -> int:
        return sum(row[0] == stream for row in self.log)

    def append(self, writes: Any, condition: Any) -> bool:
        """Append all, or nothing; say which."""
        before = list(self.log)
        fine = condition is None or all(condition[0] not in row[3] for row in self.log[condition[1] :])
        for stream, expected, items in writes:
            actual = self.version(stream)
            rules = {"any": True, "no_stream": actual == 0, "stream_exists": actual > 0}
            fine = fine and (rules[expected] if isinstance(expected, str) else expected == actual)
            self.log += [(stream, actual + n, text, tags) for n, (text, tags) in enumerate(items, 1)]
        self.log = self.log if fine else before
        return fine


@pytest.mark.parametrize("backend", ["duckdb", "memory"])
@settings(max_examples=25)
@given(st.lists(st.tuples(WRITES, CONDITIONS), max_size=6))
def test_any_sequence_of_appends_does_as_a_plain_list_would(backend: str, appends: Any):
    """Whatever is appended, with whatever expectations: same verdicts, same log, same readings."""
    model = Model()
    with opened(backend, Path()) as store:
        for writes, condition in appends:
            made = [
                Write(
                    stream,
                    [NewEvent(Noted(text=text), tags=tuple(sorted(tags))) for text, tags in items],
                    expected,
                )
                for stream, expected, items in writes
            ]
            asked = condition and Condition(Query.of(tags=condition[0]), condition[1])
            try:
                store.append_all(made, condition=asked)
                accepted = True
            except Conflict:
                accepted = False
            assert accepted == model.append(writes, condition)
        rows = [(one.stream, one.version, one.event.text, set(one.tags)) for one in store.read()]
        assert rows == model.log
        for stream in ("A/1", "A/2", "B/1"):
            assert store.version(stream) == model.version(stream) == len(store.payloads(stream))
        for tag in ("t:1", "t:2"):
            assert positions(store.read(tag=tag)) == [n for n, row in enumerate(rows, 1) if tag in row[3]]
        assert store.streams("A") == list(dict.fromkeys(row[0] for row in rows if row[0][0] == "A"))
        assert all(a.recorded_at <= b.recorded_at for a, b in pairwise(store.read()))


def test_a_log_cannot_have_a_type_called_events():
    """In SQL that is the log itself."""
    with pytest.raises(InvalidArgument, match="'events' is the whole log"):

        class Events(Event):
            pass


@pytest.mark.parametrize("first", ["spend_", "Spend_"])
def test_an_event_type_and_a_read_model_of_one_name_are_told_apart(first: str):
    """A class without events leaves the name to the read model; with events, the query says what to do."""

    class Seen(Row):
        text: Key[str]

    class Spend_(Projection[Seen], name="spend_"):  # noqa: N801 - the name is the point
        @on(Noted)
        def noted(self, event: Noted, rows: Rows[Seen]) -> None:
            rows.put(Seen(text=event.text))

    with EventStore() as store:
        store.append("A/1", notes("a"))
        Spend_(store).catch_up()
        cls = type(Event)(first, (Event,), {"__module__": __name__, "__qualname__": first})
        assert store.sql("SELECT text FROM spend_")["text"].tolist() == ["a"]
        store.append("A/1", cls())
        with pytest.raises(InvalidArgument, match="event type of this log and a read model's table"):
            store.sql("SELECT text FROM spend_")
    registry._by_type.pop(first)


def test_ids_of_a_seed_go_on_when_a_log_is_opened_again(tmp_path: Path):
    """The same ids as in one go, none of them twice."""
    whole = MemoryStore(clock=ManualClock(START), ids=SeededIds(1)).append("A/1", notes("a", "b", "c", "d"))
    path = tmp_path / "log.duckdb"
    for text in ("a", "b"):
        with EventStore(path, clock=ManualClock(START), ids=SeededIds(1)) as store:
            store.append("A/1", notes(text))
    with EventStore(path, clock=ManualClock(START), ids=SeededIds(1)) as store:
        store.append("A/1", notes("c", "d"))
        assert [one.event_id for one in store.read()] == [one.event_id for one in whole]
    with EventStore(clock=ManualClock(START), ids=SeededIds(1)) as copy:
        copy.restore(one._row for one in whole)
        assert copy.append("A/1", notes("e"))[0].event_id not in {one.event_id for one in whole}
