"""What drafters send between two steps: budgets of their own, and what ends the waiting for them."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Resync, Span, Verdict
from speculation.protocol.proposal import Proposal
from speculation.text.digest import EMPTY_DIGEST
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import (
    SLOW,
    WAITING,
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
from verifier_service.instruments import PrometheusInstruments
from verifier_service.work_budget import WorkBudget


def link(name: str) -> DrafterLink:
    """For whose messages there is always time."""
    return DrafterLink(pb.Hello(name=name, max_sessions=4), work=WorkBudget(spent=lambda: 0.0))


def test_a_flood_drowns_nobody_but_its_sender():
    inbox, flooder, honest = Inbox(), link("flooder"), link("honest")
    draft = Span(0, EMPTY_DIGEST, b"a" * 900)
    inbox.put(honest, Join())
    for _ in range(5000):
        inbox.put(flooder, draft)
    inbox.put(honest, draft)
    inbox.put(flooder, Join())
    taken = list(inbox.take())
    assert taken[:4] == [(honest, Join()), (flooder, draft), (honest, draft), (flooder, draft)], "in turns"
    assert taken[-1] == (flooder, Join())
    assert len(taken) - 3 == Inbox.BYTES // (900 + Inbox.MESSAGE_COST)
    assert flooder.rejected_messages == 5000 - (len(taken) - 3) and honest.rejected_messages == 0
    inbox.renew()
    inbox.put(flooder, draft)
    assert list(inbox.take()) == [(flooder, draft)]


class Time:
    """A steady clock, and the work of a thread, in seconds."""

    def __init__(self) -> None:
        self.now = self.spent = 0.0

    def budget(self) -> WorkBudget:
        return WorkBudget(clock=lambda: self.now, spent=lambda: self.spent)


def test_a_budget_of_work_grows_with_time_and_sessions():
    time = Time()
    budget = time.budget()
    for sessions, share in ((0, 0.03), (4, 0.07)):
        assert budget.has_left(sessions)
        with pytest.raises(RuntimeError), budget.spending():
            time.spent += 0.005 + share  # all of it, and what comes in the next second
            raise RuntimeError("whatever becomes of the work")
        time.now += 0.999
        assert not budget.has_left(sessions)
        time.now += 0.002
        assert budget.has_left(sessions)
        time.now += 1e6
    assert budget.has_left(4)
    with budget.spending():
        time.spent += 0.0051
    assert not budget.has_left(4), "no more is saved up than may be spent at once"


def test_what_there_is_no_time_for_waits_and_only_its_sender_does():
    time, inbox = Time(), Inbox()
    slow = DrafterLink(pb.Hello(name="slow", max_sessions=4), work=time.budget())
    honest = DrafterLink(pb.Hello(name="honest", max_sessions=4), work=time.budget())
    draft = Span(0, EMPTY_DIGEST, b"a")

    def take(most: int | None = None) -> list[str]:
        taken = []
        for sender, event in inbox.take(most):
            time.spent += 0.002 if sender is slow and event == draft else 0.0
            taken.append(sender.hello.name)
        return taken

    for sender in (slow, honest):
        for _ in range(8):
            inbox.put(sender, draft)
    assert take() == ["slow", "honest"] * 3 + ["honest"] * 5, "2 ms each of 5, the last to its end"
    for _ in range(Inbox.MESSAGES):
        inbox.put(slow, draft)
    inbox.renew()
    assert inbox.refuses(slow) and slow.rejected_messages > 0, "what waits counts"
    inbox.put(slow, Join())
    time.now += 1.0
    assert take(most=2) == ["slow", "slow"], "28 ms were saved up, and 5 may be"
    while inbox.refuses(slow):
        time.now += 1.0
        take()
        inbox.renew()
    inbox.put(slow, draft)
    time.now += 1.0
    assert take() == ["slow"]


def test_of_a_drafter_that_left_nothing_is_held_once_its_mail_is_taken():
    inbox, draft = Inbox(), Span(0, EMPTY_DIGEST, b"a")
    for number in range(100):
        passing = link(f"passing {number}")
        inbox.put(passing, Join())
        inbox.put(passing, draft)
        inbox.leave(passing)
        assert list(inbox.take()) == [(passing, Join()), (passing, draft)], "it is as good as before"
    stays = link("stays")
    inbox.put(stays, draft)
    assert inbox.drafters == 1
    inbox.leave(stays)
    inbox.put(stays, Join())
    assert list(inbox.take()) == [(stays, draft), (stays, Join())] and inbox.drafters == 1, "one that came back"
    inbox.leave(stays)
    inbox.leave(link("never came"))
    assert inbox.drafters == 0


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
    """What is not even read is counted."""
    engine, registry = TextEngine(), CollectorRegistry()
    async with (
        serving(engine, instruments=PrometheusInstruments(registry, "m")) as (verifier, address),
        stub_to(address) as stub,
    ):
        expected, _ = await text_of(address, request(WARM))
        raw = RawDrafter(stub)
        await raw.dial()
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, request(WARM)))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions
        for _ in range(2 * Inbox.MESSAGES):
            await raw.call.write(pb.AssistRequest(resync=pb.Resync(session=session, offset=0)))
        (flooding,) = verifier.roster.links
        await eventually(lambda: flooding.rejected_messages >= Inbox.MESSAGES)
        # One that was faster than the steps, and is not cut off for it at its first mistake.
        await raw.call.write(pb.AssistRequest(resync=pb.Resync(session="another's", offset=0)))
        await eventually(lambda: flooding.malformed_messages == 1)
        labels = {"model_name": "m", "engine": "0", "replica": "", "quota": "waiting_messages_of_one_drafter"}
        assert (registry.get_sample_value("dragoman_refused_total", labels) or 0.0) >= Inbox.MESSAGES - 1
        engine.gate.set()
        text, _ = await task
        assert text == expected and verifier.roster.links == [flooding]
        await baseline(verifier, engine)


async def test_nobody_waits_for_a_drafter_that_left():
    """Its first draft holds steps back from then on; it declines in mid-wait."""
    engine = TextEngine()
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(WARM, no_draft=True))
        raw = RawDrafter(stub)
        await raw.dial()
        task = asyncio.create_task(text_of(address, request(WARM)))
        await eventually(lambda: any(opened.drafters and opened.session.stats.steps for opened in verifier.sessions))
        (session,) = verifier.roster.links[0].sessions
        started = time.monotonic()
        await raw.call.write(pb.AssistRequest(decline=pb.Decline(session=session, reason="enough")))
        text, _ = await task
        assert text == expected and time.monotonic() - started < WAITING.patience / 2
        await baseline(verifier, engine)


async def test_a_draft_that_there_was_no_time_for_ends_the_wait_when_there_is():
    """Nothing else comes that would wake the session."""
    engine, spent = TextEngine(), 0.0
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(WARM, no_draft=True))
        raw = RawDrafter(stub)
        await raw.dial()
        task = asyncio.create_task(text_of(address, request(WARM)))
        await eventually(lambda: any(opened.drafters and opened.session.stats.steps for opened in verifier.sessions))
        (opened,), (link,) = verifier.sessions, verifier.roster.links
        link.work = WorkBudget(spent=lambda: spent)
        with link.work.spending():
            spent += 0.02  # of 0.04 a second
        started, steps = time.monotonic(), opened.session.stats.steps
        span = pb.DraftSpan(session=opened.name, base_digest=EMPTY_DIGEST, text=expected[:30], tokens=9)
        await raw.call.write(pb.AssistRequest(span=span))
        await eventually(lambda: opened.session.stats.steps > steps)
        assert time.monotonic() - started < WAITING.patience / 2
        await raw.call.write(pb.AssistRequest(decline=pb.Decline(session=opened.name, reason="enough")))
        assert (await task)[0] == expected
        await baseline(verifier, engine)


async def test_a_plan_out_of_range_costs_a_drafter_nothing_but_the_plan(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
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
    said = [record for record in caplog.records if "keeps its plan: width=1000000" in record.getMessage()]
    assert said and all(record.__dict__["session"].startswith("s-") for record in said)
