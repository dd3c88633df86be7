"""The live half of the time machine: an anywidget that is handed its steps once and scrubs in the browser."""

from __future__ import annotations

from functools import cache
from typing import Any

from esim.view.page import asset


@cache
def widget_class() -> Any:
    """Return the widget's class, which syncs one trait, `timeline`. Raises ImportError without anywidget."""
    import anywidget
    import traitlets

    class TimeMachineWidget(anywidget.AnyWidget):
        _esm = asset("time_machine.js")
        _css = asset("time_machine.css")
        timeline = traitlets.Dict().tag(sync=True)

    return TimeMachineWidget
