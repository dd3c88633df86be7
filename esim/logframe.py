"""Dataframes of any library as Arrow tables, with what Arrow would guess about their columns looked at.

A column of Python dicts becomes one of JSON, for Arrow would give each of them the fields of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from esim import display
from esim.errors import InvalidArgument, InvalidLog

if TYPE_CHECKING:
    import pyarrow as pa


def arrow(given: Any) -> pa.Table:
    """Return a dataframe of any library as an Arrow table.

    Raises InvalidLog for a column of mixed types, two of one name, or half a character in a text, and
    InvalidArgument for what is no dataframe.
    """
    import pyarrow as pa

    if isinstance(given, pa.Table):
        return given
    try:
        if hasattr(given, "items"):
            refuse_doubles([str(name) for name in given.keys()], f"the {type(given).__name__}")  # noqa: SIM118
            _refuse_mixed_times(given)
            return _with_json(given)
        if hasattr(given, "collect"):
            given = given.collect()
        if hasattr(given, "to_arrow"):
            return given.to_arrow()
        return pa.table(given)
    except InvalidLog:
        raise
    except UnicodeEncodeError as error:
        raise InvalidLog(
            f"{_where_cut(given)} a text with half a character: {display.short(error.object)}; mend it, "
            "as text.encode('utf-8', 'replace').decode() does"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidLog(
            f"the {type(given).__name__} has a column of mixed types ({error}); give it one type"
        ) from None
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{display.short(given)} is no log: give a store, a dataframe, an Arrow table, a DuckDB "
            "relation, or the path of a file"
        ) from None


def _with_json(columns: Any) -> pa.Table:
    """Return named columns as a table, those in which there are dicts as JSON."""
    import pyarrow as pa

    texts = {
        name: _texts(name, values)
        for name, values in columns.items()
        if any(map(_has_fields, _objects(values)))
    }
    if type(columns).__module__.startswith("pandas"):
        table = pa.Table.from_pandas(columns.assign(**dict.fromkeys(texts)), preserve_index=False)
    else:
        table = pa.table({**columns, **texts})
    for name, values in texts.items():
        cells = pa.ExtensionArray.from_storage(pa.json_(), pa.array(values, pa.string()))
        table = table.set_column(table.column_names.index(name), name, cells)
    return table


def _objects(values: Any) -> Any:
    """Return the values of a column that may be any Python objects; none of one that has a type."""
    return values if str(getattr(values, "dtype", "object")) == "object" else ()


def _has_fields(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(_has_fields, value)))


def _texts(name: str, values: Any) -> list[str | None]:
    try:
        return [
            None
            if value is None or value != value  # noqa: PLR0124 - NaN
            else json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
            for value in values
        ]
    except (TypeError, ValueError) as error:
        raise InvalidLog(f"the column {name!r} has dicts, and a value that is no JSON: {error}") from None


def _where_cut(columns: Any) -> str:
    """Return the begin of a sentence that says where there is a text that UTF-8 cannot hold."""
    for name, values in columns.items():
        if _is_cut(str(name)):
            return "the name of a column is"
        typed = str(getattr(values, "dtype", "object")) not in ("object", "category")
        for row, value in enumerate(() if typed else values, 1):
            if _is_cut(value):
                return f"the column {name!r} has in row {row:,}"
    return "a column has"


def _is_cut(value: object) -> bool:
    import pyarrow as pa

    try:
        pa.array([value])
    except UnicodeEncodeError:
        return True
    except (pa.ArrowException, TypeError, ValueError):
        pass
    return False


def _plain(value: Any) -> Any:
    """Return what stands in JSON for a Python value that it does not know."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    raise TypeError(f"{display.short(value)} of type {type(value).__name__}")


def refuse_doubles(names: list[str], what: str) -> None:
    """Raise InvalidLog for names that differ only in case."""
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise InvalidLog(
                f"{what} has two columns {seen[name.casefold()]!r} and {name!r}, and SQL knows no case in "
                "names: rename one"
            )
        seen[name.casefold()] = name


def _refuse_mixed_times(columns: Any) -> None:
    """Raise InvalidLog for a column of Python objects that Arrow would make times of by the first of them."""
    for name, values in columns.items():
        found = {_told(one): one for one in _objects(values) if isinstance(one, date) and one == one}  # noqa: PLR0124 - NaT
        if len(found) > 1:
            told = ", ".join(f"{kind} ({one})" for kind, one in sorted(found.items()))
            raise InvalidLog(f"the column {name!r} mixes {told}: make them one kind first")


def _told(value: date) -> str:
    if not isinstance(value, datetime):
        return "dates"
    return "times without a zone" if value.tzinfo is None else "times with a zone"
