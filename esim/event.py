"""An event is a frozen, typed fact: its class says the shape, and a registry maps stored names to classes.

A stored name means the latest class of that name. A payload is JSON text, in which money is exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from esim import display
from esim.arguments import storable
from esim.errors import InvalidArgument, InvalidEvent, UnknownEventType
from esim.shapes import Upcaster, Upcasters, chain
from esim.value import Value, explain, fields_of, refuse_hiding

E_co = TypeVar("E_co", bound="Event", covariant=True)


class Tag:
    """Marks a field whose value becomes a tag: `customer: Annotated[str, Tag()]` gives `customer:alice`.

    The tag's key is the field's name unless another is given; a tuple or list gives one tag per item. Only an
    event's own fields give tags, not those of a `Value` inside it.
    """

    def __init__(self, key: str | None = None) -> None:
        """Use `key` in place of the field's name."""
        self.key = key

    def __repr__(self) -> str:
        return f"Tag({self.key!r})" if self.key else "Tag()"


_SHAPES = 32_767  # what the store's column holds
_by_type: dict[str, type[Event]] = {}
_by_name: dict[tuple[str, str], list[type[Event]]] = {}
"""Its latest definition, by the module and name of a class; each definition has the list, to look fast."""
_by_former: dict[str, str] = {}


