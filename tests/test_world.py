"""What is outside of a process, by hand and in a simulation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidArgument
from esim.frozen import frozen, written
from esim.virtual import pausing
from esim.world import World

ROOT = Path(__file__).parent.parent


class Gate:
    """Has one kind of fault happen at one place."""

    recording = True
    sheltered = False

    def __init__(self, fault: str = "") -> None:
        self.fault, self.asked, self.noted = fault, [], []

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        self.asked.append((lane, told))
        found, self.fault = (self.fault if self.fault in kinds else ""), ""
        return found

    def note(self, lane: str, told: str, fault: str = "") -> None:
        self.noted.append((lane, told, fault)[: 3 if fault else 2])


# --- by hand -----------------------------------------------------------------------------------------------


def test_a_world_works_without_a_simulation():
    """Tables, services, queues and memory are plain objects."""
    world = World()
    stock, queue = world.table("stock", {"mug": 9}), world.queue("orders")
    mail, seen = world.service("mail"), world.memory("seen", set)
    stock["mug"] -= 1
    mail("ann", subject="hello")
    queue.publish({"n": 1})
    seen.value.add(1)
    assert dict(stock) == {"mug": 8}
    assert world.calls("mail")[0].arguments == {"args": ("ann",), "subject": "hello"}
    assert len(queue) == 1
    world.reset()
    assert (dict(stock), world.calls("mail"), len(queue), seen.value) == ({"mug": 9}, [], 0, set())


def test_a_service_that_is_a_function_returns_what_it_returns():
    """As a decorator, with and without options."""
    world = World()

    @world.service
    def rate(currency: str, day: int = 1) -> Decimal:
        return Decimal("1.10")

    assert rate("eur") == Decimal("1.10")
    assert world.calls("rate")[0].arguments == {"currency": "eur"}
    with pytest.raises(TypeError):
        rate()


def test_a_receiver_that_knows_keys_takes_each_once():
    """A second call of the same key is not carried out."""
    world = World()

    @world.service(once_by="key")
    def charge(amount: int, key: str) -> None: ...

    for key in ("a", "a", "b"):
        charge(5, key=key)
    assert [call.arguments["key"] for call in world.calls("charge")] == ["a", "b"]


def test_a_key_that_no_call_can_have_is_told():
    """It would be the same for each; a call without a key is carried out each time."""
    world = World()
    with pytest.raises(
        InvalidArgument, match=r"once_by='kee': send\(to, key=None\) has no such .*mean 'key'"
    ):

        @world.service(once_by="kee")
        def send(to, key=None): ...

    @world.service(once_by="key")
    def post(to, key=None): ...

    anything = world.service("anything", once_by="key")
    for _ in range(2):
        post("ann")
        post("ann", key=None)
        anything("ann")
    assert (len(world.calls("post")), len(world.calls("anything"))) == (4, 2)


def test_an_answer_that_is_given_again_is_the_first_one():
    """Also after the service was put back, and whatever was done to the answer."""
    world, count = World(), iter("123")

    @world.service(once_by="key")
    def number(key: str) -> list[str]:
        return [key, next(count)]

    number("a").append("changed")
    part = world.parts["number"]
    picture = part.snapshot()
    number("b")
    part.restore(picture)
    assert (number("a"), number("b"), number("a")) == (["a", "1"], ["b", "3"], ["a", "1"])


def test_a_service_that_fails_by_itself_says_so():
    """Its call is not counted, and the timeline has why."""
    world = World()
    world.gate = gate = Gate()

    @world.service
    def pay(amount: int) -> None:
        raise ValueError("declined")

    with pytest.raises(ValueError, match="declined"):
        pay(5)
    assert world.calls("pay") == []
    assert gate.noted == [("pay", "pay(5)"), ("pay", "fails: ValueError: declined", "failed")]
    assert not gate.sheltered


@pytest.mark.parametrize("outage", [0, -1, 1.5, True])
def test_an_outage_is_at_least_one_call_long(outage):
    """None would be no outage, and fewer would last for ever."""
    with pytest.raises(InvalidArgument, match="give a whole number from 1 on"):
        World().service("mail", outage=outage)


def test_names_are_told():
    """A service that is not there, and a name that is taken by another kind."""
    world = World()
    world.service("mail")
    with pytest.raises(InvalidArgument, match="did you mean 'mail'"):
        world.calls("mial")
    with pytest.raises(InvalidArgument, match="the name of something else"):
        world.table("mail")
    assert world.table("x") is not world.table("x")  # a cell that is run again


# --- what a database, a ledger of calls and a broker would do ---------------------------------------------


def test_what_a_table_gives_is_a_copy():
    """To change a row's value in place changes no row; to write it does."""
    table = World().table("carts", {"ann": []})
    table["ann"].append("mug")
    assert table["ann"] == []
    cart = table["ann"]
    cart.append("mug")
    table["ann"] = cart
    cart.append("cup")
    assert table["ann"] == ["mug"]


