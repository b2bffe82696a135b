"""Projections of one input as one product give what they give apart, also after a pass that broke off."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.fused_linear import fuse_projections


class Attention(nn.Module):
    """As transformers' layers call their projections."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, *, breaks: bool = False) -> torch.Tensor:
        q = self.q_proj(x)
        if breaks:
            raise RuntimeError("out of memory")
        return torch.cat((q, self.k_proj(x), self.v_proj(x)), -1)


def test_a_pass_that_broke_off_leaves_nothing_to_the_next():
    torch.manual_seed(1)
    module, first, second = Attention(), torch.randn(2, 8), torch.randn(2, 8)
    apart = [module(first), module(second)]
    assert fuse_projections(module) == 1
    assert torch.allclose(module(first), apart[0], atol=1e-6)
    with pytest.raises(RuntimeError):
        module(first, breaks=True)
    assert torch.allclose(module(second), apart[1], atol=1e-6)
