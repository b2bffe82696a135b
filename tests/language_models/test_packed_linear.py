"""Packed weights give the bits that plain ones give, and are left alone where they would not."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from language_models import causal_lm, packed_linear
from language_models.causal_lm import CausalLM
from language_models.packed_linear import LEAST_ROWS, PackedLinear, pack, packed_bytes
from tests.support.cpu_kernels import needs_bfloat16
from tests.support.tiny_architectures import tiny_architecture

pytestmark = needs_bfloat16


def load(path: Path, dtype: str = "bfloat16") -> CausalLM:
    return CausalLM.load(str(path), device="cpu", dtype=dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (576, 1536), (1536, 576), (48, 100)])
def test_a_packed_layer_computes_what_the_plain_one_does(inputs: int, outputs: int, bias: bool):
    torch.manual_seed(3)
    layer = nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16)
    packed = PackedLinear(layer)
    if not packed.keeps_bits():
        pytest.skip("on this CPU rows depend on their number")
    for rows in (2, LEAST_ROWS, 7, 32):
        x = torch.randn(1, rows, inputs).to(torch.bfloat16)
        torch.testing.assert_close(packed(x), layer(x), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (576, 100)])
def test_gpt2s_linear_layers_are_packed_too(inputs: int, outputs: int):
    """Their weights lie on their side."""
    torch.manual_seed(3)
    layer = Conv1D(outputs, inputs)
    nn.init.normal_(layer.bias)
    model = nn.Sequential(layer).to(torch.bfloat16)
    x = torch.randn(1, 7, inputs).to(torch.bfloat16)
    expected = model(x)
    if not pack(model):
        pytest.skip("on this CPU rows depend on their number")
    assert type(model[0]) is PackedLinear
    torch.testing.assert_close(model(x), expected, rtol=2**-7, atol=1e-2)


def test_layers_in_float32_stay_as_they_are():
    """As routers of experts do in some models."""
    model = nn.ModuleDict({"router": nn.Linear(8, 4), "expert": nn.Linear(64, 64).to(torch.bfloat16)})
    if pack(model):
        assert type(model["expert"]) is PackedLinear
    assert type(model["router"]) is nn.Linear


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_gemma"])
def test_a_packed_model_says_what_the_plain_one_says(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    path = request.getfixturevalue(family)
    packed = load(path)
    monkeypatch.setattr(causal_lm, "pack", lambda model: False)
    plain = load(path)
    assert plain.least_rows == 2
    tokens = list(range(5, 45))
    caches = packed.new_cache(), plain.new_cache()
    ours, theirs = (model.forward(tokens, cache) for model, cache in zip((packed, plain), caches, strict=True))
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    # An output layer that was tied to the embedding has a weight of its own once it is packed.
    assert packed.parameter_bytes >= plain.parameter_bytes


def test_rows_that_were_only_padding_leave_no_trace(tiny_llama: Path):
    model = load(tiny_llama)
    cache = model.new_cache()
    model.prefill([5, 6, 7], cache)
    first = model.forward([8], cache)
    assert first.shape[0] == 1 and cache.length == 4
    cache.rollback(1)
    assert torch.equal(model.forward([8, 9, 10, 11, 12], cache)[:1], first)


def test_a_model_whose_bits_would_change_stays_as_it_is(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_linear.PackedLinear, "keeps_bits", lambda _: False)
    model = load(tiny_llama)
    assert model.least_rows == 2 and packed_bytes(model.module) == 0


def test_nothing_keeps_the_file_of_the_weights_in_memory(tiny_llama: Path, tmp_path: Path):
    path = shutil.copytree(tiny_llama, tmp_path / "model")
    # Weights of the type that they are saved in are mapped, others converted.
    AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).save_pretrained(path)
    model = load(path)
    held = {mapped.path for mapped in psutil.Process().memory_maps()}
    assert model.parameter_bytes and not [name for name in held if name.startswith(str(path))]


def test_float32_is_not_packed(tiny_llama: Path):
    assert load(tiny_llama, dtype="float32").least_rows == 2


def test_no_packing_without_bfloat16_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16))
    assert not pack(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_a_packed_weight_can_still_be_read(kind: type[nn.Module]):
    layer = kind(48, 80).bfloat16()
    plain = layer.get_parameter("weight")
    assert torch.equal(PackedLinear(layer).weight, plain)


def test_a_model_that_reads_a_weight_instead_of_calling_its_layer(tmp_path: Path, dragoman_home: Path):
    """LongCat's router does."""
    folder = tiny_architecture("longcat_flash", tmp_path / "longcat")
    model = CausalLM.load(str(folder), device="cpu", dtype="bfloat16")
    plain = CausalLM.load(str(folder), device="cpu", dtype="float32")
    ids = list(range(10, 30))
    packed, expected = (loaded.forward(ids, loaded.new_cache()) for loaded in (model, plain))
    assert (packed - expected).abs().mean() < 0.05 * expected.std()
