"""Code that is tried, and that leaves no trace."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tried(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that may change nothing but what is in its own folder."""
    (folder / "mine").mkdir()
    (folder / "known.txt").write_text("known", encoding="utf-8")
    first = "from esim.harmless import leave_no_trace; locked = leave_no_trace('mine')\n"
    return subprocess.run(
        [sys.executable, "-B", "-c", first + code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "mine")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("open('known.txt', 'w')", "opening 'known.txt' for writing"),
        ("import pathlib; pathlib.Path('new.txt').write_text('')", "opening '.*new.txt' for writing"),
        ("import os; os.remove('known.txt')", "removing 'known.txt'"),
        ("import os; os.rename('known.txt', 'mine/known.txt')", "renaming 'known.txt'"),
        ("import os; open('mine/a', 'w'); os.rename('mine/a', 'new.txt')", "renaming 'new.txt'"),
        ("import os; open('mine/a', 'w'); os.link('mine/a', 'new.txt')", "linking 'new.txt'"),
        ("import os; os.mkdir('new')", "making 'new'"),
        ("import os; os.chmod('known.txt', 0)", "changing 'known.txt'"),
        ("import os; os.link('known.txt', 'mine/a')", "linking 'known.txt'"),
        ("import os; os.symlink('known.txt', 'new.txt')", "linking 'new.txt'"),
        ("import os; os.execv('/bin/true', ['true'])", "running '/bin/true'"),
        ("import sqlite3; sqlite3.connect('a.db')", "opening 'a.db'"),
        ("import duckdb; duckdb.connect('a.duckdb')", "opening 'a.duckdb'"),
        ("import socket; socket.socket().connect(('127.0.0.1', 9))", "connecting to"),
        ("import subprocess; subprocess.run(['touch', 'new.txt'])", "running 'touch'"),
        ("from esim import EventStore; EventStore('a.duckdb')", "opening '.*a.duckdb.*' for writing"),
    ],
)
def test_it_ends_where_it_would_leave_a_trace(tmp_path, code, told):
    """At once: no `except` goes on, and nothing is changed."""
    done = tried(tmp_path, f"try:\n    {code}\nexcept BaseException:\n    pass\nprint('it went on')")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(f"{told}.*, which a test must not", done.stderr.strip())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known.txt", "mine"]
    assert (tmp_path / "known.txt").read_text(encoding="utf-8") == "known"


@pytest.mark.parametrize(
    "code",
    [
        "print(open('known.txt').read())",
        "import tempfile; tempfile.TemporaryFile().write(b'x')",
        "import tempfile; from esim import EventStore; EventStore(tempfile.mkdtemp() + '/a.duckdb').close()",
        "from esim import EventStore; EventStore().close()",
        "import sqlite3; sqlite3.connect(':memory:')",
        "import os; open(os.devnull, 'w')",
    ],
)
def test_what_leaves_none_is_done(tmp_path, code):
    """To read, to work in memory, and what passes with the process."""
    done = tried(tmp_path, f"{code}\nprint('it went on')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("it went on\n")


_C_CODE = """
import duckdb, pyarrow, pyarrow.fs
for one in (
    lambda: duckdb.sql(f"ATTACH '{path}.duckdb' AS {path[:4]}"),
    lambda: duckdb.sql(f"COPY (SELECT 1) TO '{path}'"),
    lambda: pyarrow.OSFile(path, 'wb'),
    lambda: pyarrow.fs.LocalFileSystem().delete_file(path),
):
    try:
        one()
        print('done')
    except Exception as error:
        print('refused' if 'ermission denied' in str(error) else error)
"""


def test_what_c_code_writes_is_refused(tmp_path):
    """By the kernel, where that can, but for what is in the own folder."""
    each = textwrap.indent(_C_CODE, "    ")
    done = tried(tmp_path, f"print(locked)\nfor path in ('known.txt', 'mine/own.txt'):\n{each}")
    locked, *told = done.stdout.split()
    if locked == "False":
        pytest.skip("this kernel has no Landlock")
    assert told == ["refused"] * 4 + ["done"] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known.txt", "mine"]
    assert (tmp_path / "known.txt").read_text(encoding="utf-8") == "known"
