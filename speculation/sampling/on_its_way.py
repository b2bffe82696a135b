"""A small result of a device that works by itself, copied as soon as it is there, whatever the device is given next."""

from __future__ import annotations

import torch
from torch import Tensor


class OnItsWay:
    """``found``: what the device has been told to compute last."""

    def __init__(self, found: Tensor) -> None:
        self._there: torch.cuda.Event | None = None
        if found.is_cuda:
            device = found.device  # which need not be the thread's current one
            found = found.to("cpu", non_blocking=True)  # into pinned memory
            self._there = torch.cuda.current_stream(device).record_event()
        self._found = found

    def read(self) -> Tensor:
        """On the CPU, once it is there; other threads may run until then."""
        if self._there is not None:
            self._there.synchronize()
            self._there = None
        return self._found
