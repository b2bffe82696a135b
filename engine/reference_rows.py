"""The kernels of ``row_products.py`` and ``row_kernels.py`` in plain PyTorch: for CPUs, and to test these against."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def partial_product(x: Tensor, weight: Tensor, *, early: bool = False) -> Tensor:
    """x [R, inputs], weight [outputs, inputs] -> [parts, R, outputs] float32, whose sum is the product."""
    return nn.functional.linear(x.float(), weight.float())[None]


def gated_product(x: Tensor, weight: Tensor, *, early: bool = False) -> Tensor:
    """x [R, inputs], weight [gates and as many values, inputs] -> [R, gates]: SiLU of the gates times the values."""
    gates, values = nn.functional.linear(x.float(), weight.float()).chunk(2, dim=-1)
    return (nn.functional.silu(gates) * values).to(x.dtype)


def add_and_norm(residual: Tensor, parts: Tensor | None, gain: Tensor, eps: float, *, early: bool = False) -> Tensor:
    """Add parts [parts, R, width] to ``residual`` [R, width], in place; returns it divided by the root of its mean
    square and multiplied with ``gain`` [width] (RMSNorm, arXiv 1910.07467, equation 4).
    """
    if parts is not None:
        residual.copy_(residual.float() + parts.sum(0))
    return rms_norm(residual, gain, eps)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Over the last dimension, rounded where transformers does so."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return normed.to(x.dtype) * gain


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
    early: bool = False,
) -> Tensor:
    """Queries [R, H, D], rotated by the rows' positions (RoFormer, arXiv 2104.09864, equation 34, by halves as
    transformers has it). The keys, rotated too, and the values are written to their places.

    ``parts`` [parts, R, (H + 2 KH) D]: of queries, keys and values, to be added. ``rotation``: cosines and sines
    [R, D]. ``gains``: [D] each, of models that norm each head of queries and keys. ``write`` [R]: place of each row in
    ``keys`` and ``values`` [places, KH, D].
    """
    rows, (_, kv_heads, size) = parts.shape[1], keys.shape
    total = parts.sum(0) if bias is None else parts.sum(0) + bias.float()
    each = total.to(keys.dtype).view(rows, heads + 2 * kv_heads, size)
    q, k, v = each.split([heads, kv_heads, kv_heads], dim=1)
    if gains is not None:
        q, k = rms_norm(q, gains[0], eps), rms_norm(k, gains[1], eps)
    cos, sin = (of[:, None].float() for of in rotation)
    q, k = (x.float() * cos + _half_turned(x.float()) * sin for x in (q, k))
    keys.index_copy_(0, write, k.to(keys.dtype))
    values.index_copy_(0, write, v)
    return q.to(keys.dtype)


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)
