"""Linear layers of a bfloat16 model on a CPU with their weights in the layout that the matrix library computes in.

PyTorch keeps a weight row by row, and its matrix library (oneDNN) lays it out anew at each call, which takes about as
long as the sums of a step. Laid out once, a step of Qwen2.5-Coder-1.5B is 1.7 times as fast on one core of an AMD EPYC
with AVX512-BF16 (README, "Figures"), and three to six rows cost less than one or two do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

#: Rows that a step has at least, were it only to forget them: the kernels for fewer are slower, or give other bits.
LEAST_ROWS = 4
#: And at most: with more, 16-bit numbers are summed in another order on some processors (matrix tiles).
MOST_ROWS = 32
#: Numbers of rows whose bits must be the same: those of steps and of replays. A prefill is the same whatever follows.
_STEP_ROWS = range(3, MOST_ROWS + 1)


class PackedLinear(nn.Module):
    """A linear layer, for inference only. ``packed``: its weight, opaque, and of the memory that it had."""

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        super().__init__()
        weight = layer.weight.detach()
        if isinstance(layer, Conv1D):  # GPT-2's name for a linear layer whose weight lies on its side
            weight = weight.t().contiguous()
        self.in_features = weight.shape[1]
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, LEAST_ROWS)
        self.bias = layer.bias
        self._on_its_side = isinstance(layer, Conv1D)
        self.packed_bytes = layer.weight.nbytes

    @property
    def weight(self) -> Tensor:
        """A copy as it was, for models that read it rather than call the layer, as some routers of experts do."""
        weight = self.packed.to_dense()
        return weight.t() if self._on_its_side else weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    @torch.inference_mode()
    def keeps_bits(self) -> bool:
        """Whether a row's result is the same to the bit whatever number of rows is computed with it.

        It is on processors without matrix tiles; with them, a long sum is divided by the number of rows.
        """
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(max(_STEP_ROWS), self.in_features, generator=generator).to(torch.bfloat16)
        expected = self(x)
        return all(torch.equal(self(x[:rows].contiguous()), expected[:rows]) for rows in _STEP_ROWS)


def pack(model: nn.Module) -> bool:
    """Pack every linear layer of a bfloat16 model on a CPU in place; False, and nothing changed, if that costs bits."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    layers = list(_linear_layers(model))
    one_of_each = {(type(layer), *layer.weight.shape): layer for _, _, layer in layers}
    tried = {layer: PackedLinear(layer) for layer in one_of_each.values()}
    if not all(packed.keeps_bits() for packed in tried.values()):
        return False
    del one_of_each
    while layers:  # one by one: beside those that were tried, never more than one weight is there twice
        owner, name, layer = layers.pop()
        setattr(owner, name, tried.pop(layer, None) or PackedLinear(layer))
    # Weights that were read by mapping the file keep all of it in memory as long as one of them is left.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return True


def packed_bytes(model: nn.Module) -> int:
    """Memory of the packed weights, which are no parameters any more."""
    return sum(module.packed_bytes for module in model.modules() if isinstance(module, PackedLinear))


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear | Conv1D]]:
    for owner in model.modules():
        for name, child in owner.named_children():
            # Some routers of experts stay in float32.
            if type(child) in (nn.Linear, Conv1D) and child.weight.dtype is torch.bfloat16:
                yield owner, name, child
