"""The world as of a moment, differences of logs, payloads over time, and objects."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.errors import InvalidArgument
from esim.eventlog import EventLog
from esim.logrule import Rule
from esim.memory import MemoryStore
from tests.test_eventlog import SHOP, START, Paid, Placed, logged, row


def rows(answer: Any, *names: str) -> list[list[Any]]:
    return [list(one) for one in answer.df[list(names)].itertuples(index=False, name=None)]


def test_as_of_a_time() -> None:
    """Cases that had begun are there with their latest event then, and how long ago that was."""
    found = logged(SHOP).as_of("2026-01-05T09:12:00Z")
    assert rows(found, "case", "activity", "events", "age_s") == [
        ["a", "Paid", 2, 420],
        ["b", "Placed", 1, 120],
    ]


def test_as_of_a_position_of_a_store() -> None:
    """A store's positions are moments too; other logs have none."""
    store = MemoryStore(ids=SeededIds(1))
    store.append("Order/a", [Placed(), Paid()])
    with EventLog(store) as log:
        assert rows(log.as_of(1), "case", "activity", "data") == [["Order/a", "Placed", '{"total":0}']]
    with pytest.raises(InvalidArgument, match="only a store has positions"):
        logged(SHOP).as_of(1)


def test_a_position_has_its_time_whatever_is_left_of_the_log() -> None:
    """How long ago something was is told from the position in the whole store, as at its time."""
    clock = ManualClock(START)
    store = MemoryStore(clock=clock, ids=SeededIds(1))
    for stream, event in (("Order/a", Placed()), ("Order/b", Placed()), ("Bill/b", Paid())):
        store.append(stream, [event])
        clock.advance(hours=1)
    for log in (EventLog(store), EventLog(store, category="Order")):
        with log:
            for one in (log, log.only("Placed"), log.where("stream = 'Order/a'"), log.ending_with("Placed")):
                for moment in (3, "2026-01-05T11:00:00Z"):
                    ages = dict(rows(one.as_of(moment), "case", "age_s"))
                    assert ages.items() <= {"Order/a": 7200, "Order/b": 3600, "Bill/b": 0}.items()
                    assert "Order/a" in ages
            assert rows(log.as_of(2), "case", "age_s") == [["Order/a", 3600], ["Order/b", 0]]
            assert rows(log.as_of(0), "case", "age_s") == []


def test_the_difference_of_two_logs() -> None:
    """What is more frequent here comes first by size of change; what one of them lacks counts as nothing."""
    log = logged(SHOP)
    found = log.where("\"case\" = 'a'", whole_cases=True).difference(logged(SHOP[3:5]))
    names = ("source", "target", "count_here", "count_there", "change")
    assert rows(found, *names) == [
        ["Placed", "Cancelled", 0, 1, -1.0],
        ["Paid", "Shipped", 1, 0, 0.5],
        ["Placed", "Paid", 1, 0, 0.5],
    ]
    assert log.difference(log).df["change"].abs().sum() == 0
    assert set(log.difference(log, "variants").df["count_here"]) == {1}
    assert len(log.difference(log, "activities")) == 4
    for wrong in (lambda: log.difference(1), lambda: log.difference(log, "cases")):
        with pytest.raises(InvalidArgument):
            wrong()


def test_the_difference_of_variants_tells_activities_apart() -> None:
    """An activity whose name has an arrow is no variant of two; each variant is its activities, as ever."""
    log = logged([row("a", "A", 0), row("a", "B", 1), row("b", "A → B", 2), row("c", "A", 3)])
    found = log.difference(log.sized(2), "variants")
    assert rows(found, "variant", "count_here", "count_there") == [
        [("A", "B"), 1, 1],
        [("A",), 1, 0],
        [("A → B",), 1, 0],
    ]


def test_payloads_that_change_over_time() -> None:
    """Fields that appear, vanish, change type or shift are told in the month in which they do."""
    month = 60 * 24 * 31
    data = ['{"n": 1, "old": true}', '{"n": 2}', '{"n": "2", "new": [1]}', '{"n": "3", "new": [2]}']
    log = logged([row("a", "x", n * month, n, data=text) for n, text in enumerate(data)])
    found = log.payloads("month").df
    changes = found[found["change"] != ""]
    assert [tuple(one) for one in changes[["field", "change"]].itertuples(index=False)] == [
        ("n", "shifts"),
        ("n", "BIGINT → VARCHAR"),
        ("n", "shifts"),
        ("new", "appears"),
        ("old", "vanishes"),
    ]
    assert found["share"].between(0, 1).all()


