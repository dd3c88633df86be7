"""Real logs in four files hold the same events, with the true figures, and go into every format and back.

The history of the Python proposals' status, as XES and as OCEL 2.0 in JSON, SQLite and XML. The XES log has
one event for each proposal that a commit touches, the OCEL log one for each commit and status.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from esim.arrowlog import LINKS
from esim.formats import FORMATS, flatten, read_tables, write_tables
from tests.logs import known

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"
OCEL = ["peps_status.ocel.json", "peps_status.ocel.sqlite", "peps_status.ocel.xml"]
XES = "peps_status.xes.gz"

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not LOGS.exists(), reason=f"the logs are not there: {LOGS} is no folder"),
]


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return dict(json.loads((LOGS / "truth.json").read_text("utf-8")))


def test_the_xes_log_has_the_true_figures(truth: dict[str, Any]) -> None:
    true = truth["peps (status log)"]
    found = read_tables(LOGS / XES)
    events = found.events
    assert events.num_rows == true["events"]
    assert len(set(events.column(found.roles["case"]).to_pylist())) == true["cases"]
    assert Counter(events.column(found.roles["activity"]).to_pylist()) == true["activity_counts"]
    times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in events.column(found.roles["time"]).to_pylist()]
    assert (min(times), max(times)) == (true["first"], true["last"])


@pytest.mark.parametrize("name", OCEL)
def test_each_ocel_log_has_the_true_figures(truth: dict[str, Any], name: str) -> None:
    true = truth["peps_status.ocel"]
    found = read_tables(LOGS / name)
    assert found.events.num_rows == true["events"]
    links = known(found.objects, *LINKS)
    assert len(links) == true["relations"]
    assert Counter(kind for kind, _ in {link[1:3] for link in links}) == true["objects"]


def test_the_three_ocel_logs_are_the_same() -> None:
    first, *others = (read_tables(LOGS / name) for name in OCEL)
    for other in others:
        assert other == first


def test_the_xes_log_and_the_ocel_log_hold_the_same_events() -> None:
    """The OCEL log by proposal: the same commits, at the same times, by the same people."""
    cases = read_tables(LOGS / XES)
    objects = read_tables(LOGS / OCEL[0])
    peps = flatten(objects, "pep").events
    from_xes = known(cases.events, "case:concept:name", "time:timestamp", "commit")
    assert known(peps, "case:concept:name", "time", "commit") == from_xes
    people = {event: id_ for event, kind, id_, _ in known(objects.objects, *LINKS) if kind == "developer"}
    by = known(peps, "case:concept:name", "commit", "event_id")
    assert {(pep, commit, people[event]) for pep, commit, event in by} == set(
        known(cases.events, "case:concept:name", "commit", "org:resource")
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [XES, *OCEL])
def test_each_log_goes_into_each_format_and_back(tmp_path: Path, name: str, format: str) -> None:
    """Nothing is lost in the format's own; in the others each event keeps its activity and its time."""
    once = read_tables(LOGS / name)
    log = flatten(once, "pep") if "xes" in format and "xes" not in name else once
    again = read_tables(write_tables(log, tmp_path / f"log.{format}"))
    roles = ("activity", "time")
    assert known(again.events, *(again.roles[role] for role in roles)) == known(
        log.events, *(log.roles[role] for role in roles)
    )
    if name.endswith(format) or ("ocel" in name and "ocel" in format):
        assert again == once
