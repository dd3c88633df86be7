"""A log from any source gives the answers that a plain Python reading of it gives, in any row order."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import logprepare
from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.errors import InvalidArgument, InvalidLog, SqlRefused
from esim.event import Event
from esim.eventlog import EventLog
from esim.memory import MemoryStore
from esim.store import EventStore

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
Rows = list[dict[str, Any]]


class Placed(Event):
    total: int = 0


class Paid(Event):
    method: str = "card"


def row(case: str, activity: str, minute: float, version: int = 1, **more: Any) -> dict[str, Any]:
    time = START + timedelta(minutes=minute)
    return {"case": case, "activity": activity, "time": time, "version": version, **more}


SHOP = [
    row("a", "Placed", 0, 1, amount=10, who="ann"),
    row("a", "Paid", 5, 2, amount=10, who="bob"),
    row("a", "Shipped", 65, 3, amount=None, who="cem"),
    row("b", "Placed", 10, 1, amount=25, who="ann"),
    row("b", "Cancelled", 20, 2, amount=None, who="ann"),
    row("c", "Placed", 30, 1, amount=40, who="bob"),
    row("c", "Paid", 31, 2, amount=20, who="bob"),
    row("c", "Paid", 31, 3, amount=20, who="bob"),
    row("c", "Shipped", 40, 4, amount=None, who="cem"),
]


def logged(rows: Rows, **how: Any) -> EventLog:
    return EventLog(pa.Table.from_pylist(rows), **how)


def told(rows: Rows) -> dict[str, Any]:
    """Return what a plain reading of a log says."""
    cases: dict[str, Rows] = defaultdict(list)
    for each in rows:
        cases[each["case"]].append(each)
    for events in cases.values():
        events.sort(key=lambda one: (one["time"], one["version"]))
    waits: dict[tuple[str, str], list[float]] = defaultdict(list)
    for events in cases.values():
        for x, y in pairwise(events):
            waits[x["activity"], y["activity"]].append((y["time"] - x["time"]).total_seconds())
    stories = [tuple(one["activity"] for one in events) for events in cases.values()]
    lasts = {name: (events[-1]["time"] - events[0]["time"]).total_seconds() for name, events in cases.items()}
    return {
        "follows": {pair: (len(w), fmean(w), median(w)) for pair, w in waits.items()},
        "variants": Counter(stories),
        "starts": Counter(story[0] for story in stories),
        "ends": Counter(story[-1] for story in stories),
        "durations": lasts,
        "activities": Counter(one["activity"] for one in rows),
    }


def answered(log: EventLog, *, exact: bool = False) -> dict[str, Any]:
    """Return the same from a log."""
    follows = log.directly_follows().df[["source", "target", "count", "mean_s", "median_s"]]
    variants, ends = log.variants(exact=exact).df, log.start_end().df
    cases, kinds = log.cases().df, log.activities().df
    return {
        "follows": {(x, y): tuple(rest) for x, y, *rest in follows.itertuples(index=False, name=None)},
        "variants": Counter(
            {tuple(v): n for v, n in zip(variants["variant"], variants["cases"], strict=True)}
        ),
        "starts": +Counter(dict(zip(ends["activity"], ends["starts"], strict=True))),
        "ends": +Counter(dict(zip(ends["activity"], ends["ends"], strict=True))),
        "durations": dict(zip(cases["case"], cases["duration_s"], strict=True)),
        "activities": Counter(dict(zip(kinds["activity"], kinds["events"], strict=True))),
    }


def test_variants_without_times_are_the_same_without_durations() -> None:
    """A reader who asks for no times gets the same rows and picture, and no column of durations."""
    with logged(SHOP) as log:
        timed, plain = log.variants(), log.variants(times=False)
        assert plain.df.equals(timed.df.drop(columns="median_s"))
        assert "median_s" not in plain.columns
        assert "median time" in timed.svg()
        assert "median time" not in plain.svg()


def test_a_case_lasts_from_its_earliest_time_to_its_latest_whatever_orders_it() -> None:
    """Where versions order events whose times run back, durations are told of the times all the same."""
    rows = [
        row("a", "Placed", 10, 1),
        row("a", "Paid", 0, 2),
        row("a", "Shipped", 5, 3),
        row("b", "Placed", 0),
    ]
    for sort in ("time", "order"):
        with logged(rows, sort=sort) as log:
            assert log.durations().df[["min_s", "max_s"]].to_numpy().tolist() == [[0, 600]]
            assert sorted(log.variants().df["median_s"]) == [0, 600]


def agrees(log: EventLog, rows: Rows) -> None:
    """Assert that a log says what a plain reading of its rows says."""
    expected = told(rows)
    for exact in (False, True):
        found = answered(log, exact=exact)
        follows = found.pop("follows")
        assert follows.keys() == expected["follows"].keys()
        for pair, figures in follows.items():
            assert figures == pytest.approx(expected["follows"][pair])
        assert found == {name: value for name, value in expected.items() if name != "follows"}


events = st.builds(
    row,
    case=st.sampled_from("abcd"),
    activity=st.sampled_from(["Placed", "Paid", "Shipped", "→ Final", "x'y\""]),
    minute=st.integers(0, 3),
)


@settings(max_examples=25)
@given(st.lists(events, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_order_of_rows_gives_the_right_answers(rows: Rows, chance: random.Random) -> None:
    """With versions that break ties, a log in any order of rows says what a sorted reading says."""
    for version, one in enumerate(rows):
        one["version"] = version
    chance.shuffle(rows)
    with logged(rows) as log:
        agrees(log, rows)


def test_a_database_that_loses_the_order_of_rows_gives_no_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where rows did not stream in the order asked for, that is seen, and places are counted another way."""
    for wrong in ("hash(r)", "t, s, o, r", "s, t DESC", "s, o DESC"):
        streamed = logprepare._STREAMED.replace("ORDER BY s, {order}, a", f"ORDER BY {wrong}")
        assert wrong in streamed
        for sort in ("time", "order"):
            with monkeypatch.context() as patched:
                patched.setattr(logprepare, "_STREAMED", streamed)
                agrees(logged(SHOP, order="version", sort=sort), SHOP)


