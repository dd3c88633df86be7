"""Queues of the outside world: their messages are delivered at least once, and outlive who handles them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from esim import display
from esim.faults import OutcomeUnknown, Unavailable
from esim.frozen import frozen
from esim.part import Outside, Part, kept


@dataclass
class Message:
    """A message of a queue: what it says, and who handles it at present."""

    number: int
    body: Any
    taken: str | None = None


class Queue(Part):
    """Messages that wait to be delivered; one that is taken comes back unless it is acknowledged."""

    def __init__(self, world: Outside, name: str) -> None:
        """Begin empty."""
        self.name = name
        self._world = world
        self._messages: list[Message] = []
        self._count = 0

    def publish(self, body: Any) -> None:
        """Put a message into the queue."""
        gate, fault = self._world.gate, ""
        told = display.cut(_told(body), 60) if gate and gate.recording else ""
        if gate is not None:
            fault = gate.ask(("crash", "error", "unknown", "lost", "duplicate"), self.name, told)
        if fault == "error":
            raise Unavailable(f"{self.name} does not answer")
        body = kept(body)
        for _ in range(0 if fault == "lost" else 2 if fault == "duplicate" else 1):
            self._count += 1
            self._messages.append(Message(self._count, body))
        self.stale = True
        if gate is not None and fault != "lost":
            gate.note(self.name, told)
        if fault == "unknown":
            raise OutcomeUnknown(f"{self.name} has the message, and its answer is lost")

    def waiting(self) -> list[Message]:
        """Return the messages that nobody handles at present, in order."""
        return [one for one in self._messages if one.taken is None]

    def take(self, message: Message, by: str) -> Any:
        """Hand a message to a consumer, and return what it says."""
        message.taken, self.stale = by, True
        return kept(message.body)

    def acknowledge(self, message: Message) -> None:
        """Take a message out of the queue for good."""
        self._messages = [one for one in self._messages if one.number != message.number]
        self.stale = True

    def again(self, message: Message) -> None:
        """Have a message delivered once more, after all that wait."""
        self._count += 1
        self._messages.append(Message(self._count, message.body))
        self.stale = True

    def give_back(self, by: str | None = None) -> None:
        """Let messages that a consumer (or anybody) has taken be delivered once more."""
        for one in self._messages:
            if by in (None, one.taken):
                one.taken, self.stale = None, True

    def snapshot(self) -> tuple[list[tuple[int, Any, str | None]], int]:
        """Return the messages, and how many there were in all."""
        return [(one.number, one.body, one.taken) for one in self._messages], self._count

    def restore(self, state: tuple[list[tuple[int, Any, str | None]], int]) -> None:
        """Put back what `snapshot` returned."""
        self._messages, self._count = [Message(*one) for one in state[0]], state[1]

    def frozen(self) -> Hashable:
        """Return the messages in order."""
        return tuple([(frozen(one.body), one.taken) for one in self._messages])

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"<Queue {self.name}: {len(self._messages)} messages>"


def _told(body: Any) -> str:
    kind = getattr(body, "type", None)
    return f"{kind} {body.stream}" if isinstance(kind, str) else display.plain(body)
