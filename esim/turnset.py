"""Sets that are gone through in another order: one stays the object that it is, and gets another class.

Its only difference is the order that it shows, to C code as well. A class of the user's that derives from a
set has one too, unless it has an order of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from esim.frozen import members

_TYPE_AT = object.__basicsize__ - ctypes.sizeof(ctypes.c_void_p)
"""Where in an object its class stands."""


class _Shown:
    """A set that is gone through in another order."""

    __slots__ = ()
    __class__ = property(lambda one: _TURNED[type(one)])  # pyright: ignore[reportIncompatibleMethodOverride]  # asked

    def __iter__(self) -> Iterator[Any]:
        return iter(_shown([*_TURNED[type(self)].__iter__(self)]))

    def __repr__(self) -> str:
        parts, name = ", ".join(map(repr, self)), type(self).__name__
        told = f"{{{parts}}}" if parts else ""
        return told if parts and name == "set" else f"{name}({told})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _TURNED[type(self)], ([*self],), getattr(self, "__dict__", None)

    def _frozen_(self) -> Hashable:
        return members(self)


class _Set(_Shown, set[Any]):
    __slots__ = ()

    def pop(self) -> Any:
        """Take the first one out."""
        if not self:
            return set.pop(self)
        first = _shown([*set.__iter__(self)])[0]
        self.discard(first)
        return first


class _FrozenSet(_Shown, frozenset[Any]):
    __slots__ = ()


_OTHER: dict[type, Any] = {set: _Set, frozenset: _FrozenSet}
_TURNED: dict[type, Any] = {kind: was for was, kind in _OTHER.items()}
for _kind, _was in _TURNED.items():
    _kind.__name__ = _kind.__qualname__ = _was.__name__  # as it is told
_order: Callable[[list[Any]], list[Any]] | None = None


def show(order: Callable[[list[Any]], list[Any]] | None) -> None:
    """Have what is in a set be shown in an order from now on."""
    global _order  # noqa: PLW0603 - sets have a class, and no room for anything else
    _order = order


def _shown(values: list[Any]) -> list[Any]:
    return values if _order is None else _order(values)


def other_of(kind: type) -> type | None:
    """Return the class of the sets of a class that are shown in another order, if it has one."""
    if kind not in _OTHER and issubclass(kind, set | frozenset):
        _OTHER[kind] = None if kind in _TURNED else _derived(kind)
        if _OTHER[kind]:
            _TURNED[_OTHER[kind]] = kind
    return _OTHER.get(kind)


def _derived(kind: type) -> type | None:
    """Return the class for one of the user's; what that does in its own way stays so."""
    base, other = (set, _Set) if issubclass(kind, set) else (frozenset, _FrozenSet)
    if kind.__iter__ is not base.__iter__:  # type: ignore[attr-defined]  # a set has one
        return None
    own = {name: getattr(other, name) for name in ("__repr__", "__reduce__", "pop") if hasattr(other, name)}
    body = {name: one for name, one in own.items() if getattr(kind, name) is getattr(base, name)}
    taken = {name: vars(_Shown)[name] for name in ("__class__", "__iter__", "_frozen_")}
    body |= {"__module__": kind.__module__, "__slots__": ()}
    kinds: Any = type(kind)
    try:
        made: type = kinds(kind.__name__, (kind,), {**taken, **body})
    except Exception:  # noqa: BLE001 - it may not want to be derived from
        return None
    made.__qualname__ = kind.__qualname__
    return made


def kind_of(value: Any) -> type:
    """Return the class that a value has, or had before it was turned."""
    kind = type(value)
    was: type = _TURNED.get(kind, kind)
    return was


def be(value: Any, kind: type) -> None:
    """Have an object be of another class that has the same place for everything."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kind))  # an object of a class written in Python has one
    ctypes.c_void_p.from_address(id(value) + _TYPE_AT).value = id(kind)
