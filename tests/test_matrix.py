"""A crash at each place, in one table for each process."""

from __future__ import annotations

from typing import Any

import pytest

from esim import simulation
from esim.envelope import RecordedEvent
from esim.errors import Unsteady
from esim.event import Event
from esim.faults import Faults
from esim.invariant import always, eventually
from esim.projection import Key, Row, Rows
from esim.simulation import crash_matrix, follow, replay
from esim.world import World


class Placed(Event):
    n: int = 1


HISTORY = [(f"Order/{n}", Placed()) for n in range(3)]


class Sold(Row):
    name: Key[str]
    n: int = 0


def naive(count: int = 2, name: str = "stock") -> tuple[Any, ...]:
    world = World()
    table = world.table(name, {"mug": 9})

    def deduct(event: Placed) -> None:
        table["mug"] -= 1

    history = [(f"Order/{n}", Placed()) for n in range(count)]
    right = eventually(lambda look: look.table(name)["mug"] == 9 - count)
    return history, [deduct], {"right": right}, world


def matrix(*given: Any, **named: Any) -> Any:
    history, actors, invariants, world = given or naive(**named)
    return crash_matrix(history, actors, invariants, world=world)


def test_a_naive_handler_fails_between_its_write_and_the_commit():
    """A row for each event, a column for each place, and how many crashes do no harm."""
    made = matrix()
    lines = repr(made).splitlines()
    assert lines[0] == "<8 of 12 crashes do no harm>"
    assert lines[1].split(" | ")[0] == "event" and "before stock" in lines[1]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["1 Placed", "2 Placed"]
    assert all(line.count("✗") == 2 and line.count("✓") == 4 for line in lines[2:])
    assert not made.holds


def test_rows_in_one_transaction_hold_everywhere():
    """No ✗ at all."""

    def sell(event: Placed, rows: Rows[Sold]) -> None:
        row = rows.get("all") or Sold(name="all")
        rows.put(row.but(n=row.n + 1))

    right = eventually(lambda look: look.rows()[0].n == 2)
    history = [(f"Order/{n}", Placed()) for n in range(2)]
    made = matrix(history, [sell], {"right": right}, World())
    assert made.holds and "✗" not in repr(made) + made._repr_html_()


def test_each_process_has_a_table_of_its_own():
    """Under its name, with the places at which that process can die."""
    history, actors, _, world = naive(1)
    made = matrix(
        history, [*actors, follow(actors[0], "other")], {"any": eventually(lambda look: True)}, world
    )
    first, one, header, row, other, *rest = repr(made).splitlines()
    assert first == "<12 of 12 crashes do no harm>"
    assert (one, other) == ("deduct:", "other:")
    assert header.startswith("event | before it begins | ") and rest == [header, row]
    assert made._repr_html_().count("<table>") == 2


def test_each_cell_replays_by_its_token():
    """The dataframe has one for each crash."""
    history, actors, invariants, world = naive()
    told = crash_matrix(history, actors, invariants, world=world).df()
    assert list(told.columns) == ["process", "position", "place", "told", "holds", "token"]
    for row in told.itertuples():
        run = replay(row.token, history, actors, invariants, faults=Faults(crash=1), world=world)
        assert (run.broken is None) == row.holds


def test_hostile_names_are_escaped():
    """A table may be called anything."""
    html = matrix(name="<img src=x>")._repr_html_()
    assert "<img" not in html and "&lt;img" in html


def test_an_empty_history_has_an_empty_matrix():
    """Nothing happens, and nothing breaks."""
    made = matrix(count=0)
    assert made.holds
    assert "0 of 0 crashes" in repr(made)
    assert len(made.df()) == 0


def test_what_is_broken_without_a_crash_holds_nowhere_and_says_so():
    """Every event has its row all the same."""
    world = World()
    table = world.table("<stock>", {"mug": 9})

    def deduct(event: Placed) -> None:
        table["mug"] -= 1

    history = [(f"Order/{n}", Placed()) for n in range(2)]
    full = {"<full>": always(lambda look: look.table("<stock>")["mug"] == 9)}
    made = matrix(history, [deduct], full, world)
    assert not made.holds
    first, _, *rows = repr(made).splitlines()
    assert first == "<broken without a crash: '<full>', it does not hold; 0 of 12 crashes do no harm>"
    assert [row.split(" | ")[0] for row in rows] == ["1 Placed", "2 Placed"]
    html = made._repr_html_()
    assert "broken without a crash: &#x27;&lt;full&gt;&#x27;" in html and "<full>" not in html
    nothing = matrix([], [], {"never": always(lambda look: False)}, World())
    assert not nothing.holds and "broken without a crash: 'never'" in repr(nothing)


def test_what_does_nothing_but_fail_holds_nowhere():
    """No crash does harm to it, as nothing is done."""
    history, _, _, world = naive()

    def unknown(event: Placed) -> None:
        raise KeyError(event.n)

    made = matrix(history, [unknown], {"any": eventually(lambda look: True)}, world)
    assert not made.holds
    assert "<without a crash, unknown gives up 2 of 2 events: KeyError: 1; " in repr(made)


def test_a_matrix_of_what_is_kept_in_memory_after_a_crash_alone_is_none():
    """One crash would have the others do harm: each begins as a process does that has just been started."""
    world, met = World(), list[int]()
    seen = world.table("seen")

    def note(event: Placed, recorded: RecordedEvent[Placed]) -> None:
        if recorded.position == 2 and recorded.position in seen:
            met.append(recorded.position)
        seen[recorded.position] = not met or recorded.position != 3

    with pytest.raises(Unsteady, match="'met' of note changed"):
        crash_matrix(HISTORY, [note], world=world)
    assert met == []


def test_code_that_does_not_come_to_where_it_would_die_is_unsteady(monkeypatch):
    """A crash at a place that is not there any more is none that does no harm."""
    monkeypatch.setattr(simulation, "unsteady", lambda scenario: None)  # so that a crash is the first to show
    rest = iter(range(3))  # nobody can put back what of it is used up
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        if next(rest, None) is not None:
            seen[len(seen)] = True

    with pytest.raises(Unsteady, match="a schedule that was run before goes another way"):
        crash_matrix(HISTORY, [note], world=world)
