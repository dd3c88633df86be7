"""The places at which a delivery may be stopped, or die: whoever drives one passes them one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import NamedTuple


class Point(NamedTuple):
    """A place in a delivery where it may be stopped, or die: what comes next, and for which position."""

    name: str
    position: int


class _Died(BaseException):
    pass


def mortal(steps: Generator[Point]) -> Iterator[Point]:
    """Give the points of a delivery; whoever stops asking for more leaves it as a crash there would."""
    with closing(steps):
        for point in steps:
            try:
                yield point
            except BaseException:
                with suppress(_Died):
                    steps.throw(_Died())
                raise
