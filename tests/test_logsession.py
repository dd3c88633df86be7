"""Long questions can be interrupted and show progress; what is closed says so."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import duckdb
import pytest

from esim import logprepare, logsession
from esim.errors import InvalidArgument, StoreClosed
from esim.event import Event
from esim.eventlog import EventLog
from esim.store import EventStore
from tests.test_eventlog import SHOP, logged

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
import duckdb
from esim import EventLog
rows = duckdb.sql("SELECT range % 3 AS case, 'x' AS activity, make_timestamp(range) AS time FROM range(2000)")
log = EventLog(rows)
log.summary()
threading.Timer(0.3, lambda: print('running', flush=True)).start()
try:
    log.sql("SELECT sum(hash(x.v, y.v, z.v)) FROM e x, e y, e z")
except KeyboardInterrupt:
    print('stopped', len(log), log.variants().df['cases'].tolist(), flush=True)
"""


def test_an_interrupt_stops_a_long_question_and_the_log_goes_on() -> None:
    """A real SIGINT ends a question of hours at once, and the next one is answered."""
    command = [sys.executable, "-W", "ignore", "-c", INTERRUPTED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as other:
        assert other.stdout
        assert other.stdout.readline() == "running\n"
        other.send_signal(signal.SIGINT)
        out, _ = other.communicate(timeout=60)
        assert out == "stopped 2000 [2, 1]\n"


def test_a_long_question_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """While DuckDB works, its own progress goes to the bar, between 0 and 99 percent."""
    seen: list[int] = []

    class Shown:
        def __init__(self, low: int, high: int, label: str, unit: str) -> None:
            assert (low, high, label, unit) == (0, 100, "asking the log", "%")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def at(self, position: int) -> None:
            seen.append(position)

    def told(cursor: object, work: Callable[[], object], meanwhile: Callable[[], None]) -> object:
        meanwhile()
        return work()

    log = logged(SHOP)
    monkeypatch.setattr(logsession, "Bar", Shown)
    monkeypatch.setattr(log._session.db, "interruptibly", told)
    log.summary()
    assert seen
    assert all(0 <= one <= 99 for one in seen)


class Placed(Event):
    pass


def test_a_log_of_a_closed_store_says_so() -> None:
    """The store that was handed in is the one to keep open."""
    store = EventStore()
    store.append("Order/a", Placed())
    log = EventLog(store)
    assert len(log) == 1
    cursor = log._session.cursor
    store.close()
    with pytest.raises(StoreClosed):
        log.summary()
    with pytest.raises(duckdb.ConnectionException):
        cursor.execute("SELECT 1")


def test_a_log_that_is_gone_takes_its_tables_with_it() -> None:
    """A store that lives on keeps nothing of the logs that were made of it."""
    store = EventStore()
    store.append("Order/a", Placed())
    log = EventLog(store)
    log.summary()
    assert len(store._db._lent) == 1
    del log
    gc.collect()
    assert len(store._db._lent) == 0


def test_closing_a_log_leaves_a_store_that_was_handed_in_open() -> None:
    """And its own file or memory is let go."""
    store = EventStore()
    store.append("Order/a", Placed())
    with EventLog(store) as log:
        log.summary()
    store.append("Order/a", Placed())
    assert store.position == 2
    with logged(SHOP) as own:
        own.summary()
    with pytest.raises(StoreClosed):
        own.summary()


def test_the_store_itself_is_not_changed_by_questions() -> None:
    """All tables of a log are temporary ones of its own cursor."""
    store = EventStore()
    store.append("Order/a", Placed())
    before = store._db.fetch("SELECT count(*) FROM duckdb_tables() WHERE NOT temporary")
    EventLog(store).variants()
    assert store._db.fetch("SELECT count(*) FROM duckdb_tables() WHERE NOT temporary") == before


def test_a_bound_on_memory_is_an_amount() -> None:
    """What DuckDB does not understand is told; what it does is kept to."""
    with logged(SHOP, memory="200MB") as log:
        assert log._session.rows("SELECT current_setting('memory_limit')")[0][0].startswith("190")
        assert len(log.variants()) == 3
    with pytest.raises(InvalidArgument, match="memory='much'"):
        logged(SHOP, memory="much")


class Watched:
    """A lock that says when somebody has to wait for it."""

    def __init__(self) -> None:
        self._lock, self.awaited = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.awaited.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize(
    "roles", [{"case": "who"}, {}, {"case": "item"}], ids=["other cases", "same", "objects"]
)
def test_logs_that_threads_ask_first_have_their_own_cases(
    monkeypatch: pytest.MonkeyPatch, roles: dict[str, str]
) -> None:
    """A thread that asks while another one prepares a log of the same source waits, and both are right."""
    items = [each | {"items": ["i", f"{n}"]} for n, each in enumerate(SHOP)]
    objects = {"item": "items"}

    def asked(log: EventLog) -> list[object]:
        return log.cases().df["case"].tolist()

    def other(log: EventLog) -> EventLog:
        return log.using(**roles).only("Placed", "Paid") if roles else log.only("Placed", "Paid")

    with logged(items, case="case", objects=objects) as log:
        wanted = [asked(log), asked(other(log))]
    log, lock, found = logged(items, case="case", objects=objects), Watched(), dict[str, list[object]]()
    monkeypatch.setattr(log._session, "_lock", lock)
    prepared, look = list[object](), logprepare._looked_at

    def second() -> None:
        try:
            found["second"] = asked(other(log))
        finally:
            lock.awaited.set()

    thread = threading.Thread(target=second)

    def amid(*given: object, **more: object) -> object:
        prepared.append(given)
        if len(prepared) == 1:
            thread.start()
            lock.awaited.wait()
        return look(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(logprepare, "_looked_at", amid)
    log.funnel("Placed")  # which asks for its numbers before it is alone
    found["first"] = asked(log)
    thread.join()
    assert [found["first"], found["second"]] == wanted
    assert len(prepared) == (2 if roles else 1)