def test_a_table_comes_by_key_whatever_was_first():
    """Also keys of kinds that do not compare."""
    one, two = World().table("t"), World().table("t")
    for key in ("b", "a"):
        one[key] = 1
    for key in ("a", "b"):
        two[key] = 1
    assert list(one) == list(two) == ["a", "b"]
    assert one.frozen() == two.frozen()
    mixed = World().table("t", {"a": 1, 2: 1, None: 1})
    assert list(mixed) == [None, 2, "a"]


def test_a_call_is_kept_as_it_was_made():
    """What is done to its arguments later does not change what was called."""
    world = World()
    mail, items = world.service("mail"), ["mug"]
    mail(items)
    items.append("cup")
    assert world.calls("mail")[0].arguments["args"] == (["mug"],)


def test_a_message_is_what_was_published():
    """Neither the publisher nor a consumer changes what waits in the queue."""
    queue, body = World().queue("q"), {"tries": 0}
    queue.publish(body)
    body["tries"] = 7
    (message,) = queue.waiting()
    queue.take(message, "me")["tries"] = 8
    queue.give_back()
    assert queue.waiting()[0].body == {"tries": 0}


# --- faults ------------------------------------------------------------------------------------------------


def test_a_call_can_fail_before_and_after_it_is_carried_out():
    """`error` is not carried out, `unknown` is."""
    world = World()
    mail = world.service("mail")
    for fault, error, calls in (("error", ConnectionError, 0), ("unknown", TimeoutError, 1)):
        world.gate = Gate(fault)
        with pytest.raises(error):
            mail("x")
        assert len(world.calls("mail")) == calls


def test_an_outage_lasts_for_as_many_calls_as_it_was_told():
    """And no longer."""
    world = World()
    mail = world.service("mail", outage=2)
    world.gate = Gate("outage")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            mail("x")
    mail("x")
    assert len(world.calls("mail")) == 1


@pytest.mark.parametrize(("fault", "left"), [("lost", 0), ("duplicate", 2), ("", 1)])
def test_a_queue_loses_and_doubles(fault, left):
    """As the simulation says."""
    world = World()
    queue = world.queue("q")
    world.gate = Gate(fault)
    queue.publish("x")
    assert len(queue) == left


def test_messages_come_back_unless_they_are_acknowledged():
    """One that is taken waits for nobody else; given back, it is delivered again."""
    queue = World().queue("q")
    queue.publish("x")
    queue.publish("y")
    first = queue.waiting()[0]
    queue.take(first, "ann")
    assert [one.body for one in queue.waiting()] == ["y"]
    queue.give_back("bob")
    assert len(queue.waiting()) == 1
    queue.give_back("ann")
    assert [one.body for one in queue.waiting()] == ["x", "y"]
    queue.acknowledge(first)
    queue.again(first)
    assert [one.body for one in queue.waiting()] == ["y", "x"]


@pytest.mark.parametrize("kind", ["table", "service", "queue", "memory"])
def test_a_part_comes_back_as_its_picture_says(kind):
    """Whatever is done after it was taken, and as often as it is put back."""
    world = World()
    part: Any = {
        "table": lambda: world.table("x", {"a": [1]}),
        "service": lambda: world.service("x") and world.parts["x"],
        "queue": lambda: world.queue("x"),
        "memory": lambda: world.memory("x", lambda: {"a": [1]}),
    }[kind]()
    change = {
        "table": lambda: part.__setitem__("a", [*part["a"], 2]),
        "service": lambda: part.function()("call"),
        "queue": lambda: part.publish("message"),
        "memory": lambda: part.value["a"].append(2),
    }[kind]
    change()
    picture, told = part.snapshot(), part.frozen()
    for _ in range(2):
        change()
        assert part.frozen() != told
        part.restore(picture)
        assert part.frozen() == told


