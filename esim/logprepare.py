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
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from esim import display
from esim.errors import InvalidArgument, InvalidLog
from esim.logarray import numbered
from esim.logcoded import Coded, coded, with_numbers
from esim.logsession import Kept, Session, reading
from esim.logsource import ROW, Source, picked
from esim.logvalue import zoned
from esim.logwhen import (
    Reading,
    clock_changes,
    counted,
    finer_of,
    finite,
    is_text,
    ordered,
    tie_of,
    time_of,
    unit_of,
)
from esim.mapping import ColumnRoles
from esim.storefile import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERED = """(row_number() OVER each)::INT AS v, a, lag(a) OVER each AS p,
 lead(a) OVER each IS NULL AS z, t, epoch_us(t) - epoch_us(lag(t) OVER each) AS w, r"""
_STREAMED = """
SELECT s, (n - last_value(if(ps = s, NULL, n) IGNORE NULLS) OVER (ROWS UNBOUNDED PRECEDING) + 1)::INT AS v,
 a, if(ps = s, pa, NULL) AS p, ns <> s AS z, t, if(ps = s AND {sound}, epoch_us(t) - epoch_us(pt), NULL) AS w,
 r
FROM (SELECT s, a, t, o, r, row_number() OVER () AS n, lag(s, 1, 0) OVER () AS ps, lag(a) OVER () AS pa,
       lag(t) OVER () AS pt, lag(o) OVER () AS po, lead(s, 1, 0) OVER () AS ns
      FROM (SELECT * FROM ({rows}) ORDER BY s, {order}, a))"""
_ORDERS = {"time": ("t, o, r", "t >= pt"), "order": ("o, r, t", "(o < po) IS NOT TRUE")}
_CHECKED = """SELECT count(*) - count(p), count_if(z), count(p) - count(w), count_if(w = 0), count_if(w < 0)
FROM {events}"""
_WORST = 5  # rows that a message quotes
_INT = 2**31
_AT_ONCE = 2_000_000  # rows, for which arrays take 200 MB for a moment
_SPREAD = 4  # times as many numbers as rows
_HASHED = 12  # DuckDB's own bound of bits
_MOST_DIRECT = 18

Codes = Callable[[Sequence[str]], list[int]]
"""Gives the numbers of activities by name; raises InvalidArgument for one that the log has not."""


class Seen(NamedTuple):
    """What a first look at the rows tells: notes, how many they are, if each is an event, the highest `#row`.

    `loose` says that rows without a case are events all the same: events of objects. `finer` says that
    there are times between two microseconds, `unread` that some cannot be read.
    """

    notes: tuple[str, ...]
    rows: int
    complete: bool
    loose: bool
    highest: int
    finer: bool
    unread: bool


@dataclass(frozen=True)
class Step:
    """One filter: what it says, its predicate over the rows of a relation, and whether it cuts into cases.

    `until` is the SQL of the time from which on it leaves nothing, where it is one of times.
    """

    label: str
    where: Callable[[str, Codes], str]
    cuts: bool = False
    until: str | None = None


@dataclass(frozen=True)
class Table:
    """The prepared events, with the names of cases and activities, and what there is to say of them.

    `happened` has each event once, those without a case too; None where `e` has no others. `forward` says
    that time never runs back in a case; `counted` that the texts of the order column are whole numbers.
    `finer` is the SQL of the nanoseconds beside a row's microseconds, None where no time has any.
    """

    events: Kept
    cases: Kept
    activities: Kept
    notes: tuple[str, ...]
    happened: Kept | None
    forward: bool
    counted: bool
    finer: str | None


# --- preparing ---------------------------------------------------------------------------------------------


