"""A log from a file is what the file says: no row, no id and no field of it is lost or taken for another."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esim.errors import InvalidLog, StoreLocked
from esim.eventlog import EventLog
from esim.store import EventStore

Rows = list[tuple[Any, ...]]
NAMES = ("case", "activity", "time")
NOON = datetime(2024, 1, 1, 12)
MANY = 21_000
"""More rows than DuckDB looks at for its guess."""


def written(path: Path, rows: Rows, names: tuple[str, ...] = NAMES) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def lined(path: Path, rows: Rows, names: tuple[str, ...] = NAMES) -> Path:
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows))
    return path


def cases(log: EventLog) -> set[str]:
    return set(log.cases().df["case"])


def spans(log: EventLog) -> tuple[str, str]:
    found = log.cases().df.iloc[0]
    return str(found["start"])[:16], str(found["end"])[:16]


# --- CSV ---------------------------------------------------------------------------------------------------


def test_rows_that_begin_with_a_hash_are_events(tmp_path: Path) -> None:
    """No row of a CSV is a comment: tickets #1 and #3 are cases as 2 is."""
    file = written(tmp_path / "a.csv", [(one, "A", "2024-01-01") for one in ("#1", "2", "#3")])
    assert cases(EventLog(file)) == {"#1", "2", "#3"}


def test_lines_before_the_header_are_said(tmp_path: Path) -> None:
    """Titles are passed over, and how many lines that is."""
    file = tmp_path / "a.csv"
    file.write_text("# Tickets\n# of May\ncase,activity,time\n1,A,2024-01-01\n2,A,2024-01-02\n")
    log = EventLog(file)
    assert (cases(log), log.notes) == ({"1", "2"}, ("2 lines before the header are passed over",))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            ["1", "1.0", "1.10", "1.1", "1e3", "1000", "007", "7", "t", "true", "#1", "2024-01-01"]
        )
        | st.text("0123456789.eE+-_x:tf", min_size=1, max_size=6),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.sampled_from(["case", "activity", "item"]),
)
def test_ids_are_compared_as_they_are_written(tmp_path: Path, ids: list[str], role: str) -> None:
    """Whatever numbers, dates or truths they look like, different texts are different cases or activities."""
    rows = [
        (one if role == "case" else "c", one if role == "activity" else "A", "2024-01-01", one) for one in ids
    ]
    file = written(tmp_path / "a.csv", rows, (*NAMES, "item"))
    with EventLog(file, case="case", activity="activity", objects={"item": "item"}) as log:
        found = {
            "case": cases(log),
            "activity": set(log.activities().df["activity"]),
            "item": set(log.sql("SELECT object_id FROM objects")["object_id"]),
        }
        assert found[role] == set(ids)


def test_the_same_texts_are_ids_here_and_numbers_there(tmp_path: Path) -> None:
    """A column is read as texts where it names cases, and as numbers where it does not, side by side."""
    file = written(
        tmp_path / "a.csv",
        [("x", "A", "2024-01-01", "1.1"), ("x", "B", "2024-01-02", "1.10")],
        (*NAMES, "amount"),
    )
    log = EventLog(file)
    assert log.sql("SELECT sum(amount) AS n FROM events")["n"].tolist() == [2.2]
    assert cases(log.using(case="amount")) == {"1.1", "1.10"}
    assert log.sql("SELECT sum(amount) AS n FROM events")["n"].tolist() == [2.2]


