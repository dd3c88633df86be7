"""A model is checked against a log, and a log drafts a model that refuses nothing of it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.clock import SeededIds
from esim.errors import InvalidArgument, InvalidLog
from esim.event import Event
from esim.eventlog import EventLog
from esim.memory import MemoryStore
from esim.shop import Order
from esim.shop_history import shop_store
from esim.state import State
from esim.upcast import retired
from tests.pictures import parsed, texts
from tests.test_eventlog import SHOP, logged, row


class Opened(Event):
    owner: str


class Credited(Event):
    amount: Decimal
    fee: Decimal = Decimal(0)


class Closed(Event):
    pass


class Frozen(Event):
    pass


class Account(State[Opened | Credited | Closed | Frozen]):
    status: Literal["new", "open", "closed"] = "new"
    balance: Decimal = Decimal(0)

    def open(self, owner: str) -> Opened:
        self.must_be("new")
        return Opened(owner=owner)

    def open_with(self, owner: str, amount: Decimal) -> list[Opened | Credited]:
        self.must_be("new")
        return [Opened(owner=owner), Credited(amount=amount)]

    def credit(self, amount: Decimal) -> Credited:
        self.must_be("open")
        return Credited(amount=amount, fee=Decimal(1) if amount > 100 else Decimal(0))

    def close(self, reason: str) -> Closed:
        self.must_be("open")
        assert reason
        return Closed()

    def evolve(self, event: Opened | Credited | Closed | Frozen) -> Self:
        match event:
            case Opened():
                return self.but(status="open")
            case Credited(amount=amount):
                return self.but(balance=self.balance + amount)
            case Closed() | Frozen():
                return self.but(status="closed")


def recorded(*events: Event) -> EventLog:
    store = MemoryStore(ids=SeededIds(1))
    store.append("Account/a", list(events))
    return EventLog(store)


def test_a_struct_is_checked_without_the_fields_of_other_events(tmp_path: Path) -> None:
    """Parquet may have payloads as structs, each with the fields of all; a JSON file has them as they are."""
    log = recorded(Opened(owner="mia"), Credited(amount=Decimal("5.50"), fee=Decimal(0)), Closed())
    written = log.write(tmp_path / "a.jsonl")
    struct = duckdb.sql(f"SELECT * FROM read_json('{written}')")
    for again in (EventLog(written, case="stream"), EventLog(struct, case="stream")):
        assert verdicts(again) == verdicts(log)
        assert again.as_of("2100-01-01T00:00:00Z", Account).df["balance"].tolist() == [Decimal("5.50")]
        assert "owner" not in str(again.draft()).partition("class Credited")[2].partition("class")[0]


def verdicts(log: EventLog, state: type[State[Any]] = Account) -> list[tuple[Any, ...]]:
    found = log.check(state).df
    return list(found[["v", "activity", "verdict", "decision", "reason"]].itertuples(index=False, name=None))


def test_a_log_that_the_model_would_have_recorded_deviates_nowhere() -> None:
    """Every decision is asked on the state so far, with the event's own fields, and agrees."""
    log = recorded(Opened(owner="ann"), Credited(amount=Decimal(5)))
    assert verdicts(log) == []
    assert log.check(Account).notes[-1] == "2 of 2 events are as the model decides; 0 cases deviate"


def test_what_a_decision_refuses_is_told_with_its_reason() -> None:
    """The refusal is the reason, and the case goes on with what was recorded."""
    log = recorded(Credited(amount=Decimal(5)), Opened(owner="ann"), Opened(owner="bob"))
    assert verdicts(log) == [
        (1, "Credited", "refused", "credit", "the account is new, not open"),
        (3, "Opened", "refused", "open", "the account is open, not new"),
    ]


