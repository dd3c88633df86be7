"""A scenario set up on a store, to be run as often as a simulation asks, each time from any earlier moment.

One schedule is a sequence of choices, made by a `Driver` at the places where something may go wrong, or where
another process may go first. Your handlers and esim's own delivery code run as they are; only the places
where they write, call, append and commit ask the stage whether they may. A process that dies loses what it
had in memory: its generator is thrown away, and begun anew from what is kept.

References: choice sequences as in D. MacIver's "Hypothesis"; systematic schedules as in P. Godefroid's
"VeriSoft", and M. Musuvathi and S. Qadeer's "CHESS".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, cast

from esim.actors import players_of
from esim.bus import Bus
from esim.contract import Snapshot, Store
from esim.effects import name_of
from esim.envelope import Reacting
from esim.errors import InvalidArgument, said
from esim.faults import FAILED, Crash, ForeignWorld, OutcomeUnknown, Stuck
from esim.invariant import Look
from esim.memory import MemoryStore
from esim.part import Part
from esim.parts import CountedIds, Kept, Log, StageClock, restore
from esim.player import Player, must_remember
from esim.reading import Recorded
from esim.scenario import Scenario
from esim.service import Service, anything
from esim.subscription import Subscription, latest
from esim.virtual import Coroutines
from esim.volatile import Memory
from esim.waiter import Waiter
from esim.writing import Batch

WHO = "who goes on"
"""The lane of the choice between processes."""
MOST_STEPS = 10_000
STEPS_OF_AN_EVENT = 100
"""Steps after which a run is said to have no end: so many, and for each process and event of its history."""
_RIGHT = timedelta(0)
_OFTEN = 64
"""Steps between two looks at whether the time is over."""


class TimeIsOver(Exception):
    """A search has no more time, and ends in the middle of a run."""


class Driver(Protocol):
    """Who makes the choices of a run."""

    records: bool
    """Whether it reads what it is told of the run."""
    watches: bool
    """Whether it wants to look at each state."""

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:
        """Return the number of the option that is taken; 0 is that all goes well, or in order."""
        ...

    def rest(self, stage: Stage) -> bool:
        """Say whether the run goes on from here, where no process is at work."""
        ...

    def step(self, stage: Stage) -> bool:
        """Say whether the run goes on, after a step and before each write, call and append in one."""
        ...

    def note(self, stage: Stage, lane: str, told: str, fault: str) -> None:
        """Be told what has happened."""
        ...


class Moment(NamedTuple):
    """A moment between two steps at which no process is at work."""

    parts: tuple[Any, ...]
    known: tuple[int, ...]
    left: tuple[int, ...]
    players: tuple[Hashable, ...]
    now: datetime
    choices: int
    died: tuple[int, str] | None = None


class _Left(NamedTuple):
    """What follows from how many faults are left: what can happen, by what could; how many are left then."""

    options: dict[tuple[str, ...], tuple[str, ...]]
    after: dict[str, tuple[int, ...]]


class Stage:
    """A scenario on a store; see the module's text."""

    recording = sheltered = False
    over: Callable[[], bool] | None = None
    """Says whether the time of a search is over."""
    _pause = 0
    _stuck = ""

    def __init__(self, scenario: Scenario, store: Store | None = None, *, begun: bool = False) -> None:
        """Set a scenario up, on a fresh store in memory or on a given one, empty unless it is `begun`."""
        self.scenario, self.world = scenario, scenario.world
        self.clock, self.ids = StageClock(), CountedIds()
        self.store = MemoryStore() if store is None else store
        self.store.clock, self.store.ids = self.clock, self.ids
        scenario.begin()
        if scenario.rows and not begun:
            restore(self.store, scenario.rows)
        if scenario.history and not begun:
            self.store.append_all(scenario.history)
        self.world.owner = self
        self.driver: Driver
        self.left: dict[str, int] = {}
        self._worked_out: dict[tuple[int, ...], _Left] = {}
        self._options, self._after = _Left({}, {})
        self._over = self._stopped = False
        self.at: Player | None = None
        self.crashing = False
        """Whether a process is on its way out: nothing that it does has any effect."""
        self.steps = self.choices = 0
        self._commit, self._save = self.store._commit, self.store.save_snapshot
        self._reacting = Reacting(lambda: None if self.at is None else self.at.cause)
        self.parts: list[Part] = list(self.world.parts.values())
        self._by_name: dict[str, Part] = dict(self.world.parts)
        self.services: dict[str, Any] = {}
        self._first: list[Any] = []
        self._pictures: list[Any] = []
        self._fresh: list[bool] = []
        self._known: list[int] = []
        self.actors = scenario.built(self.store)
        for bus in self._buses():
            bus._waiter = cast("Waiter", Coroutines(plain=self.clock))  # waits by the virtual clock
        self.players: list[Player] = players_of(self, self.actors)
        must_remember(self.players, scenario.world)
        self.subscriptions = self._subscribed()
        self.kept: list[Part] = []
        self.memories = [part for part in self.parts if isinstance(part, Memory)]
        if isinstance(self.store, MemoryStore):
            log = Log(self.store, self.ids)
            by_name = {one.name: one for one in self.subscriptions.values()}
            self.kept = [log, *(Kept(self.store, one) for one in by_name.values())]
            self.parts += self.kept
            self._log: Log | None = log
        else:
            self._log = None
        self.look = Look(self.store, self._by_name, self.subscriptions)
        self.fingerprint = scenario.fingerprint(one.told for one in self.players)
        self.most_steps = MOST_STEPS + STEPS_OF_AN_EVENT * self.store.position * len(self.players)
        self._interned: dict[Hashable, int] = {}
        self._take_pictures()

    def _subscribed(self) -> dict[str, Subscription]:
        """Return the subscriptions of the players, and those that the scenario has made for its tasks."""
        found = {one.name: one.subscription for one in self.players if one.subscription is not None}
        known = {one.name for one in found.values()}
        return found | {name: made for name, made in latest(self.store).items() if name not in known}

    def _take_pictures(self) -> None:
        self._known = [0] * len(self.parts)
        for part in self.parts:
            part.stale = True
        self._pictures = [part.snapshot() for part in self.parts]
        self._fresh = [True] * len(self.parts)
        self._first = list(self._pictures)

    def service_for(self, function: Callable[..., Any]) -> Any:
        """Return a service of the world in place of a function that is not: its calls are noted, not done."""
        name = name_of(function)
        if name not in self.services:
            part = self._by_name.get(name)
            stand_in = part if isinstance(part, Service) else self.stand_in(name)
            self.services[name] = stand_in.function(None if name in self.world.parts else function)
        return self.services[name]

    def stand_in(self, name: str) -> Service:
        """Return a new service in place of a function of this name that is not of the world."""
        part = self._by_name[name] = Service(self.world, anything(name), None, 3)
        self.parts.append(part)
        self._first.append(part.snapshot())
        self._pictures.append(self._first[-1])
        self._fresh.append(True)
        self._known.append(0)
        return part

    # --- one run -------------------------------------------------------------------------------------------

    def play(self, driver: Driver, moment: Moment | None = None) -> bool:
        """Run from a moment until nothing is left to do; say whether it came to that.

        Raises InvalidArgument if a handler uses another world than the scenario's.
        """
        self.driver, self.recording = driver, driver.records
        if moment is not None:
            self.back_to(moment)
        self.store._commit = self._appended  # type: ignore[method-assign]  # a place where things go wrong
        self.store.save_snapshot = self._saved  # type: ignore[method-assign]  # and so is this
        self.steps, self._pause, self._stuck = 0, 0, ""
        try:
            with self.world.simulated(self), self._reacting:
                try:
                    return self._play()
                finally:
                    for player in self.players:
                        player.let_go()
        except Stuck:
            return False
        except ForeignWorld as foreign:
            raise InvalidArgument(str(foreign)) from None
        finally:
            self.store._commit = self._commit  # type: ignore[method-assign]
            self.store.save_snapshot = self._save  # type: ignore[method-assign]

    def _play(self) -> bool:
        current: Player | None = None
        driver, watched = self.driver, self.driver.watches
        while True:
            if current is None or not current.goes_on or self.left["preempt"]:
                current = self._next(current)
                if current is None:
                    return self._over
            self._step(current)
            if watched and not driver.step(self):
                return False
            self.steps += 1
            if self.steps > self._pause and not self._may_go_on():
                return False

    def _may_go_on(self) -> bool:
        """Say whether the run may take more steps. Raises TimeIsOver."""
        if self.over is not None and self.over():
            raise TimeIsOver
        self._pause = min(self.steps + _OFTEN, self.most_steps)
        return self.steps <= self.most_steps

    def _next(self, current: Player | None) -> Player | None:
        """Return who takes the next step; None where the run is over, or goes on no further."""
        players, self._over = self.players, False
        for one in players:
            if one.working:
                break
        else:
            current = None
            if not self.driver.rest(self):
                return None
        ready = [one for one in players if one.ready()]
        while not ready and self._later():
            ready = [one for one in players if one.ready()]
        if not ready:
            self._over = not self._wait_for_ever([one for one in players if one.working])
            return None
        if current not in ready:
            current = ready[0]
        return self._chosen(current, ready) if self.left["preempt"] else current

    def _wait_for_ever(self, players: Sequence[Player]) -> bool:
        """Note that processes wait for what none of the others does, and nobody frees them; say if any do."""
        names = [one.name for one in players]
        for name in names:
            self.note(name, "waits for ever", FAILED)
        if names:
            self._stuck = f"{' and '.join(names)} wait{'s' * (len(names) == 1)} for what never comes"
        return bool(names)

    def endless(self) -> str:
        """Return why the last run has no end, if it has none."""
        return f"no end after {self.most_steps:,} steps" if self.steps > self.most_steps else self._stuck

    def _chosen(self, current: Player, ready: list[Player]) -> Player:
        """Return who goes on: `current`, or another that could; or who waits for a time, which passes."""
        waiting = [(one, at) for one in self.players if one not in ready and (at := one.wakes()) is not None]
        order = [current, *(one for one in ready if one is not current), *(one for one, _ in waiting)]
        if len(order) == 1:
            return current
        index = self.driver.pick(self, [one.name for one in order], WHO, "")
        self.choices += 1
        if index:
            self.left["preempt"] -= 1
            self._changed_left()
            at = dict(waiting).get(order[index], self.clock._now)
            told = f"{at - self.clock._now} later" if at > self.clock._now else ""
            self.driver.note(self, order[index].name, told, "preempt")
            self.clock.jump(at)
        return order[index]

    def _step(self, player: Player) -> None:
        self.at = player
        if player.skew:
            self.clock.skew = player.skew
        try:
            point = player.step()
            if self.crashing:  # a handler that swallows everything has died all the same
                raise Crash  # noqa: TRY301 - it is dead like any other
            if point is not None:
                kinds, told = player.kinds(point), ""
                if self.recording:
                    told = player.told_of(point)
                    self.driver.note(self, player.name, told, "")
                fault = self._fault(kinds, player.name, told)
                if fault:
                    player.suffer(fault)
        except Stuck:
            self._wait_for_ever([player])
            raise
        except Crash:
            if self._stopped:
                self._stopped = self.crashing = False
            else:
                self.dead(player)
        except BaseException as error:
            self._must_be_exception(error, player)
            raise
        finally:
            self.clock.skew = _RIGHT
            self.at = None

    def _must_be_exception(self, error: BaseException, player: Player) -> None:
        """Raise InvalidArgument if code has raised what is none, and what nobody else is told by."""
        ours = isinstance(error, Exception | KeyboardInterrupt | ForeignWorld) or self.world._elsewhere
        if not ours:
            raise InvalidArgument(
                f"{player.name} raises {said(error)}; that is no Exception: it ends a process, or a task, "
                "and is no failure to try again after; raise an Exception, or return"
            ) from None

    def dead(self, player: Player) -> None:
        """Have a process die, and what was in its memory be lost."""
        self.crashing = False
        player.die()
        for memory in self.memories:
            if memory.of in (None, player.name):
                memory.lose()
        self._bus_anew()

    def _bus_anew(self) -> None:
        """Have each bus of the store know nothing but what comes from now on."""
        for bus in self._buses():
            bus.begin_anew()

    def _buses(self) -> list[Bus]:
        listeners = [getattr(one, "__self__", None) for one in self.store._listeners]
        return [one for one in listeners if isinstance(one, Bus)]

    def _later(self) -> bool:
        """Move the clock on to when the next process wants to go on; say whether there is one."""
        times = [
            at for at in (one.wakes() for one in self.players) if at is not None and at > self.clock.now()
        ]
        if times:
            self.clock.jump(min(times))
        return bool(times)

    # --- the places where things go wrong ------------------------------------------------------------------

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        """Return the kind of fault that happens here, or an empty text. Raises Crash for a crash.

        What was written before is a state of its own: where the driver stops there, nothing more is done.
        """
        if self.sheltered:  # a service does its work as a whole
            return ""
        if self.driver.watches and not self.crashing and not self.driver.step(self):
            self._stopped = self.crashing = True
        return self._fault(kinds, lane, told)

    def _fault(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        if self.crashing:
            raise Crash
        options = self._options.get(kinds)
        if options is None:
            options = self._options[kinds] = ("", *(kind for kind in kinds if self.left[kind]))
        if len(options) == 1 or self.at is None:
            return ""
        index = self.driver.pick(self, options, lane, told)
        self.choices += 1
        if not index:
            return ""
        fault = options[index]
        self.left[fault] -= 1
        self._changed_left()
        if fault == "crash":
            self._note_crash(self.at, lane)
            self.crashing = True
            raise Crash
        self.driver.note(self, lane, told, fault)
        return fault

    def _note_crash(self, player: Player, lane: str) -> None:
        at = f", at {player.position}" if player.position else ""
        self.driver.note(self, player.name, f"{player.place(lane)}{at}", "crash")

    def note(self, lane: str, told: str, fault: str = "") -> None:
        """Remember what has happened, for a timeline."""
        self.driver.note(self, lane, told, fault)

    def choose(self, options: Sequence[str], kind: str, lane: str) -> int:
        """Return which of several may go; to take another than the first costs one of a `kind` of fault."""
        if len(options) < 2 or not self.left[kind]:  # noqa: PLR2004 - one is no choice
            return 0
        index = self.driver.pick(self, options, lane, "")
        self.choices += 1
        if index:
            self.left[kind] -= 1
            self._changed_left()
            self.driver.note(self, lane, options[index], kind)
        return index

    def _appended(self, batch: Batch) -> Recorded:
        self.world.must_be_here("log")
        told = ", ".join(f"{draft.type} → {draft.stream}" for draft in batch.drafts) if self.recording else ""
        fault = self.ask(("crash", "unknown"), "log", told)
        recorded = self._commit(batch)
        if self._log is not None:
            self._log.stale = True
        self.note("log", told)
        if fault == "unknown":
            raise OutcomeUnknown(f"{told}: whether it was appended is not known")
        return recorded

    def _saved(self, snapshot: Snapshot) -> None:
        told = f"snapshot of {snapshot.stream} at {snapshot.version}" if self.recording else ""
        self.ask(("crash",), "log", told)
        self._save(snapshot)
        if self._log is not None:
            self._log.stale = True
        self.note("log", told)

    # --- moments -------------------------------------------------------------------------------------------

    def key(self) -> tuple[Hashable, ...]:
        """Return what tells the state that is kept from another: equal for equal states.

        The time is a part of it, as any table, message or answer may hold one to compare it with.
        """
        interned = self._interned
        for index, part in enumerate(self.parts):
            if part.stale or part.volatile:  # what is in memory may change without anybody's notice
                part.stale = False
                self._fresh[index] = False
                found = index, part.frozen()
                self._known[index] = interned.setdefault(found, len(interned))
        return self.clock._now, *self._known

    def _changed_left(self) -> None:
        """Use what was worked out from how many faults are left now, not from how many there were."""
        left = tuple(self.left.values())
        found = self._worked_out.get(left)
        if found is None:
            found = self._worked_out[left] = _Left({}, {})
        self._options, self._after = found

    def left_after(self, kind: str) -> tuple[int, ...]:
        """Return how many faults of each kind are left once one of a `kind` has happened."""
        found = self._after.get(kind)
        if found is None:
            left = {**self.left, kind: self.left[kind] - 1}
            found = self._after[kind] = tuple(left.values())
        return found

    def rest_key(self) -> tuple[tuple[Hashable, ...], tuple[int, ...], tuple[Hashable, ...]]:
        """Return what tells a moment at which no process is at work from another: the state comes first.

        Raises InvalidArgument if a subscription was made on the way, of which the stage knows nothing.
        """
        if self.kept and len(latest(self.store)) >= len(self.kept):
            strange = ", ".join(sorted(set(latest(self.store)) - set(self.subscriptions)))
            raise InvalidArgument(
                f"{strange}: a subscription is made "
                "while the simulation runs; make it where the actors are made, in actors(store)"
            )
        players = tuple([one.kept() for one in self.players])
        return self.key(), tuple(self.left.values()), players

    def moment(self, died: tuple[int, str] | None = None) -> Moment:
        """Return the present moment, to come back to, or that after the next choice: somebody has `died`."""
        self.key()
        for index, fresh in enumerate(self._fresh):
            if not fresh:
                self._pictures[index] = self.parts[index].snapshot()
                self._fresh[index] = True
        players = tuple([one.kept() for one in self.players])
        left = tuple(self.left.values()) if died is None else self.left_after(died[1])
        now, choices = self.clock._now, self.choices + (died is not None)
        return Moment(tuple(self._pictures), tuple(self._known), left, players, now, choices, died)

    def back_to(self, moment: Moment) -> None:
        """Stand at an earlier moment; a process that died then has died."""
        pictures, known = moment.parts, moment.known
        new = len(self.parts) - len(known)  # stand-ins that were made since
        if new:
            pictures, known = (*pictures, *self._first[-new:]), (*known, *[0] * new)
        if self.world.owner is not self:  # another stage has used it since
            self.world.owner, self._fresh = self, [False] * len(self.parts)
        for index, picture in enumerate(pictures):
            part = self.parts[index]
            if part.stale or part.volatile or not self._fresh[index] or self._pictures[index] is not picture:
                part.restore(picture)
                part.stale = False
                self._pictures[index] = picture
                self._fresh[index] = True
        self._known = list(known)
        self.left = dict(zip(self.left, moment.left, strict=True))
        self._changed_left()
        for player, kept in zip(self.players, moment.players, strict=True):
            player.put_back(kept)
        self.clock.jump(moment.now)
        self._bus_anew()
        self.choices = moment.choices
        if moment.died is not None:
            player = self.players[moment.died[0]]
            if moment.died[1] == "crash":
                self.dead(player)
            else:
                player.suffer(moment.died[1])

    def begin(self, left: dict[str, int]) -> Moment:
        """Return the first moment, with what may go wrong from there on."""
        self.left = dict(left)
        self._changed_left()
        self.first = self.moment()
        return self.first
