"""What the texts of a file say: numbers, truths and times, as SQL.

A column of texts has values only where not one of its texts would lose anything by it. So nothing is lost
that comes after the rows that DuckDB looks at for its guess, and an id stays as it was written.
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
    if kind in ("BIGINT", "HUGEINT"):
        return value, f"CASE WHEN {value}::VARCHAR = {text} THEN {value} END"
    if kind == "DATE":
        return value, f"CASE WHEN regexp_full_match({text}, '{_DAY}\\s*') THEN {value} END"
    if kind == "TIMESTAMP":
        return value, naive(text)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return aware(text), aware(text)
    return (value, value) if kind in ("DOUBLE", "BOOLEAN", "TIME") else None


def _is_unsure(session: Session, texts: str, text: str, form: str) -> bool:
    """Say whether days and months may have changed places, or days and years of two digits."""
    other = re.sub("%[dm]", lambda found: "%m" if found[0] == "%d" else "%d", form)
    wrong = f"{text} IS NOT NULL AND try_strptime({text}, {literal(other)}) IS NULL"
    return "%y" in form or not session.rows(f"SELECT 1 FROM ({texts}) WHERE {wrong} LIMIT 1")


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
        elif kind in _NUMBERS:
            told = f"{count:,} of its values {'is' if count == 1 else 'are'} no {kind}"
            remarks[name] = f"{name} is kept as text: {told} ({display.short(worst, 40)})"
    return Values(good, remarks)
