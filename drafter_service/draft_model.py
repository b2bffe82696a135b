"""What drafting needs of a model: ``CausalLM`` in language_models has it, and ``PagedModel`` in engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from language_models.continuation import Continuation, RunsTrees
from language_models.tokenizer import TextTokenizer


class DraftCache(Protocol):
    """Keys and values of one session's tokens."""

    @property
    def length(self) -> int: ...
    @property
    def max_rollback(self) -> int: ...

    def rollback(self, tokens: int) -> None:
        """Forget the last ``tokens`` tokens, ``max_rollback`` at most."""
        ...

    def keep_rows(self, base: int, rows: Sequence[int]) -> None:
        """Of what was added from token ``base`` on, keep ``rows`` (counted from there), in that order."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class DraftModel(RunsTrees, Protocol):
    """A model, loaded. Caches are its own."""

    name: str
    tokenizer: TextTokenizer
    vocab_size: int
    context_length: int
    device: torch.device
    #: Tokens from the root of a tree to one of it, at most.
    tree_depth: int

    @property
    def draws_all_rows(self) -> bool:
        """Whether the draws behind all branches are best made at once: on a GPU, where every single one is a wait."""
        ...

    def new_cache(self) -> Any:
        """An empty ``DraftCache``."""
        ...

    def prefill(self, tokens: Sequence[int], cache: Any) -> None:
        """Run ``tokens`` for their keys and values only."""
        ...


@runtime_checkable
class JoinsPasses(Protocol):
    """A model that runs the rows of several caches in one pass."""

    @property
    def rows_together(self) -> int:
        """Rows that fit one pass."""
        ...

    def forward_all(self, parts: Sequence[Continuation]) -> list[Tensor]:
        """What ``Continuation.run`` gives for each, in as few passes as they fit."""
        ...
