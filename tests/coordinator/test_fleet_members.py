"""A verifier and drafters that belong to a coordinator, over real gRPC: they find each other, obey, and go on without
it. Whatever happens: same bytes, no stuck session, KV memory at its baseline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from drafter_service.fleet_member import DrafterMember
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.planning.plan import PlanLimits
from tests.support.coordinators import CONFIG, coordinating, running, status
from tests.support.long_text import SAMPLING
from tests.support.service_drivers import (
    QUICK,
    WAITING,
    baseline,
    drafters,
    drafting,
    eventually,
    request,
    serving,
    text_of,
)
from tests.support.text_engine import TextDrafter, TextEngine
from transport.address import Address
from verifier_service.fleet_member import VerifierMember, session_report
from verifier_service.verifier import Verifier


def drafter_member(coordinator: Address, number: int, **kwargs) -> DrafterMember:
    return DrafterMember(TextDrafter(), coordinator, instance=f"d{number}", name="edge", backoff=QUICK, **kwargs)


@contextlib.asynccontextmanager
async def fleet(
    coordinator: Address, engine: TextEngine, *, count: int = 1, max_sessions: int = 4, adaptive: bool = False
) -> AsyncIterator[tuple[Verifier, Address]]:
    """A verifier and so many drafters of one name, none of which knows of the others. Not ``adaptive``: drafts are
    asked for and waited for, though they do not pay on a machine that is busy with something else."""
    async with serving(engine, plan=WAITING, adaptive=adaptive) as (verifier, address):
        member = VerifierMember(verifier, coordinator, instance="v", name="cloud", advertised=str(address))
        edges = [drafter_member(coordinator, number, max_sessions=max_sessions) for number in range(count)]
        async with running(member, *edges):
            await drafters(verifier, count)
            yield verifier, address


async def test_members_find_each_other_and_the_coordinator_sees_the_text() -> None:
    engine = TextEngine(step_seconds=0.02)
    async with coordinating() as (server, at), fleet(at, engine) as (verifier, address):
        seen: list[pb.SessionStatus] = []

        async def watch(text: bytes) -> None:
            seen.extend(status(server).sessions)

        text, finished = await text_of(address, request(SAMPLING, max_tokens=100, ignore_end=True), watch)
        assert finished.speculation.accepted_tokens > 0
        assert seen[-1].drafters == ["d0"] and seen[-1].verifier == "v"
        assert seen[-1].committed_tokens > 20 and seen[-1].plan.lookahead > 0
        expected, _ = await text_of(address, request(SAMPLING, max_tokens=100, ignore_end=True, no_draft=True))
        assert text == expected
        await eventually(lambda: not status(server).sessions)
        members = {member.instance: member for member in status(server).members}
        assert members["v"].verifier.committed_tokens == 200
        assert members["d0"].drafter.attached_to == [str(address)]
        assert all(member.rejected_reports == 0 for member in members.values())
        await baseline(verifier, engine)


async def test_the_coordinator_dies_in_mid_text_and_comes_back():
    engine = TextEngine(step_seconds=0.02)
    async with contextlib.AsyncExitStack() as first:
        _, at = await first.enter_async_context(coordinating())
        async with fleet(at, engine) as (verifier, address):
            chunks = 0

            async def watch(text: bytes) -> None:
                nonlocal chunks
                chunks += 1
                if chunks == 5:
                    await first.aclose()

            asked = request(SAMPLING, max_tokens=120, ignore_end=True)
            text, finished = await text_of(address, asked, watch)
            assert chunks > 5 and finished.speculation.accepted_tokens > chunks // 4
            asked.no_draft = True
            assert text == (await text_of(address, asked))[0]
            async with coordinating(at) as (second, _):
                await eventually(lambda: len(status(second).members) == 2)
                _, finished = await text_of(address, request(SAMPLING))
                assert finished.speculation.accepted_tokens > 0
            await baseline(verifier, engine)


async def test_drafters_of_one_name_are_told_apart_and_share_the_sessions():
    engine = TextEngine(step_seconds=0.02)
    async with coordinating() as (server, at), fleet(at, engine, count=2, max_sessions=1) as (verifier, address):
        await eventually(lambda: len(status(server).members) == 3)
        asked = request(SAMPLING, max_tokens=100, ignore_end=True)
        engine.gate.clear()
        texts = asyncio.gather(*(text_of(address, asked) for _ in range(2)))
        await eventually(lambda: {tuple(s.drafters) for s in status(server).sessions} == {("d0",), ("d1",)})
        engine.gate.set()
        (one, first), (other, second) = await texts
        assert first.speculation.accepted_tokens > 0 and second.speculation.accepted_tokens > 0
        asked.no_draft = True
        assert one == other == (await text_of(address, asked))[0]
        await baseline(verifier, engine)


async def test_a_session_moves_from_drafter_to_drafter_in_mid_text() -> None:
    engine = TextEngine(step_seconds=0.01)
    async with (
        serving(engine, plan=WAITING, adaptive=False) as (verifier, address),
        drafting(address),
        drafting(address),
    ):
        await drafters(verifier, 2)
        links = verifier.roster.links
        seen: set[int] = set()
        chunks = 0

        async def watch(text: bytes) -> None:
            nonlocal chunks
            chunks += 1
            for opened in verifier.sessions:
                verifier.roster.place(opened.name, frozenset({links[chunks // 5 % 2].number}))
                assert len(opened.drafters) <= 1
                seen.update(session_report(opened).links)

        asked = request(SAMPLING, max_tokens=120, ignore_end=True)
        text, finished = await text_of(address, asked, watch)
        assert seen == {link.number for link in links}
        assert finished.speculation.accepted_tokens > 0
        assert [link.rejected_messages for link in links] == [0, 0]  # spans that crossed an order are no offence
        asked.no_draft = True
        assert text == (await text_of(address, asked))[0]
        await baseline(verifier, engine)


@pytest.mark.parametrize("plan", [pb.SpeculationPlan(width=10**6), pb.SpeculationPlan(width=2, stop_threshold=-1)])
async def test_a_plan_out_of_range_is_not_obeyed(plan: pb.SpeculationPlan):
    engine = TextEngine(step_seconds=0.01)
    async with coordinating() as (_, at), fleet(at, engine) as (verifier, address):
        member = VerifierMember(verifier, at, instance="w", name="w", advertised=str(address))

        async def watch(text: bytes) -> None:
            for opened in verifier.sessions:
                with pytest.raises(InputError):
                    member.carry_out(pb.JoinResponse(plan=pb.PlanOrder(session=opened.name, plan=plan)))
                assert opened.planner.plan.width <= 256 and opened.planner.plan.stop_threshold >= 0

        text, _ = await text_of(address, request(SAMPLING), watch)
        assert text == (await text_of(address, request(SAMPLING, no_draft=True)))[0]
        await baseline(verifier, engine)


async def test_the_limits_of_plans_outlive_the_coordinator():
    engine = TextEngine()
    config = CONFIG.model_copy(update={"plan": CONFIG.plan.model_copy(update={"max_width": 3, "max_alternatives": 0})})
    async with coordinating(config=config) as (server, at), fleet(at, engine, adaptive=True) as (verifier, address):
        await eventually(lambda: verifier.plan_limits == PlanLimits(3, CONFIG.plan.max_lookahead, 0))
        await server.stop(grace=0.1)

        async def watch(text: bytes) -> None:
            assert all(opened.planner.plan.width <= 3 for opened in verifier.sessions)

        text, _ = await text_of(address, request(SAMPLING), watch)
        assert text == (await text_of(address, request(SAMPLING, no_draft=True)))[0]
        assert verifier.plan_limits.width == 3
        await baseline(verifier, engine)
