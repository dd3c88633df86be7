"""Specifications as sentences: given these events, when this is asked, then that happens.

`given(...).when(Order.pay, ...)` decides on the folded state; `.when(CustomerSpend)` projects the events, each
delivered twice. Both give an `Asked`, whose `.then…` methods compare and return a `Spec`: a value that shows
itself as a table and can be collected. A new kind of subject (an upcaster, a handler) needs one function from
a scene to an `Asked`, beside `_decide` and `_project`.

References: Greg Young's given-when-then for aggregates; Dan North, "Introducing BDD" (2006).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from esim import display
from esim.clock import micros
from esim.errors import InvalidArgument, Refused, SpecFailed
from esim.event import Event, RecordedEvent, Row, encode, tags_of
from esim.projection import Projection
from esim.projection import Row as ProjectionRow
from esim.state import State, after, decided, fold, state_of

Given = Event | RecordedEvent[Any] | tuple[str, Event]
_STREAM = "Given/1"
_WHEN = micros(datetime(2026, 1, 1, tzinfo=UTC))


def given(*events: Given, state: type[State[Any]] | None = None) -> Scene:
    """Begin a specification with what happened before: events, `("Order/o-1", event)` pairs, recorded events.

    `state` is needed only where a decision does not tell its state by itself (one that is inherited).
    Raises InvalidArgument for anything that is not an event.
    """
    return Scene(tuple(_recorded(events)), state)


@dataclass(frozen=True)
class Scene:
    """What happened before; ask `.when(...)` for what comes next."""

    events: tuple[RecordedEvent[Any], ...]
    state: type[State[Any]] | None = None

    def when(
        self, subject: Callable[..., Any] | type[Projection[Any]], /, *args: Any, **kwargs: Any
    ) -> Asked:
        """Take a decision (`Order.pay` with its arguments), or run a projection class over the events.

        Raises InvalidArgument for another subject.
        """
        if isinstance(subject, type) and issubclass(subject, Projection):
            return _project(self, subject)
        if not callable(subject) or isinstance(subject, type):
            raise InvalidArgument(
                f"{display.short(subject)} can be neither decided nor projected: give Order.pay, say"
            )
        return _decide(self, subject, args, kwargs)

    def __repr__(self) -> str:
        return f"given({', '.join(_told(one) for one in self.events)})"


@dataclass(frozen=True)
class Asked:
    """What came of it, to be compared by `.then`, `.then_refused` or `.then_nothing`."""

    scene: Scene
    call: str
    outcome: tuple[Event, ...] | tuple[ProjectionRow, ...] | Refused
    state: State[Any] | None = None
    """The state before the decision; None for a projection."""

    def then(self, *expected: Event | ProjectionRow) -> Spec:
        """Hold that exactly these events (in order) or rows (in any order) came. Raises SpecFailed otherwise."""
        came = self.outcome
        if isinstance(came, Refused):
            self._fail(expected, f"Refused: {came}")
        rows = any(isinstance(one, ProjectionRow) for one in (*came, *expected))
        same = _sorted(came) == _sorted(expected) if rows else [*came] == [*expected]
        if not same:
            self._fail(expected, came)
        return Spec(self, tuple(map(repr, expected)) or ("nothing",))

    def then_refused(self, reason: str | None = None) -> Spec:
        """Hold that the decision was refused, with `reason` somewhere in its text. Raises SpecFailed otherwise."""
        told = f"Refused: {reason}" if reason else "Refused"
        if not isinstance(self.outcome, Refused) or (reason or "") not in str(self.outcome):
            came = f"Refused: {self.outcome}" if isinstance(self.outcome, Refused) else self.outcome
            self._fail(told, came)
        return Spec(self, (f"Refused: {self.outcome}",))

    def then_nothing(self) -> Spec:
        """Hold that nothing came: no event, no row, and no refusal. Raises SpecFailed otherwise."""
        return self.then()

    def _fail(self, expected: Sequence[Any] | str, came: Sequence[Any] | str) -> NoReturn:
        wanted, got = _lines(expected), _lines(came)
        delta = [line for line in difflib.ndiff(wanted, got) if not line.startswith("?")]
        raise SpecFailed(
            f"{self!r}\nexpected:\n{_indent(wanted)}\ncame:\n{_indent(got)}\ndifference (- expected, + came):\n"
            + _indent(delta)
            + f"\nreproduce:\n{_indent(self._program(wanted if isinstance(expected, str) else expected))}"
        )

    def _program(self, expected: Sequence[Any]) -> list[str]:
        """Return the specification as lines that can be pasted into a cell."""
        then = ", ".join(one if isinstance(one, str) else repr(one) for one in expected)
        verb = (
            "then_refused"
            if expected and isinstance(expected[0], str)
            else "then"
            if expected
            else "then_nothing"
        )
        shown = repr(then.removeprefix("Refused").removeprefix(": ")) if verb == "then_refused" else then
        return [
            "given(",
            *(f"    {_told(one)}," for one in self.scene.events),
            f").when({self.call}).{verb}({shown})",
        ]

    def __repr__(self) -> str:
        return f"{self.scene!r}.when({self.call})"


@dataclass(frozen=True)
class Spec:
    """A specification that holds."""

    asked: Asked
    then: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<holds: {self.asked!r} → {', '.join(self.then)}>"

    def _repr_html_(self) -> str:
        story = [[display.badge(one.type), display.fields(one.data)] for one in self.asked.scene.events] or [
            [f'<span style="color:{display.MUTED}">nothing yet</span>', ""]
        ]
        rows = [["<b>given</b>" if not n else "", *cells] for n, cells in enumerate(story)]
        rows.append(["<b>when</b>", display.escape(self.asked.call), ""])
        rows += [["<b>then ✓</b>" if not n else "", *cells] for n, cells in enumerate(self._outcome())]
        return display.table(("", "", ""), rows)

    def _outcome(self) -> list[list[str]]:
        came = self.asked.outcome
        if isinstance(came, Refused):
            return [["refused", display.escape(str(came))]]
        shown = [[_label(one), display.fields(one.__dict__)] for one in came]
        return shown or [["nothing", ""]]


# --- the two kinds of subject ------------------------------------------------------------------------------


def _decide(
    scene: Scene, decision: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Asked:
    owner = scene.state or state_of(decision)
    call = ", ".join(
        [_name(decision, owner), *map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    )
    before = fold(owner, scene.events)
    try:
        events = decided(decision(before, *args, **kwargs))
        after(before, events)
    except Refused as refusal:
        return Asked(scene, call, refusal, before)
    return Asked(scene, call, events, before)


def _name(decision: Callable[..., Any], owner: type[State[Any]]) -> str:
    return f"{owner.__name__}.{getattr(decision, '__name__', 'decision')}"


def _project(scene: Scene, projection: type[Projection[Any]]) -> Asked:
    rows = projection.empty()
    for recorded in scene.events:
        projection.deliver(rows, recorded)
        projection.deliver(rows, recorded)  # a second delivery must change nothing
    return Asked(scene, projection.__name__, tuple(rows))


# --- events and words --------------------------------------------------------------------------------------


def _recorded(items: Iterable[Given]) -> Iterator[RecordedEvent[Any]]:
    versions: Counter[str] = Counter()
    for position, item in enumerate(items, 1):
        if isinstance(item, RecordedEvent):
            yield item
            continue
        stream, event = item if isinstance(item, tuple) and len(item) == 2 else (_STREAM, item)
        if not isinstance(event, Event) or not isinstance(stream, str):
            raise InvalidArgument(
                f"{display.short(item)} did not happen: give events, or pairs ('Order/o-1', event)"
            )
        versions[stream] += 1
        yield RecordedEvent(_row(position, stream, versions[stream], event), event)


def _row(position: int, stream: str, version: int, event: Event) -> Row:
    return (
        *(position, stream, version, event.event_type, event.schema_version, encode(event), None, None, None),
        *(UUID(int=position), _WHEN, None, tags_of(event), None),
    )


def _told(one: RecordedEvent[Any]) -> str:
    return repr(one.event) if one.stream == _STREAM else f"({one.stream!r}, {one.event!r})"


def _label(one: object) -> str:
    return display.badge(one.event_type) if isinstance(one, Event) else display.escape(type(one).__name__)


def _lines(items: Iterable[Any] | str) -> list[str]:
    return [items] if isinstance(items, str) else [repr(one) for one in items] or ["nothing"]


def _indent(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=repr)
