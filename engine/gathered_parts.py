"""What every rank of a group has computed, in every rank: an operator that torch.compile does not look into."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


@torch.library.custom_op("dragoman::gathered", mutates_args=())
def gathered(parts: Tensor, ranks: int) -> Tensor:
    """parts [P, ...] of this rank -> [ranks P, ...] of all, in the order of the ranks. All of them have to call it."""
    out = parts.new_empty((ranks * parts.shape[0], *parts.shape[1:]))
    all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # before PyTorch 2.13
    all_gather(out, parts.contiguous())
    return out


@gathered.register_fake
def _(parts: Tensor, ranks: int) -> Tensor:
    return parts.new_empty((ranks * parts.shape[0], *parts.shape[1:]))
