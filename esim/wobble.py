"""Whether a scenario's code is steady: nothing in it comes from elsewhere than the log and the world.

The schedule without faults is run twice, and one with the first fault of each kind, and watched: calls of
clocks and random numbers, and what the code keeps in the memory of its process, are named. Then they are run
with sets in another order, and clocks that say something else. A proof about code that rolls dice is none.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from time import monotonic
from types import CodeType, FrameType
from typing import Any, NamedTuple

from esim.aside import Unanswered, aside
from esim.deaths import PATIENCE, SURVIVES, Quiet, Tail, difference, looking, tail_of, tried
from esim.errors import Unsteady, said
from esim.faults import MEANINGS
from esim.reach import CHANGED, Remembered, held_by, is_librarys, is_users
from esim.recording import Choice
from esim.scenario import Scenario
from esim.stage import Stage, TimeIsOver
from esim.turned import KINDS, Turned, Where, is_clock
from esim.virtual import turned_round

_NO_CLOCKS = {"get_clock_info", "mktime", "sleep", "strptime", "tzset"}
_CLASS_CLOCKS = {"now", "utcnow", "today"}
_OF_THE_PROCESS = {"hash", "id", "getpid", "getppid", "getrandom", "urandom"}
_OF_THE_THREAD = {"get_ident", "get_native_id"}
_NEW_IDS = {"getnode", "uuid1", "uuid4", "uuid6", "uuid7", "uuid8"}
_DICE = {"random", "secrets", "uuid"}
_MODELS = ("pydantic.", "esim.event", "esim.value", "esim.rows", "esim.state")
_MAKERS = ("pydantic.main", "pydantic._internal._dataclasses", "esim.value")
_MAKING = {"__init__", "model_validate", "model_validate_json", "model_validate_strings"}
"""The modules that make a user's values, and their functions, and so call for their defaults."""
_LOOKED_AT = {"esim.memory", "esim.queues", "esim.service", "esim.volatile", "esim.world"}
"""The modules of what a process looks at: the log, and the world."""


_CALLED = (
    ": what comes of it cannot be replayed; take times, ids and chance from what the event says, "
    "or from what the actors are given; what a clock says may only be logged"
)
_CACHED = (
    " keeps what it read in a cache: that is in the memory of the process, and its death would lose it; keep "
    "it in world.memory(…), or in a table"
)
_IN_ORDER = ": the order of a set of texts differs from process to process; sort it, by itself"
_NO_ORDER = (
    ": tasks are in no order in a set; go through those that were made, as by `for task in tasks: if task in "
    "done: …`; to cancel each, or to raise what has failed, is fine outside of a `try`"
)
_ANEW = (
    " is another when the actors are made anew after a run, as by a process that is started again: read it "
    "where it is used, or keep it in world.memory(…)"
)

_LEFT = (
    ": it leaves something to the next in the memory of the process; keep it in world.memory(…), or in a "
    "table"
)
_DEATHS = "some deaths could not be tried for real"
_NEXT = "what one schedule leaves to the next in memory was not tried"
_TURNS = "the order of sets and what clocks say were not tried"
_ROUNDS = 3
_TURNING = PATIENCE / 2
"""How many seconds after it was begun to watch no other order is tried any more."""


@dataclass
class _Seen:
    """What was seen of the user's code while it ran."""

    cached: set[CodeType]
    calls: dict[str, None] = field(default_factory=dict)
    caches: dict[str, None] = field(default_factory=dict)
    anew: dict[str, None] = field(default_factory=dict)
    clocks: dict[tuple[str, int], str] = field(default_factory=dict)
    """Calls of clocks, by function and line."""
    codes: set[CodeType] = field(default_factory=set)


class _Done(NamedTuple):
    """A schedule that was run: its choices, and what happened."""

    choices: dict[int, int]
    tail: Tail


class _Watched(NamedTuple):
    """What was done while code was watched, and found."""

    shares: bool = False
    done: Sequence[_Done] = ()
    reserves: Sequence[str] = ()


