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

from speculation.errors import AccessError
from transport.identity import Identity, Role
from transport.watched_file import WatchedFile, read_entries

_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
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
    meaning = "role, name and time"
    entries = read_entries(path, _revocation_of, field="tls-revoked", meaning=meaning, command="certs revoke")
    found: dict[Identity, datetime.datetime] = {}
    for entry in entries:
        found[entry.holder] = max(entry.until, found.get(entry.holder, entry.until))
    return found


def _revocation_of(line: str) -> Revocation:
    """Raises ValueError or InputError."""
    role, name, time = line.split()
    until = datetime.datetime.strptime(time, _FORMAT).replace(tzinfo=datetime.UTC)
    return Revocation(Identity(Role(role), name), until)


def first_valid(until: datetime.datetime) -> datetime.datetime:
    """From when on a certificate has to be valid that is not among those revoked ``until`` then."""
    return until + datetime.timedelta(seconds=1)


def is_revoked(revoked: Revoked, holder: Identity | None, valid_since: datetime.datetime) -> bool:
    """Of a certificate of this holder. None: it names none."""
    until = revoked.get(holder) if holder is not None else None
    return until is not None and valid_since < first_valid(until)


class RevocationFile(WatchedFile[Revoked]):
    """The server's file, for any thread. Raises InputError if it cannot be read to begin with."""

    def __init__(self, path: str) -> None:
        super().__init__(path, read_revocations)

    def check(self, holder: Identity, certificate: bytes) -> None:
        """``certificate``: that the call came with, PEM. Raises AccessError if it is revoked."""
        revoked = self.newest()
        if revoked is None:
            raise AccessError("the list of revoked certificates cannot be read here", remedy="mend it on the server")
        if holder in revoked and is_revoked(revoked, holder, _valid_since(certificate)):
            raise AccessError(f"the certificate of {holder} is revoked", remedy="use one that was issued afterwards")


@functools.lru_cache(maxsize=1024)
def _valid_since(certificate: bytes) -> datetime.datetime:
    from cryptography import x509  # only where certificates are revoked at all

    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc
