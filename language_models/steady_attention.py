"""Attention that keeps the bits of a text, in a model that a program holds; taken back when nobody needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

from language_models.attention import ROW_INVARIANT
from language_models.quiet import quiet

_SIXTEEN_BITS = (torch.bfloat16, torch.float16)
_lock = threading.Lock()
#: By the model's id, while it is held: how many hold it, and each of its configurations with its own attention.
_held: dict[int, tuple[int, list[tuple[Any, Any]]]] = {}


@contextlib.contextmanager
def steady_attention(model: PreTrainedModel) -> Iterator[None]:
    """In 16 bits on a CPU. Blocks of one model may overlap, in any order: the last to end takes it back."""
    steady = model.device.type == "cpu" and model.dtype in _SIXTEEN_BITS
    # Attention sinks enter the softmax in ways of their own.
    if not steady or any(hasattr(module, "sinks") for module in model.modules()):
        yield
        return
    try:
        _hold(model)
        yield
    finally:
        _release(model)


def _hold(model: PreTrainedModel) -> None:
    with _lock:
        count, before = _held.get(id(model), (0, []))
        _held[id(model)] = count + 1, before or [(config, config._attn_implementation) for config in _configs(model)]
        if not count:
            with quiet():
                model.set_attn_implementation(ROW_INVARIANT)


def _release(model: PreTrainedModel) -> None:
    with _lock:
        count, before = _held.pop(id(model))
        if count > 1:
            _held[id(model)] = count - 1, before
            return
        # Each by itself: the library's way would give all of them one, or stop half-way as it did on the way there.
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _configs(model: PreTrainedModel) -> list[Any]:
    """All that a layer of the model may read, once each."""
    found: dict[int, Any] = {}
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    while waiting:
        config = waiting.pop()
        if config is not None and id(config) not in found:
            found[id(config)] = config
            waiting += [getattr(config, name, None) for name in config.sub_configs]
    return list(found.values())