class Steady(NamedTuple):
    """What is known of steady code."""

    untried: str
    """Which deaths could not be tried and why, or an empty text."""
    reserves: list[str]
    """What was not tried, in short."""
    shares: bool
    """Whether its tasks share what a run changes, as an event that is set: it is made anew for each run."""


def unsteady(scenario: Scenario, over: Callable[[], bool] | None = None) -> Steady:
    """Have processes die for real, and run the schedule without faults twice.

    Raises Unsteady, and names what makes it unsteady; and TimeIsOver once `over` says so.
    """
    deaths = tried(scenario, over)
    reserves = [_DEATHS] if deaths.untried else []
    try:
        told, watched = _watched_aside(scenario, over)
        try:
            told = told or _in_another_order(scenario, watched.done, over)
        except Unanswered as error:
            reserves.append(f"{_NEXT} ({error})")
    except (Unanswered, TimeIsOver) as error:
        if deaths.found:
            raise Unsteady(deaths.found) from None
        if isinstance(error, TimeIsOver):
            raise
        told, watched = "", _watch(scenario, over, unturned=f"{_TURNS} ({error})")
    if deaths.found and told:
        told = f"{told} ({deaths.found.removesuffix(SURVIVES)})"
    if told or deaths.found:
        raise Unsteady(told or deaths.found)
    return Steady(deaths.untried, [*reserves, *watched.reserves], watched.shares)


def _watched_aside(scenario: Scenario, over: Callable[[], bool] | None) -> tuple[str, _Watched]:
    """Watch in a child: what code leaves in memory that nobody finds would be there when the search begins.

    Returns why it is unsteady, or an empty text, and what `_watch` does. Raises Unanswered where a child
    cannot tell, as it fails otherwise, takes too long or cannot be forked.
    """

    def work() -> tuple[str, _Watched] | None:
        try:
            return "", _watch(scenario, over)
        except Unsteady as error:
            return str(error), _Watched()
        except TimeIsOver:
            return None

    found = aside(work, PATIENCE, looking(over))
    if found is None:
        raise TimeIsOver
    return found


def _in_another_order(scenario: Scenario, done: Sequence[_Done], over: Callable[[], bool] | None) -> str:
    """Run schedules backwards in another child, and again; return what differs, if anything.

    Where nobody dies, memory may last as long as a schedule; what one leaves to the next is found by that.
    """

    def work() -> str:
        stage = Stage(scenario)
        first, remembered = stage.begin(scenario.faults.budgets()), Remembered(stage)
        for choices, tail in [*reversed(done)] * _ROUNDS:
            run = Quiet.of(stage, {}, choices, strict=False).run(first, checks=False)
            if found := difference(tail, tail_of(run)):
                return f"run after other schedules, one goes another way ({found}){_LEFT}"
            remembered.put_back()
        return ""

    return aside(work, PATIENCE, looking(over)) if len(done) > 1 and not scenario.faults.crash else ""


def _watch(scenario: Scenario, over: Callable[[], bool] | None, unturned: str = "") -> _Watched:
    """Run the schedule without faults twice, and those with one fault, watched. Raises Unsteady.

    Without crashes, what tasks share may change in a run. In the process of the user, which is no child of
    it, no set is made to be of another class: `unturned` says so, and a clock that is called matters there.
    """

    def made() -> Stage:
        stage = Stage(scenario)
        stage.over = over
        stage.begin(scenario.faults.budgets())
        return stage

    end = monotonic() + _TURNING
    stage = made()
    remembered = Remembered(stage)
    seen = _Seen(remembered.cached)
    one, asked = _once(stage, seen)
    types, done = {one.position: one.type for one in stage.look.log}, [_Done({}, one)]
    changed = remembered.put_back()
    others = [] if one.endless else _first_of_each(asked, types).values()
    for number, option in others:
        choices = {number: option}
        done.append(_Done(choices, _once(stage, seen, choices)[0]))
        changed += remembered.put_back()
    shared = set() if scenario.faults.crash else remembered.shared
    with turned_round():
        again = "" if one.endless else difference(one, _once(made(), seen)[0])
    turned = Turned(seen.codes, _of_c)
    matter, left = list[Where](), 0
    if seen.codes and not unturned:
        matter, left = _matter(stage, turned, remembered, done, end, changes=bool(changed))
    places = [] if seen.calls else matter  # by chance, anything differs
    clocks = [told for where, told in seen.clocks.items() if where not in turned.asked]
    named = {kind: [str(each) for each in places if each.kind == kind] for kind in KINDS}
    reasons = (
        ([*seen.calls, *clocks, *map(str, turned.fixed), *named["clock"]], _CALLED),
        (seen.caches, _CACHED),
        (dict.fromkeys(each for each in changed if each not in shared), CHANGED),
        (named["texts"], _IN_ORDER),
        (named["tasks"], _NO_ORDER),
        (seen.anew, _ANEW),
    )
    for names, why in reasons:
        if names:
            raise Unsteady(f"{', '.join(names)}{why}")
    if again:
        raise Unsteady(f"run twice without faults, it differs: {again}")
    late = [f"{_TURNS} in {left} of {len(done)} schedules: it takes too long"] if left else []
    return _Watched(bool(shared), done, [unturned] if unturned else [*late, *turned.reserves])


