"""Ask a large log every question that a plain log can be asked, and say what each costs.

`python -m tests.benchmarks.large_logs LOG.parquet MEMORY [QUESTION …]` prints a JSON line for each question:
CPU and wall seconds, rows of the answer, and the peak of the process's memory meanwhile. Checks of a `State`
and drafts are left out: they read every event in Python, 100,000 or so a second.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas  # noqa: F401, ICN001 - imported before the first measure, which it does not belong to

from esim.eventlog import EventLog
from esim.logrule import Rule

PAIRS = [("Placed", "Paid"), ("Paid", "Packed"), ("Packed", "Shipped"), ("Shipped", "Delivered")]
RULE = Rule(when="Shipped", before="Paid", within="30 days")
HALF = "2025-05-01T00:00:00Z"


def questions(log: EventLog) -> dict[str, Callable[[], Any]]:
    """Return the questions, and some filters, in the order in which they are asked."""
    early, late = (log.between(*span, keep="started") for span in ((None, HALF), (HALF, None)))
    return {
        "load": log._ready,
        "summary": log.summary,
        "activities": log.activities,
        "start_end": log.start_end,
        "follows": partial(log.directly_follows, times=False),
        "waiting": log.directly_follows,
        "waiting_cases": partial(log.directly_follows, cases=True),
        "variants": partial(log.variants, times=False),
        "variant_times": log.variants,
        "variants_exact": partial(log.variants, exact=True),
        "cases_top": partial(log.cases, 100),
        "cases": log.cases,
        "durations": log.durations,
        "durations_by": partial(log.durations, "resource"),
        "funnel": partial(log.funnel, "Placed", "Paid", "Shipped", "Delivered"),
        "rework": log.rework,
        "loops": partial(log.loops, 3),
        "bottlenecks": log.bottlenecks,
        "rates": log.rates,
        "rates_by": partial(log.rates, "week", "activity"),
        "cohorts": log.cohorts,
        "cohorts_by": partial(log.cohorts, "month", "resource"),
        "dots": log.dots,
        "resources": log.resources,
        "handovers": log.handovers,
        "transitions": partial(log.conformance, PAIRS),
        "rule": partial(log.conformance, RULE),
        "deviations": partial(log.deviations, RULE),
        "anomalies": log.anomalies,
        "payloads": partial(log.payloads, "quarter"),
        "as_of": partial(log.as_of, HALF),
        "objects": log.objects,
        "object_follows": partial(log.object_directly_follows, "case"),
        "difference": partial(late.difference, early),
        "difference_of_variants": partial(late.difference, early, "variants"),
        "filter_lasting": log.lasting("5 days").start_end,
        "filter_followed_by": log.followed_by("Paid", "Shipped").start_end,
        "filter_without": log.without("Noted").start_end,
        "filter_common": log.covering(0.5).start_end,
        "filter_where": log.where("amount > 50").start_end,
    }


def measured(ask: Callable[[], Any]) -> dict[str, Any]:
    """Return what an answer costs; an error is told in place of it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        answer = ask()
        told: dict[str, Any] = {"rows": len(answer)} if hasattr(answer, "df") else {}
    except Exception as error:  # noqa: BLE001 - the other questions are asked all the same
        told = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return {**{name: round(value, 4) for name, value in spent.items()}, "peak_mb": round(_peak()), **told}


def _peak() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Print a line for each question."""
    path, memory, *wanted = sys.argv[1:]
    log = EventLog(path, memory=memory, objects={"case": "case_id", "user": "resource"}, case="case_id")
    for name, ask in questions(log).items():
        if not wanted or name in wanted:
            print(json.dumps({"question": name, **measured(ask)}), flush=True)


if __name__ == "__main__":
    main()
