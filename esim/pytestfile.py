"""A counterexample as a test file, which imports its scenario.

One that is no module's, but made in a notebook or a script, is written beside the test; what was taken out of
the code there is enough if a process of its own comes to exactly the same run, and no test is written else.
That process has an empty folder for its own, and ends where it would leave a trace: a test is run again and
again, and may not write into your files and stores each time.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from esim.errors import InvalidArgument, TokenMismatch, said
from esim.origin import Origin, as_module
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
_NOWHERE = (
    "a test needs to import the scenario{why}: put it into a module, as `{name} = Scenario(…)`, and give "
    "to_pytest(path, module='shop_scenarios')"
)


class Found(NamedTuple):
    """How a counterexample was found: where from, and how a test is to look for more."""

    origin: Origin | None
    options: Mapping[str, Any]


def write_test(
    target: Path, run: Run, found: Found, module: str | None = None, name: str | None = None
) -> None:
    """Write a test of a run that breaks something, and its scenario beside it if no module has that.

    Raises InvalidArgument where the scenario cannot be imported, or is another than that of the run, and
    where what was taken out of a notebook or a script would change a file or a store.
    """
    known = (module, name or "scenario") if module else _module_of(run.scenario, name)
    if known is not None:
        _must_break(_imported(*known), run, ".".join(known))
    elif found.origin is None or name is not None:
        raise InvalidArgument(_NOWHERE.format(name=name or "scenario", why=""))
    else:
        known = _scenario_beside(target, run, found.origin), "scenario"
    target.write_text(_as_test(run, found.options, *known), encoding="utf-8")


def _as_test(run: Run, options: Mapping[str, Any], module: str, name: str) -> str:
    invariant = run.broken[0] if run.broken else ""
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


def _module_of(scenario: Scenario, name: str | None) -> tuple[str, str] | None:
    """Return the module that has a scenario, and its name there."""
    for module, loaded in list(sys.modules.items()):
        if module != "__main__" and inspect.ismodule(loaded):
            for known, value in list(vars(loaded).items()):
                if value is scenario and name in (None, known):
                    return module, known
    return None


def _scenario_beside(target: Path, run: Run, origin: Origin) -> str:
    """Write the scenario of a notebook or a script beside the test, once it is seen to break there, too."""
    module = re.sub(r"\W", "_", f"{target.stem.removeprefix('test_')}_scenario")
    path = target.with_name(f"{module}.py")
    first = f'"""The scenario of {target.name}, as it was explored; written by esim."""'
    if path.exists() and not path.read_text(encoding="utf-8").startswith(first):
        raise InvalidArgument(f"{path} is there already, and is something else")
    try:
        source = f"{first}\n\n{as_module(origin)}"
        with TemporaryDirectory() as folder:
            (Path(folder) / path.name).write_text(source, encoding="utf-8")
            _must_break_alone(Path(folder), module, run)
    except InvalidArgument as cannot:
        why = f", and it cannot be taken out of here ({cannot})"
        raise InvalidArgument(_NOWHERE.format(name="scenario", why=why)) from None
    path.write_text(source, encoding="utf-8")
    return module


def _must_break_alone(folder: Path, module: str, run: Run) -> None:
    """Raise InvalidArgument unless the module breaks in a process of its own exactly as the run did."""
    code = (
        "import json; from esim.harmless import leave_no_trace; from esim.simulation import replay\n"
        f"leave_no_trace('passing')\nimport {module} as made\n"
        f"run = replay({run.token!r}, made.scenario)\n"
        "steps = [[step.lane, step.text] for step in run.steps]\n"
        "with open('passing/told', 'w') as told:\n"
        "    json.dump([sorted(made.scenario.invariants), run.broken, steps], told)"
    )
    paths = os.pathsep.join([str(folder), *map(os.path.abspath, sys.path)])
    (folder / "passing").mkdir()
    done = subprocess.run(  # noqa: S603 - the code of the scenario, which has run here already
        [sys.executable, "-B", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder / "passing")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    answer = folder / "passing" / "told"  # whatever the code prints
    if done.returncode != 0 or not answer.exists():
        told = done.stderr.strip().rpartition("\n")[2]
        raise InvalidArgument(f"alone, its code ends by {told or f'exit({done.returncode})'}")
    invariants, *happened = json.loads(answer.read_text(encoding="utf-8"))
    _must_be_of_all(invariants, run, "alone, its code")
    if happened != json.loads(json.dumps([run.broken, [[step.lane, step.text] for step in run.steps]])):
        raise InvalidArgument("alone, its code does something else")


def _must_be_of_all(invariants: Iterable[str], run: Run, where: str) -> None:
    """Raise InvalidArgument unless these are the invariants that were explored."""
    differ = set(invariants) ^ set(run.scenario.invariants)
    if differ:
        raise InvalidArgument(
            f"{where} is about other invariants than what was explored: one of both lacks "
            f"{', '.join(map(repr, sorted(differ)))}"
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


def _must_break(scenario: Scenario, run: Run, where: str) -> None:
    """Raise InvalidArgument unless the schedule of a run breaks the same in a scenario."""
    _must_be_of_all(scenario.invariants, run, where)
    fingerprint, choices = token_read(run.token)
    stage = Stage(scenario)
    broken = None
    if stage.fingerprint == fingerprint:
        recording = Recording.of(stage, scenario.invariants, choices, strict=True)
        with suppress(TokenMismatch):
            broken = recording.run(stage.begin(scenario.faults.budgets()), checks=True).broken
    if broken is None or broken != run.broken:
        raise InvalidArgument(
            f"{where} is another scenario than that of the counterexample: {run.token} does not break the "
            "same there"
        )
