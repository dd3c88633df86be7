"""A starting model from a log: event classes and a state machine, as source text to edit.

Fields come from the payloads: their types, and whether an event may lack them. The status is the latest
activity, and a decision allows the statuses that came before it in the log; so the draft refuses nothing that
was recorded (but rare transitions that were to be left out), until somebody who knows better edits it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from esim import display
from esim.arguments import part_of_one, storable
from esim.errors import InvalidArgument
from esim.event import Event
from esim.logcore import Log
from esim.logpayload import all_fields

_KINDS = {
    "BIGINT": "int", "INTEGER": "int", "SMALLINT": "int", "TINYINT": "int", "UBIGINT": "int",
    "HUGEINT": "int", "DOUBLE": "Decimal", "FLOAT": "Decimal", "BOOLEAN": "bool", "VARCHAR": "str",
    "DATE": "date",
    "TIMESTAMP": "str", "OBJECT": "dict[str, Any]", "ARRAY": "tuple[Any, ...]",
}  # fmt: skip
_MOST_VALUES = 6  # of a text with so few values, and seen often, the values are its type
_OFTEN = 20
_WIDTH = 100
_PROTECTED = ("model_dump", "model_validate")  # what pydantic keeps for itself, and all that begins so
_IMPORTED = ("Event", "State", "Decimal", "Any", "Literal", "Self", "date", "Field")
_TAKEN = {name for base in Event.__mro__ for name in vars(base)} | {*_IMPORTED, "self", "int", "str", "bool"}


class Seen(NamedTuple):
    """What is known of an activity: its name, how often it came, in how many cases."""

    activity: str
    events: int
    cases: int


class Field(NamedTuple):
    """A field of an activity's payload: types, how often it is there, its values if few, whether amounts."""

    name: str
    kinds: tuple[str, ...]
    present: int
    values: tuple[str, ...]
    amount: bool


class _Part(NamedTuple):
    """An activity with the class and the status that stand for it, and its fields."""

    seen: Seen
    cls: str
    status: str
    fields: Sequence[Field]

    @property
    def named(self) -> list[tuple[str, Field]]:
        """The fields with their names in Python; those that may be missing come last."""
        texts = sorted((field.name for field in self.fields), key=lambda text: _field_name(text) != text)
        names = _named(texts, _field_name, {*_TAKEN, self.cls})
        ordered = sorted(self.fields, key=lambda field: field.present < self.seen.events)
        return [(names[field.name], field) for field in ordered]

    def hint(self, field: Field) -> str:
        """Return the annotation of a field, with its default where it may be missing."""
        return _hint(field) + (" | None = None" if field.present < self.seen.events else "")

    def declared(self, named: str, field: Field) -> str:
        """Return the same in the class; a field that Python must call otherwise is read by its own name."""
        hint = self.hint(field)
        if named == field.name:
            return hint
        optional = hint.endswith(" = None")
        alias = f"alias={_text(field.name)}"
        return f"{hint[:-4]}Field(None, {alias})" if optional else f"{hint} = Field({alias})"


def draft(log: Log, name: str, least: float) -> str:
    """Return Python source of a model: an event class for each activity, and a State of this name.

    A transition that is in less than the part `least` of the cases is left out of the decisions.
    """
    if not storable(name, "name").isidentifier() or keyword.iskeyword(name):
        raise InvalidArgument(f"name={name!r} is no name of a class: give one as 'Order'")
    least = part_of_one(least, "least", "give a part of all cases, from 0 to 1")
    seen = [Seen(*row) for row in log.rows(_SEEN.format(counted=log._counted))]
    if not seen:
        raise InvalidArgument("the log has no events to draft a model from")
    fields, before = _fields(log), _before(log, least)
    activities = [one.activity for one in seen]
    blank = next((one for one in activities if not one.strip()), None)
    if blank is not None:
        raise InvalidArgument(
            f"an activity is called {blank!r}, as no class of events can be: leave it out, "
            f"log.without({blank!r}).draft()"
        )
    classes = _named(activities, _class_name, {name, f"{name}Event", *_IMPORTED})
    statuses = _named(activities, _snake, {"new"})
    parts = [
        _Part(one, classes[one.activity], statuses[one.activity], fields.get(one.activity, []))
        for one in seen
    ]
    events = "\n\n\n".join(map(_event, parts))
    allowed = {
        activity: ["new" if one is None else statuses[one] for one in earlier]
        for activity, earlier in before.items()
    }
    state = _state(name, parts, allowed, len(log))
    return f"{_imports(events + state)}\n\n\n{events}\n\n\n{state}"


