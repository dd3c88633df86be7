"""The answer to a question: a small dataframe, what its columns mean, the SQL behind it, and what to know.

Every question about a log gives a `Result`; nothing else shows answers. Durations are in seconds, in columns
that end in `_s`; the dataframe has them as numbers, the table in a notebook as a person would say them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esim import display

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # rows of a table in a notebook
_CELL = 80  # characters of a cell
_LARGE = 1000
_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True, eq=False)
class Result:
    """What a log answers: `.df` (the figures), `.columns` (their meaning), `.sql`, `.notes`.

    `picture` makes SVG text of it, where there is a picture.
    """

    title: str
    df: pd.DataFrame
    columns: Mapping[str, str]
    sql: str
    notes: tuple[str, ...] = ()
    picture: Callable[[Result], str] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.df)

    def svg(self) -> str:
        """Return the picture as SVG text, or '' where there is none."""
        return self.picture(self) if self.picture is not None and len(self.df) else ""

    def __repr__(self) -> str:
        size = f"{len(self.df):,} row{'' if len(self.df) == 1 else 's'}"
        told = [f"<{self.title}: {size}; {', '.join(map(str, self.df.columns))}>", *self.notes]
        return "\n".join([*told, self.df.head(_SHOWN).to_string(index=False)])

    def _repr_html_(self) -> str:
        parts = [f"<b>{display.escape(self.title)}</b>", self._image(), self._table()]
        parts += [
            f'<div style="color:{display.MUTED}">{display.escape(display.cut(note, 400))}</div>'
            for note in self.notes
        ]
        return "<div>" + "".join(parts) + self._details() + "</div>"

    def _image(self) -> str:
        svg = self.svg()
        if not svg:
            return ""
        code = base64.b64encode(svg.encode()).decode()
        return (
            f'<div><img alt="{display.escape(self.title)}" '
            f'src="data:image/svg+xml;base64,{code}" style="max-width:100%"></div>'
        )

    def _table(self) -> str:
        names = [str(name) for name in self.df.columns]
        shown = self.df.head(_SHOWN).itertuples(index=False, name=None)
        rows = [[_cell(name, value) for name, value in zip(names, row, strict=True)] for row in shown]
        more = f"the first {_SHOWN} of {len(self.df):,} rows" if len(self.df) > _SHOWN else ""
        return display.table([name.removesuffix("_s") for name in names], rows, more)

    def _details(self) -> str:
        meaning = [
            [f"<code>{display.escape(name)}</code>", display.escape(text)]
            for name, text in self.columns.items()
        ]
        told = display.table(("column", "meaning"), meaning) + f"<pre>{display.escape(self.sql)}</pre>"
        return f"<details><summary>columns and SQL</summary>{told}</details>"


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - what differs from itself is missing
        return "–"
    if name.endswith("_s") and isinstance(value, int | float):
        return display.escape(span(float(value)))
    if isinstance(value, float):
        return display.escape(f"{value:,.4g}" if abs(value) < _LARGE else f"{value:,.0f}")
    if isinstance(value, int) and not isinstance(value, bool) and name != "year":
        return display.escape(f"{value:,}")
    if isinstance(value, list | tuple):
        return display.escape(display.cut(" → ".join(map(display.plain, value)), _CELL * 2))
    return display.escape(display.cut(display.plain(value), _CELL))


def span(seconds: float) -> str:
    """Return a duration in its largest unit.

    >>> span(5400), span(-0.25), span(0)
    ('1.5 h', '-250 ms', '0 s')
    """
    for size, unit in _STEPS:
        if abs(seconds) >= size:
            number = seconds / size
            return f"{number:,.3g} {unit}" if abs(number) < _LARGE else f"{number:,.0f} {unit}"
    return f"{seconds * 1000:.3g} ms" if seconds else "0 s"
