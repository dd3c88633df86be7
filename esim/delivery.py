"""How events get from the log to a handler, and what is committed when: the heart of every subscription.

`Delivery.steps` is a generator. It yields before and after each thing that can go wrong, so that whoever
drives it may stop there; a real run and a simulated one go through the same lines. The state that must
survive is in `Progress`; all else may be lost at any time.

An event that kills the process leaves no error behind. So a batch is noted as begun in the commit before it;
where the next run finds one that was begun and not finished, it goes through it event by event, and notes
each attempt before it is made.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, NamedTuple
from zlib import crc32

from esim.bar import Bar
from esim.contract import Store
from esim.effects import Effects, key_of
from esim.envelope import RecordedEvent, Row
from esim.errors import (
    CheckpointAhead,
    HandlerFailed,
    InvalidArgument,
    InvalidEvent,
    UnknownEventType,
    UpcasterFailed,
    said,
    text_of,
)
from esim.handler import HandlerOf
from esim.outbox import Relay
from esim.progress import Letter, Progress
from esim.query import Filter
from esim.retry import CircuitBreaker, RetryPolicy
from esim.rows import Rows
from esim.waiter import Waiter

Checkpoint = Literal["after_handler", "before_handler", "transactional"]
Exhausted = Literal["dead_letter", "skip", "stop"]

_WINDOW = 20_000  # positions at a time are read
_FRAMES = 5  # of a traceback are kept with a dead letter


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


class Point(NamedTuple):
    """A place in a delivery where it may be stopped, or die: what comes next, and for which position."""

    name: str
    position: int


class _Batch(NamedTuple):
    """Stored events, with their parts, that are committed together, and the position reached after them."""

    rows: Sequence[tuple[Row, int]]
    through: int


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
    ) -> None:
        """Deliver from `store`; `sleep` waits between attempts."""
        self.store, self.progress, self.handler, self.settings = store, progress, handler, settings
        self.mark = progress.load()
        self.open_until: float | None = None
        """When the circuit, which is open, is tried again, in seconds of the store's clock."""
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
        self._spoilt: dict[int, UpcasterFailed] = {}
        self._rows: Rows[Any] | None = None
        self._known = {name: progress.farthest(name) for name in ("inbox", "effects")}
        self.effects = Effects(outbox=settings.outbox, done=self._is_done)
        self._waiter = Waiter()

    # --- the steps -----------------------------------------------------------------------------------------

    def steps(self, until: int) -> Generator[Point]:
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
            with Bar(self.mark.position, until, self.progress.name) as self._bar:
                yield from self._all(until)
        except _CircuitOpen:
            self._commit()
        except (GeneratorExit, KeyboardInterrupt):
            self._take_back()
            self._commit()
            raise

    def _all(self, until: int) -> Iterator[Point]:
        uncertain = self.mark.begun
        batches = self._batches(until, uncertain)
        batch = next(batches, None)
        while batch is not None:
            if batch.rows:
                yield Point("begin", batch.rows[0][0][0])
                yield from self._begin(batch)
                yield from self._batch(batch, careful=batch.rows[0][0][0] <= uncertain)
            self._position = batch.through
            upcoming = next(batches, None)
            if batch.rows or upcoming is None:
                yield Point("commit", batch.through)
                self._commit(begun=upcoming.through if upcoming else batch.through)
                yield Point("committed", batch.through)
                yield from self.send()
            batch = upcoming

    def _begin(self, batch: _Batch) -> Iterator[Point]:
        if self.settings.checkpoint == "before_handler":
            self._position = batch.through
            self._commit()
            yield Point("committed", batch.through)
        elif self.mark.begun < batch.through:
            self._commit(begun=batch.through)

    def _batch(self, batch: _Batch, *, careful: bool) -> Iterator[Point]:
        after = [row[0] for row, _ in batch.rows[1:]] + [0]
        for (row, part), following in zip(batch.rows, after, strict=True):
            if self._is_finished(row[0], part):
                continue
            recorded: RecordedEvent[Any] = RecordedEvent(row, part=part)  # not kept, nor what it decodes to
            if not self._passes(recorded) and (not careful or (yield from self._dares(recorded))):
                yield Point("handle", recorded.position)
                error = self._tried(recorded)
                if error is not None:
                    yield from self._again(recorded, error, careful=careful)
            if following != recorded.position:  # all parts of a stored event are done with
                self._position = max(self._position, recorded.position)
                self._bar.at(recorded.position)
            else:
                self._parts = (recorded.position, part + 1)
            yield Point("handled", recorded.position)

    def _batches(self, until: int, uncertain: int) -> Iterator[_Batch]:
        """Give what is to be done: event by event up to the position `uncertain`, then in batches."""
        wanted = replace(self.settings.wanted, after=self._position, until=until)
        share, among = self.settings.partition
        for low in range(self._position, max(until, self._position + 1), _WINDOW):
            high = min(low + _WINDOW, until)
            rows = [
                pair
                for stored in self.store._scan(replace(wanted.leading(), after=low, until=high))
                for pair in self._today(wanted, stored)
                if among == 1 or share_of(pair[0][1], among) == share
            ]
            start = 0
            while start < len(rows):
                end = start + (1 if rows[start][0][0] <= uncertain else self.settings.batch)
                while end < len(rows) and rows[end][0][0] == rows[end - 1][0][0]:
                    end += 1  # the parts of one stored event stay together
                yield _Batch(rows[start:end], rows[end - 1][0][0] if end < len(rows) else high)
                start = end
            if not rows:
                yield _Batch((), high)

    def _today(self, wanted: Filter, stored: Sequence[Row]) -> Iterable[tuple[Row, int]]:
        """Give events as they are read today; one whose upcaster fails is noted, and given as stored."""
        try:
            return list(wanted.today(stored))
        except UpcasterFailed as error:
            if len(stored) > 1:
                return [pair for row in stored for pair in self._today(wanted, [row])]
            self._spoilt[stored[0][0]] = error
            return [(stored[0], 0)]

    def send(self) -> Iterator[Point]:
        """Do what waits in the outbox."""
        if not self.settings.outbox:
            return
        functions = {**self.settings.sends, **self.effects.functions}
        retry, wait = self.settings.retry, self._waiter.result
        relay = Relay(self.progress, functions, retry, sleep=self._sleep, now=self.now, wait=wait)
        for _ in relay.send():
            yield Point("send", self._position)

    # --- one event -----------------------------------------------------------------------------------------

    def _passes(self, recorded: RecordedEvent[Any]) -> bool:
        """Say whether an event is not for the handler now: it waits behind a dead letter, or was handled."""
        if recorded.stream in self._parked:
            self._park(recorded, 0, None)
            return True
        return self.settings.inbox and self._is_handled(recorded)

    def _dares(self, recorded: RecordedEvent[Any]) -> Generator[Point, None, bool]:
        """Note an attempt before it is made, unless an event has killed the process too often."""
        attempts = self._attempts(recorded) or 1  # that which a crash left open counts as tried
        if attempts >= self.settings.retry.max_attempts:
            yield from self._give_up(recorded, attempts, None)
            return False
        self._commit(trying=recorded, attempts=attempts + 1, begun=self.mark.begun)
        return True

    def _again(self, recorded: RecordedEvent[Any], error: Exception, *, careful: bool) -> Iterator[Point]:
        """Try an event that failed again, as the policy says, and give it up in the end."""
        attempts = self._attempts(recorded) + (not careful)
        last: Exception | None = error
        while last is not None:
            if not self._retries(last, attempts):
                yield from self._give_up(recorded, attempts, last)
                return
            self._commit(trying=recorded, attempts=attempts + careful, begun=self.mark.begun)
            yield Point("retry", recorded.position)
            self._sleep(self.settings.retry.wait(attempts, f"{self.progress.name} {recorded.event_id}"))
            yield Point("handle", recorded.position)
            last = self._tried(recorded)
            attempts += 1

    def _attempts(self, recorded: RecordedEvent[Any]) -> int:
        """Return how many attempts of an event are noted."""
        here = (recorded.position, recorded.part) == (self.mark.trying, self.mark.part)
        return self.mark.attempts if here else 0

    def _retries(self, error: Exception, attempts: int) -> bool:
        once = self.settings.checkpoint == "before_handler" or self.open_until is not None
        return not once and not isinstance(error, _LASTING) and self.settings.retry.retries(error, attempts)

    def _tried(self, recorded: RecordedEvent[Any]) -> Exception | None:
        """Hand an event to its handler; return what it raised, with its rows taken back, or None."""
        if recorded.position in self._spoilt:
            return self._spoilt[recorded.position]
        calls, rows, effects = self.handler.calls, self._ready(), self.effects
        if rows is not None:
            rows.begin()
        effects.begin(recorded)
        self._at = recorded
        try:
            result = (calls.get(recorded.type) or calls[""])(recorded, rows, effects)
            if result is not None and isinstance(result, Awaitable):
                self._waiter.result(result)
        except BaseException as error:
            if rows is not None:
                rows.undo()
            effects.take_back()
            if not isinstance(error, Exception):
                raise
            return error
        finally:
            effects.cause = None
        self._in_a_row, self.open_until = 0, None
        if self.settings.inbox:
            self._inbox.append((key_of(recorded), recorded.position))
        return None

    def _is_finished(self, position: int, part: int) -> bool:
        """Say whether a part was handled already of an event whose later parts were not."""
        return position == self._parts[0] and part < self._parts[1]

    def _take_back(self) -> None:
        """Leave of what an interrupt found between its begin and its end only the effects that are done."""
        at = self._at
        if at is not None and self._is_open(at):
            if self._rows is not None:
                self._rows.undo()
            self.effects.take_back()
            self._inbox = [entry for entry in self._inbox if entry[0] != key_of(at)]
        self._new = [letter for letter in self._new if not self._is_open(letter)]

    def _is_open(self, one: RecordedEvent[Any] | Letter) -> bool:
        return one.position > self._position and not self._is_finished(one.position, one.part)

    def _ready(self) -> Rows[Any] | None:
        if self.handler.row is not None and self._rows is None:
            self._rows = self.progress.rows(self.mark.position, self.store.position)
        return self._rows

    def _is_handled(self, recorded: RecordedEvent[Any]) -> bool:
        return recorded.position <= self._known["inbox"] and self.progress.handled(key_of(recorded))

    def _is_done(self, key: str, position: int) -> bool:
        return position <= self._known["effects"] and self.progress.effect(key) is not None

    # --- failures ------------------------------------------------------------------------------------------

    def _give_up(
        self, recorded: RecordedEvent[Any], attempts: int, error: Exception | None
    ) -> Iterator[Point]:
        """Do what is to be done with an event that failed for good; without an error the process died."""
        breaker = self.settings.breaker
        if breaker is not None and error is not None:
            self._in_a_row += 1
            if self._in_a_row >= breaker.failures:
                self.open_until = self.store.clock.now().timestamp() + breaker.cooldown
                raise _CircuitOpen
        yield Point("give up", recorded.position)
        if self.settings.on_exhausted == "stop":
            told = said(error) if error else _DIED.format(attempts)
            self._commit(told=told)
            raise HandlerFailed(
                f"{self.progress.name} stopped at position {recorded.position} ({recorded.stream}, version "
                f"{recorded.version}, {recorded.type}), after {attempts} attempts: {told}; nothing later was "
                "handled, so correct the handler and catch up again"
            ) from error
        if self.settings.on_exhausted == "dead_letter":
            self._park(recorded, attempts, error)

    def _park(self, recorded: RecordedEvent[Any], attempts: int, error: Exception | None) -> None:
        """Put an event among the dead letters, in the next commit; later ones of its stream will follow."""
        now = self.now()
        index = self._parked.get(recorded.stream, 0)
        self._parked[recorded.stream] = index + 1
        cause = told = None
        if error is not None:
            cause, told = type(error).__name__, text_of(error)
        elif attempts:
            cause, told = "ProcessDied", _DIED.format(attempts)
        letter = Letter(
            dead_letter_id=self.progress.next_letter() + len(self._new),
            subscription=self.progress.name,
            sequence_id=recorded.stream,
            sequence_index=index,
            event_id=str(recorded.event_id),
            position=recorded.position,
            part=recorded.part,
            attempts=attempts,
            cause_type=cause,
            cause_message=told,
            enqueued_at=now,
            last_touched=now,
            diagnostics=diagnostics(error),
        )
        self._new.append(letter)

    # --- dead letters --------------------------------------------------------------------------------------

    def redrive(self, letter: Letter) -> Exception | None:
        """Hand a dead letter's event to the handler; return why it failed again, or None."""
        tried = letter._replace(attempts=letter.attempts + 1, last_touched=self.now())
        self._spoilt.pop(letter.position, None)
        try:
            found = self.store.read(after=letter.position - 1, until=letter.position)
            recorded = next((one for one in found if one.part == letter.part), None)
        except UpcasterFailed as spoilt:
            return self._failed_again(tried, spoilt)
        if recorded is None or not self.settings.wanted.query.matches(recorded.type, recorded.tags):
            self.dismiss([letter.dead_letter_id])  # it is read as another event today, or as none
            return None
        self.progress.commit(self.mark, letters=[tried])  # before it is tried: it may kill the process
        error = self._tried(recorded)
        if error is None:
            self.dismiss([letter.dead_letter_id])
            return None
        return self._failed_again(tried, error)

    def _failed_again(self, letter: Letter, error: Exception) -> Exception:
        failed = letter._replace(
            cause_type=type(error).__name__, cause_message=text_of(error), diagnostics=diagnostics(error)
        )
        self.progress.commit(self.mark, letters=[failed])
        return error

    def dismiss(self, gone: Sequence[int]) -> None:
        """Commit that letters are no more, with the rows and effects of what was handled in their place."""
        self._commit(gone=gone)
        self._parked = self._waiting()
        for _ in self.send():
            pass

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
        attempts: int = 0,
        told: str | None = None,
        gone: Sequence[int] = (),
    ) -> None:
        position = max(self._position, self.mark.position)
        parts = self._parts if self._parts[0] > position else (0, 0)
        at, part = (trying.position, trying.part) if trying else parts
        mark = replace(
            self.mark,
            position=position,
            begun=max(begun, position),
            trying=at,
            part=part,
            attempts=attempts,
            told=told,
        )
        if mark == self.mark and not (self._new or self._inbox or self.effects.fresh or gone):
            return
        self.progress.commit(
            mark,
            letters=self._new,
            gone=gone,
            effects=self.effects.fresh.values(),
            inbox=self._inbox,
            at=self.now(),
            rows=self._rows,
        )
        self.mark = mark
        self._new, self._inbox = [], []
        if self.effects.fresh:
            self._known["effects"] = max(self._known["effects"], position, trying.position if trying else 0)
            self.effects.settle()


_DIED = "the process died while it was handled ({} times)"
_LASTING = (InvalidEvent, UnknownEventType, UpcasterFailed, InvalidArgument, TypeError)
"""Errors that another attempt would only repeat."""


def share_of(stream: str, among: int) -> int:
    """Return which share a stream belongs to; names that differ in one digit are spread as well."""
    return (crc32(stream.encode()) * 0x9E3779B1 >> 16) % among


def diagnostics(error: Exception | None) -> str | None:
    """Return where an error came from, as JSON: the last lines of its traceback."""
    if error is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    told = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return json.dumps({"traceback": told})
