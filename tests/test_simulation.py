"""Explore, simulate, replay, what_next and the crash matrix, as a user meets them."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esim import simulation, stage
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument, SimulationFailed, TokenMismatch, Unsteady
from esim.event import Event
from esim.invariant import always, eventually, no_effect_twice, sometimes
from esim.memory import MemoryStore
from esim.retry import RetryPolicy
from esim.simulation import (
    Faults,
    Scenario,
    World,
    consume,
    crash_matrix,
    explore,
    follow,
    replay,
    simulate,
    task,
    what_next,
)


class Placed(Event):
    sku: str = "mug"


HISTORY = [(f"Order/{n}", Placed()) for n in range(3)]
ROOT = Path(__file__).parent.parent


def shop(**changed: Any) -> dict[str, Any]:
    """Return a naive handler and all that goes with it, as arguments."""
    world = World()
    stock = world.table("stock", {"mug": 9})

    def deduct(event: Placed) -> None:
        stock[event.sku] -= 1

    right = eventually(lambda look: look.table("stock")["mug"] == 6)
    return {
        "history": HISTORY,
        "actors": [deduct],
        "invariants": {"stock is right": right},
        "faults": Faults(crash=1, duplicate=1),
        "world": world,
        **changed,
    }


# --- explore -----------------------------------------------------------------------------------------------


def test_a_naive_handler_is_broken_by_one_fault_and_the_counterexample_is_minimal():
    """Fewest faults first, then shrunk: one choice is left."""
    verdict = explore(**shop(), confirm=None)
    found = verdict.counterexample
    assert not verdict.holds
    assert found.invariant == "stock is right"
    assert len(found.run.choices) == 1
    assert verdict.runs <= 5
    assert "broken: 'stock is right'" in repr(verdict)


def test_the_defence_is_proven_within_bounds_that_are_said():
    """An inbox takes a duplicate; the verdict tells the bounds, the schedules and the granularity."""
    given = shop(faults=Faults(duplicate=2))
    given["actors"] = [follow(given["actors"][0], inbox=True)]
    verdict = explore(**given)
    assert verdict.holds and verdict.exhausted and verdict.counterexample is None
    assert repr(verdict).startswith("<proven: 'stock is right' holds in every schedule with at most 2 dupl")
    assert "before and after each event" in verdict.granularity
    assert "in the order in which they were given" in verdict._repr_html_()


def test_an_empty_history_is_fine():
    """Nothing is delivered, and what holds of nothing is proven."""
    verdict = explore(**shop(history=[], invariants=[]))
    assert verdict.holds
    assert "nothing was asked but that it comes to an end" in repr(verdict)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"history": "Order/1"}, "is no history"),
        ({"history": [("Order/1", "placed")]}, "is no write"),
        ({"history": 7}, "is no history"),
        ({"actors": [7]}, "cannot act"),
        ({"invariants": [7]}, "is no invariant"),
        ({"faults": {"crash": 1}}, "write Faults"),
        ({"faults": Faults(crash=0.5)}, "is a probability, for simulate"),
        ({"world": {}}, "give a World"),
        ({"strategy": "wild"}, "give 'exhaustive'"),
        ({"confirm": "maybe"}, "give 'duckdb'"),
        ({"seconds": float("nan")}, "give a number, or None"),
        ({"invariants": "stock is right"}, "'stock is right' is no invariant"),
    ],
)
def test_bad_input_is_told_before_anything_runs(changed, told):
    """The value, and what to give instead."""
    with pytest.raises(InvalidArgument, match=told):
        explore(**shop(**changed))


def test_a_store_is_a_history():
    """Its events, in their order."""
    store = MemoryStore()
    for stream, event in HISTORY:
        store.append(stream, event)
    assert explore(**shop(history=store), confirm=None).counterexample is not None


def test_a_scenario_stands_for_its_parts_and_takes_other_faults():
    """What it says already is not said again."""
    given = shop()
    scenario = Scenario(**given)
    assert explore(scenario, confirm=None).counterexample is not None
    assert explore(scenario, faults=Faults()).holds
    with pytest.raises(InvalidArgument, match="nothing but faults"):
        explore(scenario, world=World())


def test_an_interrupt_gives_an_honest_verdict():
    """Ctrl-C: what was gone through so far, and that it was not all."""
    looked: list[int] = []

    def patient(look: Any) -> bool:
        looked.append(1)
        if len(looked) == 12:
            raise KeyboardInterrupt
        return True

    verdict = explore(**shop(invariants={"patient": always(patient)}, faults=Faults(crash=3)))
    assert not verdict.holds and not verdict.exhausted
    assert "not exhausted, as it was interrupted: 'patient' holds in" in repr(verdict)


def test_an_interrupt_before_something_came_true_is_no_empty_proof():
    """Nobody knows yet whether it would have come true."""

    def never(look: Any) -> bool:
        raise KeyboardInterrupt

    verdict = explore(**shop(invariants={"seen": sometimes(never)}))
    assert not verdict.holds
    assert repr(verdict).startswith("<not exhausted, as it was interrupted")
    assert "'seen' never came true" in repr(verdict)


def test_a_limit_of_time_is_told():
    """No time at all is not enough for one schedule, and nothing is said of what was not seen."""
    never = sometimes(lambda look: False)
    verdict = explore(**shop(invariants={"seen": never}, faults=Faults(crash=2)), seconds=0)
    assert not verdict.exhausted and verdict.schedules == 0
    assert repr(verdict) == "<not exhausted, as 0 s are over: no schedule was run to its end>"


@pytest.mark.parametrize("seconds", [1, 4, 20])
def test_a_limit_of_time_holds_within_a_run(monkeypatch, seconds):
    """One schedule alone takes eight seconds here, as every look at the clock takes one."""
    now = iter(range(10**9))
    monkeypatch.setattr(sys.modules["esim.explore"], "monotonic", lambda: next(now))
    history = [(f"Order/{n}", Placed()) for n in range(100)]
    verdict = explore(**shop(history=history, invariants=[]), seconds=seconds, confirm=None)
    assert f"not exhausted, as {seconds} s are over" in repr(verdict)
    assert verdict.schedules == 0
    assert next(now) <= seconds + 3


def test_a_log_that_is_long_comes_to_an_end():
    """Steps are bounded by how much there is to do: a run of 2,100 events is no endless one."""
    world = World()
    count = world.table("count", {"n": 0})

    def number(event: Placed, recorded: Any) -> None:
        count["n"] = recorded.position

    store = MemoryStore()
    store.append("Order/1", [Placed()] * 2_100)
    all_counted = eventually(lambda look: look.table("count")["n"] == 2_100)
    run = simulate(store, [number], {"all": all_counted}, world=world)
    assert len(run.steps) > 10_000 and run.broken is None


def test_a_run_that_is_cut_off_is_not_asked_how_it_ends(monkeypatch):
    """It has no end to ask about, and that is said."""
    monkeypatch.setattr(stage, "MOST_STEPS", 20)
    world = World()
    count = world.table("count", {"n": 0})

    def on_and_on() -> Any:
        while True:
            count["n"] += 1
            yield

    run = simulate([], [task(on_and_on)], eventually(lambda look: False), world=world)
    assert run.broken == ("it comes to an end", "no end after 20 steps")


def test_a_limit_of_schedules_is_told():
    """No run is begun once so many are known, be it because they lead to what was met before."""
    verdict = explore(**shop(invariants=[], faults=Faults(crash=2)), schedules=4)
    assert verdict.runs <= 4 <= verdict.schedules
    assert "not exhausted, as 4 schedules were the limit" in repr(verdict)


def test_as_many_schedules_as_there_are_are_all():
    """A limit that is reached with the last one cuts nothing off; one of none runs none."""
    given = shop(invariants=[], faults=Faults(crash=2))
    every = explore(**given)
    limited = explore(**given, schedules=every.schedules)
    assert every.holds and limited.holds
    assert not explore(**given, schedules=every.schedules - 1).exhausted
    none = explore(**given, schedules=0)
    assert repr(none) == "<not exhausted, as 0 schedules were the limit: no schedule was run to its end>"


@pytest.mark.parametrize("step", ["_shrunk", "on_duckdb"])
def test_an_interrupt_loses_nothing_that_was_found(monkeypatch, step):
    """Be it while that is shrunk, or confirmed."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, step, interrupted)
    found = explore(**shop(), strategy="random").counterexample
    assert found.invariant == "stock is right"
    assert found.confirmed == ("not confirmed: it was interrupted" if step == "on_duckdb" else AS_FOUND)


