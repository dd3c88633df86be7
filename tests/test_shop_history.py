"""The shop's history: the same seed gives the same bytes, and what it tells could have happened."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from esim import shop_history
from esim.clock import ManualClock, SystemClock
from esim.contract import Store
from esim.errors import InvalidArgument
from esim.memory import MemoryStore
from esim.shop import Customer, Inventory, Order
from esim.shop_history import SEED_FILE, NumberedIds, fresh_history, main, rows, shop_store, table, write
from esim.shop_life import DAYS, START, simulate_shop
from esim.state import fold
from esim.store import EventStore

EVENTS = 36_555
ODD_ATTEMPTS = {
    "the order is paid, not pending",  # paid twice
    "the total is …, not …",
    "only … of … are free, not …",
    "the customer is blocked, not active",
    "the order is cancelled, not paid",  # called off while it waited for stock
    "the order is shipped, not pending or paid",  # called off too late
    "… cannot be refunded: between … and … can",
}


@pytest.fixture(scope="module")
def small() -> MemoryStore:
    """Six weeks of a small shop."""
    return fresh_history(seed=3, customers=120, days=42)[0]


@pytest.fixture(scope="module")
def history() -> Iterator[EventStore]:
    """The committed history, loaded."""
    with shop_store() as store:
        yield store


# --- the same again ----------------------------------------------------------------------------------------


def test_the_same_command_writes_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs with one seed give one file, another seed gives another."""
    files = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        main([str(file), "--seed", str(seed), "--customers", "60", "--days", "21"])
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other
    assert "a.parquet: " in capsys.readouterr().out


def test_the_committed_file_is_a_fresh_run(tmp_path: Path) -> None:
    """`data/shop.parquet` is what the code makes today, byte for byte if the same writer wrote it.

    The run tries what the shop refuses, too.
    """
    import pyarrow.parquet as pq

    fresh = tmp_path / "fresh.parquet"
    store, refusals = fresh_history()
    write(store, fresh)
    assert pq.read_table(SEED_FILE).equals(pq.read_table(fresh))
    if pq.read_metadata(SEED_FILE).created_by == pq.read_metadata(fresh).created_by:
        assert SEED_FILE.read_bytes() == fresh.read_bytes()
    assert set(refusals) >= ODD_ATTEMPTS


def test_the_committed_file_is_small_and_plain() -> None:
    """Under a megabyte, times with their zone, payloads as text: what Spark and others read."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(SEED_FILE)
    assert SEED_FILE.stat().st_size < 1_000_000
    assert str(schema.field("recorded_at").type) == "timestamp[us, tz=UTC]"
    assert str(schema.field("data").type) == "string"


def test_any_store_can_be_simulated_into(small: MemoryStore) -> None:
    """The real decisions run on a DuckDB store as well, and leave the same log."""
    with EventStore(clock=ManualClock(START), ids=NumberedIds()) as store:
        simulate_shop(store, seed=3, customers=12, days=7)
        again, _ = fresh_history(seed=3, customers=12, days=7)
        assert table(store).equals(table(again))


def test_the_clock_must_be_settable() -> None:
    """A shop on the system's clock cannot jump through half a year."""
    with pytest.raises(InvalidArgument, match=r"SystemClock\(\) cannot be set"):
        simulate_shop(MemoryStore(clock=SystemClock()))


# --- loading -----------------------------------------------------------------------------------------------


def test_loading_keeps_every_envelope(small: MemoryStore, tmp_path: Path) -> None:
    """A store loaded from the file is the store that was written, envelopes included."""
    write(small, tmp_path / "small.parquet")
    with shop_store(path=tmp_path / "small.parquet") as loaded:
        assert table(loaded).equals(table(small))


def test_loading_goes_into_a_given_store(small: MemoryStore, tmp_path: Path) -> None:
    """The history can go into a file of one's own, and stays there."""
    write(small, tmp_path / "small.parquet")
    with EventStore(tmp_path / "mine.duckdb") as mine:
        assert shop_store(mine, path=tmp_path / "small.parquet") is mine
    with EventStore(tmp_path / "mine.duckdb") as again:
        assert again.position == small.position


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says how to make the file."""
    with pytest.raises(InvalidArgument, match=r"python -m esim\.shop_history .*nowhere\.parquet"):
        shop_store(path=tmp_path / "nowhere.parquet")


def test_without_data_the_history_is_made(
    small: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the package is installed without its data, the simulation steps in."""
    monkeypatch.setattr(shop_history, "SEED_FILE", tmp_path / "not-installed.parquet")
    monkeypatch.setattr(shop_history, "fresh_history", lambda: (small, {}))
    with shop_store() as store:
        assert table(store).equals(table(small))


def test_rows_are_whole(small: MemoryStore) -> None:
    """Each row has every column of the log, in order."""
    first = next(rows(table(small)))
    recorded = small.read().first()
    assert recorded is not None
    assert (first[0], first[1], first[5]) == (recorded.position, recorded.stream, recorded.json)


def test_a_loaded_store_goes_on_at_its_end(history: EventStore) -> None:
    """Its clock stands at the end of the history, so that what comes next is later."""
    last = history.read().last()
    assert last is not None
    assert last.recorded_at < history.clock.now() == START + timedelta(days=DAYS)


