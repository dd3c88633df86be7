"""What only the DuckDB store does: shared commits, heads in memory, copies, and faults of the database.

What every store promises is in `test_contract.py`; killed processes are in `test_store_faults.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import duckdb
import pandas as pd
import pytest

from esim import store as module
from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.envelope import NewEvent, metadata
from esim.errors import Conflict, ForkedStore, InvalidArgument, NotWritten
from esim.event import Event, Tag
from esim.projection import Key, Projection, Row, Rows, on
from esim.store import EventStore, _Ticket
from esim.writing import Write, prepare

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
BULK = 250  # more than go through the appender


class Noted(Event):
    text: str
    owner: Annotated[str | None, Tag()] = None


class Text(Row):
    text: Key[str]


class Texts(Projection[Text]):
    @on(Noted)
    def noted(self, event: Noted, rows: Rows[Text]) -> None:
        rows.put(Text(text=event.text))


def noted(text: str, count: int = 1, owner: str | None = None) -> list[Noted]:
    return [Noted(text=text, owner=owner)] * count


@pytest.fixture
def store() -> Iterator[EventStore]:
    with EventStore(clock=ManualClock(START, step=timedelta(seconds=1)), ids=SeededIds(1)) as made:
        yield made


def texts(store: Store, stream: str | None = None) -> list[str]:
    return [one.data["text"] for one in store.read(stream)]


def sound(store: EventStore) -> None:
    """Assert that the log is dense and that what the store keeps in memory is what the log says."""
    events = list(store.read())
    assert [one.position for one in events] == list(range(1, store.position + 1))
    for stream in store.streams():
        versions = [one.version for one in events if one.stream == stream]
        assert versions == list(range(1, store.version(stream) + 1))


# --- commits that threads share ----------------------------------------------------------------------------


def waiting(store: EventStore, *appends: Callable[[], Any]) -> list[Any]:
    """Start appends in threads while the writer lock is held; let go; return what each gave or raised."""
    results: list[Any] = [None] * len(appends)

    def work(number: int, append: Callable[[], Any]) -> None:
        try:
            results[number] = append()
        except Exception as error:  # noqa: BLE001 - it is the result
            results[number] = error

    threads = []
    with store._db.lock:
        for number, append in enumerate(appends):
            threads.append(threading.Thread(target=work, args=(number, append)))
            threads[-1].start()
            while len(store._waiting) <= number:
                pass
    for thread in threads:
        thread.join()
    return results


def test_threads_that_wait_together_share_one_commit(store: EventStore, monkeypatch: pytest.MonkeyPatch):
    """Eight appends behind one lock are one statement, in the order in which they came."""
    sizes: list[int] = []
    write = store._write
    monkeypatch.setattr(store, "_write", lambda rows: (sizes.append(len(rows)), write(rows)))
    waiting(store, *(lambda n=n: store.append(f"Note/{n % 2}", noted(str(n))) for n in range(8)))
    assert sizes == [8]
    assert texts(store) == [str(n) for n in range(8)]
    sound(store)


def test_of_a_shared_commit_only_the_wrong_append_fails(store: EventStore):
    """A wrong expected version is the fault of one thread; versions count without it."""
    before, wrong, after = waiting(
        store,
        lambda: store.append("Note/a", noted("1"), expected=0),
        lambda: store.append("Note/a", noted("2", 3), expected=0),
        lambda: store.append("Note/a", noted("3"), expected=1),
    )
    assert isinstance(wrong, Conflict)
    assert wrong.actual == 1
    assert [one.version for one in (*before, *after)] == [1, 2]
    assert texts(store) == ["1", "3"]
    sound(store)


def test_an_append_that_looks_into_the_log_sees_those_before_it(store: EventStore):
    """A repetition that waits behind the first time is recognised, not recorded twice."""
    [key] = SeededIds(5)(START, 1)
    once = NewEvent(Noted(text="once"), event_id=key)
    first, again = waiting(store, lambda: store.append("Note/a", once), lambda: store.append("Note/a", once))
    assert list(first) == list(again)
    assert store.position == 1


@pytest.mark.parametrize("count", [1, BULK])
@pytest.mark.parametrize("owner", [None, "ann"])
def test_when_the_database_fails_every_thread_of_the_commit_is_told(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, count: int, owner: str | None
):
    """A failed commit keeps nothing of it, says so to each of them, and the store goes on."""
    store.append("Note/a", noted("kept"))
    insert = store._insert

    def fail(rows: Any) -> None:
        if owner:  # then it is a transaction, of which something is done already
            insert(rows)
        store._db.write.execute("SELECT error('the disk is full')")

    with monkeypatch.context() as broken:
        broken.setattr(
            store, "_insert", lambda _: store._db.write.execute("SELECT error('the disk is full')")
        )
        if owner:  # then it is a transaction, of which something is done already
            broken.setattr(store, "_insert", fail)
        results = waiting(
            store,
            lambda: store.append("Note/a", noted("lost", count, owner), expected=1),
            lambda: store.append("Note/b", noted("lost", count, owner)),
        )
    for told in results:
        with pytest.raises(NotWritten, match="the disk is full; nothing of it was kept") as caught:
            raise told
        assert isinstance(caught.value.__cause__, duckdb.Error)
    assert (store.version("Note/a"), store.version("Note/b"), store.position) == (1, 0, 1)
    store.append("Note/a", noted("next", count, owner), expected=1)
    assert texts(store) == ["kept", *["next"] * count]
    sound(store)


def _interrupted_at(line: int, work: Callable[[], Any]) -> bool:
    """Run `work` with a KeyboardInterrupt before the n-th line of the store's module; say whether it came."""
    left = line

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != module.__file__:
            return None
        if what == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(former)
    return left <= 0


