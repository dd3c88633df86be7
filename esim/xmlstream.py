"""XML files read element by element and written text by text, with nothing but what stands in the file.

A document type is refused: neither XES nor OCEL has one, and all that it could bring are entities, which
fetch other files or grow without end. What XML cannot hold is refused on the way out.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from esim import display
from esim.bar import Bar
from esim.errors import InvalidLog

_CHUNK = 1 << 18  # bytes parsed at a time
_NEEDS_CARE = re.compile('[&<>"\t\n\r]|[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')
_INVALID = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)
GZIP = b"\x1f\x8b"


def escape(text: str) -> str:
    """Return a text as it stands in an attribute or an element. Raises InvalidLog for what XML cannot hold.

    >>> escape('5 < 6 & "7"')
    '5 &lt; 6 &amp; &quot;7&quot;'
    """
    if _NEEDS_CARE.search(text) is None:
        return text
    wrong = _INVALID.search(text)
    if wrong:
        raise InvalidLog(
            f"{display.short(text)} holds the character U+{ord(wrong[0]):04X}, which no XML can: "
            "replace it, or write JSON"
        )
    return text.translate(_ESCAPES)


class XmlReader:
    """Parses a file, plain or gzipped, into calls of `start`, `end` and, if given, `text`."""

    def __init__(self, path: Path) -> None:
        """Read the file at `path`."""
        self._path = path
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._no_doctype

    def parse(
        self,
        start: Callable[[str, dict[str, str]], None],
        end: Callable[[str], None],
        text: Callable[[str], None] | None = None,
    ) -> None:
        """Read the whole file. Names come as they stand there, with a prefix if they have one."""
        self._parser.StartElementHandler, self._parser.EndElementHandler = start, end
        if text is not None:
            self._parser.CharacterDataHandler = text
        try:
            self._feed()
        except expat.ExpatError as error:
            self._fail_at(error.lineno, error.offset, expat.ErrorString(error.code))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.fail(f"the compressed file is damaged or cut short: {error}")

    def _feed(self) -> None:
        size = self._path.stat().st_size
        with self._path.open("rb") as raw, Bar(0, size, f"reading {self._path.name}", "B") as bar:
            zipped = raw.read(2) == GZIP
            raw.seek(0)
            source: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
            while chunk := source.read(_CHUNK):
                self._parser.Parse(chunk, False)
                bar.at(raw.tell())
            self._parser.Parse(b"", True)

    def fail(self, told: str) -> NoReturn:
        """Raise InvalidLog about the element that is being read."""
        self._fail_at(self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber, told)

    def need(self, values: dict[str, str], name: str, tag: str) -> str:
        """Return a required attribute of an element. Raises InvalidLog if it is missing."""
        try:
            return values[name]
        except KeyError:
            self.fail(f"<{tag}> has no {name!r}")

    def _no_doctype(self, *_: object) -> None:
        self.fail(
            "a document type (<!DOCTYPE …>) is refused, since it can bring entities: no event log needs one"
        )

    def _fail_at(self, line: int, offset: int, told: str) -> NoReturn:
        raise InvalidLog(f"{self._path.name}, line {line:,}, column {offset + 1:,}: {told}")
