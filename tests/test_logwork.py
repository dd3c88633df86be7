"""Bottlenecks, rework, loops and hand-overs of the little shop log, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from tests.test_eventlog import SHOP, logged, row


@pytest.fixture
def log() -> EventLog:
    return logged(SHOP)


def rows(answer: Any, *names: str) -> list[list[Any]]:
    return list(map(list, answer.df[list(names)].itertuples(index=False, name=None)))


def test_bottlenecks_are_ordered_by_the_time_of_all_cases(log: EventLog) -> None:
    """Totals and shares add up, and the longest cases are counted where they pass."""
    found = log.bottlenecks()
    assert rows(found, "source", "target", "count", "total_s", "slow_cases")[0] == [
        "Paid",
        "Shipped",
        2,
        4140,
        1,
    ]
    assert found.df["share"].sum() == pytest.approx(1)
    assert found.df["total_s"].sum() == log.cases().df["duration_s"].sum()


def test_cases_of_one_event_last_no_time() -> None:
    """The tenth of cases that last longest is one of all cases, also of those that have no step."""
    short = [row(f"s{n}", "A", 0) for n in range(10)]
    long = [row(f"c{n}", one, at * n) for n in range(1, 11) for at, one in enumerate("AB")]
    assert rows(logged([*short, *long]).bottlenecks(), "source", "slow_cases") == [["A", 2]]


def test_a_clock_that_runs_back_leaves_shares_between_none_and_all() -> None:
    """A case lasts from its earliest to its latest event; a wait below zero is told, and a share of none."""
    back = [row("a", "A", 100, 1), row("a", "B", 0, 2), row("a", "A", 100, 3)]
    log = logged([*back, row("b", "A", 0, 1), row("b", "B", 60, 2)], order="version", sort="order")
    found = log.bottlenecks()
    assert rows(found, "source", "target", "total_s", "share", "slow_cases") == [
        ["B", "A", 6000, 100 / 160, 1],
        ["A", "B", -2400, 60 / 160, 1],
    ]
    assert found.notes[-1] == (
        "1 step goes back in time: its wait is below zero in the figures, and counts as none in share"
    )
    assert not any("back in time" in note for note in log.with_value("case", "b").bottlenecks().notes)


def test_rework_tells_what_is_done_again() -> None:
    """Repetitions are counted in their cases, those at once apart, with the time between."""
    story = [row("a", one, at, at) for at, one in enumerate(["x", "y", "x", "x", "z", "x"])]
    found = logged([*story, row("b", "x", 0)]).rework()
    names = ("activity", "cases", "repeated_in", "repetitions", "at_once", "most", "median_s")
    assert rows(found, *names) == [["x", 2, 1, 3, 1, 4, 120]]


def test_loops_are_the_ways_back_to_an_activity() -> None:
    """Each round from an activity to its next occurrence is told, longer ones only if wanted."""
    story = [row("a", one, at, at) for at, one in enumerate(["x", "y", "x", "x"])]
    log = logged(story)
    assert rows(log.loops(), "loop", "count", "median_s") == [[["x", "x"], 1, 60], [["x", "y", "x"], 1, 120]]
    one: Any = np.int64(1)
    assert rows(log.loops(one), "loop") == rows(log.loops(1), "loop") == [[["x", "x"]]]
    with pytest.raises(InvalidArgument):
        log.loops(0)


def test_resources_and_hand_overs(log: EventLog) -> None:
    """Who does what, and who passes cases on to somebody else."""
    found = log.resources("who")
    assert rows(found, "resource", "events", "cases", "activities", "main") == [
        ["bob", 4, 2, 2, "Paid"],
        ["ann", 3, 2, 2, "Placed"],
        ["cem", 2, 2, 1, "Shipped"],
    ]
    assert rows(log.handovers("who"), "source", "target", "count", "median_s") == [
        ["bob", "cem", 2, (3600 + 540) / 2],
        ["ann", "bob", 1, 300],
    ]


def test_without_a_resource_one_is_asked_for(log: EventLog) -> None:
    """No column is taken for a person's unless it looks like one."""
    with pytest.raises(InvalidArgument, match="by='assigned_to'"):
        log.resources()


def test_quantiles_may_come_from_numpy(log: EventLog) -> None:
    """They are named as they are written, whatever their precision."""
    given: list[Any] = [[np.float32(0.1), np.float64(0.5)], np.array([0.1, 0.5], dtype="float32")]
    for quantiles in given:
        assert log.durations(quantiles=quantiles).df.equals(log.durations(quantiles=[0.1, 0.5]).df)
