"""CSV and JSON files: copied into a temporary table, in which no text loses what it says.

Texts stay texts there, beside SQL of what they say where that loses nothing (`logvalue`). What is nested in
JSON stays JSON, with the fields and the texts that are in it; only a fraction is written as DuckDB writes it,
so that 1.10 becomes 1.1. DuckDB guesses how a CSV is cut from its first rows, and a quote that first comes
later than those is one all the same. Where it cannot read a file, the first line at fault is looked for here.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from esim import display
from esim.errors import InvalidLog
from esim.jsonstream import JsonFile
from esim.logsession import Kept, Session
from esim.logvalue import NONE, Values, guess, values
from esim.storefile import literal, quoted

_NESTED = {"OBJECT", "ARRAY"}
_WHOLE = {"BIGINT", "UBIGINT"}
_SIGNS = ",;\t|"
_LOOKED_AT = 1 << 21  # bytes
_UNCOMMENTED = "comment = ''"  # a guessed one would take the rows that begin with it


class Copy(NamedTuple):
    """A file's rows, what their texts say, what to know of them, and names that more than one column has."""

    kept: Kept
    said: Values
    notes: tuple[str, ...] = ()
    doubles: Mapping[str, str] = {}


def listed(files: Sequence[str]) -> str:
    """Return files as a list in SQL, each as the pattern that fits it alone, whatever its name."""
    return f"[{', '.join(literal(_pattern(one)) for one in files)}]"


def _pattern(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)


def _described(session: Session, table: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in session.rows(f"DESCRIBE FROM {table}")}


def made_up(names: Collection[str]) -> list[str]:
    """Return the names that DuckDB may have made of one that differs from another only in case."""
    known = {name.casefold() for name in names}
    cut = ((name, *name.rpartition("_")) for name in names)
    return [one for one, name, sign, end in cut if sign and end.isdecimal() and name.casefold() in known]


def same_names(what: str, parts: str, name: str) -> str:
    """Return the complaint about names that SQL takes for one, of which DuckDB calls the second `name`."""
    return f"{what} has {parts} that differ only in case ({name!r} would be one): rename them"


# --- CSV ---------------------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """How the rows of a CSV are cut, as DuckDB guesses it from the first of them."""

    delimiter: str
    quote: str
    escape: str
    skipped: int
    header: bool
    columns: list[dict[str, str]]
    stamp: str | None
    day: str | None
    how: str


def read_csv(session: Session, files: Sequence[str]) -> Copy:
    """Return CSV files as a copy. Raises InvalidLog, with the line, for what cannot be cut into columns."""
    try:
        return _csv(session, files)
    except duckdb.Error as error:
        for one in files:
            _look_for_torn(one)
            _look_for_other_ends(one)
        raise _unreadable(files, error) from None


def _csv(session: Session, files: Sequence[str]) -> Copy:
    files = [one for one in files if Path(one).stat().st_size]
    cut = _cut(session, files[0])
    header = _first(_head(files[0])) if '"' in cut.how and not cut.skipped else b""
    cuts = [cut, *(cut if _begins_alike(header, one) else _cut(session, one) for one in files[1:])]
    for one, other in zip(files, cuts, strict=True):
        _look_for_other_columns(files[0], cut, one, other)
    alike = [
        ([one for one, _ in group], how)
        for how, group in groupby(zip(files, cuts, strict=True), lambda x: x[1].how)
    ]
    told = [f"read_csv({listed(group)}, union_by_name = true, {how}" for group, how in alike]
    texts, guessed = (
        " UNION ALL BY NAME ".join(f"FROM {one}{end})" for one in told)
        for end in (", all_varchar = true", "")
    )
    kept = session.keep(f"SELECT * FROM ({texts})")
    known = {column["name"].casefold() for one in cuts for column in one.columns}
    if any(name.casefold() not in known for name in _described(session, kept.name)):
        for one in files:
            _look_for_unlike_header(one)
    formats = {"TIMESTAMP": cut.stamp, "DATE": cut.day}
    unlike = {kind: form for kind, form in formats.items() if form and "%Y-%m-%d" not in form}
    said = values(session, f"SELECT * FROM {kept.name}", _described(session, f"({guessed})"), unlike)
    skipped = [
        f"{other.skipped:,} lines before the header{of_file} are passed over"
        for one, other in zip(files, cuts, strict=True)
        if other.skipped
        for of_file in ["" if other is cut else f" of {Path(one).name}"]
    ]
    doubles: dict[str, str] = {}
    for one, other in reversed([*zip(files, cuts, strict=True)]):  # what is said of the first counts
        doubles |= _doubles(one, other, cut)
    return Copy(kept, said, (*skipped, *doubles.values()), doubles)


