"""A directly-follows graph as plain data, its thinning, and the same graph as Mermaid and DOT text.

The numbers come from whoever counted them; here they are only checked, ranked and cut down to what an eye
can take in. What a thinned graph hides it says in `hidden`, which every rendering carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, NamedTuple

from esim.display import clean, cut, did_you_mean
from esim.errors import InvalidArgument
from esim.svg import measure
from esim.units import duration, percent

READABLE = 55  # edges; above, a drawing is thinned unless told otherwise
Label = Literal["count", "share", "mean", "median"]
LABELS: tuple[Label, ...] = ("count", "share", "mean", "median")


class Activity(NamedTuple):
    """A node: how often it occurs, and in which share of the cases (0 to 1)."""

    name: str
    times: int
    share: float | None = None


class Flow(NamedTuple):
    """An edge: how often `target` directly follows `source`, and after how many seconds."""

    source: str
    target: str
    times: int
    mean: float | None = None
    median: float | None = None


@dataclass(frozen=True)
class ProcessGraph:
    """Activities, the flows between them, and how many cases start and end with which activity.

    `total` counts the transitions, `edges` the flows, `nodes` the activities and `outer` the starts and ends
    of the whole log, of which a thinned graph has only some.
    """

    activities: tuple[Activity, ...]
    flows: tuple[Flow, ...]
    starts: dict[str, int]
    ends: dict[str, int]
    total: int
    edges: int
    nodes: int
    outer: int
    cases: int

    @property
    def hidden(self) -> str:
        """Say what is shown and what is not: edges, the share of the transitions they carry, activities."""
        shown = sum(flow.times for flow in self.flows)
        kinds = f"{len(self.flows)} of {self.edges:,} edges" if self.edges else "no edges"
        share = f", {percent(shown / self.total)} of {self.total:,} transitions" if self.total else ""
        ways = len(self.starts) + len(self.ends)
        outer = f"; {ways} of {self.outer:,} starts and ends" if ways < self.outer else ""
        return f"{kinds}{share}; {len(self.activities)} of {self.nodes:,} activities{outer}"

    def thinned(self, coverage: float | None = None, *, edges: int = READABLE) -> ProcessGraph:
        """Return the graph of its most frequent flows: those that carry a `coverage` (0 to 1) of transitions.

        Without one, the `edges` most frequent are kept. Activities that then are reached from nowhere keep
        their most frequent way in; activities without a flow, a start or an end are left out.
        """
        ranked = self.flows  # the most frequent first
        if coverage is None:
            return self._of(ranked if len(ranked) <= edges else self._reached(ranked[:edges], ranked, edges))
        if not 0 < coverage <= 1:
            raise InvalidArgument(f"coverage={coverage}: a share of the transitions lies above 0 and up to 1")
        carried = accumulate((flow.times for flow in ranked), initial=0)
        kept = [flow for flow, before in zip(ranked, carried, strict=False) if before < coverage * self.total]
        kept = list(ranked) if coverage == 1 else kept
        return self._of(self._reached(kept, ranked, len(ranked)))

    def _reached(self, kept: Sequence[Flow], ranked: Sequence[Flow], most: int) -> list[Flow]:
        """Add the best way into each activity that has none, in place of the rarest flows where full."""
        chosen = list(kept)
        least = min((flow.times for flow in kept), default=0)
        entered = {flow.target for flow in kept if flow.source != flow.target}
        entered |= _frequent(self.starts, least).keys()
        wanted = [flow.source for flow in kept]
        added: list[Flow] = []
        for name in wanted:
            way = next((one for one in ranked if one.target == name != one.source), None)
            if name not in entered and way:
                entered.add(name)
                added.append(way)
                wanted.append(way.source)
        room = max(most - len(added), 0)
        return [*chosen[:room], *added][:most]

    def _of(self, flows: Sequence[Flow]) -> ProcessGraph:
        """Return the graph of some flows, with the starts and ends that are as frequent as the rarest."""
        least = min((flow.times for flow in flows), default=0) if len(flows) < len(self.flows) else 0
        starts, ends = _frequent(self.starts, least), _frequent(self.ends, least)
        names = {name for flow in flows for name in flow[:2]} | starts.keys() | ends.keys()
        shown = (one for one in self.activities if one.name in names or not least)
        return replace(self, activities=tuple(shown), flows=_ranked(flows), starts=starts, ends=ends)


def _ranked(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    return tuple(sorted(flows, key=lambda flow: (-flow.times, flow.source, flow.target)))


def _frequent(ends: dict[str, int], least: int) -> dict[str, int]:
    """Return the starts or ends of at least so many cases, and always the most frequent."""
    most = next(iter(ends), None)
    return {name: count for name, count in ends.items() if count >= least or name == most}


def process_graph(
    activities: Iterable[Sequence[object]],
    flows: Iterable[Sequence[object]],
    starts: Mapping[str, int] | Iterable[tuple[str, int]] = (),
    ends: Mapping[str, int] | Iterable[tuple[str, int]] = (),
) -> ProcessGraph:
    """Return a graph from plain rows: (name, count, share), (from, to, count, mean, median in seconds).

    Shares and seconds may be None or missing. Raises InvalidArgument for a name that is not among the
    activities, an activity or a flow given twice, and for counts that are no counts.
    """
    nodes = tuple(Activity(_name(row[0]), _count(row, 1), *map(measure, row[2:3])) for row in activities)
    known = {one.name for one in nodes}
    if len(known) < len(nodes):
        raise InvalidArgument(f"activity {_twice([one.name for one in nodes])!r} is given twice; add them up")
    edges = tuple(
        Flow(_known(row[0], known), _known(row[1], known), _count(row, 2), *map(measure, row[3:5]))
        for row in flows
    )
    pairs = [f"{edge.source} → {edge.target}" for edge in edges]
    if len({edge[:2] for edge in edges}) < len(edges):
        raise InvalidArgument(f"the flow {_twice(pairs)!r} is given twice; add them up")
    first, last = _ends(starts, known), _ends(ends, known)
    return ProcessGraph(
        tuple(sorted(nodes, key=lambda one: (-one.times, one.name))),
        _ranked(edges),
        first,
        last,
        total=sum(edge.times for edge in edges),
        edges=len(edges),
        nodes=len(nodes),
        outer=len(first) + len(last),
        cases=sum(first.values()),
    )


def _ends(ends: Mapping[str, int] | Iterable[tuple[str, int]], known: set[str]) -> dict[str, int]:
    pairs = ends.items() if isinstance(ends, Mapping) else ends
    counted = {_known(row[0], known): _count(row, 1) for row in pairs}
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{value!r} is not the name of an activity; give text")
    return value


def _known(value: object, known: set[str]) -> str:
    name = _name(value)
    if name not in known:
        near = did_you_mean(name, sorted(known))
        raise InvalidArgument(f"{name!r} is not among the activities{near}")
    return name


def _count(row: Sequence[object], place: int) -> int:
    value = row[place]
    try:
        count = int(value)  # type: ignore[call-overload] # whatever is no number raises
    except (TypeError, ValueError, OverflowError):
        count = -1
    if count < 0 or count != value:
        raise InvalidArgument(f"{value!r} is not a count (in {tuple(row)!r}); give a whole number from 0")
    return int(count)


def _twice(names: Sequence[object]) -> object:
    return next(name for at, name in enumerate(names) if name in names[:at])


def check_label(label: str) -> None:
    """Raise InvalidArgument for a label that there is not."""
    if label not in LABELS:
        raise InvalidArgument(f"{label!r} is no label of an edge{did_you_mean(str(label), LABELS)}")


def label_of(graph: ProcessGraph, flow: Flow, label: Label) -> str:
    """Return what is written on a flow: its count, its share of all transitions, or how long it takes."""
    check_label(label)
    if label == "count":
        return f"{flow.times:,}"
    if label == "share":
        return percent(flow.times / graph.total) if graph.total else "–"
    return duration(flow.mean if label == "mean" else flow.median)


# --- as text -----------------------------------------------------------------------------------------------


def mermaid(graph: ProcessGraph, *, label: Label = "count") -> str:
    """Return the graph as a Mermaid flowchart; JupyterLab draws it, and so do GitHub and GitLab."""
    ids = {one.name: f"a{at}" for at, one in enumerate(graph.activities)}
    lines = ["flowchart TD", f"  %% {graph.hidden}", "  start((start))", "  finish((end))"]
    lines += [f'  {ids[one.name]}["{_entities(one.name)}<br/>{one.times:,}"]' for one in graph.activities]
    lines += [f'  start -. "{count:,}" .-> {ids[name]}' for name, count in graph.starts.items()]
    lines += [
        f'  {ids[flow.source]} -->|"{_entities(label_of(graph, flow, label))}"| {ids[flow.target]}'
        for flow in graph.flows
    ]
    lines += [f'  {ids[name]} -. "{count:,}" .-> finish' for name, count in graph.ends.items()]
    return "\n".join(lines) + "\n"


def _entities(words: str) -> str:
    """Return text for between Mermaid's quotes: all that could be markup or syntax as numeric entities."""
    return "".join(
        char if char.isalnum() or char in " .,:–-_" else f"#{ord(char)};" for char in cut(clean(words), 120)
    )


