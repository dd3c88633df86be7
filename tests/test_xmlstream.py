"""XML in and out: encodings, escapes that survive, and memory that does not grow with the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidLog
from esim.formats import read_tables
from esim.xmlstream import XmlReader, escape


@given(st.text())
def test_an_escaped_text_is_the_same_after_parsing_or_refused(text: str) -> None:
    try:
        escaped = escape(text)
    except InvalidLog:
        with pytest.raises(ET.ParseError):
            ET.fromstring(f"<x>{text}</x>".encode("utf-8", "surrogatepass"))  # noqa: S314 - our own text
        return
    made = ET.fromstring(f'<x a="{escaped}">{escaped}</x>'.encode())  # noqa: S314 - our own text
    assert (made.get("a"), made.text or "") == (text, text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_a_file_is_read_in_the_encoding_it_names(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.xes"
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><log><event><string key="a" value="Zoë"/></event></log>'
    )
    path.write_bytes(text.encode(encoding))
    assert read_tables(path).events.column("a").to_pylist() == ["Zoë"]


def events(count: int) -> Iterator[str]:
    yield "<log>"
    for number in range(count):
        yield f'<trace><event><string key="concept:name" value="a{number % 7}"/></event></trace>\n'
    yield "</log>"


def peak(path: Path) -> int:
    """Return how many bytes Python holds at most while it parses a file."""
    tracemalloc.start()
    try:
        XmlReader(path).parse(lambda _tag, _values: None, lambda _tag: None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_file_is_never_held_as_a_whole(tmp_path: Path) -> None:
    """Ten times the events take no more memory to parse."""
    few, many = tmp_path / "few.xes", tmp_path / "many.xes"
    few.write_text("".join(events(5_000)))
    many.write_text("".join(events(50_000)))
    assert peak(many) < 1.2 * peak(few)
