"""Where cases wait, what is done again, who works, and who hands over to whom."""

from __future__ import annotations

from esim import logpicture
from esim.arguments import whole
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import picked
from esim.result import Result

_LONGEST = 20

BOTTLENECKS = {
    "source": "an activity",
    "target": "the one directly after it",
    "count": "how often",
    "median_s": "the median time between them, seconds; below zero where a clock runs back",
    "p95_s": "the time that 95 of 100 do not exceed, seconds",
    "total_s": "the sum over all cases, seconds",
    "share": "that as a part of all such time, where what is below zero counts as none",
    "slow_cases": "of the tenth of cases that last longest, how many pass here",
}
REWORK = {
    "activity": "what is done again",
    "cases": "how many cases have it",
    "repeated_in": "how many of them more than once",
    "share": "that as a part of them",
    "repetitions": "how many of its events are not the first in their case",
    "at_once": "how many of these come directly after the same activity",
    "most": "the most in one case",
    "median_s": "the median time from one to the next in a case, seconds",
}
LOOPS = {
    "loop": "the activities from one to its next occurrence",
    "count": "how often",
    "cases": "in how many cases",
    "median_s": "the median time of one round, seconds",
    "total_s": "the time of all rounds, seconds",
}
RESOURCES = {
    "resource": "who",
    "events": "how many events",
    "share": "that as a part of all events with a resource",
    "cases": "in how many cases",
    "activities": "how many different activities",
    "main": "the commonest of them",
    "first": "the first event, UTC",
    "last": "the last event, UTC",
    "median_s": "the median time from the event before in the case to theirs, seconds",
}
HANDOVERS = {
    "source": "who had the event before",
    "target": "who has the one directly after it in the case",
    "count": "how often",
    "cases": "in how many cases",
    "median_s": "the median time between them, seconds",
}


def bottlenecks(log: Log) -> Result:
    """Return the steps between which most time passes, all cases together."""
    back = 0 if log._ready().forward else int(log.rows("SELECT count(*) FROM e WHERE w < 0")[0][0])
    note = (
        f"{back:,} step{' goes' if back == 1 else 's go'} back in time: "
        f"{'its wait is' if back == 1 else 'their waits are'} below zero in the figures, "
        f"and {'counts' if back == 1 else 'count'} as none in share"
    )
    passed = "greatest(w, 0)" if back else "w"
    sql = f"""WITH lasts AS (SELECT s, {log._lasts()} AS d FROM e GROUP BY s),
slow AS (SELECT s FROM lasts WHERE d >= (SELECT quantile_cont(d, 0.9) FROM lasts) AND d > 0),
pairs AS (SELECT p, a, count(*) AS "count", quantile_cont(w, [0.5, 0.95]) AS q,
        sum(w)::DOUBLE / 1e6 AS total_s, sum({passed})::DOUBLE AS passed, count(DISTINCT slow.s) AS slow_cases
    FROM e LEFT JOIN slow USING (s) WHERE p IS NOT NULL GROUP BY p, a)
SELECT x.activity AS source, y.activity AS target, "count",
    q[1] / 1e6 AS median_s, q[2] / 1e6 AS p95_s, total_s,
    passed / nullif(sum(passed) OVER (), 0) AS share, slow_cases
FROM pairs JOIN activities x ON x.a = pairs.p JOIN activities y ON y.a = pairs.a
ORDER BY total_s DESC, source, target"""
    return log.ask(
        "Where time goes",
        sql,
        BOTTLENECKS,
        (note,) if back else (),
        draw=logpicture.pairs("total_s", "seconds", "All cases together."),
    )


def rework(log: Log) -> Result:
    """Return which activities are done again in the same case."""
    sql = """WITH again AS (SELECT s, a, v, p, epoch_us(t) - epoch_us(lag(t) OVER each) AS gap,
        row_number() OVER each AS nth
    FROM e WINDOW each AS (PARTITION BY s, a ORDER BY v)),
each AS (SELECT a, s, count(*) AS n FROM e GROUP BY a, s),
counted AS (SELECT a, count(*) AS cases, count(*) FILTER (n > 1) AS repeated_in, max(n) AS most
    FROM each GROUP BY a),
timed AS (SELECT a, count(*) AS repetitions, count(*) FILTER (p = a) AS at_once, median(gap) / 1e6 AS median_s
    FROM again WHERE nth > 1 GROUP BY a)
SELECT activity, cases, repeated_in, repeated_in / cases AS share, repetitions, at_once, most, median_s
FROM timed JOIN counted USING (a) JOIN activities USING (a)
ORDER BY repetitions DESC, activity"""
    return log.ask(
        "Rework", sql, REWORK, draw=logpicture.bars("activity", "repetitions", "repetitions", colored=True)
    )


