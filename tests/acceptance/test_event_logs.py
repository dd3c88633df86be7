"""Real logs give the figures that two other programs found, in whatever order their rows come.

The incident log is ordered by time, ties by position; the Python proposals by time, ties by version. Times
carry no zone and are taken as UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from esim.eventlog import EventLog
from esim.formats import FORMATS

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"
STATUS = f"""SELECT stream, version, ts, coalesce(data->>'status', data->>'to') AS st
FROM read_parquet('{LOGS / "peps.parquet"}')
WHERE type IN ('PepCreated', 'StatusChanged') AND st IS NOT NULL"""
INCIDENTS = {"case": "incident", "activity": "state", "time": "sys_updated_at"}
PEPS = {"activity": "activity"}

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not LOGS.exists(), reason=f"the event logs are not there: {LOGS} is no folder"),
]


def _parquet(name: str) -> str:
    return f"SELECT * FROM read_parquet('{LOGS / name}')"


def _relation(query: str) -> Any:
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    return con.sql(query)


LOGGED = {
    "incidents_uci498": lambda: EventLog(LOGS / "incidents_uci498.parquet", **INCIDENTS),
    "peps (all events)": lambda: EventLog(LOGS / "peps.parquet", **PEPS),
    "peps (status log)": lambda: EventLog(_relation(STATUS), activity="st"),
    "incidents_uci498 shuffled": lambda: EventLog(
        _relation(f"{_parquet('incidents_uci498.parquet')} ORDER BY hash(position)"), **INCIDENTS
    ),
    "peps (all events) shuffled": lambda: EventLog(
        _relation(f"{_parquet('peps.parquet')} ORDER BY hash(position)"), **PEPS
    ),
    "peps (all events) in the order of a store": lambda: EventLog(
        _relation(f"{_parquet('peps.parquet')} ORDER BY stream, position"), **PEPS
    ),
}


@pytest.fixture(scope="module", params=LOGGED)
def both(request: pytest.FixtureRequest) -> Iterator[tuple[EventLog, dict[str, Any]]]:
    """A log and what is true of it."""
    name = request.param.partition(" shuffled")[0].partition(" in the order")[0]
    with LOGGED[request.param]() as log:
        yield log, json.loads((LOGS / "truth.json").read_text())[name]


def figures(log: EventLog) -> dict[str, str]:
    found = log.summary().df
    return dict(zip(found["figure"], found["value"], strict=True))


def pairs(frame: pd.DataFrame, key: str, value: str) -> dict[str, int]:
    return {name: int(n) for name, n in zip(frame[key], frame[value], strict=True) if n}


Both = tuple[EventLog, dict[str, Any]]


def test_sizes_times_and_ties(both: Both) -> None:
    """Events, cases, activities, variants, edges, first and last time, and the number of ties."""
    log, truth = both
    found = figures(log)
    assert [int(found[name]) for name in ("events", "cases", "activities", "variants")] == [
        truth[name] for name in ("events", "cases", "activities", "variants")
    ]
    assert (found["first event"], found["last event"]) == (truth["first"], truth["last"])
    assert int(found["pairs that follow directly"]) == truth["dfg_edges"]
    assert int(found["events at the time of the one before"]) == truth["tied_timestamps_in_case"]
    size = truth["case_size"]
    assert (float(found["events of a case, median"]), int(found["events of a case, most"])) == (
        size["median"],
        size["max"],
    )


@pytest.mark.parametrize("exact", [False, True])
def test_variants(both: Both, *, exact: bool) -> None:
    """The number of variants, the commonest and how many are taken once, by fingerprints and by sequences."""
    log, truth = both
    found = log.variants(exact=exact).df
    assert len(found) == truth["variants"]
    expected = {tuple(top["trace"]): top["n"] for top in truth["top_variants"]}
    mine = dict(zip(map(tuple, found["variant"]), found["cases"], strict=True))
    assert {trace: mine[trace] for trace in expected} == expected
    assert found["cases"].head(5).tolist() == list(expected.values())
    assert (found["cases"] == 1).sum() == truth["variants_seen_once"]


def test_what_directly_follows_what(both: Both) -> None:
    """Every edge that the truth lists, with count, mean and median; the number of edges and their sum."""
    log, truth = both
    found = log.directly_follows().df
    assert (len(found), found["count"].sum()) == (truth["dfg_edges"], truth["dfg_total"])
    edges = found.set_index(["source", "target"])
    for one in truth["dfg_top"]:
        edge = edges.loc[(one["from"], one["to"])]
        assert edge["count"] == one["n"]
        assert [edge["mean_s"], edge["median_s"]] == pytest.approx([one["mean_s"], one["median_s"]], abs=6e-4)


def test_starts_ends_activities_and_rework(both: Both) -> None:
    """First and last activities, the count of each, and the cases in which it comes again."""
    log, truth = both
    ends, kinds = log.start_end().df, log.activities().df
    assert pairs(ends, "activity", "starts") == truth["start"]
    assert pairs(ends, "activity", "ends") == truth["end"]
    assert pairs(kinds, "activity", "events") == truth["activity_counts"]
    assert pairs(kinds, "activity", "repeated_in") == truth["rework_cases"]


def test_durations_of_cases(both: Both) -> None:
    """Quantiles, mean and bounds of the time that cases take."""
    log, truth = both
    found = log.durations().df.iloc[0]
    expected = truth["case_duration_s"]
    names = {
        "min": "min_s",
        "p25": "p25_s",
        "median": "p50_s",
        "p75": "p75_s",
        "p90": "p90_s",
        "max": "max_s",
    }
    assert [found[name] for name in names.values()] == pytest.approx([expected[name] for name in names])
    assert found["mean_s"] == pytest.approx(expected["mean"], abs=6e-4)


HOURLY = "* REPLACE (date_trunc('hour', {time}) AS {time})"


@pytest.mark.parametrize(
    ("name", "time", "roles"),
    [
        ("incidents_uci498", "sys_updated_at", INCIDENTS),
        ("peps", "ts", PEPS),
    ],
)
def test_versions_alone_order_a_log_whose_times_are_coarse(
    name: str, time: str, roles: dict[str, str]
) -> None:
    """By versions, hourly times give the same variants and edges as exact ones, in any order of rows."""
    exact = _parquet(f"{name}.parquet")
    coarse = exact.replace("*", HOURLY.format(time=time)) + " ORDER BY hash(position)"
    fine = EventLog(_relation(exact), **roles, sort="order")
    hourly = EventLog(_relation(coarse), **roles, sort="order")
    with fine, hourly:
        for ask in (
            _variants,
            lambda log: log.directly_follows(times=False).df,
            lambda log: log.start_end().df,
        ):
            assert ask(fine).equals(ask(hourly))


def _variants(log: EventLog) -> pd.DataFrame:
    return log.variants().df[["variant", "cases"]]


def test_hourly_times_whose_ties_versions_break() -> None:
    """With hourly times there are as many variants, starts and ends of proposals as with exact ones.

    Edges may differ by the few events whose clock ran backward within an hour, which hourly times hide.
    """
    truth = json.loads((LOGS / "truth.json").read_text())["peps (all events)"]
    coarse = _parquet("peps.parquet").replace("*", HOURLY.format(time="ts")) + " ORDER BY hash(position)"
    with EventLog(_relation(coarse), **PEPS) as log:
        assert len(log.variants()) == truth["variants"]
        assert pairs(log.start_end().df, "activity", "starts") == truth["start"]
        assert pairs(log.start_end().df, "activity", "ends") == truth["end"]
        follows = log.directly_follows().df
        assert abs(len(follows) - truth["dfg_edges"]) <= truth["clock_goes_back_rows(version order)"]


# --- one figure each ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def true() -> dict[str, Any]:
    """All that is true, by log."""
    return dict(json.loads((LOGS / "truth.json").read_text()))


@pytest.fixture(scope="module")
def incidents() -> Iterator[EventLog]:
    """The incident log."""
    with LOGGED["incidents_uci498"]() as log:
        yield log


@pytest.fixture(scope="module")
def proposals() -> Iterator[EventLog]:
    """All events of the proposals."""
    with LOGGED["peps (all events)"]() as log:
        yield log


def test_oddities_of_the_incident_log(incidents: EventLog, true: dict[str, Any]) -> None:
    """Gaps, missing and repeated versions, steps back, a clock that runs backward, by the log's counter."""
    found = incidents.anomalies(version="mod_count").df.set_index("anomaly")
    expected = true["incidents_uci498"]["anomalies"]
    assert found["events"]["version gap"] == expected["version_gap_rows"]
    assert found["amount"]["version gap"] == expected["versions_missing"]
    assert found["events"]["version repeated"] == expected["duplicate_case_version_rows"]
    assert found["events"]["version goes back"] == expected["version_goes_back_rows(position order)"]
    assert found["events"]["clock runs backward"] == expected["clock_goes_back_rows(position order)"]
    assert found["cases"]["late first version"] == expected["first_version_not_0_cases"]
    assert len(incidents.where("state = '-100'")) == expected["state_-100_rows"]


