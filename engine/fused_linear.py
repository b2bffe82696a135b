"""Projections of one input as one matrix product: queries, keys and values; gate and up.

A product's time on a GPU is that of reading its weights plus some microseconds, so three small ones cost more than one
of their size. The layers of a transformers model call the projections by name, so each name keeps a module, which takes
its part of the product that the first of them computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Projections that one module applies to one input.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class FusedLinear(nn.Module):
    """The weights [sum of out, in] of several linear layers. Each of its parts is called once for an input, the first
    one first."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
        biases = [layer.bias for layer in layers]
        self.bias = None
        if all(bias is not None for bias in biases):
            self.bias = nn.Parameter(torch.cat([bias.detach() for bias in biases]), requires_grad=False)
        self._parts: tuple[Tensor, ...] | None = None

    def part(self, index: int, x: Tensor) -> Tensor:
        """Output of layer ``index``: computed for all at the first one's call, taken at the others'.

        What a pass that broke off has left is of no use to the next.
        """
        if index == 0 or self._parts is None:
            self._parts = nn.functional.linear(x, self.weight, self.bias).split(self.sizes, dim=-1)
        out = self._parts[index]
        if index == len(self.sizes) - 1:
            self._parts = None
        return out


class FusedPart(nn.Module):
    """Stands where a linear layer stood."""

    def __init__(self, fused: FusedLinear, index: int) -> None:
        super().__init__()
        self._fused = [fused]  # in a list: the weights belong to the first part's owner, once
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        return self._fused[0].part(self._index, x)


def fuse_projections(model: nn.Module) -> int:
    """In place, freeing the weights that were apart; returns how many products became one."""
    fused = 0
    for owner in list(model.modules()):
        for names in TOGETHER:
            found = [getattr(owner, name, None) for name in names]
            layers = [layer for layer in found if type(layer) is nn.Linear]
            if len(layers) < len(names):
                continue
            if len({layer.in_features for layer in layers} | {layer.bias is None for layer in layers}) != 2:
                continue
            together = FusedLinear(layers)
            for index, name in enumerate(names):
                setattr(owner, name, FusedPart(together, index))
            owner.add_module("_".join(["fused", *names]), together)
            del found, layers
            fused += 1
    return fused
