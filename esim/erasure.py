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
import json
import os
import threading
from collections.abc import Iterable
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


class Vault:
    """Keys by subject (a person, an account), in a file or in memory; it seals texts and opens them."""

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        """Open the file of keys at `path`, or begin one; without a path the keys live in memory.

        Raises InvalidArgument where the library `cryptography` is missing, NotAStore for a file of another
        kind.
        """
        self._siv = _cipher()
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._keys = self._read()

    def seal(self, subject: str, text: str) -> str:
        """Return a text that only this vault can read, as long as it has the subject's key; made if need be.

        Raises InvalidArgument for what is no text, and NotWritten if a new key cannot be kept.
        """
        plain = storable(text, "text").encode()
        name = storable(subject, "subject")
        with self._lock:
            key = self._keys.get(name)
            if key is None:
                key = self._siv.generate_key(_BITS)
                self._write({**self._keys, name: key})
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
            key = self._keys.get(subject.decode())
            return ERASED if key is None else self._siv(key).decrypt(content, [subject]).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            told = "it was changed, or sealed by another key of this name"
            raise InvalidArgument(f"{display.short(sealed)} cannot be opened: {told}") from error

    def forget(self, subject: str) -> None:
        """Throw the key of a subject away: whatever was sealed for it is unreadable from now on, everywhere.

        A new key for the same name does not open it. Raises InvalidArgument if there is no such key.
        """
        with self._lock:
            if subject not in self._keys:
                near = display.did_you_mean(str(subject), sorted(self._keys))
                raise InvalidArgument(f"there is no key of {subject!r}, so nothing of it can be read{near}")
            self._write({name: key for name, key in self._keys.items() if name != subject})

    @property
    def subjects(self) -> Iterable[str]:
        """Whose texts can be opened."""
        return sorted(self._keys)

    def _read(self) -> dict[str, bytes]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))["esim.keys"]
            return {name: base64.b64decode(key) for name, key in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotAStore(f"{self._path.name!r} is no file of keys: {error}") from error

    def _write(self, keys: dict[str, bytes]) -> None:
        """Keep the keys: the file is replaced as a whole, so that it is never half written."""
        if self._path is not None:
            told = {name: base64.b64encode(key).decode() for name, key in keys.items()}
            part = self._path.with_name(self._path.name + ".part")
            try:
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"esim.keys": told}, file, ensure_ascii=False)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self._path)
            except OSError as error:
                with suppress(OSError):
                    part.unlink()
                raise NotWritten(f"the keys in {self._path.name!r} could not be kept: {error}") from error
        self._keys = keys

    def __repr__(self) -> str:
        where = "in memory" if self._path is None else repr(self._path.name)
        return f"<Vault {where}: keys of {len(self._keys):,} subjects>"


def _cipher() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    except ImportError:
        raise InvalidArgument(
            "a Vault needs the library `cryptography`: pip install 'esim[erasure]'"
        ) from None
    return AESSIV
