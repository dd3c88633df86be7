"""A store as Tables: columns, objects from streams and tags, and each format written from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from esim.arrowlog import LINKS
from esim.clock import ManualClock
from esim.contract import Store
from esim.envelope import NewEvent, metadata
from esim.event import Event
from esim.formats import FORMATS, read_tables, tables_of, write_tables
from esim.memory import MemoryStore
from esim.store import EventStore
from tests.logs import known


class Enrolled(Event):
    student: str
    seats: int
    fee: float = 1.5


class Left(Event):
    reason: str


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Three events in two streams, one of them with tags."""
    made = request.param(clock=ManualClock(datetime(2024, 3, 1, tzinfo=UTC)))
    with metadata(user_id="ann", correlation_id="c-1", device="<b>"):
        tagged = NewEvent(Enrolled(student="zoë", seats=3), tags=("student:s1", "vip"))
        made.append("Course/c/1", [tagged, Enrolled(student="bob", seats=2)])
    made.append("plain", NewEvent(Left(reason="tired"), occurred_at=datetime(2024, 2, 1, tzinfo=UTC)))
    yield made
    made.close()


def test_each_event_is_a_row_with_its_envelope(store: Store) -> None:
    found = tables_of(store)
    first, _, last = found.events.to_pylist()
    assert (first["position"], first["stream"], first["version"], first["type"]) == (
        1,
        "Course/c/1",
        1,
        "Enrolled",
    )
    assert json.loads(first["data"]) == {"student": "zoë", "seats": 3, "fee": 1.5}
    assert (first["user_id"], first["correlation_id"]) == ("ann", "c-1")
    assert json.loads(first["tags"]) == ["student:s1", "vip"]
    assert json.loads(first["metadata"]) == {"device": "<b>"}
    assert last["time"] == datetime(2024, 2, 1, tzinfo=UTC)
    assert last["recorded_at"] == datetime(2024, 3, 1, tzinfo=UTC)
    assert first["event_id"] == str(next(iter(store.read())).event_id)


def test_streams_and_tags_are_objects_of_one_relation(store: Store) -> None:
    """The type is what stands before the first slash of a stream, and the first colon of a tag."""
    found = known(tables_of(store).objects, "object_type", "object_id", "qualifier")
    assert found == [
        ("Course", "c/1", "stream"),
        ("Course", "c/1", "stream"),
        ("stream", "plain", "stream"),
        ("student", "s1", "tag"),
        ("tag", "vip", "tag"),
    ]


def test_a_selection_and_a_store_of_the_past_are_logs_too(store: Store) -> None:
    assert tables_of(store.read(type="Left")).events.column("position").to_pylist() == [3]
    assert tables_of(store.as_of(2)).events.num_rows == 2
    assert tables_of(store.as_of(2)).events.equals(tables_of(store.read(until=2)).events)
    assert tables_of(store.read(limit=1)).events.num_rows == 1


def test_an_empty_store_has_the_same_columns(store: Store) -> None:
    with EventStore() as empty:
        found = tables_of(empty)
        assert found.events.num_rows == 0
        assert found.events.schema == tables_of(store).events.schema
        assert known(found.objects, *LINKS) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_is_written_in_each_format(store: Store, tmp_path: Path, format: str) -> None:
    found = read_tables(write_tables(store, tmp_path / f"log.{format}"))
    types = found.events.column(found.roles["activity"]).to_pylist()
    times = found.events.column(found.roles["time"]).to_pylist()
    assert types == ["Enrolled", "Enrolled", "Left"]
    assert times == tables_of(store).events.column("time").to_pylist()


def test_an_empty_store_is_written_in_each_format(tmp_path: Path) -> None:
    with EventStore() as empty:
        for format_ in FORMATS:
            path = write_tables(empty, tmp_path / "log", format_)
            assert read_tables(path, format_).events.num_rows == 0


def test_payloads_are_attributes_in_xes_and_ocel(store: Store, tmp_path: Path) -> None:
    for name in ("log.xes", "log.ocel.json"):
        first = read_tables(write_tables(store, tmp_path / name)).events.to_pylist()[0]
        assert (first["student"], first["seats"], first["fee"]) == ("zoë", 3, 1.5)


def test_objects_of_a_store_are_in_ocel(store: Store, tmp_path: Path) -> None:
    found = read_tables(write_tables(store, tmp_path / "log.ocel.sqlite"))
    assert known(found.objects, *LINKS) == known(tables_of(store).objects, *LINKS)


def test_cloud_events_of_a_store_have_the_official_extensions(store: Store, tmp_path: Path) -> None:
    text = write_tables(store, tmp_path / "log.jsonl").read_text("utf-8")
    first, _, last = map(json.loads, text.splitlines())
    stored = next(iter(store.read()))
    assert first == {
        "specversion": "1.0",
        "id": str(stored.event_id),
        "source": "/Course",
        "type": "Enrolled",
        "subject": "Course/c/1",
        "time": "2024-03-01T00:00:00+00:00",
        "correlationid": "c-1",
        "sequence": "0000000000000000001",
        "recordedtime": "2024-03-01T00:00:00+00:00",
        "dataschema": "urn:esim:Enrolled:1",
        "partitionkey": "Course/c/1",
        "version": 1,
        "userid": "ann",
        "tags": '["student:s1","vip"]',
        "metadata": '{"device": "<b>"}',
        "data": {"student": "zoë", "seats": 3, "fee": 1.5},
    }
    assert (last["time"], last["subject"]) == ("2024-02-01T00:00:00+00:00", "plain")
