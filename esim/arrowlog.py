"""An event log as Arrow tables, and how the texts of a file become typed columns, window by window.

A reader hands over rows of texts, each of a kind ("int", "date" …). Every 50,000 rows they become one window
of Arrow columns, so that a file is never held as a tree. A column keeps its type as long as all its values
fit it; whole numbers beside fractions become fractions, and anything else text, in which nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import duckdb

from esim import display
from esim.errors import InvalidLog
from esim.storefile import literal

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 50_000
"""How many rows are gathered before they become Arrow columns."""

POSITION = "position"
LINKS = ("event_id", "object_type", "object_id", "qualifier")
ATTRIBUTES = ("object_type", "object_id", "attribute", "value", "type", "time")
RELATIONS = ("source_type", "source_id", "target_type", "target_id", "qualifier")

_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
_ZONE = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
KINDS = {
    "int": ("BIGINT", r"[+-]?[0-9]+"),
    "float": ("DOUBLE", r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?INF|NaN"),
    "boolean": ("BOOLEAN", "true|false|1|0"),
    "date": (
        "TIMESTAMPTZ",
        rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK})? ?{_ZONE}?",
    ),
}
"""The kinds of text that have a type of their own: what DuckDB calls it, and how such a text looks."""

_ZONED = rf"[^T ]*[T ][0-9.:]+ ?{_ZONE}"
_FINER = r"\.[0-9]{6}[0-9]*[1-9]"
_NOTHING = "\0"  # the column of rows that have none, as no file can call one
_MOST_COLUMNS = 10_000
_FEW = 3  # how many examples a message names

Key = tuple[str, str]
"""A column's name, and the kind of a value in it."""


class Tables(NamedTuple):
    """A log: one row per event, the objects they are about, and which column is what.

    `events` is in the order of the file. `objects` links events to objects (event_id, object_type, object_id,
    qualifier). `attributes` are those of objects (object_type, object_id, attribute, value, type, time); an
    object that has neither attribute nor event is a row without attribute. `roles` names the columns for
    case, activity, time, order, lifecycle, resource, event_id and data. `relations` hold between objects
    (source_type, source_id, target_type, target_id, qualifier). `header` is what a format says beside them.
    """

    events: pa.Table
    objects: pa.Table | None
    attributes: pa.Table | None
    roles: dict[str, str]
    relations: pa.Table | None = None
    header: dict[str, Any] | None = None


class Times(NamedTuple):
    """How times of a file are read: the zone of those that name none, and whether a bad one is an error."""

    timezone: str = "UTC"
    bad: str = "raise"


AS_WRITTEN = Times()


@cache
def _root(_process: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"autoinstall_known_extensions": False})


def database(**tables: pa.Table) -> duckdb.DuckDBPyConnection:
    """Return a connection of its own, in UTC, that knows these tables by their names."""
    con = _root(os.getpid()).cursor()  # a new database takes 20 ms, and its threads do not survive a fork
    con.execute("SET TimeZone = 'UTC'")
    for name, table in tables.items():
        con.register(name, table)
    return con


def ask(sql: str, **tables: pa.Table) -> pa.Table:
    """Return the answer of SQL over Arrow tables, each under its name."""
    with database(**tables) as con:
        return con.sql(sql).to_arrow_table()


def compute() -> Any:
    """Return pyarrow's functions, which it makes at run time, so that no type checker knows them."""
    import pyarrow.compute

    return pyarrow.compute


@dataclass
class _Seen:
    """What was seen in a column of times."""

    given: int = 0
    unread: int = 0
    naive: int = 0
    examples: list[str] = field(default_factory=list)
    naive_examples: list[str] = field(default_factory=list)


