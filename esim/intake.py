"""What a subscription takes in: the stored events that are for it, as they are read today, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from esim.contract import Store
from esim.envelope import RecordedEvent, Row
from esim.errors import UpcasterFailed
from esim.query import Filter

_WINDOW = 20_000  # positions at a time are read


class Batch(NamedTuple):
    """Stored events, with their parts, that are committed together, and the position reached after them."""

    rows: Sequence[tuple[Row, int]]
    through: int


class Intake:
    """The events of a log that one subscription is for, in its share of the streams."""

    def __init__(self, store: Store, wanted: Filter, partition: tuple[int, int], size: int) -> None:
        """Take what is `wanted` from `store`, in batches of `size`; `partition` is the i-th of n shares."""
        self.store, self.wanted, self.size = store, wanted, size
        self._share, self._among = partition
        self.spoilt: dict[int, UpcasterFailed] = {}
        """Why events could not be read, by position: their upcaster failed."""

    def batches(self, after: int, until: int, uncertain: int) -> Iterator[Batch]:
        """Give what comes after a position: event by event up to `uncertain`, then in batches."""
        wanted = self.wanted._replace(after=after, until=until)
        leading = wanted.leading()
        for low in range(after, max(until, after + 1), _WINDOW):
            high = min(low + _WINDOW, until)
            rows = [
                pair
                for stored in self.store._scan(
                    leading if high - low == until - after else leading._replace(after=low, until=high)
                )
                for pair in self._today(wanted, stored)
                if self._among == 1 or share_of(pair[0][1], self._among) == self._share
            ]
            start = 0
            while start < len(rows):
                end = start + (1 if rows[start][0][0] <= uncertain else self.size)
                while end < len(rows) and rows[end][0][0] == rows[end - 1][0][0]:
                    end += 1  # the parts of one stored event stay together
                yield Batch(rows[start:end], rows[end - 1][0][0] if end < len(rows) else high)
                start = end
            if not rows:
                yield Batch((), high)

    def _today(self, wanted: Filter, stored: Sequence[Row]) -> Iterable[tuple[Row, int]]:
        """Give events as they are read today; one whose upcaster fails is noted, and given as stored."""
        try:
            return list(wanted.today(stored))
        except UpcasterFailed as error:
            if len(stored) > 1:
                return [pair for row in stored for pair in self._today(wanted, [row])]
            self.spoilt[stored[0][0]] = error
            return [(stored[0], 0)]

    def again(self, position: int) -> list[RecordedEvent[Any]]:
        """Return what a stored event is read as now, part by part, as far as it is for this subscription.

        Raises UpcasterFailed if its upcaster fails.
        """
        self.spoilt.pop(position, None)
        found = self.store.read(after=position - 1, until=position)
        return [one for one in found if self.wanted.query.matches(one.type, one.tags)]


def share_of(stream: str, among: int) -> int:
    """Return which share a stream belongs to; names that differ in one digit are spread as well."""
    return (crc32(stream.encode()) * 0x9E3779B1 >> 16) % among
