"""Oddities of a log are counted, and their events can be seen."""

from __future__ import annotations

from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.envelope import NewEvent, caused_by
from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from esim.memory import MemoryStore
from tests.pictures import parsed, texts
from tests.test_eventlog import SHOP, START, Paid, Placed, Rows, logged, row


def odd(log: EventLog, **how: Any) -> dict[str, tuple[int, float]]:
    found = log.anomalies(**how).df
    told = zip(found["anomaly"], found["events"], found["amount"], strict=True)
    return {kind: (events, amount) for kind, events, amount in told if events}


def test_a_sound_log_has_none() -> None:
    """Only the tie that it has is told."""
    assert odd(logged(SHOP)) == {"same time as before": (1, 1), "repeated event": (1, 1)}


VERSIONS = [row("a", "x", n, version, position=n) for n, version in enumerate([1, 2, 5, 5, 4])]
VERSIONS += [row("b", "y", 9, 3, position=9), row("c", "z", 9, 1, position=10)]


@pytest.mark.parametrize("rows", [VERSIONS, VERSIONS[::-1]], ids=["oldest first", "newest first"])
def test_versions_that_jump_repeat_or_go_back(rows: Rows) -> None:
    """Gaps, doubles and backward steps are told apart, in the order in which the events were written."""
    log = logged(rows, order="position")
    found = odd(log, version="version")
    assert found["version gap"] == (1, 2)
    assert found["version repeated"] == (1, 1)
    assert found["version goes back"] == (1, 1)
    assert found["late first version"] == (1, 2)
    assert log.anomalies("version gap", "version").df["detail"].tolist() == ["5 after 2"]
    assert log.anomalies("late first version", "version").df["case"].tolist() == ["b"]


@pytest.mark.parametrize("rows", [VERSIONS, VERSIONS[::-1]], ids=["oldest first", "newest first"])
def test_versions_that_are_the_order_themselves(rows: Rows) -> None:
    """Then they have gaps and doubles, but nothing tells whether they were written so."""
    log = logged(rows, order="version")
    found = odd(log)
    assert (found["version gap"], found["version repeated"]) == ((1, 1), (1, 1))
    assert log.anomalies("version gap").df["detail"].tolist() == ["4 after 2"]
    assert "version goes back" in log.anomalies().notes[-2]


def test_of_equally_common_first_versions_the_least_is_usual() -> None:
    """Whatever the rows' order and the threads: all cases but the one that begins with 1 lack a start."""
    rows = [row(f"c{n:02}", "x", n, 1 + n * 7 % 30, position=n) for n in range(30)]
    log = logged(rows, order="position")
    assert odd(log, version="version")["late first version"] == (29, sum(range(30)))
    assert "c00" not in set(log.anomalies("late first version", "version").df["case"])


def test_a_filter_makes_nothing_odd() -> None:
    """What is taken out is not missing: oddities are those of the whole log, told of the events left."""
    sound = logged([row("a", one, n, n + 1) for n, one in enumerate("xyzxy")])
    assert odd(sound.only("x")) == odd(sound.between("2026-01-05T09:02:00Z")) == odd(sound) == {}
    log = logged(VERSIONS, order="position")
    assert odd(log.only("y"), version="version") == {"late first version": (1, 2)}
    late = log.between("2026-01-05T09:02:30Z")
    assert odd(late, version="version")["version repeated"] == (1, 1)
    assert late.anomalies("version repeated", "version").df["v"].tolist() == [1]


def test_a_clock_that_runs_backward() -> None:
    """Against the order of versions, a time before the one before is told with how much."""
    rows = [row("a", "x", 5, 1), row("a", "y", 2, 2), row("a", "z", 6, 3)]
    assert odd(logged(rows))["clock runs backward"] == (1, 180)


@pytest.mark.parametrize("back", [1, -1])
def test_without_an_order_no_clock_runs_backward(back: int) -> None:
    """The order in which rows stand tells nothing of clocks, and the note says so."""
    rows = [{key: one[key] for key in ("case", "activity", "time")} for one in SHOP]
    log = logged(rows[::back])
    assert "clock runs backward" not in odd(log)
    assert "clock runs backward" in log.anomalies().notes[-2]


@pytest.mark.parametrize("silences", [1, 5])
def test_a_silence_in_a_small_log(silences: int) -> None:
    """A few long pauses among 80 are not the usual ones; among 20 events nothing is usual, which is said."""
    rows = [row(str(n), "x", n + 9999 * min(n // 10, silences)) for n in range(80)]
    assert odd(logged(rows))["sudden silence"][0] == silences
    few = logged(rows[:20])
    assert "sudden silence" not in odd(few)
    assert few.anomalies().notes[-1] == (
        "not looked for in 20 events, as so few tell no usual pause: sudden silence"
    )


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
    note = logged([row("a", "x", 0)], order="").anomalies().notes[-2]
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


def test_a_cause_in_another_category_is_not_missing(store: MemoryStore) -> None:
    """Of a part of a store, causes are looked for in the whole store as it was then."""
    with EventLog(store, category="Mail") as log, EventLog(store.as_of(3), category="Stock") as then:
        assert odd(log) == odd(then) == {}
    store.append("Mail/y", NewEvent(Placed(), causation_id="lost"))
    with EventLog(store, category="Mail") as log:
        assert odd(log) == {"missing cause": (1, 1)}


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


def test_a_long_chain_of_causes_is_told_whole() -> None:
    """From the last of 1,300 causes up to the first, and down again; also below a circle."""
    rows = [row("a", "x", n, id=str(n), causation_id=str(n - 1) if n else None) for n in range(1300)]
    found = logged(rows).causes("1299").df
    assert found["event_id"].tolist() == [str(n) for n in range(1300)]
    assert found["depth"].tolist() == list(range(1300))
    circle = [row("a", "x", n, id=str(n), causation_id=cause) for n, cause in enumerate(["1", "0", "1", "2"])]
    assert set(logged(circle).causes("3").df["event_id"]) == {"0", "1", "2", "3"}


def test_without_ids_they_are_asked_for() -> None:
    """A log without event ids or causes says which column it needs."""
    with pytest.raises(InvalidArgument, match="EventLog\\(…, event_id='…'\\)"):
        logged(SHOP).causes("1")


def test_versions_are_numbers() -> None:
    """A column of other texts counts nothing, and is told."""
    with pytest.raises(InvalidArgument, match="is of type VARCHAR, and versions are numbers: name another"):
        logged(SHOP).anomalies(version="who")


def test_the_events_of_an_oddity_have_a_picture() -> None:
    """It tells of which activities they are; where there are none, there is no picture."""
    log = logged(VERSIONS)
    drawn = texts(parsed(log.anomalies("version gap", "version").svg()))
    assert {"x", "1 events", "1 events of 1 cases, by activity."} <= set(drawn)
    assert log.only("y").anomalies("version gap", "version").svg() == ""
