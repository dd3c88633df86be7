"""Stamps: what changes them, what does not, and when they are outdated."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esim.stamp import stamp
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

    before = stamp(handler, pure=False).text, stamp(handler).text
    handler(1)
    assert before[0] == stamp(handler, pure=False).text
    assert before[1] != stamp(handler).text


LEANING = {
    "a constant of the class": (
        """
class C:
    RATE = 2
    def fold(self, n): return n * self.RATE
fold = C.fold
parts = (C, fold)
""",
        ("RATE = 2", "RATE = 3"),
    ),
    "a method looked up by its name": (
        """
class C:
    def fold(self, n): return getattr(self, 'on_' + n)()
    def on_x(self): return 1
fold = C.fold
parts = (C, fold)
""",
        ("return 1", "return 2"),
    ),
    "a table of handlers in the class": (
        """
def one(n): return n + 1
class C:
    HANDLERS = {'x': one}
    def fold(self, n): return self.HANDLERS[n](n)
fold = C.fold
parts = (C, fold)
""",
        ("n + 1", "n + 2"),
    ),
    "a constant of another class": (
        """
class Config:
    RATE = 2
def fold(n): return n * Config.RATE
""",
        ("RATE = 2", "RATE = 3"),
    ),
    "a constant of an outer class": (
        """
class Config:
    class Tax:
        RATE = 2
def fold(n): return n * Config.Tax.RATE
""",
        ("RATE = 2", "RATE = 3"),
    ),
    "a cached helper": (
        """
from functools import cache
@cache
def rate(n): return n + 1
def fold(n): return rate(n)
""",
        ("n + 1", "n + 2"),
    ),
    "a wrapped helper": (
        """
import functools
def traced(f):
    @functools.wraps(f)
    def run(*a): return f(*a)
    return run
@traced
def rate(n): return n + 1
def fold(n): return rate(n)
""",
        ("n + 1", "n + 2"),
    ),
    "what is bound in a partial": (
        """
from functools import partial
def rate(a, n): return n + a
two = partial(rate, 2)
def fold(n): return two(n)
""",
        ("partial(rate, 2)", "partial(rate, 3)"),
    ),
    "a function in a partial": (
        """
from functools import partial
def rate(a, n): return n + a
two = partial(rate, 2)
def fold(n): return two(n)
""",
        ("n + a", "n - a"),
    ),
    "an object that is called": (
        """
class Rate:
    def __call__(self, n): return n + 1
rate = Rate()
def fold(n): return rate(n)
""",
        ("n + 1", "n + 2"),
    ),
    "a method of an object": (
        """
class Rate:
    def of(self, n): return n + 1
rate = Rate().of
def fold(n): return rate(n)
""",
        ("n + 1", "n + 2"),
    ),
    "what an object holds": (
        """
class Rate:
    def __init__(self, a): self.a = a
    def of(self, n): return n + self.a
rate = Rate(2)
def fold(n): return rate.of(n)
""",
        ("Rate(2)", "Rate(3)"),
    ),
    "what an object with slots holds": (
        """
class Rate:
    __slots__ = ('a',)
    def __init__(self, a): self.a = a
rate = Rate(2)
def fold(n): return n * rate.a
""",
        ("Rate(2)", "Rate(3)"),
    ),
    "a default of a dataclass": (
        """
from dataclasses import dataclass
@dataclass
class Rate:
    a: int = 2
def fold(n): return Rate().a
""",
        ("int = 2", "int = 3"),
    ),
    "a default made by a dataclass": (
        """
from dataclasses import dataclass, field
@dataclass
class Rate:
    a: list = field(default_factory=lambda: [2])
def fold(n): return Rate().a
""",
        ("[2]", "[3]"),
    ),
    "a function for one type": (
        """
from functools import singledispatch
@singledispatch
def rate(n): return 0
@rate.register
def _(n: int): return n + 1
def fold(n): return rate(n)
""",
        ("n + 1", "n + 2"),
    ),
    "a property that a pattern names": (
        """
class Paid:
    @property
    def total(self): return 1
def fold(n):
    match n:
        case Paid(total=t): return t
""",
        ("return 1", "return 2"),
    ),
    "a base class": (
        """
class Base:
    def rate(self): return 1
class C(Base):
    def fold(self): return self.rate()
fold = C.fold
parts = (C, fold)
""",
        ("return 1", "return 2"),
    ),
    "an operator of a helper class": (
        """
class Rate:
    def __mul__(self, n): return 1
