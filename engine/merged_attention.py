"""Partial results of attention, merged in one fixed order; see ``tree_attention.py`` for which and why."""

from __future__ import annotations

import triton
import triton.language as tl

from engine.attention_items import BLOCK, SPLIT, TAIL_BLOCKS

assert TAIL_BLOCKS == 2 and SPLIT == 2 * BLOCK  # the kernel names the parts that are not committed as a whole
#: Groups that are read at once.
AT_ONCE = tl.constexpr(4)


@triton.jit
def merge_two(top_a, total_a, out_a, top_b, total_b, out_b):
    """Two partial results, the earlier positions' first; an empty one has the maximum -inf and changes no bit.

    Every rounding is said, so that it is the same wherever this is compiled into.
    """
    top = tl.maximum(top_a, top_b)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight_a = tl.exp2(top_a - base)
    weight_b = tl.exp2(top_b - base)
    total = tl.fma(total_a, weight_a, total_b * weight_b)
    out = tl.fma(out_a, weight_a[:, None], out_b * weight_b[:, None])
    return top, total, out


@triton.jit
def _stored(tops, totals, outs, at, there, D: tl.constexpr):
    """One that was stored, or an empty one."""
    at = at + tl.arange(0, 1)
    dims = tl.arange(0, D)
    top = tl.load(tops + at, mask=there, other=float("-inf"))
    total = tl.load(totals + at, mask=there, other=0.0)
    out = tl.load(outs + at[:, None].to(tl.int64) * D + dims[None, :], mask=there, other=0.0)
    return top, total, out


@triton.jit(do_not_specialize=["S"])
def combine_partials(
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
    S,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
    TAILS: tl.constexpr,
    GROUPED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row and head: its groups from left to right, the uncommitted blocks within their splits and groups."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(row_slot + row).to(tl.int32)
    to_out = (row * H + head) * D + tl.arange(0, 1)[:, None] + tl.arange(0, D)[None, :]
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    if slot < 0:
        tl.store(out + to_out, tl.zeros([1, D], out.dtype.element_ty))
        return
    base = tl.load(row_base + row).to(tl.int32)
    position = tl.load(row_position + row).to(tl.int32)
    blocks = base // BLOCK  # committed as a whole
    splits = blocks // (SPLIT // BLOCK)
    in_group: tl.constexpr = GROUP // SPLIT
    groups = splits // in_group
    first = (row * H + head) * S
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    result = tl.zeros([1, D], tl.float32)
    # Several loads on their way at once.
    for chunk in range(0, groups, AT_ONCE):
        for number in tl.static_range(AT_ONCE):
            at = first + (chunk + number) * in_group
            there = chunk + number < groups
            top_g, total_g, out_g = _stored(split_top, split_total, split_out, at, there, D)
            if not GROUPED:
                for later in tl.static_range(1, in_group):
                    top_s, total_s, out_s = _stored(split_top, split_total, split_out, at + later, there, D)
                    top_g, total_g, out_g = merge_two(top_g, total_g, out_g, top_s, total_s, out_s)
            top, total, result = merge_two(top, total, result, top_g, total_g, out_g)
    # The group in which committed blocks end: its whole splits, the split with the first uncommitted block, the next.
    top_g = tl.full([1], float("-inf"), tl.float32)
    total_g = tl.zeros([1], tl.float32)
    out_g = tl.zeros([1, D], tl.float32)
    for number in tl.static_range(in_group - 1):
        split = groups * in_group + number
        top_s, total_s, out_s = _stored(split_top, split_total, split_out, first + split, split < splits, D)
        top_g, total_g, out_g = merge_two(top_g, total_g, out_g, top_s, total_s, out_s)
    odd = blocks % 2 == 1
    reaches = (blocks + 1) * BLOCK <= position
    tails = (row * H + head) * TAILS
    top_s, total_s, out_s = _stored(split_top, split_total, split_out, first + splits, odd, D)
    top_b, total_b, out_b = _stored(tail_top, tail_total, tail_out, tails, True, D)
    top_s, total_s, out_s = merge_two(top_s, total_s, out_s, top_b, total_b, out_b)
    top_b, total_b, out_b = _stored(tail_top, tail_total, tail_out, tails + 1, reaches & (not odd), D)
    top_s, total_s, out_s = merge_two(top_s, total_s, out_s, top_b, total_b, out_b)
    top_g, total_g, out_g = merge_two(top_g, total_g, out_g, top_s, total_s, out_s)
    same_group = (splits + 1) % in_group != 0
    top_b, total_b, out_b = _stored(tail_top, tail_total, tail_out, tails + 1, reaches & odd & same_group, D)
    top_g, total_g, out_g = merge_two(top_g, total_g, out_g, top_b, total_b, out_b)
    top, total, result = merge_two(top, total, result, top_g, total_g, out_g)
    top_b, total_b, out_b = _stored(tail_top, tail_total, tail_out, tails + 1, reaches & odd & (not same_group), D)
    top, total, result = merge_two(top, total, result, top_b, total_b, out_b)
    tl.store(out + to_out, (result / total[:, None]).to(out.dtype.element_ty))
