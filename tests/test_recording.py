"""Tokens, and what a recorded run keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import TokenMismatch
from esim.event import Event
from esim.faults import Faults
from esim.invariant import eventually
from esim.recording import token_of, token_read
from esim.retry import RetryPolicy
from esim.scenario import Scenario
from esim.simulation import explore, follow, replay, task
from esim.world import World


class Placed(Event):
    n: int = 1


def naive(stock: int = 9, name: str = "deduct", **changed: Any) -> dict[str, Any]:
    world = World()
    table = world.table("stock", {"mug": stock, "cup": 1})

    def deduct(event: Placed) -> None:
        table["mug"] -= event.n

    right = eventually(lambda look: look.table("stock")["mug"] == stock - 2)
    history = [("Order/1", Placed()), ("Order/2", Placed())]
    given = {"history": history, "actors": [follow(deduct, name)], "invariants": {"right": right}}
    return {**given, "world": world, "faults": Faults(crash=1, duplicate=1), **changed}


@pytest.fixture(scope="module")
def token() -> str:
    return explore(**naive(), confirm=None).counterexample.token


@given(st.dictionaries(st.integers(0, 999), st.integers(1, 9), max_size=5))
def test_a_token_says_its_choices(choices):
    """Whatever they are; no choice is 0."""
    told = token_of("0123456789abcdef0123", choices)
    assert token_read(told) == ("0123456789abcdef0123", choices)
    assert told.startswith("e2:0123456789abcdef0123:")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        "e2",
        "e2:0123456789abcdef0123",
        "e2:01:0",
        "e2:0123456789abcdef0123:a.b",
        "e2:0123456789abcdef0123:1",
        None,
    ],
)
def test_what_is_no_token_is_told(wrong):
    """With what one looks like."""
    with pytest.raises(TokenMismatch, match="is no token: it looks like"):
        token_read(wrong)


def test_a_token_of_another_version_is_told():
    """The version is named."""
    with pytest.raises(TokenMismatch, match="of version e3, and this esim reads e2"):
        token_read("e3:0123456789abcdef0123:1.1")


@pytest.mark.parametrize(
    ("other", "side"),
    [
        ({"history": [("Order/1", Placed())]}, "history"),
        ({"name": "other"}, "actors"),
        ({"stock": 8}, "world"),
        ({"faults": Faults(crash=1)}, "faults"),
    ],
)
def test_a_token_of_another_scenario_is_refused_and_the_side_is_named(token, other, side):
    """Only that side is."""
    with pytest.raises(TokenMismatch, match=rf"another scenario: {side}[^,]* differ; replay"):
        replay(token, **naive(**other))


def test_options_are_part_of_the_actors(token):
    """Also where they are long, and differ at their end."""
    one, two = (naive() for _ in range(2))
    handler = one["actors"][0].handler
    one["actors"] = [follow(handler, "deduct", retry=RetryPolicy(5, 1.0, 2.0, 60.0))]
    two["actors"] = [follow(handler, "deduct", retry=RetryPolicy(5, 1.0, 2.0, 61.0))]
    found = explore(**one, confirm=None).counterexample.token
    with pytest.raises(TokenMismatch, match="actors"):
        replay(found, **two)


def test_what_a_task_is_given_and_how_a_service_was_made_is_part_of_the_scenario():
    """Arguments of a task, and a service's key and outage: another one is another scenario."""

    def scenario(value: int = 7, outage: int = 3, once_by: str | None = None) -> dict[str, Any]:
        world = World()
        table, _ = world.table("table"), world.service("mail", outage=outage, once_by=once_by)

        def put(into: Any, key: str, value: int) -> None:
            into[key] = value

        small = eventually(lambda look: look.table("table")["a"] < 5)
        return {
            "history": [],
            "actors": [task(put, table, "a", value=value)],
            "invariants": small,
            "world": world,
        }

    found = explore(**scenario(), confirm=None).counterexample.token
    assert replay(found, **scenario()).broken is not None
    for other, side in (({"value": 1}, "actors"), ({"outage": 9}, "world"), ({"once_by": "args"}, "world")):
        with pytest.raises(TokenMismatch, match=f"scenario: {side}") as mismatch:
            replay(found, **scenario(**other))
        assert mismatch.value.sides == (side,)


def test_a_part_that_a_later_cell_adds_to_the_world_does_no_harm(token):
    """Unless the run uses it: then it was another scenario."""
    given = naive()
    later = given["world"].table("later")
    again = replay(token, **given)
    assert again.token == token and again.broken is not None

    def deduct(event: Placed) -> None:
        later["mug"] = event.n

    with pytest.raises(
        TokenMismatch, match="world differ; later was not there when it was found, and is used"
    ):
        replay(token, **{**given, "actors": [follow(deduct, "deduct")]})


def test_a_side_has_digits_enough_to_tell_scenarios_apart():
    """Hundreds that differ in one number have as many fingerprints."""
    made = {Scenario([("Order/1", Placed(n=n))], []).fingerprint([]) for n in range(400)}
    assert len(made) == 400


def test_a_choice_that_is_not_there_any_more_is_told(token):
    """The code has other places now: no schedule that is almost the same is run."""
    prefix = token.rpartition(":")[0]
    with pytest.raises(TokenMismatch, match="takes option 9"):
        replay(f"{prefix}:0.9", **naive())


def test_a_replay_in_a_scenario_that_is_made_again_is_the_same(token):
    """Steps, token and what is broken."""
    one, two = replay(token, **naive()), replay(token, **naive())
    assert one.steps == two.steps
    assert one.broken == two.broken == ("right", one.broken[1])
    assert one.token == two.token == token


def test_two_runs_that_share_a_world_do_not_mix(token):
    """Each looks at the world as it left it, whoever looked last."""
    given = naive()
    broken, plain = replay(token, **given), replay(f"{token.rpartition(':')[0]}:0", **given)
    for _ in range(2):
        assert broken.look.table("stock")["mug"] == 6
        assert plain.look.table("stock")["mug"] == 7
        assert broken.at(0).table("stock")["mug"] == 9


def test_the_picture_and_the_words_of_a_run_are_the_same_each_time(token):
    """No address, no clock, no order of hashes."""
    one, two = replay(token, **naive()), replay(token, **naive())
    assert one.svg() == two.svg()
    assert one._repr_html_() == two._repr_html_()
    assert repr(one) == repr(two)
    assert "with 1 fault: 'right' is broken" in repr(one)
