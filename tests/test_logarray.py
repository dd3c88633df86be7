"""Events numbered in arrays: as the database numbers them, or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import EventLog
from esim.logarray import numbered

START = datetime(2026, 1, 1)
EVENTS = st.tuples(st.sampled_from("xyzü"), st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 3))
ROWS = st.lists(EVENTS, min_size=1)


def table(*rows: tuple[int, int, int, int | None]) -> pa.Table:
    """Return rows of case, activity, second, and what else orders."""
    s, a, t, o = zip(*rows, strict=True)
    return pa.table(
        {
            "s": pa.array(s, pa.int32()),
            "a": pa.array(a, pa.int32()),
            "t": pa.array([START + timedelta(seconds=each) for each in t], pa.timestamp("us")),
            "o": pa.array(o, pa.int64()),
            "r": pa.array(range(len(rows)), pa.int32()),
        }
    )


@settings(max_examples=60)
@given(ROWS, st.sampled_from(["time", "order", "none"]), st.booleans())
def test_arrays_and_the_database_number_events_alike(rows, sort, in_order):
    """Whatever the rows, and whichever way is taken; bounded memory is always the database's."""
    if in_order:
        rows = sorted(rows, key=(lambda row: row[3]) if sort == "order" else (lambda row: row[2:]))
    frame = pd.DataFrame(rows, columns=["case", "activity", "second", "version"])
    frame["time"] = [START + timedelta(seconds=each) for each in frame["second"]]
    frame = frame.drop(columns=["second", "version"] if sort == "none" else "second")
    options = {"sort": "order"} if sort == "order" else {}
    if sort != "none":
        options["order"] = "version"
    one, other = (EventLog(frame, **options, memory=memory) for memory in (None, "1GB"))
    assert one.rows("SELECT * FROM e") == other.rows("SELECT * FROM e")  # in the same order on the disk, too
    assert one.notes == other.notes


def test_rows_in_the_order_of_their_cases_are_numbered_by_case():
    found = numbered(table((2, 1, 0, None), (1, 1, 1, None), (2, 2, 1, None), (1, 3, 1, None)), "time")
    assert found is not None
    assert found.tied == 1
    assert found.back == 0
    assert found.events.drop_columns("t").to_pylist() == [
        {"s": 1, "v": 1, "a": 1, "p": None, "z": False, "w": None, "r": 1},
        {"s": 1, "v": 2, "a": 3, "p": 1, "z": True, "w": 0, "r": 3},
        {"s": 2, "v": 1, "a": 1, "p": None, "z": False, "w": None, "r": 0},
        {"s": 2, "v": 2, "a": 2, "p": 1, "z": True, "w": 1_000_000, "r": 2},
    ]


@pytest.mark.parametrize(
    ("rows", "sort"),
    [
        ([(1, 1, 5, None), (1, 1, 4, None)], "time"),
        ([(1, 1, 5, 2), (1, 1, 5, 1)], "time"),
        ([(1, 1, 5, 2), (1, 1, 6, 1)], "order"),
        ([(1, 1, 5, 2), (1, 1, 6, None)], "time"),
    ],
    ids=["time runs back", "ties are out of order", "order runs back", "the order has gaps"],
)
def test_other_rows_are_left_to_the_database(rows, sort):
    assert numbered(table(*rows), sort) is None


def test_endless_times_are_left_to_the_database():
    rows = table((1, 1, 0, None), (1, 1, 1, None))
    endless = pa.array([-(2**63) + 1, 2**63 - 1], pa.int64()).view(pa.timestamp("us"))
    assert numbered(rows.set_column(2, "t", endless), "time") is None


def test_time_may_run_back_where_another_column_says_the_order():
    found = numbered(table((1, 1, 5, 1), (1, 1, 4, 2)), "order")
    assert found is not None
    assert found.back == 1
