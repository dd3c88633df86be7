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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakKeyDictionary

from esim import display
from esim.arguments import storable, whole
from esim.columns import columns_of
from esim.contract import Moment, Store
from esim.deadletters import DeadLetters
from esim.delivery import Checkpoint, Delivery, Exhausted
from esim.envelope import Reacting
from esim.errors import InvalidArgument, NotCaughtUp, StoreClosed, Superseded, said
from esim.follower import Follower
from esim.handler import HandlerOf, handler_of
from esim.keeper import misfit, must_fit, overview, progress_of, state_of, wanted_of, wider
from esim.options import settings_of
from esim.points import Point, mortal
from esim.progress import Entry, Mark, Overview, Registered, frame
from esim.retry import CircuitBreaker, RetryPolicy

if TYPE_CHECKING:
    import pandas as pd

_POLL = 0.02  # seconds between two looks of who waits for a subscription
_latest: WeakKeyDictionary[Store, dict[str, Subscription]] = WeakKeyDictionary()
_delivering: ContextVar[tuple[Subscription, ...]] = ContextVar("esim-delivering", default=())
"""Whose handler runs here; a coroutine has it, too, though it runs in another thread."""


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
        self._settings = settings_of(
            self.handler,
            self.name,
            checkpoint=checkpoint,
            category=category,
            tag=tag,
            retry=retry,
            on_exhausted=on_exhausted,
            batch=batch,
            inbox=inbox,
            outbox=outbox,
            sends=sends,
            breaker=breaker,
            partition=partition,
        )
        self._lock = threading.RLock()
        self._wish: bool | None = None  # of the handler that runs: to be paused after its event, or not
        self._short: int | None = None  # where the log ended before the checkpoint, when this was made
        self._halting = threading.Event()
        self._follower = Follower(store, self.name, self._look)
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
            if not adopt:
                _check_bound(self.name, former.handler, self.handler)
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
        head = self.store.position
        self._short = head if self.position > head else None
        others[self.name] = self

    # --- delivering ----------------------------------------------------------------------------------------

    def catch_up(self) -> Self:
        """Deliver every event up to the head of the log as it is now; nothing where it is paused.

        Ctrl-C stops after the event at hand and keeps what was handled. Raises HandlerFailed where a failure
        stops the subscription, and CheckpointAhead if the log is shorter than the checkpoint.
        """
        with self._turn() as delivery:
            if not delivery.mark.paused and not delivery.waits:
                self._drive(delivery, self.store.position)
        self._follower.error = None
        return self

    def _drive(self, delivery: Delivery, until: int) -> None:
        stops, halts = self._follower.stopping.is_set, self._halting.is_set
        with closing(delivery.steps(until)) as steps:  # at once, not when a traceback lets go of it
            for _ in steps:
                if stops() or halts():
                    steps.close()

    def steps(self) -> Iterator[Point]:
        """Catch up step by step: give each point at which the process could die, before it is passed.

        Whoever stops asking for more leaves the subscription as a crash there would. For lessons and tests.
        """
        with self._turn() as delivery:
            try:
                yield from mortal(delivery.steps(self.store.position))
            except GeneratorExit:
                self._wish = None
                self._halting.clear()
                raise

    @contextmanager
    def _turn(self, *, fit: bool = True) -> Iterator[Delivery]:
        """Deliver from one thread at a time; after an error nothing in memory is trusted.

        Raises CheckpointAhead where the log does not `fit`, unless that does not matter.
        """
        if self in _delivering.get():  # before the lock, which the thread that delivers holds
            raise InvalidArgument(f"the handler of {self.name!r} asks its own subscription to go on")
        with self._lock:
            if _latest.get(self.store, {}).get(self.name) is not self:
                raise Superseded(f"the subscription {self.name!r} has been made anew: use the latest one")
            try:
                _delivering.set((*_delivering.get(), self))
                if self._delivery is None:
                    self._delivery = Delivery(
                        *(self.store, self._progress, self.handler, self._settings, self._sleep)
                    )
                if fit:
                    must_fit(self.name, self._delivery.mark, self._head)
                effects = self._delivery.effects
                with Reacting(lambda: effects.cause):  # of what handlers append
                    yield self._delivery
            except BaseException:
                self._delivery = None
                raise
            finally:
                _delivering.set(tuple(one for one in _delivering.get() if one is not self))
                self._fulfil()

    def _fulfil(self) -> None:
        """Pause or resume, if the handler has asked for it."""
        if self._wish is not None:
            mark = self._progress.load()._replace(paused=self._wish)
            self._wish = None
            self._halting.clear()
            self._progress.commit(mark)
            if self._delivery is not None:
                self._delivery.mark = mark

    def _sleep(self, seconds: float) -> None:
        """Wait, by the store's clock: a manual one moves on, the system's is waited for."""
        sleep = getattr(self.store.clock, "sleep", None)
        if sleep is not None:
            sleep(seconds)
        else:
            self._halting.wait(seconds)

    def start(self) -> Self:
        """Follow the log in a thread of its own, until `stop()` or a failure that stops it.

        Raises CheckpointAhead as `catch_up` does.
        """
        with self._turn():
            self._follower.start()
        return self

    def _look(self) -> None:
        if self._wants():
            self.catch_up()

    def _wants(self) -> bool:
        return self.store.position > self.position

    @property
    def _halted(self) -> bool:
        """Whether somebody asks it to stop, or to pause."""
        return self._follower.stopping.is_set() or self._halting.is_set()

    def stop(self) -> Self:
        """End the thread after the event at hand; what was handled is committed."""
        if self in _delivering.get():
            self._follower.stop()  # no more than that: the thread waits for its handler
        elif self._follower.alive:
            self._halting.set()
            self._follower.stop()
            self._follower.join()
            self._halting.clear()
        return self

    def wait_for(self, position: int, timeout: float = 5.0) -> Self:
        """Return once a position has been delivered; without a thread, deliver it here.

        Raises NotCaughtUp after `timeout` seconds, and what stopped the subscription.
        """
        position = whole(position, "position")
        if self._follower.error is None and not self._follower.alive:
            self.catch_up()
        pause = threading.Event()
        for _ in range(max(int(timeout / _POLL), 1)):
            if self._follower.error is not None:
                raise self._follower.error
            if self.position >= position:
                return self
            pause.wait(_POLL)
        raise NotCaughtUp(
            f"{self.name} is at position {self.position:,} ({self.state}), and {position:,} was not "
            f"delivered within {timeout:g} s"
        )

    # --- going back, holding -------------------------------------------------------------------------------

    def pause(self) -> Self:
        """Deliver nothing from now on, in this process and the next, until `resume()`.

        A catch-up in another thread ends after the event at hand; so it does where a handler asks.
        """
        self._halting.set()
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
        with self._turn(fit=False) as delivery:
            mark = delivery.mark
            gate = min(max(mark.position, mark.gate), self._head) if effects == "gated" else 0
            earlier = Mark(position=position, begun=position, gate=gate, paused=mark.paused)
            self._progress.go_back(earlier, again=gate == 0)
            self._delivery = self._short = None
        return self

    def replay(self, after: Moment = 0, *, effects: Literal["gated", "again"] = "gated") -> Self:
        """Go back, and deliver every event after that position or time once more; see `reset`.

        Where it is paused, that waits for `resume()`.
        """
        return self.reset(after, effects=effects).catch_up()

    def _marked(self, *, paused: bool) -> Self:
        if self in _delivering.get():
            self._wish = paused
            return self
        try:
            with self._turn(fit=False):
                self._wish = paused
        finally:
            self._halting.clear()
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
    def _head(self) -> int:
        return self.store.position if self._short is None else self._short

    @property
    def lag(self) -> int:
        """How many positions it is behind the head of the log."""
        return self.store.position - self.position

    @property
    def state(self) -> str:
        """What it does: running, idle, paused, `circuit open`, or stopped and why."""
        mark = self._progress.load()
        kept = state_of(mark, misfit(self.name, mark, self._head))
        if kept != "paused" and self._delivery is not None and self._delivery.open_until is not None:
            return "circuit open"
        if kept == "idle" and self._follower.error is not None:
            return f"stopped: {said(self._follower.error)}"
        return "running" if kept == "idle" and self._follower.alive else kept

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


def latest(store: Store) -> Mapping[str, Subscription]:
    """Return the subscriptions that were made on a store in this process, by name; the latest of each."""
    return _latest.get(store, {})


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


def _check_bound(name: str, former: HandlerOf, handler: HandlerOf) -> None:
    """Hold that a handler is the former one again, and not another partial of the same function."""
    both = former.bound.keys() & handler.bound.keys()
    other = sorted(each for each in both if former.bound[each] != handler.bound[each])
    if other:
        raise InvalidArgument(
            f"{name!r} is bound to another {' and '.join(map(repr, other))}, and this one would go on where "
            "that stands: give this one another name=…, or adopt=True"
        )
