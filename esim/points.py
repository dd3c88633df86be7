"""The places at which a delivery may be stopped, or die: whoever drives one passes them one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import NamedTuple


class Point(NamedTuple):
    """A place in a delivery where it may be stopped, or die: what comes next, and for which position."""

    name: str
    position: int


Step = tuple[str, int]
"""A point as a plain pair, as deliveries give it: a named one would cost a tenth of all their time."""


class _Died(BaseException):
    pass


def mortal(steps: Generator[Step]) -> Iterator[Point]:
    """Give the points of a delivery; whoever stops asking for more leaves it as a crash there would."""
    with closing(steps):
        for step in steps:
            try:
                yield Point(*step)
            except BaseException:
                with suppress(_Died):
                    steps.throw(_Died())
                raise
