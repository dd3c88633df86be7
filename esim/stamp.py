"""A stamp tells whether code or shapes have changed since something was computed with them.

It is a digest of everything that the given functions and classes lean on, found by walking: the functions,
classes, modules and plain values that code names, the methods and constants of each class met whose names are
mentioned somewhere (all of them once some code looks up names as it runs), the fields and validators of
models, what decorators wrap and objects hold. Libraries stand for themselves. The walk takes too much rather
than too little, which costs a replay, never an error; where it meets what it cannot look into, it says so.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, EnumType
from fractions import Fraction
from functools import partial, partialmethod, singledispatchmethod
from logging import Logger
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias, cast, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

_PLAIN = (
    *(
        int,
        float,
        complex,
        str,
        bytes,
        type(None),
        type(Ellipsis),
        type(NotImplemented),
        range,
        slice,
        Decimal,
    ),
    *(Fraction, date, time, timedelta, tzinfo, UUID, PurePath, re.Pattern, Logger),
)
_CONTAINERS = (Mapping, AbstractSet, list, tuple, deque)
_BY_NAME = {"getattr", "hasattr", "vars", "dir", "__dict__", "methodcaller", "attrgetter", "__getattribute__"}
_BEYOND = {"eval", "exec", "globals", "locals", "__import__", "import_module"}
_FIXED = (
    "pydantic",
    "dataclasses",
    "annotated_types",
    "typing",
    "types",
    "operator",
    "_operator",
    "esim.event",
    "esim.rows",
)
_FILLING = (
    *("append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault"),
    *("pop", "popleft", "popitem", "remove", "discard", "clear"),
)
_MOST = 1_000  # items of a container that handlers may fill are looked at
_Owner: TypeAlias = "type | types.ModuleType"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Use(NamedTuple):
    """A name that stamped code leans on, where it is bound, and what it stood for."""

    scope: Mapping[str, Any] | _Attributes
    name: str
    value: object


class Stamp(NamedTuple):
    """A digest, what it rests on, and what the walk could not look into (None where it saw all)."""

    text: str
    uses: tuple[Use, ...] = ()
    held: tuple[tuple[Any, list[object]], ...] = ()
    opaque: str | None = None

    @property
    def outdated(self) -> bool:
        """Whether a name was bound anew or a container changed since; cheap enough to ask at each load."""
        return any(scope.get(name) is not value for scope, name, value in self.uses) or any(
            not _alike(_items(container), before) for container, before in self.held
        )


def stamp(*parts: object, pure: bool = True) -> Stamp:
    """Return the stamp of functions, classes and values, which changes when what they lean on changes.

    With `pure=False`, objects that can change do not count, nor do lists, dicts and sets if the code that
    names them fills some, as handlers may; others (of up to 1,000 items) count as they are, and are not
    watched.
    Another Python version gives another stamp.
    """
    near = next((one.__module__ for one in parts if isinstance(one, type | types.FunctionType)), "")
    return _Walk(pure, near).over(parts)


@dataclass
class _Walk:
    """What was met on the way: texts to digest, classes, and the names that code mentions."""

    pure: bool
    near: str
    texts: list[str] = field(default_factory=list)
    seen: dict[int, tuple[int, object]] = field(default_factory=dict)  # the object too, or its id may recur
    names: set[str] = field(default_factory=set)
    classes: list[type] = field(default_factory=list)
    modules: list[types.ModuleType] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    held: list[tuple[Any, list[object]]] = field(default_factory=list)
    opaque: str | None = None
    fills: bool = False  # whether the code in which we are fills lists, dicts or sets

    def over(self, parts: Iterable[object]) -> Stamp:
        """Return the stamp of `parts`."""
        for part in parts:
            self.visit(part, "it")
        self.members()
        digest = hashlib.blake2b("\0".join(self.texts).encode("utf-8", "backslashreplace"), digest_size=12)
        return Stamp(digest.hexdigest(), tuple(self.uses), tuple(self.held), self.opaque)

    def visit(self, part: object, name: str) -> None:
        """Take in one thing and all that it leans on, once."""
        if isinstance(part, (*_PLAIN, Enum)) or _is_scalar(part):
            self.texts.append(_told(part))
            if not self._library(type(part).__module__):
                self.visit(type(part), name)
            return
        if id(part) in self.seen:
            self.texts.append(f"again {self.seen[id(part)][0]}")
            return
        self.seen[id(part)] = len(self.seen), part
        if isinstance(part, type):
            self._class(part)
        elif isinstance(part, types.FunctionType):
            self._function(part)
        elif isinstance(part, types.ModuleType):
            self._module(part)
        elif isinstance(part, _CONTAINERS):
            self._container(part, name)
        else:
            self._object(part, name)

    def members(self) -> None:
        """Take in what the code met so far mentions of the classes and modules met, until nothing is new."""
        taken: set[tuple[int, str]] = set()
        before = -1
        while before != len(taken):
            before = len(taken)
            owners: list[_Owner] = [*self.classes, *self.modules]
            for owner in owners:
                for name, value in sorted(vars(owner).items()):
                    if (id(owner), name) not in taken and self._wanted(owner, name, value):
                        taken.add((id(owner), name))
                        self._lean(vars(owner), name, value, f"{owner.__name__}.{name}")
        self._absent()

    def _absent(self) -> None:
        """Watch for names that classes and modules do not have yet, and that code would find there first."""
        for cls in self.classes:
            bases = inspect.getmro(cls) + inspect.getmro(
                type(cls)
            )  # hasattr() would ask the user's __getattr__
            known = {name for base in bases for name in base.__dict__}
            later = sorted((known & set(self.names)).difference(vars(cls)))
            self.uses += [Use(vars(cls), name, None) for name in later]
        for module in self.modules:
            later = sorted(name for name in self.names if name not in vars(module))
            self.uses += [Use(vars(module), name, None) for name in later]

    def _wanted(self, owner: _Owner, name: str, value: object) -> bool:
        if isinstance(owner, types.ModuleType):
            return name in self.names
        if name.startswith("__") and not name.startswith(f"_{owner.__name__}__"):
            method = isinstance(value, types.FunctionType | staticmethod | classmethod)
            own = method and not self._library(getattr(value, "__func__", value).__module__)
            return own or name == "__match_args__"
        return (name in self.names or not _BY_NAME.isdisjoint(self.names)) and not self._setting(owner, name)

    def _setting(self, owner: type, name: str) -> bool:
        """Say whether a class constant is one that a library's base has as well: it is that library's."""
        found = [base for base in owner.__mro__ if name in vars(base)][-1]
        return self._library(found.__module__) and not callable(vars(found)[name])

    def _lean(self, scope: Any, name: str, value: object, told: str) -> None:
        self.uses.append(Use(scope, name, value))
        self.texts.append(told.rpartition(".")[2])
        self.visit(value, told)

    def _library(self, module: str | None) -> bool:
        top = (module or "builtins").partition(".")[0]
        if module == self.near or top in ("__main__", "__mp_main__"):
            return False
        if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
            return True
        if top == self.near.partition(".")[0]:
            return False
        found = getattr(sys.modules.get(top), "__file__", None) or ""
        return "site-packages" in found or "dist-packages" in found

    # --- each kind of thing --------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> None:
        if self._library(function.__module__):
            self.texts.append(f"{function.__module__}.{function.__qualname__}")
            return
        registry = vars(function).get("registry")
        if isinstance(registry, types.MappingProxyType):  # of functools.singledispatch
            self.visit(registry, function.__name__)
            return
        code = function.__code__
        self.texts += _code(code)
        outer, self.fills = self.fills, self.fills or _fills(code)
        self._leaning(function, code)
        self.fills = outer

    def _leaning(self, function: types.FunctionType, code: types.CodeType) -> None:
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.visit(value, f"a default of {function.__name__}")
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            inside = _Attributes(cell, "cell_contents")
            self._lean(inside, name, inside.get(name), name)
        for name, value in sorted(vars(function).items()):
            if name != "__wrapped__":  # the code that wraps it holds it
                self._lean(vars(function), name, value, f"{function.__name__}.{name}")
        named, mentioned = _names(code)
        self.names |= named | mentioned
        for name in sorted(named | mentioned):
            if name in _BEYOND:
                self._beyond(f"{function.__qualname__} calls {name}")
            if name in named and name not in function.__globals__:  # a builtin, or not defined yet
                self.uses.append(Use(function.__globals__, name, None))
            elif name in named:
                self._lean(function.__globals__, name, function.__globals__[name], name)
            elif name in mentioned and not self._library(name) and name in sys.modules:
                self.visit(sys.modules[name], name)  # imported inside the function

    def _beyond(self, told: str) -> None:
        self.opaque = self.opaque or told

    def _module(self, module: types.ModuleType) -> None:
        self.texts.append(module.__name__)
        if not self._library(module.__name__):
            self.modules.append(module)

    def _class(self, cls: type) -> None:
        if self._library(cls.__module__):
            self.texts.append(f"{cls.__module__}.{cls.__qualname__}")
            return
        self.texts.append(cls.__qualname__)
        for base in cls.__mro__:
            if not self._library(base.__module__) and base not in self.classes:
                self.classes.append(base)
        if isinstance(cls, EnumType):
            members = cast("Mapping[str, Enum]", cls.__members__)
            self.texts.append(_told([(name, one.value) for name, one in members.items()]))
        if issubclass(cls, BaseModel):
            self._model(cls)
        for one in getattr(cls, "__dataclass_fields__", {}).values():
            self.texts += [one.name, _ADDRESS.sub("", str(one.type))]
            for value in (one.default, one.default_factory):
                if value is not MISSING:
                    self.visit(value, f"{cls.__name__}.{one.name}")

    def _model(self, model: type[BaseModel]) -> None:
        for name, info in model.__pydantic_fields__.items():
            self.texts += [name, _ADDRESS.sub("", str(info.annotation)), str(info.validation_alias)]
            for part in (info.default, info.default_factory, *_parts(info.annotation), *info.metadata):
                self.visit(part, f"{model.__name__}.{name}")
        marked = model.__pydantic_decorators__  # its validators and serializers, by name
        for group in fields(marked):
            for name, one in getattr(marked, group.name).items():
                self.names.add(name)
                self.texts.append(f"{group.name} {name} {_ADDRESS.sub('', repr(one.info))}")

    def _container(self, part: Any, name: str) -> None:
        if not isinstance(part, tuple | frozenset):
            if not self.pure and (self.fills or len(part) > _MOST):
                self.texts.append(type(part).__qualname__)
                return
            if self.pure:
                self.held.append((part, _items(part)))
        self.texts.append(f"{type(part).__qualname__} of {len(part)}")
        if type(part) not in (dict, list, set, tuple, frozenset):
            self.visit(type(part), name)
        for item in sorted(part, key=_told) if isinstance(part, AbstractSet) else _items(part):
            self.visit(item, name)

    def _object(self, part: object, name: str) -> None:
        inner = _inside(part)
        self.texts.append(type(part).__qualname__)
        if inner is not None:
            for item in inner:
                self.visit(item, name)
        elif not self._library(type(part).__module__) or isinstance(part, types.SimpleNamespace):
            self.visit(type(part), name)
            if self.pure or _is_frozen(part):
                for key, value in sorted(_held_by(part).items()):
                    self._lean(_Attributes(part), key, value, f"{name}.{key}")
            if self.pure and hasattr(part, "__dict__"):
                self.held.append((vars(part), _items(vars(part))))
        elif isinstance(part, types.BuiltinFunctionType):
            self.texts.append(part.__qualname__)
            if not isinstance(part.__self__, types.ModuleType):
                self.visit(part.__self__, name)
        elif _is_known(part):
            self.texts.append(_ADDRESS.sub("", repr(part)))
        else:
            kind = type(part)
            self._beyond(f"{name} is a {kind.__module__}.{kind.__qualname__}, which may change unseen")


# --- what is in a thing ------------------------------------------------------------------------------------


class _Attributes:
    """An object's attributes as a mapping, or one of them (a closure's cell) under any name."""

    def __init__(self, owner: object, only: str | None = None) -> None:
        self._owner, self._only = owner, only

    def get(self, name: str) -> object:
        try:
            return getattr(self._owner, self._only or name, None)
        except ValueError:  # a cell that is not filled yet
            return None


def _inside(part: Any) -> list[object] | None:  # noqa: PLR0911 - one line for each kind of wrapper
    """Return what a wrapper of a library holds, or None if it is none."""
    if isinstance(part, property):
        return [part.fget]
    if isinstance(part, types.MethodType):
        return [part.__func__, part.__self__]
    if isinstance(part, classmethod | staticmethod):
        return [part.__func__]
    if isinstance(part, partial | partialmethod):
        return [part.func, part.args, tuple(sorted(part.keywords.items()))]
    if isinstance(part, singledispatchmethod):
        return [part.dispatcher]
    if isinstance(part, TypeAdapter):
        return [part._type, *_parts(part._type)]
    if get_args(part):
        return [repr(get_origin(part)), *get_args(part)]
    inner = [getattr(part, name, None) for name in ("__wrapped__", "func", "__supertype__", "__value__")]
    return next(([one] for one in inner if one is not None), None)


def _is_scalar(part: object) -> bool:
    """Say whether a value is a number of numpy, as it comes out of a dataframe: it never changes."""
    return any(base.__module__ == "numpy" and base.__name__ == "generic" for base in type(part).__mro__)


def _is_frozen(part: object) -> bool:
    """Say whether an object's attributes cannot be set again."""
    if isinstance(part, BaseModel):
        return bool(part.model_config.get("frozen"))
    return bool(getattr(getattr(type(part), "__dataclass_params__", None), "frozen", False))


