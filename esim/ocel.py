"""OCEL 2.0 apart from its three file formats: from what a file says to Tables, and the other way.

A file names objects by ids that are unique across types; Tables name them by type and id. What a file
declares of its types (attributes and their kinds) is kept in the header.

References: OCEL 2.0 specification, ocel-standard.org.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from esim import display
from esim.arrowlog import (
    AS_WRITTEN,
    ATTRIBUTES,
    LINKS,
    RELATIONS,
    Gather,
    Narrow,
    Tables,
    Times,
    compute,
    database,
    key_of,
    nothing,
    numbered,
)
from esim.errors import InvalidLog
from esim.logtext import as_text, iso, kind_of, rows, spread
from esim.storefile import quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

KINDS = {"string": "string", "time": "date", "integer": "int", "float": "float", "boolean": "boolean"}
"""What OCEL calls the kinds of values, and what we do."""

NAMES = {kind: name for name, kind in KINDS.items()}
BEGINNING = "1970-01-01T00:00:00+00:00"
"""The time of an object's attributes that were so from the beginning."""

_OWN = {"event_id", "type", "time", "position"}
_PREFIX = "attribute:"
_ROLES = {"activity": "type", "time": "time", "order": "position", "event_id": "event_id"}
_ALWAYS = (("event_id", "string"), ("type", "string"), ("time", "date"))
_FEW = 3
Declared = dict[str, dict[str, str]]
"""The attributes of each type, and the kind of each in OCEL's words."""


class Reading:
    """Gathers what a file says, and gives it back as Tables."""

    def __init__(self, label: str, how: Times = AS_WRITTEN) -> None:
        """Begin with nothing; `label` names the file in messages, `how` times are read."""
        self._label = label
        self.event_types: Declared = {}
        self.object_types: Declared = {}
        self._events = Gather(label, ("time",), how)
        self._objects = Narrow(label, "object_id", "object_type")
        self._links = Narrow(label, "event_id", "object_id", "qualifier")
        self._attributes = Narrow(
            label, "object_id", "attribute", "value", "type", "time", timezone=how.timezone
        )
        self._relations = Narrow(label, "source_id", "target_id", "qualifier")

    def event(self, id: str, type: str, time: str, attributes: dict[tuple[str, str], str]) -> None:
        """Take an event; attributes are texts by name and kind (in OCEL's words)."""
        row = {("event_id", "string"): id, ("type", "string"): type, ("time", "date"): time}
        for (name, kind), value in attributes.items():
            if value or kind == "string":
                row[_column(name), KINDS.get(kind, "string")] = value
        self._events.add(row)

    def link(self, event_id: str, object_id: str, qualifier: str | None) -> None:
        """Take the fact that an event is about an object."""
        self._links.add(event_id, object_id, qualifier or None)

    def object(self, id: str, type: str) -> None:
        """Take an object."""
        self._objects.add(id, type)

    def attribute(self, object_id: str, name: str, value: str, kind: str, time: str | None) -> None:
        """Take what an attribute of an object was from a time on."""
        self._attributes.add(object_id, name, value, kind, time or None)

    def relation(self, source: str, target: str, qualifier: str | None) -> None:
        """Take the fact that an object is related to another."""
        self._relations.add(source, target, qualifier or None)

    def tables(self, order: list[int] | None = None) -> Tables:
        """Return all that was taken; `order` are places to sort the events by.

        Raises InvalidLog for ids that come twice, and for ids of objects that are not there.
        """
        events = self._events.table(_ALWAYS)
        if order is not None:
            import pyarrow as pa

            events = events.take(compute().sort_indices(pa.array(order, pa.int64())))
        objects = self._objects.table()
        parts = {"o": objects, "l": self._links.table(), "a": self._attributes.table()}
        parts |= {"r": self._relations.table(), "e": numbered(events)}
        header = {"format": "ocel", "event_types": self.event_types, "object_types": self.object_types}
        with database(**parts) as con:
            self._check(con)
            links, attributes, relations = (
                con.sql(sql).to_arrow_table() for sql in (_LINKED, _WITH_ATTRIBUTES, _RELATED)
            )
        related = relations if relations.num_rows else None
        return Tables(parts["e"], links, attributes, dict(_ROLES), related, header)

    def _check(self, con: duckdb.DuckDBPyConnection) -> None:
        """Refuse ids that come twice, and links to nowhere."""
        for told, way_out, sql in _FAULTS:
            found = [row[0] for row in con.execute(f"SELECT DISTINCT id FROM ({sql}) ORDER BY id").fetchall()]
            if found:
                few = ", ".join(map(display.short, found[:_FEW])) + (", …" if len(found) > _FEW else "")
                raise InvalidLog(f"{self._label}: {len(found):,} {told}: {few}; {way_out}")


