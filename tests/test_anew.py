"""Functions compiled anew, and sets in another order, do what they do else: only the order can tell."""

from __future__ import annotations

import ast
import asyncio
import collections
import contextlib
import copy
import dataclasses
import functools
import json
import pickle
import pprint
import textwrap
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pandas as pd
import pydantic
import pytest

from esim.anew import anew
from tests.steadiness import Tagged, reserves_of, told_of


class Strict(pydantic.BaseModel, strict=True):
    names: set[str]
    fixed: frozenset[str] = frozenset({"u", "v"})
    either: list[str] | set[str] = pydantic.Field(default_factory=lambda: {"s", "t"})

    @pydantic.field_validator("names")
    @classmethod
    def not_empty(cls, value: set[str]) -> set[str]:
        if type(value) is not set or not value:
            raise ValueError("no names")
        return {one.lower() for one in value}

    @property
    def first(self) -> str:
        return min(self.names)


@dataclasses.dataclass
class Box:
    names: set[str] = dataclasses.field(default_factory=lambda: {"x", "y"})

    def __post_init__(self) -> None:
        self.names |= {"z"}

    def sorted(self) -> list[str]:
        return sorted(self.names)


class Base:
    kinds = frozenset({"k", "l"})
    __private = frozenset({"p", "q"})

    def __init__(self, names: set[str]) -> None:
        self._names = names

    @property
    def names(self) -> list[str]:
        return sorted(self._names)

    @names.setter
    def names(self, names: set[str]) -> None:
        self._names = names

    @classmethod
    def of(cls, *names: str) -> Any:
        return cls({*names})

    def raw(self) -> set[str]:
        return self._names

    @staticmethod
    def joined(names: set[str]) -> str:
        return "".join(sorted(names))

    @functools.cached_property
    def length(self) -> int:
        return sum(map(len, self._names | self.__private))


class Derived(Base):
    def __init__(self, names: set[str]) -> None:
        super().__init__(names | {"d"})

    @classmethod
    def of(cls, *names: str) -> Any:
        return super().of(*names, "e")


def noted(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return wrapper.__name__, function(*args, **named)

    return wrapper


@noted
def decorated(event: Tagged) -> Any:
    return sorted(event.tags)


@functools.lru_cache
def cached(tags: frozenset[str]) -> int:
    return len(tags)


@functools.singledispatch
def kind_of(value: Any) -> str:
    return "other"


@kind_of.register(set)
@kind_of.register(frozenset)
def _(value: Any) -> str:
    return f"of {len(value)}"


def types(event: Tagged) -> Any:
    mine = {"x", "y"}
    kinds = [type(one).__name__ for one in (mine, event.tags, mine | {"z"}, mine.copy())]
    made = type("Made", (), {"names": mine})
    return (
        *(type(mine) is set, type(event.tags) is frozenset, mine.__class__ is set, made.__module__),
        *(isinstance(mine, set), isinstance(mine, frozenset), issubclass(type(mine), set), kinds),
    )


def keys(event: Tagged) -> Any:
    prices = {frozenset({"a", "b", "c"}): 1, frozenset({"x", "y"}): 2}
    both = {event.tags, frozenset("cba")}
    return prices[event.tags], prices[frozenset("yx")], len(both)


def constants(event: Tagged) -> Any:
    return (
        [one in {"a", "b"} for one in ("a", "c")],
        "x" not in frozenset({"x", "y"}),
        event.tags >= {"a", "b"},
    )


def copies(event: Tagged) -> Any:
    mine = {"names": {"x", "y"}}
    deep, again = copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))  # noqa: S301 - our own
    kinds = [type(one["names"]) is set for one in (deep, again)]
    deep["names"].add("z")
    return kinds, again == mine, deep != mine, copy.copy(event.tags) == event.tags, copy.copy(mine["names"])


def models(event: Tagged) -> Any:
    made = Strict(names={"A", "B"})
    again = Strict.model_validate(made.model_dump())
    told = pydantic.TypeAdapter(set[str] | frozenset[str]).validate_python(event.tags)
    return made == again, made.first, type(told) is frozenset, isinstance(made.either, set), event == Tagged()


def jsons(event: Tagged) -> Any:
    def default(value: Any) -> Any:
        return sorted(value) if isinstance(value, set | frozenset) else str(value)

    with contextlib.suppress(TypeError):
        json.dumps(event.tags)
    return json.dumps({"tags": event.tags, "of": [{"x", "y"}]}, default=default)


def dataclass(event: Tagged) -> Any:
    box = Box()
    return box.sorted(), box == Box(), dataclasses.asdict(box) == {"names": {"x", "y", "z"}}


def in_place(event: Tagged) -> Any:
    names = others = {"x", "y"}
    names |= {"z"}
    names -= {"x"}
    names ^= {"a"}
    names.update(event.tags)
    names.discard("b")
    names &= {"a", "c", "y"}
    return sorted(names), others is names, sorted({"x"}.union(names)), names.issuperset({"a"})


