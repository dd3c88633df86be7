"""What a specification can ask, and how: decisions, projections, handlers and process managers.

A new kind of subject plugs in without a change here: a function from the scene, the subject and the arguments
to an `Outcome`, registered by `@kind(lambda subject: isinstance(subject, Upcaster))`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Protocol, TypeVar
from uuid import UUID

from esim import display
from esim.clock import micros
from esim.effects import Called, Effects
from esim.envelope import RecordedEvent, Row
from esim.errors import InvalidArgument, Refused, SpecFailed
from esim.event import Event, encode, tags_of
from esim.handler import handler_of, is_handler
from esim.memory import MemoryStore
from esim.process import ProcessManager
from esim.projection import Projection, SqlProjection
from esim.projection import Row as ProjectionRow
from esim.rows import Rows
from esim.source import Source
from esim.state import State, after, decided, fold, state_of
from esim.waiter import Waiter

STREAM = "Given/1"
_WHEN = micros(datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a subject gave: items, in a telling order or in any, or a refusal; and a state to look at."""

    items: tuple[Any, ...] = ()
    refused: Refused | None = None
    ordered: bool = True
    subject: str | None = None
    """How a program names the subject, where that is not its own name."""
    before: State[Any] | None = None
    state: State[Any] | None = None


class Scene(Protocol):
    """What happened before, and the state that is asked where a decision does not tell."""

    @property
    def events(self) -> tuple[RecordedEvent[Any], ...]:
        """The events so far."""
        ...

    @property
    def owner(self) -> type[State[Any]] | None:
        """The state class, where it was said."""
        ...


Ask = Callable[[Scene, Any, tuple[Any, ...], dict[str, Any]], Outcome]
A = TypeVar("A", bound=Ask)
_kinds: list[tuple[Callable[[object], bool], Ask]] = []


def kind(fits: Callable[[object], bool]) -> Callable[[A], A]:
    """Register a function as the way to ask every subject that `fits`; the last registered is tried first."""

    def register(ask: A) -> A:
        _kinds.insert(0, (fits, ask))
        return ask

    return register


