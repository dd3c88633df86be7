"""The committed notebooks: executed whole, in order, without noise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
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
        "06_evolution",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_cell_was_executed_from_top_to_bottom(path):
    """Execution counts run 1, 2, 3, … so that no cleared output escapes the strict comparison."""
    assert [cell["execution_count"] for cell in _code(path)] == list(range(1, len(_code(path)) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_no_noise(path):
    """No stderr, no unexpected error, no address, no machine path, no web address in any output."""
    for cell in _code(path):
        allowed = "raises-exception" in cell["metadata"].get("tags", [])
        for output in cell["outputs"]:
            assert output.get("name") != "stderr"
            assert output["output_type"] != "error" or allowed
            if output["output_type"] != "error":
                assert not LEAKS.search(json.dumps(output, ensure_ascii=False)), "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_there_are_not_too_many(path):
    """One idea a cell (15 lines at most), 45 cells at most."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 45
    assert max(len("".join(cell["source"]).strip().splitlines()) for cell in _code(path)) <= 15
