"""JSON that is read piece by piece: the same values as in one piece, and places that are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim import jsonstream
from esim.errors import InvalidLog
from esim.jsonstream import JsonFile, compact

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def elements(path: Path) -> list[tuple[str, Any]]:
    with JsonFile(path) as file:
        return list(file.elements())


@given(values=st.lists(VALUES, max_size=5), indent=st.none() | st.integers(0, 2))
def test_any_list_is_the_same_piece_by_piece(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None
) -> None:
    """With pieces of seven bytes, every value is cut somewhere."""
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=indent is None), "utf-8", errors="replace")
    whole = json.loads(path.read_text("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonstream, "_CHUNK", 7)
        assert elements(path) == [("", value) for value in whole]


def test_the_lists_of_an_object_come_element_by_element(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('\ufeff {"a": [1, 2], "b": {"c": []}, "d": []} \n')
    with JsonFile(path) as file:
        assert list(file.elements()) == [("a", 1), ("a", 2), ("b", {"c": []})]
        assert file.members == {"a", "b", "d"}


@pytest.mark.parametrize("chunk", [5, 1 << 20])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1,\n 2,\n  x]", "x.json, line 3, column 3: Expecting value"),
        ('[{"a": 1},\n{"a" 2}]', "line 2, column 6: Expecting ':' delimiter"),
        ('["é",\n"ab', "line 2, column 1: the file ends too early"),
        ("[1] [2]", "line 1, column 5: there is more after the end of the JSON"),
        ("[1 2]", "line 1, column 4: expected , or ]"),
        ('{"a": [1],\n b: 2}', 'line 2, column 2: expected a name in double quotes: "…"'),
        ("7", "line 1, column 1: expected a list or an object"),
        ('["a\nb"]', "line 1, column 4: Invalid control character"),
    ],
)
def test_a_mistake_is_told_with_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str, chunk: int
) -> None:
    """However much of the file was read at a time."""
    monkeypatch.setattr(jsonstream, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidLog) as error:
        elements(path)
    assert told in str(error.value)


def test_bytes_that_are_no_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'["a",\n"\xff"]')
    with pytest.raises(InvalidLog, match=r"line 2, column 2: this is no UTF-8"):
        elements(path)


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + "[" * 100_000)
    with pytest.raises(InvalidLog, match="nested too deeply"):
        elements(path)


def test_a_mistake_early_in_a_large_file_is_told_before_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, oops, " + "2, " * 2_000_000 + "3]")
    with JsonFile(path) as file, pytest.raises(InvalidLog, match="line 1, column 5"):
        list(file.elements())
    assert len(file._text) <= jsonstream._CHUNK


def test_what_is_no_json_becomes_a_json_text() -> None:
    assert compact('{"a": 1.50,\n "b": NaN}') == json.dumps('{"a": 1.50,\n "b": NaN}')
    assert compact('{"a": 1.50,\n "b": null}') == '{"a":1.50,"b":null}'
