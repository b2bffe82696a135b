"""Who a peer is: a role and a name, from the URI in its certificate, written as SPIFFE writes them.

``spiffe://dragoman/drafter/edge-1``. Only mutual TLS proves it: without, nobody has an identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from speculation.errors import InputError

if TYPE_CHECKING:
    import grpc

TRUST_DOMAIN: Final = "dragoman"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: Of gRPC's authentication context: the URIs of the peer's certificate.
_PEER_URI: Final = "peer_uri"
#: Likewise: that certificate, PEM.
_PEER_CERTIFICATE: Final = "x509_pem_cert"


class Role(StrEnum):
    """What a certificate's holder is. ``ADMIN``: a person who may also take verifiers out of service."""

    VERIFIER = "verifier"
    COORDINATOR = "coordinator"
    DRAFTER = "drafter"
    CLIENT = "client"
    ADMIN = "admin"

    @property
    def serves(self) -> bool:
        """Whether others dial it, so that its certificate must name its hosts."""
        return self in (Role.VERIFIER, Role.COORDINATOR)


@dataclass(frozen=True, slots=True)
class Identity:
    """Raises InputError for a name that a URI or a file could not hold."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            remedy = "letters, digits, dots, dashes and underscores, 63 at most, a letter or digit first"
            raise InputError("name", self.name, "is no name for a certificate", remedy=remedy)

    def __str__(self) -> str:
        return f"{self.role} {self.name}"

    @property
    def uri(self) -> str:
        return f"spiffe://{TRUST_DOMAIN}/{self.role}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """None for a URI that is none of ours."""
        found = re.fullmatch(rf"spiffe://{TRUST_DOMAIN}/([a-z]+)/({_NAME.pattern})", uri)
        if found is None or found[1] not in {role.value for role in Role}:
            return None
        return cls(Role(found[1]), found[2])


def peer_identity(context: grpc.aio.ServicerContext) -> Identity | None:
    """Of the peer of a call; None: it has no certificate, or one that names no single identity of ours."""
    uris = context.auth_context().get(_PEER_URI, ())
    found = [Identity.parse(uri.decode(errors="replace")) for uri in uris]
    return found[0] if len(found) == 1 else None


def peer_certificate(context: grpc.aio.ServicerContext) -> bytes:
    """Of the peer of a call, in PEM; empty: it has none."""
    return next(iter(context.auth_context().get(_PEER_CERTIFICATE, ())), b"")
