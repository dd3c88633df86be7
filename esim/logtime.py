"""Time: how many events when, which cases come back, how far cases get, and every event as a dot."""

from __future__ import annotations

from collections.abc import Sequence

from esim import logpicture
from esim.arguments import activities, whole
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import picked
from esim.result import Result

_MOST_AGES = 1_000_000  # rows of cohorts
PERIODS = ("minute", "hour", "day", "week", "month", "quarter", "year")

RATES = {
    "period": "when the period begins, UTC",
    "value": "the activity, or the value of the column",
    "events": "how many events in it",
    "cases": "how many cases have an event in it",
    "started": "how many cases begin in it",
    "ended": "how many cases have their last event in it",
    "open": "how many cases have begun by its end, and have an event after it",
}
COHORTS = {
    "cohort": "the period of the first event of the cases (or values), UTC",
    "size": "how many cases (or values) began in it",
    "age": "periods since then, from 0",
    "active": "how many of them have an event at that age; each age up to the log's end has a row",
    "retention": "that as a part of the size",
}
FUNNEL = {
    "step": "the place of the step, from 1",
    "activity": "the activity of the step",
    "cases": "how many cases got so far: the steps in order, with anything between them",
    "conversion": "that as a part of those that got to the step before",
    "overall": "that as a part of those that got to the first step",
    "median_s": "the median time since the step before, seconds",
    "p95_s": "the time since the step before that 95 of 100 do not exceed, seconds",
}
DOTS = {
    "case": "the case; '' where dots are gathered in cells",
    "row": "the place of the case in the chart, from 0: by first event; of cells, of the first in their row",
    "time": "when, UTC; of a cell, a moment in it",
    "since_s": "the time since the first event of the case, seconds",
    "activity": "what happened",
    "events": "how many events are in this dot",
}


def rates(log: Log, every: str, by: str | None) -> Result:
    """Return how many events, cases, beginnings and ends there are in each period."""
    check_period(every)
    if by is not None:
        return _rates_by(log, every, by)
    sql = f"""WITH span AS (SELECT s, min(t) AS low, max(t) AS high FROM e GROUP BY s),
bounds AS (SELECT date_trunc('{every}', min(low)) AS low, date_trunc('{every}', max(high)) AS high FROM span),
periods AS (SELECT unnest(generate_series(low::TIMESTAMP, high::TIMESTAMP, {_step(every)})) AS period
    FROM bounds),
counted AS (SELECT date_trunc('{every}', t) AS period, {log._counted} AS events, count(DISTINCT s) AS cases
    FROM e GROUP BY period),
began AS (SELECT date_trunc('{every}', low) AS period, count(*) AS started FROM span GROUP BY period),
ended AS (SELECT date_trunc('{every}', high) AS period, count(*) AS ended FROM span GROUP BY period),
put AS (SELECT period, coalesce(events, 0) AS events, coalesce(cases, 0) AS cases,
        coalesce(started, 0) AS started, coalesce(ended, 0) AS ended
    FROM periods LEFT JOIN counted USING (period) LEFT JOIN began USING (period)
        LEFT JOIN ended USING (period))
SELECT period AT TIME ZONE 'UTC' AS period, events, cases, started, ended,
    (sum(started - ended) OVER (ORDER BY period))::BIGINT AS open
FROM put ORDER BY period"""
    columns = {name: text for name, text in RATES.items() if name != "value"}
    return log.ask(f"Events every {every}", sql, columns, draw=logpicture.rates)


def _rates_by(log: Log, every: str, by: str) -> Result:
    value, joined = (
        ("activity", "JOIN activities USING (a)")
        if by == "activity"
        else ("x_value", f"JOIN {picked(value=log._column(by) + '::VARCHAR')} ON x_row = r")
    )
    sql = f"""SELECT date_trunc('{every}', t) AT TIME ZONE 'UTC' AS period, {value} AS value,
    {log._counted} AS events, count(DISTINCT s) AS cases
FROM e {joined} GROUP BY ALL ORDER BY period, value"""
    columns = {name: RATES[name] for name in ("period", "value", "events", "cases")}
    return log.ask(f"Events every {every}, by {by}", sql, columns, draw=logpicture.rates_by)


def cohorts(log: Log, every: str, by: str | None) -> Result:
    """Return how many of the cases (or values of a column) that began in a period are active later."""
    check_period(every)
    last = log._latest
    query = f"SELECT count(DISTINCT date_trunc('{every}', t)), date_diff('{every}', min(t), {last}) FROM e"
    cohorts, oldest = log.rows(query)[0]
    if cohorts * (oldest or 0) > _MOST_AGES:
        raise InvalidArgument(
            f"cohorts({every!r}) would be {cohorts:,} cohorts of up to {oldest:,} ages; give a longer period"
        )
    who, joined = ("s", "")
    if by is not None:
        who = "x_who"
        joined = f"JOIN {picked(who=log._column(by) + '::VARCHAR')} ON x_row = r"
    sql = f"""WITH seen AS (SELECT DISTINCT {who} AS who, date_trunc('{every}', t)::TIMESTAMP AS period
    FROM e {joined} WHERE {who} IS NOT NULL),
aged AS (SELECT who, period, min(period) OVER (PARTITION BY who) AS cohort FROM seen),
sized AS (SELECT cohort, count(DISTINCT who) AS size FROM aged GROUP BY cohort),
ages AS (SELECT cohort, size, unnest(range(date_diff('{every}', cohort, {last}) + 1)) AS age FROM sized),
came AS (SELECT cohort, date_diff('{every}', cohort, period) AS age, count(*) AS n FROM aged GROUP BY ALL)
SELECT cohort AT TIME ZONE 'UTC' AS cohort, size, age, coalesce(n, 0) AS active,
    coalesce(n, 0) / size AS retention
FROM ages LEFT JOIN came USING (cohort, age) ORDER BY cohort, age"""
    return log.ask(f"Retention by {every} of {by or 'cases'}", sql, COHORTS, draw=logpicture.cohorts(every))