def _matter(
    stage: Stage,
    turned: Turned,
    remembered: Remembered,
    schedules: Sequence[_Done],
    end: float,
    *,
    changes: bool,
) -> tuple[list[Where], int]:
    """Return the places in which the order of a set, or a time, makes a difference to a schedule.

    And how many schedules were not tried by the `end`. What is in memory is put back after each run if such
    a run `changes` it, which takes long where there is much.
    """

    def run(choices: Mapping[int, int]) -> Tail:
        try:
            return tail_of(Quiet.of(stage, {}, choices, strict=False).run(stage.first, checks=False))
        finally:
            if changes:
                remembered.put_back()

    with turned.installed():
        for number, (choices, was) in enumerate(schedules):
            if monotonic() > end:
                return [], len(schedules) - number
            try:
                if places := turned.matters(partial(run, choices), difference, was):
                    return places, 0
            finally:
                remembered.put_back()
    return [], 0


def _once(stage: Stage, seen: _Seen, choices: Mapping[int, int] | None = None) -> tuple[Tail, list[Choice]]:
    """Run once, watched; return what happened and how it ended, and what could have been chosen."""
    scenario, before = stage.scenario, held_by(stage.actors)
    recording = Quiet.of(stage, {}, choices or {}, strict=False)
    with _watched(seen):
        run = recording.run(stage.first, checks=False)
    happened = tail_of(run), run.asked
    if scenario.faults.crash and callable(scenario.actors):
        seen.anew.update(dict.fromkeys(told for told, _ in _made_anew(stage) - before))
    return happened


def _made_anew(stage: Stage) -> Counter[tuple[str, str]]:
    """Return what actors hold that are made on what a run has left, as by a process that is started again."""
    try:
        return held_by(stage.scenario.built(stage.store))
    except Exception as error:
        raise Unsteady(
            f"the actors cannot be made anew after a run, as by a process started again: {said(error)}"
        ) from error


def _first_of_each(
    asked: Sequence[Choice], types: Mapping[int, str]
) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    """Return for each kind of fault, place and event the first at which it can happen; its number there.

    Whoever dies at an event does it anew or not at all, as it dies after or before it has done something.
    """
    found: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for one in asked:
        for index, option in enumerate(one.options):
            if option in MEANINGS:
                place = one.place if option != "crash" or one.place.startswith("after") else ""
                key = option, one.lane, place, types.get(one.position, "")
                found.setdefault(key, (one.number, index))
    return found


