"""Sessions that need more KV memory than there is: all end with the bytes of each alone, the oldest first."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import pytest

from dragoman import Client, Dragoman, Rule, SamplingParams
from engine.paged_engine import PagedEngine
from speculation.errors import InputError, LimitExceededError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.messages import Prompt, SpeculationPlan
from tests.support.service_drivers import baseline, drafters, drafting, serving, text_of
from tests.support.text_engine import TextEngine
from tests.support.tiny_models import load_tiny
from transport.generation_codec import request_to_wire
from verifier_service import memory_queue
from verifier_service.memory_queue import PRIORITY_SECONDS, MemoryQueue
from verifier_service.session_figures import SessionFigures
from verifier_service.session_run import StepResult

PROMPTS = ("a story: ", "once ", "x", "the end of a long day, ")
ASKED: list[dict[str, Any]] = [
    dict(
        prompt=PROMPTS[number % 4],
        sampling=SamplingParams(temperature=0.8 * (number % 3), seed=number, top_k=20 * (number % 2)),
        rule=Rule.EXACT if number % 5 == 0 else Rule.RACE,
        max_tokens=60,
        ignore_end=True,
    )
    for number in range(12)
]


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> int:
    """So little that a session must take what is free soon after it began."""
    monkeypatch.setattr(memory_queue, "GROWTH", 8)
    return 8


class Session:
    """What the queue knows of one: a slot that may hold as many positions as the others leave."""

    def __init__(self, pool: dict[Session, int], room: int, priority: int = 0) -> None:
        self._pool, self._room, self.priority = pool, room, priority
        self.slot = self

    @property
    def begun(self) -> bool:
        return self in self._pool

    def begin(self) -> None:
        self._pool[self] = 0
        self.hold(1)

    def hold(self, rows: int) -> None:
        if sum(self._pool.values()) + rows > self._room:
            raise LimitExceededError("no room", remedy="wait")
        self._pool[self] += rows

    def preempt(self) -> None:
        del self._pool[self]


class Room:
    def __init__(self, free: bool) -> None:
        self.free = free

    def has_room(self, positions: int) -> bool:
        return self.free


def queue_of(count: int, *, room: int, engine: Room | None = None) -> tuple[Any, list[Any]]:
    pool: dict[Session, int] = {}
    queue: Any = MemoryQueue(engine or Room(free=True))  # type: ignore[arg-type]
    sessions = [Session(pool, room) for _ in range(count)]
    for session in sessions:
        queue.enter(session)
        session.begin()
    return queue, sessions


def test_the_youngest_gives_way_then_the_next_youngest():
    queue, (first, second, third) = queue_of(3, room=6)
    assert queue.make_room(first, 3) == [] and queue.make_room(first, 1) == [third]
    assert queue.make_room(first, 1) == [second] and first.begun
    with pytest.raises(LimitExceededError):
        queue.make_room(first, 2)
    assert first.begun, "nobody else holds any: it fails, as it would alone"


def test_the_youngest_gives_way_itself_if_it_is_the_one_that_needs_more():
    queue, (first, second) = queue_of(2, room=3)
    assert queue.make_room(second, 2) == [second] and first.begun and not second.begun


def test_one_that_begins_again_has_its_old_place():
    queue, (first, second, third) = queue_of(3, room=3)
    assert queue.make_room(second, 1) == [third]
    second.preempt()
    third.begin()
    queue.enter(third)
    second.begin()
    queue.enter(second)
    assert queue.make_room(second, 1) == [third]
    queue.leave(second)
    queue.leave(third)
    queue.enter(second)
    assert queue.make_room(first, 1) == [second], "and one that left and came anew is the youngest"


def test_who_waits_for_memory_is_not_overtaken(monkeypatch: pytest.MonkeyPatch):
    engine = Room(free=True)
    queue, (first, second, third) = queue_of(3, room=9, engine=engine)
    monkeypatch.setattr(Session, "positions_ahead", lambda self, tokens: tokens, raising=False)
    assert queue.prompts([]) == []
    assert queue.prompts([third, first]) == [third, first], "they have memory already"
    first.preempt()
    assert queue.prompts([first, third]) == [third, first]
    third.preempt()
    assert queue.prompts([third, first]) == [first, third]
    engine.free = False
    assert queue.prompts([third, first]) == []
    assert queue.prompts([third, second, first]) == [second, first, third]


def test_priority_is_worth_some_seconds_of_waiting(monkeypatch: pytest.MonkeyPatch):
    """So who is not urgent gives way first, and is not overtaken for ever."""
    monkeypatch.setattr(Session, "positions_ahead", lambda self, tokens: tokens, raising=False)
    now = [0.0]
    pool: dict[Session, int] = {}
    queue: Any = MemoryQueue(Room(free=True), clock=lambda: now[0])  # type: ignore[arg-type]
    usual, urgent, idle = (Session(pool, 3, priority) for priority in (0, -2, 3))
    for session in (idle, usual, urgent):
        queue.enter(session)
        now[0] += 1.0
    assert queue.prompts([idle, usual, urgent]) == [urgent, usual, idle]
    assert queue.prompts([idle, usual]) == [usual, idle]
    for session in (idle, usual, urgent):
        session.begin()
    assert queue.make_room(urgent, 1) == [idle] and queue.make_room(urgent, 1) == [usual]
    now[0] = 3 * PRIORITY_SECONDS + 1
    later = Session(pool, 3)
    queue.enter(later)
    assert queue.prompts([later, idle]) == [idle, later]


@pytest.mark.parametrize("priority", [-1001, 1001, 1 << 31])
async def test_a_priority_beyond_its_range_is_refused_on_both_sides(priority: int):
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        with pytest.raises(InputError, match="priority"):
            await client.complete("x", priority=priority)
        if priority < 1 << 31:
            req = request_to_wire(GenerationRequest(Prompt(text="x")))
            req.priority = priority
            with pytest.raises(grpc.aio.AioRpcError, match=r"priority"):
                await text_of(address, req)


async def test_the_urgent_end_first_where_memory_is_short(growth: int):
    """With the bytes that they have alone."""
    async with Dragoman(TextEngine()) as model:
        expected = [(await model.complete(**asked)).data for asked in ASKED]
    engine = TextEngine(rows=16, step_seconds=0.02, room=100)  # all have come before one ends
    ended: list[int] = []

    async def one(number: int, client: Client) -> bytes:
        done = await client.complete(**ASKED[number], priority=-number * 10)
        ended.append(number)
        return done.data

    async with serving(engine) as (verifier, address), Client(address) as client:
        found = await asyncio.gather(*(one(number, client) for number in range(len(ASKED))))
        await baseline(verifier, engine)
    assert list(found) == expected
    assert ended.index(len(ASKED) - 1) < ended.index(2)


def test_what_a_session_waits_for_memory_is_no_steps_time():
    """Or one long wait would teach all sessions of a rule that drafting does not pay."""
    figures = SessionFigures(SpeculationPlan())
    step = StepResult(instructions=(), forward_began=1.0, forward_ended=2.0)
    assert figures.stepped(step, 3, held=0.0) is None
    assert figures.stepped(step, 3, held=0.0) is not None and figures.decode_tokens == 3
    figures.preempted()
    assert figures.stepped(step, 3, held=0.0) is None and figures.decode_tokens == 3
    assert figures.stepped(step, 3, held=0.0) is not None and figures.decode_tokens == 6


@pytest.mark.parametrize("assisted", [False, True])
async def test_texts_that_outgrow_memory_have_the_bytes_of_each_alone(growth: int, assisted: bool):
    async with Dragoman(TextEngine()) as model:
        expected = [(await model.complete(**asked)).data for asked in ASKED]
    engine = TextEngine(rows=16, step_seconds=0.001, room=100)
    async with serving(engine) as (verifier, address), Client(address) as client, drafting(address, max_sessions=12):
        counted: list[float] = []
        verifier.metrics.preemptions = counted.append
        await drafters(verifier, 1)
        done = await asyncio.gather(*(client.complete(**asked, draft=assisted) for asked in ASKED))
        assert [completion.data for completion in done] == expected
        assert len(counted) > 3, "memory is for a few of them at a time"
        assert not assisted or sum(completion.stats.accepted_tokens for completion in done) > 0
        await baseline(verifier, engine)
    assert not engine.held


async def test_clients_that_leave_while_memory_is_short_leave_nothing(growth: int):
    async with Dragoman(TextEngine()) as model:
        expected = [(await model.complete(**asked)).data for asked in ASKED]
    engine = TextEngine(rows=16, step_seconds=0.001, room=100)
    chance = random.Random(6)
    async with serving(engine) as (verifier, address), Client(address) as client:
        stay = [asyncio.create_task(client.complete(**asked)) for asked in ASKED[:4]]

        async def go(number: int) -> None:
            task = asyncio.create_task(client.complete(**ASKED[number % 12]))
            await asyncio.sleep(chance.random())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(go(number) for number in range(40)))
        assert [(await task).data for task in stay] == expected[:4]
        await baseline(verifier, engine)
    assert not engine.held


async def test_pages_of_a_real_engine_go_round(tiny_llama: Path, growth: int):
    """Prompts and texts are run again after each preemption, also from pages that are still there."""
    asked: list[dict[str, Any]] = [
        {"prompt": f"The heron waits {number}", "sampling": SamplingParams(temperature=0.9, seed=number)}
        for number in range(10)
    ]
    async with Dragoman(PagedEngine(load_tiny(tiny_llama), kv_bytes=4 << 20, rows=16)) as model:
        expected = [(await model.complete(**each, max_tokens=90, ignore_end=True)).data for each in asked]
    for caching in (True, False):
        engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=1 << 17, rows=16, prefix_caching=caching)
        whole = engine.pool.free_pages
        async with serving(engine) as (verifier, address), Client(address) as client:
            counted: list[float] = []
            verifier.metrics.preemptions = counted.append
            work = [client.complete(**each, max_tokens=90, ignore_end=True) for each in asked]
            assert [done.data for done in await asyncio.gather(*work)] == expected
            assert counted
        assert engine.pool.free_pages == whole
