"""What a guide allows, as tensors: a bit for each token of a row travels to the device, and is unpacked there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def allowed_rows(masks: Sequence[bytes], size: int, device: torch.device) -> Tensor:
    """bool [masks, size]. ``masks``: see ``Guide.masks``; of equal lengths, which may go beyond ``size`` bits."""
    bits = torch.frombuffer(bytearray(b"".join(masks)), dtype=torch.uint8).view(len(masks), -1)
    bits = bits.to(device, non_blocking=True)
    eight = torch.arange(8, dtype=torch.uint8, device=device)
    return (bits[:, :, None] >> eight).bitwise_and_(1).view(len(masks), -1)[:, :size].bool()
