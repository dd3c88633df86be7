"""Users' SQL: one reading statement, its rows as Arrow, and the dataframe that shows them without loss.

A statement is judged by DuckDB's own parser and runs in a read-only transaction. Two doors that DuckDB leaves
open there are shut here: `EXPLAIN ANALYZE` of anything but a SELECT, and `WITH … AS (COPY … TO 'file')`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from esim.arguments import storable
from esim.errors import SqlRefused
from esim.storefile import DuckDB, Parameters, first

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query as an Arrow table, and the DuckDB type of each column."""

    table: pa.Table
    types: tuple[str, ...]


_READS = ("SELECT", "EXPLAIN")
_LAST_YEAR = 9999
_HUGE = {"HUGEINT", "UHUGEINT"}
_EXPLAIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN\b", re.IGNORECASE | re.DOTALL)
_OPTIONS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:ANALYZE\b|\([^)]*\))", re.IGNORECASE | re.DOTALL)


def statement(cursor: DuckDB, sql: str) -> str:
    """Return the one reading statement in `sql`. Raises SqlRefused if there is another, or none."""
    found = cursor.extract_statements(storable(sql, "the query"))
    if len(found) != 1:
        raise SqlRefused(f"a query is one statement, and here are {len(found)}; send them one by one")
    kind = found[0].type.name
    if kind not in _READS:
        raise SqlRefused(
            f"{'PIVOT without IN' if kind == 'MULTI' else kind} is not a reading statement, "
            "and the log is only ever appended to; "
            "write SELECT … (PIVOT … IN (…), DESCRIBE, SHOW, SUMMARIZE and EXPLAIN work too)"
        )
    text = found[0].query.strip().rstrip(";")
    if kind == "EXPLAIN":
        body = explained(text)
        if cursor.extract_statements(body)[0].type.name != "SELECT":
            raise SqlRefused("EXPLAIN takes a SELECT here: EXPLAIN ANALYZE would carry out anything else")
    return text


def explained(text: str) -> str:
    """Return the statement that an EXPLAIN explains, or `text` itself if it is none."""
    head = _EXPLAIN.match(text)
    if head is None:
        return text
    body = text[head.end() :]
    while option := _OPTIONS.match(body):
        if not re.match(r"\s*(?:ANALYZE|\(\s*(?:ANALYZE|FORMAT)\b)", option[0], re.IGNORECASE):
            break
        body = body[option.end() :]
    return body


def tables_in(cursor: DuckDB, sql: str) -> set[str]:
    """Return the tables that a query names, in lower case; none if the parser cannot tell."""
    with suppress(duckdb.Error):
        found = first(cursor, "SELECT json_serialize_sql(?)", [explained(sql)])
        nodes = list(_nodes(json.loads(found[0]))) if found else []
        if not any(
            node.get("function_name") in {"query", "query_table"} for node in nodes
        ):  # they hide names
            return {node["table_name"].casefold() for node in nodes if node.get("type") == "BASE_TABLE"}
    return set()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from _nodes(child)


def answer(cursor: DuckDB, text: str, params: Parameters) -> Answer:
    """Return the rows of a reading statement, with its parameters bound."""
    body = explained(text)
    if "copy" in body.casefold():
        # DuckDB allows WITH … AS (COPY … TO 'file') at the top of a SELECT, never inside one.
        cursor.sql(f"SELECT * FROM ({body}\n)", params=params)
    relation = cursor.sql(text, params=params)
    return Answer(relation.to_arrow_table(), tuple(str(each) for each in relation.types))


def told(error: duckdb.Error, views: Iterable[str]) -> str:
    """Return DuckDB's error as a message for whoever wrote the query; it names the views there are."""
    text = str(error).partition("\n\nLINE")[0]
    if isinstance(error, duckdb.CatalogException) and "does not exist" in text:
        text = f"{text.partition(chr(10))[0]}; this store has {', '.join(sorted(views)) or 'no views'}"
    if isinstance(error, duckdb.ParserException) and "syntax error" in text:
        text += '; a column whose name is a word of SQL needs double quotes, as "order"'
    return f"the query cannot be answered: {text}"


