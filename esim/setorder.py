"""What goes through a set in its order, where that may matter: read in the source."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from esim.codetree import Tree, function_of, is_everybodys, name_of

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
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Order:
    """What the source of a file does with the order of what it goes through."""

    def __init__(self, tree: Tree, acts: Callable[[ast.expr], bool]) -> None:
        """Know what some part of the source does to the world, while it runs: whether it `acts`."""
        self._parents, self._acts = tree.parents, acts

    def looked_at(self, function: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
        """Give what a function goes through, if that is a set, and whether it only ends tasks in it."""
        for node in ast.walk(function):
            for one in _gone_through(node):
                if not self._is_lost(node):
                    yield one, isinstance(node, ast.For) and self._only_ends(node)

    def _is_lost(self, node: ast.AST) -> bool:
        """Say whether nothing of an order is left in what comes of going through something."""
        if isinstance(node, ast.comprehension):
            whole = self._parents[node]
            return isinstance(whole, ast.expr) and not self._acts(whole) and self._is_lost(whole)
        above = self._parents.get(node)
        if isinstance(node, ast.SetComp):
            return True
        if _makes_keys(node):
            return self._is_looked_up(node)
        if isinstance(above, ast.Set):
            return isinstance(node, ast.Starred)
        if isinstance(above, ast.Call) and node in above.args and name_of(above.func) in _ORDERLY:
            made = isinstance(node, ast.Starred | _COMPREHENSIONS) or _hands_on(node)
            return made and not _by_key(above) and not (_hands_on(node) and self._acts(above))
        return False

    def _is_looked_up(self, made: ast.AST) -> bool:
        """Say whether a dict that is made here serves to look something up, and nobody goes through it."""
        match self._parents[made]:
            case ast.Assign(targets=[ast.Name(id=name)]):
                within = function_of(made, self._parents)
                same = (one for one in ast.walk(within) if isinstance(one, ast.Name) and one.id == name)
                read = (one for one in same if isinstance(one.ctx, ast.Load))
                return not is_everybodys(name, within) and all(map(self._is_asked, read))
        return self._is_asked(made)

    def _is_asked(self, dictionary: ast.AST) -> bool:
        """Say whether one thing is looked up in a dict, or it is compared."""
        match self._parents[dictionary]:
            case ast.Attribute(attr="get") as method:
                return isinstance(self._parents[method], ast.Call)
            case ast.Subscript(value=owner, ctx=ast.Load()):
                return owner is dictionary
            case ast.Compare():
                return True
        return False

    def _only_ends(self, loop: ast.For) -> bool:
        """Say whether a loop only cancels tasks, or raises what has failed in one of them."""
        above: ast.AST | None = loop
        while above is not None and not isinstance(above, ast.Module):
            if isinstance(above, ast.Try | ast.TryStar):
                return False
            above = self._parents.get(above)
        return not loop.orelse and all(_ends(one, loop.target) for one in loop.body)


def _makes_keys(node: ast.AST) -> bool:
    """Say whether this makes a dict whose keys are what is gone through: none takes another's place."""
    match node:
        case ast.DictComp(key=ast.Name(id=key), generators=[ast.comprehension(target=ast.Name(id=each))]):
            return key == each
    return isinstance(node, ast.Call) and name_of(node.func) == "fromkeys"


def _ends(statement: ast.stmt, each: ast.expr) -> bool:
    """Say whether a statement is `task.cancel()`, `task.result()` or `await task`."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name() as one, attr="cancel" | "result"))):
            return ast.unparse(one) == ast.unparse(each)
        case ast.Expr(value=ast.Await(value=ast.Name() as one)):
            return ast.unparse(one) == ast.unparse(each)
    return False


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
            name = name_of(function)
            return list(given) if name in _GOES_THROUGH or (name in _ORDERLY and _by_key(node)) else []
    return []


def _by_key(call: ast.Call) -> bool:
    """Say whether a key is given, by which two may be alike."""
    return any(one.arg == "key" and name_of(one.value) not in _KEYS for one in call.keywords)


def _hands_on(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and name_of(node.func) in _HANDS_ON
