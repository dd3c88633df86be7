"""Charts of rows as SVG text: bars, spreads, a funnel, a heat map of cohorts, each row with its numbers.

A length or a shade only says again what a number says, so that nothing is lost without colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from esim import svg, units
from esim.display import color_of
from esim.errors import InvalidArgument

_LOW, _HIGH = (0x71, 0x75, 0x7A), (0x0B, 0x62, 0xC4)  # of a heat map; white text reads on all between
_LONG, _BESIDE, _SMALL = 340, 530, 11  # the longest bar; all that stands beside the names
_DEEPEST = 12  # steps of a tree that are set in
_FIVE = 5  # quantiles of a spread
_STEP = 46  # from one cell of a heat map to the next


def bars(
    rows: Iterable[tuple[str, float]],
    *,
    title: str,
    unit: str = "events",
    limit: int = 20,
    caption: str = "",
    colored: bool = True,
) -> str:
    """Return (name, value) as bars from left to right, in the given order, at most `limit` of them.

    Values in `unit` "seconds" are written as durations. Rows that are not activities are not `colored`.
    """
    given = [(name, svg.finite(value, "a bar")) for name, value in rows]
    if not given:
        return svg.empty(title)
    most, y = max(value for _, value in given), svg.TOP + 4.0
    left = _names_end(name for name, _ in given[:limit])
    parts: list[str] = []
    for name, value in given[:limit]:
        words = units.written(unit)(value) + ("" if unit == "seconds" else f" {unit}")
        bar = _Bar(name, value / (most or 1), words, color_of(name) if colored else svg.PLAIN)
        parts += _drawn(bar, left, y)
        y += 26
    told = f"Shown: {limit} of {len(given):,} rows." if len(given) > limit else ""
    return svg.document(title, parts, width=left + _BESIDE, bottom=y, caption=f"{told} {caption}".strip())


class _Bar(NamedTuple):
    name: str
    share: float
    words: str
    fill: str


def _names_end(names: Iterable[str]) -> float:
    """Return where the column of names ends: as wide as they need, within reason."""
    widest = max((svg.text_width(svg.named(name), 12) for name in names), default=0.0)
    return math.ceil(svg.MARGIN + min(max(widest, 80), 300) + 8.1)


def _drawn(bar: _Bar, left: float, y: float) -> Iterator[str]:
    wide = max(_LONG * min(max(bar.share, 0.0), 1.0), 1)
    title = svg.titled(f"{bar.name}: {bar.words}")
    yield svg.text(left - 8, y + 14, svg.named(bar.name), size=12, anchor="end", room=left - 8 - svg.MARGIN)
    yield svg.tag("rect", title, x=left, y=y, width=wide, height=20, rx=2, fill=bar.fill)
    yield svg.text(left + wide + 8, y + 14, bar.words, size=12)


def spreads(
    rows: Iterable[tuple[str, Sequence[float]]],
    *,
    title: str,
    names: str,
    unit: str = "seconds",
    limit: int = 20,
) -> str:
    """Return (name, five ascending quantiles) as lines from the first to the last, thick in the middle half.

    `names` says what the five are, such as "5 %, 25 %, median, 75 %, 95 %". The axis is logarithmic; what is
    less than its beginning, a ten-millionth of its end at least, is drawn there.
    """
    given = [(name, [svg.finite(value, "a spread") for value in values]) for name, values in rows]
    wrong = next((name for name, values in given if len(values) != _FIVE or values != sorted(values)), None)
    if wrong is not None:
        raise InvalidArgument(f"{wrong!r} does not have five ascending values; give five quantiles")
    if not given:
        return svg.empty(title)
    left, y = _names_end(name for name, _ in given[:limit]), svg.TOP + 4.0
    across = _Logarithm.of([value for _, values in given[:limit] for value in values], left)
    parts = list(_scale(across, unit, y, y + 26 * len(given[:limit])))
    for name, values in given[:limit]:
        parts += _spread(name, [across(value) for value in values], units.written(unit)(values[2]), left, y)
        y += 26
    told = f"Shown: {limit} of {len(given):,} rows. " if len(given) > limit else ""
    caption = f"{told}Lines: {names} (logarithmic). In figures: the middle one."
    return svg.document(title, parts, width=left + _BESIDE, bottom=y + 20, caption=caption)


class _Logarithm(NamedTuple):
    """Where values stand on a logarithmic axis."""

    left: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], left: float) -> _Logarithm:
        high = max(*values, 1e-9)
        low = min((value for value in values if value > high * 1e-7), default=high)
        return cls(left, min(low, high / 10), high)

    def __call__(self, value: float) -> float:
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return self.left + _LONG * share


def _scale(across: _Logarithm, unit: str, top: float, bottom: float) -> Iterator[str]:
    """Give the lines and the words of an axis, as many as there is room for."""
    powers = [10.0**at for at in range(math.ceil(math.log10(across.low)), int(math.log10(across.high)) + 1)]
    marks = units.log_duration_ticks(across.low, across.high) if unit == "seconds" else powers
    free = 0.0
    for value in marks:
        x, words = across(value), units.written(unit)(value)
        half = svg.text_width(words, _SMALL) / 2
        if x - half > free:
            free = x + half + 6
            yield svg.line(f"M{svg.num(x)},{svg.num(top)}V{svg.num(bottom)}", opacity=0.25)
            yield svg.text(x, bottom + 14, words, size=_SMALL, anchor="middle")


def _spread(name: str, places: Sequence[float], words: str, left: float, y: float) -> Iterator[str]:
    low, quarter, middle, three, high = map(svg.num, places)
    yield svg.text(left - 8, y + 14, svg.named(name), size=12, anchor="end", room=left - 8 - svg.MARGIN)
    yield svg.line(f"M{low},{svg.num(y + 10)}H{high}", width=1.5)
    yield svg.line(f"M{quarter},{svg.num(y + 10)}H{three}", stroke=svg.PLAIN, width=8)
    yield svg.line(f"M{middle},{svg.num(y + 1)}v18", width=3)
    yield svg.text(left + _LONG + 12, y + 14, words, size=12)


def funnel(steps: Iterable[Sequence[object]], *, title: str, what: str = "cases") -> str:
    """Return steps of (name, count, median seconds since the step before) as bars, with who goes on.

    The seconds may be missing.
    """
    rows = [(str(row[0]), svg.finite(row[1], "a funnel"), svg.measure([*row, None][2])) for row in steps]
    if not rows:
        return svg.empty(title)
    first, most = rows[0][1], max(count for _, count, _ in rows)
    left = _names_end(name for name, *_ in rows)
    parts: list[str] = []
    y, before = svg.TOP + 4.0, 0.0
    for place, (name, count, seconds) in enumerate(rows):
        if place:
            parts.append(svg.text(left, y + 13, _goes_on(count, before, seconds), size=_SMALL))
            y += 20
        words = f"{units.number(count)} · {units.percent(count / first if first else 0)}"
        parts += _drawn(_Bar(name, count / (most or 1), words, color_of(name)), left, y)
        y, before = y + 24, count
    caption = f"Bars: {what} that reach a step, and their share of the first step."
    return svg.document(title, parts, width=left + _BESIDE, bottom=y + 4, caption=caption)


def _goes_on(count: float, before: float, seconds: float | None) -> str:
    took = "" if seconds is None else f", after {units.duration(seconds)} (median)"
    return f"↓ {units.percent(count / before) if before else '–'} go on{took}"


def tree(
    rows: Iterable[tuple[int, str, str, float | None, bool]], *, title: str, since: str, limit: int = 40
) -> str:
    """Return (depth, activity, case, seconds, whether it was asked about) as boxes, each below its cause.

    `since` says what the seconds are; they may be missing.
    """
    steps = list(rows)
    if not steps:
        return svg.empty(title)
    parts, y, width = [], svg.TOP + 4.0, 0.0
    below: dict[int, float] = {}
    for depth, name, case, seconds, asked in steps[:limit]:
        left = svg.MARGIN + 26.0 * min(depth, _DEEPEST)
        if depth - 1 in below:
            bend = left - 14
            parts.append(
                svg.line(f"M{svg.num(bend)},{svg.num(below[depth - 1])}V{svg.num(y + 11)}H{svg.num(left)}")
            )
        wide = svg.text_width(svg.named(name), 12, bold=True) + 20
        told = f"{case}{'' if svg.measure(seconds) is None else f' · {units.duration(seconds)}'}"
        told += "  ◂ asked about" if asked else ""
        parts.append(svg.tag("rect", x=left, y=y, width=wide, height=22, rx=4, fill=color_of(name)))
        parts.append(svg.text(left + 10, y + 15, svg.named(name), size=12, fill="#fff", bold=True))
        parts.append(svg.text(left + wide + 8, y + 15, told, size=12))
        below[depth] = y + 22
        width, y = max(width, left + wide + 24 + svg.text_width(told, 12)), y + 29
    more = f"Shown: {limit} of {len(steps):,} events. " if len(steps) > limit else ""
    caption = f"{more}Beside each event: its case, and {since}."
    return svg.document(title, parts, width=max(width, 480), bottom=y, caption=caption)


def cohorts(
    rows: Iterable[tuple[str, int, Sequence[float | None]]], *, title: str, period: str = "month"
) -> str:
    """Return (cohort, size, share still there in period 0, 1, 2, …) as a heat map with numbers."""
    lines = [(name, size, tuple(shares)) for name, size, shares in rows]
    if not lines:
        return svg.empty(title)
    many, left, y = max(len(shares) for *_, shares in lines), 176, svg.TOP + 24.0
    parts = [
        svg.text(svg.MARGIN, y - 8, "cohort", size=_SMALL),
        svg.text(left - 10, y - 8, "size", size=_SMALL, anchor="end"),
    ]
    parts += [
        svg.text(left + _STEP * at + 22, y - 8, str(at), size=_SMALL, anchor="middle") for at in range(many)
    ]
    for name, size, shares in lines:
        parts.append(svg.text(svg.MARGIN, y + 17, svg.named(name), size=12, room=96))
        parts.append(svg.text(left - 10, y + 17, f"{size:,}", size=12, anchor="end"))
        for at, share in enumerate(shares):
            parts += _cell(left + _STEP * at, y, share)
        y += 28
    caption = f"Across: {period}s since the first. In the cells: who is there."
    return svg.document(title, parts, width=left + _STEP * many + svg.MARGIN, bottom=y, caption=caption)


def _cell(x: float, y: float, share: float | None) -> Iterator[str]:
    if share is None or not math.isfinite(share):
        return
    part = min(max(share, 0.0), 1.0)
    red, green, blue = (round(low + (high - low) * part) for low, high in zip(_LOW, _HIGH, strict=True))
    yield svg.tag("rect", x=x, y=y, width=44, height=26, rx=3, fill=f"#{red:02x}{green:02x}{blue:02x}")
    yield svg.text(x + 22, y + 17, f"{100 * part:.0f} %", size=_SMALL, fill="#fff", anchor="middle")
