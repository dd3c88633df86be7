"""The events table in SQL: a row as stored and as read, a filter as a WHERE clause, a scan as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from esim.clock import from_micros
from esim.envelope import RecordedEvent, Row
from esim.query import Filter
from esim.reading import FRAME

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = """position, stream, version, type, schema_version, data, correlation_id, causation_id, user_id,
 event_id::VARCHAR, epoch_us(recorded_at), epoch_us(occurred_at), tags, metadata"""
"""What is read of an event, in the order of `Row`."""


def where(wanted: Filter) -> tuple[str, Sequence[object]]:
    """Return a filter as SQL with one placeholder for every value."""
    simple: Mapping[str, object] = {
        "stream = ?": wanted.stream,
        "category = ?": wanted.category,
        "position > ?": wanted.after or None,
        "position <= ?": wanted.until,
        "version > ?": wanted.after_version or None,
        "version <= ?": wanted.until_version,
    }
    parts = [text for text, value in simple.items() if value is not None]
    params = [value for value in simple.values() if value is not None]
    items = [_item(item.types, item.tags) for item in wanted.query.items]
    if items:
        parts.append("(" + " OR ".join(text for text, _ in items) + ")")
        params += [value for _, values in items for value in values]
    return " AND ".join(parts) or "true", params


def _item(types: tuple[str, ...], tags: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    tagged = ["position IN (SELECT position FROM esim.tags WHERE tag = ?)"] * len(tags)
    typed_as = [f"type IN ({', '.join('?' * len(types))})"] if types else []
    return "(" + " AND ".join(typed_as + tagged) + ")", types + tags


def naive(micros: int | None) -> Any:
    """Return microseconds of UTC as the naive datetime that DuckDB takes for a TIMESTAMP."""
    return None if micros is None else from_micros(micros).replace(tzinfo=None)


def stored(row: Row) -> tuple[Any, ...]:
    """Return a row in the order and types of the events table."""
    return (
        *(row[0], row[1].partition("/")[0], *row[1:5], row[9], naive(row[10]), naive(row[11]), row[5]),
        *(*row[6:9], list(row[12]) if row[12] else None, row[13]),
    )


def arrow(rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table in the order and types of the events table."""
    import pyarrow as pa

    position, stream, version, kind, shape, data, *who, event_id, recorded, occurred, tags, metadata = zip(
        *rows, strict=True
    )
    text = pa.string()
    ids = [(one if isinstance(one, UUID) else UUID(one)).bytes for one in event_id]
    columns: list[tuple[str, Any, Any]] = [
        ("position", position, pa.int64()),
        ("category", [name.partition("/")[0] for name in stream], text),
        ("stream", stream, text),
        ("version", version, pa.int32()),
        ("type", kind, text),
        ("schema_version", shape, pa.int16()),
        ("event_id", ids, pa.uuid()),
        ("recorded_at", recorded, pa.timestamp("us")),
        ("occurred_at", occurred, pa.timestamp("us")),
        ("data", data, text),
        *zip(("correlation_id", "causation_id", "user_id"), who, (text, text, text), strict=True),
        ("tags", [list(one) if one else None for one in tags], pa.list_(text)),
        ("metadata", metadata, text),
    ]
    return pa.table({name: pa.array(values, kind_) for name, values, kind_ in columns})


def rows_of(table: pa.Table) -> list[Row]:
    """Return scanned events as rows."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def frame(table: pa.Table) -> pd.DataFrame:
    """Return scanned events as the dataframe that `Store.df` documents, without a Python object for each."""
    import pandas as pd

    columns = dict(zip(RecordedEvent.COLUMNS, table.columns, strict=True))
    return pd.DataFrame({name: _series(name, columns[name]) for name in FRAME})


def _series(name: str, column: pa.ChunkedArray) -> Any:
    import pandas as pd
    import pyarrow as pa

    if name == "tags":
        return pd.Series([tuple(each or ()) for each in column.to_pylist()], dtype=object)
    if name in ("recorded_at", "occurred_at"):
        column = column.cast(pa.timestamp("us", "UTC"))
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    return column.to_pandas()
