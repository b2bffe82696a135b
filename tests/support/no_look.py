"""What a GPU would have to be waited for, found on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoLook(TorchDispatchMode):
    """A look at a tensor's values is an error within, as it is while a CUDA graph is captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the values of a tensor were asked for"
        return func(*args, **(kwargs or {}))