def prepare(session: Session, source: Source, roles: ColumnRoles, how: Reading) -> Table:
    """Return the table of a source. Raises InvalidLog if times cannot be read and `how.bad` says so."""
    with reading(source.name):
        session.use(object(), lambda: {**source.views(), "flat": _flat(source, roles)})
        finer = finer_of(session, roles, how)
        seen = _looked_at(session, roles, how, finer, objects=source.objects is not None)
        by_number, of_texts = counted(session, roles)
        order = ordered(roles, counted=by_number)
        finer = finer if seen.finer else None
        key = tie_of(finer if how.sort == "time" else None, order)
        time = time_of(session, roles, how)
        base = _base(roles, finite(time) if seen.unread else time, key)
        few = 0 < seen.rows <= _AT_ONCE and seen.highest <= _SPREAD * seen.rows
        at_once = few and roles.case_object is None and not session.bounded
        texts = _texts(source, roles, seen) if at_once else None
        cases, activities = _names(session, base, seen, texts)
        happened = _happened(session, base, activities) if seen.loose else None
        timed = "" if seen.complete else "WHERE t IS NOT NULL"
        row = "r::INT AS r" if seen.highest < _INT else "r"
        rows = (
            f"SELECT s, a, t, o, {row} FROM ({base}) "
            f'JOIN {cases.name} ON "case" = c JOIN {activities.name} ON activity = n {timed}'
        )
        count = session.rows(f"SELECT count(*) FROM {cases.name}")[0][0]
        session.run(f"SET perfect_ht_threshold = {_direct(count)}")
        if at_once:
            table = session.arrow(rows if texts is None else f"SELECT t, o, {row} FROM ({base})")
            table = table if texts is None else with_numbers(table, *texts)
            events, tied, back = _at_once(session, table, count, how)
        else:
            events, tied, back = _numbered(session, rows, count, how)
        same = _same(session, events, finer) if finer and tied else tied
        ties = [*_shared(session, events, roles), *_ties(roles, how, tied, same, back)]
        asked = order and (same or how.sort == "order")
        unbroken = _unbroken(session, events, roles, how, str(key)) if asked else []
    notes = (*source.notes, *seen.notes, *of_texts, *ties, *unbroken)
    return Table(events, cases, activities, notes, happened, forward=not back, counted=by_number, finer=finer)


def _at_once(session: Session, rows: pa.Table, count: int, how: Reading) -> tuple[Kept, int, int]:
    """Return what `_numbered` does; in arrays, where each case's rows are in its order."""
    found = numbered(rows, how.sort)
    if found is not None:
        return session.hold(found.events), found.tied, found.back
    with session.lent(rows) as name:
        return _numbered(session, f"SELECT * FROM {name}", count, how)


def _numbered(session: Session, rows: str, count: int, how: Reading) -> tuple[Kept, int, int]:
    """Return the events with their places in so many cases, how many tie with the one before, or go back.

    Sorting all rows once and looking at neighbours costs half of a window over each case. A sort of keys
    alone is cheaper than one that carries other columns, so every column is a key, though `r` has decided
    before the last ones. It leans on DuckDB keeping an ORDER BY in what it streams through OVER (), so the
    result is checked: where some case were torn apart, or an event came before an earlier one, which leaves
    `w` empty, the window, which leans on nothing, does it again.
    """
    order, sound = _ORDERS[how.sort]
    events = session.keep(_STREAMED.format(rows=rows, order=order, sound=sound))
    begun, ended, early, tied, back = session.rows(_CHECKED.format(events=events.name))[0]
    if (begun, ended, early) != (count, count, 0):
        window = f"WINDOW each AS (PARTITION BY s ORDER BY {order})"
        events = session.keep(f"SELECT s, {_NUMBERED} FROM ({rows}) {window}")
        tied, back = session.rows(_CHECKED.format(events=events.name))[0][3:]
    return events, tied, back


def _direct(cases: int) -> int:
    """Return of how many bits a number may be to group by it without hashing: the cases', unless too many.

    Each thread keeps a row of results for each number, and none goes to disk.
    """
    bits = (cases + 2).bit_length()
    return bits if _HASHED <= bits <= _MOST_DIRECT else _HASHED


def _base(roles: ColumnRoles, time: str, order: str | None) -> str:
    return (
        f"SELECT {_case(roles)} AS c, {quoted(roles['activity'])}::VARCHAR AS n, "
        f"{time} AS t, "
        f"{order or 'NULL::INT'} AS o, {ROW} AS r FROM flat"
    )


def _flat(source: Source, roles: ColumnRoles) -> str:
    """Return the SELECT of the rows with their case; where that is an object, a row for each one."""
    case = _case(roles)
    if roles.case_object is None:
        return f"SELECT *, {quoted(roles['case'])}::VARCHAR AS {case} FROM source"
    links = f"SELECT DISTINCT {ROW}, object_id AS {case} FROM ({source.objects}) WHERE object_type = "
    return (
        f"SELECT source.*, {case} FROM source LEFT JOIN ({links}{literal(roles.case_object)}) USING ({ROW})"
    )


def _case(roles: ColumnRoles) -> str:
    """Return the name of the case in `flat`, which no column of the source has."""
    name, taken = "#case", {one.casefold() for one in roles.types}
    while name in taken:
        name += "#"
    return quoted(name)


