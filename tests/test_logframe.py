"""A dataframe is taken as it is: no hour is cut off, no zone lost, and no later change seeps in."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from esim.errors import InvalidArgument, InvalidLog
from esim.eventlog import EventLog

DAY, NAIVE = date(2024, 1, 1), datetime(2024, 1, 1, 5)
AWARE = NAIVE.replace(tzinfo=UTC)


def columns(*times: Any) -> dict[str, Any]:
    size = len(times)
    return {"case": ["1"] * size, "activity": ["A"] * size, "time": pd.Series(times, dtype=object)}


@pytest.mark.parametrize("times", [(DAY, NAIVE), (NAIVE, AWARE), (AWARE, NAIVE), (DAY, None, AWARE)])
def test_python_times_of_several_kinds_are_refused(times: tuple[Any, ...]) -> None:
    """Arrow would take the kind of the first: hours or zones of the others would be gone."""
    for given in (columns(*times), pd.DataFrame(columns(*times))):
        with pytest.raises(InvalidLog, match=r"the column 'time' mixes .*: make them one kind"):
            EventLog(given)


@pytest.mark.parametrize(
    ("times", "start"),
    [
        ((DAY, None, DAY), "2024-01-01 00:00"),
        ((NAIVE, pd.NaT, pd.Timestamp(NAIVE)), "2024-01-01 05:00"),
        ((AWARE, pd.Timestamp("2024-01-01 08:00", tz="Asia/Tokyo")), "2023-12-31 23:00"),
    ],
)
def test_python_times_of_one_kind_are_times(times: tuple[Any, ...], start: str) -> None:
    """Missing ones beside them, and zones of their own, do no harm."""
    found = EventLog(pd.DataFrame(columns(*times))).cases().df["start"]
    assert str(found.iloc[0])[:16] == start


def test_a_dataframe_may_change_after_it() -> None:
    """A log is of the values that were handed in, though none of them is copied."""
    frame = pd.DataFrame({"case": [1, 2], "activity": ["A", "B"], "time": [1.7e9, 1.7e9], "n": [1.5, 2.5]})
    log = EventLog(frame)
    frame.loc[0, "n"] = 99
    frame.loc[0, "case"] = 2
    assert log.sql('SELECT n, "case" FROM source').to_numpy().tolist() == [[1.5, 1], [2.5, 2]]


def test_ids_are_whole_numbers_where_a_gap_made_fractions_of_them() -> None:
    """A case 1 beside a missing one is 1 and not 1.0, and the id of a cause is that of the event."""
    frame = pd.DataFrame({
        "case": [1, 1, None], "activity": ["A", "B", "C"], "time": [1.7e9, 1.7e9 + 1, 1.7e9],
        "event_id": [10, 11, 12], "causation_id": [None, 10, None],
    })  # fmt: skip
    log = EventLog(frame)
    assert log.cases().df["case"].tolist() == ["1"]
    assert log.causes(11).df["event_id"].tolist() == ["10", "11"]


def test_a_column_that_comes_twice_is_told() -> None:
    """Neither of the two is taken in silence, nor an error of Arrow's shown."""
    frame = pd.DataFrame([["1", "a", "2024-01-01", "x"]], columns=["case", "activity", "time", "time"])
    with pytest.raises(InvalidLog, match="the DataFrame has two columns 'time' and 'time'"):
        EventLog(frame)


def test_a_list_of_events_is_no_log() -> None:
    """It is told what can be given."""
    with pytest.raises(InvalidArgument, match="is no log: give a store, a dataframe, an Arrow table"):
        EventLog([{"case": "1", "activity": "a", "time": "2024-01-01"}])


def test_dicts_are_json_each_with_its_own_fields() -> None:
    """Payloads in a column of objects take no fields from another one, and keep how they are written."""
    given: dict[str, Any] = columns(NAIVE, NAIVE, NAIVE, NAIVE)
    given["data"] = [
        {"a": 1, "A": Decimal("1.50")},
        {"at": DAY, "n": np.int64(2)},
        None,
        {"items": [{"x": 1}, {}]},
    ]
    for source in (given, pd.DataFrame(given)):
        log = EventLog(source)
        found = log.sql("SELECT data::VARCHAR AS d FROM events ORDER BY v")["d"]
        assert [None if pd.isna(one) else one for one in found] == [
            '{"a": 1, "A": "1.50"}', '{"at": "2024-01-01", "n": 2}', None, '{"items": [{"x": 1}, {}]}'
        ]  # fmt: skip
        assert log.mapping.types["data"] == "JSON"


def test_a_dict_that_is_no_json_is_told() -> None:
    """What JSON cannot say is named, with its column."""
    with pytest.raises(InvalidLog, match=r"the column 'data' has dicts, and a value that is no JSON: .*set"):
        EventLog({**columns(NAIVE), "data": [{"a": {1}}]})


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("half \ud83d", "the column 'who' has in row 2 a text"),
        (["half \ud83d"], "the column 'who' has in row 2 a text"),
        ({"half \ud83d": 1}, "the column 'who' has in row 2 a text"),
        (None, "the name of a column is a text"),
    ],
    ids=["text", "list", "dict", "name"],
)
def test_half_a_character_is_refused_where_it_is(value: object, at: str) -> None:
    """Python may hold a text that UTF-8 cannot; the error says where, and shows it escaped."""
    name = "who" if value else "half \ud83d"
    given = columns(AWARE, AWARE) | {name: pd.Series([type(value)(), value], dtype=object)}
    for one in (given, pd.DataFrame(given.values(), index=pd.Index(given, dtype=object)).T):
        with pytest.raises(InvalidLog, match=rf"{at} with half a character: '.*half \\ud83d.*'; mend it"):
            EventLog(one)
