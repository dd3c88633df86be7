"""A person's data made unreadable in a log that never changes: it is sealed by a key, which is thrown away.

    vault = Vault("people.keys")
    Registered(customer="ann", name=vault.seal("ann", "Ann Smith"))     # the log keeps a sealed text
    vault.open(event.name)                                              # 'Ann Smith'
    vault.forget("ann")                                                 # from now on: '(erased)'

Every copy of the log, and every backup, is erased with the key; so keep the keys in a file of their own, out
of the backups of the log. A read model that holds opened texts forgets them at its next `rebuild()`. A sealed
text names its key, and the vault the keys it has thrown away: whoever comes back gets another key, and what
was sealed before stays erased.

References: "crypto-shredding"; the cipher is AES-SIV (RFC 5297) of the library `cryptography`. It is
deterministic, so that an append that is repeated stays the same; equal texts of one person look equal, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
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
            self._connection().executescript(_TABLES)
        elif self._path.exists():
            self._rows("SELECT subject, key, id FROM keys LIMIT 1")

    def seal(self, subject: str, text: str) -> str:
        """Return a text that only this vault can read, as long as it has the subject's key; made if need be.

        Raises InvalidArgument for what is no text, and NotWritten if a new key cannot be kept.
        """
        plain = storable(text, "text").encode()
        name = storable(subject, "subject")
        key = self._key(name)
        if key is None:
            key = self._siv.generate_key(_BITS)
            new = "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            self._write(new, name, key, _id_of(key))
            key = self._key(name)  # this one, or another's who was faster
        assert key is not None  # noqa: S101 - it is there, or the writing raised
        content = self._siv(key).encrypt(plain, [name.encode()])
        parts = (base64.urlsafe_b64encode(part).decode() for part in (name.encode(), _id_of(key), content))
        return _MARK + ":".join(parts)

    def open(self, sealed: str) -> str:
        """Return the text, or ERASED if its key was thrown away; what was never sealed comes back as it is.

        Without any key of its subject it is erased, too. Raises InvalidArgument for a sealed text that was
        changed, or is another vault's.
        """
        if not storable(sealed, "sealed").startswith(_MARK):
            return sealed
        from cryptography.exceptions import InvalidTag

        try:
            parts = sealed[len(_MARK) :].split(":")
            subject, key_id, content = (base64.urlsafe_b64decode(part) for part in parts)
            key = self._key(subject.decode())
            if key is None or self._rows("SELECT 1 FROM forgotten WHERE id = ?", key_id):
                return ERASED
            plain: bytes = self._siv(key).decrypt(content, [subject])
            return plain.decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            told = "it was changed, or sealed by another vault"
            raise InvalidArgument(f"{display.short(sealed)} cannot be opened: {told}") from error

    def forget(self, subject: str) -> None:
        """Throw the key of a subject away: whatever was sealed for it is unreadable from now on, everywhere.

        It stays so when the same name gets a new key. Raises InvalidArgument if there is no such key.
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


_TABLES = """
CREATE TABLE keys (subject TEXT PRIMARY KEY, key BLOB NOT NULL, id BLOB NOT NULL);
CREATE TABLE forgotten (id BLOB PRIMARY KEY);
CREATE TRIGGER forgetting AFTER DELETE ON keys BEGIN INSERT INTO forgotten VALUES (old.id); END;
"""


def _id_of(key: bytes) -> bytes:
    """Return by what a sealed text names its key; it tells nothing of the key, nor of whose it was."""
    return hashlib.blake2b(key, digest_size=12).digest()


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
        made.executescript(_TABLES)
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
