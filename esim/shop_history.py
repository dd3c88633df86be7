"""A seeded history of the shop in a small Parquet file: written, read, and loaded into a store.

The same command writes the same bytes: `python -m esim.shop_history data/shop.parquet --seed 7`. The history
is made in memory, where appends are cheap, and copied into a store row by row, envelopes included.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID

from esim.clock import ManualClock, SeededIds, micros, uuid7
from esim.contract import Store
from esim.envelope import RecordedEvent, Row
from esim.errors import InvalidArgument
from esim.memory import MemoryStore
from esim.shop_life import CUSTOMERS, DAYS, START, simulate_shop
from esim.store import EventStore

if TYPE_CHECKING:
    import pyarrow as pa

SEED_FILE = Path(__file__).resolve().parent.parent / "data" / "shop.parquet"


class NumberedIds:
    """Event ids of version 7 whose random part is a counter: unique within a run, and they compress well."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, at: datetime, count: int) -> list[UUID]:
        """Return the next `count` ids, stamped with `at`."""
        return [uuid7(micros(at) // 1000, next(self._numbers)) for _ in range(count)]


def fresh_history(
    *, seed: int = 7, customers: int = CUSTOMERS, days: int = DAYS
) -> tuple[MemoryStore, Counter[str]]:
    """Return a store in memory with a simulated history, and its refusals; see `simulate_shop`."""
    store = MemoryStore(clock=ManualClock(START), ids=NumberedIds())
    return store, simulate_shop(store, seed=seed, customers=customers, days=days)


def table(store: Store) -> pa.Table:
    """Return a whole log as an Arrow table: times with their zone, payloads and ids as text."""
    import pyarrow as pa

    text, moment = pa.string(), pa.timestamp("us", tz="UTC")
    kinds = {
        "position": pa.int64(),
        "version": pa.int32(),
        "schema_version": pa.int16(),
        "tags": pa.list_(text),
    }
    kinds |= {"recorded_at": moment, "occurred_at": moment}
    schema = pa.schema([(name, kinds.get(name, text)) for name in RecordedEvent.COLUMNS])
    events = store.df()
    events["event_id"] = events["event_id"].astype(str)
    events["tags"] = [list(tags or ()) for tags in events["tags"]]
    return pa.Table.from_pandas(events, schema, preserve_index=False).replace_schema_metadata(None)


def write(store: Store, path: Path) -> None:
    """Write a whole log as a Parquet file, small and the same for the same log."""
    import pyarrow.parquet as pq

    pq.write_table(
        table(store),
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=1 << 20,
        use_dictionary=False,  # zstd does better without
        column_encoding={"position": "DELTA_BINARY_PACKED", "recorded_at": "DELTA_BINARY_PACKED"},
    )


def rows(found: pa.Table) -> Iterator[Row]:
    """Give the stored rows of such a table, for `EventStore.restore`."""
    import pyarrow as pa

    for name in ("recorded_at", "occurred_at"):
        place = found.schema.get_field_index(name)
        found = found.set_column(place, name, found.column(name).cast(pa.int64()))
    return cast("Iterator[Row]", zip(*(column.to_pylist() for column in found.columns), strict=True))


def shop_store(store: EventStore | None = None, *, path: Path | str | None = None) -> EventStore:
    """Return `store` (or a new one in memory) with the shop's history of half a year in it.

    The history comes from `path`, or from the checkout's `data/shop.parquet`, or, where the package is
    installed without it, from a fresh simulation of some seconds. A new store's clock stands at the end of
    the history.
    Raises InvalidArgument if `path` is given and not there.
    """
    import pyarrow.parquet as pq

    file = Path(path) if path is not None else SEED_FILE
    if path is not None and not file.exists():
        raise InvalidArgument(
            f"there is no {str(file)!r}: write it with `python -m esim.shop_history {file}`, "
            "or leave the path out"
        )
    history = pq.read_table(file) if file.exists() else table(fresh_history()[0])
    found = (
        store
        if store is not None
        else EventStore(clock=ManualClock(START + timedelta(days=DAYS)), ids=SeededIds(7))
    )
    found.restore(rows(history))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Write a fresh history into a Parquet file, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m esim.shop_history", description=main.__doc__)
    parser.add_argument("path", type=Path, help="the Parquet file to write")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another history")
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="how many register")
    parser.add_argument("--days", type=int, default=DAYS, help="how many, from 2026-01-01")
    given = parser.parse_args(arguments)
    store, refusals = fresh_history(seed=given.seed, customers=given.customers, days=given.days)
    given.path.parent.mkdir(parents=True, exist_ok=True)
    write(store, given.path)
    print(f"{given.path}: {store.position:,} events, {refusals.total():,} refusals")


if __name__ == "__main__":
    main()
