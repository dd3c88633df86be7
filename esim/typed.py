"""Event payloads as typed SQL tables: one table per event type, derived from the log and caught up lazily.

The JSON text in the log is the truth. The columns of a type come from its class, else from what was stored
when the class was last seen, else from the payloads themselves. `from_json_strict` reads a batch and refuses
values that do not fit; only rows that it refuses go through the class, which fills in defaults, and rows that
have upcasters before them through those. A changed class, or a changed upcaster, rebuilds the table. A number
that is too large for its column makes that column text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any

import duckdb
from pydantic import BaseModel, ValidationError

from esim import display
from esim.answer import tables_in
from esim.columns import Columns, columns_of, struct
from esim.connection import Connection
from esim.errors import InvalidArgument, InvalidEvent, UpcasterFailed
from esim.stamp import stamp
from esim.storefile import DuckDB, first, literal, quoted
from esim.upcast import Read, code, read_as, sources

HEADER = (
    ("position", "BIGINT"),
    ("stream", "VARCHAR"),
    ("id", "VARCHAR"),
    ("version", "INTEGER"),
    ("recorded_at", "TIMESTAMPTZ"),
    ("occurred_at", "TIMESTAMPTZ"),
)
"""The envelope's columns in each typed table; a payload field of the same name gets a trailing underscore."""

_WIDE = "varchar"  # of numbers too large for a column of their own; in capitals it is that of a text field
_UNBUILT = -1  # the position of a type whose columns are known and whose table is not made yet
_WINDOW = 100_000  # positions at a time when rows need mending, so that memory stays bounded
_MISFIT = (duckdb.InvalidInputException, duckdb.ConversionException)
# A look at the keys costs 1 µs a row, TRY 20 µs for a row that fails.
_UNFIT = (
    "SELECT position, data FROM {source} WHERE type = $type AND position > $after AND position <= $until "
    "AND CASE WHEN list_has_all(json_keys(data), $fields) "
    "THEN TRY(from_json_strict(data, $structure)) IS NULL ELSE true END"
)
_MENDED = (
    "(SELECT e.* REPLACE (coalesce(m.mended, e.data)::JSON AS data) "
    "FROM {source} e LEFT JOIN esim_mended m ON m.at = e.position)"
)
_OLD = (
    "SELECT position, type, schema_version, data FROM esim.events WHERE type IN (SELECT unnest($types)) "
    "AND position > $after AND position <= $until ORDER BY position"
)
_RAISED = (
    "(SELECT e.* REPLACE (m.mended::JSON AS data, $type AS type) "
    "FROM esim.events e JOIN esim_mended m ON m.at = e.position)"
)
_ID = "if(stream = category, stream, substr(stream, length(category) + 2))"


# --- the typed table of a type -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """The columns of one event type; `schema_version` 0 means that they were read off the payloads.

    `stamp` is that of its class, and after a space that of the upcasters before it.
    """

    type: str
    schema_version: int
    columns: Columns
    stamp: str = ""

    @property
    def raised(self) -> bool:
        """Whether upcasters come before it."""
        return " " in self.stamp

    @property
    def source(self) -> str:
        """The rows that can be typed as they are."""
        if not self.raised:
            return "esim.events"
        return f"(SELECT * FROM esim.events WHERE schema_version >= {self.schema_version})"

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

    def insert(self, source: str) -> str:
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

    `classes` are those known here, by type name. Each type is done for itself: raises InvalidEvent or
    UpcasterFailed for the first whose payload does not fit, after the others are done.
    """
    failed: list[InvalidEvent | UpcasterFailed] = []
    with con.lock, con.heard:
        head = (first(con.write, "SELECT max(position) FROM esim.events") or (None,))[0] or 0
        stored = {row[0]: row for row in con.write.execute(_TYPES).fetchall()}
        for name in (names := dict.fromkeys(types)):
            _refuse_twin(name, {*stored, *names})
            try:
                _catch_up(con, name, classes.get(name), stored.get(name), head)
            except (InvalidEvent, UpcasterFailed) as error:
                failed.append(error)
    if failed:
        raise failed[0]


def remember(con: Connection, classes: Mapping[str, type[BaseModel]]) -> None:
    """Keep the columns of event classes in the store, so that its payloads are typed without them, too."""
    with con.lock, con.heard:
        stored = {row[0]: _stored(*row[:4]) for row in con.write.execute(_TYPES).fetchall()}
        for name, cls in classes.items():
            shape = _shape(con, name, cls, stored.get(name), fresh=True)
            if stored.get(name) != shape:
                _note(con.write, shape, _UNBUILT)


_TYPES = "SELECT type, schema_version, columns, stamp, position FROM esim.event_types"


