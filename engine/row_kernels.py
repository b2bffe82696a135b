"""What stands between a decoder layer's matrix products, in two kernels: see ``reference_rows.py`` for what they do."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.early_kernels import launching


@triton.jit
def _add_and_norm(
    residual,  # [R, width]
    parts,  # [PARTS, R, width]
    gain,
    out,  # [R, width]
    width,
    eps,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < width
    gains = tl.load(gain + column, mask=there, other=0.0).to(tl.float32)
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    total = tl.load(residual + row * width + column, mask=there, other=0.0)
    kept = total.dtype
    total = total.to(tl.float32)
    if PARTS > 0:
        added = tl.zeros([BLOCK], tl.float32)
        for part in tl.static_range(PARTS):
            added += tl.load(parts + (part * ROWS + row) * width + column, mask=there, other=0.0)
        total = (total + added).to(kept)
        tl.store(residual + row * width + column, total, mask=there)
        total = total.to(tl.float32)
    square = tl.sum(total * total, 0) / width
    normed = (total * tl.rsqrt(square + eps)).to(kept).to(tl.float32)
    tl.store(out + row * width + column, (normed * gains).to(kept), mask=there)


def add_and_norm(residual: Tensor, parts: Tensor | None, gain: Tensor, eps: float, *, early: bool) -> Tensor:
    """See ``reference_rows.add_and_norm``."""
    rows, width = residual.shape
    out = torch.empty_like(residual)
    _add_and_norm[(rows,)](
        residual,
        residual if parts is None else parts,
        gain,
        out,
        width,
        eps,
        ROWS=rows,
        PARTS=0 if parts is None else len(parts),
        BLOCK=triton.next_power_of_2(width),
        EARLY=early,
        num_warps=8 if width > 1024 else 4,
        **launching(early),
    )
    return out


@triton.jit
def _rotated(
    first, second, cos, sin, gain, gain_second, eps, D: tl.constexpr, NORMED: tl.constexpr, kept: tl.constexpr
):
    """Both halves of some heads [HEADS, D / 2], normed where the model does so and rotated by a position."""
    first = first.to(kept).to(tl.float32)
    second = second.to(kept).to(tl.float32)
    if NORMED:
        square = (tl.sum(first * first, 1) + tl.sum(second * second, 1)) / D
        scale = tl.rsqrt(square + eps)[:, None]
        first = ((first * scale).to(kept).to(tl.float32) * gain).to(kept).to(tl.float32)
        second = ((second * scale).to(kept).to(tl.float32) * gain_second).to(kept).to(tl.float32)
    return first * cos - second * sin, second * cos + first * sin


@triton.jit
def _gains(of_queries, of_keys, is_query):
    """Of each head [HEADS, D / 2], from pointers [D / 2]."""
    query = tl.load(of_queries).to(tl.float32)
    key = tl.load(of_keys).to(tl.float32)
    return tl.where(is_query[:, None], query[None, :], key[None, :])


@triton.jit
def _rotate_and_write(
    parts,  # [PARTS, R, (H + 2 KH) D]
    bias,
    cos,  # [R, D]
    sin,
    q_gain,
    k_gain,
    write,  # [R]: places
    q,  # [R, H, D]
    keys,  # [places, KH, D]
    values,
    eps,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    BIASED: tl.constexpr,
    NORMED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row and KV head: its query heads and, as one head more, its key; and its value."""
    group: tl.constexpr = H // KH
    width: tl.constexpr = (H + 2 * KH) * D
    half: tl.constexpr = D // 2
    kept: tl.constexpr = q.dtype.element_ty
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    head = tl.arange(0, HEADS)
    dim = tl.arange(0, half)
    whole = tl.arange(0, D)
    used = head <= group
    column = tl.where(head < group, kv_head * group + head, H + kv_head) * D
    at = column[:, None] + dim[None, :]
    value_at = (H + KH + kv_head) * D + whole
    there = used[:, None] & (dim >= 0)[None, :]
    first = tl.zeros([HEADS, half], tl.float32)
    second = tl.zeros([HEADS, half], tl.float32)
    value = tl.zeros([D], tl.float32)
    if BIASED:
        first = tl.load(bias + at, mask=there, other=0.0).to(tl.float32)
        second = tl.load(bias + at + half, mask=there, other=0.0).to(tl.float32)
        value = tl.load(bias + value_at).to(tl.float32)
    gain = tl.zeros([HEADS, half], tl.float32)
    gain_second = tl.zeros([HEADS, half], tl.float32)
    if NORMED:
        gain = _gains(q_gain + dim, k_gain + dim, head < group)
        gain_second = _gains(q_gain + half + dim, k_gain + half + dim, head < group)
    place = tl.load(write + row)
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    for part in tl.static_range(PARTS):
        line = parts + (part * ROWS + row) * width
        first += tl.load(line + at, mask=there, other=0.0)
        second += tl.load(line + at + half, mask=there, other=0.0)
        value += tl.load(line + value_at)
    cosine = tl.load(cos + row * D + dim).to(tl.float32)[None, :]
    sine = tl.load(sin + row * D + dim).to(tl.float32)[None, :]
    first, second = _rotated(first, second, cosine, sine, gain, gain_second, eps, D, NORMED, kept)
    to_q = q + row * H * D + at
    of_query = there & (head < group)[:, None]
    tl.store(to_q, first.to(kept), mask=of_query)
    tl.store(to_q + half, second.to(kept), mask=of_query)
    to = (place * KH + kv_head) * D
    of_key = there & (head == group)[:, None]
    to_key = keys + to + (head * 0)[:, None] + dim[None, :]
    tl.store(to_key, first.to(kept), mask=of_key)
    tl.store(to_key + half, second.to(kept), mask=of_key)
    tl.store(values + to + whole, value.to(kept))


def rotate_and_write(
    parts: Tensor,
    *,
    bias: Tensor | None,
    rotation: tuple[Tensor, Tensor],
    gains: tuple[Tensor, Tensor] | None,
    eps: float,
    write: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    early: bool,
) -> Tensor:
    """See ``reference_rows.rotate_and_write``."""
    count, rows, _ = parts.shape
    _, kv_heads, size = keys.shape
    q = torch.empty((rows, heads, size), dtype=keys.dtype, device=keys.device)
    _rotate_and_write[(rows, kv_heads)](
        parts,
        q if bias is None else bias,
        *rotation,
        *((q, q) if gains is None else gains),
        write,
        q,
        keys,
        values,
        eps,
        ROWS=rows,
        PARTS=count,
        H=heads,
        KH=kv_heads,
        D=size,
        HEADS=triton.next_power_of_2(heads // kv_heads + 1),
        BIASED=bias is not None,
        NORMED=gains is not None,
        EARLY=early,
        num_warps=2,
        **launching(early),
    )
    return q