@contextmanager
def _watched(seen: _Seen) -> Iterator[None]:
    """Note what the user's code calls and looks at."""
    kinds: dict[int, tuple[CodeType, str]] = {}  # by id: to hash code takes longer than all else here

    def called(by: FrameType | None, what: str) -> None:
        if by and what and _is_users(by) and by.f_code.co_name != "__hash__":
            told = f"{by.f_code.co_name} calls {what}() (line {by.f_lineno})"
            if is_clock(what):
                seen.clocks[by.f_code.co_name, by.f_lineno] = told
            else:
                seen.calls[told] = None

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        found = kinds.get(id(code))
        if found is None:
            found = kinds[id(code)] = code, _kind(frame)
            if found[1] == "user":
                seen.codes.add(code)
        kind = found[1]
        if not kind or (event != "call" and kind != "user"):
            return
        if kind == "dice":
            called(_caller(frame), _of_chance(frame))
        elif kind == "maker":
            for what in _defaults(frame):
                called(_caller(frame), what)
        elif kind == "looked at":
            seen.caches.update(dict.fromkeys(_cached(frame, seen.cached) if seen.cached else ()))
        elif kind == "user" and event == "c_call":
            called(frame, _of_c(arg))

    former = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        if callable(former):
            sys.setprofile(former)
        elif former is not None:  # a profiler written in C, which is no function but can be turned on again
            former.enable()


def _kind(frame: FrameType) -> str:
    """Return what is noted of some code, or an empty text."""
    module = frame.f_globals.get("__name__")
    if module in _DICE:
        return "dice"
    if module in _MAKERS:
        return "maker" if frame.f_code.co_name in _MAKING else ""
    if module in _LOOKED_AT:
        return "looked at"
    return "user" if _is_users(frame) else ""


def _is_users(frame: FrameType) -> bool:
    """Say whether code is the user's, and not what a library has made of a text."""
    name, known = frame.f_code.co_filename, frame.f_globals
    if not name.startswith("<"):
        return is_users(name)
    by = frame.f_back.f_code.co_filename if frame.f_back else ""
    alone = "__name__" not in known or frame.f_code.co_name == "<module>"  # else it may be called by anything
    return is_users(name) and is_users(str(known.get("__file__", ""))) and not (alone and is_librarys(by))


def _caller(frame: FrameType) -> FrameType | None:
    """Return who has called, or made a model whose defaults did."""
    found = frame.f_back
    while found is not None and str(found.f_globals.get("__name__")).startswith(_MODELS):
        found = found.f_back
    return found


def _defaults(frame: FrameType) -> Iterator[str]:
    """Give the C functions that the defaults of a model, or of a dataclass of pydantic's, come from."""
    known = frame.f_locals
    model = known.get("cls", type(known.get("self", known.get("__dataclass_self__"))))
    given = known.get("data", known.get("kwargs", known.get("obj")))
    for name, one in getattr(model, "__pydantic_fields__", {}).items():
        if one.default_factory is not None and not (isinstance(given, dict) and name in given):
            made = one.default_factory
            yield _of_c(made.func if isinstance(made, partial) else made)


def _of_c(called: Any) -> str:
    """Return the name of a C function if its answer is of a clock, of chance, or of this process."""
    name, owner = str(getattr(called, "__name__", "")), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, date) and name in _CLASS_CLOCKS:
        return f"{owner.__name__}.{name}"
    if owner is _DEALER or isinstance(owner, random.SystemRandom):
        return f"random.{name}"
    module = str(getattr(called, "__module__", None))
    if module in ("builtins", "nt", "posix") and name in _OF_THE_PROCESS:
        return name if module == "builtins" else f"os.{name}"
    if module == "_thread" and name in _OF_THE_THREAD:
        return f"threading.{name}"
    return f"time.{name}" if module == "time" and name not in _NO_CLOCKS else ""


_DEALER = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the module's functions


def _of_chance(frame: FrameType) -> str:
    """Return the name of a function of the library if chance is in it; a seed leaves none."""
    module, name, given = frame.f_globals["__name__"], frame.f_code.co_name, frame.f_locals
    if module != "random":
        return f"{module}.{name}" if module == "secrets" or name in _NEW_IDS else ""
    owner = given.get("self")
    if name == "__init__":
        return f"random.{type(owner).__name__}" if given.get("x") is None else ""
    return f"random.{name}" if owner is _DEALER or isinstance(owner, random.SystemRandom) else ""


def _cached(frame: FrameType | None, codes: set[CodeType]) -> Iterator[str]:
    """Give the cached functions that a call comes from."""
    while frame is not None:
        if frame.f_code in codes:
            yield frame.f_code.co_name
        frame = frame.f_back
