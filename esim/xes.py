"""XES (IEEE 1849), plain or gzipped: cases as traces of events, each with typed attributes.

A trace's attributes become columns `case:<key>`, an event's keep their key; what is nested below an attribute
is a column `<key>/attributes` of JSON, and lists are JSON as well. The file is parsed as it streams by. What
it says of itself (extensions, globals, classifiers, attributes of the log) is the header of its Tables.

References: IEEE 1849-2016, the XES standard; its extensions at xes-standard.org.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esim.logtable import (
    WINDOW,
    Gather,
    Key,
    Tables,
    ask,
    compute,
    database,
    distinct_names,
    key_of,
    numbered,
)
from esim.logtext import as_text, kind_of, rows, spread
from esim.storefile import quoted
from esim.xmlstream import XmlReader, escape

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_SIMPLE = frozenset({"string", "date", "int", "float", "boolean", "id"})
ATTRIBUTES = _SIMPLE | {"list", "container"}
_DEEPEST = 100
NESTED = "/attributes"
CASE, TRACE = "case:concept:name", "case:trace"
ROLES = {
    "case": CASE,
    "activity": "concept:name",
    "time": "time:timestamp",
    "order": "position",
    "lifecycle": "lifecycle:transition",
    "resource": "org:resource",
    "event_id": "identity:id",
}
_ALWAYS = ((CASE, "string"), ("concept:name", "string"), ("time:timestamp", "date"))
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
_PLACES = {
    "log": {""},
    "trace": {"log"},
    "event": {"log", "trace"},
    "global": {"log"},
    "extension": {"log"},
    "classifier": {"log"},
}
Node = dict[str, Any]
"""An attribute: key, kind, value (of no list or container), attributes (those below it)."""


def read(path: Path) -> Tables:
    """Return an XES log as Tables. Times without a zone are UTC.

    The role of the case is the trace's name; where traces have none, or share one, it is their number in the
    file, `case:trace`. Raises InvalidLog, with line and column, for what is no XES.
    """
    reader = XmlReader(path)
    log = _Reading(reader, path.name)
    reader.parse(log.start, log.end)
    return log.tables()


class _Reading:
    """What has been read of a log, and where in it the parser is.

    An attribute of an event or a trace goes into its row at once; only what has others below it, and what
    belongs to the log itself, is kept as a node until it ends.
    """

    def __init__(self, reader: XmlReader, label: str) -> None:
        self._reader = reader
        self._gather = Gather(label, ("time:timestamp",))
        self._traces = array("q")  # of each event, the number of its trace
        self._places = [""]
        self._row: dict[Key, str] | None = None  # of the event or trace that is open
        self._latest: Key = ("", "")
        self._depth, self._open = 0, list[Node]()
        self._trace: dict[Key, str] = {}
        self._number, self._begun = 0, False
        self._events: list[dict[Key, str]] = []
        self._nodes: list[Node] = []
        self._columns: dict[str, dict[str, dict[str, Key]]] = {
            place: {kind: {} for kind in ATTRIBUTES} for place in ("", *_PLACES)
        }
        self._keys = self._columns[""]
        self._given = 0
        self.header: dict[str, Any] = {
            "format": "xes",
            "attributes": [],
            "extensions": [],
            "globals": {},
            "classifiers": [],
            "empty_traces": [],
        }

    def start(self, tag: str, values: dict[str, str]) -> None:
        if tag in _SIMPLE:
            row = self._row
            if self._depth or row is None or "value" not in values or "key" not in values:
                self._begin_node(tag, values)
            else:
                key = self._latest = self._keys[tag].get(values["key"]) or self._key(tag, values["key"])
                if key in row:
                    self._twice(values["key"])
                row[key] = values["value"]
            self._depth += 1
        elif tag in ATTRIBUTES:
            self._begin_node(tag, values)
            self._depth += 1
        elif ":" in tag:
            self.start(tag.rpartition(":")[2], values)
        elif tag != "values":
            self._begin(tag, values)

    def end(self, tag: str) -> None:
        if tag in ATTRIBUTES:
            self._depth -= 1
            if self._open:
                self._end_node(self._open.pop())
        elif ":" in tag:
            self.end(tag.rpartition(":")[2])
        elif tag != "values":
            self._end(tag)

    def _key(self, kind: str, key: str) -> Key:
        """Return the column that an attribute goes into, and remember it."""
        if self._places[-1] == "trace":
            name = f"case:{key}"
        else:
            name = f"event:{key}" if key.startswith(("case:", "event:")) else key
        return self._keys[kind].setdefault(key, (name, kind))

    def _twice(self, key: str) -> None:
        self._reader.fail(f"the attribute {key!r} is here twice: keep one")

    def _begin_node(self, tag: str, values: dict[str, str]) -> None:
        if len(self._places) == 1:
            self._wrong_root(tag)
        if self._depth >= _DEEPEST:
            self._reader.fail(f"attributes are nested more than {_DEEPEST} deep")
        node: Node = {"key": self._reader.need(values, "key", tag), "kind": tag}
        if tag in _SIMPLE:
            node["value"] = self._reader.need(values, "value", f"{tag} key={node['key']!r}")
        if self._depth and not self._open:  # the one around it is in its row already
            self._open.append({"key": "", "kind": self._latest[1], "value": "", "of": self._latest})
        self._open.append(node)

    def _end_node(self, node: Node) -> None:
        if self._open:
            self._open[-1].setdefault("attributes", []).append(node)
        elif self._row is None:
            self._nodes.append(node)
        else:
            name, kind = node.get("of") or self._key(node["kind"], node["key"])
            below = json.dumps(node.get("attributes", []), ensure_ascii=False)
            key = (name + NESTED, "nested") if "of" in node else (name, kind)
            if key in self._row:
                self._twice(node["key"])
            self._row[key] = below

    def _wrong_root(self, tag: str) -> None:
        self._reader.fail(f"the first element is <{tag}>, and that of an XES file is <log>")

    def _begin(self, tag: str, values: dict[str, str]) -> None:
        here = self._places[-1]
        if here == "" and tag != "log":
            self._wrong_root(tag)
        if self._depth or here not in _PLACES.get(tag, ()):
            where = "an attribute" if self._depth else f"<{here}>"
            self._reader.fail(f"<{tag}> is no element that XES has inside {where}")
        if tag == "trace":
            self._trace, self._begun = {}, False
            self._number += 1
        elif tag == "global":
            self._nodes = self.header["globals"].setdefault(values.get("scope", "event"), [])
        elif tag in {"extension", "classifier"}:
            self.header[f"{tag}s"].append(dict(values))
        elif tag == "log":
            self.header["version"] = values.get("xes.version")
        self._enter([*self._places, tag])

    def _end(self, tag: str) -> None:
        row = self._row
        self._enter(self._places[:-1])
        if tag == "event" and row is not None:
            self._end_event(row)
        elif tag == "trace":
            self._end_trace()

    def _enter(self, places: list[str]) -> None:
        """Go to another element: its attributes go into the row of an event or trace, or to the header."""
        self._places, here = places, places[-1]
        self._row = {} if here == "event" else self._trace if here == "trace" else None
        self._keys = self._columns[here]
        if here in {"log", ""}:
            self._nodes = self.header["attributes"]

    def _end_event(self, row: dict[Key, str]) -> None:
        if self._places[-1] != "trace":
            self._gather.add(row)
            self._traces.append(0)
            return
        self._events.append(row)
        if len(self._events) >= WINDOW:
            self._hand_over()
            self._given = len(self._trace)

    def _end_trace(self) -> None:
        if self._begun and len(self._trace) != self._given:
            self._reader.fail(
                f"attributes of the trace come after more than {WINDOW:,} events of it: put them before these"
            )
        if not self._events and not self._begun:
            self.header["empty_traces"].append(_as_nodes(self._trace))
        self._hand_over()

    def _hand_over(self) -> None:
        for event in self._events:
            self._gather.add({**self._trace, **event})
            self._traces.append(self._number)
        self._events, self._begun = [], True

    def tables(self) -> Tables:
        events = numbered(self._gather.table(_ALWAYS))
        roles = {role: name for role, name in ROLES.items() if name in events.column_names}
        if self._needs_numbers(events):
            events = self._with_traces(events)
            roles["case"] = events.column_names[-1]
        if not events.num_rows or events.column("concept:name").null_count == events.num_rows:
            roles |= self._classified(events)
        return Tables(events, None, None, roles, None, {k: v for k, v in self.header.items() if v})

    def _needs_numbers(self, events: pa.Table) -> bool:
        """Say whether the traces' names do not tell one from the other."""
        import pyarrow as pa

        pair = pa.table({"name": events.column(CASE), "trace": _numbers(self._traces)})
        found = ask(
            """SELECT count(DISTINCT trace) <> count(DISTINCT name) OR bool_or(name IS NULL) AS needs
               FROM pair WHERE trace > 0""",
            pair=pair,
        )
        return bool(found.column("needs")[0].as_py())

    def _with_traces(self, events: pa.Table) -> pa.Table:
        import pyarrow as pa

        pc = compute()
        numbers = _numbers(self._traces)
        numbers = pc.if_else(pc.greater(numbers, 0), numbers, None)
        kind = pa.field(TRACE, pa.int64(), metadata={b"kind": b"trace"})
        return distinct_names(events.append_column(kind, numbers))

    def _classified(self, events: pa.Table) -> dict[str, str]:
        """Return the activity by the first classifier that is one column."""
        for each in self.header["classifiers"]:
            key = each.get("keys", "").strip("'\" ")
            if key in events.column_names:
                return {"activity": key}
        return {}


def _as_nodes(row: dict[Key, str]) -> list[Node]:
    """Return the attributes of a trace that has no row to keep them."""
    nodes = []
    for (name, kind), value in row.items():
        if kind != "nested":
            below = json.loads(row.get((name + NESTED, "nested"), "[]") if kind in _SIMPLE else value)
            node = {"key": name.removeprefix("case:"), "kind": kind}
            nodes.append(node | ({"value": value} if kind in _SIMPLE else {}) | {"attributes": below})
    return nodes


def _numbers(traces: array[int]) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(traces), [None, pa.py_buffer(traces)])


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