_SEEN = """SELECT activity, {counted} AS events, count(DISTINCT s) AS cases
FROM e JOIN activities USING (a) GROUP BY activity ORDER BY median(v), events DESC, activity"""


def _fields(log: Log) -> dict[str, list[Field]]:
    rows = log.rows(
        f"""SELECT activity, field, list_sort(list(DISTINCT kind) FILTER (value IS NOT NULL)), count(value),
    count(DISTINCT value),
    list_sort(list(DISTINCT value) FILTER (length(value) < 30))[1:{_MOST_VALUES + 1}],
    bool_and(regexp_full_match(value, '-?[0-9]{{1,20}}\\.[0-9]{{1,10}}'))
FROM ({all_fields(log, "year", nulls=True)}) JOIN activities USING (a)
GROUP BY activity, field ORDER BY activity, field"""
    )
    found: dict[str, list[Field]] = {}
    for activity, name, kinds, present, different, values, amount in rows:
        few = different <= _MOST_VALUES and present >= _OFTEN and len(values or ()) == different
        found.setdefault(activity, []).append(
            Field(name, tuple(kinds or ()), present, tuple(values) if few else (), amount)
        )
    return found


def _before(log: Log, least: float) -> dict[str, list[str | None]]:
    """Return the activities that come directly before each; None is the beginning of a case."""
    rows = log.rows(
        f"""SELECT y.activity, x.activity
FROM (SELECT p, a, count(DISTINCT s) AS n FROM e GROUP BY p, a) AS pairs
JOIN activities y ON y.a = pairs.a LEFT JOIN activities x ON x.a = pairs.p
WHERE n >= {least!r} * (SELECT count(DISTINCT s) FROM e) ORDER BY n DESC, x.activity, y.activity"""
    )
    found: dict[str, list[str | None]] = {}
    for activity, earlier in rows:
        found.setdefault(activity, []).append(earlier)
    return found


# --- source ------------------------------------------------------------------------------------------------


def _event(part: _Part) -> str:
    one, name = part.seen, part.cls
    stored = "" if name == one.activity else f", type={_text(one.activity)}"
    told = f"Seen {one.events:,} times, in {one.cases:,} cases."
    lines = [f"class {name}(Event{stored}):", f'    """{told}"""']
    body = []
    for named, field in part.named:
        body.append(f"    {named}: {part.declared(named, field)}")
    return "\n".join([*lines, *(["", *body] if body else [])])


def _hint(field: Field) -> str:
    kinds = sorted({_kind(kind) for kind in field.kinds})
    if kinds == ["str"] and field.amount:
        return "Decimal"
    if kinds == ["str"] and field.values:
        return f"Literal[{', '.join(map(_text, field.values))}]"
    if kinds == ["Decimal", "int"]:
        return "Decimal"
    return " | ".join(kinds) or "Any"


def _kind(sql: str) -> str:
    if sql.endswith("]"):
        return _KINDS["ARRAY"]
    if sql.startswith("DECIMAL"):
        return "Decimal"
    return next((hint for kind, hint in _KINDS.items() if sql.startswith(kind)), "Any")


