"""A value is a frozen pydantic model as esim wants it: strict about money and time, plain in its words.

Decimals refuse floats and times must be aware and become UTC, at any depth: the core schema that pydantic
makes is rewritten once for each class, so validation itself stays at pydantic's own speed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import starmap
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast, dataclass_transform, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic._internal._model_construction import ModelMetaclass  # it has no public name
from pydantic_core import PydanticCustomError, core_schema, to_json

from esim import display
from esim.errors import EsimError, InvalidArgument, InvalidEvent, UnknownName

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

Money = Annotated[Decimal, Field(max_digits=18, decimal_places=2)]
"""An amount of money: an exact Decimal with two places (`DECIMAL(18,2)` in SQL)."""

_Shape = dict[str, Any]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class TidyMeta(ModelMetaclass):
    """The metaclass of esim's models: completion shows the domain's names, not thirty of pydantic's."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:  # noqa: N805 - a metaclass: cls is its self
            if name.startswith("_"):
                return super().__getattr__(name)
            raise unknown_name(cls, name)

    def __dir__(cls) -> list[str]:  # noqa: N805 - a metaclass: cls is its self
        return sorted({*domain_names(cls), "__doc__", "__name__"})


def unknown_name(cls: type, name: str) -> UnknownName:
    """Return the error that a class, or an instance of it, has nothing of this name."""
    near = display.did_you_mean(name, sorted(domain_names(cls)))
    return UnknownName(f"{cls.__name__} has no {name!r}{near}")


def domain_names(cls: type) -> set[str]:
    """Return the names that a reader of the domain cares about: fields, own methods and esim's verbs."""
    own = {name for base in cls.__mro__ if not _foreign(base) for name in vars(base)}
    fields = set(getattr(cls, "__pydantic_fields__", ()))
    return {name for name in own | fields if not name.startswith(("_", "model_"))}


def _foreign(base: type) -> bool:
    return base.__module__.partition(".")[0] in {"pydantic", "builtins", "typing", "abc"}