def frame(found: Answer) -> pd.DataFrame:
    """Return an answer as a dataframe: whole numbers stay whole, Decimals exact, times aware in UTC."""
    import pandas as pd

    columns = [_series(column, kind) for column, kind in zip(found.table.columns, found.types, strict=True)]
    made = pd.DataFrame(dict(enumerate(columns)))
    made.columns = pd.Index(found.table.column_names)
    return made


def records(found: Answer) -> list[dict[str, Any]]:
    """Return an answer as a dict for each row, NULL as None: whole numbers and Decimals stay exact."""
    columns = [
        _whole(column) if kind in _HUGE else column
        for column, kind in zip(found.table.columns, found.types, strict=True)
    ]
    names = found.table.column_names
    values = (_listed(column) for column in columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _series(column: pa.ChunkedArray, kind: str) -> Any:
    import pandas as pd
    import pyarrow as pa

    if kind in _HUGE:
        column = _whole(column)
    if kind == "INTERVAL":
        return _durations(column)
    if pa.types.is_integer(column.type) and column.null_count:
        return pd.Series(column.to_pylist(), dtype="Int64")
    if pa.types.is_nested(column.type):
        return pd.Series(_listed(column), dtype=object)
    if pa.types.is_date(column.type) or (pa.types.is_timestamp(column.type) and column.type.tz):
        return _times(column)
    if not len(column):
        return pa.array([], column.type).to_pandas()  # texts of no chunk are what pandas cannot merge on
    return column.to_pandas()


def _listed(column: pa.ChunkedArray) -> list[Any]:
    """Return nested values as lists and dicts; a map whose keys no dict can have stays a list of pairs."""
    import pyarrow as pa

    found: list[Any]
    if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
        return [each for chunk in column.chunks for each in _texts(chunk)]
    try:
        found = column.to_pylist(maps_as_pydicts="strict")
    except TypeError:
        found = column.to_pylist()
    return found


def _texts(column: pa.ListArray) -> list[Any]:
    """Return lists of texts, of which few differ: each is made once, ten times as fast as one by one."""
    import numpy as np

    texts = column.values  # noqa: PD011 - Arrow's
    if column.null_count or texts.null_count:
        return column.to_pylist()  # type: ignore[no-any-return]
    coded = texts.dictionary_encode()
    names = np.array([*coded.dictionary.to_pylist(), None], dtype=object)[:-1]
    flat = names[coded.indices.to_numpy()].tolist()
    ends = column.offsets.to_pylist()
    return [flat[low:high] for low, high in itertools.pairwise(ends)]


def _times(column: pa.ChunkedArray) -> Any:
    """Return dates and times; where Python has none so far off, all of them as text."""
    import pandas as pd
    import pyarrow as pa

    moments = column.cast(pa.timestamp("s" if pa.types.is_date(column.type) else column.type.unit)).to_numpy()
    years = moments.astype("datetime64[Y]").astype("int64") + 1970
    far = (years < 1) | (years > _LAST_YEAR)
    if not far[moments == moments].any():  # what differs from itself is missing  # noqa: PLR0124
        return column.to_pandas()
    return pd.Series(moments.astype(str), dtype="str")


def _durations(column: pa.ChunkedArray) -> Any:
    """Return intervals as timedeltas, in microseconds; those with months, whose length varies, as offsets."""
    import pandas as pd

    parts = column.to_pylist()
    if any(part is not None and part.months for part in parts):
        return column.to_pandas()
    spans = [None if part is None else timedelta(part.days, 0, part.nanoseconds // 1000) for part in parts]
    return pd.Series(spans, dtype="timedelta64[us]")


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    with suppress(pa.ArrowInvalid):
        return column.cast(pa.int64())
    return column