def asked(scene: Scene, subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Ask a subject, after what happened before. Raises InvalidArgument for what is none."""
    for fits, ask in _kinds:
        if fits(subject):
            return ask(scene, subject, args, kwargs)
    raise InvalidArgument(
        f"{display.short(subject)} can be neither decided nor projected, and reacts to nothing: give a "
        "decision such as Order.pay, the class of a projection or a process manager, or a handler"
    )


@kind(lambda subject: callable(subject) and not isinstance(subject, type))
def _decide(
    scene: Scene, decision: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    streams = dict.fromkeys(one.stream for one in scene.events)
    if len(streams) > 1:
        raise InvalidArgument(f"a decision knows one stream, and here are {', '.join(streams)}: give one")
    owner = scene.owner or state_of(decision)
    name = getattr(decision, "__name__", "")
    subject = f"{owner.__name__}.{name}" if hasattr(owner, name) else None
    before = fold(owner, scene.events)
    try:
        events = decided(decision(before, *args, **kwargs))
    except Refused as refusal:
        return Outcome(refused=refusal, subject=subject, before=before, state=before)
    return Outcome(events, subject=subject, before=before, state=after(before, events))


@kind(lambda subject: isinstance(subject, type) and issubclass(subject, Projection))
def _project(
    scene: Scene, projection: type[Projection[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    if args or kwargs:
        raise InvalidArgument(f"{projection.__name__} takes no arguments here: it is handed the events")
    once = tuple(projection.over(scene.events).values())
    rows = projection.empty()
    for recorded in (*(one for one in scene.events for _ in range(2)), *scene.events):
        projection.deliver(rows, recorded)
    again = Outcome(tuple(rows), ordered=False)
    if not same(once, again):
        raise SpecFailed(
            f"{projection.__name__} gives other rows when every event is delivered twice\n"
            f"once:\n{indent(lines(once))}\ntwice:\n{indent(lines(again.items))}\n"
            f"difference:\n{indent(difference(once, again))}"
        )
    return again


@kind(lambda subject: isinstance(subject, type) and issubclass(subject, SqlProjection))
def _ask_sql(
    scene: Scene, projection: type[SqlProjection], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    from esim.answer import records
    from esim.store import EventStore

    if args or kwargs:
        raise InvalidArgument(f"{projection.__name__} takes no arguments here: it is handed the events")
    with EventStore() as store:
        model = projection(store).catch_up()
        for position, one in enumerate(scene.events, 1):
            store.restore([(position, *one._row[1:])])
            model.catch_up().catch_up()
        stepwise = tuple(records(model._stored()))
        whole = Outcome(tuple(records(model.rebuild()._stored())), ordered=False)
    if not same(stepwise, whole):
        raise SpecFailed(
            f"{projection.__name__} gives other rows event by event than in one go: look at `combine`\n"
            f"event by event:\n{indent(lines(stepwise))}\nin one go:\n{indent(lines(whole.items))}\n"
            f"difference:\n{indent(difference(stepwise, whole))}"
        )
    return whole


@kind(is_handler)
def _handle(
    scene: Scene, given: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    handler = handler_of(given)
    past, now = _told(handler.name, scene, args, kwargs)
    rows = None if handler.row is None else Rows[Any](handler.row)
    waiter = Waiter()
    effects = Effects(outbox=False, done=lambda *_: False, waiter=waiter)
    effects.gate = len(past) + len(now)  # noted, and not done
    for recorded in (*past, *now):
        if handler.types and recorded.type not in {one.event_type for one in handler.types}:
            continue
        effects.begin(recorded)
        result = (handler.calls.get(recorded.type) or handler.calls[""])(recorded, rows, effects)
        if isinstance(result, Awaitable):
            waiter.result(result)
    waiter.close()
    since = len(past) if now else 0
    calls = [one for one in effects.fresh.values() if one.position > since]
    came = (Called(effects.functions[one.name], one.arguments) for one in calls)
    return Outcome((*came, *(rows or ())), ordered=rows is None)


@kind(lambda subject: isinstance(subject, type) and issubclass(subject, ProcessManager))
def _react(
    scene: Scene, manager: type[ProcessManager[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    past, now = _told(manager.__name__, scene, args, kwargs)
    asked = manager(MemoryStore())
    came: list[Any] = []
    processes: dict[str, Any] = {}
    for recorded in (*past, *now):
        if not asked.takes(recorded):
            continue
        id = asked.id_of(recorded)
        processes[id], reactions = asked.react(recorded, processes.get(id) or asked.process(id=id))
        if recorded.position > len(past) or not now:
            came += reactions
    return Outcome(tuple(came))


def _told(
    name: str, scene: Scene, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[RecordedEvent[Any]], list[RecordedEvent[Any]]]:
    """Return what happened before and what happens now, numbered through."""
    if kwargs:
        raise InvalidArgument(f"{name} takes no {next(iter(kwargs))}=…: after it come the events of now")
    events = list(recorded((*scene.events, *args)))
    numbered: list[RecordedEvent[Any]] = [
        RecordedEvent((number, *one._row[1:]), one.event, part=one.part)
        for number, one in enumerate(events, 1)
    ]
    return numbered[: len(scene.events)], numbered[len(scene.events) :]


# --- events -------------------------------------------------------------------------------------------------


def recorded(items: Iterable[Any]) -> Iterator[RecordedEvent[Any]]:
    """Return events, pairs of stream and event, and recorded events as recorded, one after the other."""
    versions: Counter[str] = Counter()
    position = 0
    for item in items:
        if isinstance(item, RecordedEvent):
            one: RecordedEvent[Any] = item
        else:
            stream, event = _pair(item)
            one = RecordedEvent(_row(position + 1, stream, versions[stream] + 1, event), event)
        position, versions[one.stream] = one.position, one.version
        yield one


def _pair(item: object) -> tuple[str, Event]:
    match item:
        case Event():
            return STREAM, item
        case (str() as stream, Event() as event):
            return stream, event
    raise InvalidArgument(f"{display.short(item)} did not happen: give events, or pairs ('Order/o-1', event)")


def _row(position: int, stream: str, version: int, event: Event) -> Row:
    return (
        *(position, stream, version, event.event_type, event.schema_version, encode(event), None, None, None),
        *(UUID(int=position), _WHEN, None, tags_of(event), None),
    )


# --- comparing ----------------------------------------------------------------------------------------------


def same(expected: tuple[Any, ...], came: Outcome) -> bool:
    """Say whether an outcome is what was expected, in order where it has one."""
    if came.ordered:
        return expected == came.items
    left = list(came.items)
    for one in expected:
        if one not in left:
            return False
        left.remove(one)
    return not left


def difference(expected: tuple[Any, ...], came: Outcome) -> list[str]:
    """Return what differs, field by field where the things themselves match."""
    if came.refused is not None:
        return ["it was refused"]
    if came.ordered:
        pairs = list(zip_longest(expected, came.items))
    else:
        mine, theirs = ({_identity(one): one for one in side} for side in (expected, came.items))
        pairs = [(mine.get(key), theirs.get(key)) for key in dict.fromkeys((*mine, *theirs))]
    return [line for wanted, got in pairs for line in _apart(wanted, got)] or ["the same row is there twice"]


def _identity(one: Any) -> object:
    keys = one.key_fields if isinstance(one, ProjectionRow) else ()
    return type(one), tuple(getattr(one, name) for name in keys) or repr(one)


def _apart(wanted: Any, got: Any) -> Iterator[str]:
    if got is None:
        yield f"{wanted!r} is missing"
    elif wanted is None:
        yield f"{got!r} was not expected"
    elif type(wanted) is not type(got):
        yield f"expected {type(wanted).__name__}, came {type(got).__name__}"
    elif wanted != got:
        fields = (
            (name, value, getattr(got, name)) for name, value in getattr(wanted, "__dict__", {}).items()
        )
        told = [f"{type(got).__name__}.{name}: expected {a!r}, came {b!r}" for name, a, b in fields if a != b]
        yield from told or [f"expected {wanted!r}, came {got!r}"]


def lines(items: Iterable[Any] | Refused) -> list[str]:
    """Return each item as it would be written."""
    if isinstance(items, Refused):
        return [f"Refused: {items}"]
    return [Source()(one) for one in items] or ["nothing"]


def indent(text: Iterable[str]) -> str:
    """Return lines as one text, set in."""
    return "\n".join(f"  {line}" for line in text)
