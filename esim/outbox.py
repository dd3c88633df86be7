"""The relay of an outbox: it does at least once what handlers asked for, after that was committed.

An effect that kills the process leaves no error behind. Only one can be under way when a process dies, the
first of those that are pending; so whoever begins takes that one for tried, and notes each attempt at it
before it is made.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError, validate_call

from esim import display
from esim.effects import handed, takes_key
from esim.errors import InvalidArgument, said
from esim.progress import Progress, Waiting
from esim.retry import RetryPolicy

Step = Literal["send", "retry effect"]
"""What comes next: an effect is done or noted, or is tried again."""


class Relay:
    """Sends what waits in the outbox of a subscription, in order."""

    def __init__(
        self,
        progress: Progress,
        functions: Mapping[str, Callable[..., Any]],
        retry: RetryPolicy,
        *,
        sleep: Callable[[float], None],
        now: Callable[[], datetime],
        wait: Callable[[Any], Any],
    ) -> None:
        """Call `functions` by name; `sleep` waits between attempts, `wait` gives what a coroutine gives."""
        self._progress, self._functions, self._retry = progress, functions, retry
        self._sleep, self._now, self._wait = sleep, now, wait
        self.unsure = True
        """Whether an earlier process may have left something, and have died in it."""

    def send(self, *, known: bool = False) -> Iterator[Step]:
        """Do each pending effect, and note it; yield wherever the process may die.

        An effect that fails for good is noted as failed, and the next one is tried. Raises InvalidArgument if
        a function is not known here, or, where only what is `known` is asked for, ends there.
        """
        for one in self._progress.waiting("pending"):
            if known and one.name not in self._functions:
                return
            attempts = one.attempts or int(self.unsure and self._retry.max_attempts > 1)
            noted = self.unsure or self._retry.max_attempts == 1
            yield from self._sent(one, attempts, noted=noted)
            self.unsure = False
        self.unsure = False

    def again(self, name: str | None) -> Iterator[Step]:
        """Do each effect (of one function) that has failed once more, as often as the policy says."""
        for one in self._progress.waiting("failed"):
            if name in (None, one.name):
                yield from self._sent(one, 0, noted=False)

    def _sent(self, one: Waiting, attempts: int, *, noted: bool) -> Iterator[Step]:
        if one.name not in self._functions:
            raise InvalidArgument(
                f"{self._progress.name}: {one.name!r} waits in the outbox, and no function of that name is "
                f"known here{display.did_you_mean(one.name, list(self._functions))}; pass sends=[{one.name}]"
            )
        if attempts >= self._retry.max_attempts:
            failure: str | None = f"ProcessDied: the process died while it was sent ({attempts} times)"
        else:
            attempts, failure = yield from self._tried(one, attempts, noted=noted)
        yield "send"
        self._progress.sent(one.key, self._now(), failure, attempts)
        yield "send"

    def _tried(
        self, one: Waiting, attempts: int, *, noted: bool
    ) -> Generator[Step, None, tuple[int, str | None]]:
        """Do an effect; return after how many attempts, and why it failed for good, or None."""
        while True:
            yield "send"
            if noted:
                self._progress.tried(one.key, attempts + 1)
                yield "send"
            error = self._error(one)
            attempts += 1
            if error is None or not self._retries(error, attempts):
                return attempts, None if error is None else said(error)
            self._progress.tried(one.key, attempts)
            yield "retry effect"
            self._sleep(self._retry.wait(attempts, one.key))
            noted = True  # it has failed before, and may kill the process now

    def _retries(self, error: Exception, attempts: int) -> bool:
        lasting = isinstance(error, ValidationError | TypeError)
        return not lasting and self._retry.retries(error, attempts)

    def _error(self, one: Waiting) -> Exception | None:
        """Do an effect; return what it raised, or None."""
        function, arguments = self._functions[one.name], json.loads(one.arguments)
        if takes_key(inspect.signature(function)):
            arguments["key"] = one.key
        try:
            args, kwargs = handed(function, arguments)
            result = validate_call(function)(*args, **kwargs)
            if inspect.isawaitable(result):
                self._wait(result)
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            return error
        return None
