"""Matrix products of a step's few rows with the weights of a layer, which are read once and near the memory's speed.

A product of so few rows takes as long as reading its weights, so what counts is that every multiprocessor reads all the
time. Each program multiplies all rows with some weight rows, for a part of the inputs; the parts are added by the
kernel that reads them, in order. How a product is divided depends on its shape alone, so a row has the same bits
whatever the other rows are, on every card of a kind. See ``early_kernels.py`` for what ``early`` is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.early_kernels import launching
from engine.product_tiles import Tiles, gated_tiles_for, tiles_for

#: Inputs whose weights are on their way before the kernel ahead has ended.
AHEAD = tl.constexpr(256)


@triton.jit
def _fetch(pointers):
    """Into the L2 cache, 128 bytes each."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _multiply(
    x,  # [R, inputs]
    weight,  # [outputs, inputs], with GATED twice as many
    out,  # [parts, R, outputs]
    outputs,
    inputs,
    chunk,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    STAGES: tl.constexpr,
    EVEN: tl.constexpr,
    GATED: tl.constexpr,
    EARLY: tl.constexpr,
    FETCHING: tl.constexpr,
):
    """One part of ``COLUMNS`` outputs."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    rows = tl.arange(0, ROWS)
    within = tl.arange(0, DEPTH)
    start = part * chunk
    count = tl.minimum(chunk, inputs - start)
    from_x = x + rows[:, None] * inputs + start + within[None, :]
    from_weight = weight + column[None, :].to(tl.int64) * inputs + start + within[:, None]
    up = outputs.to(tl.int64) * inputs
    if FETCHING:
        line = tl.minimum(tl.arange(0, AHEAD // 64) * 64, count - 16)
        ahead = weight + column[:, None].to(tl.int64) * inputs + start + line[None, :]
        _fetch(ahead)
        if GATED:
            _fetch(ahead + up)
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    total_up = tl.zeros([ROWS, COLUMNS], tl.float32)
    for at in tl.range(0, count, DEPTH, num_stages=STAGES):
        if EVEN:
            values = tl.load(from_x + at)
            weights = tl.load(from_weight + at)
        else:
            there = at + within < count
            values = tl.load(from_x + at, mask=there[None, :], other=0.0)
            weights = tl.load(from_weight + at, mask=there[:, None], other=0.0)
        total = tl.dot(values, weights, total)
        if GATED:
            if EVEN:
                weights_up = tl.load(from_weight + up + at)
            else:
                weights_up = tl.load(from_weight + up + at, mask=(at + within < count)[:, None], other=0.0)
            total_up = tl.dot(values, weights_up, total_up)
    to = out + (part * ROWS + rows[:, None]) * outputs + column[None, :]
    if GATED:
        total = total / (1.0 + tl.exp(-total)) * total_up
    tl.store(to, total.to(out.dtype.element_ty))


def partial_product(x: Tensor, weight: Tensor, *, early: bool) -> Tensor:
    """x [R, inputs], weight [outputs, inputs] -> [parts, R, outputs] float32, whose sum is the product."""
    tiles = tiles_for(*weight.shape)
    out = torch.empty((tiles.parts, len(x), len(weight)), dtype=torch.float32, device=x.device)
    _launch(x, weight, out, tiles, gated=False, early=early)
    return out


def gated_product(x: Tensor, weight: Tensor, *, early: bool) -> Tensor:
    """x [R, inputs], weight [gates and as many values, inputs] -> [R, gates]: SiLU of the gates times the values."""
    gates = len(weight) // 2
    tiles = gated_tiles_for(gates, weight.shape[1])
    out = torch.empty((len(x), gates), dtype=x.dtype, device=x.device)
    _launch(x, weight, out, tiles, gated=True, early=early)
    return out


def _launch(x: Tensor, weight: Tensor, out: Tensor, tiles: Tiles, *, gated: bool, early: bool) -> None:
    rows, inputs = x.shape
    outputs = out.shape[-1]
    _multiply[(outputs // tiles.columns, tiles.parts)](
        x,
        weight,
        out,
        outputs,
        inputs,
        tiles.chunk,
        ROWS=rows,
        COLUMNS=tiles.columns,
        DEPTH=tiles.depth,
        STAGES=tiles.stages,
        EVEN=inputs % tiles.chunk == 0 and tiles.chunk % tiles.depth == 0,
        GATED=gated,
        EARLY=early,
        # Behind another product the memory is busy with that one's weights.
        FETCHING=early and inputs <= outputs,
        num_warps=4,
        **launching(early),
    )
