"""Cases: how long they take, how many events they have, what is done again in them; the log as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from esim import display, logpicture
from esim.arguments import part_of_one, whole
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import picked
from esim.logvariant import FINGERPRINT
from esim.result import Result

CASES = {
    "case": "the case",
    "events": "how many events it has",
    "activities": "how many different activities",
    "repeated": "how many of its events repeat an activity it had before",
    "start": "when it began, UTC",
    "end": "when its last event was, UTC",
    "duration_s": "from the first event to the last, seconds",
    "longest_wait_s": "the longest time between two events, seconds",
    "first": "its first activity",
    "last": "its last activity",
}
SUMMARY = {"figure": "what is counted", "value": "the figure", "unit": "its unit"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def cases(log: Log, top: int | None) -> Result:
    """Return the cases of a log, the longest first."""
    limit = "" if top is None else f" LIMIT {whole(top, 'top')}"
    sql = f"""SELECT "case", events, kinds AS activities, events - kinds AS repeated,
    start AT TIME ZONE 'UTC' AS start, "end" AT TIME ZONE 'UTC' AS "end", duration_s, longest_wait_s,
    x.activity AS first, y.activity AS last
FROM (SELECT s, count(*) AS events, count(DISTINCT a) AS kinds, min(t) AS start, max(t) AS "end",
          (epoch_us(max(t)) - epoch_us(min(t))) / 1e6 AS duration_s, max(w) / 1e6 AS longest_wait_s,
          arg_min(a, v) AS head, arg_max(a, v) AS tail
      FROM e GROUP BY s ORDER BY duration_s DESC, s{limit})
JOIN cases USING (s) JOIN activities x ON x.a = head JOIN activities y ON y.a = tail
ORDER BY duration_s DESC, s"""
    longest = logpicture.bars("case", "duration_s", "seconds")
    return log.ask("Cases", sql, CASES, draw=logpicture.lasting if top is None else longest)


def durations(log: Log, by: str | None, quantiles: Sequence[float]) -> Result:
    """Return quantiles of the durations of cases, of all or for each value of a column at their start."""
    hint = "give parts of one in a list, as [0.5] for the median"
    if isinstance(quantiles, str) or not isinstance(quantiles, Iterable):
        raise InvalidArgument(f"quantiles={display.short(quantiles)}: {hint}")
    parts = [part_of_one(one, "quantile", hint) for one in quantiles]
    marks = {one: f"p{one * 100:.10g}_s".replace(".", "_") for one in parts}
    if len(set(marks.values())) < len(marks):
        raise InvalidArgument(f"quantiles={list(quantiles)!r}: two of them are too near to be told apart")
    listed = "".join(f"q[{n}] / 1e6 AS {name}, " for n, name in enumerate(marks.values(), 1))
    wanted = f"quantile_cont(d, [{', '.join(map(repr, marks))}]) AS q, " if marks else ""
    split = "x_value AS value, " if by is not None else ""
    each = f"SELECT s, {log._lasts()} AS d, min_by(r, v) AS r FROM e GROUP BY s"
    value = f"{log._column(by)}::VARCHAR" if by is not None else "NULL"
    joined = f"JOIN {picked(value=value)} ON x_row = each.r" if by is not None else ""
    group = "GROUP BY value ORDER BY cases DESC, value" if by is not None else ""
    kept = "value, " if by is not None else ""
    sql = f"""SELECT {kept}cases, least / 1e6 AS min_s, {listed}most / 1e6 AS max_s, mean_s
FROM (SELECT {split}count(*) AS cases, min(d) AS least, {wanted}max(d) AS most, avg(d) / 1e6 AS mean_s
      FROM ({each}) AS each {joined} {group})"""
    columns = {
        **({"value": f"the value of {by} at the case's first event"} if by is not None else {}),
        "cases": "how many cases",
        "min_s": "the shortest, seconds",
        **{name: f"the time that {one:.4g} of all do not exceed, seconds" for one, name in marks.items()},
        "max_s": "the longest, seconds",
        "mean_s": "the mean, seconds",
    }
    title = "Durations of cases" + (f" by {by}" if by is not None else "")
    return log.ask(title, sql, columns, draw=logpicture.spreads(by))


def summary(log: Log) -> Result:
    """Return the size of a log and what to know of it, one figure a row."""
    sql = f"""WITH each AS (
    SELECT s, count(*) AS n, {FINGERPRINT} AS f, min(t) AS low, max(t) AS high, count(DISTINCT a) AS k
    FROM e GROUP BY s),
facts AS (SELECT count(*) AS cases, median(n) AS size, max(n) AS biggest,
    count(DISTINCT (f, n)) AS variants, median(epoch_us(high) - epoch_us(low)) / 1e6 AS lasts,
    min(low) AS first, max(high) AS last, count(*) FILTER (k < n) AS reworked FROM each),
steps AS (SELECT count(DISTINCT a) AS activities, count(DISTINCT (p, a)) FILTER (p IS NOT NULL) AS edges,
    {log._counted} AS events, {log._counted} FILTER (w = 0) AS tied, {log._counted} FILTER (w < 0) AS back
    FROM e)
SELECT figure, value, unit FROM facts, steps, (VALUES
    (1, 'events', events::VARCHAR, ''), (2, 'cases', cases::VARCHAR, ''),
    (3, 'activities', activities::VARCHAR, ''), (4, 'variants', variants::VARCHAR, ''),
    (5, 'pairs that follow directly', edges::VARCHAR, ''),
    (6, 'first event', strftime(first, '%Y-%m-%d %H:%M:%S'), 'UTC'),
    (7, 'last event', strftime(last, '%Y-%m-%d %H:%M:%S'), 'UTC'),
    (8, 'events of a case, median', size::VARCHAR, ''),
    (9, 'events of a case, most', biggest::VARCHAR, ''),
    (10, 'duration of a case, median', round(lasts, 3)::VARCHAR, 's'),
    (11, 'cases with rework', reworked::VARCHAR, ''),
    (12, 'events at the time of the one before', tied::VARCHAR, ''),
    (13, 'events before the one before', back::VARCHAR, '')
) AS told(n, figure, value, unit) ORDER BY n"""
    return log.ask("Summary", sql, SUMMARY, draw=logpicture.summary)
