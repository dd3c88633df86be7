"""When a failed delivery is tried again, and when it is the outside world that fails, not the event.

References: the terms are those of Temporal's retry policies; full jitter is M. Brooker, "Exponential Backoff
and Jitter", 2015; the circuit breaker is M. Nygard's, "Release It!", 2007.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from esim.arguments import whole
from esim.errors import InvalidArgument


@dataclass(frozen=True)
class RetryPolicy:
    """How often a delivery is tried, the first time included, and how long to wait in between, in seconds.

    The wait before the n-th retry is at most `initial_interval * backoff_coefficient ** (n - 1)`, and at most
    `maximum_interval`; full jitter draws it evenly between 0 and that. An error of a `non_retryable` class
    (or its subclass) is not tried again.
    """

    max_attempts: int = 5
    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: float = 60.0
    jitter: Literal["full", "none"] = "full"
    non_retryable: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if whole(self.max_attempts, "max_attempts", "give 1 or more: the first attempt counts") < 1:
            raise InvalidArgument("max_attempts=0: give 1 or more, as the first attempt counts")
        for name, least in (("initial_interval", 0), ("backoff_coefficient", 1), ("maximum_interval", 0)):
            _at_least(getattr(self, name), name, least)
        if self.jitter not in ("full", "none"):
            raise InvalidArgument(f"jitter={self.jitter!r}: give 'full' or 'none'")
        kinds = self.non_retryable
        kinds = kinds if isinstance(kinds, tuple) else tuple(kinds) if isinstance(kinds, list) else (kinds,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise InvalidArgument(f"non_retryable holds {kind!r}: give classes of errors")
        object.__setattr__(self, "non_retryable", kinds)

    def wait(self, attempts: int, key: str) -> float:
        """Return the seconds to wait after so many failed attempts; the same `key` draws the same jitter."""
        exponent = min(attempts - 1, 64)  # a larger power of a coefficient is beyond any maximum
        try:
            most = min(self.initial_interval * self.backoff_coefficient**exponent, self.maximum_interval)
        except OverflowError:
            most = self.maximum_interval
        if self.jitter == "none":
            return most
        return most * random.Random(f"{key} {attempts}").random()  # noqa: S311 - it spreads load, hides nothing

    def retries(self, error: BaseException, attempts: int) -> bool:
        """Say whether an event that has failed so often, now with `error`, is tried again."""
        return attempts < self.max_attempts and not isinstance(error, self.non_retryable)


@dataclass(frozen=True)
class CircuitBreaker:
    """When `failures` events in a row have failed for good, wait `cooldown` seconds before the next try.

    So many failures in a row mean that what the handler calls is down. The event that opens the circuit is
    not given up: it is tried again after the cooldown, and again, until it or another goes through.
    """

    failures: int = 3
    cooldown: float = 60.0

    def __post_init__(self) -> None:
        if whole(self.failures, "failures", "give 1 or more events") < 1:
            raise InvalidArgument("failures=0: give 1 or more events")
        _at_least(self.cooldown, "cooldown", 0)


def _at_least(value: object, name: str, least: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < float("inf"):  # type: ignore[operator]
        raise InvalidArgument(f"{name}={value!r}: give a number, {least} or more")
