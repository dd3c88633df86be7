"""Charts of a log as a whole: cards of its figures, differences, fields over time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.errors import InvalidArgument
from esim.factchart import Seen, cards, differences, presence
from tests.pictures import HOSTILE, NS, inside, names, parsed, texts

shares = st.floats(0, 1)
cells = st.lists(
    st.tuples(st.integers(0, 39), shares, st.sampled_from(["", "+", "−", "T", "~"])), max_size=40
)


@settings(deadline=None)
@given(st.lists(st.tuples(names, names), max_size=12))
def test_any_cards_are_a_picture(facts):
    """Well-formed and inside, a box for each fact."""
    root = parsed(cards(facts, title="t"))
    inside(root)
    assert len(list(root.iter(NS + "rect"))) == len(facts)


@settings(deadline=None)
@given(st.lists(st.tuples(names, shares, shares, names), max_size=20))
def test_any_differences_are_a_picture(rows):
    """Well-formed and inside, at most fourteen bars."""
    root = parsed(differences(rows, title="t"))
    inside(root)
    assert len(list(root.iter(NS + "rect"))) == min(len(rows), 14)


def test_a_difference_is_to_the_side_of_its_sign_and_says_both_shares():
    """What is more here goes right, what is less goes left, as long as the change."""
    root = parsed(differences([("Paid", 0.4, 0.2, "1 d / 2 d"), ("Sent", 0.1, 0.2, "")], title="t"))
    more, less = root.iter(NS + "rect")
    middle = float(more.attrib["x"])
    assert float(less.attrib["x"]) + float(less.attrib["width"]) == pytest.approx(middle)
    assert float(more.attrib["width"]) == pytest.approx(2 * float(less.attrib["width"]))
    told = texts(root)
    assert "+20.0" in told and "−10.0" in told
    assert "40.0 % here, 20.0 % there · 1 d / 2 d" in told


def test_a_share_that_is_none_is_refused():
    """A difference needs numbers."""
    with pytest.raises(InvalidArgument, match="nan is not a number that a difference could show"):
        differences([("Paid", float("nan"), 0.0, "")], title="t")


@settings(deadline=None)
@given(st.lists(st.builds(Seen, names, names, cells), max_size=8), st.integers(0, 40))
def test_any_fields_over_time_are_a_picture(fields, many):
    """Well-formed and inside, whatever the places and the shares."""
    fields = [Seen(one.activity, one.field, [c for c in one.cells if c[0] < many]) for one in fields]
    inside(parsed(presence(fields, [f"2026-{n}" for n in range(many)], title="t", total=len(fields))))


def test_cells_say_without_colour_what_part_there_is():
    """All is filled, none is a frame, a part is a percentage, and a change is its sign."""
    row = Seen("Paid", "note", [(0, 1.0, ""), (1, 0.0, "−"), (2, 0.354, ""), (3, 0.0004, "")])
    root = parsed(presence([row], ["a", "b", "c", "d"], title="t", total=1))
    fills = [one.attrib["fill"] for one in root.iter(NS + "rect")]
    assert fills[1] == "none" and fills[0] == fills[2] == fills[3] != "none"
    assert [told for told in texts(root) if told in ("−", "35", "<1")] == ["−", "35", "<1"]


def test_the_latest_periods_are_drawn_and_the_rest_is_said():
    """Of thirty periods the first six are left out, with what stands in them."""
    svg = presence(
        [Seen("a", "b", [(5, 1.0, ""), (6, 1.0, "")])], [f"p{n}" for n in range(30)], title="t", total=3
    )
    root = parsed(svg)
    assert len(list(root.iter(NS + "rect"))) == 1
    assert root.find(NS + "desc").text == "Shown: 1 of 3 fields. The latest 24 of 30 periods."


def test_hostile_words_are_text():
    """Whatever a fact, an activity or a field is called."""
    for svg in (
        cards([(one, one) for one in HOSTILE], title=HOSTILE[0]),
        differences([(one, 0.5, 0.1, one) for one in HOSTILE], title=HOSTILE[0], caption=HOSTILE[1]),
        presence([Seen(one, one, [(0, 1.0, "")]) for one in HOSTILE], ["p"], title=HOSTILE[0], total=99),
    ):
        inside(parsed(svg))


@pytest.mark.parametrize(
    "svg",
    [cards([], title="t"), differences([], title="t"), presence([], ["p"], title="t", total=0)],
)
def test_nothing_is_a_picture_that_says_so(svg):
    """No rows are no error."""
    assert "nothing to show: there are no rows" in texts(parsed(svg))
