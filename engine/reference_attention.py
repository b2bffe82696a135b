"""The attention of ``tree_attention.py`` in plain PyTorch, row by row: for CPUs, and to test the kernel against."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.step_tables import PAGE, StepTables


def reference_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: StepTables,
    *,
    scale: float,
    softcap: float,
    window: int,
    early: bool = False,
) -> Tensor:
    """Arguments and result as those of ``tree_attention``; nothing is ``early``. Sums in float64."""
    rows, heads, _ = q.shape
    group = heads // keys.shape[1]
    out = torch.zeros_like(q)
    for row in range(rows):
        slot, base, position = (int(t[row]) for t in (tables.row_slot, tables.row_base, tables.row_position))
        if slot < 0:
            continue
        committed = torch.arange(base, device=q.device)
        pages = tables.page_table[slot, committed // PAGE].long()
        places = torch.cat([pages * PAGE + committed % PAGE, tables.ancestors[row, : position - base + 1]])
        places = places[max(0, position + 1 - window) :]
        k = keys[places].repeat_interleave(group, dim=1).double()
        v = values[places].repeat_interleave(group, dim=1).double()
        scores = torch.einsum("hd,phd->hp", q[row].double(), k) * scale
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        out[row] = torch.einsum("hp,phd->hd", torch.softmax(scores, dim=-1), v).to(q.dtype)
    return out
