"""Charts with axes as SVG text: a histogram, counts over time, a dotted chart.

They take rows that are already counted, and so few that three shapes and two axes are all there is to draw:
less code than it takes to tame a chart library, which would need a browser's JavaScript or fifty megabytes
to make the same. Every chart has a title, units, and ticks on whole minutes, days or months.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import NamedTuple

from esim import svg, units
from esim.display import color_of

_WIDTH, _HEIGHT, _LEFT = 720, 220, 64
_SMALL, _DASHES = 11, (None, "7 4", "2 3", "10 3 2 3", "4 2")
_MOST_DOTS, _MOST_BARS = 6_000, 120
_FAR = 1.9  # periods; a line breaks where rows are farther apart
_SHAPES = (
    ("h.01", "round", 3.0),
    ("h.01", "square", 2.6),
    ("m0,-2v4", "butt", 1.4),
    ("m-2,0h4", "butt", 1.4),
)


class Mark(NamedTuple):
    """A value worth a line of its own in a histogram, such as the median."""

    name: str
    value: float


class _Plot(NamedTuple):
    """The area inside the axes: its corner, its size, and how values become places in it."""

    top: float
    height: float
    x: Callable[[float], float]
    y: Callable[[float], float]


def _plot(x: tuple[float, float], high: float, *, top: float = svg.TOP + 18, log: bool = False) -> _Plot:
    low, span = (math.log(x[0]), math.log(x[1] / x[0])) if log else (x[0], x[1] - x[0])
    wide = _WIDTH - _LEFT - svg.MARGIN

    def across(value: float) -> float:
        return _LEFT + wide * ((math.log(value) if log else value) - low) / (span or 1)

    return _Plot(top, _HEIGHT, across, lambda value: top + _HEIGHT * (1 - value / high))


def _grid(plot: _Plot, marks: Iterable[float], what: str, written: Callable[[float], str]) -> Iterator[str]:
    """Give the lines across a plot with their numbers, and what they count."""
    yield svg.text(svg.MARGIN, plot.top - 8, what, size=_SMALL)
    for value in marks:
        y = plot.y(value)
        yield svg.line(f"M{_xy(_LEFT, y)}H{_WIDTH - svg.MARGIN}", opacity=0.25 if value else 0.9)
        yield svg.text(_LEFT - 6, y + 4, written(value), size=_SMALL, anchor="end")


def _ticks(plot: _Plot, marks: Iterable[tuple[float, str]]) -> Iterator[str]:
    """Give the ticks below a plot; one whose words would run into the last is not written."""
    y, free = plot.top + plot.height, 0.0
    for value, words in marks:
        x, half = plot.x(value), svg.text_width(words, _SMALL) / 2
        at = min(x, _WIDTH - 4 - half)
        if at - half > free:
            yield svg.line(f"M{_xy(x, y)}v4")
            yield svg.text(at, y + 16, words, size=_SMALL, anchor="middle")
            free = at + half + 8


# --- histogram ---------------------------------------------------------------------------------------------


def histogram(
    bins: Iterable[tuple[float, float, int]],
    *,
    title: str,
    unit: str = "seconds",
    what: str = "cases",
    marks: Iterable[tuple[str, float]] = (),
    log: bool = False,
) -> str:
    """Return bins of (from, to, count) as columns; `marks` are values with names, such as quantiles.

    In `unit` "seconds" the axis is written in minutes, hours or days. With `log` it is logarithmic, which
    suits durations; bins that begin at 0 then begin at a thousandth of the smallest end.
    """
    rows = [
        (svg.finite(low, "a histogram"), svg.finite(high, "a histogram"), svg.finite(count, "a histogram"))
        for low, high, count in bins
    ]
    if not rows:
        return svg.empty(title)
    floor = min((high for _, high, _ in rows if high > 0), default=1.0)
    least = min((low for low, _, _ in rows if low > 0), default=floor)
    edge = min(floor, least) / (1 if all(low > 0 for low, _, _ in rows) else 4)
    rows = [(max(low, edge), max(high, edge), count) for low, high, count in rows] if log else rows
    low, high = min(row[0] for row in rows), max(row[1] for row in rows)
    heights = units.ticks(max(row[2] for row in rows), 4)
    lines = [Mark(name, svg.finite(value, "a histogram")) for name, value in marks]
    shown = [mark for mark in lines if low <= mark.value <= high]
    plot = _plot(
        (low, high if high > low else low + 1), heights[-1], top=svg.TOP + 18 + 14 * len(shown), log=log
    )
    parts = [
        *_grid(plot, heights, what, units.number),
        *(_column(plot, row, _span(row[0], row[1], unit)) for row in rows),
        *_ticks(plot, _value_ticks(low, high, unit, log=log)),
        *(part for at, mark in enumerate(shown) for part in _marked(plot, mark, at, unit)),
    ]
    axis = "time" if unit == "seconds" else unit
    caption = f"Across: {axis}{' (logarithmic)' if log else ''}. Upward: {what}."
    return svg.document(title, parts, width=_WIDTH, bottom=plot.top + _HEIGHT + 26, caption=caption)


def _span(low: float, high: float, unit: str) -> str:
    return f"{units.written(unit)(low)} to {units.written(unit)(high)}"


def _value_ticks(low: float, high: float, unit: str, *, log: bool) -> Iterator[tuple[float, str]]:
    if log:
        powers = [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        values = units.log_duration_ticks(low, high) if unit == "seconds" else powers
    else:
        values = units.duration_ticks(high, 6) if unit == "seconds" else units.ticks(high, 6)
    return ((value, units.written(unit)(value)) for value in values if low <= value <= high)


def _xy(x: float, y: float) -> str:
    return f"{svg.num(x)},{svg.num(y)}"


def _column(plot: _Plot, bin: tuple[float, float, float], told: str, fill: str = svg.PLAIN) -> str:
    """Return a column over a bin: from, to, count."""
    low, high, count = bin
    x, to, y = plot.x(low), plot.x(high), plot.y(count)
    wide = max(to - x - 1, 0.8)
    title = svg.titled(f"{told}: {units.number(count)}")
    return svg.tag("rect", title, x=x, y=y, width=wide, height=max(plot.y(0) - y, 0), fill=fill)


def _marked(plot: _Plot, mark: Mark, at: int, unit: str) -> Iterator[str]:
    """Give the line of a mark, its words in a row of their own above the columns."""
    x, y = plot.x(mark.value), svg.TOP + 12 + 14 * at
    words = f"{mark.name} {units.written(unit)(mark.value)}"
    right = x + svg.text_width(words, _SMALL) + 8 > _WIDTH
    yield svg.line(f"M{_xy(x, y - 8)}V{svg.num(plot.y(0))}", width=1.5, dash="4 3")
    yield svg.text(x + (-5 if right else 5), y, words, size=_SMALL, anchor="end" if right else "start")


# --- over time ---------------------------------------------------------------------------------------------


def over_time(series: Mapping[str, Sequence[tuple[date, float]]], *, title: str, what: str = "events") -> str:
    """Return counts over time (UTC): one short series as columns, several or long ones as lines.

    Each series is (start of the period, count), in the order of time; its name gives it its colour. A period
    without a row is a gap, not a zero.
    """
    rows = {
        name: [(units.stamp(at), svg.finite(value, "a chart over time")) for at, value in one]
        for name, one in series.items()
        if one
    }
    if not rows:
        return svg.empty(title)
    times = sorted({at for one in rows.values() for at, _ in one})
    step = min((two - one for one, two in pairwise(times)), default=units.DAY)
    columns = len(rows) == 1 and len(times) <= _MOST_BARS
    end = times[-1] + (step if columns or len(times) == 1 else 0)
    heights = units.ticks(max(value for one in rows.values() for _, value in one), 4)
    plot = _plot((times[0], end), heights[-1])
    legend, bottom = (
        _legend(rows, plot.top + _HEIGHT + 28) if len(rows) > 1 else ([], plot.top + _HEIGHT + 26)
    )
    parts = [
        *_grid(plot, heights, what, units.number),
        *(_periods(plot, rows, step) if columns else _lines(plot, rows, step)),
        *_ticks(plot, units.time_ticks(times[0], end)),
        *legend,
    ]
    caption = f"From {units.day(times[0])} to {units.day(times[-1])} (UTC). Upward: {what}."
    return svg.document(title, parts, width=_WIDTH, bottom=bottom, caption=caption)


def _periods(plot: _Plot, rows: Mapping[str, list[tuple[float, float]]], step: float) -> Iterator[str]:
    for name, one in rows.items():
        for at, value in one:
            yield _column(plot, (at, at + step, value), units.day(at), color_of(name) if name else svg.PLAIN)


def _broken(plot: _Plot, points: Sequence[tuple[float, float]], step: float) -> str:
    """Return a line through points that does not bridge what lies between two of them far apart."""
    path = f"M{_xy(plot.x(points[0][0]), plot.y(points[0][1]))}h.01"
    for (before, _), (at, value) in pairwise(points):
        place = _xy(plot.x(at), plot.y(value))
        path += f"M{place}h.01" if at - before > _FAR * step else f"L{place}"
    return path


def _lines(plot: _Plot, rows: Mapping[str, list[tuple[float, float]]], step: float) -> Iterator[str]:
    for place, (name, one) in enumerate(rows.items()):
        path = _broken(plot, one, step)
        color, dash = color_of(name) if name else svg.PLAIN, _DASHES[place % len(_DASHES)]
        yield svg.line(path, svg.titled(name), stroke=color, width=2, dash=dash, cap="round")


def _legend(names: Iterable[str], y: float, *, dots: bool = False) -> tuple[list[str], float]:
    """Return the names with their lines (or dots), and where that ends."""
    parts, x = [], float(_LEFT)
    for place, name in enumerate(names):
        wide = 36 + min(svg.text_width(svg.named(name), 12), 200) + 16
        if x > _LEFT and x + wide > _WIDTH:
            x, y = float(_LEFT), y + 20
        if dots:
            parts.append(_dots([(x + 8 * at, y + 4) for at in (1, 2, 3)], name, place))
        else:
            dash = _DASHES[place % len(_DASHES)]
            path = f"M{_xy(x, y + 4)}h28"
            parts.append(svg.line(path, stroke=color_of(name), width=2, dash=dash, cap="round"))
        parts.append(svg.text(x + 36, y + 8, svg.named(name), size=12, room=200))
        x += wide
    return parts, y + 20


def dotted(
    dots: Iterable[tuple[date, float, str]],
    *,
    title: str,
    what: str = "cases, by their start, downward",
    told: str = "",
) -> str:
    """Return a dot for each (time, row, activity): rows downward, time (UTC) across.

    A large log is binned first; of more than 6,000 dots every n-th is drawn, which is said. Activities differ
    in colour and in shape. What is `told` is in the caption.
    """
    places = sorted((units.stamp(at), svg.finite(row, "a dotted chart"), name) for at, row, name in dots)
    if not places:
        return svg.empty(title)
    nth = math.ceil(len(places) / _MOST_DOTS)
    shown = places[::nth]
    (first, *_), (last, *_) = places[0], places[-1]
    least, most = min(row for _, row, _ in places), max(row for _, row, _ in places)
    plot = _plot((first, last if last > first else first + 1), 1.0)
    by_name: dict[str, list[tuple[float, float]]] = {name: [] for name in sorted({one[2] for one in shown})}
    for at, row, name in shown:
        by_name[name].append((plot.x(at), plot.y(0.98 - 0.96 * (row - least) / ((most - least) or 1))))
    legend, bottom = _legend(by_name, plot.top + _HEIGHT + 28, dots=True)
    parts = [
        *_grid(plot, [0], what, lambda _: ""),
        *(_dots(places, name, place) for place, (name, places) in enumerate(by_name.items())),
        *_ticks(plot, units.time_ticks(first, last)),
        *legend,
    ]
    caption = f"Shown: {len(shown):,} of {len(places):,} dots{f', one in {nth}' if nth > 1 else ''}. "
    caption += f"{told} " if told else ""
    caption += f"From {units.day(first)} to {units.day(last)} (UTC)."
    return svg.document(title, parts, width=_WIDTH, bottom=bottom, caption=caption)


def _dots(places: Iterable[tuple[float, float]], name: str, shape: int) -> str:
    mark, cap, width = _SHAPES[shape % len(_SHAPES)]
    path = "".join(f"M{_xy(x, y)}{mark}" for x, y in places)
    return svg.line(path, svg.titled(name), stroke=color_of(name), width=width, opacity=0.85, cap=cap)
