"""Variants as rows of chevrons: counts, shares, signs with a legend, and what is not shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.chevrons import abbreviations, variants_chart
from esim.display import color_of
from esim.errors import InvalidArgument
from tests.pictures import HOSTILE, NS, inside, names, parsed, texts

ROWS = [
    (("Placed", "Paid", "Shipped"), 70, 7200.0),
    (("Placed", "Cancelled"), 20, None),
    (("Placed", "Paid", "Paid", "Paid", "Shipped"), 10, 60.0),
]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(names, max_size=40), st.integers(0, 10**9), st.one_of(st.none(), st.floats())),
        max_size=20,
    ),
    st.integers(3, 20),
)
def test_any_variants_are_a_picture(rows, steps):
    """Well-formed, finite, in its view, the same twice."""
    svg = variants_chart(rows, steps=steps)
    assert svg == variants_chart(rows, steps=steps)
    inside(parsed(svg))


def test_a_row_tells_its_cases_share_coverage_time_and_way():
    """The most frequent first, with the running sum, and a sign for each step."""
    drawn = texts(parsed(variants_chart(reversed(ROWS))))
    first = drawn.index("70")
    assert drawn[first : first + 7] == ["70", "70.0 %", "70.0 %", "2 h", "Pl", "Pa", "Sh"]
    second = drawn.index("20")
    assert drawn[second : second + 6] == ["20", "20.0 %", "90.0 %", "–", "Pl", "Ca"]


def test_a_time_column_is_there_only_with_times():
    """Without durations nothing is said about them."""
    assert "median time" in texts(parsed(variants_chart(ROWS)))
    assert "median time" not in texts(parsed(variants_chart([row[:2] for row in ROWS])))


def test_repeats_are_counted_in_one_chevron():
    """Three times or more in a row is one step with its number."""
    assert "Pa ×3" in texts(parsed(variants_chart(ROWS)))


def test_the_middle_of_a_long_way_is_left_out_and_counted():
    """The beginning and the end stay, and no step is lost from the count."""
    long = [f"step {at}" for at in range(100)]
    svg = variants_chart([(long, 1)], steps=10)
    assert "+91" in texts(parsed(svg))
    titles = re.findall(r"<title>(step \d+)</title>", svg)
    assert titles == [*long[:6], *long[-3:]]


def test_what_is_not_shown_is_said():
    """Variants and cases, of those in the whole log."""
    svg = variants_chart(ROWS, cases=200, total=50, limit=2)
    assert "Shown: 2 of 50 variants, 45.0 % of 200 cases." in parsed(svg).find(NS + "desc").text
    assert "35.0 %" in texts(parsed(svg))


def test_the_legend_spells_out_every_sign():
    """Each activity once, in its colour."""
    root = parsed(variants_chart(ROWS))
    assert {"Placed", "Paid", "Shipped", "Cancelled"} <= set(texts(root))
    chips = [one.attrib["fill"] for one in root.iter(NS + "rect")]
    assert chips == [color_of(name) for name in ("Placed", "Paid", "Shipped", "Cancelled")]


@given(st.lists(names, unique=True, max_size=40))
def test_signs_are_short_and_differ(given):
    """No two activities share one, whatever their names."""
    signs = abbreviations(given)
    assert list(signs) == given
    assert len(set(signs.values())) == len(given)
    assert all(0 < len(sign) <= 8 for sign in signs.values())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    """In chevrons, titles and the legend."""
    svg = variants_chart([((name,), 1)], title=name)
    parsed(svg)
    assert not re.search(r"<(script|img|style|a)\b", svg)


def test_no_variants_are_a_picture_that_says_so():
    """Empty input is no error."""
    assert "nothing to show: there are no rows" in texts(parsed(variants_chart([])))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("Placed", 1), "'Placed' is not the trace of a variant"),
        ((["Placed"], -1), "-1 is not a count of cases"),
        ((["Placed"], 1.5), "1.5 is not a count of cases"),
    ],
)
def test_bad_rows_are_named(row, told):
    """What cannot be drawn is told."""
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        variants_chart([row])
