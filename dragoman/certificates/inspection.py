"""What `dragoman certs show` says of a certificate: whose it is, until when, and whether others will take it."""

from __future__ import annotations

import datetime
import enum
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dragoman.certificates.folder import hosts_of, identity_of, read_certificate
from speculation.errors import InputError
from transport.identity import Identity
from transport.revocations import Revoked, is_revoked

#: Of its life: with less left, it is time to renew.
_LAST_SHARE: Final = 0.2


class Verdict(enum.Enum):
    """``VALID`` and ``ENDS_SOON`` are taken by others, the rest is not."""

    VALID = "valid"
    ENDS_SOON = "ends soon"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    UNTRUSTED = "not of this authority"
    REVOKED = "revoked"
    KEY_DIFFERS = "key is another's"
    KEY_OPEN = "key open to others"

    @property
    def usable(self) -> bool:
        return self in (Verdict.VALID, Verdict.ENDS_SOON)


@dataclass(frozen=True, slots=True)
class Shown:
    """One certificate. ``identity`` None: an authority, or none of ours."""

    file: Path
    identity: Identity | None
    is_authority: bool
    hosts: list[str]
    ends: datetime.datetime
    left: datetime.timedelta
    verdict: Verdict

    @property
    def role(self) -> str:
        return "authority" if self.is_authority else self.identity.role if self.identity else "none"

    def to_json(self) -> dict[str, Any]:
        """``seconds_left`` is negative of one that has expired."""
        return {
            "file": str(self.file),
            "role": self.role,
            "name": self.identity.name if self.identity else None,
            "uri": self.identity.uri if self.identity else None,
            "hosts": self.hosts,
            "ends": self.ends.isoformat(),
            "seconds_left": int(self.left.total_seconds()),
            "verdict": self.verdict.value,
            "usable": self.verdict.usable,
        }


def inspect(
    file: Path,
    authority: x509.Certificate | None,
    now: datetime.datetime | None = None,
    *,
    revoked: Revoked | None = None,
) -> Shown:
    """``authority``: that should have signed it. Raises InputError if it cannot be read."""
    certificate = read_certificate(file)
    now = now or datetime.datetime.now(datetime.UTC)
    identity = identity_of(certificate)
    out = is_revoked(revoked or {}, identity, certificate.not_valid_before_utc)
    return Shown(
        file=file,
        identity=identity,
        is_authority=_signs(certificate),
        hosts=hosts_of(certificate),
        ends=certificate.not_valid_after_utc,
        left=certificate.not_valid_after_utc - now,
        verdict=Verdict.REVOKED if out else _verdict(file, certificate, authority, now),
    )


def _signs(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _verdict(
    file: Path, certificate: x509.Certificate, authority: x509.Certificate | None, now: datetime.datetime
) -> Verdict:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if authority is None or not _is_signed_by(certificate, authority):
        return Verdict.UNTRUSTED
    if now >= ends:
        return Verdict.EXPIRED
    if now < begins:
        return Verdict.NOT_YET
    key = file.with_suffix(".key")
    if key.exists():  # it need not be here
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            return Verdict.KEY_OPEN
        if not _is_key_of(key, certificate):
            return Verdict.KEY_DIFFERS
    return Verdict.ENDS_SOON if ends - now < _LAST_SHARE * (ends - begins) else Verdict.VALID


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_key_of(path: Path, certificate: x509.Certificate) -> bool:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError("key", str(path), f"cannot be read: {error.strerror}", remedy="check its owner") from error
    except (ValueError, TypeError):
        return False
    return key.public_key() == certificate.public_key()
