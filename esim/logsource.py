"""Where a log comes from: whatever is handed in becomes one SELECT that DuckDB reads, one row per event.

Each source adds the column `#row`, a number that tells its rows apart and follows their order: a store's
position, a table's rowid, a Parquet file's own row number. Parquet and stores are read where they lie; CSV
and JSON, which are slow to read again, and relations of other connections are copied into a temporary table.
The texts of CSV and JSON are kept there (`logfile`): an id is compared as it was written, so that 1.1 is no
1.10.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from esim import display
from esim.arrowlog import AS_WRITTEN, Tables, Times
from esim.connection import Connection
from esim.contract import AsOf, Store
from esim.errors import InvalidArgument, InvalidLog
from esim.logfile import Copy, listed, made_up, read_csv, read_json, same_names
from esim.logframe import arrow, refuse_doubles
from esim.logsession import Kept, Session, reading
from esim.logvalue import NONE, Values
from esim.memory import MemoryStore
from esim.storefile import literal, probe, quoted
from esim.upcast import roads

if TYPE_CHECKING:
    import pyarrow as pa

ROW = '"#row"'
"""The column that numbers the rows of a source."""

_FILES = {
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt"),
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "json": (".json", ".json.gz"),
    "duckdb": (".duckdb", ".db", ".ddb"),
}
_LEFT = (".ocel.json", ".cloudevents.json", ".cloudevents.jsonl", ".jsonocel")  # for the readers of formats
_STORE = """SELECT position AS "#row", position, category, stream, version, type, schema_version,
 event_id::VARCHAR AS event_id, coalesce(occurred_at, recorded_at) AS time, recorded_at, occurred_at, data,
 correlation_id, causation_id, user_id, tags, metadata FROM esim.events WHERE position <= {position}"""
_STORE_ROLES = {
    "case": "stream", "activity": "type", "time": "time", "order": "version", "resource": "user_id",
    "event_id": "event_id", "data": "data", "correlation": "correlation_id", "causation": "causation_id",
}  # fmt: skip
_STORE_OBJECTS = """
SELECT "#row", category AS object_type,
 if(stream = category, stream, substr(stream, length(category) + 2)) AS object_id, NULL::VARCHAR AS qualifier
FROM source UNION ALL
SELECT "#row", if(contains(tag, ':'), split_part(tag, ':', 1), 'tag'),
 if(contains(tag, ':'), substr(tag, strpos(tag, ':') + 1), tag), NULL
