"""Functions that are compiled anew from their source, so that each value in them is seen.

Nothing else is changed: they have the same names, lines and variables, and may take the place of others.
"""

from __future__ import annotations
import __future__ as futures

import ast
import gc
import linecache
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any, cast

SEES, CALLS = "__esim_sees__", "__esim_calls__"
"""What code that is compiled anew calls: with each value, and with each function that it is about to call."""
_FUTURES = sum({getattr(futures, name).compiler_flag for name in futures.all_feature_names})
_VALUES = ast.Attribute | ast.Await | ast.BinOp | ast.Call | ast.Name | ast.Set | ast.SetComp | ast.Subscript


class _Wrapping(ast.NodeTransformer):
    """Has each value be seen, and each function as it is about to be called."""

    def __init__(self, *, texts: bool) -> None:
        """Know whether annotations are kept as `texts`."""
        self._texts = texts

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.pattern) or not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Call):
            return self._wrapped(SEES, self._call(node))
        annotations = {name: each for name, each in vars(node).items() if name in ("annotation", "returns")}
        vars(node).update(dict.fromkeys(annotations))  # no values, and kept as they are written
        node = self.generic_visit(node)
        vars(node).update(annotations)
        for one in filter(None, annotations.values() if not self._texts else ()):
            self._functions_in(one)
        loaded = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
        return self._wrapped(SEES, node) if isinstance(node, _VALUES) and loaded else node

    def _functions_in(self, annotation: ast.AST) -> None:
        """Have the values be seen in the functions that are written in an annotation."""
        if isinstance(annotation, ast.Lambda):
            self.generic_visit(annotation)
            return
        for one in ast.iter_child_nodes(annotation):
            self._functions_in(one)

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
def _codes(name: str, text: str, flags: int, *, apart: bool) -> dict[Any, list[tuple[CodeType, CodeType]]]:
    """Return the code of all functions in a source: as it is, and compiled anew.

    Each statement `apart`, as those of a cell are: what is called of a module that is imported in the same
    text is called in another way.
    """
    found: dict[Any, list[tuple[CodeType, CodeType]]] = {}
    try:
        tree = ast.parse(text)
        parts = [ast.Module([one], []) for one in tree.body] if apart else [tree]
        plain = [compile(one, name, "exec", flags, dont_inherit=True) for one in parts]
        texts = any(one.co_flags & futures.annotations.compiler_flag for one in plain)
        _Wrapping(texts=texts).visit(tree)
        wrapped = [compile(one, name, "exec", flags, dont_inherit=True) for one in parts]
    except (SyntaxError, ValueError, RecursionError):
        return {}
    waiting = [*zip(plain, wrapped, strict=True)]
    while waiting:
        both = waiting.pop()
        found.setdefault(_key(both[0]), []).append(both)
        inside = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in both]
        waiting += zip(*inside, strict=False)
    return found


def anew(code: CodeType) -> CodeType:
    """Return code compiled anew from its source, or itself if the source is not there, or another by now."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | (code.co_flags & _FUTURES)
    text = _source(code.co_filename)
    for apart in (False, True):
        found = _codes(code.co_filename, text, flags, apart=apart).get(_key(code), [])
        asserts = "@pytest_ar" in code.co_names and len(found) == 1  # as pytest has rewritten it
        for plain, new in found:
            if (asserts or plain == code) and _key(new) == _key(code):
                return new
    return code


def _key(code: CodeType) -> Any:
    return code.co_qualname, code.co_firstlineno, code.co_freevars


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
        case [ast.Assign(value=gone) | ast.YieldFrom(value=gone), *_]:
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
            if isinstance(one, ast.expr | ast.stmt) and not isinstance(one, ast.Expr):
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
