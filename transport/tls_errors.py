"""Why a connection in TLS failed, in words: from what gRPC tells, or by trying once with Python's TLS.

gRPC tells a client what is wrong with the server's certificate. That the server refused the client's, or speaks TLS
where the client does not, looks to it like any connection that was closed; so that is found out by trying.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from speculation.errors import AccessError, InputError
from transport.address import Address
from transport.channels import proxy_variable
from transport.pem_files import expiry
from transport.security import Security

#: For each step of a try, in seconds.
TRY_SECONDS: Final = 3.0
#: Until a second try, where the first may have met a link that breaks now and then.
AGAIN_SECONDS: Final = 0.2


class TlsFault(enum.Enum):
    """What keeps two sides apart. The first five are of the server's certificate, as OpenSSL numbers them."""

    EXPIRED = "has expired"
    NOT_YET_VALID = "is not valid yet"
    UNKNOWN_AUTHORITY = "is not signed by the authority of --tls-ca"
    WRONG_HOST = "is not for this host"
    WRONG_PURPOSE = "is none of a server"
    NO_TLS_THERE = "no TLS there"
    TLS_THERE = "TLS there, and plaintext here"
    REFUSED_US = "this side's certificate was refused"


#: Known by a connection that is closed, mostly by nothing else.
_LIKE_A_BROKEN_LINK: Final = (TlsFault.NO_TLS_THERE, TlsFault.REFUSED_US)
_BY_WORDS: Final = {
    "certificate has expired": TlsFault.EXPIRED,
    "certificate is not yet valid": TlsFault.NOT_YET_VALID,
    "Hostname Verification Check failed": TlsFault.WRONG_HOST,
    "unsupported certificate purpose": TlsFault.WRONG_PURPOSE,
    "CERTIFICATE_VERIFY_FAILED": TlsFault.UNKNOWN_AUTHORITY,
    "WRONG_VERSION_NUMBER": TlsFault.NO_TLS_THERE,
}
_BY_CODE: Final = {
    9: TlsFault.NOT_YET_VALID,
    10: TlsFault.EXPIRED,
    26: TlsFault.WRONG_PURPOSE,
    62: TlsFault.WRONG_HOST,
    64: TlsFault.WRONG_HOST,
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """A try: what went wrong, if anything did. ``words``: of it, or of what was agreed on; ``certificate``: the
    server's, as Python's ssl module tells it."""

    fault: TlsFault | None
    words: str = ""
    certificate: Mapping[str, Any] | None = None


def fault_told(details: str) -> TlsFault | None:
    """What gRPC's words about a failed call say of TLS."""
    return next((fault for words, fault in _BY_WORDS.items() if words in details), None)


def worth_a_try(details: str) -> bool:
    """Whether TLS may be why a connection was closed before it stood."""
    closed = "Socket closed" in details or "onnection reset" in details or "Broken pipe" in details
    return "failed to connect to all addresses" in details and closed


async def shake_hands(address: Address, security: Security) -> Handshake:
    """Connect once as gRPC would, and look. Raises OSError if nobody answers in time, or own files are unfit."""
    context = _context(security)
    try:
        async with asyncio.timeout(TRY_SECONDS):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=address.host
            )
    except ConnectionRefusedError:
        raise
    except ssl.SSLCertVerificationError as error:
        fault = _BY_CODE.get(error.verify_code, TlsFault.UNKNOWN_AUTHORITY)
        return Handshake(fault, error.verify_message)
    except (ssl.SSLError, ConnectionError) as error:
        return Handshake(TlsFault.NO_TLS_THERE if security.dials_tls else None, str(error))
    try:
        if not security.dials_tls:
            return Handshake(TlsFault.TLS_THERE)
        secure = writer.get_extra_info("ssl_object")
        certificate = writer.get_extra_info("peercert")
        # In TLS 1.3 this side is done before the other has looked at its certificate; a gRPC server that is content
        # speaks first, and one that is not closes.
        if await _closes(reader):
            return Handshake(TlsFault.REFUSED_US, certificate=certificate)
        return Handshake(None, f"{secure.version()}, {secure.cipher()[0]}", certificate)
    finally:
        writer.transport.abort()


def _context(security: Security) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=security.tls_ca)
    context.set_alpn_protocols(["h2"])
    if security.tls_cert is not None:
        context.load_cert_chain(security.tls_cert, security.tls_key)
    if not security.dials_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _closes(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except (ssl.SSLError, ConnectionError):
        return True


def access_error(fault: TlsFault, address: Address, security: Security, *, who: str) -> AccessError:
    """The fault in words, with its remedy."""
    it = f"the {who} at {address}"
    match fault:
        case TlsFault.TLS_THERE:
            remedy = "add --tls-ca, the authority that signed its certificate"
            return AccessError(f"{it} speaks TLS, and was dialled in plaintext", remedy=remedy)
        case TlsFault.NO_TLS_THERE:
            remedy = "start it with --tls-cert and --tls-key, or dial it without --tls-ca"
            return AccessError(f"{it} does not speak TLS, and --tls-ca asks for it", remedy=remedy)
        case TlsFault.REFUSED_US:
            return _refused_us(it, security)
        case TlsFault.EXPIRED:
            remedy = "renew it there: `dragoman certs renew`"
        case TlsFault.NOT_YET_VALID:
            remedy = "set the clocks of both machines"
        case TlsFault.UNKNOWN_AUTHORITY:
            remedy = "give the ca.pem of the authority that signed it; if it is another, do not trust that address"
            return AccessError(f"the certificate of {it} {fault.value}, {security.tls_ca}", remedy=remedy)
        case TlsFault.WRONG_HOST:
            remedy = f"dial it by a name that it has, or issue it one for this: `certs issue --host {address.host}`"
            return AccessError(f"the certificate of {it} is not for {address.host}", remedy=remedy)
        case TlsFault.WRONG_PURPOSE:
            remedy = f"issue it one of the role {who}"
    return AccessError(f"the certificate of {it} {fault.value}", remedy=remedy)


def _refused_us(it: str, security: Security) -> AccessError:
    if security.tls_cert is None:
        remedy = "add --tls-cert and --tls-key; its authority issues them: `dragoman certs issue`"
        return AccessError(f"{it} asks for a certificate, and this side has none", remedy=remedy)
    ended = expiry(security.tls_cert)
    if ended:
        return AccessError(
            f"{it} refused the certificate {security.tls_cert}: {ended}", remedy="`dragoman certs renew`"
        )
    return AccessError(
        f"{it} refused the certificate {security.tls_cert}",
        remedy="its log says why; most often another authority signed it than the one that it trusts",
    )


async def explain_tls(details: str, address: Address, security: Security, *, who: str) -> AccessError | None:
    """What a call that failed with these words owes to TLS; None: nothing, as far as can be seen."""
    fault = fault_told(details) if security.dials_tls else None
    if fault is None and worth_a_try(details) and proxy_variable(address) is None:
        try:
            fault = (await shake_hands(address, security)).fault
            if fault in _LIKE_A_BROKEN_LINK:
                await asyncio.sleep(AGAIN_SECONDS)
                fault = (await shake_hands(address, security)).fault
        except (OSError, InputError):  # nobody is there any more
            return None
    return access_error(fault, address, security, who=who) if fault is not None else None
