"""Sessions that go on by themselves: their next step runs while the event loop passes on what the last one brought."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from dragoman import Client, Completion, Dragoman, Rule, SamplingParams
from dragoman.transcript import generation_request
from speculation.errors import DragomanError
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling import row_draws
from speculation.sampling.row_draws import Draw, LaunchedDraws
from speculation.verification.step import Step
from tests.support.service_drivers import baseline, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine, TextSlot
from verifier_service import shared_step
from verifier_service.open_session import OpenSession
from verifier_service.session_planner import SessionPlanner
from verifier_service.verifier import Verifier

ASKED: list[dict[str, Any]] = [
    dict(prompt=prompt, sampling=SamplingParams(temperature=temperature, seed=5), max_tokens=25, ignore_end=True)
    for prompt, temperature in (("a story: ", 0.0), ("once ", 1.0), ("x", 0.7))
]
#: Generous: for a machine whose cores are busy.
SECONDS = 60.0


async def alone(**asked: Any) -> bytes:
    async with Dragoman(TextEngine()) as model:
        return (await model.complete(**asked)).data


class Counting(TextEngine):
    """``begun``: steps. ``before_step``: called in the engine's thread with the number of the step that begins."""

    def __init__(self, *, rows: int | None = None, before_step: Callable[[int], object] = lambda number: None) -> None:
        super().__init__(rows=rows)
        self.begun = 0
        self.before_step = before_step
        self._changed = threading.Condition()

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[torch.Tensor]:
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        self.before_step(self.begun)
        return super().step(batch)

    def wait_for(self, step: int) -> bool:
        """Whether the step begins. Holds the event loop up, if it is called there."""
        with self._changed:
            return self._changed.wait_for(lambda: self.begun >= step, SECONDS)


async def held_in_a_step(engine: Counting) -> int:
    """Until the gate, which is cleared, holds a step; its number."""
    engine.gate.clear()
    await eventually(lambda: engine.gate.holds)
    return engine.begun


async def test_the_next_step_begins_before_the_event_loop_took_the_last():
    engine = Counting()
    async with serving(engine, lookup=False) as (verifier, address), Client(address) as client:
        writing = asyncio.create_task(client.complete(**ASKED[0]))
        await eventually(lambda: engine.begun >= 3)
        running = await held_in_a_step(engine)
        await eventually(lambda: verifier.committed_tokens == running - 1)
        engine.gate.set()
        assert engine.wait_for(running + 1), "while nothing else runs in the event loop"
        assert verifier.committed_tokens == running - 1
        assert (await writing).data == await alone(**ASKED[0])


async def test_no_session_is_far_ahead_of_what_was_passed_on():
    """The event loop, busy with something else, finds one report of a step that ended, beside the one that runs."""
    ahead: list[int] = []
    engine = Counting(rows=16)
    async with serving(engine, lookup=False) as (verifier, address), Client(address) as client:
        engine.before_step = lambda number: ahead.append(number - 1 - verifier.committed_tokens)
        writing = asyncio.create_task(client.complete("x", max_tokens=120, ignore_end=True))
        while not writing.done():
            time.sleep(0.005)  # the event loop
            await asyncio.sleep(0)
        assert (await writing).completion_tokens == 120
    assert len(ahead) == 120 and max(ahead) in (1, 2), "one, and one that is just being taken"


async def test_a_session_that_is_left_is_closed_after_the_step_that_runs():
    engine = Counting(rows=16)
    async with serving(engine) as (verifier, address), Client(address) as client:
        leaving = asyncio.create_task(client.complete("x", max_tokens=500, ignore_end=True))
        await eventually(lambda: engine.begun > 5)
        running = await held_in_a_step(engine)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        [opened] = verifier.sessions
        await eventually(lambda: not opened.drafters.open)  # it is being closed
        assert engine.open_slots == 1, "its step runs"
        engine.gate.set()
        await baseline(verifier, engine)
        assert engine.begun == running, "and was its last"


class Chunked(TextEngine):
    """Prompts in 20 chunks. ``gate`` cleared holds each back; ``chunks``: begun."""

    chunks = 0

    prefill_rows = 1

    def open(self, prompt_ids: Sequence[int]) -> TextSlot:
        slot = super().open(prompt_ids)
        slot.prefill_left = 20
        return slot

    def prefill(self, slots: Sequence[Any]) -> None:
        self.chunks += 1
        self.gate.wait()
        slots[0].prefill_left -= 1


