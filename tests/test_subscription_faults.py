"""Subscriptions whose process is killed, for real: what is lost, what is doubled, what is parked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from esim import EventStore, ManualClock, NewEvent, Rows
from esim.subscription import Subscription
from tests.subscribed import Paid, Seen, spend

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

ROOT = Path(__file__).parent.parent

# Delivers until the point `where` is reached for the `count`-th time, and kills itself there. Each
# handled event is a line in a file of its own, which is the outside world.
CHILD = """
import json, os, signal, sys
from tests.subscribed import *
told = json.loads(sys.argv[1])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def world(event: Paid):
    if told["poison"] == event.amount:
        die()
    with open(told["world"], "a") as lines:
        lines.write(f"{event.amount}\\n")
    if told["where"] == "within" and event.amount == told["count"]:
        die()
def rows(event: Paid, rows: Rows[Spend]):
    spend(event, rows)
    if told["poison"] == event.amount:
        die()
def tally(event: Paid, rows: Rows[Seen]):
    if told["poison"] == event.amount:
        die()
    row = rows.get(event.amount) or Seen(amount=event.amount)
    rows.put(row.but(times=row.times + 1))
    if told["where"] == "within" and event.amount == told["count"]:
        die()
with EventStore(told["path"], clock=ManualClock()) as store:
    handler = {"rows": rows, "tally": tally, "world": world}[told["handler"]]
    retry = RetryPolicy(max_attempts=told["attempts"])
    mine = Subscription(store, handler, "mine", checkpoint=told["mode"], batch=told["batch"], retry=retry,
                        adopt=True)
    left = told["count"]
    with mine._turn() as delivery:
        for name, _ in delivery.steps(store.position):
            left -= name == told["where"]
            if not left and name == told["where"]:
                die()
