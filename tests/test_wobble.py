"""Code that is not steady is found and named before anything is said about it."""

from __future__ import annotations

import asyncio
import cProfile
import logging
import os
import random
import secrets
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pydantic
import pytest
from pydantic import BaseModel, Field

from esim.bus import Bus
from esim.envelope import RecordedEvent
from esim.errors import Unsteady
from esim.event import Event
from esim.faults import Faults
from esim.projection import Key, Row, Rows
from esim.scenario import Scenario, task
from esim.wobble import unsteady
from esim.world import World

COUNT = 0
SEEN: list[str] = []
LAST: Any = None


class Rung(Event):
    bell: str = "a"


class Bell(Row):
    bell: Key[str]
    times: int = 0


def told_of(actors: Any, world: World | None = None) -> str:
    """Return what is said of a scenario, or nothing if it is steady."""
    history = [("Bell/1", Rung()), ("Bell/2", Rung(bell="b"))]
    try:
        unsteady(Scenario(history, actors, world=world))
    except Unsteady as error:
        return str(error)
    return ""


def noting(make: Any) -> tuple[Any, World]:
    world = World()
    table = world.table("table")

    def note(event: Rung) -> None:
        table[event.bell] = str(make())

    return note, world


class Day(date):
    """A date of the user's own."""


class Moment(datetime):
    """A time of the user's own."""


@pytest.mark.parametrize(
    ("make", "called"),
    [
        (lambda: [random.random()], "random.random"),
        (lambda: random.randint(1, 6), "random.randint"),
        (lambda: random.Random().choice([1, 2]), "random.Random"),
        (lambda: random.SystemRandom().choice([1, 2]), "random.choice"),
        (lambda: random.seed(7), "random.seed"),
        (lambda: [uuid.uuid4()], "uuid.uuid4"),
        (lambda: [uuid.uuid1()], "uuid.uuid1"),
        (lambda: uuid.UUID(bytes=os.urandom(16), version=4), "os.urandom"),
        (lambda: secrets.token_hex(4), "secrets.token_hex"),
        (lambda: [time.time()], "time.time"),
        (lambda: [time.perf_counter_ns()], "time.perf_counter_ns"),
        (lambda: time.strftime("%Y"), "time.strftime"),
        (lambda: [time.ctime()], "time.ctime"),
        (lambda: hash("mug") % 7, "hash"),
        (lambda: [id("mug")], "id"),
        (lambda: [os.getpid()], "os.getpid"),
        (lambda: datetime.now(UTC), "datetime.now"),
        (lambda: [date.today()], "date.today"),
        (lambda: [Day.today()], "Day.today"),
        (lambda: Moment.now(UTC).year, "Moment.now"),
    ],
)
def test_clocks_and_chance_are_named_with_the_line(make, called):
    """The call, the function it is in, and its line are told."""
    note, world = noting(make)
    told = told_of([note], world)
    assert f"<lambda> calls {called}()" in told
    assert f"(line {make.__code__.co_firstlineno})" in told


@dataclass(frozen=True)
class Place:
    """Hashes by what it holds."""

    shelf: str


KNOWN = uuid.UUID(int=7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [KNOWN.hex],
        lambda: f"{KNOWN}",
        lambda: uuid.UUID("00000000-0000-0000-0000-000000000007"),
        lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "mug"),
        lambda: random.Random(7).choice([1, 2]),
        lambda: random.Random("mug").random(),
        lambda: {Place("a"): 1}[Place("a")],
        lambda: datetime(2026, 1, 1, tzinfo=UTC).strftime("%Y"),
        lambda: time.strftime("%Y", time.gmtime(0)),
    ],
)
def test_what_is_the_same_in_every_run_is_steady(make):
    """Ids that are given, chance from a seed, hashes that only find something, and times that are written."""
    note, world = noting(make)
    assert not told_of([note], world)


LOG = logging.getLogger("bells")


def timed() -> int:
    begun = time.perf_counter()
    took = time.perf_counter() - begun
    LOG.info("took %s s, %s in all", took, round(time.perf_counter() - begun, 3))
    LOG.debug("begun at %s", f"{datetime.now(UTC)}: {took:.3f} s")
    print("at", time.time())
    return 7


def timed_and_kept() -> float:
    begun = time.perf_counter()
    LOG.info("begun at %s", begun)
    return begun


def timed_and_used() -> int:
    begun = time.monotonic()
    if time.monotonic() - begun > 60:
        return 8
    return 7


class Recorder:
    def __init__(self) -> None:
        self.last = 0.0

    def info(self, seconds: float) -> None:
        self.last = seconds


