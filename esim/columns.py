"""From a pydantic model to the columns of a DuckDB table: which SQL type holds each field without loss.

Nested models become structs, sequences lists, constrained Decimals `DECIMAL(p, s)`, others `DECIMAL(38, 18)`,
which rounds what has more than 18 places; what has no type of its own in SQL stays JSON.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, RootModel

from esim.storefile import quoted

Columns: TypeAlias = "list[tuple[str, str]]"

_PLAIN: dict[type, str] = {
    bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR", datetime: "TIMESTAMPTZ", date: "DATE",
    UUID: "UUID", time: "VARCHAR", timedelta: "VARCHAR",
}  # fmt: skip
_DIGITS = 38  # the most that a DECIMAL has
_SEQUENCES = (list, tuple, set, frozenset)


def columns_of(model: type[BaseModel]) -> Columns:
    """Return the payload fields of a model with the DuckDB type of each, in the order of the fields.

    >>> class Paid(BaseModel):
    ...     method: Literal["card", "bank"]
    ...     amounts: tuple[int, ...] = ()
    >>> columns_of(Paid)
    [('method', 'VARCHAR'), ('amounts', 'BIGINT[]')]
    """
    return _columns(model, ())


def _columns(model: type[BaseModel], inside: tuple[type, ...]) -> Columns:
    own = _own_serializers(model)
    return [
        (
            name,
            "JSON"
            if name in own or "*" in own
            else _type(field.annotation, field.metadata, (*inside, model)),
        )
        for name, field in model.__pydantic_fields__.items()
        if not field.exclude
    ]


def _own_serializers(model: type[BaseModel]) -> set[str]:
    found = model.__pydantic_decorators__.field_serializers.values()
    return {name for each in found for name in each.info.fields}


def _type(hint: Any, marks: Iterable[Any], inside: tuple[type, ...]) -> str:
    """Return the DuckDB type of an annotation; `marks` are its constraints, `inside` the models around it."""
    hint, marks = _bare(hint, marks)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _only({_type(arg, marks, inside) for arg in args if arg is not types.NoneType})
    if origin is Literal:
        return _of_values(args)
    if origin is not None:
        return _container(origin, args, inside)
    return _class(hint, marks, inside) if isinstance(hint, type) else "JSON"


def _class(hint: type, marks: Iterable[Any], inside: tuple[type, ...]) -> str:
    if issubclass(hint, Enum):
        return _of_values(member.value for member in hint)
    if issubclass(hint, BaseModel):
        return _struct_of(hint, inside)
    if issubclass(hint, Decimal):
        return _decimal(marks)
    return _PLAIN.get(hint, "JSON")


def _bare(hint: Any, marks: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Peel Annotated, `type` aliases and NewType off an annotation, and collect the constraints."""
    found = list(marks)
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            found += hint.__metadata__
            hint = hint.__origin__
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif hasattr(hint, "__value__"):
            hint = hint.__value__
        else:
            return hint, found


def _only(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else "JSON"


def _of_values(values: Iterable[Any]) -> str:
    return _only({_PLAIN.get(type(value), "JSON") if isinstance(value, int) else
                  "VARCHAR" if isinstance(value, str) else "JSON" for value in values})  # fmt: skip


def _container(origin: Any, args: tuple[Any, ...], inside: tuple[type, ...]) -> str:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = (_type(arg, (), inside) for arg in args)
        return f"MAP(VARCHAR, {value})" if key == "VARCHAR" else "JSON"
    if isinstance(origin, type) and (
        issubclass(origin, _SEQUENCES) or origin.__module__ == "collections.abc"
    ):
        item = _only({_type(arg, (), inside) for arg in args if arg is not Ellipsis})
        return f"{item}[]"
    return "JSON"


def _struct_of(model: type[BaseModel], inside: tuple[type, ...]) -> str:
    if model in inside or model.__pydantic_decorators__.model_serializers:
        return "JSON"
    if issubclass(model, RootModel):
        root = model.__pydantic_fields__["root"]
        return _type(root.annotation, root.metadata, (*inside, model))
    return struct(_columns(model, inside))


def struct(columns: Columns) -> str:
    """Return the struct type of columns, or JSON where DuckDB has none for them."""
    names = {name.casefold() for name, _ in columns}
    if not columns or len(names) < len(columns):  # DuckDB knows no empty struct, and no case in names
        return "JSON"
    return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in columns)})"


def _decimal(marks: Iterable[Any]) -> str:
    said: dict[str, int] = {}
    for mark in _flat(marks):
        for key in ("max_digits", "decimal_places"):
            if getattr(mark, key, None) is not None:
                said[key] = getattr(mark, key)
    digits = said.get("max_digits", _DIGITS)
    places = said.get("decimal_places", 18)
    if "decimal_places" not in said and "max_digits" in said:
        digits, places = (
            max(digits, _DIGITS),
            min(18, max(_DIGITS - digits, 0)),
        )  # all digits before the point fit
    return f"DECIMAL({digits},{places})" if places <= digits <= _DIGITS else "VARCHAR"


def _flat(marks: Iterable[Any]) -> Iterator[Any]:
    for mark in marks:
        yield mark
        yield from getattr(mark, "metadata", ())
