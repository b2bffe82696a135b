"""The gateway as an actor: a plain class, which whoever runs a cluster wraps; Ray is not imported here.

Uvicorn runs inside it: no text travels as a call of the actor. Several replicas on one machine share a port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from gateway.backend import Backend
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from speculation.errors import ConnectionFailedError, DragomanError
from transport.address import Address
from transport.hosting import SelfStarting
from transport.security import Security
from transport.servers import check_bindable

#: Seconds between two looks at whether a text would find a verifier: until one would, and afterwards.
_FIRST_LOOKS_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 2.0

#: Asked for where the other replicas listen, each as (its machine's address, where it listens).
Siblings = Callable[[], Awaitable[Collection[tuple[str, str]]]]


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """``listen_host`` None: the address of the machine. ``metrics_port``: of this replica alone; None: it has none."""

    port: int
    listen_host: str | None = None
    metrics_port: int | None = None


class GatewayActor(SelfStarting):
    """A gateway that starts itself and comes back after a failure. It serves once a text would find a verifier.

    ``host``: asked for this machine's address. ``connect``: opens what the gateway serves, anew for each start.
    ``siblings``: only they may listen at the same port. ``security``: of the HTTP side; None: as its environment says.
    ``told``: what ``describe`` tells of its settings besides.
    """

    def __init__(
        self,
        name: str,
        settings: GatewaySettings,
        ports: GatewayPorts,
        *,
        host: Callable[[], str],
        connect: Callable[[], AbstractAsyncContextManager[Backend]],
        siblings: Siblings,
        security: Security | None = None,
        placed: Mapping[str, object] | None = None,
        told: Mapping[str, object] | None = None,
    ) -> None:
        self.settings = settings
        self._ports = ports
        self._connect = connect
        self._siblings = siblings
        self._security = security or Security.from_environment()
        self._told = dict(told or {})
        self._server: GatewayServer | None = None
        self._bound: Address | None = None
        self._draining = False
        self._lack = ""  # why a text would find no verifier
        super().__init__(name, host, placed=placed)

    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        listen_host = self._ports.listen_host or host
        listen = Address(listen_host, self._ports.port)
        metrics = None if self._ports.metrics_port is None else Address(listen_host, self._ports.metrics_port)
        await self._check_port(host, listen)
        async with self._connect() as backend:
            server = GatewayServer(backend, self.settings, security=self._security)
            self._bound = await server.start(listen, shared=True, metrics=metrics, option="gateway.port")
            self._server, self._lack = server, ""
            try:
                await self._watch(server, self._bound, serving)
            finally:
                self._server = self._bound = None
                await asyncio.shield(server.stop())

    async def _check_port(self, host: str, listen: Address) -> None:
        """Raises ConnectionFailedError if anybody but other replicas listens there: whoever else shares the port would
        get some of the connections, and nobody would know."""
        try:
            check_bindable(listen, option="gateway.port")
        except ConnectionFailedError:
            if (host, str(listen)) not in await self._siblings():
                raise

    async def _watch(self, server: GatewayServer, bound: Address, serving: Callable[[Address | None], None]) -> None:
        """Until it is cancelled. Raises DragomanError if the server ends and was not asked to."""
        ended = asyncio.ensure_future(server.ended())
        told = False
        try:
            while not ended.done():
                self._lack = await _lack_of(server)
                if not (self._lack or told):
                    serving(bound)
                    told = True
                await asyncio.wait((ended,), timeout=_LOOK_SECONDS if told else _FIRST_LOOKS_SECONDS)
            ended.result()
        finally:
            ended.cancel()
        if not self._draining:
            raise DragomanError("the HTTP server ended")
        await asyncio.Event().wait()

    async def drain(self, seconds: float) -> int:
        """Take no new connections and requests; texts still running after so many seconds end with an error. Returns
        how many those were. Idempotent."""
        self._draining = True
        return await self._server.stop(grace=seconds) if self._server is not None else 0

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"kind": "gateway", "settings": {**self.settings.model_dump(), **self._told}}
        if self._server is None or self._bound is None:
            return facts
        reached = Address(self._host(), self._bound.port) if self._bound.every_interface else self._bound
        scheme = "https" if self._security.serves_tls else "http"
        facts |= {
            "listens": str(self._bound),
            "url": f"{scheme}://{reached}",
            "sessions": self._server.texts_running,
            "waiting": self._server.requests_waiting,
            "draining": self._draining,
        }
        return facts | ({"problem": self._lack} if self._lack else {})


async def _lack_of(server: GatewayServer) -> str:
    try:
        await server.check_health()
    except DragomanError as error:
        return str(error)
    return ""
