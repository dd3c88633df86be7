"""The older shapes of a payload, and the functions that lead from each to the next: dicts, no classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from esim import display
from esim.errors import InvalidArgument, UpcasterFailed

Payload = dict[str, Any]
Upcaster = Callable[[Payload], "Payload | None"]
"""Takes a payload of one shape, as a dict, and returns it in the next; None passes the event over."""
Upcasters = Sequence["Upcaster | None"]


def chain(owner: str, schema_version: int, upcasters: Upcasters) -> tuple[Upcaster | None, ...]:
    """Return the upcasters of a type, from shape 1 to 2 first; None stands where a shape still fits as it is.

    Raises InvalidArgument if there is a gap or something that cannot be called with a payload.
    """
    steps = (upcasters,) if callable(upcasters) else tuple(upcasters)
    if steps and len(steps) != schema_version - 1:
        raise InvalidArgument(
            f"{owner} has schema_version {schema_version}, and upcasters from {_shapes(len(steps))}: give "
            f"{schema_version - 1}, one from each older shape to the next (None where it still fits)"
        )
    for shape, step in enumerate(steps, 1):
        if step is not None and not takes_one(step):
            raise InvalidArgument(
                f"{owner}: the upcaster from shape {shape} is {display.short(step)}; write a function that "
                "takes the payload as a dict and returns it in the next shape"
            )
    return steps


def _shapes(count: int) -> str:
    return "shape 1 only" if count == 1 else f"shapes 1 to {count}"


def takes_one(function: object) -> bool:
    """Say whether something is a plain function that can be called with one argument."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        return False
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def climb(owner: str, steps: Sequence[Upcaster | None], shape: int, payload: Payload) -> Payload | None:
    """Return a payload of a `shape` in the last one, or None if an upcaster passes the event over.

    Raises UpcasterFailed, with its cause, if an upcaster raises or returns anything but a dict.
    """
    for number, step in enumerate(steps[shape - 1 :], shape):
        if step is None:
            continue
        told = f"the upcaster {named(step)} of {owner}, from shape {number} to {number + 1},"
        before = dict(payload)
        try:
            after = step(payload)
        except Exception as error:
            raise UpcasterFailed(
                f"{told} raised {type(error).__name__}: {error}, given {display.short(before)}"
            ) from error
        if after is None:
            return None
        if not isinstance(after, dict):
            raise UpcasterFailed(
                f"{told} returned {display.short(after)}: return a dict, or None for no event"
            )
        payload = after
    return payload


def named(function: object) -> str:
    """Return how a function is called in messages."""
    return str(getattr(function, "__name__", display.short(function)))
