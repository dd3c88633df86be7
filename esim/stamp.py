"""A stamp tells whether code or shapes have changed since something was computed with them.

It is a digest of everything that the given functions and models lean on, found by walking: the functions of
the same module and the plain values that code names, the nested models and validators of a model, and of each
model the methods and properties whose names the code mentions. What is missed could leave a stale snapshot in
use, so in doubt the walk takes too much: that costs a replay, never an error.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, EnumType
from functools import cached_property
from typing import Any, NamedTuple, cast, get_args

from pydantic import BaseModel

_OPAQUE = {"pydantic", "pydantic_core", "builtins", "typing", "abc", "enum"}


class Use(NamedTuple):
    """A global name that stamped code leans on, and what it stood for."""

    scope: dict[str, Any]
    name: str
    value: object


class Stamp(NamedTuple):
    """A digest, and the global names that it rests on."""

    text: str
    uses: tuple[Use, ...]

    @property
    def outdated(self) -> bool:
        """Whether some name has been bound anew since; cheap enough to ask at each load."""
        return any(scope.get(name) is not value for scope, name, value in self.uses)


def fingerprint(*parts: object) -> str:
    """Return a stamp of functions, models and plain values that changes when their code or fields change.

    Lists, dicts and sets that the code names do not count: handlers may fill them. Another Python
    version gives another stamp.
    """
    return _Walk(pure=False).over(parts).text


def stamp(*parts: object) -> Stamp:
    """Return the stamp of pure code: as `fingerprint`, but lists, dicts and sets count as well."""
    return _Walk(pure=True).over(parts)


@dataclass
class _Walk:
    """What was met on the way: texts to digest, classes, and the names that code mentions."""

    pure: bool
    texts: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    classes: list[type] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)

    def over(self, parts: Iterable[object]) -> Stamp:
        """Return the stamp of `parts`."""
        for part in parts:
            self.visit(part)
        self.methods()
        digest = hashlib.blake2b("\0".join(self.texts).encode(), digest_size=12)
        return Stamp(digest.hexdigest(), tuple(self.uses))

    def visit(self, part: object) -> None:
        """Take in one thing and all that it leans on, once."""
        part = _bare(part)
        if isinstance(part, types.FunctionType):
            if self._first(part):
                self._function(part)
        elif isinstance(part, type) and issubclass(part, BaseModel):
            if self._first(part) and part.__module__.partition(".")[0] not in _OPAQUE:
                self._model(part)
        else:
            self.texts.append(_told(part))
            for inner in _functions_in(part):
                self.visit(inner)

    def methods(self) -> None:
        """Take in what the code met so far calls on the classes met so far, until nothing new turns up."""
        before = -1
        while before != len(self.seen):
            before = len(self.seen)
            for cls in list(self.classes):
                for base in _bases(cls):
                    for name in sorted(self.names & vars(base).keys()):
                        self._member(vars(base)[name])

    def _member(self, value: object) -> None:
        if isinstance(_bare(value), types.FunctionType):
            self.visit(value)

    def _first(self, part: object) -> bool:
        new = id(part) not in self.seen
        self.seen.add(id(part))
        return new

    def _function(self, function: types.FunctionType) -> None:
        self.texts += _code(function.__code__)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.visit(default)
        for cell in function.__closure__ or ():
            self._leaned_on(function, _content(cell))
        for name in sorted(_names(function.__code__)):
            self.names.add(name)
            if name in function.__globals__:
                value = function.__globals__[name]
                self.uses.append(Use(function.__globals__, name, value))
                self._leaned_on(function, value)

    def _leaned_on(self, function: types.FunctionType, value: object) -> None:
        near = getattr(value, "__module__", None) == function.__module__
        if isinstance(value, types.ModuleType) or (isinstance(value, types.FunctionType) and not near):
            return
        if isinstance(value, list | dict | set) and not self.pure:
            return
        self.visit(value)
        if near and isinstance(value, type) and not issubclass(value, BaseModel):
            self.classes.append(value)

    def _model(self, model: type[BaseModel]) -> None:
        self.classes.append(model)
        self.texts.append(model.__qualname__)
        for name, info in model.__pydantic_fields__.items():
            self.texts += [name, str(info.annotation), _told(info.metadata)]
            for part in (info.default, info.default_factory, *_parts(info.annotation), *info.metadata):
                self.visit(getattr(part, "func", part))
        marked = model.__pydantic_decorators__  # its validators and serializers, by name
        for group in fields(marked):
            self.names.update(getattr(marked, group.name))


def _bare(part: object) -> object:
    """Return the function inside a property, class method or static method."""
    if isinstance(part, property):
        return part.fget
    if isinstance(part, cached_property):
        return part.func
    return part.__func__ if isinstance(part, classmethod | staticmethod) else part


def _bases(model: type) -> list[type]:
    return [base for base in model.__mro__ if base.__module__.partition(".")[0] not in _OPAQUE]


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _parts(annotation: object) -> Iterator[object]:
    """Give the models and functions inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)
        if isinstance(getattr(part, "func", None), types.FunctionType):
            yield part.func


def _functions_in(value: object) -> Iterator[object]:
    """Give the functions and models inside plain containers, such as a table of handlers."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, types.FunctionType | type):
                yield item
            else:
                yield from _functions_in(item)


def _told(value: object) -> str:
    """Return a value as text that does not depend on the process: no address, sets in order."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_told, value)))}}}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_told, value))})"
    if isinstance(value, EnumType):
        return _told([(one.name, one.value) for one in cast("type[Enum]", value)])
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_told(key)}: {_told(item)}' for key, item in value.items())}}}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def _code(code: types.CodeType) -> list[str]:
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    plain = tuple(part for part in code.co_consts if not isinstance(part, types.CodeType))
    own = [code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), _told(plain)]
    return own + [text for part in inner for text in _code(part)]


def _names(code: types.CodeType) -> set[str]:
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*(_names(part) for part in inner))
