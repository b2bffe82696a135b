"""Certificates for the processes of a benchmark, as `dragoman certs` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path

from dragoman.certificates.folder import Folder
from dragoman.certs import LOOPBACK
from transport.identity import Identity, Role
from transport.security import FILES, Security

_LIFETIME = datetime.timedelta(days=1)


class Certificates:
    """Of an authority of their own, in ``folder``, for servers on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)
        self._folder.create_authority("benchmark", _LIFETIME)

    def mutual(self, role: Role, name: str) -> Security:
        """Settings of mutual TLS with a certificate of that role, issued at its first mention."""
        files = self._folder.files_of(Identity(role, name))
        if not files.certificate.exists():
            self._folder.issue(Identity(role, name), LOOPBACK if role.serves else (), _LIFETIME)
        authority = self._folder.authority_files.certificate
        return Security(tls_cert=str(files.certificate), tls_key=str(files.key), tls_ca=str(authority))


def tls_options(security: Security) -> list[str]:
    """As they are written on the command line."""
    given = ((name, getattr(security, name)) for name in FILES)
    return [f"--{name.replace('_', '-')}={value}" for name, value in given if value is not None]
