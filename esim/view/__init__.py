"""Looking at a log with one's own eyes: the time machine and the process map, live, static, or as a page."""

from esim.view.process_map import ProcessMap
from esim.view.steps import Timeline, timeline
from esim.view.time_machine import TimeMachine

__all__ = ["ProcessMap", "TimeMachine", "Timeline", "timeline"]