@pytest.mark.parametrize("owner", [None, "ann"])
def test_an_interrupt_at_any_line_leaves_the_store_right(store: EventStore, owner: str | None):
    """Wherever Ctrl-C strikes, no other thread takes its append for recorded when it is not."""
    line = 0
    struck = True
    while struck:
        line += 1
        theirs = _Ticket(prepare([Write("Note/theirs", noted(f"theirs {line}", 1, owner))], None))
        store._waiting.append(theirs)
        mine = f"mine {line}"
        struck = _interrupted_at(line, lambda text=mine: store.append("Note/mine", noted(text, 2, owner)))
        if theirs in store._waiting:  # nobody had begun it, so its own thread would now do so
            store._drain()
        try:
            recorded = theirs.result()
        except NotWritten:
            assert f"theirs {line}" not in texts(store, "Note/theirs")
        else:
            assert [one.event.text for one in recorded] == [f"theirs {line}"]
            assert texts(store, "Note/theirs")[-1] == f"theirs {line}"
        assert texts(store, "Note/mine").count(mine) in (0, 2)
        assert not store._waiting
        sound(store)
    assert line > 50  # every line of the way was struck once
    assert texts(store, "Note/mine")[-2:] == [mine, mine]


def _heard(work: Callable[[int], Any], times: int) -> int:
    """Do `work` until a real SIGINT comes, so many times; return how often it came as KeyboardInterrupt."""
    heard, former = 0, signal.signal(signal.SIGINT, signal.default_int_handler)  # also under nohup
    for number in range(times):
        sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
        try:
            sender.start()
            left = 3
            while left:
                work(number)
                left -= not sender.is_alive()
        except KeyboardInterrupt:
            heard += 1
        sender.join()
    signal.signal(signal.SIGINT, former)
    return heard


