"""What the target nearly said: of each row that was run, the tokens that it ranks first there.

Every row of a step says how the target would go on after that row's token, whether the row was accepted or not; all but
one of these continuations are thrown away. They are kept here by the last tokens that they follow, and are the draft
when these tokens come again: Token Recycling (Luo et al. 2024, arXiv 2408.08696, section 3.2, "adjacency matrix").
Other than there, the longest of several contexts counts, and how often each rank comes true is learned.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

#: Tokens that are kept of a row. The paper's k.
KEPT: Final = 8
#: Tokens of a context, at most.
CONTEXT: Final = 3
#: Contexts that are kept, of all lengths. Some 300 bytes each.
CONTEXTS: Final = 1 << 16
#: How often the token came that stood at each rank, after contexts of one token, of two and of three: what is assumed
#: until something is seen (Qwen2.5-Coder-1.5B, 24 HumanEval texts of 96 tokens, each with what the others had left).
_RATES: Final = (
    (0.26, 0.085, 0.055, 0.033, 0.029, 0.026, 0.026, 0.02),
    (0.54, 0.10, 0.047, 0.045, 0.02, 0.013, 0.013, 0.012),
    (0.70, 0.10, 0.04, 0.03, 0.02, 0.013, 0.013, 0.012),
)
#: Observations that this assumption weighs, and after how many all count half.
_ASSUMED: Final = 64
_HALVED: Final = 4096


class RecycledTokens:
    """Of all texts that may learn from each other. ``contexts``: how many are kept, those that were heard of last."""

    def __init__(self, *, contexts: int = CONTEXTS) -> None:
        self._contexts = contexts
        self._best: OrderedDict[tuple[int, ...], tuple[int, ...]] = OrderedDict()  # which was heard of last, last
        self._asked = [float(_ASSUMED)] * CONTEXT  # by the context's length, counted from 0
        self._came = [[_ASSUMED * rate for rate in rates] for rates in _RATES]
        self._rates = [tuple(rates) for rates in _RATES]

    def __len__(self) -> int:
        return len(self._best)

    def hear(self, context: tuple[int, ...], best: Sequence[int]) -> None:
        """After ``context``, CONTEXT tokens or fewer, the target ranks these first, the likeliest before the others."""
        kept = tuple(best[:KEPT])
        for start in range(len(context)):
            part = context[start:]
            self._best[part] = kept
            self._best.move_to_end(part)
        while len(self._best) > self._contexts:
            self._best.popitem(last=False)

    def after(self, context: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The tokens that may come after the longest part of ``context`` that is known; none if none is known. And the
        chance of each, in order, or of more than there are."""
        for start in range(len(context)):
            if (best := self._best.get(context[start:])) is not None:
                return best, self._rates[len(context) - start - 1]
        return (), ()

    def settle(self, context: tuple[int, ...], token: int) -> None:
        """``token`` came after ``context``: how often is each rank right? Tell it before the row itself is heard."""
        for start in range(len(context)):
            if (best := self._best.get(context[start:])) is not None:
                self._count(len(context) - start - 1, best.index(token) if token in best else None)
                return

    def _count(self, length: int, rank: int | None) -> None:
        came = self._came[length]
        self._asked[length] += 1
        if rank is not None:
            came[rank] += 1
        if self._asked[length] >= _HALVED:
            self._asked[length] /= 2
            came[:] = [count / 2 for count in came]
        # A lower rank is never taken to be likelier than a higher one: candidates are looked at in this order.
        shares = (count / self._asked[length] for count in came)
        self._rates[length] = tuple(itertools.accumulate(shares, min))
