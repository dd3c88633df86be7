"""Filters narrow a log lazily, compose, and say what they did."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.clock import SeededIds
from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from esim.logfilter import microseconds
from esim.memory import MemoryStore
from tests.test_eventlog import SHOP, START, Paid, Placed, logged, row


def cases(log: EventLog) -> str:
    return "".join(sorted(log.cases().df["case"]))


FILTERS = [
    (lambda log: log.sized(3), "ac"),
    (lambda log: log.sized(3, 3), "a"),
    (lambda log: log.sized(most=2), "b"),
    (lambda log: log.lasting("1 hour"), "a"),
    (lambda log: log.lasting(600, timedelta(minutes=10)), "bc"),
    (lambda log: log.starting_with("Placed"), "abc"),
    (lambda log: log.ending_with("Cancelled", "Paid"), "b"),
    (lambda log: log.containing("Paid", "Paid"), "c"),
    (lambda log: log.containing("Paid", "Shipped"), "ac"),
    (lambda log: log.containing("Placed", "Shipped"), ""),
    (lambda log: log.followed_by("Placed", "Shipped"), "ac"),
    (lambda log: log.followed_by("Placed", "Shipped", inverse=True), "b"),
    (lambda log: log.followed_by("Shipped", "Paid"), ""),
    (lambda log: log.commonest(1), "a"),
    (lambda log: log.covering(0.5), "ab"),
    (lambda log: log.covering(1), "abc"),
    (lambda log: log.where("amount > 30", whole_cases=True), "c"),
    (lambda log: log.with_value("who", "cem", whole_cases=True), "ac"),
    (lambda log: log.between(end="2026-01-05T09:20:00Z", keep="started"), "ab"),
    (lambda log: log.between("2026-01-05T09:35:00Z", keep="ended"), "ac"),
    (lambda log: log.between("2026-01-05T09:10:00Z", "2026-01-05T10:00:00Z", keep="contained"), "bc"),
    (lambda log: log.between("2026-01-05T09:21:00Z", "2026-01-05T09:29:00Z", keep="touching"), "a"),
]


@pytest.mark.parametrize(("narrow", "expected"), FILTERS)
def test_a_filter_of_cases_keeps_whole_cases(narrow: Any, expected: str) -> None:
    """The cases that are left are those, with all their events."""
    with logged(SHOP) as log:
        narrowed = narrow(log)
        assert cases(narrowed) == expected
        assert len(narrowed) == sum(one["case"] in expected for one in SHOP)


def test_a_filter_of_events_closes_the_gaps() -> None:
    """What follows what is told of the events that are left, and so is the time between them."""
    with logged(SHOP) as log:
        found = log.without("Paid").directly_follows().df
        assert found[["source", "target", "count", "mean_s"]].to_numpy().tolist() == [
            ["Placed", "Shipped", 2, (3900 + 600) / 2],
            ["Placed", "Cancelled", 1, 600],
        ]
        assert log.only("Paid").cases().df["first"].unique().tolist() == ["Paid"]


def test_events_by_condition_value_and_time() -> None:
    """Conditions over columns, values (None is missing) and times choose events."""
    with logged(SHOP) as log:
        assert len(log.where("amount = 20 OR who = 'ann'")) == 5
        assert len(log.with_value("amount", None)) == 3
        assert len(log.with_value("amount", 20, None)) == 5
        assert len(log.between("2026-01-05T09:05:00Z", "2026-01-05T09:31:00Z")) == 4


TYPED = {
    "amount": pa.array([10.0, 2.5, None]),
    "count": pa.array([2**60 + 1, 2**60, None]),
    "price": pa.array([Decimal("1.50"), Decimal("1.05"), None]),
    "ok": pa.array([True, False, None]),
    "due": pa.array([START, START + timedelta(days=1), None], pa.timestamp("us", "UTC")),
    "local": pa.array([START.replace(tzinfo=None), datetime(2026, 7, 1), None]),
    "fine": pa.array([1, 1001, None], pa.timestamp("ns")),
    "fine_zoned": pa.array([1, 1001, None], pa.timestamp("ns", "UTC")),
    "day": pa.array([date(2026, 1, 5), date(2026, 1, 6), None]),
    "name": pa.array(["10", "10.0", None]),
}
PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("amount", 10, 1), ("amount", "10", 1), ("amount", Decimal("2.5"), 1), ("amount", 2, 0),
        ("amount", float("inf"), 0), ("count", 2**60 + 1, 1), ("count", 10.4, 0), ("count", str(2**60), 1),
        ("price", 1.5, 1), ("price", "1.05", 1), ("ok", True, 1), ("ok", "false", 1),
        ("due", START, 1), ("due", START.astimezone(PARIS), 1), ("due", "2026-01-06T10:00:00+01:00", 1),
        ("local", "2026-01-05 09:00", 1), ("local", datetime(2026, 6, 30, 22, tzinfo=UTC), 1),
        ("fine", pd.Timestamp(1), 1), ("fine", "1970-01-01 00:00:00.000001001", 1),
        ("fine", datetime(1970, 1, 1), 0), ("fine", pd.Timestamp("1970-01-01T00:00:00.000000001+01:00"), 1),
        ("fine_zoned", pd.Timestamp(1, tz="UTC"), 1),
        ("fine_zoned", "1970-01-01T01:00:00.000000001+01:00", 1),
        ("day", date(2026, 1, 6), 1), ("day", START, 0), ("name", 10, 1), ("name", "10.0", 1),
    ],
)  # fmt: skip
def test_a_value_is_compared_as_what_its_column_holds(column: str, value: Any, found: int) -> None:
    """Numbers as numbers, times as moments, truth as truth; texts as they are written."""
    rows = pa.table({"case": ["a"] * 3, "activity": ["x"] * 3, "time": [START] * 3, **TYPED})
    with EventLog(rows, time="time", timezone="Europe/Paris") as log:
        assert len(log.with_value(column, value)) == found
        assert len(log.with_value(column, value, None)) == found + 1


def test_what_is_missing_in_python_is_missing_in_the_log() -> None:
    """None, NaN, NA and NaT ask for what is missing, in a column of any type; a NaN there is missing too."""
    rows = pa.table({"case": ["a"] * 3, "activity": ["x"] * 3, "time": [START] * 3, **TYPED})
    rows = rows.append_column("float", pa.array([1.0, float("nan"), None]))
    with EventLog(rows, time="time") as log:
        for missing in (None, float("nan"), np.float32("nan"), Decimal("NaN"), pd.NA, pd.NaT):
            for column in TYPED:
                assert len(log.with_value(column, missing)) == 1
            assert len(log.with_value("float", missing)) == 2
        assert len(log.with_value("name", "10", pd.NA)) == 2


@pytest.mark.parametrize("values", [["ann", "bob"], ("ann",), {"ann"}, np.array(["ann"]), pd.Series(["ann"])])
def test_a_list_of_values_is_refused_with_the_way_out(values: Any) -> None:
    """It would be one text that no row has."""
    with (
        logged(SHOP) as log,
        pytest.raises(InvalidArgument, match=r"one by one.*with_value\('who', \*values\)"),
    ):
        log.with_value("who", values)


LISTED = [
    lambda log, names: log.only(names),
    lambda log, names: log.without(names),
    lambda log, names: log.containing(names),
    lambda log, names: log.followed_by("Placed", names),
    lambda log, names: log.starting_with(names),
    lambda log, names: log.ending_with(names),
    lambda log, names: log.funnel(names),
]


@pytest.mark.parametrize("ask", LISTED)
def test_activities_are_given_one_by_one(ask: Any) -> None:
    """A list of them, or what is no text, is told when the filter is written, with what to write."""
    with logged(SHOP) as log:
        with pytest.raises(InvalidArgument, match=r"one by one, as \w+\('Placed', 'Paid'\)"):
            ask(log, ["Placed", "Paid"])
        nothing: list[Any] = [None, 1, []]
        for wrong in nothing:
            with pytest.raises(InvalidArgument, match="is no activity: give names"):
                ask(log, wrong)
    with pytest.raises(InvalidArgument, match="needs activities"):
        logged(SHOP).funnel()


@pytest.mark.parametrize(
    ("column", "value"),
    [("amount", "ten"), ("amount", True), ("ok", 2), ("due", "soon"), ("fine", "soon"), ("day", 5)],
)
def test_a_value_that_a_column_cannot_hold_is_told(column: str, value: Any) -> None:
    """It would be found nowhere, without a word."""
    rows = pa.table({"case": ["a"] * 3, "activity": ["x"] * 3, "time": [START] * 3, **TYPED})
    with (
        EventLog(rows, time="time") as log,
        pytest.raises(InvalidArgument, match=f"the column '{column}' is"),
    ):
        log.with_value(column, value)


def test_filters_compose_and_leave_the_log_as_it_was() -> None:
    """A chain is the same in one go or with questions in between, and what it comes from stays."""
    with logged(SHOP) as log:
        chain = log.starting_with("Placed").without("Cancelled").sized(2).containing("Paid")
        step = log.starting_with("Placed")
        step.summary()
        assert cases(chain) == cases(step.without("Cancelled").sized(2).containing("Paid")) == "ac"
        assert cases(log) == "abc"
        assert chain.notes[-1].startswith("only cases starting with Placed; activities other than Cancelled;")


def test_nothing_is_read_before_a_question() -> None:
    """A filter makes no table, and an activity that there is not is told when it matters."""
    with logged(SHOP) as log:
        lazy = log.only("Payd").sized(1)
        assert log._table is None and lazy._table is None
        with pytest.raises(InvalidArgument, match="no activity 'Payd'; did you mean 'Paid'"):
            lazy.summary()


def test_tables_of_logs_that_are_gone_are_dropped() -> None:
    """A filtered log's table goes with it; the others stay."""
    with logged(SHOP) as log:
        log.summary()
        before = log._session.rows("SELECT count(*) FROM duckdb_tables() WHERE temporary")
        for _ in range(3):
            log.sized(1).summary()
        log.summary()
        assert log._session.rows("SELECT count(*) FROM duckdb_tables() WHERE temporary") == before