AS_FOUND = "confirmed on a DuckDB store: the same end"


def test_random_search_repeats_itself_by_its_seed():
    """The same seed finds the same schedule after as many runs; it proves nothing by itself."""
    one, two = (explore(**shop(), strategy="random", seed=5, confirm=None) for _ in range(2))
    assert one.counterexample.token == two.counterexample.token
    assert (one.runs, one.states) == (two.runs, two.states)
    assert one.runs > 0 and one.states > 0
    dull = explore(**shop(invariants=[]), strategy="random", schedules=9)
    assert not dull.exhausted
    assert dull.runs == 9
    assert "as 9 schedules were the limit" in repr(dull)


@pytest.mark.parametrize("seed", range(8))
def test_what_chance_finds_is_shrunk_to_as_few_faults_as_there_can_be(seed):
    """Whatever went wrong besides, one fault is enough for this bug, and one is left."""
    given = shop(faults=Faults(crash=4, duplicate=3))
    found = explore(**given, strategy="random", seed=seed).counterexample
    assert len(found.run.choices) == 1
    assert found.confirmed.startswith("confirmed")


@pytest.mark.parametrize("tried", [5_000, 0])
def test_what_needs_two_faults_keeps_two(monkeypatch, tried):
    """Also where there is no time to look for what has fewer: what is not needed is left out all the same."""
    monkeypatch.setattr(simulation, "_TRIED", tried)
    world = World()
    tries = world.table("tries", {"n": 0})

    def count(event: Placed) -> None:
        tries["n"] += 1

    few = {"at most 2": always(lambda look: look.table("tries")["n"] <= 2)}
    given = {"faults": Faults(crash=5), "world": world, "strategy": "random", "confirm": None}
    for seed in range(6):
        found = explore(HISTORY[:1], [count], few, **given, seed=seed).counterexample
        assert len(found.run.choices) == 2


