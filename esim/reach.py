"""What code keeps in the memory of its process, outside of its functions: a death would lose it.

What actors, buses and services are made of is followed by the names that it uses: to helpers, classes,
objects, defaults, attributes and caches. What is of esim, of the world or of a library is passed over.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from itertools import count
from logging import Logger
from pathlib import Path, PurePath
from random import Random, SystemRandom
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from uuid import UUID

from esim.bus import Bus
from esim.frozen import frozen, written
from esim.part import Part
from esim.scenario import Actor, Task
from esim.service import Service
from esim.stage import Stage
from esim.world import World

_HERE = str(Path(__file__).parent)
_LIBRARY = str(PurePath(inspect.__file__).parent)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_ATOMS = (type(None), int, float, str, bytes, bytearray, Decimal, date, timedelta, Enum, UUID, count, Random)
_SHARED = {"asyncio", "threading", "queue"}
_STATES = (bool, int, list, deque)
_WAITING = {"_waiters", "_getters", "_putters", "waiters"}  # nobody waits while no process is at work
_GONE = object()
_CACHE = type(lru_cache(len))


def is_users(name: str) -> bool:
    """Say whether a file of code is neither of esim nor of a library."""
    return not name.startswith(_HERE) and not is_librarys(name)


def is_librarys(name: str) -> bool:
    """Say whether a file of code is of a library other than esim."""
    return not name.startswith(_HERE) and (name.startswith((_LIBRARY, "<frozen")) or "site-packages" in name)


class Remembered:
    """What the code of a stage keeps, as it was when this was made. Caches are emptied for that."""

    def __init__(self, stage: Stage) -> None:
        """Look at what the actors of `stage`, its buses and its services are made of."""
        self._made_of = [*_of_actors(stage.actors), *_of_buses(stage), *_of_services(stage)]
        way = _Way(self._made_of)
        self._was = {place: (one.form(), one.picture(), one) for place, one in way.held.items()}
        self._owners = way.owners
        self.shared: set[str] = set()
        """What has changed and is shared by tasks or threads, as a lock is: made anew with every process."""
        cached = (inspect.unwrap(one) for one in way.caches)
        self.cached = {one.__code__ for one in cached if isinstance(one, FunctionType)}
        """The code of what is cached."""
        for cache in way.caches:
            cache.cache_clear()

    def put_back(self) -> list[str]:
        """Return what has changed since, and have it be as it was."""
        now, changed = _Way(self._made_of).held, []
        for place, (form, picture, one) in self._was.items():
            if place not in now or now[place].form() != form:
                one.put_back(picture)
                changed.append(one.told)
                self.shared |= {one.told} if one.shared else set()
        for place, one in now.items():
            if place not in self._was and place[0] in self._owners:
                one.drop()
                changed.append(one.told)
        return list(dict.fromkeys(changed))


CHANGED = (
    " changed while the handlers ran: it is in the memory of the process, and its death would lose it; keep "
    "it in world.memory(…), or in a table"
)
"""What is said of it."""


@contextmanager
def as_before(stage: Stage) -> Iterator[Remembered]:
    """Have what code keeps, and the world, be as they were once this is over, however it ends."""
    remembered = Remembered(stage)
    try:
        yield remembered
    finally:
        remembered.put_back()
        stage.world.reset()


def held_by(actors: Iterable[Actor]) -> Counter[tuple[str, str]]:
    """Return what actors hold: how each is told, and its value in words, the same for equal values."""
    held = _Way(_of_actors(actors)).held.values()
    return Counter((one.told, str(one.form())) for one in held if one.plain)


def _of_actors(actors: Iterable[Actor]) -> list[Any]:
    return [one.function if isinstance(one, Task) else one.handler for one in actors]


def _of_buses(stage: Stage) -> list[Any]:
    buses = [getattr(listener, "__self__", None) for listener in stage.store._listeners]
    return [one.given for bus in buses if isinstance(bus, Bus) for one in bus._subscribers]


def _of_services(stage: Stage) -> list[Any]:
    return [part._function for part in stage.world.parts.values() if isinstance(part, Service)]


class _Picture:
    """A value as it is now; once it is put back, each list, dict, set and object in it is the one it was."""

    def __init__(self, value: Any, *, inside: bool) -> None:
        self._contents: dict[int, tuple[Any, Any]] = {}
        self._value = self._of(value) if inside else value
        if not inside and isinstance(value, list | deque | set):
            self._contents[id(value)] = value, list(value)  # what is in it is followed

    def _of(self, value: Any) -> Any:
        own = _stored(value, "__dict__", None) if _is_users_class(type(value)) else None
        changeable = isinstance(value, list | deque | dict | set)
        for one in (value if changeable else None, own):
            if one is not None and id(one) not in self._contents:
                self._contents[id(one)] = one, ()  # as it may be a part of itself
                self._contents[id(one)] = one, self._inside(one)
        if isinstance(value, tuple | frozenset):
            self._inside(value)
        elif not changeable and own is None:
            with suppress(Exception):  # it may not want to be copied
                return deepcopy(value)
        return value

    def _inside(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._of(item) for key, item in value.items()}
        parts = [self._of(one) for one in value]
        return list(value) if isinstance(value, set) else parts

    def put_back(self) -> Any:
        """Return the value, which is as it was."""
        for one, contents in self._contents.values():
            one.clear()
            (one.extend if isinstance(one, list | deque) else one.update)(contents)
        return self._value


class _Held(NamedTuple):
    """A value that code keeps: who has it, under which key, how that is told; and whether it is plain.

    One that is not plain counts as itself: what it holds is followed.
    """

    owner: Any
    key: str
    value: Any
    told: str
    plain: bool
    shared: bool = False

    def form(self) -> str:
        """Return what tells it from another."""
        if not self.plain:
            inside = map(id, self.value) if isinstance(self.value, list | deque | set) else ()
            return f"{id(self.value)} {[*inside]}"
        try:
            return written(frozen(self.value))
        except Exception:  # noqa: BLE001 - it may not want to be taken apart, or go round in circles
            return type(self.value).__qualname__

    def picture(self) -> _Picture:
        """Return it as it is now."""
        return _Picture(self.value, inside=self.plain)

    def put_back(self, picture: _Picture) -> None:
        """Have it be as it was."""
        was = picture.put_back()
        if isinstance(self.owner, dict):
            self.owner[self.key] = was
        elif isinstance(self.owner, CellType):
            self.owner.cell_contents = was
        elif not isinstance(self.owner, FunctionType | partial):  # a default stays the same object
            with suppress(AttributeError, TypeError):  # one that may not be set was changed inside
                setattr(self.owner, self.key, was)

    def drop(self) -> None:
        """Have it be no more, as before."""
        if isinstance(self.owner, dict):
            del self.owner[self.key]
        elif isinstance(self.owner, CellType):
            del self.owner.cell_contents
        else:
            delattr(self.owner, self.key)


class _Way:
    """A way from functions to all that they keep."""

    def __init__(self, made_of: Iterable[Any]) -> None:
        self.owners: dict[int, Any] = {}
        self.held: dict[tuple[int, str], _Held] = {}
        self.caches: list[Any] = []
        self._seen: dict[int, Any] = {}
        self._waiting: list[tuple[Any, str]] = []
        for one in made_of:
            self._waiting.append((one, _name(one)))
            plain = inspect.unwrap(one) if callable(one) else one
            if isinstance(plain, FunctionType):
                self._in_function(plain)  # whoever it is by
        while self._waiting:
            self._follow(*self._waiting.pop())

    def _follow(self, one: Any, told: str) -> None:
        if id(one) in self._seen:
            return
        self._seen[id(one)] = one
        if isinstance(one, partial):
            self._in_partial(one)
        elif isinstance(one, MethodType):
            self._waiting += [(one.__self__, _name(one)), (one.__func__, told)]
        elif isinstance(one, staticmethod | classmethod):
            self._waiting.append((one.__func__, told))
        elif isinstance(one, property):
            self._waiting += [(each, told) for each in (one.fget, one.fset)]
        elif isinstance(one, _CACHE) or (isinstance(one, FunctionType) and "cache_clear" in vars(one)):
            self.caches.append(one)
            self._waiting.append((inspect.unwrap(one), told))
        elif isinstance(one, FunctionType):
            if is_users(one.__code__.co_filename):
                self._in_function(one)
        elif isinstance(one, type):
            self._in_class(one)
        elif _is_users_class(type(one)):
            self._in_object(one, told)
        elif _is_shared(one):
            self._in_shared(one, told)

    def _in_partial(self, one: partial[Any]) -> None:
        numbered = {f"argument {number}": value for number, value in enumerate(one.args, 1)}
        self._has(one, {**numbered, **one.keywords}, _name(one))
        self._waiting.append((one.func, _name(one)))

    def _in_function(self, function: FunctionType) -> None:
        name, code, outside = function.__name__, function.__code__, function.__globals__
        names = list(dict.fromkeys(_names(code)))
        used = {key: outside[key] for key in names if key in outside}
        self._has(outside, used, name)
        for module in used.values():
            if isinstance(module, ModuleType) and _is_users_module(module.__name__):
                inside = vars(module)
                self._has(inside, {key: inside[key] for key in names if key in inside}, name)
        for key, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._has(cell, {key: _inside(cell)}, name)
        given = function.__defaults__ or ()
        by_place = code.co_varnames[code.co_argcount - len(given) : code.co_argcount]
        defaults = dict(zip(by_place, given, strict=True))
        self._has(function, {**defaults, **(function.__kwdefaults__ or {})}, name)
        self._has(vars(function), vars(function), name)

    def _in_class(self, cls: type) -> None:
        for each in filter(_is_users_class, cls.__mro__):
            own = {key: value for key, value in vars(each).items() if not _is_esims(key, cls)}
            self._has(each, own, each.__name__)

    def _in_object(self, one: Any, told: str) -> None:
        cls = type(one)
        self._waiting.append((cls, told))
        inside = _stored(one, "__dict__", {})
        self._has(inside, {key: value for key, value in inside.items() if not _is_esims(key, cls)}, told)
        slots = [vars(each).get("__slots__", ()) for each in cls.__mro__]
        keys = [key for each in slots for key in ((each,) if isinstance(each, str) else each)]
        self._has(one, {key: _stored(one, key, _GONE) for key in keys if not _is_esims(key, cls)}, told)

    def _in_shared(self, one: Any, told: str) -> None:
        """Look into what tasks or threads share: an event that is set, a queue with something in it."""
        inside = getattr(one, "__dict__", {})
        values = {key: value for key, value in inside.items() if key not in _WAITING}
        self._has(
            inside, {key: it for key, it in values.items() if isinstance(it, _STATES)}, told, shared=True
        )

    def _has(self, owner: Any, values: Mapping[str, Any], name: str, *, shared: bool = False) -> None:
        self.owners[id(owner)] = owner
        for key, value in values.items():
            self._found(owner, key, value, name, shared=shared)

    def _found(self, owner: Any, key: str, value: Any, name: str, *, shared: bool) -> None:
        strange = isinstance(value, Logger | SystemRandom | Part | World)
        if value is _GONE or strange or (key.startswith("_") and key.endswith("_")):
            return
        inside = list(value.values() if isinstance(value, dict) else value if _is_container(value) else ())
        parts = [one for one in inside if isinstance(one, Part | World) or callable(one) or _is_shared(one)]
        atom = isinstance(value, _ATOMS) or type(value).__module__.startswith("numpy.random")
        plain = atom or (_is_container(value) and not parts)
        self.held[id(owner), key] = _Held(owner, key, value, f"{key!r} of {name}", plain, shared)
        if not plain:
            self._waiting += [(one, f"{key} of {name}") for one in (value, *parts)]
            if isinstance(value, dict):  # what is in it beside them
                self._has(value, {it: value[it] for it in value if isinstance(it, str)}, f"{key} of {name}")


def _is_shared(one: Any) -> bool:
    return type(one).__module__.partition(".")[0] in _SHARED


def _names(code: CodeType) -> Iterator[str]:
    """Give the names that code uses, and what is written inside of it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _inside(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _GONE  # a name that is not bound yet


def _name(one: Any) -> str:
    while isinstance(one, partial | MethodType):
        one = one.func if isinstance(one, partial) else one.__func__
    return str(_stored(one, "__name__", type(one).__name__))


def _stored(one: Any, key: str, default: Any) -> Any:
    """Return an attribute that an object has, without asking a `__getattr__` of the user's."""
    try:
        return object.__getattribute__(one, key)
    except AttributeError:
        return default


def _is_users_class(cls: type) -> bool:
    return _is_users_module(cls.__module__)


def _is_users_module(name: str) -> bool:
    place = getattr(sys.modules.get(name), "__file__", None) or ""
    return name.partition(".")[0] not in {"esim", *sys.stdlib_module_names} and "site-packages" not in place


def _is_esims(key: str, cls: type) -> bool:
    """Say whether a private attribute is one that esim gives to what derives from it."""
    return key.startswith("_") and any(each.__module__.startswith("esim.") for each in cls.__mro__)


def _is_container(value: Any) -> bool:
    return isinstance(value, _CONTAINERS)
