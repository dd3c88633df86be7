"""Clocks and ids: aware, in UTC, repeatable where that is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.clock import ManualClock, RandomIds, SeededIds, SystemClock, from_micros, micros, utc, uuid7
from esim.errors import InvalidArgument

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def test_the_system_clock_is_aware_and_in_utc():
    """Times of the wall clock carry their zone and lie around now."""
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert before <= now <= datetime.now(UTC)


def test_a_manual_clock_moves_when_told_to():
    """It stands, advances by parts or by a timedelta, and can be set either way."""
    clock = ManualClock(START)
    assert clock.now() == clock.now() == START
    clock.advance(hours=1, seconds=2)
    clock.advance(timedelta(minutes=1))
    assert clock.now() == START + timedelta(hours=1, minutes=1, seconds=2)
    clock.set("2025-12-31T23:00:00-01:00")
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    assert repr(clock) == "ManualClock('2026-01-01T00:00:00+00:00')"


def test_a_manual_clock_may_step_at_each_reading():
    """Each look moves the clock on by its step, after the look."""
    clock = ManualClock(START, step=timedelta(seconds=5))
    assert [clock.now() for _ in range(3)] == [START + timedelta(seconds=5 * n) for n in range(3)]


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "2026-01-01T00:00:00", "2026-01-01"])
def test_a_naive_time_is_refused(moment: Any):
    """A time without a zone could mean any of 24 moments; every entrance says so."""
    for take in (utc, ManualClock, ManualClock().set):
        with pytest.raises(InvalidArgument, match="no time zone"):
            take(moment)


@pytest.mark.parametrize("moment", ["soon", "", "2026-13-01T00:00:00Z", 7, None])
def test_what_is_no_time_is_refused(moment: Any):
    """The message shows the value and how a time is written."""
    with pytest.raises(InvalidArgument, match="is not a time: write ISO 8601"):
        utc(moment)


def test_any_zone_is_the_same_moment():
    """Text and datetimes of any offset come out in UTC."""
    local = datetime(2026, 1, 5, 10, tzinfo=timezone(timedelta(hours=1)))
    assert utc(local) == utc("2026-01-05T10:00:00+01:00") == utc("2026-01-05T09:00:00Z") == START
    assert utc(local).tzinfo is UTC


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_microseconds_are_exact(moment: datetime):
    """A time and its count of microseconds say the same, before 1970 as well."""
    assert from_micros(micros(moment)) == moment


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_ids_are_of_version_seven(stamp: int, noise: int):
    """The version and variant bits stand where RFC 9562 has them, the time in front, the noise behind."""
    made = uuid7(stamp, noise)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == stamp
    assert made.int & (1 << 62) - 1 == noise & (1 << 62) - 1


@pytest.mark.parametrize("ids", [RandomIds(), SeededIds(1)])
def test_ids_are_distinct_and_sort_by_time(ids: Any):
    """Any number at once; later milliseconds sort behind."""
    first, later = ids(START, 500), ids(START + timedelta(milliseconds=1), 500)
    assert len({*first, *later}) == 1000
    assert max(first) < min(later)
    assert ids(START, 0) == []


def test_a_seed_repeats_its_ids():
    """The same seed gives the same ids, however they are asked for; another seed others."""
    one, two = SeededIds(7), SeededIds(7)
    assert one(START, 3) == [*two(START, 1), *two(START, 2)]
    assert SeededIds(8)(START, 1) != SeededIds(7)(START, 1)
    assert SeededIds(7)(START, 1) == [UUID("019b8d62-7a80-7269-b2a7-4de452e6b438")]


def test_clocks_and_ids_show_no_address():
    """What a notebook shows is the same in every run."""
    shown = [repr(SystemClock()), repr(RandomIds()), repr(SeededIds(3))]
    assert shown == ["SystemClock()", "RandomIds()", "SeededIds(3)"]
