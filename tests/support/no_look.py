"""What a GPU would have to be waited for, found on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Whose results, or the shapes of these, are values.
_LOOKS = frozenset(
    (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.equal.default,
    )
)


class NoLook(TorchDispatchMode):
    """A look at a tensor's values is an error within, as it is while a CUDA graph is captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func is torch.ops.aten.index.Tensor and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        assert func not in _LOOKS and not masked, f"the values of a tensor were asked for: {func}"
        return func(*args, **(kwargs or {}))
