"""Causes and effects where event ids are repeated."""

from __future__ import annotations

from typing import Any

from esim.eventlog import EventLog
from tests.test_eventlog import logged, row


def told(log: EventLog, event_id: str) -> list[tuple[Any, ...]]:
    found = log.causes(event_id).df
    names = ("depth", "event_id", "caused_by", "since_s")
    columns = (found[name].astype(object).where(found[name].notna(), None) for name in names)
    return list(zip(*columns, strict=True))


def event(minute: int, event_id: str, cause: str | None = None, activity: str = "x") -> dict[str, Any]:
    return row("a", activity, minute, minute, id=event_id, causation_id=cause)


CHAIN = [event(0, "e1"), event(1, "e2", "e1"), event(2, "e3", "e2")]
TREE = [(0, "e1", None, None), (1, "e2", "e1", 60), (2, "e3", "e2", 60)]


def test_an_event_that_is_there_twice_is_told_once() -> None:
    """What is the same in all is one event, and its effects are not doubled; that it is so is said."""
    log = logged([*CHAIN, *CHAIN[:2], *CHAIN[:1]])
    for one in ("e1", "e2", "e3"):
        assert told(log, one) == TREE
        assert log.causes(one).notes[-1] == (
            "2 of these ids are repeated, by 3 rows: rows that are the same are told once, others each; "
            "the time since a cause is from its earliest"
        )
    assert not any("repeated" in note for note in logged(CHAIN).causes("e2").notes)


def test_an_id_of_several_events_tells_each_of_them_once() -> None:
    """Each row that differs is told, at the place of its id, and what the id led to is told once."""
    log = logged([event(0, "e1"), event(1, "e1", "cmd"), event(2, "e2", "e1"), event(3, "e3", "e2")])
    for one in ("e1", "e2", "e3"):
        assert told(log, one) == [
            (0, "e1", None, None), (0, "e1", "cmd", None), (1, "e2", "e1", 120), (2, "e3", "e2", 60),
        ]  # fmt: skip


def test_an_effect_of_two_causes_is_told_below_the_first() -> None:
    """Also where ways part and meet again many times over."""
    steps = [(f"{n}", f"{n}{side}") for n in range(30) for side in "lr"]
    steps += [(f"{n}{side}", f"{n + 1}") for n in range(30) for side in "lr"]
    rows = [event(0, "0"), *(event(n, effect, cause) for n, (cause, effect) in enumerate(steps, 1))]
    found = logged(rows).causes("30").df
    assert len(found) == len(rows)
    assert found.groupby("event_id")["depth"].nunique().max() == 1
    assert found["depth"].max() == 60


def test_a_circle_that_a_cause_leads_into_is_told() -> None:
    """Where ids have several causes, and times run against them, nothing is lost."""
    log = logged([event(0, "a", "b"), event(5, "b", "a"), event(6, "b", "root"), event(9, "root")])
    assert [one[:3] for one in told(log, "root")] == [
        (0, "root", None), (0, "a", "b"), (0, "b", "a"), (0, "b", "root"),
    ]  # fmt: skip
