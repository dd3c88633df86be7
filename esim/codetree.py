"""The source of a file as a tree, whose parts are found by their place, and what its names stand for."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from esim.world import Table

UNKNOWN = object()
"""What a name stands for that is not bound, or that only a run of somebody's code could tell."""


class Place(NamedTuple):
    """Where something is written: its first and its last line, and the columns."""

    line: int
    end_line: int
    column: int
    end_column: int

    def has(self, other: Place) -> bool:
        """Say whether another place is a part of this one."""
        begins = (self.line, self.column) <= (other.line, other.column)
        return begins and (other.end_line, other.end_column) <= (self.end_line, self.end_column)


class Tree:
    """The source of a file."""

    def __init__(self, text: str) -> None:
        """Raises SyntaxError if this is no source of Python."""
        root = ast.parse(text)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.chains: dict[int, list[ast.expr]] = {}
        """By line: the names that are read, and the attributes and items of such."""
        self._ends: dict[tuple[int, int], list[ast.expr]] = {}
        self._functions: dict[tuple[int, str], list[ast.AST]] = {}
        self._within: dict[ast.AST, list[ast.expr]] = {}
        for node in ast.walk(root):
            self.parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))
            self._note(node)

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                first = min(one.lineno for one in (node, *node.decorator_list))
                self._functions.setdefault((first, name), []).append(node)
            case ast.Lambda():
                self._functions.setdefault((node.lineno, "<lambda>"), []).append(node)
            case ast.expr():
                root = root_of(node)
                if root is not None:
                    self.chains.setdefault(root.lineno, []).append(node)
                end = node.end_lineno or 0, node.end_col_offset or 0
                self._ends.setdefault(end, []).append(node)

    def functions(self, code: CodeType) -> list[ast.AST]:
        """Return what is the source of some code: of several lambdas of one line, all."""
        return self._functions.get((code.co_firstlineno, code.co_name), [])

    def chains_in(self, function: ast.AST) -> list[ast.expr]:
        """Return the names that a function reads, and the attributes and items of such."""
        if function not in self._within:
            found = (one for one in ast.walk(function) if isinstance(one, ast.expr))
            self._within[function] = [one for one in found if root_of(one) is not None]
        return self._within[function]

    def at(self, place: Place | None) -> list[ast.expr]:
        """Return the expressions that end where this place does."""
        return [] if place is None else self._ends.get((place.end_line, place.end_column), [])


@lru_cache(maxsize=64)
def _parsed(text: str) -> Tree | None:
    try:
        return Tree(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def tree_of(code: CodeType) -> Tree | None:
    """Return the source of the file that code is written in, if there is one."""
    text = "".join(linecache.getlines(code.co_filename))
    return _parsed(text) if text else None


def place_of(frame: FrameType) -> Place | None:
    """Return where a frame is at the moment."""
    found = _positions(frame.f_code)[frame.f_lasti // 2]
    return None if None in found else Place(*found)  # type: ignore[arg-type]  # numbers, all of them


@lru_cache(maxsize=1024)
def _positions(code: CodeType) -> list[tuple[int | None, int | None, int | None, int | None]]:
    return list(code.co_positions())


def span(node: ast.expr) -> Place:
    """Return where an expression is written."""
    return Place(node.lineno, node.end_lineno or 0, node.col_offset, node.end_col_offset or 0)


def root_of(node: ast.AST) -> ast.Name | None:
    """Return the name that is read, if this is one, or an attribute or item of one."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript) and not _is_plain(node.slice):
            return None
        node = node.value
    return node if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else None


def _is_plain(key: ast.expr) -> bool:
    return isinstance(key, ast.Constant) or root_of(key) is not None


def name_of(function: ast.expr) -> str:
    """Return the last name of a function or method."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def function_of(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> ast.AST:
    """Return the function that something is written in, or the module."""
    while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module):
        node = parents[node]
    return node


def is_everybodys(name: str, function: ast.AST) -> bool:
    """Say whether what has a name in a function is seen outside of it."""
    outer = (one for one in ast.walk(function) if isinstance(one, ast.Global | ast.Nonlocal))
    return isinstance(function, ast.Module) or any(name in one.names for one in outer)


def value_of(node: ast.AST, frame: FrameType) -> Any:  # noqa: PLR0911 - one for each kind
    """Return what a name, attribute or item stands for at the moment, without running anybody's code."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id in frame.f_locals or node.id not in frame.f_code.co_names:
            return frame.f_locals.get(node.id, UNKNOWN)
        return frame.f_globals.get(node.id, getattr(builtins, node.id, UNKNOWN))
    if isinstance(node, ast.Attribute):
        return _attribute(value_of(node.value, frame), node.attr)
    if isinstance(node, ast.Subscript):
        owner, key = value_of(node.value, frame), value_of(node.slice, frame)
        rows = owner._rows if isinstance(owner, Table) else owner
        plain = type(rows) in (dict, list, tuple) and isinstance(key, str | int | tuple | None)
        try:
            return rows[key] if plain else UNKNOWN
        except (LookupError, TypeError):
            return UNKNOWN
    return UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    if owner is UNKNOWN:
        return UNKNOWN
    if type(owner).__module__.startswith(("esim.", "numpy.")) or type(owner) is type(sys):
        return getattr(owner, name, UNKNOWN)
    found = inspect.getattr_static(owner, name, UNKNOWN)
    return getattr(owner, name) if isinstance(found, classmethod) or _is_c(found) else found


def _is_c(found: Any) -> bool:
    """Say whether this is a method of C code, as `datetime.now`."""
    return type(found).__name__ in ("classmethod_descriptor", "builtin_function_or_method")
