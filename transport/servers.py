"""Binding a server to its address, and what to say if that cannot be.

gRPC only says "failed to bind", and that on standard error; so a plain socket asks the system first, which knows why.
"""

from __future__ import annotations

import errno
import socket

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from speculation.errors import ConnectionFailedError
from transport.address import Address
from transport.cancelled_calls import hush_cancelled_calls
from transport.grpc_options import server_options
from transport.pem_files import Pem, pem_files
from transport.revocations import RevocationFile
from transport.roles import RoleCheck
from transport.security import Security
from transport.tokens import TokenFile


def bind(server: grpc.aio.Server, listen: Address, security: Security, *, option: str = "--listen") -> Address:
    """Bind the server; returns the address with the port that it got. Raises ConnectionFailedError, which says why, and
    InputError for files that cannot be used, or a port for other machines in plaintext unless that is allowed."""
    security.check_listening(listen)
    credentials = _credentials(security) if security.serves_tls else None
    check_bindable(listen, option=option)
    try:
        if credentials is None:
            return Address(listen.host, server.add_insecure_port(str(listen)))
        return Address(listen.host, server.add_secure_port(str(listen), credentials))
    except RuntimeError as error:  # someone else was quicker
        raise not_bindable(listen, option, OSError(errno.EADDRINUSE, "")) from error


def _credentials(security: Security) -> grpc.ServerCredentials:
    """Which look at the files again at every handshake. Raises InputError."""
    files = pem_files(security)
    served = files.newest()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Called in a thread of gRPC's; None keeps what is served.
        nonlocal served
        newest = files.newest()
        if newest is served:
            return None
        served = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(served),
        fetch,  # type: ignore[arg-type]  # None is what its documentation asks for
        require_client_authentication=security.asks_for_certificates,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None and pem.certificate is not None
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], root_certificates=pem.authority)


def check_bindable(listen: Address, *, option: str = "--listen") -> None:
    """Raises ConnectionFailedError if nothing can listen there: the name is unknown, the port in use or not allowed,
    or none of its addresses is this machine's."""
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise not_bindable(listen, option, error) from error
    problems = []
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC does it: connections of a server that ended a moment ago are in nobody's way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        except OSError as error:
            problems.append(error)
    taken = [error for error in problems if error.errno == errno.EADDRINUSE]
    # A name may stand for IPv4 and IPv6, of which a machine need not have both.
    if taken or len(problems) == len(found):
        raise not_bindable(listen, option, (taken or problems)[0])


def not_bindable(listen: Address, option: str, error: OSError) -> ConnectionFailedError:
    """Why nothing can listen there, and what to do about it."""
    match error.errno:
        case errno.EADDRINUSE:
            why, remedy = "the port is in use", f"give another {option}, or stop what runs there"
        case errno.EACCES:
            why, remedy = "the port is not open to this user", f"give a {option} port of 1024 or more"
        case errno.EADDRNOTAVAIL:
            why, remedy = "that is no address of this machine", "listen at 127.0.0.1, 0.0.0.0, or an address it has"
        case _:
            why, remedy = error.strerror or str(error), f"check {option}"
    return ConnectionFailedError(f"cannot listen at {listen}: {why}", remedy=remedy)


class HealthPort:
    """The standard health service for ``service``, its full name, at servers that have it beside others, and with
    ``listen`` at a port of its own, with nothing else and in plaintext: the probes of Kubernetes speak no TLS."""

    def __init__(self, service: str, listen: Address | None) -> None:
        self._names = ("", service)
        self._listen = listen
        self._servicer = health.aio.HealthServicer()
        self._own: grpc.aio.Server | None = None

    def answer_at(self, server: grpc.aio.Server) -> None:
        """Of a server that was not started yet."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Answer at the port of its own, where there is one. Raises ConnectionFailedError."""
        if self._listen is None:
            return
        self._own = grpc.aio.server(options=server_options())
        self.answer_at(self._own)
        bind(self._own, self._listen, Security(allow_plaintext=True), option="--health-listen")
        await self._own.start()

    async def tell(self, *, serving: bool) -> None:
        """What health checks are answered from now on."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)

    async def begin_shutdown(self) -> None:
        """Checks are told that it stops, whatever they are told later."""
        await self._servicer.enter_graceful_shutdown()

    async def stop(self) -> None:
        """No checks are answered any more."""
        if self._own is not None:
            await self._own.stop(None)


class ServiceServer:
    """A gRPC server with one service of ours and the health service. Add the servicer to ``grpc``, then start.

    ``service``: its full name. ``security`` None: as the environment says; that it asks for certificates or tokens
    means that peers have roles, which ``transport/roles.py`` checks. ``health_listen``: where health checks alone are
    answered as well, in plaintext. Raises InputError.
    """

    def __init__(self, service: str, security: Security | None = None, *, health_listen: Address | None = None) -> None:
        self._security = security or Security.from_environment()
        tokens = TokenFile(self._security.tokens) if self._security.tokens is not None else None
        knows_peers = tokens is not None or self._security.asks_for_certificates
        revoked = self._security.tls_revoked
        revocations = RevocationFile(revoked) if revoked is not None else None
        interceptors = [RoleCheck(tokens, revocations)] if knows_peers else []
        hush_cancelled_calls()
        self.grpc = grpc.aio.server(options=server_options(), interceptors=interceptors)
        self._health = HealthPort(service, health_listen)
        self._health.answer_at(self.grpc)

    async def start(self, listen: Address, *, serving: bool = True) -> Address:
        """Bind and answer; returns the address with the port that was bound. Raises what ``bind`` raises."""
        bound = bind(self.grpc, listen, self._security)
        await self._health.start()
        await self.tell_health(serving=serving)
        await self.grpc.start()
        return bound

    async def tell_health(self, *, serving: bool) -> None:
        """What health checks are answered from now on."""
        await self._health.tell(serving=serving)

    async def begin_shutdown(self) -> None:
        """Health checks are told that it stops; calls are answered still."""
        await self._health.begin_shutdown()

    async def stop(self, grace: float) -> None:
        """No new calls; those that run may end within ``grace`` seconds."""
        await self.grpc.stop(grace)
        await self._health.stop()
