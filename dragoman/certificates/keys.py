"""Which public keys an authority certified, for whom, and which of them are revoked: the file ``keys`` in its folder.

A revocation is of a holder and a time, and a new certificate of an old key would be younger than it. So the keys are
remembered, those of certificates that were replaced long ago as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from dragoman.certificates.writing import write_whole
from speculation.errors import InputError
from transport.identity import Identity, Role

_HEADING: Final = "# role, name, SHA-256 of the public key, certified or revoked\n"
_CERTIFIED, _REVOKED = "certified", "revoked"
_MODE: Final = 0o644


def fingerprint(key: PublicKeyTypes) -> str:
    """Hexadecimal, of the key's SubjectPublicKeyInfo."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()


class KnownKeys:
    """``path``: of the file, which need not be there. Whatever the holder, a key that was revoked stays so."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_revoked(self, key: PublicKeyTypes) -> bool:
        """Of any holder. Raises InputError."""
        print_ = fingerprint(key)
        return any(found == print_ and state == _REVOKED for _, found, state in self._entries())

    def add(self, holder: Identity, key: PublicKeyTypes) -> None:
        """It is about to be certified. Raises InputError, and for a key that was revoked."""
        print_ = fingerprint(key)
        with self._locked():
            entries = self._entries()
            if any(found == print_ and state == _REVOKED for _, found, state in entries):
                raise InputError("key", str(holder), "was revoked", remedy="let its machine make another")
            if all((who, found) != (holder, print_) for who, found, _ in entries):
                self._write([*entries, (holder, print_, _CERTIFIED)])

    def revoke(self, holder: Identity, others: Iterable[PublicKeyTypes]) -> None:
        """All that were certified for the holder, and ``others`` of his. Raises InputError."""
        with self._locked():
            entries = self._entries()
            revoked = {found: _REVOKED for who, found, _ in entries if who == holder}
            revoked |= {fingerprint(key): _REVOKED for key in others}
            left = [entry for entry in entries if entry[0] != holder]
            self._write([*left, *((holder, found, state) for found, state in revoked.items())])

    def _entries(self) -> list[tuple[Identity, str, str]]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise self._unusable("cannot be read") from error
        return [self._entry(line) for line in lines if line.strip() and not line.startswith("#")]

    def _entry(self, line: str) -> tuple[Identity, str, str]:
        try:
            role, name, found, state = line.split()
            holder = Identity(Role(role), name)
        except (ValueError, InputError) as error:
            raise self._unusable(f"has a line that is none of ours: {line}") from error
        if state not in (_CERTIFIED, _REVOKED):
            raise self._unusable(f"has a line that is none of ours: {line}")
        return holder, found, state

    def _unusable(self, problem: str) -> InputError:
        remedy = "take it back from a copy of the folder: without it revoked keys could be certified again"
        return InputError("dir", str(self._path), problem, remedy=remedy)

    def _write(self, entries: Iterable[tuple[Identity, str, str]]) -> None:
        lines = (f"{holder.role} {holder.name} {found} {state}\n" for holder, found, state in entries)
        try:
            write_whole(self._path, (_HEADING + "".join(lines)).encode(), _MODE, replace=True)
        except OSError as error:
            problem = f"cannot be written to: {error.strerror}"
            raise InputError("dir", str(self._path), problem, remedy="give another --dir") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Of two commands at once, none writes over what the other one did."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise InputError("dir", str(self._path.parent), problem, remedy="give another --dir") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
