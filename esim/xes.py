"""XES (IEEE 1849), plain or gzipped: cases as traces of events, each with typed attributes.

A trace's attributes become columns `case:<key>`, an event's keep their key; what is nested below an attribute
is a column `<key>/attributes` of JSON, and lists are JSON as well. The file is parsed as it streams by. What
it says of itself (extensions, globals, classifiers, attributes of the log) is the header of its Tables.

References: IEEE 1849-2016, the XES standard; its extensions at xes-standard.org.
"""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esim.arrowlog import (
    AS_WRITTEN,
    WINDOW,
    Gather,
    Key,
    Tables,
    Times,
    ask,
    compute,
    distinct_names,
    numbered,
)
from esim.xmlstream import XmlReader

if TYPE_CHECKING:
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


def read(path: Path, how: Times = AS_WRITTEN) -> Tables:
    """Return an XES log as Tables. Times without a zone are of `how.timezone`.

    The role of the case is the trace's name; where traces have none, or share one, it is their number in the
    file, `case:trace`. Raises InvalidLog, with line and column, for what is no XES.
    """
    reader = XmlReader(path)
    log = _Reading(reader, path.name, how)
    reader.parse(log.start, log.end)
    return log.tables()


class _Reading:
    """What has been read of a log, and where in it the parser is.

    An attribute of an event or a trace goes into its row at once; only what has others below it, and what
    belongs to the log itself, is kept as a node until it ends.
    """

    def __init__(self, reader: XmlReader, label: str, how: Times) -> None:
        self._reader = reader
        self._gather = Gather(label, ("time:timestamp",), how)
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
