"""Code that is tried, and that leaves no trace."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tried(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that may change nothing but what is in its own folder."""
    (folder / "mine").mkdir()
    (folder / "known.txt").write_text("known", encoding="utf-8")
    first = "from esim.harmless import leave_no_trace; leave_no_trace('mine')\n"
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
        ("import os; os.mkdir('new')", "making 'new'"),
        ("import os; os.chmod('known.txt', 0)", "changing 'known.txt'"),
        ("import os; os.link('known.txt', 'new.txt')", "linking 'new.txt'"),
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
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["known.txt", "mine"]
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
