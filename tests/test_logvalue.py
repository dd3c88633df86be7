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
