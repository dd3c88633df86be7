"""What is odd about a log: versions that jump or repeat, clocks that run backward, causes that are not there.

Each oddity is one SELECT of events (s, r, amount, detail), from which both the counts and the rows come.
Versions and clocks are looked at in the order in which events were written: of the order column, in a store
of positions; where versions are that order themselves, they cannot go back. What is odd is so in the whole
log, and filters say of which events it is told; silence alone is that of the events that are left.
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
_SILENT = 20  # times as long as the usual pause, and the log is silent
_RARE, _FEW = 6, 20  # so many pauses of a small log may be unusual; with so few events, none is usual

_MEANINGS = {
    "version gap": (
        "versions missing",
        "the version is more than one above the one before: events are missing",
    ),
    "version repeated": ("events", "the case has an event of this version already"),
    "version goes back": ("versions", "the version is below the one before"),
    "late first version": (
        "versions missing",
        "the first version is above the commonest one, of several the least: the start is missing",
    ),
    "clock runs backward": ("s", "the time is before that of the event before"),
    "same time as before": ("events", "the time is that of the event before in the case"),
    "repeated event": ("events", "an event of the same case, activity and time was there already"),
    "event id repeated": ("events", "an event of this id was there already"),
    "missing cause": ("events", "the event that caused it is neither in the log nor in its store"),
    "uncaused": ("events", "it is not the first of its story, and nothing says what caused it"),
    "sudden silence": ("s", "after it nothing happened in the log for far longer than usual"),
}


def anomalies(log: Log, version: str | None) -> Result:
    """Return how often each oddity is found."""
    kinds = _kinds(log, version)
    left = _left(log)
    told = "\nUNION ALL ".join(
        f"SELECT {n} AS n, {literal(kind)} AS anomaly, {log._counted} AS events, "
        f"count(DISTINCT s) AS cases, {_amount(log, kind)} AS amount, min(s) AS one FROM ({select}){left}"
        for n, (kind, select) in enumerate(kinds.items())
    )
    named = ", ".join(
        f"({literal(kind)}, {literal(unit)}, {literal(text)})" for kind, (unit, text) in _MEANINGS.items()
    )
    sql = f"""SELECT anomaly, events, told.cases, amount, unit, names."case" AS example, meaning
FROM ({told}) AS told JOIN (VALUES {named}) AS named(anomaly, unit, meaning) USING (anomaly)
LEFT JOIN cases names ON names.s = one ORDER BY n"""
    return log.ask("Anomalies", sql, ANOMALIES, _unseen(log, kinds), draw=logpicture.found)


def odd(log: Log, kind: str, version: str | None) -> Result:
    """Return the events of one kind of oddity."""
    kinds = _kinds(log, version)
    if kind not in kinds:
        raise InvalidArgument(
            f"kind={kind!r} is not looked for here{display.did_you_mean(kind, list(kinds))}"
        )
    sql = f"""SELECT "case", v, t AT TIME ZONE 'UTC' AS time, activity, x.amount, x.detail
