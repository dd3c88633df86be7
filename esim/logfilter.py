"""Filters of a log: each returns a narrower log, nothing is read, and they compose in any order.

A filter of cases keeps or drops whole cases; a filter of events takes events out of cases, and what follows
what is then told of those that are left. Each says which it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal, Self, SupportsFloat, TypeAlias

from esim import display
from esim.arguments import activities as some
from esim.arguments import part_of_one, whole
from esim.clock import utc
from esim.errors import InvalidArgument
from esim.logcore import Log, names_list
from esim.logprepare import Step
from esim.logsource import ROW
from esim.logvariant import FINGERPRINT
from esim.storefile import literal, quoted

Keep = Literal["events", "contained", "touching", "started", "ended"]
Span: TypeAlias = timedelta | SupportsFloat | str
"""How long: a timedelta, any number of seconds, or text with its unit."""

_MICROS = 1_000_000
_LETTER = 0x10000  # the letter of an activity in a case's word; none of them means anything in a pattern
_KEEP = {
    "events": "",
    "contained": "min(t) >= {low} AND max(t) < {high}",
    "touching": "max(t) >= {low} AND min(t) < {high}",
    "started": "min(t) >= {low} AND min(t) < {high}",
    "ended": "max(t) >= {low} AND max(t) < {high}",
}


class Filters(Log):
    """The filters of an EventLog."""

    def between(
        self, start: datetime | str | None = None, end: datetime | str | None = None, keep: Keep = "events"
    ) -> Self:
        """Keep what is in [start, end), two aware times: `events`, or whole cases.

        Cases: those that are `contained` in it, `touching` it, that `started` or that `ended` in it.
        """
        if keep not in _KEEP:
            raise InvalidArgument(f"keep={keep!r}: give one of {', '.join(_KEEP)}")
        low = "'-infinity'::TIMESTAMP" if start is None else _moment(start)
        high = "'infinity'::TIMESTAMP" if end is None else _moment(end)
        label = f"time {keep} from {start or 'the beginning'} to {end or 'the end'}"
        if keep == "events":
            return self._narrowed(
                Step(label, lambda _, __: f"t >= {low} AND t < {high}", cuts=True, until=high)
            )
        return self._having(label, _KEEP[keep].format(low=low, high=high))

    def only(self, *activities: str) -> Self:
        """Keep the events of these activities."""
        names = some(activities, "only")
        return self._narrowed(
            Step(f"activities {_told(names)}", lambda _, codes: _among(codes(names)), cuts=True)
        )

    def without(self, *activities: str) -> Self:
        """Take the events of these activities out."""
        names = some(activities, "without")
        label = f"activities other than {_told(names)}"
        return self._narrowed(Step(label, lambda _, codes: f"NOT {_among(codes(names))}", cuts=True))

    def sized(self, least: int = 0, most: int | None = None) -> Self:
        """Keep the cases of `least` to `most` events."""
        low, high = whole(least, "least"), None if most is None else whole(most, "most")
        label = f"cases of {low:,} to {'any number of' if high is None else f'{high:,}'} events"
        return self._having(
            label, f"count(*) >= {low}" + ("" if high is None else f" AND count(*) <= {high}")
        )

    def lasting(self, least: Span = 0, most: Span | None = None) -> Self:
        """Keep the cases that last from `least` to `most`: a timedelta, seconds, or text as '3 days'.

        Any number is seconds, one out of a dataframe too; a text needs its unit, so '3600' is refused.
        """
        low, high = microseconds(least), None if most is None else microseconds(most)
        lasts = "epoch_us(max(t)) - epoch_us(min(t))"
        label = f"cases lasting {least} to {'any time' if most is None else most}"
        return self._having(label, f"{lasts} >= {low}" + ("" if high is None else f" AND {lasts} <= {high}"))

    def starting_with(self, *activities: str) -> Self:
        """Keep the cases whose first event is one of these activities."""
        names = some(activities, "starting_with")
        label = f"cases starting with {_told(names)}"
        return self._narrowed(
            Step(
                label, lambda e, codes: f"s IN (SELECT s FROM {e} WHERE p IS NULL AND {_among(codes(names))})"
            )
        )

    def ending_with(self, *activities: str) -> Self:
        """Keep the cases whose last event is one of these activities."""
        names = some(activities, "ending_with")
        label = f"cases ending with {_told(names)}"
        return self._narrowed(
            Step(label, lambda e, codes: f"s IN (SELECT s FROM {e} WHERE z AND {_among(codes(names))})")
        )

    def containing(self, *activities: str, inverse: bool = False) -> Self:
        """Keep the cases with these activities directly one after the other; `inverse`: the others."""
        names = some(activities, "containing")
        label = f"cases {'not ' if inverse else ''}containing {' → '.join(names)}"
        return self._narrowed(Step(label, lambda e, codes: _worded(e, codes(names), "", inverse=inverse)))

    def followed_by(self, *activities: str, inverse: bool = False) -> Self:
        """Keep the cases in which these activities come in this order, whatever lies between."""
        names = some(activities, "followed_by")
        label = f"cases {'not ' if inverse else ''}with {' … '.join(names)}"
        return self._narrowed(Step(label, lambda e, codes: _worded(e, codes(names), "%", inverse=inverse)))

    def covering(self, share: float = 0.8) -> Self:
        """Keep the cases of the commonest variants that together make up at least `share` of all cases."""
        hint = "give a part of all cases, above 0 and up to 1"
        least = part_of_one(share, "share", hint)
        if not least:
            raise InvalidArgument(f"share={share!r}: {hint}")
        return self._narrowed(
            Step(
                f"commonest variants, {least:.0%} of cases",
                lambda e, _: _common(e, f"before < {least!r}"),
            )
        )

    def commonest(self, count: int) -> Self:
        """Keep the cases of the `count` commonest variants; of equally common ones, one is taken."""
        most = whole(count, "count")
        return self._narrowed(
            Step(f"{most:,} commonest variants", lambda e, _: _common(e, f"rank <= {most}"))
        )

    def where(self, condition: str, *, whole_cases: bool = False) -> Self:
        """Keep the events for which an SQL condition over the source's columns holds.

        `log.where("amount > 100")`; in a store's payload: `log.where("data->>'method' = 'card'")`. With
        `whole_cases` all events of every case in which it holds once.
        """
        text = self._expression(condition)
        rows = f"SELECT {ROW} FROM source WHERE ({text}\n)"
        label = f"{'cases with ' if whole_cases else ''}{display.cut(condition, 80)}"
        if whole_cases:
            return self._narrowed(Step(label, lambda e, _: f"s IN (SELECT s FROM {e} WHERE r IN ({rows}))"))
        return self._narrowed(Step(label, lambda _, __: f"r IN ({rows})", cuts=True))

    def with_value(self, column: str, *values: Any, whole_cases: bool = False) -> Self:
        """Keep the events (or `whole_cases`) whose column has one of these values.

        None, NaN and NA are a missing one; a list is given as its values, `with_value("who", *names)`.
        Numbers, truth values and times are compared as such, a time without a zone as the column's are.
        """
        name = self._column(column)
        if not values:
            raise InvalidArgument(f"with_value({column!r}) needs values: with_value({column!r}, 'high')")
        kind = next(kind for one, kind in self.mapping.types.items() if quoted(one) == name)
        known_values = [one for one in values if not _is_missing(column, one)]
        given = [_typed(column, kind, one, self._reading.timezone) for one in known_values]
        known = name if _is_typed(kind) else f"{name}::VARCHAR"
        tests = [f"{known} IN ({', '.join(given)})"] if given else []
        if len(given) < len(values):
            tests += [f"{name} IS NULL", *([f"isnan({name})"] if kind in _WITH_NAN else [])]
        return self.where(" OR ".join(tests), whole_cases=whole_cases)

    def linked_to(self, object_type: str, *ids: str) -> Self:
        """Keep the events that are linked to an object of this type (and, if given, one of these ids).

        Raises InvalidArgument, when it is asked, if no event is linked to an object of the type.
        """
        test = f"object_type = {literal(str(object_type))}"
        if ids:
            test += f" AND object_id IN ({names_list(ids)})"
        label = f"events linked to {object_type}{' ' + _told(ids) if ids else ''}"

        def linked(_: str, __: object) -> str:
            known = [
                row[0] for row in self._session.rows("SELECT DISTINCT object_type FROM objects ORDER BY 1")
            ]
            if object_type not in known:
                near = display.did_you_mean(str(object_type), known)
                raise InvalidArgument(f"no event is linked to an object of type {object_type!r}{near}")
            return f"r IN (SELECT {ROW} FROM objects WHERE {test})"

        return self._narrowed(Step(label, linked, cuts=True))

    def _having(self, label: str, test: str) -> Self:
        return self._narrowed(Step(label, lambda e, _: _cases(e, test)))


_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)")
_TIME = re.compile(r"DATE|TIMESTAMP(_\w+| WITH TIME ZONE)?|TIMESTAMPTZ_NS")
_WITH_NAN = ("FLOAT", "DOUBLE")
_EXACT = 38  # digits of a number that DuckDB takes as it is written


def _is_missing(column: str, value: Any) -> bool:
    """Say whether a value is one of Python's words for none. Raises InvalidArgument for several in one."""
    import pandas as pd

    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        raise InvalidArgument(
            f"{display.short(value)} is no value: give them one by one, with_value({column!r}, *values)"
        )
    return bool(pd.isna(value))


