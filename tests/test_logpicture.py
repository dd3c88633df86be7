"""Every answer about a log that can be drawn shows its picture, drawn when it is looked at."""

from __future__ import annotations

import pandas as pd
import pytest

from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from esim.logrule import Rule
from esim.processgraph import ProcessGraph, mermaid
from esim.view import ProcessMap
from tests.pictures import HOSTILE, inside, parsed, texts

ROWS = [
    ("c1", "ask", 0, "e1", None),
    ("c1", "pay", 60, "e2", "e1"),
    ("c1", "pay", 120, "e3", "e2"),
    ("c2", "ask", 30, "e4", None),
    ("c2", "send", 3600, "e5", "e4"),
    ("c3", "ask", 90, "e6", None),
]


def frame() -> pd.DataFrame:
    day = pd.Timestamp("2026-03-01", tz="UTC")
    return pd.DataFrame(
        {
            "case": [row[0] for row in ROWS],
            "activity": [row[1] for row in ROWS],
            "time": [day + pd.Timedelta(seconds=row[2]) for row in ROWS],
            "event_id": [row[3] for row in ROWS],
            "causation_id": [row[4] for row in ROWS],
            "correlation_id": ["s1", "s1", "s1", "s2", "s2", "s3"],
            "user": ["ann", "bob", "bob", "ann", "cem", "bob"],
        }
    )


@pytest.fixture
def log() -> EventLog:
    return EventLog(frame(), objects={"person": "user"})


