"""How a dead letter is written: what is kept of an event that could not be handled, and of why."""

from __future__ import annotations

import json
import traceback
from datetime import datetime
from pathlib import PurePath
from typing import Any

from esim.envelope import RecordedEvent
from esim.errors import text_of
from esim.progress import Letter

_FRAMES = 5  # of a traceback are kept with a dead letter


def letter_of(recorded: RecordedEvent[Any], error: Exception | None, attempts: int, at: datetime) -> Letter:
    """Return the letter of an event, without its number and its place among those of its subscription.

    Without an error the process died in it, or, if there were no attempts, it waits behind another.
    """
    cause = told = None
    if error is not None:
        cause, told = type(error).__name__, text_of(error)
    elif attempts:
        cause, told = "ProcessDied", died(attempts)
    return Letter(
        dead_letter_id=0,
        subscription="",
        sequence_id=recorded.stream,
        sequence_index=0,
        event_id=str(recorded.event_id),
        position=recorded.position,
        part=recorded.part,
        whole=False,
        gated=False,
        attempts=attempts,
        cause_type=cause,
        cause_message=told,
        enqueued_at=at,
        last_touched=at,
        diagnostics=_diagnostics(error),
    )


def failed_again(letter: Letter, error: Exception) -> Letter:
    """Return a letter with its latest cause."""
    return letter._replace(
        cause_type=type(error).__name__, cause_message=text_of(error), diagnostics=_diagnostics(error)
    )


def died(attempts: int) -> str:
    """Say that nobody knows why, as the process died."""
    return f"the process died while it was handled ({attempts} times)"


def _diagnostics(error: Exception | None) -> str | None:
    """Return where an error came from, as JSON: the last lines of its traceback."""
    if error is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    told = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return json.dumps({"traceback": told})
