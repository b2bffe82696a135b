"""Rejection rules over gRPC: what a lying drafter may send, the vocabulary's way, who declines, predictions, auto."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.protocol.proposal import MAX_PAIRS, Proposal
from speculation.protocol.status import DrafterStatus
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.digest import EMPTY_DIGEST
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import (
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
from tests.support.text_engine import TextEngine
from tests.support.tiny_models import load_tiny
from transport import codec
from transport.limits import WireLimits
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.verifier import Verifier


def drawn(token: int = 3, steps=(3,), weights=(9,)) -> pb.DrawnToken:
    return pb.DrawnToken(token=token, id_steps=steps, weights=weights)


LIES = {
    "no distribution": [drawn(steps=(), weights=())],
    "fewer weights than tokens": [drawn(steps=(3, 1))],
    "weight of nothing": [drawn(steps=(3, 1), weights=(9, 0))],
    "weight beyond the scale": [drawn(weights=(2**31,))],
    "the same token twice": [drawn(steps=(3, 0), weights=(1, 1))],
    "a token that was not in it": [drawn(token=4)],
    "a token beyond the vocabulary": [drawn(token=10**6, steps=(10**6,))],
    "too many probabilities": [drawn(steps=range(1, MAX_PAIRS + 2), weights=[1] * (MAX_PAIRS + 1))],
    "too many tokens": [drawn()] * 100,
}


@dataclass
class Held:
    """A session that waits before its first step, and a drafter that speaks the wire by hand."""

    verifier: Verifier
    raw: RawDrafter
    session: str
    alone: bytes
    finish: Callable[[], Awaitable[tuple[bytes, pb.GenerateFinished]]]

    @property
    def link(self) -> DrafterStatus:
        return self.verifier.describe().drafters[0]


@contextlib.asynccontextmanager
async def held(asked: pb.GenerateRequest) -> AsyncIterator[Held]:
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        alone, _ = await text_of(address, asked)
        raw = RawDrafter(stub)
        await raw.dial()
        engine.gate.clear()
        task = asyncio.create_task(text_of(address, asked))
        await eventually(lambda: verifier.describe().drafters[0].sessions == 1)
        (session,) = verifier.roster.links[0].sessions

        async def finish() -> tuple[bytes, pb.GenerateFinished]:
            engine.gate.set()
            return await task

        yield Held(verifier, raw, session, alone, finish)
        await baseline(verifier, engine)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_impossible_distributions_are_refused_and_the_session_goes_on(lie: list[pb.DrawnToken]):
    async with held(request(WARM, rule=Rule.REJECTION)) as started:
        await started.raw.span(session=started.session, base_digest=EMPTY_DIGEST, drawn=lie)
        await eventually(lambda: started.link.rejected_messages == 1)
        assert (await started.finish())[0] == started.alone


@pytest.mark.parametrize("rule", Rule.concrete())
async def test_a_possible_lie_cannot_break_a_session_nor_move_the_text_of_other_rules(rule: Rule):
    """All of q on one token, a token without text in mid-draft, a start that is far away."""
    lies: list[dict[str, Any]] = [
        dict(drawn=[drawn()] * 8),
        dict(drawn=[drawn(270, (270,)), drawn(), drawn(271, (271,))], text=b"x", ends=True),
        dict(drawn=[drawn()], zero_width=7),
        dict(drawn=[drawn()], base_offset=900),
    ]
    async with held(request(WARM, rule=rule)) as started:
        for lie in lies:
            await started.raw.span(**{"session": started.session, "base_digest": EMPTY_DIGEST} | lie)
        await eventually(lambda: started.link.spans == len(lies))
        text, finished = await started.finish()
        assert text and started.link.rejected_messages == 0
        assert rule.proposes or text == started.alone
        assert finished.speculation.rule == codec.rule_to_wire(rule)


def test_a_distribution_survives_the_wire_to_the_last_bit():
    span = Span(7, 5, b"", tokens=1, proposals=(Proposal(9, (2, 9, 70_000), (1, 2**16, 3)),), zero_width=2)
    wire = pb.DraftSpan.FromString(codec.span_to_wire("s", span).SerializeToString())
    assert codec.span_from_wire(wire, WireLimits(), committed=7, vocab_size=70_001) == span


def test_a_messages_size_does_not_tell_what_was_drawn():
    ids, weights = (1, 300, 70_000), (9, 9, 9)
    sizes = {
        len(codec.span_to_wire("s", Span(0, 1, b"", proposals=(Proposal(token, ids, weights),))).SerializeToString())
        for token in ids
    }
    assert len(sizes) == 1


# ---- who declines, and who need not --------------------------------------------------------------------------------


async def test_an_enumeration_that_is_too_large_is_declined(tiny_qwen2: Path, tiny_gemma: Path):
    plan = SpeculationPlan(top_k=64, stop_threshold=0.0, patience=10.0)
    async with (
        serving(TransformersEngine(load_tiny(tiny_qwen2)), plan=plan, adaptive=False) as (verifier, address),
        drafting(address, ModelDrafter(load_tiny(tiny_gemma)), max_sessions=1),
    ):
        await drafters(verifier, 1)
        asked = request(WARM, max_tokens=40, rule=Rule.STRING_REJECTION, ignore_end=True)
        _, finished = await text_of(address, asked)
        assert finished.completion_tokens == 40 and finished.speculation.spans == 0
        await eventually(lambda: verifier.describe().drafters[0].sessions == 0)
        _, finished = await text_of(address, request(WARM, max_tokens=40, rule=Rule.RACE, ignore_end=True))
        assert finished.speculation.spans > 0, "the drafter itself is as good as before"


@pytest.mark.parametrize("rule", [Rule.REJECTION, Rule.STRING_REJECTION])
async def test_drafters_of_text_assist_under_every_rule(rule: Rule):
    """A lookup has no distribution to send; its text is verified by agreement, so the text is the target's own draw."""
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine) as (verifier, address), drafting(address, LookupDrafter()):
        await drafters(verifier, 1)
        alone, _ = await text_of(address, request(SamplingParams(), rule=rule, no_draft=True, max_tokens=120))
        text, finished = await text_of(address, request(SamplingParams(), rule=rule, max_tokens=120))
        assert text == alone and finished.speculation.spans > 0
        await baseline(verifier, engine)
