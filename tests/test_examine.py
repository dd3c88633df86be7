"""Invariants that are asked of recorded logs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from esim.errors import InvalidArgument
from esim.event import Event
from esim.eventlog import EventLog
from esim.invariant import (
    Look,
    always,
    completed_xor_compensated,
    contiguous_versions,
    eventually,
    sometimes,
)
from esim.memory import MemoryStore
from esim.simulation import examine


class Sold(Event):
    seat: str


class Freed(Event):
    seat: str


@pytest.fixture
def log() -> MemoryStore:
    """Three seats sold, one of them twice, at position 3."""
    store = MemoryStore()
    for seat in ("A1", "A2", "A1", "A3"):
        store.append(f"Seat/{seat}", Sold(seat=seat))
    return store


def once(look: Look) -> None:
    seats = [one.data["seat"] for one in look.log]
    twice = sorted({seat for seat in seats if seats.count(seat) > 1})
    assert not twice, f"sold twice: {twice}"


def found(frame: pd.DataFrame) -> list[Any]:
    return frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


def test_an_invariant_is_broken_where_it_was_broken_first(log):
    assert found(examine(log, {"once": always(once)})) == [["once", "always", False, 3, "sold twice: ['A1']"]]


def test_what_holds_has_no_position_and_what_must_hold_in_the_end_is_asked_there(log):
    checks = {
        "few": always(lambda look: len(look.log) < 9),
        "four": eventually(lambda look: len(look.log) == 4),
        "five": eventually(lambda look: len(look.log) == 5),
    }
    assert found(examine(log, checks)) == [
        ["few", "always", True, None, None],
        ["four", "eventually", True, None, None],
        ["five", "eventually", False, 4, "it does not hold"],
    ]


def test_what_is_to_hold_sometimes_says_where_it_came_true(log):
    checks = {
        "two": sometimes(lambda look: len(look.log) == 2),
        "ten": sometimes(lambda look: len(look.log) == 10),
    }
    assert [row[2:4] for row in found(examine(log, checks))] == [[True, 2], [False, None]]


def test_a_log_may_be_looked_at_now_and_then_and_always_at_its_end(log):
    assert found(examine(log, {"once": always(once)}, every=2))[0][3] == 4


def test_what_is_ready_made_says_where_it_had_nothing_to_look_at(log):
    """It holds, and that says nothing."""
    checks = {
        "settled": completed_xor_compensated(Sold, Freed, started=Freed),
        "versions": contiguous_versions(),
    }
    assert found(examine(log, checks)) == [
        ["settled", "eventually", True, None, "it had nothing to look at"],
        ["versions", "always", True, None, None],
    ]


def test_an_imported_log_is_asked_in_order_of_time():
    """Rows of a dataframe in any order: each case is a stream, each activity a type, the row its payload."""
    at = pd.to_datetime(["2026-01-03", "2026-01-01", "2026-01-02"], utc=True)
    frame = pd.DataFrame(
        {"case": ["a", "a", "b"], "activity": ["Paid", "New", "New"], "time": at, "n": [3, 1, 2]}
    )
    seen: list[Any] = []

    def look_at(look: Look) -> None:
        seen[:] = [(one.stream, one.version, one.type, one.data["n"]) for one in look.log]

    assert found(examine(EventLog(frame), {"seen": always(look_at)}))[0][2]
    assert seen == [("case/a", 1, "New", 1), ("case/b", 1, "New", 2), ("case/a", 2, "Paid", 3)]


def test_an_empty_log_breaks_nothing():
    checks = {"once": always(once), "none": eventually(lambda look: not look.log)}
    assert [row[2] for row in found(examine(MemoryStore(), checks))] == [True, True]


def test_what_is_no_log_and_no_number_is_told():
    with pytest.raises(InvalidArgument, match="is no store"):
        examine("shop.duckdb", {"once": always(once)})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="every=0"):
        examine(MemoryStore(), {"once": always(once)}, every=0)
