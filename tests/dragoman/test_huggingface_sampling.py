"""Sampled texts of ``generate`` with remote drafters have its distribution, and depend on the seed alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import torch

from drafter_service.loading import load_drafter
from dragoman import RemoteDrafting
from tests.support.distributions import ALPHA
from tests.support.held_models import Held, drafted_by, hold
from tests.support.text_distributions import PROMPT, SETTINGS, TOKENS, p_value
from tests.support.tiny_models import load_tiny

DRAWS = 250


@pytest.fixture(scope="module")
def held(tiny_qwen2: Path) -> Held:
    return hold(tiny_qwen2)


@pytest.fixture
async def drafting(held: Held, tiny_llama: Path):
    async with drafted_by(held, load_drafter(str(tiny_llama), dtype="float32", threads=1)) as drafting:
        yield drafting


@pytest.mark.slow
async def test_the_distribution_is_that_of_generate(held: Held, drafting: RemoteDrafting, tiny_qwen2: Path):
    """Against all sequences of three tokens, enumerated. A bridge that is 0.35 of total variation away from them fails
    (``tests/support/text_distributions.py``)."""
    ids, params = held.ids(PROMPT), SETTINGS["top-p"]
    accepted = 0

    def draw() -> Counter[tuple[int, ...]]:
        nonlocal accepted
        counts: Counter[tuple[int, ...]] = Counter()
        for seed in range(DRAWS):
            torch.manual_seed(seed)
            written = held.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                custom_generate=drafting,
                max_new_tokens=TOKENS,
                do_sample=True,
                temperature=params.temperature,
                top_k=params.top_k,
                top_p=params.top_p,
                eos_token_id=-1,
            )
            counts[tuple(written[0, ids.shape[1] :].tolist())] += 1
            accepted += drafting.last.accepted_tokens
        return counts

    counts = await asyncio.to_thread(draw)
    assert accepted > DRAWS / 20, "drafts had no part in it"
    assert p_value(counts, load_tiny(tiny_qwen2), "top-p") > ALPHA


async def test_the_same_seed_gives_the_same_text_with_and_without_drafter(
    held: Held, drafting: RemoteDrafting, tiny_qwen2: Path
):
    sampled = {"max_new_tokens": 32, "do_sample": True, "temperature": 1.2, "top_p": 0.9, "repetition_penalty": 1.1}
    drafted = [await held.write("The ", custom_generate=drafting, seed=seed, **sampled) for seed in range(8)]
    again = hold(tiny_qwen2)  # another program, say
    with RemoteDrafting(again.model, again.tokenizer, "127.0.0.1:0") as alone:
        for seed, text in enumerate(drafted):
            assert torch.equal(text, await again.write("The ", custom_generate=alone, seed=seed, **sampled))
    assert len({tuple(text[0].tolist()) for text in drafted}) > 4


async def test_torchs_own_seed_decides(held: Held, drafting: RemoteDrafting):
    async def two_texts() -> list[list[int]]:
        torch.manual_seed(11)
        sampled = {"custom_generate": drafting, "max_new_tokens": 24, "do_sample": True, "temperature": 1.5}
        return [(await held.write("The ", **sampled))[0].tolist() for _ in range(2)]

    first, second = await two_texts()
    assert first != second and await two_texts() == [first, second]


async def test_several_threads_write_at_once(held: Held, drafting: RemoteDrafting):
    options = {"max_new_tokens": 24, "do_sample": True, "custom_generate": drafting}
    apart = [await held.write("A fish", seed=seed, **options) for seed in range(4)]
    together = await asyncio.gather(*(held.write("A fish", seed=seed, **options) for seed in range(4)))
    assert all(torch.equal(one, other) for one, other in zip(apart, together, strict=True))
