"""Merging states loses nothing: the search finds what running every schedule from its beginning finds."""

from __future__ import annotations

import pytest

from esim import stage
from esim.parts import Kept, Log
from esim.queues import Queue
from esim.service import Service
from esim.stage import Stage
from esim.volatile import Memory
from esim.workers import Tasker
from esim.world import Table
from tests import scenarios
from tests.explored import all_at_once, one_by_one


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """A run of 150 steps has no end: it is found by counting where nothing else is trusted."""
    monkeypatch.setattr(stage, "MOST_STEPS", 150)


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_pruned_and_naive_exploration_agree_on_verdicts_and_final_states(name):
    """What can be broken, and how a run can end, is the same for both."""
    verdicts, endings, schedules = one_by_one(scenarios.SCENARIOS[name]())
    found, ends, runs = all_at_once(scenarios.SCENARIOS[name]())
    assert found == verdicts
    assert ends == endings
    assert runs <= schedules


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_going_back_to_a_moment_is_as_good_as_running_up_to_it(name):
    """Without merging, the search runs as many schedules as there are, and they end alike."""
    verdicts, endings, schedules = all_at_once(scenarios.SCENARIOS[name](), prune=False)
    merged, ends, runs = all_at_once(scenarios.SCENARIOS[name]())
    assert (merged, ends) == (verdicts, endings)
    assert runs <= schedules


def test_there_are_enough_scenarios_and_most_of_them_can_break():
    """The agreement is about something: there is much to find, and much that ends in several ways."""
    found = {name: all_at_once(made()) for name, made in scenarios.SCENARIOS.items()}
    assert len(found) >= 30
    assert sum(bool(verdicts) for verdicts, _, _ in found.values()) >= 20
    assert sum(len(endings) > 1 for _, endings, _ in found.values()) >= 20


def _blind(*_args, **_kwargs):
    return ()


@pytest.mark.parametrize(
    ("owner", "method", "name"),
    [
        (Table, "frozen", "a_table_after_the_handler"),
        (Service, "frozen", "a_mail_before_the_handler"),
        (Queue, "frozen", "a_queue_that_loses_doubles_and_mixes"),
        (Memory, "frozen", "a_memory_that_changes_after_a_write"),
        (Log, "frozen", "two_writers_without_an_expected_version"),
        (Kept, "frozen", "dead_letters_of_one_stream"),
        (Tasker, "kept", "a_repository_under_two_async_writers"),
        (Stage, "key", "an_outbox"),
    ],
)
def test_a_search_that_is_blind_to_a_part_of_the_state_is_found_out(monkeypatch, owner, method, name):
    """Each part of what tells states apart is needed: without it the agreement ends."""
    verdicts, endings, _ = one_by_one(scenarios.SCENARIOS[name]())
    if method == "kept":
        _forgets(monkeypatch, owner)
    else:
        monkeypatch.setattr(owner, method, _blind)
    found, ends, _ = all_at_once(scenarios.SCENARIOS[name]())
    assert (found, len(ends)) != (verdicts, len(endings))


class _Alike(tuple):
    """What can be put back, and is told from nothing else."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


def _forgets(monkeypatch, owner):
    real = owner.kept
    monkeypatch.setattr(owner, "kept", lambda self: _Alike(real(self)))
