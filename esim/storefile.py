"""The file of a store: who holds it, whether it is one, how it is made and copied.

DuckDB locks its file with POSIX record locks, which vanish when the owning process merely opens and closes
the file again; so a sidecar `<path>.lock` carries a `flock` of our own and the pid of the holder. A file is
probed read-only before it is opened for writing, so that a foreign, corrupt or older one stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import duckdb

from esim import display
from esim.errors import InvalidArgument, NotAStore, ReadOnlyStore, StoreLocked

try:
    import fcntl
except ImportError:  # Windows: DuckDB's own lock is mandatory there
    fcntl = None  # type: ignore[assignment]

DuckDB: TypeAlias = duckdb.DuckDBPyConnection
Parameters: TypeAlias = "Sequence[Any] | Mapping[str, Any] | None"

FORMAT = 1
"""The number of the file format; a file of another number is not opened."""

TABLES = """
CREATE SCHEMA esim;
CREATE SCHEMA typed;
CREATE SCHEMA read;
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
CREATE TABLE esim.subscriptions(
    name VARCHAR PRIMARY KEY, handler VARCHAR NOT NULL, checkpoint VARCHAR NOT NULL, columns VARCHAR,
    wanted VARCHAR NOT NULL,
    position BIGINT NOT NULL, begun BIGINT NOT NULL, trying BIGINT NOT NULL, part INTEGER NOT NULL,
    attempts INTEGER NOT NULL, gate BIGINT NOT NULL, paused BOOLEAN NOT NULL, told VARCHAR);
CREATE TABLE esim.dead_letters(
    dead_letter_id BIGINT PRIMARY KEY, subscription VARCHAR NOT NULL, sequence_id VARCHAR NOT NULL,
    sequence_index INTEGER NOT NULL, event_id VARCHAR NOT NULL, position BIGINT NOT NULL,
    part INTEGER NOT NULL, whole BOOLEAN NOT NULL, gated BOOLEAN NOT NULL, attempts INTEGER NOT NULL,
    cause_type VARCHAR, cause_message VARCHAR, enqueued_at TIMESTAMP NOT NULL,
    last_touched TIMESTAMP NOT NULL, diagnostics JSON);
CREATE TABLE esim.effects(
    subscription VARCHAR NOT NULL, key VARCHAR NOT NULL, position BIGINT NOT NULL, part INTEGER NOT NULL,
    number INTEGER NOT NULL, name VARCHAR NOT NULL, arguments JSON NOT NULL, status VARCHAR NOT NULL,
    attempts INTEGER NOT NULL, last_touched TIMESTAMP NOT NULL, cause VARCHAR,
    PRIMARY KEY (subscription, key));
CREATE TABLE esim.inbox(
    subscription VARCHAR NOT NULL, key VARCHAR NOT NULL, position BIGINT NOT NULL,
    PRIMARY KEY (subscription, key));
CREATE TABLE esim.event_types(
    type VARCHAR PRIMARY KEY, schema_version SMALLINT, columns JSON NOT NULL, stamp VARCHAR NOT NULL,
    position BIGINT NOT NULL);
"""

# A trigger's body must be a statement that changes another table; it raises before it changes anything.
_GUARD = """
CREATE TRIGGER no_{verb} BEFORE {verb} ON esim.events FOR EACH STATEMENT
INSERT INTO esim.meta SELECT error('the log is append-only: an event is never changed or deleted'), ''
"""

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # nothing is fetched from a network
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # a query sees the store, never a variable of the calling code
}


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
    sidecar = _sidecar(real(path))
    try:
        fd = os.open(sidecar, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _flock(fd, shared=True) else _named(os.read(fd, 32).decode(errors="replace"))
    finally:
        os.close(fd)


def real(path: str | os.PathLike[str]) -> Path:
    """Return the one absolute path behind all spellings and links of `path`."""
    if path == ":memory:":
        raise InvalidArgument("':memory:' would be a file here: EventStore() without a path lives in memory")
    try:
        return Path(os.path.realpath(os.fsdecode(path)))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{path!r} is no path of a file: {error}") from None


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
        command = " ".join(b" ".join(words).decode(errors="replace").split())
        return Holder(int(pid), command[:200] or None)
    return Holder(int(pid))


def refuse_second(path: Path, who: Holder | None, *, is_store: bool = True) -> NoReturn:
    """Raise StoreLocked, which says who has the file and what to do; it may be no store's."""
    if who is not None and who.pid == os.getpid():
        cause, out = "is open already in this process", "use that store, or close() it first"
    else:
        cause = f"belongs to {who or 'another process'}"
        out = "close the store or the kernel there"
    if not is_store:
        raise StoreLocked(
            f"the file {path.name!r} {cause}: a DuckDB file has one owner at a time; close it there, "
            "or read a copy that is made once it is closed"
        )
    raise StoreLocked(
        f"the store {path.name!r} {cause}: a file has one owner at a time; {out}, "
        "or read a copy that its owner makes with store.copy_to('copy.duckdb')"
    )


