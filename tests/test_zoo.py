"""The zoo: each bug is found and confirmed within its bounds, and its cure is proven within the same."""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import cache
from typing import Any

import pytest

from esim.bug import Bug
from esim.errors import InvalidArgument
from esim.scenario import Scenario
from esim.simulation import explore, replay
from esim.verdict import Verdict
from esim.zoo import CATALOGUE, GROUPS, ZOO, group

BUGS = pytest.mark.parametrize("bug", ZOO.values(), ids=list(ZOO))


def lines(check: Any) -> list[Any]:
    """Return the code of a check, and of what it is made of."""
    parts = [cell.cell_contents for cell in check.__closure__ or ()]
    inner = [code for part in parts if inspect.isfunction(part) for code in lines(part)]
    return [check.__code__, *inner, *(part for part in parts if isinstance(part, int | str | list))]


@cache
def found_once(name: str) -> Verdict:
    """Return what is found of a bug the first time that a test asks for it."""
    return ZOO[name].find(seconds=None)


@BUGS
def test_the_naive_code_is_broken_and_the_counterexample_is_confirmed(bug: Bug):
    """A schedule breaks it in memory, and ends alike on a DuckDB store."""
    found = found_once(bug.name).counterexample
    assert found is not None
    assert found.invariant in {"it comes to an end", *bug.naive.invariants}
    assert found.confirmed.startswith("confirmed on a DuckDB store")


@BUGS
def test_the_mended_code_is_proven_within_the_same_bounds(bug: Bug):
    """No schedule breaks it, all were gone through, and the proof is not empty."""
    proven = bug.prove(seconds=None)
    assert proven.holds, proven
    assert proven.bounds == bug.naive.faults.told()
    assert proven.schedules > 1 or bug.name == "comes back for ever", "no fault could happen at all"


@BUGS
def test_no_cure_is_to_do_nothing(bug: Bug):
    """Without anybody who acts, what is asked of the cure does not hold, or cannot be asked."""
    cure = bug.mended
    idle = Scenario(cure.history, [], cure.invariants, faults=cure.faults, world=cure.world)
    idle.rows = cure.rows
    with suppress(InvalidArgument):  # there is no subscription, or no service, to look at
        assert not explore(idle, confirm=None).holds


@BUGS
def test_a_bug_is_found_in_the_same_way_each_time(bug: Bug):
    """Looked for again, it is the same schedule, found after as many others, and its token replays it."""
    one, two = found_once(bug.name), bug.find(confirm=None, seconds=None)
    assert one.counterexample is not None
    assert two.counterexample is not None
    assert (one.counterexample.token, one.schedules) == (two.counterexample.token, two.schedules)
    run = replay(one.counterexample.token, bug.naive)
    assert run.broken == (one.counterexample.invariant, one.counterexample.message)


@BUGS
def test_naive_and_mended_code_are_measured_by_the_same(bug: Bug):
    """Both have the same invariants, under the same names and from the same lines, and the same faults."""
    naive, mended = bug.naive, bug.mended
    assert list(naive.invariants) == list(mended.invariants)
    for name, one in naive.invariants.items():
        other = mended.invariants[name]
        assert (one.when, lines(one.check)) == (other.when, lines(other.check))
    assert naive.faults == mended.faults


def test_every_row_of_the_catalogue_has_a_bug():
    """There is an example of each fault, and none of what is not in the catalogue."""
    shown = {row for bug in ZOO.values() for row in bug.rows}
    assert shown == set(CATALOGUE)
    assert len(ZOO) >= 24


def test_each_bug_tells_its_story_and_shows_its_code():
    """The story is a sentence or two, and the code holds both sides and what is asked of them."""
    for bug in ZOO.values():
        assert bug.story.endswith(".")
        assert bug.story in " ".join(bug.code.split())
        assert "return Case(" in bug.code


def test_a_group_is_a_gallery_of_its_bugs():
    """A gallery shows name, story, picture and proof of each bug, and says whether all is as it should be."""
    shown = group("order", "the slow clock wins")
    names = [bug.name for bug in ZOO.values() if bug.group == "order"]
    assert "order" in GROUPS
    assert [bug.name for bug, _, _ in shown.seen] == [one for one in names if one != "the slow clock wins"]
    assert shown.holds
    html = shown._repr_html_()
    assert html.count("<img ") == len(shown.seen)
    assert html.count("proven") >= len(shown.seen)
    assert html.count("<details>") == len(shown.seen)