def _texts(source: Source, roles: ColumnRoles, seen: Seen) -> tuple[Coded, Coded] | None:
    """Return cases and activities as a Parquet file has them, whose rows are all events; else None."""
    names = roles["case"], roles["activity"]
    if len(source.files) != 1 or not seen.complete or any(roles.types[name] != "VARCHAR" for name in names):
        return None
    found = coded(next(iter(source.files)), names, seen.rows)
    return None if found is None else (found[0], found[1])


def _happened(session: Session, base: str, activities: Kept) -> Kept:
    """Return every event once, in whatever cases it is, and in none."""
    joined = f"({base}) JOIN {activities.name} ON activity = n"
    return session.keep(f"SELECT DISTINCT r, a, t FROM {joined} WHERE t IS NOT NULL")


def _names(session: Session, base: str, seen: Seen, texts: tuple[Coded, Coded] | None) -> tuple[Kept, Kept]:
    """Return the tables of cases and activities, which are numbered in the order of their names."""
    if texts is not None:
        return session.hold(texts[0].listed("s", "case")), session.hold(texts[1].listed("a", "activity"))
    is_event = "n IS NOT NULL AND t IS NOT NULL"
    within = "" if seen.complete else f"WHERE c IS NOT NULL AND {is_event}"
    where = f"WHERE {is_event}" if seen.loose else within
    cases = _named(session, base, 'c AS "case"', "s", within)
    return cases, _named(session, base, "n AS activity", "a", where)


def _named(session: Session, base: str, column: str, code: str, where: str) -> Kept:
    """Return a table of the different values of a column of the base, numbered in their order."""
    value = column.partition(" ")[0]
    found = f"SELECT DISTINCT {value} FROM ({base}) {where} ORDER BY {value}"  # cheaper than in the window
    return session.keep(f"SELECT row_number() OVER ()::INT AS {code}, {column} FROM ({found})")


def _looked_at(
    session: Session, roles: ColumnRoles, how: Reading, finer: str | None, *, objects: bool
) -> Seen:
    """Return what is to be said of rows that are no events and of times; raises InvalidLog for bad ones."""
    if how.sort == "order" and roles.get("order") is None:
        raise InvalidArgument("sort='order' needs an order column: EventLog(…, order='version')")
    column, time = quoted(roles["time"]), time_of(session, roles, how)
    with_zone = f"count(*) FILTER ({zoned(column)} AND {time} IS NOT NULL)" if is_text(roles, how) else "0"
    parts = [f"count({_case(roles)})", *(f"count({quoted(roles[role])})" for role in ("activity", "time"))]
    finite_ = (
        f"count({column})" if _is_finite(session, roles, time) else f"count(*) FILTER (isfinite({time}))"
    )
    parts += [finite_, with_zone, f"max({ROW})"]
    parts.append("0" if finer is None else f"count(*) FILTER ({finer} <> 0)")
    found = session.rows(f"SELECT count(*), {', '.join(parts)} FROM flat")[0]
    rows, cases, activities, times, read, named, highest, precise = found
    notes = []
    if read < times:
        notes.append(
            _unreadable(
                session, roles, how, f"{column} IS NOT NULL AND isfinite({time}) IS NOT TRUE", times - read
            )
        )
    for role, count in (("case", cases), ("activity", activities), ("time", times)):
        if rows and not count:
            raise InvalidLog(
                f"no row has a {role}: the column {roles[role]!r} is empty; name another, "
                f"EventLog(…, {role}='…')"
            )
        if count < rows:
            other = f", guessed; {role}='…' names another" if roles.how(role) == "guessed" else ""
            but = " but where objects are asked about" if role == "case" and objects else ""
            told = f"{rows - count:,} of {rows:,} rows have no {role} ({roles[role]}{other})"
            notes.append(f"{told} and are left out{but}")
    if 0 < named < read:
        notes.append(
            f"{named:,} of {read:,} times name their zone; "
            f"the others are taken as {how.timezone} (timezone='…')"
        )
    notes += _lifecycle(session, roles)
    notes += unit_of(session, roles, how)
    notes += clock_changes(session, roles, how)
    complete, loose = rows == min(cases, activities, read), objects and cases < rows
    return Seen(tuple(notes), rows, complete, loose, highest or 0, finer=precise > 0, unread=read < times)