FROM (SELECT "#row", unnest(tags) AS tag FROM source)"""


_TABLES = """
SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'given'
ORDER BY schema_name <> 'main', schema_name, table_name"""
_NO_OBJECTS = """
SELECT NULL::BIGINT AS "#row", NULL::VARCHAR AS object_type, NULL::VARCHAR AS object_id,
 NULL::VARCHAR AS qualifier WHERE false"""
_AS_TEXT = {
    "JSON": "{column} ->> '$'",
    **dict.fromkeys(("DOUBLE", "FLOAT"), "regexp_replace({column}::VARCHAR, '\\.0$', '')"),  # ids with gaps
}


def picked(**columns: str) -> str:
    """Return a subquery of the source: `x_row` and SQL over its columns, under names that e has not."""
    listed = "".join(f", {text} AS x_{name}" for name, text in columns.items())
    return f"(SELECT {ROW} AS x_row{listed} FROM source)"


@dataclass
class Source:
    """A SELECT of events, how it is described, and what came with it.

    `every` is a SELECT of all events of a store, of which the source may leave out those of other categories.
    `objects` is a SELECT of (#row, object_type, object_id, qualifier) over the view `source`, or None; their
    types are `kinds`, once asked for; `rest` is what the reader of a format gave beside the events; `said` is
    what those columns say that `select` has as texts; `files` are those that are read where they lie, as they
    were; `doubles` says of names that several columns have what they are here.
    """

    name: str
    select: str
    session: Session
    roles: Mapping[str, str] = field(default_factory=dict)
    objects: str | None = None
    every: str | None = None
    versioned: bool = False
    notes: tuple[str, ...] = ()
    rest: Tables | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    said: Values = NONE
    held: object = None
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    doubles: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InvalidLog if a file that is read where it lies is no longer what it was."""
        for path, stamp in self.files.items():
            if not Path(path).is_file() or _stamp(path) != stamp:
                raise InvalidLog(f"{Path(path).name!r} has changed since the log was made: make the log anew")

    def valued(self, texts: Collection[str] = ()) -> Source:
        """Return this source with values for texts, but the columns `texts` as they were written."""
        found = {name: sql for name, sql in self.said.values.items() if name not in texts}
        for name, kind in self.types().items():
            if name in texts and kind in _AS_TEXT:
                found[name] = _text(name, kind)
        if not found and self.said == NONE:
            return self  # whose types are known
        remarks = [text for name, text in self.said.remarks.items() if name not in texts]
        listed = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in found.items())
        select = f"SELECT * REPLACE ({listed}) FROM ({self.select})" if found else self.select
        return replace(self, select=select, notes=(*self.notes, *remarks), said=NONE)

    def views(self) -> dict[str, str]:
        """Return the views that all logs of this source share."""
        return {"source": self.select, "objects": self.objects or _NO_OBJECTS}

    def types(self) -> dict[str, str]:
        """Return the columns with their SQL types, without `#row`."""
        return dict(self._types)

    @cached_property
    def _types(self) -> dict[str, str]:
        with reading(self.name):
            found = self.session.rows(f"DESCRIBE {self.select}")
        types = {name: kind for name, kind, *_ in found[1:]}  # the first is our own
        _refuse_own(types, self.name)
        return types

    def refuse_doubles(self, columns: Collection[str]) -> None:
        """Raise InvalidLog for a column in a role whose name several columns have."""
        for name in columns:
            if name in self.doubles:
                raise InvalidLog(f"{name!r} in {self.name} is unclear: {self.doubles[name]}; rename one")

    def object_types(self) -> dict[str, int]:
        """Return the types of objects and how many events have one; none for a store: streams are cases.

        Of an OCEL log without events, they are the ones that it declares.
        """
        if self.objects is None or self.versioned:
            return {}
        query = f"SELECT object_type, count(DISTINCT {ROW}) FROM ({self.objects}) GROUP BY ALL"
        with self.session.alone():
            self.session.use(self, lambda: {"source": self.select})
            self.kinds = dict(self.session.rows(query))
        if self.rest is not None and not self.rest.events.num_rows:
            self.kinds = dict.fromkeys((self.rest.header or {}).get("object_types") or ("case",), 0)
        return self.kinds


def _text(name: str, kind: str) -> str:
    return _AS_TEXT.get(kind, "{column}").format(column=quoted(name))


class Wish(NamedTuple):
    """What the caller says of a source beyond the source itself."""

    table: str | None = None
    format: str | None = None
    category: str | None = None
    objects: Mapping[str, str] | None = None
    memory: str | None = None
    times: Times = AS_WRITTEN


def opened(given: Any, wish: Wish) -> Source:
    """Return whatever was handed in as a source. Raises InvalidArgument or InvalidLog if it is none."""
    if isinstance(given, Store):
        return _of_store(given, wish, owned=None)
    if isinstance(given, str | os.PathLike):
        return _of_path(os.fsdecode(given), wish)
    if all(hasattr(given, name) for name in ("events", "objects", "roles")):
        return of_tables(given, "the tables", wish)
    session = _own(wish)
    if isinstance(given, duckdb.DuckDBPyRelation):
        return _of_relation(session, given)
    name = f"the {type(given).__name__}"
    if type(given).__module__.startswith("pandas"):
        given = given.copy(deep=False)  # copies nothing: while we hold it, a change of the other one does
    return replace(_of_table(session, arrow(given), name), held=given)


def linked(source: Source, columns: Mapping[str, str]) -> str:
    """Return the SELECT of links to the objects that columns name; a column of lists links to several."""
    types = source.types()
    parts = [] if source.objects is None else [source.objects]
    for kind, name in columns.items():
        if name not in types:
            raise InvalidLog(f"there is no column {name!r} for objects={{{kind!r}: {name!r}}}")
        value = _ids(name, types[name])
        parts.append(
            f"SELECT {ROW}, {literal(kind)} AS object_type, id AS object_id, NULL::VARCHAR AS qualifier "
            f"FROM (SELECT {ROW}, {value}::VARCHAR AS id FROM source) WHERE id IS NOT NULL"
        )
    source.said = Values(*(
        {name: told for name, told in each.items() if name not in columns.values()} for each in source.said
    ))  # fmt: skip
    return " UNION ALL ".join(parts)


