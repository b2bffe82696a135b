"""A fleet, or one verifier, as the gateway asks for texts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from dragoman.client import Client
from dragoman.fleet_client import FleetClient
from dragoman.fleet_status import fleet_of_status, fleet_of_verifier
from gateway.backend import Backend
from speculation.errors import DragomanError, LoadingError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, GenerationRequest, Started
from speculation.protocol.messages import Prompt
from speculation.protocol.status import FleetStatus, ServedModel
from speculation.protocol.tokenizing import TokenPiece
from transport.address import Address
from transport.security import Security

log = logging.getLogger(__name__)

#: Seconds between two questions where the coordinator is.
FOLLOW_SECONDS: Final = 2.0


class ClientBackend(ABC):
    """See ``gateway.backend.Backend``: texts and tokens by a client of the model."""

    @abstractmethod
    async def models(self) -> Sequence[ServedModel]:
        """Those that are served now."""

    @abstractmethod
    async def fleet(self) -> FleetStatus:
        """As it stands."""

    @abstractmethod
    def _client_of(self, model: str) -> Client | FleetClient:
        """Who writes the model's texts."""

    async def write(
        self,
        model: str,
        request: GenerationRequest,
        *,
        on_chunk: Callable[[Chunk], None],
        on_started: Callable[[Started], None],
        on_restart: Callable[[], None] | None,
    ) -> Completion:
        """By any verifier of the model."""
        client = self._client_of(model)
        return await client.write(request, on_chunk=on_chunk, on_started=on_started, on_restart=on_restart)

    async def tokenize(self, model: str, prompt: Prompt) -> Sequence[int]:
        """By any verifier of the model."""
        return await self._client_of(model).tokenize(prompt)

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> Sequence[TokenPiece]:
        """By any verifier of the model."""
        return await self._client_of(model).detokenize(token_ids)


class FleetBackend(ClientBackend):
    """A text outlives its verifier, as ``FleetClient`` has it."""

    def __init__(self, client: FleetClient) -> None:
        self._client = client

    async def models(self) -> Sequence[ServedModel]:
        """All that the fleet serves."""
        return await self._client.models()

    async def fleet(self) -> FleetStatus:
        """As the coordinator sees it."""
        return fleet_of_status(await self._client.status())

    def _client_of(self, model: str) -> FleetClient:
        return self._client.of_model(model)


class VerifierBackend(ClientBackend):
    """The only model is that of the verifier; a text goes on if it starts anew.

    ``hasty``: another client of the same verifier, which does not wait while it loads its model.
    """

    def __init__(self, client: Client, hasty: Client) -> None:
        self._client = client
        self._hasty = hasty

    async def models(self) -> Sequence[ServedModel]:
        """The one."""
        found = await self._hasty.describe()
        return (
            ServedModel(
                name=found.model,
                vocab_hash=found.vocab_hash,
                dtype=found.dtype,
                context_length=found.context_length,
            ),
        )

    async def fleet(self) -> FleetStatus:
        """The verifier, and the drafters that dialled it."""
        return fleet_of_verifier(await self._hasty.describe())

    def _client_of(self, model: str) -> Client:
        return self._client


class LateBackend:
    """One that comes later: who asks before is told that the model is still being loaded."""

    def __init__(self) -> None:
        self._backend: Backend | None = None

    def arrive(self, backend: Backend) -> None:
        """It is asked from now on."""
        self._backend = backend

    def _arrived(self) -> Backend:
        if self._backend is None:
            raise LoadingError("the model is still being loaded")
        return self._backend

    async def models(self) -> Sequence[ServedModel]:
        """Raises LoadingError before it is there, as all of these do."""
        return await self._arrived().models()

    async def fleet(self) -> FleetStatus:
        """Of the one that came."""
        return await self._arrived().fleet()

    async def write(
        self,
        model: str,
        request: GenerationRequest,
        *,
        on_chunk: Callable[[Chunk], None],
        on_started: Callable[[Started], None],
        on_restart: Callable[[], None] | None,
    ) -> Completion:
        """By the one that came."""
        backend = self._arrived()
        return await backend.write(model, request, on_chunk=on_chunk, on_started=on_started, on_restart=on_restart)

    async def tokenize(self, model: str, prompt: Prompt) -> Sequence[int]:
        """By the one that came."""
        return await self._arrived().tokenize(model, prompt)

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> Sequence[TokenPiece]:
        """By the one that came."""
        return await self._arrived().detokenize(model, token_ids)


@contextlib.asynccontextmanager
async def fleet_backend(coordinator: Address | str, *, security: Security | None = None) -> AsyncIterator[FleetBackend]:
    """Of the fleet of that coordinator, connected while the block runs."""
    async with FleetClient(coordinator, security=security) as client:
        yield FleetBackend(client)


@contextlib.asynccontextmanager
async def followed_fleet(
    coordinator: Callable[[], Awaitable[Address]], *, security: Security | None = None
) -> AsyncIterator[FleetBackend]:
    """Of the fleet whose coordinator may come back at another address: ``coordinator`` is asked for it every few
    seconds. Raises the DragomanError of the first answer."""
    async with FleetClient(await coordinator(), security=security) as client:
        following = asyncio.create_task(_follow(client, coordinator))
        try:
            yield FleetBackend(client)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _follow(client: FleetClient, coordinator: Callable[[], Awaitable[Address]]) -> None:
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            found = await coordinator()
            if found != client.coordinator:
                log.info("the coordinator is at %s now, and was at %s", found, client.coordinator)
                await client.move(found)
        except DragomanError as error:  # it is being started anew; meanwhile texts go to verifiers that are known
            log.debug("going on with the coordinator at %s: %s", client.coordinator, error)
        except Exception:  # of whoever is asked: without this task the next move would go unnoticed
            log.exception("asking where the coordinator is")


@contextlib.asynccontextmanager
async def verifier_backend(
    verifier: Address | str, *, security: Security | None = None
) -> AsyncIterator[VerifierBackend]:
    """Of that verifier, connected while the block runs."""
    async with (
        Client(verifier, resume=True, security=security) as client,
        Client(verifier, patience=0.0, security=security) as hasty,
    ):
        yield VerifierBackend(client, hasty)
