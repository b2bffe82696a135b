"""The coordinator as an actor: a plain class, which whoever runs a cluster wraps; Ray is not imported here.

It has a fixed port, so that drafters beyond the cluster find it again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from coordinator.config import CoordinatorConfig
from coordinator.server import CoordinatorServer
from speculation.errors import DragomanError
from transport.address import Address
from transport.hosting import SelfStarting
from transport.security import Security


class CoordinatorActor(SelfStarting):
    """A coordinator that starts itself and comes back after a failure.

    ``host``: asked for this machine's address, at which it listens, whatever ``config`` says. ``security`` None: as its
    environment says.
    """

    def __init__(
        self,
        name: str,
        config: CoordinatorConfig,
        port: int,
        *,
        host: Callable[[], str],
        security: Security | None = None,
        placed: Mapping[str, object] | None = None,
    ) -> None:
        self._config = config
        self._port = port
        self._security = security
        self._server: CoordinatorServer | None = None
        super().__init__(name, host, placed=placed)

    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        self._server = server = CoordinatorServer(self._config, security=self._security)
        bound = await server.start(Address(host, self._port))
        try:
            serving(bound)
            assert server.steering is not None
            await server.steering
            raise DragomanError("the coordinator steers no more")
        finally:
            self._server = None
            await asyncio.shield(server.stop())

    def _facts(self) -> dict[str, Any]:
        settings = {"port": self._port, **self._config.model_dump()}
        facts: dict[str, Any] = {"kind": "coordinator", "settings": settings}
        if self._server is not None:
            registry = self._server.fleet.registry
            facts |= {"verifiers": len(registry.verifiers), "drafters": len(registry.drafters)}
        return facts
