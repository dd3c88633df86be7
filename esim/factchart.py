"""Charts of a log as a whole as SVG text: its figures as cards, what differs in it, which fields it has when.

As in the charts of rows, a length or a shade only says again what words say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from esim import svg, units

_ACROSS, _WIDE, _HIGH, _GAP = 4, 164, 60, 10  # cards in a row, and their size
_LONG, _SMALL = 130, 11  # the longest bar to either side
_NAMES = (80.0, 300.0)  # the least and the most room for names
_CELL, _TALL = 30, 24  # from one cell to the next, and from one row to the next
_MANY = 24  # periods that a picture has room for
_NUMBERED = 99.95  # percent; what is written as a hundred


def cards(facts: Iterable[tuple[str, str]], *, title: str, caption: str = "") -> str:
    """Return facts, each a figure and what it counts, as cards."""
    given = list(facts)
    if not given:
        return svg.empty(title)
    parts: list[str] = []
    for at, (figure, words) in enumerate(given):
        x = svg.MARGIN + (_WIDE + _GAP) * (at % _ACROSS)
        y = svg.TOP + (_HIGH + _GAP) * (at // _ACROSS)
        parts += [
            svg.tag("rect", x=x, y=y, width=_WIDE, height=_HIGH, rx=6, fill="none", stroke=svg.INK,
                    stroke_opacity="0.4"),
            svg.text(x + 12, y + 28, figure, size=19, bold=True, room=_WIDE - 24),
            svg.text(x + 12, y + 47, words, size=_SMALL, room=_WIDE - 24),
        ]  # fmt: skip
    bottom = svg.TOP + (_HIGH + _GAP) * math.ceil(len(given) / _ACROSS)
    width = 2 * svg.MARGIN + (_WIDE + _GAP) * min(len(given), _ACROSS) - _GAP
    return svg.document(title, parts, width=width, bottom=bottom, caption=caption)


def differences(
    rows: Iterable[tuple[str, float, float, str]], *, title: str, limit: int = 14, caption: str = ""
) -> str:
    """Return (name, share here, share there, more words) as bars from a middle: to the right is more here.

    Rows are drawn in the given order, at most `limit` of them; shares are parts of one.
    """
    given = [
        (name, svg.finite(here, "a difference"), svg.finite(there, "a difference"), words)
        for name, here, there, words in rows
    ]
    if not given:
        return svg.empty(title)
    shown = given[:limit]
    most = max(abs(here - there) for _, here, there, _ in shown) or 1
    middle = _end_of_names(name for name, *_ in shown) + _LONG + 66
    parts, y, width = list(_sides(middle)), svg.TOP + 26.0, 0.0
    for name, here, there, words in shown:
        told = f"{units.percent(here)} here, {units.percent(there)} there{f' · {words}' if words else ''}"
        parts += _apart(name, here - there, most, middle, y)
        parts.append(svg.text(middle + _LONG + 66, y + 14, told, size=_SMALL))
        width = max(width, svg.text_width(told, _SMALL))
        y += 26
    parts.append(svg.line(f"M{svg.num(middle)},{svg.TOP + 22}V{svg.num(y)}", opacity=0.9))
    more = f"Shown: {limit} of {len(given):,} rows. " if len(given) > limit else ""
    caption = f"{more}Bars: the share here less the share there, in percentage points. {caption}".strip()
    wide = middle + _LONG + 66 + width + svg.MARGIN
    return svg.document(title, parts, width=wide, bottom=y + 4, caption=caption)


def _end_of_names(names: Iterable[str]) -> float:
    widest = max((svg.text_width(svg.named(name), 12) for name in names), default=0.0)
    return math.ceil(svg.MARGIN + min(max(widest, _NAMES[0]), _NAMES[1]) + 8.1)


def _sides(middle: float) -> Iterator[str]:
    yield svg.text(middle - 8, svg.TOP + 12, "◂ less here", size=_SMALL, anchor="end")
    yield svg.text(middle + 8, svg.TOP + 12, "more here ▸", size=_SMALL)


def _apart(name: str, change: float, most: float, middle: float, y: float) -> Iterator[str]:
    """Give a row's name, its bar to one side of the middle, and the change in words."""
    wide = max(_LONG * abs(change) / most, 1)
    points = f"{100 * change:+.1f}".replace("-", "−")
    words = "≈ 0" if points in ("+0.0", "−0.0") else points
    room = middle - _LONG - 66 - 8 - svg.MARGIN
    x, end, anchor = (middle, middle + wide + 6, None) if change >= 0 else (
        middle - wide, middle - wide - 6, "end"
    )  # fmt: skip
    yield svg.text(middle - _LONG - 66 - 8, y + 14, svg.named(name), size=12, anchor="end", room=room)
    yield svg.tag(
        "rect", svg.titled(f"{name}: {words} points"), x=x, y=y, width=wide, height=20, rx=2, fill=svg.PLAIN
    )
    yield svg.text(end, y + 14, words, size=12, anchor=anchor)


