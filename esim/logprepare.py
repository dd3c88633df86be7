"""The table that every question reads: one narrow row per event.

`e(s, v, a, p, z, t, w, r)`: the case and the activity as numbers (`cases` and `activities` have their
names), `v` the place in the case from 1, `p` the activity before it in the case (NULL at its start), `z`
whether it is the last, `t` the time in UTC, `w` the microseconds since the event before, `r` the row of the
source.
Numbers, places without gaps and the step before each event make most questions a single GROUP BY. What
depends on the order of rows says so itself.

A filter is a predicate over such a table. Filters are applied in one statement, when a question is first
asked; one that takes events out of cases numbers what is left anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from esim import display
from esim.errors import InvalidArgument, InvalidLog
from esim.logsession import Kept, Session, reading
from esim.logsource import ROW, Source, picked
from esim.logvalue import aware, naive, zoned
from esim.mapping import ColumnRoles
from esim.storefile import literal, quoted

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL", "U")
_NUMBERED = """(row_number() OVER each)::INT AS v, a, lag(a) OVER each AS p,
 lead(a) OVER each IS NULL AS z, t, epoch_us(t) - epoch_us(lag(t) OVER each) AS w, r"""
_STREAMED = """
SELECT s, (n - max(if(ps IS DISTINCT FROM s, n, NULL)) OVER (ROWS UNBOUNDED PRECEDING) + 1)::INT AS v,
 a, if(ps = s, pa, NULL) AS p, ns IS DISTINCT FROM s AS z, t,
 if(ps = s, epoch_us(t) - epoch_us(pt), NULL) AS w, r
