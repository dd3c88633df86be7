"""What is odd about a log: versions that jump or repeat, clocks that run backward, causes that are not there.

Each oddity is one SELECT of events (s, v, r and a detail), from which both the counts and the rows come.
Versions are looked at in the order in which events were written: of the order column, or of the rows where
versions are that order themselves.
"""

from __future__ import annotations

from esim import display, logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logsource import picked
from esim.mapping import plain
from esim.result import Result
from esim.storefile import literal, quoted

ANOMALIES = {
    "anomaly": "what is odd",
    "events": "how many events are so",
    "cases": "in how many cases",
    "amount": "how much of it in all, in its unit",
    "unit": "what the amount counts",
    "example": "a case with it",
    "meaning": "what it means",
}
ODD = {
    "case": "the case",
    "v": "the place of the event in its case, from 1",
    "time": "when, UTC",
    "activity": "what happened",
    "amount": "how much of it, in its unit",
    "detail": "what is odd about it",
}
_VERSIONED = ("version", "sequence", "sequencenumber", "seq")
_SILENT = 20  # times as long as 99 of 100 pauses, and the log is silent

_MEANINGS = {
    "version gap": (
        "versions missing",
        "the version is more than one above the one before: events are missing",
    ),
    "version repeated": ("events", "the case has an event of this version already"),
    "version goes back": ("versions", "the version is below the one before"),
    "late first version": (
        "versions missing",
        "the first version is above that of most cases: the start is missing",
    ),
    "clock runs backward": ("s", "the time is before that of the event before"),
    "same time as before": ("events", "the time is that of the event before in the case"),
    "repeated event": ("events", "an event of the same case, activity and time was there already"),
    "event id repeated": ("events", "an event of this id was there already"),
    "missing cause": ("events", "the event that caused it is not in the log"),
    "uncaused": ("events", "it is not the first of its story, and nothing says what caused it"),
    "sudden silence": ("s", "after it nothing happened in the whole log for far longer than usual"),
}


def anomalies(log: Log, version: str | None) -> Result:
    """Return how often each oddity is found."""
    kinds = _kinds(log, version)
    told = "\nUNION ALL ".join(
        f"SELECT {n} AS n, {literal(kind)} AS anomaly, count(*) AS events, count(DISTINCT s) AS cases, "
        f"coalesce(sum(amount), 0)::DOUBLE AS amount, min(s) AS one FROM ({select})"
        for n, (kind, select) in enumerate(kinds.items())
    )
    named = ", ".join(
        f"({literal(kind)}, {literal(unit)}, {literal(text)})" for kind, (unit, text) in _MEANINGS.items()
    )
    sql = f"""SELECT anomaly, events, told.cases, amount, unit, names."case" AS example, meaning
FROM ({told}) AS told JOIN (VALUES {named}) AS named(anomaly, unit, meaning) USING (anomaly)
LEFT JOIN cases names ON names.s = one ORDER BY n"""
    return log.ask("Anomalies", sql, ANOMALIES, _unseen(kinds), draw=logpicture.found)


def odd(log: Log, kind: str, version: str | None) -> Result:
    """Return the events of one kind of oddity."""
    kinds = _kinds(log, version)
    if kind not in kinds:
        raise InvalidArgument(
            f"kind={kind!r} is not looked for here{display.did_you_mean(kind, list(kinds))}"
        )
    sql = f"""SELECT "case", x.v, t AT TIME ZONE 'UTC' AS time, activity, x.amount, x.detail
FROM ({kinds[kind]}) AS x JOIN e ON e.s = x.s AND e.v = x.v JOIN cases ON cases.s = x.s
JOIN activities USING (a)
ORDER BY x.s, x.v, detail"""
    return log.ask(f"Anomalies: {kind}", sql, ODD)


def _unseen(kinds: dict[str, str]) -> tuple[str, ...]:
    missing = [kind for kind in _MEANINGS if kind not in kinds]
    return (f"not looked for, as no column tells: {', '.join(missing)}",) if missing else ()


