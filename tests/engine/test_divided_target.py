"""One model held by two processes: what they compute together, and what happens when one of them is lost.

On a CPU, where the ranks exchange their parts over gloo.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dragoman import Dragoman
from engine.divided_target import DividedTarget
from engine.paged_engine import PagedEngine
from speculation.drafts.candidates import CandidateTree
from speculation.errors import InputError, UnsupportedModelError
from speculation.sampling.params import SamplingParams
from tests.support.tiny_architectures import tiny_architecture
from tests.support.tiny_models import load_tiny
from verifier_service.engine_choice import load_engine
from verifier_service.settings import VerifierSettings

KV_BYTES = 1 << 22
pytestmark = pytest.mark.process


def divided(folder: Path) -> DividedTarget:
    return DividedTarget(str(folder), device="cpu", dtype="float32", threads=1, kv_bytes=KV_BYTES)


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagedEngine]:
    engine = divided(tiny_llama).lead(2)
    yield engine
    engine.close()
    assert not multiprocessing.active_children()


def test_each_rank_holds_half_of_the_layers(pair: PagedEngine, tiny_llama: Path):
    whole = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)
    assert pair.group.size == 2
    assert pair.page_bytes == whole.page_bytes // 2
    mine, all_of_it = (
        {name: each.numel() for name, each in engine.memory.modules[0].named_parameters()} for engine in (pair, whole)
    )
    assert mine and {name: 2 * size for name, size in mine.items()} == all_of_it


def test_logits_are_those_of_the_whole_model(pair: PagedEngine, tiny_llama: Path):
    """A chain, a tree, and what is kept of it; sums are made in another order, so to the last places only."""
    whole = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)
    prompt = whole.tokenizer.encode("The heron waits for a fish. A fish swims by, and the heron is")
    tree = CandidateTree((5, 6, 7, 8), (-1, 0, 0, 2))
    found = []
    for engine in (pair, whole):
        slot = engine.open(prompt)
        first = slot.step(9, tree).clone()
        slot.keep([0, 1, 3, 4])  # which moves keys and values
        found.append((first, slot.step(10, CandidateTree.chain([11, 12])).clone()))
        slot.close()
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


async def test_texts_are_those_of_the_whole_model(pair: PagedEngine, tiny_llama: Path):
    """With lookups as drafts, greedy and drawn, all at once; no page is left held."""
    prompts = ["The heron stands in", "def add(a, b):", "The water is cold, and"]
    asked = [(prompt, how) for prompt in prompts for how in (SamplingParams(), SamplingParams(temperature=0.8, seed=4))]

    async def written(engine: PagedEngine) -> list[bytes]:
        async with Dragoman(engine) as model:
            texts = (model.complete(prompt, max_tokens=40, sampling=how) for prompt, how in asked)
            return [text.data for text in await asyncio.gather(*texts)]

    expected = await written(PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES))
    assert await written(pair) == expected
    assert pair.kv_pages_held == 0


def test_other_devices_are_refused(tiny_llama: Path):
    settings = VerifierSettings(model=str(tiny_llama), device="cpu", tensor_parallel=2)
    with pytest.raises(InputError, match=r"^tensor-parallel=2: divides a model among GPUs, and the device is cpu"):
        load_engine(settings)


@pytest.mark.parametrize(("ranks", "problem"), [(3, "the 4 heads"), (4, "the 2 KV heads")])
def test_heads_that_cannot_be_divided_are_refused(tiny_llama: Path, ranks: int, problem: str):
    """Before any process is started."""
    with pytest.raises(InputError, match=rf"^tensor-parallel={ranks}: does not divide {problem} of .*tiny-llama"):
        divided(tiny_llama).lead(ranks)


def test_a_model_of_another_family_is_refused(tmp_path: Path, shared_tokenizer: Path):
    tiny_architecture("gpt2", tmp_path / "gpt2", tokenizer=shared_tokenizer)
    with pytest.raises(UnsupportedModelError, match=r"cannot be divided among several GPUs: only .*, not gpt2"):
        divided(tmp_path / "gpt2").lead(2)
