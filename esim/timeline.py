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

_ROW, _LEFT, _TOP = 24, 38, 40
_NARROWEST, _GAP = 84, 12
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
    lanes = _laid_out(steps, lanes_of(steps, first))
    ending = display.cut(f"✗ {ending}", 100) if ending else ""
    ends = [lane.x + lane.width for lane in lanes.values()]
    reaches = [lanes[one.lane].x + _room(one, last=lanes[one.lane].is_last) for one in steps]
    width = max([_LEFT + _NARROWEST, int(_LEFT + _GAP + _BOLD * len(ending)), *ends, *reaches])
    bottom = _TOP + _ROW * len(steps)
    height = bottom + (34 if ending else 14)
    body = [_lane(name, lane, bottom) for name, lane in lanes.items()]
    body += [_step(one, row, lanes[one.lane]) for row, one in enumerate(steps)]
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


class _Lane(NamedTuple):
    """Where a lane stands, and how wide it is, with the gap to the next one."""

    x: int
    width: int
    is_last: bool


def _laid_out(steps: Sequence[Step], names: Sequence[str]) -> dict[str, _Lane]:
    """Return the lanes side by side, each as wide as what is written in it; faults may reach over."""
    lanes: dict[str, _Lane] = {}
    x = _LEFT
    for name in names:
        last = name == names[-1]
        rooms = [_room(one, last=last) for one in steps if one.lane == name and not one.fault]
        width = max([_NARROWEST, int(16 + _BOLD * len(_head(name))), *rooms]) + _GAP
        lanes[name] = _Lane(x, width, last)
        x += width
    return lanes


def _room(step: Step, *, last: bool) -> int:
    """Return how many pixels the mark and the label of a step take."""
    return int(24 + (_BOLD if step.is_failure else _LETTER) * len(_label(step, last=last)))


def _label(step: Step, *, last: bool) -> str:
    """Return what is written at a step: in the last lane, and of a fault, there is room for more."""
    return display.cut(step.text, _CUT_LAST if step.fault or last else _CUT)


def _head(name: str) -> str:
    return display.cut(name, 26)


def _lane(name: str, lane: _Lane, bottom: int) -> str:
    color, x = display.color_of(name), lane.x
    return (
        f'<rect x="{x}" y="8" width="{lane.width - _GAP}" height="20" rx="3" fill="{color}"/>'
        f"{_text(x + 8, 22, display.escape(_head(name)), fill='#fff', weight='bold')}"
        f'<line x1="{x + 8}" y1="30" x2="{x + 8}" y2="{bottom}" stroke="{color}" stroke-opacity="0.45" '
        'stroke-width="2"/>'
    )


def _step(step: Step, row: int, lane: _Lane) -> str:
    x, y = lane.x, _TOP + _ROW * row + 10
    color = display.FAILURE if step.is_failure else display.color_of(step.lane)
    label = display.escape(_label(step, last=lane.is_last))
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
