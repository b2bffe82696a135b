"""A target's port for drafters alone: its texts are asked for in the program that holds it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dragoman.loop_thread import LoopThread
from transport.address import Address
from transport.security import Security

if TYPE_CHECKING:
    from dragoman.serving import Membership
    from verifier_service.server import VerifierServer
    from verifier_service.verifier import Verifier


@contextlib.contextmanager
def serving_drafters(
    loop: LoopThread,
    make: Callable[[], Verifier],
    address: Address,
    *,
    membership: Membership | None,
    security: Security,
) -> Iterator[tuple[Verifier, Address]]:
    """The verifier that ``make`` makes, in the loop, and the address that was bound. ``make``: of one that is local
    only: clients that dial, or ask the fleet, are sent elsewhere. ``membership``: of a fleet, which sends drafters.

    Raises ConnectionFailedError if the port is taken.
    """
    from verifier_service.server import VerifierServer

    async def start() -> tuple[VerifierServer, Address]:
        verifier = make()
        server = VerifierServer(verifier, security=security)
        try:
            return server, await server.start(address)
        except BaseException:
            verifier.shutdown()
            raise

    server, bound = loop.run(start())
    joining: asyncio.Task[None] | None = None
    try:
        if membership is not None:
            joining = loop.run(_join(server.verifier, membership, bound, security))
        yield server.verifier, bound
    finally:
        if joining is not None:
            loop.run(ended(joining))
        loop.run(server.stop(grace=0.0))


async def _join(verifier: Verifier, membership: Membership, bound: Address, security: Security) -> asyncio.Task[None]:
    from dragoman.serving import default_name, new_instance
    from verifier_service.fleet_member import VerifierMember

    member = VerifierMember(
        verifier,
        membership.coordinator,
        instance=new_instance(),
        name=membership.name or default_name(verifier.engine.name, f":{bound.port}"),
        advertised=membership.advertise or str(bound),
        security=security,
    )
    return asyncio.create_task(member.run())


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel it, and wait until it is over, however it ends."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
