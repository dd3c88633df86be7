"""What a death would lose, and a simulated one does not, is found by real ones, wherever it is kept."""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from collections import ChainMap, UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import singledispatch
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from esim import deaths
from esim.deaths import tried
from esim.envelope import RecordedEvent
from esim.errors import Unsteady
from esim.event import Event
from esim.faults import Faults
from esim.invariant import eventually
from esim.memory import MemoryStore
from esim.scenario import Scenario, consume, task
from esim.simulation import crash_matrix, explore
from esim.stage import TimeIsOver
from esim.world import World


class RateSet(Event):
    rate: int = 7


class Ordered(Event):
    n: int = 1


HISTORY = [("Order/1", RateSet()), ("Order/1", Ordered()), ("Order/1", Ordered())]
NAMESPACE = SimpleNamespace(rate=0)
VARIABLE = ContextVar("VARIABLE", default=0)
LOCAL = threading.local()
ARRAY = np.zeros(1, dtype=int)
FRAME = pd.DataFrame({"rate": [0]})
BUFFER = io.StringIO()
WITH_A_FUNCTION: dict[str, Any] = {"rate": 0, "log": print}
CHAIN = ChainMap({"rate": 0})
USER_DICT = UserDict({"rate": 0})
OTHER = MemoryStore()
RATE = 0
SECOND = 0


def on_rate(rate: int) -> None:
    global RATE
    RATE = rate


LISTS = {"set": [on_rate], "get": [lambda: RATE]}


@singledispatch
def remember(rate: Any) -> None: ...


@remember.register
def _(rate: int) -> None:
    global SECOND
    SECOND = rate


@contextmanager
def opened(rate: int | None) -> Iterator[int]:
    global SECOND
    SECOND = SECOND if rate is None else rate
    yield SECOND


def by_contextmanager(rate: int | None) -> int:
    with opened(rate) as found:
        return found


def duck() -> tuple[Any, Any]:
    con = duckdb.connect()
    con.execute("create table kept as select 0 as rate")
    return (
        lambda rate: con.execute("update kept set rate = ?", [rate]),
        lambda: con.execute("select rate from kept").fetchall()[0][0],
    )


def lite() -> tuple[Any, Any]:
    con = sqlite3.connect(":memory:")
    con.execute("create table kept as select 0 as rate")
    return (
        lambda rate: con.execute("update kept set rate = ?", [rate]),
        lambda: con.execute("select rate from kept").fetchall()[0][0],
    )


def steps() -> Iterator[int]:
    rate = 0
    while True:
        got = yield rate
        rate = rate if got is None else got


GENERATOR: Any = steps()
next(GENERATOR)
WAYS = {
    "a namespace": (lambda rate: setattr(NAMESPACE, "rate", rate), lambda: NAMESPACE.rate),
    "a context variable": (VARIABLE.set, VARIABLE.get),
    "a thread's own": (lambda rate: setattr(LOCAL, "rate", rate), lambda: getattr(LOCAL, "rate", 0)),
    "an array": (lambda rate: ARRAY.fill(rate), lambda: int(ARRAY[0])),
    "a frame": (lambda rate: FRAME.__setitem__("rate", [rate]), lambda: int(FRAME["rate"][0])),
    "the environment": (
        lambda rate: os.environ.__setitem__("ESIM_RATE", str(rate)),
        lambda: int(os.environ.get("ESIM_RATE", "0")),
    ),
    "DuckDB in memory": duck(),
    "SQLite in memory": lite(),
    "a dict with a function": (
        lambda rate: WITH_A_FUNCTION.__setitem__("rate", rate),
        lambda: WITH_A_FUNCTION["rate"],
    ),
    "functions in lists": (lambda rate: LISTS["set"][0](rate), lambda: LISTS["get"][0]()),
    "a dispatched function": (remember, lambda: SECOND),
    "a context manager": (by_contextmanager, lambda: by_contextmanager(None)),
    "globals": (
        lambda rate: globals().__setitem__("GLOBAL", rate),
        lambda: globals().get("GLOBAL", 0),
    ),
    "a buffer": (
        lambda rate: BUFFER.seek(0) or BUFFER.write(str(rate)),
        lambda: int(BUFFER.getvalue() or 0),
    ),
    "a chain of dicts": (lambda rate: CHAIN.__setitem__("rate", rate), lambda: CHAIN["rate"]),
    "a dict of one's own": (
        lambda rate: USER_DICT.__setitem__("rate", rate),
        lambda: USER_DICT["rate"],
    ),
    "a generator": (lambda rate: GENERATOR.send(rate), lambda: next(GENERATOR)),
    "another store": (
        lambda rate: OTHER.append("Rate/1", RateSet(rate=rate)),
        lambda: OTHER.position and 7,
    ),
}


def booking(put: Any, get: Any, faults: Faults | None = None) -> Scenario:
    """Return a handler that books at the rate of an event before, which `put` and `get` keep."""
    world = World()
    due = world.table("due")

    def book(event: RateSet | Ordered, recorded: RecordedEvent[Any]) -> None:
        if isinstance(event, RateSet):
            put(event.rate)
        else:
            due[recorded.position] = get()

    right = eventually(lambda look: all(rate == 7 for rate in look.table("due").values()))
    faults = Faults(crash=1) if faults is None else faults
    return Scenario(HISTORY, [book], {"right": right}, faults=faults, world=world)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_keeps_memory_is_found(way):
    """The proof would be false: after a real death the rate is gone. And nothing is left of the look."""
    put, get = WAYS[way]
    where = "where book really dies after the commit, at 1 RateSet, 'due: 2: – → 0'"
    with pytest.raises(Unsteady, match=where):
        explore(booking(put, get))
    assert get() == 0


