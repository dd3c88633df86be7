"""Sets in another order, and clocks that say something else, are found where that makes a difference."""

from __future__ import annotations

import asyncio
import copy
import email.utils
import functools
import heapq
import json
import logging
import operator
import os
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from esim.scenario import Scenario
from esim.wobble import unsteady
from esim.world import World
from tests.steadiness import Tagged, reserves_of, told_of


class Shelf:
    names = {"x", "y"}

    def __init__(self) -> None:
        self.mugs = {"x", "y"}
        self.of = {"mugs": {"x", "y"}, "left": [1]}

    def known(self) -> set[str]:
        return {"x", "y"}


@dataclass(frozen=True)
class Point:
    x: Any


@dataclass(eq=False)
class ByItself:
    x: int


class Pair(NamedTuple):
    one: int
    other: int


SHELF = Shelf()
IDS = partial(datetime.now)
LOG = logging.getLogger("turned")


def field(event: Tagged) -> Any:
    first = None
    for tag in event.tags:
        first = first or tag
    return first


def variable(event: Tagged) -> Any:
    tags = event.tags
    return [str(tag) for tag in tags]


def attribute(event: Tagged) -> Any:
    return list(SHELF.mugs)


def of_the_class(event: Tagged) -> Any:
    return list(SHELF.names)


def item(event: Tagged) -> Any:
    key = "mugs"
    return tuple(SHELF.of[key])


def by_length(event: Tagged) -> Any:
    return sorted(SHELF.of["mugs"], key=len)


def returned(event: Tagged) -> Any:
    return [str(name) for name in names()]


def by_method(event: Tagged) -> Any:
    return [str(name) for name in SHELF.known()]


def names() -> Any:
    return {"x", "y"}


def unpacked(event: Tagged) -> Any:
    first, *_ = {"x", "y"}
    return first


def starred(event: Tagged) -> Any:
    return [*{"x", "y"}]


def keys(event: Tagged) -> Any:
    return dict.fromkeys({"x", "y"})


def extended(event: Tagged) -> Any:
    found: list[str] = []
    found.extend({"x", "y"})
    return found


def added(event: Tagged) -> Any:
    found: list[str] = []
    found += {"x", "y"}
    return found


def in_words(event: Tagged) -> Any:
    return f"{event.tags}"


def filtered(event: Tagged) -> Any:
    return next(filter(None, {"x", "y"}))


def walrus(event: Tagged) -> Any:
    if found := {"x", "y"}:
        return list(found)
    return None


def chosen(event: Tagged) -> Any:
    return list({"x", "y"} if event else [])


def chained(event: Tagged) -> Any:
    return list(chain.from_iterable({"x", "y"}))


def greatest(event: Tagged) -> Any:
    return max((tag for tag in event.tags), key=len)


INDEX = {"a": {"x", "y"}}


def popped(event: Tagged) -> Any:
    tags = set(event.tags)
    pop = tags.pop
    return pop()


def nested(event: Tagged) -> Any:
    (first, *_), _ = event.tags, 1
    return first


def by_default(event: Tagged) -> Any:
    created: dict[str, set[str]] = {}
    created.setdefault("a", set()).update(["x", "y"])
    return [str(name) for name in created.setdefault("a", set())]


def last_wins(event: Tagged) -> Any:
    return {len(tag): tag for tag in event.tags}[1]


def late(event: Tagged) -> Any:
    return [[str(tag) for tag in tags or ()] for tags in (*[None] * 25, event.tags)]


def in_a_generator(event: Tagged) -> Any:
    return [*(tag for tags in [event.tags] for tag in tags)]


def longest(event: Tagged) -> Any:
    best = ""
    for tag in event.tags:
        if len(tag) > len(best):
            best = tag
    return best


def assigned(event: Tagged) -> Any:
    found: list[str] = []
    found[:] = event.tags
    return found


@pytest.mark.parametrize(
    "function",
    [
        *(field, variable, attribute, of_the_class, item, by_length, returned, by_method, unpacked, starred),
        *(keys, extended, added, in_words, filtered, walrus, chosen, chained, greatest),
        *(popped, nested, by_default, last_wins, late, in_a_generator, longest, assigned),
        lambda event: [str(name) for name in INDEX.get("a", ())],
        lambda event: [str(tag) for tag in getattr(event, "tags")],  # noqa: B009 - as users may have it
        lambda event: [*copy.copy(event.tags)],
        lambda event: [*set.union({"z"}, event.tags)],
        lambda event: [*operator.or_(event.tags, {"z"})],
        lambda event: [*max([event.tags, set()], key=len)],
        lambda event: [*({"a": 1, "b": 2}.keys() - {"c": 1}.keys())],
        lambda event: [*chain(*[event.tags, event.tags])],
        lambda event: heapq.nlargest(1, event.tags, key=len),
        lambda event: functools.reduce(operator.add, event.tags),
        lambda event: f"{[event.tags]}",
        lambda event: str({"tags": event.tags}),
        lambda event: f"{event!r}",
        lambda event: json.dumps(event.tags, default=list),
        lambda event: [first for first, _ in {(1, "a"), (3, "b")}],
    ],
)
def test_an_order_that_reaches_what_is_durable_is_named(function):
    """However a set comes about, and whatever goes through it, in C as well."""
    told = told_of(function)
    assert " goes through " in told and "the order of a set of texts differs" in told


