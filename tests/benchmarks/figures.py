"""The figures, each a function that gives dictionaries; the results of both sides are compared as well."""

from __future__ import annotations

import gc
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from esim import EventStore, Repository, Rows, SqlProjection, Subscription, Write
from esim.storefile import TABLES
from tests.benchmarks.logs import large_logs, logs
from tests.benchmarks.simulating import simulation
from tests.benchmarks.subjects import (
    CLASSES,
    BenchFact,
    PaidTotals,
    Peer,
    Total,
    Totals,
    facts,
    peer_app,
    peer_events,
    trigger,
)
from tests.benchmarks.subjects import (
    Bench as BenchState,
)

Line = dict[str, Any]


class Bench:
    """Where the files are, how large the logs are, and the stores that several figures share."""

    def __init__(self, folder: Path, *, small: bool, peers: Path | None = None) -> None:
        """Work in `folder`; `small` shrinks every log; `peers` has the environments of other libraries."""
        self.folder = folder
        self.peers = peers
        self.log = 20_000 if small else 1_000_000
        self.scale = 20 if small else 1
        self.rounds = 2 if small else 5

    def path(self, name: str) -> Path:
        """Return a fresh path."""
        return self.folder / f"{name}-{len(list(self.folder.iterdir()))}"

    @cached_property
    def store(self) -> EventStore:
        """The big log: streams of ten events."""
        store = EventStore(self.path("big.duckdb"))
        for start in range(0, self.log, 10_000):
            batch = facts(10_000, start=start)
            store.append_all([Write(f"Bench/b-{start + i}", batch[i : i + 10]) for i in range(0, 10_000, 10)])
        return store

    @cached_property
    def peer(self) -> Any:
        """The same log in the peer's SQLite file, except that each aggregate begins with a Created event."""
        app = peer_app(self.path("big.sqlite"))
        for start in range(0, self.log, 10_000):
            orders = []
            for i in range(0, 10_000, 10):
                order = Peer()
                trigger(order, 10, start=start + i)
                orders.append(order)
            app.save(*orders)
        return app


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of the whole process that `work` took, and its result."""
    gc.collect()
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def wall(work: Callable[[], Any]) -> float:
    """Return the seconds on the wall that `work` took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work: Callable[[], float], rounds: int) -> float:
    """Return the median of several measurements."""
    return statistics.median(work() for _ in range(rounds))


def single(bench: Bench) -> Iterator[Line]:
    """One event per durable append, wall: against a bare INSERT and commit, and against SQLite."""
    count = 400 // bench.scale
    store = EventStore(bench.path("single.duckdb"))
    bare = duckdb.connect(bench.path("bare.duckdb"))
    bare.execute(TABLES)
    events = facts(5 * count)
    row = (
        "INSERT INTO esim.events VALUES (?, 'Bench', ?, 1, 'T', 1, uuid(), now()::TIMESTAMP, NULL, ?, "
        "NULL, NULL, NULL, NULL, NULL)"
    )
    payload = events[0].model_dump_json()
    lite = sqlite3.connect(bench.path("bare.sqlite"), isolation_level=None)
    lite.execute("PRAGMA journal_mode = WAL")
    lite.execute("CREATE TABLE events(position INTEGER PRIMARY KEY, stream TEXT, data TEXT)")
    ours, theirs, sqlite = [], [], []
    for i in range(count):
        ours.append(wall(lambda i=i: store.append(f"Bench/{i}", events[i])))
        theirs.append(wall(lambda i=i: bare.execute(row, [i, f"Bench/{i}", payload])))
        sqlite.append(
            wall(lambda i=i: lite.execute("INSERT INTO events VALUES (?, ?, ?)", (i, f"B/{i}", payload)))
        )
    assert store.position == count
    mine, base, third = map(statistics.median, (ours, theirs, sqlite))
    yield {
        "wall_ms": 1e3 * mine,
        "bare_insert_ms": 1e3 * base,
        "times_bare": mine / base,
        "sqlite_ms": 1e3 * third,
    }


