"""What is read in the source of code that has run: sets that are gone through, clocks that are handed on.

Names, attributes and items in it are looked up as the code begins and as it returns, so that a set is known
wherever it comes from; what C code calls, as `iter(time.time, None)`, is seen nowhere else.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FrameType
from typing import Any

from esim.world import Table

_OFTEN = 20
"""How often code is looked at as it begins, or returns."""
_ORDERLY = {"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"}
"""Functions to whose answer the order of what they are given does not matter, without a key."""
_KEYS = {"repr", "str"}
"""Keys that no two texts share."""
_GOES_THROUGH = {
    *("Counter", "accumulate", "chain", "combinations", "cycle", "deque", "dict", "enumerate", "extend"),
    *("extendleft", "filter", "format", "from_iterable", "fromkeys", "islice", "iter", "join", "list", "map"),
    *("next", "permutations", "product", "reduce", "repr", "str", "tuple", "zip"),
}
"""Functions and methods that go through what they are given."""
_HANDS_ON = {"chain", "filter", "list", "map", "tuple"}
_MAKE_SETS = {"copy", "difference", "intersection", "symmetric_difference", "union"}
_MAKE_OTHERS = {"dict", "int", "len", "list", "max", "min", "sorted", "str", "sum", "tuple"}
_OF_SETS = ast.Sub | ast.BitOr | ast.BitAnd | ast.BitXor
_OTHERS = ast.List | ast.Dict | ast.Tuple | ast.ListComp | ast.DictComp | ast.JoinedStr | ast.GeneratorExp
_UNKNOWN = object()


@dataclass
class _Source:
    """The source of some code, and what was seen of it."""

    tree: ast.AST
    looked_up: list[ast.expr]
    bound: set[str]
    """Names that are given a value somewhere in it."""
    sets: set[str] = field(default_factory=set)
    """Expressions that stood for a set."""
    calls: dict[str, None] = field(default_factory=dict)
    """Clocks, dice and the like that it hands on, in words."""


class Lines:
    """What is seen of code while it runs, and read in its source."""

    def __init__(self, unsteady: Callable[[Any], str]) -> None:
        """Take note of what `unsteady` has a name for: C functions of a clock, of chance, of the process."""
        self._unsteady = unsteady
        self._sources: dict[CodeType, _Source | None] = {}
        self._makers: set[str] = set()
        """The names of functions that have returned a set."""
        self._looks: Counter[tuple[CodeType, str]] = Counter()

    def see(self, frame: FrameType, event: str, returned: Any) -> None:
        """Look at code as it begins (a "call"), or returns."""
        code = frame.f_code
        if code.co_name.endswith(("comp>", "expr>")):
            return  # these are in others
        if code not in self._sources:
            self._sources[code] = _read(code)
        source = self._sources[code]
        if event == "return" and _is_unordered(returned):
            self._makers.add(code.co_name)
        self._looks[code, event] += 1
        if source is not None and self._looks[code, event] <= _OFTEN:
            self._look_up(source, frame, event)

    def _look_up(self, source: _Source, frame: FrameType, event: str) -> None:
        begins, code = event == "call", frame.f_code
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        for node in source.looked_up:
            value = _value(node, frame, source.bound)
            if value is _UNKNOWN:
                continue
            if _is_unordered(value) and (begins or not (isinstance(node, ast.Name) and node.id in given)):
                source.sets.add(ast.unparse(node))
            elif what := self._hands_on(source.tree, node, value):
                line = code.co_firstlineno + node.lineno - 1
                source.calls[f"{code.co_name} {what} (line {line})"] = None

    def _hands_on(self, tree: ast.AST, node: ast.expr, value: Any) -> str:
        """Return in words that a value is a function of chance that nobody sees being called, or nothing."""
        called = _call_of(tree, node)
        if isinstance(value, partial):
            value, called = value.func, None
        dice = _of_numpy(value, called)
        if dice:
            return f"calls {dice}()"
        if called is not None or not callable(value) or isinstance(value, type):
            return ""
        found = self._unsteady(value)
        return found and f"hands on {found}"

    def calls(self) -> list[str]:
        """Return the clocks and dice that code hands on, or that are C code's."""
        return [told for source in self._sources.values() if source for told in source.calls]

    def orders(self) -> list[str]:
        """Return the places where code that ran goes through a set in its own order."""
        found: dict[tuple[str, int], str] = {}
        for code, source in self._sources.items():
            for node in _in_order(source.tree, _Sets(source, self._makers)) if source else ():
                line = code.co_firstlineno + node.lineno - 1
                told = f"{code.co_name} goes through the set {ast.unparse(node)} (line {line})"
                found[code.co_filename, line] = told
        return list(found.values())


