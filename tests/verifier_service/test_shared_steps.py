"""Sessions of a real, tiny model that share forward passes on a CPU: the bytes of each are those of its own."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from dragoman import Client, Dragoman, Rule, SamplingParams
from language_models.causal_lm import CausalLM
from language_models.kv_cache import KVCache
from language_models.shared_pass import SharedPass
from speculation.errors import DragomanError
from speculation.verification.step import Step
from tests.support.cpu_kernels import needs_bfloat16
from tests.support.service_drivers import drafters, drafting, eventually, serving
from tests.support.tiny_models import load_tiny
from verifier_service.transformers_engine import TransformersEngine, TransformersSlot

DTYPES = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
PROMPTS = ("The heron stands", "def add(a, b):\n", "x", "猫が座った。", "The water is cold, and the dog waits for")
SETTINGS = (
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=0.7, top_k=20, seed=4),
    SamplingParams(temperature=1.2, top_p=0.8, repetition_penalty=1.2, seed=5),
)
#: Eight, under the rules whose text does not depend on the drafts.
ASKED: list[dict[str, Any]] = [
    dict(prompt=PROMPTS[number % len(PROMPTS)], sampling=SETTINGS[number % 4], rule=rule, max_tokens=24 + 5 * number)
    for number, rule in enumerate([Rule.RACE, Rule.EXACT] * 4)
]


class Counting(TransformersEngine):
    """``batches``: rows of every step, by session. Steps fail as a whole while ``spoiled`` has a part in them."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__(model)
        self.batches: list[list[int]] = []
        self.spoiled: set[TransformersSlot] = set()
        self.before_step: Callable[[], object] = lambda: None

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[torch.Tensor]:
        self.before_step()
        self.batches.append([1 + len(step.candidates) for _, step in batch])
        assert self.rows_per_step is not None and sum(self.batches[-1]) <= self.rows_per_step
        return super().step(batch)


def engine_of(path: Path, dtype: str) -> Counting:
    return Counting(CausalLM.load(str(path), dtype=dtype, device="cpu", threads=1))


async def each_alone(engine: Counting, asked: list[dict[str, Any]]) -> list[bytes]:
    async with Dragoman(engine) as model:
        expected = [(await model.complete(**each, draft=False)).data for each in asked]
    assert all(len(batch) == 1 for batch in engine.batches)
    engine.batches.clear()
    return expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["tiny_llama", "tiny_gemma"])
@pytest.mark.parametrize("assisted", [False, True])
async def test_bytes_in_company_are_those_alone(
    target: str, dtype: str, assisted: bool, tiny_qwen2: Path, request: pytest.FixtureRequest
):
    """Eight at once, greedy and seeded, beside sessions whose drafts are drawn."""
    engine = engine_of(request.getfixturevalue(target), dtype)
    expected = await each_alone(engine, ASKED)
    drawing = [
        dict(prompt="A dog", sampling=SamplingParams(temperature=1.0, seed=6), rule=rule, max_tokens=30)
        for rule in (Rule.REJECTION, Rule.STRING_REJECTION)
    ]
    async with serving(engine) as (verifier, address), Client(address) as client:
        async with drafting(address, ModelDrafter(load_tiny(tiny_qwen2))), drafting(address, LookupDrafter()):
            await drafters(verifier, 2)
            work = [client.complete(**asked, draft=assisted) for asked in [*ASKED, *drawing]]
            done = await asyncio.gather(*work)
        await eventually(lambda: verifier.describe().sessions == 0)
        assert verifier.describe().kv_cache_bytes == 0
    assert [completion.data for completion in done[: len(ASKED)]] == expected
    assert max(map(len, engine.batches)) >= 4, "they share passes"
    assert not assisted or sum(completion.stats.accepted_tokens for completion in done) > 0
    if assisted:
        assert any(len(batch) > 1 and max(batch) > 1 for batch in engine.batches), "with drafts in them"


