"""What a subscription calls, a function or a projection's methods; what is wrong is said at once.

A function takes the event first, and what else it names among its parameters: `recorded` (the event with its
envelope), `rows` (a read model's rows, which makes it a projector), `effects` (its way to the outside world,
which makes it a reactor). It may be async, and leaves no task running then.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from types import FunctionType, MappingProxyType, MethodType, NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from esim import display
from esim.envelope import RecordedEvent
from esim.errors import InvalidArgument
from esim.event import Event, current
from esim.projection import Projection
from esim.rows import Row, Rows

WANTED = ["recorded", "rows", "effects"]
"""What a handler may ask for beside the event, by the name of a parameter."""

Call = Callable[[RecordedEvent[Any], Any, Any], Awaitable[None] | None]


class HandlerOf(NamedTuple):
    """A handler as a subscription sees it.

    `types` are the event classes it takes, none for every event; `calls` maps each type name to a call of
    (recorded event, rows, effects), and "" to that of every other type. `bound` is what functools.partial
    gave a function beforehand, by parameter, as far as it can be compared from one run of a cell to the next.
    """

    name: str
    source: str
    types: tuple[type[Event], ...]
    calls: dict[str, Call]
    row: type[Row] | None
    effects: bool
    bound: Mapping[str, object] = MappingProxyType({})


def handler_of(given: Any, types: tuple[type[Event], ...] = ()) -> HandlerOf:
    """Return what is handed in as a handler, of the event `types` it says itself unless they are given.

    Raises InvalidArgument that says what to write instead.
    """
    if isinstance(given, HandlerOf):
        return given
    if isinstance(given, type) and issubclass(given, Projection):
        return _of_projection(given)
    if isinstance(given, Projection):
        raise InvalidArgument(
            f"{given!r} follows the log by itself: hand in its class, {type(given).__name__}, whose rows the "
            "subscription then keeps in a table of its own"
        )
    if not callable(given) or isinstance(given, type):
        raise InvalidArgument(
            f"{display.short(given)} is no handler: hand in a function (event, …), or a Projection class"
        )
    return _of_function(given, types)


def is_handler(given: object) -> bool:
    """Say whether something is meant as a handler function: it is marked, or its first parameter an event."""
    if not callable(given) or isinstance(given, type):
        return False
    if getattr(given, "handles", ()):
        return True
    try:
        first = next(iter(inspect.signature(given, eval_str=True).parameters.values()), None)
    except (NameError, TypeError, ValueError):
        return False
    kinds = _kinds_of(first.annotation) if first else ()
    return any(isinstance(kind, type) and issubclass(kind, Event | RecordedEvent) for kind in kinds)


def _kinds_of(annotation: Any) -> tuple[Any, ...]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return get_args(annotation)
    return (origin or annotation,)


def _of_projection(cls: type[Projection[Any]]) -> HandlerOf:
    owner = cls.__new__(cls)
    types = tuple(dict.fromkeys(event for handler in cls._handlers.values() for event in handler.events))
    classes = latest(types)
    calls = {
        name: _method(MethodType(one.call, owner), classes, recorded=one.recorded)
        for name, one in cls._handlers.items()
    }
    source = f"{cls.__module__}.{cls.__qualname__}"
    return HandlerOf(cls.name, source, types, calls, cls.row, effects=False)


def latest(types: Iterable[type[Event]]) -> dict[str, type[Event]]:
    """Return the present definitions of event classes by type name."""
    return {each.event_type: current(each) for each in types}


def _method(method: Callable[..., None], classes: Mapping[str, type[Event]], *, recorded: bool) -> Call:
    if recorded:
        return lambda one, rows, _: method(one.event_as(classes), rows, one)
    return lambda one, rows, _: method(one.event_as(classes), rows)


def _of_function(given: Callable[..., Any], types: tuple[type[Event], ...]) -> HandlerOf:
    function = inspect.unwrap(given.func if isinstance(given, partial) else given)
    name = getattr(function, "__name__", type(function).__name__)
    code = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise InvalidArgument(f"{name} yields: a handler is a plain def, or an async one")
    types = types or getattr(function, "handles", ())
    first, wanted = _parameters(given, name, told=bool(types))
    row = None
    if "rows" in wanted:
        row = _row_of(wanted["rows"], name)
    undecoded = first is RecordedEvent or get_origin(first) is RecordedEvent
    source = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}"
    chosen = _types_of(first, name) if not types else () if Event in types else types
    calls = {"": _call(given, tuple(wanted), None if undecoded else latest(chosen))}
    return HandlerOf(name, source, chosen, calls, row, "effects" in wanted, _bound(given))


def _bound(given: Callable[..., Any]) -> dict[str, object]:
    """Return the plain values that a partial binds, functions and classes by name, and no other objects."""
    if not isinstance(given, partial):
        return {}
    values = {**{f"argument {number}": it for number, it in enumerate(given.args, 1)}, **given.keywords}
    named = {
        name: f"{it.__module__}.{it.__qualname__}" if isinstance(it, type | FunctionType) else it
        for name, it in values.items()
    }
    return {name: it for name, it in named.items() if isinstance(it, _PLAIN)}


_PLAIN = (str, bytes, int, float, Decimal, NoneType)


def _call(
    given: Callable[..., Any], wanted: tuple[str, ...], classes: Mapping[str, type[Event]] | None
) -> Call:
    """Return a function as a call of (recorded, rows, effects); what it asks for goes by keyword.

    Its events are decoded by `classes`; None: it takes them undecoded.
    """
    if not wanted:
        if classes is None:
            return lambda recorded, *_: given(recorded)
        return lambda recorded, *_: given(recorded.event_as(classes))

    if classes is not None and wanted == ("rows",):
        return lambda recorded, rows, _: given(recorded.event_as(classes), rows=rows)

    def call(recorded: RecordedEvent[Any], rows: Any, effects: Any) -> Any:
        handed = {"recorded": recorded, "rows": rows, "effects": effects}
        first = recorded if classes is None else recorded.event_as(classes)
        return given(first, **{name: handed[name] for name in wanted})

    return call


def _parameters(given: Callable[..., Any], name: str, *, told: bool) -> tuple[Any, dict[str, Any]]:
    """Return the annotation of the first parameter, and of each other by what it asks for.

    Where the event types are `told`, annotations that cannot be evaluated do not matter.
    """
    try:
        signature = inspect.signature(given, eval_str=True)
    except NameError as error:
        signature = inspect.signature(given)
        if not told:
            raise InvalidArgument(
                f"{name}{signature}: {error}, so its event types are not known: mark it with @on(OrderPaid)"
            ) from None
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} has no signature to read: wrap it in a def") from None
    parameters = list(signature.parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise InvalidArgument(f"{name}{signature} takes no event: write def {name}(event, …)")
    wanted: dict[str, Any] = {}
    for each in parameters[1:]:
        if each.name in WANTED and each.kind is not inspect.Parameter.POSITIONAL_ONLY:
            wanted[each.name] = each.annotation
        elif each.default is inspect.Parameter.empty and each.kind in (
            *positional,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            raise InvalidArgument(
                f"{name}{signature} asks for {each.name!r}, which a handler is not given"
                f"{display.did_you_mean(each.name, WANTED)}; bind what is yours with functools.partial"
            )
    return parameters[0].annotation, wanted


def _types_of(annotation: Any, name: str) -> tuple[type[Event], ...]:
    """Return the event classes that an annotation names; none for `RecordedEvent` or `Event`: all."""
    if annotation is Event or annotation is RecordedEvent or get_origin(annotation) is RecordedEvent:
        return ()
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if not all(isinstance(part, type) and issubclass(part, Event) for part in parts):
        told = "" if annotation is inspect.Parameter.empty else f" ({annotation})"
        raise InvalidArgument(
            f"{name} does not say which events it handles{told}: annotate its first parameter, as "
            f"def {name}(event: OrderPaid | OrderPlaced), with Event for every one, or mark it with @on(…)"
        )
    return tuple(map(current, parts))


def _row_of(annotation: Any, name: str) -> type[Row]:
    found = get_args(annotation)[0] if get_origin(annotation) is Rows and get_args(annotation) else None
    if not (isinstance(found, type) and issubclass(found, Row) and found.key_fields):
        raise InvalidArgument(
            f"{name} asks for rows and does not say of which class: write rows: Rows[Spend], with "
            "class Spend(Row) and a Key[…] field"
        )
    return found