def _read(code: CodeType) -> _Source | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError):
        return None
    nodes = list(ast.walk(tree))
    looked_up = [one for one in nodes if isinstance(one, ast.expr) and _is_chain(one)]
    bound = {one.id for one in nodes if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)}
    bound |= {one.arg for one in nodes if isinstance(one, ast.arg)}
    source = _Source(tree, looked_up, bound)
    for one in nodes:
        if isinstance(one, ast.Call) and _name(one.func) == "datetime64" and _is_now(one.args):
            told = f"{code.co_name} calls {ast.unparse(one)} (line {code.co_firstlineno + one.lineno - 1})"
            source.calls[told] = None
    return source


def _is_now(given: list[ast.expr]) -> bool:
    return any(isinstance(one, ast.Constant) and one.value in ("now", "today") for one in given)


# --- what an expression stands for -------------------------------------------------------------------------


def _is_chain(node: ast.AST) -> bool:
    """Say whether this is a name, or an attribute or item of such."""
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Subscript):
        return (isinstance(node.slice, ast.Constant) or _is_chain(node.slice)) and _is_chain(node.value)
    return isinstance(node, ast.Attribute) and _is_chain(node.value)


def _value(node: ast.AST, frame: FrameType, bound: set[str]) -> Any:  # noqa: PLR0911 - one for each kind
    """Return what a name, attribute or item stands for at the moment, without running anybody's code."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id in frame.f_locals or node.id in bound:
            return frame.f_locals.get(node.id, _UNKNOWN)
        return frame.f_globals.get(node.id, getattr(builtins, node.id, _UNKNOWN))
    if isinstance(node, ast.Attribute):
        return _attribute(_value(node.value, frame, bound), node.attr)
    if isinstance(node, ast.Subscript):
        owner, key = _value(node.value, frame, bound), _value(node.slice, frame, bound)
        rows = owner._rows if isinstance(owner, Table) else owner
        plain = type(rows) in (dict, list, tuple) and isinstance(key, str | int | tuple | None)
        try:
            return rows[key] if plain else _UNKNOWN
        except (LookupError, TypeError):
            return _UNKNOWN
    return _UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    if owner is _UNKNOWN:
        return _UNKNOWN
    if type(owner).__module__.startswith(("esim.", "numpy.")) or type(owner) is type(sys):
        return getattr(owner, name, _UNKNOWN)
    found = inspect.getattr_static(owner, name, _UNKNOWN)
    return getattr(owner, name) if isinstance(found, classmethod) or _is_c(found) else found


def _is_c(found: Any) -> bool:
    """Say whether this is a method of C code, as `datetime.now`."""
    return type(found).__name__ in ("classmethod_descriptor", "builtin_function_or_method")


def _is_unordered(value: Any) -> bool:
    """Say whether this is a set whose order differs from process to process: one of more than numbers."""
    return isinstance(value, set | frozenset) and not all(map(_is_of_numbers, value))


def _is_of_numbers(value: Any) -> bool:
    """Say whether the hash of a value is the same in every process: of a number, or a tuple of such."""
    return isinstance(value, int | float) or (isinstance(value, tuple) and all(map(_is_of_numbers, value)))


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


def _call_of(tree: ast.AST, node: ast.expr) -> ast.Call | None:
    """Return the call whose function this is."""
    return next((one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.func is node), None)


# --- what goes through a set -------------------------------------------------------------------------------


class _Sets:
    """Which expressions of some code stand for a set."""

    def __init__(self, source: _Source, makers: set[str]) -> None:
        self._makers, self._known = makers, set(source.sets)
        named = [(name, value) for node in ast.walk(source.tree) for name, value in _named(node)]
        for _ in named:  # a set may be made of another that comes later in the text
            self._known |= {name for name, value in named if self.has(value)}
        seen = source.sets
        self._known -= {
            name for name, value in named if not self.has(value) and (name not in seen or _is_other(value))
        }

    def has(self, node: ast.AST) -> bool:  # noqa: PLR0911 - one for each kind of expression
        """Say whether an expression stands for a set."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.BinOp(left=left, right=right, op=op):
                return isinstance(op, _OF_SETS) and any(
                    self.has(side) or _are_keys(side) for side in (left, right)
                )
            case ast.IfExp(body=body, orelse=other):
                return self.has(body) or self.has(other)
            case ast.BoolOp(values=values):
                return any(map(self.has, values))
            case ast.NamedExpr(value=value):
                return self.has(value)
            case ast.Call(func=ast.Attribute(attr=name, value=owner)) if name in _MAKE_SETS:
                return self.has(owner)
            case ast.Call(func=function):
                return _name(function) in {"set", "frozenset", *self._makers}
        return ast.unparse(node) in self._known if _is_chain(node) else False


