"""How a subscription runs on a stage, step by step by esim's own delivery code; and who plays each actor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from esim.delivery import Delivery
from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.errors import said
from esim.faults import FAILED, OutcomeUnknown, Unavailable
from esim.handler import HandlerOf
from esim.intake import Intake
from esim.player import Failing, Ground, Player
from esim.points import Step
from esim.process import ProcessManager
from esim.scenario import Actor, Consume, Follow, Task
from esim.subscription import Subscription
from esim.virtual import Coroutines
from esim.waiter import Waiter
from esim.workers import Consumer, Tasker

_CRASH, _AT_AWAIT, _AT_HANDLE = ("crash",), ("crash", "delay"), ("crash", "error", "poison", "delay")
_PLACES = {
    "begin": "is about to take up {}",
    "handle": "is about to handle {}",
    "await": "awaits something, in {}",
    "handled": "has handled {}",
    "commit": "is about to commit {}",
    "committed": "committed {}",
    "retry": "will try {} again",
    "give up": "gives up {}",
    "send": "sends, up to {}",
    "retry effect": "will send again, up to {}",
    "tell": "is about to tell that a deadline is over, after {}",
    "told": "has told that a deadline is over, in {}",
}
"""The places of a delivery in words, by their names in `esim.points`; a position comes in."""
_PARKED = "{} is a dead letter now"
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


class Follower(Player):
    """A subscription, by esim's own delivery code."""

    def __init__(self, stage: Ground, spec: Follow) -> None:
        """Subscribe on the stage's store."""
        mine = self.subscription = self._mine = _subscribed(stage, spec)
        super().__init__(stage, mine.name, spec.told())
        self._handler = self._watched(self._mine.handler)
        self._effects = partial(_Effects, stage)
        self._delivery: Delivery | None = None
        self._failing = False
        self._poisoned: frozenset[int] = frozenset()
        self._open: tuple[datetime, int] | None = None
        self._last, self._at = "", 0
        self._given_up: set[int] = set()
        at_least = self._mine._settings.checkpoint == "after_handler"
        self._again: tuple[str, ...] = ("crash", "duplicate") if at_least else ("crash",)

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The event that is being handled."""
        return self._delivery.effects.cause if self._delivery else None

    def ready(self) -> bool:
        """Say whether there is something to deliver, and it is not waiting, paused or stopped."""
        if self.waits():
            return False
        if self._steps is not None:
            return True
        now = self.stage.clock._now
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
            waiter=cast("Waiter", Coroutines(self, stage.clock)),  # waits by the virtual clock
            effects=self._effects,
        )
        if self._open is not None:
            delivery.open_until, delivery._in_a_row = self._open[0].timestamp(), self._open[1]
        return delivery

    def _sleep(self, seconds: float) -> None:
        if self._last in ("retry", "retry effect"):  # the next place comes before anything is done
            self.sleep(seconds)
        else:
            self.stage.clock.sleep(seconds)

    def told_of(self, point: Step) -> str:
        """Return a place in words: what comes next, and for which event."""
        name, position = point
        parked = name == "handled" and self._delivery is not None and self._delivery.parks(position)
        return (_PARKED if parked else _PLACES[name]).format(self._named(position))

    def _named(self, position: int) -> str:
        found = self.stage.store.read(after=max(position, 1) - 1, until=position, limit=1).first()
        return f"{position} {found.type}" if found else str(position)

    @property
    def position(self) -> int:
        """The position of the event at hand."""
        return self._at

    def place(self, lane: str) -> str:
        """Return in a few words where it may die now."""
        return _SHORT[self._last] if lane == self.name else f"before {lane}"

    def kinds(self, point: Step) -> tuple[str, ...]:
        """Return what may go wrong at a place."""
        name, self._at = point
        self._last = name
        if name == "handle":
            return _AT_HANDLE
        if name in ("retry", "give up") and self._delivery is not None and self.stage.recording:
            self.stage.note(self.name, f"fails at {self._named(self._at)}: {self._delivery.failure}", FAILED)
        if name == "committed":
            return self._again
        if name == "await":
            return _AT_AWAIT
        if name == "give up":
            self._given_up.add(self._at)
        return _CRASH

    def failing(self) -> Failing | None:
        """Return what of its events it has given up; not what was handled after all, as a dead letter."""
        mine = self._mine
        letters = mine._progress.letters()
        parked = {letter.position for letter in letters}
        lost = parked if mine._settings.on_exhausted == "dead_letter" else self._given_up
        if not lost:
            return super().failing()
        wanted = self._wanted(0, self.stage.store.position)
        done = [position for position in wanted if position <= mine.position and position not in lost]
        why = [f": {one.cause_type}: {one.cause_message}" for one in letters if one.cause_type]
        why += [f": {self.failure}"] if self.failure else [""]
        return Failing(f"{self.name} gives up {len(lost)} of {len(wanted)} events{why[0]}", wholly=not done)

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
        elif fault == "error":
            self._failing = True
        else:
            super().suffer(fault)

    def _wanted(self, after: int, until: int) -> list[int]:
        """Return the positions of the events between two that are for this subscription."""
        settings = self._mine._settings
        intake = Intake(self.stage.store, settings.wanted, settings.partition, until + 1)
        return [row[0] for batch in intake.batches(after, until, 0) for row, _ in batch.rows]

    def _last_wanted(self, until: int) -> int:
        """Return the position of the last event up to `until` that is for this subscription, or `until`."""
        back = (position for position in range(until, 0, -1) if self._wanted(position - 1, position))
        return next(back, until)

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
        self._open = None
        self._failing = False

    def wakes(self) -> datetime | None:
        """Return when a retry, an open circuit or a deadline is due."""
        manager = self._mine
        times = [at for at in (self.until, self._open and self._open[0]) if at is not None]
        if isinstance(manager, ProcessManager) and not self.ended:
            times += [due.due for _, due in manager.due()]
        now = self.stage.clock._now
        return min((at for at in times if at > now), default=None)

    def kept(self) -> Hashable:
        """Return why it stopped, what it cannot handle, and its open circuit."""
        return self.ended, self._poisoned, self._open

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended, self._poisoned, self._open = kept
        self._failing = False


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


def players_of(stage: Ground, actors: Sequence[Actor]) -> list[Player]:
    """Return the processes that play actors, each under a name of its own."""
    players = [_player_of(stage, one) for one in actors]
    taken: dict[str, int] = {}
    for player in players:
        taken[player.name] = taken.get(player.name, 0) + 1
        if taken[player.name] > 1:
            player.name = f"{player.name} {taken[player.name]}"
    return players


def _player_of(stage: Ground, spec: Actor) -> Player:
    match spec:
        case Follow():
            return Follower(stage, spec)
        case Consume():
            return Consumer(stage, spec)
        case Task():
            return Tasker(stage, spec)
