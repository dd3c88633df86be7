"""User code that runs in a child of this process as if it ran here; what it does to memory is gone then.

What it prints, logs, warns of and shows comes out here, once it has come to its end; its answer comes back by
pickle, and an error of esim is raised here. Where that cannot be, as there is no child to be had, it asks its
user for something, or it waits for a thread that the child does not have, it is run here after all: `left`
tells of it from then on, since nobody knows what it has left in memory.
"""

from __future__ import annotations

import builtins
import io
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from esim import bar
from esim.aside import Unanswered, Unpacker, alone, fork, packed
from esim.errors import LIBRARIES, EsimError, said

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")
_LOOK = 0.05  # seconds between two looks at what else there is
_GRACE = 5.0  # seconds that a child has to answer after Ctrl-C
_IDLE = 5.0  # seconds without a step after which a child waits for what it does not have
_STEP = 0.0005  # seconds of the processor that any step takes
HEAVY = ("duckdb", "pyarrow", "pandas")
"""What is imported here once a child has needed it, so that not each one does so."""
_left: dict[str, None] = {}
_LIBRARY = str(Path(os.__file__).parent)


def left() -> list[str]:
    """Return why simulated code was run in this process and not in a child, if it was."""
    return list(_left)


def apart(work: Callable[[], T], known: Sequence[Any]) -> T:
    """Return what some work returns, done in a child, or here if that cannot be.

    The answer may hold what is `known` in both; that is the same object then. Raises what the work raises.
    """
    if _Child.inside:
        return work()
    try:
        return cast("T", _by_child(work, known))
    except Unanswered as error:
        why = str(error)
    try:
        return work()
    finally:
        _left[why] = None


def _by_child(work: Callable[[], Any], known: Sequence[Any]) -> Any:
    """Have a child do it. Raises Unanswered where it cannot."""
    from multiprocessing import Pipe

    if sys.gettrace() or sys.getprofile():
        raise Unanswered("a debugger, a profiler or a measure of coverage looks on")
    ours, childs = Pipe(duplex=False)
    with ours, childs:
        pid = fork()
        if pid == 0:
            _Child(childs).do(work, known)
        childs.close()
        try:
            with bar.Counter("schedules") as counter, _hands_on_interrupts(pid) as over:
                shown, kind, answer, heavy = _heard(ours, counter, over)
        finally:
            with suppress(ProcessLookupError, ChildProcessError):  # where somebody waits for every child
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    if kind == "cannot":
        raise Unanswered(answer)
    for name in heavy:
        import_module(name)
    value = Unpacker(answer, known).load() if kind == "done" else answer
    for one in shown:
        _show(*one)
    if kind == "done":
        return value
    raise KeyboardInterrupt if kind == "interrupted" else value


def _heard(
    pipe: Connection, counter: bar.Counter, over: Callable[[], bool]
) -> tuple[list[tuple[Any, ...]], str, Any, list[str]]:
    """Return what a child has shown, and its answer. Raises Unanswered if it says none."""
    shown: list[tuple[Any, ...]] = []
    while True:
        if not pipe.poll(_LOOK):
            if over():
                raise KeyboardInterrupt
            continue
        try:
            kind, *told = pipe.recv()
        except (EOFError, OSError):
            raise Unanswered("a child process ended without a word") from None
        except Exception as error:  # noqa: BLE001 - anything may refuse to be unpickled
            raise Unanswered(said(error)) from None
        if kind == "counted":
            counter.at(*told)
        elif kind in _SHOWN:
            shown.append((kind, *told))
        else:
            return shown, kind, *told


@contextmanager
def _hands_on_interrupts(pid: int) -> Iterator[Callable[[], bool]]:
    """Have the child be interrupted by Ctrl-C; gives what says whether it had time enough to answer."""
    asked: list[float] = []

    def interrupt(*_: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(monotonic())
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)

    mine = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGINT, interrupt) if mine else None
    try:
        yield lambda: bool(asked) and monotonic() > asked[0] + _GRACE
    finally:
        if mine:
            signal.signal(signal.SIGINT, former)


# --- what comes out here -----------------------------------------------------------------------------------


def _write(stream: str, text: bytes) -> None:
    getattr(sys, stream).write(text.decode("utf-8", "surrogatepass"))


def _log(record: logging.LogRecord) -> None:
    logging.getLogger(record.name).callHandlers(record)


def _warn(message: Warning | str, category: type[Warning], file: str, line: int) -> None:
    warnings.warn_explicit(message, category, file, line)


