"""Services of the outside world: functions whose calls are carried out as a whole, and remembered."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import wraps
from typing import Any, NamedTuple

from esim import display
from esim.arguments import storable
from esim.errors import InvalidArgument, said
from esim.faults import FAILED, OutcomeUnknown, Unavailable
from esim.frozen import frozen
from esim.part import Gate, Outside, Part, kept
from esim.virtual import Coroutines

_OF_AN_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-")


class Call(NamedTuple):
    """A call of a service: its name, and its arguments by name."""

    service: str
    arguments: dict[str, Any]


class Service(Part):
    """A function of the outside world, and the calls it has carried out."""

    def __init__(
        self, world: Outside, function: Callable[..., Any], once_by: str | None, outage: int
    ) -> None:
        """Stand for `function`."""
        self.name = function.__name__
        self.calls: list[Call] = []
        self._answers: list[Any] = []
        self._world, self._function, self._once_by = world, function, once_by
        _must_have(inspect.signature(function), once_by, self.name)
        self._outage, self._down = outage, 0

    def told(self) -> str:
        """Return how it was made."""
        return f"{super().told()} once_by={self._once_by} outage={self._outage}"

    def function(self, like: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """Return the function that calls this service; with `like`, it has that function's parameters."""
        known = self._function if like is None else like
        signature = inspect.signature(known)

        @wraps(known)
        def called(*args: Any, **kwargs: Any) -> Any:
            return self.call(signature, args, kwargs)

        @wraps(known)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            answer = self.call(signature, args, kwargs)
            await asyncio.sleep(0)  # others may go on before it is here
            return answer

        found = awaited if inspect.iscoroutinefunction(known) else called
        found.__dict__["_service_"] = self
        return found

    def call(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry a call out, unless the simulation has it fail."""
        bound = signature.bind(*args, **kwargs)
        arguments = _by_name(bound)
        gate, fault = self._world.gate, ""
        told = f"{self.name}({', '.join(_said(args, kwargs))})" if gate and gate.recording else ""
        if self._down:
            self._down, self.stale = self._down - 1, True
            raise Unavailable(f"{self.name} is down")
        if gate is not None:
            fault = gate.ask(("crash", "error", "unknown", "outage"), self.name, told)
        if fault == "outage":
            self._down, self.stale = self._outage - 1, True
        if fault in ("error", "outage"):
            raise Unavailable(f"{self.name} does not answer")
        answer = self._carried_out(bound, arguments, told)
        if fault == "unknown":
            raise OutcomeUnknown(f"{self.name} was called, and its answer is lost")
        return answer

    def _carried_out(self, bound: inspect.BoundArguments, arguments: dict[str, Any], told: str) -> Any:
        gate, key = self._world.gate, arguments.get(self._once_by or "")
        if key is not None:
            for call, answer in zip(self.calls, self._answers, strict=True):
                if call.arguments.get(self._once_by or "") == key:
                    if gate is not None:
                        gate.note(self.name, f"{told} was carried out before")
                    return kept(answer)
        if gate is not None:
            gate.note(self.name, told)
        call = Call(self.name, {name: kept(value) for name, value in arguments.items()})
        answer = self._answered(bound, gate)
        self.calls.append(call)
        if self._once_by is not None:
            self._answers.append(kept(answer))
        self.stale = True
        return answer

    def _answered(self, bound: inspect.BoundArguments, gate: Gate | None) -> Any:
        """Have the function do its work, which it does in a process of its own."""
        if gate is None:
            return self._done(bound)
        former, gate.sheltered = gate.sheltered, True
        try:
            return self._done(bound)
        except Exception as error:
            gate.note(self.name, f"fails: {said(error)}", FAILED)
            raise
        finally:
            gate.sheltered = former

    def _done(self, bound: inspect.BoundArguments) -> Any:
        answer = self._function(*bound.args, **bound.kwargs)
        return Coroutines().result(answer) if inspect.iscoroutine(answer) else answer

    def snapshot(self) -> tuple[list[Call], list[Any], int]:
        """Return the calls so far, what was answered, and for how many more it is down."""
        return list(self.calls), list(self._answers), self._down

    def restore(self, state: tuple[list[Call], list[Any], int]) -> None:
        """Put back what `snapshot` returned."""
        self.calls[:], self._answers[:], self._down = state

    def frozen(self) -> Hashable:
        """Return the calls in order, and what is answered if they come again."""
        calls = tuple([frozen(call.arguments) for call in self.calls])
        return calls, self._down, tuple(map(frozen, self._answers))

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.calls)} calls>"


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return arguments by name; those of `**kwargs` by theirs."""
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    return arguments


def _must_have(signature: inspect.Signature, once_by: str | None, name: str) -> None:
    parameters = signature.parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    if once_by is not None and once_by not in parameters and not takes_any:
        known = display.did_you_mean(once_by, list(parameters))
        raise InvalidArgument(f"once_by={once_by!r}: {name}{signature} has no such argument{known}")


def _said(args: Iterable[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return arguments for a timeline; of a key that is made of an event's id, only that there is one."""
    return [*map(_brief, args), *(f"{name}={_brief(value)}" for name, value in kwargs.items())]


def _brief(value: Any) -> str:
    return "…" if _OF_AN_ID.match(str(value)) else display.short(value)


def anything(name: str) -> Callable[..., Any]:
    """Return a function of a name that takes anything, and does nothing."""

    def service(*args: Any, **kwargs: Any) -> None:
        """Take anything."""

    service.__name__ = service.__qualname__ = storable(name, "name")
    return service
