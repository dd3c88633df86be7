"""Looking at a log with one's own eyes: the time machine, as a widget, as tables, as a page of its own."""

from esim.view.steps import Timeline, timeline
from esim.view.time_machine import TimeMachine

__all__ = ["TimeMachine", "Timeline", "timeline"]
