"""The live half of the time machine: an anywidget that is handed its steps once and scrubs in the browser.

Importing this module imports anywidget, so it is imported only when a widget is really shown.
"""

from __future__ import annotations

import anywidget
import traitlets

from esim.view.page import asset


class TimeMachineWidget(anywidget.AnyWidget):
    """A timeline as a widget; it never talks back to Python."""

    _esm = asset("time_machine.js")
    _css = asset("time_machine.css")
    timeline = traitlets.Dict().tag(sync=True)
