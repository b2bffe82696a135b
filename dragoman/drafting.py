"""`dragoman drafter`: draft until a signal, say when it was let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from drafter_service.draft_source import Drafter
from dragoman.serving import default_name, new_instance, say_ready
from protos.dragoman.v1 import dragoman_pb2 as pb
from transport.address import Address
from transport.security import Security
from transport.servers import HealthPort
from transport.signals import until_signal

#: A drafter serves nobody; health checks ask for it under this name, or under none.
SERVICE: Final = "dragoman.v1.Drafter"


def model_and_speed(model: str, seconds_per_token: float) -> str:
    """Say "smollm2 (3.1 ms a token)"; the name alone where a token takes no time to speak of (a lookup)."""
    milliseconds = f"{seconds_per_token * 1000:.1f}"
    return model if milliseconds == "0.0" else f"{model} ({milliseconds} ms a token)"


def serve_drafter(
    drafter: Drafter,
    dialled: Address,
    *,
    fleet: bool = False,
    name: str | None = None,
    max_sessions: int = 4,
    health_listen: Address | None = None,
    security: Security | None = None,
    ready_json: bool = False,
) -> None:
    """Draft until SIGINT or SIGTERM; dials again whenever the link ends.

    ``dialled``: the verifier, or with ``fleet`` the coordinator, which names the verifiers. ``health_listen``: where
    health checks are answered, that it serves from when it was first let in. Raises ConnectionFailedError.
    """
    from drafter_service.client import DrafterClient
    from drafter_service.fleet_member import DrafterMember

    seconds_per_token = drafter.measure()
    instance, let_in = new_instance(), asyncio.Event()
    speed = f"with {model_and_speed(drafter.model_name, seconds_per_token)}"

    def on_connected(welcome: pb.Welcome) -> None:
        words = f"drafting for {welcome.model} at {dialled} {speed}"
        say_ready(words, ready_json, verifier=str(dialled), seconds_per_token=seconds_per_token)
        let_in.set()

    def on_joined(_: pb.Joined) -> None:
        words = f"joined the fleet of the coordinator at {dialled} {speed}"
        say_ready(words, ready_json, coordinator=str(dialled), seconds_per_token=seconds_per_token)
        let_in.set()

    common: dict[str, Any] = {
        "name": name or default_name(drafter.model_name, f"#{instance[:4]}"),
        "instance": instance,
        "max_sessions": max_sessions,
        "seconds_per_token": seconds_per_token,
        "security": security,
    }
    client: DrafterClient | DrafterMember
    if fleet:
        client = DrafterMember(drafter, dialled, on_joined=on_joined, **common)
    else:
        client = DrafterClient(drafter, dialled, on_connected=on_connected, **common)
    health = HealthPort(SERVICE, health_listen)
    asyncio.run(until_signal(_drafting(client.run, health, let_in)))


async def _drafting(run: Callable[[], Coroutine[Any, Any, None]], health: HealthPort, let_in: asyncio.Event) -> None:
    """Run until it ends; health checks learn when the drafter was first let in."""
    await health.start()
    await health.tell(serving=False)
    telling = asyncio.create_task(_tell_once(health, let_in))
    try:
        await run()
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await health.stop()


async def _tell_once(health: HealthPort, let_in: asyncio.Event) -> None:
    await let_in.wait()
    await health.tell(serving=True)
