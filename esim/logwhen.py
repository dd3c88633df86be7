"""When events happened and what breaks ties, as SQL over columns of any type.

Texts, numbers since 1970 and times with or without a zone become times in UTC, and what is between two of
their microseconds orders events too. Texts that are whole numbers, as versions in a file, order as numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from esim import display
from esim.errors import InvalidArgument, InvalidLog
from esim.logsession import Session
from esim.logvalue import aware, naive
from esim.mapping import ColumnRoles
from esim.storefile import literal, quoted

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL", "U")
_WIDE = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "FLOAT")
_UNITS = (
    (1e17, "", "nanoseconds"),
    (1e14, "", "microseconds"),
    (1e11, "* 1000", "milliseconds"),
    (1, "* 1000000", "seconds"),  # 0 is the same in all of them
)
_ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")


class Reading(NamedTuple):
    """How times are read, what orders events, and what happens to rows that are none."""

    timezone: str = "UTC"
    time_format: str | None = None
    sort: str = "time"
    bad: str = "raise"


# --- times ------------------------------------------------------------------------------------------------


def time_of(session: Session, roles: ColumnRoles, how: Reading) -> str:
    """Return the SQL of a column's time in UTC; NULL where it is none."""
    column, kind, local = quoted(roles["time"]), roles.types[roles["time"]], _local(roles, how)
    if local is not None:
        found = _in_utc(local, how.timezone)
        return f"coalesce({found}, {aware(column)} AT TIME ZONE 'UTC')" if is_text(roles, how) else found
    if how.time_format is not None:
        return _read(f"{column}::VARCHAR", how.time_format)
    if kind in _ZONED:
        fine = kind.endswith("_NS")
        return _cut(f"epoch_ns({column})") if fine else f"({column} AT TIME ZONE 'UTC')::TIMESTAMP"
    wide = "DECIMAL(38, 6)" if kind.startswith("DECIMAL") else kind if kind in _WIDE else "BIGINT"
    factor, unit, _ = _epoch(session, column)
    if unit == "nanoseconds":
        return _cut(f"{column}::{wide}")
    return f"TRY(make_timestamp(({column}::{wide} {factor})::BIGINT))"


def finite(time: str) -> str:
    """Return the SQL of a time that is NULL where it is infinite: that is never, and no time."""
    return f"CASE WHEN isfinite({time}) THEN {time} END"


def _cut(nanoseconds: str) -> str:
    """Return the SQL of nanoseconds as a time; a cast would round them, and what is cut off counts."""
    return f"TRY(make_timestamp((({nanoseconds} - {_fraction(nanoseconds)}) // 1000)::BIGINT))"


def _fraction(nanoseconds: str) -> str:
    """Return the SQL of what a microsecond leaves of nanoseconds since 1970, 0 to 999."""
    return f"(({nanoseconds} % 1000 + 1000) % 1000)"


def _read(text: str, form: str) -> str:
    """Return the SQL of the time that a text says in its form; with a zone, in UTC."""
    time = f"try_strptime({text}, {literal(form)})"
    if _has(form, "%n"):
        return _cut(f"epoch_ns({time})")
    return f"{time} AT TIME ZONE 'UTC'" if _has(form.casefold(), "%z") else time


def _has(form: str, part: str) -> bool:
    return part in form.replace("%%", "")


def _local(roles: ColumnRoles, how: Reading) -> str | None:
    """Return the SQL of a column's times as they are written without a zone; None where there are no such."""
    name, form = roles["time"], how.time_format
    column, kind = quoted(name), roles.types[name]
    if form is not None:
        if not kind.startswith(("VARCHAR", *_WHOLE)):
            raise InvalidArgument(f"time_format={form!r} is for texts, and {name} is of type {kind}")
        with_zone = _has(form.casefold(), "%z")
        return None if with_zone else _read(f"{column}::VARCHAR", form)
    if kind in _ZONED or kind.startswith(_WHOLE):
        return None
    if kind.startswith("VARCHAR"):
        return naive(column)
    if kind.startswith(("TIMESTAMP", "DATE")):
        return _cut(f"epoch_ns({column})") if kind.endswith("_NS") else f"{column}::TIMESTAMP"
    raise InvalidLog(f"time={name!r} is of type {kind}, which is no time; name another column")


def is_text(roles: ColumnRoles, how: Reading) -> bool:
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