def test_oddities_of_the_proposals(proposals: EventLog, true: dict[str, Any]) -> None:
    """Versions are whole, and the clock runs backward as often as it is true, by version and by position."""
    expected = true["peps (all events)"]
    found = proposals.anomalies().df.set_index("anomaly")["events"]
    assert found["version gap"] == found["version repeated"] == 0
    assert found["clock runs backward"] == expected["clock_goes_back_rows(version order)"]
    types = proposals.using(activity="type").activities().df
    assert pairs(types, "activity", "events") == expected["types"]
    assert len(proposals.resources(by="actor")) == expected["actors"]


def test_conformance_with_the_declared_transitions(proposals: EventLog, true: dict[str, Any]) -> None:
    """773 of 1,078 changes of status are declared; the deviating proposals are found."""
    expected = true["peps (status log)"]
    declared = [(x, y) for x, y in expected["declared_transitions_PEP1"]]
    changes = proposals.where("type = 'StatusChanged'")
    columns = ("data->>'from'", "data->>'to'")
    found = changes.conformance(declared, columns).df
    conform = expected["conformance"]
    assert found["count"].sum() == conform["transitions"]
    assert found["count"][found["declared"]].sum() == conform["declared"]
    undeclared = found[~found["declared"]]
    top = undeclared[["source", "target", "count"]].head(8)
    assert sorted(map(list, top.itertuples(index=False, name=None))) == sorted(conform["top_undeclared"])
    deviating = changes.deviations(declared, columns).df
    assert (len(deviating), deviating["case"].nunique()) == (
        conform["undeclared"],
        conform["streams_with_undeclared"],
    )
    with LOGGED["peps (status log)"]() as log:  # where a new proposal is an event too
        for repeats in (True, False):
            steps = log.conformance(declared, repeats=repeats).df
            assert steps["count"][steps["declared"]].sum() == conform["declared"]


