"""The ways that cases take, as rows of chevrons: the variants of a log at a glance.

Each activity has its one fixed colour and a short sign of its own, which a legend spells out, so that the
picture reads without colour. Repeats are counted in one chevron, long ways are cut in the middle, and how
many variants and cases are not shown is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from numbers import Integral
from typing import NamedTuple

from esim import svg
from esim.display import clean, color_of
from esim.errors import InvalidArgument
from esim.units import duration, percent

_HEIGHT, _ROW, _NOTCH, _SIZE = 22, 30, 7, 11
_LEAST, _REPEATS = 34, 3  # the narrowest chevron; so many equal steps in a row become one
_COLUMNS = (("cases", 56), ("share", 56), ("so far", 58), ("median time", 84))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")


class _Step(NamedTuple):
    words: str
    activity: str | None  # None: steps that are left out
    title: str


def variants_chart(
    variants: Iterable[Sequence[object]],
    *,
    title: str = "Variants",
    cases: int | None = None,
    total: int | None = None,
    limit: int = 12,
    steps: int = 14,
) -> str:
    """Return variants as SVG text, the most frequent first: rows of (activities, count, median seconds).

    The seconds may be missing. `cases` and `total` count the cases and the variants of the whole log where
    not all are given; of those given the first `limit` are drawn, each with at most `steps` chevrons.
    """
    rows = sorted(map(_row, variants), key=lambda row: (-row[1], row[0]))
    if not rows:
        return svg.empty(title)
    total = max(total or 0, len(rows))
    cases = max(cases or 0, sum(count for _, count, _ in rows))
    shown = rows[:limit]
    signs = abbreviations(name for names, _, _ in shown for name in names)
    timed = any(seconds is not None for *_, seconds in shown)
    columns = _COLUMNS if timed else _COLUMNS[:3]
    left = svg.MARGIN + sum(wide for _, wide in columns) + 18
    parts, y, width, so_far = list(_header(columns, left)), svg.TOP + 20.0, left + 200.0, 0
    for names, count, seconds in shown:
        so_far += count
        shares = (percent(count / (cases or 1)), percent(so_far / (cases or 1)))
        told = (f"{count:,}", *shares, duration(seconds))
        parts += _cells(told[: len(columns)], columns, y)
        chevrons, end = _chevrons(_steps(names, signs, steps), left, y)
        parts.append(chevrons)
        width, y = max(width, end + svg.MARGIN), y + _ROW
    legend, bottom = _legend(signs, max(width, 640), y + 8)
    caption = f"Shown: {len(shown)} of {total:,} variants, {percent(so_far / (cases or 1))} of "
    caption += f"{cases:,} cases. ×n: n times in a row; +n: n more steps."
    return svg.document(title, [*parts, *legend], width=max(width, 640), bottom=bottom, caption=caption)


def _row(row: Sequence[object]) -> tuple[tuple[str, ...], int, float | None]:
    names, count, seconds = row[0], row[1], row[2] if len(row) > 2 else None  # noqa: PLR2004
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidArgument(f"{names!r} is not the trace of a variant; give a list of activities")
    if not isinstance(count, Integral) or count < 0:
        raise InvalidArgument(f"{count!r} is not a count of cases; give a whole number from 0")
    return tuple(map(str, names)), int(count), svg.measure(seconds)


def _steps(names: Sequence[str], signs: dict[str, str], most: int) -> list[_Step]:
    """Return what a row shows: repeats in one, and a step that counts those left out of a long middle."""
    folded: list[tuple[str, int]] = []
    for name, run in groupby(names):
        times = len(list(run))
        folded += [(name, times)] if times >= _REPEATS else [(name, 1)] * times
    made = [
        _Step(signs[name] + (f" ×{n}" if n > 1 else ""), name, f"{name} ×{n}" if n > 1 else name)
        for name, n in folded
    ]
    if len(made) <= most:
        return made
    head, tail = most - 1 - most // 3, most // 3
    left_out = sum(times for _, times in folded[head : len(folded) - tail])
    return [*made[:head], _Step(f"+{left_out}", None, f"{left_out} more steps"), *made[len(made) - tail :]]


def _header(columns: Sequence[tuple[str, int]], left: float) -> Iterator[str]:
    x = float(svg.MARGIN)
    for name, wide in columns:
        x += wide
        yield svg.text(x, svg.TOP + 8, name, size=_SIZE, anchor="end")
    yield svg.text(left, svg.TOP + 8, "what happens, in this order", size=_SIZE)


def _cells(told: Sequence[str], columns: Sequence[tuple[str, int]], y: float) -> Iterator[str]:
    x = float(svg.MARGIN)
    for at, (words, (_, wide)) in enumerate(zip(told, columns, strict=True)):
        x += wide
        yield svg.text(x, y + 15, words, size=12, anchor="end", bold=at == 0)


def _chevrons(steps: Sequence[_Step], x: float, y: float) -> tuple[str, float]:
    """Return a row of chevrons from `x` on, and where it ends."""
    drawn = []
    for at, step in enumerate(steps):
        wide = max(_LEAST, svg.text_width(step.words, _SIZE, bold=True) + 2 * _NOTCH + 6)
        drawn.append(_chevron(step, x, y, wide, notch=_NOTCH if at else 0))
        x += wide - _NOTCH + 3
    return svg.tag("g", *drawn) if drawn else "", x + _NOTCH


def _chevron(step: _Step, x: float, y: float, wide: float, *, notch: float) -> str:
    half = _HEIGHT / 2
    path = (
        f"M{svg.num(x)},{svg.num(y)}h{svg.num(wide - _NOTCH)}l{_NOTCH},{half:g}l-{_NOTCH},{half:g}"
        f"h-{svg.num(wide - _NOTCH)}l{svg.num(notch)},-{half:g}z"
    )
    plain = step.activity is None
    shape = svg.tag(
        "path",
        d=path,
        fill="none" if step.activity is None else color_of(step.activity),
        stroke=svg.INK if plain else None,
    )
    ink = svg.INK if plain else "#fff"
    words = svg.text(
        x + (wide + notch - _NOTCH / 2) / 2,
        y + 15,
        step.words,
        size=_SIZE,
        fill=ink,
        anchor="middle",
        bold=True,
    )
    return svg.tag("g", svg.titled(step.title), shape, words)


def _legend(signs: dict[str, str], width: float, y: float) -> tuple[list[str], float]:
    """Return what each sign stands for, in lines of at most `width`, and where that ends."""
    parts, x = [], float(svg.MARGIN)
    for name, sign in signs.items():
        words = svg.fit(svg.named(name), 220, 12)
        box = max(30, svg.text_width(sign, _SIZE, bold=True) + 10)
        wide = box + 6 + svg.text_width(words, 12) + 18
        if x > svg.MARGIN and x + wide > width:
            x, y = float(svg.MARGIN), y + 24
        parts += [
            svg.tag("rect", x=x, y=y, width=box, height=18, rx=4, fill=color_of(name)),
            svg.text(x + box / 2, y + 13, sign, size=_SIZE, fill="#fff", anchor="middle", bold=True),
            svg.text(x + box + 6, y + 13, svg.named(name), size=12, room=220),
        ]
        x += wide
    return parts, y + 26


def abbreviations(names: Iterable[str]) -> dict[str, str]:
    """Return a short sign for each name, no two the same: its initials, or its first letters, or a number.

    >>> abbreviations(["OrderPlaced", "OrderPaid", "Awaiting User Info", "New"])
    {'OrderPlaced': 'OPl', 'OrderPaid': 'OPa', 'Awaiting User Info': 'AUI', 'New': 'Ne'}
    """
    distinct = tuple(dict.fromkeys(names))
    choices = {name: list(_signs(clean(name))) for name in distinct}
    signs: dict[str, str] = {}
    for name in distinct:
        others = {sign for one in distinct if one != name for sign in choices[one][:1]}
        free = (sign for sign in choices[name] if sign not in signs.values())
        sign = next((one for one in free if one not in others), "")
        signs[name] = sign or next(
            f"{n}" for n in range(1, len(distinct) + 1) if f"{n}" not in signs.values()
        )
    return signs


def _signs(name: str) -> Iterator[str]:
    words = _WORD.findall(name) or re.findall(r"\S", name) or ["?"]
    if len(words) > 1:
        yield "".join(word[0] for word in words[:4])
        yield "".join(word[0] for word in words[:-1][:3]) + words[-1][:2]
        yield words[0][:2] + words[1][:2]
    yield words[0][:2]
    yield words[0][:3]
    yield words[0][:4]
