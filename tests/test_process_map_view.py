"""The process map with its slider: several maps, the readable one first, safe in every form it takes."""

from __future__ import annotations

import base64
import json
import re
import sys
from importlib.util import find_spec

import pytest

from esim.processgraph import process_graph
from esim.processmap import process_map
from esim.view import ProcessMap, page
from tests.pictures import HOSTILE, NS, parsed
from tests.test_processgraph import SHOP

MANY = process_graph(
    [(f"a{at}", 10) for at in range(30)],
    [
        (f"a{one}", f"a{two}", 10_000 // (1 + one * 30 + two))
        for one in range(30)
        for two in range(30)
        if one != two
    ],
    {"a0": 10},
)


def test_each_step_shows_more_edges_than_the_last():
    """From a few edges on, no two steps alike, none beyond what is readable at all."""
    edges = [step.edges for step in ProcessMap(MANY).steps]
    assert edges == sorted(set(edges))
    assert len(edges) >= 4
    assert edges[-1] <= 150


def test_it_opens_with_the_map_that_is_drawn_without_a_slider():
    """The most edges that are readable, as `process_map` draws them."""
    assert ProcessMap(MANY, title="t").svg() == process_map(MANY, title="t")
    assert ProcessMap(SHOP, label="median").svg() == process_map(SHOP, label="median")


def test_text_is_stable_and_says_what_is_hidden():
    """No address, no time of the run."""
    view = ProcessMap(SHOP, title="The shop")
    assert repr(view) == "<ProcessMap The shop: 4 of 4 edges, 100 % of 190 transitions; 4 of 4 activities>"


def test_without_anywidget_the_picture_is_shown(monkeypatch):
    """No widget, no error; the picture is an image with an alternative text."""
    monkeypatch.setattr(sys.modules["esim.view.widget"], "find_spec", lambda name: None)
    bundle = ProcessMap(SHOP)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    found = re.fullmatch(
        r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)" style="[^"]+">', bundle["text/html"]
    )
    assert base64.b64decode(found[1]).decode() == ProcessMap(SHOP).svg()
    assert found[2].startswith("Process map. Shown: 4 of 4 edges")


@pytest.mark.skipif(find_spec("anywidget") is None, reason="anywidget is not installed")
def test_the_widget_stands_beside_the_picture():
    """The front end chooses; showing the same object again shows the same widget."""
    view = ProcessMap(SHOP)
    first, second = view._repr_mimebundle_(), view._repr_mimebundle_()
    assert set(first) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert first == second


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_keeps_hostile_names_inside_its_data(tmp_path, name):
    """Nothing in a name or a title can end or open anything; every picture in it is well-formed."""
    view = ProcessMap(process_graph([(name, 1)], [(name, name, 1)]), title=name)
    html = view.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    steps = json.loads(found[1])["steps"]
    for step in steps:
        kind, _, data = step["image"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert parsed(base64.b64decode(data).decode()).find(NS + "desc") is not None
    assert html.count("</script>") == 2
    assert "<!--" not in html
    assert not re.search(r"https?:(?!//www.w3.org)", html)


def test_an_empty_graph_has_one_map_and_no_slider_to_move():
    """Nothing happened: a start, an end, one step."""
    assert [step.edges for step in ProcessMap(process_graph([], [])).steps] == [0]


def test_the_script_never_makes_html_of_text():
    """The module knows no way of turning a string into elements, and no address."""
    script = page.asset("process_map.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?:", script)
