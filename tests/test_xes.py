"""XES: what is read of it, what is written, and how its mistakes are told."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings

from esim import arrowlog, xes
from esim.arrowlog import Tables
from esim.errors import InvalidLog
from esim.formats import read_tables, write_tables
from tests.logs import cases, facts

LOG = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="1849-2016" xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
  <global scope="event"><string key="concept:name" value="none"/></global>
  <classifier name="Activity" keys="concept:name"/>
  <string key="origin" value="a test"><int key="year" value="2024"/></string>
  <trace>
    <string key="concept:name" value="c-1"/>
    <string key="customer" value="Zoë &lt;b&gt;"/>
    <event>
      <string key="concept:name" value="Placed"/>
      <date key="time:timestamp" value="2024-03-01T10:00:00.250+01:00"/>
      <int key="items" value="3"/>
      <float key="total" value="12.5"><string key="currency" value="EUR"/></float>
      <boolean key="gift" value="true"/>
      <list key="lines"><values>
        <string key="line" value="mug"/><string key="line" value="cup"/>
      </values></list>
    </event>
    <event>
      <string key="concept:name" value="Paid"/>
      <date key="time:timestamp" value="2024-03-01T09:30:00Z"/>
    </event>
  </trace>
  <trace><string key="concept:name" value="c-2"/></trace>
</log>
"""


def log(tmp_path: Path, text: str, name: str = "log.xes") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def trace(*events: str, name: str = "c-1") -> str:
    inner = "\n".join(f"<event>{event}</event>" for event in events)
    return f'<trace>\n<string key="concept:name" value="{name}"/>\n{inner}\n</trace>'


def test_attributes_of_traces_and_events_become_typed_columns(tmp_path: Path) -> None:
    """Times are UTC, numbers are numbers, and the trace's attributes come with each of its events."""
    found = read_tables(log(tmp_path, LOG))
    first, second = found.events.to_pylist()
    assert first["case:concept:name"] == "c-1"
    assert second["case:customer"] == "Zoë <b>"
    assert first["time:timestamp"] == datetime(2024, 3, 1, 9, 0, 0, 250_000, UTC)
    assert (first["items"], first["total"], first["gift"]) == (3, 12.5, True)
    assert [first["position"], second["position"]] == [1, 2]
    assert second["items"] is None
    assert found.roles == {
        "case": "case:concept:name",
        "activity": "concept:name",
        "time": "time:timestamp",
        "order": "position",
    }


def test_what_is_below_an_attribute_is_json_in_a_column_of_its_own(tmp_path: Path) -> None:
    first = read_tables(log(tmp_path, LOG)).events.to_pylist()[0]
    assert json.loads(first["total/attributes"]) == [{"key": "currency", "kind": "string", "value": "EUR"}]
    assert [each["value"] for each in json.loads(first["lines"])] == ["mug", "cup"]


def test_what_a_log_says_of_itself_is_its_header(tmp_path: Path) -> None:
    header = read_tables(log(tmp_path, LOG)).header
    assert header is not None
    assert header["classifiers"] == [{"name": "Activity", "keys": "concept:name"}]
    assert header["globals"]["event"][0]["value"] == "none"
    assert header["attributes"][0]["attributes"][0]["key"] == "year"
    assert header["empty_traces"][0][0]["value"] == "c-2"


@pytest.mark.parametrize("name", ["again.xes", "again.xes.gz"])
def test_a_log_that_is_written_reads_the_same(tmp_path: Path, name: str) -> None:
    """Nested attributes, lists, globals, classifiers, extensions and empty traces included."""
    once = read_tables(log(tmp_path, LOG))
    again = read_tables(write_tables(once, tmp_path / name))
    assert again.events.equals(once.events, check_metadata=True)
    assert again.header == once.header
    assert again.roles == once.roles


@settings(max_examples=50)
@given(cases())
def test_any_log_of_cases_survives(tmp_path_factory: pytest.TempPathFactory, tables: Tables) -> None:
    path = tmp_path_factory.mktemp("xes") / "log.xes"
    once = read_tables(write_tables(tables, path))
    renamed = {"case": "case:concept:name", "activity": "concept:name", "at": "time:timestamp"}
    assert facts(once.events) == facts(tables.events, **renamed)
    again = read_tables(write_tables(once, path))
    assert again.events.equals(once.events)