FROM (SELECT s, a, t, r, row_number() OVER () AS n, lag(s) OVER () AS ps, lag(a) OVER () AS pa,
       lag(t) OVER () AS pt, lead(s) OVER () AS ns FROM (SELECT * FROM {rows} ORDER BY s, t, o, r))"""
_SOUND = """SELECT count(*) FILTER (p IS NULL) = (SELECT count(*) FROM {cases})
 AND count(*) FILTER (z) = (SELECT count(*) FROM {cases}) AND count(*) FILTER (w < 0) = 0,
 count(*) FILTER (w = 0) FROM {events}"""
_UNITS = (
    (1e17, "// 1000", "nanoseconds"),
    (1e14, "", "microseconds"),
    (1e11, "* 1000", "milliseconds"),
    (1, "* 1000000", "seconds"),  # 0 is the same in all of them
)
_ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
_WORST = 5  # rows that a message quotes


Codes = Callable[[Sequence[str]], list[int]]
"""Gives the numbers of activities by name; raises InvalidArgument for one that the log has not."""


class Reading(NamedTuple):
    """How times are read, what orders events, and what happens to rows that are none."""

    timezone: str = "UTC"
    time_format: str | None = None
    sort: str = "time"
    bad: str = "raise"


@dataclass(frozen=True)
class Step:
    """One filter: what it says, its predicate over the rows of a relation, and whether it cuts into cases."""

    label: str
    where: Callable[[str, Codes], str]
    cuts: bool = False


@dataclass(frozen=True)
class Table:
    """The prepared events, with the names of cases and activities, and what there is to say of them."""

    events: Kept
    cases: Kept
    activities: Kept
    notes: tuple[str, ...]


# --- preparing ---------------------------------------------------------------------------------------------


def prepare(session: Session, source: Source, roles: ColumnRoles, how: Reading) -> Table:
    """Return the table of a source. Raises InvalidLog if times cannot be read and `how.bad` says so."""
    with reading(source.name):
        session.use(object(), lambda: {"source": source.select, "flat": _flat(source, roles)})
        notes = (*source.notes, *_looked_at(session, roles, how))
        finer = _finer(session, roles, how)
        base = _base(session, roles, how, finer)
        cases = _named(session, base, 'c AS "case"', "s")
        activities = _named(session, base, "n AS activity", "a")
        events, tied, back = _numbered(session, base, cases, activities, how)
        ties = _ties(roles, how, tied, back, finer=finer is not None)
        unbroken = _unbroken(session, events, roles, how) if tied or how.sort == "order" else []
    return Table(events, cases, activities, (*notes, *ties, *unbroken))


def _numbered(
    session: Session, base: str, cases: Kept, activities: Kept, how: Reading
) -> tuple[Kept, int, int]:
    """Return the events with their places in their cases, how many tie with the one before, or go back.

    Sorting all rows once and looking at neighbours costs half of a window over each case. It leans on DuckDB
    keeping an ORDER BY in what it streams through OVER (), so the result is checked: where some case were
    torn apart, or time ran back in one, the window, which leans on nothing, would do it again.
    """
    rows = session.keep(
        f'SELECT s, a, t, o, r FROM ({base}) JOIN {cases.name} ON "case" = c '
        f"JOIN {activities.name} ON activity = n WHERE t IS NOT NULL"
    )
    if how.sort == "time":
        events = session.keep(_STREAMED.format(rows=rows.name))
        sound, tied = session.rows(_SOUND.format(events=events.name, cases=cases.name))[0]
        if sound:
            return events, tied, 0
    order = "o, r" if how.sort == "order" else "t, o, r"
    window = f"WINDOW each AS (PARTITION BY s ORDER BY {order})"
    events = session.keep(f"SELECT s, {_NUMBERED} FROM {rows.name} {window}")
    query = f"SELECT count(*) FILTER (w = 0), count(*) FILTER (w < 0) FROM {events.name}"
    tied, back = session.rows(query)[0]
    return events, tied, back


def _base(session: Session, roles: ColumnRoles, how: Reading, finer: str | None) -> str:
    order = quoted(roles["order"]) if roles.get("order") else "NULL::INT"
    order = order if finer is None else f"{{'n': {finer}, 'o': {order}}}"
    return (
        f'SELECT "#case" AS c, {quoted(roles["activity"])}::VARCHAR AS n, {_time(session, roles, how)} AS t, '
        f"{order} AS o, {ROW} AS r FROM flat"
    )


def _finer(session: Session, roles: ColumnRoles, how: Reading) -> str | None:
    """Return the SQL of the nanoseconds of times beside their microseconds, or None where there are none."""
    column, kind = quoted(roles["time"]), roles.types[roles["time"]]
    if how.sort == "order" or how.time_format is not None:
        return None
    if kind.endswith("_NS"):
        found = f"epoch_ns({column}) % 1000"
    elif kind.startswith("VARCHAR"):
        found = f"rpad(regexp_extract({column}, '\\.[0-9]{{6}}([0-9]{{1,3}})', 1), 3, '0')::INT"
    elif kind in ("BIGINT", "UBIGINT", "HUGEINT") and _epoch(session, column)[1] == "nanoseconds":
        found = f"{column} % 1000"
    else:
        return None
    return found if session.rows(f"SELECT count(*) FILTER ({found} <> 0) FROM source")[0][0] else None


def _flat(source: Source, roles: ColumnRoles) -> str:
    """Return the SELECT of the rows with their case; where that is an object, a row for each one."""
    if roles.case_object is None:
        return f'SELECT *, {quoted(roles["case"])}::VARCHAR AS "#case" FROM source'
    links = f'SELECT DISTINCT {ROW}, object_id AS "#case" FROM ({source.objects}) WHERE object_type = '
    return (
        f'SELECT source.*, "#case" FROM source LEFT JOIN ({links}{literal(roles.case_object)}) USING ({ROW})'
    )


def _named(session: Session, base: str, column: str, code: str) -> Kept:
    """Return a table of the different values of a column of the base, numbered in their order."""
    value = column.partition(" ")[0]
    found = f"SELECT DISTINCT {value} FROM ({base}) WHERE c IS NOT NULL AND n IS NOT NULL AND t IS NOT NULL"
    number = f"row_number() OVER (ORDER BY {value})::INT AS {code}"
    return session.keep(f"SELECT {number}, {column} FROM ({found})")


def _time(session: Session, roles: ColumnRoles, how: Reading) -> str:
    """Return the SQL of a column's time in UTC; NULL where it is none."""
    column, kind, local = quoted(roles["time"]), roles.types[roles["time"]], _local(roles, how)
    if local is not None:
        found = _in_utc(local, how.timezone)
        return f"coalesce({found}, {aware(column)} AT TIME ZONE 'UTC')" if _is_text(roles, how) else found
    if how.time_format is not None:
        return f"try_strptime({column}::VARCHAR, {literal(how.time_format)}) AT TIME ZONE 'UTC'"
    if kind in _ZONED:
        return f"({column} AT TIME ZONE 'UTC')::TIMESTAMP"
    return f"TRY(make_timestamp(({column} {_epoch(session, column)[0]})::BIGINT))"


