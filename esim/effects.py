"""A handler's way to the outside world: each effect is on a ledger, and none is done again on a replay.

An effect is a call of one of your functions. Done now, it is on the ledger from the handler's next commit on;
a crash in between is the window in which it can happen twice. By way of the outbox it is first recorded, with
the checkpoint, and sent afterwards by a relay; that may send it twice as well, under the same key, by which
whoever receives it can tell.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from esim import display
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument
from esim.source import Source
from esim.waiter import Waiter

Status = Literal["done", "pending", "gated", "failed"]


class Effect(NamedTuple):
    """One line of the ledger; `key` is the same each time the same event asks for the same effect.

    `number` counts the effects of an event, or of the `part` of one, from 1.
    """

    key: str
    position: int
    part: int
    number: int
    name: str
    arguments: str
    status: Status
    attempts: int


class Effects:
    """What a handler's parameter `effects` is: `effects.call(send_mail, to=…)`.

    The call returns what the function returns, also at a further attempt, which does not do it again. It
    returns None where the effect waits in the outbox, is on the ledger already, or is gated because the event
    is only replayed.
    """

    def __init__(
        self,
        *,
        outbox: bool,
        done: Callable[[str, int], bool],
        waiter: Waiter,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        """Do effects at once or by the `outbox`; `done` says of a key and position if the ledger has it.

        `waiter` runs the handlers that are async; `functions` are known by name before they are called.
        """
        self.gate = 0
        """Up to this position events are replayed, and nothing is done."""
        self.fresh: dict[str, Effect] = {}
        """What is not yet committed to the ledger, by key."""
        self.functions: dict[str, Callable[..., Any]] = dict(functions or {})
        """The functions that were called so far, by name: the relay finds them here."""
        self.open: dict[str, tuple[Coroutine[Any, Any, Any], Awaitable[Any]]] = {}
        """What an async handler has to await, and what that awaits, by key."""
        self._outbox, self._done, self._waiter = outbox, done, waiter
        self._results: dict[str, Any] = {}
        self.cause: RecordedEvent[Any] | None = None
        """The event that is being handled."""
        self._last: RecordedEvent[Any] | None = None
        self._calls: Counter[str] | None = None

    def begin(self, recorded: RecordedEvent[Any]) -> None:
        """Count the effects of an event from the start; those of an earlier attempt are remembered."""
        if self._results and recorded is not self._last:
            self._results.clear()
        self.cause = self._last = recorded
        self._calls = None

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a function called with these arguments, and put it on the ledger.

        A function with a parameter `key` is given the effect's key, which it can hand on as an idempotency
        key. One that is async is awaited by an async handler, and waited for here in any other.
        Raises what the function raises, TypeError if the arguments do not fit it, and InvalidArgument if
        another function of its name was called.
        """
        cause = self.cause
        if cause is None:
            raise InvalidArgument("effects are called while the handler runs, not kept for later")
        name = self._known(function)
        calls = self._calls = Counter() if self._calls is None else self._calls
        calls[name] += 1
        key = f"{key_of(cause)}:{name}:{calls[name]}"
        bound, told = _bound(function, args, kwargs, key)
        text = _json(name, told, exact=self._outbox)
        effect = Effect(key, cause.position, cause.part, calls.total(), name, text, "done", 1)
        if key in self.fresh or key in self._results:
            return self._handed(function, self._results.get(key))
        if self._done(key, cause.position):
            return self._handed(function, None)
        if self._outbox or cause.position <= self.gate:
            status: Status = "gated" if cause.position <= self.gate else "pending"
            self.fresh[key] = effect._replace(status=status, attempts=0)
            return self._handed(function, None)
        result = function(*bound.args, **bound.kwargs)
        if not inspect.isawaitable(result):
            return self._keep(effect, result)
        if not self._waiter.inside():
            return self._keep(effect, self._waiter.result(result))
        waiting = self._awaited(result, effect)
        self.open[key] = waiting, result
        return waiting

    def _known(self, function: Callable[..., Any]) -> str:
        """Return the name of a function, by which the relay finds it here."""
        name = name_of(function)
        known = self.functions.get(name, function)
        _must_be_one(name, known, function)
        if self._outbox and self._calls and name in self._calls and _owner(known) is not _owner(function):
            raise InvalidArgument(
                f"{name!r} of two objects cannot wait in the outbox, where it is known by its name alone: "
                "write a def for each of them"
            )
        self.functions[name] = function
        return name

    def _handed(self, function: Callable[..., Any], value: Any) -> Any:
        """Return a value that is here already so that whoever awaits an async function gets it."""
        return _Ready(value) if inspect.iscoroutinefunction(function) and self._waiter.inside() else value

    async def _awaited(self, result: Awaitable[Any], effect: Effect) -> Any:
        try:
            return self._keep(effect, await result)
        finally:
            self.open.pop(effect.key, None)

    def _keep(self, effect: Effect, result: Any) -> Any:
        self.fresh[effect.key] = effect
        self._results[effect.key] = result
        return result

    def must_be_awaited(self) -> None:
        """Raise InvalidArgument if the handler of the present event, which has ended, left an effect open."""
        if self.open:
            name = next(iter(self.open)).split(":")[-2]
            self._close()
            raise InvalidArgument(
                f"{name} is async, and nobody awaited it: write await effects.call({name}, …)"
            )

    def _close(self) -> None:
        for waiting, result in self.open.values():
            for each in (waiting, result):
                if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                    each.close()
        self.open.clear()

    def take_back(self) -> None:
        """Drop what the present event has put into the outbox; what is done is done."""
        self._close()
        here = (self._last.position, self._last.part) if self._last else None
        for key, effect in list(self.fresh.items()):
            if effect.status == "pending" and (effect.position, effect.part) == here:
                self.fresh.pop(key, None)

    def settle(self) -> None:
        """Forget what is on the ledger now."""
        self.fresh.clear()

    def __repr__(self) -> str:
        return f"<Effects: {len(self.fresh)} not yet on the ledger>"


