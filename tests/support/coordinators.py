"""A coordinator over real gRPC on loopback, and members that join it: made-up ones, or those of real services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from coordinator.config import CoordinatorConfig
from coordinator.server import CoordinatorServer
from coordinator.status import status_of_fleet
from drafter_service.fleet_member import DrafterMember
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.fleet_members import FakeDrafter, FakeVerifier, verifier
from tests.support.service_drivers import LOOPBACK, QUICK
from transport.address import Address
from transport.joining import CoordinatorLink
from transport.security import Security
from verifier_service.fleet_member import VerifierMember

#: Reports and plans come fast, and a member may be silent for two seconds: tests share their processor with others.
CONFIG = CoordinatorConfig(report_seconds=0.05, plan_seconds=0.05, missed_reports=40)


@contextlib.asynccontextmanager
async def coordinating(
    listen: Address = LOOPBACK, *, config: CoordinatorConfig = CONFIG, security: Security | None = None
) -> AsyncIterator[tuple[CoordinatorServer, Address]]:
    """A coordinator that serves, and the address that it was bound to; stopped when the block is left."""
    server = CoordinatorServer(config, security=security)
    bound = await server.start(listen)
    try:
        yield server, bound
    finally:
        await server.stop(grace=0.2)


@contextlib.asynccontextmanager
async def joining(
    address: Address, member: FakeVerifier | FakeDrafter, **options: Any
) -> AsyncIterator[CoordinatorLink]:
    """The link of a made-up member, which reports and obeys until the block is left. ``options``: of the link."""

    def report() -> pb.JoinRequest:
        member.advance(0.25)
        return member.report()

    link = CoordinatorLink(address, member.registration(), report, member.carry_out, **{"backoff": QUICK, **options})
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(*members: VerifierMember | DrafterMember) -> AsyncIterator[None]:
    """Members of real services, each in a task that ends with the block."""
    tasks = [asyncio.create_task(member.run()) for member in members]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def target() -> FakeVerifier:
    """A made-up verifier "v1" with a session "s" and one link, to a drafter "d1" that drafts for nobody yet."""
    made = verifier("s")
    made.link(1, "d1")
    return made


def status(server: CoordinatorServer) -> pb.StatusResponse:
    """What the coordinator would tell now, without asking it over the wire."""
    return status_of_fleet(server.fleet, asyncio.get_running_loop().time())
