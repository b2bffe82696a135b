"""The tensors behind the pages: keys and values of all layers, and who may write where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.step_tables import PAGE
from speculation.errors import UnsupportedModelError


class KVMemory:
    """``shapes``: (query heads, KV heads, head size) of every attention module, from ``AttentionProbe``.

    Raises UnsupportedModelError where layers differ in how many query heads share a KV head.
    """

    def __init__(
        self,
        shapes: Mapping[nn.Module, tuple[int, int, int]],
        *,
        pages: int,
        slots: int,
        pages_per_slot: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        groups = {heads // kv_heads for heads, kv_heads, _ in shapes.values()}
        if len(groups) != 1:
            raise UnsupportedModelError(f"layers with {len(groups)} kinds of grouped attention have no paged kernel")
        self.group = groups.pop()
        #: Of the layer that has most.
        self.kv_heads = max(kv_heads for _, kv_heads, _ in shapes.values())
        self.modules = list(shapes)
        #: Of a row's partial result for one split: maximum, sum and weighted values of every head, float32.
        self.partial_bytes = max(heads * (size + 2) * 4 for heads, _, size in shapes.values())
        #: Graphs run one at a time, so they may use the same memory for what does not outlive them.
        self.graph_pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.page_table = torch.zeros((slots, pages_per_slot), dtype=torch.int64, device=device)
        self._stacks: list[Tensor] = []  # [layers, keys and values, places, KV heads, head size]
        for kind in dict.fromkeys((kv_heads, size) for _, kv_heads, size in shapes.values()):
            members = [module for module, (_, *of_module) in shapes.items() if tuple(of_module) == kind]
            stack = torch.zeros((len(members), 2, pages * PAGE, *kind), dtype=dtype, device=device)
            self._stacks.append(stack)
            for module, (keys, values) in zip(members, stack, strict=True):
                module.register_buffer("kv_keys", keys, persistent=False)
                module.register_buffer("kv_values", values, persistent=False)

    @staticmethod
    def page_bytes(shapes: Mapping[nn.Module, tuple[int, int, int]], dtype: torch.dtype) -> int:
        """What one page takes, all layers together."""
        return sum(2 * PAGE * kv_heads * size * dtype.itemsize for _, kv_heads, size in shapes.values())

    def set_pages(self, slot: int, pages: Sequence[int]) -> None:
        """Which pages hold the slot's positions, in order."""
        self.page_table[slot, : len(pages)] = torch.tensor(pages, dtype=torch.int64)

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy keys and values between places, all sources read before any target is written."""
        device = self.page_table.device
        read, write = (torch.tensor(places, device=device) for places in (sources, targets))
        for stack in self._stacks:
            stack[:, :, write] = stack[:, :, read]
