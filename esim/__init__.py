"""Model, record, replay, project and simulate event-sourced systems in a notebook.

This module only re-exports. What needs DuckDB, Arrow or a widget is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.envelope import NewEvent, RecordedEvent, caused_by, metadata
from esim.errors import Conflict, EsimError, Refused
from esim.event import Event, Tag
from esim.memory import MemoryStore
from esim.state import Aggregate, State, fold
from esim.upcast import retired
from esim.value import Money, Value
from esim.writing import Write

if TYPE_CHECKING:
    from esim.bus import Bus
    from esim.effects import Effects
    from esim.eventlog import EventLog
    from esim.faults import Faults
    from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
    from esim.repository import Repository
    from esim.retry import CircuitBreaker, RetryPolicy
    from esim.simulation import explore, replay, simulate
    from esim.spec import given
    from esim.store import EventStore
    from esim.subscription import Subscription
    from esim.world import World

_LATER = {
    "Bus": "esim.bus",
    "CircuitBreaker": "esim.retry",
    "Effects": "esim.effects",
    "EventLog": "esim.eventlog",
    "EventStore": "esim.store",
    "Faults": "esim.faults",
    "Key": "esim.projection",
    "Projection": "esim.projection",
    "Repository": "esim.repository",
    "RetryPolicy": "esim.retry",
    "Row": "esim.projection",
    "Rows": "esim.projection",
    "SqlProjection": "esim.projection",
    "Subscription": "esim.subscription",
    "World": "esim.world",
    "explore": "esim.simulation",
    "given": "esim.spec",
    "on": "esim.projection",
    "replay": "esim.simulation",
    "simulate": "esim.simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'esim' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Aggregate",
    "Bus",
    "CircuitBreaker",
    "Conflict",
    "Effects",
    "EsimError",
    "Event",
    "EventLog",
    "EventStore",
    "Faults",
    "Key",
    "ManualClock",
    "MemoryStore",
    "Money",
    "NewEvent",
    "Projection",
    "RecordedEvent",
    "Refused",
    "Repository",
    "RetryPolicy",
    "Row",
    "Rows",
    "SeededIds",
    "SqlProjection",
    "State",
    "Store",
    "Subscription",
    "Tag",
    "Value",
    "World",
    "Write",
    "caused_by",
    "explore",
    "fold",
    "given",
    "metadata",
    "on",
    "replay",
    "retired",
    "simulate",
]
