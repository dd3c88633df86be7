"""A process map: a directly-follows graph as a picture.

Each activity is a box in its one fixed colour with its count; each flow is a curve, as wide as it is frequent
(or slow), with its label in a gap of its own. What starts and ends cases is marked, what repeats is a loop at
its box. Everything is drawn by hand in SVG, without Graphviz and without a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from esim import svg
from esim.display import color_of
from esim.layout import CUP, Box, Link, Route, layered
from esim.processgraph import Activity, Flow, Label, ProcessGraph, check_label, label_of
from esim.units import duration, percent

MOST = 400  # edges; no eye follows more, whatever coverage is asked for
_NODE_HEIGHT, _PAD, _MOST, _LEAST = 44, 14, 176, 84
_PILL_HEIGHT, _ARROW, _ENDED = 24, 11, "end"
_LABEL, _LABEL_HEIGHT = 11, 15
_LOOP = 24  # how far a loop reaches out of its box
_THICK, _THIN = 8.0, 1.2
_PLAY, _STOP = "m-4,-5l9,5l-9,5z", "m-4,-4h8v8h-8z"
Point = tuple[float, float]
_MEANING = {
    "count": "how often one directly follows the other",
    "share": "the share of all transitions",
    "mean": "the mean time from one to the next",
    "median": "the median time from one to the next",
}


@dataclass(frozen=True)
class _Edge:
    """A drawn flow, or the way from the start or to the end."""

    words: str
    width: float
    title: str


def process_map(
    graph: ProcessGraph,
    *,
    title: str = "Process map",
    label: Label = "count",
    width: Label = "count",
    coverage: float | None = None,
) -> str:
    """Return a directly-follows graph as SVG text.

    `label` says what is written on the edges, `width` what their width means. Of more than 55 edges the most
    frequent are drawn; `coverage` (0 to 1) keeps those that carry that share of all transitions instead. No
    map has more than 400 edges. What is not shown is said in the caption.
    """
    check_label(width)
    shown = graph.thinned(coverage)
    shown = shown.thinned(edges=MOST) if len(shown.flows) > MOST else shown
    drawing = _Map(shown, label, width)
    return drawing.svg(title)


class _Map:
    def __init__(self, graph: ProcessGraph, label: Label, width: Label) -> None:
        self.graph = graph
        self.label: Label = label
        self.width: Label = width
        self.place = {one.name: at for at, one in enumerate(graph.activities)}
        self.start, self.end = len(self.place), len(self.place) + 1
        self._most = max(map(self._measure, graph.flows), default=0.0) or 1.0
        loops = {flow.source: flow for flow in graph.flows if flow.source == flow.target}
        self.loops = {name: self._edge(flow) for name, flow in loops.items()}
        self.edges = list(self._between())
        self.links = [link for link, _ in self.edges]
        self.boxes = [
            *(_box(one, self.loops.get(one.name)) for one in graph.activities),
            _pill(self._started(), len(graph.starts)),
            _pill(_ENDED, len(graph.ends)),
        ]
        self.layout = layered(self.boxes, self.links, top=self.start, bottom=self.end).moved(
            svg.MARGIN, svg.TOP
        )

    # what there is to draw

    def _measure(self, flow: Flow) -> float:
        if self.width in ("mean", "median"):
            return (flow.mean if self.width == "mean" else flow.median) or 0.0
        return flow.times

    def _stroke(self, share: float) -> float:
        return _THIN + (_THICK - _THIN) * math.sqrt(min(max(share, 0.0), 1.0))

    def _edge(self, flow: Flow) -> _Edge:
        words = label_of(self.graph, flow, self.label)
        title = f"{flow.source} → {flow.target}: {flow.times:,} times"
        title += "".join(
            f", {kind} {duration(seconds)}"
            for kind, seconds in (("mean", flow.mean), ("median", flow.median))
            if seconds is not None
        )
        return _Edge(words, self._stroke(self._measure(flow) / self._most), title)

    def _between(self) -> Iterator[tuple[Link, _Edge]]:
        for flow in self.graph.flows:
            if flow.source != flow.target:
                yield self._link(
                    self.place[flow.source], self.place[flow.target], flow.times, self._edge(flow)
                )
        for name, count in self.graph.starts.items():
            yield self._link(self.start, self.place[name], count, self._outer(f"start → {name}", count))
        for name, count in self.graph.ends.items():
            yield self._link(self.place[name], self.end, count, self._outer(f"{name} → end", count))

    def _outer(self, title: str, count: int) -> _Edge:
        counted = self.width in ("count", "share")
        words = {"count": f"{count:,}", "share": percent(count / max(self.graph.cases, 1))}.get(
            self.label, ""
        )
        return _Edge(
            words, self._stroke(count / self._most) if counted else _THIN, f"{title}: {count:,} cases"
        )

    @staticmethod
    def _link(source: int, target: int, count: int, edge: _Edge) -> tuple[Link, _Edge]:
        wide = svg.text_width(edge.words, _LABEL) if edge.words else edge.width
        tall = _LABEL_HEIGHT if edge.words else 0
        return Link(source, target, count, wide, tall, edge.width), edge

    def _started(self) -> str:
        return f"start · {self.graph.cases:,} cases" if self.graph.cases else "start"

    # drawing

    def svg(self, title: str) -> str:
        """Return the picture: edges first, boxes on top of them."""
        order = sorted(range(len(self.edges)), key=lambda at: self.links[at].weight)
        parts = [
            *(_flow(self.layout.routes[at], self.links[at], self.edges[at][1]) for at in order),
            *(self._loop(name, edge) for name, edge in self.loops.items()),
            *(self._node(at, one) for at, one in enumerate(self.graph.activities)),
            *self._ends(),
        ]
        return svg.document(
            title,
            parts,
            width=self.layout.width + 2 * svg.MARGIN,
            bottom=svg.TOP + self.layout.height + 8,
            caption=f"Shown: {self.graph.hidden}. {self._meaning()}",
        )

    def _meaning(self) -> str:
        if self.label == self.width or {self.label, self.width} == {"count", "share"}:
            return f"On the edges, and as their width: {_MEANING[self.label]}."
        return f"On the edges: {_MEANING[self.label]}. As their width: {_MEANING[self.width]}."

    def _loop(self, name: str, edge: _Edge) -> str:
        x, y = self.layout.boxes[self.place[name]]
        x += self.boxes[self.place[name]].left
        out = x + _LOOP * 4 / 3  # a control point: the curve itself reaches three quarters of the way
        back = x + _tip(edge.width)
        path = f"M{_xy(x, y - 11)}C{_xy(out, y - 14)} {_xy(out, y + 11)} {_xy(back, y + 11)}"
        words = svg.text(x + _LOOP + edge.width / 2 + 4, y + 4, edge.words, size=_LABEL)
        title = svg.titled(edge.title)
        return svg.tag("g", title, _line(path, edge.width), _arrow((x, y + 11), (-1, 0), edge.width), words)

    def _node(self, at: int, one: Activity) -> str:
        x, y = self.layout.boxes[at]
        half, under = self.boxes[at].left, _under(one)
        left, top, room = x - half, y - _NODE_HEIGHT / 2, 2 * half - _PAD
        return svg.tag(
            "g",
            svg.titled(f"{one.name}: {under}"),
            svg.tag(
                "rect", x=left, y=top, width=2 * half, height=_NODE_HEIGHT, rx=6, fill=color_of(one.name)
            ),
            svg.text(
                x, y - 3, svg.named(one.name), size=13, fill="#fff", anchor="middle", bold=True, room=room
            ),
            svg.text(x, y + 13, under, size=_LABEL, fill="#fff", anchor="middle", room=room),
        )

    def _ends(self) -> Iterator[str]:
        for box, words, sign in ((self.start, self._started(), _PLAY), (self.end, _ENDED, _STOP)):
            x, y = self.layout.boxes[box]
            left, top = x - self.boxes[box].left, y - _PILL_HEIGHT / 2
            half, wide = _PILL_HEIGHT / 2, 2 * self.boxes[box].left - _PILL_HEIGHT
            round_ = f"M{_xy(left + half, top)}h{svg.num(wide)}a{half},{half},0,0,1,0,{_PILL_HEIGHT}"
            yield svg.tag(
                "g",
                svg.line(f"{round_}h-{svg.num(wide)}a{half},{half},0,0,1,0,-{_PILL_HEIGHT}z", width=1.5),
                svg.tag("path", d=f"M{_xy(left + 14, y)}{sign}", fill=svg.INK),
                svg.text(left + 25, y + 4, words, size=12),
            )


def _box(one: Activity, loop: _Edge | None) -> Box:
    wide = (
        max(svg.text_width(svg.named(one.name), 13, bold=True), svg.text_width(_under(one), _LABEL))
        + 2 * _PAD
    )
    half = min(max(wide, _LEAST), _MOST) / 2
    beside = _LOOP + loop.width / 2 + 5 + svg.text_width(loop.words, _LABEL) if loop else 0
    return Box(half, half + beside, _NODE_HEIGHT, half - 12)


def _under(one: Activity) -> str:
    return f"{one.times:,}" + (f" · {percent(one.share)} of cases" if one.share is not None else "")


def _pill(words: str, edges: int) -> Box:
    half = max(svg.text_width(words, 12) + 38, min(edges, 20) * _ARROW + 28) / 2
    return Box(half, half, _PILL_HEIGHT, half - 14)


# --- curves ------------------------------------------------------------------------------------------------


def _flow(route: Route, link: Link, edge: _Edge) -> str:
    """Return a link: its line, its arrow, and its label in a gap of the line, or in the cup of a flat one."""
    path, tip, way, spot = (_cup if route.cup else _curve)(route, link, edge)
    words = svg.text(spot[0], spot[1] + 4, edge.words, size=_LABEL, anchor="middle") if edge.words else ""
    return svg.tag("g", svg.titled(edge.title), _line(path, edge.width), _arrow(tip, way, edge.width), words)


def _curve(route: Route, link: Link, edge: _Edge) -> tuple[str, Point, Point, Point]:
    """Return the path of a link, the tip and the way of its arrow, and the middle of its label."""
    (x, y), (to_x, to_y) = route.start, route.end
    spot = route.start
    path = f"M{_xy(x, y + (_tip(edge.width) if route.up else 0))}"
    y += _tip(edge.width) if route.up else 0
    for slot in route.slots:
        path += _swing((x, y), (slot.x, slot.top))
        if slot.label:
            spot = (slot.x, (slot.top + slot.bottom) / 2)
            path += f"V{svg.num(spot[1] - link.height / 2)}M{_xy(slot.x, spot[1] + link.height / 2)}"
        path += f"V{svg.num(slot.bottom)}"
        x, y = slot.x, slot.bottom
    path += _swing((x, y), (to_x, to_y - (0 if route.up else _tip(edge.width))))
    return (path, route.start, (0, -1), spot) if route.up else (path, route.end, (0, 1), spot)


def _cup(route: Route, link: Link, edge: _Edge) -> tuple[str, Point, Point, Point]:
    """Return the same for a link within a layer: down, around its label, and up again."""
    slot, end = route.slots[0], (route.end[0], route.end[1] + _tip(edge.width))
    aside = math.copysign(link.width / 2 + CUP - edge.width / 2, route.start[0] - route.end[0])
    near, far, low = slot.x + aside, slot.x - aside, slot.bottom - edge.width / 2
    bend = math.copysign(6, aside)
    path = (
        f"M{_xy(*route.start)}{_swing(route.start, (near, slot.top))}V{svg.num(low - 6)}"
        f"Q{_xy(near, low)} {_xy(near - bend, low)}H{svg.num(far + bend)}Q{_xy(far, low)} {_xy(far, low - 6)}"
        f"V{svg.num(slot.top)}{_swing((far, slot.top), end)}"
    )
    return path, route.end, (0, -1), (slot.x, (slot.top + slot.bottom - CUP) / 2)


def _swing(one: Point, two: Point) -> str:
    """Return a curve that leaves and arrives upright."""
    if abs(one[0] - two[0]) < 0.05:  # noqa: PLR2004 - what is not seen
        return f"V{svg.num(two[1])}"
    half = (one[1] + two[1]) / 2
    return f"C{_xy(one[0], half)} {_xy(two[0], half)} {_xy(*two)}"


def _line(path: str, width: float) -> str:
    return svg.line(path, width=width, opacity=0.85)


def _tip(width: float) -> float:
    return 5 + width


def _arrow(tip: Point, way: Point, width: float) -> str:
    """Return an arrow head: `way` is the direction in which it points."""
    (x, y), (dx, dy), long, wide = tip, way, _tip(width), 3 + width * 0.8
    back = (x - dx * long, y - dy * long)
    left, right = (back[0] - dy * wide, back[1] + dx * wide), (back[0] + dy * wide, back[1] - dx * wide)
    return svg.tag("path", d=f"M{_xy(x, y)}L{_xy(*left)}L{_xy(*right)}Z", fill=svg.INK)


def _xy(x: float, y: float) -> str:
    return f"{svg.num(x)},{svg.num(y)}"