TEXTS = {
    "another": ({"card": 50}, {"cash": 50}, "shifts"),
    "half": ({"card": 100}, {"card": 50, "a": 20, "b": 30}, "shifts"),
    "the same": ({"card": 60, "cash": 40}, {"card": 45, "cash": 55}, ""),
    "few": ({"card": 3, "cash": 1}, {"card": 1, "cash": 3}, ""),
    "ids": ({f"a{n}": 1 for n in range(50)}, {f"b{n}": 1 for n in range(50)}, ""),
    "booleans": ({"true": 40}, {"false": 40}, "shifts"),
}


def test_a_field_that_comes_twice_in_an_event_counts_once() -> None:
    """JSON allows the same key twice; a share of the events is never above one."""
    rows = [row("a", "A", 0, 1, data='{"x":1,"x":2}'), row("b", "A", 0, 1, data="{}")]
    found = logged(rows).payloads().df
    assert found[["field", "events", "present", "share"]].to_numpy().tolist() == [["x", 2, 1, 0.5]]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_shifts_with_its_commonest_value(name: str) -> None:
    """Where its share changes by a fifth and more than chance would; not for ids, nor for a few values."""
    *periods, change = TEXTS[name]
    values = [(month, one) for month, told in enumerate(periods) for one, n in told.items() for _ in range(n)]
    quoted = "{}" if name == "booleans" else '"{}"'
    made = [
        row(str(n), "x", month * 60 * 24 * 31, data=f'{{"method": {quoted.format(one)}}}')
        for n, (month, one) in enumerate(values)
    ]
    assert logged(made).payloads().df["change"].tolist() == ["", change]


def profiled(*periods: list[str]) -> EventLog:
    """Return a log whose payloads have a field, its JSON given for each event of each month."""
    values = [(month, one) for month, told in enumerate(periods) for one in told]
    return logged(
        [
            row(str(n), "x", month * 60 * 24 * 31, data=f'{{"f": {one}}}')
            for n, (month, one) in enumerate(values)
        ]
    )


@pytest.mark.parametrize("extra", ['"none"', '"1"', '"nan"', "1"])
def test_texts_shift_also_where_one_is_a_number(extra: str) -> None:
    """One value that looks like a number, or is one, makes no numbers of all others."""
    found = profiled(['"gold"'] * 30 + [extra], ['"silver"'] * 30 + [extra]).payloads().df
    assert found["change"].tolist() == ["", "shifts"]
    assert found["median"].tolist() == (
        [1, 1] if extra == "1" else pytest.approx([float("nan")] * 2, nan_ok=True)
    )


def test_codes_of_digits_are_no_numbers_and_decimals_are() -> None:
    """A zip code has no median; money has, which is stored as text, and of which some has a fraction."""
    zips = profiled(['"08001"', '"28001"'], ['"28001"']).payloads().df
    assert zips["median"].isna().all()
    money = profiled(['"9.50"', '"10"', '"11.25"'], ['"1000"']).payloads().df
    assert money["median"].tolist() == [10, 1000]
    assert money["change"].tolist() == ["", "shifts"]


def test_a_column_of_texts_has_no_median() -> None:
    """Without payloads the type of the column says whether its values are numbers."""
    told = [row("a", "x", n, code=str(n), price=Decimal(n), size=float(n)) for n in (1, 2, 3)]
    found = logged(told).payloads().df.set_index("field")["median"]
    assert found[["price", "size"]].tolist() == [2, 2]
    assert found.isna()["code"]


def test_without_a_payload_columns_are_profiled() -> None:
    """The columns that have no role are the fields."""
    found = logged(SHOP).payloads("year")
    assert rows(found, "activity", "field", "present", "types", "distinct", "common") == [
        ["Cancelled", "who", 1, "VARCHAR", 1, "ann"],
        ["Paid", "amount", 3, "BIGINT", 2, "20"],
        ["Paid", "who", 3, "VARCHAR", 1, "bob"],
        ["Placed", "amount", 3, "BIGINT", 3, "10"],
        ["Placed", "who", 3, "VARCHAR", 2, "ann"],
        ["Shipped", "who", 2, "VARCHAR", 1, "cem"],
    ]


ORDERS = [
    row("x", "Placed", 0, order="o1", items=["i1", "i2"]),
    row("x", "Packed", 1, order="o1", items=["i1"]),
    row("y", "Placed", 2, order="o2", items=["i3"]),
    row("x", "Packed", 3, order="o1", items=["i2"]),
    row("y", "Packed", 4, order="o2", items=["i3"]),
]


