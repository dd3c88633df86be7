"""Which column of a log plays which role: guessed from names and types, shown, and open to correction.

A name is compared without case, spaces and signs. A whole name that is usual for a role comes before a word
in a longer name, and among usual names the commoner one wins, unless more than one row in ten has no value
there: an event that lacks a role is left out. Two equally good guesses are an error that names both, for a
wrong guess would give wrong figures in silence. So are two names of different things, as the time when a
ticket was created and when it was updated, however full their columns are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from esim import display
from esim.errors import InvalidLog

ROLES: dict[str, str] = {
    "case": "what an event belongs to: an order, a ticket, a stream",
    "activity": "what happened: the event's type",
    "time": "when it happened",
    "order": "what breaks ties in time: a version or a position",
    "lifecycle": "which part of an activity this is: start, complete",
    "resource": "who did it",
    "event_id": "the event's own id",
    "data": "the payload, JSON",
    "correlation": "the larger story that an event belongs to",
    "causation": "the id of the event that caused this one",
}
NEEDED = ("case", "activity", "time")
_SPARSE = 0.1  # the part of rows without a value from which on another column is looked for

Gaps: TypeAlias = "Callable[[Sequence[str]], tuple[int, Mapping[str, int]]]"
"""Says how many rows there are, and in how many of them each of some columns has no value."""
WRITTEN = frozenset({"case", "activity", "lifecycle", "resource", "event_id", "correlation", "causation"})
"""The roles whose values are names: they are compared as they are written."""

_CLOCKS = ("TIME", "TIME_NS", "TIME WITH TIME ZONE")

_USUAL: dict[str, tuple[str, ...]] = {
    "case": ("caseconceptname", "caseid", "case", "streamid", "stream", "traceid", "trace", "aggregateid",
             "entityid", "subject"),
    "activity": ("conceptname", "activity", "activityname", "eventtype", "eventname", "event", "action",
                 "task", "type", "step", "state", "status"),
    "time": ("timetimestamp", "timestamp", "time", "datetime", "eventtime", "ts", "occurredat",
             "completetime", "endtime", "recordedat", "createdat", "date"),
    "order": ("version", "sequence", "sequencenumber", "seq", "position", "eventnumber", "offset", "index"),
    "lifecycle": ("lifecycletransition", "lifecycle", "transition"),
    "resource": ("orgresource", "resource", "user", "userid", "actor", "agent", "performer", "employee"),
    "event_id": ("eventid", "eventidentifier", "uuid", "id"),
    "data": ("data", "payload", "body"),
    "correlation": ("correlationid", "correlation"),
    "causation": ("causationid", "causation"),
}  # fmt: skip
_UNSURE: dict[str, tuple[str, ...]] = {
    "activity": ("event", "action", "task", "type", "step", "state", "status"),
    "time": ("completetime", "endtime", "starttime", "createdat", "updatedat", "closedat", "date"),
}
"""Usual names that are a role's only where no other column could be."""

_WORDS: dict[str, tuple[str, ...]] = {
    "case": ("case", "stream", "trace"),
    "activity": ("activity", "action", "event"),
    "time": ("timestamp", "time", "date"),
    "resource": ("resource", "user", "agent"),
}


