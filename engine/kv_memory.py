"""The tensors behind the pages: keys and values of all layers, and who may write where."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.instructions import Changes, Leading
from engine.rank_group import ALONE
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
        leading: Leading = ALONE.leading,
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
        on_gpu = device.type == "cuda"
        #: Graphs run one at a time, so they may use the same memory for what does not outlive them. What one capture
        #: gives back is lent again on its own stream only, so all are captured on one.
        self.graph_pool = torch.cuda.graph_pool_handle() if on_gpu else None
        self.capture_stream = torch.cuda.Stream(device) if on_gpu else None
        self.page_table = torch.zeros((slots, pages_per_slot), dtype=torch.int64, device=device)
        self._changes = Changes()
        #: Around what other ranks have to do as well.
        self.leading = leading
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
        """Which pages hold the slot's positions, in order; from the next pass on."""
        self._changes.lines[slot] = tuple(pages)

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Before the next pass copy keys and values between places, all sources read before any target is written."""
        if not {*sources, *targets}.isdisjoint(self._changes.targets):  # these follow on what is still to be moved
            self.apply_pending()
        self._changes.sources += sources
        self._changes.targets += targets

    def apply_pending(self) -> None:
        """Do what was left for the coming pass: of all sessions together, or each would wait for a transfer."""
        if self._changes:
            with self.leading(self._changes):
                self._apply(self._changes)

    def apply(self, changes: Changes) -> None:
        """What the leading rank did."""
        self._changes = changes
        self.apply_pending()

    def _apply(self, changes: Changes) -> None:
        if changes.targets:
            read, write = self._sent(changes.sources, changes.targets)
            # All that may find no memory comes first: who tries again must find the moves, none of them half done.
            moving = [stack[:, :, read] for stack in self._stacks]
            for stack, values in zip(self._stacks, moving, strict=True):
                stack[:, :, write] = values
        self._changes = Changes(changes.lines)
        if changes.lines:
            width = self.page_table.shape[1]
            at = [slot * width + number for slot, line in changes.lines.items() for number in range(len(line))]
            cells, pages = self._sent(at, list(itertools.chain.from_iterable(changes.lines.values())))
            self.page_table.view(-1)[cells] = pages
        self._changes = Changes()

    def _sent(self, *columns: list[int]) -> Tensor:
        """[columns, length] on the device, which does not have to be waited for."""
        table = torch.tensor(columns, dtype=torch.int64)
        device = self.page_table.device
        # PyTorch keeps pinned memory for itself until the copy that reads it is done.
        return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
