"""What is seen of code while it runs, line by line: sets that are gone through, clocks that are handed on.

The names, attributes and items in a line are looked up as the line is about to run, and those that it binds
once it has, so that a set is known wherever it comes from, and no longer than it is one. Where a line never
runs, they are as its function began, or returned. What C code calls, as `iter(time.time, None)`, is seen
nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import sys
from asyncio import Future
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodDescriptorType
from typing import Any

from esim.clockuse import Use
from esim.codetree import UNKNOWN, Place, Tree, name_of, place_of, span, tree_of, value_of
from esim.setorder import Order

_MAKE_SETS = {"copy", "difference", "intersection", "symmetric_difference", "union"}
_OF_SETS = ast.Sub | ast.BitOr | ast.BitAnd | ast.BitXor
_OTHER, _NUMBERS, _EMPTY, _TASKS, _TEXTS = range(5)
"""What an expression has stood for: no set, or a set of numbers, or of what is in no order. An empty one may
be of anything, and counts as such unless there were numbers in it as well."""
_YIELDS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Lines:
    """What is seen of code while it runs, and read in its source."""

    def __init__(self, unsteady: Callable[[Any], str]) -> None:
        """Take note of what `unsteady` has a name for: C functions of a clock, of chance, of the process."""
        self._unsteady = unsteady
        self._ran: dict[CodeType, Tree | None] = {}
        self._stood: dict[ast.expr, set[int]] = {}
        """What each expression has stood for, as its line ran."""
        self._supposed: dict[ast.expr, int] = {}
        """What it stood for when its function began, or returned."""
        self._makers: set[CodeType] = set()
        """Functions that have returned a set."""
        self._called: dict[ast.expr, CodeType] = {}
        """The functions that names stood for."""
        self._handed: dict[str, None] = {}
        self._acts: set[tuple[str, Place]] = set()

    # --- while it runs -------------------------------------------------------------------------------------

    def trace(self, frame: FrameType) -> Any:
        """Look at code as it begins; return what looks at each line of it, as `sys.settrace` has it."""
        code = frame.f_code
        if code not in self._ran:
            self._ran[code] = tree_of(code)
        tree = self._ran[code]
        if tree is None:
            return None
        self._suppose(tree, frame)
        unbound: Sequence[ast.expr] = ()

        def line(frame: FrameType, event: str, _arg: Any) -> Any:
            nonlocal unbound
            self._look_up(tree, unbound, frame)  # by now, the line before has run
            here = tree.chains.get(frame.f_lineno, ()) if event == "line" else ()
            unbound = self._look_up(tree, here, frame)
            if event == "return":
                self._suppose(tree, frame)
            return line

        return line

    def returned(self, frame: FrameType, value: Any) -> None:
        """Note who has called a function that returns a set."""
        back, code = frame.f_back, frame.f_code
        if not isinstance(value, set | frozenset) or code.co_flags & _YIELDS or back is None:
            return
        if _kind(value) not in (_EMPTY, _NUMBERS):
            self._makers.add(code)
        tree = self._ran.get(back.f_code)
        for node in tree.at(place_of(back)) if tree else ():
            if isinstance(node, ast.Await) or _is_call_of(node, code, back):
                self._stood.setdefault(node, set()).add(_kind(value))

    def acts(self, frame: FrameType | None) -> None:
        """Note which code has come to do something to the world."""
        while frame is not None:
            place = place_of(frame) if frame.f_code in self._ran else None
            if place is not None:
                self._acts.add((frame.f_code.co_filename, place))
            frame = frame.f_back

    def is_harmless(self, frame: FrameType) -> bool:
        """Say whether the clock that is called at the moment is not read, or only logged."""
        tree = self._ran.get(frame.f_code)
        return tree is not None and Use(tree, frame).is_harmless()

    def _suppose(self, tree: Tree, frame: FrameType) -> None:
        for function in tree.functions(frame.f_code):
            for node in tree.chains_in(function):
                value = value_of(node, frame)
                if value is not UNKNOWN:
                    self._supposed[node] = _kind(value)
                    self._learn(tree, node, value, frame.f_code)

    def _look_up(self, tree: Tree, nodes: Sequence[ast.expr], frame: FrameType) -> list[ast.expr]:
        """Note what expressions stand for; return those of which that is not known."""
        unknown = []
        for node in nodes:
            value = value_of(node, frame)
            if value is UNKNOWN:
                unknown.append(node)
            else:
                self._stood.setdefault(node, set()).add(_kind(value))
                self._learn(tree, node, value, frame.f_code)
        return unknown

    def _learn(self, tree: Tree, node: ast.expr, value: Any, code: CodeType) -> None:
        """Note which function an expression stands for, or which chance that nobody sees being called."""
        if isinstance(value, FunctionType):
            self._called[node] = value.__code__
        above = tree.parents.get(node)
        what = self._hands_on(above if isinstance(above, ast.Call) and above.func is node else None, value)
        if what:
            self._handed[f"{code.co_name} {what} (line {node.lineno})"] = None

    def _hands_on(self, called: ast.Call | None, value: Any) -> str:
        if isinstance(value, partial):
            value, called = value.func, None
        dice = _of_numpy(value, called)
        if dice:
            return f"calls {dice}()"
        if called is not None or not callable(value) or isinstance(value, type):
            return ""
        found = self._unsteady(value)
        return found and f"hands on {found}"

    # --- and then ------------------------------------------------------------------------------------------

    def have_tasks(self) -> bool:
        """Say whether tasks were seen in a set."""
        return any(_TASKS in kinds for kinds in self._stood.values())

    def calls(self) -> list[str]:
        """Return the clocks and dice that code hands on, or that are C code's."""
        told = dict(self._handed)
        for code, tree in self._ran.items():
            for function in tree.functions(code) if tree else ():
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and name_of(node.func) == "datetime64" and _is_now(node):
                        told[f"{code.co_name} calls {ast.unparse(node)} (line {node.lineno})"] = None
        return list(told)

    def orders(self) -> tuple[list[str], list[str]]:
        """Return the places where code that ran goes through a set in its own order; and those with tasks."""
        found: dict[int, dict[tuple[str, int], str]] = {_TEXTS: {}, _TASKS: {}}
        for code, tree in self._ran.items():
            for node, kind in self._in_order(code, tree) if tree else ():
                told = f"{code.co_name} goes through the set {ast.unparse(node)} (line {node.lineno})"
                found[kind][code.co_filename, node.lineno] = told
        return list(found[_TEXTS].values()), list(found[_TASKS].values())

    def _in_order(self, code: CodeType, tree: Tree) -> Iterator[tuple[ast.expr, int]]:
        def acts(node: ast.expr) -> bool:
            whole = span(node)
            return any(file == code.co_filename and whole.has(place) for file, place in self._acts)

        order = Order(tree, acts)
        for function in tree.functions(code):
            for node, only_ends in order.looked_at(function):
                kind = self._stands_for(node)
                if kind >= _EMPTY and not (only_ends and kind != _TEXTS):
                    yield node, _TEXTS if kind == _EMPTY else kind

    def _stands_for(self, node: ast.expr) -> int:  # noqa: PLR0911 - one for each kind of expression
        match node:
            case ast.Set():
                return _literal(node)
            case ast.SetComp():
                return _TEXTS
            case ast.BinOp(left=left, right=right, op=op):
                sides = [_TEXTS if _are_keys(one) else self._stands_for(one) for one in (left, right)]
                return max(sides) if isinstance(op, _OF_SETS) else _OTHER
            case ast.IfExp(body=one, orelse=other):
                return max(self._stands_for(one), self._stands_for(other))
            case ast.BoolOp(values=values):
                return max(map(self._stands_for, values))
            case ast.NamedExpr(value=one):
                return self._stands_for(one)
            case ast.Call(func=ast.Attribute(attr=name, value=owner)) if name in _MAKE_SETS:
                return self._stands_for(owner)
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return _TEXTS
            case ast.Call(func=function) if node not in self._stood:
                return _TEXTS if self._called.get(function) in self._makers else _OTHER
        known = self._stood.get(node) or {self._supposed.get(node, _OTHER)}
        return max(known - {_EMPTY} if _NUMBERS in known else known)


