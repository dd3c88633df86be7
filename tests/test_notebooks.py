"""The committed notebooks: executed whole, in order, without noise."""

from __future__ import annotations

import builtins
import json
import re
import sys
import types
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
GALLERY = re.compile(r"\bgroup\(|\bgalleries\b")  # they take long, and no exercise needs them
LEAKS = re.compile(r"0x[0-9a-f]{6,}|/(?:home|root|tmp|Users)/|https?://(?!127\.0\.0\.1)")


def _code(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def test_there_are_notebooks():
    """The notebooks of the kit are there."""
    assert [path.stem for path in NOTEBOOKS] == [
        "00_tour",
        "01_events",
        "02_state_and_replay",
        "03_projections",
        "04_delivery",
        "05_failures_by_hand",
        "06_evolution",
        "07_process_managers",
        "08_simulation",
        "09_bug_zoo",
        "10_event_logs",
        "11_your_own_log",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_cell_was_executed_from_top_to_bottom(path):
    """Execution counts run 1, 2, 3, … so that no cleared output escapes the strict comparison."""
    assert [cell["execution_count"] for cell in _code(path)] == list(range(1, len(_code(path)) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_noise(path):
    """No unexpected stderr or error, no address, no machine path, no web address in any output."""
    for cell in _code(path):
        allowed = "raises-exception" in cell["metadata"].get("tags", [])
        for output in cell["outputs"]:
            assert output.get("name") != "stderr" or "logs" in cell["metadata"].get("tags", [])
            assert output["output_type"] != "error" or allowed
            if output["output_type"] != "error":
                assert not LEAKS.search(json.dumps(output, ensure_ascii=False)), "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_there_are_not_too_many(path):
    """One idea a cell (15 lines at most), 45 cells at most."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 45
    assert max(len("".join(cell["source"]).strip().splitlines()) for cell in _code(path)) <= 15


WITH_EXERCISE = [
    path for path in NOTEBOOKS if any("Exercise(" in "".join(cell["source"]) for cell in _code(path))
]


@pytest.mark.parametrize("path", WITH_EXERCISE, ids=lambda path: path.stem)
def test_the_solution_of_an_exercise_solves_it_and_the_first_try_does_not(path):
    """Cells are run in order but for galleries; the learner has something to do, and there is a way out."""
    scope = {"__name__": f"exercise_{path.stem}", "__builtins__": builtins}
    module = types.ModuleType(scope["__name__"])
    sys.modules[module.__name__] = module
    module.__dict__.update(scope)
    for cell in _code(path):
        code = "".join(cell["source"])
        if "raises-exception" not in cell["metadata"].get("tags", []) and not GALLERY.search(code):
            run_cell(module.__dict__, code)
    exercise = module.__dict__["exercise"]
    name = re.search(r"exercise\.check\((\w+)\)", "".join(_code(path)[-1]["source"]))[1]
    assert exercise.check(module.__dict__[name]).mark == "✗"
    run_cell(module.__dict__, exercise.solution().text)
    assert exercise.check(module.__dict__[name]).mark == "✓"
    del sys.modules[module.__name__]


def run_cell(scope, code):
    exec(compile(code, "<cell>", "exec", dont_inherit=True), scope)