RECORDER = Recorder()


def handed_on() -> float:
    RECORDER.info(time.time())
    return RECORDER.last


@pytest.mark.parametrize(
    ("make", "called"),
    [
        (timed_and_kept, "time.perf_counter"),
        (timed_and_used, "time.monotonic"),
        (lambda: time.gmtime(None), "time.gmtime"),
        (lambda: time.strftime("%Y", time.gmtime()), "time.gmtime"),
    ],
)
def test_a_clock_may_only_be_logged(make, called):
    """Whatever else is made of what it says, is named: to keep it, to go by it."""
    note, world = noting(timed)
    assert not told_of([note], world)
    note, world = noting(make)
    assert f"calls {called}()" in told_of([note], world)


def test_a_clock_that_an_object_keeps_is_named():
    """Whatever its method is called."""
    note, world = noting(handed_on)
    told = told_of([note], world)
    assert "handed_on calls time.time()" in told


def test_what_is_done_for_each_of_a_set_is_done_in_its_order():
    """A sum looks at no order, but what is done to the world on the way to it has one."""
    world = World()
    post = world.service(lambda bell: 1)
    table = world.table("table")

    def read(event: Tagged) -> None:
        sum(len(tag) + (tag in table) for tag in event.tags)

    def posted(event: Tagged) -> None:
        sum(post(tag) for tag in event.tags)

    unsteady(Scenario([("Bell/1", Tagged())], [read], world=world))
    with pytest.raises(Unsteady, match=r"posted goes through the set event\.tags"):
        unsteady(Scenario([("Bell/1", Tagged())], [posted], world=world))


def test_a_steady_handler_is_steady():
    """Rows, tables, tasks and steady functions raise nothing."""
    note, world = noting(lambda: 7)

    def count(event: Rung, rows: Rows[Bell]) -> None:
        row = rows.get(event.bell) or Bell(bell=event.bell)
        rows.put(row.but(times=row.times + 1))

    def tick() -> None:
        world.parts["table"]["tick"] = sorted({"b", "a"})

    assert not told_of([note, count, task(tick)], world)


def test_a_variable_of_the_module_that_changes_is_named():
    """A number that is counted up survives a crash here, and would not outside."""

    def count(event: Rung) -> None:
        global COUNT
        COUNT += 1

    assert "'COUNT' of count changed" in told_of([count])


def test_a_list_of_the_module_that_grows_is_named():
    """A list that is appended to is in the memory of the process."""

    def see(event: Rung) -> None:
        SEEN.append(event.bell)

    assert "'SEEN' of see changed" in told_of([see])


def test_a_variable_that_was_none_is_named():
    """What was None, and is an event later, has changed."""

    def keep(event: Rung) -> None:
        global LAST
        LAST = event.bell

    assert "'LAST' of keep changed" in told_of([keep])


def test_a_variable_of_an_enclosing_function_is_named_where_actors_are_made():
    """Actors that are made for a store are looked at as well."""

    def actors(store: Any) -> list[Any]:
        seen: set[str] = set()

        def see(event: Rung) -> None:
            seen.add(event.bell)

        return [see]

    assert "'seen' of see changed" in told_of(actors)


class Keeper:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def see(self, event: Rung) -> None:
        self.seen.append(event.bell)


def test_an_attribute_of_a_handlers_object_is_named():
    """A bound method keeps what it keeps in its object."""
    assert "'seen' of see changed" in told_of([Keeper().see])


def test_an_object_outside_of_a_handler_is_named():
    """A handler that uses an object of the module, or of its function, changes that."""
    keeper = Keeper()

    def see(event: Rung) -> None:
        keeper.see(event)

    assert "'seen' of keeper of see changed" in told_of([see])


def test_a_service_with_a_state_of_its_own_is_named():
    """What a service keeps outside of the world's tables cannot be put back."""
    world, balance = World(), {"ann": 10}

    @world.service
    def charge(amount: int) -> None:
        balance["ann"] -= amount

    def pay(event: Rung) -> None:
        charge(1)

    assert "'balance' of charge changed" in told_of([pay], world)


def test_the_order_of_a_set_is_named():
    """Going through a set of texts gives another order in another process."""
    world = World()
    table = world.table("table")

    def both(event: Rung) -> None:
        for name in {"a", "b"}:
            table["last"] = name

    def one(event: Rung) -> None:
        names = set("ab")
        table["all"] = [str(name) for name in names]

    assert "both goes through the set {'a', 'b'}" in told_of([both], world)
    assert "goes through the set names" in told_of([one], world)


