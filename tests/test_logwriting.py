"""What is left of a log goes into every format, and comes back with the same figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from esim.envelope import NewEvent
from esim.errors import InvalidArgument, InvalidLog
from esim.event import Event
from esim.eventlog import EventLog
from esim.formats import FORMATS, Tables, read_tables, write_tables
from esim.memory import MemoryStore
from tests.test_logpicture import frame


class Opened(Event):
    """A door was opened."""


class Closed(Event):
    """A door was closed."""


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


@pytest.mark.parametrize("format", EVERY)
def test_a_log_without_events_is_read_again_or_refused(tmp_path: Path, format: str) -> None:
    """Formats of lines have nowhere to say even what the columns are."""
    objects = EventLog(frame().drop(columns="case"), objects={"story": "correlation_id"}, case="story")
    for log in (EventLog(frame()), objects, EventLog(MemoryStore())):
        nothing = log.where("false")
        if "jsonl" in format:
            with pytest.raises(InvalidLog, match="the log has no events, and a file of lines would be empty"):
                nothing.write(tmp_path / f"log.{format}")
            continue
        case = {"case": "story"} if log is objects and "ocel" in format else {}
        again = EventLog(nothing.write(tmp_path / f"log.{format}"), **case)
        assert (len(again), len(again.directly_follows())) == (0, 0)


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


STRUCTS = [{"amount": "1.50", "who": 'O\'Neil, "x"', "items": [1, 2]}, {"amount": None, "who": "é"}]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "cloudevents.json", "cloudevents.jsonl"])
def test_payloads_that_are_structs_stay_payloads(tmp_path: Path, format: str) -> None:
    """They are JSON where the format has no structs, with the same fields and values."""
    rows = pa.table(
        {
            "case": ["1", "1"],
            "activity": ["a", "b"],
            "time": pa.array([1, 2], pa.timestamp("s")),
            "data": STRUCTS,
        }
    )
    log = EventLog(rows)
    again = EventLog(log.write(tmp_path / f"log.{format}"))
    assert again.mapping["data"] == "data"
    profile = ["activity", "field", "present", "types", "common"]
    assert again.payloads().df[profile].equals(log.payloads().df[profile])


def test_lists_are_written_to_csv_as_json(tmp_path: Path) -> None:
    """Quotes and commas in their texts are told from those between them."""
    rows = frame().assign(items=[["a,b", 'c"d']] * 6)
    again = EventLog(EventLog(rows).write(tmp_path / "log.csv"))
    assert again.sql("SELECT DISTINCT json(items)::VARCHAR AS items FROM events")["items"].tolist() == [
        r'["a,b","c\"d"]'
    ]


@pytest.mark.parametrize("format", EVERY)
def test_a_column_of_a_store_that_has_a_role_is_written(tmp_path: Path, format: str) -> None:
    """When it happened as the time, its category as the case: both are in the file."""
    store = MemoryStore()
    days = [NewEvent(Opened(), occurred_at=datetime(2024, 2, day, tzinfo=UTC)) for day in (1, 3)]
    store.append("Door/1", days)
    log = EventLog(store, time="occurred_at", case="category")
    roles = {"case": "category", "time": "occurred_at"} if format in EVERY[:5] else {}
    roles = {"case": "category"} if format.startswith("ocel") else roles
    again = EventLog(log.write(tmp_path / f"log.{format}"), **roles)
    assert again.cases().df[["case", "duration_s"]].to_numpy().tolist() == [["Door", 172_800.0]]


def related(tmp_path: Path) -> EventLog:
    """Return a log of an order with an item, another order, and an owner that no event is about."""
    times = pa.array([0, 1, 2, 3], pa.timestamp("us", "UTC"))
    events = pa.table({"event_id": ["e1", "e2", "e3", "e4"], "type": ["A", "B", "C", "A"], "time": times})
    links = pa.table(
        {
            "event_id": ["e1", "e1", "e2", "e3", "e4"],
            "object_type": ["order", "item", "order", "order", "order"],
            "object_id": ["o1", "i1", "o1", "o1", "o2"],
            "qualifier": ["", "", "", "", ""],
        }
    )
    attributes = pa.table(
        {
            "object_type": ["order", "order", "owner"],
            "object_id": ["o1", "o2", "w"],
            "attribute": ["total", "total", "name"],
            "value": ["5", "7", "Ann"],
            "type": ["integer", "integer", "string"],
            "time": pa.nulls(3, pa.timestamp("us", "UTC")),
        }
    )
    relations = pa.table(
        {
            "source_type": ["order", "order", "order"],
            "source_id": ["o1", "o2", "o2"],
            "target_type": ["item", "order", "owner"],
            "target_id": ["i1", "o1", "w"],
            "qualifier": ["contains", "follows", "of"],
        }
    )
    roles = {"event_id": "event_id", "activity": "type", "time": "time"}
    path = write_tables(Tables(events, links, attributes, roles, relations), tmp_path / "all.ocel.json")
    return EventLog(path, case="order")


def test_a_filter_leaves_the_relations_of_the_objects_that_are_left(tmp_path: Path) -> None:
    """Gone is what is said of objects that only events are about which are gone; the rest is as it was."""
    log, path = related(tmp_path), tmp_path / "left.ocel.json"
    whole = read_tables(log.write(path))
    assert read_tables(log.sized(1).write(path)) == whole
    without = read_tables(log.without("C").write(path))
    assert (without.relations, without.attributes) == (whole.relations, whole.attributes)
    left = read_tables(log.sized(2).write(path))
    assert left.relations is not None and left.attributes is not None
    assert left.relations["qualifier"].to_pylist() == ["contains"]
    assert sorted(
        zip(*(left.attributes[name].to_pylist() for name in ("object_id", "value")), strict=True)
    ) == [
        ("o1", "5"),
        ("w", "Ann"),
    ]


@pytest.mark.parametrize("format", EVERY)
def test_other_times_are_written_in_utc_as_well(tmp_path: Path, format: str) -> None:
    """A time without a zone is one of the log's zone in whichever column it is."""
    local = pd.DataFrame({"case": ["c"], "activity": ["a"], "time": pd.to_datetime(["2026-07-01 12:00"])})
    log = EventLog(local.assign(due=local["time"]), timezone="Europe/Berlin")
    again = EventLog(log.write(tmp_path / f"log.{format}"))
    due = "data->>'due'" if "cloud" in format else "due"
    assert len(again.where(f"({due})::TIMESTAMPTZ = TIMESTAMPTZ '2026-07-01 10:00:00+00'")) == 1