def test_the_payload_and_the_objects_of_a_store() -> None:
    """Conditions reach into payloads, and streams and tags are objects."""
    store = MemoryStore(ids=SeededIds(1))
    store.append("Order/a", [Placed(total=3), Paid()])
    store.append("Order/b", Placed(total=30))
    with EventLog(store) as log:
        assert cases(log.where("(data->>'total')::INT > 3")) == "Order/b"
        assert len(log.linked_to("Order", "a")) == 2
        assert len(log.linked_to("Order")) == 3
        with pytest.raises(
            InvalidArgument, match="no event is linked to an object of type 'Carts'; there is Order"
        ):
            len(log.linked_to("Carts"))


def test_a_filter_sees_the_columns_of_its_own_log(tmp_path: Path) -> None:
    """Also where another log of the source was asked last, in which a column is text in place of numbers."""
    path = tmp_path / "log.csv"
    rows = [f"c{n},a,2024-01-0{n + 1},{prio}" for n, prio in enumerate((10, 9, 100, 7))]
    path.write_text("\n".join(["case,activity,time,prio", *rows]))
    log = EventLog(path)
    other = log.using(resource="prio")
    condition = "prio > '5' AND activity IN (SELECT activity FROM source WHERE prio < '9')"
    for _ in range(2):
        assert len(other.where("prio > '5'")) == 2
        assert (len(log.where("prio > 50")), len(log.with_value("prio", 100))) == (1, 1)
        assert (len(log.where(condition)), len(other.where(condition))) == (4, 2)


