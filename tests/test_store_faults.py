"""A store whose process is killed: what was acknowledged is there, and nothing is half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from esim import EventStore

KILLS = 20

# Appends for ever: one event, a few with tags, a bulk, two streams at once; each is acknowledged by a line.
WRITER = """
import sys
from typing import Annotated
from esim import Event, EventStore, Tag, Write

class Counted(Event):
    batch: int
    size: int
    owner: Annotated[str | None, Tag()] = None

store = EventStore(sys.argv[1])
batch = store.position + 1_000_000
while True:
    for size, owner in ((1, None), (5, "ann"), (300, None), (250, "bob")):
        batch += 1
        events = [Counted(batch=batch, size=size, owner=owner)] * size
        recorded = store.append("One/" + str(batch % 7), events)
        print(recorded[-1].position, flush=True)
    batch += 1
    event = Counted(batch=batch, size=2, owner="eve")
    recorded = store.append_all([Write("Left/l", event), Write("Right/r", event)])
    print(recorded[-1].position, flush=True)
"""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def _killed_after(path: Path, acknowledgements: int) -> int:
    """Let a writer work until so many lines have come, kill it, and return the last position it told."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(acknowledgements)]
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        told = [line for line in (*lines, *rest) if line.strip()]
    assert writer.returncode == -signal.SIGKILL
    return int(told[-1])


def test_whatever_was_acknowledged_survives_twenty_kills(tmp_path):
    """After each SIGKILL the file has every acknowledged event, and each append whole or not at all."""
    path = tmp_path / "counted.duckdb"
    for kill in range(KILLS):
        last = _killed_after(path, 1 + 3 * kill % 11)
        with EventStore(path) as store:
            assert store.position >= last
            _whole(store)


def _whole(store: EventStore) -> None:
    facts = store.sql("""
        with batches as (
            select data->>'batch' as batch, any_value((data->>'size')::int) as size, count(*) as n
            from events group by batch
        ), streams as (
            select stream, count(*) as n, min(version) as first, max(version) as last
            from events group by stream
        )
        select (select count(*) from batches where n <> size) as torn,
               (select count(*) from streams where first <> 1 or last <> n) as gaps,
               (select max(position) - count(*) from events) as holes
    """).iloc[0]
    assert (facts["torn"], facts["gaps"], facts["holes"]) == (0, 0, 0)
    tagged = store.sql("select count(*) as n from events where tags is not null")["n"][0]
    assert sum(len(store.read(tag=f"owner:{name}")) for name in ("ann", "bob", "eve")) == tagged


def test_a_killed_store_goes_on_where_it_stood(tmp_path):
    """The next process appends at the next version, and expected versions still guard the stream."""
    path = tmp_path / "counted.duckdb"
    _killed_after(path, 5)
    with EventStore(path) as store:
        version = store.version("Left/l")
        left = store.read("Left/l").last()
        assert left is not None
        assert left.version == version
        assert store.read(after=left.position - 1).first() == left