async def test_keys_and_values_go_with_their_sessions(tiny_llama: Path, tiny_qwen2: Path):
    """At once, not when Python next looks for objects that only know each other: of a real model that is minutes and
    hundreds of megabytes later."""
    engine = engine_of(tiny_llama, "float32")

    def caches() -> int:
        return sum(type(found) is KVCache for found in gc.get_objects())

    async with (
        serving(engine) as (verifier, address),
        drafting(address, ModelDrafter(load_tiny(tiny_qwen2))),
        Client(address) as client,
    ):
        await drafters(verifier, 1)
        gc.collect()
        before = caches()
        gc.disable()
        try:
            await asyncio.gather(*(client.complete(**asked) for asked in ASKED))
            await eventually(lambda: verifier.describe().sessions == 0)
            await eventually(lambda: verifier.describe().kv_cache_bytes == 0)
            await eventually(lambda: caches() == before)  # the drafter's as well
        finally:
            gc.enable()
    assert max(map(len, engine.batches)) >= 4, "they share passes"


@pytest.mark.parametrize("dtype", DTYPES)
async def test_what_fails_for_one_session_leaves_the_bytes_of_the_others(tiny_llama: Path, dtype: str):
    """Its keys are no numbers from some step on."""
    engine = engine_of(tiny_llama, dtype)
    expected = await each_alone(engine, ASKED)
    opened: list[TransformersSlot] = []
    plain = engine.open

    def opens(prompt_ids: Sequence[int]) -> TransformersSlot:
        opened.append(plain(prompt_ids))
        return opened[-1]

    engine.open = opens  # type: ignore[method-assign]

    @torch.inference_mode()
    def spoil() -> None:
        if len(engine.batches) > 5:
            for layer in opened[-1].cache.cache.layers:
                layer.keys.fill_(torch.nan)
            engine.before_step = lambda: None

    async with serving(engine) as (verifier, address), Client(address) as client:
        good = [asyncio.create_task(client.complete(**asked)) for asked in ASKED]
        await eventually(lambda: len(opened) == len(ASKED))
        bad = asyncio.create_task(client.complete("spoil me", max_tokens=400, ignore_end=True))
        await eventually(lambda: len(opened) == len(ASKED) + 1)
        engine.before_step = spoil
        with pytest.raises(DragomanError, match="usable maximum"):
            await bad
        assert [(await completion).data for completion in good] == expected
        await eventually(lambda: verifier.describe().sessions == 0)


async def test_a_pass_that_fails_is_run_again_for_each_alone(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    """Half-way, so keys of some layers are stored already."""
    engine = engine_of(tiny_llama, "float32")
    expected = await each_alone(engine, ASKED)
    failed: list[int] = []
    attend = SharedPass.attend
    layers: Counter[SharedPass] = Counter()

    def sometimes(self: SharedPass, attention: Any, query: torch.Tensor, layer: Any, mask: Any) -> torch.Tensor:
        layers[self] += 1
        if layers[self] == 2 and len(failed) < 5:
            failed.append(len(self.tokens))
            raise RuntimeError("out of memory")
        return attend(self, attention, query, layer, mask)

    monkeypatch.setattr(SharedPass, "attend", sometimes)
    async with Dragoman(engine) as model:
        done = await asyncio.gather(*(model.complete(**asked) for asked in ASKED))
    assert len(failed) == 5 and [completion.data for completion in done] == expected


async def test_more_sessions_than_a_pass_has_room_for_all_end(tiny_llama: Path):
    engine = engine_of(tiny_llama, "float32")
    engine.rows_per_step, engine.max_draft_tokens = 12, 11
    expected = await each_alone(engine, ASKED[:2])
    async with Dragoman(engine) as model:
        done = await asyncio.gather(*(model.complete(**asked) for asked in ASKED[:2] * 7))
    assert [completion.data for completion in done] == expected * 7
    assert max(map(len, engine.batches)) == 6, "each has room for a draft token"
