"""Payloads over time: which fields an activity carries, of which type, and when that changes.

The fields are those of the JSON payload, where a column has that role, else the other columns of the source.
"""

from __future__ import annotations

from esim import display, logpicture
from esim.errors import InvalidArgument
from esim.logcore import Log
from esim.logfilter import is_number
from esim.logsource import picked
from esim.logtime import check_period
from esim.result import Result
from esim.storefile import literal, quoted

PAYLOADS = {
    "activity": "what happened",
    "field": "a field of its payload",
    "period": "when the period begins, UTC; periods without such an event are left out",
    "events": "how many such events are in it",
    "present": "how many of them have the field, with a value",
    "share": "that as a part of them",
    "types": "the types of its values",
    "distinct": "how many different values there are, about",
    "median": "the median of those that are numbers; texts are, if all of the field are written as numbers, "
    "and some with a fraction, as Decimals are",
    "common": "the commonest value, as text",
    "change": "appears, vanishes, another type, or shifts: the median is outside of what was usual before; "
    "of texts, the share of a commonest value differs by a fifth, and by more than chance",
}
_NUMBER = "-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?"  # as a text: no 007, no 08001
_JSON_NUMBERS = ("BIGINT", "HUGEINT", "DOUBLE")
_SHIFT = 0.2  # of the values of a text
_CHANCE = 1.5  # times the root of 1/n + 1/m: three standard errors of the difference of two shares of a half


def payloads(log: Log, every: str) -> Result:
    """Return the profile of each field of each activity in each period, and what changes."""
    check_period(every)
    types = {*_JSON_NUMBERS, *filter(is_number, log.mapping.types.values())}
    of_number = f"kind IN ({', '.join(map(literal, sorted(types)))})"
    sql = f"""WITH told AS MATERIALIZED ({all_fields(log, every)}),
happened AS (SELECT a, date_trunc('{every}', t)::TIMESTAMP AS period, count(*) AS events
    FROM ({log._once}) GROUP BY ALL),
grid AS (SELECT a, field, period, events FROM (SELECT DISTINCT a, field FROM told) JOIN happened USING (a)),
counted AS (SELECT a, field, period, value, count(*) AS n FROM told GROUP BY ALL),
top AS (SELECT a, field, period, arg_min(value, (-n, value)) AS common, max(n) AS most
    FROM counted GROUP BY a, field, period),
fields AS (SELECT a, field, bool_and({of_number} OR regexp_full_match(value, '{_NUMBER}'))
        AND bool_or({of_number} OR contains(value, '.')) AS numeric
    FROM told GROUP BY a, field),
seen AS (SELECT a, field, period, numeric, count(*) AS present,
        list_sort(list(DISTINCT kind)) AS types, approx_count_distinct(value) AS "distinct",
        quantile_cont(try_cast(value AS DOUBLE), [0.01, 0.5, 0.99]) FILTER (numeric OR {of_number}) AS q
    FROM told JOIN fields USING (a, field) GROUP BY a, field, period, numeric),
filled AS (SELECT a, field, period, events, coalesce(present, 0) AS present, types, numeric, "distinct", q,
        common, most
    FROM grid LEFT JOIN seen USING (a, field, period) LEFT JOIN top USING (a, field, period)),
before AS (SELECT *, lag(present) OVER each AS had, lag(types) OVER each AS were, lag(q) OVER each AS q0,
        lag(period) OVER each AS period0, lag(common) OVER each AS common0, lag(most) OVER each AS most0
    FROM filled WINDOW each AS (PARTITION BY a, field ORDER BY period)),
compared AS (SELECT b.*, abs(most / present - coalesce(x.n, 0) / had) AS risen,
        abs(most0 / had - coalesce(y.n, 0) / present) AS fallen
    FROM before b
    LEFT JOIN counted x ON (x.a, x.field, x.period, x.value) = (b.a, b.field, period0, common)
    LEFT JOIN counted y ON (y.a, y.field, y.period, y.value) = (b.a, b.field, b.period, common0))
SELECT activity, field, period AT TIME ZONE 'UTC' AS period, events, present, present / events AS share,
    array_to_string(types, ', ') AS types, "distinct", q[2] AS median, common,
    CASE WHEN present > 0 AND had = 0 THEN 'appears'
         WHEN present = 0 AND had > 0 THEN 'vanishes'
         WHEN types <> were THEN array_to_string(were, ', ') || ' → ' || array_to_string(types, ', ')
         WHEN q[2] < q0[1] OR q[2] > q0[3] THEN 'shifts'
         WHEN NOT numeric AND greatest(risen, fallen)
             > greatest({_SHIFT}, {_CHANCE} * sqrt(1 / present + 1 / had)) THEN 'shifts'
         ELSE '' END AS change
FROM compared JOIN activities USING (a) ORDER BY activity, field, period"""
    return log.ask(f"Payloads every {every}", sql, PAYLOADS, draw=logpicture.payloads)


