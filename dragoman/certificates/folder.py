"""The folder of an authority: ``ca.pem`` and ``ca.key``, and of each certificate ROLE-NAME.pem and ROLE-NAME.key, or
ROLE-NAME.csr, the request that it was issued for: then its key never was here. ``revoked`` is for servers, ``keys`` is
the authority's own memory of public keys.

Keys are for their owner alone (mode 0600). Nothing is overwritten but by a renewal, which replaces whole files, so that
a service that reads them in that moment finds the old ones or the new ones.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dragoman.certificates.authority import CLOCK_SKEW, Authority, Issued, key_pem, pem_of
from dragoman.certificates.keys import KnownKeys
from dragoman.certificates.request import Request, read_request
from dragoman.certificates.writing import write_whole
from speculation.errors import InputError
from transport.identity import Identity
from transport.revocations import Revocation, Revoked, first_valid, is_revoked, read_revocations

_CA_CERTIFICATE: Final = "ca.pem"
_CA_KEY: Final = "ca.key"
_REVOKED: Final = "revoked"
_KEYS: Final = "keys"
_PUBLIC, _PRIVATE = 0o644, 0o600


@dataclass(frozen=True, slots=True)
class Written:
    """The two files of a certificate; where it was issued for a request, that and no key is there."""

    certificate: Path
    key: Path

    @property
    def request(self) -> Path:
        return self.certificate.with_suffix(".csr")


class Folder:
    """``path``: made when something is to be written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def authority_files(self) -> Written:
        return Written(self.path / _CA_CERTIFICATE, self.path / _CA_KEY)

    def files_of(self, identity: Identity) -> Written:
        """Where the certificate of this identity is, or would be."""
        name = f"{identity.role}-{identity.name}"
        return Written(self.path / f"{name}.pem", self.path / f"{name}.key")

    def certificates(self) -> list[Path]:
        """All in the folder, the authority's first."""
        return sorted(self.path.glob("*.pem"), key=lambda path: (path.name != _CA_CERTIFICATE, path.name))

    def create_authority(self, name: str, lifetime: datetime.timedelta) -> Authority:
        """Raises InputError if there is one."""
        files = self.authority_files
        self._refuse_to_overwrite(files, "holds an authority already", "give another --dir, or issue from this one")
        made = Authority.create(name, lifetime)
        self._write(files, Issued(pem_of(made.certificate), key_pem(made.key)), replace=False)
        # So that servers can be told of it before there is anything in it.
        self.revoked_file.write_text("# role, name, time: certificates that were issued until then are not taken\n")
        return made

    def authority(self) -> Authority:
        """Raises InputError if it is not there or cannot be used."""
        files = self.authority_files
        remedy = "`dragoman certs init` makes one, or give its folder with --dir"
        if not files.certificate.exists():
            raise InputError("dir", str(self.path), f"holds no authority: there is no {_CA_CERTIFICATE}", remedy=remedy)
        try:
            key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        except OSError as error:
            remedy = "certificates are issued where the authority's key is, and nowhere else"
            raise InputError("dir", str(files.key), f"cannot be read: {error.strerror}", remedy=remedy) from error
        except (ValueError, TypeError) as error:
            raise InputError("dir", str(files.key), "holds no key without a password", remedy=remedy) from error
        certificate = read_certificate(files.certificate)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise InputError("dir", str(files.key), f"is not the key of {_CA_CERTIFICATE}", remedy=remedy)
        return Authority(certificate, key)

    def issue(self, identity: Identity, hosts: Sequence[str], lifetime: datetime.timedelta) -> Written:
        """A new certificate. Raises InputError if that identity has one here."""
        files = self.files_of(identity)
        remedy = "`dragoman certs renew` replaces it; for another holder take another name"
        self._refuse_to_overwrite(files, "is there already", remedy)
        self._write(files, self._issued(identity, hosts, lifetime), replace=False)
        return files

    def sign(self, request: Request, hosts: Sequence[str], lifetime: datetime.timedelta, *, named: bool) -> Written:
        """A certificate for a key that is elsewhere; it replaces one that was issued for a request before.

        ``named``: who signs said whose it is. Raises InputError if he did not and the holder had another key or was
        revoked, if that identity has one here whose key was made here, or if the key was revoked.
        """
        files = self.files_of(request.identity)
        if not files.request.exists():
            remedy = "take another name for the request's holder, or move the files away"
            self._refuse_to_overwrite(files, "is there already, and was not issued for a request", remedy)
        self._refuse_revoked(files.certificate, request)
        if not named:
            self._refuse_another(files.certificate, request)
        issued = self._issued(request.identity, hosts, lifetime, public_key=request.public_key)
        self._write(files, issued, replace=True)
        self._write_request(files.request, request.pem)
        return files

    def _refuse_another(self, old: Path, request: Request) -> None:
        """What stands in a request is what its sender wants to be: that does not make him a holder known already."""
        holder = request.identity
        if old.exists():
            if read_certificate(old).public_key() == request.public_key:
                return
            problem = "is of another key than this holder's certificate"
        elif holder in self.revocations():
            problem = "is of a holder that was revoked"
        else:
            return
        remedy = f"if it is his new key: `dragoman certs issue {holder.role} {holder.name} --request FILE`"
        raise InputError("request", str(holder), problem, remedy=remedy)

    def _refuse_revoked(self, old: Path, request: Request) -> None:
        """A key that was revoked is not certified again, for whomever: whoever took it has it still."""
        known = KnownKeys(self.path / _KEYS)
        if known.is_revoked(request.public_key) or self._is_of_revoked(old, request):
            remedy = "let its machine make another: remove key.pem there, then `dragoman edge install --request`"
            raise InputError("request", str(request.identity), "is for a key that was revoked", remedy=remedy)

    def _is_of_revoked(self, old: Path, request: Request) -> bool:
        """By the certificate that is here, for revocations from before keys were remembered."""
        certificate = read_certificate(old) if old.exists() else None
        if certificate is None or certificate.public_key() != request.public_key:
            return False
        return is_revoked(self.revocations(), request.identity, certificate.not_valid_before_utc)

    @property
    def revoked_file(self) -> Path:
        """For servers, which are given it with --tls-revoked."""
        return self.path / _REVOKED

    def revocations(self) -> Revoked:
        """So far. Raises InputError."""
        return read_revocations(self.revoked_file) if self.revoked_file.exists() else {}

    def revoke(self, holder: Identity) -> Revocation:
        """All certificates of the holder that were issued until now. Raises InputError."""
        self.authority()  # elsewhere the file would be of no use
        self.revocations()
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        made = Revocation(holder, now)
        try:
            with self.revoked_file.open("a", encoding="utf-8") as file:
                file.write(made.line + "\n")
        except OSError as error:
            problem = f"cannot be written to: {error.strerror}"
            raise InputError("dir", str(self.revoked_file), problem, remedy="give another --dir") from error
        files = self.files_of(holder)  # after what servers are told: that is done, whatever is found here
        keys = [read_certificate(files.certificate).public_key()] if files.certificate.exists() else []
        keys += [read_request(files.request).public_key] if files.request.exists() else []
        KnownKeys(self.path / _KEYS).revoke(holder, keys)
        return made

    def _issued(
        self,
        identity: Identity,
        hosts: Sequence[str],
        lifetime: datetime.timedelta,
        *,
        public_key: ec.EllipticCurvePublicKey | None = None,
    ) -> Issued:
        after = self.revocations().get(identity)
        issued = self.authority().issue(identity, hosts, lifetime, after=after, public_key=public_key)
        made = x509.load_pem_x509_certificate(issued.certificate)
        KnownKeys(self.path / _KEYS).add(identity, made.public_key())
        return issued

    def renew(self, certificate: Path, lifetime: datetime.timedelta | None) -> Written:
        """The same identity and hosts, for as long as before or for ``lifetime``, with a new key; with the same where
        the certificate was issued for a request. Raises InputError."""
        old = read_certificate(certificate)
        identity = identity_of(old)
        if identity is None:
            remedy = "give the ROLE-NAME.pem of one that was issued; an authority is not renewed but made anew"
            raise InputError("certificate", str(certificate), "names no role, so it is none of ours", remedy=remedy)
        revoked = self.revocations().get(identity)
        begins_at_once = revoked is not None and old.not_valid_before_utc == first_valid(revoked)
        length = old.not_valid_after_utc - old.not_valid_before_utc
        lifetime = lifetime or (length if begins_at_once else length - CLOCK_SKEW)
        files = Written(certificate, certificate.with_suffix(".key"))
        public_key = None
        if files.request.exists():
            request = read_request(files.request)
            self._refuse_revoked(certificate, request)
            public_key = request.public_key
        self._write(files, self._issued(identity, hosts_of(old), lifetime, public_key=public_key), replace=True)
        return files

    def _refuse_to_overwrite(self, files: Written, problem: str, remedy: str) -> None:
        for path in (files.certificate, files.key):
            if path.exists():
                raise InputError("file", str(path), problem, remedy=remedy)

    def _write(self, files: Written, issued: Issued, *, replace: bool) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The key first: a certificate without its key is of no use to anybody.
            for path, data, mode in (
                (files.key, issued.key, _PRIVATE),
                (files.certificate, issued.certificate, _PUBLIC),
            ):
                if data is not None:
                    write_whole(path, data, mode, replace=replace)
        except FileExistsError as error:
            raise InputError("file", str(error.filename), "is there already", remedy="take another name") from error
        except OSError as error:
            problem = f"cannot be written to: {error.strerror}"
            raise InputError("dir", str(files.key.parent), problem, remedy="give another --dir") from error

    def _write_request(self, path: Path, pem: bytes) -> None:
        try:
            write_whole(path, pem, _PUBLIC, replace=True)
        except OSError as error:
            problem = f"cannot be written to: {error.strerror}"
            raise InputError("dir", str(path.parent), problem, remedy="give another --dir") from error


def read_certificate(path: Path) -> x509.Certificate:
    """The first in the file. Raises InputError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InputError(
            "certificate", str(path), f"cannot be read: {error.strerror}", remedy="check the path"
        ) from error
    except ValueError as error:
        remedy = "give a file that `dragoman certs` made, ending in .pem"
        raise InputError("certificate", str(path), "holds no certificate in PEM", remedy=remedy) from error


def identity_of(certificate: x509.Certificate) -> Identity | None:
    """As a server would take it; None: it names none of ours, or several."""
    found = [Identity.parse(uri) for uri in _names(certificate, x509.UniformResourceIdentifier)]
    return found[0] if len(found) == 1 else None


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """At which a server with it may be dialled."""
    return [*_names(certificate, x509.DNSName), *map(str, _names(certificate, x509.IPAddress))]


def _names(certificate: x509.Certificate, kind: type) -> list:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(kind)
