"""Handlers that follow the log by themselves, with a guarantee that is said and can be shown.

    mails = Subscription(store, send_receipt, checkpoint="after_handler", retry=RetryPolicy(max_attempts=3))
    mails.catch_up()      # or mails.start(), and mails.stop()
    mails.dead_letters    # what could not be handled, and why

`after_handler` (the default): an event is handled at least once, and again after a crash. `before_handler`:
at most once, and lost in a crash. `transactional` (handlers that write rows): the rows and the checkpoint are
one commit, so each event counts once whatever happens.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from weakref import WeakKeyDictionary

from esim import display
from esim.arguments import storable, whole
from esim.columns import columns_of
from esim.contract import Moment, Store
from esim.deadletters import DeadLetters
from esim.delivery import Checkpoint, Delivery, Exhausted, Settings
from esim.effects import by_name
from esim.envelope import reacting
from esim.errors import InvalidArgument, NotCaughtUp, StoreClosed, Superseded
from esim.handler import HandlerOf, handler_of
from esim.keeper import overview, progress_of, state_of, wanted_of, wider
from esim.points import Point, mortal
from esim.progress import Entry, Mark, Overview, Registered, frame
from esim.query import Filter, Query
from esim.retry import CircuitBreaker, RetryPolicy

if TYPE_CHECKING:
    import pandas as pd

_POLL = 0.02  # seconds between two looks of who waits for a subscription
_LOOK = 0.5  # seconds after which one that runs looks at the log, whether an append woke it or not
_BATCH = {"after_handler": 1, "before_handler": 1, "transactional": 10_000}
_latest: WeakKeyDictionary[Store, dict[str, Subscription]] = WeakKeyDictionary()


class Subscription:
    """A handler's deliveries: which events, how safely, how far."""

    def __init__(
        self,
        store: Store,
        handler: Any,
        name: str | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        category: str | None = None,
        tag: str | Iterable[str] | None = None,
        retry: RetryPolicy | None = None,
        on_exhausted: Exhausted = "dead_letter",
        batch: int | None = None,
        inbox: bool = False,
        outbox: bool | None = None,
        sends: Iterable[Callable[..., Any]] = (),
        breaker: CircuitBreaker | None = None,
        partition: tuple[int, int] = (0, 1),
        adopt: bool = False,
    ) -> None:
        """Subscribe `handler` (a function, or a Projection class) under a `name`, by default its own.

        Nothing is delivered yet. `batch` events share a commit: one, or 10,000 with `transactional`. `inbox`
        keeps the ids of handled events, which are then not handled again; `outbox` records effects with
        the checkpoint and sends them afterwards (`sends`: their functions, for a relay after a crash).
        `partition=(i, n)` takes the i-th of n shares of the streams. A name belongs to the handler it was
        first used with; `adopt=True` hands it to this one.

        Raises InvalidArgument for a handler that cannot be called, a taken name, or options that do not fit.
        """
        self.store = store
        self.handler = handler_of(handler)
        self.name = storable(self.handler.name if name is None else name, "name")
        self._progress = progress_of(store, self.name, self.handler.row)
        retry = RetryPolicy() if retry is None else retry
        mode = checkpoint or ("transactional" if self.handler.row else "after_handler")
        _check_policies(retry, breaker, on_exhausted, partition)
        _check_mode(self.handler, mode)
        size = _BATCH[mode] if batch is None else whole(batch, "batch", "give 1 or more events")
        if not size or not self.name:
            raise InvalidArgument("batch=0: give 1 or more events" if self.name else "name='': give one")
        outboxed = (mode == "transactional" and self.handler.effects) if outbox is None else bool(outbox)
        if mode == "transactional" and self.handler.effects and not outboxed:
            raise InvalidArgument(
                f"{self.name} is transactional, and what it does outside cannot be taken back: "
                "leave outbox=False out"
            )
        self._settings = Settings(
            checkpoint=mode,
            wanted=Filter(category=category, query=_query(self.handler, tag)),
            retry=retry,
            on_exhausted=on_exhausted,
            batch=1 if retry.max_attempts == 1 else size,
            inbox=bool(inbox),
            outbox=outboxed,
            sends=by_name(sends),
            breaker=breaker,
            partition=partition,
        )
        self._lock = threading.RLock()
        self._busy = False
        self._stopping, self._halting, self._news = (threading.Event() for _ in range(3))
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._delivery: Delivery | None = None
        self._register(adopt=adopt)

    def _register(self, *, adopt: bool) -> None:
        columns = json.dumps(columns_of(self.handler.row)) if self.handler.row else None
        wanted = wanted_of(self._settings.wanted, self._settings.partition, self.handler.types)
        registered = Registered(self.handler.source, self._settings.checkpoint, columns, wanted)
        known = self._progress.known()
        if known is not None and known.handler != self.handler.source and not adopt:
            raise InvalidArgument(
                f"the subscription {self.name!r} belongs to {known.handler}, and {self.handler.source} would "
                "go on where that stands: give this one another name=…, or adopt=True"
            )
        others = _latest.setdefault(self.store, {})
        former = others.get(self.name)
        if former is not None:
            former.stop()
        begun = known is not None and self._progress.load().position > 0
        if known is not None and begun and not adopt and wider(wanted, known.wanted):
            raise InvalidArgument(
                f"the subscription {self.name!r} has passed position {self.position:,}, and is for more "
                "events now than it was, whose earlier ones would be missed: pass adopt=True to go on from "
                "there, and replay() if they shall be handled too"
            )
        if known is not None and begun and columns != known.columns:
            raise InvalidArgument(
                f"the rows of {self.name!r} have other columns than its table: forget(store, {self.name!r}) "
                "drops the table, and the subscription begins again"
            )
        if known != registered:
            self._progress.register(registered, self._progress.load() if known else Mark())
        others[self.name] = self

    # --- delivering ----------------------------------------------------------------------------------------

    def catch_up(self) -> Self:
        """Deliver every event up to the head of the log as it is now; nothing where it is paused.

        Ctrl-C stops after the event at hand and keeps what was handled. Raises HandlerFailed where a failure
        stops the subscription, and CheckpointAhead if the log is shorter than the checkpoint.
        """
        with self._turn() as delivery:
            now = self.store.clock.now().timestamp()
            waits = delivery.open_until is not None and now < delivery.open_until
            if not delivery.mark.paused and not waits:
                self._drive(delivery, self.store.position)
        return self

    def _drive(self, delivery: Delivery, until: int) -> None:
        with closing(delivery.steps(until)) as steps:  # at once, not when a traceback lets go of it
            for _ in steps:
                if self._halted:
                    steps.close()

    def steps(self) -> Iterator[Point]:
        """Catch up step by step: give each point at which the process could die, before it is passed.

        Whoever stops asking for more leaves the subscription as a crash there would. For lessons and tests.
        """
        with self._turn() as delivery:
            yield from mortal(delivery.steps(self.store.position))

    @contextmanager
    def _turn(self) -> Iterator[Delivery]:
        """Deliver from one thread at a time; after an error nothing in memory is trusted."""
        with self._lock:
            if self._busy:
                raise InvalidArgument(f"the handler of {self.name!r} asks its own subscription to go on")
            if _latest.get(self.store, {}).get(self.name) is not self:
                raise Superseded(f"the subscription {self.name!r} has been made anew: use the latest one")
            try:
                self._busy = True
                if self._delivery is None:
                    self._delivery = Delivery(
                        *(self.store, self._progress, self.handler, self._settings, self._sleep)
                    )
                effects = self._delivery.effects
                with reacting(lambda: effects.cause):  # of what handlers append
                    yield self._delivery
            except BaseException:
                self._delivery = None
                raise
            finally:
                self._busy = False

    def _sleep(self, seconds: float) -> None:
        """Wait, by the store's clock: a manual one moves on, the system's is waited for."""
        sleep = getattr(self.store.clock, "sleep", None)
        if sleep is not None:
            sleep(seconds)
        else:
            self._stopping.wait(seconds)

    def start(self) -> Self:
        """Follow the log in a thread of its own, until `stop()` or a failure that stops it."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stopping.clear()
                self._error = None
                self._thread = threading.Thread(target=self._follow, name=f"esim-{self.name}", daemon=True)
                self._thread.start()
        return self

    def _follow(self) -> None:
        self.store._listeners.append(self._news.set)
        try:
            while not self._stopping.is_set():
                self._news.clear()
                if self._wants():
                    self.catch_up()
                self._news.wait(_LOOK)
        except Exception as error:  # noqa: BLE001 - it is shown as the state, and raised by wait_for
            self._error = error
        finally:
            self.store._listeners.remove(self._news.set)

    def _wants(self) -> bool:
        return self.store.position > self.position

    @property
    def _halted(self) -> bool:
        """Whether somebody asks it to stop, or to pause."""
        return self._stopping.is_set() or self._halting.is_set()

    def stop(self) -> Self:
        """End the thread after the event at hand; what was handled is committed."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        self._stopping.clear()
        return self

    def wait_for(self, position: int, timeout: float = 5.0) -> Self:
        """Return once a position has been delivered; without a thread, deliver it here.

        Raises NotCaughtUp after `timeout` seconds, and what stopped the subscription.
        """
        position = whole(position, "position")
        if self._thread is None:
            self.catch_up()
        pause = threading.Event()
        for _ in range(max(int(timeout / _POLL), 1)):
            if self._error is not None:
                raise self._error
            if self.position >= position:
                return self
            pause.wait(_POLL)
        raise NotCaughtUp(
            f"{self.name} is at position {self.position:,} ({self.state}), and {position:,} was not "
            f"delivered within {timeout:g} s"
        )

    # --- going back, holding -------------------------------------------------------------------------------

    def pause(self) -> Self:
        """Deliver nothing from now on, in this process and the next, until `resume()`."""
        return self._marked(paused=True)

    def resume(self) -> Self:
        """Go on delivering where it was paused."""
        return self._marked(paused=False)

    def reset(self, after: Moment = 0, *, effects: Literal["gated", "again"] = "gated") -> Self:
        """Go back to a position or time, without delivering: what comes after it will be handled once more.

        Effects of events that were handled before are gated: none is done a second time, and the ledger
        shows it; with `again` they are. Dead letters and the inbox are forgotten from there on.
        Raises InvalidArgument if the handler writes rows, which can only be made anew from the beginning,
        and `after` is not the beginning; and where effects of dead letters would be gated that were never
        done.
        """
        if effects not in ("gated", "again"):
            raise InvalidArgument(f"effects={effects!r}: give 'gated' or 'again'")
        position = self.store.position_at(after)
        if position and self.handler.row:
            raise InvalidArgument(
                f"the rows of {self.name} cannot go back to position {position}: replay() from the beginning"
            )
        owed = sum(one.position > position for one in self._progress.letters())
        if owed and effects == "gated" and self.handler.effects:
            raise InvalidArgument(
                f"{self.name} has {owed} dead letters whose effects were never done, and a replay would gate "
                "them: redrive or evict them first, or choose effects='again'"
            )
        with self._turn() as delivery:
            gate = max(delivery.mark.position, delivery.mark.gate) if effects == "gated" else 0
            self._progress.go_back(position, gate, again=gate == 0)
            self._delivery = None
        return self

    def replay(self, after: Moment = 0, *, effects: Literal["gated", "again"] = "gated") -> Self:
        """Go back, and deliver every event after that position or time once more; see `reset`."""
        return self.reset(after, effects=effects).catch_up()

    def _marked(self, **changes: Any) -> Self:
        self._halting.set()  # a long catch-up in another thread ends after the event at hand
        with self._turn() as delivery:
            self._halting.clear()
            delivery.mark = replace(delivery.mark, **changes)
            self._progress.commit(delivery.mark)
        return self

    # --- looking -------------------------------------------------------------------------------------------

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be handled: a dataframe, `redrive()`, `evict(id)`."""
        return DeadLetters(self._progress, self._turn)

    @property
    def position(self) -> int:
        """The position up to which every event is handled, or among the dead letters."""
        return self._progress.load().position

    @property
    def lag(self) -> int:
        """How many positions it is behind the head of the log."""
        return self.store.position - self.position

    @property
    def state(self) -> str:
        """What it does: running, idle, paused, `circuit open`, or stopped and why."""
        kept = state_of(self._progress.load())
        if kept != "paused" and self._delivery is not None and self._delivery.open_until is not None:
            return "circuit open"
        alive = self._thread is not None and self._thread.is_alive()
        return "running" if kept == "idle" and alive else kept

    def effects(self) -> pd.DataFrame:
        """Return the ledger of effects as a dataframe.

        Columns: position, effect, arguments (JSON), status (done, pending, gated, failed), attempts, cause,
        key, last_touched (UTC).
        """
        return frame(self._progress.ledger(), Entry)

    def df(self) -> pd.DataFrame:
        """Return the rows that the handler wrote, as they stand, in order of their key."""
        if self.handler.row is None:
            raise InvalidArgument(f"{self.name} writes no rows: its handler has no parameter rows: Rows[…]")
        return self._progress.row_frame()

    def _told(self) -> Overview:
        return overview(self._progress, self.store.position)._replace(state=self.state)

    def __repr__(self) -> str:
        try:
            told = self._told()
        except StoreClosed:
            return f"<Subscription {self.name!r} of a closed store>"
        where = f"at position {told.position:,} of {told.position + told.lag:,}"
        state = ", ".join(filter(None, (told.state, told.failures)))
        return f"<Subscription {self.name!r} {where}: {state}>"

    def _repr_html_(self) -> str:
        try:
            told = self._told()
        except StoreClosed:
            return display.escape(repr(self))
        header = ("subscription", "checkpoint", "position", "lag", "state", "dead letters")
        state = display.escape(display.cut(told.state, 120))
        if told.failed_effects:
            state += f", {told._replace(dead_letters=0).failures}"
        if told.state.startswith("stopped"):
            state = f'<span style="color:{display.FAILURE}">{state}</span>'
        numbers = (f"{told.position:,}", f"{told.lag:,}", state, f"{told.dead_letters:,}")
        return display.table(header, [(display.escape(told.name), told.checkpoint, *numbers)])


def subscriptions(store: Store) -> pd.DataFrame:
    """Return what subscriptions a store has, also those of earlier processes.

    Columns: name, handler, checkpoint, position, lag, state, attempts (of the event at hand), dead_letters,
    failed_effects.
    """
    live, head = _latest.get(store, {}), store.position
    found = [
        live[name]._told() if name in live else overview(progress_of(store, name), head)
        for name in progress_of(store, "").names()
    ]
    return frame(found, Overview)


def forget(store: Store, name: str) -> None:
    """Remove a subscription with all that is kept of it, its rows too. Raises InvalidArgument if unknown."""
    progress = progress_of(store, name)
    if progress.known() is None:
        told = display.did_you_mean(name, progress.names())
        raise InvalidArgument(f"there is no subscription {name!r}{told}")
    former = _latest.get(store, {}).pop(name, None)
    if former is not None:
        former.stop()
    progress.remove()


def _query(handler: HandlerOf, tag: str | Iterable[str] | None) -> Query:
    return Query.of(list(handler.types), tag) if handler.types or tag else Query()


def _check_policies(retry: object, breaker: object, on_exhausted: str, partition: tuple[int, int]) -> None:
    if on_exhausted not in get_args(Exhausted):
        known = display.did_you_mean(str(on_exhausted), list(get_args(Exhausted)))
        raise InvalidArgument(f"on_exhausted={on_exhausted!r} is nothing to do{known}")
    if not isinstance(retry, RetryPolicy):
        raise InvalidArgument(f"retry={retry!r}: give a RetryPolicy(…)")
    if not isinstance(breaker, CircuitBreaker | None):
        raise InvalidArgument(f"breaker={breaker!r}: give a CircuitBreaker(…)")
    match partition:
        case (int(share), int(among)) if 0 <= share < among:
            return
    raise InvalidArgument(f"partition={partition!r}: give (i, n), the i-th of n shares from 0 on")


def _check_mode(handler: HandlerOf, mode: str) -> None:
    if mode not in get_args(Checkpoint):
        known = display.did_you_mean(str(mode), list(get_args(Checkpoint)))
        raise InvalidArgument(f"checkpoint={mode!r} is no mode{known}")
    if handler.row is not None and mode != "transactional":
        raise InvalidArgument(
            f"{handler.name} writes rows, which are committed with the checkpoint: leave checkpoint out"
        )
    if handler.row is None and mode == "transactional":
        raise InvalidArgument(
            f"{handler.name} writes no rows that a checkpoint could be committed with: give it a parameter "
            "rows: Rows[…], or choose 'after_handler'"
        )
