"""Any value in a form that compares and hashes: equal for equal values of the same types, and only for these.

So one state can be told from another without the traps of plain equality (`1 == True == 1.0`), and told the
same in every process.
"""

from __future__ import annotations

from asyncio import Future, isfuture
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, cast
from uuid import UUID

from esim.value import Value, fields_of


def told(value: Any) -> str:
    """Return data as text that is the same in every process; of any other object, the name of its class."""
    return written(frozen(value)) if _is_data(value) else type(value).__qualname__


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_data(each) for pair in value.items() for each in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    return isinstance(value, (*PLAIN, *_ATOMS, *_CODE, Decimal, float, Value))


@dataclass
class Opaque:
    """A value that cannot be compared but with itself; it is kept, so that its id stays its own."""

    value: Any = field(repr=False)

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.value is other.value


PLAIN = (int, str, type(None))
"""Types whose values are their own form."""
_ATOMS = (bool, bytes, complex, date, time, timedelta, Enum, Fraction, PurePath, range, UUID)
_CODE = (type, FunctionType, BuiltinFunctionType, ModuleType)


def frozen(value: Any) -> Hashable:  # noqa: PLR0911 - one line for each kind of value
    """Return a value in a form that is equal for equal values of the same types, and only for these.

    The order of a dict counts, as whoever goes through it sees it. Objects count by what they hold.
    """
    kind = type(value)
    if kind in PLAIN:
        return cast("Hashable", value)
    if kind is dict:
        return dict, tuple([(frozen(key), frozen(item)) for key, item in value.items()])
    if kind in (list, tuple):
        return kind, tuple([frozen(item) for item in value])
    if kind in (set, frozenset):
        return kind, frozenset([frozen(item) for item in value])
    if kind in (Decimal, float, datetime):
        return kind, str(value)  # 1.0 and 1.00, or noon here and there, are equal, and not the same
    if isinstance(value, Value):
        return kind.__qualname__, tuple([frozen(item) for item in fields_of(value).values()])
    if isinstance(value, _CODE):
        return kind, value
    itself = _own_form(kind)
    if itself is not None:
        return kind, itself(value)
    if isinstance(value, set | frozenset):
        return kind, members(value)
    if isinstance(value, _ATOMS):
        return kind, value
    if isinstance(value, tuple):
        return kind, tuple([frozen(item) for item in value])
    return _taken_apart(value)  # whatever it says itself that it is equal to


def members(value: Iterable[Any]) -> Hashable:
    """Return what is in a set, of whatever class, and what that has beside it, if anything."""
    inside = frozenset([frozen(item) for item in value])
    own = getattr(value, "__dict__", None)
    return (inside, frozen(own)) if own else inside


def _own_form(kind: type) -> Callable[[Any], Hashable] | None:
    """Return what a class says that its values are told by, without asking a `__getattr__` of the user's."""
    try:
        return cast("Callable[[Any], Hashable]", type.__getattribute__(kind, "_frozen_"))
    except AttributeError:
        return None


def _taken_apart(value: Any) -> Hashable:
    """Return an object by what a copy of it would be made of."""
    kind = type(value)
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - it may not want to be taken apart
        return Future if isfuture(value) else Opaque(value)  # that somebody waits counts, not who
    if isinstance(reduced, str):
        return kind, reduced
    parts = [list(part) if isinstance(part, Iterator) else part for part in reduced[1:]]
    return kind, tuple([frozen(part) for part in parts])


def written(value: Hashable) -> str:
    """Return what `frozen` returned as text that is the same in every process."""
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(written, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))})"
    if isinstance(value, _CODE):
        return str(getattr(value, "__qualname__", value.__name__))
    told = repr(value.value if isinstance(value, Opaque) else value)
    return type(value).__qualname__ if " at 0x" in told else told