# --- guesses -----------------------------------------------------------------------------------------------


def test_a_time_that_most_events_lack_is_not_guessed(tmp_path: Path) -> None:
    """An exported store has both times; the one that every event has is the log's, from any kind of file."""
    rows = [
        {"stream": one["case"], "type": one["activity"], "recorded_at": one["time"], "occurred_at": None}
        for one in SHOP
    ]
    rows[0]["occurred_at"] = START
    table = pa.Table.from_pylist(rows)
    for source in (table, _parquet(table, tmp_path), _csv(table, tmp_path), _lines(table, tmp_path)):
        with EventLog(source) as log:
            assert (log.mapping["time"], len(log)) == ("recorded_at", len(SHOP))
        with EventLog(source, time="occurred_at") as log:
            assert len(log) == 1
            assert "8 of 9 rows have no time (occurred_at) and are left out" in repr(log)


def test_rows_that_a_guess_leaves_out_are_said_with_the_way_to_correct_it() -> None:
    """Before a question the mapping says it; after it, each answer does."""
    rows = [{**one, "time": None if n == 3 else one["time"]} for n, one in enumerate(SHOP)]
    with logged(rows) as log:
        assert "1 of 9 rows have none: time='…' names another column" in repr(log)
        assert (
            "1 of 9 rows have no time (time, guessed; time='…' names another) and are left out"
            in log.summary().notes
        )


# --- sources -----------------------------------------------------------------------------------------------


def _csv(table: pa.Table, folder: Path) -> str:
    table.to_pandas().to_csv(folder / "shop.csv", index=False)
    return str(folder / "shop.csv")


def _parquet(table: pa.Table, folder: Path) -> str:
    import pyarrow.parquet as pq

    pq.write_table(table.slice(0, 4), folder / "one.parquet")
    pq.write_table(table.slice(4), folder / "two.parquet")
    return str(folder / "*.parquet")


