"""A DuckDB file with one owner: locks, forks, faults, threads, interrupts, and users' SQL that only reads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from esim.connection import Connection, frame
from esim.errors import (
    ForkedStore,
    InvalidArgument,
    NotAStore,
    NotWritten,
    ReadOnlyStore,
    SqlRefused,
    StoreClosed,
    StoreLocked,
)
from esim.storefile import Holder, Report, holder, inspect

EVENT = (
    "INSERT INTO esim.events(position, category, stream, version, type, schema_version, event_id, "
    "recorded_at, data) VALUES ($1, 'Order', 'Order/' || $1, 1, 'Placed', 1, uuid(), "
    "TIMESTAMP '2026-01-05 09:00:00', '{}')"
)
_HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # also under nohup
VIEWS = {"events": "SELECT * FROM esim.events", 'Order"Paid': "SELECT 7 AS n, 2.50::DECIMAL(18,2) AS amount"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may lie."""
    return tmp_path / "shop.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Connection]:
    """A file store with one event."""
    connection = Connection(path)
    connection.write.execute(EVENT, [1])
    yield connection
    connection.close()


@pytest.fixture
def child() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start Python programs that are stopped at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"{_HEARS}from esim.connection import *\nimport os, sys\n{code}"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def count(connection: Connection) -> int:
    """Return how many events a connection sees."""
    rows: list[tuple[int]] = connection.cursor().execute("SELECT count(*) FROM esim.events").fetchall()
    return rows[0][0]


def names_in(folder: Path) -> list[str]:
    """Return the names of a folder's files, sorted."""
    return sorted(each.name for each in folder.iterdir())