class Gather:
    """Gathers rows of texts, and gives them back as one Arrow table of typed columns."""

    def __init__(self, label: str, times: Iterable[str] = (), how: Times = AS_WRITTEN) -> None:
        """Begin with no row; `label` names the file; in the columns `times` every text must be a time."""
        self._label, self._must, self._how = label, set(times), how
        self._rows: list[dict[Key, str]] = []
        self._windows: list[pa.Table] = []
        self._times: dict[str, _Seen] = {}
        self._marks: dict[str, set[str]] = {}
        self._gathered = 0

    def __len__(self) -> int:
        return self._gathered + len(self._rows)

    def add(self, row: dict[Key, str]) -> None:
        """Take the next row."""
        self._rows.append(row)
        if len(self._rows) >= WINDOW:
            self._flush()

    def table(self, columns: Iterable[Key] = ()) -> pa.Table:
        """Return all rows: the `columns` that are always there, then the others as they came, typed.

        Raises InvalidLog where times cannot be read, or only some of them name their zone.
        """
        import pyarrow as pa

        if self._rows:
            self._flush()
        self._check_times()
        windows, self._windows = self._windows, []
        names = dict.fromkeys(name for name, _ in columns)
        for window in windows:
            names.update(dict.fromkeys(window.column_names))
        names = names if len(names) == 1 else {name: None for name in names if name != _NOTHING}
        wanted = {name: _common(windows, name) for name in names}
        wanted |= {name: _arrow_type(kind) for name, kind in columns if wanted[name] is None}
        fields = [
            pa.field(name, wanted[name] or pa.string(), metadata=self._metadata(name)) for name in names
        ]
        tables = [_fit(window, pa.schema(fields)) for window in windows]
        whole = pa.concat_tables(tables) if tables else pa.schema(fields).empty_table()
        return distinct_names(whole)

    def _metadata(self, name: str) -> dict[bytes, bytes] | None:
        """Return which kind the texts of a column are, where Arrow's type does not tell."""
        marks = self._marks.get(name, set())
        kind = next(iter(marks), "string")
        return {b"kind": kind.encode()} if len(marks) == 1 and kind not in {*KINDS, "string"} else None

    def _flush(self) -> None:
        import pyarrow as pa

        rows, self._rows = self._rows, []
        kinds: dict[str, list[str]] = {}
        for name, kind in dict.fromkeys(key for row in rows for key in row):
            kinds.setdefault(name, []).append(kind)
        if len(kinds) > _MOST_COLUMNS:
            self._fail(
                f"there are more than {_MOST_COLUMNS:,} different attributes, which no table should have"
            )
        columns = {name: self._column(rows, name, found) for name, found in kinds.items()}
        columns = columns or {_NOTHING: pa.nulls(len(rows), pa.string())}
        self._windows.append(pa.table(columns))
        self._gathered += len(rows)

    def _column(self, rows: Sequence[dict[Key, str]], name: str, kinds: list[str]) -> pa.Array:
        pc = compute()
        self._marks.setdefault(name, set()).update(kinds)
        texts = [
            self._texts([row.get(key) for row in rows], name) for key in ((name, kind) for kind in kinds)
        ]
        kind = kinds[0] if len(kinds) == 1 else "float" if set(kinds) == {"int", "float"} else "string"
        if len(kinds) > 1:
            self._once(texts, name)
        return self._typed(pc.coalesce(*texts), name, "date" if name in self._must else kind)

    def _texts(self, values: list[str | None], name: str) -> pa.Array:
        import pyarrow as pa

        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError as error:
            self._fail(f"{name!r} has a text with half a character: {display.short(error.object)}")

    def _once(self, texts: list[pa.Array], name: str) -> None:
        """Refuse a row that has a name twice, with values of two kinds."""
        for row, values in enumerate(zip(*texts, strict=True), self._gathered + 1):
            given = [value.as_py() for value in values if value.is_valid]
            if len(given) > 1:
                self._fail(f"event {row} has {name!r} twice, {given[0]!r} and {given[1]!r}: keep one")

    def _typed(self, texts: pa.Array, name: str, kind: str) -> pa.Array:
        """Return texts as values of their kind, or as they are where one is none."""
        if kind not in KINDS:
            return texts
        import pyarrow as pa

        pc = compute()
        zoned = f"regexp_full_match(x, '{_ZONED}')" if kind == "date" else "true"
        finer = kind == "date" and pc.any(pc.match_substring_regex(texts, _FINER)).as_py()
        good = self._value(kind, zoned)
        exact = self._value(kind, zoned, "_NS") if finer else good  # NULL far from our days
        query = f"SELECT {exact} AS value, {zoned} AS zoned, ({good}) IS NULL AS unread FROM "
        found = ask(f"{query} (SELECT trim(x, ' \t\r\n') AS x FROM w)", w=pa.table({"x": texts}))
        values, named, wrong = (column.combine_chunks() for column in found.columns)
        if kind == "date":
            self._note(name, texts, pc.and_(wrong, pc.is_valid(texts)), pc.invert(named))
        return values if values.null_count == texts.null_count else texts

    def _value(self, kind: str, zoned: str, finer: str = "") -> str:
        """Return the SQL of the value of a text `x`, NULL where it is none of the kind."""
        sql, looks = KINDS[kind]
        value, zone = f"try_cast(x AS {sql}{finer})", literal(self._how.timezone)
        if kind == "date" and self._how.timezone != "UTC":
            local = f"try_cast(x AS TIMESTAMP{finer}) AT TIME ZONE {zone}"
            value = f"CASE WHEN {zoned} THEN {value} ELSE {local} END"
        return f"CASE WHEN regexp_full_match(x, '{looks}') THEN {value} END"

    def _note(self, name: str, texts: pa.Array, unread: pa.Array, naive: pa.Array) -> None:
        pc = compute()
        seen = self._times.setdefault(name, _Seen())
        naive = pc.and_not(pc.and_(naive, pc.is_valid(texts)), unread)
        seen.given += len(texts) - texts.null_count
        seen.unread += pc.sum(unread).as_py() or 0
        seen.naive += pc.sum(naive).as_py() or 0
        for mask, examples in ((unread, seen.examples), (naive, seen.naive_examples)):
            for row in pc.indices_nonzero(mask)[: _FEW - len(examples)].to_pylist():
                examples.append(f"event {self._gathered + row + 1:,} has {display.short(texts[row].as_py())}")

    def _check_times(self) -> None:
        for name, seen in self._times.items():
            if seen.unread and name in self._must and self._how.bad == "raise":
                self._fail(
                    f"{seen.unread:,} of {seen.given:,} times in {name!r} cannot be read: "
                    f"{', '.join(seen.examples)}; write them like 2020-03-01T12:00:00+00:00"
                )
            if 0 < seen.naive < seen.given - seen.unread:
                self._fail(
                    f"{seen.naive:,} of {seen.given:,} times in {name!r} name no zone while the others do: "
                    f"{', '.join(seen.naive_examples)}; add the zone to each, Z for UTC"
                )

    def _fail(self, told: str) -> NoReturn:
        raise InvalidLog(f"{self._label}: {told}")


