"""One identity has no more than it may, and the others have what is left; a refusal says so, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from dragoman import Client
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import LimitExceededError
from tests.support.certificates import TestAuthority
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import baseline, drafters, drafting, eventually, serving, stub_to
from tests.support.text_engine import TextEngine
from transport.bundles import bundled
from transport.identity import Identity, Role
from verifier_service import quotas as quotas_module
from verifier_service.instruments import PrometheusInstruments
from verifier_service.quotas import (
    ARRIVALS,
    ARRIVALS_PER_SECOND,
    LOCKED_OUT_SECONDS,
    MESSAGES_PER_SECOND,
    MESSAGES_PER_SESSION,
    MESSAGES_SECONDS,
    STREAMS_EACH,
    Quota,
    Quotas,
)

ANNA, BERT = Identity(Role.CLIENT, "anna"), Identity(Role.CLIENT, "bert")
EDGE, OTHER = Identity(Role.DRAFTER, "edge-1"), Identity(Role.DRAFTER, "edge-2")


def test_texts_of_one_client_at_once():
    refused: list[Quota] = []
    quotas = Quotas(2, refused=refused.append)
    with quotas.session(ANNA), quotas.session(BERT), quotas.session(None), quotas.session(None), quotas.session(None):
        with quotas.session(ANNA):
            with (
                pytest.raises(LimitExceededError, match="client anna has 2 texts written at once"),
                quotas.session(ANNA),
            ):
                pass
            with quotas.session(BERT):
                pass
        with quotas.session(ANNA):
            pass
    assert refused == [Quota.SESSIONS]
    with contextlib.ExitStack() as many:
        for _ in range(1000):
            many.enter_context(Quotas().session(ANNA))


def test_streams_of_one_drafter_at_once():
    now = [0.0]
    quotas = Quotas(clock=lambda: now[0])
    with contextlib.ExitStack() as streams:
        for _ in range(STREAMS_EACH):
            now[0] += 1.0
            streams.enter_context(quotas.stream(EDGE))
        for _ in range(2 * ARRIVALS):  # which cost nothing
            with pytest.raises(LimitExceededError, match="drafter edge-1 has 1024 streams"), quotas.stream(EDGE):
                pass
        with quotas.stream(OTHER), quotas.stream(None):
            pass
    with quotas.stream(EDGE):
        pass


def test_who_dials_again_and_again_waits_and_nobody_else():
    now = [0.0]
    refused: Counter[Quota] = Counter()
    quotas = Quotas(clock=lambda: now[0], refused=lambda quota: refused.update([quota]))
    for _ in range(ARRIVALS):
        with quotas.stream(EDGE):
            pass
    for _ in range(5):
        with pytest.raises(LimitExceededError, match="dials again and again"), quotas.stream(EDGE):
            pass
    with quotas.stream(OTHER):
        pass
    now[0] += 1 / ARRIVALS_PER_SECOND
    with quotas.stream(EDGE):
        pass
    assert refused == {Quota.ARRIVALS: 5}


def test_of_many_identities_the_one_that_came_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas_module, "REMEMBERED", 1)
    monkeypatch.setattr(quotas_module, "ARRIVALS", 1)
    quotas = Quotas(clock=lambda: 0.0)
    with quotas.stream(EDGE):
        pass
    with pytest.raises(LimitExceededError), quotas.stream(EDGE):
        pass
    with quotas.stream(OTHER):
        pass
    with quotas.stream(EDGE):
        pass


def test_messages_of_one_drafter():
    now = [0.0]
    refused: list[Quota] = []
    quotas = Quotas(clock=lambda: now[0], refused=refused.append)
    most = int(MESSAGES_SECONDS * MESSAGES_PER_SECOND)
    quotas.messages(EDGE, 1, most, sessions=0)
    with pytest.raises(LimitExceededError, match="more than 2,000 messages a second, the most for 0 sessions"):
        quotas.messages(EDGE, 1, 1, sessions=0)
    quotas.messages(EDGE, 2, 100, sessions=0)  # another machine with the same token
    now[0] += 100 / MESSAGES_PER_SECOND
    quotas.messages(EDGE, 1, 100, sessions=0)
    with pytest.raises(LimitExceededError):
        quotas.messages(EDGE, 1, 1, sessions=0)
    quotas.messages(None, 3, most, sessions=0)
    with pytest.raises(LimitExceededError):
        quotas.messages(None, 3, 1, sessions=0)
    assert refused == [Quota.MESSAGES] * 3
    with pytest.raises(LimitExceededError, match="drafter edge-1 sent too many messages"), quotas.stream(EDGE):
        pass
    with quotas.stream(OTHER), quotas.stream(None):
        pass
    now[0] += LOCKED_OUT_SECONDS
    with quotas.stream(EDGE):
        pass
    assert refused[3:] == [Quota.LOCKED_OUT]


async def test_clients_beyond_it_are_told_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "dragoman.audit")
    authority = TestAuthority(tmp_path)
    registry = CollectorRegistry()
    engine = TextEngine()
    async with (
        serving(
            engine,
            security=authority.mutual(Role.VERIFIER),
            max_sessions_each=2,
            instruments=PrometheusInstruments(registry, "m"),
        ) as (verifier, address),
        Client(address, security=authority.mutual(Role.CLIENT, "anna")) as anna,
        Client(address, security=authority.mutual(Role.CLIENT, "bert")) as bert,
        drafting(address, security=authority.mutual(Role.DRAFTER, "edge-1")),
    ):
        await drafters(verifier, 1)
        alone = await bert.complete("a story: ", max_tokens=40)
        engine.gate.clear()
        running = [asyncio.create_task(anna.complete("a story: ", max_tokens=40)) for _ in range(2)]
        await eventually(lambda: len(verifier.sessions) == 2)
        with pytest.raises(LimitExceededError, match="client anna has 2 texts written at once"):
            await anna.complete("a story: ", max_tokens=40)
        running.append(asyncio.create_task(bert.complete("a story: ", max_tokens=40)))
        await eventually(lambda: len(verifier.sessions) == 3)
        engine.gate.set()
        assert {(await each).data for each in running} == {alone.data}
        assert (await anna.complete("a story: ", max_tokens=40)).data == alone.data
        await baseline(verifier, engine)
    samples = {
        (sample.labels.get("quota"), sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "dragoman_refused_total"
    }
    assert samples == {
        ("sessions_of_one_client", 1.0),
        ("waiting_questions_about_tokens", 0.0),
        ("streams_of_one_drafter", 0.0),
        ("arrivals_of_one_drafter", 0.0),
        ("messages_of_one_drafter", 0.0),
        ("drafter_locked_out", 0.0),
        ("malformed_messages_of_one_drafter", 0.0),
        ("waiting_messages_of_one_drafter", 0.0),
    }
    refused = [record for record in caplog.records if record.getMessage() == "refused"]
    assert len(refused) == 1 and "anna" in json.dumps(refused[0].__dict__, default=str)


async def test_a_reconnect_storm_ends_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas_module, "ARRIVALS", 3)
    monkeypatch.setattr(quotas_module, "ARRIVALS_PER_SECOND", 0.001)
    authority = TestAuthority(tmp_path)
    edge = authority.mutual(Role.DRAFTER, "edge-1")
    engine = TextEngine()
    async with serving(engine, security=authority.mutual(Role.VERIFIER)) as (verifier, address):
        for _ in range(3):
            async with drafting(address, security=edge):
                await drafters(verifier, 1)
            await drafters(verifier, 0)
        async with drafting(address, security=edge) as refused:
            await asyncio.sleep(0.3)
            assert not refused.attached and not verifier.roster.links
            async with drafting(address, security=authority.mutual(Role.DRAFTER, "edge-2")):
                await drafters(verifier, 1)


def test_who_drafts_for_more_sessions_may_send_more_messages():
    """A drafter on an H200 sends some 175 a second for each of 16."""
    now = [0.0]
    quotas = Quotas(clock=lambda: now[0])
    rate = int(MESSAGES_PER_SECOND + 16 * MESSAGES_PER_SESSION)
    assert rate > 1.5 * 2_800
    for _ in range(60):
        quotas.messages(EDGE, 1, rate, sessions=16)
        now[0] += 1.0
    quotas.messages(EDGE, 1, int(MESSAGES_SECONDS) * rate, sessions=16)
    with pytest.raises(LimitExceededError, match="4,800 messages a second, the most for 16 sessions"):
        quotas.messages(EDGE, 1, rate, sessions=16)


@pytest.mark.parametrize("in_tls", [False, True])
async def test_a_flood_that_breaks_no_other_rule_ends_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_tls: bool
):
    """Spans for a session that is over are no fault: they may have been on their way. So many are."""
    caplog.set_level(logging.INFO, "dragoman.audit")
    monkeypatch.setattr(quotas_module, "MESSAGES_PER_SECOND", 55.0)
    authority = TestAuthority(tmp_path)
    serves, drafts, asks = (
        authority.mutual(role) if in_tls else None for role in (Role.VERIFIER, Role.DRAFTER, Role.CLIENT)
    )
    engine = TextEngine()
    async with (
        serving(engine, security=serves) as (verifier, address),
        Client(address, security=asks) as client,
        stub_to(address, drafts) as stub,
    ):
        flood = RawDrafter(stub)
        await flood.dial()
        await drafters(verifier, 1)
        expected = await client.complete("a story: ", max_tokens=40)
        session = (await flood.offer()).session
        await baseline(verifier, engine)
        # More than the bucket ever holds, however slow the machine; all in one, for a write that fails would hide why
        # the stream ended.
        spans = [pb.AssistRequest(span=pb.DraftSpan(session=session, text=b"the"))] * 120
        (messages,) = bundled(spans, takes_several=True)
        await flood.call.write(messages)
        with pytest.raises(grpc.RpcError) as ended:
            while True:
                await flood.call.read()
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "messages a second" in str(ended.value.details())
        assert (await client.complete("a story: ", max_tokens=40)).data == expected.data
        await baseline(verifier, engine)
    audited = [record.__dict__ for record in caplog.records if record.getMessage() == "refused"]
    assert len(audited) == 1 and "messages a second" in json.dumps(audited[0], default=str)


async def test_a_stream_that_says_nothing_ends_and_gives_its_place_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verifier_service.server.HELLO_SECONDS", 0.2)
    async with serving(TextEngine()) as (verifier, address), stub_to(address) as stub:
        silent = stub.Assist()
        async with asyncio.timeout(60):
            with pytest.raises(grpc.aio.AioRpcError, match=r"no hello within 0\.2 s"):
                await silent.read()
        async with drafting(address):
            await drafters(verifier, 1)
