"""Directly-follows graphs as data: checked, thinned with what is hidden said, and told as text."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidArgument
from esim.processgraph import READABLE, ProcessGraph, dot, label_of, mermaid, process_graph
from tests.pictures import HOSTILE, names

SHOP = process_graph(
    [("Placed", 100, 1.0), ("Paid", 90, 0.9), ("Shipped", 80, 0.8), ("Cancelled", 20, 0.2)],
    [
        ("Placed", "Paid", 90, 60.0, 30.0),
        ("Paid", "Shipped", 80, 7200.0, 3600.0),
        ("Placed", "Cancelled", 10, None, None),
        ("Paid", "Cancelled", 10),
    ],
    {"Placed": 100},
    {"Shipped": 80, "Cancelled": 20},
)


@st.composite
def process_graphs(draw, activities: int = 8, flows: int = 30) -> ProcessGraph:
    """Return any graph, its names hostile or not."""
    known = draw(st.lists(names, min_size=1, max_size=activities, unique=True))
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(known), st.sampled_from(known)), max_size=flows, unique=True)
    )
    counts = st.integers(0, 10**9)
    seconds = st.one_of(st.none(), st.just(float("nan")), st.floats(0, 1e9))
    ends = st.dictionaries(st.sampled_from(known), counts, max_size=4)
    return process_graph(
        [(name, draw(counts), draw(st.one_of(st.none(), st.floats(0, 1)))) for name in known],
        [(one, two, draw(counts), draw(seconds), draw(seconds)) for one, two in pairs],
        draw(ends),
        draw(ends),
    )


def _chain(many: int) -> ProcessGraph:
    steps = [f"step {at}" for at in range(many)]
    flows = [(one, two, 1000 - at) for at, (one, two) in enumerate(pairwise(steps))]
    return process_graph([(name, 1000) for name in steps], flows, {steps[0]: 1000}, {steps[-1]: 900})


def test_nothing_is_hidden_from_a_small_graph():
    """Up to the readable number of edges all are shown, and that is said."""
    assert SHOP.thinned() == SHOP
    assert SHOP.hidden == "4 of 4 edges, 100 % of 190 transitions; 4 of 4 activities"


def test_coverage_keeps_the_most_frequent_flows_and_says_what_is_hidden():
    """85 % of the transitions are in two of the four flows; what only the others reach is hidden."""
    thin = SHOP.thinned(0.85)
    assert [flow[:2] for flow in thin.flows] == [("Placed", "Paid"), ("Paid", "Shipped")]
    assert [one.name for one in thin.activities] == ["Placed", "Paid", "Shipped"]
    assert thin.hidden == "2 of 4 edges, 89.5 % of 190 transitions; 3 of 4 activities; 2 of 3 starts and ends"


def test_more_edges_than_are_readable_are_thinned_unless_all_are_asked_for():
    """The default draws 55; a coverage of 1 draws all."""
    large = _chain(80)
    assert len(large.thinned().flows) == READABLE
    assert len(large.thinned(1).flows) == 79


def test_an_activity_without_a_way_in_keeps_its_most_frequent_one():
    """A thinned graph has no islands whose beginning is hidden."""
    graph = process_graph(
        [("a", 100), ("b", 9), ("c", 50)],
        [("b", "c", 50), ("a", "b", 5), ("c", "b", 4), ("c", "c", 41)],
        {"a": 100},
        {"c": 100},
    )
    assert [flow[:2] for flow in graph.thinned(0.9).flows] == [("b", "c"), ("c", "c"), ("a", "b")]


@given(process_graphs(), st.one_of(st.none(), st.floats(0.01, 1)), st.integers(1, 20))
def test_a_thinned_graph_is_a_part_that_carries_what_was_asked(graph, coverage, edges):
    """Its flows are the graph's own, as many or as much as wanted; both their ends are shown."""
    thin = graph.thinned(coverage, edges=edges)
    shown = {one.name for one in thin.activities}
    assert set(thin.flows) <= set(graph.flows)
    assert {name for flow in thin.flows for name in flow[:2]} | thin.starts.keys() | thin.ends.keys() <= shown
    if coverage is None:
        assert len(thin.flows) == min(edges, len(graph.flows))
    else:
        assert sum(flow.times for flow in thin.flows) >= coverage * graph.total - 1e-6
    assert f"{len(thin.flows)} of {len(graph.flows)}" in thin.hidden or not graph.flows
    assert thin.thinned(1).flows == thin.flows


