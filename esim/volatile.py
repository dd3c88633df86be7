"""What a process keeps in memory, and how a picture is taken of it, be it what tasks share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from copy import deepcopy
from typing import Any

from esim import display
from esim.errors import InvalidArgument
from esim.frozen import frozen
from esim.part import Part


class Memory(Part):
    """What a process keeps in memory; its death loses it."""

    volatile = True

    def __init__(self, name: str, make: Callable[[], Any], of: str | None) -> None:
        """Begin with what `make` makes."""
        self.name, self.of = name, of
        self._make, self._value = make, make()

    def told(self) -> str:
        """Return how it was made."""
        return f"{super().told()} of={self.of}"

    @property
    def value(self) -> Any:
        """What is kept; it may be changed in place."""
        self.stale = True
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value, self.stale = value, True

    def lose(self) -> None:
        """Begin anew, as after the death of the process."""
        self.value = self._make()

    def snapshot(self) -> Any:
        """Return a copy of the value, in which nobody waits. Raises InvalidArgument if there can be none."""
        try:
            return deepcopy(self._value)
        except TypeError:  # what can wait, as a lock or an event of asyncio, knows who does
            waiting = {id(one): type(one)() for one in _waiting_in(self._value, set())}
        try:
            return deepcopy(self._value, waiting)
        except TypeError as error:
            raise InvalidArgument(
                f"{self.name!r} in memory cannot be copied ({error}), as a simulation does to go back to "
                "what was: keep plain values there, or what asyncio has for tasks to share"
            ) from error

    def restore(self, state: Any) -> None:
        """Put back a copy."""
        self._value = deepcopy(state)

    def frozen(self) -> Hashable:
        """Return the value in a form that is equal for equal values."""
        return frozen(self._value)

    def __repr__(self) -> str:
        return f"<Memory {self.name}: {display.short(self._value)}>"


def _waiting_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Give each list, set or deque in a value that holds nothing but futures, which somebody waits for."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, list | tuple | set | deque):
        parts = list(value)
    else:
        parts = list((value if isinstance(value, dict) else getattr(value, "__dict__", {})).values())
    if isinstance(value, list | set | deque) and parts and all(map(asyncio.isfuture, parts)):
        yield value
        return
    for part in parts:
        yield from _waiting_in(part, seen)
