"""Dataframes of any library as Arrow tables, with what Arrow would guess about their columns looked at."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from esim import display
from esim.errors import InvalidArgument, InvalidLog

if TYPE_CHECKING:
    import pyarrow as pa


def arrow(given: Any) -> pa.Table:
    """Return a dataframe of any library as an Arrow table.

    Raises InvalidLog for a column of mixed types, or two of one name, and InvalidArgument for what is none.
    """
    import pyarrow as pa

    if isinstance(given, pa.Table):
        return given
    try:
        if hasattr(given, "items"):
            refuse_doubles([str(name) for name in given.keys()], f"the {type(given).__name__}")  # noqa: SIM118
            _refuse_mixed_times(given)
        if type(given).__module__.startswith("pandas"):
            return pa.Table.from_pandas(given, preserve_index=False)
        if hasattr(given, "collect"):
            given = given.collect()
        if hasattr(given, "to_arrow"):
            return given.to_arrow()
        return pa.table(given)
    except InvalidLog:
        raise
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidLog(
            f"the {type(given).__name__} has a column of mixed types ({error}); give it one type"
        ) from None
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{display.short(given)} is no log: give a store, a dataframe, an Arrow table, a DuckDB "
            "relation, or the path of a file"
        ) from None


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
        if str(getattr(values, "dtype", "object")) != "object":
            continue
        found = {_told(one): one for one in values if isinstance(one, date) and one == one}  # noqa: PLR0124 - NaT
        if len(found) > 1:
            told = ", ".join(f"{kind} ({one})" for kind, one in sorted(found.items()))
            raise InvalidLog(f"the column {name!r} mixes {told}: make them one kind first")


def _told(value: date) -> str:
    if not isinstance(value, datetime):
        return "dates"
    return "times without a zone" if value.tzinfo is None else "times with a zone"