def _local(roles: ColumnRoles, how: Reading) -> str | None:
    """Return the SQL of a column's times as they are written without a zone; None where there are no such."""
    name, form = roles["time"], how.time_format
    column, kind = quoted(name), roles.types[name]
    if form is not None:
        if not kind.startswith(("VARCHAR", *_WHOLE)):
            raise InvalidArgument(f"time_format={form!r} is for texts, and {name} is of type {kind}")
        with_zone = "%z" in form.casefold().replace("%%", "")
        return None if with_zone else f"try_strptime({column}::VARCHAR, {literal(form)})"
    if kind in _ZONED or kind.startswith(_WHOLE):
        return None
    if kind.startswith("VARCHAR"):
        return naive(column)
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"{column}::TIMESTAMP"
    raise InvalidLog(f"time={name!r} is of type {kind}, which is no time; name another column")


def _is_text(roles: ColumnRoles, how: Reading) -> bool:
    """Say whether times are texts as ISO 8601 has them, some of which may name a zone."""
    return roles.types[roles["time"]].startswith("VARCHAR") and how.time_format is None


def _in_utc(local: str, timezone: str) -> str:
    if timezone == "UTC":
        return local
    return f"(({local}) AT TIME ZONE {literal(timezone)}) AT TIME ZONE 'UTC'"


def _epoch(session: Session, column: str) -> tuple[str, str, int]:
    """Return what makes numbers microseconds, the unit of most by their size, and how many are of others."""
    counts = ", ".join(f"count(*) FILTER (abs({column}::DOUBLE) >= {size})" for size, *_ in _UNITS)
    found = session.rows(f"SELECT {counts} FROM source WHERE isfinite({column}::DOUBLE)")[0]
    of_unit = [more - less for more, less in zip(found, (0, *found), strict=False)]
    most = of_unit.index(max(of_unit)) if any(of_unit) else -1
    return *_UNITS[most][1:], sum(of_unit) - of_unit[most]


def _looked_at(session: Session, roles: ColumnRoles, how: Reading) -> list[str]:
    """Return what is to be said of rows that are no events and of times; raises InvalidLog for bad ones."""
    if how.sort == "order" and roles.get("order") is None:
        raise InvalidArgument("sort='order' needs an order column: EventLog(…, order='version')")
    column, time = quoted(roles["time"]), _time(session, roles, how)
    with_zone = f"count(*) FILTER ({zoned(column)} AND {time} IS NOT NULL)" if _is_text(roles, how) else "0"
    parts = ['count("#case")', *(f"count({quoted(roles[role])})" for role in ("activity", "time"))]
    found = session.rows(f"SELECT count(*), {', '.join(parts)}, count({time}), {with_zone} FROM flat")[0]
    rows, cases, activities, times, read, named = found
    notes = []
    if read < times:
        notes.append(
            _unreadable(session, roles, how, f"{column} IS NOT NULL AND {time} IS NULL", times - read)
        )
    for role, count in (("case", cases), ("activity", activities), ("time", times)):
        if rows and not count:
            raise InvalidLog(
                f"no row has a {role}: the column {roles[role]!r} is empty; name another, "
                f"EventLog(…, {role}='…')"
            )
        if count < rows:
            notes.append(f"{rows - count:,} of {rows:,} rows have no {role} ({roles[role]}) and are left out")
    if 0 < named < read:
        notes.append(
            f"{named:,} of {read:,} times name their zone; "
            f"the others are taken as {how.timezone} (timezone='…')"
        )
    notes += _lifecycle(session, roles)
    if roles.types[roles["time"]].startswith(_WHOLE) and how.time_format is None:
        _, unit, others = _epoch(session, column)
        some = f", as most are by their size (others: {others:,})" if others else ""
        notes.append(f"the numbers in {roles['time']} are taken as {unit} since 1970{some}")
    return notes + _clock_changes(session, roles, how)


def _clock_changes(session: Session, roles: ColumnRoles, how: Reading) -> list[str]:
    """Say how many times a change of the clock leaves out, or lets come twice."""
    local, hour = _local(roles, how), "INTERVAL 1 HOUR"
    if local is None or how.timezone == "UTC":
        return []
    zone = f"AT TIME ZONE {literal(how.timezone)}"
    twice = f"(u - {hour}) {zone} = x OR (u + {hour}) {zone} = x"
    times = f"SELECT x, x {zone} AS u FROM (SELECT {local} AS x FROM source)"
    missing, double = session.rows(
        f"SELECT count(*) FILTER (u {zone} <> x), count(*) FILTER ({twice}) FROM ({times})"
    )[0]
    told = (("do not exist", missing, "an hour later"), ("come twice", double, "the second of both"))
    return [
        f"times that {what} in {how.timezone} ({count:,}) are taken as {taken}"
        for what, count, taken in told
        if count
    ]


