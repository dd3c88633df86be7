"""What is outside of a process and survives its death (tables, services, queues), and what does not: memory.

Handlers use these as they would use a database without transactions, a mail service, a broker. Each write,
call and message is a place where a simulation may let the process die, or the call fail. Without one they
are plain objects, so that a handler can be tried by hand.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import events
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any, TypeVar, overload

from esim import display
from esim.arguments import storable
from esim.errors import InvalidArgument
from esim.faults import ForeignWorld, Unavailable
from esim.frozen import frozen
from esim.part import Gate, Part, kept
from esim.queues import Queue
from esim.service import Call, Service, anything
from esim.volatile import Memory

F = TypeVar("F", bound=Callable[..., Any])


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
        return kept(self._rows[key])  # as a database gives it: to change that changes no row

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
        self._rows[key] = kept(value)
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
        return {key: kept(value) for key, value in self._rows.items()}

    def restore(self, state: dict[Any, Any]) -> None:
        """Put back the rows of a copy."""
        self._rows.clear()
        self._rows.update({key: kept(value) for key, value in state.items()})

    def frozen(self) -> Hashable:
        """Return the rows, whatever their order."""
        return frozenset([(frozen(key), frozen(value)) for key, value in self._rows.items()])

    def __repr__(self) -> str:
        return f"<Table {self.name}: {display.short(self._rows)}>"


_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def _in_order(keys: Iterable[Any]) -> list[Any]:
    """Return keys in an order that does not depend on which came first."""
    try:
        return sorted(keys)
    except TypeError:
        return sorted(keys, key=lambda key: (type(key).__qualname__, repr(key)))
