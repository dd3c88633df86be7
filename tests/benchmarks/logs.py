"""Event logs: what questions cost, beside the best SQL by hand, pandas, polars, pm4py and retentioneering.

Each library runs in a process of its own, pm4py and retentioneering in environments of their own, which
`--peers FOLDER` makes where they are missing; without it, only what is installed here takes part. Answers are
compared by digests, and every line says the CPU seconds of the fastest round.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from functools import partial
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from esim.eventlog import EventLog
from tests.benchmarks import peer_logs

if TYPE_CHECKING:
    from tests.benchmarks.figures import Bench

Line = dict[str, Any]
PEERS = {
    "polars": ["polars==2.1.0", "pyarrow"],
    "pm4py": ["pm4py==2.7.23.11", "pyarrow"],
    "retentioneering": ["retentioneering==5.2.4", "pyarrow"],
}
SCRIPT = Path(peer_logs.__file__)

# Ways of cases are few and skewed, as in real logs; rows come in the order of time, so cases are interleaved.
LOG = """
COPY (
  WITH cases AS (SELECT i, (1500 * power(hash(i, 1) / 18446744073709551615, 3))::INT AS way
      FROM range({cases}) t(i)),
  steps AS (SELECT i, way, unnest(range(2 + (hash(way, 2) % 16)::INT))::INT AS k FROM cases)
  SELECT 'case-' || lpad(i::VARCHAR, 8, '0') AS case_id,
    if(k = 0, 'Placed', ['Paid', 'Packed', 'Shipped', 'Returned', 'Refunded', 'Cancelled', 'Noted', 'Checked',
        'Called', 'Mailed', 'Delivered'][1 + (hash(way, k, 3) % 11)::INT]) AS activity,
    TIMESTAMP '2025-01-01' + to_seconds((hash(i, 4) % 20000000)::BIGINT + 86400 * k
        + (hash(i, k, 5) % 80000)::BIGINT) AS time,
    k + 1 AS version, 'u' || (hash(i, k, 6) % 50) AS resource, (hash(i, k, 7) % 10000) / 100.0 AS amount
  FROM steps ORDER BY time, i, k
) TO '{path}' (FORMAT parquet)
"""
EVENTS_PER_CASE = 9.4
_TURNS = 2

BY_HAND = {
    "follows": """SELECT names[p], names[a], n FROM
        (SELECT p, a, count(*) AS n FROM e WHERE p IS NOT NULL GROUP BY p, a),
        (SELECT list(activity ORDER BY a) AS names FROM activities) ORDER BY n DESC""",
    "waiting": """SELECT names[p], names[a], n, m, q[1] / 1e6, q[2] / 1e6, z FROM
        (SELECT p, a, count(*) AS n, avg(w) / 1e6 AS m, quantile_cont(w, [0.5, 0.95]) AS q,
            sum(w)::DOUBLE / 1e6 AS z
         FROM e WHERE p IS NOT NULL GROUP BY p, a),
        (SELECT list(activity ORDER BY a) AS names FROM activities) ORDER BY n DESC""",
    "variants": """SELECT list_select(names, codes), n FROM
        (SELECT codes, count(*) AS n FROM (SELECT list(a ORDER BY v) AS codes FROM e GROUP BY s)
         GROUP BY codes), (SELECT list(activity ORDER BY a) AS names FROM activities) ORDER BY n DESC""",
    "variant_times": """SELECT list_select(names, codes), n, d FROM
        (SELECT codes, count(*) AS n, median(d) / 1e6 AS d FROM
            (SELECT list(a ORDER BY v) AS codes, epoch_us(max(t)) - epoch_us(min(t)) AS d FROM e GROUP BY s)
         GROUP BY codes), (SELECT list(activity ORDER BY a) AS names FROM activities) ORDER BY n DESC""",
    "durations": """SELECT count(*), min(d), max(d), avg(d),
            quantile_cont(d, [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
        FROM (SELECT epoch_us(max(t)) - epoch_us(min(t)) AS d FROM e GROUP BY s)""",
    "start_end": """SELECT activity, x, x / sum(x) OVER (), y, y / sum(y) OVER () FROM
        (SELECT a, count(*) AS x FROM e WHERE p IS NULL GROUP BY a)
        FULL JOIN (SELECT a, count(*) AS y FROM e WHERE z GROUP BY a)
        USING (a) JOIN activities USING (a)""",
}


def made(bench: Bench, events: int) -> Path:
    """Return the path of a log of about so many events."""
    path = bench.folder / f"log-{events}.parquet"
    duckdb.connect().execute(LOG.format(cases=int(events / EVENTS_PER_CASE), path=path))
    return path


def ours(log: EventLog) -> dict[str, Any]:
    """Return our questions, each with how its answer is turned into the digest."""

    def pairs(frame: Any, *names: str) -> dict[Any, Any]:
        rows = frame[["source", "target", *names]].itertuples(index=False, name=None)
        return {(x, y): rest[0] if len(rest) == 1 else tuple(rest) for x, y, *rest in rows}

    def counts(frame: Any, name: str) -> dict[str, int]:
        found = zip(frame["activity"], frame[name], strict=True)
        return {activity: n for activity, n in found if n}

    return {
        "follows": (
            partial(log.directly_follows, times=False),
            lambda one: peer_logs.follows(pairs(one, "count")),
        ),
        "waiting": (log.directly_follows, lambda one: peer_logs.waiting(pairs(one, "mean_s", "median_s"))),
        "variants": (
            partial(log.variants, times=False),
            lambda one: peer_logs.variants(dict(zip(map(tuple, one["variant"]), one["cases"], strict=True))),
        ),
        "variant_times": (
            log.variants,
            lambda one: peer_logs.variant_times(zip(one["cases"], one["median_s"], strict=True)),
        ),
        "durations": (
            log.durations,
            lambda one: peer_logs.durations(one.iloc[0][["p25_s", "p50_s", "p75_s", "p90_s"]]),
        ),
        "start_end": (
            log.start_end,
            lambda one: peer_logs.starts(counts(one, "starts"), counts(one, "ends")),
        ),
    }


def logs(bench: Bench) -> Iterator[Line]:
    """Questions about a Parquet log of 1M events: CPU seconds of each library, and how many times ours.

    All take turns, twice, for what else the machine does comes and goes; what was fastest counts.
    """
    path = made(bench, bench.log)
    log = EventLog(path)
    log.summary()
    questions = {"load": (lambda: EventLog(path)._ready(), None), **ours(log)}
    peers = _peers(bench)
    spent: dict[tuple[str, str], float] = {}
    digests: dict[tuple[str, str], Any] = {}
    for _ in range(_TURNS):
        for library, found in (("esim", _asked_here(questions, bench.rounds)), *_each(peers, path, bench)):
            for name, line in found.items():
                spent[library, name] = min(line["cpu_s"], spent.get((library, name), line["cpu_s"]))
                digests[library, name] = line["digest"]
    for name, (ask, _) in questions.items():
        mine = spent["esim", name]
        line: Line = {"events": len(log), "question": name, "cpu_s": mine}
        if name in BY_HAND:
            by_hand = partial(log._session.frame, BY_HAND[name])
            line["times_sql_by_hand"] = _in_turn(ask, by_hand, 6 * bench.rounds)
        for library in (one for one in peers if (one, name) in spent):
            assert digests[library, name] == digests["esim", name], (library, name)
            line[library] = spent[library, name] / mine
        yield line


def _asked_here(questions: dict[str, Any], rounds: int) -> dict[str, Line]:
    """Return what each of our questions costs, and the digest of its answer as a peer tells it."""
    found = {}
    for name, (ask, digest) in questions.items():
        seconds, answer = peer_logs.timed(ask, rounds)
        told = None if digest is None else json.loads(json.dumps(digest(answer.df)))
        found[name] = {"cpu_s": seconds, "digest": told}
    return found


def _each(peers: dict[str, str], path: Path, bench: Bench) -> Iterator[tuple[str, dict[str, Line]]]:
    for library, python in peers.items():
        yield library, _peer(python, library, path, bench.rounds)


def _in_turn(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> float:
    """Return how many times the CPU seconds of the other one takes, each in its fastest round.

    The rounds of both alternate, for what else the machine does weighs more than what they differ by.
    """
    spent = [[peer_logs.timed(each, 1, 0)[0] for each in (one, other)] for _ in range(rounds)]
    mine, others = map(min, zip(*spent, strict=True))
    return float(mine / others)


def _peer(python: str, library: str, path: Path, rounds: int) -> dict[str, Line]:
    command = [python, str(SCRIPT), library, str(path), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{library} failed: {done.stderr[-2000:]}")
    lines = map(json.loads, done.stdout.splitlines())
    return {line["question"]: line for line in lines}


def _peers(bench: Bench) -> dict[str, str]:
    """Return the libraries that take part, with the Python of each."""
    found = {"pandas": sys.executable}
    if bench.peers is None:
        return found
    for library, packages in PEERS.items():
        home = bench.peers / library
        python = home / "bin" / "python"
        if not python.exists():
            venv.create(home, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        found[library] = str(python)
    return found


def large_logs(bench: Bench) -> Iterator[Line]:
    """Every question at 0.1M, 1M and 10M events under 4 GB for DuckDB; then the exponent of the cost of each.

    At the end variants at 10M under 256 MB, whole sequences compared, must be as many as before.
    """
    sizes, costs = [bench.log // 10, bench.log, 10 * bench.log], {}
    for size in sizes:
        path = made(bench, size)
        for line in _asked(path, "4GB"):
            costs[size, line["question"]] = line
            yield {"events": size, "limit": "4GB", **line}
    names = dict.fromkeys(name for _, name in costs)
    for name in names:
        yield {"question": name, **_exponents([costs[size, name]["cpu_s"] for size in sizes])}
    totals = [sum(costs[size, name]["cpu_s"] for name in names) for size in sizes]
    yield {"question": "all together", **_exponents(totals)}
    for line in _asked(path, "256MB", "load", "variants_exact"):
        assert line.get("rows") in (None, costs[sizes[-1], "variants"]["rows"])
        yield {"events": sizes[-1], "limit": "256MB", **line}


def _exponents(costs: list[float]) -> Line:
    """Return by which power of the events the cost grows: over all sizes, and from the second to the last."""
    return {
        "exponent": round(log10(costs[-1] / costs[0]) / 2, 3),
        "exponent_from_second": round(log10(costs[-1] / costs[1]), 3),
    }


def _asked(path: Path, memory: str, *names: str) -> Iterator[Line]:
    """Give the costs of questions, or of all, as soon as each is answered, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.large_logs", str(path), memory, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        yield from map(json.loads, asking.stdout or ())
    if asking.returncode:
        raise subprocess.CalledProcessError(asking.returncode, command)