def test_interleaved_cases_are_grouped_and_their_places_kept(tmp_path: Path) -> None:
    """The order of the whole log is told by an attribute where the order in the file does not."""
    rows = {"n": [1, 2, 3, 4], "c": ["a", "b", "a", "b"], "a": ["w", "x", "y", "z"]}
    tables = Tables(pa.table(rows), None, None, {"case": "c", "activity": "a", "order": "n"})
    found = read_tables(write_tables(tables, tmp_path / "log.xes")).events
    assert found.column("concept:name").to_pylist() == ["w", "y", "x", "z"]
    assert found.column("n").to_pylist() == [1, 3, 2, 4]


def test_a_case_attribute_that_changes_within_a_case_stays_with_the_events(tmp_path: Path) -> None:
    rows = {"c": ["a", "a"], "case:size": [1, 1], "case:state": ["new", "old"]}
    tables = Tables(pa.table(rows), None, None, {"case": "c"})
    text = write_tables(tables, tmp_path / "log.xes").read_text()
    assert text.count('key="size"') == 1
    assert text.count('key="case:state"') == 2
    found = read_tables(tmp_path / "log.xes").events
    assert found.column("event:case:state").to_pylist() == ["new", "old"]


def test_traces_that_names_do_not_tell_apart_are_numbered(tmp_path: Path) -> None:
    text = f"<log>{trace('', name='same')}{trace('', '', name='same')}</log>"
    found = read_tables(log(tmp_path, text))
    assert found.roles["case"] == "case:trace"
    assert found.events.column("case:trace").to_pylist() == [1, 2, 2]
    again = read_tables(write_tables(found, tmp_path / "again.xes"))
    assert again.events.equals(found.events)


def test_events_outside_of_traces_have_no_case(tmp_path: Path) -> None:
    found = read_tables(log(tmp_path, f'<log>{trace("")}<event><string key="a" value="b"/></event></log>'))
    assert found.events.column("case:concept:name").to_pylist() == ["c-1", None]
    again = read_tables(write_tables(found, tmp_path / "again.xes"))
    assert again.events.equals(found.events)


def test_a_key_in_two_spellings_is_two_columns(tmp_path: Path) -> None:
    """SQL does not tell Status from status; the file does, and so does the one that is written."""
    event = '<string key="Status" value="a"/><string key="status" value="b"/>'
    text = f"<log>{trace(event)}</log>"
    found = read_tables(log(tmp_path, text))
    assert found.events.to_pylist()[0]["status_2"] == "b"
    again = write_tables(found, tmp_path / "again.xes").read_text()
    assert '<string key="status" value="b"/>' in again


def test_values_of_several_kinds_are_text_and_numbers_stay_numbers(tmp_path: Path) -> None:
    first = '<int key="n" value="1"/><int key="x" value="1"/>'
    second = '<float key="n" value="1.5"/><string key="x" value="one"/>'
    found = read_tables(log(tmp_path, f"<log>{trace(first, second)}</log>")).events
    assert found.column("n").to_pylist() == [1.0, 1.5]
    assert found.column("x").to_pylist() == ["1", "one"]


