"""The gateway at its port: uvicorn, with a certificate or without, from the start to an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from gateway.app import application
from gateway.backend import Backend
from gateway.http_protocol import HttpProtocol
from gateway.listening import listening_socket
from gateway.operations_port import OperationsPort
from gateway.settings import GatewaySettings
from gateway.texts import Texts
from gateway.tls import ServerTls
from speculation.errors import DragomanError
from transport.address import Address
from transport.security import Security
from transport.signals import drop_further_signals, stop_signal

#: Seconds in which clients hear that their texts end.
_FAREWELL_SECONDS: Final = 5.0


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

    async def start(
        self, listen: Address, *, shared: bool = False, metrics: Address | None = None, option: str = "--listen"
    ) -> Address:
        """Bind and serve; returns the address with the port that was bound.

        ``shared``: with other gateways, as ``listening_socket`` has it; ``option``: likewise. ``metrics``: where health
        and metrics are told by this gateway alone. Raises ConnectionFailedError, which says why, if that cannot be, and
        InputError for settings of security that cannot be used.
        """
        self._security.check_listening(listen)
        tls = ServerTls(self._security) if self._security.serves_tls else None
        texts = Texts(self._backend, self._settings)
        app = application(texts, self._settings, self._security)
        if metrics is not None:
            app = OperationsPort(app, port=metrics.port)
        limits = {"head_timeout": self._settings.head_timeout, "body_timeout": self._settings.body_timeout}
        protocol = functools.partial(HttpProtocol, **limits)
        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=self._settings.keep_alive,  # type: ignore[arg-type]  # its loop takes fractions as well
            proxy_headers=False,
        )
        config.load()
        config.ssl = tls.context if tls is not None else None
        send_timeout = self._settings.send_timeout
        sockets = [listening_socket(listen, send_timeout=send_timeout, shared=shared, option=option)]
        if metrics is not None:
            try:
                sockets.append(listening_socket(metrics, send_timeout=send_timeout, option="gateway.metrics_port"))
            except DragomanError:
                sockets[0].close()
                raise
        self._texts, self._server = texts, _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=sockets))
        while not (self._server.started or self._serving.done()):
            await asyncio.sleep(0)
        if self._serving.done():
            self._serving.result()
        return Address(listen.host, sockets[0].getsockname()[1])

    @property
    def texts_running(self) -> int:
        """Texts being written."""
        return self._texts.admission.running if self._texts is not None else 0

    @property
    def requests_waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._texts.admission.waiting if self._texts is not None else 0

    async def check_health(self) -> None:
        """What /health tells: raises DragomanError unless a text would find a verifier."""
        if self._texts is not None:
            await self._texts.models.served()

    async def ended(self) -> None:
        """Until it serves no more, asked to stop or not. Raises what it failed with."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def stop(self, grace: float | None = None) -> int:
        """No new connections and requests; texts that run may end by themselves for ``grace`` seconds, None: those of
        the settings. Returns how many did not."""
        if self._server is None or self._serving is None or self._texts is None:
            return 0
        seconds = self._settings.grace if grace is None else grace
        left = 0

        def end(texts: Texts) -> None:
            nonlocal left
            left = texts.admission.running
            texts.stopping.set()

        self._server.stop_listening()  # first, so that who shares the port gets those who come now
        self._texts.admission.close()
        self._server.config.timeout_graceful_shutdown = seconds + _FAREWELL_SECONDS  # type: ignore[assignment]
        self._server.should_exit = True
        ending = asyncio.get_running_loop().call_later(seconds, end, self._texts)
        try:
            await self._serving
        finally:
            ending.cancel()
        return left


async def serve_until_signal(server: GatewayServer, listen: Address, *, on_ready: Callable[[Address], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` is told the bound address. Raises what ``start`` raises."""
    stop = stop_signal()
    bound = await server.start(listen)
    on_ready(bound)
    try:
        await stop.wait()
    finally:
        await server.stop()
        drop_further_signals()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield

    def stop_listening(self) -> None:
        """What is connected stays so. Uvicorn itself would notice within a tenth of a second that it is to stop."""
        for server in self.servers:
            server.close()
