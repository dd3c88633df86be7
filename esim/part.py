"""What a simulation can take a picture of, put back, and compare; and who decides what goes wrong with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from copy import deepcopy
from typing import Any, Protocol

from esim.frozen import PLAIN, frozen, written


class Gate(Protocol):
    """Who decides what goes wrong: the simulation at hand."""

    recording: bool
    """Whether anybody reads what is told."""
    sheltered: bool
    """Whether a service is at work: it has a process of its own, in which nothing goes wrong."""

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        """Return the kind of fault that happens here, or an empty text. May raise Crash."""
        ...

    def note(self, lane: str, told: str, fault: str = "") -> None:
        """Remember what has happened, and whether it is a fault, or `FAILED`."""
        ...


class Outside(Protocol):
    """The world, as far as its parts know it."""

    @property
    def gate(self) -> Gate | None:
        """Who decides what goes wrong with a change that is about to be made; None: it is made by hand."""
        ...


class Part(ABC):
    """Something with a state that a simulation can take a picture of, put back, and compare."""

    name: str
    stale = True
    """Whether its state has changed since it was compared last."""
    volatile = False
    """Whether a crash loses it."""
    declared: Any = None
    """The picture of how it was made."""

    def told(self) -> str:
        """Return how it was made, in words that are the same in every process."""
        return f"{type(self).__name__} {written(frozen(self.declared))}"

    @abstractmethod
    def snapshot(self) -> Any:
        """Return the state in a form that later changes leave alone."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Put back what `snapshot` returned."""

    @abstractmethod
    def frozen(self) -> Hashable:
        """Return the state in a form that is equal for equal states."""


def kept(value: Any) -> Any:
    """Return a value that later changes in place leave alone."""
    return value if type(value) in PLAIN else deepcopy(value)
