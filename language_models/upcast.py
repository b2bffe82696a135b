"""The first layers of a 16-bit model in float32, for a while.

In 16-bit numbers a trained model's logits move by a tenth of their spread and more when a matrix library sums in
another order, which hides a key too many at the edge of a window. Masks, positions and caches are the same code in
any dtype and in every layer of a kind, so they are tried where they can be seen: in float32, on as many layers as have
one of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

_SIXTEEN_BITS = (torch.float16, torch.bfloat16)
_FEWEST_LAYERS = 2


@contextmanager
def first_layers_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block ``model`` has its first layers alone, in float32; afterwards it is as it was, to the bit.

    Raises torch.OutOfMemoryError.
    """
    config = model.config.get_text_config(decoder=True)
    owner, name, layers = _layers(model, config.num_hidden_layers)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    buffers = [(module, dict(module._buffers)) for module in model.modules()]  # a pass may put others there
    try:
        if owner is not None:
            setattr(owner, name, layers[: _one_of_each(config)])
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dtype in _SIXTEEN_BITS:
                wide = tensor.data.float()
                kept.append((tensor, tensor.data))
                tensor.data = wide
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data
        for module, before in buffers:
            module._buffers.clear()
            module._buffers.update(before)
        if owner is not None:
            setattr(owner, name, layers)


def _layers(model: nn.Module, number: int) -> tuple[nn.Module | None, str, nn.ModuleList]:
    """(their owner, their name in it, the layers): the largest list of ``number`` modules; without one no owner."""
    found = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == number
    ]
    if not found:
        return None, "", nn.ModuleList()
    return max(found, key=lambda entry: sum(parameter.numel() for parameter in entry[2].parameters()))


def _one_of_each(config: PretrainedConfig) -> int:
    """How many of the first layers have one of each kind among them; all, where some use the keys of others."""
    if "reuse" in (getattr(config, "kv_sharing_modes", None) or ()):
        return config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or [""]
    return max(_FEWEST_LAYERS, *(1 + list(kinds).index(kind) for kind in kinds))