def test_few_preemptions_finds_what_needs_none_before_what_needs_one():
    """Two faults in one process come before one in which another goes first."""
    world = World()
    stock, mail = world.table("stock", {"mug": 9}), world.service("mail")

    def deduct(event: Placed) -> None:
        stock["mug"] -= 1
        mail(event.sku)

    def tidy() -> None:
        stock["tidy"] = True

    def fine(look: Any) -> bool:
        early = "tidy" in look.table("stock") and look.table("stock")["mug"] == 9
        return not early and len(look.calls("mail")) < 3

    given = {"world": world, "faults": Faults(crash=2, preempt=1), "confirm": None}
    arguments = (HISTORY[:1], [deduct, task(tidy)], {"fine": always(fine)})
    first = explore(*arguments, **given).counterexample
    favoured = explore(*arguments, **given, strategy="few_preemptions").counterexample
    assert [step.fault for step in first.run.steps if step.fault] == ["preempt"]
    assert [step.fault for step in favoured.run.steps if step.fault] == ["crash", "crash"]


def test_a_run_without_an_end_is_found():
    """A message that is put back each time goes round for ever; merging states does not hide it."""
    world = World()
    queue = world.queue("orders")

    def again(body: str) -> None:
        queue.publish(body)

    verdict = explore([], [task(queue.publish, "x"), consume(queue, again)], [], world=world, confirm=None)
    assert verdict.counterexample.invariant == "it comes to an end"
    assert "the same state comes again and again" in verdict.counterexample.message


def test_what_never_came_true_makes_the_proof_empty():
    """Nothing is broken, and still nothing is proven."""
    given = shop(invariants={"sold out": sometimes(lambda look: look.table("stock")["mug"] == 0)})
    verdict = explore(**given)
    assert verdict.exhausted and not verdict.holds
    assert verdict.unseen == ["sold out"]
    assert "an empty proof: 'sold out' never came true (73 schedules with at most" in repr(verdict)


def test_what_came_true_once_makes_it_a_proof():
    """It is enough that it came true at one moment of one schedule."""
    given = shop(invariants={"one sold": sometimes(lambda look: look.table("stock")["mug"] == 8)})
    assert explore(**given).holds


def test_code_that_is_not_steady_is_refused():
    """A proof about dice would be none."""
    seen: list[str] = []

    def see(event: Placed) -> None:
        seen.append(event.sku)

    with pytest.raises(Unsteady, match="'seen' of see changed"):
        explore(**shop(actors=[see], invariants=[]))


