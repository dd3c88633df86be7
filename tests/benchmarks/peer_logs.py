"""Ask one library the questions about a log, and say what each costs: a script for an environment of its own.

`python peer_logs.py LIBRARY LOG.parquet ROUNDS` prints a JSON line for each question: the CPU seconds of the
fastest round, and a digest of the answer, by which the answers of all libraries are compared.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import time
from collections import Counter

os.environ.setdefault("RETENTIONEERING_NO_TRACK", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

QUANTILES = (0.25, 0.5, 0.75, 0.9)


def timed(work, rounds, seconds=2.0):
    """Return the CPU seconds of the fastest round, and the result.

    Short work, which what else the machine does disturbs most, has as many rounds as fit in `seconds`.
    """
    best = result = None
    begun = time.process_time()
    while rounds > 0 or time.process_time() - begun < seconds:
        rounds -= 1
        result = None  # what the round before made is let go of outside of the time
        gc.collect()
        start = time.process_time()
        result = work()
        spent = time.process_time() - start
        best = spent if best is None else min(best, spent)
    return best, result


def follows(edges):
    """Return the digest of what follows what: pairs to counts."""
    return {f"{a}>{b}": int(n) for (a, b), n in sorted(edges.items())}


def waiting(edges):
    """Return the digest of what follows what and after how long: pairs to mean and median in seconds."""
    return {f"{a}>{b}": [round(x, 3), round(y, 3)] for (a, b), (x, y) in sorted(edges.items())}


def variants(counts):
    """Return the digest of variants: how many, and the sizes of the ten commonest."""
    return [len(counts), sorted(counts.values(), reverse=True)[:10]]


def variant_times(times):
    """Return the digest of variants with their median durations: how many, and the ten commonest."""
    sizes = sorted(((n, round(float(d), 3)) for n, d in times), reverse=True)
    return [len(sizes), [list(one) for one in sizes[:10]]]


def durations(values):
    """Return the digest of durations: quantiles in seconds."""
    return [round(float(one), 3) for one in values]


def starts(first, last):
    """Return the digest of starts and ends."""
    return [{k: int(first[k]) for k in sorted(first)}, {k: int(last[k]) for k in sorted(last)}]


# --- pandas ------------------------------------------------------------------------------------------------


def pandas(path):
    """Give the questions in pandas."""
    import pandas as pd

    def load():
        frame = pd.read_parquet(path, columns=["case_id", "activity", "time", "version"])
        return frame.sort_values(["case_id", "time", "version"], kind="stable")

    _, frame = yield "load", load

    def steps():
        before = frame["activity"].shift()
        inside = frame["case_id"].eq(frame["case_id"].shift())
        return before[inside], frame["activity"][inside], frame["time"].diff()[inside]

    def count():
        before, after, _ = steps()
        return pd.DataFrame({"x": before, "y": after}).groupby(["x", "y"], sort=False).size().to_dict()

    def wait():
        before, after, gap = steps()
        table = pd.DataFrame({"x": before, "y": after, "w": gap.dt.total_seconds()})
        found = table.groupby(["x", "y"], sort=False)["w"].agg(["mean", "median"])
        return {key: tuple(row) for key, row in zip(found.index, found.to_numpy(), strict=True)}

    def ways():
        return Counter(frame.groupby("case_id", sort=False)["activity"].agg(tuple).tolist())

    def timed_ways():
        cases = frame.groupby("case_id", sort=False)
        spans = cases["time"].agg(["min", "max"])
        table = pd.DataFrame({"way": cases["activity"].agg(tuple), "d": spans["max"] - spans["min"]})
        found = table["d"].dt.total_seconds().groupby(table["way"]).agg(["size", "median"])
        return list(zip(found["size"], found["median"], strict=True))

    def last():
        found = frame.groupby("case_id", sort=False)["time"].agg(["min", "max"])
        return (found["max"] - found["min"]).dt.total_seconds().quantile(list(QUANTILES)).tolist()

    def ends():
        found = frame.groupby("case_id", sort=False)["activity"].agg(["first", "last"])
        return found["first"].value_counts().to_dict(), found["last"].value_counts().to_dict()

    yield from _asked(count, wait, ways, last, ends)
    yield "variant_times", timed_ways


# --- polars ------------------------------------------------------------------------------------------------


def polars(path):
    """Give the questions in polars."""
    import polars as pl

    def load():
        frame = pl.read_parquet(path, columns=["case_id", "activity", "time", "version"])
        return frame.sort("case_id", "time", "version")

    _, frame = yield "load", load
    inside = pl.col("case_id") == pl.col("case_id").shift()

    def count():
        steps = frame.select(x=pl.col("activity").shift(), y=pl.col("activity"), inside=inside)
        found = steps.filter("inside").group_by("x", "y").len()
        return {(x, y): n for x, y, n in found.iter_rows()}

    def wait():
        steps = frame.select(
            x=pl.col("activity").shift(), y=pl.col("activity"), w=pl.col("time").diff(), inside=inside
        )
        gap = pl.col("w").dt.total_microseconds() / 1e6
        found = steps.filter("inside").group_by("x", "y").agg(gap.mean().alias("m"), gap.median().alias("d"))
        return {(x, y): (m, d) for x, y, m, d in found.iter_rows()}

    def ways():
        found = frame.group_by("case_id", maintain_order=True).agg("activity").group_by("activity").len()
        return {tuple(way): n for way, n in found.iter_rows()}

    def timed_ways():
        span = pl.col("time").max() - pl.col("time").min()
        found = frame.group_by("case_id", maintain_order=True).agg("activity", d=span.dt.total_microseconds())
        found = found.group_by("activity").agg(n=pl.len(), d=pl.col("d").median() / 1e6)
        return [(n, d) for _, n, d in found.iter_rows()]

    def last():
        spans = frame.group_by("case_id").agg(d=pl.col("time").max() - pl.col("time").min())
        gap = pl.col("d").dt.total_microseconds() / 1e6
        return spans.select(**{f"q{q}": gap.quantile(q, interpolation="linear") for q in QUANTILES}).row(0)

    def ends():
        found = frame.group_by("case_id", maintain_order=True).agg(
            a=pl.col("activity").first(), z=pl.col("activity").last()
        )
        return tuple(dict(found[name].value_counts().iter_rows()) for name in ("a", "z"))

    yield from _asked(count, wait, ways, last, ends)
    yield "variant_times", timed_ways


# --- pm4py -------------------------------------------------------------------------------------------------


def pm4py(path):
    """Give the questions in pm4py."""
    import numpy as np
    import pandas as pd
    import pm4py as pm

    def load():
        frame = pd.read_parquet(path, columns=["case_id", "activity", "time", "version"])
        return pm.format_dataframe(frame, case_id="case_id", activity_key="activity", timestamp_key="time")

    _, frame = yield "load", load

    def count():
        return pm.discover_dfg(frame)[0]

    def wait():
        found = pm.discover_performance_dfg(frame)[0]
        return {pair: (one["mean"], one["median"]) for pair, one in found.items()}

    def ways():
        return pm.get_variants(frame)

    def last():
        return np.quantile(pm.get_all_case_durations(frame), QUANTILES)

    def ends():
        return pm.get_start_activities(frame), pm.get_end_activities(frame)

    yield from _asked(count, wait, ways, last, ends)


# --- retentioneering ---------------------------------------------------------------------------------------


def retentioneering(path):
    """Give what retentioneering has of the questions: loading, and what follows what."""
    import pandas as pd
    from retentioneering import Eventstream

    def load():
        frame = pd.read_parquet(path, columns=["case_id", "activity", "time"])
        schema = {"path_cols": ["case_id"], "event_col": "activity", "timestamp_col": "time"}
        return Eventstream(frame, schema=schema)

    _, stream = yield "load", load

    def count():
        table = stream.transition_graph_data(edge_weight="count")
        found = {(x, y): table.loc[x, y] for x in table.index for y in table.columns}
        return {(x, y): n for (x, y), n in found.items() if n > 0 and not {x, y} & _ENDS}

    yield "follows", count


_ENDS = {"path_start", "path_end"}


def _asked(count, wait, ways, last, ends):
    yield "follows", count
    yield "waiting", wait
    yield "variants", ways
    yield "durations", last
    yield "start_end", ends


DIGESTS = {
    "follows": follows,
    "waiting": waiting,
    "variants": variants,
    "variant_times": variant_times,
    "durations": durations,
    "start_end": lambda found: starts(*found),
}


def main():
    """Print a line for each question."""
    library, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    questions = globals()[library](path)
    name, work = next(questions)
    while True:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            seconds, result = timed(work, rounds)
        digest = DIGESTS[name](result) if name in DIGESTS else None
        print(json.dumps({"question": name, "cpu_s": seconds, "digest": digest}), flush=True)
        try:
            name, work = questions.send((seconds, result))
        except StopIteration:
            break


if __name__ == "__main__":
    main()
