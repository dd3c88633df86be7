"""OCEL 2.0 as an SQLite database: a table for each type of event and object, read by Python's own sqlite3."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from esim import display
from esim.arrowlog import AS_WRITTEN, Tables, Times
from esim.bar import Bar
from esim.errors import InvalidLog
from esim.ocel import BEGINNING, Declared, Object, Reading, Writing
from esim.storefile import quoted

_NEEDED = ("event", "object", "event_map_type", "object_map_type", "event_object")
_KINDS = {
    **dict.fromkeys(("INTEGER", "INT", "BIGINT"), "integer"),
    **dict.fromkeys(("REAL", "DOUBLE", "FLOAT", "NUMERIC"), "float"),
    **dict.fromkeys(("TIMESTAMP", "DATETIME"), "time"),
    "BOOLEAN": "boolean",
}
_SQL = {"string": "TEXT", "integer": "INTEGER", "float": "REAL", "time": "TIMESTAMP", "boolean": "BOOLEAN"}
_OWN = ("ocel_id", "ocel_time", "ocel_changed_field", "ocel_type")
_BATCH = 10_000
_LARGEST = 2**63
_WHOLE = re.compile(r"[+-]?[0-9]{1,4000}")


def read(path: Path, how: Times = AS_WRITTEN) -> Tables:
    """Return an OCEL 2.0 log as Tables, events in the order of the table `event`.

    Times without a zone are of `how.timezone`. Raises InvalidLog for what is no SQLite database, or lacks a
    table or column of OCEL 2.0.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as con:
            con.execute("PRAGMA trusted_schema = OFF")
            return _Reading(con, path.name, how).tables()
    except sqlite3.Error as error:
        raise InvalidLog(f"{path.name}: this cannot be read as an OCEL 2.0 database: {error}") from error


class _Reading:
    def __init__(self, con: sqlite3.Connection, label: str, how: Times) -> None:
        self._con, self._label = con, label
        self._reading = Reading(label, how)
        names = {
            row[0] for row in con.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        }
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise InvalidLog(
                f"{label}: an OCEL 2.0 database has the tables {', '.join(_NEEDED)}; "
                f"{', '.join(missing)} is missing"
            )
        self._names = names

    def tables(self) -> Tables:
        self._objects()
        order = self._events()
        for row in self._con.execute(
            "SELECT ocel_event_id, ocel_object_id, ocel_qualifier FROM event_object"
        ):
            self._reading.link(*(_text(value) or "" for value in row))
        if "object_object" in self._names:
            query = "SELECT ocel_source_id, ocel_target_id, ocel_qualifier FROM object_object"
            for row in self._con.execute(query):
                self._reading.relation(*(_text(value) or "" for value in row))
        return self._reading.tables(order)

    def _events(self) -> list[int]:
        """Take the events type by type, and return the place of each in the table `event`."""
        order: list[int] = []
        total = self._count("event")
        with Bar(0, total, f"reading {self._label}") as bar:
            for type_, table in self._types("event"):
                columns = self._columns(table)
                self._need(table, columns, "ocel_id", "ocel_time")
                kinds = self._reading.event_types[type_] = _attributes(columns)
                query = f"""SELECT e.rowid, e.ocel_id, t.ocel_time{_listed("t", kinds)}
                            FROM event AS e JOIN {quoted(table)} AS t ON t.ocel_id = e.ocel_id
                            WHERE e.ocel_type = ?"""
                for place, id_, time, *values in self._con.execute(query, [type_]):
                    if time is None:
                        raise InvalidLog(f"{self._label}: event {id_!r} in table {table!r} has no ocel_time")
                    self._reading.event(_text(id_) or "", type_, _text(time) or "", _cells(kinds, values))
                    order.append(place)
                    bar.at(len(order))
        if len(order) != total:
            raise InvalidLog(
                f"{self._label}: table 'event' has {total:,} rows, and {len(order):,} of them are in the "
                "tables of their types: each event must be in exactly one"
            )
        return order

    def _objects(self) -> None:
        for id_, type_ in self._con.execute("SELECT ocel_id, ocel_type FROM object ORDER BY rowid"):
            self._reading.object(_text(id_) or "", _text(type_) or "")
        for type_, table in self._types("object"):
            columns = self._columns(table)
            self._need(table, columns, "ocel_id")
            kinds = self._reading.object_types[type_] = _attributes(columns)
            said = [
                name if name in columns else f"NULL AS {name}" for name in ("ocel_time", "ocel_changed_field")
            ]
            query = f"SELECT ocel_id, {', '.join(said)}{_listed('t', kinds)} FROM {quoted(table)} AS t"
            for id_, time, changed, *values in self._con.execute(query):
                for (name, kind), value in _cells(kinds, values).items():
                    if changed is None or name == changed:
                        self._reading.attribute(_text(id_) or "", name, value, kind, _text(time))

    def _types(self, what: str) -> list[tuple[str, str]]:
        """Return the types of events or objects, and the table of each."""
        mapped = self._con.execute(f"SELECT ocel_type, ocel_type_map FROM {what}_map_type").fetchall()
        for type_, name in mapped:
            if f"{what}_{name}" not in self._names:
                raise InvalidLog(
                    f"{self._label}: {what} type {type_!r} is said to be in table '{what}_{name}', "
                    "which is missing"
                )
        return [(type_, f"{what}_{name}") for type_, name in mapped]

    def _columns(self, table: str) -> dict[str, str]:
        return {
            row[1]: str(row[2]).upper() for row in self._con.execute(f"PRAGMA table_info({quoted(table)})")
        }

    def _need(self, table: str, columns: Iterable[str], *names: str) -> None:
        for name in names:
            if name not in columns:
                raise InvalidLog(f"{self._label}: table {table!r} has no column {name!r}")

    def _count(self, table: str) -> int:
        return int(self._con.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0])