def _publish(*args: Any, **kwargs: Any) -> None:
    _shell().display_pub.publish(*args, **kwargs)


def _shell() -> Any:
    """Return the shell of a notebook, if this runs in one."""
    module = sys.modules.get("IPython")
    return module and module.get_ipython()


_SHOWN: dict[str, Callable[..., None]] = {
    "written": _write,
    "logged": _log,
    "warned": _warn,
    "published": _publish,
}


def _show(kind: str, args: Sequence[Any], kwargs: Any) -> None:
    _SHOWN[kind](*args, **kwargs)


# --- in the child ------------------------------------------------------------------------------------------


class _Stream(io.RawIOBase):
    """Has what is written come out at the parent's."""

    def __init__(self, name: str, tell: Callable[..., None]) -> None:
        self._name, self._tell = name, tell

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self._tell("written", self._name, bytes(text))
        return len(text)


class _Child:
    """A child that does work as if it were its parent."""

    inside = False
    """Whether this process is one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.RLock()
        self._telling = self._interrupted = False
        self._used = -1.0

    def do(self, work: Callable[[], Any], known: Sequence[Any]) -> NoReturn:
        """Do it, answer, and end at once."""
        _Child.inside = True
        before = set(sys.modules)
        try:
            self._be_the_parent()
            answer: tuple[str, Any] = "done", packed(work(), known)
        except KeyboardInterrupt:
            answer = "interrupted", None
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            answer = _told(error)
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._pipe.send((*answer, [name for name in HEAVY if name in sys.modules and name not in before]))
        finally:
            os._exit(0)

    def _be_the_parent(self) -> None:
        """Have what it does come out there, and what only the parent can do be done there."""
        alone()
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, _IDLE, _IDLE)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                _Stream(name, self._show),  # type: ignore[type-var]  # no buffer in between
                "utf-8",
                "surrogatepass",
                write_through=True,
            )
            for name in ("stdout", "stderr")
        )
        logging.Logger.callHandlers = lambda _, record: self._logged(record)  # type: ignore[method-assign, assignment]
        warnings.showwarning = self._warned
        bar.elsewhere = lambda count, told: self._tell("counted", count, told)
        builtins.input = sys.breakpointhook = self._leave
        sys.stdin = _Asked(self._leave)
        if (shell := _shell()) is not None:
            shell.display_pub.publish = lambda *args, **kwargs: self._tell("published", args, kwargs)

    def _tell(self, *told: Any) -> None:
        """Tell the parent something, as a whole also if Ctrl-C comes meanwhile."""
        with self._lock:
            self._telling = True
            try:
                self._pipe.send(told)
            finally:
                self._telling = False
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def _show(self, kind: str, *args: Any) -> None:
        self._tell(kind, args, {})

    def _logged(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
        self._show("logged", record)

    def _warned(  # noqa: PLR0917 - as it is called by Python
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,  # noqa: ARG002 - as above
        line: str | None = None,  # noqa: ARG002 - as above
    ) -> None:
        self._show("warned", str(message), category, filename, lineno)

    def _interrupt(self, *_: object) -> None:
        """Be interrupted once."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._telling:
            self._interrupted = True
            return
        raise KeyboardInterrupt

    def _look(self, *_: object) -> None:
        """Leave it to the parent if nothing has gone on for a while."""
        used = process_time()
        if used - self._used < _STEP and not self._telling:
            self._leave(why="it waits for something that a child process does not have")
        self._used = process_time()

    def _leave(self, *_: Any, why: str = "it asks its user for something", **__: Any) -> NoReturn:
        """Leave the work to the parent."""
        try:
            self._pipe.send(("cannot", why, []))
        finally:
            os._exit(0)


class _Asked(io.TextIOBase):
    """An input that leaves the work to the parent once it is read."""

    def __init__(self, leave: Callable[..., NoReturn]) -> None:
        self.read = self.readline = self.__next__ = leave  # type: ignore[method-assign]


def _told(error: BaseException) -> tuple[str, Any]:
    """Return an error of esim; any other, and one of the user's own lines, is to be raised by the parent."""
    frames = traceback.extract_tb(error.__traceback__)
    own = any(not any(part in frame.filename for part in (*LIBRARIES, _LIBRARY)) for frame in frames)
    if not isinstance(error, EsimError) or error.__cause__ is not None or own:
        return "cannot", said(error)
    with suppress(Exception):  # it may not want to be pickled
        pickle.loads(pickle.dumps(error))  # noqa: S301 - we wrote it
        return "raised", error
    return "cannot", said(error)
