"""An event store as Tables, so that its log can be written in each format.

The store is read in windows of Arrow. What an event is about is told by its stream (`Order/o-1` is the object
`o-1` of type `Order`) and by its tags (`course:c1` is the object `c1` of type `course`), in one relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from esim.arrowlog import LINKS, Tables, ask
from esim.contract import AsOf, Store
from esim.envelope import RecordedEvent, Row
from esim.query import Filter
from esim.reading import Selection
from esim.store import EventStore

if TYPE_CHECKING:
    import pyarrow as pa

_ROLES = {
    "case": "stream",
    "activity": "type",
    "time": "time",
    "order": "position",
    "resource": "user_id",
    "event_id": "event_id",
    "data": "data",
}
_EVENTS = """
SELECT position, event_id, type, stream,
  make_timestamp(coalesce(occurred_at, recorded_at))::TIMESTAMPTZ AS time,
  version::BIGINT AS version, schema_version::BIGINT AS schema_version, data::VARCHAR AS data,
  make_timestamp(recorded_at)::TIMESTAMPTZ AS recorded_at, correlation_id, causation_id, user_id,
  CASE WHEN len(tags) > 0 THEN to_json(tags)::VARCHAR END AS tags, metadata::VARCHAR AS metadata
FROM w"""
_LINKED = f"""
SELECT {", ".join(LINKS)} FROM (
  SELECT rank, 0 AS place, event_id, 'stream' AS qualifier, stream AS name, '/' AS mark FROM r
  UNION ALL
  SELECT rank, generate_subscripts(tags, 1), event_id, 'tag', unnest(tags), ':' FROM r), LATERAL (
  SELECT split_part(name, mark, 1) AS kind, substr(name, len(kind) + 2) AS rest), LATERAL (
  SELECT CASE WHEN kind = '' OR rest = '' THEN qualifier ELSE kind END AS object_type,
    CASE WHEN kind = '' OR rest = '' THEN name ELSE rest END AS object_id)
ORDER BY rank, place"""


def tables_of(events: Store | Selection) -> Tables:
    """Return a store, or what `store.read(…)` selects, as Tables.

    Columns: position, event_id, type, stream, time (when it occurred, else when it was recorded), version,
    schema_version, data (JSON text), recorded_at, correlation_id, causation_id, user_id, tags and metadata
    (JSON text); times are UTC. Events are as they are stored; a stream or tag without a type is an object of
    type `stream` or `tag`.
    """
    chosen = events.read() if isinstance(events, Store) else events
    stored = _stored(chosen._store, chosen._wanted.leading())
    links = ask(_LINKED, r=ask("SELECT *, row_number() OVER () AS rank FROM w", w=stored))
    return Tables(ask(_EVENTS, w=stored), links, None, dict(_ROLES), None, {"format": "esim"})


def _stored(store: Any, wanted: Filter) -> pa.Table:
    """Return stored events as Arrow, window by window; times are microseconds."""
    import pyarrow as pa

    if isinstance(store, AsOf):
        return _stored(store._store, store._bounded(wanted))
    if isinstance(store, EventStore):
        windows = [_plain(window) for window in store._tables(wanted)]
    else:
        windows = [_table(rows) for rows in store._scan(wanted)]
    return pa.concat_tables(windows) if windows else _schema().empty_table()


def _schema() -> pa.Schema:
    import pyarrow as pa

    numbers = {"position", "version", "schema_version", "recorded_at", "occurred_at"}
    kinds = {**dict.fromkeys(numbers, pa.int64()), "tags": pa.list_(pa.string())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in RecordedEvent.COLUMNS])


def _plain(window: pa.Table) -> pa.Table:
    return window.rename_columns(list(RecordedEvent.COLUMNS)).cast(_schema())


def _table(rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    schema = _schema()
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    values = [
        [str(value) for value in column] if name == "event_id" else list(column)
        for name, column in zip(schema.names, columns, strict=True)
    ]
    return pa.table(
        [pa.array(column, each.type) for column, each in zip(values, schema, strict=True)], schema=schema
    )