@pytest.mark.parametrize(
    ("function", "what"),
    [(field, "the set event.tags"), (attribute, "a set in list(SHELF.mugs)"), (late, "the set tags or ()")],
)
def test_the_place_is_told(function, what):
    """What is gone through, or the call that does it, with its function and line."""
    told = told_of(function)
    assert f"{function.__name__} goes through {what} (line " in told


class Names(set[str]):
    pass


class FixedNames(frozenset[str]):
    def first(self) -> Any:
        return next(iter(self))


@dataclass(slots=True)
class Slots:
    names: frozenset[str]


class Named(NamedTuple):
    names: frozenset[str]


XY = frozenset({"x", "y"})
NAMES, SLOTS, NAMED, QUEUE = Names(["x", "y"]), Slots(XY), Named(XY), deque([XY])


@pytest.mark.parametrize(
    "function",
    [
        lambda event: [*NAMES],
        lambda event: Names(["x", "y"]).pop(),
        lambda event: ",".join(Names(["x", "y"])),
        lambda event: FixedNames(["x", "y"]).first(),
        lambda event: str(SLOTS),
        lambda event: str(NAMED),
        lambda event: [*chain.from_iterable(QUEUE)],
        lambda event: str({XY: 1}),
        lambda event: str({XY}),
        lambda event: [one.x for one in {Point("x"), Point("y")}],
        lambda event: [sorted(one) for one in {frozenset({"x"}), frozenset({1})}],
        lambda event: str(MappingProxyType({"a": XY})),
        lambda event: [[*one] for one in [[[[XY]]]][0][0][0]],
        lambda event: str([[[[XY]]]]),
    ],
)
def test_sets_are_found_wherever_they_are_and_of_whatever_class(function):
    """In slots, in named tuples, in other sets, as keys; and of a class that derives from them."""
    told = told_of(function)
    assert " goes through " in told and "the order of a set of texts differs" in told


def test_a_set_of_what_is_told_apart_by_its_place_in_memory_is_never_steady():
    """That is another in each run, by chance backwards as well."""
    assert all(told_of(lambda event: [one.x for one in {ByItself(1), ByItself(2)}]) for _ in range(8))


class Sorted(set[str]):
    def __init__(self, names: Iterable[str], name: str) -> None:
        super().__init__(names)
        self.name = name

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))


class Told(set[str]):
    def __init_subclass__(cls) -> None:
        raise TypeError("nobody derives from it")

    def __repr__(self) -> str:
        return f"Told of {len(self)}"


class Marked(set[str]):
    mark = ""

    def __repr__(self) -> str:
        return f"Marked {self.mark} {len(self)}"


def derived(event: Tagged) -> Any:
    marked, ordered = Marked(["x", "y"]), Sorted(["x", "y"], "two")
    marked.mark = "m"
    again = copy.deepcopy(marked), pickle.loads(pickle.dumps(marked))  # noqa: S301 - our own
    kinds = [type(one) is Marked and isinstance(one, Marked) and one.mark for one in (marked, *again)]
    return kinds, str(marked), [*ordered], ordered.name, str(Told(["x", "y"])), marked | {"z"} == {*"xyz"}


@pytest.mark.parametrize("function", [derived, lambda event: Names(["x", "y"]), lambda event: [SLOTS, NAMED]])
def test_sets_of_whatever_class_do_what_they_do_else(function):
    """An order of their own, what they are told as, and what they have beside it."""
    assert reserves_of(function) == []


PAIRS = {(1, 2), (3, 4.5)}


def sorted_later(event: Tagged) -> Any:
    found = [tag.upper() for tag in event.tags]
    found.sort()
    return found


def summed(event: Tagged) -> Any:
    count, seen, names = 0, False, set()
    for tag in event.tags:
        count += len(tag)
        names.add(tag.upper())
        seen = seen or tag == "a"
    return count, seen, sorted(names), names


def logged(event: Tagged) -> Any:
    LOG.info(f"tags {event.tags}, %s", ", ".join(event.tags))  # noqa: G004 - as users have it
    for tag in event.tags:
        LOG.info("tag %s", tag)
    return len(event.tags)


