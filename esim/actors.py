"""How actors of a scenario run on a stage: step by step, so that one may die, or be overtaken, between two.

A player is at work, with a generator on its way, or at rest. What it has in memory while it is at work is
lost when it dies; what it is at rest is told by a few plain values, to which it can be put back.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, cast

from esim import display
from esim.contract import Store
from esim.delivery import Delivery
from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.errors import said
from esim.faults import Crash, OutcomeUnknown, Unavailable
from esim.handler import HandlerOf, handler_of, is_handler
from esim.intake import Intake
from esim.parts import StageClock
from esim.points import Point
from esim.process import ProcessManager
from esim.scenario import Actor, Consume, Follow, Scenario, Task
from esim.subscription import Subscription
from esim.virtual import Coroutines, pausing
from esim.waiter import Waiter
from esim.world import Message

_SKEW = timedelta(minutes=-90)
_CRASH, _AT_HANDLE = ("crash",), ("crash", "error", "poison")
_PLACES = {
    "begin": "is about to take up {}",
    "handle": "is about to handle {}",
    "await": "awaits something, in {}",
    "handled": "has handled {}",
    "commit": "is about to commit {}",
    "committed": "committed {}",
    "retry": "will try {} again",
    "give up": "is about to give up {}",
    "send": "sends, up to {}",
    "retry effect": "will send again, up to {}",
    "tell": "is about to tell that a deadline is over, after {}",
    "told": "has told that a deadline is over, in {}",
}
"""The places of a delivery in words, by the name of their `Point`; a position comes in."""
_SHORT = {
    "begin": "before it begins",
    "handle": "before the handler",
    "await": "at an await",
    "handled": "after the handler",
    "commit": "before the commit",
    "committed": "after the commit",
    "retry": "before a retry",
    "give up": "before giving up",
    "send": "at the outbox",
    "retry effect": "before another sending",
    "tell": "before a deadline is told",
    "told": "after a deadline was told",
}


class Ground(Protocol):
    """The stage, as far as a player knows it."""

    store: Store
    clock: StageClock
    scenario: Scenario
    crashing: bool

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        """Return the kind of fault that happens here, or an empty text. Raises Crash."""
        ...

    def note(self, lane: str, told: str) -> None:
        """Remember what has happened."""
        ...

    def choose(self, options: Sequence[str], kind: str, lane: str) -> int:
        """Return which of several may go."""
        ...

    def service_for(self, function: Callable[..., Any]) -> Any:
        """Return a service of the world in place of a function that is not."""
        ...


class Player(ABC):
    """One process of a simulation."""

    subscription: Subscription | None = None
    skew = timedelta(0)
    """How wrong its clock is."""

    def __init__(self, stage: Ground, name: str, told: str) -> None:
        """Be the process `name` on a stage; `told` is what tells it from another."""
        self.stage, self.name, self.told = stage, name, told
        self._steps: Generator[Any, None, Any] | None = None
        self.ended = ""
        """Why it does not go on: it is done, dead, or it failed and how."""

    @property
    def goes_on(self) -> bool:
        """Whether it is at work, and waits for no time."""
        return self._steps is not None

    @property
    def working(self) -> bool:
        """Whether it is between the begin and the end of something."""
        return self._steps is not None

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The event that it handles, which is the cause of what it appends."""
        return None

    @abstractmethod
    def ready(self) -> bool:
        """Say whether it can go on now."""

    @abstractmethod
    def begin(self) -> Generator[Any, None, Any]:
        """Return the steps of what it does next."""

    def step(self) -> Any:
        """Go on to the next place where it may die, and return that; None if it has come to rest."""
        if self._steps is None:
            self._steps = self.begin()
        try:
            return next(self._steps)
        except StopIteration:
            self._steps = None
            self.rested()
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is told
            self._steps = None
            self.failed(error)
        return None

    def told_of(self, point: Any) -> str:
        """Return a place in words."""
        return str(point)

    @property
    def position(self) -> int:
        """The position of the event at hand; 0 if there is none."""
        return self.cause.position if self.cause else 0

    def place(self, lane: str) -> str:
        """Return in a few words where it may die now; `lane` is what it is about to change, or itself."""
        return "between its steps" if lane == self.name else f"before {lane}"

    def rested(self) -> None:  # noqa: B027 - most do nothing then
        """Come to rest."""

    def failed(self, error: Exception) -> None:
        """Go on no more, because of an error."""
        self.ended = f"failed: {said(error)}"
        self.stage.note(self.name, self.ended)

    def kinds(self, point: Any) -> tuple[str, ...]:  # noqa: ARG002 - others look at it
        """Return what may go wrong at a place."""
        return ("crash",)

    def suffer(self, fault: str) -> None:  # noqa: B027 - most have no more than crashes
        """Have something go wrong, other than a crash, at the place it has come to."""

    def die(self) -> None:
        """Lose what is in memory."""
        self.let_go()

    def let_go(self) -> None:
        """Drop the steps under way, as a crash does: nothing of them is finished or committed."""
        steps, self._steps = self._steps, None
        if steps is None:
            return
        self.stage.crashing = True  # so that no `finally` on the way out does anything
        try:
            steps.throw(Crash())
        except (Crash, StopIteration):
            pass
        finally:
            steps.close()
            self.stage.crashing = False

    def wakes(self) -> datetime | None:
        """Return when it wants to go on, if it waits for a time."""
        return None

    def kept(self, *, relative: bool) -> Hashable:  # noqa: ARG002 - others have times
        """Return what it is at rest; times as they are, or how far off they are."""
        return (self.ended,)

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended = kept[0]


