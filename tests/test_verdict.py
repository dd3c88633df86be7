"""What an exploration says of itself, in words and as HTML."""

from __future__ import annotations

from typing import Any

import pytest

from esim.errors import Refused
from esim.event import Event
from esim.faults import Faults
from esim.invariant import always, eventually, sometimes
from esim.scenario import consume, follow, task
from esim.simulation import explore
from esim.world import World


class Placed(Event):
    text: str = "x"


def verdict(invariants: Any, *, text: str = "x", **given: Any) -> Any:
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.text] = seen.get(event.text, 0) + 1

    history = [("Order/1", Placed(text=text))]
    return explore(history, [note], invariants, world=world, confirm=None, **given)


ONCE = eventually(lambda look: max(look.table("seen").values()) == 1)
FINE = always(lambda look: True)


def test_a_proof_says_what_holds_within_which_bounds_and_how_much_that_was():
    """Schedules and states, and that it holds."""
    found = verdict({"once": ONCE}, faults=Faults(preempt=1))
    assert found.holds and found.bounds == "at most 1 preemption"
    told = repr(found)
    assert told.startswith("<proven: 'once' holds in every schedule with at most 1 preemption (1 schedule, ")
    assert "✓" in found._repr_html_()


def test_several_invariants_hold_together():
    """In the plural."""
    assert """'once', "it's fine" hold in every""" in repr(verdict({"once": ONCE, "it's fine": FINE}))
    assert """"it's fine" holds in every""" in repr(verdict({"it's fine": FINE}))
    assert "'once', 'fine' hold in every" in repr(verdict({"once": ONCE, "fine": FINE}))


def test_what_is_broken_is_told_with_the_token_that_replays_it():
    """And shown in red, with the timeline."""
    found = verdict({"once": ONCE}, faults=Faults(crash=1))
    assert not found.holds
    assert found.counterexample.token in repr(found)
    html = found._repr_html_()
    assert "✗" in html and "data:image/svg+xml;base64," in html


def test_bounds_are_part_of_what_is_not_exhausted():
    """It never says proven."""
    found = verdict({"fine": FINE}, faults=Faults(crash=3), schedules=2)
    assert not found.holds
    assert "not exhausted" in repr(found) and "proven" not in repr(found)
    assert "at most 3 crashes" in repr(found)
    assert "?" in found._repr_html_()


def test_an_empty_proof_is_none():
    """It is marked as a question."""
    found = verdict({"fine": FINE, "ever": sometimes(lambda look: False)})
    assert not found.holds and found.exhausted
    assert "an empty proof: 'ever'" in repr(found)
    assert "✓" not in found._repr_html_()


def shelf_at_least_0(actors: Any, **given: Any) -> Any:
    """Return the verdict on what holds whatever these actors do not do."""
    history = [("Order/1", Placed()), ("Order/2", Placed(text="y"))]
    never = always(lambda look: look.table("shelf")["mug"] >= 0)
    world = World()
    world.table("shelf", {"mug": 9})
    return explore(history, actors(world), {"never": never}, faults=Faults(crash=1), world=world, **given)


def unknown(event: Placed) -> None:
    shlef["mug"] -= 1  # type: ignore[name-defined]  # noqa: F821 - that is the mistake


async def unknown_later(event: Placed) -> None:
    unknown(event)


def asks_the_unknown() -> None:
    unknown(Placed())


def queued(world: World) -> list[Any]:
    queue = world.queue("q")
    return [task(queue.publish, 1), consume(queue, lambda body: body.text, "clerk")]


@pytest.mark.parametrize(
    ("actors", "told"),
    [
        (lambda world: [unknown], "unknown gives up 2 of 2 events: NameError: name 'shlef' is not defined"),
        (lambda world: [unknown_later], "unknown_later gives up 2 of 2 events: NameError: "),
        (lambda world: [follow(unknown, on_exhausted="skip")], "unknown gives up 2 of 2 events"),
        (
            lambda world: [follow(unknown, on_exhausted="stop")],
            "unknown gives up 1 of 2 events: HandlerFailed: ",
        ),
        (lambda world: [asks_the_unknown], "asks_the_unknown ends by an error: NameError: "),
        (queued, "clerk gives up 1 of 1 messages: AttributeError: 'int' object has no attribute 'text'"),
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_what_does_nothing_but_fail_proves_nothing(actors, told, strategy):
    """A misspelt name breaks no invariant, as nothing is done at all."""
    found = shelf_at_least_0(actors, strategy=strategy, schedules=9 if strategy == "random" else None)
    assert not found.holds and found.counterexample is None
    assert told in repr(found) and f"without a fault, {told[:7]}" in repr(found)
    assert ("an empty proof: " in repr(found)) is (strategy == "exhaustive")


def test_what_fails_at_one_event_is_told_beside_the_proof():
    """It may be meant so: whoever reads it knows."""

    def half(event: Placed) -> None:
        if event.text == "y":
            raise ValueError("no y")

    found = shelf_at_least_0(lambda world: [half])
    assert found.holds and repr(found).startswith("<proven: ")
    assert "; without a fault, half gives up 1 of 2 events: ValueError: no y" in repr(found)


def test_a_task_that_is_refused_has_done_its_work():
    """Somebody else was first, or the answer was no."""

    def refused() -> None:
        raise Refused("sold out")

    assert "without a fault" not in repr(shelf_at_least_0(lambda world: [refused]))


def test_hostile_text_is_escaped_everywhere():
    """Payloads, messages and names of invariants come from anywhere."""
    bad = "<script>alert(1)</script>"

    def check(look: Any) -> None:
        assert not look.table("seen"), f"{bad} was seen"

    found = verdict({bad: always(check)}, text=bad)
    for html in (
        found._repr_html_(),
        found.counterexample._repr_html_(),
        found.counterexample.run._repr_html_(),
    ):
        assert "<script" not in html
        assert "&lt;script" in html
    assert "<script" not in found.counterexample.run.svg()
