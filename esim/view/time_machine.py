"""The time machine: a slider over the versions of a stream or the positions of a store.

Displayed in a notebook it offers three forms of the same steps, of which the front end takes the best it can
show: a live widget (with anywidget, in a trusted notebook), static HTML tables, plain text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esim.contract import Store
from esim.readmodel import ReadModel
from esim.state import State
from esim.view.page import page, plain_text, static_html
from esim.view.steps import LIMIT, Timeline, timeline
from esim.view.widget import model_id, shown, widget_class

if TYPE_CHECKING:
    from esim.repository import Repository


class Static:
    """The time machine as tables, for wherever no kernel runs."""

    def __init__(self, timeline: Timeline) -> None:
        """Show `timeline`."""
        self._timeline = timeline

    def _repr_html_(self) -> str:
        return static_html(self._timeline)

    def __repr__(self) -> str:
        return plain_text(self._timeline)


class TimeMachine:
    """Leaf through a log: `TimeMachine(orders, "o-1")`, or `TimeMachine(store, projections=[spend])`.

    Each step shows the event, the state after it, what it changed and the read models at that moment. The
    steps are taken when the object is made; later events are not among them.
    """

    def __init__(
        self,
        source: Repository[Any] | Store,
        id: str | None = None,
        *,
        projections: Iterable[ReadModel] = (),
        states: Iterable[type[State[Any]]] = (),
        streams: str | Iterable[str] = (),
        limit: int = LIMIT,
    ) -> None:
        """Take the last `limit` steps; arguments and errors as in `esim.view.timeline`."""
        self.timeline = timeline(
            source, id, projections=projections, states=states, streams=streams, limit=limit
        )
        self._widget: Any = None

    def static(self) -> Static:
        """Return the same steps as plain tables, without a slider."""
        return Static(self.timeline)

    def page(self) -> str:
        """Return the live time machine as a whole HTML document that works offline."""
        return page(self.timeline)

    def to_html(self, path: str | Path) -> Path:
        """Write `page()` to a file and return its path."""
        target = Path(path)
        target.write_text(self.page(), encoding="utf-8")
        return target

    def widget(self) -> Any:
        """Return the live widget, made at the first call. Raises ImportError without anywidget."""
        if self._widget is None:
            data = self.timeline.as_json()
            self._widget = widget_class()(timeline=data, model_id=model_id(data))
        return self._widget

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return shown(self, static_html(self.timeline))

    def __repr__(self) -> str:
        steps = self.timeline.steps
        return f"<TimeMachine {self.timeline.title}: {steps[0].label} to {steps[-1].label}>"
