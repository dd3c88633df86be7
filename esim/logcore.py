"""A log that can be asked: a source, the roles of its columns, the steps that narrow it, and its table.

Nothing is read until a question is asked. A narrowed log shares all with the one it comes from, and begins at
the nearest one whose table there is already.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from esim import display
from esim.errors import InvalidArgument
from esim.logpicture import Draw
from esim.logprepare import Reading, Step, Table, narrowed, numbers, prepare
from esim.logsession import Session, reading
from esim.logsource import ROW, Source
from esim.mapping import ColumnRoles
from esim.processgraph import ProcessGraph
from esim.result import Result
from esim.storefile import Parameters, literal, quoted

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ("e", "cases", "activities", "events", "source", "objects")
"""What `sql` can read."""

_OWN = {"case", "activity", "time", "s", "v", "a", "p", "z", "t", "w", "r"}
_OBJECTS = (
    'SELECT NULL::BIGINT AS "#row", NULL::VARCHAR AS object_type, NULL::VARCHAR AS object_id, '
    "NULL::VARCHAR AS qualifier WHERE false"
)


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
        """Return the table, made now if it is not there yet."""
        if self._table is None:
            steps, log = [], self
            while log._table is None and log._before is not None and log._step is not None:
                steps.append(log._step)
                log = log._before
            if log._table is None:
                log._table = prepare(log._session, log._source, log.mapping, log._reading)
            self._table = narrowed(self._session, log._table, steps[::-1]) if steps else log._table
        return self._table

    def _views(self) -> dict[str, str]:
        table = self._ready()
        return {
            "source": self._source.select,
            "e": f"SELECT * FROM {table.events.name}",
            "cases": f"SELECT * FROM {table.cases.name}",
            "activities": f"SELECT * FROM {table.activities.name}",
            "objects": self._source.objects or _OBJECTS,
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

    def _use(self) -> None:
        self._source.check()
        self._ready()
        self._session.use(self._table, self._views)

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
        before, row); `cases` (s, case); `activities` (a, activity); `objects` (#row, object_type, object_id,
        qualifier); `source`.
        Raises SqlRefused for anything that is not a single reading statement.
        """
        with self._session.alone():
            self._use()
            return self._session.users(query, params, lambda: list(VIEWS))

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to know of the log: ties, rows that are left out, filters."""
        others = [kind for kind in self._source.kinds if kind != self.mapping.case_object]
        filters = [log._step.label for log in self._chain() if log._step is not None]
        told = (f"only {'; '.join(filters[::-1])}",) if filters else ()
        kind = self.mapping.case_object
        if kind is not None and others:
            ways = ", ".join(f"case={one!r}" for one in sorted(others)[:12])
            told = (f"cases are the objects of type {kind!r}; others by {ways}", *told)
        return (*self._ready().notes, *told)

    def _chain(self) -> Iterator[Log]:
        log: Log | None = self
        while log is not None:
            yield log
            log = log._before

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
            found = self._session.cursor.extract_statements(f"SELECT ({text}\n) FROM source")
            if len(found) != 1 or not text.strip():
                raise InvalidArgument(f"{text!r} is no single SQL expression, as \"data->>'status'\"")
            self._session.rows(f"DESCRIBE SELECT ({text}\n) FROM ({self._source.select}) AS source")
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
        return int(self.rows("SELECT count(*) FROM e")[0][0])

    def __repr__(self) -> str:
        if self._table is None:
            return f"<EventLog of {self._source.name}: nothing asked yet; {self.mapping!r}>"
        query = "SELECT count(*), count(DISTINCT s), count(DISTINCT a) FROM e"
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
