"""One DuckDB database that belongs to this process: opened, guarded, shared by threads, read by users' SQL.

DuckDB locks its file with POSIX record locks, which vanish when the owning process merely opens and closes the
file again; so a sidecar `<path>.lock` carries a `flock` of our own and the pid of the holder. A file is probed
read-only before it is opened for writing, so that a foreign, corrupt or older file stays as it is. Threads read
through a cursor each and write through one connection under one lock; a forked child can do neither. Long
statements run in a helper thread, because an interrupt seldom reaches a query that runs in the main thread.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import duckdb

from esim.errors import (
    ForkedStore,
    InvalidArgument,
    NotAStore,
    ReadOnlyStore,
    SqlRefused,
    StoreClosed,
    StoreLocked,
)

try:
    import fcntl
except ImportError:  # Windows: DuckDB's own lock is mandatory there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")
Parameters: TypeAlias = "Sequence[Any] | Mapping[str, Any] | None"
DuckDB: TypeAlias = duckdb.DuckDBPyConnection

FORMAT = 1
"""The number of the file format; a file of another number is not opened."""

TABLES = """
CREATE SCHEMA esim;
CREATE SCHEMA typed;
CREATE TABLE esim.meta(key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE esim.events(
    position BIGINT NOT NULL, category VARCHAR NOT NULL, stream VARCHAR NOT NULL, version INTEGER NOT NULL,
    type VARCHAR NOT NULL, schema_version SMALLINT NOT NULL, event_id UUID NOT NULL,
    recorded_at TIMESTAMP NOT NULL, occurred_at TIMESTAMP, data JSON NOT NULL, correlation_id VARCHAR,
    causation_id VARCHAR, user_id VARCHAR, tags VARCHAR[], metadata JSON);
CREATE UNIQUE INDEX events_version ON esim.events(stream, version);
CREATE INDEX events_stream ON esim.events(stream);
CREATE TABLE esim.tags(tag VARCHAR NOT NULL, position BIGINT NOT NULL);
CREATE TABLE esim.checkpoints(name VARCHAR PRIMARY KEY, position BIGINT NOT NULL, stamp VARCHAR);
CREATE TABLE esim.snapshots(stream VARCHAR PRIMARY KEY, version INTEGER NOT NULL, stamp VARCHAR, state JSON);
CREATE TABLE esim.event_types(
    type VARCHAR PRIMARY KEY, schema_version SMALLINT, columns JSON NOT NULL, position BIGINT NOT NULL);
"""

# A trigger's body must be a statement that changes another table; it raises before it changes anything.
_GUARD = """
CREATE TRIGGER no_{verb} BEFORE {verb} ON esim.events FOR EACH STATEMENT
INSERT INTO esim.meta SELECT error('the log is append-only: an event is never changed or deleted'), ''
"""

_SETTINGS = {
    "autoinstall_known_extensions": False,  # nothing is fetched from a network
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # a query sees the store, never a variable of the calling code
}
_STEP = 0.05  # seconds between two looks at the helper thread


# --- who holds a file --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a store open: its pid and, where it can be read, its command line."""

    pid: int
    command: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


def holder(path: str | os.PathLike[str]) -> Holder | None:
    """Return who has the store at `path` open, or None; the database itself is not touched."""
    sidecar = _sidecar(_real(path))
    try:
        fd = os.open(sidecar, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _flock(fd, shared=True) else _named(os.read(fd, 32).decode(errors="replace"))
    finally:
        os.close(fd)


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _flock(fd: int, *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _named(pid: str) -> Holder:
    if not pid.isdigit():
        return Holder(0)
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return Holder(int(pid), b" ".join(words).decode(errors="replace").strip()[:200] or None)
    return Holder(int(pid))


def _refuse_second(path: Path, who: Holder | None) -> NoReturn:
    if who is not None and who.pid == os.getpid():
        cause, out = "is open already in this process", "use that store, or close() it first"
    else:
        cause = f"belongs to {who or 'another process'}"
        out = "close the store or the kernel there"
    raise StoreLocked(
        f"the store {path.name!r} {cause}: a file has one owner at a time; {out}, "
        "or read a copy that its owner makes with store.copy_to('copy.duckdb')"
    )


def _take(path: Path) -> int | None:
    """Return the descriptor of the locked sidecar of `path`, None where this system has no flock."""
    if fcntl is None:
        return None
    try:
        fd = os.open(_sidecar(path), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ReadOnlyStore(
            f"{path.parent.name!r} takes no new file ({error.strerror}), and a store needs one beside it for its "
            "lock; copy the store to a folder of your own and open it there"
        ) from None
    if not _flock(fd):
        os.close(fd)
        _refuse_second(path, holder(path))
    if not _is_at(fd, _sidecar(path)):  # its former owner removed it between our open and our lock
        os.close(fd)
        return _take(path)
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def _is_at(fd: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def _release(path: Path, fd: int | None) -> None:
    if fd is not None:
        _sidecar(path).unlink(missing_ok=True)  # before the lock goes, so that nobody locks a file without a name
        os.close(fd)


# --- what a file is ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What `inspect` found: the format and the number of events, or the problem that bars the way."""

    format: int | None = None
    events: int | None = None
    problem: str | None = None


def inspect(path: str | os.PathLike[str]) -> Report:
    """Look into a file that nobody holds, without changing it."""
    real = _real(path)
    who = holder(real)
    if who is not None:
        return Report(problem=f"open in {who}")
    if not real.exists():
        return Report(problem="no such file")
    try:
        return _probe(real)
    except (NotAStore, StoreLocked, ReadOnlyStore) as error:
        return Report(problem=str(error))


def _probe(path: Path) -> Report:
    """Read format and size of a store; format None is a DuckDB file with nothing in it. Raises NotAStore."""
    _look_at_header(path)
    with _translated(path), duckdb.connect(path, read_only=True, config=_SETTINGS) as con:
        tables = {f"{schema}.{name}" for schema, name in con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()}  # fmt: skip
        if not tables:
            return Report()
        if "esim.meta" not in tables:
            some = ", ".join(sorted(tables)[:3])
            raise NotAStore(
                f"{path.name!r} is a DuckDB file of something else (it holds {some}); give the store another path"
            )
        found = first(con, "SELECT value FROM esim.meta WHERE key = 'format'")
        number = int(found[0]) if found else 0
        if number != FORMAT:
            age, way = ("an older", "copy its events with the") if number < FORMAT else ("a newer", "upgrade to the")
            raise NotAStore(
                f"{path.name!r} has esim format {number}, {age} one than {FORMAT} of this version: "
                f"{way} esim that wrote it; nothing was changed"
            )
        return Report(number, (first(con, "SELECT count(*) FROM esim.events") or (0,))[0])


def _look_at_header(path: Path) -> None:
    if path.is_dir():
        raise NotAStore(f"{path.name!r} is a folder; name a file in it, as '{path.name}/shop.duckdb'")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise ReadOnlyStore(f"{path.name!r} cannot be read ({error.strerror}); check who owns it") from None
    if head[8:12] != b"DUCK":
        raise NotAStore(f"{path.name!r} is not a DuckDB file, so not a store; nothing in it was touched")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors on opening into ours."""
    try:
        yield
    except duckdb.Error as error:
        text = str(error).partition("\n")[0]
        if "Could not set lock" in text:
            pid = re.search(r"\(PID (\d+)\)", text)
            _refuse_second(path, _named(pid[1]) if pid else None)
        if "Permission denied" in text or "Read-only file system" in text:
            raise ReadOnlyStore(f"{path.name!r} cannot be written here; copy it to a folder of your own") from None
        raise NotAStore(
            f"{path.name!r} cannot be opened as a store: {text}; restore it from a copy (nothing was changed)"
        ) from None


# --- the connection ----------------------------------------------------------------------------------------


class Connection:
    """A DuckDB database owned by this process.

    `path` is None in memory; `lock` guards `write`, the one connection that changes the log. Raises StoreLocked
    if somebody has the file, NotAStore if it is something else, ReadOnlyStore if the folder takes no writes.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open or make the store file at `path`; None keeps everything in memory."""
        self.closed = True
        self.path = None if path is None else _real(path)
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._fd: int | None = None
        self._cursors: WeakKeyDictionary[threading.Thread, DuckDB] = WeakKeyDictionary()
        self._root = self._open()
        self._write = self._root.cursor()
        self.closed = False
        _alive.add(self)

    def _open(self) -> DuckDB:
        if self.path is None:
            return _prepared(duckdb.connect(":memory:", config=_SETTINGS), fresh=True)
        if not self.path.parent.is_dir():
            raise InvalidArgument(
                f"there is no folder {self.path.parent.name!r} for {self.path.name!r}; make it first"
            )
        if self.path.is_dir():
            _look_at_header(self.path)
        self._fd = _take(self.path)
        try:
            fresh = not self.path.exists() or _probe(self.path).format is None
            with _translated(self.path):
                return _prepared(duckdb.connect(self.path, config=_SETTINGS), fresh=fresh)
        except BaseException:
            _release(self.path, self._fd)
            raise

    @property
    def write(self) -> DuckDB:
        """The connection that changes the log; use it only while holding `lock`."""
        self.check()
        return self._write

    def check(self) -> None:
        """Raise StoreClosed after close(), ForkedStore in a forked child."""
        if self._pid != os.getpid():
            raise ForkedStore(
                f"this store belongs to process {self._pid}, and this is a forked child ({os.getpid()}) whose writes "
                "would vanish; start children with the 'spawn' method and give each its own store or copy"
            )
        if self.closed:
            name = "the store" if self.path is None else f"the store {self.path.name!r}"
            raise StoreClosed(f"{name} has been closed; open it again to go on")

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
        with _branching:
            return self._root.cursor()

    @contextmanager
    def transaction(self) -> Iterator[DuckDB]:
        """Hold `lock` and commit what the block does on the yielded connection, or nothing if anything fails."""
        self.check()
        with self.lock:
            try:
                self._write.execute("BEGIN")
                yield self._write
                # After a failed statement COMMIT drops everything in silence, but any other statement says so.
                self._write.execute("SELECT 1")
                self._write.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):
                    self._write.execute("ROLLBACK")
                raise

    def run(self, cursor: DuckDB, sql: str, params: Parameters = None) -> DuckDB:
        """Execute a statement that may take long; Interrupt stops it and leaves the connection usable."""
        return self.interruptibly(cursor, lambda: cursor.execute(sql, params))

    def interruptibly(self, cursor: DuckDB, work: Callable[[], T]) -> T:
        """Return what `work` gives; on KeyboardInterrupt stop the query that it runs on `cursor`."""
        if threading.current_thread() is not threading.main_thread():
            return work()
        job = _Job(work)
        try:
            job.start()
            while not job.done.wait(_STEP):
                pass
        except BaseException:
            while not job.done.wait(_STEP / 10):  # again and again: an interrupt before the query starts is lost
                cursor.interrupt()
            raise
        return job.result()

    def read_only(
        self, sql: str, params: Parameters = None, views: Mapping[str, str] | None = None
    ) -> Answer:
        """Answer one reading statement that sees `views` (name to SELECT text) before any table.

        Raises SqlRefused if it is anything else than one SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN of a
        SELECT, or if DuckDB cannot answer it.
        """
        cursor = self._fresh()
        try:
            text = _statement(cursor, sql)
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            for name, select in (views or {}).items():
                cursor.execute(f"CREATE TEMP VIEW {quoted(name)} AS {select}")
            return self.interruptibly(cursor, lambda: _answer(cursor, text, params))
        except duckdb.Error as error:
            raise SqlRefused(_told(error, views or {})) from None
        finally:
            cursor.close()

    def copy_to(self, target: str | os.PathLike[str]) -> None:
        """Write the whole store as it stands into a new file. Raises InvalidArgument if `target` exists."""
        real = _real(target)
        if real.exists():
            raise InvalidArgument(f"{real.name!r} exists already, and a copy replaces nothing; choose a new name")
        if not real.parent.is_dir():
            raise InvalidArgument(f"there is no folder {real.parent.name!r} for {real.name!r}; make it first")
        part = real.with_name(real.name + ".part")
        part.unlink(missing_ok=True)
        try:
            with self.lock:
                _copy(self.write, part)
            with duckdb.connect(part, config=_SETTINGS) as made:
                _guard(made)  # COPY FROM DATABASE leaves the triggers behind
            part.rename(real)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Close the database and free its file; closing again does nothing."""
        if self.closed or self._pid != os.getpid():
            return
        self.closed = True
        _alive.discard(self)
        for each in (*self._cursors.values(), self._write, self._root):
            each.close()
        if self.path is not None:
            _release(self.path, self._fd)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _disown(self) -> None:
        """In a forked child: never run DuckDB's destructors, which would write to the parent's file."""
        for each in (*self._cursors.values(), self._write, self._root):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
        if self._fd is not None:
            os.close(self._fd)  # only this copy: the parent's descriptor keeps the lock
            self._fd = None


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


class _Job(threading.Thread):
    """A call in a helper thread, with its result or its error."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._error = error
        finally:
            self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def _prepared(con: DuckDB, *, fresh: bool) -> DuckDB:
    try:
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        if fresh:
            con.execute("BEGIN")
            con.execute(TABLES)
            con.execute("INSERT INTO esim.meta VALUES ('format', ?)", [str(FORMAT)])
            _guard(con)
            con.execute("COMMIT")
    except BaseException:
        con.close()
        raise
    return con


def _copy(con: DuckDB, target: Path) -> None:
    source = (first(con, "SELECT current_catalog()") or ("memory",))[0]
    con.execute(f"ATTACH {literal(str(target))} AS esim_copy")
    try:
        con.execute(f"COPY FROM DATABASE {quoted(source)} TO esim_copy")
    finally:
        con.execute("DETACH esim_copy")


def _guard(con: DuckDB) -> None:
    for verb in ("UPDATE", "DELETE"):
        con.execute(_GUARD.format(verb=verb))


def first(con: DuckDB, sql: str, params: Parameters = None) -> tuple[Any, ...] | None:
    """Return the first row of a short query, read to the end: an unread result would block the connection."""
    rows = con.execute(sql, params).fetchall()
    return rows[0] if rows else None


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal, for the few statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


# --- the user's SQL ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query as an Arrow table, and the DuckDB type of each column."""

    table: pa.Table
    types: tuple[str, ...]


_READS = ("SELECT", "EXPLAIN")
_EXPLAIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN\b", re.IGNORECASE | re.DOTALL)
_OPTIONS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:ANALYZE\b|\([^)]*\))", re.IGNORECASE | re.DOTALL)


def _statement(cursor: DuckDB, sql: str) -> str:
    """Return the one reading statement in `sql`. Raises SqlRefused if there is another, or none."""
    found = cursor.extract_statements(sql)
    if len(found) != 1:
        raise SqlRefused(f"a query is one statement, and here are {len(found)}; send them one by one")
    kind = found[0].type.name
    if kind not in _READS:
        raise SqlRefused(
            f"{'PIVOT without IN' if kind == 'MULTI' else kind} is not a reading statement, and the log is only ever "
            "appended to; write SELECT … (PIVOT … IN (…), DESCRIBE, SHOW, SUMMARIZE and EXPLAIN work too)"
        )
    text = found[0].query.strip().rstrip(";")
    if kind == "EXPLAIN":
        body = explained(text)
        if cursor.extract_statements(body)[0].type.name != "SELECT":
            raise SqlRefused("EXPLAIN takes a SELECT here: EXPLAIN ANALYZE would carry out anything else")
    return text


def explained(text: str) -> str:
    """Return the statement that an EXPLAIN explains, or `text` itself if it is none."""
    head = _EXPLAIN.match(text)
    if head is None:
        return text
    body = text[head.end() :]
    while option := _OPTIONS.match(body):
        if not re.match(r"\s*(?:ANALYZE|\(\s*(?:ANALYZE|FORMAT)\b)", option[0], re.IGNORECASE):
            break
        body = body[option.end() :]
    return body


def _answer(cursor: DuckDB, text: str, params: Parameters) -> Answer:
    body = explained(text)
    if "copy" in body.casefold():
        # DuckDB allows WITH … AS (COPY … TO 'file') at the top of a SELECT, and only there: nest it to refuse it.
        cursor.sql(f"SELECT * FROM ({body}\n)", params=params)
    relation = cursor.sql(text, params=params)
    return Answer(relation.to_arrow_table(), tuple(str(each) for each in relation.types))


def _told(error: duckdb.Error, views: Mapping[str, str]) -> str:
    text = str(error).partition("\n\nLINE")[0]
    if isinstance(error, duckdb.CatalogException) and "does not exist" in text:
        text = f"{text.partition(chr(10))[0]}; this store has {', '.join(sorted(views)) or 'no views'}"
    return f"the query cannot be answered: {text}"


def frame(answer: Answer) -> pd.DataFrame:
    """Return an answer as a dataframe: whole numbers stay whole, Decimals exact, times aware in UTC."""
    import pandas as pd

    columns = [_series(column, kind) for column, kind in zip(answer.table.columns, answer.types, strict=True)]
    made = pd.DataFrame(dict(enumerate(columns)))
    made.columns = pd.Index(answer.table.column_names)
    return made


def _series(column: pa.ChunkedArray, kind: str) -> Any:
    import pandas as pd
    import pyarrow as pa

    if kind in {"HUGEINT", "UHUGEINT"}:
        column = _whole(column)
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_integer(column.type) and column.null_count:
        return pd.Series(column.to_pylist(), dtype="Int64")
    if pa.types.is_nested(column.type):
        return pd.Series(column.to_pylist(maps_as_pydicts="strict"), dtype=object)
    return column.to_pandas()


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    with suppress(pa.ArrowInvalid):
        return column.cast(pa.int64())
    return column
