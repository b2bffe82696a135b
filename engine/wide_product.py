"""A product of 16-bit numbers in float32: rounded to 16 bits, what is compared or added afterwards would be coarse."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., inputs], weight [outputs, inputs] -> [..., outputs] float32."""
    if x.device.type != "cuda" or x.dtype == torch.float32:
        return nn.functional.linear(x.float(), weight.float())
    flat = torch.mm(x.reshape(-1, x.shape[-1]), weight.t(), out_dtype=torch.float32)
    return flat.view(*x.shape[:-1], -1)