"""


class Told(dict[str, object]):
    """What a child is told to do."""

    def __init__(self, path: Path, **changes: object) -> None:
        super().__init__(
            path=str(path),
            world=str(path.with_suffix(".world")),
            mode="after_handler",
            handler="rows" if changes.get("mode") == "transactional" else "world",
            batch=1,
            where="",
            count=0,
            poison=0,
            attempts=5,
        )
        self.update(changes)

    def run(self) -> bool:
        """Run a child; say whether it died."""
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(self)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0

    def handled(self) -> Counter[int]:
        """Return how often the world has seen each event."""
        path = Path(str(self["world"]))
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def _log(path: Path, count: int = 12, twice: int = 0) -> Path:
    with EventStore(path, clock=ManualClock()) as store:
        for number in range(1, count + 1):
            paid = Paid(customer=f"c-{number % 3}", amount=number)
            for _ in range(2 if number == twice else 1):
                store.append(f"Order/o-{number % 4}", NewEvent(paid, event_id=UUID(int=number)))
    return path


# Of twelve payments: how many were handled, lost, doubled, and are dead letters, after a fault at the fifth.
# "duplicate": its producer, not knowing whether it was stored, stored it again under the same event id.
# "poison": it kills every process that touches it; a later event of its stream waits behind it.
COSTS = """
fault       after_handler  before_handler  transactional
none        12 0 0 0       12 0 0 0        12 0 0 0
before      12 0 0 0       11 1 0 0        12 0 0 0
during      12 0 1 0       12 0 0 0        12 0 0 0
after       12 0 1 0       12 0 0 0        12 0 0 0
duplicate   12 0 0 0       12 0 0 0        12 0 0 0
poison      10 0 0 2       11 1 0 0        10 0 0 2
"""
FAULTS: dict[str, dict[str, object]] = {
    "none": {},
    "before": {"where": "handle", "count": 5},
    "during": {"where": "within", "count": 5},
    "after": {"where": "handled", "count": 5},
    "duplicate": {},
    "poison": {"poison": 5},
}


def no_rows(event: Paid) -> None:
    """Stand for the handler that ran in the child, where only what it left is looked at."""


def seen_rows(event: Paid, rows: Rows[Seen]) -> None:
    """Do so for one that writes rows."""


no_more = {"world": no_rows, "tally": seen_rows}


@pytest.mark.parametrize("line", COSTS.split("\n")[2:-1], ids=lambda line: line.split()[0])
@pytest.mark.parametrize("mode", COSTS.split("\n")[1].split()[1:])
def test_what_a_fault_costs_in_each_mode(tmp_path, mode, line):
    """The table above, from processes that are really killed, and started again until they end."""
    fault, *numbers = line.split()
    column = 4 * ("after_handler", "before_handler", "transactional").index(mode)
    path = _log(tmp_path / "log.duckdb", twice=5 if fault == "duplicate" else 0)
    handler = "tally" if mode == "transactional" else "world"
    child = Told(path, mode=mode, handler=handler, attempts=3, **FAULTS[fault])
    deaths = 0
    while child.run():
        deaths += 1
        assert deaths <= 3
        if fault != "poison":
            child["where"] = ""
    assert (deaths == 0) == (fault in ("none", "duplicate"))
    with EventStore(path, clock=ManualClock()) as store:
        mine = Subscription(store, no_more[handler], "mine", checkpoint=mode, adopt=True)
        parked = len(mine.dead_letters)
        table = mine.df().set_index("amount").times if handler == "tally" else None
    counts = child.handled() if table is None else Counter(table.to_dict())
    lost, doubled = 12 - len(counts) - parked, sum(times - 1 for times in counts.values())
    assert [str(each) for each in (len(counts), lost, doubled, parked)] == numbers[column : column + 4]


@pytest.mark.parametrize(("attempts", "batch"), [(3, 1), (3, 100), (1, 100)])
def test_an_event_that_kills_the_process_is_parked_after_at_most_max_attempts_restarts(
    tmp_path, attempts, batch
):
    """Then the rest of the log is handled; after the fix a redrive gives what a run without failure gives."""
    path = _log(tmp_path / "log.duckdb")
    child = Told(path, mode="transactional", poison=6, attempts=attempts, batch=batch)
    deaths = 0
    while child.run():
        deaths += 1
        assert deaths <= attempts
    with EventStore(path, clock=ManualClock()) as store:
        mine = Subscription(store, spend, "mine", adopt=True)
        letters = mine.dead_letters.df()
        assert letters.position.tolist() == [6, 10]
        assert letters.attempts.tolist() == [attempts, 0]
        assert letters.cause_type[0] == "ProcessDied"
        assert mine.position == 12
        assert mine.df().events.sum() == 10
        mine.dead_letters.redrive()
        assert len(mine.dead_letters) == 0
        assert mine.df().equals(Subscription(store, spend, "whole").catch_up().df())


def test_a_checkpoint_is_never_ahead_of_its_rows_at_any_kill(tmp_path):
    """After each of ten kills, at every kind of point, rows hold just the events up to the checkpoint."""
    path = _log(tmp_path / "log.duckdb", 60)
    for kill, where in enumerate(("begin", "handle", "handled", "commit", "committed") * 2):
        child = Told(path, mode="transactional", batch=4, where=where, count=1 + kill % 3)
        assert child.run()
        with EventStore(path, clock=ManualClock()) as store:
            mine = Subscription(store, spend, "mine", adopt=True)
            events = [one.event for one in store.read(until=mine.position)]
            assert mine.df().events.sum() == len(events) == mine.position
            assert mine.df().total.sum() == sum(event.amount for event in events)
    assert not Told(path, mode="transactional", batch=4).run()
    with EventStore(path, clock=ManualClock()) as store:
        assert Subscription(store, spend, "mine", adopt=True).df().events.sum() == 60


def test_an_interrupt_from_the_terminal_leaves_a_consistent_checkpoint(tmp_path):
    """SIGINT in the middle of a long catch-up: rows and checkpoint agree, and the next run goes on."""
    path = tmp_path / "log.duckdb"
    with EventStore(path) as store:
        events = [Paid(customer=f"c-{number % 3}", amount=1) for number in range(50_000)]
        store.append("Order/o-1", events)
    script = """
import sys
from tests.subscribed import *
def slow(event: Paid, rows: Rows[Spend]):
    if event.amount and not told:
        told.append(print("begun", flush=True))
    spend(event, rows)
told = []
with EventStore(sys.argv[1]) as store:
    Subscription(store, slow, "mine").catch_up()
"""
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "begun"
        os.kill(child.pid, signal.SIGINT)
        child.communicate()
    with EventStore(path) as store:
        mine = Subscription(store, spend, "mine", adopt=True)
        assert (mine.df().events.sum() or 0) == mine.position
        assert mine.catch_up().df().events.sum() == 50_000