def test_statuses_as_of_a_day(true: dict[str, Any]) -> None:
    """How many proposals stood in which status at the beginning of three years."""
    with LOGGED["peps (status log)"]() as log:
        for day, expected in true["peps (status log)"]["as_of"].items():
            found = log.as_of(f"{day}T00:00:00Z").df
            assert found["activity"].value_counts().to_dict() == expected


class _Tables(NamedTuple):
    events: pa.Table
    objects: pa.Table
    attributes: None
    roles: dict[str, str]


def _ocel() -> _Tables:
    """Return the object-centric log as a reader of its format would."""
    log = json.loads((LOGS / "peps_status.ocel.json").read_text())
    types = {one["id"]: one["type"] for one in log["objects"]}
    events = [
        {"event_id": one["id"], "type": one["type"], "time": one["time"], "position": n}
        for n, one in enumerate(log["events"], 1)
    ]
    links = [
        {"event_id": one["id"], "object_type": types[link["objectId"]], "object_id": link["objectId"],
         "qualifier": link["qualifier"]}
        for one in log["events"] for link in one["relationships"]
    ]  # fmt: skip
    roles = {"activity": "type", "time": "time", "order": "position", "event_id": "event_id"}
    return _Tables(pa.Table.from_pylist(events), pa.Table.from_pylist(links), None, roles)