def test_a_store_whose_clock_ran_back_is_read_again_in_its_order(tmp_path: Path) -> None:
    """Files are read in the order of time, unless sort='order' says otherwise."""
    store = MemoryStore()
    days = (
        NewEvent(Opened(), occurred_at=datetime(2024, 2, 2, tzinfo=UTC)),
        NewEvent(Closed(), occurred_at=datetime(2024, 2, 1, tzinfo=UTC)),
    )
    store.append("Door/1", days)
    log = EventLog(store)
    for format in EVERY:
        case = {"case": "stream"} if format in EVERY[:5] else {}
        again = EventLog(log.write(tmp_path / f"log.{format}"), sort="order", **case)
        assert again.variants().df["variant"].tolist() == log.variants().df["variant"].tolist()


@pytest.mark.parametrize("format", EVERY)
def test_a_folder_that_is_not_there_is_told(tmp_path: Path, format: str) -> None:
    """The folder is named, and nothing else but it."""
    log = EventLog(frame())
    with pytest.raises(InvalidArgument, match="there is no folder 'nowhere' for 'log"):
        log.write(tmp_path / "nowhere" / f"log.{format}")
    with pytest.raises(InvalidArgument, match="is a folder: give the name of a file"):
        log.write(tmp_path, format=format)


def nanoseconds(*times: str, **columns: list[object]) -> EventLog:
    rows = {"case": ["1"] * len(times), "activity": [*"abc"[: len(times)]], **columns}
    return EventLog(pd.DataFrame({**rows, "time": [f"2024-01-01T00:00:00.{one}Z" for one in times]}))


@pytest.mark.parametrize("format", EVERY)
def test_nanoseconds_order_what_is_written_and_read_again(tmp_path: Path, format: str) -> None:
    """An order column, or the order of rows, does not come before what is finer than a microsecond."""
    for columns in ({}, {"version": [1, 2, 3]}):
        log = nanoseconds("000001900", "000001100", "000001100", **columns)
        again = EventLog(log.write(tmp_path / f"log.{format}"))
        assert again.variants().df["variant"].tolist() == [["b", "c", "a"]]
        assert again.notes[0] == log.notes[0]
        assert "nanoseconds tell which is first" in log.notes[0]


def test_nanoseconds_beyond_what_a_format_can_hold_are_refused(tmp_path: Path) -> None:
    """An end of all days beside nanoseconds has a text, but no number of nanoseconds since 1970."""
    rows = {"case": ["1"] * 3, "activity": [*"abc"]}
    late = ["2024-01-01 00:00:00.0000002", "2024-01-01 00:00:00.0000001", "9999-12-31"]
    log = EventLog(pd.DataFrame({**rows, "time": late}))
    assert EventLog(log.write(tmp_path / "log.csv")).variants().df["variant"][0] == ["b", "a", "c"]
    with pytest.raises(InvalidLog, match=r"only for the years 1678 to 2261.*: write CSV or JSON Lines"):
        log.write(tmp_path / "log.parquet")
    text = log.write(tmp_path / "log.jsonl").read_text()
    (tmp_path / "a.ocel.json").write_text(
        '{"objectTypes": [], "eventTypes": [], "objects": [{"id": "1", "type": "case"}], "events": ['
        + ", ".join(
            f'{{"id": "{n}", "type": "{n}", "time": "{time}", "relationships": [{{"objectId": "1"}}]}}'
            for n, time in enumerate(late)
        )
        + "]}"
    )
    assert text.count("9999-12-31 00:00:00.000000000+00") == 1
    assert EventLog(tmp_path / "a.ocel.json").variants().df["variant"][0] == ["1", "0", "2"]
