"""Columns are guessed where one is clear, and asked for where none or several are."""

from __future__ import annotations

import pytest

from esim.errors import InvalidLog
from esim.mapping import mapped

TEXT, TIME, INT = "VARCHAR", "TIMESTAMP", "BIGINT"


def guessed(**types: str) -> dict[str, str]:
    named = {name.replace("__", ":").replace("_0", " "): kind for name, kind in types.items()}
    return dict(mapped(named, {}, {}).columns)


def test_the_names_of_the_field_are_known() -> None:
    """XES, esim's own and everyday headers are found whatever their case and signs."""
    xes = {"case:concept:name": TEXT, "concept:name": TEXT, "time:timestamp": TIME, "org:resource": TEXT}
    assert dict(mapped(xes, {}, {}).columns) == {
        "case": "case:concept:name",
        "activity": "concept:name",
        "time": "time:timestamp",
        "resource": "org:resource",
    }
    assert guessed(Case_ID=TEXT, ACTIVITY=TEXT, Timestamp=TIME, User=TEXT) == {
        "case": "Case_ID",
        "activity": "ACTIVITY",
        "time": "Timestamp",
        "resource": "User",
    }


def test_a_word_in_a_longer_name_is_the_second_choice() -> None:
    """`Ticket Case No` and `Start Time (local)` are found by their words."""
    types = {"Ticket Case No": INT, "What activity": TEXT, "Start Time (local)": TEXT}
    assert dict(mapped(types, {}, {}).columns) == {
        "case": "Ticket Case No",
        "activity": "What activity",
        "time": "Start Time (local)",
    }


def test_the_only_time_needs_no_name() -> None:
    """A single column of type TIMESTAMP is the time."""
    assert guessed(case=TEXT, activity=TEXT, at=TIME)["time"] == "at"


def test_what_is_given_or_said_by_the_format_wins() -> None:
    """A name that is given comes first, in any case of letters, then what the format says."""
    types = {"stream": TEXT, "type": TEXT, "kind": TEXT, "time": TIME}
    assert mapped(types, {"activity": "KIND"}, {})["activity"] == "kind"
    assert mapped(types, {}, {"activity": "kind"}, {})["activity"] == "kind"
    assert mapped(types, {"activity": "type"}, {"activity": "kind"}, {})["activity"] == "type"
    assert "activity='kind' (of the format)" in repr(mapped(types, {}, {"activity": "kind"}, {}))


@pytest.mark.parametrize(
    ("types", "given", "told"),
    [
        ({"a": TEXT, "activity": TEXT, "time": TIME}, {}, r"no column looks like the case .* a \(VARCHAR\)"),
        (
            {"case": TEXT, "activity": TEXT, "opened": TIME, "closed": TIME},
            {},
            "several .* 'opened', 'closed'",
        ),
        (
            {"case": TEXT, "activity": TEXT, "time": TIME},
            {"case": "cas"},
            "no column 'cas'.*did you mean 'case'",
        ),
        ({}, {}, "the columns are none"),
    ],
)
def test_an_unclear_column_is_asked_for(types: dict[str, str], given: dict[str, str], told: str) -> None:
    """The error names the candidates and the argument to give."""
    with pytest.raises(InvalidLog, match=told):
        mapped(types, dict(given), {})


def test_a_role_can_be_left_empty() -> None:
    """An empty text says that no column has a role."""
    types = {"case": TEXT, "activity": TEXT, "time": TIME, "version": INT}
    assert mapped(types, {"order": ""}, {}).get("order") is None


def test_the_mapping_shows_what_was_guessed() -> None:
    """Text and table say role, column, and how it was found; headers are escaped."""
    types = {"case": TEXT, "<b>": TEXT, "time": TIME}
    found = mapped(types, {"activity": "<b>"}, {}, lambda: {"case": "o-1"})
    assert repr(found) == "<Mapping: case='case' (guessed), activity='<b>' (given), time='time' (guessed)>"
    assert "&lt;b&gt;" in found._repr_html_() and "<b>" not in found._repr_html_()


BOTH = {"case": TEXT, "activity": TEXT, "occurred_at": TIME, "recorded_at": TIME}


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        ({}, "occurred_at"),
        ({"occurred_at": 10}, "occurred_at"),
        ({"occurred_at": 11}, "recorded_at"),
        ({"occurred_at": 100}, "recorded_at"),
        ({"occurred_at": 60, "recorded_at": 90}, "occurred_at"),
        ({"occurred_at": 90, "recorded_at": 60}, "recorded_at"),
    ],
)
def test_a_column_without_values_loses_to_one_that_has_them(missing: dict[str, int], chosen: str) -> None:
    """Up to one row in ten may be without; beyond, the next usual name wins, or the fullest column."""
    found = mapped(BOTH, {}, {}, gaps=lambda names: (100, {one: missing.get(one, 0) for one in names}))
    assert found["time"] == chosen


def test_what_is_given_is_taken_whatever_it_lacks() -> None:
    """Only guesses look at the values."""
    given = {"case": "case", "activity": "activity", "time": "occurred_at"}
    found = mapped(BOTH, dict(given), {}, gaps=lambda names: (100, dict.fromkeys(names, 100)))
    assert dict(found.columns) == given
    assert "have none" not in repr(found)


def test_a_clear_guess_asks_nothing_of_the_values() -> None:
    """Where one column has a usual name, a large log is not read to guess."""

    def never(names: list[str]) -> tuple[int, dict[str, int]]:
        raise AssertionError(names)

    assert mapped({"case": TEXT, "activity": TEXT, "time": TIME}, {}, {}, gaps=never)["time"] == "time"


def test_a_guess_that_lacks_values_is_said_with_the_way_to_correct_it() -> None:
    """The mapping tells how many rows a guessed column leaves without a value, in text and in the table."""
    found = mapped(BOTH, {}, {}, gaps=lambda names: (1200, dict.fromkeys(names, 5)))
    told = "5 of 1,200 rows have none: time='…' names another column"
    assert told in repr(found)
    assert "5 of 1,200 rows have none: time=&#x27;…&#x27; names another column" in found._repr_html_()
