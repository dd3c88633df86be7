"""What callers hand in: each check returns the value as it is kept, or names the argument and the way out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from numbers import Real
from operator import index
from typing import Any, SupportsIndex

from esim import display
from esim.errors import InvalidArgument

_MOST = 2**63 - 1  # what a column of the log holds


def whole(value: object, name: str, hint: str = "give a whole number, 0 and up") -> int:
    """Return a count or a place as a plain int, also if it comes out of a dataframe.

    Raises InvalidArgument, which names the argument and gives the hint, for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or index(value) < 0:
        raise InvalidArgument(f"{name}={display.short(value)}: {hint}")
    return min(index(value), _MOST)


def storable(value: object, name: str) -> str:
    """Return a text that can be stored. Raises InvalidArgument for another type, or half a character."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}={display.short(value)}: give text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"{name}={value!r} is no text that can be stored: character {error.start} is half of one"
            ) from None
    return value


def all_storable(value: object, name: str) -> tuple[str, ...]:
    """Return one text or several as a tuple. Raises InvalidArgument as `storable` does."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (storable(value, name),)
    return tuple(storable(one, name) for one in value)


def part_of_one(value: object, name: str, hint: str) -> float:
    """Return a number from 0 to 1 as a plain float; numpy's 0.1 of 32 bits is 0.1, as it is written.

    Raises InvalidArgument, which names the argument and gives the hint, for anything else.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(str(value)) if hasattr(value, "dtype") else float(value)
        if 0 <= number <= 1:
            return number
    raise InvalidArgument(f"{name}={display.short(value)}: {hint}")


def activities(given: Sequence[object], call: str) -> tuple[str, ...]:
    """Return names of activities. Raises InvalidArgument for none, or a list of them in place of each."""
    if not given:
        raise InvalidArgument(f"{call}() needs activities: {call}('…', '…')")
    for one in given:
        if isinstance(one, str):
            continue
        listed = list(one) if isinstance(one, Iterable) else []
        if not listed:
            raise InvalidArgument(f"{display.short(one)} is no activity: give names, {call}('…', '…')")
        way = f"{call}({display.cut(', '.join(map(repr, listed)), 80)})"
        raise InvalidArgument(f"{display.short(one)} is no activity: give them one by one, as {way}")
    return tuple(map(str, given))


def misfit(function: Any, *args: object, **kwargs: object) -> str:
    """Return why a function cannot be called like this, or an empty text if it can.

    One whose signature cannot be read is supposed to fit.
    """
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as why:
        return str(why)
    except ValueError:
        pass
    return ""
