"""Several texts in one forward pass: each has the logits that it has alone, and what cannot be shared is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from language_models.causal_lm import CausalLM
from language_models.causal_self_test import self_test
from language_models.kv_cache import CacheLayer
from language_models.shared_pass import SharedPass
from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.errors import InputError
from speculation.verification.step import Step
from tests.support.cpu_kernels import needs_bfloat16
from verifier_service.engine import OneByOne
from verifier_service.transformers_engine import TransformersEngine, TransformersSlot

#: Full attention, windows, softcaps, several sets of frequencies, layers that share keys and values, absolute places.
SHARED = ["llama", "mistral", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt2", "opt", "phi3, longrope"]
ELSEWHERE = "its attention is that of transformers"
IN_BETWEEN = "it works on keys, values or masks between its KV cache and its attention"
UNSHARED = [
    ("gptj", ELSEWHERE),
    ("gpt_oss", ELSEWHERE),
    ("falcon", ELSEWHERE),
    ("minicpm3", IN_BETWEEN),
    ("deepseek_v3", IN_BETWEEN),
    ("diffllama", "it changes values between cache and attention"),
    ("doge", "it makes attention masks of its own"),
]
DTYPES = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]


def same(model: CausalLM, found: torch.Tensor, expected: torch.Tensor) -> bool:
    """To the bit in bfloat16, up to rounding in float32."""
    if model.dtype_name == "bfloat16":
        return torch.equal(found, expected)
    return torch.allclose(found, expected, atol=2e-4, rtol=1e-4)


class Texts:
    """Sessions of random texts, each in a slot that shares its passes and in one that never does."""

    def __init__(self, engine: TransformersEngine, lengths: Sequence[int]) -> None:
        self.engine = engine
        self.random = torch.Generator().manual_seed(7)
        prompts = [self.numbers(length, 3, 300) for length in lengths]
        self.shared: list[TransformersSlot] = [engine.open(prompt) for prompt in prompts]
        self.alone: list[TransformersSlot] = [engine.open(prompt) for prompt in prompts]

    def numbers(self, count: int, low: int, high: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=self.random).tolist()

    def number(self, low: int, high: int) -> int:
        return self.numbers(1, low, high)[0]

    def step(self, most: int) -> Step:
        """Of one text: nothing, a chain or a tree of at most so many candidates."""
        size, kind = self.number(0, most + 1), self.number(0, 2)
        parents = [number - 1 if kind else self.number(ROOT, number) for number in range(size)]
        return Step(self.number(3, 300), CandidateTree(tuple(range(20, 20 + size)), tuple(parents)))

    def check(self, *, most: int) -> None:
        """A step of some of the texts in any order; of each a branch is kept."""
        order = torch.randperm(len(self.shared), generator=self.random).tolist()[: self.number(2, len(self.shared) + 1)]
        steps = {number: self.step(most) for number in order}
        together = self.engine.step([(self.shared[number], step) for number, step in steps.items()])
        for (number, step), found in zip(steps.items(), together, strict=True):
            expected = self.alone[number].step(step.last, step.candidates)
            assert found.shape == expected.shape and same(self.engine.model, found, expected)
            kept = self.number(ROOT, len(step.candidates))
            rows = [0, *(1 + node for node in step.candidates.path(kept))]
            self.shared[number].keep(rows)
            self.alone[number].keep(rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHARED)
def test_texts_have_the_logits_in_company_that_they_have_alone(
    architecture: Callable[..., CausalLM], monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
):
    """Chains and trees, from a prompt of one token to texts beyond windows that were forgotten and rolled back."""
    monkeypatch.setattr("language_models.kv_cache.SLACK", 24)
    model = architecture(name, dtype)
    assert not model.self_test.unshared
    texts = Texts(TransformersEngine(model), [1, 2, 5, 61, 90])
    for _ in range(12):
        texts.check(most=5)


@pytest.mark.models
@needs_bfloat16
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_texts_of_a_real_model_have_the_same_bits_in_company(name: str):
    texts = Texts(TransformersEngine(CausalLM.load(name, dtype="bfloat16", device="cpu")), [150, 1, 40, 300])
    for _ in range(6):
        texts.check(most=7)


@needs_bfloat16
@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_bits_depend_on_no_neighbour_and_no_place(architecture: Callable[..., CausalLM], name: str):
    """The same chain beside others of many kinds, first and last, up to as many rows as a pass may have."""
    engine = TransformersEngine(architecture(name, "bfloat16"))
    most = 1 + engine.max_draft_tokens
    chain = Step(9, CandidateTree.chain([10, 11, 12]))
    tree = Step(9, CandidateTree((5, 10, 11, 6, 12), (ROOT, ROOT, 1, 2, 2)))
    prompt = [30 + number % 200 for number in range(40)]
    expected = engine.open(prompt).step(chain.last, chain.candidates)
    for others in ([1], [7], [3, 1, 1], [4] * 7, [28], [1] * 28):
        beside = [
            (engine.open([50 + n, 3]), Step(8, CandidateTree.chain(range(width - 1)))) for n, width in enumerate(others)
        ]
        for at in (0, len(others)):
            for step, rows in ((chain, [0, 1, 2, 3]), (tree, [0, 2, 3, 5])):
                if 1 + len(step.candidates) + sum(others) > most:
                    continue
                batch = [*beside[:at], (engine.open(prompt), step), *beside[at:]]
                assert torch.equal(engine.step(batch)[at][rows], expected)
                for slot, _ in beside:
                    slot.keep(())


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_texts_of_one_token_each_are_as_many_rows_as_a_pass_must_have(
    architecture: Callable[..., CausalLM], dtype: str
):
    engine = TransformersEngine(architecture("llama", dtype))
    slots = [engine.open([5, 6, 7]), engine.open([9])]
    one = CandidateTree()
    found = engine.step([(slots[0], Step(7, one)), (slots[1], Step(9, one))])
    assert [logits.shape[0] for logits in found] == [1, 1]
    assert same(engine.model, found[0], engine.open([5, 6, 7]).step(7, one))
    assert same(engine.model, found[1], engine.open([9]).step(9, one))
    assert [slot.cache.lengths for slot in slots] == [{3}, {1}], "rows that fill up a pass are in no cache"


# ---- models whose texts run one by one -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reason"), UNSHARED)
def test_a_model_that_cannot_share_a_pass_steps_its_texts_one_by_one(
    architecture: Callable[..., CausalLM], caplog: pytest.LogCaptureFixture, name: str, reason: str
):
    model = architecture(name)
    assert model.self_test.unshared.startswith(reason)
    engine = TransformersEngine(model)
    assert engine.rows_per_step is None
    assert f"{model.name} is stepped one session at a time: {reason}" in caplog.text
    texts = Texts(engine, [4, 20, 33])
    for _ in range(3):
        texts.check(most=4)


def swapped(self: SharedPass, attention: Any, query: torch.Tensor, layer: Any, mask: torch.Tensor | None) -> Any:
    layer.held.reverse()
    try:
        return attend(self, attention, query, layer, mask)
    finally:
        layer.held.reverse()


attend, divide, mask_of = SharedPass.attend, SharedPass.divide, SharedPass.mask_of


def blind(self: SharedPass, number: int, layer: CacheLayer) -> torch.Tensor:
    return torch.zeros_like(mask_of(self, number, layer))


@pytest.mark.parametrize("harm", [("attend", swapped), ("mask_of", blind)], ids=["another's keys", "no mask"])
def test_a_pass_that_mixes_texts_is_caught(
    architecture: Callable[..., CausalLM], monkeypatch: pytest.MonkeyPatch, harm: tuple[str, Any]
):
    model = architecture("llama")
    monkeypatch.setattr(SharedPass, *harm)
    found = self_test(model)
    assert not found.faults and found.unshared
    model.self_test = found
    assert TransformersEngine(model).rows_per_step is None


def test_positions_of_another_text_are_caught(architecture: Callable[..., CausalLM]):
    """A model that numbers the rows of a call by itself, from the first one's position on: right for a text alone."""
    model = architecture("gpt2")
    plain = model.module.forward

    def forward(**inputs: Any) -> Any:
        places = inputs.get("position_ids")
        if places is not None and places.shape[1] > 1 and bool((places.diff() < 0).any()):
            inputs["position_ids"] = places[:, :1].expand_as(places)
        return plain(**inputs)

    model.module.forward = forward
    found = self_test(model)
    assert not found.faults
    assert found.unshared == "trees and chains of four texts at the start give other logits than each alone"


