"""What a script or a notebook explored, as a module, and the test that is written with it."""

from __future__ import annotations

import ast
import linecache
import re
import subprocess
import sys
from pathlib import Path

import pytest

from esim.errors import InvalidArgument
from esim.origin import Origin, as_module
from esim.store import EventStore

ROOT = Path(__file__).parent.parent

FIRST = """
from __future__ import annotations
import math, json
from esim import *
from esim.simulation import *
from esim.invariant import eventually

class Placed(Event):
    sku: str  # what was ordered
"""
SECOND = """
world = World()
stock = world.table("stock", {"mug": 9})
log = []; log.append("not needed")

def by(event):
    return 1

@world.service
def mail(text: str) -> None: ...

def deduct(event: Placed) -> None:
    stock[event.sku] -= by(event)
"""
THIRD = """
history = [("Order/1", Placed(sku="mug"))]
history.append(("Order/2", Placed(sku="mug")))
right = {"stock is right": eventually(lambda look: look.table("stock")["mug"] == 7)}
before = simulate(history, [deduct], right, world=world)
stock
"""
CALL = """
verdict = explore(history, [deduct], right, faults=Faults(duplicate=1), world=world, confirm=None, seconds=9)
print(verdict.counterexample.to_pytest("test_found.py"))
"""
CELLS = ["", FIRST, SECOND, THIRD, "verdict = 7", CALL]


def origin(*cells: str, whole: bool = False) -> Origin:
    """Return where the last cell calls explore."""
    source = cells[-1]
    linecache.cache["<a cell>"] = (len(source), None, source.splitlines(keepends=True), "<a cell>")
    calls = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Call)]
    call = next(one for one in calls if ast.unparse(one.func).endswith("explore"))
    place = call.lineno, call.end_lineno, call.col_offset, call.end_col_offset
    return Origin("<a cell>", place, [*cells, "later = 1"], whole)


def test_what_a_call_needs_is_taken_out_of_the_cells_and_nothing_else():
    """Definitions as they are written, what is done to what is needed, and no other run."""
    module = as_module(origin(*CELLS))
    for needed in (
        "class Placed(Event):\n    sku: str  # what was ordered\n",
        "def by(event)",
        "@world.service",
    ):
        assert needed in module
    assert 'history.append(("Order/2", Placed(sku="mug")))' in module
    for other in ("simulate(", "math", "verdict", "later", "log", "seconds", "explore("):
        assert other not in module
    assert module.startswith("from __future__ import annotations\n")
    assert module.endswith(
        "scenario = esim.simulation.Scenario(history=history, actors=[deduct], invariants=right, "
        "faults=Faults(duplicate=1), world=world)\n"
    )
    compile(module, "module", "exec")


def test_a_call_with_a_scenario_gives_that_scenario():
    """With its other faults, if there are some."""
    made = "shop = Scenario([], [])"
    assert as_module(origin(made, "explore(shop)", whole=True)).endswith(f"{made}\n\nscenario = shop\n")
    told = as_module(origin(made, "explore(shop, faults=Faults(crash=1))", whole=True))
    assert told.endswith("scenario = shop.with_faults(Faults(crash=1))\n")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["given = {}", "explore(**given)"], "its arguments are not written one by one"),
        (["given = []", "explore(*given)"], "its arguments are not written one by one"),
    ],
)
def test_what_is_not_plain_is_told(cells, why):
    """Nothing is guessed."""
    with pytest.raises(InvalidArgument, match=why):
        as_module(origin(*cells))


def test_a_cell_that_is_not_known_any_more_is_told():
    """It was not executed here, or nobody kept it."""
    other = origin("explore([], [])")._replace(cells=["x = 1"])
    with pytest.raises(InvalidArgument, match="the cell of the call is not known any more"):
        as_module(other)


SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
for cell in {cells!r}:
    shell.run_cell(cell, store_history=True).raise_error()
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:nbval", "test_found.py")


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_one_call_writes_a_test_and_its_scenario(tmp_path, kind):
    """It fails with what was explored, and passes once that is mended in the file beside it."""
    if kind == "script":
        text = "\n".join(CELLS).replace(CALL, f"if __name__ == '__main__':{CALL}".replace("\n", "\n    "))
        (tmp_path / "shop.py").write_text(f"from __future__ import annotations\n{text}", encoding="utf-8")
        made = run(tmp_path, "shop.py")
    else:
        made = run(tmp_path, "-c", SHELL.format(cells=CELLS[1:]))
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.endswith("test_found.py\n")
    found = run(tmp_path, *PYTEST)
    assert found.returncode == 1 and "SimulationFailed: stock is right" in found.stdout, found.stdout
    scenario = tmp_path / "found_scenario.py"
    mended = scenario.read_text(encoding="utf-8").replace(
        "actors=[deduct]", "actors=[follow(deduct, inbox=True)]"
    )
    scenario.write_text(mended, encoding="utf-8")
    after = run(tmp_path, *PYTEST)
    assert after.returncode == 0, after.stdout + after.stderr


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (
            'exec(\'stock = world.table("stock", {"mug": 9, "cup": 1})\')',
            "alone, its code ends by esim.errors.TokenMismatch",
        ),
        ("exec('def by(event): return 2')", "alone, its code does something else"),
        ("exec('n = 2')\ndef by(event): return n", "alone, its code does something else"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_nothing_is_written(tmp_path, extra, why):
    """What was done behind the back of the code is missed in a process that has the code alone."""
    text = "\n".join([FIRST.replace("from __future__ import annotations", ""), SECOND, extra, THIRD, CALL])
    (tmp_path / "shop.py").write_text(text, encoding="utf-8")
    made = run(tmp_path, "shop.py")
    assert made.returncode == 1
    assert why in made.stderr and "put it into a module" in made.stderr, made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


STORE = """
from esim import EventStore
history = EventStore({path})
history.append("Order/1", Placed(sku="mug"))
"""


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (STORE.format(path="'shop.duckdb'"), "opening '.*shop.duckdb.*' for writing, which a test must not"),
        (STORE.format(path="FOLDER + '/shop.duckdb'"), "opening '.*shop.duckdb.*' for writing"),
        (
            "history.append(open('notes.txt', 'a').write('x')); history.pop()",
            "opening 'notes.txt' for writing",
        ),
        ("import duckdb\nhistory.append(duckdb.connect('a.duckdb')); history.pop()", "opening 'a.duckdb'"),
        ("import os\nhistory.append(os.system('echo x >> notes.txt')); history.pop()", "running b?'echo x"),
    ],
)
def test_code_that_would_leave_a_trace_each_time_is_no_test(tmp_path, extra, why):
    """It is not run again to see whether it is enough, nor by a test: what it changes is the user's."""
    first = FIRST.replace("from __future__ import annotations", f"FOLDER = {str(tmp_path)!r}")
    call = CALL.replace("right", "{'one': lambda look: look.table('stock')['mug'] > 8}")
    (tmp_path / "shop.py").write_text(f"{first}\n{SECOND}\n{THIRD}\n{extra}\n{call}", encoding="utf-8")
    made = run(tmp_path, "shop.py")
    assert made.returncode == 1
    assert re.search(why, made.stderr), made.stderr
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not {"test_found.py", "found_scenario.py"} & set(left)
    assert left.get("notes.txt", b"x").split() == [b"x"]
    if "shop.duckdb" in left:
        with EventStore(tmp_path / "shop.duckdb") as store:
            assert store.position == 1


def test_a_test_that_would_look_at_fewer_invariants_is_refused(tmp_path):
    """One that was added where no statement shows it would be missing, and could be broken unseen."""
    rule = "def house_rules(checks): checks['none twice'] = always(lambda look: True)\nhouse_rules(right)"
    first = FIRST.replace("from __future__ import annotations", "from esim.invariant import always")
    (tmp_path / "shop.py").write_text(f"{first}\n{SECOND}\n{THIRD}\n{rule}\n{CALL}", encoding="utf-8")
    made = run(tmp_path, "shop.py")
    assert "alone, its code is about other invariants than what was explored" in made.stderr
    assert "one of both lacks 'none twice'" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


def test_a_file_of_the_user_is_not_written_over(tmp_path):
    """One that esim has written is."""
    text = "\n".join([FIRST.replace("from __future__ import annotations", ""), SECOND, THIRD, CALL])
    (tmp_path / "shop.py").write_text(text, encoding="utf-8")
    (tmp_path / "found_scenario.py").write_text("mine = 1\n", encoding="utf-8")
    made = run(tmp_path, "shop.py")
    assert "found_scenario.py is there already, and is something else" in made.stderr
    assert (tmp_path / "found_scenario.py").read_text(encoding="utf-8") == "mine = 1\n"
    (tmp_path / "found_scenario.py").unlink()
    assert [run(tmp_path, "shop.py").returncode for _ in range(2)] == [0, 0]
