"""Variants: the ways that cases take, as sequences of activities.

Cases are grouped by a fingerprint that takes no sorting and no lists: each activity is hashed together with
its place in the case, and the hashes are added bit by bit, so that the order of rows is of no matter. Two
different sequences share one with a probability of about 2⁻⁶⁴ for each pair; `exact=True` compares the
sequences themselves.
"""

from __future__ import annotations

from esim import logpicture
from esim.arguments import whole
from esim.logcore import Log
from esim.result import Result

# The offset keeps places and activities apart: small numbers next to each other would collide.
FINGERPRINT = "bit_xor(hash(a::BIGINT * 1099511627776 + v))"
"""The sum over a case that tells its sequence of activities from all others of the same length."""

COLUMNS = {
    "variant": "the activities of a case in order",
    "cases": "how many cases take this way",
    "share": "that as a part of all cases",
    "coverage": "the share of this and all commoner variants",
    "steps": "how many events such a case has",
    "median_s": "the median duration of such a case, seconds",
    "example": "a case that takes it",
}

# A place and an activity in one number: half the cost of list(a ORDER BY v).
_WHOLE = "list_sort(list(v::BIGINT * 4294967296 + a))"


def variants(log: Log, top: int | None, *, times: bool, exact: bool) -> Result:
    """Return the variants of a log, the commonest first."""
    chosen = "" if top is None else f" WHERE k <= {whole(top, 'top')}"
    lasts, middle = (f", {log._lasts()} AS lasts", "median(lasts) / 1e6 AS median_s, ") if times else ("", "")
    sql = f"""WITH each AS (SELECT s, {_WHOLE if exact else FINGERPRINT} AS kind{lasts} FROM e GROUP BY s),
grouped AS (SELECT count(*) AS cases, {middle}min(s) AS s FROM each GROUP BY kind),
ranked AS MATERIALIZED (
    SELECT *, row_number() OVER ranks AS k, sum(cases) OVER ranks AS upto, sum(cases) OVER () AS total
    FROM grouped JOIN cases USING (s) WINDOW ranks AS (ORDER BY cases DESC, s ROWS UNBOUNDED PRECEDING)),
spelled AS (SELECT k, list(a ORDER BY v) AS codes FROM e JOIN ranked USING (s){chosen} GROUP BY k),
named AS (SELECT list(activity ORDER BY a) AS names FROM activities)
SELECT list_select(names, codes) AS variant, cases, cases / total AS share, upto / total AS coverage,
    len(codes) AS steps, {"median_s, " if times else ""}"case" AS example
FROM ranked JOIN spelled USING (k), named
ORDER BY k"""
    total = None if top is None else _count(log)
    told = () if total is None or top is None or total <= top else (_commonest(top, total),)
    columns = {name: text for name, text in COLUMNS.items() if times or name != "median_s"}
    return log.ask("Variants", sql, columns, told, draw=logpicture.variants(total))


def _count(log: Log) -> int:
    return int(log.rows(f"SELECT count(DISTINCT f) FROM (SELECT {FINGERPRINT} AS f FROM e GROUP BY s)")[0][0])


def _commonest(top: int, total: int) -> str:
    return f"the {top:,} commonest of {total:,} variants"
