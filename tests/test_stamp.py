"""Stamps: what changes them, what does not, and when they are outdated."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from esim.stamp import fingerprint, stamp
from esim.value import Value

CODE = """
from enum import Enum
from functools import cached_property
from pydantic import field_validator
LIMIT = 3
NAMES = {"b", "a", "c"}
TABLE = {"x": lambda n: n + 1}
class Kind(Enum):
    BIG = 1
class Helper:
    def twice(self, n): return n * 2
    def unused(self, n): return n * 3
class Inner(Value):
    n: int = 5
    @property
    def size(self): return self.n + 1
    @classmethod
    def of(cls, n): return cls(n=n + 7)
    @field_validator("n")
    def check(cls, n): return n + 8
class Outer(Value):
    inner: tuple[Inner, ...] = ()
def deep(n): return n + 9
def helper(n): return deep(n)
def fold(outer, n=10):
    if n in {"p", "q", "r"} or n in NAMES or Kind.BIG: return Helper().twice(LIMIT)
    return TABLE["x"](helper(n)) + outer.inner[0].size + Inner.of(2).n
"""


SCRIPT = """
from esim.stamp import stamp
from esim.value import Value
scope = {"__name__": "__main__", "Value": Value}
exec(CODE, scope)
print(stamp(scope["fold"], scope["Outer"]).text)
"""


def cell(code: str) -> dict[str, Any]:
    """Run code as a cell of this module."""
    scope = {"__name__": __name__, "Value": Value}
    exec(compile(code, "<cell>", "exec", dont_inherit=True), scope)
    return scope


def stamped(code: str) -> str:
    """Return the stamp of the fold and the model in some code."""
    scope = cell(code)
    return stamp(scope["fold"], scope["Outer"]).text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ('"c"}', '"d"}'),
        ("n + 1}", "n + 2}"),
        ("BIG = 1", "BIG = 2"),
        ("n * 2", "n * 4"),
        ("int = 5", "int = 6"),
        ("self.n + 1", "self.n + 2"),
        ("n=n + 7", "n=n + 6"),
        ("n + 8", "n + 6"),
        ("n + 9", "n + 6"),
        ("n=10", "n=11"),
        ('"r"}', '"s"}'),
        ("tuple[Inner, ...]", "list[Inner]"),
    ],
)
def test_what_the_code_leans_on_changes_its_stamp(old: str, new: str) -> None:
    """A constant, set, table, enum, method, default, property, validator, function or type: each counts."""
    assert old in CODE
    assert stamped(CODE) != stamped(CODE.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("n * 3", "n * 4"), ("\nLIMIT", "\n\n\nOTHER = 1\nLIMIT")])
def test_what_it_does_not_lean_on_leaves_the_stamp(old: str, new: str) -> None:
    """An unused method, other names and other lines change nothing."""
    assert stamped(CODE) == stamped(CODE.replace(old, new))


def test_a_stamp_is_the_same_in_every_process() -> None:
    """The order of sets, which differs between processes, does not show."""
    program = f"CODE = {CODE!r}\n{SCRIPT}"
    found = set()
    for seed in ("1", "2", "3"):
        run = [sys.executable, "-c", program]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        found.add(subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1 and len(found.pop()) > len("\n")


def test_a_name_bound_anew_makes_a_stamp_outdated() -> None:
    """A function that is defined again is noticed without walking once more."""
    scope = cell(CODE)
    made = stamp(scope["fold"])
    assert not made.outdated
    scope["deep"] = lambda n: n
    assert made.outdated


def test_lists_that_a_handler_fills_do_not_change_its_fingerprint() -> None:
    """What a handler keeps beside itself is no part of its code."""
    seen: list[int] = []

    def handler(n: int) -> None:
        seen.append(n)

    before = fingerprint(handler), stamp(handler).text
    handler(1)
    assert before[0] == fingerprint(handler)
    assert before[1] != stamp(handler).text