_FAULTS = (
    (
        "event ids come twice",
        "give each event its own",
        "SELECT event_id AS id FROM e GROUP BY event_id HAVING count(*) > 1",
    ),
    (
        "object ids come twice",
        "give each object its own",
        "SELECT object_id AS id FROM o GROUP BY object_id HAVING count(*) > 1",
    ),
    (
        "objects are named, but not among the file's objects",
        "add them, or leave them out",
        """SELECT id FROM (
             SELECT object_id AS id FROM l UNION ALL SELECT object_id FROM a
             UNION ALL SELECT source_id FROM r UNION ALL SELECT target_id FROM r)
           ANTI JOIN o ON id = o.object_id""",
    ),
    (
        "events are named, but not among the file's events",
        "add them, or leave them out",
        "SELECT event_id AS id FROM l ANTI JOIN e USING (event_id)",
    ),
)
_LINKED = f"""
SELECT {", ".join(LINKS)} FROM (
  SELECT position, event_id, object_type, object_id, qualifier, min(n) AS n
  FROM (SELECT *, row_number() OVER () AS n FROM l) JOIN o USING (object_id)
  JOIN (SELECT event_id, position FROM e) USING (event_id)
  GROUP BY ALL)
ORDER BY position, n"""
_WITH_ATTRIBUTES = f"""
SELECT {", ".join(ATTRIBUTES)} FROM (
  SELECT object_type, object_id, attribute, value, type, time, n, a.m
  FROM (SELECT *, row_number() OVER () AS n FROM o)
  LEFT JOIN (SELECT *, row_number() OVER () AS m FROM a) AS a USING (object_id)
  WHERE a.m IS NOT NULL OR object_id NOT IN (SELECT object_id FROM l))
ORDER BY n, m"""
_RELATED = f"""
SELECT {", ".join(RELATIONS)} FROM (
  SELECT s.object_type AS source_type, source_id, t.object_type AS target_type, target_id, qualifier, n
  FROM (SELECT *, row_number() OVER () AS n FROM r)
  JOIN o AS s ON s.object_id = source_id JOIN o AS t ON t.object_id = target_id)
ORDER BY source_type, source_id, n"""


def _column(name: str) -> str:
    """Return the column of an event's attribute, which may be called like one of our own."""
    return f"{_PREFIX}{name}" if name in _OWN or name.startswith(_PREFIX) else name


class Object(NamedTuple):
    """An object on its way out; attributes are (name, value, kind, time), relations (id, qualifier)."""

    id: str
    type: str
    attributes: list[tuple[str, str, str, str]]
    relations: list[tuple[str, str]]


class Happening(NamedTuple):
    """An event on its way out; attributes are (name, value, kind), links (object id, qualifier)."""

    id: str
    type: str
    time: str
    attributes: list[tuple[str, str, str]]
    links: list[tuple[str, str]]


