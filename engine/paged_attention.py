"""The attention function of transformers that reads and writes paged keys and values.

Any decoder-only model of transformers that asks for its attention by name calls it with the queries, keys and values of
the step's rows. What belongs to a layer (its part of KV memory) hangs on the layer's attention module as buffers, so
that one compiled layer serves all layers; what belongs to the step are tables, static on the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.reference_attention import reference_attention
from engine.step_tables import StepTables
from speculation.errors import UnsupportedModelError

NAME = "dragoman_paged"
#: A window that hides nothing.
NO_WINDOW = 1 << 30
#: By number: an operator that torch.compile does not look into takes tensors and numbers only.
_tables: dict[int, StepTables] = {}


def register_tables(tables: StepTables) -> int:
    """A number by which ``paged_attention`` knows them, until ``forget_tables``."""
    number = max(_tables, default=0) + 1
    _tables[number] = tables
    return number


def forget_tables(number: int) -> None:
    _tables.pop(number, None)


@torch.library.custom_op("dragoman::paged_attention", mutates_args=())
def _attend(q: Tensor, keys: Tensor, values: Tensor, number: int, scale: float, softcap: float, window: int) -> Tensor:
    if q.device.type == "cuda":
        from engine.tree_attention import tree_attention as attention  # needs Triton
    else:
        attention = reference_attention
    return attention(q, keys, values, _tables[number], scale=scale, softcap=softcap, window=window)


@_attend.register_fake
def _(q: Tensor, keys: Tensor, values: Tensor, number: int, scale: float, softcap: float, window: int) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def paged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query [1, H, R, D], key and value [1, KH, R, D] -> [1, R, H, D]. The tables say who sees whom, not the mask."""
    module.kv_keys.index_copy_(0, module.kv_write, key[0].transpose(0, 1))
    module.kv_values.index_copy_(0, module.kv_write, value[0].transpose(0, 1))
    out = torch.ops.dragoman.paged_attention(
        query[0].transpose(0, 1),
        module.kv_keys,
        module.kv_values,
        module.kv_tables,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap or 0.0,
        sliding_window or NO_WINDOW,
    )
    return out[None], None


class AttentionSettings(NamedTuple):
    """Of one layer. ``softcap``: 0 for none. ``window``: positions that a row sees, its own included."""

    scale: float
    softcap: float
    window: int

    @classmethod
    def asked_for(
        cls, size: int, *, scaling: float | None, softcap: float | None, sliding_window: int | None
    ) -> AttentionSettings:
        """As transformers' attention functions get them, with heads of ``size``."""
        return cls(size**-0.5 if scaling is None else scaling, softcap or 0.0, sliding_window or NO_WINDOW)


class AttentionProbe:
    """In place of ``paged_attention`` for one pass: which modules attend, with how many heads of what size."""

    def __init__(self) -> None:
        self.shapes: dict[nn.Module, tuple[int, int, int]] = {}  # query heads, KV heads, head size
        self.settings: dict[nn.Module, AttentionSettings] = {}

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, None]:
        """Raises UnsupportedModelError for attention that the kernel does not compute."""
        if module in self.shapes or any(settings.get(name) is not None for name in ("s_aux", "position_bias")):
            raise UnsupportedModelError("attention with sinks or biases, or with shared layers, has no paged kernel")
        if key.shape != value.shape or key.shape[-1] != query.shape[-1]:
            raise UnsupportedModelError("keys and values of different sizes have no paged kernel")
        self.shapes[module] = (query.shape[1], key.shape[1], key.shape[3])
        asked = {name: settings.get(name) for name in ("scaling", "softcap", "sliding_window")}
        self.settings[module] = AttentionSettings.asked_for(query.shape[-1], **asked)
        return query.transpose(1, 2), None
