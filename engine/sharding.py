"""One rank's part of a model's weights, by the tensor-parallel plan that transformers has for its architecture.

A plan names linear layers: of a ``colwise`` one every rank computes a part of the outputs (heads, gates), of a
``rowwise`` one, which reads those, its part of a sum over the inputs. What it does not name, or calls replicated, every
rank has whole: norms, embeddings, the output projection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.gathered_parts import gathered
from engine.wide_product import wide_product
from speculation.errors import InputError, UnsupportedModelError

#: By ``model_type``. Others may take more than sums over what is divided (Gemma 3n: a mean over all gates), which no
#: plan says, and no test of the parts alone would show.
FAMILIES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
_DIVIDED = ("colwise", "rowwise")


class RowwiseLinear(nn.Module):
    """A linear layer of whose inputs this rank has a part: the product is the sum of what all ranks compute."""

    def __init__(self, weight: Tensor, bias: Tensor | None, ranks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """x [..., part of the inputs] -> [..., outputs]."""
        parts = gathered(wide_product(x, self.weight)[None], self.ranks)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        if self.bias is not None:
            total = total + self.bias.float()
        return total.to(x.dtype)


def keep_part(model: Any, name: str, *, rank: int, size: int) -> None:
    """``model``: of transformers; in place. Raises UnsupportedModelError for one without a plan, or with one of other
    kinds of layers; InputError where heads or gates cannot be divided among so many ranks.
    """
    plan = check_plan(name, model.config, size)
    decoder = model.get_decoder()
    divided = dict.fromkeys((pattern for pattern, style in plan.items() if style in _DIVIDED), 0)
    for path, layer in list(decoder.named_modules()):
        pattern = path if path in plan else re.sub(r"\.\d+(?=\.|$)", ".*", path)
        if pattern not in divided:
            continue
        if type(layer) is not nn.Linear:
            raise _unsupported(name, f"{path} is no plain linear layer")
        owner, _, attribute = path.rpartition(".")
        part = _part_of(layer, plan[pattern], path, rank=rank, size=size)
        setattr(decoder.get_submodule(owner), attribute, part)
        divided[pattern] += 1
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    if missed := [pattern for pattern, number in divided.items() if number != layers]:
        raise _unsupported(name, f"its tensor-parallel plan names {missed[0]}, which not all of its layers have")


def check_plan(name: str, config: Any, size: int) -> Mapping[str, str]:
    """The model's plan: layers by path, with their style. Raises as ``keep_part``, whatever its weights are."""
    text = config.get_text_config(decoder=True)
    if text.model_type not in FAMILIES:
        raise _unsupported(name, f"only {', '.join(FAMILIES)} are known to be the same in parts, not {text.model_type}")
    plan: Mapping[str, str] | None = getattr(text, "base_model_tp_plan", None)
    if not plan:
        raise _unsupported(name, "transformers has no tensor-parallel plan for it")
    for path, style in plan.items():
        if style not in _DIVIDED and not style.startswith("replicate"):
            raise _unsupported(name, f"its tensor-parallel plan has {style!r} for {path}")
    _check_heads(name, text, size)
    return plan


def _check_heads(name: str, config: object, size: int) -> None:
    """A head is computed by one rank."""
    heads = getattr(config, "num_attention_heads", None)
    for number, what in ((heads, "heads"), (getattr(config, "num_key_value_heads", None) or heads, "KV heads")):
        if not isinstance(number, int) or number % size:
            remedy = "give a number that divides its KV heads"
            raise InputError("tensor-parallel", size, f"does not divide the {number} {what} of {name}", remedy=remedy)


def _part_of(layer: nn.Linear, style: str, path: str, *, rank: int, size: int) -> nn.Module:
    """Copies, so that the whole weights can go."""
    dimension = 0 if style == "colwise" else 1
    length = layer.weight.shape[dimension]
    if length % size:
        remedy = f"give a number that divides {length}"
        raise InputError("tensor-parallel", size, f"does not divide the {length} lines of {path}", remedy=remedy)
    start, width = rank * (length // size), length // size
    weight = layer.weight.detach().narrow(dimension, start, width).clone(memory_format=torch.contiguous_format)
    bias = None if layer.bias is None else layer.bias.detach()
    if style == "rowwise":
        return RowwiseLinear(weight, bias, size)
    part = nn.Linear(layer.in_features, width, bias=bias is not None, device="meta", dtype=layer.weight.dtype)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        part.bias = nn.Parameter(bias.narrow(0, start, width).clone(), requires_grad=False)
    return part


def _unsupported(name: str, problem: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} cannot be divided among several GPUs: {problem}", remedy="leave out --tensor-parallel"
    )