def nonlocals(event: Tagged) -> Any:
    count, names = 0, set()

    def add(*tags: str, step: int = 1, name: Any = lambda one, by=str.upper: by(one), **more: Any) -> None:
        nonlocal count
        count += step * len(more)
        names.update(name(tag) for tag in tags)

    add(*event.tags, step=2, x=1, **dict.fromkeys(sorted(event.tags)))
    return count, sorted(names)


def matched(event: Tagged) -> Any:
    found = []
    for value in ({"x", "y"}, ["a", {"b", "c"}], {"names": {"u", "v"}}, event):
        match value:
            case set() as one if len(one) > 1:
                found.append(sorted(one))
            case [first, {"no": _}] | [first, *_]:
                found.append(first)
            case {"names": set(names)}:
                found.append(sorted(names))
            case Tagged(tags=tags):
                found.append(sorted(tags))
    return found


def walruses(event: Tagged) -> Any:
    if (count := len(tags := event.tags)) > 1 and (rest := tags - {"a"}):
        return count, sorted(rest), [last for one in sorted(tags) if (last := one.upper())]
    return None


def generated(event: Tagged) -> Any:
    def each() -> Iterator[str]:
        got = yield from sorted(event.tags)
        yield str(got)

    walk = each()
    return next(walk), [*walk], sum(len(one) for one in event.tags), dict.fromkeys(event.tags, 1)["b"]


def in_a_class(event: Tagged) -> Any:
    class Inner(Base):
        names_of = sorted(event.tags)
        every = {one.upper() for one in event.tags}

        def told(self) -> Any:
            return __class__.__name__, self.names_of, sorted(self.every), super().names

    return Inner({"x", "y"}).told()


def annotated(event: Tagged) -> Any:
    @dataclasses.dataclass
    class Inner:
        names: set[str]
        kinds: ClassVar[set[str]] = {"k", "l"}

        def told(self, more: set[str] | None = None) -> list[str]:
            both: set[str] = self.names | (more or self.kinds)
            return sorted(both)

    class Model(pydantic.BaseModel):
        names: set[str]
        of: dict[str, set[str]] = {}

    made = Model(names={"x", "y"}, of={"a": {"u", "v"}})
    told = [str(one) for one in (Inner.__annotations__["kinds"], Inner.told.__annotations__["return"])]
    return Inner({"x", "y"}).told(), made.model_copy() == made, sorted(made.of["a"]), told


def classes(event: Tagged) -> Any:
    one = Derived.of("x", "y")
    names = one.names
    one.names = {"m", "n"}
    return names, one.names, Base.joined({"u", "v"}), one.length, sorted(Base.kinds)


def asserted(event: Tagged) -> Any:
    assert event.tags == {"c", "a", "b"}, "as pytest rewrites it"
    return sorted(event.tags)


def caught(event: Tagged) -> Any:
    def told(call: Any) -> str:
        try:
            return str(call())
        except (AttributeError, KeyError, TypeError) as error:
            return repr(error)

    mine = {"x", "y"}
    return told(lambda: mine.remove("z")), told(lambda: getattr(mine, "no")), told(lambda: {}[mine])  # noqa: B009


async def awaited(event: Tagged) -> Any:
    async def one(tag: str) -> str:
        await asyncio.sleep(0)
        return tag

    async def each() -> AsyncIterator[str]:
        for tag in sorted(event.tags):
            yield await one(tag)

    async with asyncio.timeout(9), asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(tag)) for tag in sorted(event.tags)]
    found = {tag async for tag in each()}
    return [task.result() for task in tasks], [tag async for tag in each() if tag != "b"], sorted(found)


async def gathered(event: Tagged) -> Any:
    waiting = {asyncio.create_task(asyncio.sleep(0, tag)) for tag in sorted(event.tags)}
    done, pending = await asyncio.wait(waiting)
    return sorted(task.result() for task in done), len(pending)


def queried(event: Tagged, least: int = 1) -> Any:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    return frame.query("a > @least")["a"].tolist(), frame.eval("a * @least").tolist()


INNOCENT = [
    *(decorated, types, keys, constants, copies, models, jsons, dataclass, in_place, nonlocals, matched),
    *(walruses, generated, in_a_class, annotated, asserted, classes, caught, awaited, gathered, queried),
    lambda event: cached(event.tags),
    lambda event: (kind_of({"x", "y"}), kind_of(event.tags), kind_of(1)),
    lambda event: functools.reduce(frozenset.union, [event.tags, {"x"}], frozenset()),
    lambda event: pd.Series(range(3), index=list("abc"))[sorted(event.tags)].tolist(),
    lambda event: pd.DataFrame({"a": ["a", "z"]})["a"].isin(event.tags).tolist(),
    lambda event: pprint.pformat(sorted(event.tags)),
    lambda event: collections.ChainMap({"x": event.tags}, {"y": {"u", "v"}})["y"],
    lambda event: all(map(event.tags.__contains__, "abc")) and not event.tags.isdisjoint("a"),
    lambda event, by={"x", "y"}: by == {"y", "x"} and len(by),
]


