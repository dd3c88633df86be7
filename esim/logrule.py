"""Conformance: which cases keep to declared transitions or to rules, and where the others do not.

Transitions are pairs of activities; `None` before an activity allows it as the first of a case, and after one
as the last. A `Rule` is a sentence in given/when/then: when something happens (in cases where something else
was given), then something must follow, must not follow, or must have come before. Within a time
that is not over when the log ends, what has not happened may still happen: neither kept nor broken, but open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from esim import display, logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logfilter import Span, is_seconds, microseconds
from esim.logsource import picked
from esim.result import Result
from esim.storefile import literal

Transition: TypeAlias = "tuple[str | None, str | None]"

CONFORMANCE = {
    "source": "an activity; missing: the beginning of a case",
    "target": "the one directly after it; missing: the end of a case",
    "declared": "whether the transition is declared",
    "count": "how often it was taken",
    "cases": "in how many cases",
    "example": "a case that takes it",
}
DEVIATIONS = {
    "case": "the case",
    "v": "the place of the event in its case, from 1; one past the last for what is missing at the end",
    "time": "when, UTC",
    "activity": "what happened",
    "deviation": "what is wrong with it",
}
RULES = {
    "rule": "the rule as a sentence",
    "asked": "how often it applied",
    "kept": "how often it was kept",
    "broken": "how often it was not",
    "open": "how often its time was not over when the log ends",
    "share": "the kept part of what is kept or broken; missing where there is neither",
    "cases": "in how many cases it was broken",
    "example": "a case that breaks it",
}


@dataclass(frozen=True)
class Rule:
    """When `when` happens, in cases where all of `given` happened before, something must be so.

    `then` must follow, `never` must not, `before` must have come before; each `within` a time, if given: a
    timedelta, a number of seconds, or text with its unit.

    >>> Rule("Cancelled", given="Paid", then="Refunded", within="14 days")
    Rule: given Paid, when Cancelled, then Refunded within 14 days
    """

    when: str
    given: str | Sequence[str] = ()
    then: str | None = None
    never: str | None = None
    before: str | None = None
    within: Span | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.then, self.never, self.before)) != 1:
            raise InvalidArgument("a rule says one thing: give one of then='…', never='…', before='…'")
        for one in (self.when, *self.facts, self.other):
            if not isinstance(one, str):
                raise InvalidArgument(f"{display.short(one)} is no activity: give the name of one")
        if self.within is not None:
            microseconds(self.within)

    @property
    def facts(self) -> tuple[str, ...]:
        """What must have happened for the rule to apply."""
        return (self.given,) if isinstance(self.given, str) else tuple(self.given)

    @property
    def other(self) -> str:
        """The activity that must follow, must not, or must have come before."""
        return next(one for one in (self.then, self.never, self.before) if one is not None)

    def __str__(self) -> str:
        given = f"given {', '.join(map(_name, self.facts))}, " if self.facts else ""
        other = _name(self.other)
        must = f"{other} came before" if self.before is not None else other
        never = "never " if self.never is not None else ""
        near = "" if self.within is None else f" within {_span(self.within)}"
        return f"{given}when {_name(self.when)}, then {never}{must}{near}"

    def __repr__(self) -> str:
        return f"Rule: {self}"


def _name(activity: str) -> str:
    return activity or "''"


def _span(within: Span) -> str:
    return f"{within:.15g} s" if is_seconds(within) else str(within)


Declared: TypeAlias = "Iterable[Transition] | Rule | Iterable[Rule]"


def conformance(log: Log, declared: Declared, columns: tuple[str, str] | None, *, repeats: bool) -> Result:
    """Return every transition taken and whether it is declared, or every rule and how often it is kept."""
    rules, pairs = _sorted_out(declared)
    if rules:
        return _kept(log, rules)
    every = _taken(log, pairs, columns)
    taken = every if repeats else f"SELECT * FROM ({every}) WHERE {_NO_REPEAT}"
    sql = f"""WITH taken AS ({taken})
