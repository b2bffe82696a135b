"""How the products of a step's few rows are divided among programs: by their shape alone, and so are a row's bits.

Measured on an H200 with 16 and 64 rows at the shapes of 135M, 1.5B, 8B and 32B models: what reads the weights fastest.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

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
    """Of a product whose parts are added later."""
    columns = _columns(outputs, 64 if outputs >= WIDE_FROM else 32)
    tiles = outputs // columns
    # A program with four stages has its multiprocessor for itself, with three it shares it with another one.
    one, two = _parts(tiles, inputs, SLOTS), _parts(tiles, inputs, 2 * SLOTS)
    shared = tiles * two / (2 * SLOTS) > 1.1 * min(tiles * one / SLOTS, 1.0)
    parts = two if shared else one
    chunk = -(-inputs // parts // DEPTH) * DEPTH
    return Tiles(columns, depth=DEPTH, chunk=chunk, parts=-(-inputs // chunk), stages=3 if shared else 4)


@functools.cache
def gated_tiles_for(outputs: int, inputs: int) -> Tiles:
    """Of two products whose results are multiplied: they cannot be parts."""
    if outputs >= 64 * SLOTS:
        return Tiles(_columns(outputs, 64), depth=GATED_DEPTH, chunk=inputs, parts=1, stages=4)
    return Tiles(_columns(outputs, 32), depth=GATED_DEPTH, chunk=inputs, parts=1, stages=6)


def shared_bytes(rows: int) -> int:
    """Shared memory that a program takes at most, with so many rows in 16 bits: inputs and weights of all stages."""
    return max(
        4 * DEPTH * (rows + 64) * 2,
        4 * GATED_DEPTH * (rows + 2 * 64) * 2,
        6 * GATED_DEPTH * (rows + 2 * 32) * 2,
    )


def fits(rows: int, capability: tuple[int, int]) -> bool:
    """Whether the products of so many rows can run on a GPU of that compute capability: by the shared memory that a
    program may have (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"), less some for what
    the compiler adds. Rows are a power of two, 16 at least, as the multiplying instructions have it.
    """
    large = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227, (11, 0): 227}
    kib = large.get(capability, 99)
    return rows >= 16 and rows & (rows - 1) == 0 and shared_bytes(rows) <= (kib - 8) * 1024


def _columns(outputs: int, most: int) -> int:
    """The most of a power of two that divides the outputs."""
    columns = most
    while outputs % columns:
        columns //= 2
    return columns


def _parts(tiles: int, inputs: int, slots: int) -> int:
    """As many as there are slots for."""
    return max(1, min(MOST_PARTS, slots // tiles, -(-inputs // DEPTH)))
