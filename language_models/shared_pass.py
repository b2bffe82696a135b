"""One forward pass over the rows of several texts, each with a KV cache of its own.

All rows stand in one line, [1, rows], each with its position in its own text, so linear layers and norms run over all
of them at once. What a layer sends to its cache is divided by text; its attention then runs text by text, each over the
keys of its own cache, in the arithmetic of a text alone (``language_models/attention.py``).

Between the two a model of transformers passes on keys, values and a mask. Here these are stand-ins that only our
attention understands. To anybody else they are NaN: a model that attends by itself, or that works on keys or masks in
between, has logits that are no numbers, never wrong ones, and the self-test finds that it runs texts one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from language_models.kv_cache import CacheLayer, KVCache
from speculation.errors import UnsupportedModelError

#: (query [1, heads, Q, D], key and value [1, key heads, K, D], additive mask) -> [1, Q, heads, D].
TextAttention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TextRows:
    """What is run of one text after what ``cache`` holds: a tree of tokens, the row of each token's parent before its
    own; the first has none."""

    cache: KVCache
    tokens: Sequence[int]
    parents: Sequence[int]

    @property
    def depths(self) -> Tensor:
        """[rows], the distance of each from the first."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return torch.tensor(depths)

    @property
    def visible(self) -> Tensor:
        """[rows, rows], which of them each sees: its ancestors and itself."""
        rows = len(self.tokens)
        if list(self.parents) == list(range(rows - 1)):
            return torch.ones(rows, rows, dtype=torch.bool).tril()
        visible = torch.eye(rows, dtype=torch.bool)
        for row, parent in enumerate(self.parents, 1):
            visible[row] |= visible[parent]
        return visible


class SharedPass:
    """The rows of ``texts``, in order, and as many more as make ``least_rows``, which belong to no text.

    ``dtype``: of the model.

    No text has fewer queries than ``least_rows`` in its attention either: as alone, the last is asked again.
    """

    def __init__(self, texts: Sequence[TextRows], *, least_rows: int, dtype: torch.dtype) -> None:
        self._least = least_rows
        self._caches = [text.cache for text in texts]
        self._bases = [text.cache.length for text in texts]
        self._lengths = [len(text.tokens) for text in texts]
        self._visible = [text.visible for text in texts]
        self._places = [base + text.depths for base, text in zip(self._bases, texts, strict=True)]
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        padding = max(0, least_rows - sum(self._lengths))
        tokens = [token for text in texts for token in text.tokens]
        self.tokens = [*tokens, *tokens[-1:] * padding]
        #: [rows], in its text of each.
        self.positions = torch.cat([*self._places, self._places[-1][-1:].expand(padding)])
        #: In place of the pass's additive mask.
        self.mask = torch.full((), torch.nan, dtype=dtype).expand(1, 1, len(self.tokens), len(self.tokens))

    def new_cache(self) -> Cache:
        """All texts' caches as one, for a call of the model.

        The pass does not keep it: its layers know the pass, and objects that know each other keep all keys and values
        of these texts until Python next looks for such circles, minutes later.
        """
        layers = zip(*(cache.cache.layers for cache in self._caches), strict=True)
        return Cache(layers=[_SharedLayer(self, each) for each in layers])

    @property
    def last_position(self) -> int:
        """Of all rows."""
        return int(self.positions.max())

    def divide(self, rows: Tensor) -> list[Tensor]:
        """[all rows, ...] by text, without those of none."""
        return list(rows[: sum(self._lengths)].split(self._lengths))

    def attend(self, attention: TextAttention, query: Tensor, layer: _SharedLayer, mask: Tensor | None) -> Tensor:
        """query [1, heads, rows, D] -> [1, rows, heads, D]. Raises UnsupportedModelError for another mask than ours."""
        if mask is None or mask.shape != self.mask.shape or mask.data_ptr() != self.mask.data_ptr():
            raise UnsupportedModelError("it makes attention masks of its own, which fit no pass of several texts")
        found, start = [], 0
        for number, length in enumerate(self._lengths):
            asked = _at_least(self._least, query[:, :, start : start + length])
            keys, values = layer.held[number]
            answer = attention(asked, keys, values, self.mask_of(number, layer.layers[number]))
            found.append(answer[:, :length])
            start += length
        found.append(found[-1].new_zeros((1, query.shape[2] - start, *found[-1].shape[2:])))
        return torch.cat(found, dim=1)

    def mask_of(self, number: int, layer: CacheLayer) -> Tensor:
        """Of one text's rows, over its own keys and values and theirs in this layer."""
        key = number, layer.window
        if key not in self._masks:
            mask = layer.tree_mask(self._bases[number], self._visible[number], self._places[number])
            self._masks[key] = _at_least(self._least, mask)
        return self._masks[key]

    def each(self, rows: Tensor) -> Iterator[Tensor]:
        """[1, heads, all rows, D] by text."""
        start = 0
        for length in self._lengths:
            yield rows[:, :, start : start + length]
            start += length

    @contextmanager
    def undone_if_it_fails(self) -> Iterator[None]:
        """Whatever raises in here leaves all caches as they were."""
        try:
            yield
        except BaseException:
            for cache, base in zip(self._caches, self._bases, strict=True):
                cache.go_back(base)
            raise


class _SharedLayer(CacheLayerMixin):
    """A layer of all texts' caches at once."""

    def __init__(self, shared: SharedPass, layers: Sequence[CacheLayer]) -> None:
        super().__init__()
        self.shared = shared
        self.layers = layers
        #: Keys and values of each text, after ``update``.
        self.held: list[tuple[Tensor, Tensor]] = []
        self.is_sliding = layers[0].is_sliding
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The texts' own layers do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append each text's keys and values to its cache; returns what stands for all that they hold."""
        texts = zip(self.layers, self.shared.each(key_states), self.shared.each(value_states), strict=True)
        self.held = [layer.update(keys, values) for layer, keys, values in texts]
        return _StandIn.of(key_states, self), _StandIn.of(value_states, self)

    def get_seq_length(self) -> int:
        """Of no text: whoever takes positions does not ask."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1

    # transformers 5.17 asks for the same under its older name.
    def get_max_cache_shape(self) -> int:
        return -1


class _StandIn(Tensor):
    """NaN for everybody but our attention. What is computed from it is an ordinary tensor."""

    stands_for: Any
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, like: Tensor, stands_for: object) -> _StandIn:
        """Of the shape, type and device of ``like``."""
        made = torch.full((), torch.nan, dtype=like.dtype, device=like.device).expand(like.shape).as_subclass(cls)
        made.stands_for = stands_for
        return made


def attend_by_text(
    attention: TextAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor | None:
    """[1, rows, heads, D] in a shared pass; None if it is none."""
    if not isinstance(key, _StandIn):
        return None
    layer = key.stands_for
    if not isinstance(value, _StandIn) or value.stands_for is not layer:
        raise UnsupportedModelError("it changes values between cache and attention, where several texts have none")
    return layer.shared.attend(attention, query, layer, mask)


def _at_least(rows: int, x: Tensor) -> Tensor:
    """[1, n, R, m] with its last row repeated up to ``rows`` of them."""
    missing = rows - x.shape[2]
    return x if missing <= 0 else torch.cat([x, x[:, :, -1:].expand(-1, -1, missing, -1)], dim=2)
