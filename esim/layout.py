"""A layered layout of a directed graph: boxes in rows, links as curves that touch no box and no label.

The steps are Sugiyama's: an order of the boxes with little weight going backward, layers from the strong
links of that order, few crossings, x by repeated averaging. Every second rank is for labels, and a link has a
slot of its own in each rank that it passes: where it runs straight through, nothing else stands. So neither
labels nor links can collide with boxes or labels, whatever the graph; only curves between two ranks cross.

References: K. Sugiyama, S. Tagawa, M. Toda, Methods for visual understanding of hierarchical system
structures, 1981.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from esim.coordinates import Vertex, coordinates, spaced
from esim.layers import Way, layers

SPACE = 12  # between neighbours of a rank
CUP = 8  # a link within a layer holds its label in a cup, this much wider on either side
_SWEEPS, _SWAPS_UP_TO = 16, 60


@dataclass(frozen=True)
class Box:
    """A node: how far it extends to the left and right of its anchor, and how tall it is."""

    left: float
    right: float
    height: float
    port: float = 0  # links leave at most so far left and right of the anchor


@dataclass(frozen=True)
class Link:
    """A link between two boxes, by their places in the list; `width` and `height` are its label's."""

    source: int
    target: int
    weight: float
    width: float = 0
    height: float = 0
    stroke: float = 1


@dataclass(frozen=True)
class Slot:
    """Where a link passes a rank: straight through at `x` from `top` to `bottom`, with its label or not."""

    x: float
    top: float
    bottom: float
    label: bool = False


@dataclass(frozen=True)
class Route:
    """The way of a link, from the upper box to the lower one; `up` says that it is travelled upward.

    A link within a layer (`cup`) goes down from one box, around its label, and up to the other.
    """

    start: tuple[float, float]
    slots: tuple[Slot, ...]
    end: tuple[float, float]
    up: bool = False
    cup: bool = False


@dataclass(frozen=True)
class Layout:
    """The anchor (centre) of every box, the route of every link, and the size of it all."""

    boxes: tuple[tuple[float, float], ...]
    routes: tuple[Route, ...]
    width: float
    height: float

    def moved(self, x: float, y: float) -> Layout:
        """Return the same layout, `x` to the right and `y` down."""
        routes = tuple(
            replace(
                route,
                start=(route.start[0] + x, route.start[1] + y),
                slots=tuple(
                    replace(one, x=one.x + x, top=one.top + y, bottom=one.bottom + y) for one in route.slots
                ),
                end=(route.end[0] + x, route.end[1] + y),
            )
            for route in self.routes
        )
        return replace(self, boxes=tuple((a + x, b + y) for a, b in self.boxes), routes=routes)


def layered(boxes: Sequence[Box], links: Sequence[Link], *, top: int = -1, bottom: int = -1) -> Layout:
    """Lay out a graph without links from a box to itself; box `top` is above all others, `bottom` below.

    Boxes of one layer should be equally tall: the curve of a lower one may graze a taller neighbour.
    """
    ways = [Way(link.source, link.target, link.weight) for link in links]
    drawing = _Drawing(boxes, links, layers(len(boxes), ways, top=top, bottom=bottom))
    drawing.uncross()
    drawing.x = coordinates(drawing.all, drawing.ranks, drawing.chains, SPACE)
    return drawing.layout()


# --- ranks, crossings, coordinates -------------------------------------------------------------------------


