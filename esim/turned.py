"""Code that is run with every set gone through the other way round, and with clocks that say something else.

Another process has another order of texts in a set, and another time. Whether that makes a difference is not
read in the code, but tried: the user's functions are compiled anew, so that each value that an expression
has is seen (`set.union(a, b)` as well as `event.tags`). A set stays the object that it is, and gets a class
whose only difference is the order that it shows, so that C code, as that of pydantic, goes by it as well. It
is in order first, then backwards, and then with another in the middle: the same in every process. A clock
that is called says something later each time. Where nothing differs then, neither order nor time matters.

Only a child process does this, as no library promises to bear it. What has no source is left as it is, and so
told; what a library makes of sets inside of it is not seen, nor are clocks that it asks, as SQL's `now()`.
"""

from __future__ import annotations

import builtins
import sys
from asyncio import isfuture
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from gc import get_referents
from itertools import islice
from time import localtime
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from esim.anew import CALLS, SEES, anew, functions_of, told_of
from esim.frozen import frozen, written
from esim.turnset import be, kind_of, other_of, show

_ATOMS = frozenset({bool, bytes, float, int, str, type(None)})
_NO_OWNERS = type | FunctionType | ModuleType
_SEVERAL: tuple[type[Iterable[Any]], ...] = (list, tuple, set, frozenset, deque)
_HASHED_BY_PARTS: tuple[type[Any], ...] = (tuple, frozenset)
_VIEWS = {MappingProxyType, *map(type, ({}.keys(), {}.values(), {}.items()))}
_DEEP, _MANY = 5, 1_000
"""How deep in values sets are looked for, and among how many."""
_PLACES = 20
"""Among how many places the one is looked for that makes the difference."""
_LATER, _TIMES = 43_771_043, 150
"""How many seconds later a clock says it is, each time it is called: hours, days, months are soon all over
the place; and after how many times it begins anew: in 2262 there are no more nanoseconds in 64 bits."""
_MORE = 6
"""How many times more it is done with clocks that are asked."""
_NOW = {"now", "today"}
CLASS_CLOCKS = {"now", "utcnow", "today"}
"""The clocks of classes of dates."""
_OF_PARTS = {"time.asctime": 0, "time.strftime": 1}
_TOLD_A_TIME = {
    **dict.fromkeys(("time.ctime", "time.gmtime", "time.localtime"), 0),
    **dict.fromkeys(("email.utils.formatdate", "email.utils.localtime"), 0),
    **_OF_PARTS,
}
"""Functions that read a clock unless they are told a time, by that argument; some by a time in parts."""
_LOOK_AT_CALLERS = {"eval", "query"}
"""Functions of pandas that look for variables in whoever calls them."""

T = TypeVar("T")
Order = Callable[[list[Any]], list[Any]]
_OF_NUMBERS: set[Any] = {one.__hash__ for one in (int, float, complex, Decimal, Fraction, UUID)}
ORDERS: tuple[Order, ...] = (lambda values: values[::-1], lambda values: values[1:] + values[:1])
"""Other orders: backwards, by which any two change places; and one with another in the middle."""
KINDS = ("clock", "texts", "tasks")
"""What there is in places: clocks, and sets of texts or of tasks."""


class Where(NamedTuple):
    """Where code goes through a set, or asks a clock."""

    code: str
    line: int
    what: str
    kind: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.code} {self.what} (line {self.line})"


