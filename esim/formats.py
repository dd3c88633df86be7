"""Event logs of other tools: XES, OCEL 2.0 and CloudEvents files, read into Tables and written from them.

The format is told by `format=`, by the name's ending, or by the first bytes. A file is written beside its
place and moved there once it is whole, so that an interrupt leaves the former file, or none.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from esim import cloudevents, display, oceljson, ocelsqlite, ocelxml, xes, xeswriter
from esim.arrowlog import AS_WRITTEN, Tables, Times, ask
from esim.contract import Store
from esim.errors import InvalidArgument, InvalidLog
from esim.logtext import replacing
from esim.reading import Selection
from esim.storefile import quoted
from esim.storelog import tables_of
from esim.xmlstream import GZIP

__all__ = ["FORMATS", "Tables", "flatten", "format_of", "read_tables", "tables_of", "write_tables"]

_READERS: dict[str, Callable[[Path, Times], Tables]] = {
    "xes": xes.read,
    "xes.gz": xes.read,
    "ocel.json": oceljson.read,
    "ocel.sqlite": ocelsqlite.read,
    "ocel.xml": ocelxml.read,
    "cloudevents.json": cloudevents.read,
    "cloudevents.jsonl": cloudevents.read,
}
_WRITERS: dict[str, Callable[[Tables], Iterator[str]]] = {
    "xes": xeswriter.written,
    "xes.gz": xeswriter.written,
    "ocel.json": oceljson.written,
    "ocel.xml": ocelxml.written,
    "cloudevents.json": cloudevents.batch,
    "cloudevents.jsonl": cloudevents.lines,
}
FORMATS = tuple(_READERS)
"""The formats by name, as `format=` takes them."""

_ENDINGS = {
    **{f".{name}": name for name in FORMATS},
    ".jsonocel": "ocel.json",
    ".xmlocel": "ocel.xml",
    ".ndjson": "cloudevents.jsonl",
    ".jsonl": "cloudevents.jsonl",
    ".sqlite": "ocel.sqlite",
    ".sqlite3": "ocel.sqlite",
}
_LOOKED_AT = 1 << 16  # bytes
_SQLITE = b"SQLite format 3\0"
_OCEL_XML = re.compile(rb"<(\w+:)?(object-types|event-types|objects|events)\b")
_OCEL_JSON = re.compile(rb'^\s*\{\s*"(objectTypes|eventTypes|objects|events)"')
_BY_LINES = re.compile(rb"^\s*\{.*\}[ \t\r]*\n\s*\{")


def read_tables(path: str | PathLike[str], format: str | None = None, how: Times = AS_WRITTEN) -> Tables:
    """Return the log in a file, in whichever of the FORMATS it is; times are UTC.

    Times that name no zone are of `how.timezone`; a column in which one cannot be read is an error, or with
    `how.bad="drop"` one of texts. Raises InvalidLog, which says where, for what is malformed, and
    InvalidArgument for an unknown format.
    """
    file = Path(path)
    return _READERS[format_of(file, format)](file, how)


def write_tables(
    tables: Tables | Store | Selection, path: str | PathLike[str], format: str | None = None
) -> Path:
    """Write a log, a store, or what `store.read(…)` selects to a file, and return its path.

    The format is told by the name's ending where it is not given. XES has one case for each event: a log of
    objects of several types goes there by `flatten`. Raises InvalidLog for what the format cannot hold.
    """
    file = Path(path)
    kind = _known(format, file) if format is not None else _by_name(file)
    if kind is None:
        raise InvalidArgument(
            f"{file.name!r} does not tell its format: give format=, one of {', '.join(FORMATS)}"
        )
    log = tables if isinstance(tables, Tables) else tables_of(tables)
    if kind.startswith("xes") and log.roles.get("case") not in log.events.column_names:
        log = flatten(log, _only_type(log))
    with replacing(file) as new:
        if kind == "ocel.sqlite":
            ocelsqlite.write(log, new)
        else:
            _put(new, _WRITERS[kind](log), zipped=kind.endswith(".gz"))
    return file


def _put(path: Path, texts: Iterator[str], *, zipped: bool) -> None:
    with path.open("wb") as raw:
        if not zipped:
            raw.writelines(text.encode() for text in texts)
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
            file.writelines(text.encode() for text in texts)


def flatten(tables: Tables, object_type: str) -> Tables:
    """Return a log of objects as a log of cases: each object of a type with the events that it is part of.

    An event that is about several objects comes once for each; one about none is left out.
    """
    links = tables.objects
    found = (
        []
        if links is None
        else ask("SELECT DISTINCT object_type FROM l ORDER BY 1", l=links).column(0).to_pylist()
    )
    if object_type not in found:
        known = ", ".join(found) or "none"
        raise InvalidArgument(f"no event is about an object of type {object_type!r}: there are {known}")
    id_ = tables.roles["event_id"]
    events = ask(
        f"""SELECT esim_object AS {quoted(xes.CASE)}, esim_e.*
            FROM (SELECT *, row_number() OVER () AS esim_n FROM e) AS esim_e
            JOIN (SELECT DISTINCT event_id AS esim_id, object_id AS esim_object FROM l
                  WHERE object_type = $kind) AS esim_k
              ON esim_k.esim_id = esim_e.{quoted(id_)}::VARCHAR
            ORDER BY esim_n, esim_object""".replace("$kind", "'" + object_type.replace("'", "''") + "'"),
        e=tables.events,
        l=links,
    ).drop_columns(["esim_n"])
    return Tables(events, None, None, {**tables.roles, "case": xes.CASE}, None, None)


def _only_type(tables: Tables) -> str:
    links = tables.objects
    found = (
        []
        if links is None
        else ask("SELECT DISTINCT object_type FROM l ORDER BY 1", l=links).column(0).to_pylist()
    )
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise InvalidLog("XES wants a case for each event: say which column it is in roles['case']")
    raise InvalidLog(
        f"XES has one kind of case, and these events are about objects of {len(found):,} types "
        f"({', '.join(map(display.short, found))}): choose one by flatten(tables, {found[0]!r})"
    )


def format_of(path: Path, format: str | None = None) -> str:
    """Return which of the FORMATS a file is in. Raises InvalidArgument if nothing tells."""
    if format is not None:
        return _known(format, path)
    if not path.is_file():
        raise InvalidArgument(f"there is no file {str(path)!r}: check the path")
    found = _by_content(path) or _by_name(path)
    if found is None:
        raise InvalidArgument(
            f"{path.name!r} does not tell its format: give format=, one of {', '.join(FORMATS)}"
        )
    return found


def _known(format: str, path: Path) -> str:
    if format not in FORMATS:
        raise InvalidArgument(f"format={format!r} for {path.name!r}: give one of {', '.join(FORMATS)}")
    return format


def _by_name(path: Path) -> str | None:
    name = path.name.casefold()
    return next((found for ending, found in _ENDINGS.items() if name.endswith(ending)), None)


def _by_content(path: Path) -> str | None:
    """Return the format that the first bytes tell."""
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT)
    if head.startswith(GZIP):
        return "xes.gz"
    if head.startswith(_SQLITE):
        return "ocel.sqlite"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<") or head.startswith((b"\xff\xfe<", b"\xfe\xff\0<")):
        return "ocel.xml" if _OCEL_XML.search(text.replace(b"\0", b"")) else "xes"
    if _OCEL_JSON.match(text):
        return "ocel.json"
    if text.startswith(b"[") or b'"specversion"' in text:
        return "cloudevents.jsonl" if text.startswith(b"{") and _BY_LINES.match(text) else "cloudevents.json"
    return None
