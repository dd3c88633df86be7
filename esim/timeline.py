"""One run as a picture: time goes down, each process and each thing outside has a lane, faults are red."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from esim import display
from esim.svg import INK, MARGIN, TOP, document, line, num, tag, text, text_width, titled

WORDS = {
    "crash": "dies",
    "duplicate": "once more",
    "error": "fails",
    "unknown": "time-out, although it was done",
    "lost": "is lost",
    "reorder": "overtakes",
    "preempt": "goes first",
    "delay": "goes on an hour later",
    "outage": "is down",
    "late": "is taken for dead",
    "skew": "has its clock wrong",
    "poison": "can never handle it",
}
"""What is said of each kind of fault."""

_ROW, _LEFT = 24, 44
_NARROWEST, _HEAD, _ROOMY, _GAP = 84, 190, 430, 12
_QUIET = "#8a8f98"
_PASSED = ("is about to ", "has handled ", "handled")


class Step(NamedTuple):
    """Something that happened in a run: in which lane, what, and the kind of fault if it is one."""

    number: int
    lane: str
    told: str
    fault: str
    failed: bool = False
    """Whether the code fails by itself, as no fault of the simulation has it."""

    @property
    def text(self) -> str:
        """What happened, in words."""
        if not self.fault:
            return self.told
        word = WORDS[self.fault]
        if self.fault == "crash":
            return f"{word} {self.told}"
        return word if self.told in ("", word) else f"{word} ({self.told})"

    @property
    def is_failure(self) -> bool:
        """Whether something failed, or was only done in another order."""
        return self.failed or self.fault not in ("", "delay", "preempt", "reorder")


def worth_telling(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that changed something, and the faults; not those that only came to a place."""
    return [one for one in steps if one.fault or not one.told.startswith(_PASSED)]


def lanes_of(steps: Sequence[Step], first: Sequence[str] = ()) -> list[str]:
    """Return the lanes in order: those that come first, then as they appear."""
    found = dict.fromkeys(one.lane for one in steps)
    return [lane for lane in first if lane in found] + [lane for lane in found if lane not in first]


def picture(steps: Sequence[Step], first: Sequence[str], title: str, ending: str = "") -> str:
    """Return steps as SVG; lanes named in `first` come first, `ending` is said below, in red."""
    lanes = _laid_out(steps, lanes_of(steps, first))
    top = TOP + 34
    bottom = top + _ROW * len(steps)
    ends = [lane.x + lane.width for lane in lanes.values()]
    reaches = [lanes[one.lane].x + 30 + _width(one, last=lanes[one.lane].is_last) for one in steps]
    width = max([320.0, *ends, *reaches, min(text_width(ending, bold=True) + 60, 700) if ending else 0])
    over = [(lanes[one.lane].x, reach) for one, reach in zip(steps, reaches, strict=True)]
    body = []
    for name, lane in lanes.items():
        gaps = [top + _ROW * row for row, (left, right) in enumerate(over) if left < lane.x < right - 10]
        body.append(_lane(name, lane, bottom, gaps))
    body += [_step(one, top + _ROW * row, lanes[one.lane]) for row, one in enumerate(steps)]
    if ending:
        room = width - 2 * MARGIN
        body.append(text(MARGIN, bottom + 16, f"✗ {ending}", fill=display.FAILURE, bold=True, room=room))
    return document(title, body, width=width, bottom=bottom + (24 if ending else 0))


class _Lane(NamedTuple):
    """Where a lane stands, and how wide it is, with the gap to the next one."""

    x: float
    width: float
    is_last: bool


def _laid_out(steps: Sequence[Step], names: Sequence[str]) -> dict[str, _Lane]:
    """Return the lanes side by side, each as wide as what is written in it; faults may reach over."""
    lanes: dict[str, _Lane] = {}
    x = float(_LEFT)
    for name in names:
        last = name == names[-1]
        rooms = [
            _width(one, last=last) for one in steps if one.lane == name and not (one.fault or one.failed)
        ]
        head = min(text_width(name, bold=True), _HEAD)
        width = max(_NARROWEST, head + 18, *(room + 24 for room in rooms)) + _GAP
        lanes[name] = _Lane(x, width, last)
        x += width
    return lanes


def _width(step: Step, *, last: bool) -> float:
    """Return how wide the label of a step is: in the last lane, and of what fails, there is room for more."""
    room = _ROOMY if step.fault or step.failed or last else _HEAD
    return min(text_width(step.text, bold=step.is_failure), room)


def _lane(name: str, lane: _Lane, bottom: int, gaps: Sequence[int]) -> str:
    """Return the head and the line of a lane, which leaves a gap where another one's words reach over it."""
    color, x = display.color_of(name), lane.x
    box = tag("rect", x=x, y=TOP, width=lane.width - _GAP, height=20, rx=3, fill=color)
    label = text(x + 8, TOP + 14, name, fill="#fff", bold=True, room=_HEAD)
    begins = [TOP + 22, *(y + 9 for y in gaps)]
    ends = [*(y - 9 for y in gaps), bottom]
    way = "".join(f"M{num(x + 8)} {begin}V{end}" for begin, end in zip(begins, ends, strict=True))
    return box + label + line(way, stroke=color, width=2, opacity=0.45)


def _step(step: Step, y: int, lane: _Lane) -> str:
    x = lane.x
    color = display.FAILURE if step.is_failure else display.color_of(step.lane)
    mark = tag("circle", cx=x + 8, cy=y, r=5, fill=color)
    if step.is_failure:
        mark = line(f"M{num(x + 3)} {y - 5}l10 10m0 -10l-10 10", stroke=color, width=3)
    elif step.fault:
        mark = line(f"M{num(x + 3)} {y - 4}q10 0 10 8m-4 -3l4 4l4 -4", stroke=color, width=2)
    number = text(_LEFT - 8, y + 4, str(step.number), fill=_QUIET, anchor="end", size=11)
    fill = display.FAILURE if step.is_failure else INK
    room = _width(step, last=lane.is_last) + 1
    label = text(x + 20, y + 4, step.text, bold=step.is_failure, room=room, fill=fill)
    return tag("g", titled(step.text), number, mark, label)
