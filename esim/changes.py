"""What each event of a stream changed, as dataframes: the history of an aggregate, and who set what.

Both look at steps: a recorded event with the state before and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from esim import display
from esim.envelope import RecordedEvent
from esim.state import State

if TYPE_CHECKING:
    import pandas as pd

Step = tuple[RecordedEvent[Any], State[Any], State[Any]]

_FACTS = ("version", "position", "recorded_at", "event", "data", "changed")
_BLAME = ("field", "value", "set_by", "version", "position", "recorded_at")
_TIME = "datetime64[us, UTC]"


def history(steps: Iterable[Step]) -> pd.DataFrame:
    """Return one row per step.

    Columns: version, position, recorded_at (UTC), event (type), data (JSON text), changed (what it set,
    as text `field: old → new`), and one for each field of the state with its value after the event; a field
    that has the name of another column gets an underscore.
    """
    import pandas as pd

    rows = [
        dict(zip(_FACTS, (*_envelope(one), one.type, one.json, _told(before, after)), strict=True))
        | {f"{name}_" if name in _FACTS else name: value for name, value in _fields(after)}
        for one, before, after in steps
    ]
    return pd.DataFrame(rows).astype({"recorded_at": _TIME})


def blame(steps: Iterable[Step]) -> pd.DataFrame:
    """Return one row per field of the last step's state: which event set it last.

    Columns: field, value, set_by (event type), version, position, recorded_at (UTC); the last four are empty
    where the field was never set and has its default.
    """
    import pandas as pd

    setter: dict[str, tuple[Any, ...]] = {}
    state: State[Any] | None = None
    for one, before, state in steps:
        setter |= dict.fromkeys((name for name, _, _ in changed(before, state)), (one.type, *_envelope(one)))
    known = _fields(state) if state is not None else []  # a state may be false: an empty cart
    rows = [(name, value, *setter.get(name, (None,) * 4)) for name, value in known]
    frame = pd.DataFrame(rows, columns=list(_BLAME))
    return frame.astype({"version": "Int64", "position": "Int64", "recorded_at": _TIME})


def changed(before: State[Any], after: State[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Give the name, old and new value of each field in which two states differ."""
    for (name, old), (_, new) in zip(_fields(before), _fields(after), strict=True):
        if old != new:
            yield name, old, new


def _fields(state: State[Any]) -> list[tuple[str, Any]]:
    return [(name, getattr(state, name)) for name in type(state).__pydantic_fields__]


def _envelope(one: RecordedEvent[Any]) -> tuple[Any, ...]:
    return one.version, one.position, one.recorded_at


def _told(before: State[Any], after: State[Any]) -> str:
    told = (
        f"{name}: {display.plain(old)} → {display.plain(new)}" for name, old, new in changed(before, after)
    )
    return "; ".join(told)
