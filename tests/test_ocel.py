"""OCEL 2.0 in its three formats: what is read, that it survives, and how mistakes are told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from esim.arrowlog import ATTRIBUTES, LINKS, RELATIONS, Tables
from esim.errors import InvalidLog
from esim.eventlog import EventLog
from esim.formats import read_tables, write_tables
from tests.logs import facts, known, object_logs

FORMATS = ["ocel.json", "ocel.xml", "ocel.sqlite"]

EVENT = {
    "id": "e1",
    "type": "Place Order",
    "time": "2024-03-01T10:00:00+01:00",
    "attributes": [{"name": "total", "value": 12.50}, {"name": "type", "value": "gift"}],
    "relationships": [{"objectId": "o-1", "qualifier": "order"}, {"objectId": "i-1", "qualifier": ""}],
}
LOG: dict[str, Any] = {
    "eventTypes": [
        {
            "name": "Place Order",
            "attributes": [{"name": "total", "type": "float"}, {"name": "type", "type": "string"}],
        },
        {"name": "Never", "attributes": [{"name": "n", "type": "integer"}]},
    ],
    "objectTypes": [
        {"name": "order", "attributes": [{"name": "price", "type": "float"}]},
        {"name": "item", "attributes": []},
    ],
    "events": [EVENT],
    "objects": [
        {
            "id": "o-1",
            "type": "order",
            "attributes": [
                {"name": "price", "time": "1970-01-01T00:00:00Z", "value": 10.5},
                {"name": "price", "time": "2024-03-02T00:00:00Z", "value": 9.5},
            ],
            "relationships": [{"objectId": "i-1", "qualifier": "has"}],
        },
        {"id": "i-1", "type": "item"},
        {"id": "i-2", "type": "item"},
    ],
}


def log(tmp_path: Path, value: object = LOG, name: str = "log.ocel.json") -> Path:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1), encoding="utf-8")
    return path


def without(*path: str) -> dict[str, Any]:
    """Return the log less one member of its first event, or of itself."""
    made = json.loads(json.dumps(LOG))
    del (made if len(path) == 1 else made["events"][0])[path[-1]]
    return dict(made)


def test_events_objects_and_their_attributes_are_read(tmp_path: Path) -> None:
    """An attribute called like a column of ours has a prefix; an object without event is there too."""
    found = read_tables(log(tmp_path))
    (event,) = found.events.to_pylist()
    assert event == {
        "position": 1,
        "event_id": "e1",
        "type": "Place Order",
        "time": datetime(2024, 3, 1, 9, 0, tzinfo=UTC),
        "total": 12.5,
        "attribute:type": "gift",
    }
    assert known(found.objects, *LINKS) == [("e1", "item", "i-1", None), ("e1", "order", "o-1", "order")]
    assert known(found.attributes, *ATTRIBUTES)[1:] == [
        ("order", "o-1", "price", "10.5", "float", datetime(1970, 1, 1, tzinfo=UTC)),
        ("order", "o-1", "price", "9.5", "float", datetime(2024, 3, 2, tzinfo=UTC)),
    ]
    assert known(found.attributes, *ATTRIBUTES)[0] == ("item", "i-2", None, None, None, None)
    assert known(found.relations, *RELATIONS) == [("order", "o-1", "item", "i-1", "has")]
    assert found.roles == {"activity": "type", "time": "time", "order": "position", "event_id": "event_id"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_log_that_is_written_reads_the_same(tmp_path: Path, format: str) -> None:
    """Types of which there is no event, attributes over time and relations between objects included."""
    once = read_tables(log(tmp_path))
    again = read_tables(write_tables(once, tmp_path / f"again.{format}"))
    for before, after in zip(once, again, strict=True):
        assert before == after


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25)
@given(tables=object_logs())
def test_any_log_of_objects_survives(
    tmp_path_factory: pytest.TempPathFactory, format: str, tables: Tables
) -> None:
    path = tmp_path_factory.mktemp("ocel") / f"log.{format}"
    found = read_tables(write_tables(tables, path))
    assert facts(found.events) == facts(tables.events)
    assert known(found.objects, *LINKS) == known(tables.objects, *LINKS)
    said = [row for row in known(found.attributes, *ATTRIBUTES) if row[2] is not None]
    assert said == known(tables.attributes, *ATTRIBUTES)
    assert known(found.relations, *RELATIONS) == known(tables.relations, *RELATIONS)
    again = read_tables(write_tables(found, path))
    assert again == found


@pytest.mark.parametrize("format", FORMATS)
def test_relations_between_objects_stay_in_order_however_often_a_log_is_written(
    tmp_path: Path, format: str
) -> None:
    """Also where objects without an event come first in the next file."""
    events = pa.table({"id": ["1"], "type": ["t"], "time": pa.array([0], pa.timestamp("us", "UTC"))})
    links = pa.table(dict(zip(LINKS, (["1"], ["order"], ["n"], [""]), strict=True)))
    ends = {"source_id": ["e", "n"], "target_id": ["e", "e"]}
    types = {"source_type": ["order", "order"], "target_type": ["order", "order"], "qualifier": ["", ""]}
    roles = {"event_id": "id", "activity": "type", "time": "time"}
    relations = pa.table({name: (ends | types)[name] for name in RELATIONS})
    path = tmp_path / f"log.{format}"
    once = read_tables(write_tables(Tables(events, links, None, roles, relations), path))
    assert read_tables(write_tables(once, path)) == once


def test_ids_that_several_types_share_are_told_apart_by_their_type(tmp_path: Path) -> None:
    rows = {"event_id": ["e", "e"], "object_type": ["a", "b"], "object_id": ["1", "1"], "qualifier": ["", ""]}
    events = pa.table({"id": ["e"], "type": ["t"], "time": pa.array([0], pa.timestamp("us", "UTC"))})
    roles = {"event_id": "id", "activity": "type", "time": "time"}
    found = read_tables(write_tables(Tables(events, pa.table(rows), None, roles), tmp_path / "log.ocel.json"))
    assert known(found.objects, "object_type", "object_id") == [("a", "a/1"), ("b", "b/1")]


def test_a_log_of_cases_becomes_one_of_objects_of_type_case(tmp_path: Path) -> None:
    events = pa.table({"c": ["x", "y"], "a": ["A", "B"], "t": pa.array([0, 1], pa.timestamp("us", "UTC"))})
    tables = Tables(events, None, None, {"case": "c", "activity": "a", "time": "t"})
    found = read_tables(write_tables(tables, tmp_path / "log.ocel.xml"))
    assert known(found.objects, "event_id", "object_type", "object_id") == [
        ("e1", "case", "x"),
        ("e2", "case", "y"),
    ]


@pytest.mark.parametrize("missing", ["activity", "time"])
def test_a_log_without_activities_or_times_is_no_ocel(tmp_path: Path, missing: str) -> None:
    events = pa.table({"a": ["A"], "t": pa.array([0], pa.timestamp("us", "UTC"))})
    roles = {role: name for role, name in {"activity": "a", "time": "t"}.items() if role != missing}
    with pytest.raises(InvalidLog, match=f"OCEL wants the {missing} of each event"):
        write_tables(Tables(events, None, None, roles), tmp_path / "log.ocel.json")
    assert list(tmp_path.iterdir()) == []


def test_events_without_a_time_are_counted(tmp_path: Path) -> None:
    events = pa.table({"a": ["A", "B"], "t": pa.array([0, None], pa.timestamp("us", "UTC"))})
    tables = Tables(events, None, None, {"activity": "a", "time": "t"})
    with pytest.raises(InvalidLog, match="1 events have no time"):
        write_tables(tables, tmp_path / "log.ocel.json")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (without("events", "id"), "line 42: 'id' of an event is missing"),
        (without("events", "type"), "'type' of event 'e1' is missing"),
        (without("events", "time"), "'time' of event 'e1' is missing"),
        (without("objects"), "objects is missing"),
        ({**LOG, "events": [EVENT, EVENT]}, "1 event ids come twice: 'e1'"),
        (
            {**LOG, "events": [{**EVENT, "relationships": [{"objectId": "x"}]}]},
            "1 objects are named, but not among",
        ),
        (
            {**LOG, "events": [{**EVENT, "time": "soon"}]},
            "1 of 1 times in 'time' cannot be read: event 1 has 'soon'",
        ),
        ({**LOG, "events": [{**EVENT, "attributes": [{"name": "a"}, 7]}]}, "it must be a list of objects"),
        ({**LOG, "events": ["e1"]}, "'e1' is no object"),
        ({**LOG, "events": [{**EVENT, "id": 7}]}, "'id' of an event is 7: it must be a text"),
        ('{"events": [\n{"id": "e1",}]}', "line 2, column 13"),
        ('{"events": [\n{"id": "e1"', "line 2, column 12: the file ends too early"),
        ("", "the file is empty"),
    ],
)
def test_a_mistake_in_json_is_told_with_its_place(tmp_path: Path, value: object, told: str) -> None:
    with pytest.raises(InvalidLog) as error:
        read_tables(log(tmp_path, value), format="ocel.json")
    assert told in str(error.value)


XML = """<log>
<object-types><object-type name="o"><attributes/></object-type></object-types>
<event-types><event-type name="t"><attributes/></event-type></event-types>
<objects><object id="o1" type="o"/></objects>
<events>
{}
</events></log>"""


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("<event type='t' time='2024-01-01'/>", "line 6, column 1: <event> has no 'id'"),
        ("<event id='e' time='2024-01-01'/>", "<event id='e'> has no 'type'"),
        ("<event id='e' type='t'/>", "<event id='e'> has no 'time'"),
        ("<event id='e' type='t' time=''/>", "<event id='e'> has an empty 'time'"),
        ("<thing/>", "<thing> is no element that OCEL has inside <events>"),
        ("<event id='e'", "line 7, column 1: not well-formed"),
        (
            "<event id='e' type='t' time='2024-01-01Z'><objects><relationship/></objects></event>",
            "<relationship> has no 'object-id'",
        ),
    ],
)
def test_a_mistake_in_xml_is_told_with_its_place(tmp_path: Path, event: str, told: str) -> None:
    with pytest.raises(InvalidLog) as error:
        read_tables(log(tmp_path, XML.format(event), "log.ocel.xml"))
    assert told in str(error.value)


def test_entities_in_xml_are_refused(tmp_path: Path) -> None:
    text = '<!DOCTYPE log [<!ENTITY x SYSTEM "file:///etc/passwd">]><log><events>&x;</events></log>'
    with pytest.raises(InvalidLog, match="document type"):
        read_tables(log(tmp_path, text, "log.ocel.xml"))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_tables(read_tables(log(tmp_path)), tmp_path / "log.ocel.sqlite")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DROP TABLE event_object", "event_object is missing"),
        ("DROP TABLE event_PlaceOrder", "said to be in table 'event_PlaceOrder', which is missing"),
        ("ALTER TABLE event_PlaceOrder DROP COLUMN ocel_time", "has no column 'ocel_time'"),
        (
            "UPDATE event_PlaceOrder SET ocel_time = NULL",
            "event 'e1' in table 'event_PlaceOrder' has no ocel_time",
        ),
        ("DELETE FROM event_PlaceOrder", "has 1 rows, and 0 of them are in the tables of their types"),
        ("UPDATE event_object SET ocel_object_id = 'x' || ocel_object_id", "2 objects are named"),
    ],
)
def test_a_mistake_in_a_database_is_told(database: Path, sql: str, told: str) -> None:
    with closing(sqlite3.connect(database)) as con, con:
        con.execute(sql)
    with pytest.raises(InvalidLog) as error:
        read_tables(database)
    assert told in str(error.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.ocel.sqlite"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    with pytest.raises(InvalidLog, match=r"cannot be read as an OCEL 2\.0 database"):
        read_tables(path)


def test_reading_a_database_leaves_it_alone(database: Path) -> None:
    before = database.read_bytes()
    read_tables(database)
    assert database.read_bytes() == before
    assert {path.name for path in database.parent.iterdir()} == {"log.ocel.json", "log.ocel.sqlite"}


def test_attributes_that_sqlite_does_not_tell_apart_are_refused(tmp_path: Path) -> None:
    attributes = [{"name": name, "value": "v"} for name in ("Status", "status")]
    tables = read_tables(log(tmp_path, {**LOG, "events": [{**EVENT, "attributes": attributes}]}))
    with pytest.raises(InvalidLog, match="'status', for which SQLite has no column of its own"):
        write_tables(tables, tmp_path / "x.ocel.sqlite")
    assert read_tables(write_tables(tables, tmp_path / "x.ocel.json")).events.equals(tables.events)


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_log_survives(tmp_path: Path, format: str) -> None:
    empty = read_tables(log(tmp_path, {key: [] for key in LOG}))
    again = read_tables(write_tables(empty, tmp_path / f"again.{format}"))
    assert again.events.num_rows == 0
    assert again.events.schema == empty.events.schema


def numbered(*values: str) -> Tables:
    """Return a log of an object with an attribute that is declared to be a whole number."""
    events = pa.table({"id": ["e"], "type": ["t"], "time": pa.array([0], pa.timestamp("us", "UTC"))})
    links = pa.table({"event_id": ["e"], "object_type": ["o"], "object_id": ["1"], "qualifier": [""]})
    given = {"object_type": "o", "object_id": "1", "attribute": "n", "type": "integer"}
    columns = {name: [told] * len(values) for name, told in given.items()}
    times = pa.array(range(len(values)), pa.timestamp("us", "UTC"))
    attributes = pa.table({**columns, "value": list(values), "time": times}).select(list(ATTRIBUTES))
    return Tables(events, links, attributes, {"event_id": "id", "activity": "type", "time": "time"})


@pytest.mark.parametrize("value", ["007", "9223372036854775808", "-9223372036854775809", "+1"])
def test_a_whole_number_that_sqlite_would_change_is_refused(tmp_path: Path, value: str) -> None:
    """SQLite makes a fraction of one above 64 bits, and drops zeros and signs before one; JSON keeps them."""
    with pytest.raises(InvalidLog, match="is declared to be a whole number, and SQLite would change it"):
        write_tables(numbered(value), tmp_path / "log.ocel.sqlite")
    found = read_tables(write_tables(numbered(value), tmp_path / "log.ocel.json")).attributes
    assert found is not None and found["value"].to_pylist() == [value]


def test_what_is_no_whole_number_stays_as_it_is_written(tmp_path: Path) -> None:
    """A database keeps texts in columns of numbers, and the smallest and the largest number."""
    values = ["1_0", "ten", str(-(2**63)), str(2**63 - 1)]
    found = read_tables(write_tables(numbered(*values), tmp_path / "log.ocel.sqlite")).attributes
    assert found is not None and found["value"].to_pylist() == values


def test_a_large_number_of_an_event_is_refused_by_sqlite(tmp_path: Path) -> None:
    """A column of unsigned numbers of 64 bits has some."""
    rows = {"case": ["1"], "activity": ["a"], "big": pa.array([2**63 + 1], pa.uint64())}
    log = EventLog(pa.table({**rows, "time": pa.array([1], pa.timestamp("s"))}))
    with pytest.raises(InvalidLog, match="9223372036854775809' is declared to be a whole number"):
        log.write(tmp_path / "log.ocel.sqlite")
    for format in FORMATS[:2]:
        assert "9223372036854775809" in log.write(tmp_path / f"log.{format}").read_text()


def test_an_object_that_an_event_names_twice_is_linked_once(tmp_path: Path) -> None:
    """Two units of one product are one object."""
    rows = pd.DataFrame(
        {"id": ["e1"], "type": ["A"], "time": pd.to_datetime(["2024-01-01"]), "items": [["i", "i"]]}
    )
    given = EventLog(rows, case="item", event_id="id", objects={"item": "items"})
    for format in FORMATS:
        path = given.write(tmp_path / f"log.{format}")
        assert known(read_tables(path).objects, "event_id", "object_id") == [("e1", "i")]
    assert (tmp_path / "log.ocel.json").read_text().count('"objectId"') == 1


def test_ids_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    """Where a shared id with its type is another object's id, no file is written."""
    rows = {"event_id": ["e", "e", "e"], "object_type": ["a", "b", "c"], "object_id": ["x", "x", "a/x"]}
    links = pa.table({**rows, "qualifier": ["", "", ""]})
    events = pa.table({"id": ["e"], "type": ["t"], "time": pa.array([0], pa.timestamp("us", "UTC"))})
    roles = {"event_id": "id", "activity": "type", "time": "time"}
    for format in FORMATS:
        with pytest.raises(InvalidLog, match="'a/x' would be the id of several objects: rename one"):
            write_tables(Tables(events, links, None, roles), tmp_path / f"log.{format}")
    assert list(tmp_path.iterdir()) == []