rate = Rate()
def fold(n): return rate * n
""",
        ("return 1", "return 2"),
    ),
    "an enum's own method": (
        """
class Kind(Enum):
    BIG = 1
    def rate(self): return 1
def fold(n): return Kind(n).rate()
""",
        ("return 1", "return 2"),
    ),
    "a named tuple's default": (
        """
from typing import NamedTuple
class Rate(NamedTuple):
    a: int = 2
def fold(n): return Rate().a
""",
        ("int = 2", "int = 3"),
    ),
    "what a closure holds": (
        """
def made(a):
    def fold(n): return n * a
    return fold
fold = made(2)
""",
        ("made(2)", "made(3)"),
    ),
    "an attribute of a function": (
        """
def rate(n): return rate.by
rate.by = 2
def fold(n): return rate(n)
""",
        ("by = 2", "by = 3"),
    ),
    "text of another class of text": (
        """
class Code(str): pass
RATE = Code('x')
def fold(n): return RATE
""",
        ("'x'", "'y'"),
    ),
}


@pytest.mark.parametrize("case", LEANING)
def test_whatever_the_code_leans_on_changes_its_stamp(case: str) -> None:
    """Constants, tables, wrappers, objects, defaults, operators: in whatever way code reaches a value."""
    code, (old, new) = LEANING[case]
    found = []
    for text in (code, code, code.replace(old, new)):
        scope = cell("from enum import Enum\n" + text)
        made = stamp(*scope.get("parts", (scope["fold"],)))
        assert made.opaque is None
        found.append(made.text)
    assert old in code
    assert found[0] == found[1] != found[2]


COUNTER = """
def made():
    a = 2
    def up():
        nonlocal a
        a += 1
    def fold(n): return a
    return fold, up
fold, up = made()
"""


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("RATES = {'a': 2}\ndef fold(n): return RATES[n]", "RATES['a'] = 3"),
        ("RATES = {'a': [2]}\ndef fold(n): return RATES[n]", "RATES['a'].append(3)"),
        ("RATES = {2}\ndef fold(n): return n in RATES", "RATES.add(3)"),
        ("class Config:\n    RATE = 2\ndef fold(n): return Config.RATE", "Config.RATE = 3"),
        ("class Config:\n    RATE = 2\ndef fold(n): return Config.RATE", "class Config:\n    RATE = 3"),
        ("class R: pass\nr = R(); r.a = 2\ndef fold(n): return r.a", "r.a = 3"),
        ("class R:\n    __slots__ = ('a',)\nr = R(); r.a = 2\ndef fold(n): return r.a", "r.a = 3"),
        (COUNTER, "up()"),
        ("class C:\n    def rate(self): return 1\nc = C()\ndef fold(n): return c.rate()",
         "C.rate = lambda self: 2"),
    ],
)  # fmt: skip
def test_what_changes_in_place_makes_a_stamp_outdated(code: str, change: str) -> None:
    """A table, a class, an object or a closure that is altered: noticed, and the new stamp is another."""
    scope = cell(code)
    made = stamp(scope["fold"])
    assert not made.outdated
    exec(compile(change, "<cell>", "exec", dont_inherit=True), scope)
    assert made.outdated
    assert stamp(scope["fold"]).text != made.text


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import numpy as np\nRATES = np.array([2])\ndef fold(n): return RATES[n]",
            "RATES is a numpy.ndarray",
        ),
        ("import threading\nLOCK = threading.Lock()\ndef fold(n):\n    with LOCK: return n", "LOCK is a"),
        ("def fold(n): return eval('n')", "fold calls eval"),
        (
            "from esim import MemoryStore\nlog = MemoryStore()\ndef fold(n): return log",
            "log is a esim.memory",
        ),
    ],
)
def test_what_the_walk_cannot_look_into_is_said(code: str, told: str) -> None:
    """An array, a lock, a store, code in a text: the stamp names it, and nobody relies on such a stamp."""
    assert told in (stamp(cell(code)["fold"]).opaque or "")


def test_a_helper_from_a_module_of_ones_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant, a function or a class that is imported, also inside the fold, and after a reload."""
    (tmp_path / "own_rules.py").write_text("RATE = 2\ndef rate(n): return n * RATE\n")
    monkeypatch.syspath_prepend(tmp_path)
    codes = (
        "import own_rules\ndef fold(n): return own_rules.rate(n)",
        "from own_rules import rate\ndef fold(n): return rate(n)",
        "def fold(n):\n    from own_rules import rate\n    return rate(n)",
        "def fold(n):\n    import own_rules\n    return own_rules.RATE",
    )
    module = importlib.import_module("own_rules")
    folds = [cell(code)["fold"] for code in codes]
    before = [stamp(fold) for fold in folds]
    (tmp_path / "own_rules.py").write_text("RATE = 200\ndef rate(n): return n * RATE\n")
    importlib.invalidate_caches()
    importlib.reload(module)
    assert all(made.outdated for made in before)
    assert all(stamp(fold).text != made.text for fold, made in zip(folds, before, strict=True))
    monkeypatch.delitem(sys.modules, "own_rules")


