"""A text is read as a time only if all that it says is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from esim.errors import InvalidArgument, InvalidLog
from esim.eventlog import EventLog
from esim.logvalue import aware, naive, zoned


def log_of(*times: Any, **how: Any) -> EventLog:
    rows = [{"case": "1", "activity": f"A{n}", "time": time} for n, time in enumerate(times)]
    return EventLog(pa.Table.from_pylist(rows), **how)


def moments(log: EventLog) -> list[str]:
    return [str(one)[:19] for one in log.sql("SELECT time FROM events ORDER BY activity")["time"]]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-03-01 12:00:00 Europe/Berlin", "11:00"),
        ("2024-03-01 12:00:00.5 America/Argentina/Buenos_Aires", "15:00"),
        ("2024-03-01T12:00:00Z", "12:00"),
        ("2024-03-01 12:00:00 UTC", "12:00"),
        ("2024-03-01 12:00 +0200", "10:00"),
        ("2024-03-01 12:00:00.123-05", "17:00"),
        (" 2024/03/01 12:00:00 Z ", "12:00"),
    ],
)
def test_a_zone_in_a_text_counts(text: str, utc: str) -> None:
    """An offset or the name of a region is part of the time, whatever the zone of other times is."""
    assert moments(log_of(text, timezone="Asia/Tokyo")) == [f"2024-03-01 {utc}:00"]
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {zoned('x')}, {naive('x')} FROM (SELECT ? AS x)", [text]).fetchone() == (
            True,
            None,
        )


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01 01:00 PM", "2024-03-01 12:00:00 foo", "2024-03-01 12:00:00 5", "2024-03-01 12:00:00 BST",
        "2024-03-01 12:00:00 No/Where", "infinity", "epoch", "2024-03-01 (BC)", "2024-13-01", "",
    ],
)  # fmt: skip
def test_a_text_of_which_something_would_be_dropped_is_no_time(text: str) -> None:
    """DuckDB casts what it understands and forgets the rest, as PM or a zone: such a text is shown."""
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {aware('x')}, {naive('x')} FROM (SELECT ? AS x)", [text]).fetchone() == (
            None,
            None,
        )
    with pytest.raises(InvalidLog, match="1 value of time cannot be read"):
        log_of("2024-03-01 12:00", text).cases()


def test_a_date_names_no_zone() -> None:
    """The end of 2024-03-01 is no offset: dates are of the given zone, beside times as well."""
    log = log_of("2024-03-01", "2024-03-01 12:00:00", timezone="America/New_York")
    assert moments(log) == ["2024-03-01 05:00:00", "2024-03-01 17:00:00"]
    assert log.notes == ()


def test_a_format_reads_numbers_and_zones() -> None:
    """`time_format` reads 20240301 as a day, and a zone in it wins over `timezone`."""
    assert moments(log_of(20240301, 20240305, time_format="%Y%m%d")) == [
        "2024-03-01 00:00:00",
        "2024-03-05 00:00:00",
    ]
    assert moments(log_of(20240301.0, None, time_format="%Y%m%d")) == ["2024-03-01 00:00:00"]
    zone = log_of("1.3.2024 12:00 +0200", time_format="%d.%m.%Y %H:%M %z", timezone="Asia/Tokyo")
    assert moments(zone) == ["2024-03-01 10:00:00"]


def test_a_format_for_what_is_a_time_already_is_refused() -> None:
    """`time_format` says how texts are written; a column of times has nothing to be read."""
    with duckdb.connect() as con:
        rows = con.sql("SELECT '1' AS \"case\", 'A' AS activity, TIMESTAMP '2024-01-01' AS time")
        with pytest.raises(
            InvalidArgument, match=r"time_format='%Y' is for texts, and time is of type TIMESTAMP"
        ):
            EventLog(rows, time_format="%Y").cases()


# --- numbers, nanoseconds, clocks --------------------------------------------------------------------------


def test_the_unit_is_that_of_most_numbers() -> None:
    """One number for the end of all days does not make milliseconds of seconds; zeros tell nothing."""
    log = log_of(0, 0, 0, 1_700_000_000, 1_700_000_060, 253_402_300_799)
    assert moments(log)[3:5] == ["2023-11-14 22:13:20", "2023-11-14 22:14:20"]
    told = "the numbers in time are taken as seconds since 1970, as most are by their size (others: 1)"
    assert told in log.notes


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_a_number_that_is_no_time_is_told(bad: float) -> None:
    """NaN, infinity and what no calendar has are times that cannot be read, by their row."""
    with pytest.raises(InvalidLog, match=r"1 value of time cannot be read as a time \(row 2"):
        log_of(1.7e9, bad).cases()
    assert len(log_of(1.7e9, bad, bad="drop")) == 1


@pytest.mark.parametrize("kind", ["ns", "ns, Asia/Tokyo", "number", "text"])
def test_nanoseconds_order_events(kind: str) -> None:
    """Times are kept to the microsecond, but what is finer than that orders events, in any order of rows."""
    base = 1_704_067_200_000_000_000
    times: Any = pa.array([base + 300, base + 100, base + 200], pa.int64())
    if kind.startswith("ns"):
        times = times.cast(pa.timestamp("ns", kind[4:] or None))
    if kind == "text":
        times = [f"2024-01-01 00:00:00.000000{n}Z" for n in ("3", "10", "200")]
    log = EventLog(pa.table({"case": ["1"] * 3, "activity": ["C", "A", "B"], "time": times}))
    assert log.variants().df["variant"].tolist() == [["A", "B", "C"]]
    assert log.notes[-1] == (
        "2 events have the same time to the microsecond as the one before in the case; "
        "nanoseconds tell which is first"
    )
    assert moments(log) == ["2024-01-01 00:00:00"] * 3


def test_times_that_tie_to_the_nanosecond_are_counted_apart() -> None:
    """Of four events in one microsecond two tie, and there the order column decides, or the order of rows."""
    rows = {
        "case": ["1"] * 4,
        "activity": [*"dcba"],
        "time": pa.array([900, 100, 100, 100], pa.timestamp("ns")),
    }
    log = EventLog(pa.table({**rows, "nr": [1, 3, 2, 2]}), order="nr")
    assert log.variants().df["variant"].tolist() == [["b", "a", "c", "d"]]
    told = "1 event has the same time to the microsecond as the one before in the case; "
    assert log.notes == (
        f"{told}nanoseconds tell which is first",
        "2 events have the same time as the one before in the case; nr breaks the ties",
        "2 events have the same nr as another such event; there the order of rows decides",
    )
    found = log.anomalies().df.set_index("anomaly")["events"]
    assert (found["same time as before"], found["repeated event"]) == (2, 0)


def test_nanoseconds_in_a_form_of_times_count() -> None:
    """With %n in its form a text has nanoseconds, with a zone or without, and the log has microseconds."""
    rows = pd.DataFrame(
        {"case": ["1"] * 2, "activity": [*"ba"], "time": ["1.1.2024 .000000300", "1.1.2024 .000000100"]}
    )
    for form, text in (("%d.%m.%Y .%n", ""), ("%d.%m.%Y .%n%z", "+00")):
        log = EventLog(rows.assign(time=rows["time"] + text), time_format=form)
        assert log.variants().df["variant"].tolist() == [["a", "b"]]
        assert "nanoseconds tell which is first" in log.notes[0]
        assert log.sql("SELECT typeof(t) AS kind FROM e LIMIT 1")["kind"][0] == "TIMESTAMP"


def test_a_zone_in_a_column_of_nanoseconds_counts() -> None:
    """An aware time is the same moment in any unit, whatever `timezone` says of others."""
    for unit in ("s", "ms", "us", "ns"):
        times = pa.array([1_709_287_200], pa.timestamp("s", "Europe/Berlin")).cast(
            pa.timestamp(unit, "Europe/Berlin")
        )
        log = EventLog(pa.table({"case": ["1"], "activity": ["A0"], "time": times}), timezone="Asia/Tokyo")
        assert moments(log) == ["2024-03-01 10:00:00"]


def test_times_that_the_clock_skips_or_repeats_are_said() -> None:
    """At 2:30 in Berlin there is no such hour in spring, and two of them in autumn."""
    log = log_of("2024-03-31 02:30", "2024-10-27 02:30", "2024-06-01 02:30", timezone="Europe/Berlin")
    assert log.notes == (
        "times that do not exist in Europe/Berlin (1) are taken as an hour later",
        "times that come twice in Europe/Berlin (1) are taken as the second of both",
    )
    assert moments(log) == ["2024-03-31 01:30:00", "2024-10-27 01:30:00", "2024-06-01 00:30:00"]


@pytest.mark.parametrize(
    "kind",
    [
        "INTEGER",
        "UINTEGER",
        "UBIGINT",
        "HUGEINT",
        "DOUBLE",
        "DECIMAL(18, 3)",
        "DECIMAL(10, 0)",
        "DECIMAL(38, 9)",
    ],
)
def test_seconds_since_1970_of_any_numeric_type(kind: str) -> None:
    """A type that holds the seconds need not hold as many microseconds."""
    rows = duckdb.sql(
        f"SELECT 1 AS \"case\", 'A' AS activity, unnest([1700000000, 1700000100])::{kind} AS time"
    )
    assert EventLog(rows, time="time").cases().df["duration_s"].tolist() == [100]


def test_parts_of_a_second_of_decimals_count() -> None:
    """Decimals are exact to the microsecond."""
    rows = duckdb.sql(
        "SELECT 1 AS \"case\", 'A' AS activity, unnest([1700000000.25, 1700000000.500001]) AS time"
    )
    assert EventLog(rows, time="time").cases().df["duration_s"].tolist() == [0.250001]


# --- order -------------------------------------------------------------------------------------------------


def versioned(*versions: str | None, **how: Any) -> EventLog:
    rows = [
        {"case": "1", "activity": f"A{text}", "time": "2024-01-01", "version": text, "id": text, "one": "1"}
        for text in versions
    ]
    return EventLog(pa.Table.from_pylist(rows), order="version", event_id="id", **how)


@pytest.mark.parametrize("sort", ["time", "order"])
def test_texts_that_are_whole_numbers_order_as_numbers(sort: Any, tmp_path: Path) -> None:
    """Version 10 comes after 9, in questions of all kinds and in what is written."""
    log = versioned("10", "9", "008", sort=sort, case="case", objects={"one": "one"}, correlation="one")
    assert log.variants().df["variant"].tolist() == [["A008", "A9", "A10"]]
    assert log.journey("9").df["event_id"].tolist() == ["008", "9", "10"]
    pairs = log.object_directly_follows("one").df[["source", "target"]].to_numpy().tolist()
    assert pairs == [["A008", "A9"], ["A9", "A10"]]
    assert EventLog(log.write(tmp_path / "a.csv"), order="").variants().df["variant"].tolist() == [
        ["A008", "A9", "A10"]
    ]


def test_texts_of_which_some_are_numbers_have_no_order() -> None:
    """Neither 10 before 9 nor a guess of where n/a belongs: the texts are told."""
    with pytest.raises(
        InvalidLog, match="of 3 values of version 2 are whole numbers and others are not, as 'n/a'"
    ):
        versioned("10", "9", "n/a").variants()


def test_other_texts_order_as_texts() -> None:
    """Ids of one length do, and of several lengths it is said what that means."""
    log = versioned("0B", "0A", "00", None)
    assert log.variants().df["variant"].tolist() == [["A00", "A0A", "A0B", "ANone"]]
    assert not [note for note in log.notes if "orders as a text" in note]
    assert "version orders as a text, x10 before x9" in versioned("x9", "x10").notes


def test_nanoseconds_order_objects_and_stories() -> None:
    """An object's events and those of a story are in the order in which the events of a case are."""
    times = pa.array([1300, 1100, 1200], pa.timestamp("ns"))
    rows = {"case": ["1"] * 3, "activity": [*"cab"], "time": times, "id": [*"cab"], "story": ["s"] * 3}
    log = EventLog(
        pa.table({**rows, "cause": [None, "x", "x"]}),
        event_id="id",
        correlation="story",
        causation="cause",
        objects={"thing": "case"},
        case="case",
    )
    found = log.object_directly_follows().df
    assert sorted(zip(found["source"], found["target"], strict=True)) == [("a", "b"), ("b", "c")]
    assert log.journey("a").df["activity"].tolist() == [*"abc"]
    assert log.anomalies("uncaused").df["activity"].tolist() == ["c"]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TIMESTAMP_S", "TIMESTAMP_NS"])
@pytest.mark.parametrize("never", ["infinity", "-infinity"])
def test_an_infinite_time_is_told_as_one_that_cannot_be_read(tmp_path: Path, kind: str, never: str) -> None:
    """It is no moment, and would make endless durations: its row is named, and left out if that is wished."""
    rows = ", ".join(
        f"('{case}', '{one}', '{time}'::{kind})"
        for case, one, time in (
            ("1", "a", "2024-01-01"),
            ("1", "b", never),
            ("1", "c", "2024-01-03"),
            ("2", "a", never),
        )
    )
    file = tmp_path / "log.parquet"
    duckdb.sql(f"COPY (FROM (VALUES {rows}) AS t(\"case\", activity, time)) TO '{file}'")
    told = rf"2 values of time cannot be read as a time \(row 2: '{never}', row 4: '{never}'\); mend them"
    with pytest.raises(InvalidLog, match=told):
        EventLog(file).cases()
    log = EventLog(file, bad="drop", timezone="Europe/Berlin")
    assert log.cases().df[["case", "events", "duration_s"]].to_numpy().tolist() == [["1", 2, 172_800.0]]
    assert len(log.notes) == 1
    assert log.notes[0].endswith("those rows are left out")
