"""The layered layout: nothing stands on anything else, whatever the graph."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.coordinates import spaced
from esim.layers import Way, layers
from esim.layout import CUP, SPACE, Box, Layout, Link, layered

LABEL = (30.0, 14.0)


@st.composite
def graphs(draw, most: int = 9):
    """Return boxes and links between them, with labels or without."""
    count = draw(st.integers(1, most))
    boxes = [
        Box(half, half + beside, height, half - 4)
        for half, beside, height in draw(
            st.lists(
                st.tuples(st.integers(10, 80), st.integers(0, 60), st.integers(10, 50)),
                min_size=count,
                max_size=count,
            )
        )
    ]
    pairs = [(one, two) for one in range(count) for two in range(count) if one != two]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []
    links = [
        Link(one, two, draw(st.integers(0, 1000)), *(LABEL if draw(st.booleans()) else (2.0, 0.0)), 3.0)
        for one, two in chosen
    ]
    return boxes, links


def _frames(boxes: list[Box], layout: Layout) -> list[tuple[float, float, float, float]]:
    return [
        (x - box.left, y - box.height / 2, x + box.right, y + box.height / 2)
        for box, (x, y) in zip(boxes, layout.boxes, strict=True)
    ]


def _labels(links: list[Link], layout: Layout) -> list[tuple[float, float, float, float]]:
    found = []
    for link, route in zip(links, layout.routes, strict=True):
        for slot in route.slots:
            if slot.label:
                wide, y = link.width / 2 + (CUP if route.cup else 0), (slot.top + slot.bottom) / 2
                found.append((slot.x - wide, y - link.height / 2, slot.x + wide, y + link.height / 2))
    return found


def _apart(one, two) -> bool:
    return (
        one[2] <= two[0] + 0.1 or two[2] <= one[0] + 0.1 or one[3] <= two[1] + 0.1 or two[3] <= one[1] + 0.1
    )


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_no_box_and_no_label_stands_on_another(graph):
    """Boxes and labels are pairwise apart and inside the drawing."""
    boxes, links = graph
    layout = layered(boxes, links)
    frames = _frames(boxes, layout) + _labels(links, layout)
    assert all(_apart(one, two) for one, two in combinations(frames, 2))
    for left, top, right, bottom in frames:
        assert (left, top) >= (-0.1, -0.1)
        assert (right, bottom) <= (layout.width + 0.1, layout.height + 0.1)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_no_link_runs_through_a_box_or_a_label(graph):
    """Wherever a link passes beside others it runs upright, in a slot of its own."""
    boxes, links = graph
    layout = layered(boxes, links)
    frames = _frames(boxes, layout)
    labels = _labels(links, layout)
    for at, route in enumerate(layout.routes):
        for slot in route.slots:
            upright = (slot.x, slot.top, slot.x, slot.bottom)
            own = [one for one in labels if abs((one[0] + one[2]) / 2 - slot.x) < 1e-6]
            assert all(_apart(upright, one) for one in frames + [one for one in labels if one not in own]), at


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_a_link_goes_from_its_source_to_its_target(graph):
    """It starts and ends at the edges of its boxes, and passes its ranks in order, at most once each."""
    boxes, links = graph
    layout = layered(boxes, links)
    frames = _frames(boxes, layout)
    for link, route in zip(links, layout.routes, strict=True):
        upper, lower = (link.target, link.source) if route.up else (link.source, link.target)
        for box, (x, y), side in ((upper, route.start, 3), (lower, route.end, 3 if route.cup else 1)):
            assert frames[box][0] - 0.1 <= x <= frames[box][2] + 0.1
            assert y == pytest.approx(frames[box][side])
        down = [route.start[1], *(y for slot in route.slots for y in (slot.top, slot.bottom))]
        assert all(one <= two + 1e-6 for one, two in pairwise(down if route.cup else [*down, route.end[1]]))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_same_graph_is_laid_out_the_same_way(graph, random):
    """Two runs agree to the last digit."""
    boxes, links = graph
    assert layered(boxes, links) == layered(list(boxes), list(links))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 99)), max_size=25))
def test_the_first_is_above_all_and_the_last_below(ways):
    """Nothing shares a layer with the start or the end."""
    between = [Way(one, two, weight) for one, two, weight in ways if one not in (two, 7) and two != 0]
    found = layers(8, between, top=0, bottom=7)
    assert all(found[0] < one for one in found[1:])
    assert all(found[7] > one for one in found[:7])


def test_a_chain_goes_straight_down():
    """Each step is a layer below the last, all at one x."""
    boxes = [Box(40, 40, 30, 30)] * 4
    layout = layered(boxes, [Link(0, 1, 9, *LABEL), Link(1, 2, 9, *LABEL), Link(2, 3, 9, *LABEL)])
    assert [x for x, _ in layout.boxes] == [40] * 4
    assert [y for _, y in layout.boxes] == sorted(y for _, y in layout.boxes)
    assert [{slot.x for slot in route.slots} for route in layout.routes] == [{40}] * 3


def test_a_rare_way_back_goes_up():
    """The order follows what is frequent."""
    boxes = [Box(40, 40, 30, 30)] * 3
    layout = layered(boxes, [Link(0, 1, 100), Link(1, 2, 100), Link(2, 0, 5)])
    assert [route.up for route in layout.routes] == [False, False, True]
    assert layout.boxes[0][1] < layout.boxes[1][1] < layout.boxes[2][1]


def test_boxes_with_only_rare_ways_between_them_stand_side_by_side():
    """A link within a layer goes around its label, below its boxes."""
    boxes = [Box(40, 40, 30, 30)] * 4
    links = [Link(0, 1, 100), Link(0, 2, 100), Link(1, 3, 100), Link(2, 3, 100), Link(1, 2, 3, *LABEL)]
    layout = layered(boxes, links)
    assert layout.boxes[1][1] == layout.boxes[2][1]
    assert layout.routes[4].cup


def test_a_ladder_is_drawn_without_crossings():
    """Two ways that never meet are kept apart."""
    boxes = [Box(20, 20, 20, 10)] * 6
    layout = layered(boxes, [Link(0, 3, 1), Link(1, 2, 1), Link(3, 4, 1), Link(2, 5, 1)])
    left = layout.boxes[0][0] < layout.boxes[1][0]
    assert (layout.boxes[3][0] < layout.boxes[2][0]) == left
    assert (layout.boxes[4][0] < layout.boxes[5][0]) == left


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10)), min_size=1, max_size=12), st.data())
def test_places_keep_their_gaps_and_are_the_nearest_there_are(wanted, data):
    """No small move of one place that keeps the gaps brings it nearer to what is wanted."""
    gaps = data.draw(st.lists(st.floats(0, 20), min_size=len(wanted) - 1, max_size=len(wanted) - 1))
    places = spaced(wanted, gaps)
    assert all(b - a >= gap - 1e-6 for (a, b), gap in zip(pairwise(places), gaps, strict=True))
    for at, ((want, _), place) in enumerate(zip(wanted, places, strict=True)):
        free_left = at == 0 or place - places[at - 1] > gaps[at - 1] + 1e-6
        free_right = at + 1 == len(places) or places[at + 1] - place > gaps[at] + 1e-6
        assert not (free_left and want < place - 1e-6)
        assert not (free_right and want > place + 1e-6)


def test_no_boxes_are_an_empty_drawing():
    """Nothing to draw is no error."""
    assert layered([], []) == Layout((), (), 0, 0)
    assert SPACE > 0