def _lines(table: pa.Table, folder: Path) -> Path:
    table.to_pandas().to_json(folder / "shop.jsonl", orient="records", lines=True, date_format="iso")
    return folder / "shop.jsonl"


def _database(table: pa.Table, folder: Path) -> Path:
    with duckdb.connect(folder / "shop.duckdb") as con:
        con.register("given", table)
        con.execute("CREATE TABLE events AS SELECT * FROM given")
    return folder / "shop.duckdb"


def _relation(table: pa.Table, folder: Path) -> Any:
    return duckdb.connect().from_arrow(table)


SOURCES = [
    lambda table, _: table,
    lambda table, _: table.to_pandas(),
    _csv,
    _parquet,
    _lines,
    _database,
    _relation,
]


@pytest.mark.parametrize(
    "source", SOURCES, ids=["arrow", "pandas", "csv", "parquet", "jsonl", "duckdb", "relation"]
)
def test_every_source_gives_the_same_answers(source: Any, tmp_path: Path) -> None:
    """Shuffled rows from a table, a dataframe or a file, without any hint, say what they should."""
    rows = random.Random(1).sample(SHOP, len(SHOP))
    with EventLog(source(pa.Table.from_pylist(rows), tmp_path)) as log:
        agrees(log, rows)


def test_a_polars_frame_is_a_log() -> None:
    """What offers itself as Arrow is taken, whichever library it comes from."""

    class Foreign:
        def to_arrow(self) -> pa.Table:
            return pa.Table.from_pylist(SHOP)

    with EventLog(Foreign()) as log:
        agrees(log, SHOP)


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.param(clock=ManualClock(START, step=timedelta(minutes=1)), ids=SeededIds(1))
    for stream in ("Order/b", "Order/a", "Cart/a"):
        made.append(stream, Placed(total=3))
    made.append("Order/a", [Paid(), Paid(method="bank")])
    return made


def test_a_store_is_a_log(store: Store) -> None:
    """Streams are cases, types activities, versions the order; a category narrows it."""
    with EventLog(store, category="Order") as log:
        assert [tuple(v) for v in log.variants().df["variant"]] == [("Placed", "Paid", "Paid"), ("Placed",)]
        assert log.directly_follows().df["count"].tolist() == [1, 1]
    assert len(EventLog(store)) == 5
    assert store.position == 5


def test_a_category_that_no_stream_has_is_told(store: Store) -> None:
    """The log is empty, and says so; a log of anything else has none."""
    assert (
        "no stream is of category 'Orders'; did you mean 'Order'?" in EventLog(store, category="Orders").notes
    )
    assert not any("category" in note for note in EventLog(store, category="Cart").notes)
    with pytest.raises(InvalidArgument, match=r"category='Order': only a store has categories"):
        EventLog(store.df(), category="Order")


def test_a_log_of_a_store_stays_at_its_position(store: Store) -> None:
    """What is appended later is not in a log made before, and a store as of a position is a log as well."""
    log, past = EventLog(store), EventLog(store.as_of(3))
    store.append("Order/c", Placed())
    assert (len(log), len(past)) == (5, 3)


def test_a_store_file_is_opened_and_let_go(tmp_path: Path) -> None:
    """A log of a store's file has the file until it is closed, and then anybody can open it."""
    with EventStore(tmp_path / "shop.duckdb") as made:
        made.append("Order/a", Placed())
    with EventLog(tmp_path / "shop.duckdb") as log:
        assert len(log) == 1
    EventStore(tmp_path / "shop.duckdb").close()


# --- times -------------------------------------------------------------------------------------------------


def first(log: EventLog) -> pd.Timestamp:
    return log.cases().df["start"].min()


def timed(*times: Any) -> Rows:
    return [{"case": "a", "activity": f"A{n}", "time": time} for n, time in enumerate(times)]


