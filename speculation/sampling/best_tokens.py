"""The tokens that the target ranks first in each row of a step: what drafts are recycled from.

From the plain logits: what a session's own settings forbid or penalise is no business of another's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from speculation.sampling.on_its_way import OnItsWay


class BestTokens:
    """``logits``: [rows, V] float32 of each of several sessions. ``count``: tokens of each row."""

    def __init__(self, logits: Sequence[Tensor], count: int) -> None:
        self._rows = [each.shape[0] for each in logits]
        self._found = OnItsWay(_best(logits[0] if len(logits) == 1 else torch.cat(list(logits)), count))

    def read(self) -> list[list[list[int]]]:
        """Of each session's rows, the likeliest first. Waits for the device."""
        rows = iter(self._found.read().tolist())
        return [list(itertools.islice(rows, count)) for count in self._rows]


def best_tokens(logits: Tensor, count: int) -> list[list[int]]:
    """Of rows [n, V] that are there."""
    found: list[list[int]] = _best(logits, count).tolist()
    return found


def _best(logits: Tensor, count: int) -> Tensor:
    """[rows, count] int32. Which of two that are equal comes first is left open."""
    return logits.topk(min(count, logits.shape[-1])).indices.int()
