"""What happens, and what happens after what: activities, starts and ends, the directly-follows graph."""

from __future__ import annotations

from esim import logpicture
from esim.logcore import Log
from esim.result import Result

ACTIVITIES = {
    "activity": "what happened",
    "events": "how often",
    "share": "that as a part of all events",
    "cases": "in how many cases",
    "repeated_in": "in how many cases more than once",
    "first": "when it was first seen, UTC",
    "last": "when it was last seen, UTC",
}
START_END = {
    "activity": "what happened",
    "starts": "how many cases begin with it",
    "start_share": "that as a part of all cases",
    "ends": "how many cases end with it",
    "end_share": "that as a part of all cases",
}
FOLLOWS = {
    "source": "an activity",
    "target": "the one directly after it in the same case",
    "count": "how often",
    "cases": "in how many cases",
    "mean_s": "the mean time between them, seconds",
    "median_s": "the median, seconds",
    "p95_s": "the time that 95 of 100 do not exceed, seconds",
    "total_s": "the sum, seconds",
}


def activities(log: Log) -> Result:
    """Return how often each activity happened."""
    once = "JOIN (SELECT a, count(DISTINCT r) AS once FROM e GROUP BY a) USING (a) " if log._shared else ""
    events = "any_value(once)" if log._shared else "sum(n)"
    sql = f"""SELECT activity, {events}::BIGINT AS events, {events} / sum({events}) OVER () AS share,
    count(*) AS cases, count(*) FILTER (n > 1) AS repeated_in,
    min(first) AT TIME ZONE 'UTC' AS first, max(last) AT TIME ZONE 'UTC' AS last
FROM (SELECT s, a, count(*) AS n, min(t) AS first, max(t) AS last FROM e GROUP BY s, a)
{once}JOIN activities USING (a)
GROUP BY activity ORDER BY events DESC, activity"""
    return log.ask(
        "Activities", sql, ACTIVITIES, draw=logpicture.bars("activity", "events", "events", colored=True)
    )


def start_end(log: Log) -> Result:
    """Return with which activities cases begin and end."""
    sql = """SELECT activity,
    coalesce(starts, 0) AS starts, coalesce(starts, 0) / sum(starts) OVER () AS start_share,
    coalesce(ends, 0) AS ends, coalesce(ends, 0) / sum(ends) OVER () AS end_share
FROM (SELECT a, count(*) AS starts FROM e WHERE p IS NULL GROUP BY a)
FULL JOIN (SELECT a, count(*) AS ends FROM e WHERE z GROUP BY a) USING (a) JOIN activities USING (a)
ORDER BY starts DESC, ends DESC, activity"""
    return log.ask("First and last activities", sql, START_END, draw=logpicture.start_end)


def directly_follows(log: Log, *, times: bool, cases: bool) -> Result:
    """Return what directly follows what, how often, and after how long."""
    waiting = ", avg(w) AS mean, quantile_cont(w, [0.5, 0.95]) AS q, sum(w)::DOUBLE AS total" if times else ""
    told = (
        ", mean / 1e6 AS mean_s, q[1] / 1e6 AS median_s, q[2] / 1e6 AS p95_s, total / 1e6 AS total_s"
        if times
        else ""
    )
    distinct, in_cases = (", count(DISTINCT s) AS cases", ", cases") if cases else ("", "")
    sql = f"""SELECT names[p] AS source, names[a] AS target, "count"{in_cases}{told}
FROM (SELECT p, a, count(*) AS "count"{distinct}{waiting} FROM e WHERE p IS NOT NULL GROUP BY p, a),
     (SELECT list(activity ORDER BY a) AS names FROM activities)
ORDER BY "count" DESC, source, target"""
    kept = {
        name: text
        for name, text in FOLLOWS.items()
        if (times or not name.endswith("_s")) and (cases or name != "cases")
    }
    return log.ask("What directly follows what", sql, kept, flows=logpicture.graph(log.rows))