class _Drawing:
    """Boxes and slots in their ranks: boxes in the even ones, labels in the odd ones."""

    def __init__(self, boxes: Sequence[Box], links: Sequence[Link], layers: Sequence[int]) -> None:
        self.boxes, self.links = boxes, links
        self.all = [
            Vertex(2 * at, box.left, box.right, box.height) for box, at in zip(boxes, layers, strict=True)
        ]
        self.chains: list[list[int]] = [[] for _ in links]
        self._heaviest = max((link.weight for link in links), default=1) or 1
        crowd: dict[int, float] = defaultdict(float)
        order = sorted(range(len(links)), key=lambda at: (self._length(links[at]), at))
        for at in order:
            self._chain(at, crowd)
        self.ranks: list[list[int]] = [[] for _ in range(1 + max((one.rank for one in self.all), default=0))]
        for node, one in enumerate(self.all):
            self.ranks[one.rank].append(node)
        self.x = [0.0] * len(self.all)

    def _length(self, link: Link) -> int:
        return abs(self.all[link.source].rank - self.all[link.target].rank)

    def _strength(self, link: Link) -> float:
        """Return how much a link pulls: the heaviest 25 times as much as the lightest."""
        return 1 + 24 * link.weight / self._heaviest

    def _ends(self, link: Link) -> tuple[int, int]:
        """Return a link's upper and lower box."""
        one, two = link.source, link.target
        return (one, two) if self.all[one].rank <= self.all[two].rank else (two, one)

    def _chain(self, at: int, crowd: dict[int, float]) -> None:
        """Give a link its slots, its label in the rank that is least crowded (of those, the middle one)."""
        link = self.links[at]
        upper, lower = self._ends(link)
        first, last = self.all[upper].rank, self.all[lower].rank
        flat = first == last
        passed = range(first + 1, last) if not flat else range(first + 1, first + 2)
        middle = (first + last) / 2
        spot = min((one for one in passed if one % 2), key=lambda one: (crowd[one], abs(one - middle), one))
        crowd[spot] += link.width + SPACE
        strong = self._strength(link)
        before = upper
        for rank in passed:
            label = rank == spot and link.height > 0
            half = link.width / 2 + (CUP if flat else 0) if rank == spot else link.stroke / 2
            height = link.height + (CUP if flat else 0) if rank == spot else 0
            self.all.append(Vertex(rank, half, half, height, label))
            node = len(self.all) - 1
            self.chains[at].append(node)
            self._join(before, node, strong * (1 if before == upper else 8))
            before = node
        if flat:
            self._join(lower, before, strong)
        else:
            self._join(before, lower, strong)

    def _join(self, above: int, below: int, weight: float) -> None:
        self.all[above].down.append((below, weight))
        self.all[below].up.append((above, weight))

    # crossings

    def uncross(self) -> None:
        """Order every rank by the average place of the neighbours, to and fro; keep the best order seen."""
        best, fewest = [list(rank) for rank in self.ranks], self._crossings()
        for sweep in range(_SWEEPS):
            downward = sweep % 2 == 0
            for rank in self.ranks[1:] if downward else reversed(self.ranks[:-1]):
                self._average(rank, downward=downward)
            if sum(map(len, self.ranks)) <= _SWAPS_UP_TO * 20:
                self._swap()
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(rank) for rank in self.ranks], crossings
        self.ranks = best

    def _places(self) -> list[int]:
        places = [0] * len(self.all)
        for rank in self.ranks:
            for place, node in enumerate(rank):
                places[node] = place
        return places

    def _average(self, rank: list[int], *, downward: bool) -> None:
        places = self._places()
        middle = {}
        for node in rank:
            near = sorted(places[one] for one, _ in (self.all[node].up if downward else self.all[node].down))
            middle[node] = sum(near) / len(near) if near else float(places[node])
        rank.sort(key=lambda node: (middle[node], places[node]))

    def _swap(self) -> None:
        """Exchange neighbours as long as that takes crossings away."""
        for rank in self.ranks:
            if len(rank) > _SWAPS_UP_TO:
                continue
            places = self._places()
            seen = {
                node: [
                    sorted(places[one] for one, _ in near)
                    for near in (self.all[node].up, self.all[node].down)
                ]
                for node in rank
            }
            for _ in rank:
                moved = False
                for at, (one, two) in enumerate(pairwise(tuple(rank))):
                    if rank[at] != one:
                        continue
                    now = sum(map(_inverted, seen[one], seen[two]))
                    if sum(map(_inverted, seen[two], seen[one])) < now:
                        rank[at], rank[at + 1] = two, one
                        moved = True
                if not moved:
                    break

    def _crossings(self) -> int:
        places, total = self._places(), 0
        for rank in self.ranks:
            seen: list[int] = []
            for node in rank:
                ends = sorted(places[one] for one, _ in self.all[node].down)
                total += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    seen.insert(bisect_right(seen, end), end)
        return total

    # the result

    def layout(self) -> Layout:
        """Return it all in coordinates from 0."""
        middle, height = self._rows()
        ports = self._ports()
        routes = [self._route(at, middle, ports) for at in range(len(self.links))]
        width = max((self.x[node] + one.right for node, one in enumerate(self.all)), default=0.0)
        boxes = tuple((self.x[node], middle[self.all[node].rank]) for node in range(len(self.boxes)))
        return Layout(boxes, tuple(routes), width, height)

    def _tall(self, rank: int) -> float:
        return max((self.all[node].height for node in self.ranks[rank]), default=0)

    def _rows(self) -> tuple[list[float], float]:
        """Return the middle of each rank, with more room where links go far to the side."""
        middle, y = [], 0.0
        for rank, nodes in enumerate(self.ranks):
            middle.append(y + self._tall(rank) / 2)
            far = max(
                (abs(self.x[node] - self.x[one]) for node in nodes for one, _ in self.all[node].down),
                default=0,
            )
            y += self._tall(rank) + (min(max(14, 8 + far / 9), 52) if rank + 1 < len(self.ranks) else 0)
        return middle, y

    def _ports(self) -> dict[tuple[int, int, int], float]:
        """Return where links leave each box: (box, side, link) to x, in the order of where they go."""
        leaving: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        for at, link in enumerate(self.links):
            upper, lower = self._ends(link)
            flat = self.all[upper].rank == self.all[lower].rank
            first, last = self.chains[at][0], self.chains[at][-1]
            if flat:
                away = self.all[first].left * (1 if self.x[upper] > self.x[lower] else -1)
                leaving[upper, 1].append((self.x[first] + away, at))
                leaving[lower, 1].append((self.x[first] - away, at))
            else:
                leaving[upper, 1].append((self.x[first], at))
                leaving[lower, -1].append((self.x[last], at))
        ports = {}
        for (box, side), ends in leaving.items():
            ends.sort()
            reach = self.boxes[box].port
            step = min(11.0, 2 * reach / max(len(ends) - 1, 1))
            spread = spaced([(x, self._strength(self.links[at])) for x, at in ends], [step] * (len(ends) - 1))
            low, high = self.x[box] - reach, self.x[box] + reach
            for place, ((_, at), x) in enumerate(zip(ends, spread, strict=True)):
                inside = min(max(x, low + step * place), high - step * (len(ends) - 1 - place))
                ports[box, side, at] = inside
        return ports

    def _route(self, at: int, middle: list[float], ports: dict[tuple[int, int, int], float]) -> Route:
        link, chain = self.links[at], self.chains[at]
        upper, lower = self._ends(link)
        flat = self.all[upper].rank == self.all[lower].rank
        slots = []
        for node in chain:
            one = self.all[node]
            half = self._tall(one.rank) / 2
            y = middle[one.rank]
            slots.append(Slot(self.x[node], y - half, y + half, one.label))
        above, below = self._edge(upper, middle, 1), self._edge(lower, middle, 1 if flat else -1)
        start = (ports[upper, 1, at], above)
        end = (ports[lower, 1 if flat else -1, at], below)
        return Route(start, tuple(slots), end, up=not flat and upper == link.target, cup=flat)

    def _edge(self, box: int, middle: list[float], side: int) -> float:
        return middle[self.all[box].rank] + side * self.all[box].height / 2


def _inverted(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many pairs cross when the owner of `left` stands to the left."""
    return sum(a > b for a in left for b in right)