BELLS = {"a", "b"}


def test_the_order_of_a_set_is_named_wherever_it_comes_from():
    """Also one that is handed to a helper, that the module has, or that is made of others."""
    world = World()
    table = world.table("table")

    def first(bells: Any) -> Any:
        return [str(bell) for bell in bells]

    def handed(event: Rung) -> None:
        table["bells"] = first({event.bell, "c"})

    def outside(event: Rung) -> None:
        table["bells"] = list(BELLS)

    def united(event: Rung) -> None:
        both = {"a"} | {event.bell, "d"}
        for bell in both.difference({"c"}):
            table["bell"] = bell

    def keys(event: Rung) -> None:
        for bell in {"a": 1}.keys() | {"b": 2}.keys():
            table["bell"] = bell

    assert "goes through the set bells" in told_of([handed], world)
    assert "outside goes through a set in list(BELLS)" in told_of([outside], world)
    assert "united goes through the set both.difference({'c'})" in told_of([united], world)
    assert "keys goes through the set {'a': 1}.keys() | {'b': 2}.keys()" in told_of([keys], world)


def test_a_sorted_set_is_steady():
    """A set that is sorted, counted or asked is no trouble, nor one of numbers, nor one that nobody uses."""

    def unused() -> None:
        list(BELLS)

    def fine(event: Rung) -> None:
        names = {"a", "b"}
        if event.bell in names:
            names = sorted(names)
        for _ in {1, 2} | {3}:
            sorted(names)
        if event.bell == "never":
            unused()

    assert not told_of([fine])


def test_what_a_bus_calls_is_examined():
    """Its handlers subscribe in the function of the actors, and are named like others."""

    def see(event: Rung) -> None:
        SEEN.append(event.bell)

    def dice(event: Rung) -> None:
        random.random()

    def on_a_bus(handler: Any) -> Any:
        def actors(store: Any) -> list[Any]:
            Bus(store).subscribe(handler)
            return [task(lambda: store.append("Bell/3", Rung()), name="ring")]

        return actors

    assert "'SEEN' of see changed" in told_of(on_a_bus(see))
    assert "dice calls random.random()" in told_of(on_a_bus(dice))


def test_what_differs_in_the_second_run_is_told_where_its_source_is_not_seen():
    """Whatever it is: a run that is not like the first is no base for a proof."""
    turns = iter(range(99))
    note, world = noting(lambda: next(turns))
    assert "run twice without faults, it differs: 'table: " in told_of([note], world)


class Hung(Event):
    bell: str = "a"


def test_chance_is_named_where_only_a_second_try_of_another_kind_of_event_leads_to():
    """The first fault of each kind is watched for each type of event."""
    world = World()
    begun = world.table("begun")

    def handle(event: Rung | Hung, recorded: RecordedEvent[Any]) -> None:
        again = recorded.position in begun
        begun[recorded.position] = True
        if again and isinstance(event, Hung):
            random.random()

    history = [("Bell/1", Rung()), ("Bell/1", Hung())]
    with pytest.raises(Unsteady, match=r"handle calls random\.random"):
        unsteady(Scenario(history, [handle], faults=Faults(crash=1), world=world))


class Stamped(Event):
    id: uuid.UUID = Field(default_factory=uuid.uuid4)


class Model(BaseModel):
    at: float = Field(default_factory=time.time)


@pytest.mark.parametrize(("make", "called"), [(Stamped, "uuid.uuid4"), (Model, "time.time")])
def test_chance_in_the_defaults_of_a_model_is_named(make: Any, called: str):
    """It is pydantic that calls for it."""

    def note(event: Rung) -> None:
        make()

    assert f"note calls {called}() (line" in told_of([note])
    given = {"id": KNOWN} if make is Stamped else {"at": 1.0}

    def fine(event: Rung) -> None:
        make(**given)

    assert not told_of([fine])


class Dated(BaseModel):
    on: date = Field(default_factory=date.today)
    year: Any = Field(default_factory=partial(datetime.now, UTC))


@pydantic.dataclasses.dataclass
class DatedToo:
    on: date = Field(default_factory=date.today)


