"""Every error that esim raises on purpose, in one leaf module under one base class.

A message names the value, the cause and the way out; the attributes carry the same facts for programs.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterable
from pathlib import Path

_LONGEST = 10_000  # characters of an error's text are kept
_LIBRARIES = (str(Path(__file__).parent), "site-packages", "dist-packages", "<frozen ")


def text_of(error: BaseException) -> str:
    """Return the text of anybody's error as it can be kept: not too long, and without half characters."""
    try:
        text = str(error)
    except Exception as another:  # noqa: BLE001 - it is a user's, and may do anything
        return f"its text cannot be told: __str__ raised {type(another).__name__}"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def said(error: BaseException) -> str:
    """Return the class and the text of anybody's error."""
    return f"{type(error).__name__}: {text_of(error)}"


class EsimError(Exception):
    """Base of every error that esim raises on purpose.

    In a notebook it shows its message, its cause and the user's own line, not thirty frames of libraries.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback."""
        told = [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", ())]
        cause = self.__cause__
        if cause is not None:
            told.append(f"  caused by {type(cause).__name__}: {cause}")
        inner = cause.__traceback__ if cause else None
        frames = [*traceback.extract_tb(self.__traceback__), *traceback.extract_tb(inner)]
        own = [frame for frame in frames if not any(part in frame.filename for part in _LIBRARIES)]
        if own:
            told.append(
                f"  at  {linecache.getline(own[-1].filename, own[-1].lineno or 0).strip() or own[-1].name}"
            )
        return told


class Refused(EsimError):
    """A decision says no: the command is understood, but the state does not allow it."""


class InvalidEvent(EsimError, ValueError):
    """An event cannot be made from the given values, or a stored payload does not fit its class."""


class UnknownEventType(EsimError, LookupError):
    """An event type has no class here: not defined yet in this process, or not among a state's events."""


class UnknownName(EsimError, AttributeError):
    """An event, state or value has no field, property or decision of this name."""


class UpcasterFailed(EsimError):
    """An upcaster raised, or returned something that is no payload; the stored event stays as it is."""


class InvalidState(EsimError, ValueError):
    """A state breaks its own types, lacks a default, or its `evolve` forgot an event."""


class InvalidArgument(EsimError, ValueError):
    """An argument makes no sense: an empty stream id, an empty append, a naive time, an unknown name."""


class Conflict(EsimError):
    """Somebody else appended first: the stream is not at the expected version, and nothing was written."""

    def __init__(self, stream: str, expected: int | str, actual: int) -> None:
        """Name the `stream`, the `expected` version or rule, the `actual` version (0: no stream)."""
        self.stream, self.expected, self.actual = stream, expected, actual
        super().__init__(self._explain())

    def _explain(self) -> str:
        if isinstance(self.expected, int):
            cause = "someone appended since you loaded it" if self.actual > self.expected else "it is shorter"
            return (
                f"stream {self.stream!r} is at version {self.actual}, not {self.expected}: {cause}; "
                "load again and decide again"
            )
        wanted = {"no_stream": "it must not exist yet", "stream_exists": "it must exist already"}
        return (
            f"stream {self.stream!r} is at version {self.actual}, but {self.expected!r} was expected "
            f"({wanted.get(str(self.expected), 'unknown rule')}); load again and decide again"
        )

    def __reduce__(self) -> tuple[type[Conflict], tuple[object, ...]]:
        """Pickle by the three facts, so that the error crosses process borders whole."""
        return type(self), (self.stream, self.expected, self.actual)


class ConditionFailed(Conflict):
    """An append condition is broken: an event that matches its query was recorded after its position."""

    def __init__(self, query: object, after: int, position: int) -> None:
        """Name the `query`, the position `after` which nothing may match, and the `position` of the match."""
        self.query, self.after, self.position = query, after, position
        super().__init__("", f"nothing after position {after}", position)

    def _explain(self) -> str:
        return (
            f"the append condition fails: position {self.position} matches {self.query!r}, and the decision "
            f"was made on what was known at position {self.after}; read again and decide again"
        )

    def __reduce__(self) -> tuple[type[Conflict], tuple[object, ...]]:
        """Pickle by the three facts, so that the error crosses process borders whole."""
        return type(self), (self.query, self.after, self.position)


class DuplicateEventId(EsimError):
    """An event id is already taken by another event, so the append is not a mere repetition."""


class StreamNotFound(EsimError, LookupError):
    """No event was ever recorded in this stream (or none up to the asked moment)."""


class StoreLocked(EsimError):
    """The store's file belongs to another process, or is open already in this one."""


class StoreClosed(EsimError):
    """The store has been closed; open it again to go on."""


class NotWritten(EsimError):
    """The database could not make an append durable (a full disk, say): nothing of the append was kept."""


class ForkedStore(EsimError):
    """A forked child uses its parent's store: a file belongs to one process."""


class NotAStore(EsimError):
    """The file is not an esim store: corrupt, made by another program, or of another format version."""


class ReadOnlyStore(EsimError):
    """The store is a read-only view (as of some moment, or on a read-only file) and takes no writes."""


class SqlRefused(EsimError):
    """A query is not a single reading statement, or the database cannot answer it."""


class ProjectionFailed(EsimError):
    """A projection's handler raised or wrote a row that does not fit; nothing of the batch was kept."""


class NotCaughtUp(EsimError, TimeoutError):
    """A projection did not reach the asked position in time."""


class HandlerFailed(EsimError):
    """A subscription stopped, as it was told to, because its handler failed for good."""


class CheckpointAhead(EsimError):
    """A subscription stands beyond the end of the log, which must be another one, or an older copy."""


class Superseded(EsimError):
    """A subscription of the same name has been made since, and only the latest one delivers."""


class Unsteady(EsimError):
    """A run that is done twice differs: something in it comes from elsewhere than the log and the world."""


class TokenMismatch(EsimError, ValueError):
    """A token is no token, or of another scenario or version than what it is replayed with."""

    def __init__(self, told: str, sides: Iterable[str] = ()) -> None:
        """Say what differs, in words, and on which `sides`: history, actors, world, faults."""
        super().__init__(told)
        self.sides = tuple(sides)


class SimulationFailed(EsimError, AssertionError):
    """A run breaks an invariant."""


class InvalidLog(EsimError, ValueError):
    """A log cannot be read: its file is malformed, a column is missing or unclear, times are none."""


class SpecFailed(EsimError, AssertionError):
    """A given/when/then specification does not hold."""
