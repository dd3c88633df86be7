"""What comes back: the events of an append, a lazy selection of the log, a dataframe of either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, overload

from esim import display
from esim.envelope import RecordedEvent, Row
from esim.event import Event
from esim.query import Filter
from esim.upcast import roads

if TYPE_CHECKING:
    import pandas as pd


_FEW = 5  # how many events a text shows
_SHOWN = 10  # how many rows a table shows


class Source(Protocol):
    """What a selection reads from: a store, or a store as it was."""

    def _scan(self, wanted: Filter) -> Iterator[Sequence[Row]]: ...
    def _count(self, wanted: Filter) -> int: ...
    def _frame(self, wanted: Filter) -> pd.DataFrame: ...


class Recorded(Sequence[RecordedEvent[Any]]):
    """The events of one append as recorded, in order of position."""

    def __init__(self, rows: Sequence[Row], events: Sequence[Event] | None = None) -> None:
        """Wrap stored rows and, where at hand, their typed events."""
        self._rows = rows
        self._events = events

    @overload
    def __getitem__(self, index: int) -> RecordedEvent[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Recorded: ...
    def __getitem__(self, index: int | slice) -> RecordedEvent[Any] | Recorded:
        if isinstance(index, slice):
            return Recorded(self._rows[index], self._events[index] if self._events else None)
        return RecordedEvent(self._rows[index], self._events[index] if self._events else None)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        more = ", …" if len(self) > _FEW else ""
        return f"[{', '.join(map(repr, self[:_FEW]))}{more}]"

    def _repr_html_(self) -> str:
        return events_table(self[:_SHOWN], len(self))


class Selection:
    """Recorded events that match a reading: iterate (again and again), count with `len`, or take `df()`."""

    def __init__(self, store: Source, wanted: Filter) -> None:
        """Ask `store` for the events that `wanted` describes; nothing is read until it is used."""
        self._store = store
        self._wanted = wanted

    def __iter__(self) -> Iterator[RecordedEvent[Any]]:
        if not roads():
            for rows in self._store._scan(self._wanted):
                yield from map(RecordedEvent, rows)
            return
        wanted = self._wanted
        stored = self._store._scan(wanted.leading()._replace(limit=None))
        events = (pair for rows in stored for pair in wanted.today(rows))
        for row, part in islice(events, wanted.limit):
            yield RecordedEvent(row, part=part)

    def __len__(self) -> int:
        if roads():  # some may be read as several, or as none
            return sum(1 for _ in self)
        count = self._store._count(self._wanted)
        return count if self._wanted.limit is None else min(count, self._wanted.limit)

    def __bool__(self) -> bool:
        return self.first() is not None

    def first(self) -> RecordedEvent[Any] | None:
        """Return the first event, or None."""
        return next(iter(self if roads() else self._few(1)), None)

    def last(self) -> RecordedEvent[Any] | None:
        """Return the last event, or None."""
        if self._wanted.limit is not None:
            return next(iter(list(self)[-1:]), None)
        return Selection(self._store, self._wanted._replace(backward=not self._wanted.backward)).first()

    def df(self) -> pd.DataFrame:
        """Return the events as they are stored as a dataframe, one row each, columns as `Store.df` says."""
        return self._store._frame(self._wanted.leading())

    def __repr__(self) -> str:
        count = len(self)
        return f"<{count:,} event{'' if count == 1 else 's'}>"

    def _repr_html_(self) -> str:
        return events_table(self._few(_SHOWN), len(self))

    def _few(self, count: int) -> Selection:
        limit = count if self._wanted.limit is None else min(count, self._wanted.limit)
        return Selection(self._store, self._wanted._replace(limit=limit))


def events_table(events: Iterable[RecordedEvent[Any]], total: int) -> str:
    """Return recorded events as an HTML table that says how many of `total` it shows."""
    rows = [
        (
            *(str(one.position), display.escape(one.stream), str(one.version)),
            *(display.badge(one.type), display.fields(one.data)),
        )
        for one in events
    ]
    more = f"the first {len(rows)} of {total:,} events" if total > len(rows) else ""
    return display.table(("position", "stream", "version", "event", "data"), rows, more)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return stored rows as the dataframe that `Store.df` documents."""
    import pandas as pd

    names = RecordedEvent.COLUMNS
    told = [(*row[:9], str(row[9]), *row[10:12], tuple(row[12] or ()), row[13]) for row in rows]
    columns = dict(zip(names, zip(*told, strict=True), strict=True)) if told else dict.fromkeys(names, ())
    table = pd.DataFrame(
        {name: pd.Series(values, dtype=_DTYPES.get(name, "object")) for name, values in columns.items()}
    )
    for name in ("recorded_at", "occurred_at"):
        table[name] = pd.to_datetime(table[name].astype("Int64"), unit="us", utc=True).astype(
            "datetime64[us, UTC]"
        )
    return table[list(FRAME)]


FRAME = (
    *("position", "stream", "version", "type", "data", "recorded_at", "occurred_at", "tags"),
    *("correlation_id", "causation_id", "user_id", "event_id", "schema_version", "metadata"),
)
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(("position", "version", "schema_version", "recorded_at"), "int64"),
    **dict.fromkeys(
        ("stream", "type", "data", "correlation_id", "causation_id", "user_id", "event_id", "metadata"), "str"
    ),
    "occurred_at": "Int64",
}