@pytest.mark.parametrize("function", INNOCENT)
def test_code_that_does_not_go_by_an_order_is_steady(function: Any) -> None:
    """Whatever it is written with: nothing is refused, and nothing was not tried."""
    assert reserves_of(function) == []


def guilty_types(event: Tagged) -> Any:
    return [one for one in event.tags] if type(event.tags) is frozenset else sorted(event.tags)  # noqa: C416


def guilty_models(event: Tagged) -> Any:
    return Strict(names={"A", "B"}).model_dump_json()


def guilty_copies(event: Tagged) -> Any:
    return [*pickle.loads(pickle.dumps(event.tags))]  # noqa: S301 - our own


def guilty_closure(event: Tagged) -> Any:
    found: list[str] = []

    def add(*tags: str) -> None:
        nonlocal found
        found += tags

    add(*event.tags)
    return found


def guilty_match(event: Tagged) -> Any:
    match {"names": {"x", "y"}}:
        case {"names": set(names)}:
            return ",".join(names)


def guilty_super(event: Tagged) -> Any:
    class Inner(Derived):
        def told(self) -> Any:
            return [*super().raw()]

    return Inner({"x"}).told()


def guilty_generator(event: Tagged) -> Any:
    def each() -> Iterator[str]:
        yield from event.tags

    return [*each()]


async def guilty_await(event: Tagged) -> Any:
    async def each() -> AsyncIterator[str]:
        for tag in event.tags:
            await asyncio.sleep(0)
            yield tag

    return [tag async for tag in each()]


def guilty_assert(event: Tagged) -> Any:
    assert event.tags, "as pytest rewrites it"
    return [tag for tag in event.tags if tag]


@noted
def guilty_decorated(event: Tagged) -> Any:
    return "".join(event.tags)


def guilty_default(event: Tagged, by: Any = lambda names: [*{*names}]) -> Any:
    return by(["x", "y"])


def guilty_keyword(event: Tagged, *, by: Any = lambda names: [*{*names}]) -> Any:
    return by(["x", "y"])


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (guilty_types, "guilty_types goes through the set event.tags"),
        (guilty_models, "guilty_models goes through a set in Strict(names={'A', 'B'})"),
        (guilty_copies, "guilty_copies goes through a set in [*pickle.loads(pickle.dumps(event.tags))]"),
        (guilty_closure, "guilty_closure goes through a set in add(*event.tags)"),
        (guilty_match, "guilty_match goes through a set in ','.join(names)"),
        (guilty_super, "told goes through a set in [*super().raw()]"),
        (guilty_generator, "each goes through the set event.tags"),
        (guilty_await, "each goes through the set event.tags"),
        (guilty_assert, "guilty_assert goes through the set event.tags"),
        (guilty_decorated, "guilty_decorated goes through a set in ''.join(event.tags)"),
        (guilty_default, "<lambda> goes through a set in [*{*names}]"),
        (guilty_keyword, "<lambda> goes through a set in [*{*names}]"),
    ],
)
def test_code_that_goes_by_an_order_is_named(function: Any, place: str) -> None:
    """With the function in which it does."""
    assert place in told_of(function)


def test_a_function_that_is_written_in_an_annotation_is_seen(tmp_path: Any) -> None:
    """As one by which pydantic validates; an annotation itself stays as it is written."""
    path = tmp_path / "mine.py"
    text = """
    from typing import Annotated
    from pydantic import AfterValidator, BaseModel

    class Mine(BaseModel):
        names: Annotated[list[str], AfterValidator(lambda names: [*{*names}])]

    def mine(event):
        return Mine(names=["x", "y"]).names
    """
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    found: dict[str, Any] = {"__name__": __name__}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True), found)
    assert "<lambda> goes through a set in [*{*names}]" in told_of(found["mine"])


def test_statements_of_a_cell_that_are_compiled_one_by_one_are_compiled_anew(tmp_path: Any) -> None:
    """As IPython does: a function that calls what the same cell imports is other code then."""
    path = tmp_path / "cell.py"
    path.write_text("import time\ndef mine(event):\n    return time.perf_counter() and 7\n", encoding="utf-8")
    found: dict[str, Any] = {"__name__": __name__}
    for one in ast.parse(path.read_text(encoding="utf-8")).body:
        exec(compile(ast.Module([one], []), str(path), "exec", dont_inherit=True), found)
    assert anew(found["mine"].__code__) is not found["mine"].__code__
    assert reserves_of(found["mine"]) == []


def test_code_whose_source_is_another_by_now_is_left_as_it_is(tmp_path: Any) -> None:
    """What is in the file is not what runs."""
    path = tmp_path / "mine.py"
    path.write_text("def mine():\n    return {'x'}, 2\n", encoding="utf-8")
    found: dict[str, Any] = {}
    exec(compile("def mine():\n    return {'x'}, 1\n", str(path), "exec"), found)
    mine = found["mine"].__code__
    assert anew(mine) is mine
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), found)
    mine = found["mine"].__code__
    assert anew(mine) is not mine