class Narrow:
    """Gathers rows of a fixed number of texts, and gives them back as one Arrow table."""

    def __init__(self, label: str, *names: str, timezone: str = "UTC") -> None:
        """Begin with no row of the columns `names`."""
        self._gather = Gather(label, ("time",), Times(timezone))
        self._keys = [(name, "date" if name == "time" else "string") for name in names]

    def add(self, *values: str | None) -> None:
        """Take the next row."""
        row = {key: value for key, value in zip(self._keys, values, strict=True) if value is not None}
        self._gather.add(row)

    def table(self) -> pa.Table:
        """Return all rows."""
        found = self._gather.table(self._keys)
        return found.select([name for name, _ in self._keys])


def distinct_names(table: pa.Table) -> pa.Table:
    """Return a table whose names differ in more than case, as SQL wants it; `key_of` tells the first ones."""
    taken: set[str] = set()
    fields = []
    for each in table.schema:
        name, number = each.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{each.name}_{number}"
        taken.add(name.casefold())
        said = (
            {**(each.metadata or {}), b"key": key_of(each).encode()} if name != each.name else each.metadata
        )
        fields.append(each.with_name(name).with_metadata(said))
    return table.rename_columns([each.name for each in fields]).cast(_schema(fields))


def _schema(fields: Sequence[pa.Field]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(fields)


def key_of(field: pa.Field) -> str:
    """Return what a column was called in its file."""
    return str((field.metadata or {}).get(b"key", field.name.encode()).decode())


def numbered(table: pa.Table) -> pa.Table:
    """Return events with their place in the file, from 1, as the first column."""
    import pyarrow as pa

    places = pa.array(range(1, table.num_rows + 1), pa.int64())
    return distinct_names(table.add_column(0, pa.field(POSITION, pa.int64()), places))


def nothing(*names: str) -> pa.Table:
    """Return a table without rows whose columns are texts, and times if they are called so."""
    import pyarrow as pa

    return pa.schema([(name, utc_time() if name == "time" else pa.string()) for name in names]).empty_table()


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    known = {"int": pa.int64(), "float": pa.float64(), "boolean": pa.bool_(), "date": utc_time()}
    return known.get(kind, pa.string())


def utc_time(unit: str = "us") -> pa.DataType:
    """Return the type of every time in a log; its `unit` is ns where a text has so many digits."""
    import pyarrow as pa

    return pa.timestamp(unit, "UTC")


def _common(windows: Sequence[pa.Table], name: str) -> pa.DataType | None:
    """Return the one type that holds a column of all windows, or None if no window has it."""
    import pyarrow as pa

    found = {window.schema.field(name).type for window in windows if name in window.column_names}
    if len(found) > 1:
        if found == {utc_time(), utc_time("ns")} and all(
            _exact(each, name, utc_time("ns")) for each in windows
        ):
            return utc_time("ns")
        numbers = found == {pa.int64(), pa.float64()} and all(
            _exact(each, name, pa.float64()) for each in windows
        )
        return pa.float64() if numbers else pa.string()
    return found.pop() if found else None


def _exact(window: pa.Table, name: str, kind: pa.DataType) -> bool:
    """Say whether no value of a column is too large for another type."""
    import pyarrow as pa

    try:
        _ = name in window.column_names and window.column(name).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _fit(window: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a window with all the columns of the log, in their types."""
    import pyarrow as pa

    columns = [
        _as(window.column(each.name), each.type)
        if each.name in window.column_names
        else pa.nulls(window.num_rows, each.type)
        for each in schema
    ]
    return pa.table(columns, schema=schema)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if column.type == kind:
        return column
    if pa.types.is_timestamp(column.type) and pa.types.is_string(kind):
        digits = "%f" if column.type == utc_time() else "%n"
        return ask(
            f"SELECT strftime(x, '%Y-%m-%dT%H:%M:%S.{digits}+00:00') FROM w", w=pa.table({"x": column})
        ).column(0)
    return column.cast(kind)
