"""Process maps: what a directly-follows graph looks like, and that any of them can be drawn."""

from __future__ import annotations

import re
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.display import FAILURE, color_of
from esim.errors import InvalidArgument
from esim.processgraph import process_graph
from esim.processmap import process_map
from esim.svg import text_width
from tests.pictures import HOSTILE, NS, inside, parsed, strokes, texts
from tests.test_processgraph import SHOP, process_graphs

LABELS = ("count", "share", "mean", "median")


def _boxes(root):
    rects = [one.attrib for one in root.iter(NS + "rect")]
    return [tuple(float(one[key]) for key in ("x", "y", "width", "height")) for one in rects]


@settings(max_examples=80, deadline=None)
@given(process_graphs(), st.sampled_from(LABELS), st.sampled_from(LABELS), st.sampled_from([None, 0.5, 1.0]))
def test_any_graph_is_a_picture(graph, label, width, coverage):
    """Well-formed, finite, in its view, its boxes apart, the same twice."""
    svg = process_map(graph, label=label, width=width, coverage=coverage)
    assert svg == process_map(graph, label=label, width=width, coverage=coverage)
    root = parsed(svg)
    inside(root)
    boxes = _boxes(root)
    assert len(boxes) == len(graph.thinned(coverage).activities)
    for (x, y, wide, tall), (to_x, to_y, to_wide, to_tall) in combinations(boxes, 2):
        assert x + wide < to_x or to_x + to_wide < x or y + tall < to_y or to_y + to_tall < y


def _flows(root):
    """Return the groups of the drawn edges: the points of the line, and the frame of the label, if any."""
    for group in root.iter(NS + "g"):
        line = group.find(NS + "path")
        if line is None or "stroke-opacity" not in line.attrib:
            continue
        words, frame = group.find(NS + "text"), None
        if words is not None:
            x, y = float(words.attrib["x"]), float(words.attrib["y"])
            wide = text_width(words.text, 11)
            left = x - wide / 2 if words.attrib.get("text-anchor") == "middle" else x
            frame = (left + 1, y - 8, left + wide - 1, y)
        yield strokes(line.attrib["d"]), frame


def _within(point, frame):
    return frame[0] < point[0] < frame[2] and frame[1] < point[1] < frame[3]


