"""The verifier on the wire: a thin gRPC shell around ``Verifier``, with the standard health service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from protos.status import status_of
from protos.transport import Address, server_options
from speculation.errors import ConnectionFailedError, DragomanError, ProtocolError
from verifier_service.drafter_link import DrafterLink
from verifier_service.verifier import Verifier

log = logging.getLogger(__name__)

#: Seconds that running texts are given when a verifier stops.
GRACE = 1.0
#: Seconds in which clients and drafters take leave after that.
_FAREWELL_SECONDS = 1.0
SERVICE = pb.DESCRIPTOR.services_by_name["VerifierService"].full_name


class VerifierServicer(pb_grpc.VerifierServiceServicer):
    """Messages in, messages out; every decision is the verifier's."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        # No version check: a client of another release must be able to learn what it talks to.
        return self._verifier.describe()

    async def Generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateResponse]:
        try:
            async with contextlib.aclosing(self._verifier.generate(request)) as responses:
                async for response in responses:
                    yield response
        except DragomanError as error:
            await context.abort(*status_of(error))

    async def Assist(
        self, requests: AsyncIterator[pb.AssistRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.AssistResponse]:
        try:
            first = await anext(requests, None)
            if first is None or not first.HasField("hello"):
                raise ProtocolError("a drafter's first message must be a hello")
            link = self._verifier.roster.attach(first.hello)
        except DragomanError as error:
            log.warning("refused a drafter: %s", error)
            await context.abort(*status_of(error))
            return
        reader = asyncio.create_task(self._read(link, requests))
        measuring = asyncio.create_task(self._verifier.roster.keep_measuring(link))
        try:
            while True:
                sender = asyncio.ensure_future(link.outbox.next_message())
                await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
                if not sender.done():
                    sender.cancel()
                    reader.result()
                    return
                yield sender.result()
        except DragomanError as error:
            await context.abort(*status_of(error))
        finally:
            reader.cancel()
            measuring.cancel()
            self._verifier.roster.detach(link)

    async def _read(self, link: DrafterLink, requests: AsyncIterator[pb.AssistRequest]) -> None:
        async for message in requests:
            self._verifier.roster.receive(link, message)


class VerifierServer:
    """A gRPC server with the verifier and the health service behind it."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self._server = grpc.aio.server(options=server_options())
        self._health = health.aio.HealthServicer()
        pb_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(verifier), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, listen: Address) -> Address:
        """Bind and serve; returns the address with the port that was bound. Raises ConnectionFailedError."""
        try:
            port = self._server.add_insecure_port(str(listen))
        except RuntimeError as error:
            raise ConnectionFailedError(
                f"cannot listen at {listen}: the port is in use, or the address is not this machine's",
                remedy="give another --listen, or stop what runs there",
            ) from error
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return Address(listen.host, port)

    async def stop(self, grace: float = GRACE) -> None:
        """Not serving any more. Running texts are given ``grace`` seconds, then handed over to other verifiers;
        drafters are told to dial again."""
        await self._health.enter_graceful_shutdown()
        await self.verifier.stop_serving(grace)
        await self.verifier.roster.drain(reconnect_after_ms=1000)
        await self._server.stop(min(grace, _FAREWELL_SECONDS))
        self.verifier.shutdown()


async def serve_until_signal(
    verifier: Verifier, listen: Address, *, on_ready: Callable[[Address], None], grace: float
) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` is told the bound address. ``grace``: see `VerifierServer.stop`."""
    server = VerifierServer(verifier)
    bound = await server.start(listen)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    on_ready(bound)
    try:
        await stop.wait()
    finally:
        await server.stop(grace)
