"""Authorities and certificates made for a test, as `dragoman certs` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path

from dragoman.certificates.folder import Folder, Written
from dragoman.certs import LOOPBACK
from transport.identity import Identity, Role
from transport.security import Security

HOUR = datetime.timedelta(hours=1)


class TestAuthority:
    """An authority in a folder of its own, and whatever it issues."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self.authority = self.folder.create_authority("test", 24 * HOUR)

    @property
    def ca(self) -> str:
        """The file with its certificate."""
        return str(self.folder.authority_files.certificate)

    def issue(
        self, role: Role, name: str = "a", *, hosts: tuple[str, ...] = LOOPBACK, lifetime: datetime.timedelta = HOUR
    ) -> Written:
        """A certificate of that role; a negative lifetime ended before it began."""
        return self.folder.issue(Identity(role, name), hosts if role.serves else (), lifetime)

    def mutual(self, role: Role, name: str = "a") -> Security:
        """Settings with a certificate of that role, issued at its first mention, for mutual TLS."""
        files = self.folder.files_of(Identity(role, name))
        if not files.certificate.exists():
            self.issue(role, name)
        return Security(tls_cert=str(files.certificate), tls_key=str(files.key), tls_ca=self.ca)

    def one_way(self, role: Role = Role.VERIFIER, name: str = "a") -> Security:
        """Settings of a server that asks for no certificates."""
        return self.mutual(role, name).model_copy(update={"tls_ca": None})

    def trusting(self) -> Security:
        """Settings of somebody without a certificate who trusts this authority."""
        return Security(tls_ca=self.ca)
