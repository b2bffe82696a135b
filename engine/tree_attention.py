"""Attention of a step's rows over paged keys and values, whose bits do not depend on which rows run together.

A step holds rows of many sessions: for each the last committed token and a tree of draft tokens. A row sees the
session's committed positions (through the page table) and its own ancestors in the tree (through an ancestor table in
depth order), so every row has one key at each position from 0 to its own.

Keys are summed in blocks of ``BLOCK`` absolute positions. A block's partial result (maximum, sum of exponentials,
weighted values) starts afresh, and partial results are merged from left to right: blocks within a split of
``SPLIT`` positions, then splits. So a row's result is one expression of its keys, wherever the committed text ends,
whatever tree it stands in and whatever rows run beside it. (FlashAttention's online softmax, arXiv 2205.14135, with
FlashDecoding's split along the keys; both would group the sums by the step.)

Work is divided into tiles: rows of one session whose queries are multiplied with that session's keys together, so that
committed keys are read once for all of them. The blocks from the one that holds the first uncommitted position on
differ between rows and are computed row by row.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.step_tables import BLOCK, MAX_DEPTH, PAGE, QUERIES, SPLIT, TAIL_BLOCKS, StepTables

#: Of the kernel that multiplies; measured on an H200.
WARPS, STAGES = 4, 2
#: Splits that are read at once.
CHUNK = 8


@triton.jit
def _block(q, keys, values, places, valid, head_offset, token_stride, scale, softcap, D: tl.constexpr):
    """Partial result of one block of keys for a tile's queries: (maximum [M], sum [M], weighted values [M, D])."""
    dims = tl.arange(0, D)
    at = places[:, None] * token_stride + head_offset + dims[None, :]
    k = tl.load(keys + at)
    v = tl.load(values + at)
    scores = tl.dot(q, tl.trans(k)) * scale
    if softcap > 0.0:
        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
    scores = tl.where(valid, scores * 1.4426950408889634, float("-inf"))
    top = tl.max(scores, 1)
    base = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(scores - base[:, None])
    total = tl.sum(weights, 1)
    out = tl.dot(weights.to(v.dtype), v)
    return top, total, out


@triton.jit
def _merge(top_a, total_a, out_a, top_b, total_b, out_b):
    """Two partial results, the earlier positions' first; an empty one has the maximum -inf."""
    top = tl.maximum(top_a, top_b)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight_a = tl.exp2(top_a - base)
    weight_b = tl.exp2(top_b - base)
    total = total_a * weight_a + total_b * weight_b
    out = out_a * weight_a[:, None] + out_b * weight_b[:, None]
    return top, total, out