def test_what_follows_what_for_each_kind_of_object(true: dict[str, Any]) -> None:
    """Objects, links and edges of developers and proposals, and the commonest edges of each."""
    expected = true["peps_status.ocel"]
    with EventLog(_ocel()) as log:
        kinds = log.objects().df
        assert pairs(kinds, "object_type", "objects") == expected["objects"]
        assert kinds["links"].sum() == expected["relations"]
        assert (len(log), log.cases().df["events"].sum()) == (expected["events"], 1824)
        follows = log.object_directly_follows().df
        assert follows["object_type"].value_counts().to_dict() == expected["ocdfg_edges"]
        for kind, top in expected["ocdfg_top"].items():
            mine = follows[follows["object_type"] == kind].nlargest(len(top), "pairs")
            edges = mine[["source", "target", "pairs"]].itertuples(index=False, name=None)
            assert sorted(map(list, edges)) == sorted(top)
        one = log.using(case="developer").directly_follows(times=False).df
        assert len(one) == expected["ocdfg_edges"]["developer"]


@pytest.mark.parametrize("name", ["xes.gz", "ocel.json", "ocel.sqlite", "ocel.xml"])
def test_every_format_gives_the_same_figures(name: str, true: dict[str, Any]) -> None:
    """The status log as XES and OCEL, through the readers of formats, says what it says as Parquet."""
    pytest.importorskip("esim.formats", reason="the readers of formats are not there")
    with EventLog(LOGS / f"peps_status.{name}") as log:
        expected = true["peps (status log)"]  # where an event of two proposals comes twice
        cases = log.cases().df
        assert (cases["events"].sum(), len(cases)) == (expected["events"], expected["cases"])
        if name == "xes.gz":
            assert len(log.variants()) == expected["variants"]
            assert pairs(log.start_end().df, "activity", "ends") == expected["end"]
            follows = log.directly_follows().df
            assert (len(follows), follows["count"].sum()) == (expected["dfg_edges"], expected["dfg_total"])
        else:
            assert len(log) == true["peps_status.ocel"]["events"]
            kinds = log.object_directly_follows().df["object_type"].value_counts().to_dict()
            assert kinds == true["peps_status.ocel"]["ocdfg_edges"]


WRITTEN = ["csv", "parquet", "jsonl", *FORMATS]


@pytest.mark.parametrize("format", WRITTEN)
def test_the_proposals_have_the_true_figures_in_every_format(
    format: str, proposals: EventLog, true: dict[str, Any], tmp_path: Path
) -> None:
    """All events of the proposals are written, read again, and asked everything that is known of them."""
    path = proposals.write(tmp_path / f"peps.{format}")
    given = {"activity": "activity"} if format in ("csv", "parquet", "jsonl") else {}
    expected = true["peps (all events)"]
    with EventLog(path, **given) as log:
        test_sizes_times_and_ties((log, expected))
        test_variants((log, expected), exact=False)
        test_what_directly_follows_what((log, expected))
        test_starts_ends_activities_and_rework((log, expected))
        test_durations_of_cases((log, expected))


@pytest.mark.parametrize("name", ["ocel.json", "ocel.sqlite", "ocel.xml"])
def test_the_kind_of_object_is_the_case_of_one_s_choice(name: str, true: dict[str, Any]) -> None:
    """The commonest kind is chosen, which is said with the others; each has its true number of edges."""
    expected = true["peps_status.ocel"]["ocdfg_edges"]
    with EventLog(LOGS / f"peps_status.{name}") as log:
        assert "cases are the objects of type 'pep'; others by case='developer'" in log.notes
        for kind in expected:
            assert len(log.using(case=kind).directly_follows()) == expected[kind]
            assert len(log.object_directly_follows(kind).graph.flows) == expected[kind]