def funnel(log: Log, steps: Sequence[str]) -> Result:
    """Return how many cases come how far through steps, each after the one before, and how long that takes.

    A case takes a step at the first event of it after the event of the step before.
    """
    codes = log._codes(*activities(steps, "funnel"))
    parts = [f"step_1 AS (SELECT s, min(v) AS v, min_by(t, v) AS t FROM e WHERE a = {codes[0]} GROUP BY s)"]
    parts += [
        f"step_{n} AS (SELECT e.s, min(e.v) AS v, min_by(e.t, e.v) AS t, any_value(x.t) AS since "
        f"FROM e JOIN step_{n - 1} x ON x.s = e.s AND e.v > x.v WHERE e.a = {code} GROUP BY e.s)"
        for n, code in enumerate(codes[1:], 2)
    ]
    waits = "epoch_us(t) - epoch_us(since)"
    rows = [
        "SELECT 1 AS step, count(*) AS cases, NULL::DOUBLE AS median_s, NULL::DOUBLE AS p95_s FROM step_1"
    ]
    rows += [
        f"SELECT {n}, count(*), quantile_cont({waits}, 0.5) / 1e6, quantile_cont({waits}, 0.95) / 1e6 "
        f"FROM step_{n}"
        for n in range(2, len(codes) + 1)
    ]
    named = ", ".join(f"({n}, {code})" for n, code in enumerate(codes, 1))
    told = "\nUNION ALL ".join(rows)
    sql = f"""WITH {",".join(parts)},
told AS ({told})
SELECT step, activity, cases, cases / nullif(lag(cases) OVER (ORDER BY step), 0) AS conversion,
    cases / nullif(first(cases) OVER (ORDER BY step), 0) AS overall, median_s, p95_s
FROM told JOIN (VALUES {named}) AS named(step, a) USING (step) JOIN activities USING (a) ORDER BY step"""
    return log.ask("Funnel", sql, FUNNEL, draw=logpicture.funnel)


def dots(log: Log, most: int) -> Result:
    """Return every event as a dot; of more than `most`, gathered in a grid of about as many cells."""
    limit = max(whole(most, "most"), 1)
    if len(log) <= limit:
        sql = """SELECT "case", dense_rank() OVER (ORDER BY begun, s) - 1 AS row,
    t AT TIME ZONE 'UTC' AS time, (epoch_us(t) - epoch_us(begun)) / 1e6 AS since_s, activity, 1 AS events
FROM (SELECT *, min(t) OVER (PARTITION BY s) AS begun FROM e) JOIN cases USING (s) JOIN activities USING (a)
ORDER BY row, v"""
        return log.ask("Dotted chart", sql, DOTS, draw=logpicture.dots)
    side = max(int(limit**0.5), 1)
    sql = f"""WITH begun AS (SELECT s, min(t) AS begun FROM e GROUP BY s),
ranked AS (SELECT s, begun, row_number() OVER (ORDER BY begun, s) - 1 AS row FROM begun),
bounds AS (SELECT epoch_us(min(t)) AS low, greatest(epoch_us(max(t)) - epoch_us(min(t)), 1) AS width,
    count(DISTINCT s) AS cases FROM e),
celled AS (SELECT r, a, (row * {side} // cases * cases + {side - 1}) // {side} AS row,
    (low + least((epoch_us(t) - low)::HUGEINT * {side} // width, {side - 1}) * width
        // {max(side - 1, 1)})::BIGINT AS cell,
    epoch_us(t) - epoch_us(begun) AS since FROM e JOIN ranked USING (s), bounds)
SELECT '' AS "case", row, make_timestamp(cell) AT TIME ZONE 'UTC' AS time, avg(since) / 1e6 AS since_s,
    activity, {log._counted} AS events
FROM celled JOIN activities USING (a) GROUP BY row, cell, activity ORDER BY row, cell, activity"""
    told = f"{len(log):,} events, gathered in a grid of {side} by {side} cells"
    return log.ask("Dotted chart", sql, DOTS, (told,), draw=logpicture.cells)


def check_period(every: str) -> None:
    """Raise InvalidArgument unless `every` names a period."""
    if every not in PERIODS:
        raise InvalidArgument(f"every={every!r}: give one of {', '.join(PERIODS)}")


def _step(every: str) -> str:
    return "INTERVAL 3 MONTH" if every == "quarter" else f"INTERVAL 1 {every.upper()}"