def _attributes(columns: dict[str, str]) -> dict[str, str]:
    """Return the attributes among the columns of a table, and OCEL's word for the kind of each."""
    return {
        name: _KINDS.get(sql, "string")
        for name, sql in columns.items()
        if name not in _OWN and name != "ocel:activity"  # which some writers add: it is the type once more
    }


def _listed(table: str, names: Iterable[str]) -> str:
    return "".join(f", {table}.{quoted(name)}" for name in names)


def _cells(kinds: dict[str, str], values: Iterable[Any]) -> dict[tuple[str, str], str]:
    cells: dict[tuple[str, str], str] = {}
    for (name, kind), value in zip(kinds.items(), values, strict=True):
        text = _text(value)
        if text is not None:
            if kind == "boolean":
                text = {"1": "true", "0": "false"}.get(text, text)
            cells[name, kind] = text
    return cells


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return repr(value).replace("inf", "INF") if isinstance(value, float) else str(value)


def write(tables: Tables, path: Path) -> None:
    """Write a log as an OCEL 2.0 SQLite database at `path`, which is a new file.

    Raises InvalidLog where attributes of one type differ only in case, which SQLite does not tell apart, and
    for a whole number that it would change.
    """
    log = Writing(tables)
    with closing(sqlite3.connect(path, isolation_level=None)) as con:
        con.execute("PRAGMA synchronous = OFF")  # the file takes its place once it is whole
        con.execute("PRAGMA journal_mode = OFF")
        con.executescript(_SCHEMA)
        con.execute("BEGIN")
        objects = _create(con, "object", log.object_types())
        events = _create(con, "event", log.event_types())
        relations: list[tuple[str, str, str]] = []
        _fill(con, _object_rows(log.objects(), objects, relations))
        _fill(con, (("object_object", (*each,)) for each in dict.fromkeys(relations)))
        _fill(con, _event_rows(log, events))
        con.execute("COMMIT")


_SCHEMA = """
CREATE TABLE event_map_type(ocel_type TEXT PRIMARY KEY, ocel_type_map TEXT);
CREATE TABLE object_map_type(ocel_type TEXT PRIMARY KEY, ocel_type_map TEXT);
CREATE TABLE event(ocel_id TEXT PRIMARY KEY, ocel_type TEXT,
  FOREIGN KEY(ocel_type) REFERENCES event_map_type(ocel_type));
CREATE TABLE object(ocel_id TEXT PRIMARY KEY, ocel_type TEXT,
  FOREIGN KEY(ocel_type) REFERENCES object_map_type(ocel_type));
CREATE TABLE event_object(ocel_event_id TEXT, ocel_object_id TEXT, ocel_qualifier TEXT,
  PRIMARY KEY(ocel_event_id, ocel_object_id, ocel_qualifier),
  FOREIGN KEY(ocel_event_id) REFERENCES event(ocel_id),
  FOREIGN KEY(ocel_object_id) REFERENCES object(ocel_id));
CREATE TABLE object_object(ocel_source_id TEXT, ocel_target_id TEXT, ocel_qualifier TEXT,
  PRIMARY KEY(ocel_source_id, ocel_target_id, ocel_qualifier),
  FOREIGN KEY(ocel_source_id) REFERENCES object(ocel_id),
  FOREIGN KEY(ocel_target_id) REFERENCES object(ocel_id));
"""