WORK: dict[str, Callable[[EventStore, int], Any]] = {
    "append": lambda store, n: store.append("Note/mine", noted(str(n), 2)),
    "append with tags": lambda store, n: store.append("Note/mine", noted(str(n), 2, "ann")),
    "append many": lambda store, n: store.append("Note/mine", noted(str(n), 300)),
    "look up": lambda store, _: store.streams(),
    "read": lambda store, _: list(store.read(limit=3)),
    "dataframe": lambda store, _: store.df(limit=3),
    "sql": lambda store, _: store.sql("SELECT count(*) FROM events"),
    "typed sql": lambda store, n: (
        store.append("N/1", noted(str(n))),
        store.sql("SELECT max(text) FROM Noted"),
    ),
    "projection": lambda store, n: (store.append("N/1", noted(str(n))), Texts(store).catch_up()),
    "rebuild": lambda store, _: Texts(store).rebuild(),
}


@pytest.mark.parametrize("name", WORK)
def test_an_interrupt_inside_the_database_is_an_interrupt(store: EventStore, name: str):
    """Ctrl-C is never lost, nor told as an error of the database, and leaves nothing half done."""
    store.append("Note/first", noted("first"))
    work = WORK[name]
    assert _heard(lambda number: work(store, number), 20) == 20
    work(store, 99)
    assert store.version("Note/mine") % 2 == 0
    sound(store)


