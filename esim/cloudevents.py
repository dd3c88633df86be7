"""CloudEvents 1.0 as JSON, a batch in one list or one event on each line.

Columns are the attributes of the events; `data` is JSON text. On the way out, the columns of an esim store
take the official names of the extensions (`correlationid`, `causationid`, `sequence`, `recordedtime`,
`dataschema`, `partitionkey`), and of a log without payloads all other columns together become the data.

References: CloudEvents 1.0.2, its JSON format, and the documented extensions, cloudevents.io.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from esim import display
from esim.arrowlog import AS_WRITTEN, POSITION, Gather, Tables, Times, ask, database, key_of, numbered
from esim.errors import InvalidLog
from esim.jsonstream import JsonFile, compact, dumped, is_number, text_of
from esim.logtext import as_text, iso, kind_of, rows
from esim.storefile import quoted

if TYPE_CHECKING:
    import pyarrow as pa

_REQUIRED = ("id", "source", "specversion", "type")
_TEXTS = {*_REQUIRED, "subject", "time", "dataschema", "datacontenttype", "data_base64", "recordedtime"}
_TIMES = ("time", "recordedtime")
_ALWAYS = (
    ("id", "string"),
    ("source", "string"),
    ("type", "string"),
    ("subject", "string"),
    ("time", "date"),
)
_ROLES = {
    "event_id": "id",
    "activity": "type",
    "case": "subject",
    "time": "time",
    "order": "position",
    "data": "data",
}
_NAME = re.compile("[a-z0-9]+")
_TRUSTED = {"esim", "cloudevents"}  # whose data is JSON on one line
_LARGEST = 2**31  # whole numbers of attributes are smaller
_URI = "/:?#[]@!$&'()*+,;=~-._"
_string = json.JSONEncoder(ensure_ascii=False).encode


def read(path: Path, how: Times = AS_WRITTEN) -> Tables:
    """Return a batch of CloudEvents, or one on each line, as Tables.

    Times without a zone are of `how.timezone`. Raises InvalidLog, with the line, for what is no CloudEvent,
    as one without id, source or type.
    """
    gather = Gather(path.name, _TIMES, how)
    with JsonFile(path) as file:
        batch = file.opening() == "["
        found = (value for _, value in file.elements()) if batch else file.lines()
        for value in found:
            gather.add(_row(value, file))
    events = numbered(gather.table(_ALWAYS))
    roles = {role: name for role, name in _ROLES.items() if name in events.column_names}
    return Tables(events, None, None, roles, None, {"format": "cloudevents"})


def _row(value: Any, file: JsonFile) -> dict[tuple[str, str], str]:
    if not isinstance(value, dict):
        file.fail(f"{display.short(value)} is no event: a CloudEvent is a JSON object")
    for name in _REQUIRED:
        text_of(value.get(name), repr(name), file.fail)
    if value["specversion"] != "1.0":
        file.fail(f"'specversion' is {display.short(value['specversion'])}: only CloudEvents 1.0 are read")
    if value.get("data") is not None and value.get("data_base64") is not None:
        file.fail("the event has both 'data' and 'data_base64': one of them is too many")
    row: dict[tuple[str, str], str] = {}
    for name, given in value.items():
        if name == "data":
            row["data", "json"] = dumped(given)
        elif given is not None:
            _attribute(row, name, given, file)
    return row


def _attribute(row: dict[tuple[str, str], str], name: str, value: Any, file: JsonFile) -> None:
    if name != "data_base64" and not _NAME.fullmatch(name):
        file.fail(f"{display.short(name)} is no name of an attribute: they are of the letters a-z and digits")
    kind = "boolean" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
    if name in _TEXTS:
        text_of(value, repr(name), file.fail)
    elif kind == "string" and not isinstance(value, str):
        file.fail(f"{name!r} is {display.short(value)}: an attribute is a text, a whole number or a boolean")
    row[name, "date" if name in _TIMES else kind] = value if isinstance(value, str) else dumped(value)


def batch(tables: Tables) -> Iterator[str]:
    """Give a log as the text of a file with one list of CloudEvents."""
    yield "["
    for number, event in enumerate(_events(tables)):
        yield f"{',' if number else ''}\n{event}"
    yield "\n]\n"


def lines(tables: Tables) -> Iterator[str]:
    """Give a log as CloudEvents, one on each line."""
    return (f"{event}\n" for event in _events(tables))


def _events(tables: Tables) -> Iterator[str]:
    """Give each event as a JSON object. Raises InvalidLog where one lacks what CloudEvents requires."""
    plan = _plan(tables)
    _check(tables.events, plan)
    told = (tables.header or {}).get("format") in _TRUSTED
    wanted = ", ".join(f"{each.sql}" for each in plan)
    sql = f"SELECT {wanted} FROM (SELECT *, row_number() OVER () AS esim_n FROM e)"
    with database(e=tables.events) as con:
        for row in rows(con, sql, "writing CloudEvents", tables.events.num_rows):
            yield _event(plan, row, compact_data=not told)


def _event(plan: Sequence[_Member], row: Sequence[Any], *, compact_data: bool) -> str:
    members, inner = ['"specversion":"1.0"'], []
    for member, value in zip(plan, row, strict=True):
        if value is None or (value == "" and member.name in _TEXTS and not member.inside):
            continue
        if member.kind == "json":
            members.append(f'"data":{compact(value) if compact_data else value}')
        elif member.inside:
            inner.append(f"{_string(member.name)}:{_bare(value, member.kind)}")
        else:
            members.append(f'"{member.name}":{_bare(value, member.kind)}')
    if inner:
        members.append(f'"data":{{{",".join(inner)}}}')
    return "{" + ",".join(members) + "}"


def _bare(text: str, kind: str) -> str:
    """Return a value as JSON: numbers and booleans as such where CloudEvents has them, else a string."""
    if kind == "source":
        return _string(quote(text, safe=_URI))
    if kind == "int" and abs(int(text)) < _LARGEST:
        return text
    if kind == "float" and is_number(text):
        return text
    return text if kind == "boolean" else _string(text)


class _Member(NamedTuple):
    """One member of the events on their way out; `inside` their data."""

    name: str
    sql: str
    kind: str
    inside: bool = False


def _plan(tables: Tables) -> list[_Member]:
    """Return what is written of each event, and by which SQL."""
    fields = {each.name: each for each in tables.events.schema}
    said = {role: name for role, name in tables.roles.items() if name in fields}
    format_ = (tables.header or {}).get("format")
    plan = [_Member("id", _sql(fields, said.get("event_id"), "'e' || esim_n"), "string")]
    plan.append(_source(fields, said, format_))
    for name, role in (("type", "activity"), ("subject", "case"), ("time", "time")):
        plan.append(_Member(name, _sql(fields, said.get(role), "NULL"), "string"))
    used = {said.get(role) for role in ("event_id", "activity", "case", "time", "data")}
    used |= {POSITION if said.get("order") == POSITION else None}
    if format_ == "esim":
        plan += _of_store()
        used |= {"stream", "schema_version", "recorded_at", "correlation_id", "causation_id"}
    elif format_ == "cloudevents":
        used |= {"source", "specversion"}
    inside = "data" not in said and format_ != "cloudevents"
    taken = {each.name for each in plan} | {"data", "specversion"}
    for field in fields.values():
        if field.name not in used:
            name = key_of(field) if inside else _free(key_of(field), taken)
            kind = kind_of(field) if inside or kind_of(field) != "float" else "string"
            plan.append(_Member(name, as_text(field.name, field), kind, inside))
    if "data" in said:
        plan.append(_Member("data", _sql(fields, said["data"], "NULL"), "json"))
    return plan


def _sql(fields: dict[str, pa.Field], name: str | None, default: str) -> str:
    return default if name is None else as_text(name, fields[name])


def _source(fields: dict[str, pa.Field], said: dict[str, str], format_: str | None) -> _Member:
    if format_ == "cloudevents" and "source" in fields:
        return _Member("source", quoted("source"), "string")
    if format_ == "esim":
        return _Member("source", f"'/' || split_part({quoted(said['case'])}, '/', 1)", "source")
    return _Member("source", "'/log'", "string")


def _of_store() -> list[_Member]:
    """Return the official extensions of an esim store's events."""
    return [
        _Member("correlationid", "correlation_id", "string"),
        _Member("causationid", "causation_id", "string"),
        _Member("sequence", "lpad(position::VARCHAR, 19, '0')", "string"),
        _Member("recordedtime", iso("recorded_at"), "string"),
        _Member("dataschema", "'urn:esim:' || type || ':' || schema_version", "source"),
        _Member("partitionkey", "stream", "string"),
    ]


def _free(key: str, taken: set[str]) -> str:
    """Return a name of letters and digits for an extension, and take it."""
    name = re.sub("[^a-z0-9]", "", key.lower()) or "extension"
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}{number}"
    taken.add(found)
    return found


def _check(events: pa.Table, plan: Sequence[_Member]) -> None:
    """Refuse events without what each must have."""
    needed = [each for each in plan if each.name in _REQUIRED and not each.inside]
    counts = ", ".join(f"count(*) FILTER (coalesce({each.sql}, '') = '')" for each in needed)
    found = ask(f"SELECT {counts} FROM (SELECT *, row_number() OVER () AS esim_n FROM e)", e=events)
    for each, column in zip(needed, found.columns, strict=True):
        if column[0].as_py():
            raise InvalidLog(
                f"{column[0].as_py():,} events have no {each.name}, which CloudEvents wants of each: "
                "give it, or leave them out"
            )