@pytest.mark.parametrize(
    "function",
    [
        *(sorted_later, summed, logged),
        lambda event: [*event.numbers, *PAIRS],
        lambda event: [one.x for one in {Point(1), Point(2)}],
        lambda event: [sorted(one) for one in {frozenset({1, 2}), frozenset({3}), frozenset({Pair(1, 2)})}],
        lambda event: sorted(Counter(tag[0] for tag in event.tags).items()),
        lambda event: (max(event.tags), "a" in event.tags, sorted(map(str, event.tags))),
        lambda event: {tag: len(tag) for tag in event.tags}["a"],
        lambda event: event.tags | {"z"},
        lambda event: [str(tag) for tag in event.none],
        lambda event: next(iter(event.tags & {"a"})),
    ],
)
def test_an_order_that_makes_no_difference_is_steady(function):
    """It is lost on the way, only logged, or the same in every process, as that of numbers."""
    assert not told_of(function)


def took(event: Tagged) -> Any:
    begun, at = time.perf_counter(), datetime.now(UTC)
    if time.monotonic() > 5:
        LOG.warning("slow")
    LOG.info("at %s", at.isoformat(), extra={"took": time.perf_counter() - begun})
    seconds = (datetime.now(UTC) - at).total_seconds()
    LOG.info("{:.2f}".format(seconds))  # noqa: G001, UP032 - as users have it
    LOG.info("%s %s %s", time.strftime("%H:%M"), time.ctime(), email.utils.formatdate(localtime=True))
    LOG.info("%s", [pd.Timestamp(time.time(), unit="s").isoformat() for _ in range(200)])
    return 7


def given(event: Tagged) -> Any:
    at = email.utils.formatdate(0), email.utils.formatdate(timeval=1), time.ctime(0), time.gmtime(0).tm_year
    return at, time.strftime("%H", time.gmtime(0)), time.asctime(time.gmtime(0)), time.strftime("%%") and 1


async def slept(event: Tagged) -> Any:
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(2)
    return asyncio.get_running_loop().time() - begun


class Timer:
    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        LOG.info("took %s", time.perf_counter() - self.begun)


def with_a_timer(event: Tagged) -> Any:
    with Timer():
        return 7


class Watch:
    def __init__(self, clock: Any = time.perf_counter) -> None:
        self.clock = clock

    def took(self) -> Any:
        return self.clock()


WATCH, CLOCKS = Watch(), {"now": partial(datetime.now, UTC), "len": len}


def with_a_watch(event: Tagged) -> Any:
    mine = copy.deepcopy(Watch(partial(datetime.now, UTC))), Watch(time.monotonic), Watch(date.today)
    LOG.info("%s %s", WATCH.took(), [one.took() for one in mine])
    return CLOCKS["len"]("abc")


@pytest.mark.parametrize("function", [took, with_a_timer, with_a_watch, given, slept])
def test_a_clock_that_makes_no_difference_is_steady(function):
    """Whatever is made of it on the way to a log."""
    assert not told_of(function)


def by_locals(event: Tagged) -> Any:
    now = time.time()
    LOG.info("%s", now)
    return locals()["now"]


def slowly(event: Tagged) -> Any:
    begun = time.monotonic()
    return "slow" if time.monotonic() - begun > 60 else "fast"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (by_locals, "by_locals calls time.time()"),
        (slowly, "slowly calls time.monotonic()"),
        (lambda event: date.today().year, "calls date.today()"),  # noqa: DTZ011 - what is found out
        (lambda event: date.today().weekday() > 4, "calls date.today()"),  # noqa: DTZ011 - as users have it
        (lambda event: datetime.now(UTC).hour < 8, "calls datetime.now()"),
        (lambda event: time.localtime().tm_hour < 8, "calls time.localtime()"),
        (lambda event: time.strftime("%Y"), "calls time.strftime()"),
        (lambda event: email.utils.formatdate()[:16], "calls email.utils.formatdate()"),
        (lambda event: str(email.utils.localtime().date()), "calls email.utils.localtime()"),
        (lambda event: pd.Series([1, 2]).sample(1).tolist(), "calls pandas.sample()"),
        (lambda event: pd.Timestamp.today().year, "calls pandas.Timestamp.today()"),
        (lambda event: str(pd.Period.now("Y")), "calls pandas._Period.now()"),
        (lambda event: str(pd.Timestamp("today").normalize()), "calls pandas.Timestamp('today')"),
        (lambda event: str(np.datetime64(*["today"])), "calls numpy.datetime64('today')"),
        (lambda event: str(IDS()), "calls datetime.now()"),
        (lambda event: next(iter(time.time, None)), "calls time.time()"),
        (lambda event: Watch(date.today).took().year, "took calls date.today()"),
        (lambda event: WATCH.clock(), "calls time.perf_counter()"),
        (lambda event: sorted([1, 2], key=id), "hands on id"),
        (lambda event: np.random.random(), "calls numpy.random.random()"),  # noqa: NPY002 - what is found out
        (lambda event: bool(np.random.default_rng()), "calls numpy.random.default_rng()"),
    ],
)
def test_clocks_and_dice_are_named_where_they_make_a_difference_or_cannot_be_turned(function, told):
    """Coarse ones as well, those of numpy and pandas, and those that C code calls."""
    assert f"{told} (line " in told_of(function)


