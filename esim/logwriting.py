"""A log as a file: what is left of it after its filters, in any of the formats that can be read.

Times are written in UTC as they were understood, case and activity as they are named. A log that was read
from a format keeps what that format says beside the events, such as attributes of objects; a filter takes
out of it the objects that only events are about which it took out.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from esim import formats
from esim.arrowlog import LINKS, Tables, ask
from esim.errors import InvalidArgument, InvalidLog
from esim.logcore import Log
from esim.logsource import ROW, picked
from esim.logtext import replacing
from esim.storefile import literal, quoted
from esim.xes import CASE

if TYPE_CHECKING:
    import pyarrow as pa

_COPIES = {
    "csv": "FORMAT csv, HEADER",
    "csv.gz": "FORMAT csv, HEADER, COMPRESSION gzip",
    "jsonl": "FORMAT json",
    "jsonl.gz": "FORMAT json, COMPRESSION gzip",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
_ROLES = ("case", "activity", "time", "order", "lifecycle", "resource", "event_id", "data")
_NOT_OURS = {"category", "occurred_at"}  # columns of a store that say what others say
_NESTED = ("STRUCT", "MAP", "UNION")


def write(log: Log, path: str | PathLike[str], format: str | None) -> Path:
    """Write a log to a file and return its path. Raises InvalidArgument if nothing tells the format."""
    file, known = Path(path), (*_COPIES, *formats.FORMATS)
    told = [one for one in known if file.name.casefold().endswith(f".{one}")]
    kind = format or max(told, key=len, default="")
    if kind not in known:
        raise InvalidArgument(
            f"{file.name!r} does not tell a format: give format=, one of {', '.join(known)}"
            if format is None
            else f"format={format!r}: give one of {', '.join(known)}"
        )
    if "jsonl" in kind and not len(log):
        raise InvalidLog(
            "the log has no events, and a file of lines would be empty: write CSV, Parquet or another format"
        )
    if kind in _COPIES:
        with replacing(file) as new:
            _copy(log, new, _COPIES[kind])
        return file
    return formats.write_tables(tables(log, by_case=not kind.startswith("ocel")), file, kind)


def _copy(log: Log, path: Path, options: str) -> None:
    with log._session.alone():
        log._use()
        flat = options.startswith("FORMAT csv")
        if flat:
            _refuse_empty(log)
        text = not options.startswith("FORMAT parquet")
        events = _events(log, by_case=True, flat=flat, text=text)
        log._session.run(f"COPY ({events}) TO {literal(str(path))} ({options})")


def _refuse_empty(log: Log) -> None:
    """Raise InvalidLog for events whose case or activity is an empty text: in CSV, a missing one."""
    query = """SELECT count(*) FROM e JOIN cases USING (s) JOIN activities USING (a)
