"""Event payloads as typed SQL tables: one table per event type, derived from the log and caught up lazily.

The JSON text in the log is the truth. The columns of a type come from its class, else from what was stored
when the class was last seen, else from the payloads themselves. `from_json_strict` reads a batch and refuses
values that do not fit; only rows that it refuses (an older shape, say) go through the class, which fills in
defaults. A changed shape rebuilds the table.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeAlias
from uuid import UUID

import duckdb
from pydantic import BaseModel, RootModel, ValidationError

from esim import display
from esim.answer import tables_in
from esim.connection import Connection
from esim.errors import InvalidArgument, InvalidEvent
from esim.storefile import DuckDB, first, literal, quoted

Columns: TypeAlias = "list[tuple[str, str]]"

HEADER = (
    ("position", "BIGINT"),
    ("stream", "VARCHAR"),
    ("id", "VARCHAR"),
    ("version", "INTEGER"),
    ("recorded_at", "TIMESTAMPTZ"),
    ("occurred_at", "TIMESTAMPTZ"),
)
"""The envelope's columns in each typed table; a payload field of the same name gets a trailing underscore."""

_WINDOW = 100_000  # positions at a time when rows need mending, so that memory stays bounded
_MISFIT = (duckdb.InvalidInputException, duckdb.ConversionException)
# A look at the keys costs 1 µs a row, TRY 20 µs for a row that fails.
_UNFIT = (
    "SELECT position, data FROM esim.events WHERE type = $type AND position > $after AND position <= $until "
    "AND CASE WHEN list_has_all(json_keys(data), $fields) "
    "THEN TRY(from_json_strict(data, $structure)) IS NULL ELSE true END"
)
_MENDED = (
    "(SELECT e.* REPLACE (coalesce(m.mended, e.data)::JSON AS data) "
    "FROM esim.events e LEFT JOIN esim_mended m ON m.at = e.position)"
)
_ID = "if(stream = category, stream, substr(stream, length(category) + 2))"


# --- from a model to columns -------------------------------------------------------------------------------

_PLAIN: dict[type, str] = {
    bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR", datetime: "TIMESTAMPTZ", date: "DATE",
    UUID: "UUID", time: "VARCHAR", timedelta: "VARCHAR",
}  # fmt: skip
_DIGITS = 38  # the most that a DECIMAL has
_SEQUENCES = (list, tuple, set, frozenset)


def columns_of(model: type[BaseModel]) -> Columns:
    """Return the payload fields of a model with the DuckDB type of each, in the order of the fields.

    >>> class Paid(BaseModel):
    ...     method: Literal["card", "bank"]
    ...     amounts: tuple[int, ...] = ()
    >>> columns_of(Paid)
    [('method', 'VARCHAR'), ('amounts', 'BIGINT[]')]
    """
    return _columns(model, ())


def _columns(model: type[BaseModel], inside: tuple[type, ...]) -> Columns:
    own = _own_serializers(model)
    return [
        (
            name,
            "JSON"
            if name in own or "*" in own
            else _type(field.annotation, field.metadata, (*inside, model)),
        )
        for name, field in model.__pydantic_fields__.items()
        if not field.exclude
    ]


def _own_serializers(model: type[BaseModel]) -> set[str]:
    found = model.__pydantic_decorators__.field_serializers.values()
    return {name for each in found for name in each.info.fields}


def _type(hint: Any, marks: Iterable[Any], inside: tuple[type, ...]) -> str:
    """Return the DuckDB type of an annotation; `marks` are its constraints, `inside` the models around it."""
    hint, marks = _bare(hint, marks)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _only({_type(arg, marks, inside) for arg in args if arg is not types.NoneType})
    if origin is Literal:
        return _of_values(args)
    if origin is not None:
        return _container(origin, args, inside)
    return _class(hint, marks, inside) if isinstance(hint, type) else "JSON"


def _class(hint: type, marks: Iterable[Any], inside: tuple[type, ...]) -> str:
    if issubclass(hint, Enum):
        return _of_values(member.value for member in hint)
    if issubclass(hint, BaseModel):
        return _struct_of(hint, inside)
    if issubclass(hint, Decimal):
        return _decimal(marks)
    return _PLAIN.get(hint, "JSON")


