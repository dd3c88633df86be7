"""The store in memory beyond the common contract: what it says of itself, and SQL by a copy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from esim.errors import StoreClosed
from esim.event import Event
from esim.memory import MemoryStore


class Noted(Event):
    text: str


def test_it_says_how_much_it_holds():
    """The text counts events and streams."""
    store = MemoryStore()
    store.append("A/1", [Noted(text="a")] * 1200)
    store.append("A/2", Noted(text="b"))
    assert repr(store) == "<MemoryStore: 1,201 events in 2 streams>"


def test_it_needs_no_database_until_sql_is_asked():
    """Appending and reading load neither DuckDB nor Arrow nor pandas; SQL then does."""
    code = (
        "import sys; from esim import MemoryStore, Event\n"
        "class A(Event): n: int\n"
        "store = MemoryStore(); store.append('A/1', [A(n=1), A(n=2)]); assert len(store.read(type=A)) == 2\n"
        "print(sorted({'duckdb', 'pyarrow', 'pandas'} & sys.modules.keys()))\n"
        "print(store.sql('select sum(n) as n from A').n.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[3]"]


def test_sql_leaves_the_store_as_it_was():
    """The copy that answers is gone afterwards, and the next one has what is new."""
    store = MemoryStore()
    for count in (1, 2):
        store.append("A/1", Noted(text="a"))
        assert store.sql("SELECT count(*) AS n FROM Noted")["n"].tolist() == [count]
    assert store.position == 2


def test_a_closed_one_says_that_its_events_are_gone():
    """There is no file to open again."""
    store = MemoryStore()
    store.close()
    with pytest.raises(StoreClosed, match="events are gone"):
        store.append("A/1", Noted(text="a"))
