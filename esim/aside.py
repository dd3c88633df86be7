"""Work that is done in a child of this process: what it does to memory is gone when it has answered.

The child begins with all that this process has in memory at that moment, and shares the addresses with it. It
says nothing, changes no file that this process has open, runs nothing at its exit, and has a time limit.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import pickle
import selectors
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import FunctionType, ModuleType
from typing import Any, NoReturn, TypeVar

from esim.errors import said

T = TypeVar("T")
_answers_to: int | None = None  # in a child
_OPEN = Path("/proc/self/fd")
_LOOK = 0.05  # seconds between two looks at whether the time is over


class Unanswered(Exception):
    """There is no answer of a child: it failed at something, took too long, or there can be none."""


def aside(work: Callable[[], T], patience: float, watch: Callable[[], None] = lambda: None) -> T:
    """Do some work in a child, and return what it returns, as pickle hands it on.

    Raises Unanswered if it raises anything, cannot be forked, or takes more seconds than there is `patience`;
    and what `watch` raises, which is called every now and then.
    """
    into, out = os.pipe()
    try:
        pid = _fork()
    except Unanswered:
        os.close(into)
        os.close(out)
        raise
    if pid == 0:
        _answer(work, out)
    os.close(out)
    try:
        answer = _all_of(into, monotonic() + patience, watch)
    finally:
        os.close(into)
        with suppress(ProcessLookupError, ChildProcessError):  # where somebody waits for every child
            os.kill(pid, signal.SIGKILL)  # it has answered, or has no more time
            os.waitpid(pid, 0)
    if not answer:
        raise Unanswered("a child process ended without a word")
    done, value = pickle.loads(answer)  # noqa: S301 - we wrote it
    if not done:
        raise Unanswered(value)
    return value  # type: ignore[no-any-return]  # what the work returned


def give_up(why: str) -> None:
    """End this process, with that for its answer, if it is a child that works aside."""
    if _answers_to is not None:
        _end(pickle.dumps((False, why)), _answers_to)


def _fork() -> int:
    if not hasattr(os, "fork"):
        raise Unanswered(f"{sys.platform} cannot fork a process")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child starts no thread of the parent's
            return os.fork()
    except OSError as error:
        raise Unanswered(said(error)) from error


def _answer(work: Callable[[], Any], out: int) -> NoReturn:
    """Do the work, answer, and end at once: no flushing, no exit handlers, no unwinding of the parent's."""
    global _answers_to  # noqa: PLW0603 - there is one such pipe in a process
    _answers_to = out
    try:
        _alone()
        answer = pickle.dumps((True, work()))
    except BaseException as error:  # noqa: BLE001 - it is told to the parent
        answer = pickle.dumps((False, said(error)))
    _end(answer, out)


def _end(answer: bytes, out: int) -> NoReturn:
    try:
        with io.FileIO(out, "w") as pipe:
            io.BufferedWriter(pipe).write(answer)
    finally:
        os._exit(0)


def _alone() -> None:
    """Leave alone what is the parent's: its garbage, its signals, its output and input, and its files."""
    gc.freeze()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.disable()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    sys.stdin, sys.stdout, sys.stderr = (open(os.devnull, mode) for mode in "rww")  # noqa: SIM115, PTH123
    with suppress(OSError):  # where there is no such list
        for one in list(_OPEN.iterdir()):
            _read_only(one, nothing)


def _read_only(one: Path, nothing: int) -> None:
    """Have what would be written to an open file go nowhere: another process is amid its own writing to it.

    What is open for both, as a database, can be read as it stands, and refuses to be written.
    """
    import fcntl

    number = int(one.name)
    with suppress(OSError):  # the list itself, which is closed by now
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDONLY or not stat.S_ISREG(os.fstat(number).st_mode):
            return
        instead = nothing
        if mode == os.O_RDWR:
            with suppress(OSError):  # a file without a name
                instead = os.open(one.readlink(), os.O_RDONLY)
        os.dup2(instead, number)


def _all_of(into: int, end: float, watch: Callable[[], None]) -> bytes:
    """Read until the child closes its side."""
    parts = []
    with selectors.DefaultSelector() as selector:
        selector.register(into, selectors.EVENT_READ)
        while True:
            if selector.select(_LOOK):
                parts.append(os.read(into, 1 << 20))
                if not parts[-1]:
                    return b"".join(parts)
            watch()
            if monotonic() > end:
                raise Unanswered("a child process did not come to an end in time")


# --- what pickle has no name for ---------------------------------------------------------------------------


class Packer(pickle.Pickler):
    """Pickles what goes from one child to the next; classes and functions of the parent go by address."""

    def __init__(self, numbered: dict[int, int]) -> None:
        """Hand on what `numbered` has (by id) by its number."""
        self.buffer = io.BytesIO()
        super().__init__(self.buffer)
        self._numbered = numbered
        self._made: set[int] = set()

    def persistent_id(self, obj: Any) -> Any:
        """Return a number or an address for what goes by it, or None.

        Raises PicklingError for a class or a function that was made after the fork.
        """
        if id(obj) in self._numbered:
            return "number", self._numbered[id(obj)]
        if isinstance(obj, type | FunctionType | ModuleType) and not _has_name(obj):
            self._made = self._made or set(map(id, gc.get_objects()))  # what was there before is frozen
            if id(obj) in self._made:
                raise pickle.PicklingError(f"{obj.__name__} was made while it ran")
            return "address", id(obj), type(obj).__name__, obj.__name__
        return None


def packed(value: Any, numbered: Sequence[Any]) -> bytes:
    """Return a value as bytes; what `numbered` has goes by its number."""
    packer = Packer({id(one): at for at, one in enumerate(numbered)})
    packer.dump(value)
    return packer.buffer.getvalue()


class Unpacker(pickle.Unpickler):
    """Takes up what a `Packer` of another child of the same parent has packed."""

    def __init__(self, packed: bytes, numbered: Sequence[Any]) -> None:
        """Find what went by its number in `numbered`."""
        super().__init__(io.BytesIO(packed))
        self._numbered = numbered
        self._known: dict[int, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands at an address. Raises UnpicklingError if it was not there before the fork."""
        if pid[0] == "number":
            return self._numbered[pid[1]]
        if not self._known:
            self._known = {id(one): one for one in _parents()}
        found = self._known.get(pid[1])
        if found is None or (type(found).__name__, found.__name__) != pid[2:]:
            raise pickle.UnpicklingError(f"{pid[3]} was made while it ran")
        return found


def _parents() -> list[Any]:
    """Return the classes, functions and modules that there are."""
    gc.disable()
    gc.unfreeze()  # what is frozen is passed over
    found = [one for one in gc.get_objects() if issubclass(type(one), type | FunctionType | ModuleType)]
    gc.freeze()
    gc.enable()
    return found


def _has_name(obj: Any) -> bool:
    if isinstance(obj, ModuleType):
        return False
    found: Any = sys.modules.get(obj.__module__ or "")
    for name in obj.__qualname__.split("."):
        try:
            found = getattr(found, name, None)
        except Exception:  # noqa: BLE001 - a `__getattr__` of the user's may raise anything
            return False
    return found is obj
