"""Code that is tried in a process of its own, and that may leave no trace: it ends where it would.

What Python itself does to files is seen anywhere, and ends it at once. What C code does, as DuckDB's
`COPY … TO` or pyarrow's `write_table`, the kernel refuses with an error, by Landlock; where there is none
(before Linux 5.13, and on other systems) nobody sees that.
"""

from __future__ import annotations

import ctypes
import os
import struct
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
_SECOND = ("os.symlink", "socket.connect")  # what is changed, or reached, is the second argument
_BOTH = ("os.link", "os.rename")
_NOWHERE = ("", ":memory:", os.devnull)


def leave_no_trace(folder: str) -> bool:
    """End this process from now on where it would change a file, open a database, connect, or run another.

    What is in a `folder` is its own. Returns whether C code is refused to change a file outside of it, too.
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
            first = 1 if event in _SECOND else 0
            for what in given[first : 2 if event in _BOTH else first + 1]:
                if not is_mine(what):
                    _end(f"{_CHANGES[event]} {what!r}")

    connect = duckdb.connect

    def connected(database: Any = ":memory:", *given: Any, **options: Any) -> Any:
        if not is_mine(str(database)):
            _end(f"opening {str(database)!r}")
        return connect(database, *given, **options)

    duckdb.connect = connected
    locked = _lock(folder)
    sys.addaudithook(hook)
    return locked


# --- what the kernel refuses -------------------------------------------------------------------------------

_NEW_RULES, _ADD_RULE, _LOCK = 444, 445, 446  # system calls
_WRITE, _CUT_OFF = 1 << 1, 1 << 14
_MAKE_AND_REMOVE = sum(1 << right for right in range(4, 13))
_SINCE = {1: _WRITE | _MAKE_AND_REMOVE, 2: 1 << 13, 3: _CUT_OFF}
"""The rights to change files that each version of Landlock knows in addition."""
_NO_NEW_RIGHTS = 38


def _lock(folder: str) -> bool:
    """Have the kernel refuse to change a file outside of a folder, from now on; say whether it can."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    version = libc.syscall(_NEW_RULES, None, ctypes.c_size_t(0), 1)
    rights = sum(more for since, more in _SINCE.items() if since <= version)
    asked = struct.pack("Q", rights)
    rules = libc.syscall(_NEW_RULES, asked, ctypes.c_size_t(len(asked)), 0) if rights else -1
    if rules < 0:
        return False
    for path, granted in ((folder, rights), (os.devnull, rights & (_WRITE | _CUT_OFF))):
        place = os.open(path, os.O_PATH)
        libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", granted, place), 0)
        os.close(place)
    return not libc.prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0) and not libc.syscall(_LOCK, rules, 0)


def _end(told: str) -> NoReturn:
    """End at once, whatever the code would make of an error."""
    os.write(2, f"\n{told}, which a test must not\n".encode(errors="replace"))
    os._exit(1)
