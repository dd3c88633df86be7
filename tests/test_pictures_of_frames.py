"""Pictures take the rows of a dataframe as they come: numpy numbers, timestamps, decimals, missing values."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest

from esim.chart import dotted, histogram, over_time
from esim.chevrons import variants_chart
from esim.processgraph import process_graph
from esim.processmap import process_map
from esim.rowchart import bars, cohorts, funnel, spreads
from tests.pictures import inside, parsed, texts


def _rows(**columns):
    return pd.DataFrame(columns).itertuples(index=False, name=None)


TIMES = pd.date_range("2026-01-05", periods=2, tz="Europe/Berlin")
NODES = {"activity": ["a", "b"], "count": [3, 2], "share": [1.0, None]}
FLOWS = {"source": ["a"], "target": ["b"], "count": [2], "mean": [60.5], "median": [pd.NA]}


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (
            lambda: process_map(process_graph(_rows(**NODES), _rows(**FLOWS), _rows(a=["a"], n=[3]))),
            "3 · 100 % of cases",
        ),
        (lambda: variants_chart(_rows(trace=[["a", "b"], ["a"]], n=[2, 1], median=[60.0, None])), "1 min"),
        (lambda: histogram(_rows(low=[0.0, 1.0], high=[1.0, 2.0], n=[3, 4]), title="t"), "2 s"),
        (lambda: over_time({"a": list(_rows(at=TIMES, n=[1, 2]))}, title="t"), "events"),
        (lambda: dotted(_rows(at=TIMES, row=[1, 2], activity=["a", "b"]), title="t"), "a"),
        (
            lambda: bars(_rows(name=["a", "b"], sum=[Decimal("12.50"), Decimal(3)]), title="t", unit="euro"),
            "12.5 euro",
        ),
        (lambda: funnel(_rows(name=["a", "b"], n=[4, 2], median=[None, 90.0]), title="t"), "2 · 50.0 %"),
        (lambda: cohorts(_rows(name=["2026"], n=[4], shares=[[1.0, None]]), title="t"), "100 %"),
        (lambda: spreads(_rows(name=["a"], q=[[1.0, 2.0, 3.0, 4.0, 5.0]]), title="t", names="all"), "3 s"),
    ],
)
def test_the_rows_of_a_dataframe_are_drawn(draw, told):
    """No conversion is asked of the caller."""
    root = parsed(draw())
    inside(root)
    assert told in texts(root)
