"""Bad input at the wire: malformed spans, drafters and requests that cannot be worked with.

Each gets one clear line and the right status; the session goes on, and memory is back at its baseline.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest

from drafter_service.client import DrafterClient
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import VersionMismatchError
from speculation.sampling.params import SamplingParams
from speculation.text.digest import DigestedText
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import QUICK, baseline, drafters, eventually, request, serving, stub_to, text_of
from tests.support.text_engine import TextDrafter, TextEngine
from transport.limits import PROTOCOL_VERSION, WireLimits
from verifier_service.inbox import Inbox

MALFORMED = {
    "unknown session": {"session": "s-0"},
    "oversized text": {"text": b"x" * 5000},
    "offset beyond all limits": {"base_offset": 2**50},
    "a chance that is no number": {"confidence": float("nan")},
    "a chance above 1": {"confidence": 1.5},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_spans_are_refused_and_the_session_goes_on(fields: dict, caplog: pytest.LogCaptureFixture):
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(SamplingParams()))
        raw = RawDrafter(stub)
        assert (await raw.dial()).limits.span_bytes == WireLimits().span_bytes
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, request(SamplingParams())))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions
        await raw.span(**({"session": session, "text": b"x", "base_digest": 1} | fields))
        await eventually(lambda: verifier.describe().drafters[0].rejected_messages == 1)
        named = f"session {session}: " if "session" not in fields else "drafter "
        assert [record.message for record in caplog.records if record.message.startswith(named)], caplog.text
        engine.gate.set()
        assert (await task)[0] == expected
        assert len(verifier.describe().drafters) == 1, "one bad message does not end the stream"
        await baseline(verifier, engine)


async def test_wrong_digest_is_stale_not_an_error():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        raw = RawDrafter(stub)
        await raw.dial()
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, request(SamplingParams())))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions
        await raw.span(session=session, base_digest=12345, text=b"the cat")
        await eventually(lambda: verifier.describe().drafters[0].spans == 1)
        engine.gate.set()
        _, finished = await task
        assert finished.speculation.stale_spans == 1
        assert verifier.describe().drafters[0].rejected_messages == 0
        await baseline(verifier, engine)


async def test_a_flood_of_good_spans_is_cut_to_what_a_step_can_take():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(SamplingParams()))
        raw = RawDrafter(stub)
        await raw.dial()
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, request(SamplingParams())))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions
        digest = DigestedText(b"").digest
        flood = 300
        for number in range(flood):
            text = bytes((number % 256,)) * 900
            await raw.span(session=session, base_digest=digest, text=text, confidence=1.0, alternative=number % 9)
        await eventually(lambda: verifier.describe().drafters[0].spans == flood)
        engine.gate.set()
        text, finished = await task
        assert text == expected
        link = verifier.roster.links[0]
        taken = finished.speculation.spans
        assert 0 < taken <= Inbox.BYTES // 900 * 2, "no step took in more than it may"
        assert link.rejected_messages >= flood - taken - link.stale_spans
        await baseline(verifier, engine)


async def test_a_flood_of_malformed_messages_ends_the_stream():
    engine = TextEngine()
    limits = WireLimits(malformed_messages=5)
    async with serving(engine, limits=limits) as (verifier, address), stub_to(address) as stub:
        raw = RawDrafter(stub)
        await raw.dial()
        for _ in range(limits.malformed_messages + 1):
            await raw.span(session="s-nonsense")
        with pytest.raises(grpc.aio.AioRpcError):
            while await raw.call.read() is not grpc.aio.EOF:
                pass
        assert await raw.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "malformed" in await raw.call.details()
        await drafters(verifier, 0)
        assert (await text_of(address, request(SamplingParams())))[0]
        await baseline(verifier, engine)


BAD_HELLOS = {
    "another protocol version": ({"protocol_version": 99}, grpc.StatusCode.FAILED_PRECONDITION, "version 99"),
    "no name": ({"name": ""}, grpc.StatusCode.INVALID_ARGUMENT, "hello.name"),
    "no capacity": ({"max_sessions": 0}, grpc.StatusCode.INVALID_ARGUMENT, "hello.max_sessions"),
    "NaN speed": ({"seconds_per_token": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, "seconds_per_token"),
}


@pytest.mark.parametrize("fields, code, words", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
async def test_drafters_that_cannot_be_worked_with(fields: dict, code: grpc.StatusCode, words: str):
    async with serving(TextEngine()) as (verifier, address), stub_to(address) as stub:
        raw = RawDrafter(stub, **fields)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw.dial()
        assert caught.value.code() is code
        assert words in str(caught.value.details())
        assert len(verifier.describe().drafters) == 0


async def test_drafter_client_gives_up_on_another_protocol_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("drafter_service.hello.PROTOCOL_VERSION", 99)
    async with serving(TextEngine()) as (_, address):
        client = DrafterClient(TextDrafter(), address, name="new", backoff=QUICK)
        with pytest.raises(VersionMismatchError, match="99"):
            await asyncio.wait_for(client.run(), 20)


BAD_REQUESTS = {
    "empty prompt": (dict(prompt=pb.Prompt()), "prompt"),
    "prompt that is not UTF-8": (dict(prompt=pb.Prompt(text=b"\xff\xfe")), "UTF-8"),
    "prompt beyond the context": (dict(prompt=pb.Prompt(text=b"\xe7\x8c\xab" * 2100)), "context"),
    "negative temperature": (dict(sampling=pb.SamplingParams(temperature=-1)), "temperature"),
    "NaN temperature": (dict(sampling=pb.SamplingParams(temperature=float("nan"))), "temperature"),
    "top_p of 2": (dict(sampling=pb.SamplingParams(top_p=2)), "top_p"),
    "bias on an unknown id": (dict(sampling=pb.SamplingParams(logit_bias={10**6: 1.0})), "logit_bias"),
    "empty stop string": (dict(stop=[b""]), "stop"),
    "unknown rule": (dict(rule=77), "rule"),
}


@pytest.mark.parametrize("fields, words", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_bad_requests_name_the_field(fields: dict, words: str):
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        good = pb.GenerateRequest(protocol_version=PROTOCOL_VERSION, prompt=pb.Prompt(text=b"x"), max_tokens=4)
        for name, value in fields.items():
            good.ClearField(name)
            good.MergeFrom(pb.GenerateRequest(**{name: value}))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(good).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in str(caught.value.details())
        await baseline(verifier, engine)


async def test_clients_of_another_version_and_too_many_sessions():
    engine = TextEngine()
    async with serving(engine, max_sessions=1) as (verifier, address), stub_to(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(pb.GenerateRequest(protocol_version=7, prompt=pb.Prompt(text=b"x"))).read()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        engine.gate.clear()
        first = asyncio.create_task(text_of(address, request(SamplingParams())))
        await eventually(lambda: verifier.describe().sessions == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request(SamplingParams())).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.gate.set()
        assert (await first)[0]
        await baseline(verifier, engine)
