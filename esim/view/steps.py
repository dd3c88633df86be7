"""A log as steps to leaf through: each event, the state after it, what it changed, the read models then.

Everything is computed once, in Python, as plain text; a widget or a page only picks the step to show. Sizes
are capped so that a big log stays a small picture, and whatever is left out is said in `notes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Number
from operator import and_
from typing import TYPE_CHECKING, Any

from esim import display
from esim.contract import Store
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument, StreamNotFound
from esim.projection import Projection
from esim.readmodel import ReadModel
from esim.rows import Rows as LiveRows
from esim.state import State, fold
from esim.view.words import cut, text_of

if TYPE_CHECKING:
    from esim.repository import Repository

LIMIT = 200
MAX_ROWS = 20
MAX_BYTES = 2_000_000
ABSENT = -1


@dataclass(frozen=True)
class Field:
    """A name and its value as text; `before` is what stood there earlier, where this step changed it."""

    name: str
    text: str
    before: str | None = None


@dataclass(frozen=True)
class Happened:
    """The event of a step; `facts` holds what is known about it, `data` its payload."""

    type: str
    color: str
    stream: str
    version: int
    position: int
    facts: tuple[Field, ...]
    data: tuple[Field, ...]


@dataclass(frozen=True)
class StateThen:
    """The state of a stream after a step, or the `problem` that keeps it from being worked out."""

    name: str
    fields: tuple[Field, ...]
    problem: str = ""


@dataclass(frozen=True)
class Step:
    """One stop of the slider; `rows` holds, per read model, which of its `pool` rows stands in each line."""

    label: str
    event: Happened | None
    state: StateThen | None
    rows: tuple[tuple[int, ...], ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One read model over all steps: a line for each key, and every row that ever stands in one.

    `key` says which columns make the key, `keys` holds that of each line.
    """

    name: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    key: tuple[int, ...]
    keys: tuple[tuple[str, ...], ...]
    pool: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Timeline:
    """The steps of a log, the read models beside them, and `notes` on what is not shown."""

    title: str
    unit: str
    steps: tuple[Step, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the timeline as dicts, lists, numbers and text only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def timeline(
    source: Repository[Any] | Store,
    id: str | None = None,
    *,
    projections: Iterable[ReadModel] = (),
    states: Iterable[type[State[Any]]] = (),
    streams: str | Iterable[str] = (),
    limit: int = LIMIT,
) -> Timeline:
    """Return the last `limit` steps of one stream of a repository, or of a store.

    `projections` are shown as they were at each step; `states` says which State to fold for a stream's events
    in a store (by category); `streams` keeps to some streams of a store.
    Raises StreamNotFound for a stream without events, InvalidArgument for arguments that do not go together.
    """
    if limit < 1:
        raise InvalidArgument(f"limit={limit}: a timeline needs at least one step")
    names = (streams,) if isinstance(streams, str) else tuple(streams)
    if isinstance(source, Store):
        if id is not None:
            raise InvalidArgument(f"a store with the id {id!r}: write streams={id!r}, or give a repository")
        made = _build(source, names, tuple(states), tuple(projections), limit)
    else:
        if id is None or names:
            raise InvalidArgument("a repository needs the id of one stream: TimeMachine(orders, 'o-1')")
        stream = f"{source.state.category}/{id}"
        made = _build(source.store, (stream,), (source.state,), tuple(projections), limit)
    return made


def _build(
    store: Store,
    streams: tuple[str, ...],
    states: tuple[type[State[Any]], ...],
    projections: tuple[ReadModel, ...],
    limit: int,
) -> Timeline:
    missing = [name for name in streams if not store.version(name)]
    if missing:
        raise StreamNotFound(f"stream {missing[0]!r} has no events{_near(store, missing[0])}")
    events, total = _last(store, streams, limit)
    unit = "version" if len(streams) == 1 else "position"
    base = events[0].position - 1 if events else store.position
    positions = [base, *(one.position for one in events)]
    tables, rows = _tables(projections, positions)
    made = Timeline(
        title=", ".join(streams) or "the whole log",
        unit=unit,
        steps=tuple(_steps(events, _Folds(store, states), unit, tables, rows)),
        tables=tables,
        notes=_hidden(len(events), total),
    )
    if limit > 1 and len(json.dumps(made.as_json())) > MAX_BYTES:
        return _build(store, streams, states, projections, limit // 2)
    return made


def _near(store: Store, name: str) -> str:
    return display.did_you_mean(name, store.streams()[:10_000])


def _last(store: Store, streams: tuple[str, ...], limit: int) -> tuple[list[RecordedEvent[Any]], int]:
    readings = [store.read(name) for name in streams or (None,)]
    found = [one for name in streams or (None,) for one in store.read(name, backward=True, limit=limit)]
    return sorted(found, key=lambda one: one.position)[-limit:], sum(map(len, readings))


def _hidden(shown: int, total: int) -> tuple[str, ...]:
    if shown == total:
        return ()
    way_out = "see others with limit=…, streams=… or store.as_of(position)"
    return (f"the last {shown:,} of {total:,} events; {way_out}",)


# --- steps -------------------------------------------------------------------------------------------------


def _steps(
    events: Sequence[RecordedEvent[Any]],
    folds: _Folds,
    unit: str,
    tables: Sequence[Table],
    rows: Sequence[tuple[tuple[int, ...], ...]],
) -> Iterator[Step]:
    start = 0 if not events else (events[0].version if unit == "version" else events[0].position) - 1
    first = folds.before(events[0]) if events and unit == "version" else None
    yield Step(f"{unit} {start:,}", None, first, rows[0], ())
    for index, one in enumerate(events, 1):
        state = folds.after(one)
        told = [_told(field) for field in state.fields if field.before is not None] if state else []
        told += [
            line
            for t, table in enumerate(tables)
            for line in _moved(table, rows[index - 1][t], rows[index][t])
        ]
        number = one.version if unit == "version" else one.position
        yield Step(f"{unit} {number:,}", happened(one), state, rows[index], tuple(told))


def _told(field: Field) -> str:
    before, after = (cut(text.replace("\n", "; "), 160) for text in (field.before or "", field.text))
    return f"{field.name}: {before} → {after}"


def happened(one: RecordedEvent[Any]) -> Happened:
    """Return a recorded event as text."""
    facts = {"recorded": text_of(one.recorded_at)}
    if one.occurred_at is not None and one.occurred_at != one.recorded_at:
        facts["occurred"] = text_of(one.occurred_at)
    facts |= {"by": text_of(one.user_id)} if one.user_id else {}
    facts |= {"schema version": str(one.schema_version)} if one.schema_version != 1 else {}
    return Happened(
        display.clean(one.type),
        display.color_of(one.type),
        display.clean(one.stream),
        one.version,
        one.position,
        fields_of(facts),
        fields_of(one.data),
    )


def fields_of(values: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return names and values as text."""
    return tuple(Field(cut(display.clean(str(name)), 80), text_of(value)) for name, value in values.items())


class _Folds:
    """The state of every stream met so far, one event at a time."""

    def __init__(self, store: Store, states: Iterable[type[State[Any]]]) -> None:
        self._store = store
        self._types = {state.category: state for state in states}
        self._now: dict[str, State[Any] | str] = {}

    def before(self, one: RecordedEvent[Any]) -> StateThen | None:
        """Return the state of the event's stream just before it."""
        kind = self._types.get(one.category)
        return _then(kind, self._state(kind, one), ()) if kind else None

    def after(self, one: RecordedEvent[Any]) -> StateThen | None:
        """Return the state of the event's stream after it, with what it changed; None without a State."""
        kind = self._types.get(one.category)
        if kind is None:
            return None
        was = self._state(kind, one)
        now = was if isinstance(was, str) else _folded(kind, [one], was)
        self._now[one.stream] = now
        return _then(kind, now, _then(kind, was, ()).fields)

    def _state(self, kind: type[State[Any]], one: RecordedEvent[Any]) -> State[Any] | str:
        if one.stream not in self._now:
            earlier = self._store.read(one.stream, until_version=one.version - 1) if one.version > 1 else ()
            self._now[one.stream] = _folded(kind, earlier, None)
        return self._now[one.stream]


def _folded(
    kind: type[State[Any]], events: Iterable[RecordedEvent[Any]], was: State[Any] | None
) -> State[Any] | str:
    try:
        return fold(kind, events, initial=was)
    except Exception as error:  # noqa: BLE001 - evolve is the user's code: its failure is shown in its place
        return f"{type(error).__name__}: {error}"


def _then(kind: type[State[Any]], state: State[Any] | str, before: Sequence[Field]) -> StateThen:
    if isinstance(state, str):
        return StateThen(kind.__name__, (), cut(display.clean(state), 1000))
    was = {field.name: field.text for field in before}
    now = fields_of({name: getattr(state, name) for name in type(state).model_fields})
    return StateThen(kind.__name__, tuple(_changed(field, was.get(field.name, field.text)) for field in now))


def _changed(field: Field, was: str) -> Field:
    return field if field.text == was else replace(field, before=was)


# --- read models -------------------------------------------------------------------------------------------

Key = tuple[str, ...]
Rows = dict[Key, tuple[str, ...]]


def _tables(
    projections: Sequence[ReadModel], positions: Sequence[int]
) -> tuple[tuple[Table, ...], list[tuple[tuple[int, ...], ...]]]:
    made = [_table(projection, positions) for projection in projections]
    per_step = [tuple(lines[index] for _, lines in made) for index in range(len(positions))]
    return tuple(table for table, _ in made), per_step


def _table(projection: ReadModel, positions: Sequence[int]) -> tuple[Table, list[tuple[int, ...]]]:
    seen = _Seen(projection)
    moments = list(seen.moments(positions))
    keys, note = _chosen(moments)
    pool: dict[tuple[str, ...], int] = {}
    lines = [
        tuple(pool.setdefault(rows[key], len(pool)) if key in rows else ABSENT for key in keys)
        for rows in moments
    ]
    columns = tuple(map(display.clean, seen.columns))
    return Table(type(projection).__name__, columns, seen.numeric, seen.key, keys, tuple(pool), note), lines


class _Seen:
    """The rows of a read model as text, by key, at one position after the other."""

    def __init__(self, projection: ReadModel) -> None:
        self._projection = projection
        self.columns: tuple[str, ...] = ()
        self.numeric: tuple[bool, ...] = ()
        self.key: tuple[int, ...] = ()

    def moments(self, positions: Sequence[int]) -> Iterator[Rows]:
        """Give the rows at ascending positions: handlers see each event once, a query is asked anew."""
        if isinstance(self._projection, Projection):
            yield from self._folded(self._projection, positions)
        else:
            yield from map(self._asked, positions)

    def _folded(self, projection: Projection[Any], positions: Sequence[int]) -> Iterator[Rows]:
        self._columns(tuple(projection.row.model_fields), projection.row.key_fields)
        rows: LiveRows[Any] = projection.empty()
        now: Rows = {}
        projection._head()
        for _ in projection._fold(rows, 0, positions[0]):
            pass  # the past in windows, as a rebuild reads it; one by one from here on
        events = iter(projection.store.read(after=positions[0], until=positions[-1]))
        for position in positions:
            while rows.position < position:
                projection.deliver(rows, next(events))
            now = self._after(now, rows)
            yield now

    def _after(self, now: Rows, changed: LiveRows[Any]) -> Rows:
        now = dict(now)
        for key, row in changed.changes():
            name = tuple(map(text_of, key if len(self.key) > 1 else (key,)))
            if row is None:
                now.pop(name, None)
            else:
                values = [getattr(row, column) for column in self.columns]
                self.numeric = _still_numeric(self.numeric, values)
                now[name] = tuple(map(text_of, values))
        changed.changed = {}
        return now

    def _asked(self, position: int) -> Rows:
        frame = self._projection.as_of(position)
        names = tuple(map(str, frame.columns))
        self._columns(names, getattr(self._projection, "key", ()) or names)
        found = list(frame.itertuples(index=False, name=None))
        for row in found:
            self.numeric = _still_numeric(self.numeric, row)
        texts = [tuple(map(text_of, row)) for row in found]
        return {tuple(row[place] for place in self.key): row for row in texts}

    def _columns(self, names: tuple[str, ...], key: tuple[str, ...]) -> None:
        self.columns = names
        self.numeric = self.numeric or (True,) * len(names)
        self.key = tuple(map(names.index, key))


def _still_numeric(columns: tuple[bool, ...], row: Sequence[object]) -> tuple[bool, ...]:
    numbers = (isinstance(value, Number) and not isinstance(value, bool) for value in row)
    return tuple(map(and_, columns, numbers))


def _chosen(moments: Sequence[Rows]) -> tuple[tuple[Key, ...], str]:
    """Return the keys that get a line, those that change first, and a note on what is not shown."""
    last: Rows = {key: row for rows in moments for key, row in rows.items()}
    moved = {key for key in last if len({rows.get(key) for rows in moments}) > 1}
    kept = set(sorted(last, key=lambda key: key not in moved)[:MAX_ROWS])
    note = f"{len(kept)} of {len(last):,} rows" if len(last) > len(kept) else ""
    if moved - kept:
        note += f"; {len(moved - kept):,} others change in these steps, unseen"
    return tuple(key for key in last if key in kept), note


def _moved(table: Table, was: Sequence[int], now: Sequence[int]) -> Iterator[str]:
    for key, old, new in zip(table.keys, was, now, strict=True):
        if old != new:
            yield f"{table.name} {', '.join(key)}: {row_change(table, old, new)}"


def row_change(table: Table, old: int, new: int) -> str:
    """Return in words how a row of a read model moved from one of its pool rows to another."""
    if new == ABSENT:
        return "row removed"
    if old == ABSENT:
        named = [f"{name} {text}" for name, text in zip(table.columns, table.pool[new], strict=True)]
        return ", ".join(["new row", *(one for place, one in enumerate(named) if place not in table.key)])
    pairs = zip(table.columns, table.pool[old], table.pool[new], strict=True)
    return ", ".join(f"{name} {a} → {b}" for name, a, b in pairs if a != b)