class Turned:
    """The functions of some files, with sets and clocks that can be turned."""

    def __init__(self, ran: Iterable[CodeType], unsteady: Callable[[Any], str]) -> None:
        """Take note of what `unsteady` has a name for: C functions of a clock, of chance, of the process.

        `ran`: the code that ran; what is in the same files may run as well.
        """
        self._ran, self._unsteady = list(ran), unsteady
        self._files = {code.co_filename for code in self._ran}
        self._sets: list[tuple[Any, type]] = []
        self._looked: dict[int, tuple[int, Any]] = {}
        """What was looked into in a run, by its id, and how deep."""
        self.met: dict[Where, None] = {}
        """Where sets were gone through whose order differs, and clocks asked that say what they like."""
        self.fixed: dict[Where, None] = {}
        """What hands on chance, or asks a clock that can say nothing else."""
        self.asked: set[tuple[str, int]] = set()
        """The functions and lines in which a clock was asked, or what can be one was given a time."""
        self._order: Order | None = None
        """The order that sets have, as clocks say something else; or None, and clocks stand still."""
        self._only: Where | None = None
        self._still: dict[tuple[str, str], Any] = {}
        self._times = 0
        self._odd = ""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have functions be so for a while; those that they make are so for good, and do as ever then."""
        was = [(one, one.__code__) for one in functions_of(self._files)]
        setattr(builtins, SEES, self._sees)
        setattr(builtins, CALLS, self._calls)
        for one, code in was:
            one.__code__ = anew(code)
        try:
            yield
        finally:
            for function, code in was:
                function.__code__ = code
            setattr(builtins, SEES, _same)
            setattr(builtins, CALLS, _same)

    @property
    def reserves(self) -> list[str]:
        """What could not be tried, in words."""
        hidden = {_name(one) for one in self._ran if anew(one) is one and not _is_generated(one)}
        told = [f"in {', '.join(sorted(hidden))}, whose source is not at hand"] if hidden else []
        told += [f"where watched code goes another way ({self._odd})"] if self._odd else []
        return [f"the order of sets and what clocks say were not tried {one}" for one in told]

    def matters(self, once: Callable[[], T], differ: Callable[[T, T], str], was: T) -> list[Where]:
        """Return the places where an order or a time makes a difference to what is done `once`.

        Where it is another when it is only watched, or each time, than it `was`, none of them has made it so.
        """
        before = self._run(once)
        clocks = _MORE if any(one.kind == "clock" for one in self.met) else 0
        for number, order in enumerate([*ORDERS, *ORDERS[:1] * clocks] if self.met else ()):
            again = partial(self._run, once, order, number)
            if differ(before, again()):
                self._odd = self._odd or differ(before, self._run(once))
                places = list(self.met) if len(self.met) <= _PLACES and not self._odd else []
                alone = [one for one in places if differ(before, again(one))]
                return [] if self._odd else alone or list(self.met)
        self._odd = self._odd or differ(was, before)
        return []

    def _run(
        self, once: Callable[[], T], order: Order | None = None, times: int = 0, only: Where | None = None
    ) -> T:
        """Do something, after which no set is turned any more."""
        self._order, self._only, self._times = order, only, times
        show(self.shown)
        try:
            return once()
        finally:
            show(None)
            for one, kind in self._sets:
                be(one, kind)
            self._sets.clear()
            self._looked.clear()

    # --- as it runs ----------------------------------------------------------------------------------------

    def _sees(self, value: Any) -> Any:
        """Turn a value if it is a set, and those inside of it."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind in (BuiltinFunctionType, partial):
            return self._handed_on(value)
        self._turn(value, _DEEP)
        return value

    def _turn(self, value: Any, deep: int) -> None:
        """Turn what there is in a value; what is inside of it is looked into once in a run."""
        kind = type(value)
        other = other_of(kind)
        if other is not None:
            self._sets.append((value, kind))
            be(value, other)
        if not deep or issubclass(kind, _NO_OWNERS):
            return
        for one in _inside(value):
            if type(one) not in _ATOMS and self._looked.get(id(one), (0,))[0] < deep:
                self._looked[id(one)] = deep, one
                self._turn(one, deep - 1)

    def _handed_on(self, value: Any) -> Any:
        """Return a clock that can be turned in the place of one that is handed on."""
        found = self._unsteady(value.func if isinstance(value, partial) else value)
        if is_clock(found):
            return _Clock(self._clock, value, found)
        if found:
            self._fix(f"hands on {found}")
        return value

    def _calls(self, function: Any) -> Any:
        """Return what is called in place of a function."""
        if function is type:
            return _type
        module = str(getattr(function, "__module__", ""))
        if module.partition(".")[0] in ("numpy", "pandas") and callable(function):
            looks = getattr(function, "__name__", "") in _LOOK_AT_CALLERS
            return function if looks else partial(self._of_frames, function)
        if module == "email.utils" and f"{module}.{function.__name__}" in _TOLD_A_TIME:
            return partial(self._clock, function, f"{module}.{function.__name__}")
        if isinstance(function, BuiltinFunctionType | partial):
            called = function.func if isinstance(function, partial) else function
            what = self._unsteady(called)
            if is_clock(what):
                return partial(self._clock, function, what)
            if what and called is not function:
                self._fix(f"calls {what}()")
        return function

    def _of_frames(self, function: Any, *given: Any, **named: Any) -> Any:
        """Call a function of numpy or pandas; some read a clock, or roll dice."""
        name = str(getattr(function, "__qualname__", getattr(function, "__name__", "")))
        told = f"{function.__module__.partition('.')[0]}.{name}"
        if _is_of_dates(function):
            return self._clock(function, told, *given, **named)
        if name.endswith(".sample") and named.get("random_state") is None:
            self._fix("calls pandas.sample()")
        if _rolls_dice(function, given=bool(given or named)):
            self._fix(f"calls numpy.random.{name.rpartition('.')[2]}()")
        for one in (*given, *named.values()):
            if isinstance(one, str) and one in _NOW:
                self._fix(f"calls {told}({one!r})")
        return function(*given, **named)

    def _clock(self, function: Any, what: str, *given: Any, **named: Any) -> Any:
        frame = self._users()
        self.asked.add((frame.f_code.co_name, frame.f_lineno))
        value, at = function(*given, **named), _TOLD_A_TIME.get(what)
        if at is not None and next(iter(given[at:]), named.get("timeval", named.get("dt"))) is not None:
            return value
        if not isinstance(value, int | float | date) and at is None:
            self._fix(f"calls {what}()")
            return value
        where = Where(frame.f_code.co_name, frame.f_lineno, f"calls {what}()", "clock")
        self.met[where] = None
        if self._order is None or self._only not in (None, where):
            return self._still.setdefault((what, repr((given, named))), value)
        self._times = self._times % _TIMES + 1
        seconds = self._times * _LATER
        if isinstance(value, date):
            return value + timedelta(seconds=seconds)
        if at is not None:
            time = localtime(seconds) if what in _OF_PARTS else seconds
            return function(*given[:at], time, *given[at + 1 :], **named)
        return value + seconds * (10**9 if what.endswith("_ns") else 1)

    def _fix(self, what: str) -> None:
        frame = self._users()
        self.fixed[Where(frame.f_code.co_name, frame.f_lineno, what, "clock")] = None

    def _users(self) -> FrameType:
        """Return where the user's code is at the moment."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename not in self._files and frame.f_back is not None:
            frame = frame.f_back
        return frame

    def shown(self, values: list[Any]) -> list[Any]:
        """Return what is in a set in the order in which it is gone through."""
        if len(values) < 2 or all(map(_is_alike, values)):  # noqa: PLR2004 - two have an order
            return values
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename not in self._files:
            frame = frame.f_back
        if frame is None:
            return values
        kind = "tasks" if all(map(isfuture, values)) else "texts"
        where = Where(_name(frame.f_code), frame.f_lineno, f"goes through {told_of(frame)}", kind)
        self.met[where] = None
        if kind == "texts":
            values.sort(key=_in_words)  # in every process alike
        return self._order(values) if self._order and self._only in (None, where) else values


def _name(code: CodeType) -> str:
    """Return the name of a function, also of what is compiled apart inside of it."""
    parts = code.co_qualname.split(".")
    return next((one for one in reversed(parts) if one == "<lambda>" or one[0] != "<"), code.co_name)


def _same(value: T) -> T:
    return value


def _type(*given: Any, **named: Any) -> Any:
    """Return the type that a value has, or make one, in the place of `type`."""
    if len(given) == 1:
        return kind_of(given[0])
    name, bases, body = given
    return type(name, bases, {"__module__": sys._getframe(1).f_globals.get("__name__"), **body}, **named)


def _is_generated(code: CodeType) -> bool:
    """Say whether a library has made this from a text, for a dataclass or a named tuple."""
    made = code.co_name.startswith("__") or "_tuple_new" in code.co_names
    return made and code.co_filename.startswith("<")


def _inside(value: Any) -> Iterable[Any]:
    """Return what is inside of a value, if it can be gone through without anybody's code."""
    kind = type(value)
    if issubclass(kind, dict):
        return [*islice(dict.keys(value), _MANY), *islice(dict.values(value), _MANY)]
    for each in _SEVERAL:
        if issubclass(kind, each):
            return list(islice(each.__iter__(value), _MANY))
    if kind in _VIEWS:
        return get_referents(value)
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except AttributeError:
        return get_referents(value) if "__slots__" in vars(kind) else ()


