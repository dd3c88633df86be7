"""Whether a simulated death loses what a real one loses: some schedules with one crash are run both ways.

A simulation runs in one process: what user code keeps in its memory would survive there, wherever it is, and
a proof would be false. So a child of this process runs such schedules as a simulation does, and hands on what
is durable where somebody dies: the log, what is kept of subscriptions, the world, the clock, and where each
process stands. For each, another child goes on from that, with a memory in which nothing has happened yet,
and actors that are made anew. If the two go on in different ways, something else than what is durable had
its part in it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from esim.aside import Unanswered, Unpacker, aside, packed
from esim.confirm import Ending, ending_of
from esim.errors import said
from esim.memory import MemoryStore
from esim.reach import Remembered
from esim.recording import Choice, Recording, Run
from esim.scenario import Scenario
from esim.stage import Moment, Stage, TimeIsOver
from esim.volatile import Memory

_DEATHS = 12
_STEPS = 5_000
"""At most so many deaths are tried, and steps taken for it in all."""
PATIENCE = 10.0  # seconds that a child has
_HEAVY = ("duckdb", "pyarrow", "pandas")  # imported here where one child needs it, and not in each
SURVIVES = (
    ": something in the memory of the process makes the difference, and its death would lose it; keep it in "
    "world.memory(…), or in a table"
)
_BY_NAMES = "what a death loses was looked for by names only where no real death could be tried"


class Tried(NamedTuple):
    """What is known after some deaths: where a real one differs, or what could not be tried, and why."""

    found: str = ""
    untried: str = ""


class Tail(NamedTuple):
    """What follows a death, or a first moment: the steps, and how it ends, if it does."""

    steps: list[str]
    ending: Ending
    endless: bool


class _Death(NamedTuple):
    """A death as it is simulated: who dies and where, what is handed on (or why nothing), what follows."""

    process: str
    place: str
    handed: bytes | None
    why: str
    tail: Tail


def tried(scenario: Scenario, over: Callable[[], bool] | None = None) -> Tried:
    """Have processes die for real, if the faults of a scenario have crashes; nothing of it is left here.

    Raises TimeIsOver once `over` says so.
    """
    if not scenario.faults.crash:
        return Tried()

    watch = looking(over)
    untried: dict[str, str] = {}
    try:
        deaths, heavy = aside(lambda: _simulated(scenario), PATIENCE, watch)
        for name in heavy:
            import_module(name)
        for death in deaths:
            why, found = death.why, ""
            if death.handed is not None:
                why, found = aside(partial(_really, scenario, death.handed, death.tail), PATIENCE, watch)
            if found:
                return Tried(f"where {death.process} really dies {death.place}, {found}")
            if why:
                untried.setdefault(death.process, why)
    except Unanswered as error:
        untried["all"] = str(error)
    told = "; ".join(f"{name}: {why}" for name, why in untried.items())
    return Tried(untried=told and f"{_BY_NAMES} ({told})")


def looking(over: Callable[[], bool] | None) -> Callable[[], None]:
    """Return what raises TimeIsOver once `over` says so."""

    def look() -> None:
        if over is not None and over():
            raise TimeIsOver

    return look


class Quiet(Recording):
    """A run of which only the steps and the end matter."""

    watches = False

    def _remember(self) -> None:
        """Take no pictures."""


class _Dying(Quiet):
    """A run with one crash, before which it hands on what is durable."""

    at = 0
    handed: bytes | None = None
    why = "run once more, it does not come there again"
    begun = 0
    """How many steps there are up to that."""

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:
        """Hand it on where the crash is."""
        if stage.choices == self.at:
            self.begun = len(self._steps) + 1
            try:
                self.handed = _hand_on(stage)
            except Unanswered as error:
                self.why = str(error)
            except Exception as error:  # noqa: BLE001 - anything may refuse to be pickled
                self.why = said(error)
        return super().pick(stage, options, lane, told)


def _simulated(scenario: Scenario) -> tuple[list[_Death], list[str]]:
    """Run schedules with one crash, one after another in one memory; return also what was imported."""
    deaths = list(_deaths(scenario))
    return deaths, [name for name in _HEAVY if name in sys.modules]


def _deaths(scenario: Scenario) -> Iterator[_Death]:
    stage = Stage(scenario)
    first, remembered = stage.begin(scenario.faults.budgets()), Remembered(stage)
    without = Quiet.of(stage, {}, {}, strict=False).run(first, checks=False)
    if without.broken is not None:
        return  # it has no end: no death is needed to tell
    asked = without.asked
    most = max(1, min(_DEATHS, _STEPS // max(stage.steps, 1)))
    types = {one.position: one.type for one in stage.look.log}
    for one in _spread(asked, types, most):
        run = _Dying.of(stage, {}, {one.number: one.options.index("crash")}, strict=False)
        run.at = one.number
        remembered.put_back()  # what has a name: so that the place of a death tells what it loses
        done = run.run(first, checks=False)
        at = f", at {one.position} {types[one.position]}" if one.position in types else ""
        tail = tail_of(done, run.begun)
        yield _Death(one.process, f"{one.place}{at}", run.handed, run.why, tail)


def _spread(asked: Sequence[Choice], types: dict[int, str], most: int) -> list[Choice]:
    """Return where to die: the first of each kind of place, process and type; others if there is room."""
    mortal = [one for one in asked if "crash" in one.options]
    first: dict[tuple[str, str, str], Choice] = {}
    for one in mortal:
        first.setdefault((one.process, one.place, types.get(one.position, "")), one)
    chosen = _evenly(list(first.values()), most)
    others = [one for one in mortal if one not in chosen]
    return sorted([*chosen, *_evenly(others, most - len(chosen))])


def _evenly(choices: list[Choice], most: int) -> list[Choice]:
    """Return at most so many, from the first to the last."""
    if len(choices) <= most:
        return choices
    return [choices[round(at * (len(choices) - 1) / max(most - 1, 1))] for at in range(most)]


def tail_of(run: Run, begun: int = 0) -> Tail:
    """Return what a run that has just ended has done, after so many steps."""
    steps = [f"{one.lane}: {one.text}" for one in run.steps[begun:]]
    return Tail(steps, ending_of(run.stage, None), run.broken is not None)


# --- from one child to the next ----------------------------------------------------------------------------


def _hand_on(stage: Stage) -> bytes:
    """Return what is durable, and where each process stands, as bytes."""
    player = stage.at
    assert player is not None  # noqa: S101 - somebody dies
    others = [one.name for one in stage.players if one.working and one is not player]
    if others:
        raise Unanswered(f"{', '.join(others)} is at work when it dies, and all share one process here")
    moment = stage.moment((stage.players.index(player), "crash"))
    lost = [isinstance(part, Memory) and part.of in (None, player.name) for part in stage.parts]
    parts = [None if gone else picture for gone, picture in zip(lost, moment.parts, strict=True)]
    world, log = (
        range(len(stage.world.parts)),
        next(at for at, part in enumerate(stage.parts) if part is stage._log),
    )
    rest = [None if at in world or at == log else kept for at, kept in enumerate(parts)]
    before = packed((parts[log], [parts[at] for at in world]), stage.parts)
    names = [part.name for part in stage.parts]
    return pickle.dumps((before, packed((names, log, moment._replace(parts=tuple(rest))), stage.parts)))


def _really(scenario: Scenario, handed: bytes, simulated: Tail) -> tuple[str, str]:
    """Go on where a process has died in another child; return why it cannot, and what differs."""
    world = scenario.world
    try:
        before, after = pickle.loads(handed)  # noqa: S301 - we wrote it
        log, durable = Unpacker(before, list(world.parts.values())).load()
    except Exception as error:  # noqa: BLE001 - whatever a user's class does
        return said(error), ""
    for part, state in zip(world.parts.values(), durable, strict=True):
        if state is not None:
            part.declared = state  # it begins with that
    world.by_hand = False
    try:
        store = MemoryStore()
        store.rewind(log[0])
        stage = Stage(scenario, store, begun=True)
        stage.begin(scenario.faults.budgets())
    except Exception as error:  # noqa: BLE001 - whatever a user's code does
        return "", f"the actors cannot be made anew: {said(error)}"
    try:
        names, at, moment = Unpacker(after, stage.parts).load()
    except Exception as error:  # noqa: BLE001 - whatever a user's class does
        return said(error), ""
    _stand_at(stage, names, moment, {**dict(enumerate(durable)), at: log})
    found = difference(simulated, tail_of(Quiet.of(stage, {}, {}, strict=False).run(None, checks=False)))
    return "", found and f"{found}{SURVIVES}"


def _stand_at(stage: Stage, names: Sequence[str], moment: Moment, durable: dict[int, Any]) -> None:
    """Be where another child was; memory that is lost is as the actors have made it."""
    for name in names[len(stage.parts) :]:
        stage.stand_in(name)  # of a function that was called before
    made = dict(enumerate(stage.first.parts)) | {at: kept for at, kept in durable.items() if kept is not None}
    parts = [made.get(at) if kept is None else kept for at, kept in enumerate(moment.parts)]
    stage.back_to(moment._replace(parts=tuple(parts)))
    for part in stage.parts:
        part.stale = True  # the numbers of states were the other's


def difference(one: Tail, other: Tail) -> str:
    """Return the first thing that differs in the other, in words; how far what has no end came does not."""
    ends = () if one.endless and other.endless else ("",)
    for first, second in zip((*one.steps, *ends), (*other.steps, *ends), strict=False):
        if first != second:
            return f"{second or 'its end'!r} follows in place of {first or 'its end'!r}"
    for name in Ending._fields if ends else ():
        if getattr(one.ending, name) != getattr(other.ending, name):
            return f"it ends with another {name}"
    return ""