def _strict(schema: Any) -> Any:
    """Return a core schema in which Decimals refuse floats and times must be aware and become UTC."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if isinstance(schema, tuple):
        return tuple(_strict(part) for part in schema)
    if not isinstance(schema, dict) or schema.get("esim"):
        return schema
    inner = {key: part if key == "metadata" else _strict(part) for key, part in schema.items()}
    if schema.get("type") == "decimal":
        return _guarded(
            _quick(inner), core_schema.no_info_before_validator_function(_no_float, cast("Any", inner))
        )
    if schema.get("type") in ("set", "frozenset"):
        inner["serialization"] = core_schema.wrap_serializer_function_ser_schema(_in_order, when_used="json")
    if schema.get("type") == "datetime":
        inner["tz_constraint"] = "aware"
        checked = core_schema.no_info_after_validator_function(_to_utc, cast("Any", inner))
        return _guarded(checked, checked)
    return inner


_A_TYPE = re.compile(
    r"int|float|str|bool|bytes|none|date|datetime|time|timedelta|decimal|uuid|any|url|enum|dict|list|set|tuple"
    r"|[A-Z]\w*|(?:constrained|function|lax|json|chain|is|tagged|literal|nullable|frozenset|list|dict|tuple|set)"
    r"[-\[].*"
)
_QUICK, _FULL = "plain decimal text", "any decimal"
_DIGITS_ALONE = {"type", "max_digits", "decimal_places", "metadata", "esim"}


def _quick(decimal: _Shape) -> _Shape:
    """Return a decimal schema that checks the digits of plain text by a pattern, which takes half the time.

    Whatever the pattern does not know (`1e2`, a number, a wrong value) goes to the schema itself.
    """
    digits, places = decimal.get("max_digits"), decimal.get("decimal_places")
    if digits is None or places is None or not decimal.keys() <= _DIGITS_ALONE:
        return decimal
    pattern = f"^-?[0-9]{{1,{max(digits - places, 1)}}}(\\.[0-9]{{0,{places}}})?$"
    text = core_schema.str_schema(pattern=pattern, strict=True)
    plain = core_schema.chain_schema([text, core_schema.decimal_schema(allow_inf_nan=True)])
    return {
        "type": "union",
        "choices": [(plain, _QUICK), (decimal, _FULL)],
        "mode": "left_to_right",
        "metadata": {"pydantic_js_functions": [lambda _, handler: handler(decimal)]},
    }


def _guarded(from_json: Any, from_python: Any) -> _Shape:
    from_json["esim"] = True
    shape = core_schema.json_or_python_schema(from_json, from_python)
    return {**shape, "esim": True}


def _no_float(value: object) -> object:
    if isinstance(value, float):
        raise PydanticCustomError(
            "money_float",
            "{value} is a float, and floats lose cents: write Decimal('{value}')",
            {"value": value},
        )
    return value


def _in_order(value: object, handler: Callable[[object], list[Any]]) -> list[Any]:
    """Return a set's items in an order that does not depend on the process."""
    return sorted(handler(value), key=to_json)


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _refuse_lossy(cls: type[Value]) -> None:
    """Raise InvalidArgument if what is written of `cls` would not be all of it, or not be read again."""
    for name in cls.__pydantic_decorators__.computed_fields:
        raise InvalidArgument(
            f"{cls.__name__}.{name} is a computed_field, which would be recorded as if it were given: "
            "write a plain @property"
        )
    if cls.model_config.get("serialize_by_alias") or not cls.model_config.get("validate_by_name"):
        raise InvalidArgument(
            f"{cls.__name__} would be written and read under different names: "
            "leave serialize_by_alias and validate_by_name alone"
        )
    for name, info in cls.__pydantic_fields__.items():
        if info.exclude:
            raise InvalidArgument(f"{cls.__name__}.{name} is excluded from what is recorded: keep it out")
        for part in _parts(info.annotation):
            if _is_loose(part):
                raise InvalidArgument(
                    f"{cls.__name__}.{name} holds {part.__name__}, which takes floats for money and times "
                    f"without a zone: write class {part.__name__}(Value)"
                )


def _parts(annotation: Any) -> Iterator[Any]:
    annotation = getattr(annotation, "__value__", annotation)
    yield getattr(annotation, "__supertype__", annotation)
    for part in get_args(annotation):
        yield from _parts(part)


def _is_loose(part: Any) -> bool:
    """Say whether an annotation is a class of fields that knows nothing of esim's rules."""
    if not isinstance(part, type) or issubclass(part, Value):
        return False
    shaped = issubclass(part, BaseModel) or is_dataclass(part) or hasattr(part, "__required_keys__")
    return shaped or (issubclass(part, tuple) and hasattr(part, "_fields"))


class Value(BaseModel, metaclass=TidyMeta):
    """A frozen value inside events and states, such as an order line.

    Extra fields are refused, money is Decimal (a float is refused), and times are aware UTC. What could not
    be read again as it was recorded is refused when the class is defined: a field left out or added in
    writing, or a nested shape that is no `Value`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        revalidate_instances="subclass-instances",  # what a subclass adds would be lost in writing
        validate_by_name=True,
        validate_by_alias=True,
        cache_strings="keys",
        ser_json_timedelta="iso8601",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="constants",  # null would hide them
    )

    _recorded: ClassVar[bool] = True
    _invalid: ClassVar[type[EsimError]] = InvalidEvent
    _instead: ClassVar[str] = "take a copy with but(…)"

    if not TYPE_CHECKING:  # checkers synthesise the typed signature; this only rewords the errors

        def __init__(self, /, *args: Any, **data: Any) -> None:
            if args:
                raise self._invalid(f"{type(self).__name__} takes its fields by name: {usage(type(self))}")
            try:
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                raise self._invalid(explain(type(self), error)) from None

        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith("_"):
                super().__setattr__(name, value)
            else:
                self.__delattr__(name)

        def __delattr__(self, name: str) -> None:
            kind = type(self).__name__
            raise self._invalid(f"{kind}.{name} stays as it is, for it is frozen: {self._instead}")

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                return super().__getattr__(name)
            raise unknown_name(type(self), name)

        # pydantic's own mark: without it each nested value would be built through Python, four times slower
        __init__.__pydantic_base_init__ = True

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        if cls._recorded:
            _refuse_lossy(cls)
        return cast("core_schema.CoreSchema", _strict(handler(source)))

    def but(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields. Raises InvalidEvent if one does not fit."""
        try:
            return self.__pydantic_validator__.validate_python({**fields_of(self), **changes})  # type: ignore[no-any-return]
        except ValidationError as error:
            raise self._invalid(explain(type(self), error)) from None

    def __str__(self) -> str:
        return repr(self)

    def __dir__(self) -> list[str]:
        return sorted(domain_names(type(self)))


