"""Whether a scenario's code is steady: nothing in it comes from elsewhere than the log and the world.

The schedule without faults is run twice, and one with the first fault of each kind, and watched: calls of
clocks and random numbers, sets that are gone through, and what the code keeps in the memory of its process
are named. A proof about code that rolls dice would be none.
"""

from __future__ import annotations

import ast
import inspect
import random
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from esim.aside import Unanswered, aside
from esim.confirm import ending_of
from esim.deaths import PATIENCE, SURVIVES, tried
from esim.errors import Unsteady, said
from esim.faults import MEANINGS
from esim.reach import CHANGED, Remembered, held_by, is_users
from esim.recording import Choice, Recording
from esim.scenario import Scenario
from esim.stage import Stage

_NO_CLOCKS = {"get_clock_info", "mktime", "sleep", "strptime", "tzset"}
_CLASS_CLOCKS = {"now", "utcnow", "today"}
_OF_THE_PROCESS = {"hash", "id", "getpid", "getppid", "urandom"}
_NEW_IDS = {"getnode", "uuid1", "uuid4", "uuid6", "uuid7", "uuid8"}
_DICE = {"random", "secrets", "uuid"}
_LOOKED_AT = {"esim.memory", "esim.world"}
"""The modules of what a process looks at: the log, and the world."""

_CALLED = ": what comes of it cannot be replayed; take times, ids and chance from what the event says"
_CACHED = (
    " keeps what it read in a cache: that is in the memory of the process, and its death would lose it; keep "
    "it in world.memory(…), or in a table"
)
_IN_ORDER = ": the order of a set of texts differs from process to process; sort it"
_ANEW = (
    " is another when the actors are made anew after a run, as by a process that is started again: read it "
    "where it is used, or keep it in world.memory(…)"
)


@dataclass
class _Seen:
    """What was seen of the user's code while it ran."""

    cached: set[CodeType]
    calls: dict[str, None] = field(default_factory=dict)
    caches: dict[str, None] = field(default_factory=dict)
    anew: dict[str, None] = field(default_factory=dict)
    sets: dict[CodeType, set[str]] = field(default_factory=dict)
    """Which names stand for a set in what has run, as it is called for the first time."""


def unsteady(scenario: Scenario, over: Callable[[], bool] | None = None) -> str:
    """Have processes die for real, and run the schedule without faults twice.

    Returns what could not be tried, or an empty text. Raises Unsteady, and names what makes it unsteady; and
    TimeIsOver once `over` says so.
    """
    deaths = tried(scenario, over)
    if deaths.found:
        raise Unsteady(_with_names(scenario, deaths.found))
    _watch(scenario, over)
    return deaths.untried


def _with_names(scenario: Scenario, found: str) -> str:
    """Return what was found, and what has it be so, if that can be told; what looks for it is left behind."""

    def named() -> str:
        try:
            _watch(scenario, None)
        except Unsteady as error:
            return str(error)
        return ""

    try:
        told = aside(named, PATIENCE)
    except Unanswered:
        return found
    return f"{told} ({found.removesuffix(SURVIVES)})" if told else found


def _watch(scenario: Scenario, over: Callable[[], bool] | None) -> None:
    """Run the schedule without faults twice, and those with one fault, watched. Raises Unsteady."""

    def made() -> Stage:
        stage = Stage(scenario)
        stage.over = over
        return stage

    stage = made()
    remembered = Remembered(stage)
    seen = _Seen(remembered.cached)
    one, asked = _once(stage, seen)
    types = {one.position: one.type for one in stage.look.log}
    for number, option in _first_of_each(asked, types).values():
        _once(made(), seen, {number: option})
    reasons = (
        (seen.calls, _CALLED),
        (seen.caches, _CACHED),
        (remembered.put_back(), CHANGED),
        (_set_orders(seen.sets), _IN_ORDER),
        (seen.anew, _ANEW),
    )
    for names, why in reasons:
        if names:
            raise Unsteady(f"{', '.join(names)}{why}")
    two, _ = _once(made(), seen)
    if one != two:
        place = next(
            (f"{a[1]} {a[2]!r}, then {b[2]!r}" for a, b in zip(one[0], two[0], strict=False) if a != b), ""
        )
        raise Unsteady(
            f"run twice without faults, it differs{f' at {place}' if place else ' in how it ends'}"
        )


def _once(
    stage: Stage, seen: _Seen, choices: Mapping[int, int] | None = None
) -> tuple[tuple[Any, Any], list[Choice]]:
    """Run once, watched; return what happened and how it ended, and what could have been chosen."""
    scenario, before = stage.scenario, held_by(stage.actors)
    recording = Recording.of(stage, {}, choices or {}, strict=False)
    first = stage.begin(scenario.faults.budgets())
    with _watched(seen):
        run = recording.run(first, checks=False)
    happened = (run.steps, ending_of(stage, None)), run.asked
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
    """Return for each kind of fault, place and event the first at which it can happen; its number there."""
    found: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for one in asked:
        for index, option in enumerate(one.options):
            if option in MEANINGS:
                key = option, one.lane, one.place, types.get(one.position, "")
                found.setdefault(key, (one.number, index))
    return found