def _bare(hint: Any, marks: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Peel Annotated, `type` aliases and NewType off an annotation, and collect the constraints."""
    found = list(marks)
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            found += hint.__metadata__
            hint = hint.__origin__
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif hasattr(hint, "__value__"):
            hint = hint.__value__
        else:
            return hint, found


def _only(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else "JSON"


def _of_values(values: Iterable[Any]) -> str:
    return _only({_PLAIN.get(type(value), "JSON") if isinstance(value, int) else
                  "VARCHAR" if isinstance(value, str) else "JSON" for value in values})  # fmt: skip


def _container(origin: Any, args: tuple[Any, ...], inside: tuple[type, ...]) -> str:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = (_type(arg, (), inside) for arg in args)
        return f"MAP(VARCHAR, {value})" if key == "VARCHAR" else "JSON"
    if isinstance(origin, type) and (
        issubclass(origin, _SEQUENCES) or origin.__module__ == "collections.abc"
    ):
        item = _only({_type(arg, (), inside) for arg in args if arg is not Ellipsis})
        return f"{item}[]"
    return "JSON"


def _struct_of(model: type[BaseModel], inside: tuple[type, ...]) -> str:
    if model in inside or model.__pydantic_decorators__.model_serializers:
        return "JSON"
    if issubclass(model, RootModel):
        root = model.__pydantic_fields__["root"]
        return _type(root.annotation, root.metadata, (*inside, model))
    return _struct(_columns(model, inside))


def _struct(columns: Columns) -> str:
    names = {name.casefold() for name, _ in columns}
    if not columns or len(names) < len(columns):  # DuckDB knows no empty struct, and no case in names
        return "JSON"
    return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in columns)})"


def _decimal(marks: Iterable[Any]) -> str:
    said: dict[str, int] = {}
    for mark in _flat(marks):
        for key in ("max_digits", "decimal_places"):
            if getattr(mark, key, None) is not None:
                said[key] = getattr(mark, key)
    digits, places = said.get("max_digits", _DIGITS), said.get("decimal_places", 18)
    return f"DECIMAL({digits},{places})" if places <= digits <= _DIGITS else "VARCHAR"


def _flat(marks: Iterable[Any]) -> Iterator[Any]:
    for mark in marks:
        yield mark
        yield from getattr(mark, "metadata", ())


# --- the typed table of a type -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """The columns of one event type; `schema_version` 0 means that they were read off the payloads."""

    type: str
    schema_version: int
    columns: Columns

    @property
    def table(self) -> str:
        return f"typed.{quoted(self.type)}"

    @property
    def structured(self) -> dict[str, str]:
        """The fields that `from_json` can take; one that differs from another in case alone cannot."""
        seen: dict[str, str] = {}
        for name, kind in self.columns:
            if name.casefold() not in {other.casefold() for other in seen}:
                seen[name] = kind
        return seen

    def create(self) -> str:
        named = zip(
            _column_names(self.columns), (self._kind(name, kind) for name, kind in self.columns), strict=True
        )
        listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in (*HEADER, *named))
        return f"CREATE OR REPLACE TABLE {self.table} ({listed})"

    def insert(self, source: str = "esim.events") -> str:
        """Return the statement that types the rows of `source` by (structure, type, after, until)."""
        read = "from_json" if self.schema_version == 0 else "from_json_strict"
        fields = "".join(f", {self._value(name)}" for name, _ in self.columns)
        payload = f"{read}(data, $structure)" if self.columns else "$structure"
        return (
            f"INSERT INTO {self.table} SELECT position, stream, {_ID}, version, "
            f"recorded_at AT TIME ZONE 'UTC', occurred_at AT TIME ZONE 'UTC'{fields} "
            f"FROM (SELECT *, {payload} AS payload FROM {source} "
            "WHERE type = $type AND position > $after AND position <= $until)"
        )

    def _value(self, name: str) -> str:
        if name in self.structured:
            return f"struct_extract(payload, {literal(name)})"
        return f"json_extract(data, {literal('/' + name.replace('~', '~0').replace('/', '~1'))})"

    def _kind(self, name: str, kind: str) -> str:
        return kind if name in self.structured else "JSON"


def _column_names(columns: Columns) -> list[str]:
    taken = {name for name, _ in HEADER}
    names: list[str] = []
    for name, _ in columns:
        while name.casefold() in taken:
            name += "_"  # noqa: PLW2901 - the loop looks for a free name
        taken.add(name.casefold())
        names.append(name)
    return names


def catch_up(con: Connection, types: Iterable[str], classes: Mapping[str, type[BaseModel]]) -> None:
    """Bring the typed tables of `types` up to the head of the log.

    `classes` are those known here, by type name. Each type is done for itself: raises InvalidEvent for the
    first whose payload does not fit, after the others are done.
    """
    failed: list[InvalidEvent] = []
    with con.lock:
        for name in dict.fromkeys(types):
            try:
                _catch_up(con, name, classes.get(name))
            except InvalidEvent as error:
                failed.append(error)
    if failed:
        raise failed[0]


def _catch_up(con: Connection, name: str, cls: type[BaseModel] | None) -> None:
    head = (first(con.write, "SELECT max(position) FROM esim.events") or (None,))[0] or 0
    stored = first(
        con.write, "SELECT schema_version, columns, position FROM esim.event_types WHERE type = ?", [name]
    )
    known = _Shape(name, stored[0], [(a, b) for a, b in json.loads(stored[1])]) if stored else None
    done = stored[2] if stored else 0
    if known is None:
        _refuse_twin(con.write, name)
    shape = _shape(con, name, cls, known, fresh=done < head)
    rebuild = shape != known
    if rebuild or done < head:
        _fill(con, shape, cls, None if rebuild else done, head)


def _shape(
    con: Connection, name: str, cls: type[BaseModel] | None, known: _Shape | None, *, fresh: bool
) -> _Shape:
    if cls is not None:
        return _Shape(name, getattr(cls, "schema_version", 1), _cached(cls))
    if known is not None and (known.schema_version or not fresh):
        return known
    return _Shape(name, 0, _inferred(con, name))


_cached: Callable[[type[BaseModel]], Columns] = cache(columns_of)


def _refuse_twin(con: DuckDB, name: str) -> None:
    twin = first(con, "SELECT type FROM esim.event_types WHERE lower(type) = lower(?)", [name])
    if twin:
        raise InvalidArgument(
            f"event types {twin[0]!r} and {name!r} differ in case alone, and SQL cannot tell them apart; "
            "give one class another type: class …(Event, type='…')"
        )


def _fill(con: Connection, shape: _Shape, cls: type[BaseModel] | None, after: int | None, head: int) -> None:
    """Type the events up to `head`, all or nothing; mend the rows that do not fit.

    They begin `after` a position; None begins a new table with the first.
    """
    bounds = {
        "structure": json.dumps(shape.structured),
        "type": shape.type,
        "after": after or 0,
        "until": head,
    }
    try:
        with con.transaction() as write:
            _begin(write, shape, head, rebuild=after is None)
            con.run(write, shape.insert(), bounds)
    except _MISFIT:
        with con.transaction() as write:
            _begin(write, shape, head, rebuild=after is None)
            for low in range(after or 0, head, _WINDOW):
                _insert_mended(
                    con, write, shape, cls, {**bounds, "after": low, "until": min(low + _WINDOW, head)}
                )


def _begin(write: DuckDB, shape: _Shape, head: int, *, rebuild: bool) -> None:
    if rebuild:
        write.execute(shape.create())
    write.execute(
        "INSERT OR REPLACE INTO esim.event_types VALUES (?, ?, ?, ?)",
        [shape.type, shape.schema_version, json.dumps(shape.columns), head],
    )


def _insert_mended(
    con: Connection, write: DuckDB, shape: _Shape, cls: type[BaseModel] | None, bounds: dict[str, Any]
) -> None:
    import pyarrow as pa

    bad = con.cursor().execute(_UNFIT, {**bounds, "fields": list(shape.structured)}).fetchall()
    texts = [_mend(shape, cls, position, text) for position, text in bad]
    rows = pa.table(
        {"at": pa.array([row[0] for row in bad], pa.int64()), "mended": pa.array(texts, pa.string())}
    )
    write.register("esim_mended", rows)
    try:
        con.run(write, shape.insert(_MENDED), bounds)
    except _MISFIT:
        for (position, _), text in zip(bad, texts, strict=True):
            _must_fit(con.cursor(), shape, position, text)
        raise
    finally:
        with suppress(duckdb.Error):  # refused in a failed transaction, which forgets it anyway
            write.unregister("esim_mended")


def _mend(shape: _Shape, cls: type[BaseModel] | None, position: int, text: str) -> str:
    """Return a payload with every column in it: defaults from the class, else null. Raises InvalidEvent."""
    if cls is None:
        return json.dumps({**dict.fromkeys(shape.structured), **json.loads(text)})
    try:
        return cls.__pydantic_serializer__.to_json(cls.__pydantic_validator__.validate_json(text)).decode()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column, value = ".".join(map(str, first["loc"])) or "payload", display.short(first["input"])
        raise _misfit(shape, position, f"column {column!r} is {value}: {first['msg']}") from None


def _must_fit(cursor: DuckDB, shape: _Shape, position: int, text: str) -> None:
    for name, kind in shape.structured.items():
        value, structure = json.dumps({"v": json.loads(text).get(name)}), json.dumps({"v": kind})
        try:
            cursor.execute("SELECT from_json_strict(?, ?)", [value, structure]).fetchall()
        except duckdb.Error as error:
            cause = str(error).partition("\n")[0]
            raise _misfit(shape, position, f"column {name!r} ({kind}): {cause}") from None


def _misfit(shape: _Shape, position: int, cause: str) -> InvalidEvent:
    return InvalidEvent(
        f"{shape.type} at position {position} does not fit its typed table: {cause}; "
        "correct the class, or read the payload as JSON from events.data"
    )


# --- without a class ---------------------------------------------------------------------------------------


def _inferred(con: Connection, name: str) -> Columns:
    found = first(con.write, "SELECT json_group_structure(data) FROM esim.events WHERE type = ?", [name])
    structure = json.loads(found[0]) if found and found[0] else {}
    return [(key, _guessed(kind)) for key, kind in structure.items()] if isinstance(structure, dict) else []


def _guessed(kind: Any) -> str:
    if isinstance(kind, list):
        return f"{_guessed(kind[0])}[]"
    if isinstance(kind, dict):
        return _struct([(key, _guessed(each)) for key, each in kind.items()])
    return {"UBIGINT": "BIGINT", "NULL": "JSON"}.get(str(kind), str(kind))


# --- what a query sees -------------------------------------------------------------------------------------


def view_sql(type: str, lo: int = 0, hi: int | None = None) -> str:
    """Return the SELECT behind the view of a caught-up type: events after position `lo`, up to `hi`."""
    return f"SELECT * FROM typed.{quoted(type)}{_within(lo, hi)}"


def events_sql(lo: int = 0, hi: int | None = None) -> str:
    """Return the SELECT behind the view `events`: every event after position `lo`, up to `hi`, as JSON."""
    return (
        f"SELECT position, stream, category, {_ID} AS id, version, type, schema_version, event_id, "
        "recorded_at AT TIME ZONE 'UTC' AS recorded_at, occurred_at AT TIME ZONE 'UTC' AS occurred_at, data, "
        f"tags, correlation_id, causation_id, user_id, metadata FROM esim.events{_within(lo, hi)}"
    )


def views(types: Iterable[str], lo: int = 0, hi: int | None = None) -> dict[str, str]:
    """Return name and SELECT of the views of caught-up types, and of `events`."""
    return {**{name: view_sql(name, lo, hi) for name in types}, "events": events_sql(lo, hi)}


def _within(lo: int, hi: int | None) -> str:
    tests = ([f"position > {int(lo)}"] if lo else []) + ([f"position <= {int(hi)}"] if hi is not None else [])
    return f" WHERE {' AND '.join(tests)}" if tests else ""


def referenced(con: Connection, sql: str, types: Iterable[str]) -> set[str]:
    """Return which of `types` a query names as a table, in any case; the parser's answer where it has one."""
    tables = tables_in(con.cursor(), sql)
    if not tables:
        return {name for name in types if name.casefold() in sql.casefold().replace('""', '"')}
    return {name for name in types if name.casefold() in tables}