def dot(graph: ProcessGraph, *, label: Label = "count") -> str:
    """Return the graph in Graphviz' DOT language."""
    most = max((flow.times for flow in graph.flows), default=1) or 1
    lines = [
        "digraph process {",
        f"  // {graph.hidden}",
        '  node [shape=box, style="rounded", fontname="sans-serif"]; edge [fontname="sans-serif"];',
        '  start [shape=circle, label="start"]; finish [shape=doublecircle, label="end"];',
    ]
    ids = {one.name: f"a{at}" for at, one in enumerate(graph.activities)}
    lines += [f'  {ids[one.name]} [label="{_quoted(one.name)}\\n{one.times:,}"];' for one in graph.activities]
    lines += [
        f'  start -> {ids[name]} [label="{count:,}", style=dashed];' for name, count in graph.starts.items()
    ]
    lines += [
        f'  {ids[flow.source]} -> {ids[flow.target]} [label="{_quoted(label_of(graph, flow, label))}", '
        f"penwidth={1 + 5 * math.sqrt(flow.times / most):.1f}];"
        for flow in graph.flows
    ]
    lines += [
        f'  {ids[name]} -> finish [label="{count:,}", style=dashed];' for name, count in graph.ends.items()
    ]
    return "\n".join([*lines, "}", ""])


def _quoted(words: str) -> str:
    return cut(clean(words), 120).replace("\\", "\\\\").replace('"', '\\"')