def fields_of(model: BaseModel) -> dict[str, Any]:
    """Return the values of a model's fields, without what a cached property has left in its dict."""
    values: dict[str, Any] = vars(model)
    names = type(model).__pydantic_fields__
    return values if len(values) == len(names) else {name: values[name] for name in names}


def usage(cls: type[BaseModel]) -> str:
    """Return how an instance is made: `OrderPaid(amount=…, method=…)`."""
    return f"{cls.__name__}({', '.join(f'{name}=…' for name in cls.__pydantic_fields__)})"


def refuse_hiding(cls: type[BaseModel], base: type[BaseModel]) -> None:
    """Raise InvalidArgument if a field of `cls` has the name of something that esim keeps in `base`."""
    taken = sorted(domain_names(base) & set(cls.__pydantic_fields__))
    if taken:
        raise InvalidArgument(
            f"{cls.__name__}.{taken[0]} would hide what every {base.__name__} calls so: rename the field"
        )


def explain(cls: type[BaseModel], error: ValidationError) -> str:
    """Return a ValidationError as one message in the domain's words: each field, its value, its cause."""
    known = list(cls.__pydantic_fields__)
    told: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        if problem["loc"][-1:] != (_QUICK,):
            head, _, cause = _problem(dict(problem), known).partition(" is ")
            told.setdefault(head, []).append(cause)
    return f"{cls.__name__} cannot be made: {'; '.join(starmap(_joined, told.items()))}"


def _joined(head: str, causes: list[str]) -> str:
    """Return what is wrong with one value: for a union, what each of its types says of it."""
    whole = [f"{head} is {cause}" if cause else head for cause in causes]
    first = whole[0].partition(": ")[2]
    others = (one.partition(": ")[2] for one in whole[1:])
    return " or ".join(dict.fromkeys((whole[0], *others))) if first else "; ".join(dict.fromkeys(whole))


def _places(loc: tuple[int | str, ...]) -> Iterator[str]:
    """Give the parts of a place that a user knows: fields, keys and numbers, no types of a union."""
    for at, part in enumerate(loc):
        if at == 0 or isinstance(part, int) or not (part == _FULL or _A_TYPE.fullmatch(part)):
            yield str(part)


def _problem(problem: dict[str, Any], known: list[str]) -> str:
    path = ".".join(_places(problem["loc"])) or "value"
    if problem["type"] == "missing":
        return f"{path!r} is missing"
    if problem["type"] == "extra_forbidden":
        near = display.did_you_mean(path, known) if len(problem["loc"]) == 1 else ""
        return f"{path!r} is not a field{near}"
    if problem["type"] == "value_error":  # raised by the model's own validator, which speaks for itself
        return f"{path!r}: {problem['ctx']['error']}" if problem["loc"] else str(problem["ctx"]["error"])
    if problem["type"] == "money_float":
        return f"{path!r}: {problem['msg']}"
    if problem["type"] == "timezone_aware":
        return f"{path!r} is {problem['input']!s}, a time without a zone: write tzinfo=UTC"
    return f"{path!r} is {display.short(problem['input'])}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