def test_a_counterexample_is_confirmed_on_duckdb_or_by_kills_or_not_at_all():
    """As asked for, and told."""
    assert explore(**shop()).counterexample.confirmed == "confirmed on a DuckDB store: the same end"
    killed = explore(**shop(), confirm="kill").counterexample.confirmed
    assert killed.startswith("confirmed by really killing 1 process")
    assert explore(**shop(), confirm=None).counterexample.confirmed == ""


def test_pruning_changes_the_work_and_not_the_verdict():
    """Without it each schedule is run."""
    given = shop(invariants={"fine": always(lambda look: look.table("stock")["mug"] > 0)})
    merged, each = explore(**given), explore(**given, prune=False)
    assert merged.holds and each.holds
    assert merged.runs < each.runs == each.schedules


# --- a test file -------------------------------------------------------------------------------------------

SHOP = """
from esim import Event
from esim.invariant import eventually
from esim.simulation import Faults, Scenario, World, follow

class Placed(Event):
    sku: str

world = World()
stock = world.table("stock", {{"mug": 9}})
done = world.table("done")

def deduct(event: Placed, recorded) -> None:
    if {guard}:
        stock[event.sku] -= 1

right = eventually(lambda look: look.table("stock")["mug"] == 8)
history = [("Order/1", Placed(sku="mug"))]
scenario = Scenario(history, [deduct], {{"stock is right": right}}, faults=Faults(duplicate=1), world=world)
"""
NAIVE = SHOP.format(guard="True")
MENDED = SHOP.format(guard="done.setdefault(recorded.position, stock[event.sku]) == stock[event.sku]")


def outcome(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:nbval"]
    paths = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [*command, str(folder / "test_found.py")],
        cwd=folder,
        env=paths,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_counterexample_becomes_a_test_that_fails_until_the_bug_is_mended(tmp_path):
    """The file that is written fails under pytest, and passes once the handler is corrected."""
    (tmp_path / "bookshop.py").write_text(NAIVE, encoding="utf-8")
    make = (
        "import bookshop\n"
        "from esim.simulation import explore\n"
        "found = explore(bookshop.scenario, confirm=None).counterexample\n"
        "found.to_pytest('test_found.py', module='bookshop')\n"
    )
    paths = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-B", "-c", make], cwd=tmp_path, env=paths, check=True)
    before = outcome(tmp_path)
    assert before.returncode == 1, before.stdout + before.stderr
    assert "stock is right" in before.stdout
    (tmp_path / "bookshop.py").write_text(MENDED, encoding="utf-8")
    after = outcome(tmp_path)
    assert after.returncode == 0, after.stdout + after.stderr
    assert "1 passed" in after.stdout
    (tmp_path / "bookshop.py").write_text(MENDED.replace("duplicate=1", "duplicate=0"), encoding="utf-8")
    other = outcome(tmp_path)
    assert other.returncode == 1, other.stdout + other.stderr
    assert "TokenMismatch" in other.stdout


@pytest.fixture
def bookshop(tmp_path, monkeypatch):
    """A module that has a naive scenario, under a name of its own, another scenario, and no other."""
    other = (
        "fixed = Scenario(history, [follow(deduct, inbox=True)], scenario.invariants, faults=scenario.faults)"
    )
    hostile = (
        f"shop = Scenario(history, [deduct], {{{HOSTILE!r}: right}}, faults=scenario.faults, world=world)"
    )
    text = f"{NAIVE}\n{hostile}\n{other}\nempty = None\n"
    (tmp_path / "a_bookshop.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_bookshop", raising=False)
    yield importlib.import_module("a_bookshop")
    del sys.modules["a_bookshop"]


HOSTILE = 'a\x00b """ \\ \'\n \' of \N{BOOKS}'


def test_a_scenario_is_found_under_whatever_name_and_hostile_text_does_no_harm(tmp_path, bookshop):
    """It is looked for by itself; what its invariants are called is only told."""
    found = explore(bookshop.shop, confirm=None).counterexample
    written = found.to_pytest(tmp_path / "test_found.py").read_text(encoding="utf-8")
    assert "from a_bookshop import shop\n" in written
    compile(written, "test_found.py", "exec")
    assert f'replay("{found.token}", shop)' in written
    assert "explore(shop, seconds=None, confirm=None)" in written


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"module": "a_bookshop", "name": "fixed"}, "is another scenario than that of the counterexample"),
        ({"module": "a_bookshop", "name": "empty"}, "is no Scenario, but NoneType"),
        ({"module": "a_bookshop", "name": "missing"}, "cannot be imported from a_bookshop: AttributeError"),
        ({"module": "no_such_shop"}, "cannot be imported from no_such_shop: ModuleNotFoundError"),
        ({"module": "no where"}, "give the name of a module"),
        ({"module": "a_bookshop", "name": "my scenario"}, "give the name of a module"),
        ({"name": "missing"}, "put it into a module, as `missing = Scenario"),
    ],
)
def test_a_test_file_is_of_the_scenario_of_the_counterexample(tmp_path, bookshop, given, told):
    """What is named is looked at before anything is written: a test of another would show nothing."""
    found = explore(bookshop.scenario, confirm=None).counterexample
    with pytest.raises(InvalidArgument, match=told):
        found.to_pytest(tmp_path / "test_x.py", **given)
    assert not (tmp_path / "test_x.py").exists()


