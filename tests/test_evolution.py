"""The dry run over a real store, golden samples, and a log transformed into a new file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

import pytest

from esim import evolution
from esim.clock import ManualClock, SeededIds
from esim.effects import Effects
from esim.envelope import NewEvent, metadata
from esim.errors import InvalidArgument, InvalidEvent, SpecFailed, UpcasterFailed
from esim.event import Event, Tag
from esim.evolution import check_samples, dry_run, keep_samples, transform
from esim.repository import Repository
from esim.rows import on
from esim.state import State
from esim.store import EventStore
from esim.subscription import Subscription, subscriptions
from esim.upcast import retired
from esim.value import Money

HOSTILE = "<script>alert('é 日本')</script>"


class Paid(Event):
    """As the first version of the program had it: whole cents."""

    cents: int
    by: str = "card"


class Noted(Event):
    text: str


@pytest.fixture
def store() -> Iterator[EventStore]:
    """What the first version of the program has written."""
    with EventStore(clock=ManualClock(), ids=SeededIds(1)) as made:
        made.append("Account/a", [Paid(cents=150), Paid(cents=1)])
        made.append("Account/b", [Noted(text=HOSTILE), Paid(cents=20, by="bank")])
        with metadata(user_id="ann", correlation_id="c", reason="é"):
            made.append("Account/a", NewEvent(Noted(text="last"), tags=("vip",)))
        yield made


def euros(old: dict[str, Any]) -> dict[str, Any]:
    return {"amount": Decimal(old["cents"]).scaleb(-2), "by": old["by"]}


def paid_in_euros(upcaster: Any = euros) -> type[Event]:
    """Define the second version of the class."""

    class PaidInEuros(Event, type="Paid", schema_version=2, upcasters=[upcaster]):
        amount: Money
        by: Annotated[str, Tag()]

    return PaidInEuros


class Account(State[Paid | Noted]):
    cents: int = 0
    notes: int = 0

    def evolve(self, event: Any) -> Self:
        match event:
            case Noted():
                return self.but(notes=self.notes + 1)
            case _:
                return self.but(cents=self.cents + getattr(event, "cents", 0))


def account(paid: type[Event]) -> type[State[Any]]:
    """Define the second version of the state."""

    class Money2(State[paid | Noted], category="Account"):  # type: ignore[valid-type]
        total: Decimal = Decimal(0)
        notes: int = 0

        def evolve(self, event: Any) -> Self:
            if isinstance(event, Noted):
                return self.but(notes=self.notes + 1)
            return self.but(total=self.total + event.amount)

    return Money2


# --- the dry run -------------------------------------------------------------------------------------------


def found(store: EventStore) -> list[tuple[Any, ...]]:
    rows = dry_run(store).events[["type", "schema_version", "outcome", "events", "read_as", "position"]]
    return [tuple(row) for row in rows.to_numpy()]


def test_a_log_of_today_fits(store: EventStore):
    """Where nothing has changed, every event is read as it is."""
    assert found(store) == [("Noted", 1, "fits", 2, "Noted", 3), ("Paid", 1, "fits", 3, "Paid", 1)]
    assert repr(dry_run(store, Account)) == "<DryRun: 5 fits; 0 states not as without upcasters>"


def test_a_dry_run_tells_what_upcasters_do(store: EventStore):
    """Each stored type and shape has a row for each outcome, with how many and the first of them."""
    paid_in_euros()
    retired("Noted")
    assert found(store) == [("Noted", 1, "dropped", 2, "", 3), ("Paid", 1, "upcast", 3, "Paid", 1)]
    retired("Noted", by=lambda old: [Paid_(text=old["text"]), Paid_(text="")], into=Paid_)
    assert found(store)[0] == ("Noted", 1, "split", 2, "Paid_, Paid_", 3)


class Paid_(Event):  # noqa: N801 - it is not one of the types in the store
    text: str


def test_a_dry_run_tells_what_would_fail_and_why(store: EventStore):
    """What fails is a row with the error, not an exception; the others are there as well."""
    paid_in_euros(lambda old: {"amount": 1.5, "by": old["by"]} if old["cents"] > 20 else {"by": old["gone"]})
    tried = dry_run(store)
    assert tried.events["outcome"].tolist() == ["fits", "coerced", "fails", "fails"]
    assert tried.failed["events"].sum() == 2
    assert "KeyError: 'gone'" in tried.failed["told"].iloc[0]
    assert tried.failed["position"].tolist() == [2, 4]


def test_a_dry_run_tells_what_a_class_fills_in_or_takes_for_another_value(store: EventStore):
    """A default that stands in for a field, and a value that becomes another type, are named."""

    class PaidOnce(Event, type="Paid"):
        cents: str | int
        by: str
        currency: str = "EUR"

    class NotedOnce(Event, type="Noted"):
        text: str

    assert dry_run(store).events["told"].tolist() == ["", "currency"]

    class PaidAsText(
        Event, type="Paid", schema_version=2, upcasters=[lambda old: {**old, "cents": f"{old['cents']}"}]
    ):
        cents: int
        by: str

    tried = dry_run(store).events
    assert tried["outcome"].tolist() == ["fits", "coerced"]
    assert tried["told"].tolist() == ["", "cents"]


def test_types_without_a_class_are_told_so(store: EventStore, monkeypatch: pytest.MonkeyPatch):
    """A log may hold more than this process knows."""
    monkeypatch.delitem(evolution.decode.__globals__["_by_type"], "Noted")
    assert found(store)[0] == ("Noted", 1, "no class", 2, "Noted", 3)


def test_a_dry_run_tells_which_states_would_change(store: EventStore):
    """Each aggregate whose fold is not what it is without upcasters, with what differs."""
    state = account(paid_in_euros())
    told = dry_run(store, state).states
    assert told[["state", "id", "outcome"]].to_numpy().tolist() == [
        ["Money2", "a", "becomes readable"],
        ["Money2", "b", "becomes readable"],
    ]
    failing = dry_run(store, account(paid_in_euros(lambda old: {}))).states
    assert failing["outcome"].tolist() == ["fails", "fails"]


def test_a_dry_run_tells_what_differs_in_a_state(store: EventStore):
    """A state that could be read before, and is another one now, is told field by field."""
    retired("Noted")
    told = dry_run(store, Account).states
    assert told["outcome"].tolist() == ["changes", "changes"]
    assert told["told"].tolist() == ["notes: 1 → 0", "notes: 1 → 0"]


def test_a_dry_run_changes_nothing_and_shows_no_markup(store: EventStore):
    """Rows, positions and snapshots stay; what is told is escaped."""
    before = store.df()
    state = account(paid_in_euros(lambda old: {"amount": HOSTILE}))
    tried = dry_run(store, state)
    assert "<script>" not in tried._repr_html_()
    assert store.df().equals(before)


def test_an_empty_log_has_nothing_to_tell():
    """No rows, the same columns."""
    with EventStore() as empty:
        tried = dry_run(empty, Account)
        assert (len(tried.events), len(tried.states)) == (0, 0)
        assert list(tried.events.columns)[:3] == ["type", "schema_version", "outcome"]
        assert repr(tried) == "<DryRun: an empty log; 0 states not as without upcasters>"


# --- golden samples ----------------------------------------------------------------------------------------


def test_golden_samples_hold_until_something_is_read_otherwise(store: EventStore, tmp_path: Path):
    """One for each type and shape; a changed upcaster is found, and named with what came."""
    file = tmp_path / "golden.jsonl"
    paid_in_euros()
    assert keep_samples(store, file) == 2
    assert check_samples(file) == 2
    assert keep_samples(store, file) == 0
    paid_in_euros(lambda old: {"amount": old["cents"], "by": old["by"]})
    with pytest.raises(SpecFailed, match=r"(?s)1 of 2 .*Paid of shape 1: expected .*1\.50.*came .*150"):
        check_samples(file)
    paid_in_euros(lambda old: old["gone"])
    with pytest.raises(SpecFailed, match="KeyError: 'gone'"):
        check_samples(file)


def test_golden_samples_hold_the_stored_bytes(store: EventStore, tmp_path: Path):
    """The payload is kept as it was stored, whatever is in it; new shapes are added behind the old ones."""
    file = tmp_path / "golden.jsonl"
    keep_samples(store, file)
    first = file.read_text(encoding="utf-8")
    samples = [json.loads(line) for line in first.splitlines()]
    assert [(one["type"], one["stored"]) for one in samples] == [
        ("Paid", '{"cents":150,"by":"card"}'),
        ("Noted", json.dumps({"text": HOSTILE}, ensure_ascii=False, separators=(",", ":"))),
    ]
    store.append("Account/c", paid_in_euros()(amount=Decimal(1), by="card"))
    assert keep_samples(store, file) == 1
    assert file.read_text(encoding="utf-8").startswith(first)


@pytest.mark.parametrize("line", ["not json", "3", '{"type": "Paid"}', "[]"])
def test_a_spoilt_file_of_samples_is_named_by_line(tmp_path: Path, line: str):
    """What is no sample is refused, and the file is left as it is."""
    file = tmp_path / "golden.jsonl"
    file.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(InvalidArgument, match=r"line 1 of 'golden.jsonl' is no golden sample"):
        check_samples(file)


# --- transforming ------------------------------------------------------------------------------------------


def test_a_transformed_log_needs_no_upcasters(store: EventStore, tmp_path: Path):
    """It is written in today's shapes; what needed nothing is there to the byte, envelopes included."""
    paid = paid_in_euros()
    expected = [one.event for one in store.read()]
    counts = transform(store, tmp_path / "new.duckdb")
    assert counts == {"Paid": 3, "Noted": 2}

    class PaidToday(Event, type="Paid", schema_version=2):
        amount: Money
        by: Annotated[str, Tag()]

    with EventStore(tmp_path / "new.duckdb") as new:
        assert [dict(one.event) for one in new.read()] == [dict(event) for event in expected]
        assert {one.schema_version for one in new.read(type="Paid")} == {2}
        assert len(new.read(tag="by:bank")) == 1
        old, moved = store.df().drop(columns=["data", "schema_version", "tags"]), new.df()
        assert moved[old.columns].equals(old)
        assert moved["data"].tolist()[2] == store.df()["data"].tolist()[2]
        assert moved["tags"].tolist()[4] == ("vip",)
        assert new.append("Account/a", PaidToday(amount=Decimal(1), by="card"), expected=3)[0].position == 6
    assert paid is not PaidToday
    assert store.df()["schema_version"].tolist() == [1] * 5


