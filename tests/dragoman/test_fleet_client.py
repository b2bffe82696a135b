"""Clients that outlive their verifier, over real gRPC on loopback: fail over, hand over, wait, give up.

Every fault ends in: the same bytes, no session left open, KV memory back to its baseline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordinator.server import CoordinatorServer
from dragoman import FleetClient
from dragoman.coordinator_client import CoordinatorClient
from speculation.errors import (
    ConnectionFailedError,
    DivergedError,
    DrainingError,
    InputError,
    LimitExceededError,
    NoVerifierError,
)
from speculation.sampling.params import SamplingParams
from tests.support.coordinators import coordinating, running
from tests.support.long_text import ASK, PROMPT, at_chunk, expected
from tests.support.service_drivers import LOOPBACK, baseline, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from verifier_service.fleet_member import VerifierMember
from verifier_service.verifier import Verifier

SHORT: dict[str, Any] = {**ASK, "max_tokens": 30}


class Replica:
    """A verifier in the fleet, and how to lose it."""

    def __init__(self, engine: TextEngine, verifier: Verifier, address: Address, stack: contextlib.AsyncExitStack):
        self.engine = engine
        self.verifier = verifier
        self.address = address
        self._stack = stack

    async def stop(self) -> None:
        """Its text ends no sooner, however long that takes; what serves lets the engine go on at last."""
        self.engine.gate.clear()
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def replica(
    coordinator: Address, name: str, *, listen: Address = LOOPBACK, engine: TextEngine | None = None, **kwargs
) -> AsyncIterator[Replica]:
    engine = engine or TextEngine(step_seconds=0.01)
    async with contextlib.AsyncExitStack() as stack:
        verifier, address = await stack.enter_async_context(serving(engine, listen=listen, **kwargs))
        member = VerifierMember(verifier, coordinator, instance=name, name=name, advertised=str(address))
        await stack.enter_async_context(running(member))
        yield Replica(engine, verifier, address, stack)


async def registered(server: CoordinatorServer, count: int) -> None:
    await eventually(lambda: sum(m.reports > 0 for m in server.fleet.registry.verifiers) == count)


def serving_now(*replicas: Replica) -> Replica:
    (found,) = [replica for replica in replicas if replica.verifier.sessions]
    return found


# ---- a fleet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "drained", "handed over"])
async def test_a_text_outlives_its_verifier(how: str) -> None:
    whole = await expected()
    async with (
        coordinating() as (server, at),
        replica(at, "a") as a,
        replica(at, "b") as b,
        FleetClient(at) as client,
        CoordinatorClient(at) as control,
    ):
        await registered(server, 2)
        tasks: list[asyncio.Task] = []

        def lose() -> None:
            lost = serving_now(a, b)
            doing = {
                "stopped": lost.stop,
                "drained": lambda: control.drain(str(lost.address)),
                "handed over": lambda: control.drain(str(lost.address), hand_over=True),
            }[how]
            tasks.append(asyncio.create_task(doing()))

        chunks, watch = at_chunk(10, lose)
        text = await client.complete(PROMPT, **ASK, on_chunk=watch)
        await asyncio.gather(*tasks)
        assert text.data == whole.data and text.token_ids == whole.token_ids
        assert text.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
        assert text.resumes == (0 if how == "drained" else 1)
        if how != "stopped":
            await eventually(lambda: [replica.verifier.draining for replica in (a, b)].count(True) == 1)
            left = b if a.verifier.draining else a
            await client.complete(PROMPT, **ASK, on_chunk=at_chunk(1, lambda: serving_now(left))[1])
        for kept in (a, b):
            await baseline(kept.verifier, kept.engine)


async def test_the_coordinator_dies_and_then_the_verifier() -> None:
    whole = await expected()
    async with contextlib.AsyncExitStack() as steering:
        server, at = await steering.enter_async_context(coordinating())
        async with replica(at, "a") as a, replica(at, "b") as b, FleetClient(at) as client:
            await registered(server, 2)
            tasks: list[asyncio.Task[None]] = []

            async def lose_both() -> None:
                lost = serving_now(a, b)
                lost.engine.gate.clear()
                await steering.aclose()
                await lost.stop()

            _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(lose_both())))
            text = await client.complete(PROMPT, **ASK, on_chunk=watch)
            await asyncio.gather(*tasks)
            assert text.data == whole.data and text.resumes == 1
            # A new text finds the one that is left, too.
            assert (await client.complete(PROMPT, **ASK)).data == whole.data


async def test_the_only_verifier_comes_back_in_time() -> None:
    whole = await expected()
    async with coordinating() as (server, at), contextlib.AsyncExitStack() as later, FleetClient(at) as client:
        first = await later.enter_async_context(replica(at, "a"))
        await registered(server, 1)
        tasks: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await first.stop()
            await asyncio.sleep(0.5)
            await later.enter_async_context(replica(at, "a2"))

        _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(restart())))
        text = await client.complete(PROMPT, **ASK, on_chunk=watch)
        assert text.data == whole.data and text.resumes == 1
        await asyncio.gather(*tasks)


async def test_patience_ends_with_what_happened() -> None:
    async with coordinating() as (server, at), replica(at, "a") as a, FleetClient(at, patience=0.5) as client:
        await registered(server, 1)
        tasks: list[asyncio.Task[None]] = []
        _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(a.stop())))
        with pytest.raises((DrainingError, ConnectionFailedError), match=r"gave up after.*bytes of text received"):
            await client.complete(PROMPT, **ASK, on_chunk=watch)
        await asyncio.gather(*tasks)
        assert a.engine.open_slots == 0


async def test_full_verifiers_are_waited_for() -> None:
    async with coordinating() as (server, at), replica(at, "a", max_sessions=1) as a, FleetClient(at) as client:
        await registered(server, 1)
        texts = await asyncio.gather(*(client.complete(PROMPT, **SHORT) for _ in range(3)))
        assert len({text.data for text in texts}) == 1
        await baseline(a.verifier, a.engine)
        async with FleetClient(at, patience=0.3) as hasty:
            a.engine.step_seconds = 0.05
            running_text = asyncio.create_task(client.complete(PROMPT, **SHORT))
            await eventually(lambda: a.verifier.sessions)
            with pytest.raises(LimitExceededError, match="gave up"):
                await hasty.complete(PROMPT, **SHORT)
            await running_text


async def test_nobody_is_there() -> None:
    async with coordinating() as (_, at), FleetClient(at) as client:
        with pytest.raises(NoVerifierError, match="no verifier is registered"):
            await client.complete(PROMPT)
    async with FleetClient(at) as client:
        with pytest.raises(ConnectionFailedError, match="no coordinator answers"):
            await client.complete(PROMPT)


async def test_a_bad_request_is_not_taken_from_one_to_the_next() -> None:
    async with coordinating() as (server, at), replica(at, "a") as a, FleetClient(at) as client:
        await registered(server, 1)
        with pytest.raises(InputError, match="logit_bias"):
            await client.complete(PROMPT, sampling=SamplingParams(logit_bias={10**6: 1.0}))
        await baseline(a.verifier, a.engine)


async def test_where_no_verifier_writes_the_text_on_it_begins_anew_only_if_asked() -> None:
    """The other replica says that it is the same and is not: a processor that rounds in another way."""
    async with coordinating() as (server, at), contextlib.AsyncExitStack() as others:
        for asked in (False, True):
            async with replica(at, "a") as a, FleetClient(at, patience=5) as client:
                await registered(server, 1)
                tasks: list[asyncio.Task] = []

                async def replace(a: Replica = a) -> None:
                    a.engine.gate.clear()
                    other = TextEngine(salt=3, step_seconds=0.01)
                    await others.enter_async_context(replica(at, "b", engine=other))
                    await a.stop()

                def replacing(do: Callable = replace, doing: list[asyncio.Task] = tasks) -> None:
                    doing.append(asyncio.create_task(do()))

                chunks, watch = at_chunk(20, replacing)
                asking = client.complete(PROMPT, **ASK, on_chunk=watch, on_restart=chunks.clear if asked else None)
                if asked:
                    text = await asking
                    assert text.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
                    assert text.resumes == 0 and text.completion_tokens == 120
                else:
                    with pytest.raises(DivergedError):
                        await asking
                await asyncio.gather(*tasks)
                await others.aclose()
            await eventually(lambda: not server.fleet.registry.verifiers)
