"""A model against a log: would its decisions have given the events that were recorded, one by one.

Each case is folded. Before an event is folded, the decisions that can give events of its type are asked on
the state so far, with the event's own fields as arguments. One that gives such an event agrees; else the
event deviates, and the reason is the decision's own: that it refused, that it gave something else, that there
is none. What one decision gives beyond the first event is expected next. After an event that cannot be read
or folded nothing is known of its case: the events after it are not judged, and counted as such.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from esim import display, logpicture
from esim.bar import Bar
from esim.clock import from_micros
from esim.errors import InvalidArgument, InvalidLog, Refused, UnknownEventType, said
from esim.event import Event, current, decode
from esim.jsonstream import Digits, dumped
from esim.logcore import Log
from esim.logpayload import is_json
from esim.logsource import picked
from esim.logstate import bound
from esim.result import Result
from esim.state import State, current_state, decided, evolve_all
from esim.storefile import literal, quoted
from esim.upcast import read_as, roads
from esim.value import fields_of

if TYPE_CHECKING:
    import pandas as pd

S = TypeVar("S", bound=State[Any])

DEVIATIONS = {
    "case": "the case",
    "v": "the place of the event in its case, from 1",
    "time": "when, UTC",
    "activity": "what was recorded",
    "verdict": "refused; differs: the event would have had other fields; not decided: no decision gives it; "
    "not known: the state does not know the type; failed: it cannot be read or folded",
    "decision": "the decision that was asked",
    "reason": "what it said",
}
SUMMARY = {
    "activity": "what was recorded",
    "decision": "the decision that was asked",
    "verdict": "agrees, or how the model deviates: see check(); not judged: an event before it failed",
    "events": "how many events",
    "cases": "in how many cases",
    "reason": "what the decision said, for one of them",
    "example": "a case",
}
_WINDOW = 100_000  # events that are read at a time


class Recorded(NamedTuple):
    """An event of a log as it is replayed; the payload is JSON, None where it has none."""

    s: int
    case: str
    v: int
    time: datetime
    activity: str
    payload: str | None
    schema_version: int


class Verdict(NamedTuple):
    """What a model says of a recorded event."""

    verdict: str
    decision: str = ""
    reason: str = ""


_NOT_JUDGED = Verdict("not judged")
_FINE = ("agrees", _NOT_JUDGED.verdict)


def check(log: Log, state_type: type[State[Any]]) -> Result:
    """Return the events of a log that the decisions of a state would not have given."""
    found = list(_judged(log, state_type))
    wrong = [(one, verdict) for one, verdict in found if verdict.verdict not in _FINE]
    left = sum(verdict is _NOT_JUDGED for _, verdict in found)
    rows = [(one.case, one.v, one.time, one.activity, *verdict) for one, verdict in wrong]
    return Result(
        f"{state_type.__name__} against the log", _frame(list(DEVIATIONS), rows), DEVIATIONS, _select(log),
        (*log.notes, _told(len(found), len(wrong), len({one.s for one, _ in wrong}), left)),
        logpicture.deviations("verdict"),
    )  # fmt: skip


def summary(log: Log, state_type: type[State[Any]]) -> Result:
    """Return how often each decision of a state agrees with a log, and how it deviates."""
    counts: dict[tuple[str, str, str], list[Any]] = {}
    total, deviating = 0, set()
    for one, verdict in _judged(log, state_type):
        total += 1
        if verdict.verdict not in _FINE:
            deviating.add(one.s)
        key = (one.activity, verdict.decision, verdict.verdict)
        entry = counts.setdefault(key, [0, set(), verdict.reason, one.case])
        entry[0] += 1
        entry[1].add(one.s)
    rows = [(*key, n, len(cases), reason, case) for key, (n, cases, reason, case) in sorted(counts.items())]
    wrong = sum(row[3] for row in rows if row[2] not in _FINE)
    left = sum(row[3] for row in rows if row[2] == _NOT_JUDGED.verdict)
    return Result(
        f"Conformance with {state_type.__name__}", _frame(list(SUMMARY), rows), SUMMARY, _select(log),
        (*log.notes, _told(total, wrong, len(deviating), left)), logpicture.verdicts,
    )  # fmt: skip


def as_of(log: Log, moment: int | datetime | str, state_type: type[S]) -> Result:
    """Return the state of every case that had begun by a moment, folded from its events, a field a column.

    Raises InvalidLog with the case and the event if one cannot be folded.
    """
    _must_be_state(state_type)
    cls = current_state(state_type)
    known = {one.event_type: one for one in cls.event_types()}
    until, _ = bound(log, moment)
    rows = []
    for events in _cases(log, until):
        state = cls.initial()
        for one in events:
            try:
                state = evolve_all(state, _typed(log, known, one))
            except Exception as error:
                where = f"case {one.case!r}, event {one.v} ({one.activity})"
                raise InvalidLog(f"{where} cannot be folded: {said(error)}") from error
        rows.append((events[0].case, *fields_of(state).values()))
    names = list(cls.__pydantic_fields__)
    columns = {"case": "the case", **{name: f"the field {name} of {cls.__name__}" for name in names}}
    return Result(
        f"{cls.__name__} as of {moment}", _frame(list(columns), rows), columns, _select(log), log.notes,
        logpicture.states,
    )  # fmt: skip


def _told(total: int, wrong: int, cases: int, left: int) -> str:
    fine = total - wrong - left
    told = f"{fine:,} of {total:,} events are as the model decides; {cases:,} cases deviate"
    return f"{told}; {left:,} after one that failed are not judged" if left else told


def _frame(names: list[str], rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=pd.Index(names))


# --- judging -----------------------------------------------------------------------------------------------


def _judged(log: Log, state_type: type[State[Any]]) -> Iterator[tuple[Recorded, Verdict]]:
    _must_be_state(state_type)
    model = _Model(log, current_state(state_type))
    for events in _cases(log, "true"):
        yield from model.judge(events)


def _must_be_state(state_type: object) -> None:
    if not (isinstance(state_type, type) and issubclass(state_type, State)):
        raise InvalidArgument(f"{display.short(state_type)} is no state: give its class, as check(Order)")


@dataclass
class _Model:
    """The decisions of a state, by the type of event that they give."""

    log: Log
    state_type: type[State[Any]]
    known: dict[str, type[Event]] = field(init=False)
    decisions: dict[str, list[FunctionType]] = field(init=False)

    def __post_init__(self) -> None:
        self.known = {one.event_type: one for one in self.state_type.event_types()}
        functions = list(_decisions(self.state_type))
        self.decisions = {
            name: [one for one in functions if _gives(one, cls)] for name, cls in self.known.items()
        }

    def judge(self, events: list[Recorded]) -> Iterator[tuple[Recorded, Verdict]]:
        """Give each event of a case with its verdict."""
        state, expected = self.state_type.initial(), list[Event]()
        for place, one in enumerate(events, 1):
            if one.activity not in self.known and one.activity not in roads():
                yield one, Verdict("not known", "", f"{self.state_type.__name__} has no {one.activity}")
                continue
            verdict = Verdict("agrees")  # also where upcasters leave nothing of it
            try:
                for event in _typed(self.log, self.known, one):
                    verdict, expected = self._asked(state, event, expected)
                    state = evolve_all(state, [event])
            except Exception as error:  # noqa: BLE001 - whatever a model raises is a finding
                yield one, Verdict("failed", "", said(error))
                yield from ((later, _NOT_JUDGED) for later in events[place:])
                return
            yield one, verdict

    def _asked(self, state: State[Any], event: Event, expected: list[Event]) -> tuple[Verdict, list[Event]]:
        """Return what the decisions say of an event, and what is expected to come after it."""
        if expected and type(expected[0]) is type(event):
            return _compared(expected[0], event, ""), expected[1:]
        verdicts = []
        for decision in self.decisions.get(event.event_type, []):
            verdict, rest = _ask(decision, state, event)
            if verdict.verdict == "agrees":
                return verdict, rest
            verdicts.append(verdict)
        verdicts.sort(key=lambda one: _RANK[one.verdict])
        none = Verdict("not decided", "", f"no decision of {self.state_type.__name__} gives it")
        return (verdicts or [none])[0], []


_RANK = {"differs": 0, "refused": 1, "failed": 2, "not decided": 3}


def _decisions(state_type: type[State[Any]]) -> Iterator[FunctionType]:
    """Give the public methods of a state other than `evolve`, those of its bases too."""
    names = {name for base in state_type.__mro__ if base not in State.__mro__ for name in vars(base)}
    for name in sorted(names):
        method = inspect.getattr_static(state_type, name)
        if isinstance(method, FunctionType) and not name.startswith("_") and name != "evolve":
            yield method


def _gives(decision: FunctionType, cls: type[Event]) -> bool:
    """Say whether a decision names an event class, in its body or as what it returns."""
    returned = decision.__annotations__.get("return", "")
    return cls.__name__ in decision.__code__.co_names or cls.__name__ in str(returned)


def _ask(decision: FunctionType, state: State[Any], event: Event) -> tuple[Verdict, list[Event]]:
    """Ask a decision for an event with the event's own fields; return the verdict and further events."""
    given, arguments = fields_of(event), {}
    for name, parameter in list(inspect.signature(decision).parameters.items())[1:]:
        if name in given:
            arguments[name] = given[name]
        elif parameter.default is parameter.empty and parameter.kind not in _LOOSE:
            reason = f"its argument {name} is not in the event"
            return Verdict("not decided", decision.__name__, reason), []
    try:
        events = decided(decision(state, **arguments))
    except Refused as error:
        return Verdict("refused", decision.__name__, str(error)), []
    except Exception as error:  # noqa: BLE001 - whatever a decision raises is a finding
        return Verdict("failed", decision.__name__, said(error)), []
    for place, one in enumerate(events):
        if one.event_type == event.event_type:
            return _compared(one, event, decision.__name__), list(events[place + 1 :])
    return Verdict("not decided", decision.__name__, "it gives no such event now"), []