@pytest.mark.parametrize("make", [Dated, Dated.model_validate, DatedToo])
def test_a_coarse_clock_in_a_default_is_named_however_a_value_is_made(make: Any):
    """By validation as well, and where arguments go with the clock; values that are given need none."""
    day = date(2026, 1, 5)
    given = {"on": day} if make is DatedToo else {"on": day, "year": 1}

    def made(values: dict[str, Any]) -> Any:
        return make(values) if make == Dated.model_validate else make(**values)

    note, world = noting(lambda: made({"year": 1} if make is not DatedToo else {}).on.year)
    with pytest.raises(Unsteady, match=r"calls date\.today\(\)"):
        unsteady(Scenario([("Bell/1", Rung())], [note], world=world))
    if make is Dated:
        note, world = noting(lambda: make(on=day).year.year)
        with pytest.raises(Unsteady, match=r"calls datetime\.now\(\)"):
            unsteady(Scenario([("Bell/1", Rung())], [note], world=world))
    note, world = noting(lambda: made(given).on.year)
    assert not unsteady(Scenario([("Bell/1", Rung())], [note], world=world)).reserves


def made_by(make: Any) -> tuple[Any, World]:
    """Return a function of the store that makes a handler, which keeps what `make` has made with it."""
    world = World()
    table = world.table("table")

    def actors(store: Any) -> list[Any]:
        once = make()

        def note(event: Rung) -> None:
            table[event.bell] = str(once)

        return [note]

    return actors, world


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: random.random() > 2, "<lambda> calls random.random()"),
        (lambda: date.today().year, "<lambda> calls date.today()"),
        (lambda: [*{"x", "y"}], "<lambda> goes through a set in [*{'x', 'y'}]"),
        (lambda: Dated().on, "<lambda> calls datetime.now()"),
    ],
)
def test_what_makes_the_actors_is_watched_as_they_are(make: Any, told: str):
    """Whatever it makes once is theirs from then on."""
    assert told in told_of(*made_by(make))


def test_what_makes_the_actors_may_log_a_clock_and_sort_a_set():
    """Nothing comes of it."""

    def make() -> Any:
        logging.getLogger("made").info("at %s", time.perf_counter())
        return sorted({"x", "y"})

    assert not told_of(*made_by(make))


LOOKED: list[Any] = []


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda look: random.random() < 2, "<lambda> calls random.random()"),
        (lambda look: date.today().year < 2027, "<lambda> calls date.today()"),
        (lambda look: next(iter({"x", "y"})) == "x", "<lambda> goes through a set in iter({'x', 'y'})"),
        (lambda look: LOOKED.append(1) or len(LOOKED) < 2, "run twice without faults, it differs"),
    ],
)
def test_invariants_are_watched_as_well(check: Any, told: str):
    """What they hold by has to come from the log and the world."""
    note, world = noting(lambda: 1)
    with pytest.raises(Unsteady) as failed:
        unsteady(Scenario([("Bell/1", Rung())], [note], {"it is fine": check}, world=world))
    assert told in str(failed.value)


@pytest.mark.parametrize(
    "check",
    [
        lambda look: {*look.tables["table"]} == {"a"} or f"not {[*{'x', 'y'}]}",
        lambda look: f"lost { ({'x', 'y'}) }",
        lambda look: 1 / 0,
        lambda look: print(time.time()),
    ],
)
def test_invariants_may_say_what_they_like(check: Any):
    """Whether one holds matters; what else is wrong with it is told once the search comes to it."""
    note, world = noting(lambda: 1)
    assert not unsteady(Scenario([("Bell/1", Rung())], [note], {"it is fine": check}, world=world)).reserves


class Tagged(Event):
    tags: frozenset[str] = frozenset({"a", "b"})


def test_an_events_own_set_is_named():
    """Whatever was handed in is looked up as it is used."""
    world = World()
    table = world.table("table")

    def note(event: Tagged) -> None:
        for tag in event.tags:
            table["last"] = tag

    with pytest.raises(Unsteady, match=r"note goes through the set event\.tags"):
        unsteady(Scenario([("Bell/1", Tagged())], [note], world=world))


def test_a_profiler_may_watch_an_exploration():
    """One of Python's own goes on where it was interrupted."""
    note, world = noting(lambda: 1)
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        assert told_of([note], world) == ""
        assert sys.getprofile() is profiler
    finally:
        profiler.disable()


@pytest.mark.parametrize("last", [False, True])
def test_tasks_are_cancelled_in_any_order(last):
    """As a set has them; where what they do on their way out tells the order, that is found out."""
    world = World()
    table = world.table("table")

    async def wait(seconds: int) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            if last:
                table["last"] = seconds

    async def first(event: Rung) -> None:
        tasks = [asyncio.create_task(wait(seconds)) for seconds in (1, 5, 6)]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        await asyncio.wait(pending)

    told = told_of([first], world)
    assert told.startswith("first goes through the set pending") if last else not told
