"""Projections under fire: raising handlers, Interrupt, threads, and processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from esim.envelope import RecordedEvent
from esim.errors import ProjectionFailed, StoreClosed
from esim.event import Event
from esim.projection import Key, Projection, Row, Rows, SqlProjection, on
from esim.store import EventStore
from esim.tables import Table
from esim.value import Money

WINDOW, EVENTS = 20, 200


class Paid(Event):
    payer: str
    amount: Money


class Balance(Row):
    payer: Key[str]
    count: int = 0
    amount: Money = Decimal(0)


class Balances(Projection[Balance]):
    window = WINDOW

    @on(Paid)
    def paid(self, event: Paid, rows: Rows[Balance]) -> None:
        row = rows.get(event.payer) or Balance(payer=event.payer)
        rows.put(row.but(count=row.count + 1, amount=row.amount + event.amount))


class Sums(SqlProjection):
    query = "SELECT payer, count(*) AS count, sum(amount) amount FROM Paid GROUP BY payer"
    key = ("payer",)
    combine = {"count": "sum", "amount": "sum"}


def paid(number: int) -> Paid:
    return Paid(payer=f"p{number % 7}", amount=Decimal(number))


def told(model: Any, **options: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in model.df(**options).itertuples(index=False)]


def folded(store: EventStore, until: int) -> list[tuple[Any, ...]]:
    rows = Balances.over(store.read(until=until))
    return [(row.payer, row.count, row.amount) for _, row in sorted(rows.items())]


# --- a handler raises --------------------------------------------------------------------------------------


def test_a_raising_handler_keeps_the_windows_before_and_names_the_event() -> None:
    """The error names handler, event and cause; earlier windows stay, nothing of the failing one is kept."""

    class Fragile(Balances):
        window = 4

        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Balance]) -> None:
            rows.put(Balance(payer=f"n{event.amount}"))
            if event.amount == 6:
                raise LookupError("no such payer")

    with EventStore() as store:
        store.append("Pay/x", [paid(number) for number in range(1, 9)])
        with pytest.raises(
            ProjectionFailed, match=r"Fragile\.paid failed at position 6 \(Pay/x, .*Paid\).*no such"
        ) as caught:
            Fragile(store).catch_up()
        assert isinstance(caught.value.__cause__, LookupError)
        assert Fragile(store).position == 4 and len(Fragile(store).df(fresh=False)) == 4
        with pytest.raises(ProjectionFailed, match="position 6"):
            Fragile.over(store.read())
        with pytest.raises(ProjectionFailed, match="position 6"):
            Fragile(store).as_of(7)


def test_a_failed_rebuild_leaves_the_old_table() -> None:
    """When a rebuild fails, the table and its checkpoint are those of before."""
    broken: list[bool] = []

    class Moody(Projection[Balance]):
        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Balance], recorded: RecordedEvent[Paid]) -> None:
            rows.put(Balance(payer=event.payer, count=recorded.position))
            if broken and recorded.position == 150:
                raise LookupError

    with EventStore() as store:
        store.append("Pay/x", [paid(number) for number in range(EVENTS)])
        before = told(Moody(store))
        broken.append(True)
        with pytest.raises(ProjectionFailed):
            Moody(store).rebuild()
        assert told(Moody(store), fresh=False) == before and Moody(store).position == EVENTS
        broken.clear()
        assert told(Moody(store).rebuild()) == before


def test_a_payload_that_does_not_fit_its_class_is_named() -> None:
    """A stored payload that its class refuses fails the projection at that event."""
    with EventStore() as store:
        store.append("Pay/x", [paid(1), paid(2)])
        rows = [event._row for event in store.read()]
        bad = (3, "Pay/y", 1, "Paid", 1, '{"payer": 1}', None, None, None, UUID(int=1))
        store.restore([(*bad, *rows[0][10:])])
        with pytest.raises(ProjectionFailed, match=r"position 3 \(Pay/y"):
            Balances(store).catch_up()


def test_a_row_that_does_not_fit_its_columns_is_refused() -> None:
    """A value beyond the column's range raises ProjectionFailed, and the checkpoint stays."""

    class Big(Row):
        payer: Key[str]
        count: int

    class Bigs(Projection[Big]):
        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Big]) -> None:
            rows.put(Big(payer=event.payer, count=2**70))

    with EventStore() as store:
        store.append("Pay/x", paid(1))
        with pytest.raises(ProjectionFailed, match="do not fit"):
            Bigs(store).catch_up()
        assert Bigs(store).position == 0


def test_a_handler_cannot_ask_for_its_own_table() -> None:
    """Catching up from inside a handler, which would count twice, is refused; other events go on after it."""

    class Nosy(Balances):
        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Balance]) -> None:
            self.catch_up()

    with EventStore() as store:
        store.append("Pay/x", paid(1))
        with pytest.raises(ProjectionFailed, match="use `rows`"):
            Nosy(store).catch_up()


def test_a_closed_store_says_so() -> None:
    """Catching up on a closed store raises StoreClosed."""
    store = EventStore()
    balances = Balances(store)
    store.close()
    with pytest.raises(StoreClosed):
        balances.df()


