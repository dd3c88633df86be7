"""The entry points: which format a file is in, files that are whole or absent, one format into the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from esim import bar, logtext, xes
from esim.arrowlog import Tables
from esim.errors import InvalidArgument, InvalidLog
from esim.formats import FORMATS, flatten, format_of, read_tables, write_tables
from tests.logs import known

UTC_TIME = pa.timestamp("us", "UTC")


@pytest.fixture
def shop() -> Tables:
    """Two orders that share an item."""
    events = pa.table({
        "position": [1, 2, 3],
        "event_id": ["e1", "e2", "e3"],
        "type": ["Placed", "Placed", "Picked"],
        "time": pa.array([10**15, 2 * 10**15, 3 * 10**15 + 1], UTC_TIME),
        "total": [1.5, None, None],
    })  # fmt: skip
    links = [("e1", "order", "o1"), ("e1", "item", "i1"), ("e2", "order", "o2"), ("e3", "item", "i1")]
    columns = [pa.array(list(each)) for each in zip(*links, strict=True)]
    objects = pa.table(
        [*columns, pa.nulls(4, pa.string())], names=["event_id", "object_type", "object_id", "qualifier"]
    )
    roles = {"event_id": "event_id", "activity": "type", "time": "time", "order": "position"}
    return Tables(events, objects, None, roles)


@pytest.fixture
def simple(shop: Tables) -> Tables:
    """The events of orders, as cases."""
    return flatten(shop, "order")


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_is_told_by_the_name_and_by_the_content(tmp_path: Path, simple: Tables, format: str) -> None:
    path = write_tables(simple, tmp_path / f"log.{format}")
    assert format_of(path) == format
    nameless = shutil.copy(path, tmp_path / "log")
    assert format_of(nameless) == format
    assert read_tables(nameless).events.equals(read_tables(path).events)


@pytest.mark.parametrize(
    ("name", "format"), [("a.jsonocel", "ocel.json"), ("a.XMLOCEL", "ocel.xml"), ("a.sqlite", "ocel.sqlite")]
)
def test_other_endings_in_use_are_known(tmp_path: Path, shop: Tables, name: str, format: str) -> None:
    assert format_of(write_tables(shop, tmp_path / name)) == format


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_holds_the_same_events(tmp_path: Path, simple: Tables, format: str) -> None:
    found = read_tables(write_tables(simple, tmp_path / "log", format))
    columns = [found.events.column(found.roles[role]).to_pylist() for role in ("activity", "time")]
    assert columns == [["Placed", "Placed"], simple.events.column("time").to_pylist()]


def test_what_tells_no_format_is_refused(tmp_path: Path, simple: Tables) -> None:
    path = tmp_path / "log.txt"
    path.write_text("hello")
    with pytest.raises(
        InvalidArgument, match=r"'log\.txt' does not tell its format: give format=, one of xes"
    ):
        read_tables(path)
    with pytest.raises(InvalidArgument, match="does not tell its format"):
        write_tables(simple, path)
    with pytest.raises(InvalidArgument, match=r"format='csv' for 'log\.txt': give one of xes"):
        read_tables(path, format="csv")
    with pytest.raises(InvalidArgument, match="there is no file"):
        read_tables(tmp_path / "none.xes")


def test_flattening_gives_each_object_its_events(shop: Tables) -> None:
    items = flatten(shop, "item")
    assert known(items.events, xes.CASE, "event_id") == [("i1", "e1"), ("i1", "e3")]
    assert items.roles["case"] == xes.CASE
    with pytest.raises(InvalidArgument, match=r"about an object of type \"it'em\": there are item, order"):
        flatten(shop, "it'em")


def test_a_log_of_objects_of_several_types_has_no_one_case(tmp_path: Path, shop: Tables) -> None:
    with pytest.raises(InvalidLog, match=r"objects of 2 types \('item', 'order'\): choose one by flatten"):
        write_tables(shop, tmp_path / "log.xes")


def test_a_log_of_objects_of_one_type_has_these_as_cases(tmp_path: Path, shop: Tables) -> None:
    assert shop.objects is not None
    orders = shop._replace(objects=shop.objects.filter(pa.array([True, False, True, False])))
    found = read_tables(write_tables(orders, tmp_path / "log.xes")).events
    assert found.column(xes.CASE).to_pylist() == ["o1", "o2"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupt_leaves_the_former_file(
    tmp_path: Path, simple: Tables, monkeypatch: pytest.MonkeyPatch, format: str, error: type[BaseException]
) -> None:
    """And no part of a new one beside it."""
    path = tmp_path / f"log.{format}"
    path.write_text("the former")

    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(logtext.Bar, "at", broken)
    with pytest.raises(error):
        write_tables(simple, path)
    assert path.read_text() == "the former"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupt_ends_a_reading(
    tmp_path: Path, simple: Tables, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    path = write_tables(simple, tmp_path / f"log.{format}")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bar.Bar, "at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_tables(path)
    assert read_tables(path).events.num_rows == 2


def test_a_long_reading_shows_how_far_it_is(
    tmp_path: Path, simple: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tables(simple, tmp_path / "log.xes")
    seconds = iter(range(0, 10**6, 3))
    monkeypatch.setattr(bar, "monotonic", lambda: float(next(seconds)))
    read_tables(path)
    assert "reading log.xes" in capsys.readouterr().err


def test_payloads_are_spread_into_attributes(tmp_path: Path) -> None:
    """Numbers and booleans keep their types, what is nested or mixed is text, collisions are told apart."""
    data = [
        '{"n": 1, "x": 1.5, "ok": true, "deep": {"a": [1]}, "mix": 1, "a": "own"}',
        '{"n": 2, "mix": "two"}',
        None,
    ]
    tables = Tables(
        pa.table({"c": ["1", "1", "2"], "a": ["A", "B", "C"], "d": data}),
        None,
        None,
        {"case": "c", "activity": "a", "data": "d"},
    )
    found = read_tables(write_tables(tables, tmp_path / "log.xes")).events.to_pylist()
    assert found[0] == {
        "position": 1, "case:concept:name": "1", "concept:name": "A", "time:timestamp": None,
        "data:a": "own", "deep": '{"a":[1]}', "mix": "1", "n": 1, "ok": True, "x": 1.5,
    }  # fmt: skip
    assert (found[1]["n"], found[1]["mix"], found[2]["n"]) == (2, "two", None)


def test_payloads_with_huge_numbers_stay_exact(tmp_path: Path) -> None:
    rows = {"c": ["1"], "d": ['{"n": 123456789012345678901234567890, "u": 18446744073709551615}']}
    tables = Tables(pa.table(rows), None, None, {"case": "c", "data": "d"})
    (found,) = read_tables(write_tables(tables, tmp_path / "log.xes")).events.to_pylist()
    assert (found["n"], found["u"]) == ("123456789012345678901234567890", "18446744073709551615")
