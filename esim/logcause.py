"""Causes: which event led to which, and the whole story that an event belongs to."""

from __future__ import annotations

from dataclasses import replace

from esim import logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log, names_list
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
    """Return the causes of an event and all that it led to, as the rows of a tree from the first cause on.

    Each id has one place in the tree, below the earliest of its causes there, and all rows of the id that
    differ in what is told come there: repeated ids do not double what they led to. An id that only a circle
    of causes leads to comes last, at depth 0.
    """
    key, cause = _column(log, "event_id"), _column(log, "causation")
    wanted = _known(log, key, event_id)
    facts = picked(id=f"{key}::VARCHAR", cause=f"{cause}::VARCHAR")
    sql = f"""WITH RECURSIVE events AS (
    SELECT r, x_id AS id, x_cause AS cause, min("case") AS "case", activity, t
    FROM e JOIN cases USING (s) JOIN activities USING (a) JOIN {facts} ON x_row = r GROUP BY ALL),
facts AS MATERIALIZED (
    SELECT id, cause, "case", activity, t, min(r) AS r FROM events WHERE id IS NOT NULL GROUP BY ALL),
ids AS MATERIALIZED (SELECT id, min(r) AS r, min(t) AS t FROM facts GROUP BY id),
edges AS MATERIALIZED (SELECT f.id, f.cause, min(f.r) AS r, any_value((x.t, x.r)) AS since
    FROM facts f JOIN ids x ON x.id = f.cause WHERE f.id <> f.cause GROUP BY f.id, f.cause),
early AS MATERIALIZED (SELECT id, arg_min(cause, since) AS cause FROM edges GROUP BY id),
up AS (
    SELECT id, [id] AS path FROM ids WHERE id = {wanted}
    UNION ALL SELECT f.cause, list_append(path, f.cause) FROM up JOIN early f USING (id)
        WHERE NOT list_contains(path, f.cause)),
root AS MATERIALIZED (SELECT id, r FROM ids WHERE id = (SELECT arg_max(id, len(path)) FROM up)),
tree AS MATERIALIZED (SELECT id FROM root UNION SELECT f.id FROM tree JOIN edges f ON f.cause = tree.id),
parent AS MATERIALIZED (SELECT f.id, arg_min(cause, since) AS cause, arg_min(r, since) AS r
    FROM edges f JOIN tree ON tree.id = f.cause WHERE f.id NOT IN (SELECT id FROM root) GROUP BY f.id),
down AS (
    SELECT id, 0 AS depth, [r] AS path FROM root
    UNION ALL SELECT f.id, depth + 1, list_append(path, f.r) FROM down JOIN parent f ON f.cause = down.id)
SELECT coalesce(depth, 0) AS depth, x.id AS event_id, x.cause AS caused_by, x.id = {wanted} AS asked,
    x."case", x.activity, x.t AT TIME ZONE 'UTC' AS time, (epoch_us(x.t) - epoch_us(y.t)) / 1e6 AS since_s
FROM tree LEFT JOIN down USING (id) JOIN facts x USING (id) LEFT JOIN ids y ON y.id = x.cause
ORDER BY path NULLS LAST, x.t, x.r"""
    found = log.ask("Causes and effects", sql, CAUSES, draw=logpicture.causes)
    return replace(found, notes=(*found.notes, *_repeated(log, facts, tuple(found.df["event_id"].unique()))))


def _repeated(log: Log, facts: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Say how many of these ids more than one event has."""
    rows = f"SELECT DISTINCT r, x_id FROM e JOIN {facts} ON x_row = r WHERE x_id IN ({names_list(ids)})"
    count, more = log.rows(
        "SELECT count(*), coalesce(sum(n - 1), 0) "
        f"FROM (SELECT count(*) AS n FROM ({rows}) GROUP BY x_id HAVING n > 1)"
    )[0]
    if not count:
        return ()
    note = (
        f"{count:,} of these ids {'is' if count == 1 else 'are'} repeated, "
        f"by {more:,} row{'' if more == 1 else 's'}: rows that are the same are told once, others each; "
        "the time since a cause is from its earliest"
    )
    return (note,)


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
