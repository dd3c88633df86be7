"""A person's data made unreadable in a log that never changes: it is sealed by a key, which is thrown away.

    vault = Vault("people.keys")
    Registered(customer="ann", name=vault.seal("ann", "Ann Smith"))     # the log keeps a sealed text
    vault.open(event.name)                                              # 'Ann Smith'
    vault.forget("ann")                                                 # from now on: '(erased)'

Every copy of the log, and every backup, is erased with the key; so keep the keys in a file of their own, out
of the backups of the log. A read model that holds opened texts forgets them at its next `rebuild()`.

References: "crypto-shredding"; the cipher is AES-SIV (RFC 5297) of the library `cryptography`. It is
deterministic, so that an append that is repeated stays the same; equal texts of one person look equal, too.
"""

from __future__ import annotations

import base64
import binascii
import os
import sqlite3
import threading
import weakref
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from esim import display
from esim.arguments import storable
from esim.errors import InvalidArgument, NotAStore, NotWritten

ERASED = "(erased)"
"""What a sealed text reads as once its key is thrown away."""

_MARK = "sealed:"
_BITS = 512
_PATIENCE = 10.0  # seconds to wait for another process that writes


class Vault:
    """Keys by subject (a person, an account), in an SQLite file or in memory; seals texts and opens them."""

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        """Open the file of keys at `path`, or begin one with the first key; without a path: in memory.

        Several vaults, also of several processes, may share a file. Raises InvalidArgument where the library
        `cryptography` is missing, NotAStore for a file of another kind.
        """
        self._siv = _cipher()
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        if self._path is None:
            self._connection().execute(_TABLE)
        elif self._path.exists():
            self._rows("SELECT 1 FROM keys LIMIT 1")

    def seal(self, subject: str, text: str) -> str:
        """Return a text that only this vault can read, as long as it has the subject's key; made if need be.

        Raises InvalidArgument for what is no text, and NotWritten if a new key cannot be kept.
        """
        plain = storable(text, "text").encode()
        name = storable(subject, "subject")
        key = self._key(name)
        if key is None:
            new = "INSERT INTO keys VALUES (?, ?) ON CONFLICT DO NOTHING"
            self._write(new, name, self._siv.generate_key(_BITS))
            key = self._key(name)  # this one, or another's who was faster
        assert key is not None  # noqa: S101 - it is there, or the writing raised
        sealed = base64.urlsafe_b64encode(self._siv(key).encrypt(plain, [name.encode()])).decode()
        return f"{_MARK}{base64.urlsafe_b64encode(name.encode()).decode()}:{sealed}"

    def open(self, sealed: str) -> str:
        """Return the text, or ERASED if its key was thrown away; what was never sealed comes back as it is.

        Raises InvalidArgument for a sealed text that was changed, or sealed by another vault's key.
        """
        if not storable(sealed, "sealed").startswith(_MARK):
            return sealed
        from cryptography.exceptions import InvalidTag

        try:
            subject, content = (base64.urlsafe_b64decode(part) for part in sealed[len(_MARK) :].split(":"))
            key = self._key(subject.decode())
            return ERASED if key is None else self._siv(key).decrypt(content, [subject]).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            told = "it was changed, or sealed by another key of this name"
            raise InvalidArgument(f"{display.short(sealed)} cannot be opened: {told}") from error

    def forget(self, subject: str) -> None:
        """Throw the key of a subject away: whatever was sealed for it is unreadable from now on, everywhere.

        A new key for the same name does not open it. Raises InvalidArgument if there is no such key.
        """
        if not self._write("DELETE FROM keys WHERE subject = ?", subject):
            near = display.did_you_mean(str(subject), self.subjects)
            raise InvalidArgument(f"there is no key of {subject!r}, so nothing of it can be read{near}")

    @property
    def subjects(self) -> list[str]:
        """Whose texts can be opened, in order of their names."""
        return sorted(row[0] for row in self._rows("SELECT subject FROM keys"))

    def _key(self, subject: str) -> bytes | None:
        found = self._rows("SELECT key FROM keys WHERE subject = ?", subject)
        return found[0][0] if found else None

    def _rows(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        if self._path is not None and not self._path.exists():
            return []
        with self._lock:
            try:
                return self._connection().execute(query, params).fetchall()
            except sqlite3.Error as error:
                raise NotAStore(f"{self._told()} is no file of keys: {error}") from error

    def _write(self, query: str, *params: object) -> int:
        """Change the keys durably; return how many were changed."""
        with self._lock:
            try:
                if self._path is not None and not self._path.exists():
                    _begin(self._path)
                return self._connection().execute(query, params).rowcount
            except (OSError, sqlite3.Error) as error:
                raise NotWritten(f"the keys in {self._told()} could not be kept: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        """Return this process's own connection: one that was open before a fork is of no use after it."""
        if self._opened is None or (self._path is not None and self._opened[0] != os.getpid()):
            made = _connect(":memory:" if self._path is None else str(self._path))
            weakref.finalize(self, made.close)
            self._opened = os.getpid(), made
        return self._opened[1]

    def _told(self) -> str:
        return "memory" if self._path is None else repr(self._path.name)

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else repr(self._path.name)
        return f"<Vault {where}: keys of {len(self.subjects):,} subjects>"


_TABLE = "CREATE TABLE keys (subject TEXT PRIMARY KEY, key BLOB NOT NULL)"


def _connect(path: str) -> sqlite3.Connection:
    """Open a file of keys: each statement is a durable commit, and what is deleted is overwritten."""
    opened = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    opened.execute("PRAGMA secure_delete = ON")
    return opened


def _begin(path: Path) -> None:
    """Make a file of keys for its owner alone, unless another process has just done so."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        made = _connect(str(part))
        made.execute(_TABLE)
        made.close()
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _cipher() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    except ImportError:
        raise InvalidArgument(
            "a Vault needs the library `cryptography`: pip install 'esim[erasure]'"
        ) from None
    return AESSIV