@dataclass
class Writing:
    """A log on its way out: its types, objects and events, as each of the formats spells them.

    A log without objects gets one of type `case` for each of its cases. Ids that objects of several types
    share are written as `type/id`; times of attributes that are not given are the beginning of 1970. An event
    is linked to an object once for each qualifier, however often it names it.
    """

    tables: Tables
    events: pa.Table = field(init=False)

    def __post_init__(self) -> None:
        """Spread payloads. Raises InvalidLog where events lack a type or a time, or ids come twice."""
        roles = self.tables.roles
        self.events = spread(self.tables.events, roles.get("data"))
        names = self.events.column_names
        self._id = (
            quoted(roles["event_id"]) + "::VARCHAR" if roles.get("event_id") in names else "'e' || esim_n"
        )
        self._type, self._time = (self._required(role, names) for role in ("activity", "time"))
        self._con = database(e=self.events)
        self._check()
        self._register()

    def _required(self, role: str, names: list[str]) -> str:
        name = self.tables.roles.get(role)
        if name not in names:
            raise InvalidLog(
                f"OCEL wants the {role} of each event: say which column it is in roles[{role!r}]"
            )
        return quoted(str(name))

    def _check(self) -> None:
        found = self._con.execute(
            f"""SELECT count(*) FILTER (coalesce({self._type}::VARCHAR, '') = ''),
                  count(*) FILTER ({self._time} IS NULL),
                  count(*) - count(DISTINCT {self._id}) FROM {_NUMBERED}"""
        ).fetchall()[0]
        for count, told in zip(found, ("no activity", "no time", "no id of their own"), strict=True):
            if count:
                raise InvalidLog(
                    f"{count:,} events have {told}, which OCEL wants of each: give it, or leave them out"
                )

    def _register(self) -> None:
        """Make the links, attributes and relations known, and the objects with one id for each."""
        given = self.tables
        links = given.objects if given.objects is not None else self._cases()
        parts = {"l": (links, LINKS), "a": (given.attributes, ATTRIBUTES), "r": (given.relations, RELATIONS)}
        for name, (table, columns) in parts.items():
            self._con.register(name, nothing(*columns) if table is None else table)
        self._con.register("o", self._con.sql(_OBJECTS).to_arrow_table())
        double = self._con.execute("SELECT id FROM o GROUP BY id HAVING count(*) > 1 ORDER BY id").fetchone()
        if double is not None:
            raise InvalidLog(f"{display.short(double[0])} would be the id of several objects: rename one")

    def _cases(self) -> pa.Table | None:
        case = self.tables.roles.get("case", "")
        if case not in self.events.column_names:
            return None
        return self._con.sql(
            f"""SELECT {self._id} AS event_id, 'case' AS object_type, {quoted(case)}::VARCHAR AS object_id,
                  NULL::VARCHAR AS qualifier
                FROM {_NUMBERED} WHERE {quoted(case)} IS NOT NULL"""
        ).to_arrow_table()

    @cached_property
    def _attributes(self) -> list[tuple[int, str, str]]:
        """The columns that are attributes: their place, name and kind."""
        used = {self.tables.roles.get(role) for role in ("event_id", "activity", "time")}
        order = self.tables.roles.get("order", "")
        return [
            (at, key_of(each).removeprefix(_PREFIX), NAMES.get(kind_of(each), "string"))
            for at, each in enumerate(self.events.schema)
            if each.name not in used and not (each.name == order and self._is_place(order))
        ]

    def _is_place(self, name: str) -> bool:
        sql = f"SELECT coalesce(bool_and({quoted(name)} = esim_n), true) FROM {_NUMBERED}"
        return bool(self._con.execute(sql).fetchall()[0][0])

    def event_types(self) -> Declared:
        """Return the attributes that events of each type have, or are declared to have."""
        found: Declared = {}
        counts = ", ".join(f"count({quoted(self.events.column_names[at])})" for at, _, _ in self._attributes)
        sql = f"SELECT {self._type}::VARCHAR{', ' if counts else ''}{counts} FROM e GROUP BY ALL ORDER BY 1"
        for type_, *given in self._con.execute(sql).fetchall():
            columns = zip(self._attributes, given, strict=True)
            found[type_] = {name: kind for (_, name, kind), count in columns if count}
        return self._declared("event_types", found)

    def object_types(self) -> Declared:
        """Return the attributes that objects of each type have, or are declared to have."""
        found: Declared = {}
        sql = """SELECT object_type, attribute,
                   CASE WHEN count(DISTINCT coalesce(type, 'string')) = 1 THEN max(type) END
                 FROM (SELECT object_type, attribute, type FROM a
                       UNION ALL SELECT object_type, NULL, NULL FROM o) GROUP BY ALL ORDER BY ALL"""
        for type_, name, kind in self._con.execute(sql).fetchall():
            found.setdefault(type_, {})
            if name is not None:
                found[type_][name] = kind or "string"
        return self._declared("object_types", found)

    def _declared(self, which: str, found: Declared) -> Declared:
        header = self.tables.header or {}
        said: Declared = header.get(which, {}) if header.get("format") == "ocel" else {}
        types = sorted({*said, *found})
        return {type_: {**said.get(type_, {}), **found.get(type_, {})} for type_ in types}

    def objects(self) -> Iterator[Object]:
        """Give all objects in the order in which they are met."""
        total = self._con.execute("SELECT count(*) FROM o").fetchall()[0][0]
        for id_, type_, attributes, relations in rows(self._con, _OUT_OBJECTS, "writing objects", total):
            yield Object(id_, type_, _pairs(attributes, 4), _pairs(relations, 2))

    def happenings(self) -> Iterator[Happening]:
        """Give all events in order."""
        texts = ", ".join(as_text(each.name, each) for each in self.events.schema)
        time = next(each for each in self.events.schema if quoted(each.name) == self._time)
        sql = f"""SELECT {self._id}, {self._type}::VARCHAR, {as_text(time.name, time)}, esim_links, {texts}
                  FROM {_NUMBERED} LEFT JOIN ({_OUT_LINKS}) AS k ON k.esim_id = {self._id} ORDER BY esim_n"""
        total = self.events.num_rows
        for id_, type_, moment, links, *cells in rows(self._con, sql, "writing events", total):
            attributes = [
                (name, cells[at], kind) for at, name, kind in self._attributes if cells[at] is not None
            ]
            yield Happening(id_, type_, moment, attributes, _pairs(links, 2))


