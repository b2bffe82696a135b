"""The files of certificates, read again when they change.

Certificates live for days and services for months. So nothing holds on to what a file once held: a server asks here at
every handshake, whoever dials at every new connection. Files in the middle of being replaced, or damaged, are not
taken: the last that were whole serve on, and the log says so.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import ssl
import threading
from dataclasses import dataclass
from typing import Final

from speculation.errors import InputError
from transport.security import Security

log = logging.getLogger(__name__)

_RENEW: Final = "renew it: `dragoman certs renew`"
#: A certificate with less than this left, of its life, is warned about when it is read.
_LAST_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files held; None: there is no such file among the settings."""

    certificate: bytes | None
    key: bytes | None
    authority: bytes | None


#: Of each file: which one it is, its size, and when it changed.
_State = tuple[tuple[int, int, int] | None, ...]


class PemFiles:
    """Of one ``Security``, for any thread. Raises InputError if they cannot be used to begin with."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._lock = threading.Lock()
        self._state = self._look()
        self._pem = self._read()

    def newest(self) -> Pem:
        """As they are now; as they last were, where what is there now cannot be used."""
        with self._lock:
            # Before reading: what changes meanwhile is read the next time.
            state = self._look()
            if state != self._state:
                self._state = state
                try:
                    self._pem = self._read(refuse_expired=False)
                    log.info("read %s again", self._security.tls_cert or self._security.tls_ca)
                except InputError as error:
                    log.warning("going on with the certificate that was there before: %s", error)
            return self._pem

    def _look(self) -> _State:
        return tuple(_state_of(path) for path in self._paths)

    @property
    def _paths(self) -> tuple[str | None, str | None, str | None]:
        return self._security.tls_cert, self._security.tls_key, self._security.tls_ca

    def _read(self, *, refuse_expired: bool = True) -> Pem:
        """Raises InputError for files that cannot be used, or that change while they are read."""
        before = self._look()
        pem = self._read_once(refuse_expired=refuse_expired)
        if self._look() != before:  # what was checked may not be what was read
            raise InputError("tls-cert", str(self._paths[0]), "is being replaced", remedy="try again")
        return pem

    def _read_once(self, *, refuse_expired: bool) -> Pem:
        cert, key, authority = self._paths
        pem = Pem(_bytes_of("tls-cert", cert), _bytes_of("tls-key", key), _bytes_of("tls-ca", authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if cert is not None and key is not None and pem.certificate is not None:
            try:
                # No password: it would be asked for at the terminal, of a service that has none.
                context.load_cert_chain(cert, key, password="")
            except (ssl.SSLError, OSError) as error:
                raise _unfit(cert, key, pem.certificate, error) from error
            self._look_at_the_end(cert, pem.certificate, refuse_expired=refuse_expired)
        if authority is not None:
            try:
                context.load_verify_locations(cafile=authority)
            except (ssl.SSLError, OSError) as error:
                remedy = "give the authority's certificate in PEM, ca.pem of `dragoman certs init`"
                raise InputError("tls-ca", authority, "holds no certificate", remedy=remedy) from error
        return pem

    def _look_at_the_end(self, cert: str, data: bytes, *, refuse_expired: bool) -> None:
        """Raises InputError for a certificate that is over, warns of one that soon is."""
        begins, ends = _validity(data)
        if refuse_expired and (ended := _ended(ends)):
            raise InputError("tls-cert", cert, ended, remedy=_RENEW)
        if ends - _now() < _LAST_SHARE * (ends - begins):
            log.warning("the certificate %s ends on %s UTC; %s", cert, f"{ends:%Y-%m-%d %H:%M}", _RENEW)


@functools.lru_cache(maxsize=64)
def pem_files(security: Security) -> PemFiles:
    """One for each ``Security`` of the process, so that all who dial know the last that were whole. Raises InputError,
    and tries again the next time."""
    return PemFiles(security)


def expiry(cert: str) -> str:
    """ "expired on ...", of a certificate that has; else "". Raises OSError, ValueError."""
    with open(cert, "rb") as file:
        return _ended(_validity(file.read())[1])


def _ended(ends: datetime.datetime) -> str:
    return f"expired on {ends:%Y-%m-%d %H:%M} UTC" if ends <= _now() else ""


def _state_of(path: str | None) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found is not None else None


def _bytes_of(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        remedy = "check the path, and who may read it"
        raise InputError(option, path, f"cannot be read: {error.strerror}", remedy=remedy) from error


def _unfit(cert: str, key: str, data: bytes, error: OSError) -> InputError:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return InputError("tls-key", key, f"is not the key of {cert}", remedy="give the two that were issued together")
    try:
        _validity(data)
    except ValueError:
        return InputError("tls-cert", cert, "holds no certificate", remedy="give a certificate in PEM")
    return InputError("tls-key", key, "holds no key that can be read", remedy="give its key in PEM, without a password")


def _validity(data: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """When the certificate begins and ends to be valid. Raises ValueError."""
    # Here, because most who import this never use TLS.
    from cryptography import x509

    found = x509.load_pem_x509_certificate(data)
    return found.not_valid_before_utc, found.not_valid_after_utc


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
