"""Load aggregates by replaying their streams, decide on them, and save what was decided.

A load folds the payloads of one stream. The state it ends with is kept in a small cache together with its
version; the next load asks the store for the stream's version and reads only what is newer. Snapshots do the
same across processes. Both hold under a stamp of the fold's code and the events' shapes, and neither is used
where the fold leans on something that the stamp cannot look into.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import index
from threading import Lock
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from pydantic import ValidationError

from esim import changes, display
from esim.arguments import whole
from esim.clock import utc
from esim.contract import Moment, Payload, Snapshot, Store, must_be_store
from esim.envelope import RecordedEvent
from esim.errors import Conflict, InvalidArgument, StreamNotFound, UnknownEventType
from esim.event import Event, batch_decoder, definitions
from esim.reading import Recorded
from esim.stamp import Stamp
from esim.state import (
    Aggregate,
    State,
    after,
    asked,
    current_state,
    decided,
    evolve_all,
    exact_json,
    foreign,
    state_of,
    state_stamp,
    untouchable,
)
from esim.upcast import roads
from esim.writing import stream_id

if TYPE_CHECKING:
    import pandas as pd

E = TypeVar("E", bound=Event)
S = TypeVar("S", bound=State[Any])
P = ParamSpec("P")
_NEW: Literal["no_stream"] = "no_stream"


class _Known(NamedTuple):
    version: int
    state: State[Any]


@dataclass(frozen=True)
class _Meaning(Generic[S]):
    """What the state class means at present, and the states folded under that meaning.

    Redefining a class makes a new meaning with an empty cache; a load under way in another thread keeps
    to the old one, and cannot put an outdated state into the new cache.
    """

    seen: int
    state: type[S]
    events: tuple[type[Event], ...]
    stamp: Stamp
    decode: Callable[[Sequence[str], Sequence[str]], Iterator[Event]]
    era: int
    cache: OrderedDict[str, _Known] = field(default_factory=OrderedDict)

    @property
    def in_force(self) -> bool:
        """Whether no class and no name that the fold leans on has been defined anew."""
        return self.seen == definitions() and not self.stamp.outdated

    def fold(self, rows: Sequence[Payload], state: S) -> S:
        """Return the state after stored payloads, decoded and evolved one by one, never all at once."""
        return evolve_all(state, self._decoded(rows))

    def _decoded(self, rows: Sequence[Payload]) -> Iterator[Event]:
        try:
            yield from self.decode([row[1] for row in rows], [row[3] for row in rows])
        except UnknownEventType:
            known = {cls.event_type for cls in self.events}
            strange = next(row[1] for row in rows if row[1] not in known)
            raise UnknownEventType(foreign(self.state, strange)) from None


class Repository(Generic[S]):
    """The aggregates of one kind of state in a store: load, decide, save."""

    def __init__(
        self,
        store: Store,
        state: type[S],
        *,
        retries: int = 3,
        snapshot_every: int | None = None,
        cache: int = 1024,
    ) -> None:
        """Keep aggregates of `state` in `store`.

        `retries`: how often `run` decides again after a conflict. `snapshot_every`: save a snapshot each so
        many versions. `cache`: how many states are kept in memory. Raises InvalidState if the state has no
        events or lacks a default, InvalidArgument for numbers that make no sense.
        """
        if not (isinstance(state, type) and issubclass(state, State)):
            raise InvalidArgument(
                f"{display.short(state)} is not a State class: write Repository(store, Order)"
            )
        self.store = must_be_store(store)
        self.retries = whole(retries, "retries")
        self.snapshot_every = None if snapshot_every is None else whole(snapshot_every, "snapshot_every")
        if self.snapshot_every == 0:
            raise InvalidArgument("snapshot_every=0: it counts from 1, and None makes no snapshots")
        self.no_snapshots: str | None = None
        """Why no snapshots are made although `snapshot_every` asks for them; None while they are."""
        self.conflicts = 0
        """How many conflicts `run` has met and retried so far."""
        self._state = state
        self._size = whole(cache, "cache")
        self._lock = Lock()
        self._meaning = self._learned()
        state.initial()

    @property
    def state(self) -> type[S]:
        """The state class, in its latest definition."""
        return current_state(self._state)

    def _learned(self) -> _Meaning[S]:
        seen, state = definitions(), self.state
        events = state.event_types()
        return _Meaning(seen, state, events, state_stamp(state), batch_decoder(events), self.store.era)

    def _now(self) -> _Meaning[S]:
        """Return the meaning in force; the cache goes on if nothing that matters here has changed."""
        old = self._meaning
        if old.era != self.store.era:
            self._meaning = old = replace(old, era=self.store.era, cache=OrderedDict())
        if not old.in_force:
            new = self._learned()
            same = (new.state, new.events, new.stamp.text) == (old.state, old.events, old.stamp.text)
            self._meaning = replace(new, cache=old.cache) if same else new
        return self._meaning

    # --- loading -------------------------------------------------------------------------------------------

    def new(self, id: str) -> Aggregate[S]:
        """Return an aggregate at version 0, before its first event."""
        self._stream(id)
        return Aggregate(id, self.state.initial())

    def load(self, id: str, *, at: Moment | None = None, occurred_at: datetime | None = None) -> Aggregate[S]:
        """Return the aggregate as it is, or as it was `at` a version (int) or recorded time (aware datetime).

        `occurred_at` takes, in order of version, the events that had happened by then in the world (by their
        `occurred_at`, or `recorded_at` where that is missing); its version is that of the last one taken.
        Raises StreamNotFound where there is no event, InvalidArgument for a version beyond the head.
        """
        if at is not None and occurred_at is not None:
            raise InvalidArgument("give at (a version or a recorded time) or occurred_at, not both")
        stream = self._stream(id)
        if at is not None and not isinstance(at, datetime):
            return self._at_version(id, stream, at)
        now = at is None and occurred_at is None
        found = self._present(id) if now else self._folded(id, self._until(stream, at, occurred_at))
        if found.version == 0:
            raise StreamNotFound(self._missing(id, at or occurred_at))
        return found

    def ids(self) -> list[str]:
        """Return the ids of all aggregates, in order of their first event."""
        start = len(self.state.category) + 1
        return [stream[start:] for stream in self.store.streams(self.state.category)]

    def _present(self, id: str) -> Aggregate[S]:
        stream, meaning = self._stream(id), self._now()
        known = meaning.cache.get(stream)
        if known is not None and known.version == self.store.version(stream):
            self._keep(meaning, stream, known)
            return Aggregate(id, untouchable(cast("S", known.state)), known.version)
        known = known or self._snapshot(stream, meaning) or _Known(0, meaning.state.initial())
        head = self.store.version(stream) if roads() else 0  # upcasters may leave nothing of the last events
        rows = self.store.payloads(stream, known.version)
        state = meaning.fold(rows, untouchable(cast("S", known.state)))
        version = max(head, rows[-1][0] if rows else known.version)
        self._keep(meaning, stream, _Known(version, state))
        return Aggregate(id, untouchable(state), version)

    def _at_version(self, id: str, stream: str, at: int) -> Aggregate[S]:
        head = self.store.version(stream)
        if head == 0:
            raise StreamNotFound(self._missing(id, at))
        try:
            version = -1 if isinstance(at, bool) else index(at)
        except TypeError:
            raise InvalidArgument(f"at={at!r}: give a version, or an aware datetime") from None
        if not 0 <= version <= head:
            raise InvalidArgument(f"{stream!r} is at version {head}; there is no {at}: give 0 to {head}")
        rows = self.store.payloads(stream, until=version) if version else []
        return replace(self._folded(id, rows), version=version)

    def _until(self, stream: str, at: Moment | None, occurred_at: datetime | None) -> list[Payload]:
        """Return the payloads recorded until a time, or those that had occurred by a time."""
        if at is not None:
            return self.store.payloads(stream, position=self.store.position_at(at))
        bound = utc(cast("datetime", occurred_at))
        return [
            (one.version, one.type, one.schema_version, one.json)
            for one in self.store.read(stream)
            if (one.occurred_at or one.recorded_at) <= bound
        ]

    def _folded(self, id: str, rows: list[Payload]) -> Aggregate[S]:
        meaning = self._now()
        return Aggregate(id, meaning.fold(rows, meaning.state.initial()), rows[-1][0] if rows else 0)

    def _stream(self, id: str) -> str:
        if not isinstance(id, str) or not id:
            raise InvalidArgument(f"{id!r} is not an id: give text such as 'o-1'")
        if id.startswith(f"{self.state.category}/"):
            raise InvalidArgument(f"{id!r} names the stream: give the id alone, {id.partition('/')[2]!r}")
        return stream_id(f"{self.state.category}/{id}")

    def _missing(self, id: str, at: Moment | None) -> str:
        when = "" if at is None else f" by {display.plain(at)}" if isinstance(at, datetime) else f" at {at}"
        told = f"no event of {self.state.category} {id!r} was recorded{when}"
        first = self.store.read(self._stream(id)).first()
        if first is not None:
            return f"{told}: its first was recorded at {display.plain(first.recorded_at)}"
        near = display.did_you_mean(id, self.ids()[:10_000])
        return f"{told}{near}; new({id!r}) gives a fresh one"

    def _keep(self, meaning: _Meaning[S], stream: str, found: _Known) -> None:
        """Put a state into the cache as the one used last, unless a later version is there already."""
        with self._lock:
            known = meaning.cache.get(stream, found)
            if self._size and found.version and meaning.stamp.opaque is None:
                meaning.cache[stream] = max(known, found, key=lambda one: one.version)
                meaning.cache.move_to_end(stream)
                while len(meaning.cache) > self._size:
                    meaning.cache.popitem(last=False)

    # --- saving --------------------------------------------------------------------------------------------

    def save(self, aggregate: Aggregate[S]) -> Recorded:
        """Record an aggregate's uncommitted events, if its stream is still at the aggregate's version.

        Raises Conflict (and writes nothing) if it is not, so saving the same aggregate twice is a conflict
        too; load it again to go on. Raises InvalidArgument if there is nothing to save.
        """
        if not isinstance(aggregate, Aggregate) or type(aggregate.state).category != self.state.category:
            raise InvalidArgument(f"{display.short(aggregate)} is not an aggregate of {self.state.__name__}")
        if not aggregate.uncommitted:
            raise InvalidArgument(
                f"{aggregate.stream!r} has nothing to save: decide first, then save what it returns"
            )
        return self._append(aggregate.id, aggregate.version, aggregate.uncommitted)

    def _append(self, id: str, version: int, events: tuple[Event, ...]) -> Recorded:
        stream, expected = self._stream(id), version or _NEW
        recorded = self.store.append(stream, events, expected=expected)
        self._advance(stream, version, recorded)
        every = self.snapshot_every
        if every and (version + len(recorded)) // every > version // every:
            self._save_snapshot(id)
        return recorded

    def _advance(self, stream: str, version: int, recorded: Recorded) -> None:
        """Take the cached state on by what was recorded, just as a load would."""
        meaning = self._now()
        known = meaning.cache.get(stream) if version else _Known(0, meaning.state.initial())
        if known is None or known.version != version:
            return
        rows = [(one.version, one.type, one.schema_version, one.json) for one in recorded]
        with suppress(Exception):  # the events are recorded: what is wrong with them, the next load says
            state = meaning.fold(rows, untouchable(cast("S", known.state)))
            self._keep(meaning, stream, _Known(rows[-1][0], state))

    # --- snapshots -----------------------------------------------------------------------------------------

    def _snapshot(self, stream: str, meaning: _Meaning[S]) -> _Known | None:
        """Return the stream's snapshot if it can be trusted; where it cannot, the log is the truth."""
        kept = self.store.snapshot(stream) if self.snapshot_every else None
        if kept is None or kept.stamp != meaning.stamp.text or kept.version > self.store.version(stream):
            return None
        try:
            return _Known(kept.version, meaning.state.__pydantic_validator__.validate_json(kept.state))
        except ValidationError:
            return None

    def _save_snapshot(self, id: str) -> None:
        try:
            found, meaning = self._present(id), self._now()
            text, self.no_snapshots = exact_json(found.state)
            if meaning.stamp.opaque is not None:
                self.no_snapshots = f"nobody could tell when they are stale: {meaning.stamp.opaque}"
            elif text is not None:
                self.store.save_snapshot(Snapshot(found.stream, found.version, meaning.stamp.text, text))
        except Exception as error:  # noqa: BLE001 - the events are recorded, and a snapshot only saves time
            self.no_snapshots = f"{type(error).__name__}: {display.cut(str(error), 100)}"

    # --- deciding ------------------------------------------------------------------------------------------

    @overload
    def run(
        self, id: str, decision: Callable[Concatenate[S, P], E], /, *args: P.args, **kwargs: P.kwargs
    ) -> RecordedEvent[E]: ...
    @overload
    def run(
        self, id: str, decision: Callable[Concatenate[S, P], E | None], /, *args: P.args, **kwargs: P.kwargs
    ) -> RecordedEvent[E] | None: ...
    @overload
    def run(
        self,
        id: str,
        decision: Callable[Concatenate[S, P], Iterable[Event]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Recorded: ...
    def run(
        self, id: str, decision: Callable[Concatenate[S, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> RecordedEvent[Any] | Recorded | None:
        """Load (or begin) an aggregate, decide, and save: return the recorded event, several, or None.

        When somebody else appended in between, load and decide again, at most `retries` times; `conflicts`
        counts these. Raises what the decision raises, and the last Conflict when the retries are used up.
        """
        self._must_decide(decision)
        tries = 0
        while True:
            before = self._present(id)
            result = asked(decision, before.state, *args, **kwargs)
            events = decided(result)
            if not events:
                return None if result is None else Recorded(())
            after(before.state, events)  # raises what would make an invalid state, before it is recorded
            try:
                saved = self._append(id, before.version, events)
                return saved[0] if isinstance(result, Event) else saved
            except Conflict as conflict:
                tries += 1
                self._retried(conflict, tries)

    def _retried(self, conflict: Conflict, tries: int) -> None:
        """Count a conflict that is followed by another try. Raises it, with a note, if that was the last."""
        if tries > self.retries:
            again = "once" if tries == 1 else f"{tries} times, each time on a fresh load"
            conflict.add_note(f"decided {again}; someone else was faster (retries={self.retries})")
            raise conflict
        with self._lock:
            self.conflicts += 1

    def _must_decide(self, decision: object) -> None:
        name = self.state.__name__
        if not callable(decision):
            method = decision if isinstance(decision, str) and decision.isidentifier() else "pay"
            raise InvalidArgument(
                f"{display.short(decision)} is not a decision: give the method itself, as in {name}.{method}"
            )
        owner = getattr(decision, "__self__", None)
        if isinstance(owner, State):
            method = getattr(decision, "__name__", "decision")
            raise InvalidArgument(f"give the decision unbound, {name}.{method}: run loads the state itself")
        try:
            home = state_of(decision)
        except InvalidArgument:  # a free function belongs to no state, and may decide on any
            return
        if not any(current_state(base) is home for base in self.state.__mro__):
            told = f"{getattr(decision, '__qualname__', decision)} decides on a {home.__name__}"
            raise InvalidArgument(f"{told}, and this is a repository of {name}")

    # --- looking back --------------------------------------------------------------------------------------

    def history(self, id: str) -> pd.DataFrame:
        """Return one row per event of an aggregate, in order of version; see `changes.history`.

        Raises StreamNotFound for an unknown id.
        """
        return changes.history(self._steps(id))

    def blame(self, id: str) -> pd.DataFrame:
        """Return one row per field of an aggregate's present state: who set it last; see `changes.blame`.

        Raises StreamNotFound for an unknown id.
        """
        return changes.blame(self._steps(id))

    def _steps(self, id: str) -> Iterator[tuple[RecordedEvent[Any], S, S]]:
        """Give each event of an aggregate with the state before and after it."""
        meaning, before = self._now(), None
        for one in self.store.read(self._stream(id)):
            before = meaning.state.initial() if before is None else before
            row = (one.version, one.type, one.schema_version, one.json)
            state = meaning.fold([row], untouchable(before))
            yield one, before, state
            before = state
        if before is None:
            raise StreamNotFound(self._missing(id, None))

    def __repr__(self) -> str:
        again = (
            f"; {self.conflicts:,} conflict{'s' * (self.conflicts != 1)} retried" if self.conflicts else ""
        )
        bare = f"; no snapshots: {self.no_snapshots}" if self.no_snapshots else ""
        return f"<Repository of {self.state.__name__} in {self.store!r}{again}{bare}>"