@pytest.mark.parametrize(
    ("times", "how"),
    [
        (["2026-01-05T10:00:00+01:00", "2026-01-05T09:30:00Z"], {}),
        (["2026-01-05 10:00", "2026-01-05 10:30"], {"timezone": "Europe/Paris"}),
        (["05/01/2026 09:00", "05/01/2026 09:30"], {"time_format": "%d/%m/%Y %H:%M"}),
        ([1767603600, 1767605400], {}),
        ([1767603600000, 1767605400000], {}),
        ([1767603600.0, 1767605400.0], {}),
        ([START.replace(tzinfo=None), START.replace(tzinfo=None, minute=30)], {}),
        ([datetime(2026, 1, 5, 10), datetime(2026, 1, 5, 10, 30)], {"timezone": "Europe/Paris"}),
    ],
)
def test_times_become_utc(times: list[Any], how: dict[str, Any]) -> None:
    """Offsets, zones, formats and numbers since 1970 all end as the same moments in UTC."""
    with logged(timed(*times), **how) as log:
        found = log.cases().df.iloc[0]
        assert (found["start"], found["duration_s"]) == (pd.Timestamp(START), 1800)


@pytest.mark.parametrize(
    "kind", ["INTEGER", "UINTEGER", "BIGINT", "DECIMAL(18, 3)", "DECIMAL(10, 0)", "DOUBLE"]
)
def test_seconds_since_1970_may_be_small_numbers(kind: str) -> None:
    """A type that holds seconds need have no room for microseconds."""
    seconds = "unnest([1767603600, 1767605400]) AS given(s)"
    rows = f"SELECT 'a' AS \"case\", 'x' AS activity, s::{kind} AS time FROM {seconds}"
    with EventLog(duckdb.sql(rows), time="time") as log:
        found = log.cases().df.iloc[0]
        assert (found["start"], found["duration_s"]) == (pd.Timestamp(START), 1800)


def test_mixed_zones_are_said(store: Store) -> None:
    """Times without a zone among others with one are taken in the given zone, and their number is said."""
    with logged(timed("2026-01-05T09:00:00Z", "2026-01-05 09:30:00")) as log:
        assert any("1 of 2 times name their zone; the others are taken as UTC" in note for note in log.notes)


def test_times_that_are_none_are_an_error_that_shows_them() -> None:
    """The message says how many and which rows, and the way out leaves them out and says so."""
    rows = timed("2026-01-05 09:00", "yesterday", "2026-01-05 09:30")
    with pytest.raises(InvalidLog, match=r"1 value of time cannot .* \(row 2: 'yesterday'\).*bad='drop'"):
        logged(rows).summary()
    with logged(rows, bad="drop") as log:
        assert len(log) == 2
        assert any("left out" in note for note in log.notes)


def test_rows_without_case_activity_or_time_are_left_out_and_counted() -> None:
    """A missing value is no event; the notes say how many of which."""
    rows = [*SHOP, row("a", None, 70), row(None, "Paid", 71)]
    with logged(rows) as log:
        agrees(log, SHOP)
        for role in ("case", "activity"):
            told = f"1 of 11 rows have no {role} ({role}, guessed; {role}='…' names another) and are left out"
            assert told in log.notes


def test_a_column_without_any_value_is_asked_about() -> None:
    """A role whose column is empty would leave every row out, and that is an error."""
    store = MemoryStore(clock=ManualClock(START), ids=SeededIds(1))
    store.append("Order/a", Placed())
    with pytest.raises(InvalidLog, match="no row has a time: the column 'occurred_at' is empty"):
        EventLog(store.df(), time="occurred_at").summary()
    with EventLog(store.df()) as log:
        assert log.mapping["time"] == "recorded_at"
        assert log.cases().df["case"].tolist() == ["Order/a"]


def test_ties_in_time_are_said() -> None:
    """The number of ties and what breaks them are in the notes of every answer."""
    with logged(SHOP) as log:
        assert log.variants().notes == (
            "1 event has the same time as the one before in the case; version breaks the ties",
        )


