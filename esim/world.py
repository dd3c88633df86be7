"""What is outside of a process and survives its death (tables, services, queues), and what does not: memory.

Handlers use these as they would use a database without transactions, a mail service, a broker. Each write,
call and message is a place where a simulation may let the process die, or the call fail. Without one they
are plain objects, so that a handler can be tried by hand.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from abc import ABC, abstractmethod
from asyncio import events
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from threading import get_ident
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from esim import display
from esim.arguments import storable
from esim.errors import InvalidArgument, said
from esim.faults import FAILED, ForeignWorld, OutcomeUnknown, Unavailable
from esim.frozen import PLAIN, frozen, written
from esim.virtual import Coroutines

F = TypeVar("F", bound=Callable[..., Any])


class Gate(Protocol):
    """Who decides what goes wrong: the simulation at hand."""

    recording: bool
    """Whether anybody reads what is told."""
    sheltered: bool
    """Whether a service is at work: it has a process of its own, in which nothing goes wrong."""

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        """Return the kind of fault that happens here, or an empty text. May raise Crash."""
        ...

    def note(self, lane: str, told: str, fault: str = "") -> None:
        """Remember what has happened, and whether it is a fault, or `FAILED`."""
        ...


class Call(NamedTuple):
    """A call of a service: its name, and its arguments by name."""

    service: str
    arguments: dict[str, Any]


class Part(ABC):
    """Something with a state that a simulation can take a picture of, put back, and compare."""

    name: str
    stale = True
    """Whether its state has changed since it was compared last."""
    volatile = False
    """Whether a crash loses it."""
    declared: Any = None
    """The picture of how it was made."""

    def told(self) -> str:
        """Return how it was made, in words that are the same in every process."""
        return f"{type(self).__name__} {written(frozen(self.declared))}"

    @abstractmethod
    def snapshot(self) -> Any:
        """Return the state in a form that later changes leave alone."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Put back what `snapshot` returned."""

    @abstractmethod
    def frozen(self) -> Hashable:
        """Return the state in a form that is equal for equal states."""