SELECT source, target, {_is_declared(pairs)} AS declared, count(*) AS "count", count(DISTINCT s) AS cases,
    min("case") AS example
FROM taken JOIN cases USING (s) GROUP BY source, target ORDER BY "count" DESC, source, target"""
    query = f"""SELECT count(*), count(*) FILTER (declared), count(DISTINCT s) FILTER (NOT declared)
FROM (SELECT s, {_is_declared(pairs)} AS declared FROM ({taken}))"""
    total, kept, cases = log.rows(query)[0]
    told = f"{kept:,} of {total:,} transitions are declared; {cases:,} cases deviate"
    if not repeats:
        left = log.rows(f"SELECT count(*) FROM ({every}) WHERE source = target")[0][0]
        told += f"; {left:,} from an activity to itself are left out (repeats=False)"
    return log.ask(
        "Conformance with declared transitions", sql, CONFORMANCE, (told,), draw=logpicture.transitions
    )


def deviations(log: Log, declared: Declared, columns: tuple[str, str] | None, *, repeats: bool) -> Result:
    """Return every event that deviates from declared transitions or rules, by case."""
    rules, pairs = _sorted_out(declared)
    if rules:
        broken = "\nUNION ALL ".join(
            f"SELECT s, v, t, when_ AS a, {literal(str(rule))} AS deviation "
            f"FROM ({_asked(log, rule)}) WHERE NOT kept"
            for rule in rules
        )
    else:
        arrow = "coalesce(source, '(begin)') || ' → ' || coalesce(target, '(end)')"
        broken = (
            f"SELECT s, v, t, a, {arrow} || ' is not declared' AS deviation "
            f"FROM ({_taken(log, pairs, columns)}) WHERE NOT {_is_declared(pairs)}"
            f"{'' if repeats else f' AND {_NO_REPEAT}'}"
        )
    sql = f"""SELECT "case", v, t AT TIME ZONE 'UTC' AS time, activity, deviation
