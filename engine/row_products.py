"""Matrix products of a step's few rows with the weights of a layer, which are read once and near the memory's speed.

A product of so few rows takes as long as reading its weights, so what counts is that every multiprocessor reads all the
time. Each program multiplies all rows with some weight rows, for a part of the inputs; the parts are added by the
kernel that reads them, in order. How a product is divided depends on its shape alone, so a row has the same bits
whatever the other rows are, on every card of a kind. See ``early_kernels.py`` for what ``early`` is.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.early_kernels import launching

#: Programs that run at once, one or two on each multiprocessor: of an H100 or H200, and the same everywhere, as it
#: decides in which order is added.
SLOTS = 132
#: Parts at most.
MOST_PARTS = 8
#: Of inputs that a program multiplies at a time.
DEPTH, GATED_DEPTH = 128, 64
#: From so many outputs on, 64 of them are one program's; below, 32, as few programs would be left.
WIDE_FROM = 1536


class Tiles(NamedTuple):
    """``columns`` outputs by ``depth`` inputs at a time; ``chunk`` inputs of one program in each of ``parts``."""

    columns: int
    depth: int
    chunk: int
    parts: int
    stages: int


@functools.cache
def tiles_for(outputs: int, inputs: int) -> Tiles:
    """How a product is divided whose parts are added later. Measured on an H200 with 16 and 64 rows."""
    columns = _columns(outputs, 64 if outputs >= WIDE_FROM else 32)
    tiles = outputs // columns
    # A program with four stages has its multiprocessor for itself, with three it shares it with another one.
    one, two = _parts(tiles, inputs, SLOTS), _parts(tiles, inputs, 2 * SLOTS)
    shared = tiles * two / (2 * SLOTS) > 1.1 * min(tiles * one / SLOTS, 1.0)
    parts = two if shared else one
    chunk = -(-inputs // parts // DEPTH) * DEPTH
    return Tiles(columns, DEPTH, chunk, -(-inputs // chunk), 3 if shared else 4)


@functools.cache
def gated_tiles_for(outputs: int, inputs: int) -> Tiles:
    """The same of two products at once."""
    if outputs >= 64 * SLOTS:
        return Tiles(_columns(outputs, 64), GATED_DEPTH, inputs, 1, 4)
    return Tiles(_columns(outputs, 32), GATED_DEPTH, inputs, 1, 6)


def _columns(outputs: int, most: int) -> int:
    """The most of a power of two that divides the outputs."""
    columns = most
    while outputs % columns:
        columns //= 2
    return columns


def _parts(tiles: int, inputs: int, slots: int) -> int:
    """As many as there are slots for."""
    return max(1, min(MOST_PARTS, slots // tiles, -(-inputs // DEPTH)))


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
        EVEN=inputs % (tiles.chunk) == 0 and tiles.chunk % tiles.depth == 0,
        GATED=gated,
        EARLY=early,
        num_warps=4,
        **launching(early),
    )