def test_a_container_that_holds_itself_is_walked_once() -> None:
    """No walk goes round for ever."""
    scope = cell("RING = []\nRING.append(RING)\ndef fold(n): return RING")
    assert stamp(scope["fold"]).opaque is None


LATER = """
def absent(n): return rate(n)
class Config:
    rate = 2
class Own(Config):
    pass
plain, own = Config(), Own()
def by_object(n): return n * plain.rate
def by_class(n): return n * own.rate
def rounded(n): return round(n)
RATES = {"a": 2}
def by_table(n): return n * RATES["a"]
"""


@pytest.mark.parametrize(
    ("leans", "change"),
    [
        ("absent", "def rate(n): return n"),
        ("by_object", "plain.rate = 3"),
        ("by_class", "Own.rate = 3"),
        ("rounded", "def round(n): return n + 1"),
        ("by_table", "RATES = {'a': 3}"),
        ("by_table", "RATES['a'] = 3"),
    ],
)
def test_what_comes_later_and_is_found_first_makes_a_stamp_outdated(leans: str, change: str) -> None:
    """A name that is not there yet, a builtin that is hidden, an attribute that hides a class's."""
    scope = cell(LATER)
    made = stamp(scope[leans])
    assert not made.outdated
    exec(change, scope)
    assert made.outdated
    assert stamp(scope[leans]).text != made.text


def test_a_table_that_a_handler_only_reads_counts_when_it_is_bound_anew() -> None:
    """So a read model follows its constants; equal contents are the same stamp."""
    scope = cell(LATER)
    made = stamp(scope["by_table"], pure=False)
    exec("RATES = {'a': 2}", scope)
    assert made.outdated
    assert stamp(scope["by_table"], pure=False).text == made.text
    exec("RATES = {'a': 3}", scope)
    assert stamp(scope["by_table"], pure=False).text != made.text


def test_a_frozen_constant_of_a_handler_counts() -> None:
    """It cannot be filled, so its attributes are part of the meaning."""
    scope = cell("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n    rate: int\n")
    exec("CFG = C(2)\ndef handler(n): return n * CFG.rate", scope)
    made = stamp(scope["handler"], pure=False)
    exec("CFG = C(3)", scope)
    assert made.outdated
    assert stamp(scope["handler"], pure=False).text != made.text


def test_a_namespace_is_an_object_that_can_change() -> None:
    """Values in it are watched, and functions in it are walked."""
    scope = cell("from types import SimpleNamespace\ncfg = SimpleNamespace(rate=2, of=lambda n: n)\n")
    exec("def fold(n): return cfg.of(n) * cfg.rate", scope)
    made = stamp(scope["fold"])
    scope["cfg"].rate = 3
    assert made.outdated
    other = stamp(scope["fold"])
    exec("cfg = SimpleNamespace(rate=3, of=lambda n: n + 1)", scope)
    assert stamp(scope["fold"]).text != other.text


def test_a_type_adapter_is_what_its_type_is() -> None:
    """The functions that validate in it count."""
    source = """
from typing import Annotated
from pydantic import AfterValidator, TypeAdapter
def change(n): return n + {0}
adapter = TypeAdapter(Annotated[int, AfterValidator(change)])
def fold(n): return adapter.validate_python(n)
"""
    texts = {stamp(cell(source.format(number))["fold"]).text for number in (1, 2)}
    assert len(texts) == 2


def test_a_number_out_of_a_dataframe_is_a_plain_value() -> None:
    """It never changes, so nothing is opaque."""
    np = pytest.importorskip("numpy")
    scope = cell("def fold(n): return n * rate")
    scope["rate"] = np.int64(2)
    made = stamp(scope["fold"])
    assert made.opaque is None
    scope["rate"] = np.int64(3)
    assert made.outdated
    assert stamp(scope["fold"]).text != made.text
