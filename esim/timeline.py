"""One run as a picture: time goes down, each process and each thing outside has a lane, faults are red."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from esim import display

WORDS = {
    "crash": "dies",
    "duplicate": "once more",
    "error": "fails",
    "unknown": "time-out, although it was done",
    "lost": "is lost",
    "reorder": "overtakes",
    "preempt": "goes first",
    "outage": "is down",
    "late": "is taken for dead",
    "skew": "has its clock wrong",
    "poison": "can never handle it",
}
"""What is said of each kind of fault."""

_ROW, _LANE, _LEFT, _TOP = 24, 196, 38, 40
_LETTER, _BOLD = 6.4, 7.3  # pixels that a letter takes, about
_CUT, _CUT_LAST = 27, 64
_PASSED = ("is about to ", "has handled ", "handled")


class Step(NamedTuple):
    """Something that happened in a run: in which lane, what, and the kind of fault if it is one."""

    number: int
    lane: str
    told: str
    fault: str

    @property
    def text(self) -> str:
        """What happened, in words."""
        if not self.fault:
            return self.told
        word, mark = WORDS[self.fault], "✗" if self.is_failure else "↷"
        return f"{mark} {word}" if self.told in ("", word) else f"{mark} {word} ({self.told})"

    @property
    def is_failure(self) -> bool:
        """Whether something failed, or was only done in another order."""
        return self.fault not in ("", "preempt", "reorder")


def worth_telling(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that changed something, and the faults; not those that only came to a place."""
    return [one for one in steps if one.fault or not one.told.startswith(_PASSED)]


def lanes_of(steps: Sequence[Step], first: Sequence[str] = ()) -> list[str]:
    """Return the lanes in order: those that come first, then as they appear."""
    found = dict.fromkeys(one.lane for one in steps)
    return [lane for lane in first if lane in found] + [lane for lane in found if lane not in first]


def svg(steps: Sequence[Step], first: Sequence[str] = (), title: str = "", ending: str = "") -> str:
    """Return steps as SVG; lanes named in `first` come first, `ending` is said below, in red."""
    lanes = lanes_of(steps, first)
    ending = display.cut(f"✗ {ending}", 100) if ending else ""
    reaches = [_reach(one, lanes) for one in steps]
    width = max([_LEFT + _LANE * max(len(lanes), 1) + 12, int(_LEFT + 8 + _BOLD * len(ending)), *reaches])
    bottom = _TOP + _ROW * len(steps)
    height = bottom + (34 if ending else 14)
    body = [_lane(lane, _LEFT + _LANE * at, bottom) for at, lane in enumerate(lanes)]
    body += [_step(one, row, lanes) for row, one in enumerate(steps)]
    if ending:
        body.append(_text(_LEFT, bottom + 22, display.escape(ending), fill=display.FAILURE, weight="bold"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="ui-sans-serif,system-ui,sans-serif" font-size="12">'
        f"<title>{display.escape(title)}</title>{''.join(body)}</svg>"
    )


def image(picture: str, alt: str) -> str:
    """Return SVG as an image that an untrusted notebook shows, too."""
    data = base64.b64encode(picture.encode()).decode()
    return f'<img alt="{display.escape(alt)}" src="data:image/svg+xml;base64,{data}" style="max-width:none">'


def _lane(name: str, x: int, bottom: int) -> str:
    color = display.color_of(name)
    label = display.escape(display.cut(name, 26))
    return (
        f'<rect x="{x}" y="8" width="{_LANE - 12}" height="20" rx="3" fill="{color}"/>'
        f"{_text(x + 8, 22, label, fill='#fff', weight='bold')}"
        f'<line x1="{x + 8}" y1="30" x2="{x + 8}" y2="{bottom}" stroke="{color}" stroke-opacity="0.45" '
        'stroke-width="2"/>'
    )


def _label(step: Step, lanes: Sequence[str]) -> str:
    """Return what is written at a step: in the last lane, and of a fault, there is room for more."""
    return display.cut(step.text, _CUT_LAST if step.fault or step.lane == lanes[-1] else _CUT)


def _reach(step: Step, lanes: Sequence[str]) -> int:
    """Return how far to the right a step's label goes."""
    letter = _BOLD if step.is_failure else _LETTER
    return int(_LEFT + _LANE * lanes.index(step.lane) + 32 + letter * len(_label(step, lanes)))


def _step(step: Step, row: int, lanes: Sequence[str]) -> str:
    x, y = _LEFT + _LANE * lanes.index(step.lane), _TOP + _ROW * row + 10
    color = display.FAILURE if step.is_failure else display.color_of(step.lane)
    label = display.escape(_label(step, lanes))
    whole = f"<title>{display.escape(step.text)}</title>"
    mark = (
        f'<circle cx="{x + 8}" cy="{y}" r="5" fill="{color}"/>'
        if not step.is_failure
        else f'<path d="M{x + 3} {y - 5}l10 10m0 -10l-10 10" stroke="{color}" stroke-width="3"/>'
    )
    number = _text(_LEFT - 8, y + 4, str(step.number), fill="#8a8f98", anchor="end")
    fill, weight = (display.FAILURE, "bold") if step.is_failure else ("#7d838c", "")
    return f"<g>{whole}{number}{mark}{_text(x + 20, y + 4, label, fill=fill, weight=weight)}</g>"


def _text(x: int, y: int, inner: str, *, fill: str, weight: str = "", anchor: str = "") -> str:
    extra = (f' font-weight="{weight}"' if weight else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x}" y="{y}" fill="{fill}"{extra}>{inner}</text>'
