"""What a simulation is about: a log, who acts on it, and the world outside.

The actors are your own code: handlers, projections and process managers that follow the log, consumers of a
queue, and tasks (whoever appends, publishes, or goes through the log by hand). A scenario names them and
says how each is run; a `Stage` sets them up on a store, as often as a simulation needs. What your code has
read before that (a module, or a cell of a notebook) is a constant: no death has it read anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any, Literal

from esim import display
from esim.arguments import misfit, whole
from esim.contract import Store
from esim.envelope import Row as StoredRow
from esim.errors import InvalidArgument
from esim.event import Event
from esim.faults import Faults
from esim.frozen import frozen, told, written
from esim.handler import is_handler
from esim.invariant import Invariant, named
from esim.part import Part
from esim.process import ProcessManager
from esim.projection import Projection
from esim.query import Filter
from esim.queues import Queue
from esim.subscription import Subscription
from esim.world import World
from esim.writing import Write, prepare

Ack = Literal["after", "before"]
_OPTIONS = [one.name for one in signature(Subscription).parameters.values() if one.kind is one.KEYWORD_ONLY]
_ONCE = "give a whole number, 1 and up"


@dataclass(frozen=True)
class Follow:
    """A handler that follows the log by a `Subscription` with these options."""

    handler: Any
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> str:
        """Return what tells this actor from another: its name and its options."""
        options = ", ".join(
            f"{name}={written(frozen(value))}" for name, value in sorted(self.options.items())
        )
        return f"{self.name or _name(self.handler)}({options}{_bound(self.handler)})"


@dataclass(frozen=True)
class Consume:
    """A handler that consumes the messages of a queue."""

    queue: Queue
    handler: Callable[..., Any]
    name: str
    ack: Ack = "after"
    attempts: int = 3

    def told(self) -> str:
        """Return what tells this actor from another."""
        mine = f"{self.queue.name}, ack={self.ack}, attempts={self.attempts}{_bound(self.handler)}"
        return f"{self.name}({mine})"


@dataclass(frozen=True)
class Task:
    """A function that runs by itself; where it yields or awaits, another process may go first."""

    function: Callable[..., Any]
    name: str
    restart: bool = False

    def told(self) -> str:
        """Return what tells this actor from another."""
        return f"{self.name}(restart={self.restart}{_bound(self.function)})"


Actor = Follow | Consume | Task


def follow(handler: Any, name: str | None = None, **options: Any) -> Follow:
    """Return a handler (a function, a Projection or ProcessManager class) that follows the log.

    The options are those of `Subscription`: `checkpoint`, `retry`, `inbox`, `outbox`, `on_exhausted`, …
    Raises InvalidArgument for another.
    """
    manages = isinstance(handler, type) and issubclass(handler, ProcessManager)  # it may have more of its own
    for option in options if not manages else ():
        if option not in _OPTIONS:
            known = display.did_you_mean(option, _OPTIONS)
            raise InvalidArgument(f"follow({option}=…): a subscription has no such option{known}")
    return Follow(handler, name, options)


def consume(
    queue: Queue,
    handler: Callable[..., Any],
    name: str | None = None,
    *,
    ack: Ack = "after",
    attempts: int = 3,
) -> Consume:
    """Return a consumer of a queue: `handler` takes one message at a time.

    `ack="after"`: a message is done with once it is handled, and comes again if the consumer dies before;
    "before": it is done with when it is taken. One that fails is tried `attempts` times, and then dropped
    among the failures. Raises InvalidArgument for another `ack`, no queue, no attempt, and a handler that
    takes no message.
    """
    if not isinstance(queue, Queue):
        raise InvalidArgument(f"{display.short(queue)} is no queue: make one by world.queue('orders')")
    if not whole(attempts, "attempts", _ONCE):
        raise InvalidArgument(f"attempts={attempts!r}: {_ONCE}")
    if ack not in ("after", "before"):
        raise InvalidArgument(f"ack={ack!r}: give 'after' or 'before'")
    why = "" if is_handler(handler) else misfit(handler, None)
    if why:
        raise InvalidArgument(f"{_name(handler)} cannot consume: {why}; it is given one message at a time")
    return Consume(queue, handler, name or _name(handler), ack, attempts)


def task(
    function: Callable[..., Any], *args: Any, name: str | None = None, restart: bool = False, **kwargs: Any
) -> Task:
    """Return a function, called with these arguments, as a process of its own.

    A plain function is one step. One that yields, or is async, may be overtaken by another process wherever
    it yields or awaits; what asyncio has for tasks to share, as locks, works between async ones, and one that
    waits for ever does not come to an end. With `restart` it begins anew after it died, at its very end too,
    or ended by an error. Raises InvalidArgument for what cannot be called like this.
    """
    why = misfit(function, *args, **kwargs)
    if why:
        raise InvalidArgument(f"{_name(function)} is no task: {why}; write task(function, its arguments, …)")
    bound = partial(function, *args, **kwargs) if args or kwargs else function
    return Task(bound, name or _name(function), restart)


def _name(given: Any) -> str:
    while isinstance(given, partial):
        given = given.func
    return str(getattr(given, "__name__", type(given).__name__))


def _bound(function: Any) -> str:
    """Return the arguments that a function was given beforehand: data as it is, the rest by name or class."""
    if not isinstance(function, partial):
        return ""
    given = [*enumerate(function.args), *function.keywords.items()]
    named = (f"{name}={value.name if isinstance(value, Part) else told(value)}" for name, value in given)
    return f", with {', '.join(named)}"


def actor_of(given: Any) -> Actor:
    """Return what is handed in as an actor: a spec as it is, a handler as one that follows the log.

    Raises InvalidArgument for what is neither, and says what to write.
    """
    if isinstance(given, Follow | Consume | Task):
        return given
    if isinstance(given, Subscription):
        raise InvalidArgument(
            f"{given!r} stands on a store of its own: hand in its handler, as follow(handler, …)"
        )
    if isinstance(given, type) and issubclass(given, Projection | ProcessManager):
        return Follow(given)
    if callable(given) and not isinstance(given, type):
        return task(given) if not is_handler(given) and not misfit(given) else Follow(given)
    raise InvalidArgument(
        f"{display.short(given)} cannot act: hand in a handler, follow(…), consume(…) or task(…)"
    )


Actors = Sequence[Any] | Callable[[Store], Sequence[Any]]
"""Who acts; where they need the store (a repository, a bus, a dispatcher): a function of it."""


class Scenario:
    """A log, actors, what must hold, the world, and which faults may happen."""

    def __init__(
        self,
        history: Any,
        actors: Any,
        invariants: object = (),
        *,
        faults: Faults | None = None,
        world: World | None = None,
    ) -> None:
        """Take a history (writes, `("Order/o-1", event)` pairs, or a store), actors, and invariants.

        Raises InvalidArgument for what is none of these.
        """
        self.rows: tuple[StoredRow, ...] = _rows_of(history) if isinstance(history, Store) else ()
        """The recorded events of a store, envelope and all, without its snapshots; they come before what is
        written."""
        self.history = () if isinstance(history, Store) else writes_of(history)
        if actors is None:
            raise InvalidArgument(
                "nobody acts: hand in a list of handlers, follow(…), task(…), or [] for nobody"
            )
        self.actors: Actors = actors if _makes_actors(actors) else _several(actors)
        self.invariants: dict[str, Invariant] = named(invariants)
        self.faults = Faults() if faults is None else faults
        self.world = World() if world is None else world
        if not isinstance(self.faults, Faults):
            raise InvalidArgument(f"faults={faults!r}: write Faults(crash=1)")
        if not isinstance(self.world, World):
            raise InvalidArgument(f"world={world!r}: give a World()")

    def with_faults(self, faults: Faults) -> Scenario:
        """Return the same scenario with other faults."""
        other = Scenario((), self.actors, self.invariants, faults=faults, world=self.world)
        other.history, other.rows = self.history, self.rows
        return other

    def begin(self) -> None:
        """Have the world be as it was made. Raises InvalidArgument if it was changed by hand since."""
        parts = self.world.parts.values() if self.world.by_hand else ()
        changed = [
            one.name for one in parts if not one.volatile and _form(one.snapshot()) != _form(one.declared)
        ]
        if changed:
            raise InvalidArgument(
                f"the world was changed by hand since it was made: {', '.join(changed)}; a simulation begins "
                "with what it was made with, so write world.table(name, rows), or publish in a task; "
                "world.reset() takes back what was done by hand"
            )
        self.world.reset()

    def built(self, store: Store) -> list[Actor]:
        """Return the actors on a store, each under a name of its own.

        Raises InvalidArgument if a function of the store returns nothing, and if a part of the world is made
        with the actors: it would be another one each time.
        """
        parts = dict(self.world.parts)
        given = self.actors(store) if callable(self.actors) else self.actors
        self.world.by_hand = False  # what is written here is written each time
        made = [name for name, part in self.world.parts.items() if parts.get(name) is not part]
        if made:
            self.world.parts = parts
            raise InvalidArgument(
                f"{', '.join(map(repr, made))} is made where the actors are made, anew in each run: make it "
                "before, where the World is made"
            )
        if given is None:
            raise InvalidArgument(
                f"{_name(self.actors)} returned None: a function of the store returns a list of actors; a "
                "handler says for which events it is, as def handle(event: OrderPlaced)"
            )
        return [actor_of(one) for one in _several(given)]

    def fingerprint(self, actors: Iterable[str]) -> str:
        """Return what tells this scenario from another: a few digits for each of its four sides.

        A store's events count as they are, but for their ids and when they were recorded, which differ each
        time that a store is filled.
        """
        history = [*_recorded(self.rows), *map(_written, self.history)]
        faults = {name: value for name, value in vars(self.faults).items() if value}
        return "".join(_digest(side) for side in (history, list(actors), self._parts(), faults))

    def _parts(self) -> dict[str, str]:
        return {name: part.told() for name, part in self.world.parts.items()}

    def added(self, fingerprint: str) -> list[str] | None:
        """Return the parts that the world got after a fingerprint was taken; None if it was another world."""
        parts = self._parts()
        names = list(parts)
        for count in range(len(names), -1, -1):
            if _digest({name: parts[name] for name in names[:count]}) == side_of(fingerprint, "world"):
                return names[count:]
        return None


SIDES = {
    "history": "history",
    "actors": "actors (their names and options)",
    "world": "world",
    "faults": "faults",
}
"""What a fingerprint is of, side by side, and in words."""
DIGITS = 5
"""How many hexadecimal digits of a fingerprint each side has."""


def side_of(fingerprint: str, side: str) -> str:
    """Return the digits of a fingerprint that are of one side."""
    return fingerprint[list(SIDES).index(side) * DIGITS :][:DIGITS]


def _rows_of(store: Store) -> tuple[StoredRow, ...]:
    return tuple(row for window in store._scan(Filter()) for row in window)


def writes_of(history: Any) -> tuple[Write, ...]:
    """Return a history as writes: from writes, or from pairs of a stream and its events.

    Raises InvalidArgument for anything else.
    """
    if isinstance(history, Write | Event | str) or not isinstance(history, Iterable):
        raise InvalidArgument(
            f"{display.short(history)} is no history: give a store, or a list of ('Order/o-1', event)"
        )
    return tuple(map(_write, history))


def _write(given: Any) -> Write:
    match given:
        case Write():
            return given
        case (str(stream), Event() as event):
            return Write(stream, [event])
        case (str(stream), [*events]) if all(isinstance(one, Event) for one in events):
            return Write(stream, events)
    raise InvalidArgument(
        f"{display.short(given)} is no write: give ('Order/o-1', event), or Write('Order/o-1', [event, …])"
    )


def _makes_actors(actors: Any) -> bool:
    """Say whether this is a function of a store that returns actors, and not an actor itself."""
    makes = callable(actors) and not isinstance(actors, type) and not is_handler(actors)
    return makes and not misfit(actors, None)


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _written(write: Write) -> list[Any]:
    drafts = prepare([write], None).drafts
    expected = [] if write.expected == "any" else [write.expected]
    return [write.stream, [_said(one.type, one.data, *one[4:11]) for one in drafts], *expected]


def _recorded(rows: Sequence[StoredRow]) -> list[list[Any]]:
    """Return what recorded events say; the id of one of them is told by its position."""
    positions = {str(row[9]): row[0] for row in rows}
    causes = ([positions.get(str(one), one) for one in row[6:8]] for row in rows)
    return [
        [row[1], *_said(row[3], row[5], *cause, row[8], None, row[11], tuple(row[12] or ()), row[13])]
        for row, cause in zip(rows, causes, strict=True)
    ]


def _said(kind: str, data: str, *envelope: Any) -> list[str]:
    """Return what an event says, and its envelope if that says anything."""
    return [kind, data, *([told(envelope)] if any(envelope) else [])]


def _form(state: Any) -> str:
    return written(frozen(state))


def _digest(side: object) -> str:
    return hashlib.sha256(json.dumps(side, sort_keys=True).encode()).hexdigest()[:DIGITS]
