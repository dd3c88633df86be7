"""The world as it was, and what differs between two logs, or two periods of one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from esim import logpicture
from esim.arguments import whole
from esim.clock import utc
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import ROW, picked
from esim.logwhen import time_of
from esim.result import Result
from esim.storefile import literal, quoted

if TYPE_CHECKING:
    import pandas as pd

AS_OF = {
    "case": "a case that had begun",
    "activity": "its latest activity then",
    "events": "how many events it had",
    "start": "when it began, UTC",
    "last": "when its latest event was, UTC",
    "age_s": "the time since its latest event, seconds",
}
DIFFERENCE = {
    "share_here": "its part in this log",
    "share_there": "its part in the other",
    "change": "the part here less the part there",
    "count_here": "how often in this log",
    "count_there": "how often in the other",
    "median_here_s": "the median time in this log, seconds",
    "median_there_s": "the median time in the other, seconds",
}


def as_of(log: Log, moment: int | datetime | str) -> Result:
    """Return every case that had begun, as it was then."""
    until, now = bound(log, moment)
    data = log.mapping.get("data")
    payload = ", x_data AS data" if data else ""
    joined = f"JOIN {picked(data=quoted(data))} ON x_row = latest.r " if data else ""
    sql = f"""SELECT "case", activity, events, start AT TIME ZONE 'UTC' AS start,
    last AT TIME ZONE 'UTC' AS last,
    (epoch_us({now}) - epoch_us(last)) / 1e6 AS age_s{payload}
FROM (SELECT s, arg_max(a, v) AS a, arg_max(r, v) AS r, count(*) AS events, min(t) AS start, max(t) AS last
      FROM e WHERE {until} GROUP BY s) AS latest
JOIN cases USING (s) JOIN activities USING (a) {joined}ORDER BY s"""
    columns = AS_OF | ({"data": "the payload of its latest event"} if data else {})
    return log.ask(f"As of {moment}", sql, columns, draw=logpicture.standing)


def bound(log: Log, moment: int | datetime | str) -> tuple[str, str]:
    """Return the SQL test of events up to a moment, and the SQL of its time.

    That of a position is the latest time in the store up to there, whatever the log leaves out.
    """
    if isinstance(moment, datetime | str):
        now = f"{literal(str(utc(moment).replace(tzinfo=None)))}::TIMESTAMP"
        return f"t <= {now}", now
    if not log._source.versioned:
        raise InvalidArgument(f"as_of({moment!r}): only a store has positions; give an aware time")
    position = whole(moment, "moment")
    with log._session.alone():
        log._use()
        time = time_of(log._session, log.mapping, log._reading)
    until = f"(SELECT max({time}) FROM ({log._source.every}) WHERE {ROW} <= {position})"
    return f"r <= {position}", until


def difference(log: Log, other: Log, of: Literal["follows", "activities", "variants"]) -> Result:
    """Return what is more or less frequent, or faster or slower, in this log than in another."""
    if not isinstance(other, Log):
        raise InvalidArgument(f"{other!r} is no log: difference(log.between(…)), or another EventLog")
    if of not in _ASKED:
        raise InvalidArgument(f"of={of!r}: give one of {', '.join(_ASKED)}")
    names, timed, asked = _ASKED[of]
    sql = asked.format(counted=log._counted)
    here, there = (_shares(one, asked) for one in (log, other))
    both = here.merge(there, on=list(names), how="outer", suffixes=("_here", "_there"))
    for name in ("count_here", "count_there"):
        both[name] = both[name].fillna(0).astype("int64")
    both["share_here"], both["share_there"] = both["share_here"].fillna(0.0), both["share_there"].fillna(0.0)
    both["change"] = both["share_here"] - both["share_there"]
    both = both.rename(columns={"median_here": "median_here_s", "median_there": "median_there_s"})
    both = both.sort_values(["change", *names], key=lambda one: -one.abs() if one.name == "change" else one)
    kept = [*names, *(name for name in DIFFERENCE if timed or not name.startswith("median"))]
    meaning = dict.fromkeys(names, "what is compared") | DIFFERENCE
    return Result(
        f"Difference of {of}", both[kept].reset_index(drop=True), {name: meaning[name] for name in kept}, sql,
        (*(f"here: {note}" for note in log.notes), *(f"there: {note}" for note in other.notes)),
        logpicture.difference,
    )  # fmt: skip


_ASKED: dict[str, tuple[tuple[str, ...], bool, str]] = {
    "follows": (
        ("source", "target"),
        True,
        """SELECT x.activity AS source, y.activity AS target, "count",
    "count" / sum("count") OVER () AS share, median
FROM (SELECT p, a, count(*) AS "count", quantile_cont(w, 0.5) / 1e6 AS median
      FROM e WHERE p IS NOT NULL GROUP BY p, a) AS pairs
JOIN activities x ON x.a = pairs.p JOIN activities y ON y.a = pairs.a""",
    ),
    "activities": (
        ("activity",),
        False,
        """SELECT activity, {counted} AS "count", {counted} / sum({counted}) OVER () AS share
FROM e JOIN activities USING (a) GROUP BY activity""",
    ),
    "variants": (
        ("variant",),
        True,
        """SELECT list_select(names, codes) AS variant, count(*) AS "count",
    count(*) / sum(count(*)) OVER () AS share, quantile_cont(d, 0.5) / 1e6 AS median
FROM (SELECT list(a ORDER BY v) AS codes, epoch_us(max(t)) - epoch_us(min(t)) AS d FROM e GROUP BY s),
    (SELECT list(activity ORDER BY a) AS names FROM activities) GROUP BY variant""",
    ),
}


def _shares(log: Log, sql: str) -> pd.DataFrame:
    """Return the parts of one log; a variant as a tuple, which can be compared."""
    found = log.ask("", sql.format(counted=log._counted), {}).df
    return found.assign(variant=found["variant"].map(tuple)) if "variant" in found else found
