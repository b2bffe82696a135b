"""The paged engine as a drafter uses a model: tokens are appended, rolled back, and grow into trees step by step.

It has the methods of ``language_models.causal_lm.CausalLM`` that drafting needs, so a drafter does not see
which of them it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.paged_engine import Loaded, PagedEngine
from engine.paged_slot import PagedSlot
from engine.step_tables import MAX_DEPTH, SequenceRows
from language_models.context_check import check_context
from language_models.continuation import Continuation, TreeRows, in_groups

#: Rows of a step, or fewer where fewer suffice: as many branches, of all sessions, as a drafter expands at once.
DRAFT_ROWS = 64
#: Rows that a tree may have at the end of the context.
TREE_ROWS = 512


class PagedCache:
    """Positions of one session: a line of tokens, then rows of a tree. Takes a slot when it is first used.

    Everything raises LimitExceededError where the engine has no slot or no page left.
    """

    def __init__(self, engine: PagedEngine) -> None:
        self._engine = engine
        self._slot: PagedSlot | None = None

    @property
    def slot(self) -> PagedSlot:
        """Its place in the engine, from now on if it had none."""
        if self._slot is None:
            self._slot = PagedSlot(self._engine, (0,))
        return self._slot

    @property
    def length(self) -> int:
        """Positions in use, those of the tree included."""
        return self._slot.length if self._slot is not None else 0

    @property
    def max_rollback(self) -> int:
        """Everything can be undone."""
        return self.length

    def rollback(self, tokens: int) -> None:
        """Forget the last ``tokens`` positions."""
        if tokens:
            self.slot.compact(self.length - tokens, [])

    def keep_rows(self, base: int, rows: Sequence[int]) -> None:
        """Of what was added from position ``base`` on, keep ``rows`` (counted from there), in that order."""
        self.slot.compact(base, rows)

    def close(self) -> None:
        """Free the slot; a cache that is used again begins anew."""
        if self._slot is not None:
            self._slot.close()
        self._slot = None


class PagedModel:
    """A model taken over by the engine, with a CUDA graph for each step; see ``PagedEngine`` for what it raises."""

    def __init__(self, model: Loaded, *, max_sessions: int, kv_bytes: int | None = None) -> None:
        self.engine = PagedEngine(
            model,
            kv_bytes=kv_bytes,
            rows=DRAFT_ROWS,
            max_sessions=max_sessions,
            prefix_caching=False,
            exact=False,  # a draft may be anything
        )
        self.rows_together = DRAFT_ROWS
        self.tree_depth = MAX_DEPTH
        self.draws_all_rows = self.engine.draws_all_rows
        self.name = model.name
        self.tokenizer = model.tokenizer
        self.vocab_size = model.vocab_size
        self.device = model.device
        self.dtype_name = model.dtype_name
        self.parameter_bytes = model.parameter_bytes
        #: The rest of the engine's is for rows of trees beside the text.
        self.context_length = max(1, self.engine.context_length - min(TREE_ROWS, self.engine.context_length // 4))

    def new_cache(self) -> PagedCache:
        """An empty cache."""
        return PagedCache(self.engine)

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], cache: PagedCache) -> None:
        """Run ``tokens`` for their keys and values only. Raises InputError if they do not fit the context."""
        self._check(len(tokens), cache)
        at = 0
        while at < len(tokens):
            at += cache.slot.append(tokens[at:])

    @torch.inference_mode()
    def forward(self, tokens: Sequence[int], cache: PagedCache) -> Tensor:
        """Run ``tokens`` after what ``cache`` holds: logits [len(tokens), V] float32. Raises as ``prefill``."""
        self._check(len(tokens), cache)
        starts = range(0, len(tokens), DRAFT_ROWS)
        return torch.cat([self._run([(cache, cache.slot.line(tokens[at : at + DRAFT_ROWS]))])[0] for at in starts])

    @torch.inference_mode()
    def forward_branches(self, tokens: Sequence[int], cache: PagedCache, tree: TreeRows) -> Tensor:
        """Run tokens of a tree of continuations, whose ancestors are all in the cache: logits [len(tokens), V]."""
        starts = range(0, len(tokens), DRAFT_ROWS)
        parts = [slice(at, at + DRAFT_ROWS) for at in starts]
        return torch.cat([
            self._run([(cache, cache.slot.branches(tree.base, tokens[part], tree.above[part]))])[0] for part in parts
        ])  # fmt: skip

    @torch.inference_mode()
    def forward_all(self, parts: Sequence[Continuation]) -> list[Tensor]:
        """Logits [tokens, V] float32 of each, as it would have by itself; of several caches, in as few passes as they
        fit. Raises as ``prefill``, ValueError for a part of more rows than a pass; then nothing of any was run.
        """
        laid = [(part.cache, self._laid_out(part)) for part in parts]
        found: list[Tensor] = []
        try:
            for batch in in_groups(laid, lambda each: len(each[1].tokens), DRAFT_ROWS):
                found += self._run(batch)
        except BaseException:
            for (cache, _), logits in zip(laid, found, strict=False):
                cache.rollback(len(logits))
            raise
        return found

    def _laid_out(self, part: Continuation) -> SequenceRows:
        slot, tree = part.cache.slot, part.tree
        if tree is None:
            self._check(len(part.tokens), part.cache)
            return slot.line(part.tokens)
        return slot.branches(tree.base, part.tokens, tree.above)

    def _run(self, batch: Sequence[tuple[PagedCache, SequenceRows]]) -> list[Tensor]:
        """In one pass, after which the caches hold their rows."""
        views = self.engine.run([rows for _, rows in batch])
        found = list(torch.cat(views).split([len(logits) for logits in views]))
        for cache, rows in batch:
            cache.slot.added(rows)
        return found

    def _check(self, tokens: int, cache: PagedCache) -> None:
        check_context(self.name, self.context_length, cache.length + tokens)
