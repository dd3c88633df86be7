"""The code of a script, or of a notebook's cells, that a call is made with: as a module that has it alone.

A counterexample is found by a call such as `explore(history, [deduct], …)`. What its arguments are made of is
followed back through the statements before it: definitions, assignments, and calls of methods of what is
needed. Whether that is all, only a run can tell: whoever writes it down has to try it.
"""

from __future__ import annotations

import ast
import linecache
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from esim.errors import InvalidArgument

_RUNS = {"explore", "simulate", "replay", "what_next", "crash_matrix", "examine"}
_ARGUMENTS = ["history", "actors", "invariants"]
_NAMED = [*_ARGUMENTS, "faults", "world"]
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Origin(NamedTuple):
    """Where a call was made: its file or cell, its place there, and the cells of the notebook up to now."""

    file: str
    place: tuple[int | None, ...]
    cells: list[str] | None
    whole: bool
    """Whether it was given a Scenario, and not what one is made of."""


def called_from(*, whole: bool) -> Origin | None:
    """Return where the caller was called from, if that is a script's own code, or a cell's."""
    frame = sys._getframe(2)
    code = frame.f_code
    if code.co_name != "<module>" or frame.f_globals.get("__name__") != "__main__":
        return None
    place = list(code.co_positions())[frame.f_lasti // 2]
    cells = frame.f_globals.get("In")
    return Origin(code.co_filename, place, list(map(str, cells)) if isinstance(cells, list) else None, whole)


def as_module(origin: Origin) -> str:
    """Return a module with `scenario`, as it was explored.

    Raises InvalidArgument where the code is not known, or not plain enough to be followed.
    """
    source = "".join(linecache.getlines(origin.file))
    sources = _up_to(source, origin.cells) if origin.cells else [source]
    statements = [(one, text) for text in sources for one in _plain(_parsed(text).body)]
    at = next((n for n, (one, _) in reversed(list(enumerate(statements))) if _call_in(one, origin)), None)
    call = None if at is None else _call_in(statements[at][0], origin)
    if call is None:
        raise InvalidArgument("the call is not found in the code")
    made = _made(call, whole=origin.whole)
    kept = _needed(statements[:at], _names(made))
    first = [text for text in kept if text.startswith("from __future__")]
    parts = [*dict.fromkeys(first), "import esim.simulation", *(one for one in kept if one not in first)]
    return "\n\n".join([*parts, f"scenario = {ast.unparse(made)}"]) + "\n"


def _up_to(source: str, cells: list[str]) -> list[str]:
    """Return the cells up to the one whose source is given, as they were executed."""
    same = [number for number, cell in enumerate(cells) if cell.strip() == source.strip()]
    if not source.strip() or not same:
        raise InvalidArgument("the cell of the call is not known any more")
    return cells[: same[-1] + 1]


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])  # it did not run either


def _plain(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Give statements, and those that a script runs only as itself in the place of their `if`."""
    for one in body:
        if isinstance(one, ast.If) and ast.unparse(one.test) == "__name__ == '__main__'":
            yield from one.body
        else:
            yield one


def _call_in(statement: ast.stmt, origin: Origin) -> ast.Call | None:
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            place = node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
            if place == origin.place:
                return node
    return None


def _made(call: ast.Call, *, whole: bool) -> ast.expr:
    """Return what makes the scenario of a call."""
    given = dict(zip(_ARGUMENTS, call.args, strict=False))
    given |= {one.arg: one.value for one in call.keywords if one.arg in _NAMED}
    starred = any(isinstance(one, ast.Starred) for one in call.args) or any(not k.arg for k in call.keywords)
    if starred or "history" not in given:
        raise InvalidArgument("its arguments are not written one by one")
    if whole:
        scenario = given["history"]
        if "faults" not in given:
            return scenario
        return ast.Call(ast.Attribute(scenario, "with_faults", ast.Load()), [given["faults"]], [])
    function = ast.parse("esim.simulation.Scenario", mode="eval").body
    return ast.Call(function, [], [ast.keyword(name, value) for name, value in given.items()])


# --- what is needed ----------------------------------------------------------------------------------------


def _needed(statements: list[tuple[ast.stmt, str]], names: set[str]) -> list[str]:
    """Return the text of the statements that names come from, directly or not, in their order."""
    kept: set[int] = set()
    before = -1
    while before < len(kept):
        before = len(kept)
        for number, (one, _) in enumerate(statements):
            if number not in kept and not _runs(one) and _is_for(one, names):
                kept.add(number)
                names |= _names(one)
    return [_text(*statements[number]) for number in sorted(kept)]


def _runs(statement: ast.stmt) -> bool:
    """Say whether a statement explores something itself, or only looks at what is there."""
    calls = [node.func for node in _outer(statement) if isinstance(node, ast.Call)]
    named = {one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in calls}
    return bool(named & _RUNS) or isinstance(statement, ast.Assert)


def _is_for(statement: ast.stmt, names: set[str]) -> bool:
    """Say whether a statement binds one of the names, or does something with what it stands for."""
    if isinstance(statement, ast.ImportFrom) and (
        statement.module == "__future__" or statement.names[0].name == "*"
    ):
        return True
    return any(_binds(node) & names or _touches(node) in names for node in _outer(statement))


def _binds(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}
        case ast.Import(names=several) | ast.ImportFrom(names=several):
            return {(one.asname or one.name).partition(".")[0] for one in several}
    return set()


def _touches(node: ast.AST) -> str:
    """Return the name of what a node may change: a method of it is called, or a part of it is set."""
    match node:
        case ast.Call(func=ast.Attribute() as inner):
            return _root(inner)
        case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
            return _root(node)
        case ast.FunctionDef(decorator_list=[*several]) | ast.AsyncFunctionDef(decorator_list=[*several]):
            return next((_root(one) for one in several if isinstance(one, ast.Attribute)), "")
    return ""


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _outer(statement: ast.AST) -> Iterator[ast.AST]:
    """Give a statement and what is executed with it: not the bodies of functions."""
    yield statement
    inner: Any = ast.iter_child_nodes(statement)
    if isinstance(statement, _INNER):
        inner = getattr(statement, "decorator_list", [])
    for node in inner:
        yield from _outer(node)


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _text(statement: ast.stmt, source: str) -> str:
    """Return a statement as it is written, or, where others share its lines, as it would be."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(one.lineno for one in (statement, *decorators))
    lines = source.splitlines()[first - 1 : statement.end_lineno]
    text = textwrap.dedent("\n".join(lines))
    same = [ast.dump(one) for one in _parsed(text).body] == [ast.dump(statement)]
    return text if same else ast.unparse(statement)