def key_of(recorded: RecordedEvent[Any]) -> str:
    """Return what tells a handled event, or the part of one, from every other."""
    return f"{recorded.event_id}:{recorded.part}" if recorded.part else str(recorded.event_id)


class _Ready:
    """What was there already, for an async handler to await."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        return self._value
        yield  # a generator, which ends before it waits for anything


class Called:
    """A call that a specification expects of a handler, or that came of it; its arguments as JSON values."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: str) -> None:
        """Stand for a call of `function`; `arguments` are JSON, as the ledger has them."""
        self.function, self.arguments = function, json.loads(arguments)

    def _written_(self, source: Source) -> str:
        """Return the call as it would be written."""
        source.need("esim.spec", "called")
        args, kwargs = handed(self.function, self.arguments)
        named = (f"{name}={source(value)}" for name, value in kwargs.items())
        return f"called({', '.join((source.name(self.function), *map(source, args), *named))})"

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


def handed(
    function: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments, by the names of the parameters, as the function is called: by keyword if possible.

    Raises TypeError for one that the function does not take.
    """
    parameters = inspect.signature(function).parameters
    for name in arguments.keys() - parameters.keys():
        raise TypeError(f"{name_of(function)}() takes no {name!r}")
    given = [(one, arguments[name]) for name, one in parameters.items() if name in arguments]
    starred = any(one.kind is one.VAR_POSITIONAL and value for one, value in given)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for one, value in given:
        if one.kind is one.VAR_POSITIONAL:
            args += value
        elif one.kind is one.VAR_KEYWORD:
            kwargs |= value
        elif one.kind is one.POSITIONAL_ONLY or (starred and one.kind is one.POSITIONAL_OR_KEYWORD):
            args.append(value)
        else:
            kwargs[one.name] = value
    return tuple(args), kwargs


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
    """Return functions by the names that the ledger knows. Raises InvalidArgument if two share one."""
    found: dict[str, Callable[..., Any]] = {}
    for each in functions:
        _must_be_one(name_of(each), found.setdefault(name_of(each), each), each)
    return found


def _must_be_one(name: str, known: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Raise InvalidArgument for a function from elsewhere than the known one of its name.

    One from the same place is what a cell that was run again has made of it.
    """
    if known is not function and _place(known) != _place(function):
        raise InvalidArgument(
            f"two functions are called {name!r}, {_place(known)} and {_place(function)}, and the ledger "
            "knows them by that name: give one of them another"
        )


def _place(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name_of(function))}"


def _owner(function: Callable[..., Any]) -> object:
    return getattr(function, "__self__", None)


def _json(name: str, arguments: Mapping[str, Any], *, exact: bool) -> str:
    try:
        return to_json(arguments, fallback=None if exact else repr).decode()
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{name}({display.arguments(arguments)}) cannot wait in the outbox: {error}; give text, numbers, "
            "times and models"
        ) from None