DRAWN = {
    "summary": (lambda log: log.summary(), "cases with rework (1)"),
    "payloads": (lambda _: EventLog(frame().assign(sum=3)).payloads("hour"), "ask · sum"),
    "difference": (lambda log: log.only("ask", "pay").difference(log, of="activities"), "+10.0"),
    "difference of steps": (lambda log: log.difference(log.where("\"user\" <> 'cem'")), "ask → send"),
    "difference of variants": (lambda log: log.difference(log.sized(2), of="variants"), "as → pa → pa"),
    "deviations": (lambda log: log.deviations([("ask", "pay")]), "✗ ask → send"),
    "deviations from rules": (lambda log: log.deviations(Rule(when="ask", then="pay")), "2 times"),
    "activities": (lambda log: log.activities(), "3 events"),
    "start_end": (lambda log: log.start_end(), "first: ask"),
    "directly_follows": (lambda log: log.directly_follows(), "3 · 100 % of cases"),
    "counts alone": (lambda log: log.directly_follows(times=False), "start · 3 cases"),
    "variants": (lambda log: log.variants(), "what happens, in this order"),
    "some variants": (lambda log: log.variants(1), "33.3 %"),
    "cases": (lambda log: log.cases(), "cases"),
    "longest cases": (lambda log: log.cases(2), "2 min"),
    "durations": (lambda log: log.durations(), "all cases"),
    "durations by": (lambda log: log.durations(by="user"), "ann"),
    "funnel": (lambda log: log.funnel("ask", "pay"), "↓ 33.3 % go on, after 1 min (median)"),
    "rework": (lambda log: log.rework(), "1 repetitions"),
    "loops": (lambda log: log.loops(), "pay → pay"),
    "bottlenecks": (lambda log: log.bottlenecks(), "ask → send"),
    "rates": (lambda log: log.rates("hour"), "events"),
    "rates by": (lambda log: log.rates("hour", by="activity"), "send"),
    "cohorts": (lambda log: log.cohorts("day"), "2026-03-01"),
    "dots": (lambda log: log.dots(), "send"),
    "resources": (lambda log: log.resources(), "cem"),
    "handovers": (lambda log: log.handovers(), "ann → bob"),
    "objects": (lambda log: log.objects(), "person"),
    "objects' graph": (lambda log: log.object_directly_follows("person"), "start · 3 cases"),
    "causes": (lambda log: log.causes("e3"), "c1 · 1 min  ◂ asked about"),
    "journey": (lambda log: log.journey("e4"), "c2 · 1 h"),
    "anomalies": (lambda log: EventLog(pd.concat([frame(), frame()])).anomalies(), "event id repeated"),
    "transitions": (lambda log: log.conformance([("ask", "pay")]), "✗ ask → send"),
    "rules": (lambda log: log.conformance(Rule(when="ask", then="pay")), "2 times broken"),
    "as of": (lambda log: log.as_of("2026-03-01T00:01:00Z"), "1 cases"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_an_answer_shows_its_picture_above_a_short_table(log: EventLog, name: str) -> None:
    """The picture is whole and says what it should; the notebook gets it as an image, with words for it."""
    ask, told = DRAWN[name]
    answer = ask(log)
    root = parsed(answer.svg())
    inside(root)
    assert told in texts(root)
    shown = answer._repr_html_()
    assert '<img src="data:image/svg+xml;base64,' in shown and f'alt="{answer.title}' in shown
    assert "<table>" in shown and "<svg" not in shown
    assert answer.picture._repr_html_() in shown
    assert repr(answer) == repr(ask(log))


def test_a_graph_counts_activities_beginnings_and_ends(log: EventLog) -> None:
    """How many cases begin and end with an activity follows from its count and its flows."""
    graph = log.directly_follows().graph
    assert isinstance(graph, ProcessGraph)
    assert (graph.starts, graph.ends) == ({"ask": 3}, {"ask": 1, "pay": 1, "send": 1})
    assert [(one.name, one.times) for one in graph.activities] == [("ask", 3), ("pay", 2), ("send", 1)]
    assert "flowchart" in mermaid(graph)


def test_the_slider_takes_an_answer_that_is_a_graph(log: EventLog) -> None:
    """Any other answer says what to ask for."""
    assert "100 % of 3 transitions" in repr(ProcessMap(log.directly_follows()))
    with pytest.raises(InvalidArgument, match="'Summary' is no graph: ask directly_follows"):
        ProcessMap(log.summary())
    with pytest.raises(InvalidArgument, match="'What directly follows what' has no picture"):
        _ = log.only("send").directly_follows().picture


def test_a_large_graph_is_thinned_and_says_so() -> None:
    """Of 100 flows 55 are drawn at most, and the picture and its alternative text say of how many."""
    names = [f"a{n}" for n in range(10)]
    rows = [(f"c{x}{y}", one, n) for x in names for y in names for n, one in enumerate((x, y))]
    times = [pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(hours=n) for *_, n in rows]
    made = pd.DataFrame({"case": [r[0] for r in rows], "activity": [r[1] for r in rows], "time": times})
    shown = EventLog(made).directly_follows()
    assert len(shown) == 100
    assert "of 100 edges" in shown._repr_html_()


def test_an_answer_of_a_log_that_is_closed_still_shows_its_table() -> None:
    """A graph asks the log for its activities; without it there is no picture, and the reason is said."""
    with EventLog(frame()) as log:
        flows, ways = log.directly_follows(), log.variants()
    assert "no picture, for which the log is asked again" in flows._repr_html_()
    assert "<td" in flows._repr_html_()
    assert "<img" in ways._repr_html_()


def test_an_empty_answer_has_a_table_and_no_picture(log: EventLog) -> None:
    """Where nothing is left, nothing is drawn."""
    nothing = log.where("false")
    answers = (nothing.activities(), nothing.directly_follows(), nothing.variants(), nothing.cases())
    for answer in (*answers, nothing.summary(), nothing.payloads(), log.difference(log)):
        assert answer.svg() == ""
        assert "<table>" in answer._repr_html_()


def test_hostile_names_are_drawn_as_text() -> None:
    """Whatever an activity, a case or a person is called, the picture is whole."""
    names = [name for name in HOSTILE if name.strip() and "\ud800" not in name and "\x00" not in name]
    times = pd.date_range("2026-01-01", periods=len(names), freq="h", tz="UTC")
    log = EventLog(
        pd.DataFrame({"case": ["c"] * len(names), "activity": names, "time": times, "user": names})
    )
    for answer in (log.activities(), log.directly_follows(), log.variants(), log.resources(), log.dots()):
        parsed(answer.svg())
        assert "<script" not in answer._repr_html_()


def test_a_picture_is_saved(log: EventLog, tmp_path) -> None:
    """As an SVG file, the same text."""
    picture = log.activities().picture
    path = picture.save(tmp_path / "activities.svg")
    assert path.read_text(encoding="utf-8") == picture.svg
    assert repr(picture).startswith("<Picture: Activities")
