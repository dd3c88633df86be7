"""Processes that do not follow a log: consumers of a queue, and functions that run by themselves."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Hashable
from datetime import timedelta
from typing import Any

from esim import display
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument, said
from esim.faults import FAILED
from esim.handler import handler_of, is_handler
from esim.player import Failing, Ground, Player
from esim.queues import Message
from esim.scenario import Consume, Task
from esim.virtual import pausing

_SKEW = timedelta(minutes=-90)


class Consumer(Player):
    """Takes messages of a queue, one at a time."""

    def __init__(self, stage: Ground, spec: Consume) -> None:
        """Consume as `spec` says. Raises InvalidArgument for a queue of another world."""
        super().__init__(stage, spec.name, spec.told())
        if stage.scenario.world.parts.get(spec.queue.name) is not spec.queue:
            raise InvalidArgument(
                f"{spec.name} consumes {spec.queue.name!r}, which is no queue of the simulated world: give "
                "world=… with the one that has made it; where a cell makes it anew, make the consumer anew"
            )
        self._spec, self._queue = spec, spec.queue
        self._handler = handler_of(spec.handler) if is_handler(spec.handler) else None
        self._message: Message | None = None
        self._taken = self._given_up = 0

    @property
    def cause(self) -> RecordedEvent[Any] | None:
        """The recorded event that is being handled, if the message is one."""
        body = self._message.body if self._message else None
        return body if isinstance(body, RecordedEvent) else None

    def ready(self) -> bool:
        """Say whether a message waits, or one is being handled."""
        return not self.waits() and (self._steps is not None or bool(self._queue.waiting()))

    def begin(self) -> Generator[Any, None, Any]:
        """Take a message, handle it, acknowledge it."""
        queue, waiting = self._queue, self._queue.waiting()
        told = [f"takes {_short(one)}" for one in waiting]
        message = self._message = waiting[self.stage.choose(told, "reorder", self.name)]
        body = queue.take(message, self.name)
        if self._spec.ack == "before":
            queue.acknowledge(message)
        self.stage.note(self.name, f"takes {_short(message)}")
        self._taken += 1
        yield "takes"
        for attempt in range(1, self._spec.attempts + 1):
            try:
                yield from pausing(self._call(body), self)
                break
            except Exception as error:  # noqa: BLE001 - a user's handler may raise anything
                self.stage.note(self.name, f"fails at {_short(message)}: {said(error)}", FAILED)
                if attempt == self._spec.attempts:
                    self.failure, self._given_up = said(error), self._given_up + 1
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

    def failing(self) -> Failing | None:
        """Return what it has given up."""
        if not self._given_up:
            return super().failing()
        told = f"{self.name} gives up {self._given_up} of {self._taken} messages: {self.failure}"
        return Failing(told, wholly=self._given_up == self._taken)

    def told_of(self, point: str) -> str:
        """Return a place in words; that it takes a message is told before."""
        return "is about to handle it" if point == "takes" else point

    def kinds(self, point: str) -> tuple[str, ...]:
        """Return what may go wrong at a place."""
        if point == "acknowledged":
            return "crash", "duplicate"
        return ("crash", "late", "delay") if point in ("takes", "awaits") else ("crash", "late")

    def suffer(self, fault: str) -> None:
        """Have the message delivered once more, later or while this one goes on."""
        if self._message is not None and fault == "duplicate":
            self._queue.again(self._message)
        elif fault == "late":
            self._queue.give_back(self.name)
        else:
            super().suffer(fault)

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
        return not self.waits() and not self.ended

    def kinds(self, point: Any) -> tuple[str, ...]:  # noqa: ARG002 - all are alike
        """Return what may go wrong at a place."""
        return "crash", "delay"

    def begin(self) -> Generator[Any, None, Any]:
        """Call the function; go from yield to yield, or from await to await.

        One that is started again is done only where that is noted: it may die before.
        """
        if self.stage.ask(("skew",), self.name, "90 minutes slow"):
            self.skew = self.stage.clock.skew = _SKEW
        if self.stage.ask(("delay",), self.name, "is about to begin"):
            self.suffer("delay")
            yield "begins late"
        result = self._spec.function()
        if inspect.isgenerator(result):
            yield from result
        else:
            yield from pausing(result, self)
        if self._spec.restart:
            yield "is about to end"

    def failed(self, error: Exception) -> None:
        """Begin anew after any error, if it is one that is started again."""
        super().failed(error)
        if self._spec.restart:
            self.stage.dead(self)

    def rested(self) -> None:
        """Be done."""
        self.ended, self.failure = "done", ""

    def die(self) -> None:
        """Begin anew, if it is one that is started again."""
        super().die()
        self.ended = "" if self._spec.restart else "dead"

    def kept(self) -> Hashable:
        """Return whether it ended, and how wrong its clock is."""
        return self.ended, self.skew

    def put_back(self, kept: Any) -> None:
        """Be what `kept` returned."""
        self.let_go()
        self.ended, self.skew = kept


def _short(message: Message) -> str:
    body = message.body
    return (
        f"{body.type} {body.position}"
        if isinstance(body, RecordedEvent)
        else display.cut(display.plain(body), 40)
    )
