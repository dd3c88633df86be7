"""CloudEvents 1.0, in batches and on lines: what is read, what is written, how mistakes are told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.arrowlog import Tables
from esim.errors import InvalidLog
from esim.formats import read_tables, write_tables
from esim.jsonstream import Digits, dumped
from tests.logs import NAMES, TIMES, cases, facts

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "OrderPlaced",
    "subject": "Order/o-1",
    "time": "2024-03-01T10:00:00.5+01:00",
    "correlationid": "c-1",
    "sequence": "0001",
    "attempts": 3,
    "test": True,
    "data": {"customer": "Zoë", "lines": [1, None]},
}


SMALL = '{"specversion":"1.0","id":"1","source":"s","type":"t"}'


def log(tmp_path: Path, *events: object, name: str = "log.cloudevents.json") -> Path:
    path = tmp_path / name
    text = (
        "\n".join(json.dumps(each) for each in events)
        if name.endswith("l")
        else json.dumps(list(events), indent=1)
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["log.cloudevents.json", "log.cloudevents.jsonl"])
def test_attributes_become_columns_and_data_stays_json(tmp_path: Path, name: str) -> None:
    found = read_tables(log(tmp_path, EVENT, {**EVENT, "id": "e-2", "data": None}, name=name))
    first, second = found.events.to_pylist()
    assert first["id"] == "e-1"
    assert first["time"] == datetime(2024, 3, 1, 9, 0, 0, 500_000, UTC)
    assert (first["attempts"], first["test"], first["sequence"]) == (3, True, "0001")
    assert json.loads(first["data"]) == EVENT["data"]
    assert second["data"] == "null"
    assert found.roles == {
        "event_id": "id",
        "activity": "type",
        "case": "subject",
        "time": "time",
        "order": "position",
        "data": "data",
    }


def test_fractions_in_data_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"sum":1.60,"n":[2.50]}}\n')
    found = read_tables(path)
    assert found.events.column("data").to_pylist() == ['{"sum":1.60,"n":[2.50]}']
    assert '"data":{"sum":1.60,"n":[2.50]}' in write_tables(found, tmp_path / "again.jsonl").read_text()


def test_a_single_event_is_a_batch_of_one(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(EVENT, indent=2))
    assert read_tables(path, format="cloudevents.json").events.num_rows == 1


@st.composite
def events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return CloudEvents with any extensions and data."""
    names = st.from_regex("x[a-z0-9]{0,5}", fullmatch=True)
    values = {name: draw(st.sampled_from([NAMES, st.booleans(), st.integers(-(2**31) + 1, 2**31 - 1)]))
              for name in draw(st.sets(names, max_size=3))}  # fmt: skip
    data = st.recursive(
        st.none() | st.booleans() | st.integers() | NAMES | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
        max_leaves=4,
    )
    made = st.fixed_dictionaries(
        {"specversion": st.just("1.0"), "id": NAMES, "source": NAMES, "type": NAMES},
        optional={"subject": NAMES, "time": TIMES.map(datetime.isoformat), "data": data, **values},
    )
    return draw(st.lists(made, max_size=4))


@settings(max_examples=50)
@given(events=events())
def test_any_cloud_events_survive(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("events") / "log.cloudevents.json"
    path.write_text(json.dumps(events))
    once = read_tables(path)
    for name in ("again.cloudevents.json", "again.cloudevents.jsonl"):
        again = read_tables(write_tables(once, path.with_name(name)))
        assert facts(again.events) == facts(once.events)
    written = json.loads(write_tables(once, path).read_text())
    for before, after in zip(events, written, strict=True):
        assert {**after, "time": before.get("time")} == {**before, "time": before.get("time")}


@settings(max_examples=50)
@given(tables=cases())
def test_a_log_without_payloads_goes_into_data(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables
) -> None:
    """Ids are made up by position; what is neither case, activity nor time is a member of the data."""
    path = write_tables(tables, tmp_path_factory.mktemp("events") / "log.jsonl")
    written = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    for event, fact in zip(written, facts(tables.events), strict=True):
        assert (event["subject"], event["type"]) == (fact["case"], fact["activity"])
        assert set(event.get("data", {})) == set(fact) - {"case", "activity", "at", "position"}
    assert [event["id"] for event in written] == [f"e{place}" for place in range(1, len(written) + 1)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": None}, "line 2: 'id' is missing"),
        ({"source": ""}, "'source' is ''"),
        ({"type": 7}, "'type' is 7: it must be a text"),
        ({"specversion": "0.3"}, "only CloudEvents 1.0 are read"),
        ({"Bad-Name": "x"}, "'Bad-Name' is no name of an attribute"),
        ({"ext": {"a": 1}}, "'ext' is {'a': 1}: an attribute is a text, a whole number or a boolean"),
        ({"ext": 1.5}, "'ext' is 1.5: an attribute is a text"),
        ({"data_base64": "AA=="}, "both 'data' and 'data_base64'"),
        ({"time": "yesterday"}, "1 of 2 times in 'time' cannot be read: event 2 has 'yesterday'"),
        ({"id": "\ud800"}, "'id' has a text with half a character"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidLog) as error:
        read_tables(log(tmp_path, EVENT, {**EVENT, **change}, name="log.jsonl"))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{SMALL}\n{{"id": nope}}', "line 2, column 8: Expecting value"),
        (f"{SMALL}\n\n{SMALL} {SMALL}x", "line 3, column 110: expected one value on each line"),
        (SMALL.replace('"t"', "NaN"), "line 1, column 1: NaN is no JSON"),
        ("[1, 2", "1 is no event"),
        (f"[{SMALL}", "line 1, column 56: the file ends too early"),
        ("7", "7 is no event"),
    ],
)
def test_malformed_json_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(InvalidLog) as error:
        read_tables(path, format="cloudevents.jsonl")
    assert told in str(error.value)


@pytest.mark.parametrize("name", ["log.cloudevents.json", "log.cloudevents.jsonl"])
def test_an_empty_file_of_events_survives(tmp_path: Path, name: str) -> None:
    empty = read_tables(log(tmp_path, name=name), format=name.removeprefix("log."))
    again = read_tables(write_tables(empty, tmp_path / f"again.{name}"), format=name.removeprefix("log."))
    assert again.events.num_rows == 0
    assert {"id", "source", "type", "subject", "time"} <= set(again.events.column_names)


def test_events_without_a_type_are_refused(tmp_path: Path) -> None:
    tables = Tables(pa.table({"a": ["A", None, ""]}), None, None, {"activity": "a"})
    with pytest.raises(InvalidLog, match="2 events have no type, which CloudEvents wants"):
        write_tables(tables, tmp_path / "log.jsonl")


def test_data_that_is_no_json_goes_out_as_a_string(tmp_path: Path) -> None:
    """And JSON over several lines becomes one, so that lines stay lines."""
    rows = {"a": ["A", "B"], "d": ["not json", '{\n "x": 1.0\n}']}
    tables = Tables(pa.table(rows), None, None, {"activity": "a", "data": "d"})
    text = write_tables(tables, tmp_path / "log.jsonl").read_text()
    first, second = text.splitlines()
    assert json.loads(first)["data"] == "not json"
    assert second.endswith('"data":{"x":1.0}}')


def test_digits_are_kept_in_nested_values() -> None:
    assert dumped({"a": [Digits("1.50"), None, "ü"], "b": True}) == '{"a":[1.50,null,"ü"],"b":true}'
