"""What every process of a simulation is: at work, with a generator on its way, or at rest.

What it has in memory while it is at work is lost when it dies; what it is at rest is told by a few plain
values, to which it can be put back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from esim import display
from esim.contract import Store
from esim.envelope import RecordedEvent
from esim.errors import Conflict, InvalidArgument, Refused, said
from esim.faults import FAILED, Crash
from esim.parts import StageClock
from esim.scenario import Scenario
from esim.subscription import Subscription
from esim.volatile import Memory
from esim.world import World

_LATE = 3600.0  # seconds
_LINE = 300  # characters of what a process failed at are told


class Ground(Protocol):
    """The stage, as far as a player knows it."""

    store: Store
    clock: StageClock
    scenario: Scenario
    crashing: bool
    recording: bool

    def ask(self, kinds: tuple[str, ...], lane: str, told: str) -> str:
        """Return the kind of fault that happens here, or an empty text. Raises Crash."""
        ...

    def note(self, lane: str, told: str, fault: str = "") -> None:
        """Remember what has happened, and whether it is a fault, or `FAILED`."""
        ...

    def choose(self, options: Sequence[str], kind: str, lane: str) -> int:
        """Return which of several may go."""
        ...

    def dead(self, player: Player) -> None:
        """Have a process die, and what was in its memory be lost."""
        ...

    def service_for(self, function: Callable[..., Any]) -> Any:
        """Return a service of the world in place of a function that is not."""
        ...


class Failing(NamedTuple):
    """What a process failed at in a run, and whether it did nothing else."""

    told: str
    wholly: bool


class Player(ABC):
    """One process of a simulation."""

    subscription: Subscription | None = None
    skew = timedelta(0)
    """How wrong its clock is."""

    def __init__(self, stage: Ground, name: str, told: str) -> None:
        """Be the process `name` on a stage; `told` is what tells it from another."""
        self.stage, self.name, self.told = stage, name, told
        self._steps: Generator[Any, None, Any] | None = None
        self.until: datetime | None = None
        """When it goes on, if it waits between its steps for a time."""
        self._idle: Callable[[], bool] | None = None
        """Says whether there is nothing to do still, if it waits for another."""
        self.ended = ""
        """Why it does not go on: it is done, dead, or it failed and how."""
        self.failure = ""
        """The error for which it stopped last; that it was refused, or that others came first, is none."""

    @property
    def goes_on(self) -> bool:
        """Whether it is at work, and waits for no time."""
        return self._steps is not None and self.until is None and self._idle is None

    @property
    def working(self) -> bool:
        """Whether it is between the begin and the end of something."""
        return self._steps is not None

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The event that it handles, which is the cause of what it appends."""
        return None

    def waits(self) -> bool:
        """Say whether the time has not come yet, or what another is to do, for which it waits."""
        if self.until is not None and self.until <= self.stage.clock._now:
            self.until = None
        if self._idle is not None and not self._idle():
            self._idle = None
        return self.until is not None or self._idle is not None

    def block(self, idle: Callable[[], bool]) -> bool:
        """Wait for another while it is `idle`; the stage sees it if there is none that goes on."""
        self._idle = idle
        return True

    def time(self) -> float:
        """Return the time in seconds, from whenever on."""
        return self.stage.clock.time()

    def sleep(self, seconds: float) -> None:
        """Go on after a time, and let others go on meanwhile."""
        self.until = self.stage.clock._now + timedelta(seconds=seconds)

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
        self.failure = "" if isinstance(error, Refused | Conflict) else said(error)
        self.stage.note(self.name, self.ended, FAILED)

    def failing(self) -> Failing | None:
        """Return what it has failed at in the run so far, if at anything."""
        if not self.failure:
            return None
        return Failing(f"{self.name} ends by an error: {self.failure}", wholly=True)

    def kinds(self, point: Any) -> tuple[str, ...]:  # noqa: ARG002 - others look at it
        """Return what may go wrong at a place."""
        return ("crash",)

    def suffer(self, fault: str) -> None:
        """Have something go wrong, other than a crash, at the place it has come to."""
        if fault == "delay":
            self.sleep(_LATE)

    def die(self) -> None:
        """Lose what is in memory."""
        self.let_go()

    def let_go(self) -> None:
        """Drop the steps under way, as a crash does: nothing of them is finished or committed."""
        steps, self._steps, self.until, self._idle = self._steps, None, None, None
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
        return self.until

    def kept(self) -> Hashable:
        """Return what it is at rest."""
        return (self.ended,)

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended = kept[0]


def failing(players: Sequence[Player]) -> list[Failing]:
    """Return what processes have failed at, each in a line."""
    found = [one.failing() for one in players]
    return [one._replace(told=display.cut(" ".join(one.told.split()), _LINE)) for one in found if one]


def must_remember(players: Sequence[Player], world: World) -> None:
    """Raise InvalidArgument if something of the world is said to be the memory of who is not there."""
    names = [one.name for one in players]
    for part in world.parts.values():
        if isinstance(part, Memory) and part.of is not None and part.of not in names:
            raise InvalidArgument(
                f"{part.name!r} is the memory of {part.of!r}, and no process is called so"
                f"{display.did_you_mean(part.of, names)}"
            )
