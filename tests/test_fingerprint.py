"""Tokens are the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from esim.simulation import Faults, Scenario, World, explore, follow
from esim.event import Event
class Rung(Event):
    bell: str
world = World()
world.table("counts", {"a": 0, "b": {"c", "d"}, "e": {"f": 1, "g": 2}})
@world.service
def mail(bell: str): ...
def write(event: Rung, effects) -> None:
    effects.call(mail, event.bell)
verdict = explore([("Bell/1", Rung(bell="a"))], [follow(write, outbox=True, sends=[mail])],
    lambda look: False, world=world, confirm=None)
print(verdict.counterexample.token)
"""


def test_a_token_does_not_depend_on_hashes_and_addresses():
    """Tables with several keys, and options that hold functions, look alike in each process."""
    tokens = {
        subprocess.run(
            [sys.executable, "-c", f"{'x = 1;' * number}{PROGRAM}"],
            env={**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in range(1, 4)
    }
    assert len(tokens) == 1
