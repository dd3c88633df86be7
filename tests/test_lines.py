"""Sets that are gone through, and clocks that are handed on, are read in the source of code that has run."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest

from esim.event import Event
from esim.lines import Lines
from esim.world import World


class Tagged(Event):
    tags: frozenset[str] = frozenset({"a", "b", "c"})
    numbers: frozenset[int] = frozenset({1, 2})
    none: frozenset[str] = frozenset()


class Shelf:
    names = {"x", "y"}

    def __init__(self) -> None:
        self.mugs = {"x", "y"}
        self.of = {"mugs": {"x", "y"}, "left": [1]}

    def known(self) -> set[str]:
        return {"x", "y"}


SHELF = Shelf()
TABLE = World().table("table", {"set": {"x", "y"}})
IDS = partial(datetime.now)
RNG = np.random.default_rng(7)


def lines_of(function: Any, *given: Any) -> Lines:
    """Return what is seen of a function that is run."""
    lines = Lines(
        lambda found: getattr(found, "__name__", "") if found in (time.time, datetime.now, id) else ""
    )

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code.co_filename == __file__:
            lines.returned(frame, arg)

    def trace(frame: Any, _event: str, _arg: Any) -> Any:
        return lines.trace(frame) if frame.f_code.co_filename == __file__ else None

    tracer = sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        function(*(given or [Tagged()]))
    finally:
        sys.setprofile(None)
        sys.settrace(tracer)
    return lines


def field(event: Tagged) -> None:
    for tag in event.tags:
        str(tag)


def variable(event: Tagged) -> None:
    tags = event.tags
    [str(tag) for tag in tags]


def attribute(event: Tagged) -> None:
    list(SHELF.mugs)


def of_the_class(event: Tagged) -> None:
    list(SHELF.names)


def item(event: Tagged) -> None:
    key = "mugs"
    tuple(SHELF.of[key])


def of_a_table(event: Tagged) -> None:
    sorted(TABLE["set"], key=len)


def returned(event: Tagged) -> None:
    for name in names():
        str(name)


def by_method(event: Tagged) -> None:
    for name in SHELF.known():
        str(name)


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


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (field, "event.tags"),
        (variable, "tags"),
        (attribute, "SHELF.mugs"),
        (of_the_class, "SHELF.names"),
        (item, "SHELF.of[key]"),
        (of_a_table, "TABLE['set']"),
        (returned, "names()"),
        (by_method, "SHELF.known()"),
        (unpacked, "{'x', 'y'}"),
        (starred, "{'x', 'y'}"),
        (keys, "{'x', 'y'}"),
        (extended, "{'x', 'y'}"),
        (added, "{'x', 'y'}"),
        (in_words, "event.tags"),
        (filtered, "{'x', 'y'}"),
        (walrus, "found"),
        (chosen, "{'x', 'y'} if event else []"),
        (chained, "{'x', 'y'}"),
        (greatest, "event.tags"),
    ],
)
def test_a_set_that_is_gone_through_is_named_wherever_it_comes_from(function, what):
    """A field, an attribute, an item, what a function returned; by a loop, a star, or in words."""
    (told,), _ = lines_of(function).orders()
    assert told.startswith(f"{function.__name__} goes through the set {what} (line ")


PAIRS = {(1, 2), (3, 4.5)}


def fine(event: Tagged) -> Any:
    for number in event.numbers:
        str(number)
    ordered = sorted(event.tags)
    by_text = sorted(event.tags, key=str)
    others = {tag.upper() for tag in event.tags}
    (only,) = {"x"}
    more = sorted(map(str, event.tags)), sorted(tag.upper() for tag in event.tags)
    return (
        more,
        [*ordered, *by_text],
        max(event.tags),
        {*others, *event.tags},
        len(others),
        "x" in others,
        only,
        [*PAIRS],
    )


def test_what_does_not_look_at_the_order_is_passed_over():
    """Numbers, what sorts, and what makes another set."""
    assert lines_of(fine).orders() == ([], [])


def tidy(tags: Any) -> Any:
    tags = sorted(tags)[:2]
    return [str(tag) for tag in tags]


def untidy(tags: Any) -> Any:
    found = [str(tag) for tag in tags]
    tags = sorted(tags)
    return found + tags


def tidied(event: Tagged) -> Any:
    return tidy(event.tags)


def left_untidy(event: Tagged) -> Any:
    return untidy(event.tags)


def late(event: Tagged) -> Any:
    tags: Any = sorted(event.tags)
    if len(tags) == 3:
        tags = set(tags)
    return [str(tag) for tag in tags]


def one_name(event: Tagged) -> Any:
    rates = {"a": 1}
    return "x" in Cart().items() and [str(rate) for rate in rates.items()]


def same_name(event: Tagged) -> Any:
    return [str(item) for item in Cart().items()]


def pairs(event: Tagged) -> Any:
    return [first for first, _ in {(1, 2), (3, 4)}]


def pairs_of_texts(event: Tagged) -> Any:
    return [first for first, _ in {(1, "a"), (3, "b")}]


def looked_up(event: Tagged) -> Any:
    ranks = {tag: len(tag) for tag in event.tags}
    return ranks["a"], ranks.get("b"), "c" in ranks, {tag: len(tag) for tag in event.tags} == ranks


def gone_through(event: Tagged) -> Any:
    ranks = {tag: len(tag) for tag in event.tags}
    return ranks["a"], list(ranks)


def last_wins(event: Tagged) -> Any:
    ranks = {len(tag): tag for tag in event.tags}
    return ranks[1]


def by_property(event: Tagged) -> Any:
    return [str(name) for name in Cart().names]


def inner(event: Tagged) -> Any:
    return [str(tag) for tags in [event.tags] for tag in tags]


def yielded(event: Tagged) -> Any:
    return [len(tags) for tags in each(event)]


def mapped(event: Tagged) -> Any:
    return [len(tags) for tags in map(one_of, ["a", "b"])]


def empty(event: Tagged) -> Any:
    return [str(tag) for tag in event.none]


def each(event: Tagged) -> Any:
    yield event.tags
    yield event.tags


def one_of(tag: str) -> set[str]:
    return {tag}


class Cart:
    def items(self) -> set[str]:
        return {"x", "y"}

    @property
    def names(self) -> set[str]:
        return {"x", "y"}


@pytest.mark.parametrize(
    ("fine", "twin"),
    [
        (tidied, left_untidy),
        (tidied, late),
        (one_name, same_name),
        (pairs, pairs_of_texts),
        (looked_up, gone_through),
        (looked_up, last_wins),
        (yielded, by_property),
        (mapped, inner),
        (yielded, empty),
    ],
)
def test_a_set_is_one_where_it_is_gone_through(fine, twin):
    """What was a set before, what has the name of one, or is of numbers, is none; its twin is."""
    assert lines_of(fine).orders() == ([], [])
    (told,), _ = lines_of(twin).orders()
    assert "goes through the set " in told


def late_after_none(event: Tagged) -> Any:
    return [[str(tag) for tag in tags or ()] for tags in (*[None] * 25, event.tags)]


def test_a_set_that_comes_late_is_one():
    """However often there was none in its place."""
    (told,), _ = lines_of(late_after_none).orders()
    assert told.startswith("late_after_none goes through the set tags or ()")


def cancels(tasks: Any) -> None:
    for each in tasks:
        each.cancel()


def noting(tasks: Any) -> Any:
    return [each.cancel() for each in tasks]


def tells_the_first(tasks: Any) -> Any:
    try:
        for each in tasks:
            each.result()
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("count", [0, 2])
def test_tasks_in_a_set_may_be_ended(count):
    """As the manual of asyncio has it; whatever else is done in their order is named."""

    async def told_of(function: Any) -> tuple[list[str], list[str]]:
        loop = asyncio.get_running_loop()
        futures = {loop.create_future() for _ in range(count)}
        for future in futures:
            future.set_result(1)
        return lines_of(function, futures).orders()

    assert asyncio.run(told_of(cancels)) == ([], [])
    for twin in (noting, tells_the_first):
        (told,) = (one for found in asyncio.run(told_of(twin)) for one in found)
        assert told.startswith(f"{twin.__name__} goes through the set tasks")


def iterated(event: Tagged) -> Any:
    return next(iter(time.time, None))


def by_partial(event: Tagged) -> Any:
    return IDS()


def by_key(event: Tagged) -> Any:
    return sorted([1, 2], key=id)


def global_dice(event: Tagged) -> Any:
    return np.random.random()  # noqa: NPY002 - what is found out


def dice(event: Tagged) -> Any:
    return np.random.default_rng()


def today(event: Tagged) -> Any:
    return np.datetime64("today")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (iterated, "iterated hands on time"),
        (by_partial, "by_partial hands on now"),
        (by_key, "by_key hands on id"),
        (global_dice, "global_dice calls numpy.random.random()"),
        (dice, "dice calls numpy.random.default_rng()"),
        (today, "today calls np.datetime64('today')"),
    ],
)
def test_clocks_and_dice_of_c_code_are_named(function, told):
    """Nobody sees them being called."""
    (found,) = lines_of(function).calls()
    assert found.startswith(f"{told} (line ")


def steady(event: Tagged) -> Any:
    id = event.event_type
    others = [str(hash) for hash in (1, 2)]
    return id, others, RNG, np.random.default_rng(7), np.datetime64("2026-01-01"), time.time()


def test_names_that_are_something_else_here_are_no_clocks():
    """A variable called id, chance from a seed; and what is called is named where it is called."""
    assert lines_of(steady).calls() == []


def test_code_without_a_source_is_passed_over():
    found: dict[str, Any] = {}
    exec("def hidden(event):\n    return list({'x', 'y'})", found)
    lines = Lines(lambda _: "")

    sys.settrace(lambda frame, _event, _arg: lines.trace(frame))
    found["hidden"](Tagged())
    sys.settrace(None)
    assert lines.orders() == ([], [])
    assert lines.calls() == []