def _stored(name: str, schema_version: int, columns: str, stamp: str) -> _Shape:
    return _Shape(name, schema_version, [(a, b) for a, b in json.loads(columns)], stamp)


def _note(write: DuckDB, shape: _Shape, position: int) -> None:
    write.execute(
        "INSERT OR REPLACE INTO esim.event_types VALUES (?, ?, ?, ?, ?)",
        [shape.type, shape.schema_version, json.dumps(shape.columns), shape.stamp, position],
    )


def _catch_up(
    con: Connection, name: str, cls: type[BaseModel] | None, stored: tuple[Any, ...] | None, head: int
) -> None:
    known, done = (_stored(*stored[:4]), stored[4]) if stored else (None, _UNBUILT)
    shape = _shape(con, name, cls, known, fresh=done < head)
    rebuild = shape != known or done == _UNBUILT
    if not rebuild and head - done < _WINDOW and not _is_newer(con.write, _leading(shape), done, head):
        return
    while rebuild or done < head:
        try:
            _Filling(con, shape, cls).fill(None if rebuild else done, head)
        except _TooLarge as wide:
            columns = [(one, _WIDE if one == wide.column else kind) for one, kind in shape.columns]
            shape, rebuild = replace(shape, columns=columns), True
        else:
            break
    if head - max(done, 0) >= _WINDOW:
        with suppress(duckdb.TransactionException):  # another time: it only packs what is written already
            con.write.execute("CHECKPOINT")  # packed columns are read in half the time


def _is_newer(con: DuckDB, names: Sequence[str], done: int, head: int) -> bool:
    query = "SELECT 1 FROM esim.events WHERE type IN (SELECT unnest(?)) AND position > ? LIMIT 1"
    return done < head and first(con, query, [list(names), done]) is not None


def _leading(shape: _Shape) -> tuple[str, ...]:
    """Return the stored types whose events are in the table: the type itself, and what leads to it."""
    return sources([shape.type]) if shape.raised else (shape.type,)


def _shape(
    con: Connection, name: str, cls: type[BaseModel] | None, known: _Shape | None, *, fresh: bool
) -> _Shape:
    if cls is not None:
        before = code([name])
        raised = stamp(*before, pure=False).text if before else ""
        columns = _widened(_cached(cls), known.columns if known else ())
        return _Shape(name, getattr(cls, "schema_version", 1), columns, f"{_defaults(cls)} {raised}".rstrip())
    if known is not None and (known.schema_version or not fresh):
        return known
    return _Shape(name, 0, _inferred(con, name))


_cached: Callable[[type[BaseModel]], Columns] = cache(columns_of)
_defaults: Callable[[type[BaseModel]], str] = cache(lambda cls: stamp(cls, pure=False).text)


def _widened(columns: Columns, known: Iterable[tuple[str, str]]) -> Columns:
    """Return columns of a class, with those as text whose numbers were found too large for a column."""
    text = {name for name, kind in known if kind == _WIDE}
    return [(name, _WIDE if name in text and _is_number(kind) else kind) for name, kind in columns]


def _is_number(kind: str) -> bool:
    return kind == "BIGINT" or kind.startswith("DECIMAL")


def _refuse_twin(name: str, others: Iterable[str]) -> None:
    for twin in others:
        if twin != name and twin.casefold() == name.casefold():
            raise InvalidArgument(
                f"event types {twin!r} and {name!r} differ in case alone, and SQL cannot tell them apart; "
                "give one class another type: class …(Event, type='…')"
            )