@triton.jit
def _partials(
    q,  # [R, H, D]
    keys,  # [places, KH, D]
    values,
    page_table,  # [slots, pages]
    items,  # [W, 2]
    tile_slot,  # [T]
    tile_row,
    tile_rows,
    row_slot,  # [R]
    row_base,
    row_position,
    ancestors,  # [R, DEPTH]: places of the positions from the base on
    split_top,  # [R, H, S]
    split_total,
    split_out,  # [R, H, S, D]
    tail_top,  # [R, H, TAILS]
    tail_total,
    tail_out,
    scale,
    softcap,
    window,
    pages_per_slot,
    q_row_stride,
    q_head_stride,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    M: tl.constexpr,
    DEPTH: tl.constexpr,
    TAILS: tl.constexpr,
):
    """One item for one KV head: a split of a tile's committed blocks, or one block of one row."""
    group: tl.constexpr = H // KH
    height: tl.constexpr = M // group
    item = tl.program_id(0)
    kv_head = tl.program_id(1)
    what = tl.load(items + 2 * item).to(tl.int32)
    part = tl.load(items + 2 * item + 1).to(tl.int32)
    if what == -1:
        return
    lanes = tl.arange(0, M)
    within = tl.arange(0, BLOCK)
    dims = tl.arange(0, D)
    if what >= 0:
        slot = tl.load(tile_slot + what).to(tl.int32)
        first = tl.load(tile_row + what).to(tl.int32)
        count = tl.load(tile_rows + what).to(tl.int32)
        used = (lanes // group < count) & (lanes < height * group)
        row = tl.where(used, first + lanes // group, first)
        head = kv_head * group + lanes % group
        base = tl.load(row_base + first).to(tl.int32)
        position = tl.load(row_position + row).to(tl.int32)
        queries = tl.load(q + row[:, None] * q_row_stride + head[:, None] * q_head_stride + dims[None, :])
        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        out = tl.zeros([M, D], tl.float32)
        for number in tl.static_range(SPLIT // BLOCK):
            block = part * (SPLIT // BLOCK) + number
            if block < base // BLOCK:
                at = block * BLOCK + within
                page = tl.load(page_table + slot * pages_per_slot + at // PAGE)
                places = page * PAGE + at % PAGE
                valid = (position[:, None] - at[None, :]) < window
                top_b, total_b, out_b = _block(
                    queries, keys, values, places, valid, kv_head * D, KH * D, scale, softcap, D
                )
                top, total, out = _merge(top, total, out, top_b, total_b, out_b)
        to = (row * H + head) * S + part
        tl.store(split_top + to, top, mask=used)
        tl.store(split_total + to, total, mask=used)
        tl.store(split_out + to[:, None].to(tl.int64) * D + dims[None, :], out, mask=used[:, None])
    else:
        row_t = -2 - what
        slot_t = tl.load(row_slot + row_t).to(tl.int32)
        base_t = tl.load(row_base + row_t).to(tl.int32)
        position_t = tl.load(row_position + row_t).to(tl.int32)
        used_t = lanes < group
        head_t = tl.where(used_t, kv_head * group + lanes, kv_head * group)
        queries_t = tl.load(q + row_t * q_row_stride + head_t[:, None] * q_head_stride + dims[None, :])
        at_t = (base_t // BLOCK + part) * BLOCK + within
        new = (at_t >= base_t) & (at_t <= position_t)
        page_t = tl.load(page_table + slot_t * pages_per_slot + at_t // PAGE, mask=at_t < base_t, other=0)
        ancestor = tl.load(ancestors + row_t * DEPTH + (at_t - base_t), mask=new, other=0)
        places_t = tl.where(at_t < base_t, page_t * PAGE + at_t % PAGE, ancestor)
        valid_t = ((at_t <= position_t) & (position_t - at_t < window))[None, :] & (lanes[:, None] >= 0)
        top_t, total_t, out_t = _block(
            queries_t, keys, values, places_t, valid_t, kv_head * D, KH * D, scale, softcap, D
        )
        to_t = (row_t * H + head_t) * TAILS + part
        tl.store(tail_top + to_t, top_t, mask=used_t)
        tl.store(tail_total + to_t, total_t, mask=used_t)
        tl.store(tail_out + to_t[:, None].to(tl.int64) * D + dims[None, :], out_t, mask=used_t[:, None])


@triton.jit
def _combine(
    out,  # [R, H, D]
    row_slot,
    row_base,
    row_position,
    split_top,
    split_total,
    split_out,
    tail_top,
    tail_total,
    tail_out,
    H: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    TAILS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One row and head: its splits from left to right, the uncommitted blocks within theirs."""
    row = tl.program_id(0)
    heads = tl.program_id(1) + tl.arange(0, 1)
    dims = tl.arange(0, D)
    slot = tl.load(row_slot + row).to(tl.int32)
    to_out = (row * H + heads[:, None]) * D + dims[None, :]
    if slot < 0:
        tl.store(out + to_out, tl.zeros([1, D], out.dtype.element_ty))
        return
    base = tl.load(row_base + row).to(tl.int32)
    position = tl.load(row_position + row).to(tl.int32)
    full = base // BLOCK
    per_split: tl.constexpr = SPLIT // BLOCK
    partial_split = full // per_split  # the first that is not committed as a whole
    first = (row * H + heads) * S
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    result = tl.zeros([1, D], tl.float32)
    # Several loads on their way at once; what lies beyond merges as nothing, which changes no bit.
    for chunk in range(0, partial_split, CHUNK):
        for number in tl.static_range(CHUNK):
            split = chunk + number
            there = split < partial_split
            at = first + tl.where(there, split, 0)
            top_s = tl.load(split_top + at, mask=there, other=float("-inf"))
            total_s = tl.load(split_total + at, mask=there, other=0.0)
            out_s = tl.load(split_out + at[:, None].to(tl.int64) * D + dims[None, :], mask=there, other=0.0)
            top, total, result = _merge(top, total, result, top_s, total_s, out_s)
    for later in tl.static_range(TAILS):
        split = partial_split + later
        there = split * per_split < full
        at = first + tl.where(there, split, 0)
        top_s = tl.load(split_top + at, mask=there, other=float("-inf"))
        total_s = tl.load(split_total + at, mask=there, other=0.0)
        out_s = tl.load(split_out + at[:, None].to(tl.int64) * D + dims[None, :], mask=there, other=0.0)
        for tail in tl.static_range(TAILS):
            block = full + tail
            inside = (block // per_split == split) & (block * BLOCK <= position)
            at_t = (row * H + heads) * TAILS + tail
            top_b = tl.load(tail_top + at_t, mask=inside, other=float("-inf"))
            total_b = tl.load(tail_total + at_t, mask=inside, other=0.0)
            out_b = tl.load(tail_out + at_t[:, None].to(tl.int64) * D + dims[None, :], mask=inside, other=0.0)
            top_s, total_s, out_s = _merge(top_s, total_s, out_s, top_b, total_b, out_b)
        top, total, result = _merge(top, total, result, top_s, total_s, out_s)
    tl.store(out + to_out, (result / total[:, None]).to(out.dtype.element_ty))


def tree_attention(
    q: Tensor, keys: Tensor, values: Tensor, tables: StepTables, *, scale: float, softcap: float, window: int
) -> Tensor:
    """q [R, H, D], keys and values [places, KH, D] -> [R, H, D], zeros for rows that no session has.

    ``window``: positions that a row sees, its own included.
    """
    rows, heads, dim = q.shape
    kv_heads = keys.shape[1]
    splits = tables.splits
    scratch = functools.partial(torch.empty, dtype=torch.float32, device=q.device)
    split_top, split_total = (scratch((rows, heads, splits)) for _ in range(2))
    split_out = scratch((rows, heads, splits, dim))
    tail_top, tail_total = (scratch((rows, heads, TAIL_BLOCKS)) for _ in range(2))
    tail_out = scratch((rows, heads, TAIL_BLOCKS, dim))
    out = torch.empty((rows, heads, dim), dtype=q.dtype, device=q.device)
    by_row = (tables.row_slot, tables.row_base, tables.row_position)
    partials = (split_top, split_total, split_out, tail_top, tail_total, tail_out)
    _partials[(tables.work, kv_heads)](
        q,
        keys,
        values,
        tables.page_table,
        tables.items,
        tables.tile_slot,
        tables.tile_row,
        tables.tile_rows,
        *by_row,
        tables.ancestors,
        *partials,
        scale,
        softcap,
        window,
        tables.page_table.shape[1],
        q.stride(0),
        q.stride(1),
        H=heads,
        KH=kv_heads,
        D=dim,
        S=splits,
        PAGE=PAGE,
        BLOCK=BLOCK,
        SPLIT=SPLIT,
        M=QUERIES,
        DEPTH=MAX_DEPTH,
        TAILS=TAIL_BLOCKS,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    _combine[(rows, heads)](
        out,
        *by_row,
        *partials,
        H=heads,
        D=dim,
        S=splits,
        BLOCK=BLOCK,
        SPLIT=SPLIT,
        TAILS=TAIL_BLOCKS,
        CHUNK=CHUNK,
        num_warps=1,
    )
    return out
