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


@pytest.mark.parametrize("missing", [{"created_at": 60}, {"updated_at": 60}])
def test_a_fuller_column_is_not_the_one_that_is_meant(missing: dict[str, int]) -> None:
    """That few tickets were updated says nothing of which time is meant."""
    types = {"case": TEXT, "activity": TEXT, "created_at": TIME, "updated_at": TIME}
    with pytest.raises(InvalidLog, match="several columns could be the time: 'created_at', 'updated_at'"):
        mapped(types, {}, {}, gaps=lambda names: (100, {one: missing.get(one, 0) for one in names}))


@pytest.mark.parametrize("other", ["created_at", "date"])
def test_a_plain_name_that_many_rows_lack_is_asked_about(other: str) -> None:
    """A sparse `timestamp` does not win, and no time of another thing is taken for it in silence."""
    types = {"case": TEXT, "activity": TEXT, "timestamp": TIME, other: TIME}
    with pytest.raises(InvalidLog, match=f"several columns could be the time: 'timestamp', '{other}'"):
        mapped(types, {}, {}, gaps=lambda names: (100, {one: 60 * (one == "timestamp") for one in names}))
    few = mapped(types, {}, {}, gaps=lambda names: (100, {one: 10 * (one == "timestamp") for one in names}))
    assert few["time"] == "timestamp"


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


@pytest.mark.parametrize("clock", ["TIME", "TIME_NS"])
def test_a_day_beside_a_time_of_day_is_no_time(clock: str) -> None:
    """The day alone would order nothing within it: both are named, unless days are said to be enough."""
    types = {"case": "VARCHAR", "activity": "VARCHAR", "date": "DATE", "time": clock}
    with pytest.raises(
        InvalidLog, match=r"'date' has only days, and 'time' has times of day: .* date \+ time"
    ):
        mapped(types, {}, {})
    assert mapped(types, {"time": "date"}, {})["time"] == "date"
