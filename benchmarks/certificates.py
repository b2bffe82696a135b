"""Certificates for processes that are measured or tested, as `dragoman certs` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from dragoman.certificates.folder import Folder, Written
from dragoman.certs import LOOPBACK
from transport.identity import Identity, Role
from transport.security import FILES, Security

_DAY = datetime.timedelta(days=1)


#: Loopback, or network namespaces of one machine.
PLAINTEXT: Final = Security(allow_plaintext=True)


class Certificates:
    """Of an authority of their own, in ``folder``, for servers on loopback. ``lifetime``: of each, a day at most."""

    def __init__(self, folder: Path, *, lifetime: datetime.timedelta = _DAY) -> None:
        self.folder = Folder(folder)
        self.authority = self.folder.create_authority("test", _DAY)
        self._lifetime = lifetime

    @property
    def ca(self) -> str:
        """The file with the authority's certificate."""
        return str(self.folder.authority_files.certificate)

    def issue(
        self,
        role: Role,
        name: str = "a",
        *,
        hosts: tuple[str, ...] = LOOPBACK,
        lifetime: datetime.timedelta | None = None,
    ) -> Written:
        """A certificate of that role; a negative lifetime ended before it began."""
        return self.folder.issue(Identity(role, name), hosts if role.serves else (), lifetime or self._lifetime)

    def mutual(self, role: Role, name: str = "a") -> Security:
        """Settings of mutual TLS with a certificate of that role, issued at its first mention."""
        files = self.folder.files_of(Identity(role, name))
        if not files.certificate.exists():
            self.issue(role, name)
        return Security(tls_cert=str(files.certificate), tls_key=str(files.key), tls_ca=self.ca)


def security_options(security: Security) -> list[str]:
    """As they are written on the command line."""
    given = ((name, getattr(security, name)) for name in FILES)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given if value is not None]
    return [*options, "--allow-plaintext"] if security.allow_plaintext else options
