"""The user's code, watched while it runs: what it calls of clocks, of chance and of its process.

It is told by names, as C functions, and the library's own of chance, are seen in a profile; so is what is
kept in a cache, and what pydantic calls for the defaults of a model.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from types import CodeType, FrameType
from typing import Any

from esim.reach import is_librarys, is_users
from esim.turned import CLASS_CLOCKS, is_clock

_NO_CLOCKS = {"get_clock_info", "mktime", "sleep", "strptime", "tzset"}
_OF_THE_PROCESS = {"hash", "id", "getpid", "getppid", "getrandom", "urandom"}
_OF_THE_THREAD = {"get_ident", "get_native_id"}
_NEW_IDS = {"getnode", "uuid1", "uuid4", "uuid6", "uuid7", "uuid8"}
_DICE = {"random", "secrets", "uuid"}
_MODELS = ("pydantic.", "esim.event", "esim.value", "esim.rows", "esim.state")
_MAKERS = ("pydantic.main", "pydantic._internal._dataclasses", "esim.value")
_MAKING = {"__init__", "model_validate", "model_validate_json", "model_validate_strings"}
"""The modules that make a user's values, and their functions, and so call for their defaults."""
_LOOKED_AT = {"esim.memory", "esim.queues", "esim.service", "esim.volatile", "esim.world"}
"""The modules of what a process looks at: the log, and the world."""


@dataclass
class Seen:
    """What was seen of the user's code while it ran."""

    cached: set[CodeType]
    calls: dict[str, None] = field(default_factory=dict)
    caches: dict[str, None] = field(default_factory=dict)
    anew: dict[str, None] = field(default_factory=dict)
    clocks: dict[tuple[str, int], str] = field(default_factory=dict)
    """Calls of clocks, by function and line."""
    codes: set[CodeType] = field(default_factory=set)


@contextmanager
def watching(seen: Seen) -> Iterator[None]:
    """Note what the user's code calls and looks at."""
    kinds: dict[int, tuple[CodeType, str]] = {}  # by id: to hash code takes longer than all else here

    def called(by: FrameType | None, what: str) -> None:
        if by and what and _is_users(by) and by.f_code.co_name != "__hash__":
            told = f"{by.f_code.co_name} calls {what}() (line {by.f_lineno})"
            if is_clock(what):
                seen.clocks[by.f_code.co_name, by.f_lineno] = told
            else:
                seen.calls[told] = None

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        found = kinds.get(id(code))
        if found is None:
            found = kinds[id(code)] = code, _kind(frame)
            if found[1] == "user":
                seen.codes.add(code)
        kind = found[1]
        if not kind or (event != "call" and kind != "user"):
            return
        if kind == "dice":
            called(_caller(frame), _of_chance(frame))
        elif kind == "maker":
            for what in _defaults(frame):
                called(_caller(frame), what)
        elif kind == "looked at":
            seen.caches.update(dict.fromkeys(_cached(frame, seen.cached) if seen.cached else ()))
        elif kind == "user" and event == "c_call":
            called(frame, of_c(arg))

    former = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        if callable(former):
            sys.setprofile(former)
        elif former is not None:  # a profiler written in C, which is no function but can be turned on again
            former.enable()


def _kind(frame: FrameType) -> str:
    """Return what is noted of some code, or an empty text."""
    module = frame.f_globals.get("__name__")
    if module in _DICE:
        return "dice"
    if module in _MAKERS:
        return "maker" if frame.f_code.co_name in _MAKING else ""
    if module in _LOOKED_AT:
        return "looked at"
    return "user" if _is_users(frame) else ""


def _is_users(frame: FrameType) -> bool:
    """Say whether code is the user's, and not what a library has made of a text."""
    name, known = frame.f_code.co_filename, frame.f_globals
    if not name.startswith("<"):
        return is_users(name)
    by = frame.f_back.f_code.co_filename if frame.f_back else ""
    alone = "__name__" not in known or frame.f_code.co_name == "<module>"  # else it may be called by anything
    return is_users(name) and is_users(str(known.get("__file__", ""))) and not (alone and is_librarys(by))


def _caller(frame: FrameType) -> FrameType | None:
    """Return who has called, or made a model whose defaults did."""
    found = frame.f_back
    while found is not None and str(found.f_globals.get("__name__")).startswith(_MODELS):
        found = found.f_back
    return found


def _defaults(frame: FrameType) -> Iterator[str]:
    """Give the C functions that the defaults of a model, or of a dataclass of pydantic's, come from."""
    known = frame.f_locals
    model = known.get("cls", type(known.get("self", known.get("__dataclass_self__"))))
    given = known.get("data", known.get("kwargs", known.get("obj")))
    for name, one in getattr(model, "__pydantic_fields__", {}).items():
        if one.default_factory is not None and not (isinstance(given, dict) and name in given):
            made = one.default_factory
            yield of_c(made.func if isinstance(made, partial) else made)


def of_c(called: Any) -> str:
    """Return the name of a C function if its answer is of a clock, of chance, or of this process."""
    name, owner = str(getattr(called, "__name__", "")), getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, date) and name in CLASS_CLOCKS:
        return f"{owner.__name__}.{name}"
    if owner is _DEALER or isinstance(owner, random.SystemRandom):
        return f"random.{name}"
    module = str(getattr(called, "__module__", None))
    if module in ("builtins", "nt", "posix") and name in _OF_THE_PROCESS:
        return name if module == "builtins" else f"os.{name}"
    if module == "_thread" and name in _OF_THE_THREAD:
        return f"threading.{name}"
    return f"time.{name}" if module == "time" and name not in _NO_CLOCKS else ""


_DEALER = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the module's functions


def _of_chance(frame: FrameType) -> str:
    """Return the name of a function of the library if chance is in it; a seed leaves none."""
    module, name, given = frame.f_globals["__name__"], frame.f_code.co_name, frame.f_locals
    if module != "random":
        return f"{module}.{name}" if module == "secrets" or name in _NEW_IDS else ""
    owner = given.get("self")
    if name == "__init__":
        return f"random.{type(owner).__name__}" if given.get("x") is None else ""
    return f"random.{name}" if owner is _DEALER or isinstance(owner, random.SystemRandom) else ""


def _cached(frame: FrameType | None, codes: set[CodeType]) -> Iterator[str]:
    """Give the cached functions that a call comes from."""
    while frame is not None:
        if frame.f_code in codes:
            yield frame.f_code.co_name
        frame = frame.f_back
