"""Specifications as sentences: given these events, when this is asked, then that happens.

`given(...).when(Order.pay, ...)` decides on the folded state; `.when(CustomerSpend)` projects the events,
each delivered twice, or, where it is a query, one after the other and in one go. Each gives an `Asked`, whose
`.then…` methods compare and return a `Spec`: a value that shows itself as a table, and that can be collected
and exported.

A new kind of subject (an upcaster, a handler) plugs in without a change here: its module registers a function
from the scene, the subject and the arguments to an `Outcome`, as those further down do:
`@kind(lambda subject: isinstance(subject, Upcaster))`.

References: Greg Young's given-when-then for aggregates; Dan North, "Introducing BDD" (2006).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from esim import display
from esim.clock import micros
from esim.envelope import RecordedEvent, Row
from esim.errors import EsimError, InvalidArgument, Refused, SpecFailed
from esim.event import Event, encode, renewed, tags_of
from esim.projection import Projection, SqlProjection
from esim.projection import Row as ProjectionRow
from esim.source import Source
from esim.state import State, after, decided, fold, state_of

Given = Event | RecordedEvent[Any] | tuple[str, Event]
_STREAM = "Given/1"
_WHEN = micros(datetime(2026, 1, 1, tzinfo=UTC))


def given(*events: Given, state: type[State[Any]] | None = None) -> Scene:
    """Begin a specification with what happened before: events, `("Order/o-1", event)` pairs, recorded events.

    `state` is needed only where a decision does not tell its state by itself: one that is inherited or free.
    Raises InvalidArgument for anything that is not an event.
    """
    return Scene(tuple(_recorded(events)), state)


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


@dataclass(frozen=True, eq=False)
class Scene:
    """What happened before; ask `.when(...)` for what comes next."""

    events: tuple[RecordedEvent[Any], ...]
    owner: type[State[Any]] | None = None

    def when(self, subject: Any, /, *args: Any, **kwargs: Any) -> Asked:
        """Take a decision (`Order.pay` with its arguments), or run a projection class over the events.

        The rows of a `SqlProjection` are dicts.

        Raises InvalidArgument for another subject.
        """
        for fits, ask in _kinds:
            if fits(subject):
                return Asked(self, subject, args, kwargs, ask(self, subject, args, kwargs))
        raise InvalidArgument(
            f"{display.short(subject)} can be neither decided nor projected: give a decision such as "
            "Order.pay, or the class of a projection"
        )

    def told(self, source: Source) -> list[str]:
        """Return each event as it would be written."""
        return [_written(one, source) for one in self.events]

    def __repr__(self) -> str:
        return f"given({', '.join(self.told(Source()))}{_owner(self.owner, bool(self.events))})"


@dataclass(frozen=True, eq=False)
class Asked:
    """What came of it, to be compared by `.then`, `.then_refused` or `.then_nothing`."""

    scene: Scene
    subject: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outcome: Outcome

    @property
    def before(self) -> State[Any] | None:
        """The state that a decision was made on; None for a projection."""
        return self.outcome.before

    @property
    def state(self) -> State[Any] | None:
        """The state after a decision's events; None for a projection."""
        return self.outcome.state

    def then(self, *expected: Any) -> Spec:
        """Hold that just these events (in order) or rows (in any order) came. Raises SpecFailed if not."""
        wanted = tuple(renewed(one) if isinstance(one, Event) else one for one in expected)
        came = self.outcome
        if came.refused is not None or not _same(wanted, came):
            self._fail(wanted, _difference(wanted, came), "then" if wanted else "then_nothing")
        return Spec(self, wanted)

    def then_nothing(self) -> Spec:
        """Hold that nothing came: no event, no row, and no refusal. Raises SpecFailed otherwise."""
        return self.then()

    def then_refused(self, reason: str | None = None) -> Spec:
        """Hold that the decision was refused, `reason` being part of its text. Raises SpecFailed if not."""
        came = self.outcome.refused
        if came is None or (reason or "") not in str(came):
            differs = f"the reason does not hold {reason!r}" if came else "it was not refused"
            self._fail(Refused(reason or "for any reason"), [differs], "then_refused", reason)
        return Spec(self, came)

    def call(self, source: Source) -> str:
        """Return what `.when(...)` was given, as it would be written."""
        parts = [*map(source, self.args), *(f"{key}={source(value)}" for key, value in self.kwargs.items())]
        return ", ".join((self.named(source), *parts))

    def named(self, source: Source) -> str:
        """Return how a program names the subject."""
        return self.outcome.subject or source.name(self.subject)

    def program(self, verb: str, *expected: Any) -> str:
        """Return the specification as a program, with its imports, that can be pasted into a cell."""
        source = Source()
        source.need("esim", "given")
        events = [f"    {line},\n" for line in self.scene.told(source)]
        owner = f"    state={source.name(self.scene.owner)},\n" if self.scene.owner else ""
        if self.outcome.before is not None:
            source.name(type(self.outcome.before))
        told = ", ".join(map(source, expected))
        body = f"given(\n{''.join(events)}{owner})" if events or owner else "given()"
        call = f"{body}.when(\n    {self.call(source)},\n).{verb}({told})"
        return "\n".join((*source.imports(), call))

    def _fail(
        self, expected: tuple[Any, ...] | Refused, differs: list[str], verb: str, *args: Any
    ) -> NoReturn:
        wanted = () if isinstance(expected, Refused) else expected
        then = [one for one in args if one is not None] or wanted
        count = len(self.scene.events)
        raise SpecFailed(
            f"after {count} event{'s' * (count != 1)}, {self.named(Source())}: {differs[0]}\n"
            f"expected:\n{_indent(_lines(expected))}\n"
            f"came:\n{_indent(_lines(self.outcome.refused or self.outcome.items))}\n"
            f"difference:\n{_indent(differs)}\n"
            f"reproduce:\n{_indent(self.program(verb, *then).splitlines())}"
        )

    def __repr__(self) -> str:
        came = ", ".join(_lines(self.outcome.refused or self.outcome.items))
        return f"<{self.scene!r}.when({self.call(Source())}) gave {came}: hold it by .then(…)>"

    def _repr_html_(self) -> str:
        return _table(self, "came")