def test_a_test_looks_for_more_as_the_bug_was_looked_for(tmp_path, bookshop):
    """By chance where there is too much for all, and else for all of it, however long that takes."""
    expected = {
        "random": "strategy='random', seed=3, seconds=9, schedules=500, confirm=None",
        "few_preemptions": "strategy='few_preemptions', seconds=None, confirm=None",
    }
    for strategy, told in expected.items():
        given = {"strategy": strategy, "seed": 3, "seconds": 9, "schedules": 500, "confirm": None}
        found = explore(bookshop.scenario, **given).counterexample
        written = found.to_pytest(tmp_path / "test_found.py").read_text(encoding="utf-8")
        assert f"explore(scenario, {told})" in written
        assert ("assert verdict.holds" in written) == (strategy != "random")


def test_a_test_file_needs_a_scenario_that_can_be_imported(tmp_path):
    """One that is in no module cannot be."""
    found = explore(**shop(), confirm=None).counterexample
    with pytest.raises(InvalidArgument, match="put it into a module"):
        found.to_pytest(tmp_path / "test_x.py")
    assert not (tmp_path / "test_x.py").exists()


# --- replay, simulate, what_next ---------------------------------------------------------------------------


def test_a_token_replays_exactly():
    """Step for step, and it ends as the run did that was found."""
    given = shop()
    found = explore(**given, confirm=None).counterexample
    again = replay(found.token, **given)
    assert again.steps == found.run.steps
    assert again.token == found.token
    with pytest.raises(SimulationFailed, match="stock is right"):
        again.must_hold()


def test_a_run_without_faults_holds_and_says_so():
    """`must_hold` returns it."""
    given = shop()
    token = explore(**given, confirm=None).counterexample.token
    plain = f"{token.rpartition(':')[0]}:0"
    assert replay(plain, **given).must_hold().broken is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_simulated_run_repeats_itself_by_its_seed(seed):
    """Same seed, same steps; the seed is told, and its token replays it with budgets."""
    given = shop(faults=Faults(crash=0.3, duplicate=0.3))
    one, two = simulate(**given, seed=seed), simulate(**given, seed=seed)
    assert one.steps == two.steps
    assert f"seed {seed}" in repr(one)


def test_seeds_differ_and_probabilities_count():
    """A fault that is certain happens wherever it can; one that never happens does not."""
    runs = {tuple(simulate(**shop(faults=Faults(duplicate=0.5)), seed=seed).steps) for seed in range(9)}
    assert len(runs) > 1
    never = simulate(**shop(faults=Faults(crash=0.0)))
    assert not any(step.fault for step in never.steps)


def test_reordering_has_a_probability_of_its_own():
    """A queue whose messages overtake each other with certainty delivers the last one first."""
    world = World()
    queue, seen = world.queue("orders"), world.table("seen", {"all": []})

    def publish() -> None:
        for number in (1, 2, 3):
            queue.publish(number)

    def take(body: int) -> None:
        seen["all"] = [*seen["all"], body]

    actors = [task(publish), consume(queue, take)]
    run = simulate([], actors, world=world, faults=Faults(reorder=1.0))
    assert run.look.table("seen")["all"] == [2, 3, 1]