def test_what_comes_late_is_read_as_well(tmp_path: Path) -> None:
    """After the rows that a guess rests on, an id of letters is an id, and a bad time is shown by its row."""
    good: Rows = [(n // 3, "A", f"2024-01-01 00:00:{n % 60:02d}", n) for n in range(MANY)]
    file = written(
        tmp_path / "a.csv",
        [*good, ("X1", "B", "n/a", "none"), ("X1", "B", "2024-01-02", 1)],
        (*NAMES, "amount"),
    )
    with pytest.raises(InvalidLog, match=r"1 value of time cannot .* \(row 21,001: 'n/a'\)"):
        EventLog(file).cases()
    log = EventLog(file, bad="drop")
    assert (len(log), "X1" in cases(log)) == (MANY + 1, True)
    assert log.notes[0] == "amount is kept as text: 1 of its values is no BIGINT ('none')"


def test_numbers_are_not_rounded_to_what_the_first_rows_are(tmp_path: Path) -> None:
    """A fraction after many whole numbers stays what it is."""
    rows: Rows = [(1, "A", "2024-01-01", 5)] * MANY + [(1, "B", "2024-01-02", 5.7)]
    log = EventLog(written(tmp_path / "a.csv", rows, (*NAMES, "amount")))
    assert log.sql("SELECT amount FROM events WHERE activity = 'B'")["amount"].tolist() == ["5.7"]


@pytest.mark.parametrize(
    ("times", "how", "found"),
    [
        (("01/02/2024", "03/02/2024"), "%m/%d/%Y", ("2024-01-02 00:00", "2024-03-02 00:00")),
        (("01/02/2024", "03/02/2024"), None, ("2024-02-01 00:00", "2024-02-03 00:00")),
        (
            ("01/02/24 10:00:00", "03/02/24 10:00:00"),
            "%d/%m/%y %H:%M:%S",
            ("2024-02-01 10:00", "2024-02-03 10:00"),
        ),
        (("20240301", "20240305"), "%Y%m%d", ("2024-03-01 00:00", "2024-03-05 00:00")),
    ],
)
def test_a_given_format_of_times_wins_over_a_guess(
    tmp_path: Path, times: tuple[str, str], how: str | None, found: tuple[str, str]
) -> None:
    """`time_format` says how times are read, and a guess is said only where there is none."""
    log = EventLog(written(tmp_path / "a.csv", [(1, "A", times[0]), (1, "B", times[1])]), time_format=how)
    assert spans(log) == found
    told = (
        "the times in time are read as %d/%m/%Y, and might be otherwise: as the log's time, give time_format="
    )
    assert any(note.startswith(told) for note in log.notes) == (how is None)


def test_a_format_that_the_times_prove_is_not_said(tmp_path: Path) -> None:
    """There is no thirteenth month, so that only a guess of days and months is worth a word."""
    log = EventLog(written(tmp_path / "a.csv", [(1, "A", "01/02/2024"), (1, "B", "13/02/2024")]))
    assert (spans(log), log.notes) == (("2024-02-01 00:00", "2024-02-13 00:00"), ())


def test_a_time_without_a_zone_beside_one_with_it(tmp_path: Path) -> None:
    """In a CSV, too, `timezone` says what times are that name none, and their number is said."""
    file = written(
        tmp_path / "a.csv", [(1, "A", "2024-03-01 12:00:00+02:00"), (1, "B", "2024-03-01 12:30:00")]
    )
    log = EventLog(file, timezone="America/New_York")
    assert spans(log) == ("2024-03-01 10:00", "2024-03-01 17:30")
    assert log.notes == (
        "1 of 2 times name their zone; the others are taken as America/New_York (timezone='…')",
    )


def test_a_name_of_several_columns_is_no_role(tmp_path: Path) -> None:
    """Which of them is meant is not guessed; what they are called here is said, and so they can be named."""
    (tmp_path / "a.csv").write_text("Case,case,activity,time,time\n9,1,A,2024-01-01,2023-01-01\n")
    told = "is unclear: several columns are called {0}, and SQL knows no case .* are {1}; rename one"
    with pytest.raises(InvalidLog, match="'Case' in a.csv " + told.format("'Case', 'case'", "Case, case_1")):
        EventLog(tmp_path / "a.csv", case="case", time="time_1")
    with pytest.raises(InvalidLog, match="'time' in a.csv " + told.format("'time', 'time'", "time, time_1")):
        EventLog(tmp_path / "a.csv", case="case_1")
    log = EventLog(tmp_path / "a.csv", case="case_1", time="time_1")
    assert (cases(log), spans(log)[0][:4], len(log.notes)) == ({"1"}, "2023", 2)


def test_columns_of_parquet_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """SQL takes Case for case, so both in one file are an error; case_1 beside one of them is only a name."""
    fields = {"case": ["1"], "activity": ["A"], "time": [NOON], "case_1": ["x"]}
    pq.write_table(pa.table(fields), tmp_path / "a.parquet")
    assert cases(EventLog(tmp_path / "a.parquet", case="case_1")) == {"x"}
    pq.write_table(pa.table({**fields, "Case": ["2"]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidLog, match=r"a\.parquet has columns that differ only in case"):
        EventLog(tmp_path / "a.parquet")


def test_a_column_may_be_called_as_our_own(tmp_path: Path) -> None:
    """A column #case is one like others, and one called #row, which would number the rows, is refused."""
    fields = {
        "case": ["1", "2"],
        "activity": ["A", "B"],
        "time": [NOON, NOON],
        "#CASE": ["9", "9"],
        "#n": [7, 7],
    }
    pq.write_table(pa.table(fields), tmp_path / "a.parquet")
    for source in (pa.table(fields), tmp_path / "a.parquet"):
        log = EventLog(source, case="case")
        assert (cases(log), cases(log.using(case="#CASE"))) == ({"1", "2"}, {"9"})
    pq.write_table(pa.table({**fields, "#Row": [7, 7]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("#row,case,activity,time\n7,1,A,2024-01-01\n")
    sources = (pa.table({**fields, "#row": [7, 7]}), tmp_path / "a.parquet", tmp_path / "a.csv")
    for source in sources:
        with pytest.raises(
            InvalidLog, match=r"(?i)has a column '#row', as our own number of a row is called"
        ):
            EventLog(source)


@pytest.mark.parametrize("odd", ['say "hi"', "x, y", "x\ny", "plain"])
def test_a_quote_that_comes_late_is_one(tmp_path: Path, odd: str) -> None:
    """Rows that need quotes may come after all those that DuckDB looks at; ours are read again."""
    rows: Rows = [("1", "A", "2024-01-01")] * MANY
    file = written(tmp_path / "a.csv", rows)
    with file.open("a", newline="") as more:
        csv.writer(more, quoting=csv.QUOTE_ALL).writerow(("2", odd, "2024-01-02"))
    found = EventLog(file)
    assert (cases(found), set(found.activities().df["activity"])) == ({"1", "2"}, {"A", odd})
    again = EventLog(found.write(tmp_path / "b.csv"))
    assert again.activities().df.equals(found.activities().df)


@pytest.mark.parametrize(
    ("text", "activity"),
    [("'a, b'", "a, b"), ('"a, b"', "a, b"), ('"a \\", b"', 'a ", b'), ('"a" b', '"a" b'), ('"a', '"a')],
)
def test_quotes_are_what_the_first_rows_say(tmp_path: Path, text: str, activity: str) -> None:
    """They may be single ones, escaped by a backslash, or no quotes but signs like others."""
    (tmp_path / "a.csv").write_text(f"case,activity,time\n1,{text},2024-01-01\n2,c,2024-01-01\n")
    assert set(EventLog(tmp_path / "a.csv").activities().df["activity"]) == {activity, "c"}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            ("1.1", "1.10"),
            "'1.1' and '1.10' in x are one value, of type DOUBLE: resource='x' tells them apart",
        ),
        (
            ("1e5", "10e4"),
            "'10e4' and '1e5' in x are one value, of type DOUBLE: resource='x' tells them apart",
        ),
        (("1.5", "123456789012345678901.5"), "x is kept as text: 1 of its values is no DOUBLE"),
        (("10:00", "10:00:00"), "'10:00' and '10:00:00' in x are one value, of type TIME"),
        (("1.5", "2.50"), None),
    ],
)
def test_texts_that_are_one_number_are_said(tmp_path: Path, texts: tuple[str, str], told: str | None) -> None:
    """A column without a role is one of numbers, and a note says so where that makes two texts one."""
    file = written(
        tmp_path / "a.csv", [(n, "A", "2024-01-01", text) for n, text in enumerate(texts)], (*NAMES, "x")
    )
    log = EventLog(file, time="time")
    assert [note[: len(told or "")] for note in log.notes] == [told] * bool(told)
    assert set(EventLog(file, time="time", resource="x").resources().df["resource"]) == set(texts)
    linked = EventLog(file, time="time", objects={"x": "x"})
    assert (set(linked.sql("SELECT object_id FROM objects")["object_id"]), linked.notes) == (set(texts), ())


# --- JSON --------------------------------------------------------------------------------------------------


def test_an_id_of_letters_after_many_numbers(tmp_path: Path) -> None:
    """JSON may mix numbers and texts in a field: each is the id that it says, however late it comes."""
    rows: Rows = [(n // 3, "A", "2024-01-01") for n in range(MANY)]
    log = EventLog(
        lined(
            tmp_path / "a.jsonl",
            [*rows, ("X1", "A", "2024-01-01"), (12345678901234567890123, "A", "2024-01-01")],
        )
    )
    assert {"X1", "12345678901234567890123", "6999"} < cases(log)


def test_a_field_that_comes_late_is_there(tmp_path: Path) -> None:
    """DuckDB drops fields which the rows that it looks at have not; a log has them, nested ones too."""
    rows = [{"case": 1, "activity": "A", "time": "2024-01-01", "more": {"a": 1}}] * MANY
    last = {"case": 1, "activity": "B", "time": "2024-01-02", "more": {"a": 1, "b": 2}, "late": "x"}
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, [*rows, last])))
    found = EventLog(file).sql("SELECT late, more.b::INT AS b FROM events WHERE activity = 'B'")
    assert found.to_numpy().tolist() == [["x", 2]]


def test_fields_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    """SQL takes Case for case, so both in one file are an error; case_1 beside them is only a name."""
    fields = {"case": 1, "activity": "A", "time": "2024-01-01", "case_1": "x"}
    (tmp_path / "a.json").write_text(json.dumps([fields]))
    assert EventLog(tmp_path / "a.json").sql("SELECT case_1 FROM events")["case_1"].tolist() == ["x"]
    (tmp_path / "a.json").write_text(json.dumps([{**fields, "Case": 2}]))
    with pytest.raises(InvalidLog, match="fields that differ only in case"):
        EventLog(tmp_path / "a.json")


PAYLOADS = (
    '{"a":1,"A":2}',
    '{"at":"2024-03-01T10:00:00+02:00","id":"6F9619FF-8B86-D011-B42D-00C04FC964FF"}',
    '{"n":12345678901234567890123,"x":1.5}',
    '{"n":1,"x":1}',
    '{"more":{"b":null},"":[1,"x",null,{}]}',
    "[1]",
    "{}",
)


def test_what_is_nested_is_what_the_file_says(tmp_path: Path) -> None:
    """No payload takes fields from another one, and none of its texts and numbers becomes another."""
    given = [
        f'{{"case":1,"activity":"A","time":"2024-01-0{n}","data":{text}}}'
        for n, text in enumerate(PAYLOADS, 1)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(given))
    log = EventLog(tmp_path / "a.jsonl")
    assert log.sql("SELECT data::VARCHAR AS d FROM events ORDER BY v")["d"].tolist() == list(PAYLOADS)
    assert log.sql("SELECT data ->> 'x' AS x FROM events WHERE v = 3")["x"].tolist() == ["1.5"]


def test_fields_that_are_not_nested_have_types(tmp_path: Path) -> None:
    """Numbers, truths and times are values in SQL, as in a CSV; mixed ones are texts."""
    fields = {
        "case": "a", "activity": "A", "time": "2024-01-01T08:00:00Z", "day": "2024-01-01", "at": "10:00",
        "n": 1, "x": 1.5, "yes": True, "mixed": 1, "none": None,
    }  # fmt: skip
    lines = [fields, {**fields, "x": 1, "mixed": "b"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    types = EventLog(tmp_path / "a.jsonl").mapping.types
    assert types == {
        "case": "VARCHAR", "activity": "VARCHAR", "time": "TIMESTAMP WITH TIME ZONE", "day": "DATE",
        "at": "TIME", "n": "BIGINT", "x": "DOUBLE", "yes": "BOOLEAN", "mixed": "VARCHAR", "none": "VARCHAR",
    }  # fmt: skip


def test_an_event_may_have_one_object_or_a_list(tmp_path: Path) -> None:
    """A field that is a list here and a text there, and a list of a fixed length, name each object."""
    rows: Rows = [("1", "A", "2024-01-01", ["i1", "i2"]), ("1", "B", "2024-01-02", "i1")]
    found = EventLog(lined(tmp_path / "a.jsonl", rows, (*NAMES, "items")), objects={"item": "items"})
    query = "SELECT object_id FROM objects ORDER BY ALL"
    assert found.sql(query)["object_id"].tolist() == ["i1", "i1", "i2"]
    fixed = duckdb.sql(
        "SELECT 1 AS \"case\", 'A' AS activity, DATE '2024-01-01' AS time, ['p', 'q']::VARCHAR[2] AS l"
    )
    assert EventLog(fixed, objects={"item": "l"}).sql(query)["object_id"].tolist() == ["p", "q"]


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log[1].csv", "l*g1.csv", "log?.csv", "[a", "{a,log1}.csv"])
def test_a_name_that_looks_like_a_pattern_is_that_file(tmp_path: Path, name: str) -> None:
    """A file that is there is read, and not the ones that its name would fit as a pattern."""
    written(tmp_path / "log1.csv", [("wrong", "A", "2024-01-01")])
    file = written(tmp_path / name, [("right", "A", "2024-01-01")])
    assert cases(EventLog(file, format="csv")) == {"right"}
    frame = EventLog(file, format="csv").write(tmp_path / f"{name}.parquet")
    assert cases(EventLog(frame)) == {"right"}


def test_files_of_a_pattern_may_have_such_names(tmp_path: Path) -> None:
    """Each file that a pattern finds is read once, by its own name."""
    for name in ("log1.csv", "log[1].csv"):
        written(tmp_path / name, [(name, "A", "2024-01-01")])
    log = EventLog(tmp_path / "*.csv")
    assert (cases(log), len(log)) == ({"log1.csv", "log[1].csv"}, 2)


def test_a_file_that_is_replaced_is_told(tmp_path: Path) -> None:
    """Parquet is read where it lies: what is another file now answers no more, also where we wrote it."""
    rows = [("1", "A", "2024-01-01", "mia"), ("2", "B", "2024-01-02", "noor")]
    file = EventLog(written(tmp_path / "a.csv", rows, (*NAMES, "who"))).write(tmp_path / "a.parquet")
    log = EventLog(file, resource="who")
    assert log.sql("SELECT who FROM events ORDER BY who")["who"].tolist() == ["mia", "noor"]
    log.without("A").write(file)
    told = r"'a\.parquet' has changed since the log was made: make the log anew"
    asked = (log.resources, log.without("A").cases, lambda: log.sql("SELECT 1"), lambda: log.write(file))
    for ask in asked:
        with pytest.raises(InvalidLog, match=told):
            ask()
    assert EventLog(file, resource="who").sql("SELECT who FROM events")["who"].tolist() == ["noor"]
    file.unlink()
    with pytest.raises(InvalidLog, match="has changed"):
        log.cases()


# --- formats -----------------------------------------------------------------------------------------------


def in_each_format(folder: Path, *times: str) -> list[Path]:
    """Return files in which a case has an event at each of these times, as they stand in them."""
    events = [
        {"specversion": "1.0", "id": f"e{n}", "source": "/", "type": f"A{n}", "subject": "1", "time": time}
        for n, time in enumerate(times)
    ]
    (folder / "a.cloudevents.json").write_text(json.dumps(events))
    told = "".join(
        f'<event><string key="concept:name" value="A{n}"/><date key="time:timestamp" value="{time}"/></event>'
        for n, time in enumerate(times)
    )
    name = '<string key="concept:name" value="1"/>'
    (folder / "a.xes").write_text(f'<log xes.version="1.0"><trace>{name}{told}</trace></log>')
    given = [
        {"id": f"e{n}", "type": f"A{n}", "time": time, "relationships": [{"objectId": "1", "qualifier": ""}]}
        for n, time in enumerate(times)
    ]
    types = [{"name": f"A{n}", "attributes": []} for n in range(len(times))]
    objects = [{"id": "1", "type": "order"}]
    log = {"eventTypes": types, "objectTypes": [{"name": "order", "attributes": []}]}
    (folder / "a.ocel.json").write_text(json.dumps({**log, "events": given, "objects": objects}))
    return [folder / f"a.{ending}" for ending in ("cloudevents.json", "xes", "ocel.json")]


def test_a_format_takes_the_zone_of_times_that_name_none(tmp_path: Path) -> None:
    """XES, OCEL and CloudEvents, too, are read with `timezone`, where their times say no other."""
    for file in in_each_format(tmp_path, "2024-07-01T12:00:00", "2024-07-01T13:00:00"):
        assert spans(EventLog(file, timezone="Europe/Berlin")) == ("2024-07-01 10:00", "2024-07-01 11:00")
    for file in in_each_format(tmp_path, "2024-07-01T12:00:00Z", "2024-07-01T13:00:00+01:00"):
        assert spans(EventLog(file, timezone="Europe/Berlin")) == ("2024-07-01 12:00", "2024-07-01 12:00")


def test_a_format_leaves_out_what_is_no_time_where_that_is_asked(tmp_path: Path) -> None:
    """A bad time is an error that shows it, and with `bad="drop"` a note that does."""
    for file in in_each_format(tmp_path, "2024-07-01T12:00:00", "n/a", "2024-07-01T13:00:00"):
        with pytest.raises(InvalidLog, match=r"1 of 3 times in '.*' cannot be read: event 2 has 'n/a'"):
            EventLog(file)
        log = EventLog(file, bad="drop", timezone="Europe/Berlin")
        assert spans(log) == ("2024-07-01 10:00", "2024-07-01 11:00")
        assert any("(row 2: 'n/a'); those rows are left out" in note for note in log.notes)


# --- what cannot be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"case": 1}\n{"case" 2}\n', "a.jsonl, line 2, column 9: "),
        ("a.jsonl", '{"case": 1}\n{"case": \n', "a.jsonl, line 3, column 1: the file ends too early"),
        ("a.json", '[{"case": 1},\n{"case": 2,]\n', "a.json, line 2, column 12: "),
        ("a.csv", "", "'a.csv' is empty"),
        ("a.jsonl", "", "'a.jsonl' is empty"),
        ("a.jsonl", "\n", "'a.jsonl' has no events"),
        ("a.json", "[]", "'a.json' has no events"),
        ("a.json", "[1, 2]", "a.json, line 1: 1 is no event: events are JSON objects"),
        ("a.jsonl", '{"case": 1}\n5\n', "a.jsonl, line 2: 5 is no event: events are JSON objects"),
        (
            "a.jsonl",
            '{"case": 1}\n{"case": 2\n{"case": 3}\n',
            "a.jsonl, line 3, column 1: .*, in what begins in line 2",
        ),
        ("a.csv", "case,time\n1,2024\n2,2024\n2 rows\n", "a.csv, line 4: 1 field, where most lines have 2"),
        ("a.csv", "a,b,c\n1,2,3\n1,2\n1,2,3\n", "a.csv, line 3: 2 fields, where most lines have 3"),
        ("a.csv", "a,b\n1,2\n" * MANY + "1\n", f"a.csv, line {2 * MANY + 1:,}: 1 field, where most"),
        (
            "a.csv",
            "a,b\n" + "1,2\n" * MANY + '1,"2\n3,4\n',
            f"line {MANY + 2:,}: a quote is opened and never",
        ),
        ("a.csv", "a,b\n" + "1,2\n" * MANY + '1,"2"3\n', f"line {MANY + 2:,}: ',' expected after '\"'"),
        ("a.csv", "a,b\r\n1,2\n1,3\r\n", "a.csv, line 2: .* give all lines one ending"),
        ("a.csv", "a,b\r1,2\n1,3\r", "a.csv, line 2: .* give all lines one ending"),
        ("a.csv", "a,b\n" + "1,2\n" * MANY + "1,3\r1,4\n", f"a.csv, line {MANY + 2:,}: .* give all lines"),
    ],
)
def test_what_is_no_log_is_told_with_its_place(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Malformed JSON by line and column, and a file without events as such."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidLog, match=told):
        EventLog(tmp_path / name, format=name.rpartition(".")[2])


def test_a_csv_without_events_is_an_empty_log(tmp_path: Path) -> None:
    """Its header names the columns, and all questions have empty answers."""
    with EventLog(written(tmp_path / "a.csv", [])) as log:
        assert (len(log), len(log.variants())) == (0, 0)


def test_a_table_of_another_schema_is_read(tmp_path: Path) -> None:
    """It is called by both names; a table of the main schema goes before one of the same name."""
    path = tmp_path / "d.duckdb"
    with duckdb.connect(path) as con:
        con.execute(
            "CREATE SCHEMA other; CREATE TABLE other.events AS SELECT 'a' AS \"case\", "
            "'x' AS activity, TIMESTAMP '2026-01-01' AS time"
        )
    assert len(EventLog(path)) == 1
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE events AS FROM other.events UNION ALL FROM other.events")
        con.execute("CREATE TABLE log AS FROM events")
    assert len(EventLog(path)) == 2
    assert len(EventLog(path, table="other.events")) == 1
    with pytest.raises(InvalidLog, match=r"'d\.duckdb' has no table 'other\.log'"):
        EventLog(path, table="other.log")


def test_a_file_that_is_open_here_is_told(tmp_path: Path) -> None:
    """Neither a store nor a DuckDB file that this process has open is taken for a broken one."""
    with EventStore(tmp_path / "s.duckdb"), pytest.raises(StoreLocked, match="open already in this process"):
        EventLog(tmp_path / "s.duckdb")
    with duckdb.connect(tmp_path / "d.duckdb") as con:
        con.execute("CREATE TABLE events AS SELECT 1 AS n")
        with pytest.raises(
            StoreLocked, match=r"the file 'd\.duckdb' is open already in this process: a DuckDB"
        ):
            EventLog(tmp_path / "d.duckdb")


def test_a_csv_that_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    """No way out is named that a log does not have: the file is to be saved otherwise."""
    (tmp_path / "a.csv").write_bytes("case,activity,time\n1,Müller,2024-01-01\n".encode("latin-1"))
    with pytest.raises(InvalidLog, match=r"a\.csv, line 2: this is no UTF-8 .*: save the file as UTF-8$"):
        EventLog(tmp_path / "a.csv")


@pytest.mark.parametrize("nanoseconds", [(1999, 2000, 2001, 3000), (-2000, -1999, -1001, -1000, -1, 1)])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_order_events_on_both_sides_of_a_microsecond(
    nanoseconds: tuple[int, ...], zone: str | None
) -> None:
    """A time is cut off, not rounded, and what is cut off orders what is left; before 1970, too."""
    times = pa.array([*reversed(nanoseconds)], pa.int64()).cast(pa.timestamp("ns", tz=zone))
    activities = [str(one) for one in reversed(nanoseconds)]
    log = EventLog(pa.table({"case": ["1"] * len(times), "activity": activities, "time": times}))
    assert log.variants().df["variant"][0] == [str(one) for one in nanoseconds]


@pytest.mark.parametrize("end", ["csv", "jsonl"])
def test_nanoseconds_of_a_file_order_events(tmp_path: Path, end: str) -> None:
    """A text with digits that no microsecond has stays a text, and loses none of them."""
    rows = [
        ("1", name, f"2024-01-01T00:00:00.000000{digits}") for name, digits in (("b", "900"), ("a", "100"))
    ]
    file = tmp_path / f"log.{end}"
    if end == "csv":
        written(file, rows)
    else:
        file.write_text("\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows))
    assert EventLog(file).variants().df["variant"][0] == ["a", "b"]


def test_names_that_come_twice_in_a_later_file_are_told(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", [("1", "a", "2024-01-02")])
    (tmp_path / "b.csv").write_text("case,activity,time,time\n1,b,2024-01-03,2024-01-01\n")
    with pytest.raises(InvalidLog, match=r"'time' .* several columns of b.csv are called 'time', 'time'"):
        EventLog(str(tmp_path / "*.csv"))


def test_an_order_of_json_is_one_of_numbers_or_none(tmp_path: Path) -> None:
    """Where one value is nested the column is JSON, and 10 does not come before 9."""
    file = tmp_path / "log.jsonl"
    rows = [("ten", 10), ("nine", 9), ("else", [1])]
    file.write_text(
        "\n".join(
            json.dumps({"case": "1", "activity": name, "time": "2024-01-01", "seq": number})
            for name, number in rows
        )
    )
    with pytest.raises(
        InvalidLog, match=r"of 3 values of seq 2 are whole numbers and others are not, as '\[1\]'"
    ):
        EventLog(file, order="seq").summary()


def test_times_that_python_has_not_order_events() -> None:
    """Years beyond 9999 come as texts from the database, and are no error."""
    times = pa.array([253402300800, 0], pa.timestamp("s"))
    log = EventLog(pa.table({"case": ["1", "1"], "activity": ["b", "a"], "time": times}))
    assert log.variants(times=False).df["variant"][0] == ["a", "b"]


@pytest.mark.parametrize(
    "second",
    [
        "case,activity,time\n2,'b, c',2024-01-03\n2,'d',2024-01-04\n",
        "'case','activity','time'\n'2','b, c','2024-01-03'\n'2','d','2024-01-04'\n",
        "case;activity;time\n2;b, c;2024-01-03\n2;d;2024-01-04\n",
        "time\tcase\tactivity\n2024-01-03\t2\tb, c\n2024-01-04\t2\td\n",
        'case,activity,time\r2,"b, c",2024-01-03\r2,d,2024-01-04\r',
    ],
    ids=["quote", "all quoted", "semicolon", "tab", "carriage return"],
)
def test_each_file_is_cut_in_its_own_way(tmp_path: Path, second: str) -> None:
    """Quotes, delimiters and ends of lines need not be those of the first file, nor its order of columns."""
    written(tmp_path / "a.csv", [("1", "a", "2024-01-01"), ("1", "x", "2024-01-02")])
    (tmp_path / "b.csv").write_bytes(second.encode())
    written(tmp_path / "c.csv", [("3", "a", "2024-01-01")])
    (tmp_path / "d.csv").write_text("")
    log = EventLog(str(tmp_path / "*.csv"))
    assert log.sql('SELECT "case", activity FROM events ORDER BY r').to_numpy().tolist() == [
        ["1", "a"], ["1", "x"], ["2", "b, c"], ["2", "d"], ["3", "a"],
    ]  # fmt: skip
    assert (list(log.mapping.types), log.notes) == (list(NAMES), ())


@pytest.mark.parametrize(
    "second", ["2,b,2024-01-03\n2,c,2024-01-04\n", "# made, 2024, x\ncase,activity,time\n2,b,2024-01-03\n"]
)
def test_a_file_without_the_columns_of_the_first_is_refused(tmp_path: Path, second: str) -> None:
    """A header that is not there, or not found, would make all of its rows ones without a case."""
    written(tmp_path / "a.csv", [("1", "a", "2024-01-01"), ("1", "x", "2024-01-02")])
    (tmp_path / "b.csv").write_text(second)
    with pytest.raises(
        InvalidLog, match=r"b\.csv has no column that a\.csv has \(.* and case, activity, time\)"
    ):
        EventLog(str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("rows", "told"), [("2,b,2024-01-03,x\n", "4 fields"), ("2,b\n2,c\n", "2 fields")], ids=["more", "fewer"]
)
def test_rows_of_a_further_file_that_are_unlike_its_header_are_told(
    tmp_path: Path, rows: str, told: str
) -> None:
    """They would be rows of other columns, and so without a case."""
    written(tmp_path / "a.csv", [("1", "a", "2024-01-01")])
    (tmp_path / "b.csv").write_text("case,activity,time\n" + rows)
    with pytest.raises(InvalidLog, match=rf"b\.csv, line 2: {told}, where the header has 3: mend that line"):
        EventLog(str(tmp_path / "*.csv"))


def test_lines_before_the_header_of_any_file_are_told(tmp_path: Path) -> None:
    """They are passed over, and it is said in which file."""
    written(tmp_path / "a.csv", [("1", "a", "2024-01-01")])
    (tmp_path / "b.csv").write_text("Export of 2024\n\ncase,activity,time\n2,b,2024-01-03\n2,c,2024-01-04\n")
    log = EventLog(str(tmp_path / "*.csv"))
    assert log.notes == ("2 lines before the header of b.csv are passed over",)
    assert len(log) == 3


@pytest.mark.parametrize("aware", ["TIMESTAMPTZ", "TIMESTAMPTZ_NS"])
@pytest.mark.parametrize(
    "other", ["TIMESTAMP AS time", 'TIMESTAMP AS "Time"', "TIMESTAMP_NS AS time", "DATE AS time"]
)
def test_parquet_files_with_and_without_a_zone_are_refused(tmp_path: Path, aware: str, other: str) -> None:
    """Those without one would be taken as UTC, whatever `timezone` says, or others lose their zone."""
    for file, kind in (("a", other), ("b", f"{aware} AS time")):
        rows = f"SELECT 1 AS \"case\", '{file}' AS activity, '2024-01-01 10:00:00'::{kind}"
        duckdb.execute(f"COPY ({rows}) TO '{tmp_path}/{file}.parquet'")
    with pytest.raises(InvalidLog, match=r"'[Tt]ime' have a zone in some of the 2 files and none in others"):
        EventLog(str(tmp_path / "*.parquet"), timezone="Europe/Berlin")
    assert len(EventLog(str(tmp_path / "[b].parquet"), timezone="Europe/Berlin")) == 1


def test_fields_of_structs_are_no_columns_of_times(tmp_path: Path) -> None:
    """One that is called as the time is, and has no zone, makes nothing unclear."""
    for file in "ab":
        time = "'2024-01-01 10:00:00+00'::TIMESTAMPTZ AS time, {'time': '2024-01-01'::TIMESTAMP} AS extra"
        rows = f"SELECT 1 AS \"case\", '{file}' AS activity, {time}"
        duckdb.execute(f"COPY ({rows}) TO '{tmp_path}/{file}.parquet'")
    assert len(EventLog(str(tmp_path / "*.parquet"))) == 2
