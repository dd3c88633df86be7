"""An in-memory bus that is a view on the log: what it delivers is stored, and what is stored is delivered.

There is no second way in: publishing is appending, and every append to the store, by whichever code, reaches
the subscribers, as a rule before the append returns. Where events are being delivered already (a handler
appends, or another thread has appended just before), it returns at once, and whoever delivers goes on with
these, in order: to wait there could be to wait for oneself. What an interrupt leaves undelivered comes with
the next append. Nothing of the bus survives the process; a `Subscription` does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esim import display
from esim.contract import Store, must_be_store
from esim.envelope import Reacting, RecordedEvent, Row
from esim.errors import InvalidArgument, UpcasterFailed, said
from esim.event import Event, current
from esim.handler import HandlerOf, handler_of
from esim.query import Filter
from esim.reading import Recorded
from esim.upcast import sources, upcast
from esim.waiter import Waiter
from esim.writing import Events, Expected, Write

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("esim.bus")


@dataclass(frozen=True)
class Failure:
    """A handler that raised, the event it was given, and the error.

    Or the handler that waited for an event whose upcaster raised; then it is as it was stored.
    """

    handler: str
    recorded: RecordedEvent[Any]
    error: Exception


@dataclass(eq=False)
class _Subscriber:
    given: Any
    handler: HandlerOf
    types: frozenset[str]


class Bus:
    """Hands every event that is appended to a store to the functions that subscribed to its type.

    They are called in order of position, one event at a time, by one thread at a time; async ones are
    awaited. One that raises stops no other: what it raised is logged, and kept in `failures`.
    """

    def __init__(self, store: Store) -> None:
        """Attach to `store`, from its present head on, until `close()`."""
        self.store = must_be_store(store)
        self.failures: list[Failure] = []
        self._subscribers: list[_Subscriber] = []
        self._position = store.position
        self._owed: deque[tuple[_Subscriber, RecordedEvent[Any]]] = deque()
        self._turn, self._more = threading.Lock(), False
        self._waiter = Waiter()
        store._listeners.append(self._deliver)

    def subscribe(self, *events: Any) -> Callable[[], None]:
        """Subscribe a function, the last argument, to event types; return what unsubscribes it.

        `subscribe(handler)` takes the types from its annotation, and `subscribe(Event, handler)` is for every
        one. The function takes the event, and `recorded` if it asks for it.
        Raises InvalidArgument for a handler that cannot be called so.
        """
        if not events:
            raise InvalidArgument("nothing to subscribe: write bus.subscribe(OrderPaid, handler)")
        *chosen, function = events
        wrong = [one for one in chosen if not (isinstance(one, type) and issubclass(one, Event))]
        if wrong:
            raise InvalidArgument(f"{display.short(wrong[0])} is no event class: give it before the handler")
        handler = handler_of(function, tuple(map(current, chosen)))
        if handler.row is not None or handler.effects:
            raise InvalidArgument(
                f"{handler.name} asks for rows or effects, which a bus does not keep: use a Subscription"
            )
        subscriber = _Subscriber(function, handler, frozenset(event.event_type for event in handler.types))
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def publish(self, stream: str, events: Events, *, expected: Expected = "any") -> Recorded:
        """Append events to a stream, and return them once they are stored and delivered.

        In a handler, or while another thread delivers, that one delivers them afterwards. Raises what
        `Store.append` raises; then nothing is stored, and nothing delivered.
        """
        return self.store.append(stream, events, expected=expected)

    def publish_all(self, writes: Iterable[Write]) -> Recorded:
        """Append events to several streams, all or nothing; see `publish`."""
        return self.store.append_all(writes)

    def begin_anew(self) -> None:
        """Know nothing but what is appended from now on, as after the death of the process."""
        self._position = self.store.position
        self._owed.clear()
        self.failures.clear()

    def _deliver(self) -> None:
        """Deliver up to the head; what comes in meanwhile is delivered by whoever delivers already."""
        self._more = True
        while self._more and self._turn.acquire(blocking=False):
            try:
                self._more = False
                self._hand_all()  # what an interrupt has left
                for rows in self.store._scan(Filter(after=self._position)):
                    for row in rows:
                        self._position, self._owed = row[0], deque(self._wanting(row))
                        self._hand_all()
            finally:
                self._turn.release()

    def _wanting(self, row: Row) -> Iterator[tuple[_Subscriber, RecordedEvent[Any]]]:
        """Give who is to have a stored event, with each part of it as it is read today."""
        try:
            parts: list[RecordedEvent[Any]] = [RecordedEvent(read, part=part) for read, part in upcast([row])]
        except UpcasterFailed as error:
            for one in self._subscribers:
                if not one.types or row[3] in sources(one.types):
                    self._failed(one, RecordedEvent(row), error)
            return
        for recorded in parts:
            for one in self._subscribers:
                if not one.types or recorded.type in one.types:
                    yield one, recorded

    def _hand_all(self) -> None:
        while self._owed:
            subscriber, recorded = self._owed.popleft()
            if subscriber in self._subscribers:
                self._hand(subscriber, recorded)

    def _hand(self, subscriber: _Subscriber, recorded: RecordedEvent[Any]) -> None:
        calls = subscriber.handler.calls
        try:
            with Reacting(lambda: recorded):
                result = (calls.get(recorded.type) or calls[""])(recorded, None, None)
                if isinstance(result, Awaitable):
                    self._waiter.result(result)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, and harms no other
            self._failed(subscriber, recorded, error)

    def _failed(self, subscriber: _Subscriber, recorded: RecordedEvent[Any], error: Exception) -> None:
        self.failures.append(Failure(subscriber.handler.name, recorded, error))
        _log.error(
            "%s failed at position %s (%s): %s",
            *(subscriber.handler.name, recorded.position, recorded.type, said(error)),
        )

    def df(self) -> pd.DataFrame:
        """Return the failures as a dataframe: handler, position, stream, type, cause."""
        import pandas as pd

        rows = [
            (
                *(one.handler, one.recorded.position, one.recorded.stream, one.recorded.type),
                said(one.error),
            )
            for one in self.failures
        ]
        return pd.DataFrame(rows, columns=["handler", "position", "stream", "type", "cause"])

    def close(self) -> None:
        """Detach from the store; closing twice is fine."""
        if self._deliver in self.store._listeners:
            self.store._listeners.remove(self._deliver)
        self._waiter.close()

    def __repr__(self) -> str:
        names = ", ".join(each.handler.name for each in self._subscribers) or "nobody"
        failed = f", {len(self.failures)} failures" if self.failures else ""
        return f"<Bus: {names} at position {self._position:,}{failed}>"