def test_a_transformed_log_is_dense_where_events_were_split_or_dropped(store: EventStore, tmp_path: Path):
    """Positions and versions count anew, and the same log gives the same ids."""
    retired("Paid")
    retired("Noted", by=lambda old: [Paid_(text=old["text"]), Paid_(text="2")], into=Paid_)
    assert transform(store, tmp_path / "a.duckdb") == {"Paid_": 4}
    transform(store, tmp_path / "b.duckdb")
    with EventStore(tmp_path / "a.duckdb") as a, EventStore(tmp_path / "b.duckdb") as b:
        assert a.df().equals(b.df())
        assert [(one.position, one.version, one.stream) for one in a.read()] == [
            (1, 1, "Account/b"),
            (2, 2, "Account/b"),
            (3, 1, "Account/a"),
            (4, 2, "Account/a"),
        ]
        assert a.df()["event_id"].nunique() == 4


@pytest.mark.parametrize(
    ("upcaster", "error"),
    [(lambda old: old["gone"], UpcasterFailed), (lambda old: {"amount": "much", "by": "x"}, InvalidEvent)],
)
def test_a_transformation_that_fails_leaves_no_file(
    store: EventStore, tmp_path: Path, upcaster: Any, error: Any
):
    """The first event that cannot be read is named with its place; the log is as it was."""
    paid_in_euros(upcaster)
    with pytest.raises(error, match="'Account/a' version 1, position 1: "):
        transform(store, tmp_path / "new.duckdb")
    assert list(tmp_path.iterdir()) == []
    assert store.position == 5