def test_each_kind_of_object_has_its_own_graph() -> None:
    """Columns, of lists too, name objects; what follows what is told for each kind."""
    log = logged(ORDERS, objects={"order": "order", "item": "items"})
    assert rows(log.objects(), "object_type", "objects", "events", "links") == [
        ["item", 3, 5, 6],
        ["order", 2, 5, 5],
    ]
    names = ("object_type", "source", "target", "count", "median_s")
    assert rows(log.object_directly_follows(), *names) == [
        ["item", "Placed", "Packed", 3, 120],
        ["order", "Placed", "Packed", 2, 90],
        ["order", "Packed", "Packed", 1, 120],
    ]
    assert set(log.object_directly_follows("order").df["object_type"]) == {"order"}
    assert len(log.linked_to("item", "i1", "i3")) == 4
    with pytest.raises(InvalidArgument, match="no objects of type 'orders'; did you mean 'order'"):
        log.object_directly_follows("orders")


LOOSE = [
    {
        "event_id": str(n),
        "activity": one,
        "time": START + timedelta(minutes=n),
        "order": order,
        "items": items,
    }
    for n, (one, order, items) in enumerate(
        [("Placed", "o1", ["i1"]), ("Picked", None, ["i1"]), ("Paid", "o1", []), ("Shipped", "o1", ["i1"])]
    )
]


def steps(log: EventLog, object_type: str) -> list[list[Any]]:
    return sorted(rows(log.object_directly_follows(object_type), "source", "target"))


@pytest.mark.parametrize("case", ["a column", "an object"])
def test_an_event_without_a_case_is_an_event_of_its_objects(case: str) -> None:
    """What is not linked to an order is in the life of its item, and the note says so."""
    links = {"item": "items"} if case == "a column" else {"order": "order", "item": "items"}
    log = logged(LOOSE, case="order", objects=links)
    assert steps(log, "item") == [["Picked", "Shipped"], ["Placed", "Picked"]]
    assert log.objects().df.set_index("object_type")["events"]["item"] == 3
    assert "1 of 4 rows have no case (order) and are left out but where objects are asked about" in log.notes
    assert len(log) == 3


def test_an_event_in_several_cases_is_one_event() -> None:
    """Where cases are objects, what counts events counts each once; what counts steps says so."""
    made = [
        {"activity": "Placed", "items": ["a", "b", "c"], "who": "ann", "data": '{"n": 1}'},
        {"activity": "Shipped", "items": ["a"], "who": "bob", "data": '{"n": 2}'},
    ]
    made = [
        one | {"event_id": str(n), "correlation_id": "s", "time": START + timedelta(days=n)}
        for n, one in enumerate(made)
    ]
    log = logged(made, objects={"item": "items"}, resource="who", event_id="event_id")
    assert "1 event is in several cases: one event, but a step of each" in log.notes
    assert (len(log), repr(log).splitlines()[0]) == (
        2,
        "<EventLog of the Table: 2 events, 3 cases, 2 activities>",
    )
    assert log.summary().df["value"][:2].tolist() == ["2", "3"]
    assert rows(log.activities(), "activity", "events", "share", "cases") == [
        ["Placed", 1, 0.5, 3],
        ["Shipped", 1, 0.5, 1],
    ]
    assert rows(log.resources(), "resource", "events", "share") == [["ann", 1, 0.5], ["bob", 1, 0.5]]
    assert rows(log.rates("day"), "events", "cases") == [[1, 3], [1, 1]]
    assert rows(log.rates("day", by="who"), "value", "events") == [["ann", 1], ["bob", 1]]
    assert log.dots(1).df["events"].tolist() == [1, 1]
    assert rows(log.payloads(), "field", "events", "present") == [["n", 1, 1], ["n", 1, 1]]
    assert rows(log.difference(log, "activities"), "activity", "count_here") == [
        ["Placed", 1],
        ["Shipped", 1],
    ]
    assert "Seen 1 times, in 3 cases." in log.draft()
    assert log.journey("0").df["event_id"].tolist() == ["0", "1"]
    assert not log.anomalies().df["events"].any()


def test_filters_of_events_apply_to_events_without_a_case() -> None:
    """They are kept or taken out as all events are; a filter of cases keeps cases only."""
    log = logged(LOOSE, case="order", objects={"order": "order", "item": "items"})
    assert steps(log.without("Shipped"), "item") == [["Placed", "Picked"]]
    assert steps(log.only("Picked", "Shipped").linked_to("item"), "item") == [["Picked", "Shipped"]]
    assert steps(log.sized(1).without("Paid"), "item") == [["Placed", "Shipped"]]


def test_objects_are_in_order_whatever_the_order_of_rows() -> None:
    """Ties in time are broken by the order column, and not by where a row stands."""
    tied = [row("x", one, 0, n, order="o") for n, one in enumerate(["Placed", "Paid", "Packed", "Sent"])]
    for rows_ in (tied, tied[::-1], tied[2:] + tied[:2]):
        found = logged(rows_, objects={"order": "order"}).object_directly_follows()
        assert set(zip(found.df["source"], found.df["target"], strict=True)) == {
            ("Placed", "Paid"),
            ("Paid", "Packed"),
            ("Packed", "Sent"),
        }


