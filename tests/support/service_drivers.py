"""Verifiers and drafters over real gRPC on loopback, for tests; and what every fault test must end in."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from drafter_service.client import DrafterClient
from drafter_service.draft_source import Drafter
from dragoman.client import Client
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.text_engine import TextDrafter, TextEngine
from transport import codec, prompt_codec
from transport.address import Address
from transport.backoff import Backoff
from transport.channels import open_channel
from transport.limits import PROTOCOL_VERSION
from transport.security import Security
from verifier_service.engine import Engine
from verifier_service.server import VerifierServer
from verifier_service.verifier import Verifier

#: Seconds in which what is waited for has come, also while other processes keep every core busy: a process that is
#: started takes up to a minute then.
PATIENCE = 120.0

LOOPBACK = Address("127.0.0.1", 0)
QUICK = Backoff(shortest=0.02, longest=0.1)
#: Sampling with draws that matter, and a plan under which steps wait for the drafter.
WARM = SamplingParams(temperature=1.0, seed=4)
SLOW = SpeculationPlan(stop_threshold=0.0, patience=0.5)
#: The same for texts that a drafter has to take part in: one that is starved for longer than a plan's patience is not
#: waited for in the next 32 steps.
WAITING = dataclasses.replace(SLOW, patience=10.0)


@contextlib.asynccontextmanager
async def serving(
    engine: Engine, *, listen: Address = LOOPBACK, security: Security | None = None, **options: Any
) -> AsyncIterator[tuple[Verifier, Address]]:
    """A verifier on the engine that serves at an address; ``options``: of the verifier."""
    verifier = Verifier(engine, **options)
    server = VerifierServer(verifier, security=security)
    bound = await server.start(listen)
    try:
        yield verifier, bound
    finally:
        if isinstance(engine, TextEngine):
            engine.gate.set()  # a test that failed while it was closed ends, too
        await server.stop(grace=0.1)


@contextlib.asynccontextmanager
async def answering(servicer: pb_grpc.VerifierServiceServicer) -> AsyncIterator[Address]:
    """What stands in for a verifier of another kind: of an earlier release, or one that hangs."""
    server = grpc.aio.server()
    pb_grpc.add_VerifierServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def drafting(address: Address, drafter: Drafter | None = None, **options: Any) -> AsyncIterator[DrafterClient]:
    """A drafter that dials the verifier, and again if it is cut off. ``options``: of its client."""
    client = DrafterClient(drafter or TextDrafter(), address, name="d", backoff=QUICK, **options)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def stub_to(address: Address, security: Security | None = None) -> AsyncIterator[pb_grpc.VerifierServiceStub]:
    """The wire by hand."""
    async with open_channel(address, security) as channel:
        yield pb_grpc.VerifierServiceStub(channel)


def request(
    sampling: SamplingParams, *, max_tokens: int = 60, rule: Rule = Rule.RACE, **fields: Any
) -> pb.GenerateRequest:
    """On the wire, with one prompt for all. ``fields``: further ones."""
    return pb.GenerateRequest(
        protocol_version=PROTOCOL_VERSION,
        prompt=prompt_codec.prompt_to_wire(Prompt(text="a story: ")),
        sampling=codec.sampling_to_wire(sampling),
        rule=codec.rule_to_wire(rule),
        max_tokens=max_tokens,
        **fields,
    )


async def text_of(
    address: Address,
    req: pb.GenerateRequest,
    on_chunk: Callable[[bytes], Awaitable[object]] | None = None,
    *,
    security: Security | None = None,
) -> tuple[bytes, pb.GenerateFinished]:
    """The text and its end. ``on_chunk`` is awaited with the text so far, and so holds the rest of it back."""
    text, finished = b"", None
    async with stub_to(address, security) as stub:
        async for response in stub.Generate(req):
            if response.HasField("chunk"):
                text += b"".join(run.text for run in response.chunk.runs)
                if on_chunk is not None:
                    await on_chunk(text)
            elif response.HasField("finished"):
                finished = response.finished
    assert finished is not None
    return text, finished


async def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def baseline(verifier: Verifier, engine: TextEngine) -> None:
    """No session left, no KV memory held."""
    await eventually(lambda: verifier.describe().sessions == 0)
    assert engine.open_slots == 0
    assert verifier.describe().kv_cache_bytes == 0


async def drafters(verifier: Verifier, count: int) -> None:
    """Until so many drafters are connected."""
    await eventually(lambda: len(verifier.describe().drafters) == count)


async def described(client: Client, **wanted: int) -> None:
    """Until the verifier describes itself so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.describe()
            found = {
                "sessions": answer.sessions,
                "kv_cache_bytes": answer.kv_cache_bytes,
                "drafters": len(answer.drafters),
            }
            if all(found[name] == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.02)
