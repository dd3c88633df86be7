"""Ask any event log what really happened: one object, its filters, and its questions.

    log = EventLog("incidents.parquet", case="incident", activity="state", time="updated_at")
    log.starting_with("New").lasting("1 day").directly_follows()

A log is a store, a dataframe, an Arrow table, a DuckDB relation or file, CSV, Parquet, JSON Lines,
CloudEvents, XES or OCEL. All work is done by DuckDB; what comes back is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from esim import (
    logcase,
    logcause,
    logcheck,
    logdraft,
    logflow,
    logmodel,
    logobject,
    logpayload,
    logrule,
    logstate,
    logtime,
    logvariant,
    logwork,
    logwriting,
)
from esim.arrowlog import Times
from esim.errors import InvalidArgument
from esim.logcase import QUANTILES
from esim.logcore import Log
from esim.logdraft import Draft
from esim.logfilter import Filters
from esim.logrule import Declared
from esim.logsession import reading
from esim.logsource import Source, Wish, linked, opened
from esim.logwhen import Reading
from esim.mapping import ROLES, WRITTEN, mapped, sample
from esim.result import Result
from esim.state import State
from esim.storefile import quoted

Model: TypeAlias = "type[State[Any]]"


class EventLog(Filters):
    """A log of events that answers questions; filters return narrower logs, questions return results."""

    def __init__(
        self,
        source: Any,
        *,
        case: str | None = None,
        activity: str | None = None,
        time: str | None = None,
        order: str | None = None,
        lifecycle: str | None = None,
        resource: str | None = None,
        event_id: str | None = None,
        data: str | None = None,
        correlation: str | None = None,
        causation: str | None = None,
        objects: Mapping[str, str] | None = None,
        category: str | None = None,
        table: str | None = None,
        format: str | None = None,
        timezone: str = "UTC",
        time_format: str | None = None,
        sort: Literal["time", "order"] | None = None,
        bad: Literal["raise", "drop"] = "raise",
        memory: str | None = None,
    ) -> None:
        """Look at a source; names of columns that are not given are guessed, see `mapping` ('' for none).

        `objects` names columns that link to objects, as `{"order": "order_id", "item": "items"}`.
        `category`: of a store's streams; `table`: of a DuckDB file; `format`: where the name does not tell.
        `timezone` is that of times without a zone, `time_format` how texts (or numbers as 20240301) are
        written that are times; without it they are as in ISO 8601, or seconds to nanoseconds since 1970.
        Events of a case are in the order of time, ties broken by `order`, of which texts that are whole
        numbers count as numbers; a store's are in the order of their versions, as `sort="order"` says of any
        log. What is nested in JSON, or a dict in a dataframe, is JSON, in SQL as `data->>'status'`.
        `bad="drop"` leaves out rows whose time cannot be read. `memory` bounds what DuckDB takes, as '512MB';
        what does not fit goes to disk.
        """
        columns = (case, activity, time, order, lifecycle, resource, event_id, data, correlation, causation)
        given = dict(zip(ROLES, columns, strict=True))
        _one_of("sort", sort, (None, "time", "order"))
        _one_of("bad", bad, ("raise", "drop"))
        found = opened(source, Wish(table, format, category, objects, memory, Times(timezone, bad)))
        try:
            if objects is not None:
                found.objects = linked(found, objects)
            self._begin(found, given, Reading(timezone, time_format, sort or _sort(found, order), bad))
        except BaseException:
            found.session.close()
            raise

    def _begin(self, source: Source, given: dict[str, str | None], how: Reading) -> None:
        self._given, self._session, self._reading = source, source.session, how
        valued, kinds = source.valued(), source.object_types()
        found = mapped(valued.types(), given, source.roles, objects=kinds, gaps=partial(_gaps, valued))
        source.refuse_doubles(found.columns.values())
        written = {column for role, column in found.columns.items() if role in WRITTEN}
        if how.time_format is not None:
            written.add(found["time"])
        self._source = source.valued(written)
        types = self._source.types()
        self.mapping = replace(
            found, types=types, samples=partial(_samples, self._source, types),
            gaps=partial(_gaps, self._source),
        )  # fmt: skip
        self._before = self._step = self._table = None

    def using(self, **roles: str) -> Self:
        """Return a log of the same source with other columns in some roles, as `using(activity="type")`.

        Its filters are those of this log, as if they came after.
        """
        unknown = next((role for role in roles if role not in ROLES), None)
        if unknown is not None:
            raise InvalidArgument(f"there is no role {unknown!r}: the roles are {', '.join(ROLES)}")
        made = object.__new__(type(self))
        kept: dict[str, str | None] = {role: roles.get(role, self.mapping.get(role) or "") for role in ROLES}
        made._begin(self._given, kept, self._reading)
        for step in self._steps():
            made = made._narrowed(step)
        return made

    def write(self, path: str | PathLike[str], format: str | None = None) -> Path:
        """Write the events, after all filters, to a file and return its path.

        The name's ending tells the format, or `format`: csv, parquet, jsonl, xes, xes.gz, ocel.json,
        ocel.sqlite, ocel.xml, cloudevents.json, cloudevents.jsonl. A progress bar shows where it takes long.

        Only OCEL keeps objects of other types than the cases, their attributes and relations. An empty text
        is a missing value when CSV is read again (as case or activity it is refused). Whatever is read is in
        the order of its times: of a store whose clock ran back, or a log with sort="order", say that again.
        Raises InvalidArgument if nothing tells the format, InvalidLog for a text or number that the format
        cannot hold.
        """
        return logwriting.write(self, path, format)

    # --- questions -----------------------------------------------------------------------------------------

    def summary(self) -> Result:
        """Return how large the log is and what to know of it: figure, value, unit."""
        return logcase.summary(self)

    def activities(self) -> Result:
        """Return for each activity: events, share, cases, repeated_in (cases), first, last."""
        return logflow.activities(self)

    def start_end(self) -> Result:
        """Return how many cases begin and end with each activity: starts, start_share, ends, end_share."""
        return logflow.start_end(self)

    def directly_follows(self, *, times: bool = True, cases: bool = False) -> Result:
        """Return what directly follows what: source, target, count, mean_s, median_s, p95_s, total_s.

        Without `times` only counts, which is faster; with `cases` also in how many cases.
        """
        return logflow.directly_follows(self, times=times, cases=cases)

    def variants(self, top: int | None = None, *, times: bool = True, exact: bool = False) -> Result:
        """Return the ways that cases take: variant, cases, share, coverage, steps, median_s, example.

        Without `times` no durations, which is faster; `exact` compares whole sequences in place of
        fingerprints of 64 bits.
        """
        return logvariant.variants(self, top, times=times, exact=exact)

    def cases(self, top: int | None = None) -> Result:
        """Return the cases, longest first: events, activities, repeated, start, end, duration_s and more."""
        return logcase.cases(self, top)

    def durations(self, by: str | None = None, quantiles: Sequence[float] = QUANTILES) -> Result:
        """Return quantiles of the cases' durations in seconds, for each value of the column `by` if given."""
        return logcase.durations(self, by, quantiles)

    def funnel(self, *steps: str) -> Result:
        """Return how far cases come through these steps in order: cases, conversion, overall, median_s."""
        return logtime.funnel(self, steps)

    def rework(self) -> Result:
        """Return the activities done again in a case: repeated_in (cases), share, repetitions, median_s."""
        return logwork.rework(self)

    def loops(self, longest: int = 6) -> Result:
        """Return the rounds of up to `longest` steps from an activity back to it, and their time."""
        return logwork.loops(self, longest)

    def bottlenecks(self) -> Result:
        """Return the steps by the time that all cases together wait there: total_s, share, slow_cases.

        Where a clock runs back (sort="order"), a wait is below zero, and counts as none in `share`.
        """
        return logwork.bottlenecks(self)

    def rates(self, every: str = "day", by: str | None = None) -> Result:
        """Return events, cases, started, ended and open cases of every period (UTC), or events by a column.

        `every`: minute, hour, day, week, month, quarter, year; `by`: "activity", or a column of the source.
        """
        return logtime.rates(self, every, by)

    def cohorts(self, every: str = "month", by: str | None = None) -> Result:
        """Return the retention of cases (or of the values of a column, as customers) by when they began."""
        return logtime.cohorts(self, every, by)

    def dots(self, most: int = 10_000) -> Result:
        """Return the data of a dotted chart: case, row, time, since_s, activity; above `most`, gathered."""
        return logtime.dots(self, most)

    def resources(self, by: str | None = None) -> Result:
        """Return who did how much: events, share, cases, activities, main, median_s; `by` another column."""
        return logwork.resources(self, by)

    def handovers(self, by: str | None = None) -> Result:
        """Return who hands cases over to whom: source, target, count, cases, median_s."""
        return logwork.handovers(self, by)

    def objects(self) -> Result:
        """Return the kinds of objects that events are about: objects, events, links, per_event."""
        return logobject.objects(self)

    def object_directly_follows(self, object_type: str | None = None) -> Result:
        """Return what directly follows what in the life of each object, for every kind or one."""
        return logobject.object_follows(self, object_type)

    def causes(self, event_id: object) -> Result:
        """Return the tree of causes and effects around an event: depth, event_id, caused_by, since_s."""
        return logcause.causes(self, event_id)

    def journey(self, event_id: object) -> Result:
        """Return every event of the story (the correlation) that an event belongs to, in order of time."""
        return logcause.journey(self, event_id)

    def conformance(
        self, to: Declared | Model, columns: tuple[str, str] | None = None, *, repeats: bool = True
    ) -> Result:
        """Return how far cases keep `to` declared transitions (pairs of activities), `Rule`s, or a State.

        With `columns`, two SQL expressions, a transition is from the one to the other, in each event that has
        both; else from each activity to the next one in the case. One from an activity to itself has to be
        declared as any other; with `repeats=False` those are left out, and counted in a note. Of a State, the
        decisions are asked.
        """
        if isinstance(to, type):
            return logmodel.summary(self, to)
        return logrule.conformance(self, to, columns, repeats=repeats)

    def deviations(
        self, to: Declared | Model, columns: tuple[str, str] | None = None, *, repeats: bool = True
    ) -> Result:
        """Return the events that deviate from transitions, rules or a State: case, v, activity, reason.

        `columns` and `repeats` are those of `conformance`.
        """
        if isinstance(to, type):
            return logmodel.check(self, to)
        return logrule.deviations(self, to, columns, repeats=repeats)

    def check(self, state: Model) -> Result:
        """Return the recorded events that the decisions of a State would not have given, and why."""
        return logmodel.check(self, state)

    def draft(self, name: str = "Case", least: float = 0.0) -> Draft:
        """Return a starting model as Python source to edit: event classes, and a State called `name`.

        Transitions in less than the part `least` of the cases are left out of its decisions.
        """
        return Draft(logdraft.draft(self, name, least))

    def anomalies(self, kind: str | None = None, version: str | None = None) -> Result:
        """Return how often each oddity is found, or the events of one `kind` of them.

        `version` names the column that counts the events of a case, unless the order column does.
        """
        return logcheck.anomalies(self, version) if kind is None else logcheck.odd(self, kind, version)

    def payloads(self, every: str = "month") -> Result:
        """Return which fields each activity carries in each period, of which types, and what changes."""
        return logpayload.payloads(self, every)

    def as_of(self, moment: int | datetime | str, state: Model | None = None) -> Result:
        """Return every case as it was at an aware time, or at a store's position: activity, events, age_s.

        With a State, each case is folded, and the fields of the state are the columns.
        """
        return logstate.as_of(self, moment) if state is None else logmodel.as_of(self, moment, state)

    def difference(self, other: Log, of: Literal["follows", "activities", "variants"] = "follows") -> Result:
        """Return what is more or less frequent or slower here than in another log: share, change, median."""
        return logstate.difference(self, other, of)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise InvalidArgument(f"{name}={value!r}: give one of {', '.join(map(repr, allowed))}")


def _sort(source: Source, order: str | None) -> str:
    return "order" if source.versioned and order is None else "time"


def _gaps(source: Source, names: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Return how many rows there are, and how many of them have no value in each of these columns."""
    if source.session.db.closed:  # a closed log still shows its mapping
        return 0, {}
    with reading(source.name):
        counts = ", ".join(f"count({quoted(name)})" for name in names)
        rows, *found = source.session.rows(f"SELECT count(*), {counts} FROM ({source.select})")[0]
    return rows, {name: rows - count for name, count in zip(names, found, strict=True)}


def _samples(source: Source, types: dict[str, str]) -> dict[str, str]:
    """Return a value of each column, of the first row."""
    listed = ", ".join(f"{quoted(name)}::VARCHAR" for name in types) or "1"
    rows = source.session.rows(f"SELECT {listed} FROM ({source.select}) LIMIT 1")
    return dict(zip(types, map(sample, rows[0]), strict=True)) if rows and types else {}