def test_it_is_told_what_to_do():
    """And what kept it, where that has a name."""
    told = tried(booking(*WAYS["a namespace"])).found
    assert told == (
        "where book really dies after the commit, at 1 RateSet, 'due: 2: – → 0' follows in place of "
        "'due: 2: – → 7': something in the memory of the process makes the difference, and its death would "
        "lose it; keep it in world.memory(…), or in a table"
    )
    with pytest.raises(Unsteady, match=r"^'RATE' of <lambda> changed while .* \(where book really dies"):
        explore(booking(on_rate, lambda: RATE))


def test_a_table_of_crashes_is_as_careful():
    put, get = WAYS["an array"]
    scenario = booking(put, get)
    with pytest.raises(Unsteady, match="really dies"):
        crash_matrix(scenario)


def test_without_crashes_nobody_dies(monkeypatch):
    """Nothing is forked, and memory survives as it does in reality."""
    monkeypatch.setattr(deaths, "aside", None)
    put, get = WAYS["a namespace"]
    assert tried(booking(put, get, Faults(duplicate=1))) == ("", "")


def test_what_is_durable_is_no_memory():
    """Tables, queues, the memory of the world; also with values of classes that pickle cannot name."""

    class Left:
        def __init__(self, mugs: int) -> None:
            self.mugs = mugs

    world = World()
    shelf, news = world.table("shelf", {"mug": Left(9)}), world.queue("news")
    mine, others = world.memory("mine", list, of="book"), world.memory("others", list, of="clerk")
    told = world.table("log")  # a name that esim has, too

    def book(event: RateSet | Ordered, recorded: RecordedEvent[Any]) -> None:
        shelf["mug"] = Left(shelf["mug"].mugs - 1)
        mine.value.append(recorded.position)
        news.publish(recorded)

    def clerk(message: Any) -> None:
        others.value.append(message.position)
        told[message.position] = len(others.value)

    actors = [book, consume(news, clerk)]
    assert tried(Scenario(HISTORY, actors, faults=Faults(crash=1), world=world)) == ("", "")


def test_what_cannot_be_handed_on_is_said():
    """The verdict says that real deaths could not be tried."""
    world = World()
    locks = world.table("locks")

    def lock(event: RateSet) -> None:
        locks["one"] = Unpicklable()

    verdict = explore(HISTORY, [lock], faults=Faults(crash=1), world=world)
    assert verdict.holds
    assert verdict.granularity.endswith(
        "; what a death loses was looked for by names only where no real death could be tried (lock: "
        "TypeError: not me)"
    )


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def test_where_there_is_no_fork_it_is_said(monkeypatch):
    monkeypatch.delattr(os, "fork")
    put, get = WAYS["a namespace"]
    verdict = explore(booking(put, get))
    assert "looked for by names only where no real death could be tried (all: " in verdict.granularity
    NAMESPACE.rate = 0


def test_who_dies_while_another_is_at_work_is_said():
    """All share one process here; one that dies alone is tried."""
    world = World()
    done = world.table("done")

    async def slow() -> None:
        import asyncio

        await asyncio.sleep(1)
        done["slow"] = 1

    def quick() -> None:
        done["quick"] = 1

    actors = [task(slow), task(quick)]
    untried = tried(Scenario([], actors, faults=Faults(crash=1), world=world)).untried
    assert "(quick: slow is at work when it dies, and all share one process here)" in untried


def test_a_child_that_hangs_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(deaths, "PATIENCE", 0.0)
    assert "did not come to an end in time" in tried(booking(*WAYS["a namespace"])).untried


def test_the_time_of_a_search_is_over_here_too():
    with pytest.raises(TimeIsOver):
        tried(booking(*WAYS["a namespace"]), lambda: True)


def test_deaths_are_spread_over_kinds_of_places_first():
    """Then over the rest, as far as there is room; a long history is not gone through often."""
    scenario = booking(lambda rate: None, lambda: 7)
    where = [(death.process, death.place) for death in deaths._simulated(scenario)[0]]
    assert len(where) == deaths._DEATHS
    assert len(set(where)) == deaths._DEATHS
    assert {place.rpartition(", at ")[2] for _, place in where} == {"1 RateSet", "2 Ordered", "3 Ordered"}
    scenario.history = scenario.history * 700
    assert len(deaths._simulated(scenario)[0]) == 1


def test_what_a_run_leaves_to_the_next_is_found():
    """A schedule that has no such place any more, as memory is full of the first, is no reason to pass."""
    world = World()
    due = world.table("due")

    def book(event: Ordered, recorded: RecordedEvent[Any]) -> None:
        if recorded.position > NAMESPACE.rate:
            NAMESPACE.rate = recorded.position
            due[recorded.position] = 7

    told = tried(Scenario(HISTORY, [book], faults=Faults(crash=1), world=world)).found
    assert told.startswith(
        "where book really dies before it begins, at 2 Ordered, 'due: 2: – → 7' follows in"
    )
    assert NAMESPACE.rate == 0