def _lifecycle(session: Session, roles: ColumnRoles) -> list[str]:
    """Say that an activity may be several events, where a column tells its parts."""
    name = roles.get("lifecycle")
    if name is None:
        return []
    rows = session.rows(
        f"SELECT DISTINCT {quoted(name)}::VARCHAR AS part FROM source ORDER BY 1 LIMIT {_WORST}"
    )
    parts = [str(row[0]) for row in rows if row[0] is not None]
    if len(parts) < 2:  # noqa: PLR2004 - two parts of one activity
        return []
    told = f"activities have parts ({name}: {', '.join(parts)}), and each part is an event"
    return [f"{told}; with_value({name!r}, {parts[0]!r}) keeps one"]


def _unreadable(session: Session, roles: ColumnRoles, how: Reading, where: str, count: int) -> str:
    number = 'SELECT row_number() OVER () AS "#n", * FROM source'
    worst = session.rows(f'SELECT "#n", {quoted(roles["time"])} FROM ({number}) WHERE {where} LIMIT {_WORST}')
    rows = ", ".join(f"row {row:,}: {display.short(text, 40)}" for row, text in worst)
    told = f"{count:,} value{'' if count == 1 else 's'} of {roles['time']} cannot be read as a time ({rows}"
    told += ", …)" if count > _WORST else ")"
    if how.bad == "raise":
        raise InvalidLog(
            f"{told}; say how they are written (time_format='%d/%m/%Y %H:%M'), or leave those rows out "
            "(bad='drop')"
        )
    return f"{told}; those rows are left out"


def _ties(roles: ColumnRoles, how: Reading, tied: int, back: int, *, finer: bool) -> list[str]:
    order, notes = roles.get("order"), []
    if tied and how.sort == "time":
        by = f"{order} breaks the ties" if order else "the order of rows breaks the ties (order='…')"
        same = "the same time to the microsecond" if finer else "the same time"
        by = f"nanoseconds, then {by}" if finer else by
        notes.append(f"{_events(tied)} {same} as the one before in the case; {by}")
    if back:
        notes.append(f"{_events(back)} a time before the one of the event before: {order} says the order")
    return notes


def _unbroken(session: Session, events: Kept, roles: ColumnRoles, how: Reading) -> list[str]:
    """Say how many events tie with another one in all that orders a case."""
    order = roles.get("order")
    if order is None:
        return []
    key = "s, o" if how.sort == "order" else "s, t, o"
    tied = "" if how.sort == "order" else f"WHERE (s, t) IN (SELECT (s, t) FROM {events.name} WHERE w = 0)"
    facts = picked(o=quoted(order))
    rows = f"SELECT s, t, x_o AS o FROM {events.name} JOIN {facts} ON x_row = r {tied}"
    groups = f"SELECT count(*) AS n FROM ({rows}) GROUP BY {key} HAVING count(*) > 1"
    count = int(session.rows(f"SELECT coalesce(sum(n), 0) FROM ({groups})")[0][0])
    told = f"{_events(count)} the same {order} as another such event; there the order of rows decides"
    return [told] if count else []


def _events(count: int) -> str:
    return f"{count:,} event{' has' if count == 1 else 's have'}"


# --- filtering ---------------------------------------------------------------------------------------------


def narrowed(session: Session, table: Table, steps: Sequence[Step]) -> Table:
    """Return the table of the events that pass all steps, in their order."""
    parts, last = [], table.events.name
    codes = partial(numbers, session, table)
    for number, step in enumerate(steps, 1):
        rows = f"SELECT * FROM {last} WHERE {step.where(last, codes)}"
        if step.cuts:
            rows = f"SELECT s, {_NUMBERED} FROM ({rows}) WINDOW each AS (PARTITION BY s ORDER BY v)"
        last = f"step_{number}"
        parts.append(f"{last} AS ({rows})")
    with reading("the filtered log"):
        events = session.keep(f"WITH {', '.join(parts)} SELECT * FROM {last}")
    return Table(events, table.cases, table.activities, table.notes)


def numbers(session: Session, table: Table, names: Sequence[str]) -> list[int]:
    """Return the numbers of activities. Raises InvalidArgument for one that the log has not."""
    known = dict(session.rows(f"SELECT activity, a FROM {table.activities.name}"))
    for one in names:
        if one not in known:
            raise InvalidArgument(
                f"the log has no activity {one!r}{display.did_you_mean(str(one), sorted(known))}"
            )
    return [known[one] for one in names]
