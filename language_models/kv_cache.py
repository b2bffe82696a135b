"""A KV cache that rolls back in O(1), for full and for sliding-window attention.

transformers' own dynamic cache copies everything at each step, and can undo at most the last step of a sliding
window. Here every layer writes into a buffer that doubles when full, and rollback shortens a length. A sliding-window
layer forgets only what lies at least ``SLACK`` tokens before its window, so it can be rolled back that far.

Invariant: all layers hold the keys and values of the same ``length`` tokens, less what sliding layers forgot.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import CacheLayerMixin

from speculation.errors import UnsupportedModelError

#: Kinds of layers that can be rolled back.
LAYER_TYPES = ("full_attention", "sliding_attention")
#: Tokens before its window that a sliding layer keeps for rollbacks.
SLACK = 1024
_FIRST_CAPACITY = 256
#: By how much loud values (``KVCache.stand_at``) are larger.
_LOUD = 63


class CacheLayer(CacheLayerMixin):
    """Keys and values [1, heads, capacity, head_dim], of which ``_used`` are in use, from token ``_start`` on."""

    is_sliding = False
    is_croppable = True

    def __init__(
        self, window: int | None = None, slack: int = SLACK, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.dtype, self.device = dtype, device  # until something is stored: masks are asked for before
        self.is_sliding = window is not None
        self._window = window
        self._slack = slack
        self._origin = 0  # the first token that was ever held: another than 0 only in a self-test
        self._start = 0
        self._used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._buffer(key_states, _FIRST_CAPACITY)
        self.values = self._buffer(value_states, _FIRST_CAPACITY)
        self.is_initialized = True

    @staticmethod
    def _buffer(like: Tensor, capacity: int) -> Tensor:
        return like.new_zeros((*like.shape[:2], capacity, like.shape[3]))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new tokens' keys and values; returns all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        self._make_room(new)
        end = self._used + new
        self.keys[:, :, self._used : end] = key_states
        self.values[:, :, self._used : end] = value_states
        self._used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def forget_old(self) -> None:
        """Between steps: drop what no query and no rollback within the slack can need any more."""
        if self._window is None or self._used <= self._window + 2 * self._slack:
            return
        kept = self._window + self._slack
        for buffer in (self.keys, self.values):
            buffer[:, :, :kept] = buffer[:, :, self._used - kept : self._used].clone()
        self._start += self._used - kept
        self._used = kept

    def _make_room(self, new: int) -> None:
        capacity = self.keys.shape[-2]
        if self._used + new <= capacity:
            return
        while capacity < self._used + new:
            capacity *= 2
        for name in ("keys", "values"):
            old = getattr(self, name)
            grown = self._buffer(old, capacity)
            grown[:, :, : self._used] = old[:, :, : self._used]
            setattr(self, name, grown)

    def rollback(self, tokens: int) -> None:
        self._used -= tokens

    def without_last(self, tokens: int) -> CacheLayer:
        """See ``KVCache.without_last``."""
        other = copy.copy(self)
        if self.is_initialized:
            other._used -= tokens
            other.keys, other.values = (held[:, :, : other._used].clone() for held in (self.keys, self.values))
        return other

    def stand_at(self, length: int, held: int, loud: range) -> None:
        """See ``KVCache.stand_at``."""
        places = torch.arange(length - held, length)
        weights = 1 + _LOUD * ((places >= loud.start) & (places < loud.stop))
        rows = (places % self._used).to(self.device)
        self.keys, self.values = self.keys[:, :, rows], self.values[:, :, rows]
        self.values *= weights.to(self.values)[:, None]
        self._origin = self._start = length - held
        self._used = held

    def keep_rows(self, base: int, rows: Tensor) -> None:
        """Of what was added from token ``base`` on, keep ``rows`` (counted from there), in that order."""
        base -= self._start
        for buffer in (self.keys, self.values):
            buffer[:, :, base : base + len(rows)] = buffer[:, :, base + rows.to(buffer.device)]
        self._used = base + len(rows)

    def tree_mask(self, base: int, visible: Tensor, positions: Tensor) -> Tensor:
        """See ``KVCache.tree_mask``."""
        rows = visible.shape[0]
        seen = torch.cat([torch.ones(rows, base - self._start, dtype=torch.bool), visible], dim=1)
        if self._window is not None:
            keys = torch.cat([torch.arange(self._start, base), positions])
            seen &= positions[-rows:, None] - keys[None] < self._window
        mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)
        return mask[None, None].to(self.device)

    @property
    def window(self) -> int | None:
        """In tokens; None for full attention."""
        return self._window

    @property
    def max_rollback(self) -> int:
        """How many tokens can be undone."""
        if self._start == self._origin or self._window is None:
            return self._used
        return self._used - self._window

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def get_seq_length(self) -> int:
        return self._start + self._used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys in the coming step, position of the first of them)."""
        return self._used + query_length, self._start

    def get_max_length(self) -> int:
        return -1

    # transformers 5.17 asks for the same under its older name.
    def get_max_cache_shape(self) -> int:
        return -1


