"""Values as short, plain, readable text: no repr, no type names, a line for each record of a list.

Everything is capped, and what is left out is counted; nothing here is HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

from pydantic import BaseModel

from esim.display import clean

T = TypeVar("T")

MAX_TEXT = 300
MAX_ITEMS = 8


def text_of(value: object) -> str:
    r"""Return a value as text of a few short lines: a list of records takes a line for each.

    >>> text_of([{"sku": "mug", "quantity": 2}, {"sku": "pen", "quantity": 1}])
    'sku mug · quantity 2\nsku pen · quantity 1'
    """
    plain = _plain(value)
    if isinstance(plain, dict) and plain:
        return "\n".join(_few(list(plain.items()), lambda pair: f"{clean(str(pair[0]))}: {_inline(pair[1])}"))
    if isinstance(plain, list) and any(isinstance(item, dict | list) for item in plain):
        return "\n".join(_few(plain, _inline))
    return _inline(plain)


def _few(items: list[T], told: Callable[[T], str]) -> list[str]:
    more = len(items) - MAX_ITEMS
    return [*map(told, items[:MAX_ITEMS]), *([f"… and {more:,} more"] if more > 0 else [])]


def _inline(plain: object) -> str:
    if isinstance(plain, dict) and plain:
        text = " · ".join(_few(list(plain.items()), lambda pair: f"{clean(str(pair[0]))} {_inline(pair[1])}"))
    elif isinstance(plain, list) and plain:
        text = ", ".join(_few(plain, _inline))
    else:
        text = clean(str(plain)) if plain != "" else "''"
    return cut(text, MAX_TEXT)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        items = [_plain(item) for item in value]
        return sorted(items, key=str) if isinstance(value, AbstractSet) else items
    if isinstance(value, Enum):
        return value.value
    if str(value) in ("nan", "NaT", "<NA>"):
        return None
    return _moment(value) if isinstance(value, datetime) else value


def _moment(at: datetime) -> str:
    if at.tzinfo:
        at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}{at:.%f}".removesuffix(".000000") + (" UTC" if at.tzinfo else "")


def cut(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, saying how many there are."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
