"""One DuckDB database that belongs to this process: opened, shared by threads, guarded against forks.

Threads read through a cursor each and write through one connection under one lock; a forked child can do
neither. Long statements run in a helper thread: an interrupt seldom reaches a query in the main thread. Where
it does, DuckDB turns it into an error of its own, and `heard` turns that back.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

import duckdb

from esim import aside
from esim.answer import Answer, answer, frame, statement, told
from esim.errors import ForkedStore, InvalidArgument, NotAStore, NotWritten, SqlRefused, StoreClosed
from esim.storefile import (
    SETTINGS,
    DuckDB,
    Holder,
    Parameters,
    copy,
    look_at_header,
    must_have_folder,
    prepared,
    probe,
    quoted,
    real,
    refuse_second,
    release,
    take,
    translated,
)

__all__ = ["Answer", "Connection", "DuckDB", "Parameters", "frame"]

T = TypeVar("T")
_STEP = 0.05  # seconds between two looks at the helper thread
_PATIENCE = 1.0  # seconds that close() leaves to a write under way before it is interrupted
_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.SerializationException, duckdb.FatalException)


class Connection:
    """A DuckDB database owned by this process.

    `path` is None in memory; `lock` guards `write`, the one connection that changes the log. Raises
    StoreLocked if somebody has the file, NotAStore if it is something else, ReadOnlyStore if the
    folder takes no writes.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, empty: bool = False) -> None:
        """Open or make the store file at `path`; None keeps everything in memory, `empty` without tables."""
        self.closed = True
        self._empty = empty
        self.path = None if path is None else real(path)
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._fd: int | None = None
        self._cursors: WeakKeyDictionary[threading.Thread, DuckDB] = WeakKeyDictionary()
        self._lent: set[DuckDB] = set()  # those of queries under way
        # One thread for all statements: where threads end now and then, a fork may catch a lock that is held.
        self._helper = ThreadPoolExecutor(1, "esim-query")
        self._root = self._open()
        self._write = self._root.cursor()
        self.closed = False
        _alive.add(self)

    def _open(self) -> DuckDB:
        if self.path is None:
            return prepared(duckdb.connect(":memory:", config=SETTINGS), fresh=not self._empty)
        must_have_folder(self.path)
        if self.path.is_dir():
            look_at_header(self.path)
        if any(one.path == self.path and not one.closed for one in _alive):
            refuse_second(self.path, Holder(os.getpid()))  # also where the file has been removed meanwhile
        self._fd = take(self.path)
        try:
            fresh = not self.path.exists() or probe(self.path).format is None
            with translated(self.path):
                return prepared(duckdb.connect(self.path, config=SETTINGS), fresh=fresh)
        except BaseException:
            release(self.path, self._fd)
            raise

    @property
    def write(self) -> DuckDB:
        """The connection that changes the log; use it only while holding `lock`."""
        self.check()
        return self._write

    def check(self) -> None:
        """Raise StoreClosed after close(), ForkedStore in a forked child."""
        if self._pid != os.getpid():
            aside.give_up(f"it uses the store {self.name}, which only process {self._pid} can")
            raise ForkedStore(
                f"this store belongs to process {self._pid}, and this is a forked child ({os.getpid()}) "
                "whose writes would vanish; start children by 'spawn', each with a store or copy of its own"
            )
        if self.closed:
            raise StoreClosed(f"the store {self.name} has been closed; open it again to go on")

    @property
    def heard(self) -> _Heard:
        """A `with` for DuckDB's work in which Ctrl-C is a KeyboardInterrupt and a closed store is named."""
        return _Heard(self)

    @property
    def reading(self) -> _Heard:
        """As `heard`, and a damaged file is named too."""
        return _Heard(self, reading=True)

    @property
    def name(self) -> str:
        """The file's name as a message shows it."""
        return "in memory" if self.path is None else repr(self.path.name)

    def cursor(self) -> DuckDB:
        """Return this thread's own cursor for reading."""
        self.check()
        thread = threading.current_thread()
        try:
            return self._cursors[thread]
        except KeyError:
            return self._cursors.setdefault(thread, self._fresh())

    def _fresh(self) -> DuckDB:
        self.check()
        with _branching, self.heard:
            return self._root.cursor()

    def fetch(self, sql: str, params: Parameters = None) -> list[Any]:
        """Return the rows of a short query, read to the end: an unread result would block the connection.

        Raises NotAStore if the file turns out to be damaged.
        """
        with self.reading:
            return self.cursor().execute(sql, params).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[DuckDB]:
        """Hold `lock` and commit what the block does on the yielded connection, or nothing if it fails."""
        self.check()
        with self.lock, self.heard:
            try:
                self._write.execute("BEGIN")
                yield self._write
                # After a failed statement COMMIT drops all in silence, but any other statement says so.
                self._write.execute("SELECT 1")
                self._write.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        """End a failed transaction, whatever else is interrupted: what follows must not fall into it."""
        while True:
            try:
                self._write.abort()  # what an interrupt has left unread
                self._write.execute("ROLLBACK")
            except (KeyboardInterrupt, RuntimeError, duckdb.InterruptException):
                continue
            except duckdb.Error:  # the failure has ended it already
                return
            return

    def run(self, cursor: DuckDB, sql: str, params: Parameters = None) -> DuckDB:
        """Execute a statement that may take long; Interrupt stops it and leaves the connection usable."""
        return self.interruptibly(cursor, lambda: cursor.execute(sql, params))

    def interruptibly(
        self, cursor: DuckDB, work: Callable[[], T], meanwhile: Callable[[], None] | None = None
    ) -> T:
        """Return what `work` gives; on KeyboardInterrupt stop the query that it runs on `cursor`.

        `meanwhile` is called now and then while it lasts, to show how far it is.
        """
        if threading.current_thread() is not threading.main_thread():
            return work()
        job = _Job(work)
        try:
            self._helper.submit(job.run)
            while not job.done.wait(_STEP):
                if meanwhile is not None:
                    meanwhile()
        finally:
            _ended(job, cursor)
        return job.result()

    def read_only(
        self,
        sql: str,
        params: Parameters = None,
        views: Mapping[str, str] | None = None,
        known: Callable[[], Iterable[str]] = tuple,
    ) -> Answer:
        """Answer one reading statement that sees `views` (name to SELECT text) before any table.

        Where it names a table that there is not, the error offers the views and what `known` gives.
        Raises SqlRefused if it is anything else than one SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN of a
        SELECT, or if DuckDB cannot answer it.
        """
        cursor = self._fresh()
        self._lent.add(cursor)
        try:
            with self.heard:
                text = statement(cursor, sql)
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                for name, select in (views or {}).items():
                    cursor.execute(f"CREATE TEMP VIEW {quoted(name)} AS {select}")
                return self.interruptibly(cursor, lambda: answer(cursor, text, params))
        except duckdb.Error as error:
            raise SqlRefused(told(error, {*(views or {}), *known()})) from None
        finally:
            self._lent.discard(cursor)
            cursor.close()

    def copy_to(self, target: str | os.PathLike[str]) -> None:
        """Write the whole store as it stands into a new file. Raises InvalidArgument if `target` exists."""
        new = real(target)
        if new.exists():
            raise InvalidArgument(
                f"{new.name!r} exists already, and a copy replaces nothing; choose a new name"
            )
        must_have_folder(new)
        part = new.with_name(new.name + ".part")
        part.unlink(missing_ok=True)
        try:
            with self.lock, self.heard:
                copy(self.write, part)
            part.rename(new)
        except (duckdb.IOException, OSError) as error:
            told = str(error).partition(chr(10))[0]
            raise NotWritten(f"the copy {new.name!r} could not be written: {told}") from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the database and free its file; closing again does nothing.

        What other threads do just now is ended: an append is waited for, a long query is interrupted.
        """
        if self.closed or self._pid != os.getpid():
            return
        self.closed = True
        try:
            while not self.lock.acquire(timeout=_PATIENCE):
                self._write.interrupt()
        except BaseException:
            self.closed = False
            raise
        try:
            for each in (*self._lent, *self._cursors.values(), self._write, self._root):
                _end(each)
        finally:
            self.lock.release()
            _alive.discard(self)
            self._helper.shutdown(wait=False)
            if self.path is not None:
                release(self.path, self._fd)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _disown(self) -> None:
        """In a forked child: never run DuckDB's destructors, which would write to the parent's file.

        A lock that another thread of the parent held stays held here for ever, so the child has its own.
        """
        self.lock = threading.RLock()
        for each in (*self._cursors.values(), self._write, self._root):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
        if self._fd is not None:
            os.close(self._fd)  # only this copy: the parent's descriptor keeps the lock
            self._fd = None


def _end(cursor: DuckDB) -> None:
    """Close a cursor, after interrupting what another thread may run on it."""
    pause = threading.Event()
    while True:
        try:
            return cursor.close()
        except duckdb.ResourceInUseException:
            cursor.interrupt()
            pause.wait(_STEP / 10)


class _Heard:
    """Around DuckDB's work: an interrupt is a KeyboardInterrupt again, and a closed store is called so."""

    def __init__(self, connection: Connection, *, reading: bool = False) -> None:
        self._connection = connection
        self._reading = reading

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None or not issubclass(kind, RuntimeError | duckdb.Error):
            return
        told = str(error)
        if told == "Query interrupted" or "failed: KeyboardInterrupt" in told:
            raise KeyboardInterrupt from None
        self._connection.check()
        if self._reading and (issubclass(kind, _DAMAGE) or "Corrupt database" in told):
            raise NotAStore(
                f"the store {self._connection.name} is damaged ({told.partition(chr(10))[0]}); "
                "restore it from a copy"
            ) from error


_alive: WeakSet[Connection] = WeakSet()
_branching = threading.Lock()


def _close_all() -> None:
    for connection in list(_alive):
        connection.close()


def _disown_all() -> None:
    for connection in list(_alive):
        connection._disown()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _ended(job: _Job[Any], cursor: DuckDB) -> None:
    """Wait until nothing runs on a cursor any more, interrupting what does; a further Ctrl-C comes after."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            job.dropped = True
            while job.begun and not job.done.wait(_STEP / 10):  # an interrupt before it has begun is lost
                cursor.interrupt()
        except KeyboardInterrupt as error:
            interrupt = error
        else:
            break
    if interrupt is not None:
        raise interrupt


class _Job(Generic[T]):
    """A call in the helper thread, with its result or its error."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = threading.Event()
        self.begun = self.dropped = False
        self._work = work
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        self.begun = True
        try:
            if not self.dropped:
                self._value = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._error = error
        finally:
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)