def _state(name: str, parts: Sequence[_Part], allowed: Mapping[str, Sequence[str]], events: int) -> str:
    union = " | ".join(part.cls for part in parts)
    if len(union) > _WIDTH:
        union = "(\n    " + "\n    | ".join(part.cls for part in parts) + "\n)"
    words = _wrapped("Literal[", ["new", *(part.status for part in parts)], "]", 4)
    lines = [
        f"{name}Event = {union}",
        "",
        "",
        f"class {name}(State[{name}Event]):",
        f'    """Drafted from {events:,} events: the status is the latest activity."""',
        "",
        f'    status: {words} = "new"',
    ]
    for part in parts:
        lines += ["", *_decision(part, allowed.get(part.seen.activity, ()))]
    lines += ["", f"    def evolve(self, event: {name}Event) -> Self:", "        match event:"]
    for part in parts:
        lines += [
            f"            case {part.cls}():",
            f"                return self.but(status={_text(part.status)})",
        ]
    return "\n".join([*lines, ""])


def _decision(part: _Part, allowed: Sequence[str]) -> list[str]:
    arguments = ["self", *(f"{named}: {part.hint(field)}" for named, field in part.named)]
    given = ", ".join(f"{named}={named}" for named, _ in part.named)
    must = _wrapped("self.must_be(", allowed, ")", 8)
    head = f"    def record_{part.status}({', '.join(arguments)}) -> {part.cls}:"
    if len(head) > _WIDTH:
        inner = "".join(f"        {one},\n" for one in arguments)
        head = f"    def record_{part.status}(\n{inner}    ) -> {part.cls}:"
    return [
        head,
        f"        {must}{'' if allowed else '  # too rare to be allowed'}",
        f"        return {part.cls}({given})",
    ]


def _wrapped(start: str, words: Sequence[str], end: str, indent: int) -> str:
    """Return texts in brackets, on several lines where one would be too long."""
    quoted = [_text(word) for word in words]
    line = f"{start}{', '.join(quoted)}{end}"
    if len(line) + indent <= _WIDTH:
        return line
    margin = " " * indent
    return f"{start}\n{''.join(f'{margin}    {word},{chr(10)}' for word in quoted)}{margin}{end}"


def _text(text: str) -> str:
    """Return a text as Python source, in ASCII."""
    source = ascii(text)
    return f'"{source[1:-1]}"' if source[0] == "'" and '"' not in source else source


def _imports(body: str) -> str:
    lines = []
    if re.search(r"\bdate\b", body):
        lines.append("from datetime import date")
    if "Decimal" in body:
        lines.append("from decimal import Decimal")
    names = [name for name in ("Any", "Literal", "Self") if re.search(rf"\b{name}\b", body)]
    field = ["", "from pydantic import Field"] if "Field(" in body else []
    lines += [f"from typing import {', '.join(names)}", *field, "", "from esim import Event, State"]
    return "\n".join(lines)


# --- names -------------------------------------------------------------------------------------------------


def _named(texts: Iterable[str], make: object, taken: set[str]) -> dict[str, str]:
    """Return a Python name for each text, no name twice and none of those taken."""
    found: dict[str, str] = {}
    used = set(taken)
    for text in texts:
        if text in found:
            continue
        base = name = make(text)  # type: ignore[operator]
        number = 2
        while name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        found[text] = name
    return found


def _words(text: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[A-Za-z0-9]+", spaced)


def _class_name(text: str) -> str:
    if text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and text[0].isupper():
        return text
    name = "".join(word[0].upper() + word[1:] for word in _words(text)) or "Event_"
    return f"E{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _snake(text: str) -> str:
    name = "_".join(word.lower() for word in _words(text)) or "event"
    return f"e_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _field_name(text: str) -> str:
    if text.startswith(_PROTECTED):
        return f"e_{_snake(text)}"
    if text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and text[0] != "_":
        return text
    return _snake(text)


class Draft(str):
    """Source text of a model, shown as code in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{display.escape(str(self))}</pre>"
