"""The answer to a question: a small dataframe, what its columns mean, the SQL behind it, and what to know.

Every question about a log gives a `Result`; nothing else shows answers. Durations are in seconds, in columns
that end in `_s`; the dataframe has them as numbers, the table in a notebook as a person would say them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esim import display, svg
from esim.errors import EsimError, InvalidArgument
from esim.processgraph import ProcessGraph
from esim.processmap import process_map
from esim.units import percent

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _BESIDE = 20, 8  # rows of a table in a notebook; of one below a picture
_CELL = 80  # characters of a cell
_LARGE = 1000
_PARTS = ("coverage", "conversion", "overall", "retention", "share_here", "share_there")  # parts of one
_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True)
class Picture:
    """A picture as SVG text, to show or to save."""

    svg: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write it as an SVG file and return its path."""
        target = Path(path)
        target.write_text(self.svg, encoding="utf-8")
        return target

    def __repr__(self) -> str:
        return f"<Picture: {svg.alternative(self.svg)}>"

    def _repr_html_(self) -> str:
        return svg.img(self.svg)


@dataclass(frozen=True, eq=False)
class Result:
    """What a log answers: `.df` (the figures), `.columns` (their meaning), `.sql`, `.notes`, `.picture`.

    `draw` makes SVG text of the figures and the title, `flows` a graph of them, where that can be done; both
    when they are first looked at.
    """

    title: str
    df: pd.DataFrame
    columns: Mapping[str, str]
    sql: str
    notes: tuple[str, ...] = ()
    draw: Callable[[pd.DataFrame, str], str] | None = field(default=None, repr=False)
    flows: Callable[[pd.DataFrame], ProcessGraph] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.df)

    @cached_property
    def graph(self) -> ProcessGraph:
        """The answer as a graph, as `esim.view.ProcessMap` (with a slider), `mermaid` and `dot` take it.

        Raises InvalidArgument where the answer is none.
        """
        if self.flows is None:
            raise InvalidArgument(f"{self.title!r} is no graph: ask directly_follows() for one")
        return self.flows(self.df)

    @cached_property
    def picture(self) -> Picture:
        """The picture of the answer. Raises InvalidArgument where there is none."""
        if not self._drawn:
            raise InvalidArgument(f"{self.title!r} has no picture; its figures are in .df")
        return Picture(self._drawn)

    def svg(self) -> str:
        """Return the picture as SVG text, or '' where there is none."""
        return self._drawn

    @cached_property
    def _drawn(self) -> str:
        if not len(self.df):
            return ""
        if self.flows is not None:
            return process_map(self.graph, title=self.title)
        return "" if self.draw is None else self.draw(self.df, self.title)

    def __repr__(self) -> str:
        size = f"{len(self.df):,} row{'' if len(self.df) == 1 else 's'}"
        told = [f"<{self.title}: {size}; {', '.join(map(str, self.df.columns))}>", *self.notes]
        return "\n".join([*told, self.df.head(_SHOWN).to_string(index=False)])

    def _repr_html_(self) -> str:
        image = self._image()
        parts = [image or f"<b>{display.escape(self.title)}</b>", self._table(_BESIDE if image else _SHOWN)]
        parts += [_muted(note) for note in self.notes]
        return "<div>" + "".join(parts) + self._details() + "</div>"

    def _image(self) -> str:
        """Return the picture; of a log that is closed by now, why there is none."""
        try:
            drawn = self._drawn
            return f"<div>{svg.img(drawn)}</div>" if drawn else ""
        except EsimError as error:
            told = f"no picture, for which the log is asked again: {error}"
            return f"<b>{display.escape(self.title)}</b>{_muted(told)}"

    def _table(self, most: int) -> str:
        names = [str(name) for name in self.df.columns]
        head = self.df.head(most)
        shown = head.astype(object).where(head.notna(), None).itertuples(index=False, name=None)
        rows = [[_cell(name, value) for name, value in zip(names, row, strict=True)] for row in shown]
        more = f"the first {most} of {len(self.df):,} rows" if len(self.df) > most else ""
        return display.table([name.removesuffix("_s") for name in names], rows, more)

    def _details(self) -> str:
        meaning = [
            [f"<code>{display.escape(name)}</code>", display.escape(text)]
            for name, text in self.columns.items()
        ]
        told = display.table(("column", "meaning"), meaning) + f"<pre>{display.escape(self.sql)}</pre>"
        return f"<details><summary>columns and SQL</summary>{told}</details>"


def _muted(note: str) -> str:
    return f'<div style="color:{display.MUTED}">{display.escape(display.cut(note, 400))}</div>'


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name.endswith("_s") and isinstance(value, int | float):
        return display.escape(_unbroken(span(float(value))))
    if isinstance(value, float):
        return display.escape(_number(name, value))
    if isinstance(value, int) and not isinstance(value, bool) and name != "year":
        return display.escape(f"{value:,}")
    if isinstance(value, list | tuple):
        return display.escape(display.cut(" → ".join(map(display.plain, value)), _CELL * 2))
    return display.escape(display.cut(display.plain(value), _CELL)) if value != "" else ""


def _number(name: str, value: float) -> str:
    if name in _PARTS or name.endswith("share"):
        return _unbroken(percent(value))
    return f"{value:,.4g}" if abs(value) < _LARGE else f"{value:,.0f}"


def _unbroken(words: str) -> str:
    return words.replace(" ", "\u00a0")


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