class World:
    """The outside world of some handlers; see the module's text."""

    def __init__(self) -> None:
        """Begin with nothing in it."""
        self.parts: dict[str, Part] = {}
        self._gate: Gate | None = None
        self.owner: object = None
        """The stage that has used it last."""
        self.by_hand = False
        """Whether anything was changed outside of a simulation."""
        self._thread = 0
        self._elsewhere = ""

    @property
    def gate(self) -> Gate | None:
        """Who decides what goes wrong with a change that is about to be made; None: it is made by hand.

        Raises ForeignWorld while another world is simulated.
        """
        gate = self._gate
        if gate is None:
            self._is_changed_by_hand()
        elif self._thread != get_ident():
            self.must_be_here(" or ".join(self.parts))
        return gate

    @gate.setter
    def gate(self, gate: Gate | None) -> None:
        self._gate, self._thread = gate, get_ident()

    @contextmanager
    def simulated(self, gate: Gate) -> Iterator[None]:
        """Have a gate decide what goes wrong here; no other world may be used meanwhile.

        Raises ForeignWorld if another thread has used it, or an event loop is made that waits in real time.
        """
        self._gate, self._thread, self._elsewhere = gate, get_ident(), ""
        _simulated.append(self)
        events.new_event_loop = _no_other_loop
        try:
            yield
        except SystemExit:
            if not self._elsewhere:
                raise
        finally:
            _simulated.remove(self)
            self._gate = None
            if not _simulated:
                events.new_event_loop = _new_event_loop
        if self._elsewhere:
            raise ForeignWorld(self._elsewhere)

    def _is_changed_by_hand(self) -> None:
        if _simulated:
            raise ForeignWorld(
                f"{', '.join(self.parts) or 'something'} is of a World that the simulation does not know: "
                "give world=… with the actors that use it"
            )
        self.by_hand = True

    def must_be_here(self, name: str) -> None:
        """End a thread that is not the simulation's, which is told when its run is over."""
        if self._thread != get_ident():
            self._elsewhere = (
                f"a thread that the code has begun uses {name}: which thread goes first is not simulated; "
                "use asyncio.to_thread, tasks of asyncio, or a task(…) of the scenario, where that is"
            )
            raise SystemExit(self._elsewhere)  # the one exception that a thread ends by without a word

    def reset(self) -> None:
        """Put everything back to how it was made."""
        self.by_hand = False
        for part in self.parts.values():
            part.restore(part.declared)
            part.stale = True

    def table(self, name: str, rows: Mapping[Any, Any] | None = None) -> Table:
        """Return a new table of a database without transactions: a dict whose writes are durable at once."""
        return self._added(Table(self, name, dict(rows or {})))

    @overload
    def service(self, given: F, /) -> F: ...
    @overload
    def service(
        self, given: str | None = None, /, *, once_by: str | None = None, outage: int = 3
    ) -> Callable[..., Any]: ...
    def service(
        self, given: Any = None, /, *, once_by: str | None = None, outage: int = 3
    ) -> Callable[..., Any]:
        """Make a function one of the outside world: `@world.service`, or `mail = world.service("mail")`.

        Each call that it did not refuse (by an error) is remembered, in `world.calls(name)`. It is carried
        out as a whole, also if its caller dies. With `once_by` (the name of an argument) a call with the same
        value, if it is not None, is carried out once, and answered the same again: a receiver that honours
        idempotency keys. `outage` is how many calls fail when it is down. Raises InvalidArgument if there is
        no such argument.
        """
        if isinstance(given, str):
            return self._service(anything(given), once_by, outage)
        if given is None:
            return lambda function: self._service(function, once_by, outage)
        return self._service(given, once_by, outage)

    def _service(self, function: Callable[..., Any], once_by: str | None, outage: int) -> Callable[..., Any]:
        if type(outage) is not int or outage < 1:
            raise InvalidArgument(f"outage={outage!r}: give a whole number from 1 on, of calls that fail")
        return self._added(Service(self, function, once_by, outage)).function()

    def queue(self, name: str) -> Queue:
        """Return a new queue: messages that are delivered at least once, in order if nothing goes wrong."""
        return self._added(Queue(self, name))

    def memory(self, name: str, make: Callable[[], Any], *, of: str | None = None) -> Memory:
        """Return what a process keeps in memory: `.value`, made anew by `make` whenever it dies.

        `of` names the process; by default the death of any one loses it.
        """
        return self._added(Memory(name, make, of))

    def calls(self, name: str) -> list[Call]:
        """Return the calls that a service has carried out, in order."""
        part = self.parts.get(name)
        if not isinstance(part, Service):
            known = [each for each, part in self.parts.items() if isinstance(part, Service)]
            raise InvalidArgument(f"there is no service {name!r}{display.did_you_mean(name, known)}")
        return part.calls

    def _added(self, part: P) -> P:
        storable(part.name, "name")
        if part.name in self.parts and type(self.parts[part.name]) is not type(part):
            raise InvalidArgument(f"{part.name!r} is the name of something else in this world")
        part.declared = part.snapshot()
        self.parts[part.name] = part  # a cell that is run again replaces it
        return part

    def __repr__(self) -> str:
        return f"<World: {', '.join(map(repr, self.parts.values())) or 'empty'}>"


_simulated: list[World] = []
"""The worlds of the simulations under way; one may run another."""
_new_event_loop = events.new_event_loop


def _no_other_loop() -> asyncio.AbstractEventLoop:
    """Raise ForeignWorld in the thread of a simulation, where `asyncio.run` would wait in real time."""
    if any(world._thread == get_ident() for world in _simulated):
        raise ForeignWorld(
            "asyncio.run makes an event loop that waits in real time, which is not simulated: write async "
            "def, and await, as esim runs async handlers and tasks itself"
        )
    return _new_event_loop()


P = TypeVar("P", bound=Part)


