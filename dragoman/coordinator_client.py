"""A channel to a coordinator: what a person or a client may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import grpc

from dragoman.transcript import Writer
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from transport.address import COORDINATOR_PORT, Address
from transport.channels import Connection
from transport.limits import PROTOCOL_VERSION
from transport.security import Security
from transport.status import explain

#: Seconds that a coordinator may take to answer a person, and a client that could go on without it.
TIMEOUT, ROUTE_TIMEOUT = 5.0, 2.0
_T = TypeVar("_T")


class CoordinatorClient:
    """Use as an async context manager. ``security`` None: as the environment says.

    Every method raises ConnectionFailedError if nobody answers, ProtocolError if it is no coordinator.
    """

    def __init__(self, coordinator: str | Address, *, security: Security | None = None) -> None:
        if isinstance(coordinator, str):
            coordinator = Address.parse(coordinator, field="coordinator", default_port=COORDINATOR_PORT)
        self.address = coordinator
        self._connection = Connection(coordinator, security, who="coordinator")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def move(self, address: Address) -> None:
        """Ask the coordinator at this address from now on. Raises InputError for one that may not be dialled."""
        await self._connection.move(address)
        self.address = address

    async def status(self, *, timeout: float = TIMEOUT) -> pb.StatusResponse:
        """The fleet as it stands."""
        request = pb.StatusRequest(protocol_version=PROTOCOL_VERSION)
        return await self._answer(lambda stub: stub.Status(request, timeout=timeout))

    async def route(
        self, prefix: int, *, model: str = "", exclude: frozenset[str] = frozenset(), writer: Writer | None = None
    ) -> list[pb.RouteCandidate]:
        """Verifiers for one more text, best first. ``prefix``: digest of its prompt's head. ``exclude``: instances that
        will not do. ``writer``: who wrote the text that is to be resumed.

        Raises NoVerifierError if there is none, LimitExceededError if all are full or draining, InputError if there
        are several models and none is named.
        """
        request = pb.RouteRequest(
            protocol_version=PROTOCOL_VERSION,
            model=writer.model if writer else model,
            prefix_digest=prefix,
            exclude=exclude,
            vocab_hash=writer.vocab_hash if writer else "",
            dtype=writer.dtype if writer else "",
        )
        response: pb.RouteResponse = await self._answer(lambda stub: stub.Route(request, timeout=ROUTE_TIMEOUT))
        return list(response.candidates)

    async def drain(self, verifier: str, *, hand_over: bool = False, undo: bool = False) -> pb.DrainResponse:
        """Give a verifier (its instance, name or address) no new sessions; or again some. Raises InputError."""
        request = pb.DrainRequest(protocol_version=PROTOCOL_VERSION, verifier=verifier, hand_over=hand_over, undo=undo)
        return await self._answer(lambda stub: stub.Drain(request, timeout=TIMEOUT))

    async def _answer(self, call: Callable[[pb_grpc.CoordinatorServiceStub], Awaitable[_T]]) -> _T:
        async with self._connection.channel() as channel:
            try:
                return await call(pb_grpc.CoordinatorServiceStub(channel))
            except grpc.RpcError as error:
                security = self._connection.security
                raise await explain(error, channel, self.address, who="coordinator", security=security) from error
