"""SVG as text: escaped elements, estimated text widths, and the one way a picture gets into a page.

A picture knows nothing of the page it stands on: its ground is transparent, its ink a mid-tone with a
contrast above 4 on white and on black. It has a title and a caption, in writing and for a screen reader.
In a notebook it goes out as `img`, an `<img>` with a data URI: JupyterLab shows nothing else of SVG while a
notebook is not trusted.
"""

from __future__ import annotations

import base64
import html
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real

from esim.display import clean, escape
from esim.errors import InvalidArgument

INK = "#737b88"
PLAIN = "#2c78b3"  # what is no event type
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
MARGIN = 16
TOP = 42  # the drawing begins below its title
_SMALL, _LINE = 11, 15
_NARROW, _WIDE = set("fijlrtI1.,:;'|!()[]{}·` /\\-"), set("mwMW@%—…")
_LONGEST = 2_000  # characters of a text are kept in its <title>


def num(value: float) -> str:
    """Return a coordinate with at most one decimal. Raises InvalidArgument for one that is not finite."""
    if not math.isfinite(value):
        raise InvalidArgument(f"{value} cannot be drawn: a picture needs finite numbers; leave the row out")
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def measure(value: object) -> float | None:
    """Return a share or a span as a number; what is missing, or is no number, is None."""
    return float(value) if isinstance(value, Real | Decimal) and math.isfinite(value) else None


def finite(value: object, where: str) -> float:
    """Return a number that can be drawn. Raises InvalidArgument for anything else."""
    if not isinstance(value, Real | Decimal) or not math.isfinite(value):
        raise InvalidArgument(f"{value!r} is not a number that {where} could show; leave the row out")
    return float(value)


def tag(name: str, *inside: str, **attributes: str | float | None) -> str:
    """Return an element; `inside` is markup, attributes are escaped (`text_anchor` becomes `text-anchor`)."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else num(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(inside)}</{name}>" if inside else f"<{name}{written}/>"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 12,
    fill: str = INK,
    anchor: str | None = None,
    bold: bool = False,
    room: float | None = None,
) -> str:
    """Return a line of text with its baseline at `y`; where it does not fit `room` it is cut and titled."""
    line = clean(words)
    shown = line if room is None else fit(line, room, size, bold=bold)
    inside = escape(shown) if shown == line else titled(words) + escape(shown)
    weight = "600" if bold else None
    anchor = None if anchor == "start" else anchor
    return tag("text", inside, x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, font_weight=weight)


def line(
    path: str,
    *inside: str,
    stroke: str = INK,
    width: float = 1,
    opacity: float | None = None,
    dash: str | None = None,
    cap: str | None = None,
) -> str:
    """Return a stroke along a path."""
    return tag(
        "path",
        *inside,
        d=path,
        fill="none",
        stroke=stroke,
        stroke_width=width,
        stroke_opacity=None if opacity is None else f"{opacity:g}",
        stroke_dasharray=dash,
        stroke_linecap=cap,
    )


def named(words: str) -> str:
    """Return a name as it is drawn: one without anything to see as its quotes."""
    return clean(words) if words.strip() else repr(clean(words))


def titled(words: str) -> str:
    """Return a `<title>`: what a pointer shows over the element it stands in."""
    line = clean(words)
    return tag("title", escape(line if len(line) <= _LONGEST else line[:_LONGEST] + "…"))


def text_width(words: str, size: float = 12, *, bold: bool = False) -> float:
    """Return about how wide a text is in pixels, rather too much than too little."""
    return sum(map(_em, words)) * size * (1.1 if bold else 1)


def _em(char: str) -> float:
    if char in _NARROW:
        return 0.36
    if char < "\u0300":
        return 0.95 if char in _WIDE else 0.72 if char.isupper() else 0.61
    if unicodedata.combining(char) or char in "\u200c\u200d":
        return 0.0
    return 1.3 if unicodedata.east_asian_width(char) in "WF" else 0.8


def fit(words: str, room: float, size: float = 12, *, bold: bool = False) -> str:
    """Return a text that is at most `room` wide, cut in the middle: names often differ at their ends."""
    if text_width(words, size, bold=bold) <= room:
        return words
    keep = min(len(words), 400)  # no line is longer
    keep = bisect_right(range(1, keep), room, key=lambda many: text_width(_cut(words, many), size, bold=bold))
    while keep > 1 and text_width(_cut(words, keep), size, bold=bold) > room:
        keep -= 1
    return _cut(words, keep)


def _cut(words: str, keep: int) -> str:
    head, tail = keep - keep * 2 // 5, keep * 2 // 5
    return f"{words[:head].rstrip()}…{words[len(words) - tail :].lstrip()}"


def wrap(words: str, room: float, size: float = _SMALL) -> list[str]:
    """Return a text as lines of at most `room`, broken at spaces."""
    lines: list[str] = []
    for word in clean(words).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fit(word, room, size))
    return lines


def document(title: str, body: Iterable[str], *, width: float, bottom: float, caption: str = "") -> str:
    """Return a whole picture: its title, `body` between `TOP` and `bottom`, and the caption below."""
    name = fit(clean(title), 760, 14, bold=True)
    width = math.ceil(max(width, text_width(name, 14, bold=True) + 2 * MARGIN, 320))
    lines = wrap(caption, width - 2 * MARGIN)
    height = math.ceil(bottom + len(lines) * _LINE + (14 if lines else 8))
    parts = [
        titled(title),
        tag("desc", escape(clean(caption))) if caption else "",
        text(MARGIN, 24, name, size=14, bold=True),
        *body,
        *(text(MARGIN, bottom + _LINE * (at + 1), line, size=_SMALL) for at, line in enumerate(lines)),
    ]
    return tag(
        "svg",
        "\n".join(part for part in parts if part),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        font_family=FONT,
    )


def empty(title: str) -> str:
    """Return the picture of no rows: it has its title, and says that there is nothing."""
    words = "nothing to show: there are no rows"
    return document(title, [text(MARGIN, TOP + 20, words)], width=320, bottom=TOP + 30)


def img(svg: str, alt: str = "") -> str:
    """Return an SVG picture as an HTML `<img>` that needs no network and no trust.

    `alt` says in words what it shows; without it, the picture's own title and caption are taken.
    """
    words = escape(alt or alternative(svg))
    return f'<img src="{data_uri(svg)}" alt="{words}" style="max-width:100%">'


def alternative(svg: str) -> str:
    """Return in words what a picture shows: its title and its caption, as plain text."""
    found = [re.search(f"<{name}>(.*?)</{name}>", svg) for name in ("title", "desc")]
    return html.unescape(". ".join(one[1] for one in found if one)) or "a picture"


def data_uri(svg: str) -> str:
    """Return a picture as an address that holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
