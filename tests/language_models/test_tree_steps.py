"""A step over a tree of candidates gives each of them the logits that it would have had alone, and keeps one branch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from language_models import kv_cache
from language_models.causal_lm import CausalLM
from speculation.drafts.candidates import ROOT, CandidateTree
from tests.support.cpu_kernels import needs_bfloat16
from verifier_service.transformers_engine import TransformersEngine, TransformersSlot

FAMILIES = ["tiny_llama", "tiny_qwen2", "tiny_gemma"]


def random_tree(generator: torch.Generator, size: int) -> CandidateTree:
    """Siblings are all different: each node has a token of its own."""
    parents = [int(torch.randint(ROOT, node, (1,), generator=generator)) for node in range(size)]
    return CandidateTree(tuple(range(20, 20 + size)), tuple(parents))


def run_steps(model: CausalLM, *, steps: int, prompt: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tree steps with a branch of each kept, and beside each node's logits those of its text run token by token."""
    engine = TransformersEngine(model)
    generator = torch.Generator().manual_seed(prompt)
    ids = torch.randint(3, 300, (prompt,), generator=generator).tolist()
    slot, last = engine.open(ids), ids[-1]
    text = ids[:-1]
    found = []
    for number in range(steps):
        tree = random_tree(generator, 3 + number)
        logits = slot.step(last, tree)
        paths = [[tree.tokens[n] for n in tree.path(node)] for node in range(ROOT, len(tree))]
        for row, path in enumerate(paths):
            found.append((logits[row], after(engine, ids, [*text[len(ids) - 1 :], last, *path])))
        kept = int(torch.randint(ROOT, len(tree), (1,), generator=generator))
        branch = tree.path(kept)
        slot.keep((0, *(1 + node for node in branch)))
        text += [last, *(tree.tokens[node] for node in branch)]
        last = 7 + number
    return found


def after(engine: TransformersEngine, ids: list[int], text: list[int]) -> torch.Tensor:
    """Logits after the prompt and ``text``, which begins with the prompt's last token, in steps of four in a row."""
    slot: TransformersSlot = engine.open(ids)
    for start in range(0, len(text), 4):
        first, *others = text[start : start + 4]
        logits = slot.step(first, CandidateTree.chain(others))
        slot.keep(range(1 + len(others)))
    return logits[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_branch_is_scored_as_if_it_were_alone(family: str, request: pytest.FixtureRequest, monkeypatch):
    monkeypatch.setattr(kv_cache, "SLACK", 24)  # sliding layers forget in the midst of it
    model = CausalLM.load(str(request.getfixturevalue(family)), dtype="float32", device="cpu")
    for logits, expected in run_steps(model, steps=12, prompt=60):
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


@needs_bfloat16
@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_branches_have_the_same_bits(family: str, request: pytest.FixtureRequest):
    model = CausalLM.load(str(request.getfixturevalue(family)), dtype="bfloat16", device="cpu")
    for logits, expected in run_steps(model, steps=10, prompt=40):
        assert torch.equal(logits, expected)


@pytest.mark.models
@needs_bfloat16
def test_bf16_branches_of_a_real_model_have_the_same_bits():
    """Where there are thousands of attention weights, a sum in another order shows at once."""
    model = CausalLM.load("smollm2-135m", dtype="bfloat16", device="cpu")
    for logits, expected in run_steps(model, steps=4, prompt=150):
        assert torch.equal(logits, expected)


def test_a_dropped_step_leaves_the_cache_as_it_was(tiny_llama: Path):
    engine = TransformersEngine(CausalLM.load(str(tiny_llama), dtype="float32", device="cpu"))
    slot = engine.open([5, 6, 7])
    first = slot.step(7, CandidateTree((8, 9), (ROOT, ROOT)))
    slot.keep(())
    assert torch.equal(slot.step(7, CandidateTree((8, 9), (ROOT, ROOT))), first)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_may_be_the_first_step_after_a_prompt_of_one_token(
    family: str, dtype: str, request: pytest.FixtureRequest
):
    """Its cache is empty, so no layer knows yet what it holds."""
    engine = TransformersEngine(CausalLM.load(str(request.getfixturevalue(family)), dtype=dtype, device="cpu"))
    logits = engine.open([5]).step(5, CandidateTree((8, 9), (ROOT, ROOT)))
    for row, text in enumerate(([5], [5, 8], [5, 9])):
        torch.testing.assert_close(logits[row], after(engine, [5], text), atol=2e-4, rtol=1e-4)