FROM ({kinds[kind]}) AS x JOIN e USING (s, r) JOIN cases USING (s) JOIN activities USING (a)
ORDER BY s, v, detail"""
    return log.ask(f"Anomalies: {kind}", sql, ODD, draw=logpicture.by_activity)


def _left(log: Log) -> str:
    """Return the SQL that keeps oddities of the events that filters left."""
    return "" if log._before is None else " SEMI JOIN e USING (s, r)"


def _amount(log: Log, kind: str) -> str:
    """Return the SQL of how much there is of an oddity; where events are its unit, as many as there are."""
    total = log._counted if _MEANINGS[kind][0] == "events" else "coalesce(sum(amount), 0)"
    return f"({total})::DOUBLE"


def _unseen(log: Log, kinds: dict[str, str]) -> tuple[str, ...]:
    missing = [kind for kind in _MEANINGS if kind not in kinds and kind != "sudden silence"]
    few = f"not looked for in {len(log):,} events, as so few tell no usual pause: sudden silence"
    notes = (f"not looked for, as no column tells: {', '.join(missing)}",) if missing else ()
    return notes if "sudden silence" in kinds else (*notes, few)


def _kinds(log: Log, version: str | None) -> dict[str, str]:
    """Return the SELECT of each oddity that the columns of the log allow to look for."""
    kinds: dict[str, str] = {}
    order = log.mapping.get("order")
    counter = version if version is not None else order if plain(order or "") in _VERSIONED else None
    if counter is not None:
        _must_count(log, counter)
        kinds |= _of_versions(log, log._column(counter))
    kinds |= _of_times(log)
    key, cause, story = (log.mapping.get(role) for role in ("event_id", "causation", "correlation"))
    if key is not None:
        kinds["event id repeated"] = _repeated(f"{quoted(key)}::VARCHAR", "'the id ' || x_n")
    if key is not None and cause is not None:
        facts = picked(id=f"{quoted(key)}::VARCHAR", cause=f"{quoted(cause)}::VARCHAR")
        every = log._source.every if key == log._source.roles.get("event_id") else None
        stored = f"SELECT {quoted(key)}::VARCHAR FROM ({every})"
        ids = stored if every else f"SELECT x_id FROM {facts} WHERE x_id IS NOT NULL"
        kinds["missing cause"] = (
            "SELECT s, r, 1 AS amount, 'caused by ' || x_cause AS detail "
            f"FROM whole JOIN {facts} ON x_row = r WHERE x_cause IS NOT NULL AND x_cause NOT IN ({ids})"
        )
    if cause is not None and story is not None:
        at = "r" if log._source.versioned else "t, x_order, r"
        facts = picked(story=f"{quoted(story)}::VARCHAR", cause=quoted(cause), order=log._ties or "NULL")
        kinds["uncaused"] = (
            "SELECT s, r, 1 AS amount, 'in ' || x_story AS detail FROM (SELECT s, r, x_cause, x_story, "
            f"dense_rank() OVER (PARTITION BY x_story ORDER BY {at}) AS nth "
            f"FROM whole JOIN {facts} ON x_row = r) "
            "WHERE x_story IS NOT NULL AND nth > 1 AND x_cause IS NULL"
        )
    return {kind: kinds[kind] for kind in _MEANINGS if kind in kinds}


def _of_versions(log: Log, counter: str) -> dict[str, str]:
    order = None if quoted(log.mapping.get("order") or "") == counter else log._order()
    written = "r" if log._source.versioned else "n, r" if order is None else "x_order, r"
    facts = picked(n=f"{counter}::BIGINT", order=order or "NULL")
    steps = (
        "SELECT s, r, x_n AS n, lag(x_n) OVER each AS before, row_number() OVER each AS nth "
        f"FROM whole JOIN {facts} ON x_row = r WINDOW each AS (PARTITION BY s ORDER BY {written})"
    )
    usual = (  # of versions that are equally common, the least: mode(n) takes one by chance
        f"SELECT n AS usual FROM ({steps}) WHERE nth = 1 AND n IS NOT NULL "
        "GROUP BY n ORDER BY count(*) DESC, n LIMIT 1"
    )
    kinds = {
        "version gap": "SELECT s, r, n - before - 1 AS amount, n || ' after ' || before AS detail "
        f"FROM ({steps}) WHERE n > before + 1",
        "version repeated": _repeated(f"{counter}::BIGINT", "'version ' || x_n", "s, "),
        "late first version": "SELECT s, r, n - usual AS amount, 'begins with ' || n AS detail "
        f"FROM ({steps}), ({usual}) WHERE nth = 1 AND n > usual",
    }
    if written != "n, r":
        kinds["version goes back"] = (
            "SELECT s, r, before - n AS amount, n || ' after ' || before AS detail "
            f"FROM ({steps}) WHERE n < before"
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


def _of_times(log: Log) -> dict[str, str]:
    finer = log._ready().finer
    same, rows, at = "whole WHERE w = 0", "whole", "t"
    if finer is not None:
        rows, at = f"whole JOIN {picked(n=finer)} ON x_row = r", "(t, x_n)"
        before = f"lag({at}) OVER (PARTITION BY s ORDER BY v)"
        same = f"(SELECT s, r, {before} = {at} AS same FROM {rows}) WHERE same"
    kinds = {
        "same time as before": f"SELECT s, r, 1 AS amount, '' AS detail FROM {same}",
        "repeated event": "SELECT s, r, 1 AS amount, '' AS detail FROM (SELECT s, r, "
        f"row_number() OVER (PARTITION BY s, a, {at} ORDER BY v) AS nth FROM {rows}) WHERE nth > 1",
    }
    order = log._order()
    if order is not None:
        steps = (
            "SELECT s, r, t, lag(t) OVER (PARTITION BY s ORDER BY x_order, r) AS before "
            f"FROM whole JOIN {picked(order=order)} ON x_row = r"
        )
        kinds["clock runs backward"] = (
            "SELECT s, r, (epoch_us(before) - epoch_us(t)) / 1e6 AS amount, "
            f"'before ' || before AS detail FROM ({steps}) WHERE t < before"
        )
    events = len(log)
    if events <= _FEW:
        return kinds
    once = "(SELECT min(s) AS s, r, t FROM e GROUP BY r, t)" if log._shared else "e"
    pauses = (
        "SELECT s, r, t, lead(t) OVER (ORDER BY t, r) AS next, epoch_us(next) - epoch_us(t) AS pause "
        f"FROM {once}"
    )
    share = min(0.99, 1 - _RARE / events)
    kinds["sudden silence"] = (
        f"SELECT s, r, pause / 1e6 AS amount, 'until ' || next AS detail FROM ({pauses}) "
        f"WHERE pause > {_SILENT} * greatest((SELECT quantile_cont(pause, {share}) FROM ({pauses})), 1)"
    )
    return kinds


def _repeated(value: str, detail: str, within: str = "") -> str:
    facts = (
        f"SELECT s, r, x_n, dense_rank() OVER (PARTITION BY {within}x_n ORDER BY r) AS nth "
        f"FROM whole JOIN {picked(n=value)} ON x_row = r WHERE x_n IS NOT NULL"
    )
    return f"SELECT s, r, 1 AS amount, {detail} AS detail FROM ({facts}) WHERE nth > 1"
