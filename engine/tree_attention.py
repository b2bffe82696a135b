"""Attention of a step's rows over paged keys and values, whose bits do not depend on which rows run together.

A step holds rows of many sessions: for each the last committed token and a tree of draft tokens. A row sees the
session's committed positions (through the page table) and its own ancestors in the tree (through an ancestor table in
depth order), so every row has one key at each position from 0 to its own.

Keys are summed in blocks of ``BLOCK`` absolute positions. A block's partial result (maximum, sum of exponentials,
weighted values) starts afresh, and partial results are merged from left to right: blocks within a split of
``SPLIT`` positions, splits within a group of ``GROUP``, then groups. So a row's result is one expression of its keys,
wherever the committed text ends, whatever tree it stands in, whatever rows run beside it, and whether one program
computed a whole group or each of its splits had its own. (FlashAttention's online softmax, arXiv 2205.14135, with
FlashDecoding's split along the keys; both would group the sums by the step.)

What is to be computed is a list of items, see ``attention_items.py``: committed keys are read once for a tile of rows
of their session, the others once for all rows on one path of the tree.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.attention_items import BLOCK, COLUMNS, GROUP, GROUP_ITEM, NO_ITEM, SPLIT, TAIL_BLOCKS, TAIL_ITEM
from engine.early_kernels import launching
from engine.merged_attention import combine_partials, merge_two
from engine.step_kinds import NARROW
from engine.step_tables import MAX_DEPTH, PAGE, StepTables

#: Of the kernel that multiplies, for narrow tiles and wide ones; measured on an H200.
WARPS, STAGES = (2, 4), (3, 2)


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
    weights = tl.exp2(scores - base[:, None]).to(v.dtype)
    # By a product as well: a sum over lanes would be grouped by how many threads share a row.
    total = tl.max(tl.dot(weights, tl.full([places.shape[0], 16], 1.0, v.dtype)), 1)
    out = tl.dot(weights, v)
    return top, total, out


@triton.jit
def _committed(
    q,
    keys,
    values,
    pages,
    at,
    committed,
    position,
    window,
    kv_head,
    scale,
    softcap,
    PAGE: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
):
    """The block of these positions, if it is committed as a whole, else an empty one."""
    there = at < committed
    page = tl.load(pages + at // PAGE, mask=there, other=0)
    valid = there[None, :] & (position[:, None] - at[None, :] < window)
    return _block(q, keys, values, page * PAGE + at % PAGE, valid, kv_head * D, KH * D, scale, softcap, D)


@triton.jit(do_not_specialize=["S"])  # or it would be compiled anew for each
def _partials(
    q,  # [R, H, D]
    keys,  # [places, KH, D]
    values,
    page_table,  # [slots, pages]
    items,  # [W, COLUMNS]
    by_path,  # [R]
    row_position,
    ancestors,  # [R, DEPTH]: places of the positions from the base on
    split_top,  # [R, H, S]; a group's stands where its first split's would
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
    S,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    DEPTH: tl.constexpr,
    TAILS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NO_ITEM: tl.constexpr,
    GROUP_ITEM: tl.constexpr,
    TAIL_ITEM: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One item for one KV head."""
    group: tl.constexpr = H // KH
    kv_head = tl.program_id(1)
    item = items + tl.program_id(0) * COLUMNS
    kind = tl.load(item).to(tl.int32)
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    if kind == NO_ITEM:
        return
    part = tl.load(item + 1).to(tl.int32)
    start = tl.load(item + 2).to(tl.int32)
    count = tl.load(item + 3).to(tl.int32)
    slot = tl.load(item + 4).to(tl.int32)
    base = tl.load(item + 5).to(tl.int32)
    lanes = tl.arange(0, M)
    within = tl.arange(0, BLOCK)
    dims = tl.arange(0, D)
    used = (lanes // group < count) & (lanes < (M // group) * group)
    row = tl.load(by_path + start + tl.where(used, lanes // group, 0)).to(tl.int32)
    head = kv_head * group + lanes % group
    position = tl.load(row_position + row).to(tl.int32)
    queries = tl.load(q + row[:, None] * q_row_stride + head[:, None] * q_head_stride + dims[None, :])
    pages = page_table + slot * pages_per_slot
    if kind == TAIL_ITEM:
        first = tl.load(by_path + start).to(tl.int32)  # the deepest row: the others' keys are among its own
        at_t = (base // BLOCK + part) * BLOCK + within
        new = (at_t >= base) & (at_t <= tl.load(row_position + first).to(tl.int32))
        page_t = tl.load(pages + at_t // PAGE, mask=at_t < base, other=0)
        ancestor = tl.load(ancestors + first * DEPTH + (at_t - base), mask=new, other=0)
        places_t = tl.where(at_t < base, page_t * PAGE + at_t % PAGE, ancestor)
        behind_t = position[:, None] - at_t[None, :]
        top_t, total_t, out_t = _block(
            queries,
            keys,
            values,
            places_t,
            (behind_t >= 0) & (behind_t < window),
            kv_head * D,
            KH * D,
            scale,
            softcap,
            D,
        )
        to_t = (row * H + head) * TAILS + part
        tl.store(tail_top + to_t, top_t, mask=used)
        tl.store(tail_total + to_t, total_t, mask=used)
        tl.store(tail_out + to_t[:, None].to(tl.int64) * D + dims[None, :], out_t, mask=used[:, None])
    else:
        committed = (base // BLOCK) * BLOCK
        splits = tl.where(kind == GROUP_ITEM, GROUP // SPLIT, 1)
        from_split = part * splits
        top = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        out = tl.zeros([M, D], tl.float32)
        for number in tl.range(0, splits):
            at = (from_split + number) * SPLIT + within
            top_s, total_s, out_s = _committed(
                queries, keys, values, pages, at, committed, position, window, kv_head, scale, softcap, PAGE, KH, D
            )
            at += BLOCK
            top_b, total_b, out_b = _committed(
                queries, keys, values, pages, at, committed, position, window, kv_head, scale, softcap, PAGE, KH, D
            )
            top_s, total_s, out_s = merge_two(top_s, total_s, out_s, top_b, total_b, out_b)
            top, total, out = merge_two(top, total, out, top_s, total_s, out_s)
        to = (row * H + head) * S + from_split
        tl.store(split_top + to, top, mask=used)
        tl.store(split_total + to, total, mask=used)
        tl.store(split_out + to[:, None].to(tl.int64) * D + dims[None, :], out, mask=used[:, None])


def tree_attention(
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
    """q [R, H, D], keys and values [places, KH, D] -> [R, H, D], zeros for rows that no session has.

    ``window``: positions that a row sees, its own included. ``early``: among kernels of ``early_kernels.py``.
    """
    rows, heads, dim = q.shape
    kv_heads = keys.shape[1]
    splits, work, queries, grouped = tables.kind
    wide = queries > NARROW
    scratch = functools.partial(torch.empty, dtype=torch.float32, device=q.device)
    split_top, split_total = (scratch((rows, heads, splits)) for _ in range(2))
    split_out = scratch((rows, heads, splits, dim))
    tail_top, tail_total = (scratch((rows, heads, TAIL_BLOCKS)) for _ in range(2))
    tail_out = scratch((rows, heads, TAIL_BLOCKS, dim))
    out = torch.empty((rows, heads, dim), dtype=q.dtype, device=q.device)
    by_row = (tables.row_slot, tables.row_base, tables.row_position)
    partials = (split_top, split_total, split_out, tail_top, tail_total, tail_out)
    _partials[(work, kv_heads)](
        q,
        keys,
        values,
        tables.page_table,
        tables.items,
        tables.by_path,
        tables.row_position,
        tables.ancestors,
        *partials,
        scale,
        softcap,
        window,
        tables.page_table.shape[1],
        q.stride(0),
        q.stride(1),
        splits,
        H=heads,
        KH=kv_heads,
        D=dim,
        PAGE=PAGE,
        BLOCK=BLOCK,
        SPLIT=SPLIT,
        GROUP=GROUP,
        M=queries,
        DEPTH=MAX_DEPTH,
        TAILS=TAIL_BLOCKS,
        COLUMNS=COLUMNS,
        NO_ITEM=NO_ITEM,
        GROUP_ITEM=GROUP_ITEM,
        TAIL_ITEM=TAIL_ITEM,
        EARLY=early,
        num_warps=WARPS[wide],
        num_stages=STAGES[wide] if dim <= 128 else 1,  # larger heads fill shared memory at once
        **launching(early),
    )
    combine_partials[(rows, heads)](
        out,
        *by_row,
        *partials,
        splits,
        H=heads,
        D=dim,
        BLOCK=BLOCK,
        SPLIT=SPLIT,
        GROUP=GROUP,
        TAILS=TAIL_BLOCKS,
        GROUPED=grouped,
        EARLY=early,
        num_warps=1,
        **launching(early),
    )
    return out