def take(path: Path) -> int | None:
    """Return the descriptor of the locked sidecar of `path`, None where this system has no flock."""
    if fcntl is None:
        return None
    try:
        fd = os.open(_sidecar(path), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ReadOnlyStore(
            f"{path.parent.name!r} takes no new file ({error.strerror}), and a store needs one beside it "
            "for its lock; copy the store to a folder of your own and open it there"
        ) from None
    if not _flock(fd):
        os.close(fd)
        refuse_second(path, holder(path))
    if not _is_at(fd, _sidecar(path)):  # its former owner removed it between our open and our lock
        os.close(fd)
        return take(path)
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def _is_at(fd: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def release(path: Path, fd: int | None) -> None:
    """Give up the sidecar that `take` locked."""
    if fd is not None:
        _sidecar(path).unlink(
            missing_ok=True
        )  # before the lock goes, so that nobody locks a file without a name
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
    there = real(path)
    who = holder(there)
    if who is not None:
        return Report(problem=f"open in {who}")
    if not there.exists():
        return Report(problem="no such file")
    try:
        return probe(there)
    except (NotAStore, StoreLocked, ReadOnlyStore) as error:
        return Report(problem=str(error))


def probe(path: Path) -> Report:
    """Read format and size of a store; format None is a DuckDB file with nothing in it. Raises NotAStore."""
    look_at_header(path)
    with translated(path), duckdb.connect(path, read_only=True, config=SETTINGS) as con:
        tables = {f"{schema}.{name}" for schema, name in con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()}  # fmt: skip
        if not tables:
            return Report()
        if "esim.meta" not in tables:
            some = ", ".join(sorted(tables)[:3])
            raise NotAStore(
                f"{path.name!r} is a DuckDB file of something else (it holds {some}); "
                "give the store another path"
            )
        found = first(con, "SELECT value FROM esim.meta WHERE key = 'format'")
        number = int(found[0]) if found and found[0].isdecimal() else 0
        if number != FORMAT:
            age, way = (
                ("an older", "copy its events with the") if number < FORMAT else ("a newer", "upgrade to the")
            )
            raise NotAStore(
                f"{path.name!r} has esim format {number}, {age} one than {FORMAT} of this version: "
                f"{way} esim that wrote it; nothing was changed"
            )
        return Report(number, (first(con, "SELECT count(*) FROM esim.events") or (0,))[0])


def must_have_folder(path: Path) -> None:
    """Raise InvalidArgument if there is no folder to put a file at `path`."""
    try:
        path.exists()
    except OSError as error:
        raise InvalidArgument(
            f"{display.cut(path.name, 60)!r} cannot be a file here: {error.strerror}"
        ) from None
    if not path.parent.is_dir():
        raise InvalidArgument(f"there is no folder {path.parent.name!r} for {path.name!r}; make it first")


def look_at_header(path: Path) -> None:
    """Raise NotAStore if the first bytes are not those of a DuckDB file."""
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
def translated(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors on opening into ours."""
    try:
        yield
    except duckdb.Error as error:
        text = str(error).partition("\n")[0]
        is_store = _sidecar(real(path)).exists()  # which a store has beside it while it is open
        if "Could not set lock" in text:
            pid = re.search(r"\(PID (\d+)\)", text)
            refuse_second(path, _named(pid[1]) if pid else None, is_store=is_store)
        if "different configuration" in text:  # this process has it, as a store or by duckdb.connect
            refuse_second(path, Holder(os.getpid()), is_store=is_store)
        if "Permission denied" in text or "Read-only file system" in text:
            raise ReadOnlyStore(
                f"{path.name!r} cannot be written here; copy it to a folder of your own"
            ) from None
        raise NotAStore(
            f"{path.name!r} cannot be opened as a store: {text}; restore it from a copy (nothing was changed)"
        ) from None


# --- making and copying ------------------------------------------------------------------------------------


def prepared(con: DuckDB, *, fresh: bool) -> DuckDB:
    """Return `con` set up for a store; a `fresh` database gets its tables, all or none of them."""
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


def copy(con: DuckDB, target: Path) -> None:
    """Copy the database of `con` into a new file, guards included, without opening the path of the source."""
    source = (first(con, "SELECT current_catalog()") or ("memory",))[0]
    con.execute(f"ATTACH {literal(str(target))} AS esim_copy")
    try:
        con.execute(f"COPY FROM DATABASE {quoted(source)} TO esim_copy")
    finally:
        con.execute("DETACH esim_copy")
    with duckdb.connect(target, config=SETTINGS) as made:
        _guard(made)  # COPY FROM DATABASE leaves triggers behind


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
