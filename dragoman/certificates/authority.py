"""The private authority: its own certificate, and those that it signs.

Keys are of the curve P-256, which every TLS library takes. A certificate names its holder in a URI (see
``transport/identity.py``); that of a server also names the hosts at which it is dialled.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from transport.identity import Identity, Role
from transport.revocations import first_valid

#: Clocks differ: what is issued now is valid since so long.
CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
_PURPOSES: Final = {
    # A verifier is dialled by drafters and clients, and dials the coordinator itself.
    Role.VERIFIER: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    Role.COORDINATOR: (ExtendedKeyUsageOID.SERVER_AUTH,),
    Role.DRAFTER: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Role.CLIENT: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Role.ADMIN: (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, both in PEM; None: the key is elsewhere, with whoever sent the request."""

    certificate: bytes
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Authority:
    """Whoever trusts ``certificate`` trusts what ``key`` signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str, lifetime: datetime.timedelta) -> Authority:
        """A new one, which no other signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _key_usage(signs_certificates=True)
        certificate = (
            _builder(subject, subject, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def issue(
        self,
        identity: Identity,
        hosts: Sequence[str],
        lifetime: datetime.timedelta,
        *,
        after: datetime.datetime | None = None,
        public_key: ec.EllipticCurvePublicKey | None = None,
    ) -> Issued:
        """A certificate for ``identity``, which ends with the authority's at the latest. ``hosts``: names and IP
        addresses of a server. ``after``: those that are valid since then are revoked. ``public_key``: of a key that is
        elsewhere; else a new one is made."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(identity))])
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
        certificate = (
            _builder(
                subject,
                self.certificate.subject,
                public_key or key.public_key(),
                lifetime,
                latest=self.certificate.not_valid_after_utc,
                after=after,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_PURPOSES[identity.role]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names + [_host(host) for host in hosts]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return Issued(pem_of(certificate), key_pem(key) if public_key is None else None)


def pem_of(certificate: x509.Certificate) -> bytes:
    """As files hold it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Likewise, without a password: services start by themselves."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    lifetime: datetime.timedelta,
    *,
    latest: datetime.datetime | None = None,
    after: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    end = now + lifetime if latest is None else min(now + lifetime, latest)
    begin = min(now, end) - CLOCK_SKEW
    if after is not None:
        begin = max(begin, first_valid(after))
        end = max(end, begin)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
