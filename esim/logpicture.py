"""The pictures of answers: from the dataframe of each question to SVG text, drawn when they are looked at.

What a picture leaves out it says in its caption. A graph needs the counts of its activities beside its flows;
how many cases begin with an activity is then how often it happened less how often something came before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from numbers import Number
from typing import TYPE_CHECKING, Any

from esim import chart, display, factchart, rowchart, svg, units
from esim.chevrons import abbreviations, variants_chart
from esim.processgraph import ProcessGraph, process_graph

if TYPE_CHECKING:
    import pandas as pd

Rows = Callable[[str], list[Any]]
"""Gives the rows of a query over the views of a log."""

Draw = Callable[["pd.DataFrame", str], str]
"""Makes SVG text of an answer and its title."""

_BINS = 24
_SERIES = 8
_FIELDS, _VALUES, _STATES = 24, 8, 3  # of a profile; of a field of a state; such fields
_CHANGES = 14  # rows of a difference
_UNDECLARED = " is not declared"  # which the mark says as well
_SIGNS = {"appears": "+", "vanishes": "−", "shifts": "~"}
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


# --- the whole ---------------------------------------------------------------------------------------------


def summary(found: pd.DataFrame, title: str) -> str:
    """Draw the figures of a log as cards."""
    told = {name: value for name, value in _tuples(found, "figure", "value") if isinstance(value, str)}
    if told.get("events", "0") == "0":
        return ""
    first, last, cases = told["first event"], told["last event"], int(told["cases"])
    reworked, back = (int(told[name]) for name in ("cases with rework", "events before the one before"))
    tied = int(told["events at the time of the one before"])
    days = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    counts = ("events", "cases", "activities", "variants")
    cards = [
        *((f"{int(told[name]):,}", name) for name in counts),
        (units.duration(days), f"{first[:10]} to {last[:10]}"),
        (_short(told["events of a case, median"]), f"events a case (most {told['events of a case, most']})"),
        (units.duration(float(told["duration of a case, median"])), "a case lasts, median"),
        (units.percent(reworked / cases), f"cases with rework ({reworked:,})"),
    ]
    words = [f"{tied:,} events at the time of the one before." if tied else "All times of a case differ."]
    words += [f"{back:,} events before the one before."] if back else []
    return factchart.cards(cards, title=title, caption=" ".join(words))


def _short(value: str) -> str:
    return value.removesuffix(".0")


def difference(found: pd.DataFrame, title: str) -> str:
    """Draw what is more, and what is less frequent here than there, the largest change first; '' if nothing.

    Variants are written in signs, which the caption spells out: their names would be cut where they differ.
    """
    names = [name for name in ("source", "target", "activity", "variant") if name in found]
    ways = list(map(list, found["variant"][:_CHANGES])) if "variant" in found else []
    signs = abbreviations(name for way in ways for name in way)
    timed = "median_here_s" in found
    times = _tuples(found, "median_here_s", "median_there_s") if timed else [(None, None)] * len(found)
    shares = _tuples(found, "share_here", "share_there")
    told = [" → ".join(signs[name] for name in way) for way in ways]
    told += [" → ".join(map(_end, who)) for who in _tuples(found[len(ways) :], *names)]
    rows = [
        (name, here, there, _took(*both))
        for name, (here, there), both in zip(told, shares, times, strict=True)
        if here != there
    ]
    words = "Beside them: the shares, and the median times here and there. " if timed else ""
    words += " · ".join(f"{sign}: {display.cut(svg.named(name), 40)}" for name, sign in signs.items())
    return factchart.differences(rows, title=title, limit=_CHANGES, caption=words) if rows else ""


def _took(here: float | None, there: float | None) -> str:
    both = [svg.measure(one) for one in (here, there)]
    return "" if both == [None, None] else " / ".join(map(units.duration, both))


def payloads(found: pd.DataFrame, title: str) -> str:
    """Draw which fields there are in which period; those that change come first."""
    periods = sorted(set(found["period"]))
    places = {period: at for at, period in enumerate(periods)}
    fields = [
        (not group["change"].any(), factchart.Seen(str(activity), str(field), _cells(group, places)))
        for (activity, field), group in found.groupby(["activity", "field"], sort=False)
    ]
    chosen = [one for _, one in sorted(fields, key=lambda pair: pair[0])][:_FIELDS]
    names = [f"{period:%Y-%m-%d}" for period in periods]
    told = "Filled: every such event has the field; empty: none; else percent. No cell: no such event. "
    told += "+ appears, − vanishes, T another type, ~ shifts."
    return factchart.presence(chosen, names, title=title, total=len(fields), caption=told)


def _cells(group: pd.DataFrame, places: dict[Any, int]) -> list[tuple[int, float, str]]:
    rows = _tuples(group, "period", "share", "change")
    return [
        (places[at], float(share), _SIGNS.get(change, "T") if change else "") for at, share, change in rows
    ]


def deviations(column: str) -> Draw:
    """Return what draws how often there is each deviation, told by `column` and the activity."""

    def draw(found: pd.DataFrame, title: str) -> str:
        rows = _tuples(found, "activity", column)
        if column == "deviation":  # which names the activities itself
            counts = Counter(told.removesuffix(_UNDECLARED) for _, told in rows)
        else:
            counts = Counter(f"{activity}: {told}" for activity, told in rows)
        rows = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        told = f"✗: what was not to be. {len(found):,} events of {found['case'].nunique():,} cases."
        return rowchart.bars(
            ((f"✗ {kind}", count) for kind, count in rows),
            title=title, unit="times", colored=False, limit=14, caption=told,
        )  # fmt: skip

    return draw


def states(found: pd.DataFrame, title: str) -> str:
    """Draw how many cases have which value, of the first fields that have few; '' if all have many."""
    told = {
        name: Counter(map(display.plain, found[name]))
        for name in found.columns[1:]
        if not any(map(_measured, found[name]))
    }
    few = [(name, counts) for name, counts in told.items() if len(counts) <= _VALUES][:_STATES]
    rows = [
        (f"{name} = {value}", count)
        for name, counts in few
        for value, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    left = [name for name in found.columns[1:] if name not in dict(few)]
    words = f"Fields that are not shown: {', '.join(left)}." if left else ""
    if not rows:
        return ""
    return rowchart.bars(rows, title=title, unit="cases", colored=False, limit=24, caption=words)


def _measured(value: object) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


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
    return _named(name) if isinstance(name, str | tuple) else "–"


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
        (f"{'' if verdict in ('agrees', 'not judged') else '✗ '}{activity}: {verdict}", count)
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


def by_activity(found: pd.DataFrame, title: str) -> str:
    """Draw how many events there are of each activity."""
    rows = Counter(found["activity"]).most_common()
    told = f"{len(found):,} events of {found['case'].nunique():,} cases, by activity."
    return rowchart.bars(rows, title=title, unit="events", limit=12, caption=told)


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
    """Draw every event as a dot."""
    return chart.dotted(_tuples(found, "time", "row", "activity"), title=title)


def cells(found: pd.DataFrame, title: str) -> str:
    """Draw every cell of a large log as a dot, as those of one cell would hide each other."""
    ranked = found.sort_values("events", ascending=False, kind="stable")
    shown = ranked.drop_duplicates(["row", "time"])
    told = f"Each is the commonest activity in a cell; the cells have {found['events'].sum():,} events."
    return chart.dotted(_tuples(shown, "time", "row", "activity"), title=title, told=told)


def _tuples(frame: pd.DataFrame, *names: str) -> list[Any]:
    """Return the rows of some columns, as the pictures take them."""
    return list(frame[list(names)].itertuples(index=False, name=None))
