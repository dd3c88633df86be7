"""Time and ids come from here and nowhere else, so that a run can be repeated to the byte.

A store asks its clock for the time and its id source for event ids. The system clock and random ids are the
default; a `ManualClock` and `SeededIds` make a notebook, a test or a simulation deterministic.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Protocol
from uuid import UUID

from esim import display
from esim.errors import InvalidArgument


class Clock(Protocol):
    """Anything with `now()`, an aware UTC datetime."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        ...


class Ids(Protocol):
    """Anything that makes `count` fresh event ids for a moment `at`."""

    def __call__(self, at: datetime, count: int) -> list[UUID]:
        """Return `count` distinct ids."""
        ...


class SystemClock:
    """The wall clock, in UTC."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC, in microseconds."""
        return datetime.now(UTC)

    def __repr__(self) -> str:
        return "SystemClock()"


class ManualClock:
    """A clock that moves only when told to, or by `step` at each reading.

    >>> clock = ManualClock("2026-01-05T09:00:00Z")
    >>> clock.advance(minutes=90)
    >>> clock.now().isoformat()
    '2026-01-05T10:30:00+00:00'
    """

    def __init__(
        self, start: datetime | str = "2026-01-01T09:00:00Z", step: timedelta = timedelta(0)
    ) -> None:
        """Begin at `start` (aware, or ISO 8601 with an offset); add `step` after each reading.

        Raises InvalidArgument if `start` has no time zone.
        """
        self._now = utc(start)
        self._step = step
        self._lock = Lock()

    def now(self) -> datetime:
        """Return the clock's time, then move it on by its step."""
        with self._lock:
            now = self._now
            self._now = now + self._step
            return now

    def advance(self, by: timedelta | None = None, **parts: float) -> None:
        """Move on by a timedelta, or by its parts: `advance(hours=2, minutes=5)`."""
        if not isinstance(by, timedelta | None):
            raise InvalidArgument(f"{by!r} is no timedelta: write advance(hours=2), or pass a timedelta")
        wrong = next((name for name in parts if name not in _PARTS), None)
        if wrong:
            raise InvalidArgument(f"a timedelta has no {wrong!r}{display.did_you_mean(wrong, _PARTS)}")
        with self._lock:
            self._now += (by or timedelta(0)) + timedelta(**parts)

    def sleep(self, seconds: float) -> None:
        """Move on by so many seconds at once, in place of waiting for them."""
        self.advance(timedelta(seconds=seconds))

    def set(self, to: datetime | str) -> None:
        """Set the clock to an aware moment, earlier or later. Raises InvalidArgument if it is naive."""
        self._now = utc(to)

    def __repr__(self) -> str:
        return f"ManualClock({self._now.isoformat()!r})"


class RandomIds:
    """UUIDs of version 7 (RFC 9562): a millisecond time stamp, then 74 random bits."""

    def __call__(self, at: datetime, count: int) -> list[UUID]:
        """Return `count` ids that sort by `at`, up to a millisecond."""
        noise = os.urandom(10 * count)
        stamp = _stamp(at)
        return [uuid7(stamp, int.from_bytes(noise[i : i + 10])) for i in range(0, 10 * count, 10)]

    def __repr__(self) -> str:
        return "RandomIds()"


class SeededIds:
    """Ids shaped like version 7 whose random part comes from a seed: the same run gives the same ids."""

    def __init__(self, seed: int = 0) -> None:
        """Start the sequence of `seed`."""
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - reproducibility is the point, not secrecy

    def __call__(self, at: datetime, count: int) -> list[UUID]:
        """Return the next `count` ids of the sequence, stamped with `at`."""
        stamp = _stamp(at)
        return [uuid7(stamp, self._random.getrandbits(80)) for _ in range(count)]

    def skip(self, count: int) -> None:
        """Leave out as many ids: those of a log that is opened again are taken."""
        for _ in range(count):
            self._random.getrandbits(80)

    def __repr__(self) -> str:
        return f"SeededIds({self._seed})"


def uuid7(stamp: int, noise: int) -> UUID:
    """Return the UUID of version 7 for `stamp` (milliseconds since 1970) and 80 bits of `noise` (6 unused).

    References: RFC 9562, section 5.7.
    """
    high = stamp << 80 | 0x7 << 76 | (noise >> 68 & 0xFFF) << 64
    return UUID(int=high | 0b10 << 62 | noise & (1 << 62) - 1)


def utc(moment: datetime | str) -> datetime:
    """Return `moment` (aware datetime, or ISO 8601 text with an offset) in UTC.

    Raises InvalidArgument if it has no time zone or cannot be read.
    """
    try:
        at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        at = None
    if not isinstance(at, datetime):
        raise InvalidArgument(f"{moment!r} is not a time: write ISO 8601, as '2026-01-05T09:00:00Z'")
    if at.tzinfo is None:
        raise InvalidArgument(
            f"{at.isoformat()!r} has no time zone, so it could mean any of 24 moments: "
            "write an offset ('…Z') or pass tzinfo=UTC"
        )
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InvalidArgument(f"{at.isoformat()!r} is, in UTC, outside the years 1 to 9999") from None


_PARTS = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _stamp(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def micros(at: datetime) -> int:
    """Return an aware time as microseconds since 1970-01-01 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_micros(value: int) -> datetime:
    """Return microseconds since 1970-01-01 UTC as an aware time."""
    return _EPOCH + timedelta(microseconds=value)