def is_json(log: Log, data: str) -> bool:
    """Say whether payloads are JSON text; else they are structs, in which every event has every field."""
    return log.mapping.types[data] in ("JSON", "VARCHAR")


def all_fields(log: Log, every: str, *, nulls: bool = False) -> str:
    """Return the SELECT of all values: a, period, field, kind, value.

    With `nulls` also of those that are null in JSON; what is missing in a struct is no field of its event.
    """
    data = log.mapping.get("data")
    period = f"date_trunc('{every}', t)::TIMESTAMP AS period"
    if data is None:
        used = set(log.mapping.columns.values())
        others = [(name, kind) for name, kind in log.mapping.types.items() if name not in used]
        parts = [
            f"SELECT a, {period}, {literal(name)} AS field, {literal(kind)} AS kind, x_value AS value "
            f"FROM ({log._once}) JOIN {picked(value=quoted(name) + '::VARCHAR')} ON x_row = r "
            "WHERE x_value IS NOT NULL"
            for name, kind in others
        ]
        empty = f"SELECT a, {period}, '' AS field, '' AS kind, '' AS value FROM e WHERE false"
        return " UNION ALL ".join(parts) or empty
    is_text = is_json(log, data)
    if is_text:
        _refuse_other_texts(log, data)
    text = f"{quoted(data)}::JSON" if is_text else f"to_json({quoted(data)})"
    keys = f"(SELECT a, {period}, x_data AS data, json_keys(x_data) AS keys FROM ({log._once}) JOIN "
    rows = f"{keys}{picked(data=text)} ON x_row = r)"
    each = "unnest(keys) AS field, generate_subscripts(keys, 1) AS place"
    keyed = (
        f"SELECT * FROM (SELECT *, {each} FROM {rows}) WHERE list_position(keys, field) = place"  # not twice
    )
    path = "'/' || replace(replace(field, '~', '~0'), '/', '~1')"  # a pointer; a path has no empty name
    found = f"SELECT a, period, field, json_extract(data, {path}) AS found FROM ({keyed})"
    kind = "CASE json_type(found) WHEN 'UBIGINT' THEN 'BIGINT' ELSE json_type(found) END"
    every_value = f"SELECT a, period, field, {kind} AS kind, found ->> '$' AS value FROM ({found})"
    return every_value if nulls and is_text else f"{every_value} WHERE json_type(found) <> 'NULL'"


def _refuse_other_texts(log: Log, data: str) -> None:
    """Raise InvalidArgument where a column that is taken for payloads has texts that are no JSON."""
    name = quoted(data)
    query = f"SELECT count(*), min({name}::VARCHAR) FROM source WHERE NOT json_valid({name}::VARCHAR)"
    count, example = log.rows(query)[0]
    if count:
        raise InvalidArgument(
            f"{data!r} is taken for payloads, and {count:,} of its values are no JSON, as "
            f"{display.short(example, 40)}: if it is another column, say so, EventLog(…, data='')"
        )
