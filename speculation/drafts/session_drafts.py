"""All drafts of one text, those that drafters sent and the target's own, and a step's candidates out of them."""

from __future__ import annotations

from collections.abc import Sequence

from speculation.drafts.candidates import CandidateBuilder, CandidateTree
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.drawn_candidates import DrawnCandidates
from speculation.drafts.own_drafts import OwnDrafts
from speculation.drafts.reliability import Reliabilities
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.protocol.proposal import Proposal
from speculation.source import PREDICTION

_NOTHING = CandidateTree()


class SessionDrafts:
    """``own``: what the target drafts by itself. ``proposes``: whether drafters draw their tokens. ``predicts``:
    whether the client does. ``capacity``: of the pool, in bytes of each source.
    """

    def __init__(
        self, builder: CandidateBuilder, own: OwnDrafts, *, proposes: bool, predicts: bool, capacity: int
    ) -> None:
        self.pool = DraftPool(capacity=capacity)
        self.own = own
        self._builder = builder
        self._proposes = proposes
        self._reliabilities = Reliabilities()
        if predicts:
            self._reliabilities.meet(PREDICTION)

    def add(self, span: Span, pieces: Sequence[bytes]) -> SpanFate:
        """A drafter's. ``pieces``: the bytes of its proposals' tokens."""
        self._reliabilities.meet(span.source)
        self.own.hear(span)
        return self.pool.add_span(span, pieces)

    def candidates(
        self, tail: Sequence[int], plan: SpeculationPlan, *, limit: int
    ) -> tuple[CandidateTree, tuple[Proposal | None, ...]]:
        """The likeliest after ``tail``, the last committed ids, ``limit`` at most; and what was drawn of them."""
        forced = self.own.forced()
        width = min(self.own.width(plan.width, forced), limit)
        if width <= 0 and not self._proposes:
            return _NOTHING, ()
        self.own.offer(self.pool, forced, limit=width)
        if not self.pool.has_draft and self.own.recycling is None:
            return _NOTHING, ()
        trust, threshold = self._reliabilities.factors(), plan.verify_threshold
        if self._proposes:
            drawn = DrawnCandidates(self._builder, self.pool, tail, width=width, threshold=threshold, trust=trust)
            return drawn.build()
        self._reliabilities.take_guesses(self.pool)
        filled = min(self.own.filled_width, limit)
        tree = self._builder.build(
            self.pool, tail, width=width, threshold=threshold, trust=trust, most=filled, grow=self.own.grow
        )
        return self.own.allowed(tree), ()

    def advance(self, text: bytes, token_ids: Sequence[int], *, zero_width: int) -> None:
        """``text``, which these tokens spell, was committed. ``zero_width``: tokens at its end that added no bytes."""
        base = len(self.pool.committed)
        self._reliabilities.settle(base, text)
        self.pool.advance(text, zero_width=zero_width)
        self.own.advance(base, text, token_ids)
