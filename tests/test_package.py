"""The package as a whole: what an import costs, and that what it offers is documented."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import esim

HEAVY = {"pandas", "numpy", "IPython", "ipywidgets", "anywidget", "altair", "matplotlib", "traitlets", "tqdm"}
ROOT = Path(__file__).resolve().parent.parent


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import esim", "from esim import *", "import esim.view, esim.shop"])
def test_importing_pulls_in_neither_pandas_nor_any_widget_or_plotting_library(statement):
    """Imports stay light: what is heavy comes when it is first used."""
    assert _modules_after(statement) & HEAVY == set()


def test_recording_and_loading_need_no_pandas():
    """The whole write side works without loading pandas."""
    statement = (
        "from esim import EventStore, Repository\nfrom esim.shop import Inventory\n"
        "Repository(EventStore(), Inventory).run('mug', Inventory.receive, sku='mug', quantity=1)"
    )
    assert "pandas" not in _modules_after(statement)


def test_the_public_names_are_sorted_and_exist():
    """`__all__` is in order, without doubles, and every name can be had."""
    assert esim.__all__ == sorted(set(esim.__all__))
    assert all(hasattr(esim, name) for name in esim.__all__)


@pytest.mark.parametrize("name", [name for name in esim.__all__ if callable(getattr(esim, name))])
def test_every_public_name_is_documented(name):
    """Each public class, its own public methods and each public function begin with a sentence."""
    thing = getattr(esim, name)
    own = [one for key, one in vars(thing).items() if not key.startswith("_") and inspect.isroutine(one)]
    for one in (thing, *(own if inspect.isclass(thing) else ())):
        assert re.match(r"[A-Z`].*[.:;]$", (inspect.getdoc(one) or "").partition("\n")[0]), one


def test_the_readme_code_runs(tmp_path):
    """The README's Python blocks run one after the other, in a process of their own as a reader's would."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(blocks) == 8
    assert (done.returncode, done.stderr) == (0, "")