class Follower(Player):
    """A subscription, by esim's own delivery code."""

    def __init__(self, stage: Ground, spec: Follow) -> None:
        """Subscribe on the stage's store."""
        mine = self.subscription = self._mine = _subscribed(stage, spec)
        super().__init__(stage, mine.name, spec.told())
        self._handler = self._watched(self._mine.handler)
        self._delivery: Delivery | None = None
        self._failing = False
        self._poisoned: frozenset[int] = frozenset()
        self._open: tuple[datetime, int] | None = None
        self._until: datetime | None = None
        self._last, self._at = "", 0
        at_least = self._mine._settings.checkpoint == "after_handler"
        self._again: tuple[str, ...] = ("crash", "duplicate") if at_least else ("crash",)

    @property
    def goes_on(self) -> bool:
        """Whether it is at work, and waits for no time."""
        return self._steps is not None and self._until is None

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The event that is being handled."""
        return self._delivery.effects.cause if self._delivery else None

    def ready(self) -> bool:
        """Say whether there is something to deliver, and it is not waiting, paused or stopped."""
        now = self.stage.clock._now
        if self._until is not None and now < self._until:
            return False
        self._until = None
        if self._steps is not None:
            return True
        if self.ended or (self._open is not None and now < self._open[0]):
            return False
        progress = self._mine._progress
        mark = progress.load()
        if mark.paused:
            return False
        return mark.position < self.stage.store.position or self._owes() or self._is_due(now)

    def _owes(self) -> bool:
        return self._mine._settings.outbox and bool(self._mine._progress.waiting("pending"))

    def _is_due(self, now: datetime) -> bool:
        manager = self._mine
        return isinstance(manager, ProcessManager) and any(due.due <= now for _, due in manager.due())

    def begin(self) -> Generator[Any, None, Any]:
        """Catch up, as the subscription does."""
        subscription, reached = self._mine, -1
        while True:
            delivery = self._delivery = self._made()
            yield from delivery.steps(self.stage.store.position)
            if not isinstance(subscription, ProcessManager) or delivery.open_until is not None:
                return
            yield from subscription._tell()
            if not subscription.lag or subscription.position == reached:
                return
            reached = subscription.position

    def _made(self) -> Delivery:
        stage, progress, settings = self.stage, self._mine._progress, self._mine._settings
        delivery = Delivery(
            *(stage.store, progress, self._handler, settings, self._sleep),
            waiter=cast("Waiter", Coroutines()),  # waits by the virtual clock
            effects=partial(_Effects, stage),
        )
        if self._open is not None:
            delivery.open_until, delivery._in_a_row = self._open[0].timestamp(), self._open[1]
        return delivery

    def _sleep(self, seconds: float) -> None:
        until = self.stage.clock._now + timedelta(seconds=seconds)
        if self._last in ("retry", "retry effect"):  # the next place comes before anything is done
            self._until = until
        else:
            self.stage.clock.jump(until)

    def told_of(self, point: Point) -> str:
        """Return a place in words: what comes next, and for which event."""
        found = self.stage.store.read(after=point.position - 1, until=point.position, limit=1).first()
        return _PLACES[point.name].format(f"{point.position} {found.type}" if found else point.position)

    @property
    def position(self) -> int:
        """The position of the event at hand."""
        return self._at

    def place(self, lane: str) -> str:
        """Return in a few words where it may die now."""
        return _SHORT[self._last] if lane == self.name else f"before {lane}"

    def kinds(self, point: Point) -> tuple[str, ...]:
        """Return what may go wrong at a place."""
        name, self._at = point
        self._last = name
        if name == "committed":
            return self._again
        return _AT_HANDLE if name == "handle" else _CRASH

    def suffer(self, fault: str) -> None:
        """Be handed an event once more, or fail at it."""
        if fault == "duplicate":
            self.let_go()
            progress = self._mine._progress
            mark = progress.load()
            before = self._last_wanted(mark.position) - 1
            progress.commit(mark._replace(position=before, begun=before))
        elif fault == "poison":
            self._poisoned |= {self._at}
        else:
            self._failing = True

    def _last_wanted(self, until: int) -> int:
        """Return the position of the last event up to `until` that is for this subscription."""
        settings = self._mine._settings
        intake = Intake(self.stage.store, settings.wanted, settings.partition, settings.batch)
        rows = [row[0] for batch in intake.batches(0, until, 0) for row, _ in batch.rows]
        return rows[-1] if rows else until

    def _watched(self, handler: HandlerOf) -> HandlerOf:
        """Return the handler with a way to have it fail."""
        faults = self.stage.scenario.faults
        if not (faults.error or faults.poison):
            return handler

        def watched(call: Callable[..., Any]) -> Callable[..., Any]:
            def one(recorded: RecordedEvent[Any], rows: Any, effects: Any) -> Any:
                if recorded.position in self._poisoned:
                    raise Unavailable(f"{self.name} cannot handle position {recorded.position}")
                if self._failing:
                    self._failing = False
                    raise Unavailable(f"{self.name} fails once")
                return call(recorded, rows, effects)

            return one

        return handler._replace(calls={type: watched(call) for type, call in handler.calls.items()})

    def rested(self) -> None:
        """Come to rest; an open circuit is remembered by the process."""
        delivery = self._delivery
        opened = delivery.open_until if delivery else None
        self._open = None
        if delivery is not None and opened is not None:
            self._open = datetime.fromtimestamp(opened, UTC), delivery._in_a_row

    def failed(self, error: Exception) -> None:
        """Stop for good if a handler did that; what the simulation has fail is a reason to begin anew."""
        if isinstance(error, Unavailable | OutcomeUnknown):
            self.stage.note(self.name, f"begins anew: {said(error)}")
            self.die()
        else:
            super().failed(error)

    def die(self) -> None:
        """Lose what is in memory: a circuit that is open, too."""
        super().die()
        self._open = self._until = None
        self._failing = False

    def wakes(self) -> datetime | None:
        """Return when a retry, an open circuit or a deadline is due."""
        manager = self._mine
        times = [at for at in (self._until, self._open and self._open[0]) if at is not None]
        if isinstance(manager, ProcessManager) and not self.ended:
            times += [due.due for _, due in manager.due()]
        now = self.stage.clock._now
        return min((at for at in times if at > now), default=None)

    def kept(self, *, relative: bool) -> Hashable:
        """Return why it stopped, what it cannot handle, and its open circuit."""
        opened: Any = self._open
        if relative and self._open is not None:
            opened = (self._open[0] - self.stage.clock._now, self._open[1])
        return self.ended, self._poisoned, opened

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended, self._poisoned, self._open = kept
        self._until, self._failing = None, False


class Consumer(Player):
    """Takes messages of a queue, one at a time."""

    def __init__(self, stage: Ground, spec: Consume) -> None:
        """Consume as `spec` says."""
        super().__init__(stage, spec.name, spec.told())
        self._spec, self._queue = spec, spec.queue
        self._handler = handler_of(spec.handler) if is_handler(spec.handler) else None
        self._message: Message | None = None

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The recorded event that is being handled, if the message is one."""
        body = self._message.body if self._message else None
        return body if isinstance(body, RecordedEvent) else None

    def ready(self) -> bool:
        """Say whether a message waits, or one is being handled."""
        return self._steps is not None or bool(self._queue.waiting())

    def begin(self) -> Generator[Any, None, Any]:
        """Take a message, handle it, acknowledge it."""
        queue, waiting = self._queue, self._queue.waiting()
        told = [f"takes {_short(one)}" for one in waiting]
        message = self._message = waiting[self.stage.choose(told, "reorder", self.name)]
        body = queue.take(message, self.name)
        if self._spec.ack == "before":
            queue.acknowledge(message)
        self.stage.note(self.name, f"takes {_short(message)}")
        yield "takes"
        for attempt in range(1, self._spec.attempts + 1):
            try:
                yield from pausing(self._call(body))
                break
            except Exception as error:  # noqa: BLE001 - a user's handler may raise anything
                self.stage.note(self.name, said(error))
                if attempt == self._spec.attempts:
                    self.stage.note(self.name, f"gives up {_short(message)}")
                yield "failed"
        yield "handled"
        if self._spec.ack == "after":
            queue.acknowledge(message)
        yield "acknowledged"

    def _call(self, body: Any) -> Any:
        if self._handler is None:
            return self._spec.handler(body)
        calls = self._handler.calls
        wanted = {one.event_type for one in self._handler.types}
        if wanted and body.type not in wanted:
            return None
        return (calls.get(body.type) or calls[""])(body, None, None)

    def told_of(self, point: str) -> str:
        """Return a place in words; that it takes a message is told before."""
        return "is about to handle it" if point == "takes" else point

    def kinds(self, point: str) -> tuple[str, ...]:
        """Return what may go wrong at a place."""
        return ("crash", "duplicate") if point == "acknowledged" else ("crash", "late")

    def suffer(self, fault: str) -> None:
        """Have the message delivered once more, later or while this one goes on."""
        if self._message is not None and fault == "duplicate":
            self._queue.again(self._message)
        elif fault == "late":
            self._queue.give_back(self.name)

    def die(self) -> None:
        """Lose what is in memory; the message at hand will come again."""
        super().die()
        self._queue.give_back(self.name)
        self._message = None


