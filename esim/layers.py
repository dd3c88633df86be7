"""Which box of a directed graph stands above which: an order with little weight going backward, then layers.

A link counts for the layers only where it is strong, so that rare ways do not stretch a drawing: of two boxes
with only rare ways between them either may be above, or both may stand side by side.

References: P. Eades, X. Lin, W. Smyth, A fast heuristic for the feedback arc set problem, 1993.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

STRONG = 0.2  # a link of this share of what leaves its source, or enters its target, puts one above the other


class Way(NamedTuple):
    """A link between two boxes, given by their numbers, and its weight."""

    source: int
    target: int
    weight: float


def layers(count: int, ways: Sequence[Way], *, top: int = -1, bottom: int = -1) -> list[int]:
    """Return the layer of each of `count` boxes, from 0; `top` is above all others, `bottom` below."""
    return _layers(count, ways, _order(count, ways, top, bottom), top, bottom)


def _order(count: int, ways: Sequence[Way], top: int, bottom: int) -> list[int]:
    """Return the boxes so that little weight goes backward: greedily, then by moving one at a time."""
    flow = _flow(ways, top, bottom)
    near: dict[int, set[int]] = {node: set() for node in range(count)}
    for source, target in flow:
        near[source].add(target)
        near[target].add(source)
    gain = {
        node: sum(flow.get((node, one), 0) - flow.get((one, node), 0) for one in near[node]) for node in near
    }
    left, order = set(range(count)), []
    while left:
        node = min(left, key=lambda one: (one != top, one == bottom, -gain[one], one))
        left.remove(node)
        order.append(node)
        for one in near[node] & left:  # what is gone no longer speaks for or against the others
            gain[one] += flow.get((node, one), 0) - flow.get((one, node), 0)
    for _ in range(8):
        moved = [_moved(order, node, flow) for node in range(count) if node not in (top, bottom)]
        if not any(moved):
            break
    if top >= 0:
        order.insert(0, order.pop(order.index(top)))
    if bottom >= 0:
        order.append(order.pop(order.index(bottom)))
    return order


def _flow(ways: Sequence[Way], top: int, bottom: int) -> dict[tuple[int, int], float]:
    """Return the weight between boxes; ways back into what is first, on from what is last, count little."""
    leaving, entering = _sums(ways)
    first = {
        way.target: way.weight / entering[way.target] for way in ways if way.source == top and way.weight
    }
    last = {
        way.source: way.weight / leaving[way.source] for way in ways if way.target == bottom and way.weight
    }
    flow: dict[tuple[int, int], float] = defaultdict(float)
    for way in ways:
        inner = way.source != top and way.target != bottom
        back = max(first.get(way.target, 0), last.get(way.source, 0)) if inner else 0
        flow[way.source, way.target] += way.weight * (1.01 - back)
    return flow


def _sums(ways: Sequence[Way]) -> tuple[dict[int, float], dict[int, float]]:
    """Return the weight that leaves, and that enters, each box."""
    leaving: dict[int, float] = defaultdict(float)
    entering: dict[int, float] = defaultdict(float)
    for way in ways:
        leaving[way.source] += way.weight
        entering[way.target] += way.weight
    return leaving, entering


def _moved(order: list[int], node: int, flow: dict[tuple[int, int], float]) -> bool:
    """Put a node where the least weight goes backward; return whether it moved to a better place."""
    was = order.index(node)
    order.pop(was)
    cost, costs = 0.0, [0.0]
    for one in order:
        cost += flow.get((node, one), 0) - flow.get((one, node), 0)
        costs.append(cost)
    best = min(range(len(costs)), key=lambda place: (costs[place], abs(place - was)))
    order.insert(best, node)
    return costs[best] < costs[was] - 1e-9


def _layers(count: int, ways: Sequence[Way], order: list[int], top: int, bottom: int) -> list[int]:
    place = {node: at for at, node in enumerate(order)}
    leaving, entering = _sums(ways)
    above: list[set[int]] = [set() for _ in range(count)]
    strongest: dict[int, Way] = {}
    for way in ways:
        if place[way.source] < place[way.target]:
            if way.weight >= STRONG * min(leaving[way.source], entering[way.target]):
                above[way.target].add(way.source)
            known = strongest.setdefault(way.target, way)
            strongest[way.target] = way if way.weight > known.weight else known
    for target, way in strongest.items():
        above[target].add(way.source)
    for node in range(count):
        above[node] |= {top} - {-1, node} if node != bottom else set(range(count)) - {node}
    layer = [0] * count
    for node in order:
        layer[node] = max((layer[one] + 1 for one in above[node]), default=0)
    _tighten(layer, above, ways, order)
    used = sorted(set(layer))
    return [used.index(one) for one in layer]


def _tighten(layer: list[int], above: list[set[int]], ways: Sequence[Way], order: list[int]) -> None:
    """Move boxes to the layer, of those their strong ways leave open, where their ways are shortest."""
    below: list[set[int]] = [set() for _ in layer]
    near: list[list[tuple[int, float]]] = [[] for _ in layer]
    for node, ones in enumerate(above):
        for one in ones:
            below[one].add(node)
    for way in ways:
        near[way.source].append((way.target, way.weight))
        near[way.target].append((way.source, way.weight))
    for node in (*reversed(order), *order):
        low = max((layer[one] + 1 for one in above[node]), default=0)
        high = min((layer[one] - 1 for one in below[node]), default=layer[node])
        layer[node] = min(
            range(low, max(low, high) + 1),
            key=lambda at: (sum(w * abs(layer[one] - at) for one, w in near[node]), abs(at - layer[node])),
        )
