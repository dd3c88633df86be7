"""A counterexample as a test file, which imports its scenario."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from esim.errors import InvalidArgument, TokenMismatch, said
from esim.recording import Recording, Run, token_read
from esim.scenario import Scenario
from esim.stage import Stage

_TEST = '''"""A schedule that once broke {told}, found by esim."""

from {module} import {name}

from esim.errors import TokenMismatch
from esim.simulation import explore, replay


def test_{slug}_whatever_goes_wrong():
    """Neither this schedule nor another within its bounds breaks it any more."""
    try:
        replay("{token}", {name}).must_hold()
    except TokenMismatch as changed:
        if {{"history", "faults"}} & set(changed.sides):
            raise  # this is another scenario
        # the code has other places to fail at by now; all of them are tried here
    verdict = explore({name}, {options})
    assert {holds}, verdict
'''


def as_test(run: Run, options: Mapping[str, Any], module: str | None, name: str | None) -> str:
    """Return the source of a test of a run that breaks something; it explores with these options.

    Raises InvalidArgument where the scenario cannot be imported, or is another than that of the run.
    """
    module, name = (module, name or "scenario") if module else _where(run.scenario, name)
    invariant = run.broken[0] if run.broken else ""
    _must_break(_imported(module, name), run.token, invariant, f"{module}.{name}")
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in invariant).split()
    by_chance = options.get("strategy") == "random"
    return _TEST.format(
        told=repr(" ".join(invariant.split()))[1:-1].replace('"', '\\"'),
        module=module,
        name=name,
        slug="_".join(words).lower() or "schedule",
        token=run.token,
        options=", ".join(f"{option}={value!r}" for option, value in {**options, "confirm": None}.items()),
        holds="verdict.counterexample is None" if by_chance else "verdict.holds",
    )


def _where(scenario: Scenario, name: str | None) -> tuple[str, str]:
    """Return the module that has a scenario, and its name there."""
    for module, loaded in list(sys.modules.items()):
        if module != "__main__" and inspect.ismodule(loaded):
            for known, value in list(vars(loaded).items()):
                if value is scenario and name in (None, known):
                    return module, known
    raise InvalidArgument(
        "a test needs to import the scenario: put it into a module, as "
        f"`{name or 'scenario'} = Scenario(…)`, and give to_pytest(path, module='shop_scenarios')"
    )


def _imported(module: str, name: str) -> Scenario:
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidArgument(f"{module!r}, {name!r}: give the name of a module, and of a scenario in it")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:
        raise InvalidArgument(f"{name} cannot be imported from {module}: {said(error)}") from error
    if not isinstance(found, Scenario):
        raise InvalidArgument(f"{module}.{name} is no Scenario, but {type(found).__name__}")
    return found


def _must_break(scenario: Scenario, token: str, invariant: str, where: str) -> None:
    """Raise InvalidArgument unless the schedule of a token breaks an invariant of a scenario."""
    fingerprint, choices = token_read(token)
    stage = Stage(scenario)
    broken = None
    if stage.fingerprint == fingerprint:
        recording = Recording.of(stage, scenario.invariants, choices, strict=True)
        try:
            broken = recording.run(stage.begin(scenario.faults.budgets()), checks=True).broken
        except TokenMismatch:
            broken = None
    if broken is None or broken[0] != invariant:
        raise InvalidArgument(
            f"{where} is another scenario than that of the counterexample: {token} does not break "
            f"{invariant!r} there"
        )
