"""The gateway at its port: uvicorn, with a certificate or without, from the start to an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.app import application
from gateway.backend import Backend
from gateway.connection import PEER, Peer
from gateway.settings import GatewaySettings
from gateway.texts import Texts
from gateway.tls import ServerTls, peer_of
from transport.address import Address
from transport.security import Security
from transport.servers import check_bindable, not_bindable
from transport.signals import stop_signal

#: Of the kernel, for what a client has not taken yet: a text is some kilobytes, and a slow client is to be noticed.
_SEND_BUFFER: Final = 256 << 10
#: ``SendLimit`` sees that a client takes nothing when there is more to send. For the end of an answer there is the
#: kernel, which gives a connection up whose client takes nothing for so many seconds more.
_LAST_SEND_SECONDS: Final = 1.0
_LONGEST_MILLISECONDS: Final = (1 << 31) - 1
#: Seconds in which clients hear that their texts end.
_FAREWELL_SECONDS: Final = 1.0


class GatewayServer:
    """Serves ``backend``, which stays the caller's. ``security`` None: as the environment says."""

    def __init__(
        self, backend: Backend, settings: GatewaySettings | None = None, *, security: Security | None = None
    ) -> None:
        self._backend = backend
        self._settings = settings or GatewaySettings()
        self._security = security or Security.from_environment()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._texts: Texts | None = None

    async def start(self, listen: Address) -> Address:
        """Bind and serve; returns the address with the port that was bound.

        Raises ConnectionFailedError, which says why, if that cannot be, and InputError for settings of security that
        cannot be used.
        """
        self._security.check_listening(listen)
        tls = ServerTls(self._security) if self._security.serves_tls else None
        texts = Texts(self._backend, self._settings)
        app = application(texts, self._settings, self._security)
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        config.ssl = tls.context if tls is not None else None
        listening = _listening(listen, send_timeout=self._settings.send_timeout)
        self._texts, self._server = texts, _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not (self._server.started or self._serving.done()):
            await asyncio.sleep(0)
        if self._serving.done():
            self._serving.result()
        return Address(listen.host, listening.getsockname()[1])

    async def stop(self, grace: float | None = None) -> None:
        """No new requests; texts that run may end by themselves for ``grace`` seconds, None: those of the settings."""
        if self._server is None or self._serving is None or self._texts is None:
            return
        seconds = self._settings.grace if grace is None else grace
        self._texts.admission.close()
        self._server.config.timeout_graceful_shutdown = seconds + _FAREWELL_SECONDS  # type: ignore[assignment]
        self._server.should_exit = True
        ending = asyncio.get_running_loop().call_later(seconds, self._texts.stopping.set)
        try:
            await self._serving
        finally:
            ending.cancel()


async def serve_until_signal(server: GatewayServer, listen: Address, *, on_ready: Callable[[Address], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` is told the bound address. Raises what ``start`` raises."""
    stop = stop_signal()
    bound = await server.start(listen)
    on_ready(bound)
    try:
        await stop.wait()
    finally:
        await server.stop()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


class _Protocol(H11Protocol):
    """Tells the application who is at the other end of a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        super().connection_made(transport)
        self.app = _with_peer(self.app, peer_of(transport))


def _with_peer(app: Any, peer: Peer) -> ASGIApp:
    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = peer
        await app(scope, receive, send)

    return with_peer


def _listening(listen: Address, *, send_timeout: float) -> socket.socket:
    """A socket that is bound. Raises ConnectionFailedError."""
    check_bindable(listen)
    family, kind, protocol, _, where = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # its connections have it too
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux
            milliseconds = min(int((send_timeout + _LAST_SEND_SECONDS) * 1000), _LONGEST_MILLISECONDS)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        found.bind(where)
    except OSError as error:  # someone else was quicker
        found.close()
        raise not_bindable(listen, "--listen", error) from error
    found.setblocking(False)
    return found