def test_an_error_of_the_database_that_hides_an_interrupt_is_one(store: EventStore, monkeypatch):
    """Whichever way DuckDB wraps it: the user gets the KeyboardInterrupt, and the append is not there."""
    for error in (
        RuntimeError("Query interrupted"),
        duckdb.InvalidInputException(
            "reading the schema of the object registered as 'n' failed: KeyboardInterrupt: "
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(store, "_insert", _raising(error))
            with pytest.raises(KeyboardInterrupt):
                store.append("Note/mine", noted("lost"))
    assert store.position == 0
    sound(store)


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


# --- closing -----------------------------------------------------------------------------------------------


LONG = "SELECT sum(hash(a.position * b.range)) FROM events a, range(10000000000) b"


def test_a_store_is_closed_under_the_hands_of_other_threads(tmp_path: Path):
    """Appends are whole or refused, long queries end, every thread is told, and the file is free."""
    path = tmp_path / "log.duckdb"
    store = EventStore(path)
    store.append("Note/first", noted("a", 300))
    told: dict[str, str] = {}
    done = {"append": 0}

    def appending() -> None:
        while True:
            store.append("Note/mine", noted("b"))
            done["append"] += 1

    def reading() -> None:
        while True:
            list(store.read())

    works = {"append": appending, "read": reading, "sql": lambda: store.sql(LONG)}

    def run(name: str) -> None:
        try:
            works[name]()
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            told[name] = type(error).__name__

    threads = [threading.Thread(target=run, args=(name,)) for name in works]
    for thread in threads:
        thread.start()
    while done["append"] < 20 or not store._db._lent:
        pass
    store.close()
    for thread in threads:
        thread.join(timeout=30)
    assert told == dict.fromkeys(works, "StoreClosed")
    with EventStore(path) as again:
        assert again.version("Note/mine") == done["append"]
        sound(again)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_while_another_thread_of_its_parent_appends(store: EventStore):
    """A lock that was held when the child was made does not make it wait for ever."""
    store.append("Note/a", noted("a"))
    texts_ = Texts(store).catch_up()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with store._db.lock, texts_._turn.lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        code = 0
        for use in (
            lambda: store.append("Note/a", noted("b")),
            texts_.catch_up,
            lambda: store.version("Note/a"),
        ):
            try:
                use()
                code = 1
            except ForkedStore:
                pass
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    over.set()
    thread.join()
    assert store.append("Note/a", noted("c"))[0].version == 2


# --- heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scanned", [0, 1, 10_000])
def test_heads_are_known_again_after_reopening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: int):
    """Looked up one by one, or all in one go: an append finds each stream at its version."""
    monkeypatch.setattr(module, "_SCANNED", scanned)
    path = tmp_path / "log.duckdb"
    with EventStore(path) as first:
        for number in range(20):
            first.append(f"Note/{number}", noted("a", number + 1))
    with EventStore(path) as again:
        for number in range(19, -1, -1):
            again.append(f"Note/{number}", noted("b"), expected=number + 1)
        again.append_all([Write(f"New/{number}", noted("c"), 0) for number in range(20)])
        assert again.version("Note/7") == 9
        assert again.version("Note/none") == 0
        with pytest.raises(Conflict):
            again.append("New/3", noted("d"), expected="no_stream")
        sound(again)


def test_a_new_store_never_looks_up_a_head(monkeypatch: pytest.MonkeyPatch):
    """Whoever has seen every append knows every stream: a query for each new one would double its price."""
    asked: list[str] = []
    with EventStore() as fresh:
        rows = fresh._db.fetch
        monkeypatch.setattr(
            fresh._db, "fetch", lambda query, *given: (asked.append(query), rows(query, *given))[1]
        )
        for number in range(5):
            fresh.append(f"Note/{number}", noted("a"))
    assert asked == []


def test_a_long_log_is_not_scanned_for_one_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All heads are fetched only when the look-ups so far have cost as much, and never of a huge log."""
    monkeypatch.setattr(module, "_SCANNED", 10)
    path = tmp_path / "log.duckdb"
    with EventStore(path) as first:
        first.append_all([Write(f"Note/{number}", noted("a")) for number in range(50)])
    for most, looked_up in ((1_000, 5), (49, 20)):
        monkeypatch.setattr(module, "_MOST_SCANNED", most)
        with EventStore(path) as again:
            assert again.position == 50
            for number in range(20):
                again._heads({f"Note/{number}"})
            assert again._look_ups == looked_up


# --- dataframes, copies, restoring -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [{}, {"backward": True}, {"limit": 3}, {"stream": "Note/b"}, {"tag": "owner:ann"}]
)
def test_a_dataframe_is_the_same_by_arrow_as_row_by_row(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
):
    """The fast way gives the values and types of the slow one, over several windows."""
    monkeypatch.setattr(module, "WINDOW", 2)
    with metadata(user_id="é 日本", correlation_id="c", occurred_at=START, reason={"deep": [1]}):
        store.append("Note/a", noted("<b>", 3, "ann"))
    store.append("Note/b", noted("plain"))
    selection = store.read(**wanted)
    pd.testing.assert_frame_equal(selection.df(), Store._frame(store, selection._wanted))


def test_a_copy_is_a_store_that_goes_on_by_itself(store: EventStore, tmp_path: Path):
    """What is appended to the copy is not in the original, and the other way round."""
    store.append("Note/a", noted("both", BULK, "ann"))
    store.copy_to(tmp_path / "copy.duckdb")
    store.append("Note/a", noted("original"))
    with EventStore(tmp_path / "copy.duckdb") as copy:
        copy.append("Note/a", noted("copy"), expected=BULK)
        assert texts(copy)[-2:] == ["both", "copy"]
        assert len(copy.read(tag="owner:ann")) == BULK
        sound(copy)
    assert texts(store)[-2:] == ["both", "original"]


def test_restored_events_keep_their_envelopes(store: EventStore):
    """Ids, times, tags and metadata come along; appending goes on behind them."""
    with metadata(user_id="ann", reason="a test"):
        store.append("Note/a", noted("one", 2, "ann"))
    with EventStore() as other:
        rows = [one._row for one in store.read()]
        assert other.restore(iter(rows)) == 2
        assert [one._row for one in other.read()] == rows
        assert other.version("Note/a") == 2
        other.append("Note/a", noted("two"), expected=2)
        assert other.restore([]) == 0
        sound(other)


def test_a_gap_between_restored_events_is_refused(store: EventStore):
    """Positions are dense: what came before the gap in the same window is not kept either."""
    store.append("Note/a", noted("one", 3))
    first, _, third = (one._row for one in store.read())
    with EventStore() as other:
        with pytest.raises(InvalidArgument, match="position 3 cannot follow position 1"):
            other.restore([first, third])
        assert other.position == 0
        other.append("Note/a", noted("one"), expected=0)


def test_a_repetition_of_a_version_is_refused_by_the_database_itself(store: EventStore):
    """The unique index has the last word, whatever the store believes."""
    store.append("Note/a", noted("one"))
    store._known_heads["Note/a"] = 0
    with pytest.raises(NotWritten, match="uplicate key"):
        store.append("Note/a", noted("two"), expected=0)
    assert store.version("Note/a") == 1
    sound(store)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit for the size of files")
def test_a_full_disk_loses_nothing(tmp_path: Path):
    """An append for which there is no room is refused; the store can be read, and goes on with room."""
    import resource

    with EventStore(tmp_path / "log.duckdb") as store:
        store.append("Note/a", noted("kept"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(NotWritten, match="could not be written"):
                store.append("Note/a", [Noted(text=str(n) * 10_000) for n in range(10)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert texts(store) == ["kept"]
        store.append("Note/a", noted("next"), expected=1)
    with EventStore(tmp_path / "log.duckdb") as again:
        assert texts(again) == ["kept", "next"]


def test_a_store_says_what_it_is(store: EventStore, tmp_path: Path):
    """The name of the file, how much is in it, and whether it is open."""
    assert repr(store) == "<EventStore in memory: 0 events>"
    store.append("Note/a", noted("one"))
    assert repr(store) == "<EventStore in memory: 1 event>"
    with EventStore(tmp_path / "log.duckdb") as filed:
        assert repr(filed) == "<EventStore 'log.duckdb': 0 events>"
    assert repr(filed) == "<EventStore 'log.duckdb': closed>"


@pytest.mark.parametrize("gap", [0.0005, 0.002, 0.01, 0.05])
def test_a_second_interrupt_loses_nothing_that_is_acknowledged_after_it(tmp_path: Path, gap: float):
    """Two Ctrl-C while typed tables are filled: the next append is durable, the next query answered."""
    path = tmp_path / "log.duckdb"
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    pause = threading.Event()

    def strike() -> None:
        for _ in range(2):
            pause.wait(gap)
            os.kill(os.getpid(), signal.SIGINT)

    with EventStore(path) as log:
        log.append("Note/1", noted("x", 100_000))
        striker = threading.Thread(target=strike)
        heard = 0
        for step in (
            striker.start,
            lambda: log.sql("SELECT max(text) FROM Noted"),
            striker.join,
            striker.join,
        ):
            try:
                step()
            except KeyboardInterrupt:
                heard += 1
        striker.join()
        signal.signal(signal.SIGINT, former)
        assert heard
        position = log.append("Note/2", noted("y"))[0].position
        assert log.sql("SELECT max(text) AS text FROM Noted")["text"][0] == "y"
        assert len(log.read("Note/2")) == 1
    with EventStore(path) as log:
        assert log.position == position


def test_a_second_interrupt_of_a_slow_query_leaves_the_store_usable(store: EventStore):
    """A query that DuckDB does not stop at once is waited for, and nothing is left behind it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    strikers = [threading.Timer(0.1 + 0.1 * n, os.kill, (os.getpid(), signal.SIGINT)) for n in range(2)]
    for striker in strikers:
        striker.start()
    with pytest.raises(KeyboardInterrupt):
        store.sql("SELECT list_sum(list_transform(range(20000000), lambda x: x * 2 + 1))")
    for striker in strikers:
        with suppress(KeyboardInterrupt):
            striker.join()
    signal.signal(signal.SIGINT, former)
    assert store.sql("SELECT count(*) AS n FROM events")["n"][0] == store.position
