"""The pictures of answers: from the dataframe of each question to SVG text, drawn when they are looked at.

What a picture leaves out it says in its caption. A graph needs the counts of its activities beside its flows;
how many cases begin with an activity is then how often it happened less how often something came before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from esim import chart, rowchart
from esim.chevrons import variants_chart
from esim.processgraph import ProcessGraph, process_graph

if TYPE_CHECKING:
    import pandas as pd

Rows = Callable[[str], list[Any]]
"""Gives the rows of a query over the views of a log."""

Draw = Callable[["pd.DataFrame", str], str]
"""Makes SVG text of an answer and its title."""

_BINS = 24
_SERIES = 8
_NODES = """SELECT activity, sum(n)::BIGINT, count(*) / (SELECT count(DISTINCT s) FROM e)
FROM (SELECT s, a, count(*) AS n FROM e GROUP BY s, a) JOIN activities USING (a) GROUP BY activity"""
_SPREAD = ("p5_s", "p25_s", "p50_s", "p75_s", "p95_s")


# --- graphs ------------------------------------------------------------------------------------------------


def graph(rows: Rows, nodes: str = _NODES) -> Callable[[pd.DataFrame], ProcessGraph]:
    """Return what makes a graph of all flows (source, target, count, and mean_s and median_s if there).

    `nodes` is the query of the activities: name, how often, in which share of the cases.
    """

    def made(flows: pd.DataFrame) -> ProcessGraph:
        found = rows(nodes)
        times = [name for name in ("mean_s", "median_s") if name in flows]
        taken = _tuples(flows, "source", "target", "count", *times)
        into, out = (flows.groupby(side)["count"].sum().to_dict() for side in ("target", "source"))
        starts = {name: count - into.get(name, 0) for name, count, _ in found}
        ends = {name: count - out.get(name, 0) for name, count, _ in found}
        return process_graph(found, taken, _positive(starts), _positive(ends))

    return made


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


# --- ways --------------------------------------------------------------------------------------------------


def variants(total: int | None) -> Draw:
    """Return what draws variants, of which there are `total` in the log."""

    def draw(found: pd.DataFrame, title: str) -> str:
        cases = round(found["cases"].iloc[0] / found["share"].iloc[0])
        rows = _tuples(found, "variant", "cases", *(["median_s"] if "median_s" in found else []))
        return variants_chart(rows, title=title, cases=cases, total=total)

    return draw


# --- rows --------------------------------------------------------------------------------------------------


def bars(
    name: str, value: str, unit: str, *, colored: bool = False, caption: str = "", top: int = 12
) -> Draw:
    """Return what draws a bar for each row: the column of names, that of values, and their unit."""

    def draw(found: pd.DataFrame, title: str) -> str:
        shown = found[found[value].notna()]
        rows = ((_named(one), count) for one, count in _tuples(shown, name, value))
        return rowchart.bars(rows, title=title, unit=unit, colored=colored, limit=top, caption=caption)

    return draw


def pairs(value: str, unit: str, caption: str = "", top: int = 12) -> Draw:
    """Return what draws a bar for each pair of a source and a target, in the order of the answer."""

    def draw(found: pd.DataFrame, title: str) -> str:
        shown = found[found[value].notna()]
        rows = ((f"{_end(x)} → {_end(y)}", n) for x, y, n in _tuples(shown, "source", "target", value))
        return rowchart.bars(rows, title=title, unit=unit, colored=False, limit=top, caption=caption)

    return draw


def _end(name: Any) -> str:
    return str(name) if isinstance(name, str) else "–"


def _named(value: Any) -> str:
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return " → ".join(map(str, value))
    return str(value)


def start_end(found: pd.DataFrame, title: str) -> str:
    """Draw which activities cases begin and end with."""
    rows = [
        (f"{words} {name}", count)
        for words, column in (("first:", "starts"), ("last:", "ends"))
        for name, count in sorted(_tuples(found, "activity", column), key=lambda row: -row[1])[:6]
        if count
    ]
    told = "At most six activities of each kind."
    return rowchart.bars(rows, title=title, unit="cases", colored=False, caption=told)


def transitions(found: pd.DataFrame, title: str) -> str:
    """Draw the commonest transitions; those that are not declared are marked."""
    rows = (
        (f"{'' if declared else '✗ '}{_end(x)} → {_end(y)}", count)
        for x, y, declared, count in _tuples(found, "source", "target", "declared", "count")
    )
    return rowchart.bars(rows, title=title, unit="times", colored=False, limit=14, caption="✗: not declared.")


def verdicts(found: pd.DataFrame, title: str) -> str:
    """Draw what a model says of each kind of event."""
    rows = (
        (f"{'' if verdict == 'agrees' else '✗ '}{activity}: {verdict}", count)
        for activity, verdict, count in _tuples(found, "activity", "verdict", "events")
    )
    return rowchart.bars(rows, title=title, unit="events", colored=False, limit=14, caption="✗: deviates.")


def found(oddities: pd.DataFrame, title: str) -> str:
    """Draw how often each oddity is found, the commonest first."""
    rows = sorted(_tuples(oddities, "anomaly", "events"), key=lambda row: -row[1])
    some = [row for row in rows if row[1]]
    clean = len(rows) - len(some)
    told = f"{clean} other kinds were looked for, and not found." if clean else ""
    return rowchart.bars(some, title=title, unit="events", colored=False, caption=told) if some else ""


def standing(found: pd.DataFrame, title: str) -> str:
    """Draw how many cases stood at which activity."""
    counts = Counter(found["activity"])
    rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return rowchart.bars(rows, title=title, unit="cases", caption="By the latest activity of each case.")


def funnel(found: pd.DataFrame, title: str) -> str:
    """Draw how far cases come."""
    return rowchart.funnel(_tuples(found, "activity", "cases", "median_s"), title=title)


def cohorts(every: str) -> Draw:
    """Return what draws who comes back after how many periods."""

    def draw(found: pd.DataFrame, title: str) -> str:
        rows = []
        for cohort, group in found.groupby("cohort", sort=True):
            seen = dict(_tuples(group, "age", "retention"))
            shares = [seen.get(age, 0.0) for age in range(max(seen) + 1)]
            rows.append((f"{cohort:%Y-%m-%d}", int(group["size"].iloc[0]), shares))
        return rowchart.cohorts(rows, title=title, period=every)

    return draw


def spreads(by: str | None) -> Draw:
    """Return what draws how long cases take, for each value of a column; '' without its five quantiles."""

    def draw(found: pd.DataFrame, title: str) -> str:
        if not set(_SPREAD) <= set(found.columns) or found["p50_s"].isna().all():
            return ""
        names = ["all cases"] * len(found) if by is None else [_end(one) for one in found["value"]]
        quantiles = _tuples(found, *_SPREAD)
        rows = zip(names, quantiles, strict=True)
        return rowchart.spreads(rows, title=title, names="5 %, 25 %, median, 75 %, 95 % of the cases")

    return draw


def causes(found: pd.DataFrame, title: str) -> str:
    """Draw a tree of causes and effects."""
    steps = _tuples(found, "depth", "activity", "case", "since_s", "asked")
    return rowchart.tree(steps, title=title, since="the time since its cause")


def journey(found: pd.DataFrame, title: str) -> str:
    """Draw a story, one event below the other."""
    steps = ((0, *row) for row in _tuples(found, "activity", "case", "since_s", "asked"))
    return rowchart.tree(steps, title=title, since="the time since the story began")


# --- time --------------------------------------------------------------------------------------------------


def lasting(found: pd.DataFrame, title: str) -> str:
    """Draw how many cases last how long, in bins that grow with the time."""
    import numpy as np

    times = found["duration_s"].to_numpy(dtype=float)
    above = times[times > 0]
    marks = [("median", float(np.median(times))), ("90 %", float(np.quantile(times, 0.9)))]
    if not len(above):
        return chart.histogram([(0.0, 1.0, len(times))], title=title)
    low, high = above.min(), max(above.max(), above.min() * 1.01)
    counts, edges = np.histogram(above, bins=np.geomspace(low, high * 1.000001, _BINS + 1))
    bins = list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))
    if len(above) < len(times):
        bins.insert(0, (0.0, float(edges[0]), len(times) - len(above)))
    return chart.histogram(bins, title=title, marks=marks, log=True)


def rates(found: pd.DataFrame, title: str) -> str:
    """Draw how many events there are in each period."""
    return chart.over_time({"": _tuples(found, "period", "events")}, title=title)


def rates_by(found: pd.DataFrame, title: str) -> str:
    """Draw the same for the commonest values, one line each; a period without such an event is a zero."""
    commonest = found.groupby("value")["events"].sum().sort_values(ascending=False, kind="stable")
    kept = commonest.index[:_SERIES]
    grid = found.pivot_table(index="period", columns="value", values="events", aggfunc="sum", fill_value=0)
    series = {str(name): list(zip(grid.index, grid[name], strict=True)) for name in kept}
    hidden = f" ({len(kept)} of {len(commonest):,} values)" if len(kept) < len(commonest) else ""
    return chart.over_time(series, title=f"{title}{hidden}")


def dots(found: pd.DataFrame, title: str) -> str:
    """Draw every event (or every cell of many) as a dot."""
    return chart.dotted(_tuples(found, "time", "row", "activity"), title=title)


def _tuples(frame: pd.DataFrame, *names: str) -> list[Any]:
    """Return the rows of some columns, as the pictures take them."""
    return list(frame[list(names)].itertuples(index=False, name=None))
