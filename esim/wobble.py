"""Whether a scenario's code is steady: nothing in it comes from elsewhere than the log and the world.

The schedule without faults is run twice, and one with the first fault of each kind, and watched: calls of
clocks and random numbers, and what the code keeps in the memory of its process, are named. Then they are run
with sets in another order, and clocks that say something else. A proof about code that rolls dice is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple

from esim.aside import Unanswered, aside
from esim.deaths import PATIENCE, SURVIVES, Quiet, Tail, difference, looking, tail_of, tried
from esim.errors import EsimError, Unsteady, said
from esim.faults import MEANINGS
from esim.reach import CHANGED, Remembered, held_by
from esim.recording import Choice, Run
from esim.scenario import Scenario
from esim.stage import Stage, TimeIsOver
from esim.turned import KINDS, Turned, Where
from esim.virtual import turned_round
from esim.watched import Seen, of_c, watching

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
        stage = _begun(scenario)
        remembered = Remembered(stage)
        for choices, tail in [*reversed(done)] * _ROUNDS:
            if found := difference(tail, _tail(stage, choices)):
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
        with watching(seen):
            return _begun(scenario, over)

    end = monotonic() + _TURNING
    seen = Seen(set())
    stage = made()
    remembered = Remembered(stage)
    seen.cached = remembered.cached
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
    turned = Turned(seen.codes, of_c)
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
            return _tail(stage, choices)
        finally:
            if changes:
                remembered.put_back()

    def run_anew() -> Tail:
        return _tail(_begun(stage.scenario, stage.over), {})

    runs: list[Callable[[], Tail]] = [partial(run, one.choices) for one in schedules]
    if callable(stage.scenario.actors):
        runs[0] = run_anew
    with turned.installed():
        for number, (once, done) in enumerate(zip(runs, schedules, strict=True)):
            if monotonic() > end:
                return [], len(schedules) - number
            try:
                if places := turned.matters(once, difference, done.tail):
                    return places, 0
            finally:
                remembered.put_back()
    return [], 0


def _once(stage: Stage, seen: Seen, choices: Mapping[int, int] | None = None) -> tuple[Tail, list[Choice]]:
    """Run once, watched; return what happened and how it ended, and what could have been chosen."""
    scenario, before = stage.scenario, held_by(stage.actors)
    recording = Quiet.of(stage, {}, choices or {}, strict=False)
    with watching(seen):
        tail, asked = _ended(recording.run(stage.first, checks=False))
    if scenario.faults.crash and callable(scenario.actors):
        seen.anew.update(dict.fromkeys(told for told, _ in _made_anew(stage) - before))
    return tail, asked


def _begun(scenario: Scenario, over: Callable[[], bool] | None = None) -> Stage:
    """Return a stage at its first moment, its actors made anew."""
    stage = Stage(scenario)
    stage.over = over
    stage.begin(scenario.faults.budgets())
    return stage


def _tail(stage: Stage, choices: Mapping[int, int]) -> Tail:
    """Run once, unwatched."""
    return _ended(Quiet.of(stage, {}, choices, strict=False).run(stage.first, checks=False))[0]


def _ended(run: Run) -> tuple[Tail, list[Choice]]:
    """Return what happened, how it ended, and which invariants hold then; and what could be chosen."""
    tail = tail_of(run)
    asked = {} if tail.endless else run.scenario.invariants
    for name, one in asked.items():
        if one.when == "sometimes":
            continue  # no proof hangs on it
        try:
            held = "does not hold" if one.broken(run.stage.look) else "holds"
        except EsimError as error:  # told once the search comes to it
            held = said(error)
        tail.steps.append(f"in the end: {name} {held}")
    return tail, run.asked


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