# --- what tells values apart -------------------------------------------------------------------------------


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Box:
    item: Any


class Plain:
    def __init__(self, item: Any) -> None:
        self.item = item


class Slotted:
    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
APART = [
    *(1, True, 1.0, "1", Decimal(1), Decimal("1.0"), None, 0, False, 0.0, -0.0, -1, -2, "", b"1", (1,), [1]),
    *({1}, frozenset({1}), {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": True, "b": 2}, Colour.RED, Colour.BLUE),
    *(NOON, NOON.astimezone(timezone(timedelta(hours=1))), Box(1), Box(True), Plain(1), Plain(2), Slotted(1)),
    *(Slotted(2), Counter("a"), Counter("aa"), defaultdict(int, a=1), deque([1]), deque([1], 5), [[1], [2]]),
    *([[1, 2]], [Plain(1)], {1: {2: {3}}}, int, str, len, float("inf")),
]


def test_values_that_differ_are_told_apart():
    """Each pair: by kind, by order, by how they are written, by what an object holds."""
    forms = [frozen(value) for value in APART]
    assert len(set(forms)) == len(forms)


ALIKE = [
    lambda: Box([1]),
    lambda: Plain({"a": {1}}),
    lambda: Slotted((1,)),
    lambda: Counter("ab"),
    lambda: defaultdict(list, a=[1]),
    lambda: deque([1]),
    lambda: {"a": [1, {2}]},
    lambda: float("nan"),
]


@pytest.mark.parametrize("make", ALIKE)
def test_values_that_are_made_alike_are_the_same(make):
    """Two objects that hold the same are one state, however often they are copied."""
    assert frozen(make()) == frozen(make())
    assert hash(frozen(make())) == hash(frozen(make()))


def test_an_object_that_changes_is_another_state():
    """Not the object counts, but what it holds."""
    box, plain = Box([1]), Plain({"a": 1})
    before = frozen(box), frozen(plain)
    box.item.append(2)
    plain.item["a"] = 2
    assert (frozen(box), frozen(plain)) != before


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0])
    | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN, PLAIN)
def test_the_frozen_form_is_as_fine_as_the_written_form(one, two):
    """Two values of plain kinds are the same if and only if they are written alike."""
    assert (frozen(one) == frozen(two)) == (repr(one) == repr(two))


def test_the_written_form_is_the_same_in_every_process():
    """Neither the order of hashes nor an address is in it, so that a token lasts."""
    code = (
        "from esim.frozen import frozen, written\n"
        "class P: pass\n"
        "print(written(frozen([{'b', 'a', 'mug'}, {'x': P()}, P, len, Exception('e')])))\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    assert "0x" not in told.pop()
    assert written(frozen({"b", "a"})) == "(set, {'a', 'b'})"


def test_a_picture_of_memory_keeps_what_tasks_share_without_those_who_wait():
    """A lock that is held and waited for is held in the copy, and whoever comes next may wait for it.

    Its state is the same whoever waits.
    """
    states = []
    for _ in range(2):
        memory = World().memory("locks", lambda: [asyncio.Lock()])
        (lock,) = memory.value
        steps = pausing(_taken_by_two(lock))
        next(steps), next(steps), next(steps)
        assert len(lock._waiters) == 1
        states.append(memory.frozen())
        memory.restore(memory.snapshot())
        (copied,) = memory.value
        assert copied.locked()
        assert not copied._waiters
        steps.close()
    assert states[0] == states[1]


async def _taken_by_two(lock: asyncio.Lock) -> None:
    async def holds() -> None:
        async with lock:
            await asyncio.sleep(1)

    await asyncio.gather(holds(), holds())


def test_memory_that_cannot_be_copied_is_refused_where_it_is_declared():
    """And told in plain words."""
    with pytest.raises(InvalidArgument, match="'lock' in memory cannot be copied"):
        World().memory("lock", threading.Lock)
