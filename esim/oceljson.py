"""OCEL 2.0 as JSON: four lists in one object, read element by element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from esim import display
from esim.arrowlog import AS_WRITTEN, Tables, Times
from esim.jsonstream import Digits, JsonFile, dumped, is_number, text_of
from esim.ocel import Declared, Reading, Writing

_LISTS = ("eventTypes", "objectTypes", "events", "objects")
_string = json.JSONEncoder(ensure_ascii=False).encode


def read(path: Path, how: Times = AS_WRITTEN) -> Tables:
    """Return an OCEL 2.0 log as Tables. Times without a zone are of `how.timezone`.

    Raises InvalidLog, with the line, for what is no OCEL 2.0: an event without id, type or time, say.
    """
    with JsonFile(path) as file:
        log = _Reading(file, path.name, how)
        for name, value in file.elements():
            if name in _LISTS:
                log.take(name, value)
        missing = [name for name in _LISTS if name not in file.members]
        if missing:
            file.fail_here(
                f"an OCEL 2.0 log has the lists {', '.join(_LISTS)}; {', '.join(missing)} is missing"
            )
    return log.reading.tables()


class _Reading:
    def __init__(self, file: JsonFile, label: str, how: Times) -> None:
        self._file = file
        self.reading = Reading(label, how)

    def take(self, name: str, value: Any) -> None:
        if not isinstance(value, dict):
            self._file.fail(f"{display.short(value)} is no object, as the members of {name!r} are")
        if name == "events":
            self._event(value)
        elif name == "objects":
            self._object(value)
        else:
            types = self.reading.event_types if name == "eventTypes" else self.reading.object_types
            self._type(types, value)

    def _type(self, types: Declared, value: dict[str, Any]) -> None:
        own = types.setdefault(self._text(value, "name", "a type"), {})
        for each in self._several(value, "attributes"):
            own[self._text(each, "name", "an attribute")] = str(each.get("type", "string"))

    def _event(self, value: dict[str, Any]) -> None:
        id_ = self._text(value, "id", "an event")
        told = f"event {id_!r}"
        type_ = self._text(value, "type", told)
        time = self._text(value, "time", told)
        known = self.reading.event_types.get(type_, {})
        attributes: dict[tuple[str, str], str] = {}
        for each in self._several(value, "attributes"):
            name = self._text(each, "name", f"an attribute of {told}")
            kind = known.get(name) or _kind(each.get("value"))
            if any(name == given for given, _ in attributes):
                self._file.fail(f"{told} has the attribute {name!r} twice: keep one")
            if each.get("value") is not None:
                attributes[name, kind] = _text(each["value"], kind)
        self.reading.event(id_, type_, time, attributes)
        for each in self._several(value, "relationships"):
            object_id = self._text(each, "objectId", f"a relationship of {told}")
            self.reading.link(id_, object_id, self._qualifier(each))

    def _object(self, value: dict[str, Any]) -> None:
        id_ = self._text(value, "id", "an object")
        told = f"object {id_!r}"
        type_ = self._text(value, "type", told)
        self.reading.object(id_, type_)
        known = self.reading.object_types.get(type_, {})
        for each in self._several(value, "attributes"):
            name = self._text(each, "name", f"an attribute of {told}")
            kind = known.get(name) or _kind(each.get("value"))
            time = None if each.get("time") is None else self._text(each, "time", f"an attribute of {told}")
            if each.get("value") is not None:
                self.reading.attribute(id_, name, _text(each["value"], kind), kind, time)
        for each in self._several(value, "relationships"):
            target = self._text(each, "objectId", f"a relationship of {told}")
            self.reading.relation(id_, target, self._qualifier(each))

    def _several(self, value: dict[str, Any], name: str) -> list[dict[str, Any]]:
        found = value.get(name) or []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._file.fail(f"{name!r} is {display.short(found)}: it must be a list of objects")
        return found

    def _text(self, value: dict[str, Any], name: str, of: str) -> str:
        return text_of(value.get(name), f"{name!r} of {of}", self._file.fail)

    def _qualifier(self, value: dict[str, Any]) -> str | None:
        found = value.get("qualifier")
        return found if found is None or isinstance(found, str) else dumped(found)


def _kind(value: Any) -> str:
    """Return what OCEL calls the kind of a JSON value."""
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "float" if isinstance(value, float) else "string"


def _text(value: Any, kind: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Digits) and kind == "integer" and value.is_integer():
        return str(int(value))
    return dumped(value)


def written(tables: Tables) -> Iterator[str]:
    """Give a log as the text of an OCEL 2.0 JSON file."""
    log = Writing(tables)
    yield '{"objectTypes": ['
    yield from _joined(map(_type, log.object_types().items()))
    yield '],\n"eventTypes": ['
    yield from _joined(map(_type, log.event_types().items()))
    yield '],\n"objects": ['
    for number, one in enumerate(log.objects()):
        attributes = [
            f'{{"name": {_string(name)}, "time": "{time}", "value": {_value(value, kind)}}}'
            for name, value, kind, time in one.attributes
        ]
        yield _element(
            number, f'{{"id": {_string(one.id)}, "type": {_string(one.type)}', attributes, one.relations
        )
    yield '],\n"events": ['
    for number, event in enumerate(log.happenings()):
        attributes = [
            f'{{"name": {_string(name)}, "value": {_value(value, kind)}}}'
            for name, value, kind in event.attributes
        ]
        head = f'{{"id": {_string(event.id)}, "type": {_string(event.type)}, "time": "{event.time}"'
        yield _element(number, head, attributes, event.links)
    yield "]}\n"


def _element(number: int, head: str, attributes: list[str], links: list[tuple[str, str]]) -> str:
    related = ", ".join(
        f'{{"objectId": {_string(id_)}, "qualifier": {_string(qualifier)}}}' for id_, qualifier in links
    )
    before = ",\n" if number else "\n"
    return f'{before}{head}, "attributes": [{", ".join(attributes)}], "relationships": [{related}]}}'


def _type(item: tuple[str, dict[str, str]]) -> str:
    name, attributes = item
    return dumped(
        {"name": name, "attributes": [{"name": each, "type": kind} for each, kind in attributes.items()]}
    )


def _joined(parts: Iterator[str]) -> Iterator[str]:
    for number, part in enumerate(parts):
        yield f"{',' if number else ''}\n{part}"


def _value(text: str, kind: str) -> str:
    """Return a value as JSON: numbers and booleans bare, where JSON can."""
    bare = (kind in {"integer", "float"} and is_number(text)) or (
        kind == "boolean" and text in {"true", "false"}
    )
    return text if bare else _string(text)