def steady(event: Tagged) -> Any:
    id = event.event_type
    others = [str(hash) for hash in (1, 2)]
    return id, others, str(np.random.default_rng(7).integers(9)), str(np.datetime64("2026-01-01"))


def test_names_that_are_something_else_here_are_no_clocks():
    """A variable called id, chance from a seed, a date that is written."""
    assert not told_of(steady)


def test_everything_is_as_before_afterwards():
    """The code of functions, and the class of each set."""
    code = attribute.__code__
    assert told_of(attribute)
    assert attribute.__code__ is code
    assert type(SHELF.mugs) is type(INDEX["a"]) is set


class Base:
    def names(self) -> Any:
        return ["z"]


class Derived(Base):
    def names(self) -> Any:
        return [*super().names(), *{"x", "y"}]


def test_methods_closures_and_coroutines_keep_what_they_have():
    """Compiled anew, they find their class and the variables around them."""
    prefix = "tag "

    async def one(tag: str) -> str:
        await asyncio.sleep(0)
        return prefix + tag

    def inner(event: Tagged) -> Any:
        return [prefix + tag for tag in sorted(event.tags)], [prefix for _ in (yield_all(event))]

    def yield_all(event: Tagged) -> Any:
        yield from sorted(event.tags)

    world = World()
    table = world.table("answers")

    async def fine(event: Tagged) -> None:
        table["inner"] = inner(event)
        table["all"] = await asyncio.gather(*[one(tag) for tag in sorted(event.tags)])
        table["names"] = sorted(Derived().names())

    unsteady(Scenario([("Shelf/1", Tagged())], [fine], world=world))
    assert "names goes through a set in [" in told_of(lambda event: Derived().names())


def hidden(text: str) -> Any:
    """Return the function of the event that a text makes, whose source is nowhere."""
    found: dict[str, Any] = {"time": time}
    exec(text, found)
    return found["hidden"]


def test_code_without_a_source_is_told_in_the_reserves():
    """By its name, if it ran; its sets are as they are. What a library makes of a text is not told."""
    function = hidden("def unused(): pass\ndef hidden(event):\n    return list({'x', 'y'})")
    assert reserves_of(function) == [
        "the order of sets and what clocks say were not tried in hidden, whose source is not at hand"
    ]
    assert not reserves_of(lambda event: [Pair(1, 2), Point(1).x, repr(Point(1))])


def test_a_clock_in_code_without_a_source_is_a_call():
    """Nobody can tell what is made of it."""
    function = hidden("def hidden(event):\n    time.time()")
    assert told_of(function).startswith("hidden calls time.time() (line 2): what comes of it")


def test_no_set_is_turned_in_the_process_of_the_user(monkeypatch):
    """Where no child can be forked, the reserves say so, and a clock that is called matters."""
    turned: list[Any] = []
    monkeypatch.setattr("esim.turned.be", lambda value, kind: turned.append(value))
    monkeypatch.delattr(os, "fork")
    assert reserves_of(attribute) == [
        f"the order of sets and what clocks say were not tried ({sys.platform} cannot fork a process)"
    ]
    assert not turned
    assert "took calls time.perf_counter() (line " in told_of(took)


def test_schedules_for_which_there_is_no_time_are_told(monkeypatch):
    """They are not tried in another order."""
    monkeypatch.setattr("esim.wobble._TURNING", -1.0)
    (told,) = reserves_of(attribute)
    assert told.startswith("the order of sets and what clocks say were not tried in ")
    assert told.endswith(" schedules: it takes too long")


def test_a_child_that_dies_is_told_as_one_that_is_not_there(monkeypatch):
    """Whatever kills it, as what is done to the classes of sets may."""
    monkeypatch.setattr("esim.turned.be", lambda value, kind: os._exit(1))
    assert reserves_of(attribute) == [
        "the order of sets and what clocks say were not tried (a child process ended without a word)"
    ]


def test_code_that_goes_another_way_when_it_is_watched_is_told_in_the_reserves():
    """It asks for what no other class than that of sets has: what it does otherwise is not tried."""
    (told,) = reserves_of(lambda event: [*map(type, [event.tags])] == [frozenset])
    assert "were not tried where watched code goes another way ('answers: answer" in told
