"""The way out: a log's columns as the texts of a file, row by row, in files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esim.arrowlog import database, distinct_names
from esim.bar import Bar
from esim.errors import InvalidArgument
from esim.storefile import must_have_folder, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_BATCH = 10_000  # rows taken at a time


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the place of a new file that takes the place of `path` once all is written; else it is gone.

    Raises InvalidArgument where the folder is not there, or a folder is in the place of the file.
    """
    must_have_folder(path)
    if path.is_dir():
        raise InvalidArgument(f"{str(path)!r} is a folder: give the name of a file")
    new = path.with_name(f"{path.name}.partial")
    new.unlink(missing_ok=True)
    try:
        yield new
        os.replace(new, path)  # noqa: PTH105 - as in the rest of the house
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def kind_of(field: pa.Field) -> str:
    """Return which kind of text the values of a column are."""
    import pyarrow as pa

    said = (field.metadata or {}).get(b"kind")
    kind = field.type
    if said and (pa.types.is_string(kind) or said == b"trace"):
        return str(said.decode())
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    return "boolean" if pa.types.is_boolean(kind) else "string"


def iso(column: str) -> str:
    """Return SQL that gives a time as ISO 8601 in UTC, to the micro- or nanosecond where it has any."""
    fine = f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%n+00:00')"
    return f"replace(replace({fine}, '000+00:00', '+00:00'), '.000000+', '+')"


def as_text(name: str, field: pa.Field) -> str:
    """Return SQL that gives a column as the text that a file holds."""
    import pyarrow as pa

    column, kind = quoted(name), field.type
    if kind_of(field) == "date":
        return iso(column)
    if pa.types.is_floating(kind):
        infinite = f"WHEN isinf({column}) THEN CASE WHEN {column} > 0 THEN 'INF' ELSE '-INF' END"
        return f"CASE WHEN isnan({column}) THEN 'NaN' {infinite} ELSE {column}::VARCHAR END"
    if pa.types.is_nested(kind):
        return f"to_json({column})::VARCHAR"
    return f"{column}::VARCHAR"


def rows(con: duckdb.DuckDBPyConnection, sql: str, label: str, total: int) -> Iterator[Sequence[Any]]:
    """Give the rows of a query, a batch at a time, with a bar where it takes long."""
    done = 0
    with Bar(0, total, label) as bar:
        for batch in con.sql(sql).to_arrow_reader(_BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
            done += batch.num_rows
            bar.at(done)


def spread(events: pa.Table, data: str | None) -> pa.Table:
    """Return events with a column of JSON objects spread into one column for each of their members.

    Members that are numbers or booleans throughout become such columns; lists, objects and all that is mixed
    stay JSON text. What collides with another column comes as `data:<name>`.
    """
    if data is None or data not in events.column_names:
        return events
    column = quoted(data)
    kind = f"CASE WHEN json_valid({column}) THEN json_type({column}) ELSE 'NONE' END"
    with database(e=events) as con:
        others = f"SELECT count(*) FROM e WHERE {column} IS NOT NULL AND {kind} NOT IN ('OBJECT', 'NULL')"
        if con.execute(others).fetchall()[0][0]:
            return events
        con.execute(f"CREATE TEMP VIEW objects AS SELECT {column} AS data FROM e WHERE {kind} = 'OBJECT'")
        found = con.execute(_MEMBERS).fetchall()
        taken = {name.casefold() for name in events.column_names}
        names = [f"data:{key}" if key.casefold() in taken else key for key, *_ in found]
        made = [_member(column, *member) for member in found]
        listed = ", ".join([f"* EXCLUDE ({column})", *made])
        table = con.sql(f"SELECT {listed} FROM e").to_arrow_table()
    kept = [name for name in events.column_names if name != data]
    return distinct_names(table.rename_columns([*kept, *names]))


_MEMBERS = """
SELECT k, list(DISTINCT t), coalesce(max(length(x)) FILTER (regexp_full_match(x, '-?[0-9]+')), 0) FROM (
  SELECT k, json_type(data, p) AS t, json_extract_string(data, p) AS x FROM (
    SELECT data, k, '/' || replace(replace(k, '~', '~0'), '/', '~1') AS p FROM (
      SELECT data, unnest(json_keys(data)) AS k FROM objects)))
WHERE t IS NOT NULL GROUP BY k ORDER BY k"""
_LONGEST_INT, _LONGEST_EXACT = 18, 15  # characters that surely fit a BIGINT, and a DOUBLE


def _member(column: str, key: str, types: list[str], longest: int) -> str:
    """Return SQL that takes a member out of JSON objects, as the type that all of its values have."""
    pointer = "/" + key.replace("~", "~0").replace("/", "~1").replace("'", "''")
    text = f"json_extract_string({column}, '{pointer}')"
    kinds = set(types) - {"NULL"}
    if kinds <= {"BIGINT", "UBIGINT"} and longest <= _LONGEST_INT:
        return f"{text}::BIGINT"
    if kinds <= {"BIGINT", "UBIGINT", "DOUBLE"} and longest <= _LONGEST_EXACT:
        return f"{text}::DOUBLE"
    return f"{text}::BOOLEAN" if kinds == {"BOOLEAN"} else text
