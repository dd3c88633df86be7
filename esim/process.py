"""Process managers: what must happen next, across streams and over time.

A process reacts to events, keeps its state in a row of its own, sends commands, sets deadlines and
compensates. It is a transactional subscription: the row, the commands in the outbox and the checkpoint are
one commit. Commands are sent by the relay under a key, so that each takes effect once whatever crashes; a
refusal and a passed deadline come back as events of the process's own stream, so that a replay sees them as
well.

References: H. Garcia-Molina and K. Salem, "Sagas", 1987; "process manager" as in G. Hohpe and B. Woolf,
"Enterprise Integration Patterns", 2003.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from esim import display
from esim.effects import Effects
from esim.envelope import RecordedEvent, derived_id, keyed, metadata
from esim.errors import InvalidArgument, InvalidEvent, Refused, text_of
from esim.event import Event
from esim.handler import Call, HandlerOf, latest
from esim.messages import Command, Dispatcher, command_class
from esim.points import Point
from esim.readmodel import snake_case
from esim.rows import Key, Row, Rows
from esim.source import Source
from esim.subscription import Subscription
from esim.value import Value

if TYPE_CHECKING:
    from esim.contract import Store


class DeadlinePassed(Event, type="esim.DeadlinePassed"):
    """A deadline that a process had set is over; in its stream, and in the correlation of what set it."""

    deadline: str
    due: datetime


class CommandRefused(Event, type="esim.CommandRefused"):
    """A command that a process sent was refused; in the stream of the process."""

    command: str
    target: str
    reason: str


class Due(Value):
    """A deadline that is not over yet, and the correlation of the event that set it."""

    name: str
    due: datetime
    correlation: str | None = None


class Process(Row):
    """The state of one process: `class Checkout(Process)` adds fields with defaults; `id` correlates."""

    id: Key[str]
    deadlines: tuple[Due, ...] = ()


class Deadline:
    """What a reaction returns to be told later, as `Deadline("payment", hours=24)`; a name is set once."""

    def __init__(self, name: str, after: timedelta | None = None, **parts: float) -> None:
        """Set a deadline a time from now, by the store's clock: a timedelta, or its parts."""
        try:
            self.name, self.after = str(name), (after or timedelta(0)) + timedelta(**parts)
        except TypeError as error:
            raise InvalidArgument(f"Deadline({name!r}, …): {error}; write hours=24, minutes=5") from None
        if self.after <= timedelta(0):
            raise InvalidArgument(f"Deadline({name!r}, …) is {self.after} from now: give a time to come")

    def _written_(self, source: Source) -> str:
        """Return the deadline as it would be written."""
        source.name(Deadline)
        parts = {"days": self.after.days, "seconds": self.after.seconds}
        if self.after.microseconds:
            parts["microseconds"] = self.after.microseconds
        if not parts["seconds"] % 3600 and not self.after.microseconds:
            parts = {"hours": self.after // timedelta(hours=1)}
        told = "".join(f", {name}={value}" for name, value in parts.items() if value)
        return f"Deadline({self.name!r}{told})"

    def __repr__(self) -> str:
        return self._written_(Source())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Deadline) and (self.name, self.after) == (other.name, other.after)

    def __hash__(self) -> int:
        return hash((self.name, self.after))


class Met:
    """What a reaction returns when a deadline is met: it is not told any more."""

    def __init__(self, name: str) -> None:
        """Name the deadline."""
        self.name = str(name)

    def _written_(self, source: Source) -> str:
        """Return it as it would be written."""
        return f"{source.name(Met)}({self.name!r})"

    def __repr__(self) -> str:
        return self._written_(Source())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Met) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


P = TypeVar("P", bound=Process)
Reaction = Process | Command | Deadline | Met
"""What a reaction returns, one or several: the new state, commands to send, deadlines to set or to drop."""