def is_number(kind: str) -> bool:
    """Say whether values of an SQL type are numbers."""
    return bool(_NUMBER.fullmatch(kind))


def _is_typed(kind: str) -> bool:
    """Say whether values of a column are compared as what they are; all others as texts."""
    return kind == "BOOLEAN" or is_number(kind) or bool(_TIME.fullmatch(kind))


def _typed(column: str, kind: str, value: Any, timezone: str) -> str:
    """Return the SQL of a value as a column of an SQL type holds it. Raises InvalidArgument if it cannot."""
    try:
        if is_number(kind):
            number = Decimal(str(value))
            exact = number.is_finite() and abs(number.adjusted()) < _EXACT
            return f"{number:f}" if exact else f"'{number}'::DOUBLE"
        if _TIME.fullmatch(kind):
            return _time(kind, value, timezone)
        truth = {"true": "true", "false": "false"}
        return truth[str(value).casefold()] if kind == "BOOLEAN" else literal(str(value))
    except (ArithmeticError, ValueError, KeyError, TypeError):
        raise InvalidArgument(f"the column {column!r} is of type {kind}, and {value!r} is none") from None


def _time(kind: str, value: Any, timezone: str) -> str:
    """Return the SQL of a time, to the nanosecond where a column has them. Raises ValueError for none."""
    of_zone, fine = kind.endswith("ZONE") or "TZ" in kind, "_NS" if kind.endswith("_NS") else ""
    if fine:
        import pandas as pd

        moment: datetime = pd.Timestamp(value)
    else:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    zoned = of_zone or moment.tzinfo is not None
    time = f"TIMESTAMP{'TZ' if zoned else ''}{fine} '{moment.isoformat(sep=' ')}'"
    return f"({time} AT TIME ZONE {literal(timezone)})" if zoned and not of_zone else time


