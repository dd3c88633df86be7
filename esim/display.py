"""How things look in a notebook: pure functions from values to escaped HTML and short text.

Every string that comes from data passes through `escape`. Only tags and inline styles are used that
JupyterLab shows in an untrusted notebook; colours are mid-tones that read on light and on dark.
"""

from __future__ import annotations

import dataclasses
import difflib
import html
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

_PALETTE = (  # white text on each has a contrast of 4.5 at least; no red, which is for failure only
    *("#2c78b3", "#a46605", "#208060", "#845cc4", "#0d7f8c", "#946320", "#567a1c", "#aa4f99"),
    *("#5570c4", "#1f8249", "#95664a", "#667584"),
)
_SALT = "122"  # with it the event types of one shop state never share a colour
FAILURE = "#c8332b"
_JOINERS = "\u200c\u200d"  # they make one sign of several, in Persian and in emoji
MUTED = "var(--jp-ui-font-color2,#737b88)"


def escape(value: object) -> str:
    """Return a value as text that is safe inside HTML, in elements and in quoted attributes.

    >>> escape("<b onclick='x'>")
    '&lt;b onclick=&#x27;x&#x27;&gt;'
    """
    return html.escape(value if isinstance(value, str) else str(value), quote=True)


def short(value: object, limit: int = 60) -> str:
    """Return a value's repr, cut to `limit` characters."""
    return cut(repr(value), limit)


def plain(value: object) -> str:  # noqa: PLR0911 - one line for each kind of value
    """Return a value as a person would write it: text unquoted, a Decimal as its digits, a time in ISO 8601.

    >>> from decimal import Decimal
    >>> plain(["mug", Decimal("7.50"), None])
    '[mug, 7.50, –]'
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return str(value) or "''"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="auto").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{plain(key)}: {plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = map(plain, value)
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    named = getattr(value, "__pydantic_fields__", None)
    if named is not None and not isinstance(value, type):
        return plain({name: getattr(value, name) for name in named})
    kind = type(value)
    if (
        dataclasses.is_dataclass(kind)
        and kind.__str__ is object.__str__
        and hasattr(kind.__repr__, "__wrapped__")
    ):
        told = [
            f"{one.name}={plain(getattr(value, one.name))}" for one in dataclasses.fields(kind) if one.repr
        ]
        return f"{kind.__qualname__.rpartition('.')[2]}({', '.join(told)})"  # in it, sets are sorted
    return str(value)


def cut(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, its end marked where some are missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean(text: str) -> str:
    """Return text on one line, with what does not print (and could deceive the eye) as its escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _JOINERS else "⏎ " if char == "\n" else ascii(char)[1:-1]
        for char in text
    )


def arguments(values: Mapping[str, Any]) -> str:
    """Return a mapping as keyword arguments: `a=1, b='x'`."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or what there is, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(sorted(known)[:12])}" if known else ""


def color_of(type_name: str) -> str:
    """Return the one fixed colour of an event type, the same in every picture and every run."""
    return _PALETTE[zlib.crc32((_SALT + type_name).encode(errors="surrogatepass")) % len(_PALETTE)]


def badge(type_name: str) -> str:
    """Return an event type's name in its colour, as an HTML label."""
    style = f"background:{color_of(type_name)};color:#fff;border-radius:3px;padding:1px 7px;font-weight:600"
    return f'<span style="{style};white-space:nowrap">{escape(type_name)}</span>'


def fields(values: Mapping[str, Any]) -> str:
    """Return names and values as one line of HTML."""
    return " &nbsp; ".join(
        f'<span style="color:{MUTED}">{escape(name)}</span> {escape(cut(plain(value), 80))}'
        for name, value in values.items()
    )


def card(*parts: str, note: str = "") -> str:
    """Return HTML parts side by side; `note` (plain text) is set small at the end."""
    small = f'<span style="color:{MUTED};font-size:90%">{escape(note)}</span>' if note else ""
    cells = "".join(f'<span style="margin-right:1em">{part}</span>' for part in (*parts, small) if part)
    return f'<div style="font-family:var(--jp-code-font-family,monospace);line-height:1.9">{cells}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return an HTML table; `header` and `caption` are plain text, cells are HTML made by these helpers."""
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    title = f'<div style="color:{MUTED};text-align:left">{escape(caption)}</div>' if caption else ""
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