def _is_finite(session: Session, roles: ColumnRoles, time: str) -> bool:
    """Say whether all times of a column are known to be finite, which a file's statistics tell at once."""
    column = quoted(roles["time"])
    if roles.types[roles["time"]] != "TIMESTAMP" or time != f"{column}::TIMESTAMP":
        return False  # some may be none at all
    ends = f"isfinite(min({column})) AND isfinite(max({column}))"
    return session.rows(f"SELECT {ends} FROM flat")[0][0] is True


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
    is_time = roles.types[roles["time"]].startswith(("TIMESTAMP", "DATE"))  # and so infinite, or too far off
    value = f"{quoted(roles['time'])}{'::VARCHAR' if is_time else ''}"
    texts = f"SELECT row_number() OVER (), {value}, {where} FROM source"
    worst = session.rows(f"SELECT n, text FROM ({texts}) AS told(n, text, wrong) WHERE wrong LIMIT {_WORST}")
    rows = ", ".join(f"row {row:,}: {display.short(text, 40)}" for row, text in worst)
    told = f"{count:,} value{'' if count == 1 else 's'} of {roles['time']} cannot be read as a time ({rows}"
    told += ", …)" if count > _WORST else ")"
    if how.bad == "raise":
        way = "mend them" if is_time else "say how they are written (time_format='%d/%m/%Y %H:%M')"
        raise InvalidLog(f"{told}; {way}, or leave those rows out (bad='drop')")
    return f"{told}; those rows are left out"


def _shared(session: Session, events: Kept, roles: ColumnRoles) -> list[str]:
    """Say how many events are in several cases, which are objects."""
    if roles.case_object is None:
        return []
    query = f"SELECT count(*) FROM (SELECT r FROM {events.name} GROUP BY r HAVING count(*) > 1)"
    count = int(session.rows(query)[0][0])
    told = (
        f"{count:,} event{' is' if count == 1 else 's are'} in several cases: one event, but a step of each"
    )
    return [told] if count else []


def _same(session: Session, events: Kept, finer: str) -> int:
    """Return how many of the events that tie to the microsecond tie to the nanosecond as well."""
    at_once = f"(s, t) IN (SELECT (s, t) FROM {events.name} WHERE w = 0)"
    rows = f"SELECT s, t, x_n FROM {events.name} JOIN {picked(n=finer)} ON x_row = r WHERE {at_once}"
    return int(session.rows(f"SELECT count(*) - count(DISTINCT (s, t, x_n)) FROM ({rows})")[0][0])


def _ties(roles: ColumnRoles, how: Reading, tied: int, same: int, back: int) -> list[str]:
    """Say how many events have one time, to the microsecond (`tied`) and to the nanosecond (`same`)."""
    order, notes = roles.get("order"), []
    if tied and tied > same and how.sort == "time":
        notes.append(
            f"{_events(tied - same)} the same time to the microsecond as the one before in the case; "
            "nanoseconds tell which is first"
        )
    if same and how.sort == "time":
        by = f"{order} breaks the ties" if order else "the order of rows breaks the ties (order='…')"
        notes.append(f"{_events(same)} the same time as the one before in the case; {by}")
    if back:
        notes.append(f"{_events(back)} a time before the one of the event before: {order} says the order")
    return notes


def _unbroken(session: Session, events: Kept, roles: ColumnRoles, how: Reading, order: str) -> list[str]:
    """Say how many events tie with another one in all that orders a case."""
    key = "s, o" if how.sort == "order" else "s, t, o"
    tied = "" if how.sort == "order" else f"WHERE (s, t) IN (SELECT (s, t) FROM {events.name} WHERE w = 0)"
    rows = f"SELECT s, t, x_o AS o FROM {events.name} JOIN {picked(o=order)} ON x_row = r {tied}"
    groups = f"SELECT count(*) AS n FROM ({rows}) GROUP BY {key} HAVING count(*) > 1"
    count = int(session.rows(f"SELECT coalesce(sum(n), 0) FROM ({groups})")[0][0])
    same = f"the same {roles.get('order')} as another such event"
    return [f"{_events(count)} {same}; there the order of rows decides"] if count else []


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
        happened = None
        if table.happened is not None and all(step.cuts for step in steps):  # else whole cases are kept
            tests = " AND ".join(step.where(table.happened.name, codes) for step in steps)
            happened = session.keep(f"SELECT * FROM {table.happened.name} WHERE {tests}")
    return replace(table, events=events, happened=happened)


def numbers(session: Session, table: Table, names: Sequence[str]) -> list[int]:
    """Return the numbers of activities. Raises InvalidArgument for one that the log has not."""
    known = dict(session.rows(f"SELECT activity, a FROM {table.activities.name}"))
    for one in names:
        if one not in known:
            raise InvalidArgument(
                f"the log has no activity {one!r}{display.did_you_mean(str(one), sorted(known))}"
            )
    return [known[one] for one in names]
