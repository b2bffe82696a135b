"""A rank's part of the weights: what all ranks hold together is the whole, and what has no plan is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel

from engine import sharding
from engine.sharding import RowwiseLinear, check_plan, keep_part
from language_models.causal_lm import CausalLM
from speculation.errors import InputError, UnsupportedModelError

#: How a part is put together again; everything else is whole in each rank.
JOINED = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 0, "up_proj": 0, "o_proj": 1, "down_proj": 1}


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_parts_are_the_whole(architecture: Callable[..., CausalLM], name: str):
    whole = weights(architecture(name).module)
    parts = []
    for rank in (0, 1):
        module = architecture(name).module
        keep_part(module, name, rank=rank, size=2)
        parts.append(weights(module))
    divided = 0
    for path, expected in whole.items():
        layer, kind = path.split(".")[-2:]
        mine = [part[path] for part in parts]
        dimension = JOINED.get(layer)
        if dimension is None or (kind == "bias" and dimension == 1):
            assert all(torch.equal(each, expected) for each in mine), path
        else:
            assert torch.equal(torch.cat(mine, dimension), expected), path
            divided += 1
    assert divided >= 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_added_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    """In float32, and the bias once."""
    layer = torch.nn.Linear(8, 4).to(dtype)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    halves = [(layer.weight.detach()[:, at : at + 4].contiguous(), x[:, at : at + 4]) for at in (0, 4)]
    products = torch.stack([part.float() @ weight.float().t() for weight, part in halves])
    monkeypatch.setattr(sharding, "gathered", lambda parts, ranks: products)
    weight, part = halves[0]
    found = RowwiseLinear(weight, layer.bias.detach(), 2)(part)
    assert found.dtype == dtype
    assert torch.equal(found, (products[0] + products[1] + layer.bias.detach().float()).to(dtype))
    torch.testing.assert_close(found, layer(x).detach())


class Planless(LlamaConfig):
    base_model_tp_plan: ClassVar[dict[str, str]] = {}


class Planned(LlamaConfig):
    base_model_tp_plan: ClassVar[dict[str, str]] = {"layers.*.mlp.experts": "moe_tp_experts"}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (Planless(), "transformers has no tensor-parallel plan for it"),
        (Planned(), "its tensor-parallel plan has 'moe_tp_experts' for layers.*.mlp.experts"),
        (
            PretrainedConfig(),
            "only gemma, gemma2, gemma3_text, llama, mistral, qwen2, qwen3 are known to be the same in parts, not ",
        ),
    ],
)
def test_other_plans_are_refused(config: PretrainedConfig, problem: str):
    with pytest.raises(UnsupportedModelError) as refused:
        check_plan("odd", config, 2)
    assert refused.value.message == f"odd cannot be divided among several GPUs: {problem}"
    assert refused.value.remedy == "leave out --tensor-parallel"


def test_a_plan_that_misses_layers_is_refused(architecture: Callable[..., CausalLM]):
    """Or each GPU would have all of it, and nobody would know."""
    module = architecture("llama").module
    module.get_decoder().layers[1].mlp.up_proj = torch.nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"plain linear layer"):
        keep_part(module, "odd", rank=0, size=2)
    module = architecture("llama").module
    del module.get_decoder().layers[1]
    with pytest.raises(UnsupportedModelError, match=r"names layers\.\*\.self_attn\.q_proj, which not all"):
        keep_part(module, "odd", rank=0, size=2)


def test_gates_that_cannot_be_divided_are_refused(architecture: Callable[..., CausalLM]):
    module = architecture("llama", intermediate_size=63).module
    with pytest.raises(InputError, match=r"^tensor-parallel=2: does not divide the 63 lines of layers.0.mlp.gate_proj"):
        keep_part(module, "odd", rank=0, size=2)
