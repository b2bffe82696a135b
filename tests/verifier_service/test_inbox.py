"""What drafters send between two steps: budgets of their own, and what ends the waiting for them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Resync, Span, Verdict
from speculation.protocol.proposal import Proposal
from speculation.text.digest import EMPTY_DIGEST
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import (
    SLOW,
    WARM,
    baseline,
    drafters,
    drafting,
    eventually,
    request,
    serving,
    stub_to,
    text_of,
)
from tests.support.text_engine import TextDrafter, TextEngine
from transport import codec
from verifier_service.drafter_link import DrafterLink
from verifier_service.inbox import Inbox, Join


def link(name: str) -> DrafterLink:
    return DrafterLink(pb.Hello(name=name, max_sessions=4))


def test_a_flood_drowns_nobody_but_its_sender():
    inbox, flooder, honest = Inbox(), link("flooder"), link("honest")
    draft = Span(0, EMPTY_DIGEST, b"a" * 900)
    inbox.put(honest, Join())
    for _ in range(5000):
        inbox.put(flooder, draft)
    inbox.put(honest, draft)
    inbox.put(flooder, Join())
    taken = list(inbox.take())
    assert taken[0] == (honest, Join()) and taken[-2:] == [(honest, draft), (flooder, Join())]
    assert len(taken) - 3 == Inbox.BYTES // (900 + Inbox.MESSAGE_COST)
    assert flooder.rejected_messages == 5000 - (len(taken) - 3) and honest.rejected_messages == 0
    inbox.renew()
    inbox.put(flooder, draft)
    assert list(inbox.take()) == [(flooder, draft)]


def test_many_small_messages_and_answers_that_take_much_are_bounded_too():
    inbox, flooder = Inbox(), link("flooder")
    for _ in range(5000):
        inbox.put(flooder, Span(0, EMPTY_DIGEST, b""))
    assert len(list(inbox.take())) == min(Inbox.MESSAGES, Inbox.BYTES // Inbox.MESSAGE_COST)
    inbox.renew()
    for _ in range(100):
        inbox.put(flooder, Resync(0), asks_for=Inbox.BYTES // 3)
    assert len(list(inbox.take())) == 2, "however long the text, one that lost it may ask for it"
    inbox.renew()
    drawn = Proposal(0, tuple(range(1000)), (1 << 12, *[1] * 999))
    for _ in range(100):
        inbox.put(flooder, Span(0, EMPTY_DIGEST, b"", proposals=(drawn,) * 8))
    assert len(list(inbox.take())) == Inbox.PAIRS // 8000 and inbox.refuses(flooder)
    inbox.renew()
    assert not inbox.refuses(flooder)


async def test_resyncs_without_end_cost_the_session_nothing():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(WARM))
        raw = RawDrafter(stub)
        await raw.dial()
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, request(WARM)))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions
        for _ in range(2 * Inbox.MESSAGES):
            await raw.call.write(pb.AssistRequest(resync=pb.Resync(session=session, offset=0)))
        await eventually(lambda: verifier.roster.links[0].rejected_messages >= Inbox.MESSAGES)
        engine.gate.set()
        text, _ = await task
        assert text == expected
        await baseline(verifier, engine)


async def test_nobody_waits_for_a_drafter_that_left():
    """Its first draft holds steps back from then on; it declines in mid-wait."""
    engine = TextEngine()
    waiting = replace(SLOW, patience=10.0)
    async with serving(engine, plan=waiting, adaptive=False) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(WARM, no_draft=True))
        raw = RawDrafter(stub)
        await raw.dial()
        task = asyncio.create_task(text_of(address, request(WARM)))
        await eventually(lambda: any(opened.drafters and opened.session.stats.steps for opened in verifier.sessions))
        (session,) = verifier.roster.links[0].sessions
        started = time.monotonic()
        await raw.call.write(pb.AssistRequest(decline=pb.Decline(session=session, reason="enough")))
        text, _ = await task
        assert text == expected and time.monotonic() - started < waiting.patience / 2
        await baseline(verifier, engine)


async def test_a_plan_out_of_range_costs_a_drafter_nothing_but_the_plan(monkeypatch: pytest.MonkeyPatch):
    """A verifier that orders nonsense: the drafter keeps its plan and stays."""
    honest = codec.verdict_to_wire

    def wrong(session: str, verdict: Verdict) -> pb.Verdict:
        message = honest(session, verdict)
        message.plan.CopyFrom(pb.SpeculationPlan(width=10**6, lookahead=3, span_tokens=1))
        return message

    engine = TextEngine()
    async with serving(engine, plan=SLOW, adaptive=False) as (verifier, address), drafting(address, TextDrafter()):
        expected, _ = await text_of(address, request(WARM, no_draft=True))
        await drafters(verifier, 1)
        monkeypatch.setattr(codec, "verdict_to_wire", wrong)
        for _ in range(2):
            text, finished = await text_of(address, request(WARM))
            assert text == expected and finished.speculation.accepted_tokens > 0
        await baseline(verifier, engine)
        await drafters(verifier, 1)
