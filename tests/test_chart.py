"""Charts with axes: titles, units, human ticks, and nothing out of place."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.chart import dotted, histogram, over_time
from esim.display import color_of
from esim.errors import InvalidArgument
from tests.pictures import HOSTILE, NS, inside, names, parsed, texts

times = st.datetimes(datetime(1980, 1, 1), datetime(2080, 1, 1))
HOUR, DAY = 3600, 86400
START = datetime(2026, 1, 5, tzinfo=UTC)


def _caption(svg: str) -> str:
    return parsed(svg).find(NS + "desc").text


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e9), min_size=2, max_size=20, unique=True),
    st.data(),
    st.sampled_from(["seconds", "euro"]),
    st.booleans(),
)
def test_any_histogram_is_a_picture(edges, data, unit, log):
    """Whatever the bins, the marks and the scale."""
    edges = [0.0, *sorted(edges)]
    bins = [(a, b, data.draw(st.integers(0, 10**9))) for a, b in pairwise(edges)]
    marks = [("median", data.draw(st.floats(0, edges[-1]))), ("p95", edges[-1])]
    svg = histogram(bins, title="t", unit=unit, marks=marks, log=log)
    assert svg == histogram(bins, title="t", unit=unit, marks=marks, log=log)
    root = parsed(svg)
    inside(root)
    assert len(list(root.iter(NS + "rect"))) == len(bins)


def test_a_histogram_has_a_title_units_and_human_ticks():
    """Seconds are written as hours and days, counts in groups of three."""
    bins = [(at * HOUR, (at + 1) * HOUR, 1000 * at) for at in range(12)]
    svg = histogram(bins, title="How long", marks=[("median", 5.5 * HOUR)])
    drawn = texts(parsed(svg))
    assert drawn[0] == "How long"
    assert {"0 s", "6 h", "12 h", "10,000", "cases", "median 5 h 30 min"} <= set(drawn)
    assert _caption(svg) == "Across: time. Upward: cases."
    assert "<title>1 h to 2 h: 1,000</title>" in svg


def test_a_column_is_as_tall_as_its_count():
    """Heights are in proportion, and stand on the axis."""
    root = parsed(histogram([(0, 1, 10), (1, 2, 40)], title="t", unit="euro"))
    one, two = [tuple(float(r.attrib[k]) for k in ("y", "height")) for r in root.iter(NS + "rect")]
    assert two[1] == pytest.approx(4 * one[1], abs=0.3)
    assert one[0] + one[1] == pytest.approx(two[0] + two[1], abs=0.2)


def test_a_logarithmic_histogram_has_equal_steps_for_equal_factors():
    """Bins of a factor of ten are equally wide, and so is said."""
    svg = histogram([(10**n, 10 ** (n + 1), 1) for n in range(5)], title="t", log=True)
    wide = [float(one.attrib["width"]) for one in parsed(svg).iter(NS + "rect")]
    assert max(wide) - min(wide) < 0.3
    assert "(logarithmic)" in _caption(svg)


@settings(deadline=None)
@given(
    st.dictionaries(
        names, st.lists(st.tuples(times, st.floats(0, 1e12)), max_size=30).map(sorted), max_size=6
    )
)
def test_any_counts_over_time_are_a_picture(series):
    """Few or many, one series or several, dense or with gaps."""
    svg = over_time(series, title="t")
    assert svg == over_time(series, title="t")
    inside(parsed(svg))


def test_one_short_series_is_columns_and_several_are_lines():
    """Columns for what is counted per period, lines to compare."""
    week = [(START + timedelta(days=at), at) for at in range(7)]
    one, two = over_time({"Paid": week}, title="t"), over_time({"Paid": week, "Shipped": week}, title="t")
    fills = [rect.attrib["fill"] for rect in parsed(one).iter(NS + "rect")]
    assert fills == [color_of("Paid")] * 7
    assert not list(parsed(two).iter(NS + "rect"))
    assert {"Paid", "Shipped"} <= set(texts(parsed(two)))
    dashes = {line.attrib.get("stroke-dasharray") for line in parsed(two).iter(NS + "path") if len(line)}
    assert len(dashes) == 2


def test_a_chart_over_time_says_its_dates_in_utc():
    """Whatever zone the times come in."""
    east = [(START.astimezone(), 1.0), (START.astimezone() + timedelta(days=9), 2.0)]
    assert (
        _caption(over_time({"": east}, title="t")) == "From 5 Jan 2026 to 14 Jan 2026 (UTC). Upward: events."
    )


def test_a_line_does_not_bridge_what_was_not_counted():
    """Periods without rows are a gap."""
    days = [0, 1, 2, 6, 7]
    series = {name: [(START + timedelta(days=at), 1.0) for at in days] for name in ("a", "b")}
    lines = [line.attrib["d"] for line in parsed(over_time(series, title="t")).iter(NS + "path") if len(line)]
    assert [line.count("M") for line in lines] == [2, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(times, st.floats(-1e6, 1e6), names), max_size=60))
def test_any_dots_are_a_picture(dots):
    """Each is drawn once, inside."""
    svg = dotted(dots, title="t")
    assert svg == dotted(list(reversed(dots)), title="t")
    inside(parsed(svg))
    if dots:
        assert f"Shown: {len(dots)} of {len(dots)} dots." in _caption(svg)


def test_too_many_dots_are_thinned_and_that_is_said():
    """A picture stays a picture."""
    svg = dotted([(START + timedelta(minutes=at), at, "a") for at in range(13_000)], title="t")
    assert "Shown: 4,334 of 13,000 dots, one in 3." in _caption(svg)
    assert len(svg) < 150_000


def test_activities_differ_without_colour():
    """The first four shapes are different marks."""
    svg = dotted([(START + timedelta(days=at), at, "abcd"[at]) for at in range(4)], title="t")
    lines = [line for line in parsed(svg).iter(NS + "path") if len(line)][:4]
    marks = {
        (re.sub(r"M[-\d.]+,[-\d.]+", "", one.attrib["d"]), one.attrib["stroke-linecap"]) for one in lines
    }
    assert len(marks) == 4


@pytest.mark.parametrize(
    "draw",
    [lambda: histogram([], title="t"), lambda: over_time({}, title="t"), lambda: dotted([], title="t")],
)
def test_no_rows_are_a_picture_that_says_so(draw):
    """Empty input is no error."""
    assert "nothing to show: there are no rows" in texts(parsed(draw()))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: histogram([(0, float("nan"), 1)], title="t"),
        lambda: over_time({"a": [(START, float("inf"))]}, title="t"),
        lambda: dotted([(START, None, "a")], title="t"),
        lambda: dotted([(pd.NaT, 1, "a")], title="t"),
        lambda: over_time({"a": [(None, 1)]}, title="t"),
    ],
)
def test_what_is_no_number_is_refused(draw):
    """The message names the value and the way out."""
    with pytest.raises(InvalidArgument, match=r"(nan|inf|None|NaT) is not a .* leave the row out"):
        draw()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    """In titles, units, marks and legends."""
    for svg in (
        histogram([(0, 1, 1)], title=name, what=name, marks=[(name, 0.5)]),
        over_time({name: [(START, 1)], "b": [(START, 1)]}, title=name, what=name),
        dotted([(START, 1, name)], title=name, what=name),
    ):
        parsed(svg)
        assert not re.search(r"<(script|img|style|a)\b", svg)
