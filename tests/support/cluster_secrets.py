"""Secrets as a cluster has them: what cert-manager would make for the Certificates of the manifests, and API keys."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.manifests import Manifest, of_kind

_USAGES = {"server auth": ExtendedKeyUsageOID.SERVER_AUTH, "client auth": ExtendedKeyUsageOID.CLIENT_AUTH}
_PEM = serialization.Encoding.PEM


class ClusterSecrets:
    """A folder for each Secret, readable by group 10001 alone, as a kubelet mounts it with ``defaultMode: 0440``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dragoman-ca")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._authority = self._built(name, name, self._key, [(constraints, True)])
        #: Lines that are to be found nowhere but in these files.
        self.words = _private_words(_pem(self._key))

    def issue(self, objects: Sequence[Manifest]) -> None:
        """A Secret for each Certificate that is no authority."""
        for certificate in of_kind(objects, "Certificate"):
            if not certificate["spec"].get("isCA"):
                self._issue(certificate["spec"])

    def _issue(self, spec: Manifest) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in spec.get("uris", ())]
        names += [x509.DNSName(name) for name in spec.get("dnsNames", ())]
        usages = [_USAGES[usage] for usage in spec["usages"] if usage in _USAGES]
        extensions = [(x509.SubjectAlternativeName(names), True), (x509.ExtendedKeyUsage(usages), False)]
        made = self._built(x509.Name([]), self._authority.subject, key, extensions)
        files = {"tls.crt": made.public_bytes(_PEM), "tls.key": _pem(key), "ca.crt": self._authority.public_bytes(_PEM)}
        self.words += _private_words(files["tls.key"])
        self.put(spec["secretName"], files)

    def put(self, secret: str, files: dict[str, bytes]) -> None:
        """A Secret with these files."""
        folder = self.folder / secret
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o440)
            os.chown(folder / name, 0, 10001)
        folder.chmod(0o755)

    def _built(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=12))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _private_words(pem: bytes) -> list[str]:
    return [line for line in pem.decode().splitlines() if line and not line.startswith("-")]