def test_labels_are_counts_shares_or_times():
    """What is written on a flow; a time that is missing is a dash."""
    paid, shipped, cancelled, _ = SHOP.flows
    assert [label_of(SHOP, paid, label) for label in ("count", "share", "mean", "median")] == [
        "90",
        "47.4 %",
        "1 min",
        "30 s",
    ]
    assert label_of(SHOP, shipped, "median") == "1 h"
    assert label_of(SHOP, cancelled, "mean") == "–"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: process_graph([("a", 1)], [("a", "A", 1)]), "'A' is not among the activities"),
        (lambda: process_graph([("paid", 1)], [], {"piad": 1}), "did you mean 'paid'"),
        (lambda: process_graph([("a", 1), ("a", 2)], []), "activity 'a' is given twice; add them up"),
        (lambda: process_graph([("a", 1)], [("a", "a", 1), ("a", "a", 2)]), "'a → a' is given twice"),
        (lambda: process_graph([("a", -1)], []), "-1 is not a count"),
        (lambda: process_graph([("a", float("nan"))], []), "nan is not a count"),
        (lambda: process_graph([("a", "many")], []), "'many' is not a count"),
        (lambda: process_graph([(None, 1)], []), "None is not the name of an activity"),
        (lambda: SHOP.thinned(0), "coverage=0"),
        (lambda: SHOP.thinned(1.5), "coverage=1.5"),
        (lambda: mermaid(SHOP, label="medain"), "did you mean 'median'"),
    ],
)
def test_bad_input_is_named_with_its_way_out(make, told):
    """A row that cannot be is told before anything is drawn."""
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        make()


def test_mermaid_text_has_every_node_and_edge():
    """A flowchart with the same numbers and the same confession."""
    assert mermaid(SHOP.thinned(0.85)) == (
        "flowchart TD\n"
        "  %% 2 of 4 edges, 89.5 % of 190 transitions; 3 of 4 activities; 2 of 3 starts and ends\n"
        "  start((start))\n"
        "  finish((end))\n"
        '  a0["Placed<br/>100"]\n'
        '  a1["Paid<br/>90"]\n'
        '  a2["Shipped<br/>80"]\n'
        '  start -. "100" .-> a0\n'
        '  a0 -->|"90"| a1\n'
        '  a1 -->|"80"| a2\n'
        '  a2 -. "80" .-> finish\n'
    )


def test_dot_text_has_every_node_and_edge():
    """The same graph for Graphviz."""
    lines = dot(SHOP, label="median").splitlines()
    assert (lines[0], lines[-1]) == ("digraph process {", "}")
    assert '  a1 -> a2 [label="1 h", penwidth=5.7];' in lines
    assert sum(" -> " in line for line in lines) == 7


@given(process_graphs())
def test_a_name_is_never_syntax(graph):
    """In Mermaid no quote, tag, bracket or line of its own; in DOT no quote that ends the text."""
    for line in mermaid(graph).splitlines()[4:]:
        assert re.fullmatch(
            r'  (a\d+\["[^"<>\[\]{}|\\]*<br/>[\d,]+"\]|start -\. "[\d,]+" \.-> a\d+'
            r'|a\d+ -\. "[\d,]+" \.-> finish'
            r'|a\d+ -->\|"[\d,]+"\| a\d+)',
            line,
        )
    quoted = r'"(?:[^"\\]|\\.)*"'
    for line in dot(graph).splitlines()[4:-1]:
        assert re.fullmatch(rf"  \w+( -> \w+)? \[label={quoted}(, (style=dashed|penwidth=[\d.]+))?\];", line)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_one_line(name):
    """No name breaks out of its line of text."""
    graph = process_graph([(name, 1)], [(name, name, 1)])
    assert len(mermaid(graph).splitlines()) == 6
    assert len(dot(graph).splitlines()) == 7
    (mermaid(graph) + dot(graph)).encode()