def _named(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Give the names that are given a value here, and the value."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((one.id, value) for one in targets if isinstance(one, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            yield name, value


def _in_order(tree: ast.AST, sets: _Sets) -> Iterator[ast.expr]:
    """Give the sets that are gone through where their order may matter."""
    harmless = _harmless(tree)
    for node in ast.walk(tree):
        if id(node) not in harmless:
            yield from (one for one in _gone_through(node) if sets.has(one) and not _of_numbers(one))


def _harmless(tree: ast.AST) -> set[int]:
    """Return the parts (by id) that go through something for what does not look at the order."""
    inside: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in _ORDERLY and not _by_key(node):
            inside += node.args
        elif isinstance(node, ast.Set):
            inside += node.elts
        elif isinstance(node, ast.SetComp):
            inside.append(node)
    found = {id(one) for one in inside if isinstance(one, ast.Starred)}
    found |= {id(one) for one in inside if isinstance(one, ast.Call) and _name(one.func) in _HANDS_ON}
    made = (ast.GeneratorExp, ast.ListComp, ast.SetComp)
    return found | {id(part) for one in inside if isinstance(one, made) for part in one.generators}


def _gone_through(node: ast.AST) -> list[ast.expr]:  # noqa: PLR0911 - one line for each way
    """Return what is gone through here, if it is a set."""
    match node:
        case ast.For(iter=one) | ast.comprehension(iter=one):
            return [one]
        case (
            ast.Starred(value=one, ctx=ast.Load()) | ast.YieldFrom(value=one) | ast.FormattedValue(value=one)
        ):
            return [one]
        case ast.Assign(targets=[ast.Tuple(elts=[_, _, *_]) | ast.List(elts=[_, _, *_])], value=one):
            return [one]
        case ast.AugAssign(op=ast.Add(), value=one) | ast.BinOp(op=ast.Mod(), right=one):
            return [one]
        case ast.Call(func=ast.Attribute(attr="pop", value=one), args=[]):
            return [one]
        case ast.Call(func=function, args=given):
            name = _name(function)
            return list(given) if name in _GOES_THROUGH or (name in _ORDERLY and _by_key(node)) else []
    return []


def _by_key(call: ast.Call) -> bool:
    """Say whether a key is given, by which two may be alike."""
    return any(one.arg == "key" and _name(one.value) not in _KEYS for one in call.keywords)


def _name(function: ast.expr) -> str:
    """Return the last name of a function or method."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_other(node: ast.expr) -> bool:
    """Say whether this is no set for certain."""
    return isinstance(node, _OTHERS) or (isinstance(node, ast.Call) and _name(node.func) in _MAKE_OTHERS)


def _of_numbers(node: ast.expr) -> bool:
    """Say whether a set holds but whole numbers, whose order is the same in every process."""
    if isinstance(node, ast.BinOp):
        return _of_numbers(node.left) and _of_numbers(node.right)
    return isinstance(node, ast.Set) and all(
        isinstance(one, ast.Constant) and isinstance(one.value, int) for one in node.elts
    )


def _are_keys(node: ast.AST) -> bool:
    """Say whether these are the keys of a dict, of which `-`, `|`, `&` and `^` make a set."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"
