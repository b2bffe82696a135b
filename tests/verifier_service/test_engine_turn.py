"""While the device works by itself the event loop takes in what drafters send, and at no other time of a step."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from dragoman import Client, Completion, Dragoman, SamplingParams
from speculation.drafts.span_fate import SpanFate
from speculation.errors import DragomanError
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.sampling import row_draws
from speculation.sampling.row_draws import LaunchedDraws
from speculation.sessions.target_session import TargetSession
from tests.support.service_drivers import baseline, drafters, drafting, serving
from tests.support.text_engine import TextEngine
from verifier_service.engine_turn import EngineTurn

ASKED: dict[str, Any] = dict(
    prompt="a story: ", sampling=SamplingParams(temperature=0.9, seed=6), max_tokens=25, ignore_end=True
)
#: Generous: for a machine whose cores are busy.
SECONDS = 60.0


def test_there_is_no_gap_in_a_turn_but_where_the_device_works():
    turn = EngineTurn()
    with turn.gap() as free:
        assert free
    with turn:
        with turn.gap() as free:
            assert not free
        with pytest.raises(RuntimeError), turn.device_works():
            with turn.gap() as free:
                assert free
            raise RuntimeError("the device failed")
        with turn.gap() as free:
            assert not free
    with turn.gap() as free:
        assert free


def test_a_turn_waits_for_the_gap_to_end():
    turn, began = EngineTurn(), threading.Event()

    def work() -> None:
        with turn:
            began.set()

    with turn.gap():
        thread = threading.Thread(target=work)
        thread.start()
        assert not began.wait(0.05)
    thread.join(SECONDS)
    assert began.is_set()


def test_no_gap_comes_between_a_turn_that_waits_and_its_beginning():
    """However often the event loop asks: a lock alone would be given to it again and again."""
    turn, leave = EngineTurn(), threading.Event()

    def work() -> None:
        with turn:
            leave.wait(SECONDS)

    thread = threading.Thread(target=work)
    with turn.gap():
        thread.start()
        deadline = time.monotonic() + SECONDS
        while not turn.wanted:
            assert time.monotonic() < deadline
    for _ in range(10_000):
        with turn.gap() as free:
            assert not free
    leave.set()
    thread.join(SECONDS)
    with turn.gap() as free:
        assert free and not turn.wanted


@pytest.mark.parametrize("rows", [None, 16])
async def test_drafts_are_taken_in_while_the_device_works(monkeypatch: pytest.MonkeyPatch, rows: int | None):
    """The third step lasts until that has happened, whether rows are drawn on the device or logits are awaited."""
    async with Dragoman(TextEngine()) as model:
        expected = (await model.complete(**ASKED)).data
    works, taken_in, steps = threading.Event(), 0, 0
    on_span = TargetSession.on_span

    def counted(session: TargetSession, span: Span) -> SpanFate:
        nonlocal taken_in
        taken_in += threading.current_thread() is threading.main_thread() and works.is_set()
        return on_span(session, span)

    def work() -> None:
        nonlocal steps
        steps += 1
        works.set()
        deadline, before = time.monotonic() + SECONDS, taken_in
        while steps == 3 and taken_in == before:
            assert time.monotonic() < deadline, "no draft is taken in"
            time.sleep(0.001)
        works.clear()

    class Awaited(LaunchedDraws):
        def read(self) -> list[list[row_draws.Draw]]:
            work()
            return super().read()

    engine = TextEngine(rows=rows)
    step = engine.step

    def slow(*args: Any) -> Any:
        work()
        return step(*args)

    if rows is None:
        monkeypatch.setattr(engine, "step", slow)
    else:
        monkeypatch.setattr(row_draws, "LaunchedDraws", Awaited)
    monkeypatch.setattr(TargetSession, "on_span", counted)
    plan = SpeculationPlan(stop_threshold=0.0)
    async with (
        serving(engine, lookup=False, plan=plan, adaptive=False) as (verifier, address),
        Client(address) as client,
        drafting(address),
    ):
        await drafters(verifier, 1)
        async with asyncio.timeout(2 * SECONDS):
            assert (await client.complete(**ASKED)).data == expected
        assert taken_in > 0 and steps > 3
        await baseline(verifier, engine)


@pytest.mark.parametrize("rows", [None, 16])
async def test_what_cannot_be_taken_in_fails_its_session_only(monkeypatch: pytest.MonkeyPatch, rows: int | None):
    """Whoever takes it in: the drafter's stream goes on, and so do the other texts."""
    async with Dragoman(TextEngine()) as model:
        expected = (await model.complete(**ASKED)).data
    on_span = TargetSession.on_span

    def failing(session: TargetSession, span: Span) -> SpanFate:
        if session.request.max_tokens == 24:
            raise RuntimeError("cannot be taken in")
        return on_span(session, span)

    monkeypatch.setattr(TargetSession, "on_span", failing)
    engine = TextEngine(rows=rows, step_seconds=0.01)
    plan = SpeculationPlan(stop_threshold=0.0, patience=4.0)
    async with (
        serving(engine, lookup=False, plan=plan, adaptive=False) as (verifier, address),
        Client(address) as client,
        drafting(address) as drafter,
    ):
        await drafters(verifier, 1)
        async with asyncio.timeout(2 * SECONDS):
            work = [client.complete(**ASKED), client.complete(**{**ASKED, "max_tokens": 24}), client.complete(**ASKED)]
            first, failed, last = await asyncio.gather(*work, return_exceptions=True)
        assert isinstance(failed, DragomanError)
        assert [each.data for each in (first, last) if isinstance(each, Completion)] == [expected] * 2
        assert drafter.attached
        await baseline(verifier, engine)
