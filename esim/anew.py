"""Functions that are compiled anew from their source, so that each value in them is seen.

Nothing else is changed: they have the same names, lines and variables, and may take the place of others.
"""

from __future__ import annotations

import ast
import gc
import linecache
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any, cast

SEES, CALLS = "__esim_sees__", "__esim_calls__"
"""What code that is compiled anew calls: with each value, and with each function that it is about to call."""
_VALUES = ast.Attribute | ast.Await | ast.BinOp | ast.Call | ast.Name | ast.Set | ast.SetComp | ast.Subscript


class _Wrapping(ast.NodeTransformer):
    """Has each value be seen, and each function as it is about to be called."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.pattern | ast.arguments) or not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Call):
            return self._wrapped(SEES, self._call(node))
        node = self.generic_visit(node)
        loaded = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
        return self._wrapped(SEES, node) if isinstance(node, _VALUES) and loaded else node

    def _call(self, call: ast.Call) -> ast.Call:
        if isinstance(call.func, ast.Attribute):
            call.func.value = cast("ast.expr", self.visit(call.func.value))
        elif not isinstance(call.func, ast.Name):
            call.func = cast("ast.expr", self.visit(call.func))
        call.args = [cast("ast.expr", self.visit(one)) for one in call.args]
        for one in call.keywords:
            one.value = cast("ast.expr", self.visit(one.value))
        call.func = self._wrapped(CALLS, call.func)
        return call

    @staticmethod
    def _wrapped(by: str, node: ast.AST) -> ast.Call:
        value = cast("ast.expr", node)
        name = ast.copy_location(ast.Name(by, ast.Load()), value)
        return ast.copy_location(ast.Call(name, [value], []), value)


@lru_cache(maxsize=64)
def _codes(name: str, text: str) -> dict[Any, list[CodeType]]:
    """Return the code of all functions in a source, compiled anew."""
    found: dict[Any, list[CodeType]] = {}
    try:
        tree = ast.parse(text)
        _Wrapping().visit(tree)
        waiting = [compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)]
    except (SyntaxError, ValueError, RecursionError):
        return {}
    while waiting:
        code = waiting.pop()
        found.setdefault(_key(code), []).append(code)
        waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
    return found


def anew(code: CodeType) -> CodeType:
    """Return code compiled anew from its source, or itself if that is not found."""
    found = _codes(code.co_filename, _source(code.co_filename)).get(_key(code), [])
    same = [one for one in found if len(found) == 1 or _begin(one) == _begin(code)]
    return same[0] if len(same) == 1 and same[0].co_freevars == code.co_freevars else code


def _key(code: CodeType) -> Any:
    return code.co_qualname, code.co_firstlineno, code.co_varnames[: code.co_argcount]


def _begin(code: CodeType) -> tuple[int, int]:
    """Return where the body of some code begins."""
    places = ((line, column) for line, _, column, _ in code.co_positions() if line and column)
    return min(places, default=(0, 0))


def _source(name: str) -> str:
    return "".join(linecache.getlines(name))


def told_of(frame: FrameType) -> str:
    """Return which set a frame is going through, as it is written, or the expression that does so."""
    place = [*frame.f_code.co_positions()][frame.f_lasti // 2]
    name = frame.f_code.co_filename
    match _places(_source(name)).get(place, []):
        case [ast.For(iter=gone) | ast.AsyncFor(iter=gone), *_]:
            return f"the set {ast.unparse(gone)}"
        case [ast.ListComp(generators=[one]) | ast.SetComp(generators=[one]), *_]:
            return f"the set {ast.unparse(one.iter)}"
        case [ast.GeneratorExp(generators=[one]) | ast.DictComp(generators=[one]), *_]:
            return f"the set {ast.unparse(one.iter)}"
        case [ast.Assign(value=gone), *_]:
            return f"the set {ast.unparse(gone)}"
        case [ast.expr() as whole, *_]:
            return f"a set in {ast.unparse(whole)}"
    return "a set"


@lru_cache(maxsize=64)
def _places(text: str) -> dict[Any, list[ast.AST]]:
    """Return what is written where in a source; what is unpacked into a place, for that place."""
    found: dict[Any, list[ast.AST]] = {}
    for node in ast.walk(ast.parse(text)):
        parts = node.targets if isinstance(node, ast.Assign) else [node]
        for one in parts:
            if isinstance(one, ast.expr | ast.stmt):
                place = one.lineno, one.end_lineno, one.col_offset, one.end_col_offset
                found.setdefault(place, []).append(node)
    return found


def functions_of(files: set[str]) -> list[FunctionType]:
    """Return the functions that there are, of some files."""
    frozen_, collects = gc.get_freeze_count(), gc.isenabled()
    gc.disable()
    gc.unfreeze()  # what is frozen is passed over
    found = [one for one in gc.get_objects() if type(one) is FunctionType]
    if frozen_:
        gc.freeze()
    if collects:
        gc.enable()
    return [one for one in found if one.__code__.co_filename in files]
