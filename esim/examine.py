"""The invariants of a simulation, asked of a recorded log: where each was broken first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esim.arguments import whole
from esim.bar import Bar
from esim.clock import uuid7
from esim.contract import Store, must_be_store
from esim.errors import InvalidArgument
from esim.invariant import Look, named
from esim.memory import MemoryStore

if TYPE_CHECKING:
    import pandas as pd

    from esim.eventlog import EventLog


def examine(log: Store | EventLog, invariants: object, *, every: int = 1) -> pd.DataFrame:
    """Ask invariants of a recorded log: a store, or an `EventLog` from anywhere.

    The events of an `EventLog` are taken into memory: each case is a stream `case/…`, each activity a type,
    and the payload is the row of the source, so checks read `one.type` and `one.data`. What must hold always
    (or sometimes) is asked after each `every`-th event, what must hold eventually at the end. There are no
    subscriptions and no outside world: checks look at `look.log` and `look.store`.
    Returns a row for each invariant: invariant, when, holds, position (where it was broken first, or first
    came true if it is a `sometimes`), message (why it is broken, or that it says nothing).
    Raises InvalidArgument for what is no invariant.
    """
    import pandas as pd

    store = log if isinstance(log, Store) else _taken_in(log)
    if not whole(every, "every", "give 1 or more events"):
        raise InvalidArgument("every=0: give 1 or more events")
    checks, head = named(invariants), store.position
    found: dict[str, tuple[bool, int | None, str | None]] = {}
    along = {name: one for name, one in checks.items() if one.when != "eventually"}
    with Bar(0, head, "examine") as bar:
        for position in [*range(every, head, every), head] if along else []:
            look = Look(store.as_of(position), {}, {})
            for name, one in along.items():
                if name in found:
                    continue
                why = one.broken(look)
                if (why is None) == (one.when == "sometimes"):
                    found[name] = one.when == "sometimes", position, why
            bar.at(position)
    end = Look(store, {}, {})
    rows = []
    for name, one in checks.items():
        if one.when == "eventually":
            why = one.broken(end)
            found[name] = why is None, None if why is None else head, why
        holds, at, told = found.get(name, (one.when == "always", None, None))
        if holds and one.when != "sometimes" and not one.had_any(end):
            told = "it had nothing to look at"
        rows.append((name, one.when, holds, at, told))
    frame = pd.DataFrame(rows, columns=["invariant", "when", "holds", "position", "message"])
    return frame.astype({"position": "Int64", "message": "str"})


def _taken_in(log: EventLog) -> Store:
    """Return the events of a log as a store in memory, in order of time."""
    if not hasattr(log, "rows") or not hasattr(log, "mapping"):
        must_be_store(log)  # type: ignore[arg-type]  # it says what is wanted
    found = log.rows(
        """SELECT coalesce("case"::VARCHAR, ''), v, coalesce(activity::VARCHAR, ''), epoch_us(t),
                  to_json(one)::VARCHAR
           FROM events AS one ORDER BY t, s, v"""
    )
    store = MemoryStore()
    rows = []
    for position, (case, version, activity, at, data) in enumerate(found, 1):
        envelope = (None, None, None, uuid7(0, position), at or 0, at, None, None)
        rows.append((position, f"case/{case}", version, activity, 1, data, *envelope))
    store.rewind(rows)
    return store
