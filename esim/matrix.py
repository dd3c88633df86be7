"""What becomes of a crash: a table for each process, of events by the places where it can die."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esim import display
from esim.player import failing
from esim.recording import Choice, Run
from esim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd


class Matrix:
    """A crash at each place of a run without other faults, and whether everything held after it."""

    def __init__(self, scenario: Scenario, base: Run, cells: list[tuple[Choice, Run]]) -> None:
        """Keep the run without a fault, and one for each place to die at."""
        self.scenario, self.base = scenario, base
        self.cells = cells
        self._failing = failing(base.stage.players)

    @property
    def holds(self) -> bool:
        """Whether everything held without a crash, and wherever the process died."""
        empty = any(one.wholly for one in self._failing)
        return not empty and all(run.broken is None for run in (self.base, *(run for _, run in self.cells)))

    def _told(self) -> str:
        good = sum(run.broken is None for _, run in self.cells)
        told = [f"{good} of {len(self.cells)} crashes do no harm"]
        if self._failing:
            told.insert(0, f"without a crash, {'; '.join(one.told for one in self._failing)}")
        if self.base.broken is not None:
            told.insert(0, "broken without a crash: {!r}, {}".format(*self.base.broken))
        return "; ".join(told)

    def df(self) -> pd.DataFrame:
        """Return a row for each crash: process, position, place, what it was about to do, holds, token."""
        import pandas as pd

        rows = [
            (*(one.process, one.position, one.place, one.told), run.broken is None, run.token)
            for one, run in self.cells
        ]
        return pd.DataFrame(rows, columns=["process", "position", "place", "told", "holds", "token"])

    def _tables(self) -> dict[str, tuple[list[str], list[list[str]]]]:
        """Return for each process the header of its table, and its rows."""
        cells: dict[str, dict[int, dict[str, list[bool]]]] = {}
        for one, run in self.cells:
            row = cells.setdefault(one.process, {}).setdefault(one.position, {})
            row.setdefault(one.place, []).append(run.broken is None)
        tables = {}
        for process, rows in cells.items():
            places = list(dict.fromkeys(place for row in rows.values() for place in row))
            marked = [
                [self._named(at), *(_mark(row.get(place)) for place in places)] for at, row in rows.items()
            ]
            tables[process] = ["event", *places], marked
        return tables

    def _named(self, position: int) -> str:
        found = self.base.stage.store.read(after=position - 1, until=position).first() if position else None
        return f"{position} {found.type}" if found else "–"

    def __repr__(self) -> str:
        lines, tables = [f"<{self._told()}>"], self._tables()
        for process, (header, body) in tables.items():
            lines += [f"{process}:"] if len(tables) > 1 else []
            lines += [" | ".join(row) for row in (header, *body)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        html, tables = (
            [f'<div style="color:{display.MUTED}">{display.escape(self._told())}</div>'],
            self._tables(),
        )
        for process, (header, body) in tables.items():
            rows = [[display.escape(row[0]), *map(_colored, row[1:])] for row in body]
            html.append(display.table(header, rows, process if len(tables) > 1 else ""))
        return "".join(html)


def _mark(held: list[bool] | None) -> str:
    return "" if held is None else "✓" if all(held) else "✗"


def _colored(mark: str) -> str:
    return f'<b style="color:{display.FAILURE}">✗</b>' if mark == "✗" else mark