def _is_known(part: object) -> bool:
    """Say whether a library's object is what its repr says, and stays so."""
    kind = type(part)
    if kind.__module__ == "builtins":
        return callable(part) or kind is object or hasattr(kind, "__get__")
    return hasattr(kind, "__get__") or kind.__module__.startswith(_FIXED)


def _held_by(part: object) -> dict[str, object]:
    """Return the attributes of an object, in its dict and in its slots."""
    slots = (name for base in type(part).__mro__ for name in _several(vars(base).get("__slots__", ())))
    found = {name: getattr(part, name) for name in slots if not name.startswith("__") and hasattr(part, name)}
    return {**found, **getattr(part, "__dict__", {})}


def _several(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _items(container: Any) -> list[object]:
    return [*container, *container.values()] if isinstance(container, Mapping) else list(container)


def _alike(now: list[object], before: list[object]) -> bool:
    return len(now) == len(before) and all(one is other for one, other in zip(now, before, strict=True))


def _parts(annotation: object) -> Iterator[object]:
    """Give the classes and functions inside an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)
        if isinstance(getattr(part, "func", None), types.FunctionType):
            yield part.func
    for name in ("__supertype__", "__value__"):
        if hasattr(annotation, name):
            yield from _parts(getattr(annotation, name))


def _told(value: object) -> str:
    """Return a value as text that does not depend on the process: no address, sets in order."""
    if isinstance(value, AbstractSet):
        return f"{{{', '.join(sorted(map(_told, value)))}}}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_told, value))})"
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, Logger):
        return f"logger {value.name}"
    return getattr(value, "__qualname__", None) or _ADDRESS.sub("", repr(value))


def _code(code: types.CodeType) -> list[str]:
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    plain = tuple(part for part in code.co_consts if not isinstance(part, types.CodeType))
    own = [code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), _told(plain)]
    return own + [text for part in inner for text in _code(part)]


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that code loads, and what else it mentions: attributes, imports, words."""
    named: set[str] = set()
    mentioned = set(_words(code.co_consts))
    for step in dis.get_instructions(code):
        if isinstance(step.argval, str) and step.opcode in dis.hasname:
            of = named if "GLOBAL" in step.opname or step.opname == "LOAD_NAME" else mentioned
            of.add(step.argval)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            inner = _names(part)
            named |= inner[0]
            mentioned |= inner[1]
    return named, mentioned


def _fills(code: types.CodeType) -> bool:
    """Say whether code, or code inside it, fills or empties a list, a dict or a set."""
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
    if any(name in {"STORE_SUBSCR", "DELETE_SUBSCR"} or (value in _FILLING) for name, value in steps):
        return True
    return any(_fills(part) for part in code.co_consts if isinstance(part, types.CodeType))


def _words(constants: Iterable[object]) -> Iterator[str]:
    for one in constants:
        if isinstance(one, str) and one.isidentifier():
            yield one
        elif isinstance(one, tuple | frozenset):
            yield from _words(one)