@dataclass(frozen=True)
class ColumnRoles:
    """The roles of a log's columns: `columns` says role to column.

    Those `given` by the caller and `said` by the format are not guessed.

    Where cases are objects, `case_object` is their type, and the role `case` names it.
    """

    columns: Mapping[str, str]
    given: frozenset[str]
    types: Mapping[str, str]
    samples: Callable[[], Mapping[str, str]]
    case_object: str | None = None
    said: frozenset[str] = frozenset()
    gaps: Gaps = lambda _: (0, {})

    def __getitem__(self, role: str) -> str:
        return self.columns[role]

    def get(self, role: str) -> str | None:
        """Return the column of a role, or None."""
        return self.columns.get(role)

    def _lines(self) -> Iterator[tuple[str, str, str, str, str]]:
        samples, lacking = self.samples(), self._lacking()
        for role, meaning in ROLES.items():
            column = self.columns.get(role)
            how = "" if column is None else self.how(role) + lacking.get(role, "")
            yield role, column or "–", how, samples.get(column or "", ""), meaning

    def how(self, role: str) -> str:
        """Return how the column of a role was found: given, of the format, or guessed."""
        return "given" if role in self.given else "of the format" if role in self.said else "guessed"

    def _lacking(self) -> dict[str, str]:
        """Return what is to be said of guesses by which rows are left out."""
        guesses = {role: self.columns[role] for role in NEEDED if self.how(role) == "guessed"}
        guesses = {role: name for role, name in guesses.items() if name in self.types}
        rows, missing = self.gaps(list(guesses.values())) if guesses else (0, {})
        return {
            role: f"; {missing[name]:,} of {rows:,} rows have none: {role}='…' names another column"
            for role, name in guesses.items()
            if missing.get(name)
        }

    def __repr__(self) -> str:
        lacking = self._lacking()
        told = (
            f"{role}={column!r} ({self.how(role)}{lacking.get(role, '')})"
            for role, column in self.columns.items()
        )
        return f"<Mapping: {', '.join(told)}>"

    def _repr_html_(self) -> str:
        rows = [[display.escape(cell) for cell in line] for line in self._lines()]
        others = [name for name in self.types if name not in self.columns.values()]
        note = f"other columns: {', '.join(others[:40])}" if others else ""
        return display.table(("role", "column", "", "for example", "meaning"), rows, note)


def mapped(
    types: Mapping[str, str],
    given: Mapping[str, str | None],
    said: Mapping[str, str],
    samples: Callable[[], Mapping[str, str]] = dict,
    objects: Mapping[str, int] | None = None,
    *,
    gaps: Gaps = lambda _: (0, {}),
) -> ColumnRoles:
    """Return the roles of columns (name to SQL type): as `given`, as the format has `said`, or guessed.

    Without a column for it a case is an object: `objects` has their types with the number of events linked
    to each. `gaps` is asked where several columns have usual names. Raises InvalidLog for a column that
    there is not, and for a needed role without one clear column.
    """
    given, kind = _case(dict(given), types, said, objects or {})
    chosen = {role: _known(role, name, types) for role, name in given.items() if name}
    for role, name in said.items():
        if name in types and name not in chosen.values():
            chosen.setdefault(role, name)
    for role in ROLES:
        if role not in chosen and role not in _without(given):
            found = _guess(role, types, set(chosen.values()), gaps)
            if found is not None:
                _refuse_rivals(role, found, types, set(chosen.values()))
                _refuse_day(role, found, types)
                chosen[role] = found
    if kind is not None:
        chosen["case"] = kind
    missing = [role for role in NEEDED if role not in chosen]
    if missing:
        raise InvalidLog(_unclear(missing[0], types, chosen.values()))
    ordered = {role: chosen[role] for role in ROLES if role in chosen}
    by_hand = frozenset(role for role, name in given.items() if name)
    told = frozenset(role for role, name in ordered.items() if said.get(role) == name) - by_hand
    return ColumnRoles(ordered, by_hand, types, samples, kind, told, gaps)


def _case(
    given: dict[str, str | None],
    types: Mapping[str, str],
    said: Mapping[str, str],
    objects: Mapping[str, int],
) -> tuple[dict[str, str | None], str | None]:
    """Return what is given without a case, and the type of object that cases are, if they are objects."""
    name = given.get("case")
    if name in objects and name not in types:
        return {**given, "case": ""}, name
    if name or not objects or said.get("case") or any(plain(one) in _USUAL["case"] for one in types):
        return given, None
    return {**given, "case": ""}, max(objects, key=lambda one: (objects[one], one))


def _without(given: Mapping[str, str | None]) -> set[str]:
    """Return the roles that were said to have no column (an empty text)."""
    return {role for role, name in given.items() if name == ""}


def _known(role: str, name: str, types: Mapping[str, str]) -> str:
    if name in types:
        return name
    near = [one for one in types if one.casefold() == str(name).casefold()]
    if len(near) == 1:
        return near[0]
    told = f"there is no column {name!r} for {role}={name!r}"
    raise InvalidLog(told + display.did_you_mean(str(name), list(types)))


def _guess(role: str, types: Mapping[str, str], taken: set[str], gaps: Gaps) -> str | None:
    free = [name for name, kind in types.items() if name not in taken and _can_be(role, kind)]
    named = list(_named(role, free))
    if named:
        return named[0] if role not in NEEDED or len(named) == 1 else _fullest(named, gaps)
    if role == "time":
        stamps = [name for name in free if types[name].startswith("TIMESTAMP")]
        if len(stamps) == 1:
            return stamps[0]
        if stamps:
            raise InvalidLog(_several(role, stamps))
    for word in _WORDS.get(role, ()):
        found = [name for name in free if word in words(name)]
        if len(found) == 1:
            return found[0]
        if found and role in NEEDED:
            raise InvalidLog(_several(role, found))
    return None


