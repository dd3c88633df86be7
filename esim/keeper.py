"""Who keeps the progress of subscriptions: each kind of store in its own way."""

from __future__ import annotations

import json
from collections.abc import Iterable

from esim.contract import Store, must_be_store
from esim.errors import CheckpointAhead, InvalidArgument
from esim.event import Event
from esim.memory import MemoryStore
from esim.progress import Mark, Overview, Progress, Registered
from esim.progress_memory import MemoryProgress
from esim.progress_table import TableProgress
from esim.query import Filter
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
    registered = progress.known() or Registered("", "", None, "")
    mark, parked = progress.load(), len(progress.letters())
    return Overview(
        *(progress.name, registered.handler, registered.checkpoint, mark.position, head - mark.position),
        *(state_of(mark, misfit(progress.name, mark, head)), mark.attempts, parked),
    )


def misfit(name: str, mark: Mark, head: int) -> str | None:
    """Return what is to be told of a subscription that stands beyond the head of its log; usually None."""
    if mark.position <= head:
        return None
    return (
        f"{name} stands at position {mark.position:,}, and the log ends at {head:,}: it is another log, or "
        "an older copy; replay() begins again"
    )


def must_fit(name: str, mark: Mark, head: int) -> None:
    """Raise CheckpointAhead where a subscription stands beyond the head of its log."""
    told = misfit(name, mark, head)
    if told:
        raise CheckpointAhead(told)


def state_of(mark: Mark, misfit: str | None) -> str:
    """Return what a subscription does as far as is kept: idle, paused, or stopped and why."""
    told = misfit or mark.told
    if mark.paused and not misfit:
        return "paused"
    return f"stopped: {told}" if told else "idle"


def wanted_of(wanted: Filter, partition: tuple[int, int], types: Iterable[type[Event]]) -> str:
    """Return which events a subscription is for, as JSON; event types with their former names."""
    tags = sorted({tag for item in wanted.query.items for tag in item.tags})
    named = {each.event_type: list(each._was) for each in types}
    told = {"types": named, "category": wanted.category, "tags": tags, "partition": partition}
    return json.dumps(told, sort_keys=True)


def wider(wanted: str, before: str) -> bool:
    """Say whether there are events that a subscription is for now, and was not before; both as JSON."""
    new, old = json.loads(wanted), json.loads(before)
    named = all({name, *former} & set(old["types"]) for name, former in new["types"].items())
    return not (
        (not old["types"] or (new["types"] and named))
        and old["category"] in (None, new["category"])
        and set(old["tags"]) <= set(new["tags"])
        and old["partition"] in ([0, 1], new["partition"])
    )
