"""Specifications as sentences: given these events, when this is asked, then that happens.

`given(...).when(Order.pay, ...)` decides on the folded state; `.when(CustomerSpend)` projects the events,
each delivered twice, or, where it is a query, one after the other and in one go; `.when(send_receipt, event)`
hands what happens now to a handler, whose calls are noted and not done; `.when(CheckoutManager, event)` asks
what a process does next. Each gives an `Asked`, whose `.then…` methods compare and return a `Spec`: a value
that shows itself as a table, and that can be collected and exported.

References: Greg Young's given-when-then for aggregates; Dan North, "Introducing BDD" (2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from esim import display
from esim.effects import called
from esim.envelope import RecordedEvent
from esim.errors import EsimError, Refused, SpecFailed
from esim.event import Event, renewed
from esim.source import Source
from esim.state import State
from esim.subjects import STREAM, Outcome, asked, difference, indent, lines, recorded, same

__all__ = ["Asked", "Scene", "Spec", "called", "given"]

Given = Event | RecordedEvent[Any] | tuple[str, Event]


def given(*events: Given, state: type[State[Any]] | None = None) -> Scene:
    """Begin a specification with what happened before: events, `("Order/o-1", event)` pairs, recorded events.

    `state` is needed only where a decision does not tell its state by itself: one that is inherited or free.
    Raises InvalidArgument for anything that is not an event.
    """
    return Scene(tuple(recorded(events)), state)


@dataclass(frozen=True, eq=False)
class Scene:
    """What happened before; ask `.when(...)` for what comes next."""

    events: tuple[RecordedEvent[Any], ...]
    owner: type[State[Any]] | None = None

    def when(self, subject: Any, /, *args: Any, **kwargs: Any) -> Asked:
        """Take a decision, run a projection, or hand events to a handler or a process manager.

        A decision is given with its arguments, a projection as its class; the rows of a `SqlProjection` are
        dicts. After a handler, or the class of a process manager, come the events that happen now; what came
        of them is each call that the handler asked `effects` for, as `called(…)`, and its rows, or what the
        process manager returned, but for the process itself. Without events of now, all of that is told that
        came of those before. Raises InvalidArgument for another subject, and what the subject raises.
        """
        return Asked(self, subject, args, kwargs, asked(self, subject, args, kwargs))

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
        """The state that a decision was made on; None unless a decision was asked."""
        return self.outcome.before

    @property
    def state(self) -> State[Any] | None:
        """The state after a decision's events; None unless a decision was asked."""
        return self.outcome.state

    def then(self, *expected: Any) -> Spec:
        """Hold that just these events (in order) or rows (in any order) came. Raises SpecFailed if not."""
        wanted = tuple(renewed(one) if isinstance(one, Event) else one for one in expected)
        came = self.outcome
        if came.refused is not None or not same(wanted, came):
            self._fail(wanted, difference(wanted, came), "then" if wanted else "then_nothing")
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
            f"expected:\n{indent(lines(expected))}\n"
            f"came:\n{indent(lines(self.outcome.refused or self.outcome.items))}\n"
            f"difference:\n{indent(differs)}\n"
            f"reproduce:\n{indent(self.program(verb, *then).splitlines())}"
        )

    def __repr__(self) -> str:
        came = ", ".join(lines(self.outcome.refused or self.outcome.items))
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
        """The state after a decision's events; None unless a decision was asked."""
        return self.asked.state

    def program(self) -> str:
        """Return the specification as a program, with its imports, that can be pasted into a cell."""
        if isinstance(self.expected, Refused):
            return self.asked.program("then_refused", str(self.expected))
        return self.asked.program("then" if self.expected else "then_nothing", *self.expected)

    def __repr__(self) -> str:
        asked = f"{self.asked.scene!r}.when({self.asked.call(Source())})"
        return f"<holds: {asked} → {', '.join(lines(self.expected))}>"

    def _repr_html_(self) -> str:
        return _table(self.asked, "then ✓")


# --- words --------------------------------------------------------------------------------------------------


def _written(one: RecordedEvent[Any], source: Source) -> str:
    try:
        event = source(one.event)
    except EsimError:  # its class is not here: show what is stored
        event = f"{one.type}({display.arguments(one.data)})"
    return event if one.stream == STREAM else f"({one.stream!r}, {event})"


def _owner(owner: type[State[Any]] | None, more: bool) -> str:  # noqa: FBT001 - private
    return "" if owner is None else f"{', ' if more else ''}state={owner.__name__}"


def _table(asked: Asked, verb: str) -> str:
    nothing = f'<span style="color:{display.MUTED}">nothing</span>'
    story = [[display.badge(one.type), display.fields(one.data)] for one in asked.scene.events]
    refused = asked.outcome.refused
    came = [_shown(one) for one in asked.outcome.items]
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


def _shown(one: object) -> list[str]:
    if isinstance(one, dict):
        return ["row", display.fields(one)]
    if hasattr(type(one), "_written_"):
        return [display.escape(Source()(one)), ""]
    label = display.badge(one.event_type) if isinstance(one, Event) else display.escape(type(one).__name__)
    return [label, display.fields(vars(one))]
