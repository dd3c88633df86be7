"""SVG as text: escaped, finite, fitted; and the one way into a page."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim import svg
from esim.display import color_of
from esim.errors import InvalidArgument
from tests.pictures import HOSTILE, inside, names, parsed, texts


def _light(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, two: str) -> float:
    low, high = sorted((_light(one), _light(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_ink_reads_on_white_and_on_black():
    """A contrast above 4 on both grounds, and white text on what fills."""
    assert min(_contrast(svg.INK, "#ffffff"), _contrast(svg.INK, "#111111")) > 4
    assert min(_contrast(fill, "#ffffff") for fill in (svg.PLAIN, *map(color_of, "abcdefghijklm"))) >= 4.5


@given(names, names)
def test_any_text_makes_a_well_formed_picture(title, words):
    """Markup, quotes, control characters, half characters and texts without end stay text."""
    root = parsed(
        svg.document(title, [svg.text(20, 60, words, room=100)], width=200, bottom=80, caption=words)
    )
    inside(root)


@given(st.text(max_size=200), st.floats(min_value=20, max_value=500))
def test_a_fitted_text_fits(words, room):
    """It is cut to the room there is, if need be to one character and a mark."""
    fitted = svg.fit(words, room)
    assert svg.text_width(fitted) <= room or len(fitted) <= 2
    assert fitted == words or "…" in fitted


def test_a_long_name_is_cut_in_the_middle_and_told_in_full():
    """Names that differ at the end stay different, and the whole is in the title."""
    one = svg.text(0, 0, "application_submitted_by_customer_online", room=140)
    two = svg.text(0, 0, "application_submitted_by_customer_offline", room=140)
    assert "<title>application_submitted_by_customer_online</title>applicati" in one
    assert re.sub("<title>.*</title>", "", one) != re.sub("<title>.*</title>", "", two)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_with_its_value(value):
    """Nothing is drawn nowhere."""
    with pytest.raises(InvalidArgument, match="cannot be drawn"):
        svg.num(value)


@pytest.mark.parametrize("title", HOSTILE)
def test_an_img_carries_the_picture_and_says_what_it_shows(title):
    """A data URI and an alternative text, both inert."""
    picture = svg.document(title, [], width=100, bottom=60, caption="3 of 5")
    html = svg.img(picture)
    found = re.fullmatch(
        r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"<>]*)" style="[^"]+">', html
    )
    assert found
    assert base64.b64decode(found[1]).decode() == picture
    assert found[2].endswith(". 3 of 5")


def test_an_alternative_text_of_ones_own_is_escaped_once():
    """What the caller says is what is read out."""
    assert 'alt="a &lt;b&gt; &amp; c"' in svg.img(svg.empty("x"), "a <b> & c")
    assert 'alt="a &lt;b&gt; &amp; c"' in svg.img(svg.empty("a <b> & c"))


def test_a_name_without_anything_to_see_is_shown_in_quotes():
    """An empty name, or one of blanks, is a name too."""
    assert [svg.named(name) for name in ("", "  ", "a b", "\n")] == ["''", "'  '", "a b", "'⏎ '"]


def test_lines_are_wrapped_at_spaces():
    """Every word is there, no line is wider than the room."""
    lines = svg.wrap("one two three four five six", 60)
    assert " ".join(lines) == "one two three four five six"
    assert all(svg.text_width(line, 11) <= 60 for line in lines)


def test_no_rows_are_a_picture_that_says_so():
    """Empty input is not an error, and not an empty box."""
    assert "nothing to show: there are no rows" in texts(parsed(svg.empty("Variants")))
