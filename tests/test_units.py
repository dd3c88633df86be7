"""Figures as people read them, and ticks on round places."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim import units

SIZES = {"y": 365.25 * 86400, "d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3, "µs": 1e-6}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.000_004, "4 µs"),
        (0.0042, "4.2 ms"),
        (0.4, "0.4 s"),
        (0.35, "0.35 s"),
        (2.5, "2.5 s"),
        (13, "13 s"),
        (59.7, "1 min"),
        (90, "1 min 30 s"),
        (780, "13 min"),
        (3599.9, "1 h"),
        (5400, "1 h 30 min"),
        (86_399, "1 d"),
        (187_200, "2 d 4 h"),
        (86_400 * 140, "140 d"),
        (86_400 * 900, "2.5 y"),
        (-90, "−1 min 30 s"),
        (timedelta(hours=5), "5 h"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_a_duration_reads_as_a_person_would_say_it(seconds, told):
    """The largest unit, with the next one while the first is below ten."""
    assert units.duration(seconds) == told


@given(st.floats(min_value=1e-6, max_value=1e11))
def test_a_duration_is_told_to_within_six_per_cent(seconds):
    """What is said is near what is meant, at any size."""
    said = units.duration(seconds)
    parts = re.findall(r"([\d.,]+) (\S+)", said)
    assert sum(float(n.replace(",", "")) * SIZES[unit] for n, unit in parts) == pytest.approx(
        seconds, rel=0.06
    )


@given(st.floats(min_value=0, max_value=1))
def test_a_percentage_says_none_and_all_only_where_that_is_true(share):
    """No rounding makes a share complete, or takes it away."""
    assert (units.percent(share) == "100 %") == (share == 1)
    assert (units.percent(share) == "0 %") == (share == 0)


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_number_ticks_are_few_even_and_reach_the_top(high):
    """From 0 in equal steps to just above."""
    marks = units.ticks(high)
    assert marks[0] == 0
    assert marks[-1] >= high * (1 - 1e-6)
    assert 2 <= len(marks) <= 12
    assert all(b - a == pytest.approx(marks[1]) for a, b in pairwise(marks))


@given(st.floats(min_value=1e-6, max_value=1e10))
def test_duration_ticks_are_few_and_inside(high):
    """At most about ten, all up to the top."""
    marks = units.duration_ticks(high)
    assert marks[0] == 0
    assert marks[-1] <= high * 1.01
    assert 1 <= len(marks) <= 12


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=40_000)),
)
def test_time_ticks_are_inside_ascending_few_and_differ(start, span):
    """Wherever a log lies and however long it is."""
    low = units.stamp(start)
    high = low + span.total_seconds()
    marks = units.time_ticks(low, high)
    places = [at for at, _ in marks]
    assert places == sorted(set(places))
    assert all(low <= at <= high for at in places)
    assert len(marks) <= 14


def test_a_naive_time_is_utc():
    """The machine's time zone changes no picture."""
    assert units.stamp(datetime(2026, 3, 1)) == units.stamp(datetime(2026, 3, 1, tzinfo=UTC))


def test_a_date_is_the_beginning_of_its_day():
    """DuckDB's DATE is drawn like a time."""
    assert units.stamp(date(2026, 3, 1)) == units.stamp(datetime(2026, 3, 1, tzinfo=UTC))


def test_weeks_begin_on_monday():
    """Ticks of weeks stand where weeks do."""
    marks = units.time_ticks(units.stamp(datetime(2026, 3, 1)), units.stamp(datetime(2026, 4, 10)))
    assert [words for _, words in marks][:2] == ["2 Mar", "9 Mar"]


def test_the_last_moment_that_there_is_has_its_place_on_an_axis():
    """A log may say 'never' by it; as a fraction of seconds it is rounded into the year 10000."""
    last = units.stamp(datetime.max.replace(tzinfo=UTC))
    assert units.day(last) == "31 Dec 9999"
    marks = units.time_ticks(units.stamp(datetime(2024, 1, 1)), last)
    assert marks[0][1] == "4000" and marks[-1][0] <= last
