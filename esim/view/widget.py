"""The live half of a view: an anywidget that is handed its data once and is moved in the browser alone."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from itertools import count
from typing import Any

from esim.view.page import asset

_WIDGET = "application/vnd.jupyter.widget-view+json"
_made = count(1)


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


@cache
def map_class() -> Any:
    """Return the process map's class, which syncs one trait, `map`. Raises ImportError without anywidget."""
    import anywidget
    import traitlets

    class ProcessMapWidget(anywidget.AnyWidget):
        _esm = asset("process_map.js")
        _css = asset("process_map.css")
        map = traitlets.Dict().tag(sync=True)

    return ProcessMapWidget


def shown(view: Any, html: str) -> dict[str, Any]:
    """Return a view in the forms a front end may choose from: text, HTML, and a widget where there is one."""
    bundle: dict[str, Any] = {"text/plain": repr(view), "text/html": html}
    if find_spec("anywidget"):
        model_id = view.widget().model_id
        bundle[_WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": model_id}
    return bundle


def model_id(data: dict[str, Any]) -> str:
    """Return an id that a re-run of the same notebook gives again, so that saved outputs stay the same."""
    text = json.dumps([next(_made), data])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
