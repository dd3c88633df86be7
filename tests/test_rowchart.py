"""Charts of rows: bars, funnels, cohorts, each with its numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import svg as drawing
from esim.display import color_of
from esim.errors import InvalidArgument
from esim.rowchart import bars, cohorts, funnel, spreads
from tests.pictures import HOSTILE, NS, inside, names, parsed, texts

shares = st.one_of(st.none(), st.floats(0, 1))


@settings(deadline=None)
@given(
    st.lists(st.tuples(names, st.floats(-1e12, 1e12)), max_size=30), st.sampled_from(["seconds", "events"])
)
def test_any_bars_are_a_picture(rows, unit):
    """Well-formed, inside, at most twenty."""
    svg = bars(rows, title="t", unit=unit)
    inside(parsed(svg))
    assert len(list(parsed(svg).iter(NS + "rect"))) == min(len(rows), 20)


def test_bars_are_as_long_as_their_values_and_say_them():
    """Numbers with their unit beside the bars, seconds as durations."""
    root = parsed(bars([("Paid", 400), ("Shipped", 100)], title="t"))
    one, two = [float(rect.attrib["width"]) for rect in root.iter(NS + "rect")]
    assert one == pytest.approx(4 * two)
    assert texts(root)[1:] == ["Paid", "400 events", "Shipped", "100 events"]
    assert "1 h 30 min" in texts(parsed(bars([("Paid", 5400)], title="t", unit="seconds")))


def test_bars_that_are_no_activities_have_one_colour():
    """A colour means an event type, or nothing."""
    rows = [("Paid", 2), ("north", 1)]
    fills = [rect.attrib["fill"] for rect in parsed(bars(rows, title="t")).iter(NS + "rect")]
    assert fills == [color_of("Paid"), color_of("north")]
    plain = parsed(bars(rows, title="t", colored=False))
    assert {rect.attrib["fill"] for rect in plain.iter(NS + "rect")} == {drawing.PLAIN}


def test_rows_beyond_the_limit_are_counted():
    """What is left out is said, beside the caller's own words."""
    svg = bars([(f"a{at}", at) for at in range(30)], title="t", limit=5, caption="Longest first.")
    assert parsed(svg).find(NS + "desc").text == "Shown: 5 of 30 rows. Longest first."


@settings(deadline=None)
@given(
    st.lists(st.tuples(names, st.lists(st.floats(0, 1e12), min_size=5, max_size=5).map(sorted)), max_size=25)
)
def test_any_spreads_are_a_picture(rows):
    """Zeros, equal values and huge ones included."""
    inside(parsed(spreads(rows, title="t", names="quantiles")))


def test_a_spread_says_its_median_and_what_its_line_means():
    """Lines in proportion to the logarithm; the middle value in figures."""
    root = parsed(
        spreads([("a", [1, 10, 100, 1000, 1000]), ("b", [0] * 5)], title="t", names="all", unit="kg")
    )
    assert texts(root)[1:] == [
        *("1", "10", "100", "1,000"),
        *("a", "100", "b", "0"),
        "Lines: all (logarithmic). In figures: the middle one.",
    ]
    lines = [re.fullmatch(r"M([\d.]+),[\d.]+H([\d.]+)", one.attrib["d"]) for one in root.iter(NS + "path")]
    (low, high), (quarter, three) = [tuple(map(float, one.groups())) for one in lines if one][:2]
    assert high - low == pytest.approx(340)
    assert three - quarter == pytest.approx(340 * 2 / 3, abs=0.2)


@pytest.mark.parametrize("values", [[1, 2, 3], [5, 4, 3, 2, 1]])
def test_a_spread_has_five_ascending_values(values):
    """Anything else is no row of quantiles."""
    with pytest.raises(InvalidArgument, match="'a' does not have five ascending values"):
        spreads([("a", values)], title="t", names="quantiles")


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 10**9), st.one_of(st.none(), st.floats())), max_size=12))
def test_any_funnel_is_a_picture(rows):
    """Also one that grows, is empty at a step, or has no times."""
    inside(parsed(funnel(rows, title="t")))


def test_a_funnel_says_who_goes_on_and_after_how_long():
    """Shares of the first step beside the bars, of the step before between them."""
    drawn = texts(parsed(funnel([("Placed", 200), ("Paid", 150, 90.0), ("Shipped", 75, None)], title="t")))
    assert drawn[1:9] == [
        "Placed",
        "200 · 100 %",
        "↓ 75.0 % go on, after 1 min 30 s (median)",
        "Paid",
        "150 · 75.0 %",
        "↓ 50.0 % go on",
        "Shipped",
        "75 · 37.5 %",
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.integers(0, 10**9), st.lists(shares, max_size=14)), max_size=14))
def test_any_cohorts_are_a_picture(rows):
    """Ragged rows, missing cells and empty cohorts included."""
    root = parsed(cohorts(rows, title="t"))
    inside(root)
    assert len(list(root.iter(NS + "rect"))) == sum(one is not None for *_, row in rows for one in row)


def test_cohorts_are_numbers_on_shades():
    """Each cell says its share; a larger share is a stronger shade, on which white reads."""
    root = parsed(cohorts([("2026-01", 80, [1.0, 0.5, None, 0.0]), ("2026-02", 40, [1.0])], title="t"))
    assert texts(root)[1:] == [
        *("cohort", "size", "0", "1", "2", "3"),
        *("2026-01", "80", "100 %", "50 %", "0 %"),
        *("2026-02", "40", "100 %"),
        "Across: months since the first. In the cells: who is there.",
    ]
    fills = [rect.attrib["fill"] for rect in root.iter(NS + "rect")]
    assert fills == ["#0b62c4", "#3e6c9f", "#71757a", "#0b62c4"]


def test_no_quantiles_are_a_picture_that_says_so():
    """Empty input is no error."""
    assert "nothing to show: there are no rows" in texts(parsed(spreads([], title="t", names="quantiles")))


@pytest.mark.parametrize("draw", [bars, funnel, cohorts])
def test_no_rows_are_a_picture_that_says_so(draw):
    """Empty input is no error."""
    assert "nothing to show: there are no rows" in texts(parsed(draw([], title="t")))


def test_what_is_no_number_is_refused():
    """The message names the value and the way out."""
    with pytest.raises(
        InvalidArgument, match="'many' is not a number that a bar could show; leave the row out"
    ):
        bars([("a", "many")], title="t")
    with pytest.raises(InvalidArgument, match="nan is not a number that a funnel could show"):
        funnel([("a", float("nan"))], title="t")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    """In names, titles, units and captions."""
    for svg in (
        bars([(name, 1)], title=name, unit=name, caption=name),
        spreads([(name, [1, 2, 3, 4, 5])], title=name, names=name),
        funnel([(name, 1), (name, 1, 1.0)], title=name, what=name),
        cohorts([(name, 1, [1.0])], title=name, period=name),
    ):
        parsed(svg)
        assert not re.search(r"<(script|img|style|a)\b", svg)
