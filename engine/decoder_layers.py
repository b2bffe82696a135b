"""Which models are made of the layers that ``decoder_pass.py`` computes, and their weights.

By the classes of transformers, as two models with the same weights may differ in a factor between them: Llama (with
SmolLM2 and many others), Mistral, Qwen2 and Qwen3. What else a model is goes through transformers' own layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from engine.fused_linear import FusedLinear
from engine.paged_attention import AttentionSettings
from engine.sharding import RowwiseLinear

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
#: Of every number of inputs and outputs: a tile has 16 columns at least, and half of ``gate_up``'s outputs are gates.
MULTIPLE = 32


@dataclass(frozen=True)
class DecoderLayer:
    """Weights of one layer. ``qkv`` [(H + 2 KH) D, width], ``output`` [width, H D], ``gate_up`` [2 gates, width],
    ``down`` [width, gates]. ``gains``: of the heads of queries and keys, if they are normed.
    """

    before: Tensor
    qkv: Tensor
    bias: Tensor | None
    gains: tuple[Tensor, Tensor] | None
    output: Tensor
    after: Tensor
    gate_up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor
    heads: int
    eps: float
    attention: AttentionSettings


def family_of(model: nn.Module) -> str | None:
    """Of a causal language model of transformers itself; custom code may call its classes the same."""
    kind = type(model)
    name = kind.__name__.removesuffix("ForCausalLM")
    known = name in FAMILIES and kind.__name__ != name and kind.__module__.startswith("transformers.models.")
    return name if known else None


def decoder_layers(model: Any, settings: Mapping[nn.Module, AttentionSettings]) -> list[DecoderLayer] | None:
    """Of a model whose projections are fused and whose attention modules have their part of KV memory; ``settings`` are
    theirs. None if it is of no family here, or has something more than these.
    """
    family = family_of(model)
    if family is None or len(model.model.layers) != len(settings):
        return None
    layers = []
    for layer in model.model.layers:
        if type(layer).__name__ != f"{family}DecoderLayer":
            return None
        taken = _taken(layer, settings[layer.self_attn])
        if taken is None:
            return None
        layers.append(taken)
    return layers


def _taken(layer: Any, settings: AttentionSettings) -> DecoderLayer | None:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = getattr(attention, "fused_q_proj_k_proj_v_proj", None)
    gate_up = getattr(mlp, "fused_gate_proj_up_proj", None)
    plain = (attention.o_proj, mlp.down_proj)
    if not isinstance(qkv, FusedLinear) or not isinstance(gate_up, FusedLinear) or gate_up.bias is not None:
        return None
    if any(type(each) not in (nn.Linear, RowwiseLinear) or each.bias is not None for each in plain):
        return None
    if type(mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
        return None
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    size = attention.kv_keys.shape[-1]
    found = DecoderLayer(
        before=layer.input_layernorm.weight,
        qkv=qkv.weight,
        bias=qkv.bias,
        gains=None if q_norm is None or k_norm is None else (q_norm.weight, k_norm.weight),
        output=attention.o_proj.weight,
        after=layer.post_attention_layernorm.weight,
        gate_up=gate_up.weight,
        down=mlp.down_proj.weight,
        keys=attention.kv_keys,
        values=attention.kv_values,
        heads=attention.o_proj.weight.shape[1] // size,
        eps=layer.input_layernorm.variance_epsilon,
        attention=settings,
    )
    weights = (found.qkv, found.output, found.gate_up, found.down)
    fits = all(number % MULTIPLE == 0 for weight in weights for number in weight.shape)
    one_kind = all(each.dtype == found.keys.dtype and each.is_contiguous() for each in weights)
    return found if fits and one_kind and size & (size - 1) == 0 else None