def test_parts_of_activities_are_said() -> None:
    """A log with start and complete counts each as an event, says so, and can be narrowed to one."""
    rows = [row("a", "Pack", n, n, lifecycle=part) for n, part in enumerate(["start", "complete"])]
    with logged(rows) as log:
        assert log.notes[0].startswith("activities have parts (lifecycle: complete, start)")
        assert len(log.with_value("lifecycle", "complete")) == 1


def test_ties_that_nothing_breaks_are_said() -> None:
    """Where versions repeat, the order of rows decides, and every answer says so."""
    rows = [
        row("a", "Placed", 0, 1),
        row("a", "Paid", 0, 1),
        row("b", "Placed", 0, 1),
        row("a", "Paid", 0, 2),
    ]
    for sort in ("time", "order"):
        with logged(rows, sort=sort) as log:
            told = "2 events have the same version as another such event; there the order of rows decides"
            assert log.notes[-1] == told


def test_a_log_in_the_order_of_versions_tells_where_time_runs_back() -> None:
    """With sort='order' versions alone say what comes first, and backward times are counted."""
    rows = [row("a", "Placed", 9, 1), row("a", "Paid", 5, 2)]
    with logged(rows, sort="order") as log:
        assert log.variants().df["variant"].tolist() == [["Placed", "Paid"]]
        assert log.directly_follows().df["mean_s"].tolist() == [-240]
        assert "1 event has a time before" in log.notes[0]
    with logged(rows) as log:
        assert log.variants().df["variant"].tolist() == [["Paid", "Placed"]]


# --- bad input, small and odd logs -------------------------------------------------------------------------


def test_an_empty_log_has_empty_answers() -> None:
    """No event is no error: every figure is nothing."""
    with EventLog(pa.Table.from_pylist(SHOP).slice(0, 0)) as log:
        assert len(log) == len(log.directly_follows()) == len(log.variants()) == len(log.cases()) == 0
        assert "0 events" in repr(log)
        assert log.durations().df["cases"].tolist() == [0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (object(), "is no log"),
        ("nothing.csv", "no file 'nothing.csv'"),
        ("*.nothing", "no file fits"),
        (pd.DataFrame({"case": ["a", 1]}), "mixed types"),
        (pa.table({"Case": [1], "case": [2]}), "two columns 'Case' and 'case'"),
    ],
)
def test_what_is_no_log_is_told(given: Any, told: str) -> None:
    """Each wrong source has a message of its own."""
    with pytest.raises((InvalidArgument, InvalidLog), match=told):
        EventLog(given)


@pytest.mark.parametrize(
    "how",
    [
        {"case": ["case"]}, {"activity": pd.NA}, {"case": 0}, {"timezone": ZoneInfo("Europe/Paris")},
        {"timezone": None}, {"time_format": 5}, {"memory": 512}, {"objects": ["who"]},
        {"objects": {"half \ud83d": "who"}},
    ],
    ids=str,
)  # fmt: skip
def test_an_argument_of_another_type_is_told(how: dict[str, Any]) -> None:
    """It is named with its value, not by an error of what would have taken it."""
    with pytest.raises(InvalidArgument, match=next(iter(how))):
        logged(SHOP, **how)


@pytest.mark.parametrize(
    "slip",
    [
        lambda log: log.using(case=["who"]),
        lambda log: log.where(None),
        lambda log: log.difference(log, of=["follows"]),
        lambda log: log.anomalies(3),
        lambda log: log.anomalies(version=3),
        lambda log: log.object_directly_follows(3),
        lambda log: log.draft(name=3),
        lambda log: log.draft(least="a"),
        lambda log: log.as_of(START, 3),
        lambda log: log.sql(None),
        lambda log: log.sql("SELECT 'half \ud83d'"),
    ],
)
def test_a_question_with_an_argument_of_another_type_is_told(slip: Callable[[Any], object]) -> None:
    """The same holds for questions and filters."""
    with logged(SHOP) as log, pytest.raises(InvalidArgument):
        slip(log)


