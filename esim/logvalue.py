"""What the texts of a file say: numbers, truths and times, as SQL.

A column of texts has values only where each of its texts is one, with all of its digits. So nothing is lost
that comes after the rows that DuckDB looks at for its guess. Texts that are one value, as 1.1 and 1.10, are
said; in a role that names something each stays what was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from esim import display
from esim.logsession import Session
from esim.storefile import literal, quoted

_DAY = r"\s*[0-9]{4,6}[-/ ][0-9]{1,2}[-/ ][0-9]{1,2}"
_CLOCK = r"[T ]+[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]*)?)?"
_OFFSET = "Z|[+-][0-9]{2}(:?[0-9]{2})?"
_REGION = "UTC|GMT|[A-Za-z_]+(/[A-Za-z0-9_+-]+)+"  # EST, IST or BST is more than one zone
_NUMBERS = ("BIGINT", "HUGEINT", "DOUBLE", "BOOLEAN")
_MERGING = ("DOUBLE", "BOOLEAN", "TIME")  # kinds of which a value may be written in several ways
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME")
_DIGITS = 17  # that a DOUBLE keeps


def zoned(text: str) -> str:
    """Return SQL that says whether a text is a time with a zone: an offset, or the name of a region."""
    return f"regexp_full_match({text}, '{_DAY}{_CLOCK}\\s*({_OFFSET}|{_REGION})\\s*')"


def naive(text: str) -> str:
    """Return SQL that gives the time that a text names without a zone, NULL where it is none."""
    looks = f"regexp_full_match({text}, '{_DAY}({_CLOCK})?\\s*')"
    return f"CASE WHEN {looks} THEN try_cast({text} AS TIMESTAMP) END"  # which drops what it does not know


def aware(text: str) -> str:
    """Return SQL that gives the time that a text names with its zone, NULL where it is none."""
    near = f"regexp_replace({text}, '\\s+({_OFFSET})\\s*$', '\\1')"
    return f"CASE WHEN {zoned(text)} THEN try_cast({near} AS TIMESTAMPTZ) END"


def _value(text: str, kind: str, form: str | None) -> tuple[str, str] | None:
    """Return SQL of the value of a text, and of the same where it is NULL if the text says more than that."""
    if form is not None:
        value = f"try_strptime({text}, {literal(form)})::{kind}"
        return value, value
    value = f"try_cast({text} AS {kind})"
    digits = f"length(ltrim(regexp_replace({text}, '[eE].*|[^0-9]', '', 'g'), '0'))"
    exact = f"length({text}) <= {_DIGITS} OR {digits} <= {_DIGITS}"
    whole = {
        **dict.fromkeys(("BIGINT", "HUGEINT"), f"CASE WHEN {value}::VARCHAR = {text} THEN {value} END"),
        "DOUBLE": f"CASE WHEN {exact} THEN {value} END",
        "DATE": f"CASE WHEN regexp_full_match({text}, '{_DAY}\\s*') THEN {value} END",
        "TIMESTAMP": _coarse(text, naive(text)),
        "BOOLEAN": value,
        "TIME": f"CASE WHEN NOT regexp_matches({text}, '^{_DAY}') THEN {value} END",
    }
    if kind == "TIMESTAMP WITH TIME ZONE":
        return aware(text), _coarse(text, aware(text))
    return (value, whole[kind]) if kind in whole else None


def _coarse(text: str, value: str) -> str:
    """Return SQL of a time whose text has no digit that a microsecond has not."""
    return f"CASE WHEN NOT regexp_matches({text}, '\\.[0-9]{{6}}[0-9]*[1-9]') THEN {value} END"


def guess(session: Session, text: str) -> str:
    """Return what a text may be: a date, a time with or without a zone, a time of day, or only a text."""
    kinds = [(kind, found[1]) for kind in _TIMES if (found := _value(literal(text), kind, None)) is not None]
    found = session.rows(f"SELECT {', '.join(f'({whole}) IS NOT NULL' for _, whole in kinds)}")[0]
    return next((kind for (kind, _), fits in zip(kinds, found, strict=True) if fits), "VARCHAR")


def _is_unsure(session: Session, texts: str, text: str, form: str) -> bool:
    """Say whether days and months may have changed places, or days and years of two digits."""
    other = re.sub("%[dm]", lambda found: "%m" if found[0] == "%d" else "%d", form)
    wrong = f"{text} IS NOT NULL AND try_strptime({text}, {literal(other)}) IS NULL"
    return "%y" in form or not session.rows(f"SELECT 1 FROM ({texts}) WHERE {wrong} LIMIT 1")


def _one_value(session: Session, texts: str, text: str, value: str) -> tuple[str, str] | None:
    """Return two texts that are the same value, or None."""
    same = (
        f"SELECT min({text}), max({text}) FROM ({texts}) GROUP BY {value} HAVING min({text}) <> max({text})"
    )
    return next(iter(session.rows(f"{same} ORDER BY 1 LIMIT 1")), None)


class Values(NamedTuple):
    """SQL of the values of some columns of texts, and what there is to say of such columns."""

    values: Mapping[str, str]
    remarks: Mapping[str, str]


NONE = Values({}, {})


def values(session: Session, texts: str, guessed: Mapping[str, str], formats: Mapping[str, str]) -> Values:
    """Return what the columns of the SELECT `texts` say, if all of their texts are what is `guessed`.

    `formats` are how a guessed TIMESTAMP and DATE are written where that is not as in ISO 8601.
    """
    tried = {
        name: found
        for name, kind in guessed.items()
        if (found := _value(quoted(name), kind, formats.get(kind))) is not None
    }
    bad = [f"{quoted(name)} IS NOT NULL AND ({whole}) IS NULL" for name, (_, whole) in tried.items()]
    asked = [
        f"count(*) FILTER ({one}), min({quoted(name)}) FILTER ({one})"
        for name, one in zip(tried, bad, strict=True)
    ]
    seen = session.rows(f"SELECT {', '.join(asked)} FROM ({texts})")[0] if asked else ()
    good, remarks = {}, {}
    for name, count, worst in zip(tried, seen[::2], seen[1::2], strict=True):
        kind = guessed[name]
        if not count:
            good[name] = tried[name][0]
            if kind in formats and _is_unsure(session, texts, quoted(name), formats[kind]):
                told = f"the times in {name} are read as {formats[kind]}, and might be otherwise"
                remarks[name] = f"{told}: as the log's time, give time_format='%d/%m/%Y %H:%M'"
            if kind in _MERGING and (same := _one_value(session, texts, quoted(name), good[name])):
                told = " and ".join(display.short(text, 40) for text in same)
                remarks[name] = (
                    f"{told} in {name} are one value, of type {kind}: resource={name!r} tells them apart"
                )
        elif kind in _NUMBERS:
            told = f"{count:,} of its values {'is' if count == 1 else 'are'} no {kind}"
            remarks[name] = f"{name} is kept as text: {told} ({display.short(worst, 40)})"
    return Values(good, remarks)
