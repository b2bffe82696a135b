"""Links of drafters that answered pings, as a verifier measures them, in made-up time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from verifier_service.drafter_link import DrafterLink


def next_ping(link: DrafterLink) -> int:
    """The number of the next ping that waits to be sent."""
    [message] = asyncio.run(link.outbox.next_messages())
    assert message.HasField("ping")
    return message.ping.number


def measured_link(*, round_trip: float = 0.04, draft_token: float = 0.003) -> DrafterLink:
    """One whose only ping took so long, and was answered with this time per token."""
    made = DrafterLink(pb.Hello(name="d", max_sessions=4))
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: 0.0)
        patch.setattr("verifier_service.drafter_link.time", clock)
        made.ping()
        clock.monotonic = lambda: round_trip
        made.on_pong(pb.Pong(number=next_ping(made), seconds_per_token=draft_token))
    return made


async def a_batch(thread: ThreadPoolExecutor) -> None:
    """The link's worker begins one, its thread carries it out, and what was drafted is sent, on a slow machine too."""
    for _ in range(3):
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(thread, int)
