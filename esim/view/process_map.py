"""A process map with a slider: from the few most frequent ways to all that can be read.

The maps are drawn once, in Python; the slider only picks one, in the browser. Where no widget runs, the map
stands there as a picture, with what it hides in its caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from esim import svg
from esim.display import clean
from esim.processgraph import READABLE, Label, ProcessGraph
from esim.processmap import process_map
from esim.result import Result
from esim.view.page import document
from esim.view.widget import map_class, model_id, shown

_COVERAGES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
_MOST = 150  # edges; beyond, a map is only ink


class _Step(NamedTuple):
    edges: int
    words: str
    picture: str


class ProcessMap:
    """A directly-follows graph to look at, with a slider for how much of it is drawn.

    `ProcessMap(log.directly_follows())`, or of any ProcessGraph.
    """

    def __init__(
        self,
        graph: ProcessGraph | Result,
        *,
        title: str = "Process map",
        label: Label = "count",
        width: Label = "count",
    ) -> None:
        """Draw the maps of a graph, or of an answer that is one; the rest is as in `process_map`."""
        self.title = title
        graph = graph.graph if isinstance(graph, Result) else graph
        self.steps = tuple(_steps(graph, title, label, width))
        self.start = max(
            place for place, step in enumerate(self.steps) if not place or step.edges <= READABLE
        )
        self._widget: Any = None

    def svg(self) -> str:
        """Return the map that is shown first, as SVG text."""
        return self.steps[self.start].picture

    def page(self) -> str:
        """Return the map with its slider as a whole HTML document that works offline."""
        return document(clean(self.title), "process_map", self._data(), svg.img(self.svg()))

    def to_html(self, path: str | Path) -> Path:
        """Write `page()` to a file and return its path."""
        target = Path(path)
        target.write_text(self.page(), encoding="utf-8")
        return target

    def widget(self) -> Any:
        """Return the live widget, made at the first call. Raises ImportError without anywidget."""
        if self._widget is None:
            data = self._data()
            self._widget = map_class()(map=data, model_id=model_id(data))
        return self._widget

    def _data(self) -> dict[str, Any]:
        steps = [
            {
                "words": step.words.partition(";")[0],
                "image": svg.data_uri(step.picture),
                "alt": svg.alternative(step.picture),
            }
            for step in self.steps
        ]
        return {"title": clean(self.title), "start": self.start, "steps": steps}

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return shown(self, svg.img(self.svg()))

    def __repr__(self) -> str:
        return f"<ProcessMap {clean(self.title)}: {self.steps[self.start].words}>"


def _steps(graph: ProcessGraph, title: str, label: Label, width: Label) -> Iterator[_Step]:
    """Give maps of more and more edges, no two the same; the one drawn by default is among them."""
    thinned = {}
    for coverage in (*_COVERAGES, None):
        thin = graph.thinned(coverage)
        if len(thin.flows) <= _MOST or coverage is None:
            thinned[len(thin.flows)] = coverage, thin
    for edges, (coverage, thin) in sorted(thinned.items(), key=lambda pair: pair[0]):
        picture = process_map(graph, title=title, label=label, width=width, coverage=coverage)
        yield _Step(edges, thin.hidden, picture)