def test_a_type_that_the_database_lacks_is_told() -> None:
    """Numbers of 16 bits, as come with models of machine learning, are refused by the source's name."""
    with pytest.raises(InvalidLog, match="the Table cannot be read"):
        EventLog(pa.Table.from_pylist(SHOP).append_column("half", pa.array([np.float16(1)] * len(SHOP))))


def test_a_log_that_is_closed_is_still_shown() -> None:
    """A cell that shows it, also one that is run again, says so."""
    with logged(SHOP) as log:
        log.summary()
    assert repr(log).startswith("<EventLog of the Table: closed; <Mapping: case='case'")
    assert "closed" in log._repr_html_()


def test_a_file_of_several_tables_asks_which(tmp_path: Path) -> None:
    """A DuckDB file without an obvious log names its tables."""
    with duckdb.connect(tmp_path / "x.duckdb") as con:
        con.execute("CREATE TABLE one AS SELECT 1 AS i; CREATE TABLE two AS SELECT 1 AS i")
    with pytest.raises(InvalidLog, match=r"one, two.*table='…'"):
        EventLog(tmp_path / "x.duckdb")


def test_another_mapping_of_the_same_source() -> None:
    """`using` changes roles and keeps the rest."""
    with logged(SHOP) as log:
        assert log.using(activity="who").activities().df["activity"].tolist() == ["bob", "ann", "cem"]
        with pytest.raises(InvalidArgument, match="no role 'actor'"):
            log.using(actor="who")


def test_another_mapping_keeps_the_filters() -> None:
    """Filters before `using` are those after it; an activity that they name must be one there too."""
    with logged(SHOP) as log:
        narrowed = log.with_value("case", "a", "b").between(end="2026-01-05T09:30:00Z").sized(2)
        after = log.using(activity="who").with_value("case", "a", "b").between(end="2026-01-05T09:30:00Z")
        found = narrowed.using(activity="who")
        assert found.notes == after.sized(2).notes
        assert found.variants().df.equals(after.sized(2).variants().df)
        assert len(found) == 4
        with pytest.raises(InvalidArgument, match="no activity 'Paid'"):
            log.only("Paid").using(activity="who").summary()


def test_sql_over_a_log() -> None:
    """Users' SQL sees the events with all columns, and only reads."""
    with logged(SHOP) as log:
        query = 'SELECT "case", max(amount) AS most FROM events GROUP BY 1 ORDER BY 1'
        assert log.sql(query)["most"].tolist() == [10, 25, 40]
        assert log.sql(log.directly_follows().sql).equals(log.directly_follows().df)
        with pytest.raises(SqlRefused):
            log.sql("DROP VIEW events")


def test_hostile_text_is_escaped_in_every_answer() -> None:
    """Names of activities and cases are shown as text."""
    with logged([row("<b>c</b>", "<script>", 0), row("<b>c</b>", "<img>", 1)]) as log:
        shown = "".join(
            answer._repr_html_() for answer in (log.directly_follows(), log.variants(), log.cases(), log)
        )
        assert "<script" not in shown and "<img>" not in shown and "<b>c" not in shown
        assert "&lt;script&gt;" in shown


def test_quantiles_that_are_near_have_names_of_their_own() -> None:
    """As many digits as it takes."""
    with logged(SHOP) as log:
        found = log.durations(quantiles=[0.07, 0.9999999, 1.0]).df
        assert list(found.columns[2:5]) == ["p7_s", "p99_99999_s", "p100_s"]


def test_durations_by_a_column() -> None:
    """The value at the first event of a case is what its duration counts for."""
    with logged(SHOP) as log:
        found = log.durations(by="who", quantiles=[0.5])
        assert found.df[["value", "cases", "p50_s"]].to_numpy().tolist() == [
            ["ann", 2, 2250],
            ["bob", 1, 600],
        ]
        with pytest.raises(InvalidArgument, match="no column 'whom'; did you mean 'who'"):
            log.durations(by="whom")
