"""A counterexample, run again where it counts: on a DuckDB store, or with a process that is really killed.

The schedule is the same, choice by choice. On DuckDB its commits are real transactions, and a crash drops
what a process has in memory. With kills, each crash is a SIGKILL of a child process that holds the store's
file; the next child opens the file and goes on from what it finds there. The outside world, which is other
systems' memory, is handed on between the children.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import warnings
from datetime import datetime
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

from esim.errors import InvalidArgument, TokenMismatch, said
from esim.explore import Choices, deadline
from esim.frozen import written
from esim.invariant import Look
from esim.recording import ENDLESS, Recording, Run
from esim.scenario import Scenario
from esim.stage import Stage, TimeIsOver
from esim.store import EventStore

_LEAST, _MOST = 10.0, 60.0  # seconds that a confirmation has, and each child of one


class _Handed(NamedTuple):
    """What one child hands on to the next."""

    world: dict[str, Any]
    players: list[Any]
    died: int
    left: dict[str, int]
    choices: int
    now: datetime
    ids: int


class Ending(NamedTuple):
    """What a run leaves: the log, positions, rows and letters of subscriptions, the world, and what broke."""

    log: list[tuple[str, str, str]]
    subscriptions: dict[str, Any]
    world: dict[str, Any]
    broken: str | None


def ending_of(stage: Stage, broken: tuple[str, str] | None) -> Ending:
    """Return what a run has left on a stage, in a form that compares across stores and processes."""
    return _ending(stage.look, stage, broken)


def _ending(look: Look, stage: Stage, broken: tuple[str, str] | None) -> Ending:
    subscriptions = {}
    for name, one in stage.subscriptions.items():
        rows = look.rows(name) if one.handler.row is not None else []
        letters = [(letter.position, letter.attempts) for letter in look.dead_letters(name)]
        subscriptions[name] = (one.position, sorted(map(repr, rows)), letters)
    world = {part.name: written(part.frozen()) for part in stage.parts if part not in stage.kept}
    log = [(one.stream, one.type, one.json) for one in look.log]
    return Ending(log, subscriptions, world, broken and broken[0])


def on_duckdb(scenario: Scenario, run: Run, seconds: float | None = None) -> str:
    """Run a schedule on a DuckDB store, and say whether it ends in the same way.

    It has as many `seconds` as the search, within reason, which only matters to what goes on and on.
    """
    expected = ending_of(run.stage, run.broken) if run.look else None
    with EventStore() as store:
        stage, patience = Stage(scenario, store), _patience(seconds)
        stage.over = deadline(patience)
        first = stage.begin(scenario.faults.budgets())
        try:
            again = Recording.of(stage, scenario.invariants, run.choices, strict=True).run(first, checks=True)
        except TokenMismatch as differs:
            return f"not confirmed on a DuckDB store: {differs}"
        except TimeIsOver:
            return f"not confirmed on a DuckDB store: it did not come to an end in {patience:g} s"
        found = ending_of(stage, again.broken)
    return _compared(expected, found, "on a DuckDB store")


def _patience(seconds: float | None) -> float:
    return _MOST if seconds is None else min(max(seconds, _LEAST), _MOST)


def with_kills(scenario: Scenario, run: Run, seconds: float | None = None) -> str:
    """Run a schedule in child processes, each killed where it crashes; say whether it ends alike."""
    expected = ending_of(run.stage, run.broken) if run.look else None
    try:
        found, kills = killed(scenario, run.choices, _patience(seconds))
    except InvalidArgument as cannot:
        return f"not confirmed by killing: {cannot}"
    killing = f"by really killing {kills} process{'' if kills == 1 else 'es'}"
    return _compared(expected, found, killing if kills else "in a process of its own, where nobody dies")


def _compared(expected: Ending | None, found: Ending, how: str) -> str:
    if expected is not None and expected.broken == found.broken == ENDLESS:
        return f"confirmed {how}: there is no end there either"  # how far it came differs
    if expected == found:
        return f"confirmed {how}: the same end"
    differ = [name for name in Ending._fields if getattr(expected, name, None) != getattr(found, name)]
    return f"NOT confirmed {how}: {', '.join(differ)} differ"


# --- real kills --------------------------------------------------------------------------------------------


def killed(scenario: Scenario, choices: Choices, patience: float = _MOST) -> tuple[Ending, int]:
    """Run a schedule with real kills; return what it leaves, and how many processes were killed.

    Each process has as many seconds as there is `patience`. Raises InvalidArgument where processes cannot be
    forked, or another one is at work when one dies.
    """
    if not hasattr(os, "fork"):
        raise InvalidArgument(f"{sys.platform} cannot fork a process to kill")
    import_module("pyarrow")  # once here, and not in each child
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        while True:
            status = _child(scenario, choices, Path(folder), patience)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                kills += 1
                continue
            ending = pickle.loads((Path(folder) / "ending").read_bytes())  # noqa: S301 - we wrote it
            if isinstance(ending, str):
                raise InvalidArgument(ending)
            return ending, kills


def _child(scenario: Scenario, choices: Choices, folder: Path, patience: float) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child starts no thread of the parent's
        pid = os.fork()
    if pid == 0:
        try:
            _go_on(scenario, choices, folder)
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            (folder / "ending").write_bytes(pickle.dumps(f"the child ended: {said(error)}"))
        os._exit(0)
    over = deadline(patience)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if over():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise InvalidArgument(f"a child process did not come to an end in {patience:g} s")
        sleep(0.002)


class _Killing(Recording):
    """Runs a schedule, and kills its own process where it crashes."""

    def prepare(self, folder: Path) -> None:
        self.folder = folder

    def note(self, stage: Stage, lane: str, told: str, fault: str) -> None:
        if fault == "crash":
            _hand_on(stage, self.folder)
            os.kill(os.getpid(), signal.SIGKILL)
        super().note(stage, lane, told, fault)


def _hand_on(stage: Stage, folder: Path) -> None:
    """Write down what is not this process's memory: the world, and how far the schedule is."""
    player = stage.at
    assert player is not None  # noqa: S101 - somebody dies
    if any(one.working for one in stage.players if one is not player):
        raise InvalidArgument("another process is at work when one dies, and all share one process here")
    world = {part.name: None if part.volatile else part.snapshot() for part in stage.parts}
    players = [one.kept() for one in stage.players]
    state = (
        *(world, players, stage.players.index(player), dict(stage.left), stage.choices + 1),
        *(stage.clock._now, stage.ids.count),
    )
    (folder / "handed").write_bytes(pickle.dumps(state))


