"""Verifier and drafter services over real gRPC on loopback, with exact tiny models.

Every fault ends in: the same bytes, no session left open, KV memory back to its baseline.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drafter_service.lookup_drafter import LookupDrafter
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import ConnectionFailedError
from speculation.protocol.messages import SessionOffer, SpeculationPlan
from speculation.sampling.noise import drafter_seed
from speculation.sampling.params import Rule, SamplingParams
from tests.support.service_drivers import (
    WAITING,
    WARM,
    baseline,
    drafters,
    drafting,
    request,
    serving,
    stub_to,
    text_of,
)
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.text_models import TextModelSource
from transport.channels import open_channel
from transport.limits import PROTOCOL_VERSION
from verifier_service.server import SERVICE, VerifierServer
from verifier_service.verifier import Verifier

SAMPLINGS = [SamplingParams(), SamplingParams(temperature=0.8, seed=5)]


@pytest.mark.parametrize("rule", Rule.concrete())
@pytest.mark.parametrize("sampling", SAMPLINGS)
async def test_same_bytes_with_and_without_drafters(sampling: SamplingParams, rule: Rule):
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address):
        alone, _ = await text_of(address, request(sampling, rule=rule))
        async with drafting(address), drafting(address, LookupDrafter()):
            await drafters(verifier, 2)
            assisted, finished = await text_of(address, request(sampling, rule=rule))
            undrafted, without = await text_of(address, request(sampling, rule=rule, no_draft=True))
        assert alone == assisted == undrafted
        assert finished.speculation.accepted_tokens > 0
        assert finished.speculation.bytes_up > 0 and finished.speculation.bytes_down > 0
        assert without.speculation.draft_tokens == 0 and without.speculation.spans == 0
        assert finished.completion_tokens == without.completion_tokens
        await baseline(verifier, engine)


async def test_many_sessions_at_once_each_its_own_text():
    engine = TextEngine(step_seconds=0.001)
    async with serving(engine) as (verifier, address), drafting(address, max_sessions=2), drafting(address):
        await drafters(verifier, 2)
        requests = [request(SamplingParams(temperature=1.0, seed=seed)) for seed in range(6)]
        together = await asyncio.gather(*(text_of(address, req) for req in requests))
        for req, (text, _) in zip(requests, together, strict=True):
            assert (await text_of(address, req))[0] == text
        assert len({text for text, _ in together}) == len(requests)
        await baseline(verifier, engine)


async def test_drafter_leaves_in_mid_text_and_another_comes():
    engine = TextEngine(step_seconds=0.03)
    sampling = SamplingParams(temperature=0.8, seed=9)
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address):
        expected, _ = await text_of(address, request(sampling, no_draft=True))
        async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
            await first.enter_async_context(drafting(address))
            await drafters(verifier, 1)
            drafted = 0

            async def swap(text: bytes) -> None:
                nonlocal drafted
                if first is not None and len(text) > 20 and drafted == 0:
                    drafted = verifier.describe().drafters[0].spans
                    engine.gate.clear()
                    await first.aclose()
                    await drafters(verifier, 0)
                    await second.enter_async_context(drafting(address))
                    await drafters(verifier, 1)
                    engine.gate.set()

            text, finished = await text_of(address, request(sampling), swap)
            assert drafted > 0
            assert finished.speculation.spans > drafted, "the second drafter took the running session on"
        assert text == expected
        await baseline(verifier, engine)


async def test_verifier_restarts_and_the_drafter_comes_back():
    engine = TextEngine()
    sampling = SamplingParams()
    async with serving(engine) as (_, address):
        expected, _ = await text_of(address, request(sampling))
    async with drafting(address):
        for _ in range(2):
            async with serving(engine, listen=address, plan=WAITING, adaptive=False) as (verifier, _):
                await drafters(verifier, 1)
                engine.step_seconds = 0.02
                text, finished = await text_of(address, request(sampling))
                assert text == expected
                assert finished.speculation.accepted_tokens > 0
                await baseline(verifier, engine)


async def test_client_goes_away_in_mid_text():
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine) as (verifier, address), drafting(address), stub_to(address) as stub:
        await drafters(verifier, 1)
        call = stub.Generate(request(SamplingParams(), max_tokens=2000, ignore_end=True))
        await call.read()
        await call.read()
        assert verifier.describe().sessions == 1
        call.cancel()
        await baseline(verifier, engine)
        assert verifier.describe().drafters[0].sessions == 0


async def test_drafter_that_declines_is_left_alone():
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine) as (verifier, address), drafting(address, TextDrafter(refuse=True)):
        await drafters(verifier, 1)
        _, finished = await text_of(address, request(SamplingParams()))
        assert finished.speculation.spans == 0
        await baseline(verifier, engine)


async def test_a_drafter_whose_model_fails_loses_that_session_only():
    drafter, engine, failures = TextDrafter(), TextEngine(step_seconds=0.02), [RuntimeError("out of memory")]
    opened = drafter.open

    def failing(offer: SessionOffer):
        if failures:
            raise failures.pop()
        return opened(offer)

    drafter.open = failing
    async with (
        serving(engine, plan=WAITING, adaptive=False) as (verifier, address),
        drafting(address, drafter),
    ):
        await drafters(verifier, 1)
        alone, without = await text_of(address, request(SamplingParams()))
        assert without.speculation.spans == 0 and not failures
        again, finished = await text_of(address, request(SamplingParams()))
        assert finished.speculation.spans > 0 and again == alone
        assert [link.rejected_messages for link in verifier.roster.links] == [0]
        await baseline(verifier, engine)


async def test_the_enumeration_of_psi_says_nothing_about_the_drafters_speed():
    """It takes many times a draft token's time, and plans for other texts rest on that."""

    class SlowSource(TextModelSource):
        def expand(self, *args, **kwargs):
            time.sleep(0.05)
            return super().expand(*args, **kwargs)

    class Slow(TextDrafter):
        def open(self, offer: SessionOffer) -> TextModelSource:
            return SlowSource(self.model, offer)

    async with (
        serving(TextEngine(step_seconds=0.05), plan=WAITING, adaptive=False) as (verifier, address),
        drafting(address, Slow(), seconds_per_token=0.001) as drafter,
    ):
        await drafters(verifier, 1)
        _, finished = await text_of(address, request(SamplingParams(), rule=Rule.STRING_REJECTION))
        assert finished.speculation.spans > 3 and drafter.seconds_per_token == 0.001
        _, finished = await text_of(address, request(SamplingParams()))
        assert finished.speculation.spans > 1 and drafter.seconds_per_token > 0.002