def test_the_pictures_of_a_model_count_deviations_and_states() -> None:
    """Deviations by activity and verdict; of a state the fields with few values, and no measures."""
    log = recorded(Credited(amount=Decimal(5)), Opened(owner="ann"), Opened(owner="bob"))
    found = texts(parsed(log.check(Account).svg()))
    assert "✗ Credited: refused" in found and "✗ Opened: refused" in found
    assert "✗: what was not to be. 2 events of 1 cases." in found
    state = texts(parsed(log.as_of(3, Account).svg()))
    assert "status = open" in state and "Fields that are not shown: balance." in state
    assert recorded(Opened(owner="ann")).check(Account).svg() == ""


def test_what_differs_is_told() -> None:
    """An event whose other fields the decision would have set otherwise."""
    log = recorded(Opened(owner="ann"), Credited(amount=Decimal(200)))
    assert verdicts(log) == [(2, "Credited", "differs", "credit", "it would have fee=Decimal('1')")]


def test_what_no_decision_gives_is_told() -> None:
    """A type without a decision, and a decision whose argument the event does not have."""
    log = recorded(Opened(owner="ann"), Closed(), Frozen())
    assert verdicts(log) == [
        (2, "Closed", "not decided", "close", "its argument reason is not in the event"),
        (3, "Frozen", "not decided", "", "no decision of Account gives it"),
    ]


def test_events_of_one_decision_are_expected_after_its_first() -> None:
    """A decision that gives several events is asked once."""

    class Opening(State[Opened | Credited]):
        status: str = "new"

        def open(self, owner: str) -> list[Opened | Credited]:
            self.must_be("new")
            return [Opened(owner=owner), Credited(amount=Decimal(1))]

        def evolve(self, event: Opened | Credited) -> Self:
            return self.but(status="open")

    log = recorded(Opened(owner="ann"), Credited(amount=Decimal(1)), Credited(amount=Decimal(1)))
    assert [one[:3] for one in verdicts(log, Opening)] == [(3, "Credited", "not decided")]


BROKEN = [row("a", one, n, n + 1, data=data) for n, (one, data) in enumerate(
    [("Opened", '{"owner": "ann"}'), ("Opened", "{}"), ("Closed", "{}"), ("Closed", "{}")]
)]  # fmt: skip


def test_a_case_that_cannot_be_folded_is_left() -> None:
    """A payload that does not fit ends its case with the reason; what comes after is counted, not judged."""
    log = logged([*BROKEN, row("b", "Opened", 9, data='{"owner": "bob"}')])
    [(v, _, verdict, _, reason)] = verdicts(log)
    assert (v, verdict) == (2, "failed")
    assert "owner" in reason
    found = log.conformance(Account)
    told = "2 of 5 events are as the model decides; 1 cases deviate; 2 after one that failed are not judged"
    assert found.notes[-1] == log.check(Account).notes[-1] == told
    assert dict(found.df[["verdict", "events"]].to_numpy()) == {"agrees": 2, "failed": 1, "not judged": 2}
    assert "✗ Closed" not in found.svg() and "Closed: not judged" in found.svg()


def test_a_state_as_of_a_moment_names_the_event_that_cannot_be_folded() -> None:
    """One of a million cases is found, and what to do; before that event it can be asked."""
    log = logged([*BROKEN, row("b", "Whistled", 9, data="{}")])
    assert len(log.as_of("2026-01-05T09:00:00Z", Account)) == 1
    with pytest.raises(
        InvalidLog, match=r"case 'a', event 2 \(Opened\) cannot be folded: InvalidEvent.*owner"
    ):
        log.as_of("2026-02-01T00:00:00Z", Account)
    with pytest.raises(InvalidLog, match=r"case 'b', event 1 .*log.without\('Whistled'\)"):
        log.with_value("case", "b").as_of("2026-02-01T00:00:00Z", Account)


def test_columns_are_the_payload_where_there_is_none() -> None:
    """The fields of a class are read from columns of the same name; unknown types are told."""
    rows = [row("a", "Opened", 0, 1, owner="ann"), row("a", "Whistled", 1, 2, owner=None)]
    assert verdicts(logged(rows)) == [(2, "Whistled", "not known", "", "Account has no Whistled")]


