"""Causes: which event led to which, and the whole story that an event belongs to."""

from __future__ import annotations

from esim import logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import picked
from esim.result import Result
from esim.storefile import literal, quoted

CAUSES = {
    "depth": "how many steps from the root: the first cause has 0",
    "event_id": "the event",
    "caused_by": "the id of the event (or command) that caused it",
    "asked": "whether it is the event that was asked about",
    "case": "its case",
    "activity": "what happened",
    "time": "when, UTC",
    "since_s": "the time since its cause, seconds",
}
JOURNEY = {
    "step": "the place in the story, from 1",
    "event_id": "the event",
    "case": "its case",
    "activity": "what happened",
    "time": "when, UTC",
    "since_s": "the time since the story began, seconds",
    "asked": "whether it is the event that was asked about",
}


def causes(log: Log, event_id: object) -> Result:
    """Return the causes of an event and all that it led to, as the rows of a tree from the first cause on."""
    key, cause = _column(log, "event_id"), _column(log, "causation")
    wanted = _known(log, key, event_id)
    facts = picked(id=f"{key}::VARCHAR", cause=f"{cause}::VARCHAR")
    sql = f"""WITH RECURSIVE facts AS MATERIALIZED (
    SELECT x_id AS id, x_cause AS cause, min("case") AS "case",
        min(activity) AS activity, min(t) AS t, min(r) AS r
    FROM e JOIN cases USING (s) JOIN activities USING (a) JOIN {facts} ON x_row = r GROUP BY id, cause),
up AS (
    SELECT id, cause, [r] AS path FROM facts WHERE id = {wanted}
    UNION ALL SELECT f.id, f.cause, list_append(path, f.r) FROM up JOIN facts f ON f.id = up.cause
        WHERE NOT list_contains(path, f.r)),
down AS (
    SELECT id, 0 AS depth, [r] AS path FROM facts WHERE id = (SELECT arg_max(id, len(path)) FROM up)
    UNION ALL SELECT f.id, depth + 1, list_append(path, f.r) FROM down JOIN facts f ON f.cause = down.id
        WHERE NOT list_contains(path, f.r))
SELECT depth, x.id AS event_id, x.cause AS caused_by, x.id = {wanted} AS asked, x."case", x.activity,
    x.t AT TIME ZONE 'UTC' AS time, (epoch_us(x.t) - epoch_us(y.t)) / 1e6 AS since_s
FROM down JOIN facts x USING (id) LEFT JOIN facts y ON y.id = x.cause ORDER BY path"""
    return log.ask("Causes and effects", sql, CAUSES, draw=logpicture.causes)


def journey(log: Log, event_id: object) -> Result:
    """Return every event of the story that an event belongs to, by its correlation id, in order of time."""
    key, story = _column(log, "event_id"), _column(log, "correlation")
    wanted = _known(log, key, event_id)
    named = log._ties
    order = "r" if log._source.versioned or named is None else "x_order"
    facts = picked(
        id=f"{key}::VARCHAR",
        story=f"coalesce({story}::VARCHAR, {key}::VARCHAR)",
        order=named or "NULL",
    )
    sql = f"""WITH told AS (SELECT x_id AS id, min("case") AS "case", activity, t, {order} AS o, r
    FROM e JOIN cases USING (s) JOIN activities USING (a) JOIN {facts} ON x_row = r
    WHERE x_story = (SELECT x_story FROM {facts} WHERE x_id = {wanted} LIMIT 1) GROUP BY ALL)
SELECT row_number() OVER (ORDER BY t, o, r) AS step, id AS event_id, "case", activity,
    t AT TIME ZONE 'UTC' AS time, (epoch_us(t) - epoch_us(min(t) OVER ())) / 1e6 AS since_s,
    id = {wanted} AS asked
FROM told ORDER BY step"""
    return log.ask("Journey", sql, JOURNEY, draw=logpicture.journey)


def _column(log: Log, role: str) -> str:
    name = log.mapping.get(role)
    if name is None:
        raise InvalidArgument(f"no column has the role {role}: name one, EventLog(…, {role}='…')")
    return quoted(name)


def _known(log: Log, key: str, event_id: object) -> str:
    wanted = literal(str(event_id))
    if not log.rows(f"SELECT 1 FROM source WHERE {key}::VARCHAR = {wanted} LIMIT 1"):
        raise InvalidArgument(f"the log has no event {event_id!s}")
    return wanted
