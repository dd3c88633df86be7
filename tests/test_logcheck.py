"""Oddities of a log are counted, and their events can be seen."""

from __future__ import annotations

from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.envelope import caused_by
from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from esim.memory import MemoryStore
from tests.test_eventlog import SHOP, START, Paid, Placed, logged, row


def odd(log: EventLog, **how: Any) -> dict[str, tuple[int, float]]:
    found = log.anomalies(**how).df
    told = zip(found["anomaly"], found["events"], found["amount"], strict=True)
    return {kind: (events, amount) for kind, events, amount in told if events}


def test_a_sound_log_has_none() -> None:
    """Only the tie that it has is told."""
    assert odd(logged(SHOP)) == {"same time as before": (1, 1), "repeated event": (1, 1)}


def test_versions_that_jump_repeat_or_go_back() -> None:
    """Gaps, doubles and backward steps are told apart, in the order in which the events were written."""
    versions = [1, 2, 5, 5, 4]
    rows = [row("a", "x", n, version) for n, version in enumerate(versions)]
    rows += [row("b", "x", 9, 3), row("c", "x", 9, 1)]
    found = odd(logged(rows))
    assert found["version gap"] == (1, 2)
    assert found["version repeated"] == (1, 1)
    assert found["version goes back"] == (1, 1)
    assert found["late first version"] == (1, 2)
    log = logged(rows)
    assert log.anomalies("version gap").df["detail"].tolist() == ["5 after 2"]
    assert log.anomalies("late first version").df["case"].tolist() == ["b"]


def test_a_clock_that_runs_backward() -> None:
    """Against the order of versions, a time before the one before is told with how much."""
    rows = [row("a", "x", 5, 1), row("a", "y", 2, 2), row("a", "z", 6, 3)]
    assert odd(logged(rows))["clock runs backward"] == (1, 180)


def test_a_sudden_silence() -> None:
    """A pause far longer than nearly all others is told at the event before it."""
    rows = [row(f"c{n}", "x", n + (600 if n == 299 else 0)) for n in range(300)]
    log = logged(rows)
    assert odd(log) == {"sudden silence": (1, 601 * 60)}
    assert log.anomalies("sudden silence").df["case"].tolist() == ["c298"]


def test_causes_that_are_missing() -> None:
    """A cause outside of the log, and an event in a story that nothing caused, are told."""
    rows = [
        row("a", "x", 0, id="1", correlation_id="s", causation_id=None),
        row("a", "y", 1, id="2", correlation_id="s", causation_id="1"),
        row("a", "z", 2, id="3", correlation_id="s", causation_id="9"),
        row("a", "z", 3, id="3", correlation_id="s", causation_id=None),
    ]
    found = odd(logged(rows))
    assert (found["missing cause"], found["uncaused"], found["event id repeated"]) == ((1, 1), (1, 1), (1, 1))
    with pytest.raises(InvalidArgument, match="did you mean 'missing cause'"):
        logged(rows).anomalies("missing causes")


def test_what_is_not_looked_for_is_said() -> None:
    """Without a column for it, an oddity is not told as absent."""
    note = logged([row("a", "x", 0)], order="").anomalies().notes[-1]
    assert note.startswith("not looked for, as no column tells: version gap, version repeated")


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore(clock=ManualClock(START), ids=SeededIds(1))
    first = made.append("Order/a", Placed())[0]
    with caused_by(first):
        second = made.append("Order/a", Paid())[0]
        made.append("Stock/m", Paid())
    with caused_by(second):
        made.append("Mail/x", Placed())
    made.append("Order/b", Placed())
    return made


def test_the_causes_of_an_event_are_a_tree(store: MemoryStore) -> None:
    """From any event of the story, the tree begins at the first cause and says how deep each is."""
    with EventLog(store) as log:
        for recorded in list(store.read())[:4]:
            found = log.causes(recorded.event_id).df
            assert list(zip(found["depth"], found["case"], strict=True)) == [
                (0, "Order/a"), (1, "Order/a"), (2, "Mail/x"), (1, "Stock/m"),
            ]  # fmt: skip
            assert found["event_id"][found["asked"]].tolist() == [str(recorded.event_id)]
        assert len(log.causes(list(store.read())[4].event_id)) == 1


def test_the_journey_of_an_event_is_its_whole_story(store: MemoryStore) -> None:
    """All events of one correlation, those of other stories not."""
    with EventLog(store) as log:
        last = list(store.read())[3]
        assert log.journey(last.event_id).df["case"].tolist() == ["Order/a", "Order/a", "Stock/m", "Mail/x"]
        with pytest.raises(InvalidArgument, match="no event nothing"):
            log.journey("nothing")


def test_a_circle_of_causes_ends() -> None:
    """Events that cause each other are told once each."""
    rows = [row("a", "x", n, id=str(n), causation_id=str(1 - n), correlation_id="s") for n in range(2)]
    assert len(logged(rows).causes("0")) == 2


def test_without_ids_they_are_asked_for() -> None:
    """A log without event ids or causes says which column it needs."""
    with pytest.raises(InvalidArgument, match="EventLog\\(…, event_id='…'\\)"):
        logged(SHOP).causes("1")


def test_versions_are_numbers() -> None:
    """A column of other texts counts nothing, and is told."""
    with pytest.raises(InvalidArgument, match="is of type VARCHAR, and versions are numbers: name another"):
        logged(SHOP).anomalies(version="who")
