"""Old events in today's shape: upcasters run when stored events are read, and the log stays as it was.

A class names what leads from each older shape of its payload to the next, and the type names it had before:
`class OrderPlaced(Event, schema_version=3, upcasters=(add_currency, nest_lines), was="OrderCreated")`. A type
that no class has any more is `retired`: each of its events is read as events of other types, or as none.

References: Greg Young, "Versioning in an Event Sourced System" (2017), on upcasting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard, cast

from pydantic_core import PydanticSerializationError, to_json

from esim import display
from esim.envelope import Row
from esim.errors import InvalidArgument, UpcasterFailed
from esim.event import Event, definitions, encode, former_names, known_events, note_definition
from esim.shapes import Payload, Upcaster, Upcasters, chain, climb, named, takes_one

Split = Callable[[Payload], "Iterable[Event] | Event | None"]
_EventClass = type[Event]
Read = tuple[str, int, str]
"""A payload as it is read: type, schema version, JSON text."""


class _Retired(NamedTuple):
    by: Split | None
    into: tuple[type[Event], ...]
    steps: tuple[Upcaster | None, ...]
    instead_of: type[Event] | None


_retired: dict[str, _Retired] = {}


def retired(
    type: str | type[Event],
    *,
    by: Split | None = None,
    into: type[Event] | Sequence[type[Event]] = (),
    upcasters: Upcasters = (),
) -> None:
    """Read the events of a stored type as others: `retired("Moved", by=split, into=(Left, Came))`.

    `by` takes a payload as a dict and returns events of the classes in `into`, in order, or none; without
    `by` the events are passed over. `upcasters` lead from older shapes of the type to its last. A type in
    `into` may be retired or renamed itself: what is read is where the way ends. Defining a class of the type
    again takes this back. Raises InvalidArgument if something is missing, or the type leads back to itself.
    """
    name = type if isinstance(type, str) else type.event_type
    targets: tuple[_EventClass, ...] = (into,) if is_event_class(into) else tuple(cast("Any", into))
    wrong = [one for one in targets if not is_event_class(one)]
    if wrong:
        raise InvalidArgument(f"retired({name!r}): {display.short(wrong[0])} in `into` is not an Event class")
    if (by is None) != (not targets):
        raise InvalidArgument(
            f"retired({name!r}): give `by` and the classes that it returns in `into`, or neither"
        )
    if by is not None and not takes_one(by):
        raise InvalidArgument(
            f"retired({name!r}): `by` is {display.short(by)}; write a function of one payload"
        )
    for target in targets:
        if name in _reached(target.event_type):
            way = "" if target.event_type == name else f", by way of {target.event_type!r}"
            raise InvalidArgument(
                f"retired({name!r}) leads back to {name!r}{way}: give the class upcasters, or split into "
                "other types"
            )
    steps = chain(name, len(upcasters) + 1, upcasters)
    _retired[name] = _Retired(by, targets, steps, known_events().get(name))
    note_definition()


def is_event_class(thing: object) -> TypeGuard[type[Event]]:
    """Say whether something is an event class."""
    return isinstance(thing, type) and issubclass(thing, Event)


# --- what leads from a stored type to today's ---------------------------------------------------------------


@dataclass(frozen=True)
class Road:
    """How stored events of a type are read today: the steps to the last shape of `type`, then the split."""

    type: str
    last: int
    steps: tuple[Upcaster | None, ...]
    by: Split | None = None
    into: tuple[str, ...] = ()

    def travel(self, shape: int, text: str) -> list[Read]:
        """Return what a stored payload is read as: usually one, none or several if the type is retired.

        Raises UpcasterFailed if an upcaster does.
        """
        payload = climb(self.type, self.steps, shape, json.loads(text)) if self.steps else json.loads(text)
        if payload is None:
            return []
        if self.last:
            reads = [(self.type, self.last, self._written(payload))]
        else:
            reads = [(one.event_type, one.schema_version, encode(one)) for one in self._split(payload)]
        return [further for read in reads for further in read_as(*read)]

    def _written(self, payload: Payload) -> str:
        try:
            return to_json(payload).decode()
        except PydanticSerializationError as error:
            raise UpcasterFailed(
                f"the upcasters of {self.type} gave what has no JSON form: {error}"
            ) from None

    def _split(self, payload: Payload) -> list[Event]:
        if self.by is None:
            return []
        told = f"{named(self.by)}, by which {self.type} is retired,"
        try:
            given = self.by(payload)
            events = [given] if isinstance(given, Event) else list(given or ())
        except Exception as error:
            raise UpcasterFailed(f"{told} raised {type(error).__name__}: {error}") from error
        wrong = [one for one in events if not isinstance(one, Event) or one.event_type not in self.into]
        if wrong:
            raise UpcasterFailed(
                f"{told} gave {display.short(wrong[0])}: it is to give {', '.join(self.into)}"
            )
        return events


_roads: tuple[int, dict[str, Road]] = (-1, {})


def roads() -> dict[str, Road]:
    """Return the road of each stored type whose events may need more than decoding; usually there is none."""
    global _roads  # noqa: PLW0603 - one registry in a process, as the classes themselves
    if _roads[0] != definitions():
        _roads = (definitions(), dict(_built()))
    return _roads[1]


def _built() -> Iterator[tuple[str, Road]]:
    classes = known_events()
    for name, cls in classes.items():
        if any(cls._upcasters):
            yield name, Road(name, cls.schema_version, cls._upcasters)
    for former, name in former_names().items():
        cls = classes[name]
        yield former, Road(name, cls.schema_version, cls._upcasters)
    for name, gone in _retired.items():
        if classes.get(name) is gone.instead_of:
            yield name, Road(name, 0, gone.steps, gone.by, tuple(one.event_type for one in gone.into))


def road(type: str, schema_version: int) -> Road | None:
    """Return the road that a stored event has to go, or None if it is read as it is."""
    found = roads().get(type)
    return None if found and found.type == type and 0 < found.last <= schema_version else found


def read_as(type: str, schema_version: int, text: str) -> list[Read]:
    """Return what a stored payload is read as today. Raises UpcasterFailed if an upcaster does."""
    way = road(type, schema_version)
    return [(type, schema_version, text)] if way is None else way.travel(schema_version, text)


def upcast(rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
    """Give stored rows as they are read today, each with its number among the parts of a stored event."""
    for row in rows:
        if road(row[3], row[4]) is None:
            yield row, 0
        else:
            for part, read in enumerate(_read(row)):
                yield (*row[:3], *read, *row[6:]), part


def _read(row: Row) -> list[Read]:
    try:
        return read_as(*row[3:6])
    except UpcasterFailed as error:
        told = f"{row[1]!r} version {row[2]}, position {row[0]}: {error}"
        raise UpcasterFailed(told) from error.__cause__


def sources(types: Iterable[str]) -> tuple[str, ...]:
    """Return the stored types whose events may be read as one of `types`: these, and what leads to them."""
    wanted = tuple(types)
    leading = (stored for stored in roads() if not _reached(stored).isdisjoint(wanted))
    return tuple(dict.fromkeys((*wanted, *leading)))


def _reached(type: str) -> set[str]:
    """Return the types that the ways from a type lead over: itself, and what may come of it."""
    ways, reached, ahead = roads(), {type}, [type]
    while ahead:
        way = ways.get(ahead.pop())
        further = {way.type, *way.into} - reached if way else set()
        reached |= further
        ahead.extend(further)
    return reached


def code(types: Iterable[str]) -> list[object]:
    """Return all that makes events of these types out of older ones, for a stamp; often that is nothing."""
    ways = roads()
    leading = (name for name in sources(types) if name in ways)
    return [part for name in leading for part in (name, ways[name].type, *ways[name].steps, ways[name].by)]