async def test_a_session_that_is_left_is_closed_after_the_chunk_that_runs():
    engine = Chunked(rows=16)
    async with serving(engine) as (verifier, address), Client(address) as client:
        engine.gate.clear()
        leaving = asyncio.create_task(client.complete("x", max_tokens=5))
        await eventually(lambda: engine.chunks == 1)
        [opened] = verifier.sessions
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await eventually(lambda: not opened.drafters.open)
        engine.gate.set()
        await baseline(verifier, engine)
        assert (await client.complete(**ASKED[0])).data == await alone(**ASKED[0])
        await baseline(verifier, engine)
        assert engine.chunks == 1 + 20, "no other was run"


class Held:
    """Draws that a device makes by itself: it is done when ``done`` says so."""

    def __init__(self, draws: LaunchedDraws, done: Callable[[], object]) -> None:
        self._draws = draws
        self._done = done

    def read(self) -> list[list[Draw]]:
        self._done()
        return self._draws.read()


async def test_what_a_step_brought_is_passed_on_while_the_next_one_runs(monkeypatch: pytest.MonkeyPatch):
    """The text, and what is learned: the device is not done before both are."""
    expected = [await alone(**asked) for asked in ASKED]
    learned = launched = 0  # steps, each of one token, of all sessions

    async with serving(TextEngine(rows=16), lookup=False) as (verifier, address), Client(address) as client:

        def launch(logits: Any, *args: Any) -> Any:
            nonlocal launched
            before, launched = launched, launched + len(logits)

            def done() -> None:
                deadline = time.monotonic() + SECONDS
                while verifier.committed_tokens < before:
                    assert time.monotonic() < deadline, "the text waits for the step after it"
                    time.sleep(0.001)
                assert learned == before

            return Held(row_draws.draw_rows(logits, *args), done)

        def observe(*args: Any, **kwargs: Any) -> None:
            nonlocal learned
            learned += 1

        monkeypatch.setattr(shared_step, "draw_rows", launch)
        monkeypatch.setattr(SessionPlanner, "observe_step", observe)
        done = await asyncio.gather(*(client.complete(**asked) for asked in ASKED))
        assert [completion.data for completion in done] == expected
    assert launched == 25 * len(ASKED)


@pytest.mark.parametrize("rows", [None, 16])
async def test_what_fails_while_a_session_goes_on_fails_that_session_only(
    monkeypatch: pytest.MonkeyPatch, rows: int | None
):
    expected = [await alone(**asked) for asked in ASKED]
    settle = OpenSession.settle

    def failing(opened: OpenSession) -> None:
        if opened.session.request.max_tokens == 24 and len(opened.session.token_ids) > 5:
            raise RuntimeError("cannot learn")
        settle(opened)

    monkeypatch.setattr(OpenSession, "settle", failing)
    engine = TextEngine(rows=rows)
    async with serving(engine) as (verifier, address), Client(address) as client:
        work = [client.complete(**asked) for asked in [*ASKED, {**ASKED[0], "max_tokens": 24}]]
        *done, failed = await asyncio.gather(*work, return_exceptions=True)
        assert isinstance(failed, DragomanError)
        assert [each.data for each in done if isinstance(each, Completion)] == expected
        await baseline(verifier, engine)


@pytest.mark.parametrize("rows", [None, 16])
async def test_a_verifier_that_is_shut_down_leaves_nobody_waiting(rows: int | None):
    engine = Counting(rows=rows)
    verifier = Verifier(engine)

    async def write(**asked: Any) -> None:
        async for _ in verifier.generate(generation_request(**asked)):
            pass

    work = [asyncio.create_task(write(**{**asked, "max_tokens": 1500})) for asked in ASKED]
    await eventually(lambda: engine.begun > 20)
    verifier.shutdown()
    async with asyncio.timeout(SECONDS):
        done = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(each, DragomanError) and "has stopped" in str(each) for each in done), done
    assert engine.open_slots == 0


async def test_sessions_that_wait_for_drafts_and_others_share_steps():
    """Some have a drafter that their steps are held back for; nobody is held back for those, or starves beside them."""
    asked = [{**each, "rule": rule} for each in ASKED for rule in (Rule.RACE, Rule.EXACT)]
    expected = [await alone(**each) for each in asked]
    engine = TextEngine(rows=32, step_seconds=0.001)
    plan = SpeculationPlan(stop_threshold=0.0, patience=10.0)
    async with (
        serving(engine, plan=plan, adaptive=False) as (verifier, address),
        Client(address) as client,
        drafting(address),
    ):
        await drafters(verifier, 1)
        work = [client.complete(**each, draft=number % 2 == 0) for number, each in enumerate(asked * 3)]
        async with asyncio.timeout(SECONDS):
            done = await asyncio.gather(*work)
        assert [completion.data for completion in done] == expected * 3
        assert sum(completion.stats.accepted_tokens for completion in done) > 0
        await baseline(verifier, engine)
