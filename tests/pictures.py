"""What every picture must be, whatever it shows: helpers of the tests of pictures."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import strategies as st

NS = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "]]> & &amp; <!-- \\",
    "a\nb\tc\x00\x1b[31m",
    "👩‍👩‍👧 family",
    "שלום عليكم",
    "\u202egnitfihs",
    "\ud800 half",
    "x" * 10_000,
    "",
    " ",
)
names = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))


def parsed(svg: str) -> ET.Element:
    """Return the root of a picture that is well-formed, finite, harmless, titled and without outer links."""
    svg.encode()
    root = ET.fromstring(svg)  # noqa: S314 - our own text, and it must not have a DTD
    assert root.tag == NS + "svg"
    assert root[0].tag == NS + "title"
    assert not re.search(
        r"\b(nan|inf|None)\b", " ".join(value for one in root.iter() for value in one.attrib.values())
    )
    kinds = {one.tag.removeprefix(NS) for one in root.iter()}
    assert kinds <= {"svg", "title", "desc", "g", "path", "rect", "text"}
    keys = {key for one in root.iter() for key in one.attrib}
    assert not {key for key in keys if key.startswith("on") or "href" in key or key in ("style", "class")}
    return root


def size(root: ET.Element) -> tuple[float, float]:
    """Return the width and the height of a picture."""
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert (root.attrib["width"], root.attrib["height"]) == (f"{width:g}", f"{height:g}")
    return width, height


def texts(root: ET.Element) -> list[str]:
    """Return the lines of text that are drawn, without the titles of their elements."""
    return ["".join([one.text or "", *(part.tail or "" for part in one)]) for one in root.iter(NS + "text")]


def inside(root: ET.Element) -> None:
    """Check that the start of every element, and every box, lies in the view."""
    width, height = size(root)
    for one in root.iter():
        at = one.attrib
        if "x" in at:
            assert -0.5 <= float(at["x"]) <= width + 0.5
            assert -0.5 <= float(at["y"]) <= height + 0.5
        if one.tag == NS + "rect":
            assert float(at["x"]) + float(at["width"]) <= width + 0.5
            assert float(at["y"]) + float(at["height"]) <= height + 0.5
        for x, y in re.findall(r"[MLCQ ](-?[\d.]+),(-?[\d.]+)", at.get("d", "")):
            assert -0.5 <= float(x) <= width + 0.5
            assert -0.5 <= float(y) <= height + 0.5


def strokes(path: str) -> list[tuple[float, float]]:
    """Return points along a path of absolute M, V, H, C and Q commands, close to each other."""
    points: list[tuple[float, float]] = []
    x = y = 0.0
    for command, text in re.findall(r"([MVHCQ])([-\d., ]*)", path):
        numbers = [float(one) for one in re.findall(r"-?[\d.]+", text)]
        ends = {"V": [x, *numbers], "H": [*numbers, y]}.get(command, numbers)
        corners = [(x, y), *zip(ends[::2], ends[1::2], strict=True)]
        if command != "M":
            points += [_along(corners, step / 40) for step in range(41)]
        x, y = corners[-1]
    return points


def _along(corners: list[tuple[float, float]], share: float) -> tuple[float, float]:
    """Return a point of a Bézier curve, after de Casteljau."""
    while len(corners) > 1:
        corners = [(a + (c - a) * share, b + (d - b) * share) for (a, b), (c, d) in pairwise(corners)]
    return corners[0]