def test_conformance_with_a_state_counts_by_decision() -> None:
    """The same, summed up; the shop's own history is as its decisions are."""
    log = recorded(Opened(owner="ann"), Opened(owner="ann"))
    found = log.conformance(Account).df
    assert found[["decision", "verdict", "events"]].to_numpy().tolist() == [
        ["open", "agrees", 1],
        ["open", "refused", 1],
    ]
    assert log.deviations(Account).df.equals(log.check(Account).df)
    with shop_store() as store:
        few = EventLog(store, category="Order").between(end="2026-01-15T00:00:00Z", keep="started")
        shop = few.conformance(Order)
        assert set(shop.df["verdict"]) == {"agrees"}
        assert shop.df["events"].sum() == len(few) > 1000


def test_states_as_of_a_moment() -> None:
    """Each case is folded up to the moment, and its fields are the columns."""
    log = recorded(Opened(owner="ann"), Credited(amount=Decimal(5)), Closed())
    assert log.as_of(2, Account).df.to_numpy().tolist() == [["Account/a", "open", Decimal(5)]]


@pytest.mark.parametrize("wrong", [lambda log: log.check(3), lambda log: log.check(Opened)])
def test_what_is_no_state_is_told(wrong: Any) -> None:
    """A class of something else, or no class."""
    with pytest.raises(InvalidArgument, match="is no state"):
        wrong(logged(SHOP))


# --- drafts ------------------------------------------------------------------------------------------------


def defined(source: str, name: str) -> type[State[Any]]:
    """Return the state that a draft defines."""
    here: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "draft", "exec"), here)
    return here[name]


def test_a_draft_has_typed_fields_and_the_transitions_of_the_log() -> None:
    """Amounts are Decimals, few values a Literal, what may be missing optional, names are Python's."""
    data = [
        {"amount": "1.50", "n": 3, "x y": None, "method": ["card", "bank"][n % 2], "class": [1]}
        | ({} if n else {"note": "hello"})
        for n in range(20)
    ]
    rows = [row(f"c{n:02}", "order placed", n, 1, data=json.dumps(one)) for n, one in enumerate(data)]
    rows += [row("c00", "Paid", 90, 2, data="{}")]
    log = logged(rows)
    source = log.draft("Order")
    for line in (
        'class OrderPlaced(Event, type="order placed"):',
        '    """Seen 20 times, in 20 cases."""',
        "    amount: Decimal",
        "    n: int",
        '    method: Literal["bank", "card"]',
        '    e_class: tuple[Any, ...] = Field(alias="class")',
        "    note: str | None = None",
        '    x_y: Any | None = Field(None, alias="x y")',
        "OrderEvent = OrderPlaced | Paid",
        '        self.must_be("order_placed")',
    ):
        assert line in source.splitlines()
    assert "&lt;" not in source and "OrderPlaced" in source._repr_html_()


def test_the_draft_of_the_shop_refuses_nothing_of_it() -> None:
    """A model drafted from a log agrees with every event, until somebody edits it."""
    with shop_store() as store:
        log = EventLog(store, category="Order").between(end="2026-01-08T00:00:00Z", keep="started")
        found = log.conformance(defined(log.draft("Drafted"), "Drafted"))
        assert set(found.df["verdict"]) == {"agrees"}


def test_an_event_may_have_no_payload(tmp_path: Path) -> None:
    """CloudEvents need none: it is an event without fields, for drafts, checks and states."""
    texts = []
    for n, (kind, data) in enumerate([("Placed", {"amount": 1}), ("Packed", None), ("Shipped", {"by": "x"})]):
        event = {"specversion": "1.0", "id": str(n), "source": "/s", "type": kind, "subject": "o"}
        event |= {"time": f"2024-01-0{n + 1}T00:00:00Z"} | ({} if data is None else {"data": data})
        texts.append(json.dumps(event))
    texts.append(texts[1].replace('"id": "1"', '"id": "4", "data": null'))
    (tmp_path / "log.cloudevents.jsonl").write_text("\n".join(texts))
    log = EventLog(tmp_path / "log.cloudevents.jsonl")
    state = defined(log.draft("Order"), "Order")
    assert log.check(state).df["reason"].tolist() == []
    assert log.as_of("2024-01-02T12:00:00Z", state).df["status"].tolist() == ["packed"]


