"""Which events are wanted: queries as the dynamic consistency boundary has them, and filters of a reading.

Types in an item are ORed, tags ANDed, items of a query ORed.

References: dcb.events (queries, tags, append conditions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from esim.arguments import all_storable, whole
from esim.envelope import Row
from esim.errors import InvalidArgument
from esim.event import Event, type_name
from esim.upcast import roads, sources, upcast

Types = str | type[Event] | Iterable[str | type[Event]]


def type_names(types: Types | None) -> tuple[str, ...]:
    """Return one type or several, names or classes, as stored names. Raises InvalidArgument for others."""
    if types is None:
        return ()
    if isinstance(types, str | type) or not isinstance(types, Iterable):
        return (type_name(types),)
    return tuple(type_name(each) for each in types)


def tag_names(tags: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return one tag or several as a tuple. Raises InvalidArgument for what is no text."""
    return () if tags is None else all_storable(tags, "tag")


@dataclass(frozen=True)
class QueryItem:
    """Matches an event of any of `types` (any type if empty) that carries all of `tags`."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", type_names(self.types))
        object.__setattr__(self, "tags", tag_names(self.tags))
        if not self.types and not self.tags:
            raise InvalidArgument("a query item with neither types nor tags: name one, or use Query.all()")

    def matches(self, type: str, tags: Iterable[str]) -> bool:
        """Say whether an event of this type with these tags matches."""
        return (not self.types or type in self.types) and (not self.tags or set(self.tags) <= set(tags))


class Query:
    """Which events matter to a decision: those that match any of its items.

    >>> Query.of(types=["CourseDefined"], tags=["course:c1"]).matches("CourseDefined", ["course:c1"])
    True
    """

    def __init__(self, *items: QueryItem) -> None:
        """Combine items: an event matches if it matches one of them. Raises InvalidArgument for others."""
        for item in items:
            if not isinstance(item, QueryItem):
                raise InvalidArgument(f"{item!r} is no QueryItem: write QueryItem(types=…, tags=…)")
        self.items = items

    @classmethod
    def of(cls, types: Types | None = None, tags: str | Iterable[str] | None = None) -> Query:
        """Return a query of one item. Raises InvalidArgument if both are empty."""
        return cls(QueryItem(type_names(types), tag_names(tags)))

    @classmethod
    def all(cls) -> Query:
        """Return the query that every event matches."""
        return cls()

    def matches(self, type: str, tags: Iterable[str]) -> bool:
        """Say whether an event of this type with these tags matches."""
        for item in self.items:  # any() of a generator would be a fifth of a reading in memory
            if item.matches(type, tags):
                return True
        return not self.items

    def __or__(self, other: Query) -> Query:
        return Query(*self.items, *other.items) if self.items and other.items else Query()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"Query({', '.join(map(repr, self.items))})" if self.items else "Query.all()"


@dataclass(frozen=True)
class Condition:
    """An append condition: fail if an event that matches `query` was recorded after position `after`."""

    query: Query
    after: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.query, Query):
            raise InvalidArgument(f"{self.query!r} is not a query: write Query.of(types=…, tags=…)")
        object.__setattr__(self, "after", whole(self.after, "after"))


class Filter(NamedTuple):
    """Which recorded events a reading wants; bounds are `after` (exclusive) and `until` (inclusive)."""

    stream: str | None = None
    category: str | None = None
    query: Query = Query()
    after: int = 0
    until: int | None = None
    after_version: int = 0
    until_version: int | None = None
    backward: bool = False
    limit: int | None = None

    def leading(self) -> Filter:
        """Return this filter with the older types from which events of its types come."""
        if not roads() or not any(item.types for item in self.query.items):
            return self
        items = (QueryItem(sources(item.types), item.tags) for item in self.query.items)
        return self._replace(query=Query(*items))

    def today(self, rows: Sequence[Row]) -> Iterator[tuple[Row, int]]:
        """Give stored rows as they are read today, if they are of the wanted types then, and their parts."""
        if not roads():
            return ((row, 0) for row in rows)
        parts = list(upcast(reversed(rows)))[::-1] if self.backward else upcast(rows)
        return ((row, part) for row, part in parts if self.query.matches(row[3], row[12] or ()))

    def admits(self, row: Row) -> bool:
        """Say whether a stored row passes, leaving `limit` and the order aside."""
        return (
            (self.stream is None or row[1] == self.stream)
            and (self.category is None or row[1].partition("/")[0] == self.category)
            and row[0] > self.after
            and (self.until is None or row[0] <= self.until)
            and row[2] > self.after_version
            and (self.until_version is None or row[2] <= self.until_version)
            and self.query.matches(row[3], row[12] or ())
        )