def unit_of(session: Session, roles: ColumnRoles, how: Reading) -> list[str]:
    """Say what the numbers are that times are written as."""
    name = roles["time"]
    if not roles.types[name].startswith(_WHOLE) or how.time_format is not None:
        return []
    _, unit, others = _epoch(session, quoted(name))
    some = f", as most are by their size (others: {others:,})" if others else ""
    return [f"the numbers in {name} are taken as {unit} since 1970{some}"]


def clock_changes(session: Session, roles: ColumnRoles, how: Reading) -> list[str]:
    """Say how many times a change of the clock leaves out, or lets come twice."""
    local, hour = _local(roles, how), "INTERVAL 1 HOUR"
    if local is None or how.timezone == "UTC":
        return []
    zone = f"AT TIME ZONE {literal(how.timezone)}"
    twice = f"(u - {hour}) {zone} = x OR (u + {hour}) {zone} = x"
    times = f"SELECT x, x {zone} AS u FROM (SELECT {local} AS x FROM source) WHERE isfinite(x)"
    missing, double = session.rows(
        f"SELECT count(*) FILTER (u {zone} <> x), count(*) FILTER ({twice}) FROM ({times})"
    )[0]
    told = (("do not exist", missing, "an hour later"), ("come twice", double, "the second of both"))
    return [
        f"times that {what} in {how.timezone} ({count:,}) are taken as {taken}"
        for what, count, taken in told
        if count
    ]


def finer_of(session: Session, roles: ColumnRoles, how: Reading) -> str | None:
    """Return the SQL of the nanoseconds of times beside their microseconds, or None where none can be."""
    column, kind, form = quoted(roles["time"]), roles.types[roles["time"]], how.time_format
    if form is not None:
        time = f"try_strptime({column}::VARCHAR, {literal(form)})"
        return _fraction(f"epoch_ns({time})") if _has(form, "%n") else None
    if kind.endswith("_NS"):
        return _fraction(f"epoch_ns({column})")
    if kind.startswith("VARCHAR"):
        return f"rpad(regexp_extract({column}, '\\.[0-9]{{6}}([0-9]{{1,3}})', 1), 3, '0')::INT"
    if kind in ("BIGINT", "UBIGINT", "HUGEINT") and _epoch(session, column)[1] == "nanoseconds":
        return _fraction(column)
    return None


# --- ties -------------------------------------------------------------------------------------------------


def ordered(roles: ColumnRoles, *, counted: bool) -> str | None:
    """Return the SQL of what breaks ties: a column, as a number where its texts are counted."""
    name = roles.get("order")
    if name is None:
        return None
    column = _text_of(roles, name)
    return f"try_cast({column} AS HUGEINT)" if counted else column


def tie_of(finer: str | None, order: str | None) -> str | None:
    """Return the SQL of what orders the events of one microsecond: nanoseconds, then the order column."""
    return f"{{'n': {finer}, 'o': {order}}}" if order and finer else order or finer


def _text_of(roles: ColumnRoles, name: str) -> str:
    """Return the SQL of a column; of one of JSON what it says as text, without quotes."""
    column = quoted(name)
    return f"({column} ->> '$')" if roles.types[name] == "JSON" else column


def counted(session: Session, roles: ColumnRoles) -> tuple[bool, list[str]]:
    """Return whether the order column has texts that are whole numbers, and what to say of other texts.

    Raises InvalidLog where only some are: neither as numbers nor as texts have they an order.
    """
    name = roles.get("order")
    if name is None or not roles.types[name].startswith(("VARCHAR", "JSON")):
        return False, []
    column = _text_of(roles, name)
    is_number = f"regexp_full_match({column}, '[0-9]{{1,38}}')"
    texts, numbers, lengths, other = session.rows(
        f"SELECT count({column}), count(*) FILTER ({is_number}), count(DISTINCT length({column})), "
        f"min({column}) FILTER (NOT {is_number}) FROM source"
    )[0]
    if lengths > 1 and 0 < numbers < texts:
        raise InvalidLog(
            f"of {texts:,} values of {name} {numbers:,} are whole numbers and others are not, as "
            f"{display.short(other, 40)}, and of texts 10 comes before 9: mend them, or name another column, "
            "EventLog(…, order='…')"
        )
    alphabetic = lengths > 1 and not numbers
    return texts == numbers, [f"{name} orders as a text, x10 before x9"] if alphabetic else []