def loops(log: Log, longest: int) -> Result:
    """Return the rounds that cases take: from an activity to its next occurrence, up to `longest` steps."""
    hint = f"give a number of steps from 1 to {_LONGEST}"
    steps = whole(longest, "longest", hint)
    if not 1 <= steps <= _LONGEST:
        raise InvalidArgument(f"longest={longest!r}: {hint}")
    sql = f"""WITH again AS (SELECT s, a, v, t, lag(v) OVER each AS before, lag(t) OVER each AS since
    FROM e WINDOW each AS (PARTITION BY s, a ORDER BY v)),
rounds AS (SELECT * FROM again WHERE v - before <= {steps}),
spelled AS (SELECT r.s, r.v, any_value(r.t) AS t, any_value(r.since) AS since,
        list(activity ORDER BY e.v) AS loop
    FROM rounds r JOIN e ON e.s = r.s AND e.v BETWEEN r.before AND r.v JOIN activities ON activities.a = e.a
    GROUP BY r.s, r.v)
SELECT loop, count(*) AS "count", count(DISTINCT s) AS cases,
    median(epoch_us(t) - epoch_us(since)) / 1e6 AS median_s,
    sum(epoch_us(t) - epoch_us(since))::DOUBLE / 1e6 AS total_s
FROM spelled GROUP BY loop ORDER BY "count" DESC, loop"""
    return log.ask("Loops", sql, LOOPS, draw=logpicture.bars("loop", "count", "rounds"))


def resources(log: Log, by: str | None) -> Result:
    """Return who did how much."""
    who = picked(who=f"{_who(log, by)}::VARCHAR")
    sql = f"""WITH did AS (SELECT x_who AS resource, e.* FROM e JOIN {who} ON x_row = r
    WHERE x_who IS NOT NULL),
main AS (SELECT resource, arg_min(a, (-n, a)) AS main FROM (
    SELECT resource, a, {log._counted} AS n FROM did GROUP BY resource, a) GROUP BY resource),
told AS (SELECT resource, {log._counted} AS events, count(DISTINCT s) AS cases,
    count(DISTINCT a) AS activities, min(t) AS first, max(t) AS last, median(w) / 1e6 AS median_s
    FROM did GROUP BY resource)
SELECT resource, events, events / sum(events) OVER () AS share, cases, told.activities,
    names.activity AS main, first AT TIME ZONE 'UTC' AS first, last AT TIME ZONE 'UTC' AS last, median_s
FROM told JOIN main USING (resource) JOIN activities names ON names.a = main
ORDER BY events DESC, resource"""
    return log.ask("Who does what", sql, RESOURCES, draw=logpicture.bars("resource", "events", "events"))


def handovers(log: Log, by: str | None) -> Result:
    """Return who hands cases over to whom."""
    who = picked(who=f"{_who(log, by)}::VARCHAR")
    sql = f"""WITH did AS (SELECT s, v, w, x_who AS who FROM e JOIN {who} ON x_row = r),
steps AS (SELECT s, w, lag(who) OVER (PARTITION BY s ORDER BY v) AS source, who AS target FROM did)
SELECT source, target, count(*) AS "count", count(DISTINCT s) AS cases, median(w) / 1e6 AS median_s
FROM steps WHERE source IS NOT NULL AND target IS NOT NULL AND source <> target
GROUP BY source, target ORDER BY "count" DESC, source, target"""
    return log.ask("Hand-overs", sql, HANDOVERS, draw=logpicture.pairs("count", "hand-overs"))


def _who(log: Log, by: str | None) -> str:
    column = by or log.mapping.get("resource")
    if column is None:
        raise InvalidArgument("no column says who did it: name one, as resources(by='assigned_to')")
    return log._column(column)
