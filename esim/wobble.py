"""Whether a scenario's code is steady: nothing in it comes from elsewhere than the log and the world.

The schedule without faults is run twice, and one with the first fault of each kind, and watched: calls of
clocks and random numbers, and what the handlers keep in variables of their module, are named. A proof about
code that rolls dice would be none.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from logging import Logger
from pathlib import Path, PurePath
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from esim.confirm import ending_of
from esim.errors import Unsteady
from esim.faults import MEANINGS
from esim.frozen import frozen
from esim.recording import Choice, Recording
from esim.scenario import Scenario, Task
from esim.stage import Stage
from esim.world import Part, Service, World

_HERE = str(Path(__file__).parent)
_LIBRARY = str(PurePath(inspect.__file__).parent)
_CLOCKS = {
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "gmtime",
    "localtime",
}
_CLASS_CLOCKS = {"now", "utcnow", "today"}
_DICE = {"random", "uuid", "secrets"}


def unsteady(scenario: Scenario, over: Callable[[], bool] | None = None) -> None:
    """Run the schedule without faults twice. Raises Unsteady, and names what makes it unsteady.

    Raises TimeIsOver once `over` says so.
    """

    def made() -> Stage:
        stage = Stage(scenario)
        stage.over = over
        return stage

    calls: dict[str, None] = {}
    stage = made()
    functions = list(_functions(stage))
    before = {name: value for function in functions for name, value in _kept_by(function)}
    one, asked = _once(stage, calls)
    for number, option in _first_of_each(asked).values():
        _once(made(), calls, {number: option})
    after = {name: value for function in functions for name, value in _kept_by(function)}
    changed = [name for name in before if before[name] != after.get(name)]
    if calls:
        raise Unsteady(
            f"{'; '.join(calls)}: what comes of it cannot be replayed; take times, ids and chance from what "
            "the event says"
        )
    if changed:
        raise Unsteady(
            f"{', '.join(changed)} changed while the handlers ran: it is in the memory of the process, and "
            "its death would lose it; keep it in world.memory(…), or in a table"
        )
    orders = [told for function in functions for told in _set_orders(inspect.unwrap(function))]
    if orders:
        raise Unsteady(
            f"{'; '.join(orders)}: the order of a set of texts differs from process to process; sort it"
        )
    two, _ = _once(made(), {})
    if one != two:
        place = next(
            (f"{a[1]} {a[2]!r}, then {b[2]!r}" for a, b in zip(one[0], two[0], strict=False) if a != b), ""
        )
        raise Unsteady(
            f"run twice without faults, it differs{f' at {place}' if place else ' in how it ends'}"
        )


def _once(
    stage: Stage, calls: dict[str, None], choices: Mapping[int, int] | None = None
) -> tuple[tuple[Any, Any], list[Choice]]:
    """Run once, watched; return what happened and how it ended, and what could have been chosen."""
    recording = Recording.of(stage, {}, choices or {}, strict=False)
    first = stage.begin(stage.scenario.faults.budgets())
    with _watched(calls):
        run = recording.run(first, checks=False)
    return (run.steps, ending_of(stage, None)), run.asked


def _first_of_each(asked: Sequence[Choice]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Return for each kind of fault and of place the first at which it can happen, and its number there."""
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for one in asked:
        for index, option in enumerate(one.options):
            if option in MEANINGS:
                found.setdefault((option, one.lane, one.place), (one.number, index))
    return found


@contextmanager
def _watched(calls: dict[str, None]) -> Iterator[None]:
    """Note each call of a clock or of chance that a user's code makes."""

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and _is_users(frame.f_code):
            called = _of_c(arg)
            if called:
                calls[f"{frame.f_code.co_name} calls {called}() (line {frame.f_lineno})"] = None
        elif event == "call" and PurePath(frame.f_code.co_filename).stem in _DICE:
            caller = frame.f_back
            if caller is not None and _is_users(caller.f_code):
                called = f"{PurePath(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
                calls[f"{caller.f_code.co_name} calls {called}() (line {caller.f_lineno})"] = None

    former = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(former)


def _of_c(called: Any) -> str:
    """Return the name of a C function if it is one of a clock or of chance."""
    name, owner = str(getattr(called, "__name__", "")), getattr(called, "__self__", None)
    module = str(getattr(called, "__module__", None) or type(owner).__module__)
    if inspect.isclass(owner) and owner.__module__ == "datetime" and name in _CLASS_CLOCKS:
        return f"{owner.__name__}.{name}"
    chance = module in ("random", "_random") or name == "urandom"
    return f"{module.strip('_')}.{name}" if chance or (module == "time" and name in _CLOCKS) else ""


def _is_users(code: CodeType) -> bool:
    name = code.co_filename
    return not name.startswith((_HERE, _LIBRARY, "<frozen")) and "site-packages" not in name


def _functions(stage: Stage) -> Iterator[Any]:
    """Give the functions and methods that the actors and the services of the world are made of."""
    given = [one.function if isinstance(one, Task) else one.handler for one in stage.actors]
    given += [part._function for part in stage.world.parts.values() if isinstance(part, Service)]
    for one in given:
        handler: Any = one
        while isinstance(handler, partial):
            handler = handler.func
        if isinstance(handler, FunctionType | MethodType):
            yield handler
        elif inspect.isclass(handler):
            yield from (member for member in vars(handler).values() if isinstance(member, FunctionType))
        elif isinstance(getattr(handler, "__call__", None), MethodType):  # noqa: B004 - the method is wanted
            method: Any = handler.__call__
            yield method


def _kept_by(function: Any) -> Iterator[tuple[str, Any]]:
    """Give what outside of a function it names and can change, with its value."""
    plain = inspect.unwrap(function)
    if isinstance(plain, MethodType):
        yield from _attributes(plain.__self__, plain.__name__)
        plain = plain.__func__
    closure = inspect.getclosurevars(plain)
    for name, value in {**closure.globals, **closure.nonlocals}.items():
        if isinstance(value, Logger) or _has_parts(value):
            continue
        if isinstance(value, _HELD):
            yield f"{name!r} of {plain.__name__}", frozen(value)
        elif not callable(value) and not inspect.ismodule(value):
            yield from ((f"{name}.{told}", held) for told, held in _attributes(value, plain.__name__))


_HELD = (list, dict, set, int, float, str, tuple, type(None))


def _has_parts(value: Any) -> bool:
    """Say whether a container holds parts of a world, which have their own ways to be put back."""
    inside = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    )
    return any(isinstance(one, Part | World) or callable(one) for one in inside)


def _attributes(owner: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Give what an object of the user's own holds; what is of esim's has its own ways to be put back."""
    if type(owner).__module__.partition(".")[0] == "esim":
        return
    for key, value in getattr(owner, "__dict__", {}).items():
        if isinstance(value, _HELD):
            yield f"{key!r} of {name}", frozen(value)


_ORDERLY = {"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"}
"""Functions to whose answer the order of what they are given does not matter."""
_GOES_THROUGH = {"enumerate", "iter", "list", "map", "next", "tuple", "zip"}


def _set_orders(function: FunctionType) -> Iterator[str]:
    """Give the places where a function goes through a set in its own order, as far as its source shows it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return
    sets = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_set(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in _in_order(tree, sets):
        line = function.__code__.co_firstlineno + node.lineno - 1
        yield f"{function.__name__} goes through the set {ast.unparse(node)} (line {line})"


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
    return isinstance(node, ast.Set) and all(
        isinstance(one, ast.Constant) and isinstance(one.value, int) for one in node.elts
    )


def _is_set(node: ast.AST, sets: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    return isinstance(node, ast.Name) and node.id in sets