def test_a_run_tells_its_world_at_each_step():
    """Forward and back, in any order."""
    run = simulate(**shop(faults=Faults()))
    stock = [run.at(step).table("stock")["mug"] for step in range(len(run.steps) + 1)]
    assert stock[0] == 9 and stock[-1] == 6
    assert stock == sorted(stock, reverse=True)
    assert [run.at(step).table("stock")["mug"] for step in reversed(range(len(stock)))] == stock[::-1]
    with pytest.raises(InvalidArgument, match="there is no step"):
        run.at(len(stock))
    for wrong in ("x", -1, 1.5, None):
        with pytest.raises(InvalidArgument, match=f"step={wrong!r}: give 0 to {len(stock) - 1}"):
            run.at(wrong)


def test_a_run_has_tables_of_steps_effects_and_letters():
    """As dataframes, also where there are none."""
    world = World()
    mail = world.service("mail")

    def notify(event: Placed) -> None:
        mail(event.sku)

    run = simulate(HISTORY[:1], [notify], world=world)
    assert list(run.df().columns) == ["step", "lane", "what", "fault"]
    assert run.effects().values.tolist() == [["mail", "args=('mug',)"]]
    assert len(run.dead_letters()) == 0


def test_what_next_lists_each_choice_with_its_options():
    """One line for each place where something else could have been chosen."""
    given = shop()
    token = explore(**given, confirm=None).counterexample.token
    told = what_next(token, **given)
    assert list(told.columns) == ["choice", "step", "lane", "place", "options", "taken"]
    assert told.choice.tolist() == list(range(len(told)))
    assert sum(told.taken != "") == 1


def test_the_crash_matrix_has_a_row_for_each_event_and_a_cell_for_each_place():
    """A naive handler does harm after it has written, and before that is committed."""
    given = shop()
    del given["faults"]
    matrix = crash_matrix(**given)
    assert not matrix.holds
    harm = matrix.df().query("not holds")
    assert set(harm.place) == {"after the handler", "before the commit"}
    assert sorted(set(matrix.df().position)) == [1, 2, 3]


def test_what_a_replay_is_given_must_be_what_the_token_is_of():
    """The side that differs is named."""
    given = shop()
    token = explore(**given, confirm=None).counterexample.token
    with pytest.raises(TokenMismatch, match="history differ"):
        replay(token, **{**given, "history": HISTORY[:2]})


def test_every_name_that_is_offered_is_there():
    """`from esim.simulation import *` gives what is written."""
    assert [name for name in simulation.__all__ if not hasattr(simulation, name)] == []


def test_no_effect_twice_reads_well_in_a_verdict():
    """A ready-made invariant has a name, and tells the call."""
    world = World()
    mail = world.service("mail")

    def notify(event: Placed) -> None:
        mail(event.sku)

    given = {"world": world, "faults": Faults(duplicate=1), "confirm": None}
    verdict = explore(HISTORY[:1], [notify], [no_effect_twice("mail")], **given)
    assert verdict.counterexample.message == "mail was called 2 times with [('args', ('mug',))]"


NOTED: list[int] = []


def noting(world: World) -> dict[str, Any]:
    """Return what keeps in memory, and in a table, how often it was called."""
    table = world.table("noted", {"n": 0})

    def note(event: Placed) -> None:
        NOTED.append(table["n"])
        table["n"] += 1

    return {"history": HISTORY, "actors": [note], "world": world}


def in_vain(look: Any) -> bool:
    raise KeyError("mug")


ENDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "simulate": lambda given: simulate(**given),
    "simulate, and a check raises": lambda given: simulate(**given, invariants=[always(in_vain)]),
    "replay": lambda given: replay(simulate(**given).token, **given),
    "what_next": lambda given: what_next(simulate(**given).token, **given),
    "crash_matrix": lambda given: crash_matrix(**given),
    "explore": lambda given: explore(**given, faults=Faults(crash=1)),
    "explore, and a check raises": lambda given: explore(**given, invariants=[always(in_vain)]),
    "explore, and the time is over": lambda given: explore(**given, seconds=0),
}


@pytest.mark.parametrize("call", ENDS.values(), ids=ENDS)
def test_the_world_and_the_memory_are_as_they_were_however_it_ends(call):
    """What was kept on the way is no part of what comes next."""
    world = World()
    given = noting(world)
    with suppress(Unsteady, InvalidArgument):
        call(given)
    assert NOTED == []
    assert dict(world.parts["noted"]) == {"n": 0}


