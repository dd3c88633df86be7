"""An answer shows its figures with units, what its columns mean, its SQL and its notes."""

from __future__ import annotations

import base64

import pandas as pd

from esim.result import Result, span

TABLE = pd.DataFrame(
    {"case": ["<a>", None], "n": [1234, 5], "mean_s": [5400.0, float("nan")], "share": [0.5, 1]}
)
COLUMNS = {"case": "the case", "n": "how many", "mean_s": "the mean, seconds", "share": "a part"}


def made(**more: object) -> Result:
    return Result("Cases & more", TABLE, COLUMNS, "SELECT '<b>'", ("a note",), **more)  # type: ignore[arg-type]


def test_the_text_has_title_size_columns_notes_and_rows() -> None:
    """The first line says what there is, then the notes, then the figures as numbers."""
    told = repr(made()).splitlines()
    assert told[:2] == ["<Cases & more: 2 rows; case, n, mean_s, share>", "a note"]
    assert "5400.0" in told[3]
    assert len(made()) == 2


def test_the_table_has_durations_as_people_say_them() -> None:
    """Seconds become the largest unit, thousands are set apart, missing values a dash, text is escaped."""
    shown = made()._repr_html_()
    for part in (
        "1.5\u00a0h",
        "50.0\u00a0%",
        "1,234",
        "–",
        "&lt;a&gt;",
        "Cases &amp; more",
        "SELECT &#x27;&lt;b&gt;&#x27;",
        "a note",
    ):
        assert part in shown
    assert "<a>" not in shown
    assert "the mean, seconds" in shown


def test_a_missing_value_of_any_type_is_a_dash() -> None:
    """Whole numbers beside missing ones, times and truths too."""
    missing = pd.DataFrame(
        {
            "whole": pd.array([1234, None], dtype="Int64"),
            "truth": pd.array([True, None], dtype="boolean"),
            "time": pd.to_datetime(["2026-01-01", None], utc=True),
            "list": [["a", "b"], None],
        }
    )
    shown = Result("Missing", missing, {}, "")._repr_html_()
    assert shown.count(">–<") == 4
    assert ">1,234<" in shown and ">a → b<" in shown


def test_a_long_answer_says_how_much_it_shows() -> None:
    """Twenty rows are shown of many."""
    many = Result("Many", pd.DataFrame({"n": range(1500)}), {"n": "a number"}, "")
    assert "the first 20 of 1,500 rows" in many._repr_html_()


def test_a_picture_is_an_image_with_its_text() -> None:
    """SVG goes out as a data URI with alternative text; an answer without rows has no picture."""
    drawn = "<svg><title>Two &amp; more</title><desc>all of them</desc></svg>"
    answer = made(draw=lambda frame, title: drawn if (len(frame), title) == (2, "Cases & more") else "")
    code = base64.b64encode(drawn.encode()).decode()
    image = f'src="data:image/svg+xml;base64,{code}" alt="Two &amp; more. all of them"'
    assert image in answer._repr_html_() and image in answer.picture._repr_html_()
    many = Result("Many", pd.DataFrame({"n": range(1500)}), {"n": "a number"}, "", draw=lambda *_: drawn)
    assert "the first 8 of 1,500 rows" in many._repr_html_()
    empty = Result("None", TABLE.head(0), COLUMNS, "", draw=lambda *_: "<svg/>")
    assert (empty.svg(), made().svg()) == ("", "")


def test_spans_of_every_size() -> None:
    """Milliseconds to days, and what went backward."""
    assert [span(one) for one in (0, 0.0015, 59, 60, 3600, 86400, -7200, 1e9)] == [
        "0 s", "1.5 ms", "59 s", "1 min", "1 h", "1 d", "-2 h", "11,574 d",
    ]  # fmt: skip
