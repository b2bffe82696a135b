"""What the CPU that the tests run on computes by itself: some tests are about nothing else."""

from __future__ import annotations

import pytest
import torch


def has_bfloat16() -> bool:
    """Whether it multiplies matrices in bfloat16; torch says so under a private name only."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


#: For tests of bits in bfloat16.
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16 kernels")
