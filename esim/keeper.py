"""Who keeps the progress of subscriptions: each kind of store in its own way."""

from __future__ import annotations

from esim.contract import Store, must_be_store
from esim.errors import InvalidArgument
from esim.memory import MemoryStore
from esim.progress import Mark, Overview, Progress, Registered
from esim.progress_memory import MemoryProgress
from esim.progress_table import TableProgress
from esim.rows import Row
from esim.store import EventStore


def progress_of(store: Store, name: str, row: type[Row] | None = None) -> Progress:
    """Return what keeps a subscription's progress. Raises InvalidArgument where a store cannot."""
    must_be_store(store)
    if isinstance(store, EventStore):
        return TableProgress(store._db, name, row)
    if isinstance(store, MemoryStore):
        return MemoryProgress(store, name, row)
    raise InvalidArgument(f"{store!r} keeps no checkpoints: subscribe to an EventStore or a MemoryStore")


def overview(progress: Progress, head: int) -> Overview:
    """Return a subscription as it is kept, of a log that ends at `head`."""
    handler, mode, _ = progress.known() or Registered("", "", None)
    mark, parked = progress.load(), len(progress.letters())
    return Overview(
        *(progress.name, handler, mode, mark.position, head - mark.position),
        *(state_of(mark), mark.attempts, parked),
    )


def state_of(mark: Mark) -> str:
    """Return what a subscription does as far as is kept: idle, paused, or stopped and why."""
    if mark.paused:
        return "paused"
    return f"stopped: {mark.told}" if mark.told else "idle"