class Tasker(Player):
    """A function that runs by itself, once."""

    def __init__(self, stage: Ground, spec: Task) -> None:
        """Run what `spec` says."""
        super().__init__(stage, spec.name, spec.told())
        self._spec = spec

    def ready(self) -> bool:
        """Say whether it has not ended."""
        return not self.ended

    def begin(self) -> Generator[Any, None, Any]:
        """Call the function; go from yield to yield, or from await to await."""
        if self.stage.ask(("skew",), self.name, "90 minutes slow"):
            self.skew = self.stage.clock.skew = _SKEW
        result = self._spec.function()
        if inspect.isgenerator(result):
            yield from result
        else:
            yield from pausing(result)

    def rested(self) -> None:
        """Be done."""
        self.ended = "done"

    def die(self) -> None:
        """Begin anew, if it is one that is started again."""
        super().die()
        self.ended = "" if self._spec.restart else "dead"

    def kept(self, *, relative: bool) -> Hashable:  # noqa: ARG002 - it has no times
        """Return whether it ended, and how wrong its clock is."""
        return self.ended, self.skew

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended, self.skew = kept


class _Effects(Effects):
    """Effects that are carried out in the simulated world: a function that is not of it is only noted."""

    def __init__(self, stage: Ground, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return super().call(stand_in(self._stage, function), *args, **kwargs)


def stand_in(stage: Ground, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called in place of an effect's function: a service of the world, or a command."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, ProcessManager) or hasattr(function, "_service_"):
        return function
    found: Callable[..., Any] = stage.service_for(function)
    return found


def _subscribed(stage: Ground, spec: Follow) -> Subscription:
    options = dict(spec.options)
    if isinstance(spec.handler, type) and issubclass(spec.handler, ProcessManager):
        named = {"name": spec.name} if spec.name else {}
        return spec.handler(stage.store, options.pop("dispatcher", None), **named, **options)
    sends = [stand_in(stage, one) for one in options.pop("sends", ())]
    return Subscription(stage.store, spec.handler, spec.name, sends=sends, **options)


def player_of(stage: Ground, spec: Actor) -> Player:
    """Return the process that plays an actor."""
    match spec:
        case Follow():
            return Follower(stage, spec)
        case Consume():
            return Consumer(stage, spec)
        case Task():
            return Tasker(stage, spec)


def _short(message: Message) -> str:
    body = message.body
    return (
        f"{body.type} {body.position}"
        if isinstance(body, RecordedEvent)
        else display.cut(display.plain(body), 40)
    )
