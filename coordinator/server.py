"""The coordinator on the wire: a thin gRPC shell around ``Fleet``, with the standard health service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc

from coordinator.config import CoordinatorConfig
from coordinator.fleet import Dismissal, Fleet
from coordinator.plan_orders import plan_limits
from coordinator.registry import Member
from coordinator.status import status_of_fleet
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import DragomanError
from transport import codec
from transport.address import Address
from transport.audit import audit
from transport.first_message import first_message
from transport.identity import Role
from transport.limits import PROTOCOL_VERSION
from transport.roles import caller, check_member
from transport.security import Security
from transport.servers import ServiceServer
from transport.signals import until_signal
from transport.status import status_of
from transport.version import VERSION

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
#: Every member hears something that often: it takes a silent coordinator for a dead one.
SIGN_OF_LIFE_SECONDS = 1.0
#: Between two ticks, in seconds.
SHORTEST_TICK = 0.05
#: Seconds that a peer may hold a stream without registering.
REGISTRATION_SECONDS = 10.0


class OrderOutbox:
    """What waits to be sent to a member; never waits for it."""

    #: The oldest are dropped beyond it: orders are repeated.
    MESSAGES = 1024

    def __init__(self) -> None:
        self._messages: asyncio.Queue[pb.JoinResponse] = asyncio.Queue()
        self._over = asyncio.Event()
        self._error: DragomanError | None = None

    def send(self, message: pb.JoinResponse) -> None:
        if self._messages.qsize() >= self.MESSAGES:
            self._messages.get_nowait()
        self._messages.put_nowait(message)

    def end(self, error: DragomanError | None = None) -> None:
        """The stream ends, with ``error`` if there is one; what waits is not sent any more."""
        self._error = error
        self._over.set()

    async def messages(self) -> AsyncIterator[pb.JoinResponse]:
        """Until the end. Raises the error that it ended with."""
        over = asyncio.create_task(self._over.wait())
        message = asyncio.create_task(self._messages.get())
        try:
            while True:
                await asyncio.wait((message, over), return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    break
                yield message.result()
                message = asyncio.create_task(self._messages.get())
        finally:
            over.cancel()
            message.cancel()
        if self._error is not None:
            raise self._error


class CoordinatorServicer(pb_grpc.CoordinatorServiceServicer):
    """Messages in, messages out; every decision is the fleet's."""

    def __init__(self, config: CoordinatorConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self.fleet = Fleet(config, clock())
        self._outboxes: dict[Member, OrderOutbox] = {}
        self._wake = asyncio.Event()
        self._joined = pb.JoinResponse(
            joined=pb.Joined(
                protocol_version=PROTOCOL_VERSION,
                report_seconds=config.report_seconds,
                version=VERSION,
                plan_limits=codec.plan_limits_to_wire(plan_limits(config.plan)),
            )
        )

    async def Status(self, request: pb.StatusRequest, context: grpc.aio.ServicerContext) -> pb.StatusResponse:
        # No version check: a client of another release must be able to learn what it talks to.
        return status_of_fleet(self.fleet, self._clock())

    async def Route(self, request: pb.RouteRequest, context: grpc.aio.ServicerContext) -> pb.RouteResponse:
        try:
            return self.fleet.router.route(request, self._clock())
        except DragomanError as error:
            await context.abort(*status_of(error))

    async def Drain(self, request: pb.DrainRequest, context: grpc.aio.ServicerContext) -> pb.DrainResponse:
        asked = {"by": caller(), "verifier": request.verifier, "undo": request.undo or None}
        try:
            response = self.fleet.drains.decide(request)
        except DragomanError as error:
            audit("refused", **asked, call="Drain", reason=str(error))
            await context.abort(*status_of(error))
        audit("drain", **asked, hand_over=request.hand_over or None)
        self._wake.set()
        return response

    async def Join(
        self, requests: AsyncIterator[pb.JoinRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.JoinResponse]:
        try:
            refusal = "a member's first message must be its registration"
            first = await first_message(requests, "registration", seconds=REGISTRATION_SECONDS, refusal=refusal)
            registration = first.registration
            kind = Role.VERIFIER if registration.HasField("verifier") else Role.DRAFTER
            check_member(caller(), kind)
            member = self.fleet.join(registration, self._clock(), caller())
        except DragomanError as error:
            log.warning("refused a member: %s", error)
            audit("refused", by=caller(), call="Join", peer=context.peer(), reason=str(error))
            await context.abort(*status_of(error))
            return
        audit("joined", by=caller(), kind=str(kind), name=registration.name, peer=context.peer())
        outbox = self._outboxes[member] = OrderOutbox()
        outbox.send(self._joined)
        self._wake.set()
        reader = asyncio.create_task(self._read(member, requests, outbox))
        try:
            async for message in outbox.messages():
                yield message
        except DragomanError as error:
            await context.abort(*status_of(error))
        finally:
            # The membership outlives the stream for a while: the member may be back at once.
            reader.cancel()
            del self._outboxes[member]

    async def _read(self, member: Member, requests: AsyncIterator[pb.JoinRequest], outbox: OrderOutbox) -> None:
        try:
            async for request in requests:
                self.fleet.receive(member, request, self._clock())
                if self.fleet.urgent:
                    self._wake.set()
        finally:
            outbox.end()

    async def steer(self) -> None:
        """Tick until cancelled: every ``plan_seconds``, and at once when something happened."""
        alive_at = self._clock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.plan_seconds):
                    await self._wake.wait()
            self._wake.clear()
            self._tick()
            if self._clock() >= alive_at + SIGN_OF_LIFE_SECONDS:
                alive_at = self._clock()
                for outbox in self._outboxes.values():
                    outbox.send(self._joined)
            # However many things happen at once.
            await asyncio.sleep(SHORTEST_TICK)

    def _tick(self) -> None:
        for order in self.fleet.tick(self._clock()):
            outbox = self._outboxes.get(order.member)
            if outbox is None:
                continue
            if isinstance(order, Dismissal):
                outbox.end(order.error)
            else:
                outbox.send(order.message)

    def end_streams(self) -> None:
        """Members dial again, and find the next coordinator."""
        for outbox in self._outboxes.values():
            outbox.end()


class CoordinatorServer:
    """A gRPC server with the coordinator and the health service behind it. ``security`` None: as the environment
    says. ``health_listen``: see `ServiceServer`."""

    def __init__(
        self, config: CoordinatorConfig, *, security: Security | None = None, health_listen: Address | None = None
    ) -> None:
        self.servicer = CoordinatorServicer(config)
        self._server = ServiceServer(SERVICE, security, health_listen=health_listen)
        self.steering: asyncio.Task[None] | None = None
        pb_grpc.add_CoordinatorServiceServicer_to_server(self.servicer, self._server.grpc)

    @property
    def fleet(self) -> Fleet:
        return self.servicer.fleet

    async def start(self, listen: Address) -> Address:
        """Bind and serve; returns the address with the port that was bound. Raises what ``bind`` raises."""
        bound = await self._server.start(listen)
        self.steering = asyncio.create_task(self.servicer.steer())
        return bound

    async def stop(self, grace: float = 0.5) -> None:
        """Not serving any more; members notice at once and go on by themselves."""
        await self._server.begin_shutdown()
        self.servicer.end_streams()
        await self._server.stop(grace)
        if self.steering is not None:
            self.steering.cancel()
            await asyncio.gather(self.steering, return_exceptions=True)


async def serve_until_signal(
    config: CoordinatorConfig,
    listen: Address,
    *,
    security: Security | None = None,
    health_listen: Address | None = None,
    on_ready: Callable[[Address], None],
) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` is told the bound address."""
    server = CoordinatorServer(config, security=security, health_listen=health_listen)
    bound = await server.start(listen)
    assert server.steering is not None
    on_ready(bound)
    try:
        await until_signal(_steering(server.steering))
    finally:
        await server.stop()


async def _steering(task: asyncio.Task[None]) -> None:
    """As long as it steers: a coordinator that does so no more must not look alive."""
    await asyncio.shield(task)
