"""A log as XES: which columns are attributes of traces, which of events, and the text of the file.

The lines are given one after the other, so that a log is never held as one text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esim.arrowlog import Tables, database, key_of
from esim.logtext import as_text, kind_of, rows, spread
from esim.storefile import quoted
from esim.xes import CASE, NESTED, ROLES, Node
from esim.xmlstream import escape

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_EXTENSIONS = {
    "concept": "Concept",
    "time": "Time",
    "lifecycle": "Lifecycle",
    "org": "Organizational",
    "identity": "ID",
    "cost": "Cost",
}
_SITE = "http://www.xes-standard.org"
_DEEP = "\t\t"


@dataclass(frozen=True)
class _Column:
    """A column on its way out: its place in a row, its key in the file and the kind of its values."""

    at: int
    key: str
    kind: str
    nested: int | None = None

    def lines(self, row: Sequence[Any], indent: str) -> str:
        """Return the cell of a row as an element; nothing where there is no value."""
        value = row[self.at]
        if value is None:
            return ""
        if self.kind in {"list", "container"}:
            node = {"key": self.key, "kind": self.kind, "attributes": json.loads(value)}
        elif self.nested is None or row[self.nested] is None:
            return f'{indent}<{self.kind} key="{escape(self.key)}" value="{escape(value)}"/>\n'
        else:
            below = json.loads(row[self.nested])
            node = {"key": self.key, "kind": self.kind, "value": value, "attributes": below}
        return _element(node, indent)


def written(tables: Tables) -> Iterator[str]:
    """Give a log as the text of an XES file: cases in order of their first event, events in their order.

    Columns `case:<key>` that are the same in all events of each case are attributes of the trace. The members
    of JSON payloads become attributes. Raises InvalidLog for a text that XML cannot hold.
    """
    events = spread(tables.events, tables.roles.get("data"))
    header = tables.header or {}
    header = header if header.get("format") == "xes" else {}
    with database(e=events) as con:
        plan = _Plan(con, events, tables.roles)
        yield from _head(header, plan)
        yield from plan.body(events.num_rows)
    for nodes in header.get("empty_traces", ()):
        yield f"\t<trace>\n{''.join(_element(node, _DEEP) for node in nodes)}\t</trace>\n"
    yield "</log>\n"


class _Plan:
    """Which columns go where, and in which order the events."""

    def __init__(self, con: duckdb.DuckDBPyConnection, events: pa.Table, roles: dict[str, str]) -> None:
        self._con, self._fields = con, list(events.schema)
        names = {field.name for field in self._fields}
        self._case = quoted(roles["case"]) if roles.get("case") in names else "NULL"
        order = roles.get("order", "")
        self._order = f"{quoted(order)}, esim_n" if order in names else "esim_n"
        said = {name: ROLES[role] for role, name in roles.items() if role in ROLES and role != "order"}
        below = {key_of(each): at for at, each in enumerate(self._fields) if kind_of(each) == "nested"}
        self.trace: list[_Column] = []
        self.event: list[_Column] = []
        numbers = {each.name for each in self._fields if kind_of(each) == "trace"}
        taken = {said[name] for name in names & set(said) - numbers}
        for at, field in enumerate(self._fields):
            if kind_of(field) in {"nested", "trace"} or (field.name == order and self._is_place(field.name)):
                continue
            key = said.get(field.name) or _free(key_of(field), taken)
            of_trace = key == CASE or (key.startswith("case:") and self._is_constant(field.name))
            column = _Column(at, _bare(key, of_trace), kind_of(field), below.get(f"{key_of(field)}{NESTED}"))
            (self.trace if of_trace else self.event).append(column)

    def _sorted(self) -> str:
        first = f"min(esim_n) OVER (PARTITION BY {self._case}) AS esim_first"
        inner = f"SELECT *, {first} FROM (SELECT *, row_number() OVER () AS esim_n FROM e)"
        return f"FROM ({inner}) ORDER BY {self._case} IS NULL, esim_first, {self._order}"

    def _is_place(self, name: str) -> bool:
        """Say whether a column only tells the place in the file."""
        ranked = f"SELECT {quoted(name)} AS p, row_number() OVER () AS r FROM (SELECT * {self._sorted()})"
        found = self._con.execute(f"SELECT coalesce(bool_and(p = r), true) FROM ({ranked})").fetchall()
        return bool(found[0][0])

    def _is_constant(self, name: str) -> bool:
        """Say whether a column has one value, or none, in each case, and none outside of cases."""
        column = quoted(name)
        one = f"count(DISTINCT {column}) <= 1 AND count({column}) IN (0, count(*))"
        good = f"{one} AND ({self._case} IS NOT NULL OR count({column}) = 0)"
        query = f"SELECT {good} AS x FROM e GROUP BY {self._case}"
        found = self._con.execute(f"SELECT coalesce(bool_and(x), true) FROM ({query})").fetchall()
        return bool(found[0][0]) and self._case != "NULL"

    def body(self, total: int) -> Iterator[str]:
        texts = ", ".join(as_text(field.name, field) for field in self._fields)
        sql = f"SELECT {texts}, ({self._case})::VARCHAR {self._sorted()}"
        open_ = None
        for row in rows(self._con, sql, "writing XES", total):
            case = row[-1]
            if case != open_:
                yield "\t</trace>\n" if open_ is not None else ""
                if case is not None:
                    yield "\t<trace>\n" + "".join(column.lines(row, _DEEP) for column in self.trace)
                open_ = case
            outer = _DEEP if case is not None else "\t"
            inner = "".join([column.lines(row, outer + "\t") for column in self.event])
            yield f"{outer}<event>\n{inner}{outer}</event>\n"
        yield "\t</trace>\n" if open_ is not None else ""


def _free(key: str, taken: set[str]) -> str:
    """Return a key that is not taken, and take it."""
    while key in taken:
        key += "_2"
    taken.add(key)
    return key


def _bare(key: str, of_trace: bool) -> str:  # noqa: FBT001 - one of the two prefixes
    if of_trace:
        return key.removeprefix("case:")
    return key.removeprefix("event:") if key.startswith(("event:case:", "event:event:")) else key


def _head(header: dict[str, Any], plan: _Plan) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    version = escape(str(header.get("version", "1849-2016")))
    yield f'<log xes.version="{version}" xes.features="nested-attributes" xmlns="{_SITE}/">\n'
    known = {each.get("prefix"): each for each in header.get("extensions", ())}
    for prefix in sorted({each.key.partition(":")[0] for each in [*plan.trace, *plan.event]}):
        if prefix in _EXTENSIONS:
            uri = f"{_SITE}/{prefix}.xesext"
            known.setdefault(prefix, {"name": _EXTENSIONS[prefix], "prefix": prefix, "uri": uri})
    yield from (f"\t<extension{_attributes(each)}/>\n" for each in known.values())
    for scope, nodes in header.get("globals", {}).items():
        inner = "".join(_element(node, _DEEP) for node in nodes)
        yield f'\t<global scope="{escape(scope)}">\n{inner}\t</global>\n'
    yield from (f"\t<classifier{_attributes(each)}/>\n" for each in header.get("classifiers", ()))
    yield from (_element(node, "\t") for node in header.get("attributes", ()))


def _attributes(values: dict[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items())


def _element(node: Node, indent: str) -> str:
    """Return an attribute with all that is below it."""
    kind = node["kind"]
    value = f' value="{escape(node["value"])}"' if "value" in node else ""
    inner = "".join(_element(each, indent + "\t") for each in node.get("attributes", ()))
    if kind == "list":
        inner = f"{indent}\t<values>\n{inner}{indent}\t</values>\n"
    key = escape(node["key"])
    if not inner:
        return f'{indent}<{kind} key="{key}"{value}/>\n'
    return f'{indent}<{kind} key="{key}"{value}>\n{inner}{indent}</{kind}>\n'
