"""A text is read as a time only if all that it says is understood."""

from __future__ import annotations

from typing import Any

import duckdb
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
    assert log.notes[-1].startswith("2 events have the same time to the microsecond as the one before")
    assert moments(log) == ["2024-01-01 00:00:00"] * 3


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
