"""Load aggregates by replaying their streams, decide on them, and save what was decided.

A load folds the payloads of one stream. The state it ends with is kept in a small cache together with its
version; the next load asks the store for the stream's version and reads only what is newer, so the cache is
never stale. Snapshots do the same across processes, under a stamp of the fold's code and of the events' shapes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from pydantic import ValidationError

from esim import display
from esim.clock import micros, utc
from esim.contract import Moment, Snapshot, Store
from esim.errors import Conflict, InvalidArgument, InvalidState, StreamNotFound, UnknownEventType
from esim.event import Event, RecordedEvent, batch_decoder, definitions
from esim.reading import Recorded
from esim.state import (
    Aggregate,
    State,
    after,
    current_state,
    decided,
    evolve_all,
    foreign,
    state_stamp,
    untouchable,
)
from esim.writing import Write, stream_id

if TYPE_CHECKING:
    import pandas as pd

E = TypeVar("E", bound=Event)
S = TypeVar("S", bound=State[Any])
P = ParamSpec("P")
Payload = tuple[int, str, int, str]


class _Known(NamedTuple):
    version: int
    state: State[Any]


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

        `retries`: how often `run` decides again after a conflict. `snapshot_every`: save a snapshot each so many
        versions. `cache`: how many states are kept in memory. Raises InvalidState if the state has no events or
        lacks a default, InvalidArgument for numbers that make no sense.
        """
        if not (isinstance(state, type) and issubclass(state, State)):
            raise InvalidArgument(
                f"{display.short(state)} is not a State class: write Repository(store, Order)"
            )
        if retries < 0 or cache < 0 or (snapshot_every is not None and snapshot_every < 1):
            raise InvalidArgument("retries and cache count from 0, snapshot_every from 1")
        self.store = store
        self._state = state
        self.retries = retries
        self.snapshot_every = snapshot_every
        self.conflicts = 0
        """How many conflicts `run` has met and retried so far."""
        state.initial()
        self._seen = definitions()
        self._events = state.event_types()
        self._folds = state
        self._size = cache
        self._cache: OrderedDict[str, _Known] = OrderedDict()
        self._lock = Lock()
        self._stamp = state_stamp(state)

    @property
    def state(self) -> type[S]:
        """The state class, in its latest definition."""
        return current_state(self._state)

    # --- loading -------------------------------------------------------------------------------------------

    def new(self, id: str) -> Aggregate[S]:
        """Return an aggregate at version 0, before its first event."""
        self._stream(id)
        return Aggregate(id, self.state.initial())

    def load(self, id: str, *, at: Moment | None = None, occurred_at: datetime | None = None) -> Aggregate[S]:
        """Return the aggregate as it is, or as it was `at` a version (int) or recorded time (aware datetime).

        `occurred_at` takes, in order of version, the events that had happened by then in the world (by their
        `occurred_at`, or `recorded_at` where that is missing). Raises StreamNotFound where there is no event,
        InvalidArgument for a version beyond the head.
        """
        if at is not None and occurred_at is not None:
            raise InvalidArgument("give at (a version or a recorded time) or occurred_at, not both")
        if occurred_at is not None:
            return self._occurred(id, utc(occurred_at))
        found = self._present(id) if at is None else self._past(id, at)
        if found.version == 0:
            raise StreamNotFound(self._missing(id, at))
        return found

    def ids(self) -> list[str]:
        """Return the ids of all aggregates, in order of their first event."""
        start = len(self.state.category) + 1
        return [stream[start:] for stream in self.store.streams(self.state.category)]

    def _present(self, id: str) -> Aggregate[S]:
        stream = self._stream(id)
        self._refresh()
        head = self.store.version(stream)
        known = self._cache.get(stream)
        if known is not None and known.version == head:
            return Aggregate(id, untouchable(known.state), head)  # type: ignore[arg-type]  # kept by stream
        version, state = self._start(stream, known)
        rows = self.store.payloads(stream, version) if head > version else []
        state = self._fold(rows, state)
        version = rows[-1][0] if rows else version
        self._keep(stream, version, state)
        return Aggregate(id, untouchable(state), version)

    def _start(self, stream: str, known: _Known | None) -> tuple[int, S]:
        """Return the latest version and state that need no replay: cached, from a snapshot, or the very first."""
        if known is not None:
            return known.version, untouchable(known.state)  # type: ignore[return-value]  # kept by stream
        snapshot = self.store.snapshot(stream) if self.snapshot_every else None
        if snapshot is not None and snapshot.stamp == self._stamp:
            try:
                state = self.state.__pydantic_validator__.validate_json(snapshot.state)
            except ValidationError:  # damaged: the log is the truth
                return 0, self.state.initial()
            return snapshot.version, state
        return 0, self.state.initial()

    def _past(self, id: str, at: Moment) -> Aggregate[S]:
        stream = self._stream(id)
        if isinstance(at, datetime):
            return self._folded(id, self.store.payloads(stream, position=self.store.position_at(at)))
        head = self.store.version(stream)
        if isinstance(at, bool) or not 0 <= at <= head:
            raise InvalidArgument(
                f"{stream!r} is at version {head}, so there is no version {at}: give 0 to {head}"
            )
        return Aggregate(id, self._fold(self.store.payloads(stream, until=at), self.state.initial()), at)

    def _occurred(self, id: str, moment: datetime) -> Aggregate[S]:
        stream, bound = self._stream(id), micros(moment)
        rows = [
            (one.version, one.type, one.schema_version, one.json)
            for one in self.store.read(stream)
            if micros(one.occurred_at or one.recorded_at) <= bound
        ]
        if not rows:
            raise StreamNotFound(f"nothing in {stream!r} had happened by {moment.isoformat()}")
        return self._folded(id, rows)

    def _folded(self, id: str, rows: list[Payload]) -> Aggregate[S]:
        return Aggregate(id, self._fold(rows, self.state.initial()), rows[-1][0] if rows else 0)

    def _fold(self, rows: list[Payload], state: S) -> S:
        return evolve_all(state, self._decoded(rows))

    def _decoded(self, rows: list[Payload]) -> Iterator[Event]:
        self._refresh()
        decode = batch_decoder(self._events)
        try:
            yield from decode([row[1] for row in rows], [row[3] for row in rows])
        except UnknownEventType:
            known = {cls.event_type for cls in self._events}
            strange = next(row[1] for row in rows if row[1] not in known)
            raise UnknownEventType(foreign(self.state, strange)) from None

    def _stream(self, id: str) -> str:
        if not isinstance(id, str) or not id:
            raise InvalidArgument(f"{id!r} is not an id: give text such as 'o-1'")
        if id.startswith(f"{self.state.category}/"):
            raise InvalidArgument(f"{id!r} names the stream: give the id alone, {id.partition('/')[2]!r}")
        return stream_id(f"{self.state.category}/{id}")

    def _missing(self, id: str, at: Moment | None) -> str:
        when = "" if at is None else f" at {at}"
        near = display.did_you_mean(id, self.ids()[:10_000])
        return f"no event of {self.state.category} {id!r} was recorded{when}{near}; new({id!r}) gives a fresh one"

    # --- the cache -----------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Forget cached states when the state or one of its events was defined anew."""
        if self._seen == definitions():
            return
        with self._lock:
            self._seen = definitions()
            stamp, events = state_stamp(self.state), self.state.event_types()
            if stamp != self._stamp or events != self._events or self.state is not self._folds:
                self._cache.clear()
            self._stamp, self._events, self._folds = stamp, events, self.state

    def _keep(self, stream: str, version: int, state: S) -> None:
        with self._lock:
            known = self._cache.get(stream)
            if self._size and version and (known is None or known.version <= version):
                self._cache[stream] = _Known(version, untouchable(state))
                self._cache.move_to_end(stream)
                while len(self._cache) > self._size:
                    self._cache.popitem(last=False)

    # --- saving --------------------------------------------------------------------------------------------

    def save(self, aggregate: Aggregate[S]) -> Recorded:
        """Record an aggregate's uncommitted events, if its stream is still at the aggregate's version.

        Raises Conflict (and writes nothing) if it is not, so saving the same aggregate twice is a conflict too;
        load it again to go on. Raises InvalidArgument if there is nothing to save.
        """
        if not isinstance(aggregate.state, State) or type(aggregate.state).category != self.state.category:
            raise InvalidArgument(f"{aggregate!r} is not an aggregate of {self.state.__name__}")
        if not aggregate.uncommitted:
            raise InvalidArgument(
                f"{aggregate.stream!r} has nothing to save: decide first, then save what it returns"
            )
        expected = aggregate.version or "no_stream"
        recorded = self.store.append_all([Write(aggregate.stream, aggregate.uncommitted, expected)])
        self._after_save(aggregate, recorded)
        return recorded

    def _after_save(self, aggregate: Aggregate[S], recorded: Recorded) -> None:
        version = aggregate.version + len(recorded)
        self._keep(aggregate.stream, version, aggregate.state)
        every = self.snapshot_every
        if every and version // every > aggregate.version // every:
            text = aggregate.state.__pydantic_serializer__.to_json(aggregate.state).decode()
            if self.state.__pydantic_validator__.validate_json(text) != aggregate.state:
                raise InvalidState(
                    f"{self.state.__name__} does not survive JSON, so a snapshot of it would be wrong (its events are "
                    "saved): give its fields types that do, or leave out snapshot_every"
                )
            self.store.save_snapshot(Snapshot(aggregate.stream, version, self._stamp, text))

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
        for tries in range(self.retries + 1):
            before = self._present(id)
            result = decision(before.state, *args, **kwargs)
            events = decided(result)
            if not events:
                return None if result is None else Recorded(())
            try:
                saved = self.save(Aggregate(id, after(before.state, events), before.version, events))
            except Conflict as conflict:
                if tries == self.retries:
                    conflict.add_note(f"decided {tries + 1} times, and each time someone else was faster")
                    raise
                self.conflicts += 1
            else:
                return saved[0] if isinstance(result, Event) else saved
        raise AssertionError("unreachable: the last try returns or raises")  # pragma: no cover

    def _must_decide(self, decision: object) -> None:
        name = self.state.__name__
        if not callable(decision):
            raise InvalidArgument(
                f"{display.short(decision)} is not a decision: give a method, such as {name}.pay"
            )
        owner = getattr(decision, "__self__", None)
        if isinstance(owner, State):
            raise InvalidArgument(
                f"give the decision unbound, {type(owner).__name__}.{decision.__name__}: run loads the state"
            )  # type: ignore[attr-defined]  # a bound method

    # --- looking back --------------------------------------------------------------------------------------

    def history(self, id: str) -> pd.DataFrame:
        """Return one row per event of an aggregate, in order of version.

        Columns: version, position, recorded_at (UTC), event (type), data (JSON text), changed (what the event
        set, as text `field: old → new`), and one column per field of the state with its value after the event.
        Raises StreamNotFound for an unknown id.
        """
        import pandas as pd

        rows = []
        for one, old, new in self._steps(id):
            changed = "; ".join(
                f"{name}: {display.plain(a)} → {display.plain(b)}" for name, a, b in _changes(old, new)
            )
            facts = {"version": one.version, "position": one.position, "recorded_at": one.recorded_at}
            told = {"event": one.type, "data": one.json, "changed": changed}
            rows.append({**facts, **told, **{_column(name): value for name, value in _fields(new)}})
        return pd.DataFrame(rows).astype({"recorded_at": "datetime64[us, UTC]"})

    def blame(self, id: str) -> pd.DataFrame:
        """Return one row per field of an aggregate's present state: who set it last.

        Columns: field, value, set_by (event type; None where it still has its default), version, position,
        recorded_at (UTC). Raises StreamNotFound for an unknown id.
        """
        import pandas as pd

        by: dict[str, RecordedEvent[Any]] = {}
        state: State[Any] = self.state.initial()
        for one, old, state in self._steps(id):  # noqa: B020 - the last state is wanted after the loop
            by |= {name: one for name, _, _ in _changes(old, state)}
        rows = [
            (
                name,
                value,
                one and one.type,
                one and one.version,
                one and one.position,
                one and one.recorded_at,
            )
            for name, value in _fields(state)
            for one in [by.get(name)]
        ]
        names = ["field", "value", "set_by", "version", "position", "recorded_at"]
        types = {"version": "Int64", "position": "Int64", "recorded_at": "datetime64[us, UTC]"}
        return pd.DataFrame(rows, columns=names).astype(types)

    def _steps(self, id: str) -> Iterator[tuple[RecordedEvent[Any], S, S]]:
        """Give each event of an aggregate with the state before and after it."""
        stream = self._stream(id)
        old = self.state.initial()
        events = self.store.read(stream)
        if not events:
            raise StreamNotFound(self._missing(id, None))
        for one in events:
            new = self._fold([(one.version, one.type, one.schema_version, one.json)], untouchable(old))
            yield one, old, new
            old = new

    def __repr__(self) -> str:
        again = f"; {self.conflicts} conflicts retried" if self.conflicts else ""
        return f"<Repository of {self.state.__name__} in {self.store!r}{again}>"


def _fields(state: State[Any]) -> list[tuple[str, Any]]:
    return [(name, getattr(state, name)) for name in type(state).__pydantic_fields__]


def _changes(old: State[Any], new: State[Any]) -> list[tuple[str, Any, Any]]:
    return [(name, a, b) for (name, a), (_, b) in zip(_fields(old), _fields(new), strict=True) if a != b]


_FACTS = {"version", "position", "recorded_at", "event", "data", "changed"}


def _column(name: str) -> str:
    return f"{name}_" if name in _FACTS else name