WHERE "case" = '' OR activity = ''"""
    count = log._session.rows(query)[0][0]
    if count:
        have = "event has" if count == 1 else "events have"
        raise InvalidLog(
            f"{count:,} {have} an empty text as case or activity, which CSV does not tell from a missing "
            "one: write Parquet or JSON Lines"
        )


def tables(log: Log, *, by_case: bool) -> Tables:
    """Return a log as the Arrow tables that the writers take.

    With `by_case` an event comes once for each of the cases it is in, and its case is a column. Where that
    may be several, its id is no longer an event's own. Else it comes once, also where it is in no case.
    """
    with log._session.alone():
        log._use()
        events = _arrow(log, _events(log, by_case=by_case))
        roles = {role: log.mapping[role] for role in _ROLES if log.mapping.get(role) in log.mapping.types}
        kept = log._source.rest
        header = {"format": "esim"} if log._source.versioned else None if kept is None else kept.header
        if not by_case and log._source.kinds and (header or {}).get("format") != "ocel":
            header = {"format": "ocel", "object_types": {kind: {} for kind in log._source.kinds}}
        if by_case:
            if "case" not in roles:
                roles = {role: name for role, name in roles.items() if role != "event_id"} | {"case": CASE}
            return Tables(events, None, None, roles, None, header)
        links = _links(log, roles)
        attributes, relations = (None, None) if kept is None else (kept.attributes, kept.relations)
        if links is not None and log._before is not None:
            attributes, relations = _about(log, attributes, relations)
        return Tables(events, links, attributes, roles, relations, header)


def _events(log: Log, *, by_case: bool, flat: bool = False, text: bool = False) -> str:
    """Return the SELECT of the events that are left, in an order that breaks ties as the log does.

    Where it is to be `flat`, columns of lists and structs are JSON text; `text` says that times become texts.
    """
    mapping, objects = log.mapping, log.mapping.case_object is not None
    named = {name: _value(log, name, flat=flat) for name in mapping.types}
    named |= {mapping["activity"]: "activities.activity", mapping["time"]: _moment(log, text=text)}
    if not objects:
        named[mapping["case"]] = f"source.{quoted(mapping['case'])}::VARCHAR"
    twice = _NOT_OURS - set(mapping.columns.values()) if log._source.versioned else ()
    listed = [f"{named[name]} AS {quoted(name)}" for name in mapping.types if name not in twice]
    if by_case and objects:
        listed.insert(0, f'cases."case" AS {quoted(CASE)}')
    events, order = "e JOIN cases USING (s)" if by_case else "happened e", "e.r"
    if not (log._source.versioned or log._source.rest is not None or log._ties is None):
        order = "e.t, facts.x_ties, e.r"
    if log._ties is not None:
        facts = picked(ties=log._ties, finer=log._ready().finer or "NULL")
        events += f" JOIN {facts} AS facts ON facts.x_row = e.r"
    return (
        f"SELECT {', '.join(listed)} FROM {events} JOIN activities USING (a) "
        f"JOIN source ON source.{ROW} = e.r ORDER BY {order}"
    )


def _moment(log: Log, *, text: bool) -> str:
    """Return the SQL of the time of an event, to the nanosecond where the log has any."""
    if log._ready().finer is None:
        return "e.t AT TIME ZONE 'UTC'"
    if text:
        return "strftime(e.t, '%Y-%m-%d %H:%M:%S.%f') || lpad(facts.x_finer::VARCHAR, 3, '0') || '+00'"
    if log._session.rows("SELECT count(TRY(epoch_ns(t))) < count(*) FROM happened")[0][0]:
        raise InvalidLog(
            "the log has nanoseconds, which this format has only for the years 1678 to 2261, and times "
            "beyond those: write CSV or JSON Lines"
        )
    return "make_timestamp_ns(epoch_us(e.t) * 1000 + facts.x_finer)::TIMESTAMPTZ_NS"


def _value(log: Log, name: str, *, flat: bool) -> str:
    """Return the SQL of a column; times without a zone are understood as those of the log are."""
    column, kind, zone = f"source.{quoted(name)}", log.mapping.types[name], log._reading.timezone
    if flat and (kind.startswith(_NESTED) or kind.endswith("]")):
        return f"to_json({column})::VARCHAR"
    local = kind.startswith("TIMESTAMP") and "ZONE" not in kind and "TZ" not in kind
    exact = kind if kind.endswith("_NS") else "TIMESTAMP"
    return f"{column}::{exact} AT TIME ZONE {literal(zone)}" if local and zone != "UTC" else column


def _links(log: Log, roles: dict[str, str]) -> pa.Table | None:
    """Return which objects the events are about, or None where no column is their id."""
    if log._source.objects is None or "event_id" not in roles:
        return None
    return _arrow(
        log,
        f"""SELECT source.{quoted(roles["event_id"])}::VARCHAR AS event_id, object_type, object_id, qualifier
FROM objects JOIN source USING ({ROW}) WHERE {ROW} IN (SELECT r FROM happened) ORDER BY {ROW}""",
    ).select(list(LINKS))


def _about(log: Log, attributes: pa.Table | None, relations: pa.Table | None) -> list[pa.Table | None]:
    """Return both without the objects that only events are about which filters took out."""
    left = f"SELECT object_type, object_id FROM objects WHERE {ROW} IN (SELECT r FROM happened)"
    gone = _arrow(log, f"SELECT object_type, object_id FROM objects EXCEPT {left}")
    kept = "(source_type, source_id) NOT IN (FROM gone) AND (target_type, target_id) NOT IN (FROM gone)"
    tests = ((attributes, "(object_type, object_id) NOT IN (FROM gone)"), (relations, kept))
    return [
        None if part is None else ask(f"SELECT * FROM part WHERE {test}", part=part, gone=gone)
        for part, test in tests
    ]


def _arrow(log: Log, sql: str) -> pa.Table:
    return log._session.arrow(sql)
