"""Bad and distant links between a drafter and its verifier: same bytes, no stuck session, KV memory at its baseline."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.digest import EMPTY_DIGEST
from tests.support import link_faults
from tests.support.certificates import TestAuthority
from tests.support.link_faults import FAULTS, inflict, mend
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import (
    PATIENCE,
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
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Role
from verifier_service.verifier import Verifier

SAMPLING = SamplingParams(temperature=0.8, seed=9)


_impatient = link_faults.impatient


@contextlib.asynccontextmanager
async def apart(
    engine: TextEngine, conditions: LinkConditions, authority: TestAuthority | None = None
) -> AsyncIterator[tuple[Verifier, Address, FaultProxy]]:
    """A verifier, and a drafter behind the proxy; with an authority, in mutual TLS through it."""
    serves, drafts = (authority.mutual(role) if authority else None for role in (Role.VERIFIER, Role.DRAFTER))
    async with (
        serving(engine, security=serves) as (verifier, address),
        FaultProxy(address.host, address.port, conditions) as proxy,
        drafting(Address.parse(proxy.address, field="proxy"), security=drafts),
    ):
        await drafters(verifier, 1)
        yield verifier, address, proxy


@pytest.mark.parametrize(
    "conditions",
    [
        LinkConditions(0.02),
        LinkConditions(0.01, jitter=0.03),
        LinkConditions(0.005, bytes_per_second=20_000),
    ],
    ids=["far", "jitter", "narrow"],
)
async def test_distance_changes_no_byte(conditions: LinkConditions):
    engine = TextEngine(step_seconds=0.02)
    async with apart(engine, conditions) as (verifier, address, proxy):
        text, finished = await text_of(address, request(SAMPLING))
        assert finished.speculation.accepted_tokens > 0
        described = verifier.describe().drafters[0]
        assert described.round_trip >= 2 * conditions.one_way_delay
        expected, _ = await text_of(address, request(SAMPLING, no_draft=True))
        assert text == expected
        await baseline(verifier, engine)
        assert proxy.bytes_up > 0 and proxy.bytes_down > 0


@pytest.mark.parametrize("fault, in_tls", [*((fault, False) for fault in FAULTS), *((fault, True) for fault in FAULTS)])
async def test_an_outage_in_mid_text(fault: str, in_tls: bool, tmp_path: Path):
    engine = TextEngine(step_seconds=0.02)
    authority = TestAuthority(tmp_path / "ours") if in_tls else None
    client = authority.mutual(Role.CLIENT) if authority else None
    written = functools.partial(text_of, security=client)
    async with apart(engine, LinkConditions(0.005), authority) as (verifier, address, proxy):
        expected, _ = await written(address, request(SAMPLING, max_tokens=150, ignore_end=True, no_draft=True))
        steps = 0

        async def watch(text: bytes) -> None:
            nonlocal steps
            steps += 1
            if steps == 6:
                inflict(proxy, fault)
            if steps == 30:
                mend(proxy)

        text, finished = await written(address, request(SAMPLING, max_tokens=150, ignore_end=True), watch)
        assert text == expected
        assert finished.completion_tokens == 150
        # The link is back: drafts come again, for this text or the next.
        async with asyncio.timeout(PATIENCE):
            while True:
                again, finished = await written(address, request(SAMPLING))
                if finished.speculation.accepted_tokens > 0:
                    break
        assert again == (await written(address, request(SAMPLING, no_draft=True)))[0]
        await baseline(verifier, engine)


async def test_steps_wait_again_for_drafts_once_one_came():
    """That none came over a link that was lost would else let hundreds of steps go on without."""
    engine = TextEngine(step_seconds=0.05)
    async with serving(engine, plan=WAITING, adaptive=False) as (verifier, address), stub_to(address) as stub:
        expected, _ = await text_of(address, request(WARM, no_draft=True))
        patience = verifier.pacing[Rule.RACE].patience
        for _ in range(5):  # until it would take more steps than the text has
            while not patience.hold(WAITING.patience):
                patience.observe_step(seconds=1.0, tokens=1)
            patience.observe_step(seconds=1.0, tokens=1, unanswered=True)
        raw = RawDrafter(stub)
        await raw.dial()
        task = asyncio.create_task(text_of(address, request(WARM)))
        offer = await raw.offer()
        await raw.span(session=offer.session, base_digest=EMPTY_DIGEST ^ 1, text=b"another text", tokens=2)
        await eventually(lambda: verifier.roster.links[0].stale_spans)
        assert not patience.hold(WAITING.patience), "that is of no use"
        await raw.span(session=offer.session, base_digest=EMPTY_DIGEST, text=expected, tokens=9)
        await eventually(lambda: patience.hold(WAITING.patience) or task.done())
        assert patience.hold(WAITING.patience)
        await raw.call.write(pb.AssistRequest(decline=pb.Decline(session=offer.session, reason="enough")))
        assert (await task)[0] == expected
        await baseline(verifier, engine)