def _in_words(value: Any) -> str:
    """Return what tells a value from another, even if it is told apart by nothing but its place in memory."""
    try:
        return written(frozen(value))
    except Exception:  # noqa: BLE001 - it may not want to be taken apart, or go round in circles
        return type(value).__qualname__


def _is_alike(value: Any) -> bool:
    """Say whether the hash of a value is the same in every process: of numbers, and what is made of them."""
    kind = kind_of(value)
    for each in _HASHED_BY_PARTS:
        if kind.__hash__ is each.__hash__:
            return all(map(_is_alike, each.__iter__(value)))
    made = getattr(kind.__hash__, "__code__", None)
    if is_dataclass(kind) and made and made.co_filename == "<string>":  # made with the class
        hashed = (one.name for one in fields(kind) if (one.compare if one.hash is None else one.hash))
        return all(_is_alike(getattr(value, name)) for name in hashed)
    return kind.__hash__ in _OF_NUMBERS


# --- clocks and dice ---------------------------------------------------------------------------------------


class _Clock(partial[Any]):
    """A clock in the place of another; a copy of it is itself, as of a function."""

    def __deepcopy__(self, _: Any) -> Any:
        """Return itself."""
        return self


def is_clock(what: str) -> bool:
    """Say whether the name of a C function is that of a clock."""
    return what.startswith("time.") or what.rpartition(".")[2] in CLASS_CLOCKS


def _is_of_dates(function: Any) -> bool:
    """Say whether this is the clock of a class, as `Timestamp.now`."""
    return isinstance(getattr(function, "__self__", None), type) and function.__name__ in CLASS_CLOCKS


def _rolls_dice(function: Any, *, given: bool) -> bool:
    """Say whether this is a function of numpy's chance; a seed leaves none."""
    module = sys.modules.get("numpy.random")
    if module is None:
        return False
    if getattr(function, "__self__", None) is module.mtrand._rand:
        return bool(function.__name__ != "seed")
    return function in (module.default_rng, module.RandomState, module.SeedSequence) and not given