_LOOSE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _compared(would: Event, event: Event, decision: str) -> Verdict:
    here, there = fields_of(event), fields_of(would)
    other = {name: value for name, value in there.items() if value != here.get(name)}
    if not other:
        return Verdict("agrees", decision)
    return Verdict("differs", decision, f"it would have {display.arguments(other)}")


# --- reading -----------------------------------------------------------------------------------------------


def _select(log: Log) -> str:
    """Return the SELECT of the events with their payloads."""
    types, data = log.mapping.types, log.mapping.get("data")
    if data is not None:
        payload = f"{quoted(data)}::VARCHAR" if is_json(log, data) else f"to_json({quoted(data)})::VARCHAR"
    else:
        named = {role: log.mapping.get(role) for role in ("case", "activity", "time", "order")}
        others = [name for name in types if name not in named.values()]
        pairs = ", ".join(f"{literal(name)}, {quoted(name)}" for name in others)
        payload = f"json_object({pairs})::VARCHAR"
    shape = "schema_version" if log._source.versioned else "1"
    return (
        f'SELECT s, "case", v, epoch_us(t) AS micros, activity, x_data AS payload, x_shape AS shape '
        f"FROM e JOIN cases USING (s) JOIN activities USING (a) "
        f"JOIN {picked(data=payload, shape=shape)} ON x_row = r"
    )


