"""OCEL 2.0 as XML: types, objects and events as elements, parsed as they stream by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from esim.arrowlog import AS_WRITTEN, Tables, Times
from esim.ocel import Declared, Reading, Writing
from esim.xmlstream import XmlReader, escape

_SECTIONS = ("object-types", "event-types", "objects", "events")


def read(path: Path, how: Times = AS_WRITTEN) -> Tables:
    """Return an OCEL 2.0 log as Tables. Times without a zone are of `how.timezone`.

    Raises InvalidLog, with line and column, for what is no OCEL 2.0.
    """
    reader = XmlReader(path)
    log = _Reading(reader, path.name, how)
    reader.parse(log.start, log.end, log.text)
    return log.reading.tables()


class _Reading:
    """What has been read, and the elements that are open."""

    def __init__(self, reader: XmlReader, label: str, how: Times) -> None:
        self._reader = reader
        self.reading = Reading(label, how)
        self._path: list[str] = []
        self._type: dict[str, str] = {}
        self._of: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._attributes: dict[tuple[str, str], str] = {}
        self._links: list[tuple[str, str | None]] = []
        self._text: list[str] | None = None
        self._met: set[str] = set()

    def start(self, name: str, values: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        self._path.append(tag)
        depth = len(self._path)
        if depth == 1 and tag != "log":
            self._reader.fail(f"the first element is <{tag}>, and that of an OCEL file is <log>")
        elif depth == 2:  # noqa: PLR2004 - log, section, entry, list, member
            self._met.add(tag)
        elif depth == 3:  # noqa: PLR2004
            self._begin(tag, values)
        elif depth == 5:  # noqa: PLR2004
            self._member(tag, values)
        elif depth > 5:  # noqa: PLR2004
            self._reader.fail(f"<{tag}> is no element that OCEL has inside <{self._path[-2]}>")

    def _begin(self, tag: str, values: dict[str, str]) -> None:
        section = self._path[1]
        if section not in _SECTIONS or tag != section[:-1]:
            self._reader.fail(f"<{tag}> is no element that OCEL has inside <{section}>")
        if section.endswith("-types"):
            self._type = self._types(section).setdefault(self._need(values, "name", tag), {})
            return
        told = f"{tag} id={self._need(values, 'id', tag)!r}"
        for name in ("type", "time") if tag == "event" else ("type",):
            self._need(values, name, told)
        self._of, self._attributes, self._links = values, {}, []
        if tag == "object":
            self.reading.object(values["id"], values["type"])

    def _types(self, section: str) -> Declared:
        return self.reading.event_types if section == "event-types" else self.reading.object_types

    def _need(self, values: dict[str, str], name: str, tag: str) -> str:
        found = self._reader.need(values, name, tag)
        return found or self._reader.fail(f"<{tag}> has an empty {name!r}")

    def _member(self, tag: str, values: dict[str, str]) -> None:
        section, where = self._path[1], self._path[3]
        if where == "attributes" and tag == "attribute":
            self._need(values, "name", tag)
            if section.endswith("-types"):
                self._type[values["name"]] = values.get("type", "string")
            else:
                self._values, self._text = values, []
        elif where in {"objects", "relationships"} and tag in {"relationship", "object", "relobj"}:
            self._links.append((self._need(values, "object-id", tag), values.get("qualifier")))
        else:
            self._reader.fail(f"<{tag}> is no element that OCEL has inside <{where}>")

    def text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, name: str) -> None:
        tag = name.rpartition(":")[2]
        depth = len(self._path)
        if depth == 5 and self._text is not None:  # noqa: PLR2004
            self._take("".join(self._text))
            self._text = None
        elif depth == 3 and tag == "event":  # noqa: PLR2004
            event = self._of
            self.reading.event(event["id"], event["type"], event["time"], self._attributes)
            for object_id, qualifier in self._links:
                self.reading.link(event["id"], object_id, qualifier)
        elif depth == 3 and tag == "object":  # noqa: PLR2004
            for target, qualifier in self._links:
                self.reading.relation(self._of["id"], target, qualifier)
        elif depth == 1 and not self._met & set(_SECTIONS):
            self._reader.fail(
                f"an OCEL 2.0 log has {', '.join(f'<{name}>' for name in _SECTIONS)}; none is here"
            )
        self._path.pop()

    def _take(self, value: str) -> None:
        name, of = self._values["name"], self._of
        section = "event-types" if self._path[1] == "events" else "object-types"
        kind = self._types(section).get(of["type"], {}).get(name, "string")
        if section == "object-types":
            self.reading.attribute(of["id"], name, value, kind, self._values.get("time"))
            return
        if any(name == given for given, _ in self._attributes):
            self._reader.fail(f"event {of['id']!r} has the attribute {name!r} twice: keep one")
        self._attributes[name, kind] = value


def written(tables: Tables) -> Iterator[str]:
    """Give a log as the text of an OCEL 2.0 XML file. Raises InvalidLog for a text that XML cannot hold."""
    log = Writing(tables)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<log>\n'
    yield from _types("object-type", log.object_types())
    yield from _types("event-type", log.event_types())
    yield "<objects>\n"
    for one in log.objects():
        attributes = "".join(
            f'<attribute name="{escape(name)}" time="{time}">{escape(value)}</attribute>\n'
            for name, value, _, time in one.attributes
        )
        head = f'object id="{escape(one.id)}" type="{escape(one.type)}"'
        yield f"<{head}>\n{_inner(attributes, one.relations)}</object>\n"
    yield "</objects>\n<events>\n"
    for event in log.happenings():
        attributes = "".join(
            f'<attribute name="{escape(name)}">{escape(value)}</attribute>\n'
            for name, value, _ in event.attributes
        )
        head = f'event id="{escape(event.id)}" type="{escape(event.type)}" time="{event.time}"'
        yield f"<{head}>\n{_inner(attributes, event.links)}</event>\n"
    yield "</events>\n</log>\n"


def _types(tag: str, types: Declared) -> Iterator[str]:
    yield f"<{tag}s>\n"
    for type_, attributes in types.items():
        inner = "".join(
            f'<attribute name="{escape(name)}" type="{escape(kind)}"/>\n' for name, kind in attributes.items()
        )
        yield f'<{tag} name="{escape(type_)}">\n<attributes>\n{inner}</attributes>\n</{tag}>\n'
    yield f"</{tag}s>\n"


def _inner(attributes: str, links: list[tuple[str, str]]) -> str:
    related = "".join(
        f'<relationship object-id="{escape(id_)}" qualifier="{escape(qualifier)}"/>\n'
        for id_, qualifier in links
    )
    return f"<attributes>\n{attributes}</attributes>\n<objects>\n{related}</objects>\n"
