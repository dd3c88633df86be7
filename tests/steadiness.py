"""Whether a function whose answer is kept in a table is steady, and what is said of it."""

from __future__ import annotations

import inspect
from typing import Any

from esim.errors import Unsteady
from esim.event import Event
from esim.scenario import Scenario
from esim.wobble import unsteady
from esim.world import World


class Tagged(Event):
    tags: frozenset[str] = frozenset({"a", "b", "c"})
    numbers: frozenset[int] = frozenset({1, 2})
    none: frozenset[str] = frozenset()


def reserves_of(function: Any) -> list[str]:
    """Return the reserves about a function whose answer is kept in a table. Raises Unsteady."""
    world = World()
    table = world.table("answers")

    async def wait(event: Tagged) -> None:
        table["answer"] = _answer_of(await function(event))

    def keep(event: Tagged) -> None:
        table["answer"] = _answer_of(function(event))

    handler = wait if inspect.iscoroutinefunction(function) else keep
    return unsteady(Scenario([("Shelf/1", Tagged())], [handler], world=world)).reserves


def told_of(function: Any) -> str:
    """Return what is said of a function whose answer is kept in a table, or nothing if that is steady."""
    try:
        reserves_of(function)
    except Unsteady as error:
        return str(error)
    return ""


def _answer_of(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value
