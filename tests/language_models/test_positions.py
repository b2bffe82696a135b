"""A token's position is its own: contexts to their end, rotary frequencies by row, prompts however they are divided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, GPT2Config, LlamaConfig, MptConfig, RobertaConfig

from dragoman.client import Client
from dragoman.transcript import TextOptions
from language_models.config import ModelConfig
from language_models.positions import UNBOUNDED_CONTEXT, context_length, first_position
from language_models.weights import resolve
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.cpu_kernels import needs_bfloat16
from tests.support.no_look import NoLook
from tests.support.service_drivers import serving
from verifier_service.transformers_engine import TransformersEngine

DTYPES = [
    "float32",
    pytest.param("bfloat16", marks=needs_bfloat16),
]
LONGROPE = "phi3, longrope"  # its frequencies change at 64 tokens


# ---- how long a context is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (LlamaConfig(max_position_embeddings=300), 300),
        (GPT2Config(n_positions=301), 301),
        (MptConfig(max_seq_len=302), 302),
        (BloomConfig(seq_length=303), 303),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (BloomConfig(), UNBOUNDED_CONTEXT),
        (LlamaConfig(max_position_embeddings=-1), UNBOUNDED_CONTEXT),
    ],
)
def test_a_context_has_many_names(config, tokens: int):
    assert context_length(config) == tokens


def test_a_bound_that_is_ours_is_said(tmp_path: Path):
    BloomConfig().save_pretrained(tmp_path)
    config = ModelConfig.read(resolve(str(tmp_path)))
    assert config.context_length == UNBOUNDED_CONTEXT
    assert "the configuration names no context length: texts end at 2,048 tokens" in config.context_remark
    LlamaConfig().save_pretrained(tmp_path)
    assert ModelConfig.read(resolve(str(tmp_path))).context_remark == ""


def test_a_border_of_frequencies_is_said(architecture, tmp_path: Path):
    architecture(LONGROPE)
    config = ModelConfig.read(resolve(str(tmp_path / "architectures" / LONGROPE.replace(" ", "-"))))
    assert "change at 64 tokens" in config.context_remark


def test_roberta_counts_from_its_padding(architecture):
    model = architecture("roberta, decoder")
    assert first_position(model.config) == 1 and model.context_length == 255
    text = list(range(5, 45))
    torch.testing.assert_close(model.forward(text, model.new_cache()), model.forward_uncached(text), atol=1e-4, rtol=0)


# ---- to the end of the context ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "llama, dynamic RoPE", "roberta, decoder", LONGROPE])
async def test_texts_reach_the_very_end_of_the_context(architecture, name: str, dtype: str):
    """Token by token, and with a prediction: padding and drafts never stand beyond it."""
    untied = {"tie_word_embeddings": False} if name in ("gpt2", "opt") else {}  # else it repeats its last token
    model = architecture(name, dtype, **untied)
    prompt = Prompt(text="the heron waits for a fish. " * 8)
    options: TextOptions = {"max_tokens": 0, "ignore_end": True, "sampling": SamplingParams(temperature=1.0, seed=3)}
    async with serving(TransformersEngine(model), lookup=False) as (_, address), Client(address) as client:
        alone = await client.complete(prompt, **options)
        assert alone.prompt_tokens + alone.completion_tokens == model.context_length
        again = await client.complete(prompt, **(options | {"prediction": alone.text}))
        assert again.data == alone.data and again.stats.steps < alone.stats.steps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "llama, dynamic RoPE", LONGROPE])
def test_the_last_token_of_a_context_is_the_same_alone_and_in_a_chain(architecture, name: str, dtype: str):
    model = architecture(name, dtype)
    ids = torch.randint(3, 380, (model.context_length,), generator=torch.Generator().manual_seed(0)).tolist()
    cache = model.new_cache()
    model.prefill(ids[:-6], cache)
    alone = torch.cat([model.forward([token], cache) for token in ids[-6:]])
    cache.rollback(6)
    chain = model.forward(ids[-6:], cache)
    assert torch.equal(alone, chain) if dtype == "bfloat16" else torch.allclose(alone, chain, atol=1e-4)


# ---- rotary frequencies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [SamplingParams(temperature=0), *(SamplingParams(seed=seed) for seed in range(5))])
async def test_longrope_texts_across_the_border_do_not_depend_on_drafts(architecture, sampling: SamplingParams):
    """Greedy and sampled, with predictions that are right, and wrong from the border on."""
    model = architecture(LONGROPE)
    prompt = Prompt(text="the heron waits for a fish. ")
    async with serving(TransformersEngine(model), lookup=False) as (_, address), Client(address) as client:
        options: TextOptions = {"max_tokens": 120, "ignore_end": True, "sampling": sampling}
        alone = await client.complete(prompt, **options)
        assert alone.prompt_tokens < 50 and alone.prompt_tokens + alone.completion_tokens > 100
        for prediction in (alone.data, alone.data[: len(alone.data) // 3] + b" and so it goes" * 30):
            drafted = await client.complete(prompt, **(options | {"prediction": prediction.decode("utf-8", "ignore")}))
            assert drafted.data == alone.data
            assert drafted.stats.draft_tokens > 0


@pytest.mark.parametrize("name", [LONGROPE, "llama, dynamic RoPE", "opt", "mistral", "gemma3n_text"])
def test_a_prompt_gives_the_same_however_it_is_divided(architecture, name: str, monkeypatch: pytest.MonkeyPatch):
    model = architecture(name)
    ids = torch.randint(3, 380, (150,), generator=torch.Generator().manual_seed(1)).tolist()

    def after(*chunks: int) -> torch.Tensor:
        cache, start = model.new_cache(), 0
        for size in chunks:
            model.prefill(ids[start : start + size], cache)
            start += size
        return model.forward(ids[start:], cache)[-1]

    expected = after(*[1] * 149)
    for chunks in ((149,), (60, 10, 79), (63, 1, 1, 84), (20, 100, 29)):
        torch.testing.assert_close(after(*chunks), expected, atol=2e-4, rtol=1e-4)
    monkeypatch.setattr("language_models.causal_lm.PREFILL_CHUNK", 37)
    torch.testing.assert_close(after(149), expected, atol=2e-4, rtol=1e-4)


def test_frequencies_are_those_of_decoding_token_by_token(architecture):
    """Each row as transformers has it in a call that ends with that row."""
    rotary = next(m for m in architecture(LONGROPE).module.modules() if hasattr(m, "rope_type"))
    plain = type(rotary).forward
    x, positions = torch.zeros(1, 1, 32), torch.tensor([[3, 70, 63, 64, 10, 250]])
    alone = [plain(rotary, x, position[None, None]) for position in positions[0]]
    for found, rows in zip(rotary(x, positions), zip(*alone, strict=True), strict=True):
        assert torch.equal(found, torch.cat(rows, dim=1))


def test_another_sessions_length_changes_nothing(architecture):
    """Frequencies are kept in the model, which sessions share."""
    for name in (LONGROPE, "llama, dynamic RoPE"):
        model = architecture(name)
        ids = list(range(20, 50))
        before = model.forward(ids, model.new_cache())
        model.prefill(list(range(3, 256)), model.new_cache())
        assert torch.equal(model.forward(ids, model.new_cache()), before)


@pytest.mark.parametrize("name", [LONGROPE, "llama, dynamic RoPE"])
def test_frequencies_are_chosen_without_a_look_at_the_positions(architecture, name: str):
    [rotary] = [each for each in architecture(name).module.modules() if hasattr(each, "rope_type")]
    x, positions = torch.zeros(1, 4, 8), torch.tensor([[3, 63, 64, 200]])
    rows = [rotary(x[:, :1], positions[:, at : at + 1]) for at in range(4)]
    with NoLook():
        cosines, sines = rotary(x, positions)
    assert torch.equal(cosines, torch.cat([cosine for cosine, _ in rows], 1))
    assert torch.equal(sines, torch.cat([sine for _, sine in rows], 1))


# ---- layers that share keys and values ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemma3n_text", "gemma4_text"])
async def test_layers_that_store_nothing_are_served_and_drafted_for(architecture, name: str):
    model = architecture(name)
    prompt = Prompt(text="the heron waits for a fish. ")
    async with serving(TransformersEngine(model)) as (_, address), Client(address) as client:
        for sampling in (SamplingParams(temperature=0), SamplingParams(seed=1)):
            options: TextOptions = {"max_tokens": 80, "ignore_end": True, "sampling": sampling}
            alone = await client.complete(prompt, **(options | {"draft": False}))
            halves = alone.text[: len(alone.text) // 2] + "?" + alone.text[len(alone.text) // 2 :]
            drafted = await client.complete(prompt, **(options | {"prediction": halves}))
            assert drafted.data == alone.data and drafted.stats.accepted_tokens > 0


def test_a_cache_counts_the_layers_that_store(architecture):
    model = architecture("gemma3n_text")
    cache = model.new_cache()
    assert (cache.length, cache.max_rollback, cache.lengths) == (0, 0, set())
    model.prefill(list(range(20, 40)), cache)
    assert (cache.length, cache.max_rollback, cache.lengths) == (20, 20, {20})
    cache.rollback(7)
    assert cache.lengths == {13}
