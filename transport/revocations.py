"""Certificates that are no longer taken, though they have not ended: those of a holder that were issued until a time.

A line of the file is a role, a name and that time. By holder and time rather than by serial number, so that a key that
was stolen before the last renewal is out as well.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speculation.errors import AccessError, InputError
from transport.identity import Identity, Role
from transport.watched_file import WatchedFile

_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_REMEDY: Final = "`dragoman certs revoke` writes such lines"
#: Of each holder, the time until which certificates are revoked.
Revoked = Mapping[Identity, datetime.datetime]


@dataclass(frozen=True, slots=True)
class Revocation:
    """``until``: certificates that are valid since then, or for longer, are revoked."""

    holder: Identity
    until: datetime.datetime

    @property
    def line(self) -> str:
        """As the file has it."""
        return f"{self.holder.role} {self.holder.name} {self.until:{_FORMAT}}"


def read_revocations(path: Path) -> Revoked:
    """Raises InputError, which names the line."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError("tls-revoked", str(path), problem, remedy="check the path, or leave it out") from error
    except UnicodeDecodeError as error:
        raise InputError("tls-revoked", str(path), "is not UTF-8", remedy=_REMEDY) from error
    found: dict[Identity, datetime.datetime] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            role, name, time = line.split()
            until = datetime.datetime.strptime(time, _FORMAT).replace(tzinfo=datetime.UTC)
            holder = Identity(Role(role), name)
        except (ValueError, InputError) as error:
            problem = f"line {number} is no role, name and time: {line[:80]}"
            raise InputError("tls-revoked", str(path), problem, remedy=_REMEDY) from error
        found[holder] = max(until, found.get(holder, until))
    return found


class RevocationFile:
    """The server's file, for any thread. Raises InputError if it cannot be read to begin with."""

    def __init__(self, path: str) -> None:
        self._file = WatchedFile(path, read_revocations)

    @property
    def readable(self) -> bool:
        """Whether it says now who is revoked."""
        return self._file.newest() is not None

    def check(self, holder: Identity, certificate: bytes) -> None:
        """``certificate``: that the call came with, PEM. Raises AccessError if it is revoked."""
        revoked = self._file.newest()
        if revoked is None:
            raise AccessError("the list of revoked certificates cannot be read here", remedy="mend it on the server")
        until = revoked.get(holder)
        if until is not None and _valid_since(certificate) <= until:
            raise AccessError(f"the certificate of {holder} is revoked", remedy="use one that was issued afterwards")


@functools.lru_cache(maxsize=1024)
def _valid_since(certificate: bytes) -> datetime.datetime:
    from cryptography import x509  # only where certificates are revoked at all

    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc
