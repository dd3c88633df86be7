"""Texts of a Parquet file as numbers: as DuckDB reads them, or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import EventLog
from esim.logcoded import coded

START = datetime(2026, 1, 1)
VARIED = st.sampled_from(["a", "B", "ü", "a\0b", "", "日本", "case-000000000017", "ａ"])
ALIKE = st.sampled_from(["case-017", "case-107", "case-071", "Case-017", "case-0ü", "cas\0-017", "cäsé17"])
FAR_APART = st.sampled_from(["abcdefghijk", "kjihgfedcba", "aaaaaaaaaaa", "\x7f" * 11, "abcdefghijl"])
EVENTS = st.one_of(
    st.lists(st.tuples(texts, texts, st.integers(0, 5)), min_size=1, max_size=30)
    for texts in (VARIED, ALIKE, FAR_APART)
)


def written(path: Path, rows: list[tuple[str, str, int]], **options: Any) -> Path:
    """Write rows of case, activity and second to a file."""
    cases, activities, seconds = zip(*rows, strict=True)
    times = [START + timedelta(seconds=each) for each in seconds]
    pq.write_table(pa.table({"case": cases, "activity": activities, "time": times}), path, **options)
    return path


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.booleans(), st.booleans())
def test_a_file_is_prepared_as_the_database_would(tmp_path_factory, rows, in_order, dictionary):
    """Whatever its texts, their order, its row groups and its encoding; bounded memory is the database's."""
    rows = sorted(rows, key=lambda row: row[2]) if in_order else rows
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    written(path, rows, row_group_size=7, use_dictionary=dictionary)
    one, other = (EventLog(path, memory=memory) for memory in (None, "1GB"))
    for table in ("e", "cases", "activities"):
        assert one.rows(f"SELECT * FROM {table}") == other.rows(f"SELECT * FROM {table}")
    assert one.notes == other.notes


def test_texts_are_numbered_in_their_order_over_all_row_groups(tmp_path):
    path = written(tmp_path / "log.parquet", [("b", "x", 0), ("a", "x", 1), ("c", "y", 2)], row_group_size=1)
    (found,) = coded(str(path), ["case"], 3) or ()
    assert found.listed("s", "case").to_pylist() == [
        {"s": 1, "case": "a"}, {"s": 2, "case": "b"}, {"s": 3, "case": "c"},
    ]  # fmt: skip
    assert found.numbers.tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None]),
        pa.array([b"a", b"b"]),
        pa.array([1, 2]),
        pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["a", "unused"])),
    ],
    ids=["a gap", "bytes", "numbers", "a text that no row has"],
)
def test_what_is_no_text_in_each_row_is_left_to_the_database(tmp_path, column):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"case": column}), path)
    assert coded(str(path), ["case"], 2) is None


def test_a_folder_may_stand_for_a_column(tmp_path):
    folder = tmp_path / "activity=Paid"
    folder.mkdir()
    path = written(folder / "log.parquet", [("a", "x", 0), ("a", "y", 1)])
    assert coded(str(path), ["activity"], 2) is None
    one, other = (EventLog(path, memory=memory) for memory in (None, "1GB"))
    assert one.activities().df.equals(other.activities().df)


def test_a_category_without_events_is_no_activity(tmp_path):
    """Dataframes of pandas write all categories, those without rows too."""
    path = tmp_path / "log.parquet"
    activity = pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["Placed", "Never", "Paid"]))
    time = [START, START + timedelta(seconds=1)]
    pq.write_table(pa.table({"case": ["a", "a"], "activity": activity, "time": time}), path)
    assert EventLog(path).activities().df["activity"].tolist() == ["Paid", "Placed"]