@settings(max_examples=60, deadline=None)
@given(process_graphs(flows=40), st.sampled_from(LABELS))
def test_no_edge_runs_through_a_box_or_a_label(graph, label):
    """Nor do labels lie on boxes or on each other: every number can be read, and belongs to its line."""
    root = parsed(process_map(graph, label=label))
    boxes = [(x + 1, y + 1, x + wide - 1, y + tall - 1) for x, y, wide, tall in _boxes(root)]
    flows = list(_flows(root))
    labels = [frame for _, frame in flows if frame]
    for points, _ in flows:
        assert not any(_within(point, frame) for frame in boxes + labels for point in points)
    for one, two in combinations(boxes + labels, 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


def test_activities_flows_starts_and_ends_are_told():
    """Names with counts and shares in boxes of their colour, counts on the edges, start and end marked."""
    root = parsed(process_map(SHOP, title="The shop"))
    drawn = texts(root)
    assert drawn[0] == "The shop"
    assert {"Placed", "100 · 100 % of cases", "Cancelled", "20 · 20.0 % of cases"} <= set(drawn)
    assert {"start · 100 cases", "end"} <= set(drawn)
    assert sorted(words for words in drawn if words.isdigit()) == sorted(
        ["90", "80", "10", "10", "100", "80", "20"]
    )
    fills = [one.attrib["fill"] for one in root.iter(NS + "rect")]
    assert fills == [color_of(name) for name in ("Placed", "Paid", "Shipped", "Cancelled")]
    assert FAILURE not in process_map(SHOP)


def test_what_is_hidden_is_in_the_caption():
    """A thinned map says how much of the log it shows, and what its labels mean."""
    caption = "".join(texts(parsed(process_map(SHOP, coverage=0.85, label="median")))[1:])
    assert "2 of 4 edges, 89.5 % of 190 transitions" in caption
    description = parsed(process_map(SHOP, coverage=0.85)).find(NS + "desc")
    assert description is not None
    assert description.text.startswith("Shown: 2 of 4 edges")
    meaning = "On the edges, and as their width: how often one directly follows the other."
    assert description.text.endswith(meaning)


def test_the_caption_says_what_labels_and_widths_mean():
    """Both, where they are not the same."""
    caption = parsed(process_map(SHOP, label="median", width="count")).find(NS + "desc").text
    assert "On the edges: the median time from one to the next." in caption
    assert caption.endswith("As their width: how often one directly follows the other.")


def test_edges_are_as_wide_as_they_are_frequent_or_slow():
    """The widest is the most frequent by count, and the slowest by time."""

    def widest(width):
        root = parsed(process_map(SHOP, width=width))
        lines = [
            (float(one.attrib["stroke-width"]), group[0].text)
            for group in root.iter(NS + "g")
            for one in group.findall(NS + "path")
            if "stroke-opacity" in one.attrib
        ]
        return max(lines)[1]

    assert widest("count").startswith("start → Placed") or widest("count").startswith("Placed → Paid")
    assert widest("median") == "Paid → Shipped: 80 times, mean 2 h, median 1 h"


def test_a_repeat_is_a_loop_with_its_label():
    """It is drawn at its box, and does not lie on it or on anything else."""
    graph = process_graph([("a", 9), ("b", 9)], [("a", "a", 7), ("a", "b", 2)], {"a": 2}, {"b": 2})
    root = parsed(process_map(graph))
    (loop,) = [one for one in root.iter(NS + "g") if one[0].text == "a → a: 7 times"]
    words = loop.find(NS + "text")
    assert words.text == "7"
    assert all(float(words.attrib["x"]) > x + wide for x, y, wide, _ in _boxes(root) if y < 150)


def test_long_names_are_cut_and_told_in_full():
    """The box stays small; its title has it all."""
    name = "application submitted by the customer and countersigned by the bank"
    svg = process_map(process_graph([(name, 1)], []))
    assert f"<title>{name}: 1</title>" in svg
    assert all(wide <= 180 for _, _, wide, _ in _boxes(parsed(svg)))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    """In boxes, on edges, in titles and in the picture's own title."""
    svg = process_map(process_graph([(name, 1)], [(name, name, 1)], {name: 1}), title=name)
    parsed(svg)
    assert not re.search(r"<(script|img|style|a)\b", svg)
    assert len(svg) < 40_000


def test_an_empty_log_is_a_start_and_an_end():
    """No activity is no error."""
    assert {"start", "end"} <= set(texts(parsed(process_map(process_graph([], [])))))


def test_a_large_graph_is_drawn_whole_when_asked():
    """All 300 edges of 60 activities, every box apart from the others."""
    flows = [
        (f"a{one}", f"a{(one * 7 + step * 11) % 60}", 1 + (one * step) % 97)
        for one in range(60)
        for step in range(5)
    ]
    graph = process_graph([(f"a{at}", 10) for at in range(60)], {flow[:2]: flow for flow in flows}.values())
    root = parsed(process_map(graph, coverage=1))
    assert len(_boxes(root)) == 60
    assert f"{len(graph.flows)} of {len(graph.flows)} edges" in root.find(NS + "desc").text


def test_no_map_has_more_edges_than_an_eye_can_follow():
    """Whatever coverage is asked for, a map stays a map, and says what it leaves out."""
    names = [f"a{at}" for at in range(30)]
    flows = [(one, two, 1 + at) for at, (one, two) in enumerate(product(names, names))]
    svg = process_map(process_graph([(name, 10) for name in names], flows), coverage=1)
    assert parsed(svg).find(NS + "desc").text.startswith("Shown: 400 of 900 edges")


def test_an_unknown_label_is_refused_by_name():
    """Neither a label nor a width is guessed."""
    with pytest.raises(InvalidArgument, match="'cuont' is no label of an edge; did you mean 'count'"):
        process_map(SHOP, label="cuont")
    with pytest.raises(InvalidArgument, match="'speed'"):
        process_map(SHOP, width="speed")