class ProcessManager(Subscription, Generic[P]):
    """Reacts to events: `class CheckoutManager(ProcessManager[Checkout])` with methods marked by `@on(…)`.

    A method `(self, event, process)` returns one `Reaction`, several, or None, and does nothing itself. `by`
    names, for event types whose stream does not carry the process's id, the field that does; where that is
    None, the event belongs to no process.
    """

    process: ClassVar[type[Process]]
    by: ClassVar[Mapping[type[Event], str]] = {}
    _reactions: ClassVar[dict[str, Callable[..., object]]] = {}
    _types: ClassVar[tuple[type[Event], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.process = _process_of(cls)
        cls._reactions, cls._types = _reactions_of(cls)
        for event, field in cls.by.items():
            if field not in event.__pydantic_fields__:
                told = display.did_you_mean(field, list(event.__pydantic_fields__))
                raise InvalidArgument(f"{cls.__name__}.by: {event.__name__} has no field {field!r}{told}")

    def __init__(self, store: Store, dispatcher: Dispatcher | None = None, **options: Any) -> None:
        """Manage the processes of `store`; `dispatcher` carries out commands, a plain one unless given.

        Options are those of `Subscription`, but for those that choose streams: it has to hear of its own.
        Raises InvalidArgument for such a one, and for a name with a slash, as its streams are `name/id`.
        """
        self.dispatcher = Dispatcher(store) if dispatcher is None else dispatcher
        name = options.pop("name", None)
        _must_hear_itself(snake_case(type(self).__name__) if name is None else name, options)
        self._classes = latest(self._types)
        calls: dict[str, Call] = dict.fromkeys((one.event_type for one in self._types), self._call())
        source = f"{type(self).__module__}.{type(self).__qualname__}"
        handler = HandlerOf(
            snake_case(type(self).__name__), source, self._types, calls, self.process, effects=True
        )
        super().__init__(store, handler, name, sends=[self.send_command], **options)

    def id_of(self, recorded: RecordedEvent[Any]) -> str:
        """Return the id of the process that an event belongs to."""
        return str(self._whose(recorded))

    def _whose(self, recorded: RecordedEvent[Any]) -> object:
        field = next((name for kind, name in self.by.items() if kind.event_type == recorded.type), None)
        return recorded.id if field is None else getattr(recorded.event_as(latest(self._types)), field)

    def catch_up(self) -> Self:
        """React to every event up to the head, and to deadlines that are over by the store's clock."""
        super().catch_up()
        reached = -1
        while self.state in ("idle", "running") and not self._halted:
            for _ in self._tell():
                pass
            if not self.lag or self.position == reached:
                break
            reached = self.position
            super().catch_up()
        return self

    def steps(self) -> Iterator[Point]:
        """Catch up step by step, deadlines included; see `Subscription.steps`."""
        yield from super().steps()
        reached = -1
        while True:
            yield from self._tell()
            if not self.lag or self.position == reached:
                return
            reached = self.position
            yield from super().steps()

    def _wants(self) -> bool:
        now = self.store.clock.now()
        return super()._wants() or any(due.due <= now for _, due in self.due())

    def due(self) -> list[tuple[str, Due]]:
        """Return the deadlines that are not told yet, with the ids of their processes, earliest first."""
        waiting = self._progress.holding("deadlines")
        found = [(process.id, due) for process in waiting for due in process.deadlines]
        now = self.store.clock.now()
        keys = {pair: derived_id(self._key(*pair), 0) for pair in found if pair[1].due <= now}
        told = self.store._find(list(keys.values())) if keys else {}
        left = (pair for pair in found if keys.get(pair) not in told)
        return sorted(left, key=lambda pair: (pair[1].due, pair[0]))

    def _tell(self) -> Iterator[Point]:
        """Record the deadlines that are over in the streams of their processes, unless events wait before.

        One of those may be what a deadline was set for.
        """
        now = self.store.clock.now()
        for id, due in () if self.lag else self.due():
            if due.due <= now:
                yield Point("tell", self.store.position)
                with keyed(self._key(id, due)), metadata(correlation_id=due.correlation):
                    self.store.append(f"{self.name}/{id}", DeadlinePassed(deadline=due.name, due=due.due))
                yield Point("told", self.store.position)

    def _key(self, id: str, due: Due) -> str:
        return f"{self.name}/{id} {due.due.isoformat()} {due.name}"

    # --- one event -----------------------------------------------------------------------------------------

    def _call(self) -> Call:
        def call(recorded: RecordedEvent[Any], rows: Rows[Any], effects: Effects) -> None:
            if not self.takes(recorded):
                return
            id = self.id_of(recorded)
            known = rows.get(id)
            process, reactions = self.react(recorded, known or self.process(id=id))
            for each in reactions:
                if isinstance(each, Command):
                    told = each.name, each.model_dump_json(), f"{self.name}/{id}", _story(recorded)
                    effects.call(self.send_command, *told)
            if process is not known:
                rows.put(process)

        return call

    def takes(self, recorded: RecordedEvent[Any]) -> bool:
        """Say whether an event is for one of these processes, and not for none or another manager's."""
        mine = recorded.type not in _OWN or recorded.category == self.name
        return mine and recorded.type in self.handler.calls and self._whose(recorded) is not None

    def react(
        self, recorded: RecordedEvent[Any], process: Process
    ) -> tuple[Process, tuple[Command | Deadline | Met, ...]]:
        """Return the process after an event, with its deadlines, and what else its method returned.

        Nothing is sent, and nothing comes of a deadline that was met, or set anew, before it was told. Raises
        InvalidArgument if a method returns what is no reaction, or a deadline of which none would hear.
        """
        event = recorded.event_as(self._classes)
        if isinstance(event, DeadlinePassed):
            if (event.deadline, event.due) not in [(due.name, due.due) for due in process.deadlines]:
                return process, ()
            process = _without(process, event.deadline)
        others: list[Command | Deadline | Met] = []
        reaction = self._reactions.get(recorded.type, _nothing)
        for each in _several(reaction(self, event, process)):
            if isinstance(each, Process) and each.id != process.id:
                raise InvalidArgument(
                    f"a reaction to {recorded.type} of {process.id!r} returned the process {each.id!r}: "
                    "return the one it was given, changed by .but(…)"
                )
            if isinstance(each, Process):
                process = each.but(deadlines=process.deadlines)
            elif isinstance(each, Deadline) and DeadlinePassed.event_type not in self._reactions:
                raise InvalidArgument(
                    f"a reaction to {recorded.type} set {each!r}, and {type(self).__name__} has none to one "
                    "that is over: mark a method with @on(DeadlinePassed)"
                )
            elif isinstance(each, Command | Deadline | Met):
                others.append(each)
            else:
                raise InvalidArgument(
                    f"a reaction to {recorded.type} returned {display.short(each)}: return the process, "
                    "commands, Deadline(…), Met(…), or None"
                )
        for each in others:
            if isinstance(each, Deadline | Met):
                process = _without(process, each.name)
            if isinstance(each, Deadline):
                at = recorded.recorded_at + each.after
                due = Due(name=each.name, due=at, correlation=_story(recorded))
                process = process.but(deadlines=(*process.deadlines, due))
        return process, tuple(others)

    def send_command(self, command: str, payload: str, stream: str, correlation: str, key: str) -> None:
        """Carry out a command, as the relay does; a refusal is recorded in the stream of the process."""
        message = command_class(command).model_validate_json(payload)
        try:
            with metadata(correlation_id=correlation):
                self.dispatcher.send(message, key=f"{self.name} {key}")
        except (Refused, InvalidArgument, InvalidEvent) as error:
            refused = CommandRefused(command=command, target=message.id, reason=text_of(error))
            with metadata(correlation_id=correlation), keyed(f"{self.name} {key} refused"):
                self.store.append(stream, refused)


_OWN = {DeadlinePassed.event_type, CommandRefused.event_type}


def _story(recorded: RecordedEvent[Any]) -> str:
    return recorded.correlation_id or str(recorded.event_id)


def _nothing(*_: object) -> None:
    """React to a deadline of a former version of the manager: it is over, and that is all."""


def _must_hear_itself(name: object, options: Mapping[str, object]) -> None:
    if isinstance(name, str) and "/" in name:
        raise InvalidArgument(
            f"name={name!r}: deadlines are told in the streams of the category of that name, which ends at "
            "the first slash; give a name without one"
        )
    for narrower in ("category", "tag", "partition"):
        if narrower in options:
            raise InvalidArgument(
                f"{narrower}={options[narrower]!r} would keep from a process manager the deadlines and "
                f"refusals in its own streams, {name}/…: leave it out; its methods say which events it is for"
            )


def _without(process: Process, deadline: str) -> Process:
    kept = tuple(due for due in process.deadlines if due.name != deadline)
    return process if len(kept) == len(process.deadlines) else process.but(deadlines=kept)


def _several(reaction: object) -> Iterable[object]:
    if reaction is None:
        return ()
    if isinstance(reaction, Iterable) and not isinstance(reaction, Value | str | Mapping):
        return tuple(reaction)
    return (reaction,)


def _process_of(cls: type) -> type[Process]:
    bases = (one for base in cls.__mro__ for one in vars(base).get("__orig_bases__", ()))
    found = next((get_args(one)[0] for one in bases if get_origin(one) is ProcessManager), None)
    if not (isinstance(found, type) and issubclass(found, Process)):
        raise InvalidArgument(
            f"{cls.__name__} names no process: write class {cls.__name__}(ProcessManager[Checkout])"
        )
    wrong = [
        name for name, field in found.__pydantic_fields__.items() if name != "id" and field.is_required()
    ]
    if wrong:
        raise InvalidArgument(
            f"{found.__name__}.{wrong[0]} has no default, and a process begins without values"
        )
    return found


def _reactions_of(cls: type) -> tuple[dict[str, Callable[..., object]], tuple[type[Event], ...]]:
    """Return the marked methods by type name, and the event types. Raises InvalidArgument for a wrong one."""
    found: dict[str, Callable[..., object]] = {}
    types: dict[type[Event], None] = {}
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        method = inspect.getattr_static(cls, name)
        for event in getattr(method, "handles", ()) if isinstance(method, FunctionType) else ():
            _must_take_two(cls, method)
            other = found.setdefault(event.event_type, method)
            if other is not method:
                raise InvalidArgument(
                    f"{cls.__name__}.{other.__name__} and .{name} both react to {event.event_type}: "
                    "put both parts into one"
                )
            types[event] = None
    if not found:
        raise InvalidArgument(f"{cls.__name__} reacts to no event: mark a method with @on(SomeEvent)")
    return found, tuple(types | {DeadlinePassed: None})  # of which its row is told in any case


def _must_take_two(cls: type, method: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(method):
        raise InvalidArgument(
            f"{cls.__name__}.{method.__name__} is async, and a reaction does nothing that could be waited for"
        )
    try:
        inspect.signature(method).bind(None, None, None)
    except TypeError:
        name = method.__name__
        raise InvalidArgument(
            f"{cls.__name__}.{name}{inspect.signature(method)} cannot be called: "
            f"write def {name}(self, event, process)"
        ) from None