def test_a_field_that_a_struct_lacks_is_no_field_of_the_event() -> None:
    """All rows of a column of structs have all fields: those of other events are missing, not null."""
    data = [{"amount": 1.5, "by": None}, {"amount": None, "by": "x"}]
    rows = [row("a", name, n, n + 1) for n, name in enumerate(["Placed", "Shipped"])]
    given = pa.Table.from_pylist([{**one, "data": each} for one, each in zip(rows, data, strict=True)])
    log = EventLog(given, case="case", activity="activity", data="data")
    source = log.draft("Order")
    assert "by" not in source.partition("class Shipped")[0]
    assert "amount: Decimal\n" in source
    assert log.check(defined(source, "Order")).df["reason"].tolist() == []


def test_no_activity_of_blanks_is_drafted() -> None:
    """No class could stand for it: how to leave it out is told."""
    log = logged([row("a", "  ", 0, 1), row("a", "Placed", 1, 2)])
    with pytest.raises(InvalidArgument, match=r"an activity is called '  ', .* log\.without\('  '\)"):
        log.draft()
    assert log.without("  ").draft().startswith("from")


NAMES = [
    "status",
    "type",
    "data",
    "class",
    "copy",
    "model_dump_",
    "Größe",
    "x y",
    "self",
    "date",
    "A",
    "_x",
    "e_x",
]


@pytest.mark.parametrize("where", ["a payload", "a column"])
@pytest.mark.parametrize("values", [["x", "y"], [1, None], [["x"], ["y"]], [1.5, 2.5]], ids=str)
def test_a_draft_reads_fields_of_any_name_and_type(values: list[Any], where: str) -> None:
    """What Python must call otherwise is read by the name that it has in the log; lists are lists."""
    made = [dict.fromkeys(NAMES, one) for one in values]
    more = made if where == "a column" else [{"data": json.dumps(one)} for one in made]
    rows = [row("a", one, n, n + 1, **each) for n, (one, each) in enumerate(zip("AB", more, strict=True))]
    log = logged(rows, case="case", activity="activity", data="data" if where == "a payload" else "")
    assert log.check(defined(log.draft("Any_"), "Any_")).df["reason"].tolist() == []


def test_a_rare_transition_can_be_left_out() -> None:
    """Then the draft refuses it."""
    log = logged([{**one, "amount": None} for one in SHOP])
    found = log.check(defined(log.draft("Order", least=0.4), "Order")).df
    assert found["activity"].tolist() == ["Cancelled", "Paid"]


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6))
def test_a_draft_is_valid_python_whatever_activities_are_called(names: list[str]) -> None:
    """Any text becomes a class and a status of its own, and the draft refuses nothing."""
    log = logged(
        [row("a", name, at, at) for at, name in enumerate(names) if "\0" not in name and name.strip()]
    )
    if len(log):
        state = defined(log.draft("Any_"), "Any_")
        assert log.check(state).df["reason"].tolist() == []


def test_what_cannot_be_drafted_is_told() -> None:
    """A name that is none, a share that is none, a log without events."""
    log = logged(SHOP)
    for wrong in (
        lambda: log.draft("no name"),
        lambda: log.draft(least=2),
        lambda: log.where("false").draft(),
    ):
        with pytest.raises(InvalidArgument):
            wrong()


def test_an_unknown_type_is_told_also_where_others_have_upcasters() -> None:
    """A road from another type leads nowhere for this one."""
    retired("Rumoured")
    rows = [row("a", "Opened", 0, 1, owner="ann"), row("a", "Whistled", 1, 2, owner=None)]
    assert verdicts(logged(rows)) == [(2, "Whistled", "not known", "", "Account has no Whistled")]
