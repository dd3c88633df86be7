"""Where the vertices of a layered drawing stand from left to right: near neighbours, long links upright.

A link that passes several ranks is one block with one x, broken only where a heavier link crosses it, or
where the drawing would get much wider. Blocks keep their order and their distance; they start between their
leftmost and their rightmost places, and are then pulled toward their neighbours, together with whatever
stands in the way, until nothing moves.

References: U. Brandes, B. Köpf, Fast and simple horizontal coordinate assignment, 2001 (the blocks).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_ROUNDS = 60
_WORK = 400_000  # about how many steps of pulling are worth a wait
_STILL = 0.05  # pixels
_BREAKS, _WIDER, _NARROW = 60, 1.15, 760  # a drawing that is wider has long links bent


@dataclass
class Vertex:
    """A box, or the slot of a link in a rank that it passes."""

    rank: int
    left: float
    right: float
    height: float = 0
    label: bool = False
    up: list[tuple[int, float]] = field(default_factory=list)  # neighbours in the rank above, with weights
    down: list[tuple[int, float]] = field(default_factory=list)


def coordinates(
    vertices: Sequence[Vertex], ranks: Sequence[Sequence[int]], chains: Sequence[Sequence[int]], space: float
) -> list[float]:
    """Return the x of each vertex, the leftmost edge at 0; `chains` are the slots of each link, downward."""
    joined = _joined(vertices, ranks, chains)
    narrow = _WIDER * max((_width(vertices, rank, space) for rank in ranks), default=0.0)
    for _ in range(_BREAKS):
        blocks = _Blocks(vertices, ranks, joined, space)
        cut = blocks.widest_bend() if blocks.width() > max(narrow, _NARROW) else None
        if cut is None:
            break
        del joined[cut]
    blocks = _Blocks(vertices, ranks, joined, space)
    blocks.pull()
    x = [blocks.x[block] for block in blocks.of]
    edge = min((at - one.left for at, one in zip(x, vertices, strict=True)), default=0.0)
    return [at - edge for at in x]


def _width(vertices: Sequence[Vertex], rank: Sequence[int], space: float) -> float:
    return sum(vertices[node].left + vertices[node].right + space for node in rank)


def _joined(
    vertices: Sequence[Vertex], ranks: Sequence[Sequence[int]], chains: Sequence[Sequence[int]]
) -> dict[int, int]:
    """Return below what a vertex stands upright: the slots of a link, unless a heavier link crosses there.

    A box is joined to the heaviest link below it, if that is also the heaviest above the other box.
    """
    place = {node: at for rank in ranks for at, node in enumerate(rank)}
    straight = {pair for chain in chains for pair in (*pairwise(chain), *_trunk(vertices, chain))}
    upright: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for one, vertex in enumerate(vertices):
        for two, weight in vertex.down:
            if (one, two) in straight:
                upright[vertex.rank].append((-weight, one, two))
    joined: dict[int, int] = {}
    for segments in upright.values():
        kept: list[tuple[int, int]] = []
        for _, one, two in sorted(segments):
            if all((place[one] < place[a]) == (place[two] < place[b]) for a, b in kept):
                kept.append((one, two))
                joined[two] = one
    return joined


def _trunk(vertices: Sequence[Vertex], chain: Sequence[int]) -> set[tuple[int, int]]:
    """Return the ends of a link that is the heaviest below one box and above the other."""
    upper, lower = vertices[chain[0]].up, vertices[chain[-1]].down
    if not lower:  # within a layer
        return set()
    one, two = upper[0][0], lower[0][0]
    if _heaviest(vertices[one].down) != chain[0] or _heaviest(vertices[two].up) != chain[-1]:
        return set()
    return {(one, chain[0]), (chain[-1], two)}


def _heaviest(near: Sequence[tuple[int, float]]) -> int:
    return max(near, key=lambda pair: pair[1])[0]


class _Blocks:
    """Blocks with their least distances and their springs."""

    def __init__(
        self,
        vertices: Sequence[Vertex],
        ranks: Sequence[Sequence[int]],
        joined: Mapping[int, int],
        space: float,
    ) -> None:
        self.vertices, self.joined = vertices, joined
        self.of = of = _numbered(vertices, joined)
        count = max(of, default=-1) + 1
        self.right: list[dict[int, float]] = [{} for _ in range(count)]
        self.left: list[dict[int, float]] = [{} for _ in range(count)]
        self.springs: list[dict[int, float]] = [defaultdict(float) for _ in range(count)]
        self.pairs: dict[tuple[int, int], tuple[float, int, int]] = {}
        for rank in ranks:
            for one, two in pairwise(rank):
                gap = vertices[one].right + space + vertices[two].left
                between = (of[one], of[two])
                self.pairs[between] = max((gap, one, two), self.pairs.get(between, (0.0, 0, 0)))
        for (one, two), (gap, *_) in self.pairs.items():
            self.right[one][two] = self.left[two][one] = gap
        for node, vertex in enumerate(vertices):
            for other, weight in vertex.down:
                if of[node] != of[other]:
                    self.springs[of[node]][of[other]] += weight
                    self.springs[of[other]][of[node]] += weight
        self.leftmost, rightmost = _packed(self.left, self.right), _packed(self.right, self.left)
        self.x = [(one - wide) / 2 for one, wide in zip(self.leftmost, rightmost, strict=True)]

    def width(self) -> float:
        """Return how wide it is when packed to the left."""
        ends = (self.leftmost[block] + one.right for block, one in zip(self.of, self.vertices, strict=True))
        return max(ends, default=0.0)

    def widest_bend(self) -> int | None:
        """Return the vertex where a bend would let the drawing be narrower, in the lightest link there is.

        The row of blocks that makes it so wide enters a block in one rank and leaves it in another: between
        the two that block need not be upright.
        """
        bends: list[tuple[float, float, int]] = []
        block = max(range(len(self.leftmost)), key=lambda one: self.leftmost[one])
        leaves = -1
        while self.left[block]:
            before = max(self.left[block], key=lambda one: self.leftmost[one] + self.left[block][one])
            _, beside, enters = self.pairs[before, block]
            if leaves >= 0:
                bends += self._between(enters, leaves)
            block, leaves = before, beside
        return min(bends)[-1] if bends else None

    def _between(self, one: int, two: int) -> Iterator[tuple[float, float, int]]:
        """Give the joints between two vertices of a block: weight, distance from their middle, lower end."""
        low, high = sorted((one, two), key=lambda node: self.vertices[node].rank)
        middle = (self.vertices[low].rank + self.vertices[high].rank + 1) / 2
        while high != low:
            vertex = self.vertices[high]
            weight = next(w for node, w in vertex.up if node == self.joined[high])
            yield weight, abs(vertex.rank - middle), high
            high = self.joined[high]

    def pull(self) -> None:
        """Move every block, and those it would push, as long as the springs of all of them together pull."""
        work = 0
        for turn in range(_ROUNDS):
            order = sorted(
                range(len(self.x)), key=lambda block: (self.x[block], block), reverse=turn % 2 == 0
            )
            moved = 0.0
            for block in order:
                for way in (1, -1):
                    step, steps = self._step(block, way)
                    moved, work = max(moved, step), work + steps
            if moved < _STILL or work > _WORK:
                break

    def _step(self, block: int, way: int) -> tuple[float, int]:
        """Move a block to the right (or left) by as much as the springs want and the neighbours allow."""
        beside = self.right if way > 0 else self.left
        group, queue, free = {block}, [block], float("inf")
        for one in queue:
            for other, gap in beside[one].items():
                if other not in group and abs(self.x[other] - self.x[one]) - gap < 1e-6:  # noqa: PLR2004
                    group.add(other)
                    queue.append(other)
        force = weight = 0.0
        for one in queue:
            for other, strength in self.springs[one].items():
                if other not in group:
                    force += strength * (self.x[other] - self.x[one]) * way
                    weight += strength
            for other, gap in beside[one].items():
                if other not in group:
                    free = min(free, abs(self.x[other] - self.x[one]) - gap)
        step = min(force / weight, free) if weight else 0.0
        if step < _STILL / 10:
            return 0.0, len(queue)
        for one in queue:
            self.x[one] += way * step
        return step, len(queue)


def _numbered(vertices: Sequence[Vertex], joined: Mapping[int, int]) -> list[int]:
    """Return the block of each vertex."""
    names: dict[int, int] = {}
    block = [-1] * len(vertices)
    for node in sorted(range(len(vertices)), key=lambda node: vertices[node].rank):
        block[node] = block[joined[node]] if node in joined else names.setdefault(node, len(names))
    return block


def _packed(before: list[dict[int, float]], after: list[dict[int, float]]) -> list[float]:
    """Return the least place of each block, as far from what is before it as it must be."""
    x, waits = [0.0] * len(before), [len(ones) for ones in before]
    ready = [block for block, many in enumerate(waits) if not many]
    for block in ready:
        for other, gap in after[block].items():
            x[other] = max(x[other], x[block] + gap)
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    return x


def spaced(wanted: Iterable[tuple[float, float]], gaps: Sequence[float]) -> list[float]:
    """Return places nearest to the wanted ones (place, weight), each at least a gap after the one before.

    The sum of weighted squares of the distances is the least there is (pool adjacent violators).
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for (place, weight), offset in zip(wanted, offsets, strict=False):
        mean, heavy, many = place - offset, max(weight, 1e-6), 1
        while pools and pools[-1][0] > mean:
            before, weight_before, count = pools.pop()
            mean = (before * weight_before + mean * heavy) / (weight_before + heavy)
            heavy, many = heavy + weight_before, many + count
        pools.append((mean, heavy, many))
    flat = [mean for mean, _, many in pools for _ in range(many)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=False)]
