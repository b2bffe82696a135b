"""The pass through the layers of known families, on a CPU with the references of its kernels: transformers' logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from engine.decoder_layers import FAMILIES, family_of
from engine.decoder_pass import DecoderPass, decoder_pass_for
from engine.paged_engine import PagedEngine
from engine.product_tiles import DEPTH, MOST_PARTS, fits, gated_tiles_for, shared_bytes, tiles_for
from language_models.causal_lm import CausalLM
from speculation.drafts.candidates import CandidateTree
from speculation.verification.step import Step

KV_BYTES = 4 << 20
PROMPT = [5, 9, 60, 61, 7, 80, 81, 82, 9, 5, 33, 34, 35, 36, 37, 38, 39, 40, 41]
#: A chain 11, 12, 13 with branches beside it.
TREE = CandidateTree((11, 20, 12, 21, 13), (-1, -1, 0, 0, 2))
#: Rows of the kernels are of 16 dimensions at least.
SIZES = {"head_dim": 16, "hidden_size": 64, "intermediate_size": 96}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[DecoderPass | None]:
    """Of engines made from now on, which take one on a CPU as well."""
    made: list[DecoderPass | None] = []

    def make(engine: PagedEngine, module: Any, probe: Any) -> DecoderPass | None:
        made.append(decoder_pass_for(module, probe.settings))
        return made[-1]

    monkeypatch.setattr(PagedEngine, "_decoder", make)
    return made


def attention_of(model: CausalLM) -> Any:
    return model.module.model.layers[0].self_attn


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", {}),
        ("mistral, full", {"sliding_window": 16}),
    ],
)
def test_two_sessions_have_the_logits_of_transformers(
    name: str, settings: dict[str, Any], architecture: Callable[..., CausalLM], passes: list[DecoderPass | None]
):
    """With biases (Qwen2), norms of heads (Qwen3) and windows that hide what is before (16 positions)."""
    plain = architecture(name, **SIZES, **settings)
    assert (attention_of(plain).q_proj.bias is not None) == (name == "qwen2")
    assert hasattr(attention_of(plain), "q_norm") == (name == "qwen3")
    engine = PagedEngine(architecture(name, **SIZES, **settings), kv_bytes=KV_BYTES)
    assert passes[-1] is not None
    one, other = engine.open(PROMPT), engine.open([*PROMPT, 50, 51])
    logits, beside = engine.step([(one, Step(PROMPT[-1], TREE)), (other, Step(51, CandidateTree.chain([8])))])
    expected = plain.forward([*PROMPT, 11, 12, 13], plain.new_cache())
    torch.testing.assert_close(logits[[0, 1, 3, 5]], expected[len(PROMPT) - 1 :], rtol=1e-4, atol=1e-4)
    branch = plain.forward([*PROMPT, 11, 21], plain.new_cache())
    torch.testing.assert_close(logits[4], branch[-1], rtol=1e-4, atol=1e-4)
    expected = plain.forward([*PROMPT, 50, 51, 8], plain.new_cache())
    torch.testing.assert_close(beside, expected[-2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gemma", {}),  # other norms
        ("llama", {"attention_bias": True}),  # a bias of the output projection as well
        ("llama", {"mlp_bias": True}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"intermediate_size": 72}),  # a width that no tile fits
        ("olmo2", {}),  # the names of Llama's parts in another order
    ],
)
def test_what_is_not_quite_of_a_family_is_left_to_transformers(
    name: str, settings: dict[str, Any], architecture: Callable[..., CausalLM], passes: list[DecoderPass | None]
):
    plain = architecture(name, **SIZES | settings)
    engine = PagedEngine(architecture(name, **SIZES | settings), kv_bytes=KV_BYTES)
    assert passes == [None]
    logits = engine.open(PROMPT).step(PROMPT[-1], CandidateTree())
    expected = plain.forward(PROMPT, plain.new_cache())
    torch.testing.assert_close(logits[0], expected[-1], rtol=1e-4, atol=1e-4)


def test_custom_code_of_a_known_name_is_of_no_family():
    assert family_of(LlamaForCausalLM.__new__(LlamaForCausalLM)) == "Llama"
    named_alike = type("LlamaForCausalLM", (nn.Module,), {"__module__": "transformers_modules.someone.modeling_llama"})
    assert family_of(named_alike()) is None
    assert family_of(nn.Linear(2, 2)) is None
    assert set(FAMILIES) == {"Llama", "Mistral", "Qwen2", "Qwen3"}


def test_on_a_cpu_an_engine_has_no_such_pass_by_itself(architecture: Callable[..., CausalLM]):
    engine = PagedEngine(architecture("llama", **SIZES), kv_bytes=KV_BYTES)
    assert engine.step_shape.decoder is None


@pytest.mark.parametrize("outputs", [96, 576, 960, 1536, 2048, 4096, 5120, 6144, 7168, 28_672])
@pytest.mark.parametrize("inputs", [64, 576, 1536, 4096, 8960, 14_336, 27_648])
def test_tiles_cover_every_product_once(outputs: int, inputs: int):
    tiles = tiles_for(outputs, inputs)
    assert outputs % tiles.columns == 0 and tiles.columns >= 16
    assert tiles.chunk % DEPTH == 0 and 1 <= tiles.parts <= MOST_PARTS
    assert (tiles.parts - 1) * tiles.chunk < inputs <= tiles.parts * tiles.chunk
    gated = gated_tiles_for(outputs, inputs)
    assert outputs % gated.columns == 0 and (gated.chunk, gated.parts) == (inputs, 1)


@pytest.mark.parametrize("rows", [16, 64, 128])
@pytest.mark.parametrize("outputs", [576, 2048, 14_336, 28_672])
def test_what_a_program_keeps_in_shared_memory_is_known(outputs: int, rows: int):
    tiles, gated = tiles_for(outputs, 4096), gated_tiles_for(outputs, 4096)
    assert 2 * tiles.stages * tiles.depth * (rows + tiles.columns) <= shared_bytes(rows)
    assert 2 * gated.stages * gated.depth * (rows + 2 * gated.columns) <= shared_bytes(rows)


@pytest.mark.parametrize(
    ("rows", "capability", "fitting"),
    [
        (64, (9, 0), True),
        (128, (9, 0), True),
        (256, (9, 0), False),  # 320 KiB
        (64, (8, 0), True),
        (128, (8, 0), False),  # 192 KiB
        (64, (8, 9), False),  # 128 KiB of the 99 that a program may have there
        (16, (8, 9), True),
        (64, (12, 0), False),
        (48, (9, 0), False),  # not a power of two
        (8, (9, 0), False),
    ],
)
def test_gpus_with_little_shared_memory_run_the_layers_of_transformers(
    rows: int, capability: tuple[int, int], fitting: bool
):
    assert fits(rows, capability) == fitting
