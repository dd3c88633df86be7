"""Parquet files: what DuckDB would make one in silence is refused.

That are columns of one file whose names differ only in case, and times that have a zone in one of the files
and none in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from esim.errors import InvalidLog
from esim.logfile import listed, made_up, same_names
from esim.logsession import Session

_MAY_BE_TIME = "(duckdb_type = 'DATE' OR starts_with(duckdb_type, 'TIMESTAMP'))"


def refuse_unclear(session: Session, name: str, files: Sequence[str], types: Mapping[str, str]) -> None:
    """Raise InvalidLog for columns of files, read together as these types, that DuckDB would take for one."""
    doubtful = made_up(types)
    if doubtful:
        there = {row[0] for row in session.rows(f"SELECT name FROM parquet_schema({listed(files)})")}
        if wrong := next((one for one in doubtful if one not in there), None):
            raise InvalidLog(same_names(name, "columns", wrong))
    if len(files) > 1 and any(_has_zone(kind) or kind.endswith("_NS") for kind in types.values()):
        _refuse_mixed_zones(session, name, files)


def _has_zone(kind: str) -> bool:
    return "ZONE" in kind or "TZ" in kind


def _refuse_mixed_zones(session: Session, name: str, files: Sequence[str]) -> None:
    """Raise InvalidLog for a column of times of which DuckDB would take those without a zone as UTC.

    With nanoseconds without a zone it would forget the zone of the others.
    """
    mixed = (
        f"SELECT 1 FROM parquet_schema({listed(files)}) WHERE {_MAY_BE_TIME} GROUP BY lower(name) "
        "HAVING count(DISTINCT regexp_matches(duckdb_type, 'ZONE|TZ')) > 1 LIMIT 1"
    )
    if not session.rows(mixed):
        return
    seen: dict[str, bool] = {}
    for one in files:  # as also a field of a struct has a name there
        for column, kind, *_ in session.rows(f"DESCRIBE FROM read_parquet({listed([one])})"):
            zone = _has_zone(kind)
            if kind.startswith(("TIMESTAMP", "DATE")) and zone != seen.setdefault(column.casefold(), zone):
                raise InvalidLog(
                    f"the times in {column!r} have a zone in some of the {name} and none in others: write "
                    "all of them in UTC"
                )