def _kinds(log: Log, version: str | None) -> dict[str, str]:
    """Return the SELECT of each oddity that the columns of the log allow to look for."""
    kinds: dict[str, str] = {}
    order = log.mapping.get("order")
    counter = version if version is not None else order if plain(order or "") in _VERSIONED else None
    if counter is not None:
        _must_count(log, counter)
        kinds |= _of_versions(log._column(counter), order if order != counter else None)
    kinds |= _of_times(log)
    key, cause, story = (log.mapping.get(role) for role in ("event_id", "causation", "correlation"))
    if key is not None:
        kinds["event id repeated"] = _repeated(f"{quoted(key)}::VARCHAR", "'the id ' || x_n")
    if key is not None and cause is not None:
        facts = picked(id=f"{quoted(key)}::VARCHAR", cause=f"{quoted(cause)}::VARCHAR")
        kinds["missing cause"] = (
            "SELECT s, v, 1 AS amount, 'caused by ' || x_cause AS detail "
            f"FROM e JOIN {facts} ON x_row = r WHERE x_cause IS NOT NULL "
            f"AND x_cause NOT IN (SELECT x_id FROM {facts} WHERE x_id IS NOT NULL)"
        )
    if cause is not None and story is not None:
        facts = picked(story=f"{quoted(story)}::VARCHAR", cause=quoted(cause))
        kinds["uncaused"] = (
            "SELECT s, v, 1 AS amount, 'in ' || x_story AS detail FROM (SELECT s, v, x_cause, x_story, "
            "row_number() OVER (PARTITION BY x_story ORDER BY t, r) AS nth "
            f"FROM e JOIN {facts} ON x_row = r) "
            "WHERE x_story IS NOT NULL AND nth > 1 AND x_cause IS NULL"
        )
    return kinds


def _must_count(log: Log, counter: str) -> None:
    kind = next(
        (kind for name, kind in log.mapping.types.items() if name.casefold() == counter.casefold()), ""
    )
    if kind and "INT" not in kind and not kind.startswith(("DECIMAL", "DOUBLE", "FLOAT")):
        raise InvalidArgument(
            f"version={counter!r} is of type {kind}, and versions are numbers: name another"
        )


def _of_versions(counter: str, order: str | None) -> dict[str, str]:
    facts = picked(n=f"{counter}::BIGINT", order=quoted(order) if order is not None else "NULL")
    steps = (
        "SELECT s, v, x_n AS n, lag(x_n) OVER each AS before, row_number() OVER each AS nth "
        f"FROM e JOIN {facts} ON x_row = r WINDOW each AS (PARTITION BY s ORDER BY x_order, r)"
    )
    usual = f"SELECT mode(n) FROM ({steps}) WHERE nth = 1"
    return {
        "version gap": "SELECT s, v, n - before - 1 AS amount, n || ' after ' || before AS detail "
        f"FROM ({steps}) WHERE n > before + 1",
        "version repeated": _repeated(f"{counter}::BIGINT", "'version ' || x_n", "s, "),
        "version goes back": "SELECT s, v, before - n AS amount, n || ' after ' || before AS detail "
        f"FROM ({steps}) WHERE n < before",
        "late first version": f"SELECT s, v, n - ({usual}) AS amount, 'begins with ' || n AS detail "
        f"FROM ({steps}) WHERE nth = 1 AND n > ({usual})",
    }


def _of_times(log: Log) -> dict[str, str]:
    order = log.mapping.get("order")
    facts = picked(order=quoted(order) if order is not None else "NULL")
    steps = (
        "SELECT s, v, t, lag(t) OVER (PARTITION BY s ORDER BY x_order, r) AS before "
        f"FROM e JOIN {facts} ON x_row = r"
    )
    pauses = (
        "SELECT s, v, t, lead(t) OVER (ORDER BY t, r) AS next, epoch_us(next) - epoch_us(t) AS pause FROM e"
    )
    return {
        "clock runs backward": "SELECT s, v, (epoch_us(before) - epoch_us(t)) / 1e6 AS amount, "
        f"'before ' || before AS detail FROM ({steps}) WHERE t < before",
        "same time as before": "SELECT s, v, 1 AS amount, '' AS detail FROM e WHERE w = 0",
        "repeated event": "SELECT s, v, 1 AS amount, '' AS detail FROM (SELECT s, v, "
        "row_number() OVER (PARTITION BY s, a, t ORDER BY v) AS nth FROM e) WHERE nth > 1",
        "sudden silence": f"SELECT s, v, pause / 1e6 AS amount, 'until ' || next AS detail FROM ({pauses}) "
        f"WHERE pause > {_SILENT} * greatest((SELECT quantile_cont(pause, 0.99) FROM ({pauses})), 1)",
    }


def _repeated(value: str, detail: str, within: str = "") -> str:
    facts = (
        f"SELECT s, v, x_n, row_number() OVER (PARTITION BY {within}x_n ORDER BY r) AS nth "
        f"FROM e JOIN {picked(n=value)} ON x_row = r WHERE x_n IS NOT NULL"
    )
    return f"SELECT s, v, 1 AS amount, {detail} AS detail FROM ({facts}) WHERE nth > 1"