# --- values ------------------------------------------------------------------------------------------------


def _kind(value: Any) -> int:
    """Return what a value is: a set whose order differs from process to process is one of texts, or tasks."""
    if not isinstance(value, set | frozenset):
        return _OTHER
    if not value:
        return _EMPTY
    if all(map(_is_of_numbers, value)):
        return _NUMBERS
    return _TASKS if all(isinstance(one, Future) for one in value) else _TEXTS


def _is_of_numbers(value: Any) -> bool:
    """Say whether the hash of a value is the same in every process: of a number, or a tuple of such."""
    return isinstance(value, int | float) or (isinstance(value, tuple) and all(map(_is_of_numbers, value)))


def _literal(node: ast.Set) -> int:
    try:
        return _kind(ast.literal_eval(node))
    except (ValueError, TypeError):
        return _TEXTS


def _is_call_of(node: ast.expr, code: CodeType, caller: FrameType) -> bool:
    """Say whether it is this expression that calls some code, and not C code that it is handed to."""
    if isinstance(node, ast.Attribute):
        return node.attr == code.co_name  # a property
    if not isinstance(node, ast.Call) or code.co_name == "__next__":
        return False
    called = value_of(node.func, caller)
    return not isinstance(called, BuiltinFunctionType | MethodDescriptorType | type)


def _of_numpy(value: Any, called: ast.Call | None) -> str:
    """Return the name of a function of numpy's chance; a seed leaves none."""
    module = sys.modules.get("numpy.random")
    if module is None:
        return ""
    name = getattr(value, "__name__", "")
    if getattr(value, "__self__", None) is module.mtrand._rand and name != "seed":
        return f"numpy.random.{name}"
    makes = (
        value in (module.default_rng, module.RandomState, module.SeedSequence) if callable(value) else False
    )
    without = called is not None and not (called.args or called.keywords)
    return f"numpy.random.{name}" if makes and without else ""


def _is_now(call: ast.Call) -> bool:
    return any(isinstance(one, ast.Constant) and one.value in ("now", "today") for one in call.args)


def _are_keys(node: ast.AST) -> bool:
    """Say whether these are the keys of a dict, of which `-`, `|`, `&` and `^` make a set."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"