@needs_bfloat16
def test_other_bits_in_company_are_caught_in_bfloat16(
    architecture: Callable[..., CausalLM], monkeypatch: pytest.MonkeyPatch
):
    """By a hair: in float32 that is rounding."""

    def nearly(self: SharedPass, rows: torch.Tensor) -> list[torch.Tensor]:
        return divide(self, rows * (1 + 2**-20))

    monkeypatch.setattr(SharedPass, "divide", nearly)
    exact, rounding = self_test(architecture("llama", "bfloat16")), self_test(architecture("llama", "float32"))
    assert exact.unshared == "trees and chains of four texts at the start give other bits than each alone"
    assert not exact.row_dependence and not rounding.unshared


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_pass_that_fails_half_way_leaves_all_caches_as_they_were(
    architecture: Callable[..., CausalLM], monkeypatch: pytest.MonkeyPatch
):
    engine = TransformersEngine(architecture("gemma3_text"))
    slots = [engine.open([5, 6, 7]), engine.open([9])]
    batch = [(slots[0], Step(7, CandidateTree((8, 9), (ROOT, ROOT)))), (slots[1], Step(9, CandidateTree.chain([4])))]
    expected = [
        engine.open([5, 6, 7]).step(7, batch[0][1].candidates),
        engine.open([9]).step(9, batch[1][1].candidates),
    ]
    calls: list[SharedPass] = []

    def out_of_memory(self: SharedPass, *args: Any) -> torch.Tensor:
        calls.append(self)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return attend(self, *args)

    monkeypatch.setattr(SharedPass, "attend", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step(batch)
    assert [slot.cache.length for slot in slots] == [2, 0]
    for found, wanted in zip(engine.step(batch), expected, strict=True):
        assert same(engine.model, found, wanted)


def test_a_text_beyond_the_context_is_refused_before_anything_runs(architecture: Callable[..., CausalLM]):
    engine = TransformersEngine(architecture("gpt2"))
    full, other = engine.open(list(range(5, 5 + engine.context_length))), engine.open([5, 6])
    fits, beyond = Step(4, CandidateTree((8, 9), (ROOT, ROOT))), Step(4, CandidateTree.chain([5]))
    with pytest.raises(InputError, match=r"257 tokens.*exceed the context of gpt2, 256 tokens"):
        engine.step([(other, fits), (full, beyond)])
    assert [slot.cache.length for slot in (full, other)] == [engine.context_length - 1, 1]
    assert len(engine.step([(other, fits), (full, Step(4, CandidateTree()))])) == 2


@torch.inference_mode()
def spoil(slot: TransformersSlot) -> None:
    slot.cache.cache.layers[0].keys.fill_(torch.nan)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_number_stays_with_its_own_text(architecture: Callable[..., CausalLM], dtype: str):
    engine = TransformersEngine(architecture("llama", dtype))
    spoiled, other = engine.open([5, 6, 7]), engine.open([5, 6, 8])
    spoil(spoiled)
    step = Step(8, CandidateTree.chain([9, 10]))
    bad, good = engine.step([(spoiled, step), (other, step)])
    assert bad.isnan().all() and same(engine.model, good, engine.open([5, 6, 8]).step(8, step.candidates))


def test_a_session_alone_is_as_wide_as_ever(architecture: Callable[..., CausalLM]):
    """What several share is no less than one may have."""
    engine = TransformersEngine(architecture("llama"))
    assert engine.rows_per_step == 1 + engine.max_draft_tokens
    slot, wide = engine.open([5, 6]), CandidateTree.chain([7] * min(engine.max_draft_tokens, 200))
    assert engine.step([(slot, Step(6, wide))])[0].shape[0] == 1 + len(wide)
    assert isinstance(engine, OneByOne)
