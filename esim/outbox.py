"""The relay of an outbox: it does at least once what handlers asked for, after that was committed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError, validate_call

from esim import display
from esim.effects import handed, takes_key
from esim.errors import InvalidArgument, said
from esim.progress import Progress
from esim.retry import RetryPolicy


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

    def send(self) -> Iterator[str]:
        """Do each pending effect, and note it; yield its key before it is done, and after it.

        An effect that fails for good is noted as failed, and the next one is tried.
        Raises InvalidArgument if a function is not known here.
        """
        for key, name, arguments in self._progress.pending():
            if name not in self._functions:
                raise InvalidArgument(
                    f"{self._progress.name}: {name!r} waits in the outbox, and no function of that name is "
                    f"known here{display.did_you_mean(name, list(self._functions))}; pass sends=[{name}]"
                )
            yield key
            failure = self._attempts(key, name, json.loads(arguments))
            yield key
            self._progress.sent(key, self._now(), failure)

    def _attempts(self, key: str, name: str, arguments: dict[str, Any]) -> str | None:
        """Do an effect; return why it failed for good, or None."""
        function = self._functions[name]
        if takes_key(inspect.signature(function)):
            arguments["key"] = key
        attempts = 0
        while True:
            try:
                args, kwargs = handed(function, arguments)
                result = validate_call(function)(*args, **kwargs)
                if inspect.isawaitable(result):
                    self._wait(result)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                attempts += 1
                if isinstance(error, ValidationError | TypeError) or not self._retry.retries(error, attempts):
                    return said(error)
                self._sleep(self._retry.wait(attempts, key))
            else:
                return None
