"""What code keeps in the memory of its process is found wherever it is, named, and put back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache, partial, wraps
from itertools import count
from math import sqrt
from typing import Any

import numpy as np
import pytest

from esim.errors import Unsteady
from esim.event import Event
from esim.faults import Faults
from esim.frozen import frozen
from esim.invariant import always, eventually
from esim.reach import Remembered
from esim.scenario import Scenario, task
from esim.simulation import explore
from esim.stage import Stage
from esim.state import State
from esim.wobble import unsteady
from esim.world import Table, World


class Rung(Event):
    bell: str = "a"


HISTORY = [("Bell/1", Rung()), ("Bell/2", Rung(bell="b"))]
KEPT: dict[str, Any] = {}


class Light(Enum):
    OFF = 0
    ON = 1


LIGHT = Light.OFF
FIRST: Event | None = None


def told_of(actors: Any, **options: Any) -> str:
    """Return what is said of actors, or nothing if they are steady."""
    try:
        unsteady(Scenario(HISTORY, actors, **options))
    except Unsteady as error:
        return str(error)
    return ""


def helper(bell: str) -> Any:
    return KEPT.setdefault("first", bell)


def by_helper(event: Rung) -> None:
    helper(event.bell)


def by_default(event: Rung, kept: Any = {}) -> None:
    kept.setdefault("first", event.bell)


def by_named_default(event: Rung, *, kept: Any = []) -> None:
    kept[:] = kept or [event.bell]


def by_attribute(event: Rung) -> None:
    by_attribute.first = getattr(by_attribute, "first", event.bell)  # type: ignore[attr-defined]


def by_an_enum(event: Rung) -> None:
    global LIGHT
    LIGHT = Light.ON


def by_an_event(event: Rung) -> None:
    global FIRST
    FIRST = FIRST or event


class ByClass:
    first: str | None = None

    def __call__(self, event: Rung) -> None:
        ByClass.first = ByClass.first or event.bell


class BySlot:
    __slots__ = ("first",)

    def see(self, event: Rung) -> None:
        self.first = getattr(self, "first", event.bell)


def by_inner(event: Rung) -> None:
    def inner() -> None:
        helper(event.bell)

    inner()


def counted(function: Any) -> Any:
    calls = 0

    @wraps(function)
    def counting(event: Rung) -> None:
        nonlocal calls
        calls = 1
        function(event)

    return counting


@counted
def decorated(event: Rung) -> None: ...


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (by_helper, "'KEPT' of helper"),
        (by_inner, "'KEPT' of helper"),
        (by_default, "'kept' of by_default"),
        (by_named_default, "'kept' of by_named_default"),
        (by_attribute, "'first' of by_attribute"),
        (by_an_enum, "'LIGHT' of by_an_enum"),
        (by_an_event, "'FIRST' of by_an_event"),
        (ByClass(), "'first' of ByClass"),
        (BySlot().see, "'first' of see"),
        (decorated, "'calls' of decorated"),
    ],
)
def test_what_changes_is_named_each_time(handler, told):
    """It is put back, so that a cell that is run again is told again."""
    for _ in range(2):
        assert told_of([handler]).partition(" changed")[0] == told
    assert KEPT == {}
    assert (LIGHT, FIRST, ByClass.first) == (Light.OFF, None, None)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1], lambda kept: kept.append(2)),
        (lambda: {"a": [1]}, lambda kept: kept["a"].append(2)),
        (lambda: {1}, lambda kept: kept.add(2)),
        (lambda: deque([1]), lambda kept: kept.append(2)),
        (lambda: Counter("a"), lambda kept: kept.update("a")),
        (lambda: defaultdict(list), lambda kept: kept["a"].append(1)),
        (count, next),
        (lambda: random.Random(7), lambda kept: kept.random()),
    ],
)
def test_whatever_it_is_it_comes_back(make, change):
    """Containers, counters, dice with a seed: they change in a run, and are after it as they were."""
    kept = make()

    def handler(event: Rung) -> None:
        change(kept)

    assert "'kept' of handler changed" in told_of([handler])
    assert frozen(kept) == frozen(make())


def test_code_that_goes_round_in_circles_is_gone_through_once():
    """Objects that hold each other, functions that call each other, a list that is in itself."""

    class Node:
        def __init__(self) -> None:
            self.other: Any = None
            self.seen = 0

    one, two = Node(), Node()
    one.other, two.other = two, one
    circle: list[Any] = []
    circle.append(circle)

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    def see(event: Rung) -> None:
        even(len(circle))
        one.other.seen = 1

    assert told_of([see]).startswith("'seen' of other of one of see changed")


def test_what_belongs_to_esim_and_the_world_is_passed_over():
    """States, tables and services have their own ways to be put back."""
    world = World()
    table, mail = world.table("table"), world.service("mail")
    at_hand = {"table": table}

    class Bell(State):
        rung: int = 0

        def evolve(self, event: Rung) -> Any:
            return self.but(rung=self.rung + 1)

    def see(event: Rung, start: Any = Bell()) -> None:
        at_hand["table"][event.bell] = start.evolve(event).rung
        mail(event.bell)

    assert not told_of([see, partial(see, start=Bell(rung=2))], world=world)


def test_a_cache_that_keeps_what_was_read_is_named():
    """One that answers by its arguments alone is no memory of anything."""
    world = World()
    shelf = world.table("shelf", {"a": 1, "b": 1})

    @cache
    def left(bell: str) -> int:
        return shelf[bell]

    @lru_cache(maxsize=9)
    def loud(bell: str) -> str:
        return bell.upper()

    def read(event: Rung) -> None:
        shelf[event.bell] = left(event.bell) + 1

    def shout(event: Rung) -> None:
        shelf[loud(event.bell)] = 1

    left("a")  # tried by hand
    for _ in range(2):
        assert "left keeps what it read in a cache" in told_of([read], world=world)
    assert not told_of([shout], world=world)


def test_what_has_changed_is_told_once():
    """It has been put back then."""
    seen: list[str] = []

    def see(event: Rung) -> None:
        seen.append(event.bell)

    remembered = Remembered(Stage(Scenario([], [see, task(lambda: None)])))
    assert remembered.put_back() == []
    see(Rung())
    assert remembered.put_back() == ["'seen' of see"]
    assert seen == remembered.put_back() == []


class Cart:
    """Something of the user's."""

    def __init__(self) -> None:
        self.items: list[int] = []


