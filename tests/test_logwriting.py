"""What is left of a log goes into every format, and comes back with the same figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from esim.errors import InvalidArgument, InvalidLog
from esim.eventlog import EventLog
from esim.formats import FORMATS, read_tables
from esim.memory import MemoryStore
from tests.test_logpicture import frame

EVERY = ["csv", "csv.gz", "parquet", "jsonl", "jsonl.gz", *FORMATS]


def figures(log: EventLog) -> tuple[object, ...]:
    flows = log.directly_follows().df.to_dict("list")
    return (len(log), flows, log.variants().df["cases"].tolist(), log.durations().df.iloc[0].tolist())


@pytest.mark.parametrize("format", EVERY)
def test_a_log_goes_into_each_format_and_back(tmp_path: Path, format: str) -> None:
    """Shuffled rows, ties in time that only a version breaks: the same flows, ways and durations."""
    rows = frame().assign(version=[1, 2, 3, 1, 2, 1], amount=[1.5, float("nan"), 2.0, 3.0, 4.0, 5.0])
    times = rows["time"].tolist()
    rows = rows.assign(time=[*times[:2], times[1], *times[3:]])
    log = EventLog(rows.sample(frac=1, random_state=1))
    again = EventLog(log.write(tmp_path / f"log.{format}"))
    assert figures(again) == figures(log)


@pytest.mark.parametrize("format", EVERY)
def test_only_what_the_filters_leave_is_written(tmp_path: Path, format: str) -> None:
    """Filtered events are not in the file."""
    log = EventLog(frame()).only("ask", "pay").starting_with("ask").sized(2)
    again = EventLog(log.write(tmp_path / f"log.{format}"))
    assert (len(again), again.activities().df["activity"].tolist()) == (3, ["pay", "ask"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_log_of_objects_goes_into_each_format(tmp_path: Path, format: str) -> None:
    """Its cases are the objects of one type, which is said with the others; an event may be in several."""
    links = {"person": "user", "story": "correlation_id"}
    first = EventLog(frame().drop(columns="case"), objects=links, case="person")
    log = EventLog(first.write(tmp_path / "first.ocel.json"), case="person")
    assert "cases are the objects of type 'person'; others by case='story'" in log.notes
    again = EventLog(log.write(tmp_path / f"log.{format}"), case="person" if "ocel" in format else None)
    assert figures(again) == figures(log)
    if "ocel" in format:
        assert len(again.using(case="story").variants()) == len(log.using(case="story").variants())


def test_what_a_format_says_beside_its_events_is_kept(tmp_path: Path) -> None:
    """An OCEL log that is read and written whole is the same log."""
    path = EventLog(frame(), objects={"person": "user"}).write(tmp_path / "a.ocel.json")
    assert read_tables(EventLog(path, case="person").write(tmp_path / "b.ocel.xml")) == read_tables(path)


def test_an_event_without_a_case_is_written(tmp_path: Path) -> None:
    """Where cases are objects of one type, OCEL has also the events that are about others only."""
    links = {"order": "case", "person": "user"}
    rows = frame()
    rows.loc[rows["activity"] == "pay", "case"] = None
    log = EventLog(rows, objects=links, case="order")
    for format in ("ocel.json", "ocel.sqlite", "ocel.xml"):
        again = EventLog(log.write(tmp_path / f"log.{format}"), case="person")
        assert len(again) == len(rows)
        assert again.objects().df.equals(log.objects().df)


def test_times_are_written_in_utc(tmp_path: Path) -> None:
    """Local times without a zone are understood once, and never again."""
    local = pd.DataFrame({"case": ["c"], "activity": ["a"], "time": ["2026-07-01 12:00"]})
    log = EventLog(local, timezone="Europe/Berlin")
    for format in EVERY:
        again = EventLog(log.write(tmp_path / f"log.{format}")).activities().df
        assert again["first"][0] == pd.Timestamp("2026-07-01 10:00", tz="UTC")


def test_a_name_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    """The formats are listed, and no file is left."""
    log = EventLog(frame())
    with pytest.raises(
        InvalidArgument, match=r"'log\.xlsx' does not tell a format: give format=, one of csv"
    ):
        log.write(tmp_path / "log.xlsx")
    with pytest.raises(InvalidArgument, match="format='excel': give one of csv"):
        log.write(tmp_path / "log.csv", format="excel")
    assert list(tmp_path.iterdir()) == []
    assert figures(EventLog(log.write(tmp_path / "log", format="xes"))) == figures(log)


def test_a_store_in_memory_can_be_written(tmp_path: Path) -> None:
    """An empty store gives an empty log."""
    log = EventLog(MemoryStore())
    assert log.write(tmp_path / "log.csv").read_text().startswith("position,stream,version,type")


def test_what_a_format_does_not_tell_from_nothing_is_refused(tmp_path: Path) -> None:
    """An activity that is an empty text would be gone when it is read again, so it is not written."""
    log = EventLog(frame().replace({"activity": {"pay": ""}}))
    for name, told in (
        ("a.csv", "events? ha(s|ve) an empty text"),
        ("a.ocel.json", "events have no activity"),
    ):
        with pytest.raises(InvalidLog, match=told):
            log.write(tmp_path / name)
        assert not (tmp_path / name).exists()
    left = log.without("")
    assert len(EventLog(left.write(tmp_path / "a.csv"))) == len(left)
    assert len(EventLog(log.write(tmp_path / "a.jsonl"))) == len(log)
