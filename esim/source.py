"""Values as Python source: what a person would type to make them again, and the imports that takes.

>>> from decimal import Decimal
>>> source = Source()
>>> source([Decimal("7.50")])
"[Decimal('7.50')]"
>>> source.imports()
['from decimal import Decimal']
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel


class Source:
    """Writes values as source and remembers which names that needs.

    What has a method `_written_(source)` writes itself.
    """

    def __init__(self) -> None:
        """Begin with no imports."""
        self._modules: set[str] = set()
        self._names: dict[str, set[str]] = {}

    def __call__(self, value: object) -> str:
        """Return the source of a value; where none is known, its repr."""
        written = getattr(type(value), "_written_", None)
        if written is not None:
            return str(written(value, self))
        if isinstance(value, BaseModel):
            values = {name: getattr(value, name) for name in type(value).__pydantic_fields__}
            return f"{self.name(type(value))}({self._arguments(values)})"
        if isinstance(value, Enum):
            return f"{self.name(type(value))}.{value.name}"
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{self(key)}: {self(item)}' for key, item in value.items())}}}"
        if type(value) in (list, tuple, set, frozenset):
            return self._several(value)
        return self._plain(value)

    def name(self, thing: Any) -> str:
        """Return the name of a class or function; it is imported unless it is a notebook's or local."""
        module, name = getattr(thing, "__module__", "__main__"), getattr(thing, "__qualname__", repr(thing))
        if "<locals>" in name:
            return str(name.rpartition("<locals>.")[2])
        if module not in ("__main__", "builtins"):
            self.need(module, name.partition(".")[0])
        return str(name)

    def imports(self) -> list[str]:
        """Return the import lines that what was written so far needs, in order."""
        whole = [f"import {module}" for module in sorted(self._modules)]
        return whole + [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._names.items())
        ]

    def need(self, module: str, name: str) -> None:
        """Note that a program needs a name."""
        self._names.setdefault(module, set()).add(name)

    def _arguments(self, values: Mapping[str, object]) -> str:
        return ", ".join(f"{name}={self(value)}" for name, value in values.items())

    def _several(self, values: Any) -> str:
        inner = ", ".join(
            map(self, sorted(values, key=repr) if isinstance(values, set | frozenset) else values)
        )
        if isinstance(values, tuple):
            return f"({inner},)" if len(values) == 1 else f"({inner})"
        if isinstance(values, list):
            return f"[{inner}]"
        return f"{type(values).__name__}([{inner}])"

    def _plain(self, value: object) -> str:
        if isinstance(value, dt.datetime) and value.utcoffset() == dt.timedelta(0):
            value = value.astimezone(dt.UTC)
        if type(value).__module__ == "datetime":
            self._modules.add("datetime")
        elif isinstance(value, PurePath):
            self.need("pathlib", "Path")
            return f"Path({str(value)!r})"
        elif isinstance(value, Decimal | Fraction | UUID):
            self.name(type(value))
        return repr(value)