def test_what_is_put_back_is_the_object_that_it_was():
    """Whoever refers to it sees it as it was, too; what is in it but was not before is gone."""
    cart = Cart()
    carts, both, pair = {"1": cart}, deque([cart]), [(cart, {1})]

    def fill(event: Rung) -> None:
        carts["1"].items.append(1)
        carts["2"] = Cart()
        both.appendleft(Cart())
        both[1].items.append(2)
        pair[0][1].add(2)
        pair.append(pair[0])

    stage = Stage(Scenario(HISTORY, [fill]))
    remembered = Remembered(stage)
    for _ in range(2):
        fill(Rung())
        assert len(remembered.put_back()) == 3
        assert carts["1"] is both[0] is pair[0][0] is cart
        assert (cart.items, list(carts), len(both), pair) == ([], ["1"], 1, [(cart, {1})])


def test_what_a_dict_has_beside_functions_is_looked_at():
    """The functions are followed, and the rest may change."""
    state: dict[str, Any] = {"first": "", "upper": str.upper}

    def see(event: Rung) -> None:
        state["first"] = state["upper"](event.bell)
        state["more"] = 1

    assert told_of([see]).startswith("'first' of state of see, 'more' of state of see changed")
    assert state == {"first": "", "upper": str.upper}


def test_dice_of_numpy_are_memory_whatever_their_seed():
    dice = np.random.default_rng(7)

    def throw(event: Rung) -> None:
        dice.random()

    for _ in range(2):
        assert told_of([throw]).startswith("'dice' of throw changed")


def two_locked(lock: Any, world: World) -> list[Any]:
    """Return two tasks that count in turn, if `lock` is one."""
    table = world.parts["table"]
    assert isinstance(table, Table)

    async def add() -> None:
        async with lock():
            seen = table["n"]
            await asyncio.sleep(0.1)
            table["n"] = seen + 1

    return [task(add, name="one"), task(add, name="two")]


def test_a_lock_is_no_memory_wherever_it_is_kept():
    """It has been given back when all is done, also if it is one of many in a dict."""
    world = World()
    world.table("table", {"n": 0})
    right = eventually(lambda look: look.table("table")["n"] == 2)

    def actors(store: Any) -> list[Any]:
        locks = {"a": asyncio.Lock()}
        return two_locked(lambda: locks["a"], world)

    assert explore([], actors, {"right": right}, faults=Faults(preempt=2), world=world).holds


@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_what_tasks_share_is_made_anew_for_each_run_where_nobody_dies(strategy):
    """An event that is set and a queue without `task_done` are right, as long as their process lives."""
    world = World()
    table = world.table("table")
    found: list[Any] = []

    def actors(store: Any) -> list[Any]:
        rung, bells = asyncio.Event(), asyncio.Queue[str]()
        found[:] = [rung]

        async def ring() -> None:
            await bells.put("a")
            await asyncio.sleep(5)
            table["rung"] = True
            rung.set()

        async def hear() -> None:
            table["bell"] = await bells.get()
            try:
                await asyncio.wait_for(rung.wait(), 3)
                table["heard"] = "rung"
            except TimeoutError:
                table["heard"] = "nothing"

        return [task(ring), task(hear)]

    late = always(lambda look: look.table("table").get("heard") != "rung" or "rung" in look.table("table"))
    how = {"strategy": strategy, "schedules": 20, "world": world, "confirm": None}
    verdict = explore([], actors, {"late": late}, faults=Faults(preempt=1), **how)
    assert verdict.counterexample is None
    assert verdict.schedules > 1
    assert verdict.holds == (strategy == "exhaustive")
    assert not found[0].is_set()
    never = always(lambda look: look.table("table").get("heard") != "rung")
    assert explore([], actors, {"never": never}, faults=Faults(preempt=1), **how).counterexample is not None
    with pytest.raises(Unsteady, match="'_value' of rung of "):
        explore([], actors, {"late": late}, faults=Faults(crash=1), **how)


class Delegates:
    """What answers to any name, from something else."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return self.inner[name]


class Catalog:
    """Something of the user's that can be cleared."""

    def __init__(self) -> None:
        self.rows = {"a": 1}

    def cache_clear(self) -> None:
        """Forget what was loaded."""
        self.rows.clear()


@pytest.mark.parametrize(
    "used",
    [Delegates({"rate": 1}), Catalog(), lru_cache(sqrt), lru_cache(Decimal), lru_cache(partial(round))],
    ids=["a delegate", "a catalog", "a C function", "a class", "a partial"],
)
def test_what_is_looked_at_is_asked_for_nothing(used):
    """No `__getattr__` runs, nothing is cleared but caches of functions, and these may be of any function."""

    def see(event: Rung) -> None:
        assert used

    assert told_of([see]) == ""
    assert not isinstance(used, Catalog) or used.rows == {"a": 1}