def _cut(session: Session, path: str) -> _Cut:
    """Return how a file is cut, with the quote that may come only after the rows that DuckDB looks at."""
    cut = _sniffed(session, path, _UNCOMMENTED)
    if len(cut.columns) == 1 and any(sign in cut.columns[0]["name"] for sign in _SIGNS):
        _look_for_torn(path)
    if cut.quote != "'" and cut.escape != "\\":
        quoting = f"""{_UNCOMMENTED}, quote = '"', escape = '"'"""
        return cut._replace(how=quoting) if _sniffed(session, path, quoting).columns == cut.columns else cut
    return cut


def _begins_alike(header: bytes, path: str) -> bool:
    """Say whether a file begins with a header, and has nothing near it that may be another quote."""
    head = _head(path)
    return bool(header) and _first(head) == header and b"'" not in head and b"\\" not in head


def _first(head: bytes) -> bytes:
    """Return the first line; nothing where it may be torn within a quote."""
    line = re.split(rb"[\r\n]", head, maxsplit=1)[0]
    return b"" if line.count(b'"') % 2 else line


def _head(path: str) -> bytes:
    with _opened(path) as file:
        return file.read(_LOOKED_AT)


def _opened(path: str) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.casefold().endswith(".gz") else Path(path).open("rb")


def _look_for_other_columns(first: str, cut: _Cut, path: str, other: _Cut) -> None:
    """Raise InvalidLog for a file that has no column of the first one: it begins with something else."""
    known, found = ([column["name"] for column in one.columns] for one in (cut, other))
    if not {name.casefold() for name in known} & {name.casefold() for name in found}:
        told = " and ".join(display.cut(", ".join(names), 80) for names in (found, known))
        raise InvalidLog(
            f"{Path(path).name} has no column that {Path(first).name} has ({told}): begin it with the same "
            "header, or read it by itself"
        )


def _sniffed(session: Session, path: str, how: str) -> _Cut:
    found = "Delimiter, Quote, Escape, SkipRows, HasHeader, Columns, TimestampFormat, DateFormat"
    return _Cut._make(
        (*session.rows(f"SELECT {found} FROM sniff_csv({literal(_pattern(path))}, {how})")[0], how)
    )


def _doubles(path: str, cut: _Cut, first: _Cut) -> dict[str, str]:
    """Return what is to be said of names in the header that differ in no more than case, by the first one.

    Of the `first` file it is known what DuckDB calls the columns.
    """
    if not cut.header or len(cut.delimiter) != 1:
        return {}
    rows = csv.reader(islice(_lines(path), cut.skipped, None), delimiter=cut.delimiter)
    groups: dict[str, list[tuple[str, str]]] = {}
    header: list[str] = next((row for row in rows if row), [])
    names = [name.strip() for name in header]
    columns = [column["name"] for column in first.columns]
    known = {name.casefold(): name for name in columns}
    called = columns if cut is first else [known.get(name.casefold(), name) for name in names]
    for name, column in zip(names, called, strict=False):
        groups.setdefault(name.casefold(), []).append((name, column))
    of_file = "" if cut is first else f" of {Path(path).name}"
    return {
        same[0][1]: f"several columns{of_file} are called {', '.join(repr(name) for name, _ in same)}, and "
        f"SQL knows no case in names: here they are {', '.join(dict.fromkeys(one for _, one in same))}"
        for key, same in groups.items()
        if key and len(same) > 1
    }  # fmt: skip


def _look_for_torn(path: str) -> None:
    """Raise InvalidLog for the first line that is no UTF-8 or has not as many fields as most have."""
    widths = Counter(width for _, width in _widths(path))
    usual = max(widths, key=lambda width: (widths[width], width), default=0)
    begun = False
    for line, width in _widths(path):
        begun = begun or width == usual
        if begun and width != usual:
            raise _unlike(path, line, width, f"most lines have {usual:,}")


def _unlike(path: str, line: int, width: int, others: str) -> InvalidLog:
    fields = f"{width:,} field{'' if width == 1 else 's'}"
    return InvalidLog(
        f"{Path(path).name}, line {line:,}: {fields}, where {others}: mend that line, or leave it out"
    )


def _look_for_unlike_header(path: str) -> None:
    """Raise InvalidLog for the first row that has more or fewer fields than the header."""
    rows = _widths(path)
    header = next(rows, (1, 0))[1]
    for line, width in rows:
        if width != header:
            raise _unlike(path, line, width, f"the header has {header:,}")


def _look_for_other_ends(path: str) -> None:
    """Raise InvalidLog for the first line that ends otherwise than the first one."""
    first = ""
    for number, line in enumerate(_lines(path), 1):
        end = next((one for one in ("\r\n", "\n", "\r") if line.endswith(one)), first)
        first = first or end
        if end != first:
            told = "ends otherwise than the first one (\\n, \\r\\n, \\r): give all lines one ending"
            raise InvalidLog(f"{Path(path).name}, line {number:,}: {told}")


