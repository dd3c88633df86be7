"""Figures as people read them: durations, counts and shares as short text, and where an axis has its ticks.

Durations are seconds, shares lie between 0 and 1, times are UTC: on an axis they are seconds since 1970.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from esim.errors import InvalidArgument

DAY = 86_400
_YEAR = 365.25 * DAY
_UNITS = ((DAY, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SPANS = (
    1,
    2,
    5,
    10,
    15,
    30,
    *(60 * n for n in (1, 2, 5, 10, 15, 30)),
    *(3_600 * n for n in (1, 2, 3, 6, 12)),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()
_LAST = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds()
_SHORTEST = 0.0995  # seconds; below, milliseconds read better
_TEN = 10


def duration(seconds: float | timedelta | None) -> str:
    """Return a span of time in its largest unit, or its two largest while the first is below ten.

    >>> [duration(one) for one in (187_200, 780, 90, 0.4, 0.004, 0, None)]
    ['2 d 4 h', '13 min', '1 min 30 s', '0.4 s', '4 ms', '0 s', '–']
    """
    span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if span is None or not math.isfinite(span):
        return "–"
    if span < 0:
        return f"−{duration(-span)}"
    if span >= 2 * _YEAR:
        return f"{_digits(span / _YEAR)} y"
    for (size, unit), (minor, rest_unit) in pairwise(_UNITS):
        lead, rest = divmod(round(span / minor), size // minor)
        if lead >= _TEN:
            return f"{round(span / size)} {unit}"
        if lead:
            return f"{lead} {unit} {rest} {rest_unit}" if rest else f"{lead} {unit}"
    return _seconds(span)


def _seconds(span: float) -> str:
    if span == 0 or span >= _SHORTEST:
        return f"{_trim(f'{span:.2f}') if span < 1 else _digits(span)} s"
    return f"{_digits(span * 1e3)} ms" if span >= 0.000_995 else f"{_digits(span * 1e6)} µs"  # noqa: PLR2004


def _digits(value: float) -> str:
    return _trim(f"{value:.1f}") if value < 9.95 else f"{value:,.0f}"  # noqa: PLR2004


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(value: float) -> str:
    """Return a count or a measure with at most three significant decimals and groups of three.

    >>> [number(one) for one in (24_916, 1234.5, 12.34, 0.5, 3.0)]
    ['24,916', '1,234', '12.3', '0.5', '3']
    """
    size = abs(value)
    if value == int(value) or size >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return _trim(f"{value:.1f}" if size >= _TEN else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}")  # noqa: PLR2004


def written(unit: str) -> Callable[[float], str]:
    """Return how values of a unit are written: "seconds" as durations, all others as numbers."""
    return duration if unit == "seconds" else number


def percent(share: float) -> str:
    """Return a share as a percentage of one decimal that says 0 and 100 only where they are true.

    >>> [percent(one) for one in (0.5, 0.1234, 0.0001, 0.99999, 1.0)]
    ['50.0 %', '12.3 %', '<0.1 %', '>99.9 %', '100 %']
    """
    if 0 < share < 0.001:  # noqa: PLR2004
        return "<0.1 %"
    if 0.999 < share < 1:  # noqa: PLR2004
        return ">99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def stamp(at: date) -> float:
    """Return a time (or the beginning of a day) as seconds since 1970; a naive time is UTC.

    Raises InvalidArgument for what is no time, such as a missing one.
    """
    if not isinstance(at, date) or at != at:  # noqa: PLR0124 - the missing time of pandas differs from itself
        raise InvalidArgument(f"{at!r} is not a time that an axis could show; leave the row out")
    if not isinstance(at, datetime):
        at = datetime(at.year, at.month, at.day, tzinfo=UTC)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def day(stamp: float) -> str:
    """Return the date of a time in seconds since 1970.

    >>> day(0)
    '1 Jan 1970'
    """
    at = _at(stamp)
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def _at(stamp: float) -> datetime:
    """Return a time in seconds since 1970, or the end of what Python knows, to which one may be rounded."""
    return _EPOCH + timedelta(seconds=max(_FIRST, min(stamp, _LAST)))


# --- ticks -------------------------------------------------------------------------------------------------


def ticks(high: float, wanted: int = 5) -> list[float]:
    """Return round numbers from 0 to the first that is not below `high`, about `wanted` of them.

    >>> ticks(17)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    if high <= 0:
        return [0.0, 1.0]
    rough = high / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * 0.999)
    return [step * place for place in range(math.ceil(high / step - 1e-9) + 1)]


def duration_ticks(high: float, wanted: int = 5) -> list[float]:
    """Return spans in seconds from 0 to `high` that are whole minutes, hours or days.

    >>> [duration(one) for one in duration_ticks(9 * 3600)]
    ['0 s', '2 h', '4 h', '6 h', '8 h']
    """
    rough = high / wanted
    if rough < _SPANS[0]:
        return [one for one in ticks(high, wanted) if one <= high * 1.001]
    step = next((span for span in _SPANS if span >= rough), 0) or DAY * (ticks(high / DAY, wanted)[1])
    step = max(DAY, round(step / DAY) * DAY) if step >= DAY else step
    return [step * place for place in range(int(high / step + 1e-9) + 1)]


def log_duration_ticks(low: float, high: float) -> list[float]:
    """Return spans in seconds between `low` and `high` that a person knows, each several times the last."""
    short = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0)
    long = (*(float(DAY * n) for n in (1, 7, 30, 180)), *(_YEAR * n for n in (2, 10, 100, 1000)))
    return [one for one in (*short, *long) if low <= one <= high]


def time_ticks(start: float, end: float, wanted: int = 6) -> list[tuple[float, str]]:
    """Return times between two others, on whole units of the calendar and at most about `wanted`, with words.

    >>> [words for _, words in time_ticks(stamp(datetime(2026, 1, 30)), stamp(datetime(2026, 2, 3)))]
    ['30 Jan', '31 Jan', '1 Feb', '2 Feb', '3 Feb']
    """
    span = max(end - start, 1e-6) / wanted
    step = next((one for one in (*_SPANS, DAY, 2 * DAY, 7 * DAY, 14 * DAY) if one >= span), 0)
    if step:
        return [(at, _clock(_at(at), step)) for at in _even(start, end, step)]
    months = next((one for one in (1, 2, 3, 6) if one * 31 * DAY >= span), 0)
    years = 0 if months else max(1, round(ticks(span / _YEAR, 1)[1]))
    found = _whole_months(_at(start), _at(end), months or 12 * years)
    return [(stamp(at), str(at.year) if years else f"{_MONTHS[at.month - 1]} {at.year}") for at in found]


def _even(start: float, end: float, step: int) -> Iterator[float]:
    zero = 4 * DAY if step >= 7 * DAY else 0  # weeks begin on Monday
    first = math.ceil((start - zero) / step)
    return (float(zero + step * place) for place in range(first, math.floor((end - zero) / step) + 1))


def _whole_months(start: datetime, end: datetime, months: int) -> Iterator[datetime]:
    place = -(-(start.year * 12 + start.month - 1) // months) * months
    for month in range(place, end.year * 12 + end.month, months):
        at = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        if start <= at <= end:
            yield at


def _clock(at: datetime, step: int) -> str:
    if step >= DAY or (at.hour, at.minute, at.second) == (0, 0, 0):
        return f"{at.day} {_MONTHS[at.month - 1]}"
    return f"{at:%H:%M:%S}" if step < 60 else f"{at:%H:%M}"  # noqa: PLR2004