def _ids(name: str, kind: str) -> str:
    """Return the SQL of the id in a column, or of each one in a list."""
    column = quoted(name)
    if kind.endswith("]"):  # of any length, or of a fixed one
        return f"unnest({column}::VARCHAR[])"
    if kind == "JSON":
        return f"unnest(if(json_type({column}) = 'ARRAY', {column} ->> '$[*]', [{column} ->> '$']))"
    return _text(name, kind)


def _own(wish: Wish) -> Session:
    db = Connection(empty=True)
    return Session(db, db, wish.memory)


# --- stores ------------------------------------------------------------------------------------------------


def _of_store(store: Store, wish: Wish, owned: Store | None) -> Source:
    position, inner = store.position, store
    while isinstance(inner, AsOf):
        inner = inner._store
    if isinstance(inner, MemoryStore):
        inner = owned = _copied(inner)
    db = getattr(inner, "_db", None)
    if not isinstance(db, Connection):
        raise InvalidArgument(f"{store!r} keeps its events where DuckDB does not reach: pass store.df()")
    every = _STORE.format(position=int(position))
    select = every if wish.category is None else f"{every} AND category = {literal(wish.category)}"
    notes = ("types and payloads are as stored; upcasters are not applied",) if roads() else ()
    return Source(
        f"the store as of position {position:,}", select, Session(db, owned), _STORE_ROLES, _STORE_OBJECTS,
        every=every, versioned=True, notes=notes,
    )  # fmt: skip


def _copied(store: MemoryStore) -> Store:
    from esim.store import EventStore

    copy = EventStore()
    copy.restore(store._open())
    return copy


# --- tables ------------------------------------------------------------------------------------------------


def _of_table(session: Session, table: pa.Table, name: str) -> Source:
    import pyarrow as pa

    refuse_doubles(table.column_names, name)
    _refuse_own(table.column_names, name)
    numbered = table.add_column(0, "#row", pa.array(range(table.num_rows), pa.int64()))
    session.cursor.register("esim_given", numbered)
    return Source(name, "SELECT * FROM esim_given", session)


def _of_relation(session: Session, relation: duckdb.DuckDBPyRelation) -> Source:
    with reading("the relation"):
        refuse_doubles(relation.columns, "the relation")
        session.cursor.register("esim_given", relation.to_arrow_reader())
        return _kept(session, "the relation", "SELECT * FROM esim_given")


def _refuse_own(names: Iterable[str], what: str) -> None:
    for name in names:
        if quoted(name.casefold()) == ROW:
            raise InvalidLog(f"{what} has a column {name!r}, as our own number of a row is called: rename it")


def _kept(session: Session, name: str, select: str) -> Source:
    """Return a source that is copied into a temporary table, whose rowid numbers it in the order it came."""
    kept = session.keep(select)
    return Source(name, f"SELECT rowid AS {ROW}, * FROM {kept.name}", session, kept=(kept,))


# --- files -------------------------------------------------------------------------------------------------


def _of_path(path: str, wish: Wish) -> Source:
    wild = has_magic(path) and not Path(path).exists()
    found = glob(path, recursive=True)  # noqa: PTH207 - the pattern is a whole path
    files = sorted(found) if wild else [path]
    if not files:
        raise InvalidLog(f"no file fits {path!r}")
    missing = [one for one in files if not Path(one).is_file()]
    if missing:
        raise InvalidLog(f"there is no file {missing[0]!r}")
    name = Path(files[0]).name if len(files) == 1 else f"{len(files)} files"
    if not any(Path(one).stat().st_size for one in files):
        raise InvalidLog(f"{name!r} is empty: not even columns are named")
    kind = wish.format or _kind(files[0])
    copies = {"csv": read_csv, "jsonl": read_json, "json": read_json}
    if kind == "duckdb":
        return _of_database(files[0], name, wish)
    if kind != "parquet" and kind not in copies:
        return _of_format(files[0], name, wish)
    session = _own(wish)
    try:
        with reading(repr(name)):
            if kind == "parquet":
                return _of_parquet(session, name, files)
            return _of_copy(session, name, copies[str(kind)](session, files))
    except BaseException:
        session.close()
        raise