def remade(source: Path, target: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Write a changed copy of a file and return its bytes."""
    target.write_bytes(change(source.read_bytes()))
    return target.read_bytes()


# --- one owner ---------------------------------------------------------------------------------------------


def test_events_outlive_their_connection(store: Connection, path: Path) -> None:
    """What was written is there after closing and opening again."""
    store.close()
    again = Connection(path)
    assert count(again) == 1
    again.close()


def test_closing_leaves_the_database_and_nothing_else(store: Connection, path: Path) -> None:
    """The sidecar and the write-ahead log go when a store is closed."""
    store.close()
    assert names_in(path.parent) == [path.name]


def test_a_second_opener_in_this_process_is_told_so(store: Connection, path: Path) -> None:
    """Opening a file twice in one process is refused, by any spelling of its path."""
    with pytest.raises(StoreLocked, match="open already in this process"):
        Connection(path.parent / "." / path.name)
    assert count(store) == 1


def test_a_link_to_an_open_store_is_the_same_store(store: Connection, path: Path) -> None:
    """A symbolic link does not get around the lock."""
    link = path.parent / "link.duckdb"
    link.symlink_to(path)
    with pytest.raises(StoreLocked):
        Connection(link)


def test_another_process_is_named_with_its_pid_and_command(
    path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """The message says who holds the file and what to do."""
    other = child(f"c = Connection({str(path)!r}); print('open', flush=True); input()")
    assert other.stdout
    assert other.stdout.readline() == "open\n"
    with pytest.raises(StoreLocked, match=rf"process {other.pid} \(.*python.*copy_to"):
        Connection(path)
    found = holder(path)
    assert found is not None
    assert found.pid == other.pid


def test_a_killed_owner_leaves_its_file_free_and_whole(
    path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """After a SIGKILL the sidecar is a mere file, and every committed event is there."""
    other = child(
        f"c = Connection({str(path)!r}); c.write.execute({EVENT!r}, [1]); print('done', flush=True); input()"
    )
    assert other.stdout
    assert other.stdout.readline() == "done\n"
    other.kill()
    other.wait()
    assert holder(path) is None
    mine = Connection(path)
    assert count(mine) == 1
    mine.close()


def test_a_bare_duckdb_connection_elsewhere_is_translated(
    store: Connection, path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """DuckDB's own lock error becomes StoreLocked, with the pid that it tells."""
    store.close()
    other = child(f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()")
    assert other.stdout
    assert other.stdout.readline() == "open\n"
    with pytest.raises(StoreLocked, match=f"process {other.pid}"):
        Connection(path)
    assert holder(path) is None


def test_the_lock_holds_although_this_process_reads_the_file(
    store: Connection, path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """Copying the open file releases DuckDB's lock (POSIX), and ours still bars a second process."""
    shutil.copy(path, path.parent / "copy")
    other = child(f"Connection({str(path)!r})")
    _, errors = other.communicate(timeout=30)
    assert f"StoreLocked: the store 'shop.duckdb' belongs to process {os.getpid()}" in errors
    assert count(store) == 1


def test_a_holder_reads_well() -> None:
    """A holder shows its pid and command."""
    assert (str(Holder(7)), str(Holder(7, "python"))) == ("process 7", "process 7 (python)")


# --- what is not a store -----------------------------------------------------------------------------------


def test_a_text_file_is_not_a_store(path: Path) -> None:
    """A file of something else is named and left as it is, and no sidecar stays."""
    path.write_text("customer,total\n")
    with pytest.raises(NotAStore, match="not a DuckDB file"):
        Connection(path)
    assert path.read_text() == "customer,total\n"
    assert names_in(path.parent) == [path.name]


def test_an_empty_file_is_not_a_store(path: Path) -> None:
    """An empty file may be anything, so it is not overwritten."""
    path.touch()
    with pytest.raises(NotAStore):
        Connection(path)
    assert path.stat().st_size == 0


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    """A folder's message suggests a file in it."""
    with pytest.raises(NotAStore, match="is a folder; name a file in it"):
        Connection(tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """Nothing is made where there is no folder."""
    with pytest.raises(InvalidArgument, match="no folder 'nowhere'"):
        Connection(tmp_path / "nowhere" / "shop.duckdb")


def test_a_foreign_duckdb_file_stays_untouched(path: Path) -> None:
    """A DuckDB file without the meta table belongs to somebody else."""
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE invoices AS SELECT 1 AS n")
    before = path.read_bytes()
    with pytest.raises(NotAStore, match=r"something else \(it holds main.invoices\)"):
        Connection(path)
    assert path.read_bytes() == before


def test_a_duckdb_file_with_nothing_in_it_becomes_a_store(path: Path) -> None:
    """A process killed while it made its store leaves such a file."""
    duckdb.connect(path).close()
    made = Connection(path)
    assert count(made) == 0
    made.close()


@pytest.mark.parametrize(("number", "age"), [(0, "an older one"), (2, "a newer one")])
def test_another_format_is_named_and_untouched(path: Path, number: int, age: str) -> None:
    """A file of an older or newer format is not opened."""
    Connection(path).close()
    with duckdb.connect(path) as con:
        con.execute("UPDATE esim.meta SET value = ?", [str(number)])
    before = path.read_bytes()
    with pytest.raises(NotAStore, match=f"has esim format {number}, {age}"):
        Connection(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:20_000],
        lambda raw: raw[:5000] + b"x" * 100 + raw[5100:],
        lambda raw: raw[:12] + b"\xff" * 8,
    ],
    ids=["cut", "scribbled", "header only"],
)
def test_a_corrupt_file_is_told_and_untouched(
    store: Connection, path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A damaged store raises NotAStore with the way out, and not a byte changes."""
    store.close()
    broken = path.parent / "broken.duckdb"
    before = remade(path, broken, damage)
    with pytest.raises(NotAStore, match="restore it from a copy"):
        Connection(broken)
    assert broken.read_bytes() == before


NOBODY = "os.setgid(65534); os.setuid(65534)"  # root may write anywhere, so the child becomes nobody


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("make", ["existing", ""])
def test_a_read_only_folder_is_told(
    make: str, tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """Where no lock can be made, ReadOnlyStore says so."""
    place = Path(f"/tmp/esim-{os.getpid()}-{tmp_path.name}")  # noqa: S108 - pytest's own shut others out
    place.mkdir(mode=0o755)
    try:
        if make:
            Connection(place / "shop.duckdb").close()
        other = child(f"{NOBODY}; Connection({str(place / 'shop.duckdb')!r})")
        _, errors = other.communicate(timeout=30)
        assert "ReadOnlyStore" in errors
        assert "takes no new file (Permission denied)" in errors
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
def test_a_read_only_file_is_told(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    """A store of somebody else in a shared folder raises ReadOnlyStore."""
    place = Path(f"/tmp/esim-{os.getpid()}-{tmp_path.name}")  # noqa: S108 - pytest's own shut others out
    place.mkdir()
    place.chmod(0o777)
    try:
        Connection(place / "shop.duckdb").close()
        other = child(f"{NOBODY}; Connection({str(place / 'shop.duckdb')!r})")
        _, errors = other.communicate(timeout=30)
        assert "ReadOnlyStore: 'shop.duckdb' cannot be written here" in errors
    finally:
        shutil.rmtree(place)


def test_inspect_tells_format_and_size(store: Connection, path: Path) -> None:
    """A free store shows its format and number of events; a held one its holder."""
    assert (inspect(path).problem or "").startswith(f"open in process {os.getpid()}")
    store.close()
    assert inspect(path) == Report(1, 1)


def test_inspect_tells_what_is_wrong(path: Path) -> None:
    """A missing or foreign file is a problem, not an exception."""
    assert inspect(path).problem == "no such file"
    path.write_bytes(b"PAR1")
    assert "not a DuckDB file" in (inspect(path).problem or "")


# --- forks, close, threads ---------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a real forked child that exits as Python does, and return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_cannot_use_the_store(store: Connection) -> None:
    """Each way in raises ForkedStore in a child, and the parent goes on."""

    def use() -> None:
        for way in (store.cursor, lambda: store.write, lambda: store.read_only("SELECT 1"), store.check):
            with pytest.raises(ForkedStore, match="forked child"):
                way()
        store.close()

    assert forked(use) == 0
    store.write.execute(EVENT, [2])
    assert count(store) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_childs_exit_harms_neither_lock_nor_file(
    path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """A child that ends by sys.exit runs atexit and destructors; the parent still owns a whole file."""
    parent = child(
        f"c = Connection({str(path)!r}); c.write.execute({EVENT!r}, [1]); c.read_only('SELECT 1')\n"
        "pid = os.fork()\nif pid == 0: sys.exit(0)\n"
        "print(os.waitpid(pid, 0)[1], flush=True); input()\n"
        f"c.write.execute({EVENT!r}, [2])"
    )
    assert parent.stdout
    assert parent.stdout.readline() == "0\n"
    with pytest.raises(StoreLocked, match=f"process {parent.pid}"):
        Connection(path)
    parent.communicate("\n", timeout=30)
    assert inspect(path) == Report(1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(
    path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """A forked child gives its copy of the lock back at once."""
    parent = child(
        f"c = Connection({str(path)!r})\nif os.fork() == 0:\n"
        "    print('alive', flush=True); sys.stdin.read(); os._exit(0)\ninput(); os.kill(os.getpid(), 9)"
    )
    assert parent.stdout
    assert parent.stdin
    assert parent.stdout.readline() == "alive\n"
    parent.kill()
    parent.wait()
    mine = Connection(path)
    assert count(mine) == 0
    mine.close()


def test_a_closed_store_says_so(store: Connection) -> None:
    """Use after close raises StoreClosed; closing again does nothing."""
    store.close()
    store.close()
    for way in (store.cursor, store.check, lambda: store.read_only("SELECT 1")):
        with pytest.raises(StoreClosed, match=r"'shop.duckdb' has been closed; open it again"):
            way()


def test_a_forgotten_store_frees_its_file(path: Path) -> None:
    """A connection that nobody refers to any more closes itself."""
    Connection(path)
    Connection(path).close()


def test_a_store_left_open_is_closed_at_exit(path: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    """The end of the interpreter closes what is still open, even what a cycle keeps."""
    other = child(f"c = Connection({str(path)!r}); c.me = c; c.write.execute({EVENT!r}, [1])")
    _, errors = other.communicate(timeout=30)
    assert (other.returncode, errors) == (0, "")
    assert names_in(path.parent) == [path.name]


def test_a_failed_construction_is_collected_quietly(
    tmp_path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """`__del__` of a half-made connection raises nothing."""
    other = child(f"try: Connection({str(tmp_path)!r})\nexcept Exception as e: print(type(e).__name__)")
    assert other.communicate(timeout=30) == ("NotAStore\n", "")


def test_each_thread_reads_through_its_own_cursor(store: Connection) -> None:
    """One thread keeps its cursor; another gets another."""
    others: list[object] = []
    thread = threading.Thread(target=lambda: others.append(store.cursor()))
    thread.start()
    thread.join()
    assert store.cursor() is store.cursor()
    assert others[0] is not store.cursor()


def test_many_threads_write_and_read(store: Connection) -> None:
    """Writers take turns under the lock while readers read; nothing is lost."""

    def work(first: int) -> None:
        for position in range(first, first + 20):
            with store.transaction() as write:
                write.execute(EVENT, [position])
            assert count(store) > 0

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store) == 1 + 8 * 20


# --- transactions ------------------------------------------------------------------------------------------


def test_a_transaction_commits(store: Connection) -> None:
    """What the block wrote is seen by others after it."""
    with store.transaction() as write:
        write.execute(EVENT, [2])
        assert count(store) == 1
    assert count(store) == 2


def test_a_swallowed_failure_still_fails_the_transaction(store: Connection) -> None:
    """DuckDB's COMMIT after a failed statement says nothing and keeps nothing; ours raises."""

    def swallow() -> None:
        with store.transaction() as write:
            write.execute(EVENT, [2])
            with pytest.raises(duckdb.ConstraintException):
                write.execute(EVENT, [1])

    with pytest.raises(duckdb.TransactionException):
        swallow()
    assert count(store) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_any_exception_rolls_back(store: Connection, error: type[BaseException]) -> None:
    """Interrupt and exit included, the block leaves nothing, and the next one works."""

    def fail() -> None:
        with store.transaction() as write:
            write.execute(EVENT, [2])
            raise error

    with pytest.raises(error):
        fail()
    with store.transaction() as write:
        write.execute(EVENT, [3])
    assert count(store) == 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE esim.events SET data = '{}'", "DELETE FROM esim.events", "TRUNCATE esim.events",
        "UPDATE esim.events SET data = '{}' WHERE position = 99",
    ],
)  # fmt: skip
def test_the_database_itself_keeps_the_log_append_only(store: Connection, change: str) -> None:
    """Even the writing connection cannot change or delete an event."""
    with pytest.raises(duckdb.Error, match="append-only"):
        store.write.execute(change)
    assert count(store) == 1


def test_a_version_is_taken_once(store: Connection) -> None:
    """Stream and version are unique in the database."""
    with pytest.raises(duckdb.ConstraintException):
        store.write.execute(EVENT, [1])


# --- interrupts --------------------------------------------------------------------------------------------

LONG = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"
CALLS = {
    "run": f"c.run(c.cursor(), {LONG!r})",
    "read_only": f"c.read_only({LONG!r})",
    "write": f"c.run(c.write, {LONG!r})",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_interrupt_stops_a_long_query_and_the_store_goes_on(
    call: str, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """A real SIGINT ends a query of hours at once; the connection is usable afterwards."""
    other = child(
        "import threading\nc = Connection()\n"
        "threading.Timer(0.3, lambda: print('running', flush=True)).start()\n"
        f"try: {call}\nexcept KeyboardInterrupt: print('stopped', c.run(c.cursor(), 'SELECT 42').fetchall(),"
        " c.run(c.write, 'SELECT 43').fetchall(), flush=True)"
    )
    assert other.stdout
    assert other.stdout.readline() == "running\n"
    sent = time.monotonic()
    other.send_signal(signal.SIGINT)
    out, errors = other.communicate(timeout=30)
    assert (out, errors) == ("stopped [(42,)] [(43,)]\n", "")
    assert time.monotonic() - sent < 10


def test_an_interrupted_transaction_leaves_nothing(
    path: Path, child: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGINT in a long statement of a transaction rolls it back whole."""
    other = child(
        f"import threading\nc = Connection({str(path)!r})\n"
        "threading.Timer(0.3, lambda: print('running', flush=True)).start()\n"
        f"with c.transaction() as w:\n    w.execute({EVENT!r}, [1])\n    c.run(w, {LONG!r})"
    )
    assert other.stdout
    assert other.stdout.readline() == "running\n"
    other.send_signal(signal.SIGINT)
    _, errors = other.communicate(timeout=30)
    assert errors.endswith("KeyboardInterrupt\n")
    assert inspect(path) == Report(1, 0)


def test_an_error_in_the_helper_thread_arrives(store: Connection) -> None:
    """A failing statement raises in the caller as if it had run there."""
    with pytest.raises(duckdb.CatalogException):
        store.run(store.cursor(), "SELECT * FROM nowhere")


# --- users' SQL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM events", "FROM events", "WITH e AS (FROM events) SELECT * FROM e;",
        "DESCRIBE events",
        "SHOW TABLES", "SUMMARIZE events", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "VALUES (1)",
        "EXPLAIN (FORMAT json) SELECT 1", "-- a remark\nSELECT 1 -- and another",
        "SELECT copy FROM (SELECT 1 AS copy)",
        "EXPLAIN /* why */ (SELECT 1)", "FROM events PIVOT (count(*) FOR type IN ('Placed'))",
    ],
)  # fmt: skip
def test_reading_statements_are_answered(store: Connection, query: str) -> None:
    """Each kind of single reading statement gives rows."""
    assert store.read_only(query, None, VIEWS).table.num_rows >= 1


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM esim.events", "INSERT INTO esim.tags VALUES ('a', 1)",
        "UPDATE esim.meta SET value = '9'",
        "DROP TABLE esim.tags", "CREATE TABLE mine(n INT)", "CREATE TEMP TABLE mine(n INT)", "COMMIT",
        "CHECKPOINT",
        "BEGIN; DELETE FROM esim.tags; COMMIT", "SELECT 1; DROP TABLE esim.tags", "SET threads = 1",
        "USE typed",
        "PRAGMA database_list", "ATTACH 'other.db'", "INSTALL json", "LOAD json", "VACUUM",
        "CALL pragma_version()",
        "COPY esim.events TO 'out.csv'", "EXPORT DATABASE 'out'", "", "-- nothing", "SELEC 1",
        "PREPARE p AS SELECT 1",
        "EXPLAIN ANALYZE INSERT INTO esim.tags VALUES ('a', 1)",
        "EXPLAIN ANALYZE COPY esim.tags TO 'out.csv'",
        "EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) COPY esim.tags TO 'out.csv'",
        "WITH t AS (COPY esim.events TO 'out.csv') FROM t",
        "EXPLAIN ANALYZE WITH t AS (COPY esim.tags TO 'out.csv') FROM t",
        "WITH t AS (INSERT INTO esim.tags VALUES ('a', 1) RETURNING *) FROM t", "PIVOT events ON type",
        "SELECT * FROM query('WITH t AS (COPY esim.tags TO ''out.csv'') FROM t')",
        "MERGE INTO esim.tags USING (SELECT 1) ON false WHEN NOT MATCHED THEN INSERT VALUES ('a', 1)",
    ],
)  # fmt: skip
def test_everything_else_is_refused(
    store: Connection, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that is no reading raises SqlRefused; the database and the folder stay as they were."""
    monkeypatch.chdir(tmp_path)
    before = names_in(tmp_path)
    with pytest.raises(SqlRefused):
        store.read_only(query, None, VIEWS)
    assert names_in(tmp_path) == before
    tables = "SELECT (SELECT count(*) FROM esim.tags), (SELECT value FROM esim.meta), current_schema()"
    assert store.cursor().execute(tables).fetchall() == [(0, "1", "main")]


def test_views_win_over_tables_of_the_same_name(store: Connection) -> None:
    """A query that names a view gets the view, though a table of that name exists."""
    store.write.execute("CREATE TABLE main.events AS SELECT 'table' AS what")
    assert frame(store.read_only("SELECT position FROM events", None, VIEWS))["position"].tolist() == [1]


def test_any_name_can_be_a_view(store: Connection) -> None:
    """Names are quoted, and looked up whatever their case."""
    assert frame(store.read_only('FROM "order""PAID"', None, VIEWS))["n"].tolist() == [7]


def test_views_last_for_one_query(store: Connection) -> None:
    """The next query, or another thread's, does not see them."""
    store.read_only("FROM events", None, VIEWS)
    with pytest.raises(SqlRefused, match="no views"):
        store.read_only("FROM events")


def test_an_unknown_table_lists_the_views(store: Connection) -> None:
    """The message names what there is."""
    with pytest.raises(SqlRefused, match=r'OrderPiad does not exist.*this store has Order"Paid, events'):
        store.read_only("FROM OrderPiad", None, VIEWS)


def test_an_unknown_column_keeps_duckdbs_words(store: Connection) -> None:
    """DuckDB's message comes through without its picture of the line."""
    with pytest.raises(SqlRefused, match='Referenced column "totl" not found') as caught:
        store.read_only("SELECT totl FROM events", None, VIEWS)
    assert "LINE 1" not in str(caught.value)


def test_python_variables_are_not_tables(store: Connection) -> None:
    """A dataframe of the calling code is not reached by its name."""
    orders = pd.DataFrame({"n": [1]})
    with pytest.raises(SqlRefused, match="orders does not exist"):
        store.read_only("FROM orders")
    assert len(orders) == 1


@pytest.mark.parametrize(
    ("query", "params"), [("SELECT ? AS x", ["'; DROP"]), ("SELECT $x AS x", {"x": "'; DROP"})]
)
def test_parameters_are_bound(store: Connection, query: str, params: list[str] | dict[str, str]) -> None:
    """Positional and named parameters are values, never SQL."""
    assert store.read_only(query, params).table.to_pylist() == [{"x": "'; DROP"}]


def test_missing_parameters_are_told(store: Connection) -> None:
    """A query with too few or too many values is refused with DuckDB's reason."""
    with pytest.raises(SqlRefused, match="parameters"):
        store.read_only("SELECT ?")
    with pytest.raises(SqlRefused, match="excess"):
        store.read_only("SELECT ?", [1, 2])


def test_a_query_during_a_transaction_sees_what_is_committed(store: Connection) -> None:
    """Reading neither waits for the writer nor sees its unfinished work."""
    with store.transaction() as write:
        write.execute(EVENT, [2])
        assert frame(store.read_only("SELECT count(*) AS n FROM events", None, VIEWS))["n"].tolist() == [1]


# --- dataframes --------------------------------------------------------------------------------------------


def test_whole_numbers_stay_whole(store: Connection) -> None:
    """A sum of integers (HUGEINT) is int64, and one too large for that is exact."""
    found = frame(
        store.read_only("SELECT sum(range) AS n, sum(range) * 10000000000000000000 AS huge FROM range(5)")
    )
    assert (str(found["n"].dtype), int(found["huge"][0])) == ("int64", 100000000000000000000)


def test_integers_beside_nulls_are_exact(store: Connection) -> None:
    """A null does not turn integers into floats."""
    found = frame(store.read_only("SELECT unnest([9007199254740993, NULL]) AS n"))
    assert (str(found["n"].dtype), found["n"][0]) == ("Int64", 9007199254740993)


def test_decimals_are_exact(store: Connection) -> None:
    """Money comes out as Decimal."""
    found = frame(store.read_only("SELECT 30.00::DECIMAL(18,2) AS total"))
    assert found["total"].tolist() == [Decimal("30.00")]
    assert str(found["total"][0]) == "30.00"


def test_times_are_aware_utc(store: Connection) -> None:
    """A TIMESTAMPTZ is UTC, whatever offset was written, without a further package."""
    found = frame(store.read_only("SELECT TIMESTAMPTZ '2026-01-05 10:00:00+01' AS at"))
    assert (str(found["at"].dtype), found["at"][0].isoformat()) == (
        "datetime64[us, UTC]",
        "2026-01-05T09:00:00+00:00",
    )


def test_intervals_are_timedeltas(store: Connection) -> None:
    """How long it took can be summed and compared; a span of months, which has no length, stays an offset."""
    found = frame(
        store.read_only(
            "SELECT * FROM (VALUES (INTERVAL 36 HOUR, INTERVAL 1 MONTH), (INTERVAL '-1.5 seconds', NULL), "
            "(NULL, NULL)) t(span, months)"
        )
    )
    assert found["span"].dtype == "timedelta64[us]"
    assert found["span"].tolist()[:2] == [pd.Timedelta(hours=36), pd.Timedelta(seconds=-1.5)]
    assert found["span"].isna().tolist() == [False, False, True]
    assert found["months"][0] == pd.DateOffset(months=1, days=0, nanoseconds=0)


def test_nested_values_are_plain_python(store: Connection) -> None:
    """Lists, structs and maps become lists and dicts."""
    found = frame(store.read_only("SELECT [{'sku': 'a', 'price': 1.50}] AS lines, MAP {'k': 1} AS m"))
    assert found.iloc[0].tolist() == [[{"sku": "a", "price": Decimal("1.50")}], {"k": 1}]


def test_columns_may_share_a_name(store: Connection) -> None:
    """Two columns of one name are both there."""
    found = frame(store.read_only("SELECT 1 AS n, 2 AS n"))
    assert (list(found.columns), found.iloc[0].tolist()) == (["n", "n"], [1, 2])


# --- copies ------------------------------------------------------------------------------------------------


def test_a_copy_is_a_store_of_its_own(store: Connection, tmp_path: Path) -> None:
    """A copy opens beside its source, holds the same, has the same guards, and goes its own way."""
    store.copy_to(tmp_path / "it's a copy.duckdb")
    other = Connection(tmp_path / "it's a copy.duckdb")
    other.write.execute(EVENT, [2])
    with pytest.raises(duckdb.Error, match="append-only"):
        other.write.execute("DELETE FROM esim.events")
    with pytest.raises(duckdb.ConstraintException):
        other.write.execute(EVENT, [2])
    assert (count(store), count(other)) == (1, 2)
    other.close()


def test_a_store_in_memory_can_be_saved(tmp_path: Path) -> None:
    """copy_to writes a store in memory to a file."""
    memory = Connection()
    memory.write.execute(EVENT, [1])
    memory.copy_to(tmp_path / "saved.duckdb")
    memory.close()
    assert inspect(tmp_path / "saved.duckdb") == Report(1, 1)


def test_a_copy_replaces_nothing(store: Connection, path: Path) -> None:
    """An existing target is refused, the store itself included."""
    with pytest.raises(InvalidArgument, match="exists already"):
        store.copy_to(path)
    assert names_in(path.parent) == ["shop.duckdb", "shop.duckdb.lock", "shop.duckdb.wal"]


def test_a_failed_copy_leaves_no_file(store: Connection, tmp_path: Path) -> None:
    """Copying within a transaction that has written fails, and its unfinished file goes."""

    def copy() -> None:
        with store.transaction() as write:
            write.execute(EVENT, [2])
            store.copy_to(tmp_path / "copy.duckdb")

    with pytest.raises(duckdb.Error):
        copy()
    assert not [name for name in names_in(tmp_path) if name.startswith("copy")]
    assert count(store) == 1


# --- paths and damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, "a\0b", "x" * 300 + ".duckdb"])
def test_what_is_no_path_of_a_file_is_named(tmp_path: Path, wrong: object) -> None:
    """A number, a NUL, a name that is too long."""
    with pytest.raises(InvalidArgument, match=r"is no path of a file|cannot be a file here"):
        Connection(tmp_path / wrong if isinstance(wrong, str) else wrong)  # type: ignore[arg-type]


def test_a_path_may_be_bytes(path: Path) -> None:
    """As for all of Python's own functions."""
    Connection(os.fsencode(path)).close()  # type: ignore[arg-type]
    assert path.exists()


def test_a_cell_that_removes_the_file_and_opens_it_again_hears_why_not(path: Path) -> None:
    """The former store is still open here, and would write to a file without a name."""
    first = Connection(path)
    for left in path.parent.iterdir():
        left.unlink()
    with pytest.raises(StoreLocked, match=r"is open already in this process.*close\(\) it first"):
        Connection(path)
    first.close()
    Connection(path).close()


def test_a_file_whose_format_is_no_number_is_told(path: Path) -> None:
    """It is no store that this version knows."""
    Connection(path).close()
    with duckdb.connect(path) as con:
        con.execute("UPDATE esim.meta SET value = 'abc' WHERE key = 'format'")
    with pytest.raises(NotAStore, match="has esim format 0"):
        Connection(path)


def test_a_damaged_block_is_told_as_damage(path: Path) -> None:
    """A read that meets it names the file and the way out; the other tables are as they were."""
    made = Connection(path)
    made.write.execute("INSERT INTO esim.tags SELECT 'tag' || hash(range), range FROM range(200000)")
    made.close()
    whole = path.read_bytes()
    block = 262144
    damaged = 0
    for at in range(3 * 4096 + 1000, len(whole), block):
        path.write_bytes(
            whole[:at] + bytes(64 - byte % 64 for byte in whole[at : at + 64]) + whole[at + 64 :]
        )
        try:
            store = Connection(path)
        except NotAStore:
            damaged += 1
            continue
        try:
            store.fetch("SELECT max(tag), max(position) FROM esim.tags")
        except NotAStore as error:
            assert "'shop.duckdb' is damaged" in str(error)  # noqa: PT017 - it may or may not strike
            damaged += 1
        finally:
            store.close()
    assert damaged


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_takes_nothing_is_told() -> None:
    """Opening and copying name the cause."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        closed, full = Path(folder) / "closed", Path(folder) / "full"
        closed.mkdir(mode=0o700)
        full.mkdir(mode=0o555)
        _refused_to_nobody(closed, full)


def _refused_to_nobody(closed: Path, full: Path) -> None:
    def use() -> None:
        os.seteuid(65534)
        for wrong in (closed / "shop.duckdb", full / "shop.duckdb"):
            with pytest.raises((ReadOnlyStore, InvalidArgument)):
                Connection(wrong)
        with pytest.raises(NotWritten, match="could not be written"):
            Connection().copy_to(full / "copy.duckdb")

    assert forked(use) == 0