class Table(Part, MutableMapping[Any, Any]):
    """A table of a database without transactions: each write is durable at once, and rows come by key."""

    def __init__(self, world: World, name: str, rows: dict[Any, Any]) -> None:
        """Begin with `rows`."""
        self.name = name
        self._world, self._rows = world, rows

    def __getitem__(self, key: Any) -> Any:
        return _kept(self._rows[key])  # as a database gives it: to change that changes no row

    def __iter__(self) -> Iterator[Any]:
        return iter(_in_order(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __setitem__(self, key: Any, value: Any) -> None:
        gate = self._world.gate
        if gate is not None:
            told = self._told(key, value) if gate.recording else ""
            if gate.ask(("crash", "error"), self.name, told):
                raise Unavailable(f"{self.name} does not answer")
            gate.note(self.name, told)
        self._rows[key] = _kept(value)
        self.stale = True

    def __delitem__(self, key: Any) -> None:
        gate = self._world.gate
        if gate is not None:
            told = self._told(key, None) if gate.recording else ""
            if gate.ask(("crash", "error"), self.name, told):
                raise Unavailable(f"{self.name} does not answer")
            gate.note(self.name, told)
        del self._rows[key]
        self.stale = True

    def _told(self, key: Any, value: Any) -> str:
        told = f"{display.plain(key)}: {display.plain(self._rows.get(key))} → {display.plain(value)}"
        return _ADDRESS.sub("", told)

    def snapshot(self) -> dict[Any, Any]:
        """Return a copy of the rows."""
        return {key: _kept(value) for key, value in self._rows.items()}

    def restore(self, state: dict[Any, Any]) -> None:
        """Put back the rows of a copy."""
        self._rows.clear()
        self._rows.update({key: _kept(value) for key, value in state.items()})

    def frozen(self) -> Hashable:
        """Return the rows, whatever their order."""
        return frozenset([(frozen(key), frozen(value)) for key, value in self._rows.items()])

    def __repr__(self) -> str:
        return f"<Table {self.name}: {display.short(self._rows)}>"


class Service(Part):
    """A function of the outside world, and the calls it has carried out."""

    def __init__(self, world: World, function: Callable[..., Any], once_by: str | None, outage: int) -> None:
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
                    return _kept(answer)
        if gate is not None:
            gate.note(self.name, told)
        call = Call(self.name, {name: _kept(value) for name, value in arguments.items()})
        answer = self._answered(bound, gate)
        self.calls.append(call)
        if self._once_by is not None:
            self._answers.append(_kept(answer))
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


@dataclass
class Message:
    """A message of a queue: what it says, and who handles it at present."""

    number: int
    body: Any
    taken: str | None = None


class Queue(Part):
    """Messages that wait to be delivered; one that is taken comes back unless it is acknowledged."""

    def __init__(self, world: World, name: str) -> None:
        """Begin empty."""
        self.name = name
        self._world = world
        self._messages: list[Message] = []
        self._count = 0

    def publish(self, body: Any) -> None:
        """Put a message into the queue."""
        gate, fault = self._world.gate, ""
        told = display.cut(_told(body), 60) if gate and gate.recording else ""
        if gate is not None:
            fault = gate.ask(("crash", "error", "unknown", "lost", "duplicate"), self.name, told)
        if fault == "error":
            raise Unavailable(f"{self.name} does not answer")
        body = _kept(body)
        for _ in range(0 if fault == "lost" else 2 if fault == "duplicate" else 1):
            self._count += 1
            self._messages.append(Message(self._count, body))
        self.stale = True
        if gate is not None and fault != "lost":
            gate.note(self.name, told)
        if fault == "unknown":
            raise OutcomeUnknown(f"{self.name} has the message, and its answer is lost")

    def waiting(self) -> list[Message]:
        """Return the messages that nobody handles at present, in order."""
        return [one for one in self._messages if one.taken is None]

    def take(self, message: Message, by: str) -> Any:
        """Hand a message to a consumer, and return what it says."""
        message.taken, self.stale = by, True
        return _kept(message.body)

    def acknowledge(self, message: Message) -> None:
        """Take a message out of the queue for good."""
        self._messages = [one for one in self._messages if one.number != message.number]
        self.stale = True

    def again(self, message: Message) -> None:
        """Have a message delivered once more, after all that wait."""
        self._count += 1
        self._messages.append(Message(self._count, message.body))
        self.stale = True

    def give_back(self, by: str | None = None) -> None:
        """Let messages that a consumer (or anybody) has taken be delivered once more."""
        for one in self._messages:
            if by in (None, one.taken):
                one.taken, self.stale = None, True

    def snapshot(self) -> tuple[list[tuple[int, Any, str | None]], int]:
        """Return the messages, and how many there were in all."""
        return [(one.number, one.body, one.taken) for one in self._messages], self._count

    def restore(self, state: tuple[list[tuple[int, Any, str | None]], int]) -> None:
        """Put back what `snapshot` returned."""
        self._messages, self._count = [Message(*one) for one in state[0]], state[1]

    def frozen(self) -> Hashable:
        """Return the messages in order."""
        return tuple([(frozen(one.body), one.taken) for one in self._messages])

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"<Queue {self.name}: {len(self._messages)} messages>"


class Memory(Part):
    """What a process keeps in memory; its death loses it."""

    volatile = True

    def __init__(self, name: str, make: Callable[[], Any], of: str | None) -> None:
        """Begin with what `make` makes."""
        self.name, self.of = name, of
        self._make, self._value = make, make()

    def told(self) -> str:
        """Return how it was made."""
        return f"{super().told()} of={self.of}"

    @property
    def value(self) -> Any:
        """What is kept; it may be changed in place."""
        self.stale = True
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value, self.stale = value, True

    def lose(self) -> None:
        """Begin anew, as after the death of the process."""
        self.value = self._make()

    def snapshot(self) -> Any:
        """Return a copy of the value, in which nobody waits. Raises InvalidArgument if there can be none."""
        try:
            return deepcopy(self._value)
        except TypeError:  # what can wait, as a lock or an event of asyncio, knows who does
            waiting = {id(one): type(one)() for one in _waiting_in(self._value, set())}
        try:
            return deepcopy(self._value, waiting)
        except TypeError as error:
            raise InvalidArgument(
                f"{self.name!r} in memory cannot be copied ({error}), as a simulation does to go back to "
                "what was: keep plain values there, or what asyncio has for tasks to share"
            ) from error

    def restore(self, state: Any) -> None:
        """Put back a copy."""
        self._value = deepcopy(state)

    def frozen(self) -> Hashable:
        """Return the value in a form that is equal for equal values."""
        return frozen(self._value)

    def __repr__(self) -> str:
        return f"<Memory {self.name}: {display.short(self._value)}>"


def _waiting_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Give each list, set or deque in a value that holds nothing but futures, which somebody waits for."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, list | tuple | set | deque):
        parts = list(value)
    else:
        parts = list((value if isinstance(value, dict) else getattr(value, "__dict__", {})).values())
    if isinstance(value, list | set | deque) and parts and all(map(asyncio.isfuture, parts)):
        yield value
        return
    for part in parts:
        yield from _waiting_in(part, seen)


_ADDRESS = re.compile(" at 0x[0-9a-f]+")
_OF_AN_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-")


def _kept(value: Any) -> Any:
    """Return a value that later changes in place leave alone."""
    return value if type(value) in PLAIN else deepcopy(value)


def _in_order(keys: Iterable[Any]) -> list[Any]:
    """Return keys in an order that does not depend on which came first."""
    try:
        return sorted(keys)
    except TypeError:
        return sorted(keys, key=lambda key: (type(key).__qualname__, repr(key)))


def _told(body: Any) -> str:
    kind = getattr(body, "type", None)
    return f"{kind} {body.stream}" if isinstance(kind, str) else display.plain(body)


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
