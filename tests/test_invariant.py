"""What must hold: how a check is told to hold, and the ready-made ones."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from esim.errors import InvalidArgument
from esim.event import Event
from esim.faults import Faults
from esim.invariant import (
    always,
    completed_xor_compensated,
    contiguous_versions,
    equals_fold,
    eventually,
    named,
    never_negative,
    no_effect_twice,
    nothing_lost,
    sometimes,
    state_of,
)
from esim.process import Deadline, DeadlinePassed, Process, ProcessManager
from esim.projection import Key, Row, Rows, on
from esim.simulation import explore, simulate
from esim.state import State
from esim.world import World


class Placed(Event):
    order: str
    n: int = 1


class Shipped(Event):
    order: str


class Cancelled(Event):
    order: str


class Sold(Row):
    order: Key[str]
    n: int = 0


class Order(State[Placed]):
    n: int = 0

    def evolve(self, event: Placed) -> Any:
        return self.but(n=self.n + event.n)


@pytest.mark.parametrize("value", [True, None, 1, "x", pd.Series([True, True]), pd.DataFrame({"a": [True]})])
def test_what_is_true_or_nothing_holds(value):
    """Also a column or a table in which everything is true."""
    assert always(lambda look: value).broken(None) is None


@pytest.mark.parametrize("value", [False, 0, "", pd.Series([True, False]), pd.DataFrame({"a": [False]})])
def test_what_is_false_is_broken(value):
    """Also a column or a table in which something is false."""
    assert always(lambda look: value).broken(None)


def test_an_assert_that_fails_says_why():
    """Its message is the reason."""

    def check(look):
        assert look, "nothing to see"

    assert eventually(check).broken(0) == "nothing to see"
    assert eventually(check).broken(1) is None


def test_invariants_have_names():
    """Of a mapping, of functions, and one of its own for each."""

    def stock_is_right(look):
        return True

    assert list(named({"a b": stock_is_right})) == ["a b"]
    assert list(named(stock_is_right)) == ["stock is right"]
    assert list(named([stock_is_right, always(stock_is_right)])) == ["stock is right", "stock is right'"]
    assert named(stock_is_right)["stock is right"].when == "eventually"
    assert [always(len).when, eventually(len).when, sometimes(len).when] == [
        "always",
        "eventually",
        "sometimes",
    ]
    with pytest.raises(InvalidArgument, match="right: 7 is no invariant"):
        named({"right": 7})


def seen(history: Any, actors: Any = (), world: World | None = None) -> Any:
    return simulate(history, actors, world=world or World()).look


def test_a_look_has_all_there_is():
    """The log, rows, positions, tables, calls, queues; names that are not there are told."""
    world = World()
    stock, mail = world.table("stock", {"mug": 2}), world.service("mail")
    world.queue("orders")

    def sell(event: Placed, rows: Rows[Sold]) -> None:
        rows.put(Sold(order=event.order, n=event.n))
        stock["mug"] -= event.n
        mail(event.order)

    look = seen([("Order/1", Placed(order="1"))], [sell], world)
    assert [one.type for one in look.log] == ["Placed"]
    assert look.rows() == look.rows("sell") == [Sold(order="1", n=1)]
    assert (look.position(), look.dead_letters(), look.queue("orders")) == (1, [], [])
    assert dict(look.table("stock")) == {"mug": 1}
    assert [call.service for call in look.calls()] == ["mail"]
    assert look.df("stock").to_dict("list") == {"key": ["mug"], "value": [1]}
    assert look.df("sell").n.tolist() == [1]
    assert state_of(look, Order, "1").n == 1
    for wrong, told in (("table", "no table 'stok'"), ("queue", "no queue"), ("calls", "no service")):
        with pytest.raises(InvalidArgument, match=told):
            getattr(look, wrong)("stok")
    with pytest.raises(InvalidArgument, match="no subscription 'sel'; did you mean 'sell'"):
        look.rows("sel")


def test_no_effect_twice_counts_by_what_is_asked():
    """All arguments but the key, unless some are named."""
    world = World()
    mail = world.service("mail")

    def act() -> None:
        mail(to="ann", key="1")
        mail(to="ann", text="other", key="2")

    look = seen([], [act], world)
    assert no_effect_twice("mail").broken(look) is None
    assert "called 2 times" in no_effect_twice("mail", by=["to"]).broken(look)


def test_nothing_lost_names_what_is():
    """Dead letters count as known."""
    world = World()

    @world.service
    def ship(order: str) -> None: ...

    def act() -> None:
        ship("1")

    look = seen([("Order/1", Placed(order="1")), ("Order/2", Placed(order="2"))], [act], world)
    assert nothing_lost("ship", Placed, by="order").broken(look) == "ship was never called for 2"


def test_negative_stock_and_a_table_that_is_no_fold_are_told():
    """The key and its value, and both tables."""
    world = World()
    world.table("stock", {"mug": -1})
    look = seen([("Order/1", Placed(order="1"))], world=world)
    assert never_negative("stock").broken(look) == "mug is -1"
    told = equals_fold("stock", lambda events: {"mug": 9 - len(events)}).broken(look)
    assert told == "stock is {'mug': -1}, and the log says {'mug': 8}"
    assert equals_fold("stock", lambda events: {"mug": -1}).broken(look) is None


def test_versions_have_no_gap():
    """In any log that a store makes."""
    history = [("Order/1", Placed(order="1")), ("Order/2", Placed(order="2")), ("Order/1", Placed(order="1"))]
    assert contiguous_versions().broken(seen(history)) is None


@pytest.mark.parametrize(
    ("kinds", "told"),
    [((Shipped,), None), ((Cancelled,), None), ((), "neither"), ((Shipped, Cancelled), "both")],
)
def test_a_process_is_completed_or_compensated_and_not_both(kinds, told):
    """By correlation: what an event has caused belongs to it."""

    def actors(store: Any) -> list[Any]:
        def react(event: Placed) -> None:
            for kind in kinds:
                store.append("Order/1", kind(order="1"))

        return [react]

    look = seen([("Order/1", Placed(order="1"))], actors)
    found = completed_xor_compensated(Shipped, Cancelled, started=Placed).broken(look)
    assert (found is None) if told is None else told in found


class Booking(Process): ...


class Patient(ProcessManager[Booking]):
    @on(Placed)
    def placed(self, event: Placed, process: Booking) -> Any:
        return Deadline("payment", hours=24)

    @on(DeadlinePassed)
    def too_late(self, event: DeadlinePassed, process: Booking) -> Any:
        return process


def test_what_a_deadline_undoes_is_of_the_same_process():
    """The deadline that is over belongs to the story of the event that set it."""
    whole = completed_xor_compensated(Shipped, DeadlinePassed, started=Placed)
    assert explore(
        [("Order/1", Placed(order="1"))], [Patient], {"whole": whole}, faults=Faults(crash=1)
    ).holds


def test_a_check_may_use_pandas():
    """It is evaluated once for each state."""

    def act(event: Placed, rows: Rows[Sold]) -> None:
        rows.put(Sold(order=event.order, n=event.n))

    times: list[int] = []

    def positive(look: Any) -> Any:
        times.append(1)
        return look.df("act").n > 0

    verdict = explore(
        [("Order/1", Placed(order="1"))], [act], {"positive": always(positive)}, faults=Faults(crash=2)
    )
    assert verdict.holds
    assert len(times) == verdict.states
