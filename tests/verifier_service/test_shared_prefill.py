"""Prompts that run chunk by chunk, several in one pass: no step waits for more than a chunk, none fails for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from dragoman import Client, Dragoman, SamplingParams
from speculation.errors import DragomanError
from speculation.verification.step import Step
from tests.support.service_drivers import baseline, eventually, serving
from tests.support.text_engine import TextEngine, TextSlot

ASKED: list[dict[str, Any]] = [
    dict(prompt=prompt, sampling=SamplingParams(temperature=0.7 * heat, seed=3), max_tokens=30)
    for prompt in ("a story: ", "once ", "x", "the end of a long day, ")
    for heat in (0, 1)
]


async def alone(**asked: Any) -> bytes:
    async with Dragoman(TextEngine()) as model:
        return (await model.complete(**asked)).data


class Chunked(TextEngine):
    """Prompts in chunks of so many tokens, of all prompts together; ``events``: what ran, in order."""

    def __init__(self, prefill_rows: int = 1) -> None:
        super().__init__(rows=64, step_seconds=0.001)
        self.prefill_rows = prefill_rows
        self.prompts: dict[TextSlot, list[int]] = {}
        self.events: list[str] = []

    def open(self, prompt_ids: Sequence[int]) -> TextSlot:
        slot = super().open(prompt_ids)
        slot.prefill_left = len(prompt_ids)
        self.prompts[slot] = list(prompt_ids)
        return slot

    def prefill(self, slots: Sequence[Any]) -> None:
        self.events.append("chunk")
        left = self.prefill_rows
        for slot in slots:
            taken = min(left, slot.prefill_left)
            slot.prefill_left -= taken
            left -= taken

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[torch.Tensor]:
        self.events.append("step")
        return super().step(batch)


async def test_a_step_is_held_up_by_one_chunk_of_a_prompt_at_most():
    engine = Chunked()
    async with serving(engine) as (verifier, address), Client(address) as client:
        writing = asyncio.create_task(client.complete("x", max_tokens=1500, ignore_end=True))
        await eventually(lambda: engine.events.count("step") > 3)
        engine.events.clear()
        long = [client.complete("a long day, " * 5, max_tokens=2) for _ in range(5)]
        leaving = asyncio.create_task(client.complete("the end of a long day, " * 20, max_tokens=2))
        await eventually(lambda: "chunk" in engine.events)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.gather(*long)
        assert not writing.done(), "it was written on all the while"
        assert engine.events.count("chunk") >= 40 and "chunk chunk" not in " ".join(engine.events)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await baseline(verifier, engine)


async def test_prompts_that_wait_together_share_a_pass_as_far_as_it_reaches():
    expected = [await alone(**asked) for asked in ASKED]
    engine = Chunked(prefill_rows=64)
    async with serving(engine) as (verifier, address), Client(address) as client:
        writing = asyncio.create_task(client.complete("x", max_tokens=1500, ignore_end=True))
        await eventually(lambda: engine.events.count("step") > 3)
        engine.events.clear()
        engine.gate.clear()
        together = [asyncio.create_task(client.complete(**asked)) for asked in ASKED]
        await eventually(lambda: len(verifier.sessions) == 1 + len(ASKED))
        engine.gate.set()
        assert [done.data for done in await asyncio.gather(*together)] == expected
        tokens = sum(len(engine.tokenizer.encode(asked["prompt"])) for asked in ASKED)
        assert 1 <= engine.events.count("chunk") <= 2 + tokens // 16, "not one for each prompt"
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await baseline(verifier, engine)


async def test_a_prompt_that_fails_in_a_shared_pass_fails_alone():
    engine = Chunked(prefill_rows=64)
    right = engine.prefill
    poor = "once "
    bad = engine.tokenizer.encode(poor)

    def prefill(slots: Sequence[Any]) -> None:
        engine.gate.wait()  # until all of them are there
        if any(engine.prompts[slot] == bad for slot in slots):
            raise MemoryError("no more")
        right(slots)

    engine.prefill = prefill
    async with serving(engine) as (verifier, address), Client(address) as client:
        engine.gate.clear()
        tasks = [asyncio.create_task(client.complete(**asked)) for asked in ASKED]
        await eventually(lambda: len(verifier.sessions) == len(ASKED))
        engine.gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for asked, found in zip(ASKED, done, strict=True):
            if asked["prompt"] == poor:
                assert isinstance(found, DragomanError)
            else:
                assert not isinstance(found, BaseException) and found.data == await alone(**asked)
        await baseline(verifier, engine)
