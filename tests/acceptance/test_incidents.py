"""A real incident log, 141,712 events of 24,918 incidents, goes through a store file and comes out right.

The log is read where it lies, beside the checkout. Its times carry no zone; they are taken as UTC. It counts
the changes of each incident itself (`mod_count`) and left some out: the store's versions are dense all the
same, and the gaps are data.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import pytest

from esim.envelope import NewEvent, RecordedEvent
from esim.event import Event
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.repository import Repository
from esim.state import State, fold
from esim.store import EventStore
from esim.writing import Write

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"
FIELDS = (
    "state",
    "mod_count",
    "priority",
    "reassignment_count",
    "made_sla",
    "assignment_group",
    "assigned_to",
)
BATCH = 2_000  # incidents per append

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not LOGS.exists(), reason=f"the incident log is not there: {LOGS} is no folder"),
]


class IncidentUpdated(Event):
    """Somebody changed an incident: the fields as they stood afterwards."""

    state: str
    mod_count: int
    priority: int
    reassignment_count: int
    made_sla: bool
    assignment_group: str | None
    assigned_to: str | None


class Incident(State[IncidentUpdated]):
    """An incident: its state, and how complete its history is."""

    state: str = "unknown"
    updates: int = 0
    mod_count: int = -1
    gaps: int = 0
    missing: int = 0
    went_back: int = 0

    def evolve(self, event: IncidentUpdated) -> Self:
        """Return the incident after one more change; one that the log left out shows as a gap."""
        left_out = event.mod_count - self.mod_count - 1 if self.updates else 0
        return self.but(
            state=event.state,
            updates=self.updates + 1,
            mod_count=event.mod_count,
            gaps=self.gaps + (left_out > 0),
            missing=self.missing + max(left_out, 0),
            went_back=self.went_back + (left_out < -1),
        )


class IncidentRow(Row):
    """The state of one incident."""

    incident: Key[str]
    state: str


class LatestState(Projection[IncidentRow]):
    """Every incident with its state."""

    @on(IncidentUpdated)
    def updated(
        self, event: IncidentUpdated, rows: Rows[IncidentRow], recorded: RecordedEvent[IncidentUpdated]
    ) -> None:
        """Keep the state."""
        rows.put(IncidentRow(incident=recorded.id, state=event.state))


class UpdatesByState(SqlProjection):
    """How many changes ended in which state."""

    query = "SELECT state, count(*) AS updates FROM IncidentUpdated GROUP BY state"
    key = ("state",)
    combine = {"updates": "sum"}


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """The true figures, found by two other programs."""
    return dict(json.loads((LOGS / "truth.json").read_text())["incidents_uci498"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store file with the whole log and both projections caught up, closed."""
    path = tmp_path_factory.mktemp("incidents") / "incidents.duckdb"
    with EventStore(path) as store:
        for writes in _batches():
            store.append_all(writes)
        LatestState(store).catch_up()
        UpdatesByState(store).catch_up()
    return path


@pytest.fixture(scope="module")
def store(path: Path) -> Iterator[EventStore]:
    """The same file, opened again."""
    with EventStore(path) as store:
        yield store


@pytest.fixture(scope="module")
def histories(store: EventStore) -> dict[str, list[RecordedEvent[IncidentUpdated]]]:
    """The recorded events of each incident."""
    found: dict[str, list[RecordedEvent[IncidentUpdated]]] = defaultdict(list)
    for recorded in store.read(category="Incident"):
        found[recorded.id].append(recorded)
    return found


@pytest.fixture(scope="module")
def incidents(histories: dict[str, list[RecordedEvent[IncidentUpdated]]]) -> dict[str, Incident]:
    """Each incident, folded."""
    return {name: fold(Incident, events) for name, events in histories.items()}


def _batches() -> Iterator[list[Write]]:
    """Give the log as appends, in the order of its file, each incident's changes in one write."""
    import pyarrow.parquet as pq

    columns = ("incident", "sys_updated_at", *FIELDS)
    rows = pq.read_table(LOGS / "incidents_uci498.parquet").sort_by("position").select(columns).to_pylist()
    writes = [
        Write(f"Incident/{name}", [_new(row) for row in group])
        for name, group in groupby(rows, itemgetter("incident"))
    ]
    for start in range(0, len(writes), BATCH):
        yield writes[start : start + BATCH]


def _new(row: dict[str, Any]) -> NewEvent:
    event = IncidentUpdated(**{name: row[name] for name in FIELDS})
    return NewEvent(event, occurred_at=row["sys_updated_at"].replace(tzinfo=UTC))