def _named(role: str, free: Sequence[str]) -> Iterator[str]:
    """Give the columns that have a usual name for a role, the commonest name first."""
    for usual in _USUAL[role]:
        found = [name for name in free if plain(name) == usual]
        found = [name for name in found if name.casefold() == usual] or found
        if len(found) == 1:
            yield found[0]
        elif found and role in (*NEEDED, "order"):  # the others change no figure, and can wait for a name
            raise InvalidLog(_several(role, found))


def _fullest(names: Sequence[str], gaps: Gaps) -> str:
    """Return the first column that has a value in nearly every row, or the one that lacks the fewest."""
    rows, missing = gaps(names)
    full = (name for name in names if missing.get(name, 0) <= _SPARSE * rows)
    return next(full, min(names, key=lambda name: missing.get(name, 0)))


def _refuse_rivals(role: str, found: str, types: Mapping[str, str], taken: set[str]) -> None:
    """Raise InvalidLog where the name of a guess does not make it likelier than another column."""
    unsure = _UNSURE.get(role, ())
    if plain(found) not in unsure:
        return
    usual = _USUAL[role]
    commoner = usual[: usual.index(plain(found))] if plain(found) in usual else ()  # too many rows lack them
    sure = set(usual) - {*unsure, *commoner}
    rivals = [
        name
        for name, kind in types.items()
        if name not in taken and _can_be(role, kind) and plain(name) not in sure
        if plain(name) in {*unsure, *commoner} or (role == "time" and kind.startswith("TIMESTAMP"))
    ]
    if len(rivals) > 1:
        raise InvalidLog(_several(role, rivals))


def _refuse_day(role: str, found: str, types: Mapping[str, str]) -> None:
    """Raise InvalidLog where the time would be a day only, and another column has the time of day."""
    clock = clock_of(types)
    if role == "time" and types[found] == "DATE" and clock is not None:
        raise only_days(found, clock)


def clock_of(types: Mapping[str, str]) -> str | None:
    """Return a column of times of day, if there is one."""
    return next((name for name, kind in types.items() if kind in _CLOCKS), None)


def only_days(time: str, clock: str) -> InvalidLog:
    """Return the complaint about a time that is a day only, where another column has the time of day."""
    return InvalidLog(
        f"{time!r} has only days, and {clock!r} has times of day: make them one column, in SQL by "
        f"{time} + {clock}, or say that days are enough: EventLog(…, time={time!r})"
    )


def _can_be(role: str, kind: str) -> bool:
    """Say whether a column of an SQL type can play a role that is only guessed."""
    if role == "time":
        return kind.startswith(("TIMESTAMP", "DATE", "VARCHAR", "BIGINT", "DOUBLE", "HUGEINT"))
    if role == "order":
        return "INT" in kind or kind.startswith("DECIMAL")
    if role == "activity":
        return kind.startswith(("VARCHAR", "ENUM"))
    return role == "data" or not kind.startswith(("TIMESTAMP", "DATE", "STRUCT", "MAP", "JSON"))


def plain(name: str) -> str:
    """Return a header as guesses compare it: letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def words(name: str) -> list[str]:
    """Return the words of a header: `Start Time (local)`, `startTime` and `start_time` have two in common."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return re.findall(r"[a-z0-9]+", spaced.casefold())


def _several(role: str, found: Iterable[str]) -> str:
    names = list(found)
    return (
        f"several columns could be the {role}: {', '.join(map(repr, names))}; say which: "
        f"EventLog(…, {role}={names[0]!r})"
    )


def _unclear(role: str, types: Mapping[str, str], taken: Iterable[str]) -> str:
    free = [f"{name} ({kind})" for name, kind in types.items() if name not in set(taken)]
    return (
        f"no column looks like the {role} ({ROLES[role]}); the columns are "
        f"{', '.join(free[:30]) or 'none'}: say which, EventLog(…, {role}='…')"
    )


def sample(value: Any) -> str:
    """Return a value of a column as the mapping shows it."""
    return display.cut(display.plain(value), 40)