# --- what it tells -----------------------------------------------------------------------------------------


def test_the_size_of_the_history(history: EventStore) -> None:
    """As many events as data/README.md says, all of the shop's types."""
    assert history.position == EVENTS
    assert f"{EVENTS:,} events" in (SEED_FILE.parent / "README.md").read_text()
    types = set(history.sql("SELECT DISTINCT type FROM events")["type"])
    assert types == {cls.event_type for state in (Order, Inventory, Customer) for cls in state.event_types()}


def test_money_is_never_made_or_lost(history: EventStore) -> None:
    """Of every order, what was paid back or is owed was paid before, and what was paid is the total."""
    for order in _folded(history, Order).values():
        assert order.paid in (0, order.total)
        assert 0 <= order.refunded + order.refund_due <= order.paid


def test_a_cancelled_paid_order_is_paid_back(history: EventStore) -> None:
    """Nothing is kept of an order that was called off: it is paid back, or owed at the end of the history."""
    orders = [
        order for order in _folded(history, Order).values() if order.status == "cancelled" and order.paid
    ]
    assert len(orders) > 50
    assert all(order.refundable == 0 for order in orders)


def test_stock_is_never_negative(history: EventStore) -> None:
    """At every moment, each shelf holds what is reserved on it."""
    shelf: dict[str, Inventory] = {}
    for recorded in history.read(category="Inventory"):
        after = fold(Inventory, [recorded], shelf.get(recorded.stream))
        assert after.available >= 0
        shelf[recorded.stream] = after


def test_sent_parcels_are_off_the_shelf(history: EventStore) -> None:
    """What orders sent is what inventories shipped, article by article."""
    sent: dict[str, int] = {}
    for order in _folded(history, Order).values():
        for item in order.items if order.status in ("shipped", "delivered") else ():
            sent[item.sku] = sent.get(item.sku, 0) + item.quantity
    shipped = history.sql("SELECT sku, sum(quantity) AS n FROM StockShipped GROUP BY sku")
    assert dict(zip(shipped["sku"], shipped["n"].astype(int), strict=True)) == sent


def test_blocked_customers_do_not_order(history: EventStore) -> None:
    """Between a block and its end there is no order of that customer."""
    blocked: set[str] = set()
    for recorded in history.read(type=["CustomerBlocked", "CustomerUnblocked", "OrderPlaced"]):
        customer = str(recorded.data["customer"])
        if recorded.type == "OrderPlaced":
            assert customer not in blocked
        else:
            (blocked.add if recorded.type == "CustomerBlocked" else blocked.discard)(customer)
    assert blocked


def test_every_cause_is_in_its_journey(history: EventStore) -> None:
    """Causes come before their effects, in the same correlation."""
    pairs = "FROM events e JOIN events c ON e.causation_id = c.event_id::VARCHAR"
    broken = _number(
        history, f"{pairs} WHERE c.position >= e.position OR c.correlation_id <> e.correlation_id"
    )
    caused = _number(history, "FROM events WHERE causation_id IS NOT NULL")
    assert broken == 0
    assert caused == _number(history, pairs) > 20_000


def test_letters_are_older_than_their_record(history: EventStore) -> None:
    """Orders by letter occurred days before they were recorded; nothing is recorded before it happens."""
    late = "FROM events WHERE recorded_at - occurred_at"
    assert _number(history, "FROM events WHERE recorded_at <= occurred_at") == 0
    letters = _number(history, f"{late} > INTERVAL 2 DAYS")
    assert letters == _number(history, "FROM events WHERE metadata ->> 'channel' = 'mail'") > 30
    assert _number(history, f"{late} < INTERVAL 1 DAY AND type = 'OrderDelivered'") > 100


def test_odd_cases_are_there(history: EventStore) -> None:
    """A wedding's thirty lines, names beyond ASCII and with a tag of HTML, moves while an order is open."""
    names = set(history.sql("SELECT name FROM CustomerRegistered")["name"])
    assert _number(history, "FROM OrderPlaced WHERE len(items) = 30") == 1
    assert {"山田 太郎", "Robert <b>Tables</b>"} <= names
    assert len(history.read(type="AddressChanged")) > 30


def test_totals_are_the_sum_of_their_lines(history: EventStore) -> None:
    """SQL over the typed table agrees with the model, to the cent."""
    lines = "list_sum(list_transform(items, lambda i: i.quantity * i.price))"
    assert _number(history, f"FROM OrderPlaced WHERE total <> {lines}") == 0
    assert _number(history, f"FROM OrderPlaced WHERE total = {lines}") > 4_000


def _number(store: Store, source: str) -> int:
    """Return how many rows there are."""
    return int(store.sql(f"SELECT count(*) AS n {source}").to_dict("list")["n"][0])


def _folded(store: Store, state: type[Order]) -> dict[str, Order]:
    """Return every order, folded."""
    found: dict[str, Order] = {}
    for recorded in store.read(category=state.category):
        found[recorded.id] = fold(state, [recorded], found.get(recorded.id))
    return found
