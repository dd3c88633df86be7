"""What may go wrong in a simulated run, and how often.

Each kind of fault is a choice at the places where it can happen; choice 0 is always that nothing goes wrong.
Whole numbers are budgets, for `explore`: at most so many in one run. Fractions are probabilities, for
`simulate`: at each place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from esim import display
from esim.errors import InvalidArgument

MEANINGS = {
    "crash": "a process dies, and is started again",
    "duplicate": "a message is delivered once more",
    "error": "a call of a service, a write of a table, a message to a queue, or a handler, fails once",
    "unknown": "a call or an append is carried out, and its caller is told of a time-out",
    "lost": "a message of a queue is never delivered",
    "reorder": "a message of a queue overtakes those before it",
    "preempt": "another process goes first, although the one at hand could go on, or once its time has come",
    "delay": "a process goes on an hour later, by the virtual clock: at an event, message, yield or await",
    "outage": "a service is down for a number of calls",
    "late": "a consumer is taken for dead, its message is given to another, and it goes on all the same",
    "skew": "the clock of a process is wrong",
    "poison": "a handler fails at one event, however often it is tried",
}
"""Every kind of fault, and what it means."""
FAILED = "failed"
"""What is noted, in place of a kind of fault, of code that fails by itself."""
_NAMES = {
    "crash": ("crash", "crashes"),
    "duplicate": ("duplicate", "duplicates"),
    "error": ("error", "errors"),
    "unknown": ("unknown outcome", "unknown outcomes"),
    "lost": ("lost message", "lost messages"),
    "reorder": ("reordering", "reorderings"),
    "preempt": ("preemption", "preemptions"),
    "delay": ("delay", "delays"),
    "outage": ("outage", "outages"),
    "late": ("late finisher", "late finishers"),
    "skew": ("skewed clock", "skewed clocks"),
    "poison": ("poison event", "poison events"),
}


class Crash(BaseException):
    """The process dies here; no handler can catch it by `except Exception`."""


class ForeignWorld(BaseException):
    """A handler uses what the simulation has not, another world or a socket; whoever simulates is told."""


class Stuck(BaseException):
    """A process waits for what never comes: no handler gets out of that by `except Exception`."""


class Unavailable(ConnectionError):
    """A service, or a handler, fails because the simulation says so."""


class OutcomeUnknown(TimeoutError):
    """It was carried out, and the caller cannot know, because the simulation says so."""


@dataclass(frozen=True)
class Faults:
    """How often each kind of fault may happen: at most so many (int), or with a probability (float)."""

    crash: float = 0
    duplicate: float = 0
    error: float = 0
    unknown: float = 0
    lost: float = 0
    reorder: float = 0
    preempt: float = 0
    delay: float = 0
    outage: float = 0
    late: float = 0
    skew: float = 0
    poison: float = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not whole and not (isinstance(value, float) and 0 <= value <= 1):
                raise InvalidArgument(
                    f"{field.name}={value!r}: give a whole number (at most so many), or a fraction from 0.0 "
                    "to 1.0 (how probable it is)"
                )

    def budgets(self) -> dict[str, int]:
        """Return how many of each kind there may be. Raises InvalidArgument if one is a probability."""
        for name, value in self._given().items():
            if isinstance(value, float):
                raise InvalidArgument(
                    f"{name}={value!r} is a probability, for simulate(): explore() takes whole numbers"
                )
        return {field.name: int(getattr(self, field.name)) for field in fields(self)}

    def _given(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}

    @staticmethod
    def all_names() -> list[str]:
        """Return the name of each kind of fault."""
        return list(MEANINGS)

    def told(self) -> str:
        """Return the faults in words: `at most 1 crash and 2 duplicates`."""
        parts = [
            f"{value} {_NAMES[name][value != 1]}"
            if isinstance(value, int)
            else f"{_NAMES[name][0]} in {value:.0%} of its places"
            for name, value in self._given().items()
        ]
        several = [", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts
        return f"at most {' and '.join(several)}" if parts else "no fault"

    def __repr__(self) -> str:
        return f"Faults({display.arguments(self._given())})"
