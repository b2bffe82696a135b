"""How far logits are from those that they should be."""

from __future__ import annotations

import torch
from torch import Tensor


def logit_difference(found: Tensor, expected: Tensor) -> float:
    """Of the row that differs most: the root mean square difference as a share of the spread of its logits."""
    if found.shape != expected.shape:
        return float("inf")
    usual = expected.isfinite() & (found != expected)  # also what is not finite in ``found``
    gaps = torch.where(usual, found - expected, 0.0).double()
    finite = torch.where(expected.isfinite(), expected, 0.0).double()
    spread = finite.std(dim=-1).clamp(min=1e-12)
    worst = (gaps.square().mean(dim=-1).sqrt() / spread).max().item()
    unequal = ~expected.isfinite() & (found != expected)
    return float("inf") if bool(unequal.any()) else worst
