"""Rates, cohorts, funnels and dots count what a reader of the little shop log counts by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from tests.test_eventlog import SHOP, logged, row


@pytest.fixture
def log() -> EventLog:
    return logged(SHOP)


def rows(answer: Any, *names: str) -> list[list[Any]]:
    return list(map(list, answer.df[list(names)].itertuples(index=False, name=None)))


def test_rates_have_every_period_between_first_and_last(log: EventLog) -> None:
    """Periods without an event are there with zeros, and open cases are those begun and not over."""
    far = logged([*SHOP, row("d", "Placed", 200)])
    found = far.rates("hour")
    assert rows(found, "events", "cases", "started", "ended", "open") == [
        [8, 3, 3, 2, 1],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],
    ]
    assert found.df["period"].iloc[0] == pd.Timestamp("2026-01-05T09:00Z")


@pytest.mark.parametrize("every", ["minute", "hour", "day", "week", "month", "quarter", "year"])
def test_every_period_counts_all_events(log: EventLog, every: str) -> None:
    """Whatever the period, the sums are those of the log."""
    found = log.rates(every).df
    assert (found["events"].sum(), found["started"].sum(), found["ended"].sum()) == (9, 3, 3)
    assert log.rates(every, by="activity").df["events"].sum() == 9


def test_rates_by_a_column(log: EventLog) -> None:
    """Each value has its own row in a period."""
    assert rows(log.rates("day", by="who"), "value", "events", "cases") == [
        ["ann", 3, 2],
        ["bob", 4, 2],
        ["cem", 2, 2],
    ]


def test_cohorts_tell_who_comes_back() -> None:
    """Customers that first bought in a month are counted in each later month in which they buy."""
    month = 60 * 24 * 31
    bought = [row(f"o{n}", "Bought", at * month, who=who) for n, (who, at) in enumerate(
        [("ann", 0), ("ann", 1), ("ann", 1), ("bob", 0), ("cem", 1), ("ann", 2), ("cem", 2)]
    )]  # fmt: skip
    found = logged(bought).cohorts("month", by="who")
    assert rows(found, "size", "age", "active", "retention") == [
        [2, 0, 2, 1.0],
        [2, 1, 1, 0.5],
        [2, 2, 1, 0.5],
        [1, 0, 1, 1.0],
        [1, 1, 1, 1.0],
    ]


def test_nobody_comes_back_is_a_zero() -> None:
    """Each age that is over has a row, and none that is yet to come, also where a filter ends the log."""
    month = 60 * 24 * 31
    log = logged([row("a", "x", 0), row("b", "x", 0), *(row("c", "x", n * month) for n in (2, 3))])
    names = ("size", "age", "active")
    assert rows(log.cohorts(), *names) == [
        [2, 0, 2], [2, 1, 0], [2, 2, 0], [2, 3, 0], [1, 0, 1], [1, 1, 1],
    ]  # fmt: skip
    for early in (
        log.between(end="2026-03-01T00:00:00Z"),
        log.with_value("case", "a").between(end="2026-02-02T00:00:00Z"),
    ):
        assert early.cohorts().df["age"].tolist() == [0, 1]
    assert log.with_value("case", "a").cohorts().df["active"].tolist() == [1, 0, 0, 0]
    with pytest.raises(InvalidArgument, match="give a longer period"):
        logged([row("a", "x", n) for n in (0, 20 * 12 * month)] + [row("a", "x", 9)]).cohorts("minute")


def test_a_filter_of_other_things_than_time_leaves_the_last_age() -> None:
    """The log tells of its last moment, though it is the first one of a period and what was there is gone."""
    log = logged([row("a", "x", 0), row("a", "y", 60), row("b", "x", 120), row("b", "y", 180)])
    ages = log.cohorts("hour").df["age"].tolist()
    assert ages == [0, 1, 2, 3, 0, 1]
    for one in (log.only("x"), log.without("y").between("2026-01-01T00:00:00Z"), log.where("activity = 'x'")):
        assert one.cohorts("hour").df["age"].tolist() == ages
    assert log.only("x").between(end="2026-01-05T12:00:00Z").cohorts("hour").df["age"].tolist() == [
        0,
        1,
        2,
        0,
    ]
    assert len(log.only("x").between(end="2025-01-01T00:00:00Z").cohorts("hour")) == 0


def test_a_funnel_counts_cases_that_take_the_steps_in_order(log: EventLog) -> None:
    """Each step must come after the one before; the times are between the steps."""
    found = log.funnel("Placed", "Paid", "Shipped")
    assert rows(found, "activity", "cases", "overall") == [
        ["Placed", 3, 1.0],
        ["Paid", 2, 2 / 3],
        ["Shipped", 2, 2 / 3],
    ]
    assert found.df["median_s"].tolist()[1:] == [(300 + 60) / 2, (3600 + 540) / 2]
    assert log.funnel("Paid", "Paid", "Paid").df["cases"].tolist() == [2, 1, 0]
    assert log.funnel("Shipped", "Placed").df["cases"].tolist() == [2, 0]


def test_dots_are_events_or_cells(log: EventLog) -> None:
    """Few events are shown one by one, many are gathered, and none is lost."""
    found = log.dots()
    assert rows(found, "case", "row", "since_s")[:4] == [
        ["a", 0, 0],
        ["a", 0, 300],
        ["a", 0, 3900],
        ["b", 1, 0],
    ]
    gathered = log.dots(most=4)
    assert gathered.df["events"].sum() == 9
    assert gathered.notes[-1] == "9 events, gathered in a grid of 2 by 2 cells"
    assert (gathered.df["time"].min(), gathered.df["time"].max()) == (
        found.df["time"].min(),
        found.df["time"].max(),
    )


@pytest.mark.parametrize(("cases", "most", "first"), [(10, 9, [0, 4, 7]), (7, 5, [0, 4]), (3, 4, [0, 2])])
def test_gathered_dots_are_in_the_row_of_the_first_of_their_cases(
    cases: int, most: int, first: list[int]
) -> None:
    """Cells that gather cases 0 to 3 are in row 0, and those of 4 to 6 in row 4."""
    log = logged([row(f"c{n:02}", one, n) for n in range(cases) for one in "AB"])
    assert sorted(set(log.dots(most).df["row"])) == first


def test_gathered_dots_do_not_hide_each_other() -> None:
    """A cell is drawn once, as its commonest activity; the picture spans the whole time, and says so."""
    made = [row(str(n), one, n * 1440) for n in range(100) for one in "ABBC"]
    answer = logged(made, order="").dots(100)
    assert answer.df["events"].sum() == 400
    told = "Each is the commonest activity in a cell; the cells have 400 events."
    assert f"Shown: 10 of 10 dots. {told} From 5 Jan 2026 to 14 Apr 2026 (UTC)." in answer.svg()
    assert "<title>B</title>" in answer.svg() and "<title>A</title>" not in answer.svg()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda log: log.rates("moment"),
        lambda log: log.cohorts("x'; DROP"),
        lambda log: log.rates(by="whom"),
        lambda log: log.funnel(),
        lambda log: log.funnel("Payed"),
        lambda log: log.dots(most=-1),
    ],
)
def test_wrong_questions_are_told(log: EventLog, wrong: Any) -> None:
    """A period, column or activity that there is not is named."""
    with pytest.raises(InvalidArgument):
        wrong(log)


def test_an_empty_log_has_no_rates_dots_or_funnel() -> None:
    """Nothing happened, and nothing is told."""
    empty = logged(SHOP).where("false")
    assert [len(one) for one in (empty.rates(), empty.cohorts(), empty.dots())] == [0, 0, 0]
    assert empty.funnel("Placed", "Paid").df["cases"].tolist() == [0, 0]


def test_dots_at_the_end_of_all_days() -> None:
    """A time far off makes the grid wide, and no number too large."""
    far = [{**row("a", "Placed", n), "time": "2026-01-05"} for n in range(20)]
    log = logged([*far, {**far[0], "time": "9999-12-31"}])
    assert rows(log.dots(most=16), "events") == [[20], [1]]
