"""How events get from the log to a handler, and what is committed when: the heart of every subscription.

`Delivery.steps` is a generator. It yields before and after each thing that can go wrong, so that whoever
drives it may stop there; a real run and a simulated one go through the same lines. The state that must
survive is in `Progress`; all else may be lost at any time.

An event that kills the process leaves no error behind. So a batch is noted as begun in the commit before it;
where the next run finds one that was begun and not finished, it goes through it event by event, and notes
each attempt before it is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from esim.bar import Bar
from esim.contract import Store
from esim.effects import Effects, key_of
from esim.envelope import RecordedEvent
from esim.errors import (
    CheckpointAhead,
    HandlerFailed,
    InvalidArgument,
    InvalidEvent,
    UnknownEventType,
    UpcasterFailed,
    said,
)
from esim.handler import HandlerOf
from esim.intake import Batch, Intake
from esim.letters import died, failed_again, letter_of
from esim.outbox import Relay
from esim.points import Step
from esim.progress import Letter, Mark, Progress
from esim.query import Filter
from esim.retry import CircuitBreaker, RetryPolicy
from esim.rows import Rows
from esim.waiter import Waiter

Checkpoint = Literal["after_handler", "before_handler", "transactional"]
Exhausted = Literal["dead_letter", "skip", "stop"]


@dataclass(frozen=True)
class Settings:
    """What a subscription was told: see `Subscription`."""

    checkpoint: Checkpoint
    wanted: Filter
    retry: RetryPolicy
    on_exhausted: Exhausted
    batch: int
    inbox: bool
    outbox: bool
    sends: Mapping[str, Callable[..., Any]]
    breaker: CircuitBreaker | None
    partition: tuple[int, int]


class _CircuitOpen(Exception):
    pass


class Delivery:
    """The deliveries of one subscription, from where it stands."""

    def __init__(
        self,
        store: Store,
        progress: Progress,
        handler: HandlerOf,
        settings: Settings,
        sleep: Callable[[float], None],
        *,
        waiter: Waiter | None = None,
        effects: Callable[..., Effects] = Effects,
    ) -> None:
        """Deliver from `store`; `sleep` waits between attempts, `waiter` for async handlers.

        `effects` makes the handler's way to the outside world, of the options of `Effects`.
        """
        self.store, self.progress, self.handler, self.settings = store, progress, handler, settings
        self.mark = progress.load()
        self.open_until: float | None = None
        """When the circuit, which is open, is tried again, in seconds of the store's clock."""
        self.failure = ""
        """Why an event was not handled last: it is tried again, or given up."""
        self._sleep = sleep
        self._in_a_row = 0
        self._position = self.mark.position
        self._parts = (self.mark.trying, self.mark.part)
        """How many parts are done of a stored event that is not done with as a whole: (position, parts)."""
        self._at: RecordedEvent[Any] | None = None
        """What the rows were handed out for last."""
        self._parked = self._waiting()
        self._new: list[Letter] = []
        self._inbox: list[tuple[str, int]] = []
        self.intake = Intake(store, settings.wanted, settings.partition, settings.batch)
        self._rows: Rows[Any] | None = None
        self._known: dict[str, int] = {}
        """The farthest position in the inbox and on the ledger, once it was asked for."""
        self._waiter = Waiter() if waiter is None else waiter
        self.effects = effects(
            outbox=settings.outbox, done=self._is_done, waiter=self._waiter, functions=settings.sends
        )
        functions, wait = self.effects.functions, self._waiter.result
        self._relay = Relay(progress, functions, settings.retry, sleep=sleep, now=self.now, wait=wait)

    @property
    def waits(self) -> bool:
        """Whether the circuit is open still; not where the clock has gone back to before it opened."""
        if self.settings.breaker is None or self.open_until is None:
            return False
        left = self.open_until - self.store.clock.now().timestamp()
        return 0 < left < self.settings.breaker.cooldown + 1e-3  # as the difference of two times is rounded

    # --- the steps -----------------------------------------------------------------------------------------

    def steps(self, until: int) -> Generator[Step]:
        """Deliver the events up to a position; each point that is yielded is a place to stop at.

        Closing the generator, and an interrupt, commit what was handled so far. Raises HandlerFailed where a
        failure stops the subscription.
        """
        if self.mark.position > self.store.position:
            raise CheckpointAhead(
                f"{self.progress.name} stands at position {self.mark.position:,}, and the log ends at "
                f"{self.store.position:,}: it is another log, or an older copy; replay() begins again"
            )
        self.effects.gate = self.mark.gate
        try:
            yield from self.send(known=True)  # what an earlier process has left
            with Bar(self.mark.position, until, self.progress.name) as self._bar:
                yield from self._all(until)
        except _CircuitOpen:
            self._commit(attempts=0)  # it is not the event that is to blame
            yield from self.send()
        except HandlerFailed:
            yield from self.send(known=True)
            raise
        except (GeneratorExit, KeyboardInterrupt):
            self._take_back()
            self._commit()
            raise

    def _all(self, until: int) -> Iterator[Step]:
        uncertain = self.mark.begun
        batches = self.intake.batches(self._position, until, uncertain)
        batch = next(batches, None)
        while batch is not None:
            if batch.rows:
                yield "begin", batch.rows[0][0][0]
                yield from self._begin(batch)
                yield from self._batch(batch, careful=batch.rows[0][0][0] <= uncertain)
            self._position = batch.through
            upcoming = next(batches, None)
            if batch.rows or upcoming is None:
                yield "commit", batch.through
                sends = self.settings.outbox and self.effects.fresh  # what dies in that is not the next batch
                self._commit(begun=upcoming.through if upcoming and not sends else batch.through)
                yield "committed", batch.through
                yield from self.send()
            batch = upcoming

    def _begin(self, batch: Batch) -> Iterator[Step]:
        if self.settings.checkpoint == "before_handler":
            self._position = batch.through
            self._commit()
            yield "committed", batch.through
        elif self.mark.begun < batch.through:
            self._commit(begun=batch.through)

    def _batch(self, batch: Batch, *, careful: bool) -> Iterator[Step]:
        after = [row[0] for row, _ in batch.rows[1:]] + [0]
        for (row, part), following in zip(batch.rows, after, strict=True):
            position = row[0]
            if position == self._parts[0] and self._is_finished(position, part):
                continue
            recorded: RecordedEvent[Any] = RecordedEvent(row, part=part)  # not kept, nor what it decodes to
            passes = (self._parked or self.settings.inbox) and self._passes(recorded)
            if not passes and (not careful or (yield from self._dares(recorded))):
                if careful:
                    yield from self._reached(recorded)
                else:
                    yield "handle", position
                error = self._handed(recorded)
                if error is not None and not isinstance(error, Exception):
                    error = yield from self._awaited(recorded, error)
                if error is not None:
                    yield from self._again(recorded, error, careful=careful)
            if following != position:  # all parts of a stored event are done with
                if position > self._position:  # noqa: PLR1730 - max() would be 3 % of a whole delivery
                    self._position = position
                self._bar.at(position)
            else:
                self._parts = (position, part + 1)
            yield "handled", position

    def send(self, *, known: bool = False) -> Iterator[Step]:
        """Do what waits in the outbox, also where there was one only formerly; see `Relay.send`."""
        if self.settings.outbox or self._relay.unsure:
            for step in self._relay.send(known=known):
                yield step, self._position

    def resend(self, name: str | None) -> Generator[Step]:
        """Do once more what has failed in the outbox; see `Relay.again`."""
        for step in self._relay.again(name):
            yield step, self._position

    # --- one event -----------------------------------------------------------------------------------------

    def _passes(self, recorded: RecordedEvent[Any]) -> bool:
        """Say whether an event is not for the handler now: it waits behind a dead letter, or was handled."""
        if recorded.stream in self._parked:
            self._park(recorded, 0, None)
            return True
        return self.settings.inbox and self._is_handled(recorded)

    def _dares(self, recorded: RecordedEvent[Any]) -> Generator[Step, None, bool]:
        """Note an attempt before it is made, unless an event has killed the process too often."""
        attempts = self._attempts(recorded) or 1  # that which a crash left open counts as tried
        if attempts >= self.settings.retry.max_attempts:
            yield from self._give_up(recorded, attempts, None)
            return False
        self._commit(trying=recorded, attempts=attempts + 1, begun=self.mark.begun)
        return True

    def _again(self, recorded: RecordedEvent[Any], error: Exception, *, careful: bool) -> Iterator[Step]:
        """Try an event that failed again, as the policy says, and give it up in the end."""
        attempts = self._attempts(recorded) + (not careful)
        last: Exception | None = error
        while last is not None:
            if not self._retries(last, attempts):
                yield from self._give_up(recorded, attempts, last)
                return
            self._commit(trying=recorded, attempts=attempts, begun=self.mark.begun)
            self.failure = said(last)
            yield "retry", recorded.position
            self._sleep(self.settings.retry.wait(attempts, f"{self.progress.name} {recorded.event_id}"))
            self._commit(trying=recorded, attempts=attempts + 1, begun=self.mark.begun)  # it may kill
            yield from self._reached(recorded)
            last = yield from self._tried(recorded)
            attempts += 1

    def _reached(self, recorded: RecordedEvent[Any]) -> Iterator[Step]:
        """Be before an attempt that is noted; where somebody stops there, it is noted no more."""
        try:
            yield "handle", recorded.position
        except GeneratorExit:
            self._commit(trying=recorded, attempts=self.mark.attempts - 1, begun=self.mark.begun)
            raise

    def _attempts(self, recorded: RecordedEvent[Any]) -> int:
        """Return how many attempts of an event are noted."""
        here = (recorded.position, recorded.part) == (self.mark.trying, self.mark.part)
        return self.mark.attempts if here else 0

    def _retries(self, error: Exception, attempts: int) -> bool:
        once = self.settings.checkpoint == "before_handler" or self.open_until is not None
        return not once and not isinstance(error, _LASTING) and self.settings.retry.retries(error, attempts)

    def _tried(self, recorded: RecordedEvent[Any]) -> Generator[Step, None, Exception | None]:
        """Hand an event to its handler; return what it raised, with its rows taken back, or None."""
        error = self._handed(recorded)
        if error is not None and not isinstance(error, Exception):
            error = yield from self._awaited(recorded, error)
        return error

    def _handed(self, recorded: RecordedEvent[Any]) -> Exception | Awaitable[None] | None:
        """Call the handler of an event; return what it raised, what is to be awaited, or None."""
        if self.intake.spoilt and recorded.position in self.intake.spoilt:
            return self.intake.spoilt[recorded.position]
        calls, effects = self.handler.calls, self.effects
        rows = self._ready() if self._rows is None else self._rows
        if rows is not None:
            rows.begin()
        effects.begin(recorded)
        self._at = recorded
        try:
            result = (calls.get(recorded.type) or calls[""])(recorded, rows, effects)
            if result is not None and isinstance(result, Awaitable):
                return result
            if effects.open:
                effects.must_be_awaited()
        except BaseException as error:
            self._failed()
            if not isinstance(error, Exception):
                raise
            return error
        self._succeeded(recorded)
        return None

    def _awaited(
        self, recorded: RecordedEvent[Any], result: Awaitable[None]
    ) -> Generator[Step, None, Exception | None]:
        """Await an async handler, which may be stopped wherever it waits if the waiter goes step by step."""
        try:
            for _ in self._waiter.steps(result):
                yield "await", recorded.position
            if self.effects.open:
                self.effects.must_be_awaited()
        except BaseException as error:
            self._failed()
            if not isinstance(error, Exception):
                raise
            return error
        self._succeeded(recorded)
        return None

    def _failed(self) -> None:
        self.effects.cause = None
        if self._rows is not None:
            self._rows.undo()
        self.effects.take_back()

    def _succeeded(self, recorded: RecordedEvent[Any]) -> None:
        self.effects.cause = None
        self._in_a_row, self.open_until = 0, None
        if self.settings.inbox:
            self._inbox.append((key_of(recorded), recorded.position))

    def _is_finished(self, position: int, part: int) -> bool:
        """Say whether a part was handled already of an event whose later parts were not."""
        return position == self._parts[0] and part < self._parts[1]

    def _take_back(self) -> None:
        """Leave of what an interrupt found between its begin and its end only the effects that are done."""
        if self._at is not None and self._is_open(self._at):
            self._undo(self._at)
        self._new = [letter for letter in self._new if not self._is_open(letter)]

    def _undo(self, recorded: RecordedEvent[Any]) -> None:
        self._failed()
        self._inbox = [entry for entry in self._inbox if entry[0] != key_of(recorded)]

    def _is_open(self, one: RecordedEvent[Any] | Letter) -> bool:
        return one.position > self._position and not self._is_finished(one.position, one.part)

    def _ready(self) -> Rows[Any] | None:
        if self.handler.row is not None and self._rows is None:
            self._rows = self.progress.rows(self.mark.position, self.store.position)
        return self._rows

    def _is_handled(self, recorded: RecordedEvent[Any]) -> bool:
        return recorded.position <= self._farthest("inbox") and self.progress.handled(key_of(recorded))

    def _is_done(self, key: str, position: int) -> bool:
        return position <= self._farthest("effects") and self.progress.effect(key) is not None

    def _farthest(self, table: str) -> int:
        if table not in self._known:
            self._known[table] = self.progress.farthest(table)
        return self._known[table]

    # --- failures ------------------------------------------------------------------------------------------

    def _give_up(
        self, recorded: RecordedEvent[Any], attempts: int, error: Exception | None
    ) -> Iterator[Step]:
        """Do what is to be done with an event that failed for good; without an error the process died."""
        breaker = self.settings.breaker
        if breaker is not None and error is not None:
            self._in_a_row += 1
            if self._in_a_row >= breaker.failures:
                self.open_until = self.store.clock.now().timestamp() + breaker.cooldown
                raise _CircuitOpen
        told = self.failure = said(error) if error else died(attempts)
        yield "give up", recorded.position
        if self.settings.on_exhausted == "stop":
            self._commit(told=told, attempts=0)
            raise HandlerFailed(
                f"{self.progress.name} stopped at position {recorded.position} ({recorded.stream}, version "
                f"{recorded.version}, {recorded.type}), after {attempts} attempts: {told}; nothing later was "
                "handled, so correct the handler and catch up again"
            ) from error
        if self.settings.on_exhausted == "dead_letter":
            self._park(recorded, attempts, error)

    def _park(self, recorded: RecordedEvent[Any], attempts: int, error: Exception | None) -> None:
        """Put an event among the dead letters, in the next commit; later ones of its stream will follow."""
        index = self._parked.get(recorded.stream, 0)
        self._parked[recorded.stream] = index + 1
        letter = letter_of(recorded, error, attempts, self.now())._replace(
            dead_letter_id=self.progress.next_letter() + len(self._new),
            subscription=self.progress.name,
            sequence_index=index,
            whole=recorded.position in self.intake.spoilt,
            gated=recorded.position <= self.effects.gate,
        )
        self._new.append(letter)

    # --- dead letters --------------------------------------------------------------------------------------

    def redrive(self, letter: Letter) -> Generator[Step, None, Exception | None]:
        """Hand a dead letter's event to the handler; return why it failed again, or None.

        Closing the generator, and an interrupt, keep of the event at hand only the effects that are done.
        """
        yield from self.send(known=True)
        letter = letter._replace(attempts=letter.attempts + 1, last_touched=self.now())
        self.effects.gate = letter.position if letter.gated else 0
        yield from self._amend(letter)  # before it is tried: it may kill the process
        try:
            found = self.intake.again(letter.position)
        except UpcasterFailed as spoilt:
            yield from self._amend(failed_again(letter, spoilt))
            return spoilt
        mine = [one for one in found if one.part == letter.part or (letter.whole and one.part > letter.part)]
        for number, recorded in enumerate(mine, 1):
            error = yield from self._retried(recorded)
            if error is not None:
                yield from self._amend(failed_again(letter, error))
                yield from self.send(known=True)
                return error
            if number < len(mine):
                letter = letter._replace(part=mine[number].part)
                yield from self._amend(letter)
        yield from self.dismiss(letter)
        return None

    def _retried(self, recorded: RecordedEvent[Any]) -> Generator[Step, None, Exception | None]:
        try:
            yield "handle", recorded.position
            error = yield from self._tried(recorded)
            yield "handled", recorded.position
        except (GeneratorExit, KeyboardInterrupt):
            self._undo(recorded)
            self._keep(self.mark)
            raise
        return error

    def _amend(self, letter: Letter) -> Iterator[Step]:
        """Commit what is to be said of a letter now, with what came of the parts of its event so far."""
        yield "commit", letter.position
        self._new = [letter]
        self._keep(self.mark)
        yield "committed", letter.position

    def dismiss(self, letter: Letter) -> Iterator[Step]:
        """Commit that a letter is no more, with the rows and effects of what was handled in its place."""
        yield "commit", letter.position
        self._keep(self.mark, gone=[letter.dead_letter_id])
        self._parked = self._waiting()
        yield "committed", letter.position
        yield from self.send()

    def parks(self, position: int) -> bool:
        """Say whether the next commit has a dead letter of an event."""
        return any(letter.position == position for letter in self._new)

    def _waiting(self) -> dict[str, int]:
        return {one.sequence_id: one.sequence_index + 1 for one in self.progress.letters()}

    def now(self) -> Any:
        """Return the store's time as the naive UTC of a column."""
        return self.store.clock.now().replace(tzinfo=None)

    # --- commits -------------------------------------------------------------------------------------------

    def _commit(
        self,
        *,
        begun: int = 0,
        trying: RecordedEvent[Any] | None = None,
        attempts: int | None = None,
        told: str | None = None,
    ) -> None:
        """Commit what came of the events so far, and how far that is.

        Attempts at an event that is not done with stay noted, unless it is said how many there were.
        """
        mark = self.mark
        position = max(self._position, mark.position)
        noted = (mark.trying, mark.part)
        at = (trying.position, trying.part) if trying else max(self._parts, noted)
        if at[0] <= position:
            at = (0, 0)
        if attempts is None:
            attempts = mark.attempts if at == noted else 0
        begun = max(begun, position)
        self._keep(Mark(position, begun, *at, attempts, mark.gate, mark.paused, told))

    def _keep(self, mark: Mark, *, gone: Sequence[int] = ()) -> None:
        if mark == self.mark and not (self._new or self._inbox or self.effects.fresh or gone):
            return
        fresh = list(self.effects.fresh.values())
        self.progress.commit(
            mark,
            letters=self._new,
            gone=gone,
            effects=fresh,
            inbox=self._inbox,
            at=self.now() if fresh else None,
            rows=self._rows,
        )
        self.mark = mark
        self._new, self._inbox = [], []
        if fresh:
            self._known["effects"] = max(self._farthest("effects"), *(one.position for one in fresh))
            self.effects.settle()


_LASTING = (InvalidEvent, UnknownEventType, UpcasterFailed, InvalidArgument, TypeError)
"""Errors that another attempt would only repeat."""
