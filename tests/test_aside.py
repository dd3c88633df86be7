"""Work in a child of this process: it answers, and leaves nothing behind."""

from __future__ import annotations

import atexit
import os
import pickle
import sqlite3
import sys
import threading
from contextlib import suppress
from typing import Any

import duckdb
import pytest

from esim import EventStore
from esim.aside import Packer, Unanswered, Unpacker, aside, packed

KEPT: list[int] = []


def test_the_answer_comes_back_and_memory_is_as_it_was():
    def work() -> tuple[list[int], bool]:
        KEPT.append(1)
        return KEPT, os.getpid() == parent

    parent = os.getpid()
    assert aside(work, 60) == ([1], False)
    assert KEPT == []


def test_nothing_is_said_and_nothing_runs_at_its_exit(tmp_path, capfd):
    """Neither by Python's own streams, nor by those of the process; nor does it flush what the parent has."""
    told = tmp_path / "exit"

    def work() -> None:
        atexit.register(told.write_text, "left")
        print("out")
        print("err", file=sys.stderr)
        os.write(1, b"raw")

    sys.stdout.write("mine, not flushed")
    aside(work, 60)
    assert capfd.readouterr() == ("mine, not flushed", "")
    assert not told.exists()


def test_no_file_that_is_open_is_changed(tmp_path):
    """A database is read as it stands, and refuses to be written; what is written to a log goes nowhere."""
    known = duckdb.connect(str(tmp_path / "shop.duckdb"))
    known.execute("CREATE TABLE t AS SELECT 1 AS n")
    known.execute("CHECKPOINT")
    light = sqlite3.connect(tmp_path / "shop.sqlite")
    light.execute("CREATE TABLE t (n)")
    with (tmp_path / "log").open("w") as log:

        def work() -> list[str]:
            told = []
            log.write("from the child\n")
            log.flush()
            for each in (known, light):
                try:
                    each.execute("INSERT INTO t SELECT 2")
                    each.commit()
                except (duckdb.Error, sqlite3.Error) as error:
                    told.append(type(error).__name__)
            with suppress(duckdb.Error):
                known.execute("CHECKPOINT")
            return told

        assert "OperationalError" in aside(work, 60)
    known.execute("INSERT INTO t SELECT 3")
    for each in (known, light):
        each.commit()
        each.close()
    assert duckdb.connect(str(tmp_path / "shop.duckdb")).execute("FROM t").fetchall() == [(1,), (3,)]
    assert sqlite3.connect(tmp_path / "shop.sqlite").execute("SELECT * FROM t").fetchall() == []
    assert (tmp_path / "log").read_text() == ""


def test_a_store_of_the_parent_ends_it(tmp_path):
    """Whoever asks it in a child would be refused, and go another way than here."""
    with EventStore(tmp_path / "shop.duckdb") as store, pytest.raises(Unanswered, match="it uses the store"):
        aside(lambda: store.version("Order/1"), 60)


def test_an_error_is_told():
    def work() -> None:
        raise KeyError("mug")

    with pytest.raises(Unanswered, match="KeyError: 'mug'"):
        aside(work, 60)
    with pytest.raises(Unanswered, match="without a word"):
        aside(lambda: os._exit(3), 60)
    with pytest.raises(Unanswered, match="pickle"):
        aside(lambda: work, 60)


def test_what_does_not_end_is_ended(monkeypatch):
    """Here by having no time at all; and by whoever watches."""
    fork, children = os.fork, []

    def noted() -> int:
        child = fork()
        children.append(child)
        return child

    monkeypatch.setattr(os, "fork", noted)

    def work() -> None:
        threading.Event().wait()

    with pytest.raises(Unanswered, match="did not come to an end"):
        aside(work, 0)

    def watch() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aside(work, 60, watch)
    assert len(children) == 2
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)  # it is gone


def test_without_a_fork_there_is_no_answer(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(Unanswered, match="cannot fork"):
        aside(lambda: 7, 60)


def test_classes_and_functions_without_a_name_go_from_child_to_child():
    """Pickle finds no class of a function, and no lambda; both children have them where the parent has."""

    class Mug:
        size = 3

    def packed(*values: Any) -> bytes:
        packer = Packer({id(KEPT): 0})
        packer.dump(values)
        return packer.buffer.getvalue()

    def unpacked() -> tuple[Any, ...]:
        mug, function, other, kept = Unpacker(sent, [KEPT]).load()
        return type(mug) is Mug, function is shout, other is packed, kept is KEPT

    shout = lambda text: text.upper()  # noqa: E731 - it shall have no name
    sent = aside(lambda: packed(Mug(), shout, packed, KEPT), 60)
    assert aside(unpacked, 60) == (True, True, True, True)


def test_what_was_made_in_a_child_cannot_go_to_another():
    """At its address there may be something else of the same name there."""

    def made() -> str:
        try:
            return str(packed(lambda: 7, []))
        except pickle.PicklingError as error:
            return str(error)

    assert aside(made, 60) == "<lambda> was made while it ran"
