"""A log that can be asked: a source, the roles of its columns, the steps that narrow it, and its table.

Nothing is read until a question is asked. A narrowed log shares all with the one it comes from, and begins at
the nearest one whose table there is already.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from esim import display
from esim.errors import InvalidArgument
from esim.logpicture import Draw
from esim.logprepare import Step, Table, narrowed, numbers, prepare
from esim.logsession import Session, reading
from esim.logsource import ROW, Source
from esim.logwhen import Reading, ordered, tie_of
from esim.mapping import ColumnRoles
from esim.processgraph import ProcessGraph
from esim.result import Result
from esim.storefile import Parameters, literal, quoted

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ("e", "whole", "happened", "cases", "activities", "events", "source", "objects")
"""What `sql` can read."""

_LAST = "(SELECT max(t) FROM whole)"
_OWN = {"case", "activity", "time", "s", "v", "a", "p", "z", "t", "w", "r"}


class Log:
    """What a log is made of, and how a question is put to it."""

    _given: Source
    _source: Source
    _session: Session
    _reading: Reading
    mapping: ColumnRoles
    _before: Log | None
    _step: Step | None
    _table: Table | None

    # --- asking --------------------------------------------------------------------------------------------

    def _ready(self) -> Table:
        """Return the table; if it is not there yet, it is made now, while other threads wait."""
        with self._session.alone():
            if self._table is None:
                self._table = self._made()
            return self._table

    def _made(self) -> Table:
        """Return the table, made from that of the nearest log before it that has one."""
        steps, log = [], self
        while log._table is None and log._before is not None and log._step is not None:
            steps.append(log._step)
            log = log._before
        if log._table is None:
            log._table = prepare(log._session, log._source, log.mapping, log._reading)
        return self._after(log._table, steps[::-1]) if steps else log._table

    def _after(self, table: Table, steps: list[Step]) -> Table:
        """Return what steps leave of a table; conditions see the views of the log before all filters."""
        first = self._first()
        self._session.use(first._ready(), first._views)
        return narrowed(self._session, table, steps)

    def _first(self) -> Log:
        """Return the log that all filters began with."""
        return self if self._before is None else self._before._first()

    def _views(self) -> dict[str, str]:
        table = self._ready()
        return {
            **self._source.views(),
            "e": f"SELECT * FROM {table.events.name}",
            "whole": f"SELECT * FROM {self._first()._ready().events.name}",
            "happened": self._once if table.happened is None else f"SELECT * FROM {table.happened.name}",
            "cases": f"SELECT * FROM {table.cases.name}",
            "activities": f"SELECT * FROM {table.activities.name}",
            "events": f"SELECT {self._event_columns()} FROM e JOIN cases USING (s) JOIN activities USING (a) "
            f"JOIN source ON source.{ROW} = e.r",
        }

    def _event_columns(self) -> str:
        own = (
            "cases.\"case\", e.v, activities.activity, e.t AT TIME ZONE 'UTC' AS time, "
            "e.s, e.a, e.p, e.z, e.t, e.w, e.r"
        )
        named = {self.mapping["case"], self.mapping["activity"], self.mapping["time"]}
        taken = set(_OWN)
        others = []
        for name in self.mapping.types:
            if name in named and name.casefold() in _OWN:
                continue
            shown = name
            while shown.casefold() in taken:
                shown += "_"
            taken.add(shown.casefold())
            others.append(f"source.{quoted(name)} AS {quoted(shown)}")
        return ", ".join([own, *others])

    def _lasts(self) -> str:
        """Return the SQL of how long a case lasts, in microseconds, where events are grouped by case."""
        forward = self._ready().forward
        return "coalesce(sum(w), 0)::BIGINT" if forward else "epoch_us(max(t)) - epoch_us(min(t))"

    def _use(self) -> None:
        self._source.check()
        self._ready()
        self._session.use(self._table, self._views)

    @property
    def _shared(self) -> bool:
        """Whether an event may be in several cases, and so several rows of e: cases are objects."""
        return self.mapping.case_object is not None

    @property
    def _counted(self) -> str:
        """The SQL aggregate that counts the events in rows of e: each once."""
        return "count(DISTINCT r)" if self._shared else "count(*)"

    @property
    def _once(self) -> str:
        """The SELECT of (r, a, t) of the events in e, each once."""
        return f"SELECT {'DISTINCT ' if self._shared else ''}r, a, t FROM e"

    def _order(self) -> str | None:
        """Return the SQL of what breaks ties in a row of the source, None where no column has that role."""
        return ordered(self.mapping, counted=self._ready().counted)

    @property
    def _ties(self) -> str | None:
        """The SQL, over the source, of what orders the events of one microsecond; None: only their rows."""
        return tie_of(self._ready().finer, self._order())

    @property
    def _end(self) -> str:
        """The SQL of the time up to which the log tells all: of its last event, or of a filter of times."""
        return f"least({', '.join([_LAST, *self._cuts])})"

    @property
    def _latest(self) -> str:
        """The SQL of the latest moment that the log tells of: a filter of times leaves nothing at its end."""
        return f"least({', '.join([_LAST, *(f'{cut} - INTERVAL 1 MICROSECOND' for cut in self._cuts)])})"

    @property
    def _cuts(self) -> list[str]:
        """The SQL of the times from which on a filter of times leaves nothing."""
        return [step.until for step in self._steps() if step.until is not None]

    def rows(self, sql: str) -> list[Any]:
        """Return the rows of one of our own queries over the views."""
        with self._session.alone(), reading(self._source.name):
            self._use()
            return self._session.rows(sql)

    def ask(
        self,
        title: str,
        sql: str,
        columns: Mapping[str, str],
        notes: tuple[str, ...] = (),
        *,
        draw: Draw | None = None,
        flows: Callable[[pd.DataFrame], ProcessGraph] | None = None,
    ) -> Result:
        """Return the answer to a question: the rows of `sql`, whose `columns` are explained."""
        with self._session.alone(), reading(self._source.name):
            self._use()
            found = self._session.frame(sql)
            return Result(title, found, columns, sql, (*self.notes, *notes), draw, flows)

    def sql(self, query: str, params: Parameters = None) -> pd.DataFrame:
        """Return the rows of one reading SQL statement over this log as a dataframe.

        Tables: `events` (case, v, activity, time and every column of the source); `e` (s, v, a, p, z, t, w,
        r: case, place, activity and the one before as numbers, whether last, time, microseconds since the one
        before, row); `whole`, the same before all filters; `happened` (r, a, t: each event once, where there
        are objects also those without a case); `cases` (s, case); `activities` (a, activity); `objects`
        (#row, object_type, object_id, qualifier); `source`.
        Raises SqlRefused for anything that is not a single reading statement.
        """
        with self._session.alone():
            self._use()
            return self._session.users(query, params, lambda: list(VIEWS))

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know of the log: ties, rows that are left out, filters."""
        others = [kind for kind in self._source.kinds if kind != self.mapping.case_object]
        filters = "; ".join(step.label for step in self._steps())
        told = (f"only {filters}",) if filters else ()
        kind = self.mapping.case_object
        if kind is not None and others:
            ways = ", ".join(f"case={one!r}" for one in sorted(others)[:12])
            told = (f"cases are the objects of type {kind!r}; others by {ways}", *told)
        return (*self._ready().notes, *told)

    def _steps(self) -> list[Step]:
        """Return the filters of this log, the first one first."""
        steps, log = list[Step](), self
        while log._before is not None and log._step is not None:
            steps.append(log._step)
            log = log._before
        return steps[::-1]

    # --- narrowing -----------------------------------------------------------------------------------------

    def _narrowed(self, step: Step) -> Self:
        made = copy.copy(self)
        made._before, made._step, made._table = self, step, None
        return made

    def _codes(self, *activities: str) -> list[int]:
        """Return the numbers of activities. Raises InvalidArgument for one that the log has not."""
        return numbers(self._session, self._ready(), activities)

    def _column(self, name: str) -> str:
        """Return a column of the source, quoted. Raises InvalidArgument if there is none of this name."""
        for one in self.mapping.types:
            if one.casefold() == str(name).casefold():
                return quoted(one)
        raise InvalidArgument(
            f"the log has no column {name!r}{display.did_you_mean(str(name), list(self.mapping.types))}"
        )

    def _expression(self, text: str) -> str:
        """Return an SQL expression over the source unchanged. Raises InvalidArgument unless it is one."""
        from duckdb import Error

        try:
            with self._session.alone():
                found = self._session.cursor.extract_statements(f"SELECT ({text}\n) FROM source")
            if len(found) != 1 or not text.strip():
                raise InvalidArgument(f"{text!r} is no single SQL expression, as \"data->>'status'\"")
            source = f"WITH source AS ({self._source.select})"
            self._session.rows(f"DESCRIBE {source} SELECT ({text}\n) FROM source")
        except (Error, TypeError) as error:
            told = str(error).partition("\n")[0]
            raise InvalidArgument(f"{text!r} is no SQL expression of this log: {told}") from None
        return text

    def close(self) -> None:
        """Let go of the log's tables, and of a store or file that it opened itself."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.rows(f"SELECT {self._counted} FROM e")[0][0])

    def __repr__(self) -> str:
        if self._table is None:
            return f"<EventLog of {self._source.name}: nothing asked yet; {self.mapping!r}>"
        query = f"SELECT {self._counted}, count(DISTINCT s), count(DISTINCT a) FROM e"
        events, cases, activities = self.rows(query)[0]
        told = f"{events:,} events, {cases:,} cases, {activities:,} activities"
        return "\n".join([f"<EventLog of {self._source.name}: {told}>", *self.notes])

    def _repr_html_(self) -> str:
        lines = repr(self).splitlines()
        told = "".join(f"<div>{display.escape(line)}</div>" for line in lines)
        return f"{told}{self.mapping._repr_html_()}"


def names_list(values: tuple[Any, ...]) -> str:
    """Return values as a list of SQL literals; numbers go as text too, which DuckDB compares by cast."""
    return ", ".join("NULL" if one is None else literal(str(one)) for one in values)
