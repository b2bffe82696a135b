"""What a step has for drafters goes out before the next step is launched, and each report once; what a drafter waits
for by itself at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from dragoman import Client, Completion, Dragoman, SamplingParams
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError
from speculation.protocol.messages import SessionOffer, SpeculationPlan, Verdict
from speculation.sampling import row_draws
from speculation.sampling.row_draws import LaunchedDraws
from tests.support.raw_drafter import RawDrafter
from tests.support.service_drivers import baseline, drafters, drafting, eventually, serving, stub_to
from tests.support.text_engine import TextEngine
from verifier_service import shared_step
from verifier_service.open_session import OpenSession
from verifier_service.roster import Roster
from verifier_service.session_meter import SessionMeter
from verifier_service.step_report import Addressed, Message, StepReport

ASKED: list[dict[str, Any]] = [
    dict(prompt=prompt, sampling=SamplingParams(temperature=0.9, seed=6), max_tokens=25, ignore_end=True)
    for prompt in ("a story: ", "twice ")
]
#: Generous: for a machine whose cores are busy.
SECONDS = 60.0


async def alone(**asked: Any) -> bytes:
    async with Dragoman(TextEngine()) as model:
        return (await model.complete(**asked)).data


async def test_drafters_are_told_of_a_step_before_the_next_is_launched_and_clients_after(
    monkeypatch: pytest.MonkeyPatch,
):
    """What they draft until then would be stale; text that is passed on would hold the launch up."""
    expected = await alone(**ASKED[0])
    told = passed_on = launched = text_waited = 0
    send, stepped = Roster.send, SessionMeter.stepped

    def counted(roster: Roster, opened: OpenSession, messages: Sequence[Addressed]) -> None:
        nonlocal told
        told += any(isinstance(message, Verdict) for _, message in messages)
        send(roster, opened, messages)

    def passing_on(meter: SessionMeter, report: StepReport) -> None:
        nonlocal passed_on
        passed_on += 1
        stepped(meter, report)

    monkeypatch.setattr(Roster, "send", counted)
    monkeypatch.setattr(SessionMeter, "stepped", passing_on)
    plan = SpeculationPlan(stop_threshold=0.0)
    async with (
        serving(TextEngine(rows=16), lookup=False, plan=plan, adaptive=False) as (verifier, address),
        Client(address) as client,
        drafting(address),
    ):
        await drafters(verifier, 1)

        def launch(*args: Any) -> LaunchedDraws:
            nonlocal launched, text_waited
            deadline = time.monotonic() + SECONDS
            while told < launched:
                assert time.monotonic() < deadline, "no drafter hears of the step before this one"
                time.sleep(0.001)
            text_waited += passed_on < launched
            launched += 1
            return row_draws.draw_rows(*args)

        monkeypatch.setattr(shared_step, "draw_rows", launch)
        assert (await client.complete(**ASKED[0])).data == expected
    assert text_waited > 0 and told == launched


@pytest.mark.parametrize("kind", [SessionOffer, Verdict])
@pytest.mark.parametrize("rows", [None, 16])
async def test_what_cannot_be_told_a_drafter_fails_that_session_only(
    monkeypatch: pytest.MonkeyPatch, rows: int | None, kind: type[Message]
):
    expected = [await alone(**asked) for asked in ASKED]
    send = Roster.send

    def failing(roster: Roster, opened: OpenSession, messages: Sequence[Addressed]) -> None:
        if opened.session.request.max_tokens == 24 and any(isinstance(message, kind) for _, message in messages):
            raise RuntimeError("cannot be told")
        send(roster, opened, messages)

    monkeypatch.setattr(Roster, "send", failing)
    engine = TextEngine(rows=rows)
    async with serving(engine) as (verifier, address), Client(address) as client, drafting(address):
        await drafters(verifier, 1)
        work = [client.complete(**asked) for asked in [*ASKED, {**ASKED[0], "max_tokens": 24}]]
        async with asyncio.timeout(SECONDS):
            *done, failed = await asyncio.gather(*work, return_exceptions=True)
        assert isinstance(failed, DragomanError)
        assert [each.data for each in done if isinstance(each, Completion)] == expected
        assert len(verifier.describe().drafters) == 1
        await baseline(verifier, engine)


@pytest.fixture
def stepping() -> TextEngine:
    """Its steps begin, and end once the gate is open."""
    engine = TextEngine()
    engine.gate.clear()
    return engine


async def test_a_session_is_offered_while_its_first_step_runs(stepping: TextEngine):
    """A drafter reads the prompt beside the target, not after it."""
    expected = await alone(**ASKED[0])
    async with serving(stepping, lookup=False) as (verifier, address), Client(address) as client:
        async with stub_to(address) as stub, asyncio.timeout(SECONDS):
            early, late = RawDrafter(stub, name="early"), RawDrafter(stub, name="late")
            await early.dial()
            writing = asyncio.create_task(client.complete(**ASKED[0]))
            assert (await early.offer()).committed == b""
            await eventually(lambda: stepping.gate.holds)
            await late.dial()
            assert (await late.offer()).committed == b"" and not verifier.committed_tokens
            stepping.gate.set()
            assert (await writing).data == expected
        await baseline(verifier, stepping)


async def test_a_drafter_that_dials_in_while_a_session_cannot_be_told_takes_part_all_the_same(
    monkeypatch: pytest.MonkeyPatch, stepping: TextEngine
):
    def failing(roster: Roster, opened: OpenSession, messages: Sequence[Addressed]) -> None:
        if messages:
            raise RuntimeError("cannot be told")

    async with serving(stepping, lookup=False) as (verifier, address), Client(address) as client:
        async with stub_to(address) as stub, asyncio.timeout(SECONDS):
            writing = asyncio.create_task(client.complete(**ASKED[0]))
            await eventually(lambda: stepping.gate.holds)
            with monkeypatch.context() as patch:
                patch.setattr(Roster, "send", failing)
                drafter = RawDrafter(stub)
                assert (await drafter.dial()).model == stepping.name
                await drafters(verifier, 1)
                stepping.gate.set()
                with pytest.raises(DragomanError):
                    await writing
            assert len(verifier.describe().drafters) == 1
            writing = asyncio.create_task(client.complete(**ASKED[0]))
            assert (await drafter.offer()).committed == b""
            assert (await writing).data == await alone(**ASKED[0])
            drafter.call.cancel()
            await drafters(verifier, 0)
        await baseline(verifier, stepping)


async def test_a_drafter_that_lost_track_is_answered_while_a_step_runs(stepping: TextEngine):
    expected = await alone(**ASKED[0])
    async with serving(stepping, lookup=False) as (verifier, address), Client(address) as client:
        async with stub_to(address) as stub, asyncio.timeout(SECONDS):
            drafter = RawDrafter(stub)
            await drafter.dial()
            writing = asyncio.create_task(client.complete(**ASKED[0]))
            session = (await drafter.offer()).session
            await eventually(lambda: stepping.gate.holds)
            await drafter.call.write(pb.AssistRequest(resync=pb.Resync(session=session, offset=0)))
            while not (message := await drafter.call.read()).HasField("verdict"):
                pass
            assert message.verdict.base_offset == 0 and not verifier.committed_tokens
            stepping.gate.set()
            assert (await writing).data == expected
        await baseline(verifier, stepping)