def _stamp(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def _kind(path: str) -> str | None:
    """Return which reader of DuckDB's takes a file, or None: another reader looks at it."""
    low = path.casefold()
    if low.endswith(_LEFT):
        return None
    with Path(path).open("rb") as file:
        head = file.read(4096)
    kind = next((kind for kind, ends in _FILES.items() if low.endswith(ends)), None)
    if kind is None:
        return "parquet" if head[:4] == b"PAR1" else "duckdb" if head[8:12] == b"DUCK" else None
    foreign = any(mark in head for mark in (b'"specversion"', b'"eventTypes"', b'"objectTypes"'))
    return None if kind in ("json", "jsonl") and foreign else kind


def _of_parquet(session: Session, name: str, files: Sequence[str]) -> Source:
    stamps = {one: _stamp(one) for one in files}
    row = "file_index::BIGINT * 1099511627776 + file_row_number" if len(files) > 1 else "file_row_number"
    select = f"SELECT {row} AS {ROW}, * FROM read_parquet({listed(files)}, union_by_name = true)"
    source = Source(name, select, session, files=stamps)
    doubtful = made_up(source.types())
    if doubtful:
        there = {row[0] for row in session.rows(f"SELECT name FROM parquet_schema({listed(files)})")}
        if wrong := next((one for one in doubtful if one not in there), None):
            raise InvalidLog(same_names(name, "columns", wrong))
    if len(files) > 1 and any("ZONE" in kind or "TZ" in kind for kind in source.types().values()):
        _refuse_mixed_zones(session, name, files)
    return source


def _refuse_mixed_zones(session: Session, name: str, files: Sequence[str]) -> None:
    """Raise InvalidLog for a column of times of which DuckDB would take those without a zone as UTC."""
    mixed = f"SELECT name FROM parquet_schema({listed(files)}) WHERE logical_type LIKE 'Timestamp%'"
    aware = "contains(logical_type, 'isAdjustedToUTC=1')"
    found = session.rows(f"{mixed} GROUP BY name HAVING count(DISTINCT {aware}) > 1 ORDER BY name LIMIT 1")
    if found:
        raise InvalidLog(
            f"the times in {found[0][0]!r} have a zone in some of the {name} and none in others: write all "
            "of them in UTC"
        )


def _of_copy(session: Session, name: str, copy: Copy) -> Source:
    select = f"SELECT rowid AS {ROW}, * FROM {copy.kept.name}"
    return Source(
        name, select, session, kept=(copy.kept,), said=copy.said, notes=copy.notes, doubles=copy.doubles
    )  # fmt: skip


def _of_database(path: str, name: str, wish: Wish) -> Source:
    from esim.errors import NotAStore

    try:
        is_store = probe(Path(path)).format is not None
    except NotAStore as error:
        if "something else" not in str(error):
            raise
        is_store = False
    if is_store:
        from esim.store import EventStore

        store = EventStore(path)
        return _of_store(store, wish, owned=store)
    session = _own(wish)
    with reading(repr(name)):
        session.run(f"ATTACH {literal(path)} AS given (READ_ONLY)")
        tables = {
            one if schema == "main" else f"{schema}.{one}": f"given.{quoted(schema)}.{quoted(one)}"
            for schema, one in session.rows(_TABLES)
        }
        table = _table(name, list(tables), wish.table)
        return Source(f"{name}: {table}", f"SELECT rowid AS {ROW}, * FROM {tables[table]}", session)


def _table(name: str, tables: list[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in tables:
        raise InvalidLog(f"{name!r} has no table {wanted!r}{display.did_you_mean(wanted, tables)}")
    found = wanted or ("events" if "events" in tables else tables[0] if len(tables) == 1 else None)
    if found is None:
        raise InvalidLog(
            f"{name!r} has {len(tables)} tables ({', '.join(tables[:12])}), and which is the log? "
            "Give table='…'"
        )
    return found


def _of_format(path: str, name: str, wish: Wish) -> Source:
    from esim import formats

    with reading(repr(name)):
        return of_tables(formats.read_tables(path, wish.format, wish.times), name, wish)


def of_tables(tables: Tables, name: str, wish: Wish) -> Source:
    """Return what a reader of a format gave as a source."""
    session = _own(wish)
    source = _of_table(session, tables.events, name)
    source.roles, source.rest = tables.roles, tables
    if tables.objects is not None:
        session.cursor.register("esim_links", tables.objects)
        key = quoted(tables.roles.get("event_id", "event_id"))
        source.objects = (
            f"SELECT s.{ROW}, l.object_type, l.object_id, l.qualifier FROM esim_links l "
            f"JOIN source s ON s.{key} = l.event_id"
        )
    return source
