"""HTTPS with certificates that are renewed while the server runs, and who is at the other end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from gateway.connection import Peer
from transport.identity import Identity
from transport.pem_files import pem_files
from transport.security import Security

log = logging.getLogger(__name__)


class ServerTls:
    """Looks at the files again at every handshake, as other servers do. Raises InputError for files that cannot be
    used."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._files = pem_files(security)
        self._pem = self._files.newest()
        self._newest = self._load()
        #: What connections are accepted with.
        self.context = self._load()
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, whether a name was given or not."""
        pem = self._files.newest()
        if pem is not self._pem:
            try:
                self._newest, self._pem = self._load(), pem
            except (OSError, ssl.SSLError) as error:  # replaced once more in this moment
                log.warning("going on with the certificate that was there before: %s", error)
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self._security.tls_cert is not None
        context.load_cert_chain(self._security.tls_cert, self._security.tls_key, password="")
        if self._security.asks_for_certificates:
            context.load_verify_locations(cafile=self._security.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def peer_of(transport: asyncio.Transport) -> Peer:
    """Whose connection it is, once the handshake is over."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if tls is None or certificate is None:
        return Peer(transport)
    names: Any = (tls.getpeercert() or {}).get("subjectAltName", ())
    found = [Identity.parse(value) for kind, value in names if kind == "URI"]
    identity = found[0] if len(found) == 1 else None
    return Peer(transport, identity, ssl.DER_cert_to_PEM_cert(certificate).encode())