class Seen(NamedTuple):
    """A field of an activity over time: of each period, by its place, which part has it and what changed."""

    activity: str
    field: str
    cells: Sequence[tuple[int, float, str]]


def presence(
    fields: Iterable[Seen], periods: Sequence[str], *, title: str, total: int, caption: str = ""
) -> str:
    """Return a row for each field and a cell for each period: full, empty with a frame, or a percentage.

    What changed, as a sign, is in the cell. `total` is how many fields there are in all; of many `periods`,
    which are in the order of time, the latest 24 are drawn.
    """
    rows = list(fields)
    if not rows or not periods:
        return svg.empty(title)
    first = max(len(periods) - _MANY, 0)
    left = _end_of_names(f"{one.activity} · {one.field}" for one in rows)
    y, parts = svg.TOP + 24.0, list(_named_periods(periods[first:], left))
    for one in rows:
        name = f"{svg.named(one.activity)} · {svg.named(one.field)}"
        parts.append(svg.text(left - 8, y + 15, name, size=12, anchor="end", room=left - 8 - svg.MARGIN))
        for place, share, sign in one.cells:
            if place >= first:
                parts += _cell(left + _CELL * (place - first), y, share, sign)
        y += _TALL
    told = [
        f"Shown: {len(rows)} of {total:,} fields." if len(rows) < total else "",
        f"The latest {_MANY} of {len(periods)} periods." if first else "",
        caption,
    ]
    width = left + _CELL * (len(periods) - first) + svg.MARGIN
    return svg.document(
        title, parts, width=max(width, 520), bottom=y, caption=" ".join(filter(None, told))
    )  # fmt: skip


def _named_periods(names: Sequence[str], left: float) -> Iterator[str]:
    """Give the names of the periods that there is room for, above their columns."""
    free = 0.0
    for at, name in enumerate(names):
        x = left + _CELL * at
        if x >= free:
            yield svg.text(x, svg.TOP + 14, name, size=_SMALL)
            free = x + svg.text_width(name, _SMALL) + 8


def _cell(x: float, y: float, share: float, sign: str) -> Iterator[str]:
    percent = 100 * min(max(share, 0.0), 1.0)
    full = percent >= _NUMBERED
    words = sign or ("" if full or not percent else f"{percent:.0f}" if percent >= 1 else "<1")
    fill = svg.PLAIN if percent else "none"
    box = {"width": _CELL - 3, "height": _TALL - 4, "rx": 3}
    yield svg.tag("rect", x=x, y=y, **box, fill=fill, stroke=None if percent else svg.INK,
                  stroke_opacity=None if percent else "0.5")  # fmt: skip
    if words:
        ink = "#fff" if percent else svg.INK
        yield svg.text(
            x + (_CELL - 3) / 2, y + 14, words, size=_SMALL, fill=ink, anchor="middle", bold=bool(sign)
        )
