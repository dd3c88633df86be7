"""Read models: tables that follow the log, filled by Python handlers or by one SQL query.

A `Projection` decodes only the event types that it handles, window by window, keeps its rows at hand in the
process, and writes those that changed with the window's checkpoint. A `SqlProjection` runs its query over the
events since the checkpoint and merges the result by key, or computes it anew where it cannot be merged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast, get_args, get_origin

from esim import display
from esim.envelope import Reacting, RecordedEvent
from esim.errors import InvalidArgument, ProjectionFailed, SqlRefused, said
from esim.event import Event, batch_decoder, current, known_events
from esim.eventtable import where
from esim.query import Filter, Query
from esim.readmodel import ReadModel, windows
from esim.rows import Handler, Key, R, Row, Rows, functions_of, handlers_of, on
from esim.stamp import Stamp, stamp
from esim.tables import RowTable, Table, order_by, pairs, quoted, registered, text_of
from esim.upcast import code as upcasters
from esim.upcast import roads, sources

if TYPE_CHECKING:
    from esim.answer import Answer

_Decode = Callable[[Sequence[str], Sequence[str]], Iterator[Event]]

__all__ = ["Key", "Projection", "Row", "Rows", "SqlProjection", "on"]


class Projection(ReadModel, Generic[R]):
    """A read model filled by Python handlers: `class Spending(Projection[Spend])` with `@on(…)` methods.

    `class …(Projection[Spend], name="spend", category="Order", tag="vip")` names the table and narrows the
    log to a category, or to events with a tag (or all of several). If a handler raises, nothing of its window
    is kept: the corrected handler has another stamp, and starts from the beginning anyway.
    """

    row: ClassVar[type[Row]]
    window: ClassVar[int] = 100_000
    """How many positions are read, and committed, at a time."""
    at_hand: ClassVar[int] = 500_000
    """How many rows are held in memory between two windows; others are looked up one by one."""
    _handlers: ClassVar[dict[str, Handler]] = {}
    _wanted: ClassVar[Filter] = Filter()

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        category: str | None = None,
        tag: str | Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(name=name, **kwargs)
        cls.row = _row_type(cls)
        cls._handlers = handlers_of(cls)
        tags = cls._wanted.query.items[0].tags if tag is None and cls._wanted.query.items else tag
        cls._wanted = Filter(
            category=category or cls._wanted.category, query=Query.of(list(cls._handlers), tags)
        )

    # --- the pure part -------------------------------------------------------------------------------------

    @classmethod
    def over(cls, events: Iterable[RecordedEvent[Any]]) -> dict[Any, R]:
        """Return the rows by key after recorded events, computed in plain Python: no store, no database."""
        rows = cls.empty()
        for recorded in events:
            cls.deliver(rows, recorded)
        return {rows.key_of(row): row for row in rows}

    @classmethod
    def empty(cls) -> Rows[R]:
        """Return rows before the first event, to `deliver` events to."""
        return Rows(cast("type[R]", cls.row))

    @classmethod
    def deliver(cls, rows: Rows[R], recorded: RecordedEvent[Any]) -> None:
        """Hand an event to its handler, unless it is none of ours or its position was delivered before.

        Raises ProjectionFailed, with its cause, if the handler raises.
        """
        if (recorded.position, recorded.part) <= (rows.position, rows.part):
            return
        if cls._wanted.admits(recorded._row):
            try:
                _bound(cls._handlers[recorded.type], cls.__new__(cls))(recorded.event, rows, recorded)
            except Exception as error:
                raise _failure(cls, recorded, error) from error
        rows.position, rows.part = recorded.position, recorded.part

    # --- following the log ---------------------------------------------------------------------------------

    def _stamped(self) -> Stamp:
        events = {event for handler in self._handlers.values() for event in map(current, handler.events)}
        code = (*functions_of(type(self), Projection), *functions_of(self.row, Row))
        shapes = sorted(events, key=lambda event: event.event_type)
        wanted = repr(self._wanted), self.row.key_fields
        parts = (type(self), self.row, *wanted, *code, *shapes, *upcasters(self._handlers))
        return stamp(*parts, pure=False)

    def _table(self, name: str) -> RowTable[R]:
        return RowTable(self._home._db, name, self._stamp, cast("type[R]", self.row))

    def _advance(self, table: Table, after: int, until: int) -> None:
        kept = cast("RowTable[R]", table)
        rows = kept.ready(after, until, self.at_hand)
        for position in self._fold(rows, after, until):
            with _fitting(self), kept.advance(position) as con:
                kept.write(con, rows)
            rows.settle(kept, self.at_hand)

    def _fold(self, rows: Rows[R], after: int, until: int) -> Iterator[int]:
        """Hand the events between two positions to their handlers; give where each window ends."""
        old = not roads().keys().isdisjoint(sources(self._handlers))  # upcasters may come into it
        aware = old or any(handler.recorded for handler in self._handlers.values())
        classes = [event for handler in self._handlers.values() for event in handler.events]
        for low, high in windows(after, until, self.window, type(self).__name__):
            decode = batch_decoder(classes)
            (self._with_envelopes if aware else self._without)(rows, decode, low, high)
            rows.position = high
            yield high

    def _without(self, rows: Rows[R], decode: _Decode, low: int, high: int) -> None:
        """Handle a window by its payloads alone: most handlers want no more, and envelopes cost a fifth."""
        calls = {name: MethodType(handler.call, self) for name, handler in self._handlers.items()}
        positions, types, texts = self._payloads(low, high)
        done = 0
        try:
            with Reacting(lambda: self._at(positions[done].as_py())):
                for kind, event in zip(types, decode(types, texts), strict=True):
                    calls[kind](event, rows)
                    done += 1
        except Exception as error:
            raise self._failed_at(positions[done].as_py(), error) from error

    def _with_envelopes(self, rows: Rows[R], decode: _Decode, low: int, high: int) -> None:
        calls = {name: _bound(handler, self) for name, handler in self._handlers.items()}
        for stored in self._home._scan(self._wanted._replace(after=low, until=high).leading()):
            told = list(self._wanted.today(stored))
            done = 0
            try:
                decoded = decode([row[3] for row, _ in told], [row[5] for row, _ in told])
                with Reacting(lambda: RecordedEvent(told[done][0])):  # noqa: B023 - asked inside the loop
                    for (row, part), event in zip(told, decoded, strict=True):
                        calls[row[3]](event, rows, RecordedEvent(row, event, part=part))
                        done += 1
            except Exception as error:
                row, part = told[done]
                raise _failure(type(self), RecordedEvent(row, part=part), error) from error

    def _payloads(self, low: int, high: int) -> tuple[Any, list[str], list[str]]:
        tests, params = where(self._wanted._replace(after=low, until=high))
        query = f"SELECT position, type, data FROM esim.events WHERE {tests} ORDER BY position"
        db = self._home._db
        cursor = db.cursor()
        with db.heard:
            found = db.interruptibly(cursor, lambda: cursor.sql(query, params=list(params)).to_arrow_table())
        return found["position"], found["type"].to_pylist(), found["data"].to_pylist()

    def _failed_at(self, position: int, error: Exception) -> ProjectionFailed:
        return _failure(type(self), self._at(position), error)

    def _at(self, position: int) -> RecordedEvent[Any]:
        return next(iter(self._home.read(after=position - 1, until=position)))

    # --- looking -------------------------------------------------------------------------------------------

    def get(self, key: Any, *, fresh: bool = True) -> R | None:
        """Catch up (`fresh=False`: look at what is stored), and return the row of a key, or None."""
        if fresh or not self.position:
            self.catch_up()
        return Rows(cast("type[R]", self.row), self._table(self.name)).get(key)

    def _aside(self, until: int) -> Answer:
        from esim.answer import Answer

        rows = self.empty()
        for _ in self._fold(rows, 0, until):
            pass
        texts = [("", text_of(row)) for _, row in rows.changes() if row is not None]
        cursor, structure = self._home._db.cursor(), json.dumps(self._table(self.name).structure)
        with _fitting(self), self._home._db.heard, registered(cursor, pairs(texts)):
            query = f"SELECT * FROM (SELECT unnest(from_json_strict(row, ?)) FROM esim_new) {self._order()}"
            relation = cursor.sql(query, params=[structure])
            return Answer(relation.to_arrow_table(), tuple(map(str, relation.types)))

    def _order(self) -> str:
        return order_by(self.row.key_fields)


def _row_type(cls: type) -> type[Row]:
    """Return the class in `Projection[…]`. Raises InvalidArgument if it is no row with a key."""
    bases = (one for base in cls.__mro__ for one in vars(base).get("__orig_bases__", ()))
    found = next((get_args(one)[0] for one in bases if get_origin(one) is Projection), None)
    if not (isinstance(found, type) and issubclass(found, Row)):
        raise InvalidArgument(f"{cls.__name__} names no row: write class {cls.__name__}(Projection[SomeRow])")
    if not found.key_fields:
        raise InvalidArgument(
            f"{found.__name__} has no key: mark the field that identifies a row, as `customer: Key[str]`"
        )
    return found


def _bound(handler: Handler, owner: object) -> Callable[[Event, Any, RecordedEvent[Any]], None]:
    """Return a handler as a call of three, whether it wants the recorded event or not."""
    call = MethodType(handler.call, owner)
    return call if handler.recorded else lambda event, rows, _: call(event, rows)


def _failure(cls: type[Projection[Any]], recorded: RecordedEvent[Any], error: Exception) -> ProjectionFailed:
    handler = cls._handlers[recorded.type].name
    return ProjectionFailed(
        f"{cls.__name__}.{handler} failed at position {recorded.position} ({recorded.stream}, version "
        f"{recorded.version}, {recorded.type}): {said(error)}; nothing of its window was "
        "kept, so correct the handler and catch up again"
    )


@contextmanager
def _fitting(model: ReadModel) -> Iterator[None]:
    """Turn what the database says about rows that do not fit into ProjectionFailed."""
    import duckdb

    try:
        yield
    except (duckdb.DataError, duckdb.NotSupportedError, duckdb.ProgrammingError) as error:
        told = str(error).partition("\n")[0]
        raise ProjectionFailed(
            f"{type(model).__name__} has rows that do not fit its table: {told}; "
            "nothing of this window was kept"
        ) from error


# --- by SQL ------------------------------------------------------------------------------------------------

_MERGES = {
    "sum": "coalesce(old.{0} + new.{0}, old.{0}, new.{0})",
    "min": "least(old.{0}, new.{0})",
    "max": "greatest(old.{0}, new.{0})",
    "first": "old.{0}",
    "last": "new.{0}",
}


class SqlProjection(ReadModel):
    """A read model that is one SQL query over `events` and the tables of the event types.

    With `combine` (column to "sum", "min", "max", "first" or "last") the query sees only the events since the
    checkpoint, and its rows are merged by `key`: right where that gives the same as one query over everything
    (sums and counts, not averages; first and last as SQL has them, NULL
    included). Without it the query runs over everything again when the log has grown.
    """

    query: ClassVar[str] = ""
    key: ClassVar[Sequence[str]] = ()
    combine: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.key = (cls.key,) if isinstance(cls.key, str) else tuple(cls.key)
        if not cls.query.strip():
            raise InvalidArgument(f"{cls.__name__} has no query: write query = 'SELECT …'")
        wrong = sorted(set(cls.combine.values()) - set(_MERGES))
        if wrong:
            known = display.did_you_mean(wrong[0], list(_MERGES))
            raise InvalidArgument(f"{cls.__name__}: columns cannot be combined by {wrong[0]!r}{known}")

    def get(self, *key: Any, fresh: bool = True) -> dict[str, Any] | None:
        """Catch up (`fresh=False`: look at what is stored), and return the row of a key as a dict, or None.

        Give a value for each key column.
        """
        from esim.answer import records

        if len(key) != len(self.key):
            raise InvalidArgument(
                f"{key!r} is not a key of {type(self).__name__}: give ({', '.join(self.key)})"
            )
        if fresh or not self.position:
            self.catch_up()
        tests = " AND ".join(f"{quoted(name)} IS NOT DISTINCT FROM ?" for name in self.key) or "true"
        path = self._table(self.name).path
        found = self._home._db.read_only(f"SELECT * FROM {path} WHERE {tests}", list(key))
        return next(iter(records(found)), None)

    def _stamped(self) -> Stamp:
        typed, classes = sorted(self._home.types_in(self.query)), known_events()
        shapes = [current(classes[name]) for name in typed if name in classes]
        query = self.query, self.key, tuple(sorted(self.combine.items()))
        return stamp(*query, *shapes, *upcasters(typed), pure=False)

    def _table(self, name: str) -> Table:
        return Table(self._home._db, name, self._stamp)

    def _advance(self, table: Table, after: int, until: int) -> None:
        merge = bool(self.combine) and after > 0
        part = self._answer(after if merge else 0, until)
        typed = ", ".join(
            f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}"
            for name, kind in zip(part.table.column_names, part.types, strict=True)
        )
        new = f"(SELECT {typed} FROM esim_new)"
        with _fitting(self), table.advance(until) as con, registered(con, part.table):
            for statement in self._merged(table, new, part) if merge else self._replaced(table, new):
                con.execute(statement)

    def _replace(self, head: int) -> None:
        self._advance(self._table(self.name), 0, head)  # one statement replaces the table, in its transaction

    def _replaced(self, table: Table, new: str) -> Iterator[str]:
        yield f"CREATE OR REPLACE TABLE {table.path} AS SELECT * FROM {new}"

    def _merged(self, table: Table, new: str, part: Answer) -> Iterator[str]:
        same = (
            " AND ".join(f"old.{quoted(name)} IS NOT DISTINCT FROM new.{quoted(name)}" for name in self.key)
            or "true"
        )
        sets = ", ".join(
            f"{quoted(name)} = {_MERGES[how].format(quoted(name))}" for name, how in self.combine.items()
        )
        names = ", ".join(map(quoted, part.table.column_names))
        yield f"UPDATE {table.path} AS old SET {sets} FROM {new} AS new WHERE {same}"
        yield (
            f"INSERT INTO {table.path} ({names}) SELECT {names} FROM {new} AS new "
            f"WHERE NOT EXISTS (SELECT 1 FROM {table.path} AS old WHERE {same})"
        )

    def _answer(self, after: int, until: int) -> Answer:
        """Return the query's rows over the events after one position, up to another, in order of the key."""
        try:
            answer = self._asked("SELECT type FROM esim.event_types", after, until)
        except SqlRefused:  # a type may be in the log alone, and finding that out takes a scan
            answer = self._asked("SELECT DISTINCT type FROM esim.events", after, until)
        self._check(answer)
        return answer

    def _asked(self, types: str, after: int, until: int) -> Answer:
        """Return the query's rows; `types` selects the event types it may name beside the known ones."""
        from esim import typed

        db, classes = self._home._db, known_events()
        known = {*classes, *(name for (name,) in db.fetch(types)), typed.EVENTS}
        wanted = typed.referenced(db, self.query, known)
        typed.catch_up(db, wanted - {typed.EVENTS}, classes)
        return db.read_only(self.query, None, typed.views(wanted, after, until), lambda: known)

    def _check(self, answer: Answer) -> None:
        """Raise ProjectionFailed unless the query gives the declared columns, and one row for each key."""
        columns = answer.table.column_names
        known = {*self.key, *self.combine} if self.combine else set(columns)
        odd = sorted({*self.key, *self.combine} - set(columns)) or sorted(set(columns) - known)
        if odd:
            raise ProjectionFailed(
                f"{type(self).__name__}: its query gives the columns {', '.join(columns)}, and {odd[0]!r} is "
                f"{'in neither key nor combine' if odd[0] in columns else 'not among them'}"
            )
        keys = answer.table.select(list(self.key))
        count = keys.group_by(list(self.key)).aggregate([]).num_rows if self.key else min(len(keys), 1)
        if (self.key or self.combine) and count < answer.table.num_rows:
            names = ", ".join(self.key)
            raise ProjectionFailed(
                f"{type(self).__name__}: its query gives {answer.table.num_rows} rows for {count} keys "
                f"({names}): group by the key"
            )

    def _aside(self, until: int) -> Answer:
        from esim.answer import Answer

        answer = self._answer(0, until)
        order = [(name, "ascending") for name in self.key]
        return Answer(answer.table.sort_by(order), answer.types) if order else answer

    def _order(self) -> str:
        return order_by(self.key)