@contextmanager
def _watched(seen: _Seen) -> Iterator[None]:
    """Note what the user's code calls and looks at."""
    users: dict[CodeType, bool] = {}

    def is_of_user(frame: FrameType) -> bool:
        if frame.f_code not in users:
            users[frame.f_code] = is_users(frame.f_code)
        return users[frame.f_code]

    def called(by: FrameType | None, what: str) -> None:
        if by and what and is_of_user(by) and by.f_code.co_name != "__hash__":
            seen.calls[f"{by.f_code.co_name} calls {what}() (line {by.f_lineno})"] = None

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        module = frame.f_globals.get("__name__") if event == "call" else ""
        if event == "c_call" and is_of_user(frame):
            called(frame, _of_c(arg))
        elif module in _DICE:
            called(frame.f_back, _of_chance(frame))
        elif module in _LOOKED_AT and seen.cached:
            seen.caches.update(dict.fromkeys(_cached(frame, seen.cached)))
        elif event == "call" and frame.f_code not in seen.sets and is_of_user(frame):
            seen.sets[frame.f_code] = _sets(frame)

    former = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(former)


def _of_c(called: Any) -> str:
    """Return the name of a C function if its answer is of a clock, of chance, or of this process."""
    name, owner = str(getattr(called, "__name__", "")), getattr(called, "__self__", None)
    if inspect.isclass(owner) and owner.__module__ == "datetime" and name in _CLASS_CLOCKS:
        return f"{owner.__name__}.{name}"
    if owner is _DEALER or isinstance(owner, random.SystemRandom):
        return f"random.{name}"
    module = str(getattr(called, "__module__", None))
    if module in ("builtins", "nt", "posix") and name in _OF_THE_PROCESS:
        return name if module == "builtins" else f"os.{name}"
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


def _sets(frame: FrameType) -> set[str]:
    """Return the names that stand for sets as a function begins: of its module, around it, or handed in."""
    outside = {name: frame.f_globals.get(name) for name in frame.f_code.co_names}
    known = {**outside, **frame.f_locals}.items()
    return {
        name
        for name, value in known
        if isinstance(value, set | frozenset) and not all(isinstance(one, int) for one in value)
    }


_ORDERLY = {"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"}
"""Functions to whose answer the order of what they are given does not matter."""
_GOES_THROUGH = {"enumerate", "iter", "list", "map", "next", "tuple", "zip"}
_MAKE_SETS = {"copy", "difference", "intersection", "symmetric_difference", "union"}


def _set_orders(ran: Mapping[CodeType, set[str]]) -> list[str]:
    """Return the places where code that ran goes through a set in its own order, if its source shows it."""
    whole = [code for code in ran if not code.co_name.endswith(("comp>", "expr>"))]  # these are in others
    return list(dict(order for code in whole for order in _orders_in(code, ran[code])).values())


def _orders_in(code: CodeType, handed: set[str]) -> Iterator[tuple[tuple[str, int], str]]:
    """Give where code goes through a set, and that in words; `handed` are names of sets from elsewhere."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return
    for node in _in_order(tree, _named_sets(tree, handed)):
        line = code.co_firstlineno + node.lineno - 1
        told = f"{code.co_name} goes through the set {ast.unparse(node)} (line {line})"
        yield (code.co_filename, line), told


def _named_sets(tree: ast.AST, handed: set[str]) -> set[str]:
    """Return the names that stand for a set wherever a value is given to them."""
    named = [
        (target.id, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    sets = set(handed)
    for _ in named:  # a set may be made of another that comes later in the text
        sets |= {name for name, value in named if _is_set(value, sets)}
    return sets - {name for name, value in named if not _is_set(value, sets)}


def _in_order(tree: ast.AST, sets: set[str]) -> Iterator[ast.expr]:
    """Give the sets that are gone through where their order may matter."""
    harmless = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ORDERLY
        for argument in node.args
        if isinstance(argument, ast.GeneratorExp | ast.ListComp | ast.SetComp)
        for part in argument.generators
    }
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(node, ast.For) or (isinstance(node, ast.comprehension) and id(node) not in harmless):
            found = [node.iter]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _GOES_THROUGH:
            found = list(node.args)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "pop" and not node.args:
                found = [node.func.value]
            elif node.func.attr == "join":
                found = list(node.args)
        yield from (one for one in found if _is_set(one, sets) and not _of_numbers(one))


def _of_numbers(node: ast.expr) -> bool:
    """Say whether a set holds but whole numbers, whose order is the same in every process."""
    if isinstance(node, ast.BinOp):
        return _of_numbers(node.left) and _of_numbers(node.right)
    return isinstance(node, ast.Set) and all(
        isinstance(one, ast.Constant) and isinstance(one.value, int) for one in node.elts
    )


def _is_set(node: ast.AST, sets: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp):
        return any(_is_set(side, sets) or _are_keys(side) for side in (node.left, node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in _MAKE_SETS and _is_set(node.func.value, sets)
    return isinstance(node, ast.Name) and node.id in sets


def _are_keys(node: ast.AST) -> bool:
    """Say whether these are the keys of a dict, of which `-`, `|`, `&` and `^` make a set."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"