class _Typed:
    """The table of a type, and the columns of its attributes."""

    def __init__(self, table: str, columns: dict[str, str]) -> None:
        self.table, self.columns = table, columns


def _create(con: sqlite3.Connection, what: str, types: Declared) -> dict[str, _Typed]:
    """Make the tables of all types of events or objects."""
    made: dict[str, _Typed] = {}
    taken = {"map_type", "object"}
    for type_, attributes in types.items():
        name = _free(re.sub(r"[^0-9A-Za-z_]", "", type_) or "type", taken)
        _distinct(type_, attributes)
        changed = ", ocel_changed_field TEXT" if what == "object" else ""
        columns = "".join(f", {quoted(each)} {_SQL.get(kind, 'TEXT')}" for each, kind in attributes.items())
        key = f", FOREIGN KEY(ocel_id) REFERENCES {what}(ocel_id)"
        table = f"{what}_{name}"
        con.execute(f"CREATE TABLE {quoted(table)}(ocel_id TEXT, ocel_time TIMESTAMP{changed}{columns}{key})")
        con.execute(f"INSERT INTO {what}_map_type VALUES (?, ?)", [type_, name])
        made[type_] = _Typed(table, attributes)
    return made


def _free(name: str, taken: set[str]) -> str:
    """Return a table's name that is not taken yet, and take it."""
    found, number = name, 1
    while found.casefold() in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found.casefold())
    return found


def _distinct(type_: str, attributes: Iterable[str]) -> None:
    taken: set[str] = set(_OWN)
    for name in attributes:
        if name.casefold() in taken or not name or "\0" in name:
            raise InvalidLog(
                f"type {type_!r} has an attribute {name!r}, for which SQLite has no column of its own: "
                "rename it, or write JSON"
            )
        taken.add(name.casefold())


def _object_rows(
    objects: Iterator[Object], types: dict[str, _Typed], relations: list[tuple[str, str, str]]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Give the rows of objects: one of how they began, and one for each change of an attribute."""
    for one in objects:
        typed = types[one.type]
        yield "object", (one.id, one.type)
        first: dict[str, Any] = {}
        changes = []
        for name, value, _, time in one.attributes:
            stored = _value(value, typed.columns[name])
            if time == BEGINNING and name not in first:
                first[name] = stored
            else:
                changes.append((time, name, stored))
        yield typed.table, (one.id, _moment(BEGINNING), None, *(first.get(each) for each in typed.columns))
        for time, name, stored in changes:
            cells = (stored if each == name else None for each in typed.columns)
            yield typed.table, (one.id, _moment(time), name, *cells)
        relations.extend((one.id, target, qualifier) for target, qualifier in one.relations)


def _event_rows(log: Writing, types: dict[str, _Typed]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for event in log.happenings():
        typed = types[event.type]
        values = {name: _value(value, typed.columns[name]) for name, value, _ in event.attributes}
        yield "event", (event.id, event.type)
        yield typed.table, (event.id, _moment(event.time), *(values.get(each) for each in typed.columns))
        for object_id, qualifier in event.links:
            yield "event_object", (event.id, object_id, qualifier)


def _fill(con: sqlite3.Connection, found: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
    """Insert rows into their tables, many at a time."""
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    for number, (table, row) in enumerate(found, 1):
        waiting.setdefault(table, []).append(row)
        if number % _BATCH == 0:
            _insert(con, waiting)
    _insert(con, waiting)


def _insert(con: sqlite3.Connection, waiting: dict[str, list[tuple[Any, ...]]]) -> None:
    for table, given in waiting.items():
        con.executemany(f"INSERT INTO {quoted(table)} VALUES ({', '.join('?' * len(given[0]))})", given)
    waiting.clear()


def _moment(text: str) -> str:
    return text.replace("T", " ")


def _value(text: str, kind: str) -> Any:
    """Return a value as SQLite stores its kind, or as text where it has no such value."""
    if kind == "boolean":
        return {"true": 1, "false": 0}.get(text, text)
    if kind == "integer" and _WHOLE.fullmatch(text):
        number = int(text)
        if str(number) != text or not -_LARGEST <= number < _LARGEST:
            raise InvalidLog(
                f"{display.short(text)} is declared to be a whole number, and SQLite would change it: "
                "declare a text, or write JSON or XML"
            )
        return number
    if kind == "float":
        fraction = _fraction(text)
        return text if fraction is None or fraction != fraction else fraction  # noqa: PLR0124 - NaN would be NULL
    return text


def _fraction(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