def _widths(path: str) -> Iterator[tuple[int, int]]:
    """Give the line in which each row begins, and how many fields it has."""
    first = next(filter(str.strip, _lines(path)), "")
    rows = csv.reader(_lines(path), delimiter=max(_SIGNS, key=first.count), strict=True)
    line = 1
    try:
        for row in rows:
            if row:
                yield line, len(row)
            line = rows.line_num + 1
    except csv.Error as error:
        told = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
        raise InvalidLog(f"{Path(path).name}, line {line:,}: {told}") from None


def _lines(path: str) -> Iterator[str]:
    with _opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line if line.isascii() else line.encode("utf-8", "surrogateescape").decode()
            except UnicodeDecodeError as error:
                told = f"this is no UTF-8 ({error.reason}): save the file as UTF-8"
                raise InvalidLog(f"{Path(path).name}, line {number:,}: {told}") from None


def _unreadable(files: Sequence[str], error: duckdb.Error) -> InvalidLog:
    """Return what DuckDB says of files, without its ways out, which a log has not."""
    told = re.split(r"Possible|The search space|[.,]?\sTry |, try |\nLINE ", str(error))[0]
    return InvalidLog(f"{_names(files)} cannot be read: {' '.join(told.split())[:400]}")


def _names(files: Sequence[str]) -> str:
    return repr(Path(files[0]).name) if len(files) == 1 else f"{len(files)} files"


# --- JSON --------------------------------------------------------------------------------------------------


def read_json(session: Session, files: Sequence[str]) -> Copy:
    """Return JSON files as a copy. Raises InvalidLog, with the line, for what is no JSON and no event."""
    try:
        return _json(session, files)
    except duckdb.Error as error:
        for one in files:
            _look_for_fault(one)
        raise _unreadable(files, error) from None


def _json(session: Session, files: Sequence[str]) -> Copy:
    """Look at all of it, for DuckDB drops a field that its sample has not, but not into what is nested."""
    table = f"read_json({listed(files)}, union_by_name = true, sample_size = -1"
    names = list(_described(session, f"{table}, maximum_depth = 1)"))
    if names == ["json"]:  # so DuckDB calls what is no object
        for one in files:
            _look_for_fault(one)
        raise InvalidLog(f"{_names(files)} has no events, which are JSON objects")
    cells = _columns(table, dict.fromkeys(names, "JSON"))
    asked = ", ".join(f"list(DISTINCT json_type({quoted(one)}))" for one in names)
    seen: list[list[str | None] | None] = session.rows(f"SELECT {asked} FROM {cells}")[0]
    types = {name: _known(found or ()) for name, found in zip(names, seen, strict=True)}
    kinds = {name: "JSON" if found & _NESTED else "VARCHAR" for name, found in types.items()}
    kept = session.keep(f"SELECT * FROM {_columns(table, kinds)}")
    _refuse_renamed(session, files, f"{table}, maximum_depth = 1)", names, kept)
    texts = {name: found for name, found in types.items() if kinds[name] == "VARCHAR"}
    return Copy(kept, _said(session, f"SELECT * FROM {kept.name}", texts) if texts else NONE)


def _known(types: Iterable[str | None]) -> set[str]:
    return {one for one in types if one is not None and one != "NULL"}


def _said(session: Session, select: str, types: Mapping[str, set[str]]) -> Values:
    """Return what the texts of fields say, by the types that JSON has for them."""
    least = session.rows(f"SELECT {', '.join(f'min({quoted(name)})' for name in types)} FROM ({select})")[0]
    guessed = {}
    for (name, kinds), text in zip(types.items(), least, strict=True):
        if kinds == {"VARCHAR"}:
            guessed[name] = guess(session, str(text))
        elif kinds and kinds <= {*_WHOLE, "DOUBLE"}:
            guessed[name] = "BIGINT" if kinds <= _WHOLE else "DOUBLE"
        elif kinds == {"BOOLEAN"}:
            guessed[name] = "BOOLEAN"
    return values(session, select, guessed, {})


def _columns(table: str, kinds: Mapping[str, str]) -> str:
    told = ", ".join(f"{literal(one)}: {literal(kind)}" for one, kind in kinds.items())
    return f"{table}, columns = {{{told}}})"


def _refuse_renamed(
    session: Session, files: Sequence[str], table: str, names: Sequence[str], kept: Kept
) -> None:
    """Refuse fields that differ only in case: DuckDB calls the second `name_1`, as another may be called."""
    for name in made_up(names):
        count = f"SELECT count({quoted(name)}) FROM"
        if session.rows(f"{count} {table}") != session.rows(f"{count} {kept.name}"):
            raise InvalidLog(same_names(_names(files), "fields", name))


def _look_for_fault(path: str) -> None:
    """Raise InvalidLog with the line of what is no JSON, which DuckDB counts its own way, or no event."""
    if path.casefold().endswith(".gz"):
        return
    with JsonFile(Path(path)) as file:
        found: Iterator[Any] = (
            (value for _, value in file.elements()) if file.opening() == "[" else file.lines()
        )
        for value in found:
            if not isinstance(value, dict):
                file.fail(f"{display.short(value)} is no event: events are JSON objects")
