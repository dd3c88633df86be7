"""Objects: events may be about several things at once, and each kind of thing has its own graph.

An event that belongs to no case is an event of its objects all the same, unless a filter keeps cases only.
The events of an object are in the order of time, ties by the order column, then by row; in a store, of
positions.
"""

from __future__ import annotations

from esim import display, logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import ROW, picked
from esim.result import Result
from esim.storefile import literal

OBJECTS = {
    "object_type": "the kind of object",
    "objects": "how many of them there are",
    "events": "how many events are linked to one of them",
    "links": "how many links there are",
    "per_event": "the mean number of them that a linked event has",
}
FOLLOWS = {
    "object_type": "the kind of object",
    "source": "an activity",
    "target": "the next one of the same object",
    "count": "how often, once for each object",
    "pairs": "how many different pairs of events these are: objects may share both",
    "objects": "for how many objects",
    "mean_s": "the mean time between them, seconds",
    "median_s": "the median, seconds",
    "p95_s": "the time that 95 of 100 do not exceed, seconds",
}
_LINKS = f"links AS (SELECT DISTINCT {ROW} AS r, object_type, object_id FROM objects)"


def objects(log: Log) -> Result:
    """Return the kinds of objects that the events are about."""
    sql = f"""WITH {_LINKS}
SELECT object_type, count(DISTINCT object_id) AS objects, count(DISTINCT r) AS events, count(*) AS links,
    count(*) / count(DISTINCT r) AS per_event
FROM links JOIN happened USING (r) GROUP BY object_type ORDER BY links DESC, object_type"""
    return log.ask("Objects", sql, OBJECTS, draw=logpicture.bars("object_type", "events", "events"))


def object_follows(log: Log, object_type: str | None) -> Result:
    """Return what directly follows what in the life of each object, for every kind or one."""
    kinds = [row[0] for row in log.rows("SELECT DISTINCT object_type FROM objects ORDER BY 1")]
    if object_type is not None and object_type not in kinds:
        raise InvalidArgument(
            f"the log has no objects of type {object_type!r}{display.did_you_mean(str(object_type), kinds)}"
        )
    only = f"WHERE object_type = {literal(object_type)}" if object_type is not None else ""
    facts = picked(order=log._ties or "NULL")
    order = "r" if log._source.versioned else "t, x_order, r"
    sql = f"""WITH {_LINKS},
steps AS (SELECT object_type, object_id, a, lag(a) OVER each AS p,
        r, lag(r) OVER each AS r0, epoch_us(t) - epoch_us(lag(t) OVER each) AS w
    FROM links JOIN happened USING (r) JOIN {facts} ON x_row = r {only}
    WINDOW each AS (PARTITION BY object_type, object_id ORDER BY {order})),
steps_of AS (SELECT object_type, p, a, count(*) AS "count", count(DISTINCT (r0, r)) AS pairs,
        count(DISTINCT object_id) AS objects, avg(w) / 1e6 AS mean_s, quantile_cont(w, [0.5, 0.95]) AS q
    FROM steps WHERE p IS NOT NULL GROUP BY object_type, p, a)
SELECT object_type, x.activity AS source, y.activity AS target, "count", pairs, objects,
    mean_s, q[1] / 1e6 AS median_s, q[2] / 1e6 AS p95_s
FROM steps_of JOIN activities x ON x.a = steps_of.p JOIN activities y ON y.a = steps_of.a
ORDER BY object_type, "count" DESC, source, target"""
    if object_type is None and len(kinds) > 1:
        told = "Of each kind by itself, object_directly_follows('…'), there is a map."
        draw = logpicture.pairs("count", "times", told)
        return log.ask("What directly follows what, by object", sql, FOLLOWS, draw=draw)
    nodes = f"""WITH {_LINKS}, of_kind AS (
    SELECT DISTINCT object_id, a, r FROM links JOIN happened USING (r) {only})
SELECT activity, count(*), count(DISTINCT object_id) / (SELECT count(DISTINCT object_id) FROM of_kind)
FROM of_kind JOIN activities USING (a) GROUP BY activity"""
    title = f"What directly follows what, by {object_type or ''.join(kinds) or 'object'}"
    return log.ask(title, sql, FOLLOWS, flows=logpicture.graph(log.rows, nodes))
