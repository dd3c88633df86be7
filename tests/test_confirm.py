"""Counterexamples run again on a DuckDB store."""

from __future__ import annotations

from esim.event import Event
from esim.faults import Faults
from esim.invariant import no_effect_twice
from esim.simulation import consume, explore, follow, task
from esim.world import World


class Rung(Event):
    bell: str


def test_what_is_broken_at_a_moment_is_confirmed_at_that_moment():
    """An invariant that is broken in the middle of a catch-up ends the run there on each kind of store."""
    world = World()
    mail = world.service("mail")

    def write(event: Rung) -> None:
        mail(event.bell)

    history = [("Bell/1", Rung(bell="a")), ("Bell/2", Rung(bell="b"))]
    found = explore(
        history, [follow(write)], [no_effect_twice("mail")], faults=Faults(crash=1), world=world
    ).counterexample
    assert found is not None
    assert found.confirmed == "confirmed on a DuckDB store: the same end"


def test_what_goes_round_in_circles_is_confirmed():
    """A run without an end has none on a DuckDB store either, and how far it came is not compared."""
    world = World()
    queue = world.queue("queue")

    def again(body: str) -> None:
        queue.publish(body)

    found = explore([], [task(queue.publish, "x"), consume(queue, again)], [], world=world).counterexample
    assert found is not None
    assert found.invariant == "it comes to an end"
    assert found.confirmed == "confirmed on a DuckDB store: there is no end there either"
