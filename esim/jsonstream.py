"""JSON files read piece by piece: each element of a list becomes Python values, the list itself never.

A piece that does not end within what has been read is tried again with more of the file; an error that lies
well before the end of that is one of the file, and is told with its line and column.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

from esim import display
from esim.bar import Bar
from esim.errors import InvalidLog

_CHUNK = 1 << 20  # bytes read at a time
_NUMBER_CUT = 3  # so near to it a number may go on: as 1.5 after "1.", and 1e+5 after "1e+"
_EARLY = "the file ends too early"
_NEAR = 16  # so near to the end of what was read, an error may be for want of more
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SPACE = re.compile(r"[ \t\n\r]*")


class Digits(float):
    """A fraction that remembers how it was written, so that 1.60 stays 1.60."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Read a fraction."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON: write null, or a number")


def dumped(value: Any) -> str:
    """Return JSON as compact text, with fractions as they were written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(key)}:{dumped(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return value.text if isinstance(value, Digits) else _string(value)


_string = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def is_number(text: str) -> bool:
    """Say whether a text is a number as JSON writes it."""
    return _NUMBER.fullmatch(text) is not None


def compact(text: str) -> str:
    """Return JSON text on one line, fractions as they are; a text that is no JSON becomes a JSON string."""
    try:
        return dumped(json.loads(text, parse_float=Digits, parse_constant=_constant))
    except (ValueError, RecursionError):
        return _string(text)


class JsonFile:
    """A JSON text on its way in: where it is, what comes next, and how to complain about it."""

    def __init__(self, path: Path) -> None:
        """Read the file at `path`, which is UTF-8, in a `with` block."""
        self._path = path
        self._decode = json.JSONDecoder(parse_float=Digits, parse_constant=_constant).raw_decode
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._began = "", 0, 0
        self._lines, self._column = 1, 1  # where the text begins
        self._ended = False
        self.members: set[str] = set()

    def __enter__(self) -> Self:
        self._file = self._path.open("rb")
        self._bar = Bar(0, self._path.stat().st_size, f"reading {self._path.name}", "B").__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)
        self._file.close()

    def opening(self) -> str:
        """Return the first character, which tells a list from an object; '' where there is nothing."""
        return self._peek()

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Give the elements of the outermost list, or of each list in the outermost object with its name.

        A member that is no list comes whole. `members` are the names that were met.
        """
        opening = self._peek()
        if opening == "[":
            yield from (("", value) for value in self._list())
        elif opening == "{":
            yield from self._object()
        else:
            self.fail_here("expected a list or an object" if opening else "the file is empty")
        if self._peek():
            self.fail_here("there is more after the end of the JSON")

    def lines(self) -> Iterator[Any]:
        """Give the values of JSON lines; empty lines are passed over."""
        while self._peek():
            yield self._value()
            if self._text[self._at : self._at + 1] not in {"", " ", "\t", "\r", "\n"}:
                self.fail_here("expected one value on each line")

    def fail(self, told: str) -> NoReturn:
        """Raise InvalidLog about the latest value."""
        raise InvalidLog(f"{self._path.name}, line {self._place(self._began)[0]:,}: {told}")

    def fail_here(self, told: str) -> NoReturn:
        """Raise InvalidLog about the place reached."""
        self._fail_at(self._at, told)

    def _object(self) -> Iterator[tuple[str, Any]]:
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                self.fail_here('expected a name in double quotes: "…"')
            name = self._value()
            self.members.add(name)
            self._expect(":")
            if self._peek() == "[":
                yield from ((name, value) for value in self._list())
            else:
                yield name, self._value()
            if self._next_or("}"):
                return

    def _list(self) -> Iterator[Any]:
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self._peek()
            yield self._value()
            if self._next_or("]"):
                return

    def _next_or(self, closing: str) -> bool:
        found = self._peek()
        if found not in {",", closing}:
            self.fail_here(f"expected , or {closing}" if found else _EARLY)
        self._at += 1
        return found == closing

    def _expect(self, sign: str) -> None:
        found = self._peek()
        if found != sign:
            self.fail_here(f"expected {sign}" if found else _EARLY)
        self._at += 1

    def _peek(self) -> str:
        """Pass over space, and return the next character without taking it; '' at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                self._give_up_or_read(error)
                continue
            except RecursionError:
                self.fail_here("this is nested too deeply to be read")
            except ValueError as error:
                self.fail_here(str(error))
            length = end - self._at  # reading on forgets what lies before
            if end >= len(self._text) - _NUMBER_CUT and self._more():
                continue
            self._began, self._at = self._at, self._at + length
            return value

    def _give_up_or_read(self, error: json.JSONDecodeError) -> None:
        open_ = error.msg.startswith("Unterminated")
        inside = error.pos - self._at  # reading on forgets what lies before
        if not ((open_ or error.pos >= len(self._text) - _NEAR) and self._more()):
            place = self._at + inside
            told = _EARLY if open_ or not self._text[place:].strip() else error.msg
            begun, at = self._place(self._at)[0], self._place(place)[0]
            self._fail_at(place, told if begun == at else f"{told}, in what begins in line {begun:,}")

    def _more(self) -> bool:
        """Read on, as much again as is waiting, and forget what has been taken."""
        if self._ended:
            return False
        self._lines, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :], 0
        read = self._file.read(max(_CHUNK, len(self._text)))
        self._ended = not read
        try:
            self._text += self._utf8.decode(read, final=self._ended)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            self._fail_at(len(self._text), f"this is no UTF-8: {error.reason}")
        self._bar.at(self._file.tell())
        return not self._ended

    def _place(self, at: int) -> tuple[int, int]:
        """Return the line and column of a place in the text at hand."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._lines + lines, at - self._text.rfind("\n", 0, at)
        return self._lines, self._column + at

    def _fail_at(self, at: int, told: str) -> NoReturn:
        line, column = self._place(at)
        raise InvalidLog(f"{self._path.name}, line {line:,}, column {column:,}: {told}")


Fail = Callable[[str], NoReturn]


def text_of(value: Any, name: str, fail: Fail) -> str:
    """Return a required member that must be a text. Complains if it is missing, empty or another thing."""
    if value is None:
        fail(f"{name} is missing")
    if not isinstance(value, str) or not value:
        fail(f"{name} is {display.short(value)}: it must be a text that is not empty")
    return value
