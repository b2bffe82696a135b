"""A certificate request: a key stays on the machine that made it, and only this leaves it.

PKCS #10, in PEM. The holder stands in it as in a certificate, in a URI (see ``transport/identity.py``); it is signed
with its own key, so that whoever sends it has that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from speculation.errors import InputError
from transport.identity import Identity

_REMEDY = "give a file that `dragoman edge install --request` made, ending in .csr"


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, the key to be certified, and the file's bytes."""

    identity: Identity
    public_key: ec.EllipticCurvePublicKey
    pem: bytes


def new_key() -> ec.EllipticCurvePrivateKey:
    """Of the curve of all our keys."""
    return ec.generate_private_key(ec.SECP256R1())


def make_request(identity: Identity, key: ec.EllipticCurvePrivateKey) -> bytes:
    """In PEM."""
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(identity))]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def read_request(path: Path) -> Request:
    """Raises InputError for what cannot be read, names no holder of ours, or is not signed with its own key."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError("request", str(path), problem, remedy="check the path") from error
    try:
        found = x509.load_pem_x509_csr(pem)
        key, proven = found.public_key(), found.is_signature_valid
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise InputError("request", str(path), "names no role and holder", remedy=_REMEDY) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError("request", str(path), "holds no certificate request in PEM", remedy=_REMEDY) from error
    identities = [Identity.parse(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]
    if len(identities) != 1 or identities[0] is None:
        raise InputError("request", str(path), "names no role and holder", remedy=_REMEDY)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError("request", str(path), "has a key of another kind than P-256", remedy=_REMEDY)
    if not proven:
        raise InputError("request", str(path), "is not signed with its own key", remedy=_REMEDY)
    return Request(identities[0], key, pem)
