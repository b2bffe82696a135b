"""Where a model is to run, and in which type: what a user wrote, checked."""

from __future__ import annotations

import torch

from speculation.errors import InputError

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def device_of(device: str) -> torch.device:
    """Raises InputError for one that cannot be used."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("device", device, f"cannot be used: {reason}", remedy="use auto, cpu or cuda") from error
    return chosen


def dtype_of(dtype: str, device: torch.device) -> tuple[torch.dtype, bool]:
    """The type to load in, and whether to quantise to int8 afterwards. Raises InputError for one that is not known."""
    if dtype == "int8":
        if device.type != "cpu":
            raise InputError("dtype", dtype, f"works on the CPU only, not on {device}", remedy="use bfloat16")
        return torch.float32, True
    if dtype == "auto":
        fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return (torch.bfloat16 if fast else torch.float32), False
    if dtype not in DTYPES:
        raise InputError("dtype", dtype, "is not known", remedy=f"use one of auto, int8, {', '.join(DTYPES)}")
    return DTYPES[dtype], False