@pytest.mark.parametrize("rule", Rule.concrete())
async def test_drafters_get_the_clients_seed_only_where_both_draw_with_the_same_noise(rule: Rule):
    """Or they would know what a rule that rejects accepts."""
    seeds = []

    class Recording(TextDrafter):
        def open(self, offer: SessionOffer) -> TextModelSource:
            seeds.append(offer.sampling.seed)
            return super().open(offer)

    async with (
        serving(TextEngine(step_seconds=0.01), plan=WAITING, adaptive=False) as (verifier, address),
        drafting(address, Recording()),
    ):
        await drafters(verifier, 1)
        for _ in range(2):
            await text_of(address, request(dataclasses.replace(WARM, seed=7), rule=rule))
    assert set(seeds) == {7 if rule is Rule.RACE else drafter_seed(7)}


async def test_an_engine_that_fails_fails_one_session_only(monkeypatch: pytest.MonkeyPatch):
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        good = engine.model.logits
        monkeypatch.setattr(engine.model, "logits", lambda ids: 1 / 0)
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(request(SamplingParams())):
                pass
        await baseline(verifier, engine)
        monkeypatch.setattr(engine.model, "logits", good)
        assert (await text_of(address, request(SamplingParams())))[0]


async def test_port_in_use_is_a_clear_error():
    async with serving(TextEngine()) as (_, address):
        other = VerifierServer(Verifier(TextEngine()))
        with pytest.raises(ConnectionFailedError, match="in use"):
            await other.start(address)
        other.verifier.shutdown()


async def test_health_and_description():
    async with (
        serving(TextEngine(), plan=SpeculationPlan(width=3)) as (_, address),
        open_channel(address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        status = (await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        described = await pb_grpc.VerifierServiceStub(channel).Describe(pb.DescribeRequest())
    assert described.model == "text-target"
    assert described.vocab_hash == TextEngine.tokenizer.vocab.content_hash
    assert described.protocol_version == PROTOCOL_VERSION