def test_a_transformation_replaces_nothing(store: EventStore, tmp_path: Path):
    """Neither the file that it reads nor any other is written over."""
    target = tmp_path / "new.duckdb"
    target.write_text("mine")
    with pytest.raises(InvalidArgument, match=r"'new.duckdb' exists already"):
        transform(store, target)
    assert target.read_text() == "mine"


def test_the_state_is_the_same_before_and_after_a_transformation(store: EventStore, tmp_path: Path):
    """Reading lazily and reading what was moved agree."""
    state = account(paid_in_euros())
    lazily = Repository(store, state).load("a").state
    transform(store, tmp_path / "new.duckdb")
    with EventStore(tmp_path / "new.duckdb") as new:
        assert Repository(new, state).load("a").state == lazily
        assert dry_run(new, state).events["outcome"].tolist() == ["fits", "fits"]


def test_a_transformed_log_has_no_subscriptions_and_their_effects_are_not_done_again(
    store: EventStore, tmp_path: Path
):
    """Where a subscription goes on behind what was handled before, as the docstring says."""
    sent: list[int] = []

    def send(position: int) -> None:
        sent.append(position)

    def mail(event: Event, recorded: Any, effects: Effects) -> None:
        effects.call(send, recorded.position)

    Subscription(store, on(Event)(mail)).catch_up()
    transform(store, tmp_path / "new.duckdb")
    with EventStore(tmp_path / "new.duckdb") as new:
        assert len(subscriptions(new)) == 0
        mails = Subscription(new, on(Event)(mail)).reset(after=new.position)
        last = new.append("Account/a", Noted(text="new"))[-1].position
        mails.catch_up()
    assert sent == [1, 2, 3, 4, 5, last]
