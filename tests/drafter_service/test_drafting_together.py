"""A drafter whose model runs several sessions in one pass, through the services: the same texts, fewer passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from engine.paged_model import PagedModel
from engine.step_tables import SequenceRows
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams
from tests.support.service_drivers import described, drafters, drafting, eventually, serving
from tests.support.text_distributions import PLAN
from tests.support.tiny_models import load_tiny
from verifier_service.transformers_engine import TransformersEngine

ASKED = [
    (Prompt(text=prompt), SamplingParams(temperature=heat, seed=seed), rule)
    for seed, (prompt, heat, rule) in enumerate([
        ("The heron waits", 0.0, Rule.RACE),
        ("A dog", 0.8, Rule.RACE),
        ("def add(a, b):", 1.1, Rule.EXACT),
        ("The heron waits", 0.7, Rule.REJECTION),
        ("猫が座った。", 0.0, Rule.EXACT),
        ("A dog", 0.9, Rule.RACE),
    ])
]  # fmt: skip


@pytest.mark.parametrize("draws_all_rows", [True, False])
async def test_texts_of_many_at_once_are_those_of_each_alone(tiny_qwen2: Path, tiny_llama: Path, draws_all_rows: bool):
    model = PagedModel(load_tiny(tiny_llama), max_sessions=len(ASKED), kv_bytes=4 << 20)
    model.draws_all_rows = draws_all_rows
    passes: Counter[int] = Counter()
    run = model.engine.run

    def counted(sequences: Sequence[SequenceRows]) -> list[torch.Tensor]:
        passes[len(sequences)] += 1
        return run(sequences)

    model.engine.run = counted  # type: ignore[method-assign]
    engine = TransformersEngine(load_tiny(tiny_qwen2))
    async with (
        serving(engine, plan=PLAN, adaptive=False, lookup=False) as (verifier, address),
        Client(address) as client,
    ):
        # A rejection's draws depend on what was drafted; of the other rules each text is known.
        known = [
            (await client.complete(prompt, max_tokens=40, sampling=sampling, rule=rule, draft=False)).data
            for prompt, sampling, rule in ASKED
        ]
        async with drafting(address, ModelDrafter(model), max_sessions=len(ASKED)):
            await drafters(verifier, 1)
            together = await asyncio.gather(
                *(client.complete(p, max_tokens=40, sampling=sampling, rule=rule) for p, sampling, rule in ASKED)
            )
            await described(client, sessions=0)
            await eventually(lambda: model.engine.pool.free_pages == model.engine.pool.pages - 1)
    for text, alone, (_, _, rule) in zip(together, known, ASKED, strict=True):
        assert text.stats.accepted_tokens > 0
        assert rule.proposes or text.data == alone
    assert max(passes) > 2, "several sessions in one pass"