# --- Interrupt ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [1, WINDOW, WINDOW + 1, 3 * WINDOW - 1])
def test_an_interrupt_leaves_a_consistent_checkpoint(position: int) -> None:
    """A real SIGINT in a handler stops the work; what is committed is whole, and the same object goes on."""

    class Stopped(Balances):
        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Balance]) -> None:
            if event.amount == position - 1 and not stopped:
                stopped.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            Balances.paid(self, event, rows)

    stopped: list[bool] = []
    with EventStore() as store:
        store.append("Pay/x", [paid(number) for number in range(EVENTS)])
        balances = Stopped(store)
        with pytest.raises(KeyboardInterrupt):
            balances.catch_up()
        assert balances.position == (position - 1) // WINDOW * WINDOW
        assert told(balances, fresh=False) == folded(store, balances.position)
        assert told(balances) == folded(store, EVENTS)


# --- threads -----------------------------------------------------------------------------------------------


def test_threads_that_append_and_catch_up_lose_and_repeat_nothing() -> None:
    """Writers and several instances at once end with the rows of a plain fold."""
    with EventStore() as store:
        failures: list[BaseException] = []

        def guarded(work: Callable[[], object]) -> threading.Thread:
            def run() -> None:
                try:
                    for _ in range(15):
                        work()
                except BaseException as error:  # noqa: BLE001 - it fails the test below
                    failures.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        models = [Balances(store), Balances(store), Sums(store), Sums(store)]
        writers = [partial(store.append, f"Pay/{name}", [paid(3), paid(5)]) for name in "ab"]
        work: list[Callable[[], object]] = [
            *writers,
            *(model.catch_up for model in models),
            models[0].rebuild,
            models[1].df,
        ]
        for thread in [guarded(one) for one in work]:
            thread.join()
        assert not failures
        assert [told(model) for model in models] == [folded(store, store.position)] * 4


def test_the_old_table_is_read_while_a_rebuild_runs() -> None:
    """During a rebuild other readers see the former table whole."""
    seen: list[int] = []

    class Watched(Balances):
        @on(Paid)
        def paid(self, event: Paid, rows: Rows[Balance]) -> None:
            Balances.paid(self, event, rows)
            if watching:
                seen.append(int(self.store.sql("SELECT sum(count) n FROM watched").n[0]))

    watching: list[bool] = []
    with EventStore() as store:
        store.append("Pay/x", [paid(number) for number in range(2 * WINDOW)])
        watched = Watched(store).catch_up()
        watching.append(True)
        watched.rebuild()
    assert seen == [2 * WINDOW] * 2 * WINDOW


# --- killed ------------------------------------------------------------------------------------------------


def child(path: str, model: str, moment: str, count: int) -> None:
    """Catch up or rebuild, and kill this process at the `count`-th `moment` of committing a window."""
    left = [count]
    check_in, advance = Table._check_in, Table.advance

    def here() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_checkpoint(self: Table, *args: Any) -> None:
        here()
        check_in(self, *args)

    def after_checkpoint(self: Table, *args: Any) -> None:
        check_in(self, *args)
        here()

    def before_window(self: Table, position: int) -> Any:
        here()
        return advance(self, position)

    hooks = {
        "before checkpoint": ("_check_in", before_checkpoint),
        "after checkpoint": ("_check_in", after_checkpoint),
    }
    setattr(Table, *hooks.get(moment, ("advance", before_window)))
    with EventStore(path) as store:
        chosen = {"Balances": Balances, "Sums": Sums}[model.removesuffix(" anew")](store)
        chosen.rebuild() if model.endswith(" anew") else chosen.catch_up()


def killed(path: Path, model: str, moment: str, count: int) -> int:
    program = (
        f"from test_projection_faults import child; child({str(path)!r}, {model!r}, {moment!r}, {count})"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=False).returncode


COMMIT = ("before checkpoint", "after checkpoint")
KILLS = [
    *(("Balances", moment, count) for count in (1, 2, 3) for moment in ("window", *COMMIT)),
    *(("Sums", moment, 1) for moment in ("window", *COMMIT)),
    *(("Balances anew", moment, count) for count in (1, 3) for moment in COMMIT),
    *(("Sums anew", moment, 1) for moment in COMMIT),
    *(("Balances", "before checkpoint", count) for count in (1, 2)),
]


def test_a_killed_process_leaves_table_and_checkpoint_in_step(tmp_path: Path) -> None:
    """Twenty times SIGKILL in a catch-up or a rebuild: the table is as of its checkpoint, and goes on."""
    path = tmp_path / "pay.duckdb"
    assert len(KILLS) == 20
    for turn, (model, moment, count) in enumerate(KILLS):
        with EventStore(path) as store:
            store.append("Pay/x", [paid(turn + number) for number in range(4 * WINDOW)])
        assert killed(path, model, moment, count) == -signal.SIGKILL
        with EventStore(path) as store:
            assert store.position == (turn + 1) * 4 * WINDOW
            for one in (Balances(store), Sums(store)):
                assert told(one, fresh=False) == folded(store, one.position)
                assert "former definition" not in repr(one)  # so that it goes on, and is not built anew
            if turn % 3 == 2:
                continued = [told(one) for one in (Balances(store), Sums(store))]
                assert continued == [folded(store, store.position)] * 2
                assert continued == [told(one.rebuild()) for one in (Balances(store), Sums(store))]
