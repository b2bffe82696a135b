"""Kernels that start before the one ahead of them has ended.

Some 300 kernels of a small model's step take as long to start and to end as to work. A GPU of compute capability 9.0 or
more may launch a kernel when the one ahead has said ``gdc_launch_dependents``; it then sets itself up, and waits in
``gdc_wait`` until everything before it is written ("Programmatic Dependent Launch and Synchronization" in the CUDA C++
Programming Guide). Two rules keep this right: every program waits before it reads what a kernel wrote or writes
anything at all, and it waits even where it has nothing to do, as the kernels after it take its end for that of all
before. A kernel with little to do says so before it waits, so that what comes after it is set up by then.
"""

from __future__ import annotations

import torch


def starts_early(device: torch.device) -> bool:
    """Whether the device can do so."""
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= (9, 0)


def launching(early: bool) -> dict[str, bool]:
    """What a launch says besides; Triton for another GPU may not know the word."""
    return {"launch_pdl": True} if early else {}