@dataclass(frozen=True, slots=True)
class _Filling:
    """How the table of one type is filled: its shape, and the class that mends what does not fit."""

    con: Connection
    shape: _Shape
    cls: type[BaseModel] | None

    def fill(self, after: int | None, head: int) -> None:
        """Type the events up to `head`, all or nothing; mend the rows that do not fit.

        They begin `after` a position; None begins a new table with the first.
        """
        try:
            with self.con.transaction() as write:
                self._begin(write, head, rebuild=after is None)
                bounds = self._bounds(after or 0, head)
                self.con.run(write, self.shape.insert(self.shape.source), bounds)
                self._raise_old(write, after or 0, head)
        except _MISFIT:
            with self.con.transaction() as write:
                self._begin(write, head, rebuild=after is None)
                for low in range(after or 0, head, _WINDOW):
                    self._insert_mended(write, self._bounds(low, min(low + _WINDOW, head)))
                self._raise_old(write, after or 0, head)

    def _begin(self, write: DuckDB, head: int, *, rebuild: bool) -> None:
        if rebuild:
            write.execute(self.shape.create())
        _note(write, self.shape, head)

    def _bounds(self, after: int, until: int) -> dict[str, Any]:
        structure = json.dumps(self.shape.structured)
        return {"structure": structure, "type": self.shape.type, "after": after, "until": until}

    def _insert_mended(self, write: DuckDB, bounds: dict[str, Any]) -> None:
        source = self.shape.source
        query, fields = _UNFIT.format(source=source), list(self.shape.structured)
        bad = self.con.fetch(query, {**bounds, "fields": fields})
        self._insert_texts(write, bad, _MENDED.format(source=source), bounds)

    def _raise_old(self, write: DuckDB, after: int, head: int) -> None:
        """Type the events that upcasters lead to this type, window by window."""
        if not self.shape.raised:
            return
        for low in range(after, head, _WINDOW):
            bounds = self._bounds(low, min(low + _WINDOW, head))
            leading = {"types": list(_leading(self.shape)), "after": low, "until": bounds["until"]}
            stored = self.con.fetch(_OLD, leading)
            reads = ((row[0], read) for row in stored if self._is_old(row) for read in _raised(*row))
            texts = [(position, read[2]) for position, read in reads if read[0] == self.shape.type]
            self._insert_texts(write, texts, _RAISED, bounds)

    def _is_old(self, row: tuple[int, str, int, str]) -> bool:
        return row[1] != self.shape.type or row[2] < self.shape.schema_version

    def _insert_texts(
        self, write: DuckDB, payloads: list[tuple[int, str]], source: str, bounds: dict[str, Any]
    ) -> None:
        """Type rows of `source`, in which these payloads, mended by the class, stand at their positions."""
        import pyarrow as pa

        texts = [_mend(self.shape, self.cls, position, text) for position, text in payloads]
        places = pa.array([position for position, _ in payloads], pa.int64())
        write.register("esim_mended", pa.table({"at": places, "mended": pa.array(texts, pa.string())}))
        try:
            self.con.run(write, self.shape.insert(source), bounds)
        except _MISFIT:
            for (position, _), text in zip(payloads, texts, strict=True):
                _must_fit(self.con.cursor(), self.shape, position, text)
            raise
        finally:
            with suppress(duckdb.Error):  # refused in a failed transaction, which forgets it anyway
                write.unregister("esim_mended")


def _raised(position: int, type: str, schema_version: int, text: str) -> list[Read]:
    try:
        return read_as(type, schema_version, text)
    except UpcasterFailed as error:
        raise UpcasterFailed(f"position {position}: {error}") from error.__cause__


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
            if _is_number(kind) and _is_large(value):
                raise _TooLarge(name) from None
            cause = str(error).partition("\n")[0]
            raise _misfit(shape, position, f"column {name!r} ({kind}): {cause}") from None


class _TooLarge(Exception):
    """A number is too large for its column, which is text from now on."""

    def __init__(self, column: str) -> None:
        self.column = column


def _is_large(value: str) -> bool:
    with suppress(ArithmeticError, ValueError):
        return abs(Decimal(str(json.loads(value)["v"]))) >= 10**9
    return False


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
        return struct([(key, _guessed(each)) for key, each in kind.items()])
    return {"UBIGINT": "BIGINT", "NULL": "JSON"}.get(str(kind), str(kind))


# --- what a query sees -------------------------------------------------------------------------------------


EVENTS = "events"
"""The view of every event, its payload as JSON; no event type may have this name."""

_EVERY = (
    f"position, stream, category, {_ID} AS id, version, type, schema_version, event_id, "
    "recorded_at AT TIME ZONE 'UTC' AS recorded_at, occurred_at AT TIME ZONE 'UTC' AS occurred_at, data, "
    "tags, correlation_id, causation_id, user_id, metadata"
)


def views(names: Iterable[str], lo: int = 0, hi: int | None = None) -> dict[str, str]:
    """Return the SELECT behind each view, of EVENTS or of a caught-up type, over positions in (lo, hi]."""
    within = _within(lo, hi)
    return {
        name: f"SELECT {_EVERY} FROM esim.events{within}"
        if name == EVENTS
        else f"SELECT * FROM typed.{quoted(name)}{within}"
        for name in names
    }


def _within(lo: int, hi: int | None) -> str:
    tests = ([f"position > {int(lo)}"] if lo else []) + ([f"position <= {int(hi)}"] if hi is not None else [])
    return f" WHERE {' AND '.join(tests)}" if tests else ""


def referenced(con: Connection, sql: str, types: Iterable[str]) -> set[str]:
    """Return which of `types` a query names as a table, in any case; the parser's answer where it has one."""
    with con.heard:
        tables = tables_in(con.cursor(), sql)
    if not tables:
        return {name for name in types if name.casefold() in sql.casefold().replace('""', '"')}
    return {name for name in types if name.casefold() in tables}