class KVCache:
    """The cache of one session of one model, for keys and values of ``dtype`` on ``device``. ``slack``: see the module;
    ``SLACK`` by default.

    A layer that never stores anything (its keys and values are another layer's) has no part in lengths and rollbacks.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        *,
        slack: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        slack, device = SLACK if slack is None else slack, device or torch.device("cpu")
        self._layers = [CacheLayer(window, slack, dtype=dtype, device=device) for window in layer_windows(config)]
        self.cache = Cache(layers=list(self._layers))

    @property
    def _storing(self) -> list[CacheLayer]:
        return [layer for layer in self._layers if layer.is_initialized]

    @property
    def length(self) -> int:
        """Tokens that went in and were not rolled back."""
        return next((layer.get_seq_length() for layer in self._storing), 0)

    @property
    def lengths(self) -> set[int]:
        """``length`` by every layer that stores: more than one number is a fault."""
        return {layer.get_seq_length() for layer in self._storing}

    @property
    def max_rollback(self) -> int:
        """How many tokens can be rolled back now."""
        return min((layer.max_rollback for layer in self._storing), default=0)

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes."""
        return sum(layer.nbytes for layer in self._layers)

    @property
    def bytes_per_token(self) -> float:
        """Memory that one token's keys and values take in all layers."""
        return sum(layer.nbytes / layer.keys.shape[-2] for layer in self._storing)

    def rollback(self, tokens: int) -> None:
        """Forget the last ``tokens`` tokens. Raises ValueError beyond ``max_rollback``."""
        if not 0 <= tokens <= self.max_rollback:
            raise ValueError(f"cannot roll back {tokens} tokens; at most {self.max_rollback}")
        for layer in self._storing:
            layer.rollback(tokens)

    def without_last(self, tokens: int) -> KVCache:
        """A copy that has rolled back ``tokens`` tokens, ``max_rollback`` at most, and no room for more yet."""
        other = copy.copy(self)
        other._layers = [layer.without_last(tokens) for layer in self._layers]
        other.cache = Cache(layers=list(other._layers))
        return other

    def go_back(self, length: int) -> None:
        """After a pass that failed half-way: every layer holds the first ``length`` tokens, as before it."""
        for layer in self._storing:
            layer.rollback(layer.get_seq_length() - length)

    def close(self) -> None:
        """Nothing else is held than this object."""

    @torch.inference_mode()
    def stand_at(self, length: int, held: int, *, loud: range = range(0)) -> None:
        """As if ``length`` tokens had gone in, of which only the last ``held`` are kept: for the self-test.

        Their keys and values repeat those that are held now; values of the tokens in ``loud`` are large, so that
        whoever sees one of them too many says something else.
        """
        for layer in self._storing:
            layer.stand_at(length, held, loud)

    @torch.inference_mode()
    def keep_rows(self, base: int, rows: Sequence[int]) -> None:
        """Of what was added from token ``base`` on, keep ``rows`` (counted from there), in that order."""
        if list(rows) == list(range(len(rows))):
            self.rollback(self.length - base - len(rows))
            return
        index = torch.tensor(rows)
        for layer in self._storing:
            layer.keep_rows(base, index)

    def tree_mask(self, base: int, visible: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Additive attention masks [1, 1, T, keys] for T new tokens of a tree, by layer type.

        ``visible`` [T, length - base + T]: which tokens from ``base`` on each sees; all before ``base`` are seen.
        ``positions`` [length - base + T]: places in the text of the tokens from ``base`` on, the new ones last.
        """
        masks = {}
        for layer in self._storing or self._layers:
            kind = "sliding_attention" if layer.is_sliding else "full_attention"
            if kind not in masks:
                masks[kind] = layer.tree_mask(base, visible, positions)
        return masks

    @torch.inference_mode()
    def settle(self) -> None:
        """After a forward pass: let sliding layers forget what is far behind them."""
        for layer in self._storing:
            layer.forget_old()


def layer_windows(config: PretrainedConfig) -> list[int | None]:
    """Per layer its sliding window in tokens, None for full attention.

    Raises UnsupportedModelError for layers that keep anything else than keys and values: they cannot be rolled back.
    """
    config = config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        types = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    for kind in types:
        if kind not in LAYER_TYPES:
            raise UnsupportedModelError(
                f"{config.model_type} has {kind} layers, which the KV cache cannot roll back",
                remedy="use a model whose layers are all full or sliding-window attention",
            )
    return [window if kind == "sliding_attention" else None for kind in types]