def test_windows_of_different_types_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column may hold numbers in one window of a large file, text in the next, and nothing in a third."""
    monkeypatch.setattr(arrowlog, "WINDOW", 2)
    monkeypatch.setattr(xes, "WINDOW", 2)
    kinds = ["<int key='x' value='7'/>"] * 3 + ["<string key='x' value='seven'/>", "", "", ""]
    found = read_tables(log(tmp_path, f"<log>{trace(*kinds)}</log>")).events
    assert found.column("x").to_pylist() == ["7", "7", "7", "seven", None, None, None]
    assert set(found.column("case:concept:name").to_pylist()) == {"c-1"}


def test_a_value_that_is_none_of_its_kind_makes_its_column_text(tmp_path: Path) -> None:
    events = '<int key="n" value="1.5"/>', '<int key="n" value="99999999999999999999"/>'
    found = read_tables(log(tmp_path, f"<log>{trace(*events)}</log>")).events
    assert found.column("n").to_pylist() == ["1.5", "99999999999999999999"]


def test_an_empty_log_has_its_columns_and_no_row(tmp_path: Path) -> None:
    found = read_tables(log(tmp_path, "<log/>"))
    assert found.events.num_rows == 0
    assert {"position", "case:concept:name", "concept:name", "time:timestamp"} <= set(
        found.events.column_names
    )
    assert read_tables(write_tables(found, tmp_path / "again.xes")).events.equals(found.events)


def test_a_namespace_prefix_makes_no_difference(tmp_path: Path) -> None:
    text = '<x:log xmlns:x="u"><x:trace><x:event><x:string key="a" value="b"/></x:event></x:trace></x:log>'
    assert read_tables(log(tmp_path, text)).events.column("a").to_pylist() == ["b"]


def test_a_classifier_tells_the_activity_where_no_event_has_a_name(tmp_path: Path) -> None:
    event = '<string key="step" value="s"/>'
    text = f'<log><classifier name="A" keys="step"/>{trace(event)}</log>'
    assert read_tables(log(tmp_path, text)).roles["activity"] == "step"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<log>\n<trace>\n<event>\n</log>", "log.xes, line 4, column 3: mismatched tag"),
        ("<log>\n  <trace><event>", "line 2, column 17: no element found"),
        ("", "line 1, column 1: no element found"),
        ("<html/>", "line 1, column 1: the first element is <html>, and that of an XES file is <log>"),
        ("<log>\n<event><string value='x'/></event></log>", "line 2, column 8: <string> has no 'key'"),
        ("<log><event><int key='n'/></event></log>", "<int key='n'> has no 'value'"),
        ("<log><event><trace/></event></log>", "<trace> is no element that XES has inside <event>"),
        ("<log><event><int key='a' value='1'/><int key='a' value='2'/></event></log>", "'a' is here twice"),
        (
            "<log><event><int key='a' value='1'/><id key='a' value='2'/></event></log>",
            "event 1 has 'a' twice",
        ),
        ("<log>\n<event>\x01</event></log>", "line 2, column 8: not well-formed"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidLog) as error:
        read_tables(log(tmp_path, text))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE log SYSTEM "http://example.invalid/x.dtd">',
        '<!DOCTYPE log [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE log [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    ],
)
def test_a_document_type_is_refused_before_any_entity_is_read(tmp_path: Path, doctype: str) -> None:
    """So nothing is fetched, and no entity grows."""
    text = f"{doctype}\n<log><string key='x' value='y'/></log>"
    with pytest.raises(InvalidLog, match=r"line 1, .*document type .* is refused"):
        read_tables(log(tmp_path, text))


def test_times_that_cannot_be_read_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    events = [
        f'<date key="time:timestamp" value="{value}"/>'
        for value in ("2024-02-30T00:00:00Z", "soon", "2024-01-01T00:00:00Z")
    ]
    with pytest.raises(InvalidLog) as error:
        read_tables(log(tmp_path, f"<log>{trace(*events)}</log>"))
    told = str(error.value)
    assert "2 of 3 times in 'time:timestamp' cannot be read" in told
    assert "event 1 has '2024-02-30T00:00:00Z', event 2 has 'soon'" in told


def test_times_with_and_without_a_zone_are_not_mixed(tmp_path: Path) -> None:
    events = [
        f'<date key="time:timestamp" value="2024-01-01T00:00:00{zone}"/>' for zone in ("Z", "", "+02:00")
    ]
    with pytest.raises(InvalidLog, match=r"1 of 3 times .* name no zone while the others do: event 2 has"):
        read_tables(log(tmp_path, f"<log>{trace(*events)}</log>"))


def test_times_none_of_which_has_a_zone_are_utc(tmp_path: Path) -> None:
    event = '<date key="time:timestamp" value="2024-01-01T00:00:00.5"/>'
    found = read_tables(log(tmp_path, f"<log>{trace(event)}</log>")).events
    assert found.column("time:timestamp").to_pylist() == [datetime(2024, 1, 1, 0, 0, 0, 500_000, UTC)]


def test_a_time_that_is_said_to_be_a_text_is_a_time(tmp_path: Path) -> None:
    """Some writers know no dates; beside those of others they are read alike."""
    events = [f'<{kind} key="time:timestamp" value="2024-01-01T00:00:00Z"/>' for kind in ("string", "date")]
    found = read_tables(log(tmp_path, f"<log>{trace(*events)}</log>")).events
    assert found.column("time:timestamp").to_pylist() == [datetime(2024, 1, 1, tzinfo=UTC)] * 2


def test_a_compressed_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(LOG.encode())
    path = tmp_path / "log.xes.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidLog, match=r"damaged or cut short"):
        read_tables(path)


def test_attributes_nested_without_end_are_refused(tmp_path: Path) -> None:
    deep = "<string key='a' value='b'>" * 200
    with pytest.raises(InvalidLog, match="nested more than 100 deep"):
        read_tables(log(tmp_path, f"<log><event>{deep}"))


def test_a_text_that_xml_cannot_hold_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    tables = Tables(pa.table({"c": ["a"], "x": ["bell \x07"]}), None, None, {"case": "c"})
    with pytest.raises(InvalidLog, match=r"U\+0007, which no XML can"):
        write_tables(tables, tmp_path / "log.xes")
    assert list(tmp_path.iterdir()) == []