def _go_on(scenario: Scenario, choices: Choices, folder: Path) -> None:
    handed = folder / "handed"
    begun = handed.exists()
    with EventStore(folder / "log.duckdb") as store:
        stage = Stage(scenario, store, begun=begun)
        stage.begin(scenario.faults.budgets())
        if begun:
            _take_over(stage, _Handed(*pickle.loads(handed.read_bytes())))  # noqa: S301 - we wrote it
        recording = _Killing.of(stage, scenario.invariants, choices, strict=True)
        recording.prepare(folder)
        run = recording.run(None, checks=True)
        ending = ending_of(stage, run.broken)
    (folder / "ending").write_bytes(pickle.dumps(ending))


def _take_over(stage: Stage, handed: _Handed) -> None:
    known = {part.name for part in stage.parts}
    for name in handed.world:
        if name not in known:
            stage.stand_in(name)  # of a function that was called before
    for part in stage.parts:
        if handed.world.get(part.name) is not None:
            part.restore(handed.world[part.name])
            part.stale = True
    for player, kept in zip(stage.players, handed.players, strict=True):
        player.put_back(kept)
    stage.left, stage.choices, stage.ids.count = handed.left, handed.choices, handed.ids
    stage.clock.jump(handed.now)
    stage.dead(stage.players[handed.died])