@dataclass(frozen=True, eq=False)
class Spec:
    """A specification that holds: what was asked, and what was expected of it (items, or the refusal)."""

    asked: Asked
    expected: tuple[Any, ...] | Refused

    @property
    def state(self) -> State[Any] | None:
        """The state after a decision's events; None for a projection."""
        return self.asked.state

    def program(self) -> str:
        """Return the specification as a program, with its imports, that can be pasted into a cell."""
        if isinstance(self.expected, Refused):
            return self.asked.program("then_refused", str(self.expected))
        return self.asked.program("then" if self.expected else "then_nothing", *self.expected)

    def __repr__(self) -> str:
        asked = f"{self.asked.scene!r}.when({self.asked.call(Source())})"
        return f"<holds: {asked} → {', '.join(_lines(self.expected))}>"

    def _repr_html_(self) -> str:
        return _table(self.asked, "then ✓")


# --- kinds of subject --------------------------------------------------------------------------------------

Ask = Callable[[Scene, Any, tuple[Any, ...], dict[str, Any]], Outcome]
A = TypeVar("A", bound=Ask)
_kinds: list[tuple[Callable[[object], bool], Ask]] = []


def kind(fits: Callable[[object], bool]) -> Callable[[A], A]:
    """Register a function as the way to ask every subject that `fits`; the last registered is tried first."""

    def register(ask: A) -> A:
        _kinds.insert(0, (fits, ask))
        return ask

    return register


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
    if not _same(once, again):
        raise SpecFailed(
            f"{projection.__name__} gives other rows when every event is delivered twice\n"
            f"once:\n{_indent(_lines(once))}\ntwice:\n{_indent(_lines(again.items))}\n"
            f"difference:\n{_indent(_difference(once, again))}"
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
    if not _same(stepwise, whole):
        raise SpecFailed(
            f"{projection.__name__} gives other rows event by event than in one go: look at `combine`\n"
            f"event by event:\n{_indent(_lines(stepwise))}\nin one go:\n{_indent(_lines(whole.items))}\n"
            f"difference:\n{_indent(_difference(stepwise, whole))}"
        )
    return whole


# --- events and words --------------------------------------------------------------------------------------


def _recorded(items: Iterable[Given]) -> Iterator[RecordedEvent[Any]]:
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
            return _STREAM, item
        case (str() as stream, Event() as event):
            return stream, event
    raise InvalidArgument(f"{display.short(item)} did not happen: give events, or pairs ('Order/o-1', event)")


def _row(position: int, stream: str, version: int, event: Event) -> Row:
    return (
        *(position, stream, version, event.event_type, event.schema_version, encode(event), None, None, None),
        *(UUID(int=position), _WHEN, None, tags_of(event), None),
    )


def _written(one: RecordedEvent[Any], source: Source) -> str:
    try:
        event = source(one.event)
    except EsimError:  # its class is not here: show what is stored
        event = f"{one.type}({display.arguments(one.data)})"
    return event if one.stream == _STREAM else f"({one.stream!r}, {event})"


def _owner(owner: type[State[Any]] | None, more: bool) -> str:  # noqa: FBT001 - private
    return "" if owner is None else f"{', ' if more else ''}state={owner.__name__}"


def _same(expected: tuple[Any, ...], came: Outcome) -> bool:
    if came.ordered:
        return expected == came.items
    left = list(came.items)
    for one in expected:
        if one not in left:
            return False
        left.remove(one)
    return not left


def _difference(expected: tuple[Any, ...], came: Outcome) -> list[str]:
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


def _lines(items: Iterable[Any] | Refused) -> list[str]:
    if isinstance(items, Refused):
        return [f"Refused: {items}"]
    return [Source()(one) for one in items] or ["nothing"]


def _indent(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _table(asked: Asked, verb: str) -> str:
    nothing = f'<span style="color:{display.MUTED}">nothing</span>'
    story = [[display.badge(one.type), display.fields(one.data)] for one in asked.scene.events]
    refused = asked.outcome.refused
    came = [
        [_label(one), display.fields(one if isinstance(one, dict) else vars(one))]
        for one in asked.outcome.items
    ]
    if refused is not None:
        came = [["refused", display.escape(refused)]]
    call = [[display.escape(asked.call(Source())), ""]]
    parts = (("given", story), ("when", call), (verb, came))
    rows = [
        [f"<b>{head}</b>" if not number else "", *cells]
        for head, lines in parts
        for number, cells in enumerate(lines or [[nothing, ""]])
    ]
    return display.table(("", "", ""), rows)


def _label(one: object) -> str:
    if isinstance(one, dict):
        return "row"
    return display.badge(one.event_type) if isinstance(one, Event) else display.escape(type(one).__name__)