def _cases(log: Log, until: str) -> Iterator[list[Recorded]]:
    """Give the events of each case in order, reading some cases at a time."""
    low, high, events, cases = log.rows(
        "SELECT coalesce(min(s), 1), coalesce(max(s), 0), count(*), count(DISTINCT s) FROM e"
    )[0]
    step = max(1, _WINDOW * cases // max(events, 1))
    with Bar(0, events, "replaying the log") as bar:
        done = 0
        for start in range(low, high + 1, step):
            where = f"s >= {start} AND s < {start + step} AND {until}"
            rows = log.rows(f"{_select(log)} WHERE {where} ORDER BY s, v")
            for _, group in groupby(rows, itemgetter(0)):
                case = [Recorded._make((*row[:3], from_micros(row[3]), *row[4:])) for row in group]
                yield case
                done += len(case)
                bar.at(done)


def _typed(log: Log, known: dict[str, type[Event]], one: Recorded) -> Iterable[Event]:
    """Give what a recorded event is as typed events: itself, or what upcasters make of it."""
    text = "{}" if one.payload is None or one.payload == "null" else one.payload
    if log._source.versioned:
        reads = read_as(one.activity, one.schema_version, text)
        return [decode(name, text, known.get(name)) for name, _, text in reads]
    if one.activity not in known:
        raise UnknownEventType(
            f"the state has no {one.activity}; log.without({one.activity!r}) leaves it out"
        )
    cls = current(known[one.activity])
    return [decode(one.activity, _payload(log, cls, text), cls)]


def _payload(log: Log, cls: type[Event], text: str) -> str:
    """Return a payload as the class reads it: of columns its own fields, without those that have no value.

    A struct has the fields of all events: one without a value is missing, unless the class needs it.
    """
    data = log.mapping.get("data")
    if data is not None and is_json(log, data):
        return text
    own = {key: info for name, info in cls.__pydantic_fields__.items() for key in (name, info.alias)}
    needed = {key for key, info in own.items() if data is not None and info.is_required()}
    values = json.loads(text, parse_float=Digits, parse_constant=_constant)
    return dumped({
        name: value
        for name, value in values.items()
        if (value is not None or name in needed) and (data is not None or name in own)
    })  # fmt: skip


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)