_NUMBERED = "(SELECT *, row_number() OVER () AS esim_n FROM e)"
_OBJECTS = """
SELECT object_type, object_id,
  CASE WHEN count(*) OVER (PARTITION BY object_id) > 1 THEN object_type || '/' || object_id
    ELSE object_id END AS id,
  row_number() OVER (ORDER BY n) AS n
FROM (SELECT object_type, object_id, min(n) AS n FROM (
    SELECT object_type, object_id, row_number() OVER () AS n FROM a
    UNION ALL SELECT object_type, object_id, 1000000000000 + row_number() OVER () FROM l
    UNION ALL SELECT source_type, source_id, 2000000000000 + row_number() OVER () FROM r
    UNION ALL SELECT target_type, target_id, 3000000000000 + row_number() OVER () FROM r) GROUP BY ALL)"""
_OUT_OBJECTS = f"""
SELECT id, object_type, attributes, relations FROM o
LEFT JOIN (
  SELECT object_type, object_id, list({{'a': attribute, 'b': value, 'c': coalesce(type, 'string'),
    'd': coalesce({iso("time")}, '{BEGINNING}')}}
    ORDER BY m) AS attributes
  FROM (SELECT *, row_number() OVER () AS m FROM a) WHERE attribute IS NOT NULL AND value IS NOT NULL
  GROUP BY ALL) USING (object_type, object_id)
LEFT JOIN (
  SELECT source_type AS object_type, source_id AS object_id,
    list({{'a': t.id, 'b': coalesce(qualifier, '')}} ORDER BY m) AS relations
  FROM (SELECT *, row_number() OVER () AS m FROM r)
  JOIN o AS t ON t.object_type = target_type AND t.object_id = target_id
  GROUP BY ALL) USING (object_type, object_id)
ORDER BY n"""
_OUT_LINKS = """
SELECT event_id AS esim_id, list({'a': id, 'b': told} ORDER BY m) AS esim_links FROM (
  SELECT event_id::VARCHAR AS event_id, object_type, object_id, coalesce(qualifier, '') AS told, min(m) AS m
  FROM (SELECT *, row_number() OVER () AS m FROM l) GROUP BY ALL) JOIN o USING (object_type, object_id)
GROUP BY ALL"""


def _pairs(values: list[dict[str, str]] | None, width: int) -> list[Any]:
    return [tuple(value[name] for name in "abcd"[:width]) for value in values or ()]
