"""How things look: human values, always escaped, cut where long, one fixed colour for each type."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim import display
from esim.value import Money, Value

HOSTILE = "<img src=x onerror='alert(1)'>\"&"


class Line(Value):
    sku: str
    price: Money


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("mug", "mug"),
        ("", "''"),
        (None, "–"),
        (Decimal("30.00"), "30.00"),
        (7, "7"),
        (True, "True"),
        (datetime(2026, 1, 5, 9, tzinfo=UTC), "2026-01-05 09:00:00Z"),
        (date(2026, 1, 5), "2026-01-05"),
        (["a", Decimal("1.5"), None], "[a, 1.5, –]"),
        (("a",), "[a]"),
        ({"b", "a", "c"}, "[a, b, c]"),
        ([frozenset({"b", "a"}), "a"], "[[a, b], a]"),
        ({2, "b", None}, "[2, b, –]"),
        ({"a": [1, 2]}, "{a: [1, 2]}"),
        (Line(sku="mug", price=Decimal("7.50")), "{sku: mug, price: 7.50}"),
        ([Line(sku="mug", price=Decimal("7.50"))], "[{sku: mug, price: 7.50}]"),
    ],
)
def test_values_read_as_a_person_would_write_them(value: Any, shown: str):
    """Text without quotes, money as its digits, times in ISO 8601, nested values in brackets."""
    assert display.plain(value) == shown


@given(st.text())
def test_nothing_from_data_is_ever_markup(text: str):
    """Whatever a text holds, the HTML made of it has no tag, quote or handler of its own."""
    assert not set("<>'\"") & set(display.escape(text))
    html = display.fields({text: text})
    assert (html.count("<"), html.count("<span "), html.count("</span>")) == (2, 1, 1)


@pytest.mark.parametrize(
    "html",
    [
        display.fields({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}),
        display.badge(HOSTILE),
        display.card("<b>fine</b>", note=HOSTILE),
        display.table([HOSTILE], [[display.escape(HOSTILE)]], caption=HOSTILE),
    ],
)
def test_every_part_is_escaped(html: str):
    """Names, values, notes, headers and captions are text."""
    assert "<img" not in html
    assert "&lt;img" in html


def test_long_values_are_cut():
    """A long text ends in an ellipsis, and the page stays small."""
    assert display.cut("abcdef", 6) == "abcdef"
    assert display.cut("abcdefg", 6) == "abcde…"
    assert display.short("a" * 100) == "'" + "a" * 58 + "…"
    assert len(display.fields({"text": "a" * 10_000})) < 300


def test_arguments_are_code():
    """Names and values as one would type them."""
    assert display.arguments({"a": 1, "b": "x"}) == "a=1, b='x'"


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("amuont", ["amount", "method"], "; did you mean 'amount'?"),
        ("zzz", ["b", "a"], "; there is a, b"),
        ("zzz", [], ""),
    ],
)
def test_a_wrong_name_gets_a_near_one(name: str, known: list[str], told: str):
    """The nearest name, or what there is, or nothing."""
    assert display.did_you_mean(name, known) == told


def test_a_type_has_one_colour_in_every_run():
    """The colour depends on the name alone, and is never the one of failure."""
    colors = {name: display.color_of(name) for name in ("OrderPlaced", "OrderPaid", "OrderShipped", "é")}
    assert colors == {name: display.color_of(name) for name in colors}
    assert display.color_of("OrderPaid") == "#1f8249"
    assert display.color_of("half a character \ud800").startswith("#")
    assert display.FAILURE not in {display.color_of(str(number)) for number in range(500)}


def test_a_table_has_a_header_rows_and_a_caption():
    """Cells are HTML made by the helpers; the rest is text."""
    html = display.table(["a", "b"], [["1", "<b>2</b>"]], caption="two < three")
    assert html.count("<th ") == 2
    assert '<td style="text-align:left"><b>2</b></td>' in html
    assert "two &lt; three</div><table>" in html


def test_a_dataclass_is_told_by_its_fields_in_which_sets_are_sorted():
    """The same in every process; what says itself how it is told is told so."""

    @dataclass
    class Box:
        names: frozenset[str]
        left: int = field(default=1, repr=False)

    @dataclass
    class Own(Box):
        def __repr__(self) -> str:
            return f"Own of {len(self.names)}"

    assert display.plain(Box(frozenset("zyxabc"))) == "Box(names=[a, b, c, x, y, z])"
    assert display.plain([Own(frozenset("zy"))]) == "[Own of 2]"
