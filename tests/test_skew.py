"""A process whose clock is wrong."""

from __future__ import annotations

from datetime import timedelta

from esim.contract import Store
from esim.envelope import NewEvent
from esim.event import Event
from esim.faults import Faults
from esim.invariant import eventually
from esim.simulation import explore, task


class Ticked(Event):
    pass


def test_a_slow_clock_is_slow_from_the_first_step_on():
    """A plain function, which is one step, reads the wrong time as well."""

    def tick(store: Store) -> None:
        store.append("Clock/1", NewEvent(Ticked(), occurred_at=store.clock.now()))

    seen = set()
    times = eventually(lambda look: seen.add(look.log[0].occurred_at))
    explore([], lambda store: [task(tick, store)], {"times": times}, faults=Faults(skew=1))
    assert max(seen) - min(seen) == timedelta(minutes=90)