def test_the_time_may_be_over_while_it_is_looked_at_whether_code_is_steady(monkeypatch):
    """What was kept in memory until then is put back, too."""

    def ends_at_once(seconds: float) -> Callable[[], bool]:
        return lambda: bool(NOTED)

    monkeypatch.setattr(simulation, "deadline", ends_at_once)
    given = noting(World())
    verdict = explore(**{**given, "history": HISTORY * 40})
    assert not verdict.exhausted and verdict.schedules == 0
    assert NOTED == []


def test_a_run_is_looked_at_after_the_world_was_put_back():
    """It keeps what there was in the end, and at each step."""
    world = World()
    table = world.table("noted", {"n": 0})

    def note(event: Placed) -> None:
        table["n"] += 1

    run = simulate(HISTORY, [note], world=world)
    assert table["n"] == 0
    assert run.look.table("noted")["n"] == len(HISTORY)
    assert run.at(0).table("noted")["n"] == 0
    assert run.tables()["noted"].value.tolist() == [len(HISTORY)]


# --- the memory of the process ----------------------------------------------------------------------------

SPACE = SimpleNamespace(again=0)


def test_what_a_schedule_leaves_to_the_next_is_found_where_nobody_dies():
    """One duplicate never does it; the second in one process does."""
    world = World()
    seen, bad = world.table("seen"), world.table("bad")

    def pay(event: Placed, recorded: RecordedEvent[Any]) -> None:
        SPACE.again += recorded.position in seen
        if SPACE.again == 2:
            bad["x"] = 1
        seen[recorded.position] = 1

    with pytest.raises(Unsteady, match="it leaves something to the next in the memory of the process"):
        explore(HISTORY, [pay], [lambda look: True], world=world, faults=Faults(duplicate=1))


def test_a_run_has_all_that_happened(capsys):
    """Steps, tables, effects, letters, time travel; what it prints is seen once, and the world stays."""
    world = World()
    stock, mail = world.table("stock", {"mug": 9}), world.service("mail")

    def deduct(event: Placed, recorded: RecordedEvent[Any]) -> None:
        print("deduct", recorded.position)
        stock[event.sku] -= 1
        mail(event.sku)
        if recorded.position == 2:
            raise ValueError("no")

    run = simulate(HISTORY, [follow(deduct, retry=RetryPolicy(max_attempts=1))], [], world=world)
    assert stock["mug"] == 9
    assert capsys.readouterr().out == "deduct 1\ndeduct 2\ndeduct 3\n"
    assert run.tables()["stock"].values.tolist() == [["mug", 6]]
    assert list(run.effects()["service"]) == ["mail"] * 3
    assert list(run.dead_letters()["position"]) == [2]
    assert run.at(0).table("stock") == {"mug": 9}
    assert run.at(len(run.steps)).table("stock") == {"mug": 6}
    assert run.look.calls("mail") and run.svg()


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_no_exception_is_told(error):
    """It would end the process; whether it is tried again is for nobody to say."""

    def handle(event: Placed) -> None:
        raise error

    told = rf"^handle raises {type(error).__name__}.*; that is no Exception: it ends a process"
    with pytest.raises(InvalidArgument, match=told):
        simulate(HISTORY, [handle])


def test_code_that_has_no_end_is_told_as_such_with_crashes_too(monkeypatch):
    """And not as code that keeps something in memory, as its children come to no end either."""
    monkeypatch.setattr(stage, "MOST_STEPS", 200)

    async def polls() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    verdict = explore([], [task(polls)], faults=Faults(crash=1), confirm=None)
    assert verdict.counterexample.invariant == "it comes to an end"


def test_a_proof_tells_that_some_deaths_could_not_be_tried(monkeypatch):
    """What it takes for granted stands in its line."""
    assert explore(**shop(faults=Faults(crash=1), invariants=[])).reserves == []
    monkeypatch.delattr(os, "fork")
    untried = f"the order of sets and what clocks say were not tried ({sys.platform} cannot fork a process)"
    assert explore(**shop(faults=Faults(), invariants=[])).reserves == [untried]
    told = repr(explore(**shop(faults=Faults(crash=1), invariants=[])))
    assert told.endswith(f"; some deaths could not be tried for real; {untried}>")
