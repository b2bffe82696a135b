"""Attention functions of ours under names that models of transformers can be told to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

#: (module, query, key, value, mask, **settings) -> (output, weights or None), as transformers calls it.
AttentionFunction = Callable[..., tuple[Tensor, Any]]


def use_attention(model: nn.Module, name: str, function: AttentionFunction) -> None:
    """From now on the layers of ``model`` call ``function``; it gets no mask, as none is made for names unknown."""
    AttentionInterface.register(name, function)
    model.set_attn_implementation(name)  # type: ignore[operator]


@contextmanager
def attention_for_now(model: nn.Module, name: str, function: AttentionFunction) -> Iterator[None]:
    """``use_attention`` for a while."""
    before = model.config._attn_implementation  # type: ignore[union-attr]
    use_attention(model, name, function)
    try:
        yield
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]
