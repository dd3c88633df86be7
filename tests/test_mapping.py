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


@pytest.mark.parametrize(
    ("types", "told"),
    [
        ({"created_at": TIME, "updated_at": TIME, "activity": TEXT}, "time: 'created_at', 'updated_at'"),
        ({"created_at": TEXT, "updated_at": TEXT, "activity": TEXT}, "time: 'created_at', 'updated_at'"),
        ({"start_time": TIME, "end_time": TIME, "activity": TEXT}, "time: 'start_time', 'end_time'"),
        ({"created_at": TIME, "left": TIME, "activity": TEXT}, "time: 'created_at', 'left'"),
        ({"time": TIME, "event": TEXT, "type": TEXT}, "activity: 'event', 'type'"),
        ({"time": TIME, "status": TEXT, "type": TEXT}, "activity: 'status', 'type'"),
    ],
)
def test_names_of_different_things_are_asked_about(types: dict[str, str], told: str) -> None:
    """A ticket was created and updated, and an event has a type: which of them is meant nobody can guess."""
    with pytest.raises(InvalidLog, match=f"several columns could be the {told}"):
        mapped({"case": TEXT, **types}, {}, {})


def test_a_plain_name_has_no_rival() -> None:
    """`timestamp` and `activity` are what they are called, whatever else there is; so is a lonely `type`."""
    assert (
        guessed(case=TEXT, activity=TEXT, type=TEXT, timestamp=TIME, created_at=TIME)["time"] == "timestamp"
    )
    assert guessed(case=TEXT, type=TEXT, created_at=TIME, events=INT) == {
        "case": "case",
        "activity": "type",
        "time": "created_at",
    }
    both = {"case": TEXT, "type": TEXT, "event": TEXT, "created_at": TIME, "updated_at": TIME}
    found = mapped(both, {"activity": "event"}, {"time": "updated_at"})
    assert (found["activity"], found["time"]) == ("event", "updated_at")
