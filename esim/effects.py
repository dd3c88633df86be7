"""A handler's way to the outside world: each effect is on a ledger, and none is done again on a replay.

An effect is a call of one of your functions. Done now, it is on the ledger from the handler's next commit on;
a crash in between is the window in which it can happen twice. By way of the outbox it is first recorded, with
the checkpoint, and sent afterwards by a relay; that may send it twice as well, under the same key, by which
whoever receives it can tell.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from esim import display
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument
from esim.source import Source

Status = Literal["done", "pending", "gated"]


class Effect(NamedTuple):
    """One line of the ledger; `key` is the same each time the same event asks for the same effect."""

    key: str
    position: int
    name: str
    arguments: str
    status: Status


class Effects:
    """What a handler's parameter `effects` is: `effects.call(send_mail, to=…)`.

    The call returns what the function returns, also at a further attempt, which does not do it again. It
    returns None where the effect waits in the outbox, is on the ledger already, or is gated because the event
    is only replayed.
    """

    def __init__(self, *, outbox: bool, done: Callable[[str, int], bool]) -> None:
        """Do effects at once or by the `outbox`; `done` says of a key and position if the ledger has it."""
        self.gate = 0
        """Up to this position events are replayed, and nothing is done."""
        self.fresh: dict[str, Effect] = {}
        """What is not yet committed to the ledger, by key."""
        self.functions: dict[str, Callable[..., Any]] = {}
        """The functions that were called so far, by name: the relay finds them here."""
        self._outbox, self._done = outbox, done
        self._results: dict[str, Any] = {}
        self.cause: RecordedEvent[Any] | None = None
        """The event that is being handled."""
        self._last: RecordedEvent[Any] | None = None
        self._count = 0

    def begin(self, recorded: RecordedEvent[Any]) -> None:
        """Count the effects of an event from the start; those of an earlier attempt are remembered."""
        if recorded is not self._last:
            self._results.clear()
        self.cause = self._last = recorded
        self._count = 0

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a function called with these arguments, and put it on the ledger.

        A function with a parameter `key` is given the effect's key, which it can hand on as an idempotency
        key. Raises what the function raises, and TypeError if the arguments do not fit it.
        """
        cause = self.cause
        if cause is None:
            raise InvalidArgument("effects are called while the handler runs, not kept for later")
        name = name_of(function)
        self._count += 1
        key = f"{key_of(cause)}:{self._count}"
        bound, told = _bound(function, args, kwargs, key)
        self.functions[name] = function
        effect = Effect(key, cause.position, name, _json(name, told, exact=self._outbox), "done")
        if key in self.fresh or key in self._results:
            return self._results.get(key)
        if self._done(key, cause.position):
            return None
        if cause.position <= self.gate:
            self.fresh[key] = effect._replace(status="gated")
            return None
        if self._outbox:
            self.fresh[key] = effect._replace(status="pending")
            return None
        result = function(*bound.args, **bound.kwargs)
        if inspect.isawaitable(result):
            return self._awaited(result, effect)
        return self._keep(effect, result)

    async def _awaited(self, result: Awaitable[Any], effect: Effect) -> Any:
        return self._keep(effect, await result)

    def _keep(self, effect: Effect, result: Any) -> Any:
        self.fresh[effect.key] = effect
        self._results[effect.key] = result
        return result

    def take_back(self) -> None:
        """Drop what the present event has put into the outbox; what is done is done."""
        here = key_of(self._last) if self._last else None
        for key, effect in list(self.fresh.items()):
            if effect.status == "pending" and key.rpartition(":")[0] == here:
                self.fresh.pop(key, None)

    def settle(self) -> None:
        """Forget what is on the ledger now."""
        self.fresh.clear()

    def __repr__(self) -> str:
        return f"<Effects: {len(self.fresh)} not yet on the ledger>"


def key_of(recorded: RecordedEvent[Any]) -> str:
    """Return what tells a handled event, or the part of one, from every other."""
    return f"{recorded.event_id}:{recorded.part}" if recorded.part else str(recorded.event_id)


class Called:
    """A call that a specification expects of a handler, or that came of it; its arguments as JSON values."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: str) -> None:
        """Stand for a call of `function`; `arguments` are JSON, as the ledger has them."""
        self.function, self.arguments = function, json.loads(arguments)

    def _written_(self, source: Source) -> str:
        """Return the call as it would be written."""
        source.need("esim.spec", "called")
        parts = [source.name(self.function), *(f"{name}={source(it)}" for name, it in self.arguments.items())]
        return f"called({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        mine = name_of(self.function), self.arguments
        return isinstance(other, Called) and mine == (name_of(other.function), other.arguments)

    def __hash__(self) -> int:
        return hash(name_of(self.function))

    def __repr__(self) -> str:
        return self._written_(Source())


def called(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Called:
    """Return a call as a specification's `then` expects it: `called(send_mail, to="ann@shop.example")`.

    Arguments compare as JSON. Raises TypeError if they do not fit the function.
    """
    name = name_of(function)
    return Called(function, _json(name, _bound(function, args, kwargs, "")[1], exact=False))


def _bound(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str
) -> tuple[inspect.BoundArguments, dict[str, Any]]:
    """Return how a function is called, its key handed in if it asks for one, and what is told of that."""
    signature = inspect.signature(function)
    handed = {**kwargs, "key": key} if takes_key(signature) and "key" not in kwargs else kwargs
    bound = signature.bind(*args, **handed)
    return bound, {each: value for each, value in bound.arguments.items() if each != "key"}


def name_of(function: Callable[..., Any]) -> str:
    """Return the name that the ledger knows a function by. Raises InvalidArgument if it has none."""
    name = getattr(function, "__name__", None)
    if not callable(function) or name is None or name == "<lambda>":
        raise InvalidArgument(f"{display.short(function)} has no name for the ledger: call a def")
    return str(name)


def takes_key(signature: inspect.Signature) -> bool:
    """Say whether a function asks for the effect's key."""
    return "key" in signature.parameters


def by_name(functions: Iterable[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return functions by the names that the ledger knows them by."""
    return {name_of(each): each for each in functions}


def _json(name: str, arguments: Mapping[str, Any], *, exact: bool) -> str:
    try:
        return to_json(arguments, fallback=None if exact else repr).decode()
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{name}({display.arguments(arguments)}) cannot wait in the outbox: {error}; give text, numbers, "
            "times and models"
        ) from None
