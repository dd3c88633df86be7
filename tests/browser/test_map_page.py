"""The process map on a page of its own, its slider moved as a person would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esim.processgraph import process_graph
from esim.view import ProcessMap

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><!-- & late"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_slider_shows_more_and_fewer_edges(
    chromium: Browser, tmp_path: Path, screenshots: Path, scheme: Any
) -> None:
    """Each step has its picture, its words and its alternative text; nothing is asked of the network."""
    names = [HOSTILE, *(f"step {at}" for at in range(7))]
    flows = [
        (one, two, 3000 // (1 + 8 * a + b)) for a, one in enumerate(names) for b, two in enumerate(names)
    ]
    graph = process_graph([(name, 50, 0.5) for name in names], flows, {HOSTILE: 9}, {"step 6": 9})
    view = ProcessMap(graph, title="A map")
    troubles: list[str] = []
    asked: list[str] = []
    context = chromium.new_context(color_scheme=scheme)
    context.on("request", lambda request: asked.append(request.url))
    opened = context.new_page()
    opened.on("console", lambda message: troubles.append(message.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.goto(view.to_html(tmp_path / "map.html").as_uri())
    slider, picture = (
        opened.get_by_role("slider", name="how much of A map is shown"),
        opened.get_by_role("img"),
    )
    assert slider.input_value() == str(view.start)
    seen = set()
    for place, step in enumerate(view.steps):
        slider.fill(str(place))
        assert opened.get_by_role("status").inner_text() == step.words.partition(";")[0]
        assert step.words in str(picture.get_attribute("alt"))
        picture.evaluate("one => one.decode()")
        assert picture.evaluate("one => one.naturalWidth") > 100
        seen.add(picture.get_attribute("src"))
    assert len(seen) == len(view.steps)
    opened.screenshot(path=screenshots / f"map-{scheme}.png", full_page=True)
    assert opened.title() == "A map"
    context.close()
    assert troubles == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