class Event(Value):
    """A fact that happened, in the past tense: `class OrderPaid(Event): amount: Money`.

    The stored type name is the class name, or `class OrderPaid(Event, type="order.paid")`; `schema_version`
    counts the shapes that this type has had, `upcasters` lead from each older shape to the next, and `was`
    names what the type was called before. Defining a class again replaces the former one.
    """

    event_type: ClassVar[str] = "Event"
    schema_version: ClassVar[int] = 1
    _tagged: ClassVar[tuple[tuple[str, str], ...]] = ()
    _upcasters: ClassVar[tuple[Upcaster | None, ...]] = ()
    _was: ClassVar[tuple[str, ...]] = ()
    _latest: ClassVar[list[type[Event]]] = []
    _instead: ClassVar[str] = "record another event"

    def __init_subclass__(
        cls,
        *,
        type: str | None = None,
        schema_version: int = 1,
        upcasters: Upcasters = (),
        was: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(schema_version, int) or not 1 <= schema_version <= _SHAPES:
            raise InvalidArgument(
                f"{cls.__name__}: schema_version is {schema_version!r}; it counts 1, 2, 3, …"
            )
        if type is not None and (not isinstance(type, str) or not type.strip() or "\0" in type):
            raise InvalidArgument(f"{cls.__name__}: type is {type!r}; write a name, such as 'order.paid'")
        cls.event_type = type or cls.__name__
        if cls.event_type.casefold() == "events":
            raise InvalidArgument(
                f"{cls.__name__}: in SQL, 'events' is the whole log; give the class another type: "
                f"class {cls.__name__}(Event, type='…')"
            )
        cls.schema_version = schema_version
        cls._upcasters = chain(cls.__name__, schema_version, upcasters)
        cls._was = (was,) if isinstance(was, str) else tuple(was)
        if cls.event_type in cls._was or not all(isinstance(name, str) and name for name in cls._was):
            raise InvalidArgument(
                f"{cls.__name__}: was={was!r}; write what the type {cls.event_type!r} was called before"
            )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        refuse_hiding(cls, Event)
        marks = ((name, mark) for name, field in cls.__pydantic_fields__.items() for mark in field.metadata)
        cls._tagged = tuple((name, mark.key or name) for name, mark in marks if isinstance(mark, Tag))
        _by_type[cls.event_type] = cls
        _rename(cls.event_type, cls._was)
        cls._latest = _by_name.setdefault((cls.__module__, cls.__qualname__), [])
        cls._latest[:] = [cls]
        note_definition()

    def _repr_html_(self) -> str:
        return display.card(display.badge(self.event_type), display.fields(fields_of(self)))


Event._latest.append(Event)

# --- the registry ------------------------------------------------------------------------------------------


def event_class(name: str) -> type[Event]:
    """Return the latest class of a stored type name. Raises UnknownEventType if it is not defined here."""
    try:
        return _by_type[name]
    except KeyError:
        raise UnknownEventType(
            f"no class for event type {name!r} is defined in this process"
            f"{display.did_you_mean(name, list(_by_type))}; define or import it, or read `.data` as a dict"
        ) from None


def known_events() -> dict[str, type[Event]]:
    """Return every event class defined in this process, by stored type name."""
    return dict(_by_type)


def _rename(name: str, was: Iterable[str]) -> None:
    for former in [key for key, now in _by_former.items() if name in (key, now)]:
        del _by_former[former]
    _by_former.update(dict.fromkeys(was, name))


def former_names() -> dict[str, str]:
    """Return what each type was called before, to what it is called now."""
    return dict(_by_former)


def current(cls: type[Event]) -> type[Event]:
    """Return the latest definition of a class: the same one, unless its cell was run again."""
    return cls._latest[0]


_definitions = 0


def note_definition() -> None:
    """Count one more definition of an event or a state, so that caches of classes know when to look again."""
    global _definitions  # noqa: PLW0603 - one registry in a process, as the classes themselves
    _definitions += 1


def definitions() -> int:
    """Return how many events and states were defined so far in this process."""
    return _definitions


def type_name(event: object) -> str:
    """Return the stored type name of a class, or the name itself. Raises InvalidArgument for others."""
    if isinstance(event, str):
        return storable(event, "type")
    if not (isinstance(event, type) and issubclass(event, Event)):
        raise InvalidArgument(f"{display.short(event)} is no event type: give an Event class, or its name")
    return event.event_type


def renewed(event: Event) -> Event:
    """Return the event as an instance of the latest definition of its class.

    Raises InvalidEvent if it does not fit that.
    """
    latest = current(type(event))
    if type(event) is latest:
        return event
    try:
        return decode(latest.event_type, encode(event), latest)
    except InvalidEvent as error:
        told = str(error).rpartition(" cannot be made: ")[2]
        raise InvalidEvent(
            f"this {type(event).__name__} was made before its class was defined anew ({told}): make it again"
        ) from None


def decode(type: str, text: str, cls: type[Event] | None = None) -> Event:
    """Return the event of a stored payload `text`, by `cls` or by the class registered for its `type`.

    It is an instance of the latest definition of its class. Raises UnknownEventType without a class, and
    InvalidEvent if the payload does not fit it.
    """
    found = (cls or event_class(type))._latest[0]
    try:
        return found.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InvalidEvent(f"stored payload {display.short(text)}: {explain(found, error)}") from None


def encode(event: Event) -> str:
    """Return the payload of an event as the JSON text that is stored; Decimals are exact strings.

    Raises InvalidEvent if some value has no JSON form.
    """
    try:
        text = event.__pydantic_serializer__.to_json(event).decode()
        if "NaN" in text or "Infinity" in text:  # as a number, it is no JSON
            json.loads(text, parse_constant=_no_constant)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        told = display.cut(str(error).partition("\n")[0], 150)
        raise InvalidEvent(f"{type(event).__name__} cannot be recorded as JSON: {told}") from None
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON knows: leave the field out, or use None")


def tags_of(event: Event) -> tuple[str, ...]:
    """Return the tags that the event's marked fields give (`film:Alien`), in the order of the fields."""
    found: list[str] = []
    for name, key in event._tagged:
        value = getattr(event, name)
        items = value if isinstance(value, list | tuple) else [value]
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else items
        found += [
            f"{key}:{item.value if isinstance(item, Enum) else item}" for item in items if item is not None
        ]
    return tuple(dict.fromkeys(found))


def batch_decoder(
    classes: Iterable[type[Event]],
) -> Callable[[Sequence[str], Sequence[str]], Iterator[Event]]:
    """Return a function that decodes columns of type names and payload texts by the given classes.

    The latest definition of each class is used. Raises as `decode`, and UnknownEventType for a type outside.
    """
    latest = {cls.event_type: current(cls) for cls in classes}
    validators = {name: cls.__pydantic_validator__.validate_json for name, cls in latest.items()}

    def decode_all(types: Sequence[str], texts: Sequence[str]) -> Iterator[Event]:
        for name, text in zip(types, texts, strict=True):
            try:
                yield validators[name](text)
            except (KeyError, ValidationError):
                yield decode(name, text, _among(latest, name))

    return decode_all


def _among(latest: Mapping[str, type[Event]], name: str) -> type[Event]:
    if name not in latest:
        raise UnknownEventType(
            f"event type {name!r} is not among {', '.join(sorted(latest))}: "
            "add its class to the union of events, or read only the others"
        )
    return latest[name]
