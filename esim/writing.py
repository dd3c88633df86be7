"""An append on its way: events with their context, encoded and checked as far as no store is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import PurePath
from typing import Literal, NamedTuple, cast
from uuid import UUID

from esim import display
from esim.arguments import storable, whole
from esim.clock import micros
from esim.envelope import Context, NewEvent, Row, context, derived_id
from esim.errors import Conflict, DuplicateEventId, InvalidArgument, InvalidEvent
from esim.event import Event, decode, encode, renewed, tags_of
from esim.query import Condition
from esim.upcast import Read, read_as
from esim.value import Value

Expected = int | Literal["no_stream", "stream_exists", "any"]
Events = Event | NewEvent | Iterable[Event | NewEvent]


@dataclass(frozen=True)
class Write:
    """Events for one stream with the version it is expected to be at."""

    stream: str
    events: Events
    expected: Expected = "any"


class Draft(NamedTuple):
    """One prepared event: its row but for what admission assigns (position, version, id, recorded time)."""

    stream: str
    type: str
    schema_version: int
    data: str
    correlation_id: str | None
    causation_id: str | None
    user_id: str | None
    event_id: UUID | None
    occurred_at: int | None
    tags: tuple[str, ...]
    metadata: str | None
    event: Event


class Batch(NamedTuple):
    """One append on its way: drafts in order, what is expected of each run of them, and the condition."""

    drafts: list[Draft]
    runs: list[tuple[str, int, Expected]]
    condition: Condition | None


def stream_id(stream: str) -> str:
    """Return a stream id unchanged. Raises InvalidArgument unless it is text like `Order/o-1`."""
    if not isinstance(stream, str) or not stream.strip() or stream.startswith("/") or stream.endswith("/"):
        raise InvalidArgument(
            f"{stream!r} is not a stream id: write category, slash, id, such as 'Order/o-1'"
        )
    if "\0" in stream:
        raise InvalidArgument(f"stream id {stream!r} holds a NUL character: take it out")
    return storable(stream, "stream")


def _expected(value: Expected) -> Expected:
    if isinstance(value, str) and value in ("no_stream", "stream_exists", "any"):
        return value
    return whole(value, "expected", "give a version (0 and up), 'no_stream', 'stream_exists' or 'any'")


def _drafts(stream: str, items: Iterable[Event | NewEvent]) -> Iterator[Draft]:
    """Encode the events of one stream; what they have in common is worked out once."""
    here = context()
    who = (here.correlation_id, here.causation_id, here.user_id)
    occurred = micros(here.occurred_at) if here.occurred_at else None
    extra = _json(here.extra) if here.extra else None
    plain: set[type] = set()  # pydantic's isinstance is slow, so ask once for each class
    for number, item in enumerate(items):
        event = cast("Event", item)
        if type(item) not in plain:
            if isinstance(item, NewEvent):
                yield _enveloped(stream, item, here)
                continue
            if not isinstance(item, Event):
                raise InvalidArgument(
                    f"{display.short(item)} is not an Event: append instances of Event classes"
                )
            event = renewed(item)
            if event is item:
                plain.add(type(item))
        shape = (stream, event.event_type, event.schema_version, encode(event))
        event_id = None if here.key is None else derived_id(here.key, number)
        yield Draft(*shape, *who, event_id, occurred, tags_of(event), extra, event)


def _enveloped(stream: str, new: NewEvent, here: Context) -> Draft:
    event = renewed(new.event)
    occurred = new.occurred_at or here.occurred_at
    extra = {**(here.extra or {}), **(new.metadata or {})}
    return Draft(
        *(stream, event.event_type, event.schema_version, encode(event)),
        new.correlation_id or here.correlation_id,
        new.causation_id or here.causation_id,
        new.user_id or here.user_id,
        new.event_id,
        micros(occurred) if occurred else None,
        tuple(dict.fromkeys((*tags_of(event), *new.tags))),
        _json(extra) if extra else None,
        event,
    )


def _json(extra: Mapping[str, object]) -> str:
    try:
        told = json.dumps(extra, default=_as_text, allow_nan=False, ensure_ascii=False)
        told.encode()
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"metadata {display.short(extra)} cannot be kept as JSON: {error}") from None
    return told


def _as_text(value: object) -> str:
    if isinstance(value, date | time | Decimal | UUID | PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; give its text")


def _several(events: Events) -> tuple[Event | NewEvent, ...]:
    """Return one event or several as a tuple; what is neither is left for `_drafts` to refuse as a whole."""
    if isinstance(events, Iterable) and not isinstance(events, Value | str | Mapping):
        return tuple(events)
    return cast("tuple[Event | NewEvent, ...]", (events,))


def prepare(writes: Iterable[Write], condition: Condition | None) -> Batch:
    """Return writes encoded and checked so far as needs no store. Raises InvalidArgument if one is empty."""
    drafts: list[Draft] = []
    runs: list[tuple[str, int, Expected]] = []
    if not isinstance(condition, Condition | None):
        raise InvalidArgument(f"condition={condition!r}: write Condition(Query.of(…), after=…)")
    for write in writes if isinstance(writes, Iterable) else (writes,):
        if not isinstance(write, Write):
            raise InvalidArgument(f"{display.short(write)} is not a Write: give [Write(stream, events), …]")
        stream = stream_id(write.stream)
        items = _several(write.events)
        if not items:
            raise InvalidArgument(f"nothing to append to {stream!r}: give at least one event")
        drafts += _drafts(stream, items)
        runs.append((stream, len(items), _expected(write.expected)))
    if not drafts:
        raise InvalidArgument("nothing to append: give at least one write")
    return Batch(drafts, runs, condition)


def check(stream: str, expected: Expected, actual: int) -> None:
    """Raise Conflict unless a stream at version `actual` is as expected."""
    fine = {"any": True, "no_stream": actual == 0, "stream_exists": actual > 0}
    if not fine.get(str(expected), expected == actual):
        raise Conflict(stream, expected, actual)


def same(draft: Draft, known: dict[UUID, Row]) -> Row:
    """Return the recorded row that a draft repeats. Raises DuplicateEventId if it is another event."""
    row = known.get(draft.event_id) if draft.event_id else None
    if row is None:
        raise DuplicateEventId(
            f"some event ids of this append are recorded already and others are not ({draft.type} in "
            f"{draft.stream!r} is new): repeat an append whole, or give new events new ids"
        )
    today = read_as(*row[3:6])
    told = [(row[1], read[0], json.loads(read[2])) for read in today]
    if told != [(draft.stream, draft.type, json.loads(draft.data))] and not _as_read(draft, row, today):
        raise DuplicateEventId(
            f"event id {draft.event_id} is taken by {row[3]} in {row[1]!r} at position {row[0]}, which is "
            "another event: give this one its own id"
        )
    return (*row[:3], *today[0], *row[6:])


def _as_read(draft: Draft, row: Row, today: list[Read]) -> bool:
    """Say whether a recorded event is, by today's class, the same: its shape may have had fewer fields."""
    if row[1] != draft.stream or [read[0] for read in today] != [draft.type]:
        return False
    with suppress(InvalidEvent):
        return decode(draft.type, today[0][2], type(draft.event)) == draft.event
    return False