def test_every_event_is_in_its_stream(store: EventStore, truth: dict[str, Any]) -> None:
    """The store holds as many events and streams as the log, and versions run from 1 without gaps."""
    assert store.position == truth["events"]
    assert len(store.streams("Incident")) == truth["cases"]
    dense = store.sql(
        "SELECT count(*) AS n FROM (SELECT max(version) = count(*) AS ok FROM events GROUP BY stream) "
        "WHERE ok"
    )
    assert dense.n[0] == truth["cases"]


def test_times_are_kept(store: EventStore, truth: dict[str, Any]) -> None:
    """First and last times are the log's own, taken as UTC."""
    bounds = store.sql("SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM events").iloc[0]
    assert [bounds["first"], bounds["last"]] == [
        datetime.fromisoformat(truth[name]).replace(tzinfo=UTC) for name in ("first", "last")
    ]


def test_a_projection_counts_incidents_by_state(store: EventStore, truth: dict[str, Any]) -> None:
    """The read model stands at the head on reopening, and all incidents end as the truth says."""
    latest = LatestState(store)
    assert latest.position == truth["events"]
    assert latest.df()["state"].value_counts().to_dict() == truth["end"]


def test_a_projection_rebuilt_is_the_same(store: EventStore) -> None:
    """A rebuild gives the rows that the file kept."""
    latest = LatestState(store)
    kept = latest.df()
    assert latest.rebuild().df().equals(kept)


def test_an_sql_projection_counts_updates_by_state(store: EventStore, truth: dict[str, Any]) -> None:
    """Changes per state equal the true activity counts."""
    counted = UpdatesByState(store).df()
    assert dict(zip(counted["state"], counted["updates"], strict=True)) == truth["activity_counts"]


def test_folded_incidents_end_as_they_should(incidents: dict[str, Incident], truth: dict[str, Any]) -> None:
    """The folded states agree with the truth on end states, lengths and number of events."""
    assert Counter(incident.state for incident in incidents.values()) == truth["end"]
    lengths = [incident.updates for incident in incidents.values()]
    assert (min(lengths), max(lengths), sum(lengths)) == (
        truth["case_size"]["min"],
        truth["case_size"]["max"],
        truth["events"],
    )


def test_gaps_of_the_source_are_found(incidents: dict[str, Incident], truth: dict[str, Any]) -> None:
    """What the log left out, and where its own counter goes back, is as true as the rest."""
    anomalies = truth["anomalies"]
    assert sum(incident.gaps for incident in incidents.values()) == anomalies["version_gap_rows"]
    assert sum(incident.missing for incident in incidents.values()) == anomalies["versions_missing"]
    assert (
        sum(incident.went_back for incident in incidents.values())
        == anomalies["version_goes_back_rows(position order)"]
    )


def test_odd_beginnings_and_states_survive(
    histories: dict[str, list[RecordedEvent[IncidentUpdated]]], truth: dict[str, Any]
) -> None:
    """Incidents whose first change is missing, the state -100, and times that go back are all there."""
    anomalies = truth["anomalies"]
    events = [recorded for history in histories.values() for recorded in history]
    pairs = [pair for history in histories.values() for pair in pairwise(history)]
    assert (
        sum(history[0].event.mod_count != 0 for history in histories.values())
        == anomalies["first_version_not_0_cases"]
    )
    assert sum(recorded.event.state == "-100" for recorded in events) == anomalies["state_-100_rows"]
    assert (
        sum(_occurred(later) < _occurred(sooner) for sooner, later in pairs)
        == anomalies["clock_goes_back_rows(position order)"]
    )


def test_the_commonest_stories_are_true(
    histories: dict[str, list[RecordedEvent[IncidentUpdated]]], truth: dict[str, Any]
) -> None:
    """Ordered by time, the stories (variants) of all incidents are as many and as common as the truth."""
    stories = Counter(
        tuple(
            recorded.event.state
            for recorded in sorted(history, key=lambda one: (_occurred(one), one.position))
        )
        for history in histories.values()
    )
    assert len(stories) == truth["variants"]
    assert [(list(story), n) for story, n in stories.most_common(5)] == [
        (top["trace"], top["n"]) for top in truth["top_variants"]
    ]
    assert Counter(story[0] for story in stories.elements()) == truth["start"]


def test_one_incident_as_it_was_known(store: EventStore) -> None:
    """The repository loads an incident as it was after a change, and at a time of its own."""
    incidents = Repository(store, Incident)
    assert incidents.load("INC0000045").state == Incident(
        state="Closed", updates=4, mod_count=4, gaps=1, missing=1
    )
    assert incidents.load("INC0000045", at=2).state.state == "Resolved"
    opened = datetime(2016, 2, 29, 1, 23, tzinfo=UTC)
    assert incidents.load("INC0000045", occurred_at=opened + timedelta(hours=1)).state.state == "New"


def _occurred(recorded: RecordedEvent[IncidentUpdated]) -> datetime:
    assert recorded.occurred_at is not None
    return recorded.occurred_at
