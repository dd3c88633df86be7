"""Work that a child does as if it were its parent: what it says comes out, and its memory is gone."""

from __future__ import annotations

import builtins
import logging
import os
import signal
import sys
import threading
import warnings
from operator import attrgetter
from types import SimpleNamespace

import pytest

from esim import apart as module
from esim.apart import apart, left
from esim.errors import InvalidArgument, TokenMismatch

KEPT = SimpleNamespace(count=0)


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch):
    monkeypatch.setattr(module, "_left", {})


def count() -> int:
    KEPT.count += 1
    return KEPT.count


def test_the_answer_is_here_and_memory_is_as_it_was():
    """What both know is the same object, also where it is in the answer."""
    known = object()
    assert apart(lambda: (count(), known), [known]) == (1, known)
    assert KEPT.count == 0
    assert left() == []


def test_what_it_prints_logs_and_warns_of_comes_out_here(capsys, caplog):
    def work() -> None:
        print("mug é")
        sys.stderr.write("oh\n")
        logging.getLogger("shop").warning("%d left", 3)
        warnings.warn("old", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="old"):
        apart(work, [])
    assert capsys.readouterr() == ("mug é\n", "oh\n")
    assert caplog.messages == ["3 left"]


def test_errors_of_esim_are_raised_here():
    def work() -> None:
        count()
        raise error

    for error in (InvalidArgument("no"), TokenMismatch("other", ["world"])):
        code = compile("def work():\n    count()\n    raise error", module.__file__, "exec")
        names = {"count": count, "error": error}
        exec(code, names)
        with pytest.raises(type(error), match=str(error)) as raised:
            apart(names["work"], [])
        assert raised.value.__dict__ == error.__dict__
    assert (KEPT.count, left()) == (0, [])


def test_any_other_error_is_raised_where_its_lines_are_seen(capsys):
    """The work is done once more here: what was printed is not printed twice, and memory is not as it was."""

    def work() -> None:
        print("once")
        count()
        raise KeyError("mug")

    with pytest.raises(KeyError) as raised:
        apart(work, [])
    assert raised.traceback[-1].name == "work"
    assert capsys.readouterr().out == "once\n"
    assert KEPT.count == 1
    KEPT.count = 0
    assert left() == ["KeyError: 'mug'"]


@pytest.mark.parametrize(
    ("where", "asks"), [(builtins, "input"), (sys, "stdin.readline"), (sys, "breakpointhook")]
)
def test_who_asks_its_user_is_run_here(where, asks, monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda: "yes")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=lambda: "yes"))
    monkeypatch.setattr(sys, "breakpointhook", lambda: "yes")

    def work() -> object:
        return attrgetter(asks)(where)()

    assert apart(work, []) == "yes"
    assert left() == ["it asks its user for something"]


def test_where_there_is_no_child_it_is_run_here(monkeypatch):
    """So it is where a debugger looks on, where the answer has no name, and where the child just ends."""
    parent = os.getpid()

    def work() -> object:
        return "here" if os.getpid() == parent else lambda: None

    assert apart(work, []) == "here"
    assert apart(lambda: "here" if os.getpid() == parent else os._exit(3), []) == "here"
    sys.setprofile(lambda *_: None)
    try:
        apart(count, [])
    finally:
        sys.setprofile(None)
    monkeypatch.delattr(os, "fork")
    assert apart(count, []) == 2
    KEPT.count = 0
    told = left()
    assert len(told) == 4
    assert told[1:3] == [
        "a child process ended without a word",
        "a debugger, a profiler or a measure of coverage looks on",
    ]
    assert told[3].endswith("cannot fork a process")


def test_ctrl_c_ends_it_at_once(capsys):
    """The child is interrupted, and what it has said until then is shown."""
    parent = os.getpid()

    def work() -> None:
        print("begun")
        os.kill(parent, signal.SIGINT)
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        apart(work, [])
    assert capsys.readouterr().out == "begun\n"
    assert left() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_is_interrupted_may_still_answer():
    parent = os.getpid()

    def work() -> str:
        try:
            os.kill(parent, signal.SIGINT)
            threading.Event().wait()
        except KeyboardInterrupt:
            return "so far"
        return ""

    assert apart(work, []) == "so far"


def test_who_waits_for_a_thread_that_is_not_there_is_run_here(monkeypatch):
    monkeypatch.setattr(module, "_IDLE", 0.01)
    parent = os.getpid()
    assert apart(lambda: os.getpid() == parent or threading.Event().wait(), []) is True
    assert left() == ["it waits for something that a child process does not have"]
