"""Code that is tried in a process of its own, and that may leave no trace: it ends where it would."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES: Mapping[str, str] = {
    "os.remove": "removing",
    "os.rename": "renaming",
    "os.rmdir": "removing",
    "os.mkdir": "making",
    "os.chmod": "changing",
    "os.link": "linking",
    "os.symlink": "linking",
    "os.exec": "running",
    "os.truncate": "cutting off",
    "os.system": "running",
    "os.posix_spawn": "running",
    "subprocess.Popen": "running",
    "socket.connect": "connecting to",
    "sqlite3.connect": "opening",
}
_SECOND = ("os.link", "os.symlink", "socket.connect")  # what is changed, or reached, is the second argument
_NOWHERE = ("", ":memory:", os.devnull)


def leave_no_trace(folder: str) -> None:
    """End this process from now on where it would change a file, open a database, connect, or run another.

    What is in a `folder` is its own.
    """
    import duckdb

    mine = os.path.realpath(folder) + os.sep

    def is_mine(what: object) -> bool:
        if not isinstance(what, str | bytes | os.PathLike):
            return isinstance(what, int)  # a file that is open already
        path = os.fsdecode(what)
        return path in _NOWHERE or f"{os.path.realpath(path)}{os.sep}".startswith(mine)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and given[2] & _WRITES and not is_mine(given[0]):
            _end(f"opening {given[0]!r} for writing")
        elif event in _CHANGES:
            what = given[1] if event in _SECOND else given[0]
            if not is_mine(what):
                _end(f"{_CHANGES[event]} {what!r}")

    connect = duckdb.connect

    def connected(database: Any = ":memory:", *given: Any, **options: Any) -> Any:
        if not is_mine(str(database)):
            _end(f"opening {str(database)!r}")
        return connect(database, *given, **options)

    duckdb.connect = connected
    sys.addaudithook(hook)


def _end(told: str) -> NoReturn:
    """End at once, whatever the code would make of an error."""
    os.write(2, f"\n{told}, which a test must not\n".encode(errors="replace"))
    os._exit(1)