def test_objects_can_be_the_first_thing_asked_of_a_log() -> None:
    """The links are there before any other question."""
    assert len(logged(SHOP, objects={"person": "who"}).linked_to("person", "ann")) == 3


@pytest.mark.parametrize("condition", ["", "1 = 1; DROP TABLE x", "amount >", "(("])
def test_a_condition_is_one_expression(condition: str) -> None:
    """What is no single condition is refused at once."""
    with logged(SHOP) as log, pytest.raises(InvalidArgument, match="SQL expression"):
        log.where(condition)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda log: log.between("2026-01-05"),
        lambda log: log.between(keep="some"),
        lambda log: log.lasting("long"),
        lambda log: log.lasting("600"),
        lambda log: log.lasting(" 6e2 "),
        lambda log: log.lasting(True),
        lambda log: log.durations(quantiles=[1.0, 1 - 1e-15]),
        lambda log: log.cases(-1),
        lambda log: log.lasting(0, float("inf")),
        lambda log: log.lasting(float("nan")),
        lambda log: log.covering(0),
        lambda log: log.covering("0.8"),
        lambda log: log.durations(quantiles=0.5),
        lambda log: log.durations(quantiles="0.5"),
        lambda log: log.durations(quantiles=[True]),
        lambda log: log.loops(2.0),
        lambda log: log.loops(True),
        lambda log: log.only(),
        lambda log: log.with_value("who"),
        lambda log: log.with_value("whom", "x"),
        lambda log: log.sized(-1),
    ],
)
def test_wrong_arguments_are_told_at_once(wrong: Any) -> None:
    """A filter that makes no sense is refused when it is written."""
    with logged(SHOP) as log, pytest.raises(InvalidArgument):
        wrong(log)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from("xyz"), min_size=1, max_size=6), min_size=1, max_size=8),
    st.lists(st.sampled_from("xyz"), min_size=1, max_size=3),
)
def test_patterns_are_those_of_words(stories: list[list[str]], wanted: list[str]) -> None:
    """`containing` is a part of the word of a case, `followed_by` a subsequence of it."""

    def later(story: list[str]) -> bool:
        rest = iter(story)
        return all(one in rest for one in wanted)

    rows = [
        row(f"{n:03}", one, place, place)
        for n, story in enumerate(stories)
        for place, one in enumerate(story)
    ]
    rows += [row("all", one, place, place) for place, one in enumerate("xyz")]
    stories = [*stories, list("xyz")]
    names = [*(f"{n:03}" for n in range(len(stories) - 1)), "all"]
    with EventLog(pa.Table.from_pylist(rows)) as log:
        parts = {name for name, s in zip(names, stories, strict=True) if "".join(wanted) in "".join(s)}
        assert set(log.containing(*wanted).cases().df["case"]) == parts
        subsequences = {name for name, s in zip(names, stories, strict=True) if later(s)}
        assert set(log.followed_by(*wanted).cases().df["case"]) == subsequences


