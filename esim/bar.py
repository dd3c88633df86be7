"""A progress bar for work that turns out to be long."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE = 2.0  # seconds without a bar
_OFTEN = 0.1  # seconds between two looks of it


class Counter:
    """Counts what is done, of an unknown number, once that has taken two seconds."""

    def __init__(self, unit: str) -> None:
        """Count `unit`s."""
        self._unit, self._due = unit, monotonic() + _PATIENCE
        self._shown: Any = None

    def at(self, count: int, told: str = "") -> None:
        """Say how many are done, and what else there is to say."""
        if monotonic() < self._due:
            return
        if self._shown is None:
            from tqdm import tqdm

            self._shown = tqdm(unit=f" {self._unit}", leave=False)
        self._shown.set_postfix_str(told, refresh=False)
        self._shown.update(count - self._shown.n)
        self._due = monotonic() + _OFTEN

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.close()


class Bar:
    """Shows how far work is between two positions, once it has taken two seconds."""

    def __init__(self, low: int, high: int, label: str, unit: str = " events") -> None:
        """Begin at `low`, on the way to `high`; a `unit` of "B" is bytes, shown as kB, MB, GB."""
        self._position, self._high, self._label, self._unit = low, high, label, unit
        self._due = monotonic() + _PATIENCE
        self._shown: Any = None

    def at(self, position: int) -> None:
        """Say how far the work is."""
        if monotonic() < self._due:
            return
        if self._shown is None:
            from tqdm import tqdm

            total = self._high - self._position
            self._shown = tqdm(
                total=total, desc=self._label, unit=self._unit, unit_scale=self._unit == "B", leave=False
            )
        self._shown.update(position - self._position)
        self._position, self._due = position, monotonic() + _OFTEN

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.close()