FROM ({broken}) JOIN cases USING (s) JOIN activities USING (a) ORDER BY s, v, deviation"""
    return log.ask("Deviations", sql, DEVIATIONS, draw=logpicture.deviations("deviation"))


def _sorted_out(declared: Any) -> tuple[list[Rule], list[Transition]]:
    """Return rules and transitions; one of both is empty. Raises InvalidArgument for anything else."""
    given = [declared] if isinstance(declared, Rule) else list(declared) if _is_many(declared) else []
    if given and all(isinstance(one, Rule) for one in given):
        return given, []
    pairs = [tuple(one) for one in given if isinstance(one, tuple | list)]
    if given and [len(pair) for pair in pairs] == [2] * len(given):
        return [], [(x, y) for x, y in pairs]
    raise InvalidArgument(
        f"{display.short(declared)} declares nothing: give pairs of activities, as [('Placed', 'Paid')], "
        "or Rules"
    )


def _is_many(declared: object) -> bool:
    return isinstance(declared, Iterable) and not isinstance(declared, str | bytes)


# --- transitions -------------------------------------------------------------------------------------------


_NO_REPEAT = "source IS DISTINCT FROM target"


def _taken(log: Log, pairs: Sequence[Transition], columns: tuple[str, str] | None) -> str:
    """Return the SELECT of the transitions that cases take: s, v, t, a, source, target.

    Beginnings and ends count if pairs do.
    """
    if columns is not None:
        _must_be_two(columns)
        source, target = (log._expression(one) for one in columns)
        facts = picked(source=f"({source}\n)::VARCHAR", target=f"({target}\n)::VARCHAR")
        return (
            f"SELECT s, v, t, a, x_source AS source, x_target AS target FROM e JOIN {facts} ON x_row = r "
            "WHERE x_source IS NOT NULL AND x_target IS NOT NULL"
        )
    steps = "SELECT s, v, t, e.a AS a, x.activity AS source, y.activity AS target FROM e "
    parts = [steps + "JOIN activities x ON x.a = e.p JOIN activities y ON y.a = e.a"]
    if any(x is None for x, _ in pairs):
        parts.append("SELECT s, v, t, a, NULL, activity FROM e JOIN activities USING (a) WHERE p IS NULL")
    if any(y is None for _, y in pairs):
        last = "SELECT s, max(v) + 1 AS v, max_by(t, v) AS t, max_by(a, v) AS a FROM e GROUP BY s"
        parts.append(f"SELECT s, v, t, a, activity, NULL FROM ({last}) JOIN activities USING (a)")
    return " UNION ALL ".join(parts)


def _must_be_two(columns: object) -> None:
    """Raise InvalidArgument unless columns are two expressions."""
    if (
        not isinstance(columns, tuple | list)
        or len(columns) != 2  # noqa: PLR2004 - from one to the other
        or not all(isinstance(one, str) for one in columns)
    ):
        raise InvalidArgument(
            f"columns={display.short(columns)}: give two SQL expressions, of the state before and of the one "
            "after, as ('old', 'new')"
        )


def _is_declared(pairs: Sequence[Transition]) -> str:
    """Return the SQL test of a transition."""
    tests = [
        f"(source {'IS NULL' if x is None else f'= {literal(str(x))}'} "
        f"AND target {'IS NULL' if y is None else f'= {literal(str(y))}'})"
        for x, y in dict.fromkeys(pairs)
    ]
    return f"coalesce({' OR '.join(tests)}, false)"


# --- rules -------------------------------------------------------------------------------------------------


def _kept(log: Log, rules: Sequence[Rule]) -> Result:
    told = "\nUNION ALL ".join(
        f"SELECT {n} AS n, {literal(str(rule))} AS rule, count(*) AS asked, count(*) FILTER (kept) AS kept, "
        "count(*) FILTER (NOT kept) AS broken, count(*) FILTER (kept IS NULL) AS open, "
        "count(DISTINCT s) FILTER (NOT kept) AS cases, min(s) FILTER (NOT kept) AS one "
        f"FROM ({_asked(log, rule)})"
        for n, rule in enumerate(rules)
    )
    sql = f"""SELECT rule, asked, kept, broken, open, kept / nullif(kept + broken, 0) AS share, told.cases,
    names."case" AS example
FROM ({told}) AS told LEFT JOIN cases names ON names.s = one ORDER BY n"""
    return log.ask(
        "Conformance with rules", sql, RULES, draw=logpicture.bars("rule", "broken", "times broken")
    )


def _asked(log: Log, rule: Rule) -> str:
    """Return the SELECT of the events a rule applies to, and whether it is kept: s, v, t, when_, kept.

    That is NULL where the rule's time was not over when the log ends.
    """
    when, *facts = log._codes(rule.when, *rule.facts)
    wanted = log._codes(rule.other)[0]
    earlier = " AND ".join(
        [f"x.a = {when}", *(f"EXISTS (FROM e y WHERE y.s = x.s AND y.v < x.v AND y.a = {a})" for a in facts)]
    )
    side = "<" if rule.before is not None else ">"
    near = (
        ""
        if rule.within is None
        else f" AND abs(epoch_us(y.t) - epoch_us(x.t)) <= {microseconds(rule.within)}"
    )
    found = f"EXISTS (FROM e y WHERE y.s = x.s AND y.v {side} x.v AND y.a = {wanted}{near})"
    test = f"NOT {found}" if rule.never is not None else found
    if rule.within is not None and rule.before is None:
        over = f"epoch_us({log._end}) - epoch_us(x.t) >= {microseconds(rule.within)}"
        test = f"CASE WHEN {found} OR {over} THEN {test} END"
    return f"SELECT s, v, t, a AS when_, {test} AS kept FROM e x WHERE {earlier}"