def test_objects_can_be_the_cases() -> None:
    """Where no column is one, a case is an object of the given kind, and shared events are in each."""
    table = [{key: value for key, value in one.items() if key != "case"} for one in ORDERS]
    objects = {"order": "order", "item": "items"}
    with logged(table, objects=objects, case="item") as log:
        assert log.cases().df["case"].tolist() == ["i2", "i3", "i1"]
        assert log.variants().df["cases"].tolist() == [3]
        assert log.mapping["case"] == "item"
    with logged(table, objects=objects) as log:
        assert (log.mapping["case"], len(log)) == ("order", 5)


ASKED = [
    lambda log: log.summary(),
    lambda log: log.activities(),
    lambda log: log.start_end(),
    lambda log: log.directly_follows(cases=True),
    lambda log: log.variants(),
    lambda log: log.cases(),
    lambda log: log.durations("who"),
    lambda log: log.funnel("Placed", "Paid"),
    lambda log: log.rework(),
    lambda log: log.loops(),
    lambda log: log.bottlenecks(),
    lambda log: log.rates("hour"),
    lambda log: log.rates("hour", "who"),
    lambda log: log.cohorts("hour", "who"),
    lambda log: log.dots(),
    lambda log: log.dots(4),
    lambda log: log.resources("who"),
    lambda log: log.handovers("who"),
    lambda log: log.objects(),
    lambda log: log.object_directly_follows(),
    lambda log: log.causes("0"),
    lambda log: log.journey("0"),
    lambda log: log.conformance([("Placed", "Paid")]),
    lambda log: log.conformance([("Placed", "Paid")], columns=("who", "who")),
    lambda log: log.deviations([("Placed", "Paid"), (None, "Placed"), ("Paid", None)]),
    lambda log: log.conformance(Rule("Placed", then="Paid")),
    lambda log: log.anomalies(),
    lambda log: log.anomalies("missing cause"),
    lambda log: log.payloads("hour"),
    lambda log: log.as_of("2026-01-05T09:12:00Z"),
    lambda log: log.difference(log),
]
ODD = [
    "s", "v", "a", "t", "p", "w", "r", "n", "x", "case", "activity", "events",
    "source", "cases", "activities", "objects", "x_row", "x_value", "value", "data_", "kind",
]  # fmt: skip


@pytest.mark.parametrize("ask", ASKED)
def test_columns_of_any_name_disturb_no_question(ask: Any) -> None:
    """A source whose columns are called like ours, and by SQL's words, gives the same answers."""
    plain = [
        one
        | {"event_id": str(n), "causation_id": str(n - 1), "correlation_id": one["case"], "data": '{"k": 1}'}
        for n, one in enumerate(SHOP)
    ]
    extra = {name: 7 for name in [*ODD, "select", 'quo"te'] if name not in ("case", "activity")}
    roles = {
        "case": "case",
        "activity": "activity",
        "time": "time",
        "order": "version",
        "event_id": "event_id",
    }
    log, odd = logged(plain, **roles), logged([extra | one for one in plain], **roles)
    for one in (log, odd):
        one._source.objects = (
            "SELECT \"#row\", 'o' AS object_type, who AS object_id, NULL AS qualifier FROM source"
        )
    answer = ask(odd)
    assert answer.df.equals(ask(log).df)
    assert list(answer.columns) == list(answer.df.columns)
    assert all(answer.columns.values())
    assert "<script" not in answer._repr_html_()


def test_a_column_of_other_texts_is_no_payload() -> None:
    """What is called data and is no JSON is told with the way out, which then works."""
    rows_ = [row("a", "Placed", 0, data="hello"), row("a", "Paid", 1, data='{"": 1}')]
    for ask in (EventLog.payloads, EventLog.draft):
        with pytest.raises(InvalidArgument, match=r"'data' is taken for payloads, and 1 .* 'hello'.*data=''"):
            ask(logged(rows_))
    assert set(logged(rows_, data="").payloads().df["field"]) == {"data"}


def test_a_payload_may_have_any_names() -> None:
    """A field is found by its name, be it empty or full of signs that paths are made of."""
    names = ["", "a.b", 'q"', "/", "~", "$", "a b"]
    found = logged([row("a", "Placed", 0, data=json.dumps(dict.fromkeys(names, 7)))]).payloads().df
    assert (sorted(found["field"]), set(found["common"])) == (sorted(names), {"7"})


def test_logs_of_which_nothing_is_left_do_not_differ() -> None:
    """An empty answer is one, and no error of a library."""
    none = logged(SHOP).sized(9)
    for of in ("follows", "activities", "variants"):
        assert len(none.difference(none, of=of)) == 0
        assert len(logged(SHOP).difference(none, of=of)) > 0
