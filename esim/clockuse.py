"""Clocks that do no harm, read in the source: what they say is only logged, or they are given a time."""

from __future__ import annotations

import ast
import logging
from types import FrameType

from esim.codetree import UNKNOWN, Tree, function_of, is_everybodys, name_of, place_of, value_of

_LEVELS = {"critical", "debug", "error", "exception", "info", "log", "warning"}
_PLAIN = {"abs", "float", "int", "round", "str"}
"""Functions that only turn a number into another, or into words."""
_UNLESS_NONE = {"ctime", "gmtime", "localtime"}
"""Functions that read a clock unless they are given a number."""
_WITH_TIME = {"asctime": 1, "strftime": 2}
"""Functions that read a clock unless they are given a time: with so many arguments."""


class Use:
    """What becomes of what a clock says, in a function that is running."""

    def __init__(self, tree: Tree, frame: FrameType) -> None:
        """Look names up in `frame`."""
        self._parents, self._frame = tree.parents, frame
        self._named: set[str] = set()
        self._calls = [one for one in tree.at(place_of(frame)) if isinstance(one, ast.Call)]

    def is_harmless(self) -> bool:
        """Say whether the call at hand reads no clock, or nobody but a log learns what the clock says."""
        return bool(self._calls) and all(self._is_given(one) or self._is_logged(one) for one in self._calls)

    def _is_given(self, call: ast.Call) -> bool:
        """Say whether a time is given to be put into words, so that no clock is read."""
        match call:
            case ast.Call(func=function, args=[given]) if name_of(function) in _UNLESS_NONE:
                number = value_of(given, self._frame)
                return isinstance(given, ast.BinOp) or (number is not None and number is not UNKNOWN)
            case ast.Call(func=function, args=given):
                return len(given) == _WITH_TIME.get(name_of(function))
        return False

    def _is_logged(self, said: ast.expr) -> bool:
        """Say whether a value goes nowhere but into a log: as it is, as a part of a text, or by a name."""
        match self._parents[said]:
            case ast.BinOp() | ast.UnaryOp() | ast.JoinedStr() | ast.FormattedValue() as whole:
                return self._is_logged(whole)
            case ast.Call(func=ast.Name(id=name)) as whole if name in _PLAIN and whole.func is not said:
                return self._is_logged(whole)
            case ast.Call() as call:
                return said in call.args and self._logs(call)
            case ast.Assign(targets=[ast.Name(id=name)]):
                return name in self._named or self._is_only_logged(name, said)
        return False

    def _is_only_logged(self, name: str, said: ast.AST) -> bool:
        self._named.add(name)
        within = function_of(said, self._parents)
        same = (one for one in ast.walk(within) if isinstance(one, ast.Name) and one.id == name)
        read = (one for one in same if isinstance(one.ctx, ast.Load))
        return not is_everybodys(name, within) and all(map(self._is_logged, read))

    def _logs(self, call: ast.Call) -> bool:
        """Say whether this is a line for a log, or a print, and nothing is made of its answer."""
        if not isinstance(self._parents[call], ast.Expr):
            return False
        match call.func:
            case ast.Attribute(value=owner, attr=level) if level in _LEVELS:
                logger = value_of(owner, self._frame)
                return logger is logging or isinstance(logger, logging.Logger)
            case ast.Name(id="print") as function:
                to = {one.arg for one in call.keywords}
                return value_of(function, self._frame) is print and to <= {"end", "flush", "sep"}
        return False
