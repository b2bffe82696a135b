"""The first layers of a 16-bit model in float32, for a while."""

from __future__ import annotations

import pytest
import torch

from language_models.upcast import first_layers_in_float32


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_moe", "gemma3n_text", "xglm"])
def test_the_model_is_afterwards_what_it_was(architecture, name: str):
    settings = {} if name in ("gemma3_text", "gemma3n_text") else {"num_hidden_layers": 4}
    causal = architecture(name, "float16", **({"num_layers": 4} if name == "xglm" else settings))
    model, ids = causal.module, torch.arange(20, 40)[None]
    before, said = state(model), model(input_ids=ids, use_cache=False).logits
    with first_layers_in_float32(model):
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
        assert model(input_ids=ids, use_cache=False).logits.dtype is torch.float32
    after = state(model)
    assert before.keys() == after.keys()
    assert all(tensor.dtype is after[key].dtype and torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, said)


def test_as_many_layers_run_as_have_one_of_each_kind(architecture):
    layers = ["sliding_attention"] * 3 + ["full_attention"] * 2
    model = architecture("gemma3_text", "float16", num_hidden_layers=5, layer_types=layers).module
    with first_layers_in_float32(model):
        assert len(model.model.layers) == 4
    assert len(model.model.layers) == 5
    model = architecture("llama", "float16", num_hidden_layers=5).module
    with first_layers_in_float32(model):
        assert len(model.model.layers) == 2


def test_all_layers_run_where_some_use_the_keys_of_others(architecture):
    model = architecture("gemma3n_text", "float16").module
    with first_layers_in_float32(model):
        assert len(model.model.layers) == 4


def test_it_is_undone_when_a_pass_fails(architecture):
    model = architecture("llama", "float16", num_hidden_layers=3).module
    before = state(model)
    with pytest.raises(RuntimeError, match="amiss"), first_layers_in_float32(model):
        raise RuntimeError("amiss")
    after = state(model)
    assert len(model.model.layers) == 3
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
