"""Connections of one client to the verifiers of a fleet, which come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from dragoman.client import Client
from transport.security import Security

#: Connections that stay open without a user: a verifier that starts anew often has another address.
IDLE: Final = 32


@dataclass(slots=True)
class _Connection:
    client: Client
    users: int = 0


class VerifierClients:
    """By address. Those that nobody uses stay open for the next text, the latest ``IDLE`` of them."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._connections: dict[str, _Connection] = {}  # the latest last

    @property
    def addresses(self) -> list[str]:
        """Of all that are open."""
        return list(self._connections)

    @contextlib.asynccontextmanager
    async def client(self, address: str) -> AsyncIterator[Client]:
        """Open while the block runs, and for longer if there is room."""
        connection = self._connections.pop(address, None)
        if connection is None:
            connection = _Connection(Client(address, security=self._security))
        self._connections[address] = connection
        connection.users += 1
        try:
            yield connection.client
        finally:
            connection.users -= 1
            idle = [address for address, found in self._connections.items() if not found.users]
            closing = [self._connections.pop(address) for address in idle[:-IDLE]]
            await asyncio.gather(*(found.client.close() for found in closing))

    async def close(self) -> None:
        """Close all."""
        closing = list(self._connections.values())
        self._connections.clear()
        await asyncio.gather(*(found.client.close() for found in closing))
