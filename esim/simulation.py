"""Find the schedule that breaks a handler, show it, and prove the fix.

    explore(history, [deduct], {"stock is right": eventually(…)}, faults=Faults(crash=1), world=world)

`explore` goes through every schedule within the faults' budgets, those of fewest faults first; `simulate`
runs one by chance, from a seed; `replay` runs the one that a token stands for, exactly. Handlers, projections
and process managers run unchanged, by esim's own delivery code, on a store in memory and under a virtual
clock; a counterexample is then run again on a real DuckDB store, or with a process that is really killed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from esim.confirm import on_duckdb, with_kills
from esim.errors import InvalidArgument, TokenMismatch, Unsteady
from esim.examine import examine
from esim.explore import (
    Broken,
    Chance,
    Choices,
    Search,
    Strategy,
    check_limits,
    check_strategy,
    deadline,
)
from esim.faults import Faults
from esim.origin import called_from
from esim.player import failing
from esim.pytestfile import Found
from esim.reach import CHANGED, Remembered, as_before
from esim.recording import Recording, Run, token_read
from esim.scenario import SIDES, Scenario, consume, follow, side_of, task
from esim.stage import Stage, TimeIsOver
from esim.verdict import Counterexample, Verdict
from esim.wobble import Steady, unsteady
from esim.world import World

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Faults",
    "Scenario",
    "World",
    "consume",
    "crash_matrix",
    "examine",
    "explore",
    "follow",
    "replay",
    "simulate",
    "task",
    "what_next",
]

_MANY = 1_000
_TRIED = 5_000  # schedules with fewer faults than what chance has found
Confirm = Literal["duckdb", "kill"] | None


def explore(
    history: Any,
    actors: Any = None,
    invariants: object = (),
    *,
    faults: Faults | None = None,
    world: World | None = None,
    strategy: Strategy = "exhaustive",
    seconds: float | None = 60.0,
    schedules: int | None = None,
    seed: int = 0,
    confirm: Confirm = "duckdb",
    prune: bool = True,
) -> Verdict:
    """Look for a schedule within the budgets of `faults` that breaks an invariant; fewest faults first.

    `history`: a store, or writes such as `("Order/o-1", event)`, or a `Scenario` in place of the first three.
    `actors`: handlers, `follow(…)`, `consume(…)`, `task(…)`, or a function of the store that returns them.
    `invariants`: by name, or a list; a bare function must hold in the end. It ends after `seconds`, or so
    many `schedules`, and says then that it is not exhausted; so it does after Ctrl-C. `random` draws
    schedules from `seed`; `few_preemptions` tries those first in which processes seldom overtake each other.
    `confirm`: run a counterexample again on a DuckDB store, or with real kills.

    Raises InvalidArgument for what makes no sense, and Unsteady where the code depends on something else than
    the log and the world: clocks, chance, what it keeps in memory, or reads once and not again after a death.
    That is looked for by names while the schedule without faults runs, and those with the first fault of
    each kind; by running these again, with sets in other orders and clocks that say other times, where only
    what then happens otherwise counts; and by up to twelve real deaths, if there may be crashes, or else by
    running a few schedules in another order. All that is done in child processes; what could not be is told
    in the `reserves` of the verdict. Not seen is what shows only after several faults, in another order or
    at a rarer time than those tried, and what is the work of files, the environment, or of C code and
    libraries, such as SQL's `current_date`. The memory of this process counts as that of a new one: what
    your code has left in it before, simulated or not, is put back, or told, only where it is found by names;
    restart first for a proof without that.
    """
    origin = called_from(whole=isinstance(history, Scenario))
    scenario = _scenario(history, actors, invariants, faults, world)
    check_strategy(strategy)
    check_limits(seconds, schedules)
    if confirm not in ("duckdb", "kill", None):
        raise InvalidArgument(f"confirm={confirm!r}: give 'duckdb', 'kill' or None")
    scenario.faults.budgets()  # told before anything runs
    over = deadline(seconds)
    search = Search(Stage(scenario), scenario.invariants, prune=prune)
    with as_before(search.stage) as remembered:
        found, steady, shared = None, Steady("", [], shares=False), set[str]()
        try:
            steady = unsteady(scenario, over)
            search.stage.over = over
            if steady.shares:
                search.afresh, shared = remembered.put_back, remembered.shared
            by_chance = strategy == "random"
            runs = _by_chance(search, seed) if by_chance else search.nodes(scenario.faults, strategy)
            found, why = _gone_through(search, runs, over, schedules)
        except KeyboardInterrupt:
            why = "it was interrupted"
        except TimeIsOver:
            why = f"{seconds:g} s are over"
        _must_be_as_it_was(remembered, shared)
        if found is None:
            exhausted = not why and strategy != "random"
            why = why or ("" if exhausted else "schedules were drawn by chance")
            return Verdict(scenario, search, exhausted, why, None, steady=steady)
        if strategy == "random":
            with suppress(KeyboardInterrupt):  # what was found is as good, if longer
                found = _shrunk(scenario, found, over)
        run = _again(scenario, found)
        how = Found(origin, _sought(strategy, seed=seed, seconds=seconds, schedules=schedules))
        counterexample = Counterexample(run, _confirmed(run, confirm, seconds), how)
        return Verdict(
            scenario, search, exhausted=False, stopped="", counterexample=counterexample, steady=steady
        )


def _must_be_as_it_was(remembered: Remembered, shared: Collection[str] = ()) -> None:
    """Have what code keeps be as it was. Raises Unsteady if it was not, but for what tasks may share."""
    if changed := [one for one in remembered.put_back() if one not in shared]:
        raise Unsteady(f"{', '.join(changed)}{CHANGED}")


def _gone_through(
    search: Search, runs: Iterator[Broken | None], over: Callable[[], bool], schedules: int | None
) -> tuple[Broken | None, str]:
    """Run schedules; return what is broken, or None, and why not all were run, if so. Raises TimeIsOver."""
    from esim.bar import Counter

    with Counter("schedules") as counter:
        while search.left:
            if over():
                raise TimeIsOver
            if schedules is not None and search.count.schedules >= schedules:
                return None, f"{schedules:,} schedules were the limit"
            broken = next(runs)
            if broken is not None:
                return broken, ""
            counter.at(search.count.schedules, f"{search.count.states:,} states")
    return None, ""


def _scenario(
    history: Any, actors: Any, invariants: object, faults: Faults | None, world: World | None
) -> Scenario:
    if not isinstance(history, Scenario):
        return Scenario(history, actors, invariants, faults=faults, world=world)
    if actors is not None or invariants != () or world is not None:
        raise InvalidArgument("a Scenario says actors, invariants and world itself: give nothing but faults")
    if faults is None:
        return history
    return history.with_faults(faults)


def _by_chance(search: Search, seed: int) -> Iterator[Broken | None]:
    """Run schedule after schedule by chance, without end, after the one without faults."""
    budgets = search.stage.scenario.faults.budgets()
    first = search.stage.begin(budgets)
    number, states = 0, set[Any]()
    while True:
        chance = Chance(f"{seed} {number}", 0.15 if number else 0.0)
        recording = Recording(search.stage, search.stage.scenario.invariants, chance.pick)
        search.count.schedules += 1
        search.count.runs += 1
        if search.afresh is not None:
            search.afresh()
        run = recording.run(first, checks=True)
        search.count.states = len(states := states | recording.states)
        for name in [name for name in search.unseen if name in recording.seen]:
            del search.unseen[name]
        if not number:
            search.failing = failing(search.stage.players)
        yield None if run.broken is None else Broken(*run.broken, dict(chance.choices))
        number += 1


def _shrunk(scenario: Scenario, found: Broken, over: Callable[[], bool]) -> Broken:
    """Return what breaks the same invariant with as few faults as possible, as far as there is time to look.

    Only what chance has found needs that: the other strategies come to fewer faults first.
    """
    found = _without_needless(scenario, found)
    search = Search(Stage(scenario), scenario.invariants)
    search.stage.over = over
    try:
        for fewer in islice(search.nodes(scenario.faults, "exhaustive", len(found.choices)), _TRIED):
            if fewer is not None and fewer.invariant == found.invariant:
                again = _run(scenario, fewer.choices)
                if again.broken is not None and again.broken[0] == found.invariant:  # and no other before it
                    return fewer
    except TimeIsOver:
        pass
    return found


def _without_needless(scenario: Scenario, found: Broken) -> Broken:
    """Leave out each choice without which the others, at their places, break the same invariant as well."""
    taken = [one for one in _run(scenario, found.choices).asked if one.number in found.choices]
    for needless in reversed(taken):
        stage = Stage(scenario)
        others = [one for one in taken if one is not needless]
        recording = Recording.where(stage, scenario.invariants, others)
        run = recording.run(stage.begin(_allowed(scenario.faults)), checks=True)
        if run.broken is not None and run.broken[0] == found.invariant:
            return _without_needless(scenario, found._replace(choices=run.choices))
    return found


def _allowed(faults: Faults) -> dict[str, int]:
    """Return how many faults of each kind a run may have: as good as any number where it is by chance."""
    return {name: _MANY if isinstance(value, float) else int(value) for name, value in vars(faults).items()}


def _run(scenario: Scenario, choices: Choices, *, strict: bool = True, checks: bool = True) -> Run:
    stage = Stage(scenario)
    budgets = _allowed(scenario.faults)
    return Recording.of(stage, scenario.invariants, choices, strict=strict).run(
        stage.begin(budgets), checks=checks
    )


def _again(scenario: Scenario, found: Broken) -> Run:
    """Return the run of what was found. Raises Unsteady if it breaks nothing, or another invariant."""
    run = _done_again(scenario, found.choices)
    if run.broken is None or run.broken[0] != found.invariant:
        raise Unsteady(
            f"a schedule broke {found.invariant!r} ({found.message}), and done again it breaks "
            f"{repr(run.broken[0]) if run.broken else 'nothing'}: something in it comes from elsewhere than "
            "the log and the world"
        )
    return run


def _done_again(scenario: Scenario, choices: Choices, *, checks: bool = True) -> Run:
    """Return the run of choices that were there before. Raises Unsteady if one of them is not any more."""
    try:
        return _run(scenario, choices, checks=checks)
    except TokenMismatch as differs:
        raise Unsteady(
            f"a schedule that was run before goes another way ({differs}): something in it comes from "
            "elsewhere than the log and the world"
        ) from None


def _confirmed(run: Run, confirm: Confirm, seconds: float | None) -> str:
    try:
        if confirm == "duckdb":
            return on_duckdb(run.scenario, run, seconds)
        return with_kills(run.scenario, run, seconds) if confirm == "kill" else ""
    except KeyboardInterrupt:
        return "not confirmed: it was interrupted"


def _sought(strategy: Strategy, **limits: Any) -> dict[str, Any]:
    """Return how a test looks for more: for all there is, however long it takes, or by chance as it was."""
    if strategy == "exhaustive":
        return {"seconds": None}
    return {"strategy": strategy, **(limits if strategy == "random" else {"seconds": None})}


def replay(
    token: str,
    history: Any,
    actors: Any = None,
    invariants: object = (),
    *,
    faults: Faults | None = None,
    world: World | None = None,
) -> Run:
    """Run the schedule that a token stands for, exactly; the scenario is given as to `explore`.

    Raises TokenMismatch if the token belongs to another scenario or version, and names the difference.
    """
    scenario = _scenario(history, actors, invariants, faults, world)
    fingerprint, choices = token_read(token)
    mine = Stage(scenario).fingerprint
    added = scenario.added(fingerprint)
    differ = [side for side in SIDES if side_of(mine, side) != side_of(fingerprint, side)]
    if added is not None and "world" in differ:
        differ.remove("world")
    if differ:
        raise TokenMismatch(
            f"the token {token} belongs to another scenario: {' and '.join(SIDES[side] for side in differ)} "
            "differ; replay it with what it was found with",
            differ,
        )
    with as_before(Stage(scenario)):
        run = _run(scenario, choices)
    new = {one.lane for one in run.steps} & set(added or ())
    if new:
        raise TokenMismatch(
            f"the token {token} belongs to another scenario: world differ; {', '.join(sorted(new))} was not "
            "there when it was found, and is used",
            ["world"],
        )
    run.stage.fingerprint = fingerprint
    return run


def simulate(
    history: Any,
    actors: Any = None,
    invariants: object = (),
    *,
    faults: Faults | None = None,
    world: World | None = None,
    seed: int = 0,
) -> Run:
    """Run once, with faults by chance from `seed`; `faults` holds probabilities, or budgets to spend.

    Returns the run: a timeline, dataframes of steps, tables, dead letters and effects, and `at(step)`. The
    world, and what the code has kept in memory, are as they were before.
    """
    scenario = _scenario(history, actors, invariants, faults, world)
    stage = Stage(scenario)
    given = {name: value for name, value in vars(scenario.faults).items() if value}
    budgets = _allowed(scenario.faults)
    chances = {name: value if isinstance(value, float) else 0.15 for name, value in given.items()}
    chance = Chance(f"simulate {seed}", chances)
    with as_before(stage):  # so that what comes next begins as this did
        run = Recording(stage, scenario.invariants, chance.pick).run(stage.begin(budgets), checks=False)
    run.seed = seed
    return run


def what_next(
    token: str,
    history: Any,
    actors: Any = None,
    invariants: object = (),
    *,
    faults: Faults | None = None,
    world: World | None = None,
) -> pd.DataFrame:
    """Return the choices on the way of a token's schedule.

    Columns: choice (its number), step, lane, place, options (what could be chosen), taken.
    """
    import pandas as pd

    run = replay(token, history, actors, invariants, faults=faults, world=world)
    rows = [
        (
            *(one.number, one.step, one.lane, one.told),
            ", ".join(each or "–" for each in one.options),
            one.taken,
        )
        for one in run.asked
    ]
    return pd.DataFrame(rows, columns=["choice", "step", "lane", "place", "options", "taken"])


def crash_matrix(
    history: Any,
    actors: Any = None,
    invariants: object = (),
    *,
    world: World | None = None,
) -> Any:
    """Return what becomes of a crash: for each process a table of events by the places to die at.

    Where something is broken without a crash already, it says so, and all is run to the end nevertheless.
    Raises Unsteady as `explore` does: what is kept in memory would be lost by a crash.
    """
    from esim.matrix import Matrix

    scenario = _scenario(history, actors, invariants, Faults(crash=1), world)
    with as_before(Stage(scenario)) as remembered:
        unsteady(scenario)
        base, cells = _run(scenario, {}, checks=False), []
        _must_be_as_it_was(remembered)
        for one in base.asked:
            cells.append((one, _done_again(scenario, {one.number: 1}, checks=base.broken is None)))
            _must_be_as_it_was(remembered)
    return Matrix(scenario, base, cells)