def _told(names: Sequence[str]) -> str:
    return display.cut(", ".join(map(str, names)), 80)


def _among(codes: Sequence[int]) -> str:
    return f"(a IN ({', '.join(map(str, codes))}))"


def _cases(relation: str, test: str) -> str:
    return f"s IN (SELECT s FROM {relation} GROUP BY s HAVING {test})"


def _worded(relation: str, codes: Sequence[int], between: str, *, inverse: bool) -> str:
    """Return the predicate of cases whose activities, one letter each, make up a word like the pattern."""
    word = f"string_agg(chr(a + {_LETTER}), '' ORDER BY v)"
    pattern = between.join(chr(code + _LETTER) for code in codes)
    return _cases(relation, f"{word} {'NOT ' if inverse else ''}LIKE {literal(f'%{pattern}%')}")


def _common(relation: str, test: str) -> str:
    """Return the predicate of cases whose variant passes a test of its `rank` and the share `before` it."""
    return (
        f"s IN (WITH word AS (SELECT s, {FINGERPRINT} AS f, count(*) AS n FROM {relation} GROUP BY s), "
        "kind AS (SELECT f, n, count(*) AS size, min(s) AS one FROM word GROUP BY f, n), "
        "ranked AS (SELECT f, n, row_number() OVER each AS rank, "
        "(sum(size) OVER each - size) / sum(size) OVER () AS before "
        "FROM kind WINDOW each AS (ORDER BY size DESC, one)) "
        f"SELECT s FROM word JOIN ranked USING (f, n) WHERE {test})"
    )


def _moment(moment: datetime | str) -> str:
    return f"TIMESTAMP {literal(utc(moment).replace(tzinfo=None).isoformat(sep=' '))}"


def is_seconds(given: object) -> bool:
    """Say whether a duration is given as a number; numpy takes its own durations, with a unit, for one."""
    import numpy as np

    return isinstance(given, Real | Decimal) and not isinstance(given, bool | np.timedelta64)


def microseconds(given: Span) -> int:
    """Return a duration in microseconds. Raises InvalidArgument if it is none, or a text without a unit."""
    if isinstance(given, str) and _is_bare(given):
        raise InvalidArgument(f"{given!r} has no unit: give a number of seconds, or text as '3600 s'")
    try:
        return round(_micros(given))
    except (ValueError, TypeError, OverflowError):
        raise InvalidArgument(f"{given!r} is no duration: give seconds, a timedelta, or '3 days'") from None


def _micros(given: Any) -> float:
    import pandas as pd

    if is_seconds(given):
        exact = int(given) if isinstance(given, Integral) else float(given)
        return exact * _MICROS
    return pd.Timedelta(given) // pd.Timedelta(microseconds=1)


def _is_bare(text: str) -> bool:
    """Say whether a text is a number and nothing else, which pandas takes for nanoseconds."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