def test_a_share_may_come_from_numpy() -> None:
    """What numpy calls a number is one."""
    assert cases(logged(SHOP).covering(np.float64(0.3))) == cases(logged(SHOP).covering(0.3))


@pytest.mark.parametrize(
    "given",
    [600, 600.0, np.int64(600), np.int32(600), np.uint16(600), np.float32(600), Decimal(600), Fraction(600),
     np.timedelta64(10, "m"), np.timedelta64(600, "s"), pd.Timedelta(minutes=10), "600 s", "10 min"],
    ids=repr,
)  # fmt: skip
def test_any_number_is_seconds(given: Any) -> None:
    """Out of a dataframe too, where numbers are numpy's; durations keep their own unit."""
    assert microseconds(given) == 600_000_000


def test_a_number_of_numpy_bounds_how_long_cases_last() -> None:
    """The bound is in seconds, at both ends."""
    with logged(SHOP) as log:
        assert cases(log.lasting(0, np.int64(600))) == "bc"
        assert cases(log.lasting(np.float32(601))) == "a"


def test_seconds_are_exact_to_the_microsecond() -> None:
    """A case that lasts as long as the bound is within it, whatever a binary fraction makes of it."""
    assert [microseconds(one) for one in (8.2, 4.35, np.float64(1.1), 1e-6)] == [
        8_200_000,
        4_350_000,
        1_100_000,
        1,
    ]


def test_a_text_without_a_unit_is_refused_with_the_way_out() -> None:
    """Pandas takes it for nanoseconds, nobody else does."""
    with pytest.raises(
        InvalidArgument, match="'3600' has no unit: give a number of seconds, or text as '3600 s'"
    ):
        microseconds("3600")