def threads(bench: Bench) -> Iterator[Line]:
    """Eight threads that share a store, against one: appends a second, wall."""
    store = EventStore(bench.path("threads.duckdb"))
    count = 800 // bench.scale
    [one] = facts(1)

    def work(name: str, times: int) -> None:
        for _ in range(times):
            store.append(f"Bench/{name}", one)

    def together() -> None:
        workers = [threading.Thread(target=work, args=(str(n), count // 8)) for n in range(8)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()

    alone = median(lambda: wall(lambda: work("alone", count)), bench.rounds)
    eight = median(lambda: wall(together), bench.rounds)
    assert store.position == bench.rounds * (count + 8 * (count // 8))
    yield {"one_per_s": count / alone, "eight_per_s": count / eight, "ratio": alone / eight}


def appends(bench: Bench) -> Iterator[Line]:
    """100, 1,000 and 10,000 events per append, CPU."""
    store, app = EventStore(bench.path("batch.duckdb")), peer_app(bench.path("batch.sqlite"))
    for size in (100, 1_000, 10_000):
        ours, theirs = [], []
        for turn in range(max(bench.rounds, 20_000 // size // bench.scale)):
            events = facts(size)
            ours.append(cpu(lambda t=turn, e=events: store.append(f"Bench/{len(e)}-{t}", e))[0])
            order = Peer()
            trigger(order, size - 1)
            theirs.append(cpu(lambda o=order: app.save(o))[0])
        mine, peer = statistics.median(ours), statistics.median(theirs)
        yield {"size": size, "per_s": size / mine, "eventsourcing_per_s": size / peer, "ratio": peer / mine}


def rebuild(bench: Bench) -> Iterator[Line]:
    """Typed rebuild of one aggregate of 1,000 and of 100,000 events, CPU, no cache."""
    store, app = EventStore(bench.path("rebuild.duckdb")), peer_app(bench.path("rebuild.sqlite"))
    for size in (1_000, 100_000 // bench.scale):
        store.append(f"Bench/{size}", facts(size))
        order = Peer()
        trigger(order, size)
        app.save(order)
        bare = Repository(store, BenchState, cache=0)
        ours, theirs = [], []
        for _ in range(bench.rounds):
            seconds, mine = cpu(lambda s=str(size), r=bare: r.load(s))
            ours.append(seconds)
            seconds, peer = cpu(lambda o=order: app.repository.get(o.id))
            theirs.append(seconds)
            state = mine.state
            same = (peer.customer, peer.total, peer.note, peer.count)
            assert (state.customer, state.total, state.note, state.count) == same
        a, b = statistics.median(ours), statistics.median(theirs)
        yield {"events": size, "per_s": size / a, "eventsourcing_per_s": size / b, "ratio": b / a}


def load(bench: Bench) -> Iterator[Line]:
    """A ten-event aggregate of the big log: cold against a bare look-up, warm against the peer, CPU."""
    store, app = bench.store, bench.peer
    ids = [f"b-{i}" for i in range(0, bench.log, 10)][:: max(bench.log // 2_000, 1)]
    cold, orders = Repository(store, BenchState, cache=0), Repository(store, BenchState)
    query = "SELECT version, type, schema_version, data FROM esim.events WHERE stream = ?"
    cursor = store._db.cursor()
    bare = cpu(lambda: [cursor.execute(query, [f"Bench/{i}"]).fetchall() for i in ids])[0] / len(ids)
    first = cpu(lambda: [cold.load(i) for i in ids])[0] / len(ids)
    for i in ids:
        orders.load(i)
    warm = cpu(lambda: [orders.load(i) for i in ids for _ in range(20)])[0] / len(ids) / 20
    peers = [note.originator_id for note in app.recorder.select_notifications(start=1, limit=11 * len(ids))]
    peers = list(dict.fromkeys(peers))[: len(ids)]
    theirs = cpu(lambda: [app.repository.get(i) for i in peers])[0] / len(peers)
    assert orders.load("b-0").state.count == app.repository.get(peers[0]).count == 10
    yield {"cold_ms": 1e3 * first, "bare_lookup_ms": 1e3 * bare, "times_bare": first / bare}
    yield {"warm_us": 1e6 * warm, "eventsourcing_us": 1e6 * theirs, "ratio": theirs / warm}


def projection(bench: Bench) -> Iterator[Line]:
    """Typed Python projections of the big log, checkpoint included, against the peer's decoded read, CPU."""
    totals: dict[str, list[Any]] = {}

    def read() -> None:
        for one in peer_events(bench.peer):
            if hasattr(one, "customer"):
                row = totals.setdefault(one.customer, [0, Decimal(0)])
                row[0] += 1
                row[1] += one.total

    raw, count = cpu(lambda: sum(1 for _ in peer_events(bench.peer)))
    read()
    every, one = Totals(bench.store), PaidTotals(bench.store)
    for name, model in (("all types", every), ("one type in five", one)):
        seconds = cpu(model.rebuild)[0]
        rate, peer = bench.log / seconds, count / raw
        yield {"projection": name, "per_s": rate, "eventsourcing_raw_read_per_s": peer, "ratio": rate / peer}
    mine = {row.customer: [row.events, row.total] for row in map(every.get, totals) if row}
    assert mine == totals


class JsonTotals(SqlProjection):
    query = """select data->>'customer' as customer, count(*) as events,
                      sum((data->>'total')::decimal(18,2)) as total
               from events group by 1"""
    key = ("customer",)


class TypedTotals(SqlProjection):
    query = "select customer, count(*) as events, sum(total) as total from BenchPaid group by 1"
    key = ("customer",)


class EveryTypedTotals(SqlProjection):
    every = " union all ".join(f"select customer, total from {cls.__name__}" for cls in CLASSES)
    query = f"select customer, count(*) as events, sum(total) as total from ({every}) group by 1"
    key = ("customer",)


def sql(bench: Bench) -> Iterator[Line]:
    """SQL projections of the big log, over JSON and over typed tables that are caught up, CPU.

    `per_s` counts the events that the query reads, `log_per_s` those of the log.
    """
    for over, share, kind in (
        ("json", 1, JsonTotals),
        ("typed, one type in five", 5, TypedTotals),
        ("typed, all types", 1, EveryTypedTotals),
    ):
        model = kind(bench.store)
        model.rebuild()  # the typed tables are caught up here
        seconds = median(lambda model=model: cpu(model.rebuild)[0], 2 * bench.rounds)
        yield {"over": over, "per_s": bench.log / share / seconds, "log_per_s": bench.log / seconds}
        assert model.df()["events"].sum() == bench.log // share


def folded(bench: Bench) -> Iterator[Line]:
    """The folded state of every aggregate as the big log stood at its half, CPU."""
    names = " union all by name ".join(
        f"select id, version, customer, total, note from {c.__name__}" for c in CLASSES
    )
    query = f"""select id, arg_max(customer, version) as customer, arg_max(total, version) as total,
                arg_max(note, version) as note, count(*) as count from ({names}) group by id order by id"""
    past = bench.store.as_of(bench.log // 2)
    past.sql(query)  # the typed tables are caught up here
    seconds, found = cpu(lambda: past.sql(query))
    from_json = (
        """select stream, arg_max(data, version) as data, count(*) as count from events group by stream"""
    )
    json_seconds, states = cpu(lambda: past.sql(from_json))
    assert len(found) == len(states) == bench.log // 20
    orders = Repository(past, BenchState)
    for row in found.iloc[:: max(len(found) // 50, 1)].itertuples():
        state = orders.load(row.id).state
        assert (state.customer, state.total, state.note, state.count) == (
            row.customer,
            row.total,
            row.note,
            row.count,
        )
    yield {"aggregates": len(found), "cpu_s": seconds, "last_payload_cpu_s": json_seconds}


def size(bench: Bench) -> Iterator[Line]:
    """Bytes per event on disk, indexes included."""
    for store in (bench.store, bench.peer):
        assert store is not None
    path, lite = bench.store.path, next(bench.folder.glob("big.sqlite*"))
    assert path is not None
    copy = bench.path("copy.duckdb")
    bench.store.copy_to(
        copy
    )  # the log alone would be smaller; this counts read models and typed tables as well
    fresh = EventStore(bench.path("fresh.duckdb"))
    fresh.restore(row for window in bench.store._scan(bench.store.read()._wanted) for row in window)
    where = fresh.path
    fresh.close()
    mine, peer = where.stat().st_size / bench.log, lite.stat().st_size / (bench.log * 1.1)
    yield {
        "bytes": mine,
        "eventsourcing_bytes": peer,
        "ratio": mine / peer,
        "with_tables": copy.stat().st_size / bench.log,
    }


_PEAK = """
import re, sys
from pathlib import Path
from tests.benchmarks.subjects import Totals
from esim import EventStore
def peak():  # getrusage would count the parent's memory in
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
with EventStore(sys.argv[1]) as store:
    before = peak()
    Totals(store).rebuild()
    print(before, peak())
"""


def memory(bench: Bench) -> Iterator[Line]:
    """The peak memory of a process that projects a quarter of the log, and the whole of it."""
    for share in (4, 1):
        path = bench.path("peak.duckdb")
        with EventStore(path) as part:
            rows = bench.store.read(until=bench.log // share)._wanted
            part.restore(row for window in bench.store._scan(rows) for row in window)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True
        )
        before, peak = map(int, done.stdout.split())
        yield {"events": bench.log // share, "peak_mb": peak / 1024, "before_mb": before / 1024}


def _idle(event: BenchFact, rows: Rows[Total]) -> None:
    """Stand for the cheapest handler there is."""


def delivery(bench: Bench) -> Iterator[Line]:
    """Events handed one by one to a handler, a transactional checkpoint in batches: the fastest round."""
    count = 100_000 // bench.scale
    with EventStore(bench.path("delivery.duckdb")) as store:
        rows = bench.store.read(until=count)._wanted
        store.restore(row for window in bench.store._scan(rows) for row in window)
        for handler in (_idle, Totals):
            rounds = [Subscription(store, handler, f"{handler.__name__} {number}") for number in range(5)]
            seconds = min(cpu(each.catch_up)[0] for each in rounds)
            assert all(each.position == count for each in rounds)
            yield {"handler": handler.__name__, "events": count, "per_s": count / seconds}
        assert int(rounds[0].df()["events"].sum()) == count


ALL: dict[str, Callable[[Bench], Iterator[Line]]] = {
    each.__name__: each
    for each in (
        *(single, threads, appends, rebuild, load, projection, sql, folded, delivery, simulation, size),
        *(memory, logs, large_logs),
    )
}
