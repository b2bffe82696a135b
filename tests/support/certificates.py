"""Authorities and certificates made for a test, and how sides that lack some are set up."""

from __future__ import annotations

import datetime
from pathlib import Path

from benchmarks.certificates import Certificates
from transport.identity import Role
from transport.security import Security

HOUR = datetime.timedelta(hours=1)


class TestAuthority(Certificates):
    """An authority in a folder of its own, and whatever it issues."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        super().__init__(path, lifetime=HOUR)

    def one_way(self, role: Role = Role.VERIFIER, name: str = "a") -> Security:
        """Settings of a server that asks for no certificates."""
        return self.mutual(role, name).model_copy(update={"tls_ca": None})

    def trusting(self) -> Security:
        """Settings of somebody without a certificate who trusts this authority."""
        return Security(tls_ca=self.ca)
