"""What a target drafts by itself: what a guide forces, what the client predicts, what it looks up in its own text and
in drafts that came too late, and what it nearly said after the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from speculation.drafts.candidates import CandidateTree, Grow, draft_bytes, grow_nothing
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.late_drafts import LateDrafts
from speculation.drafts.lookup import OwnLookup
from speculation.drafts.prediction import Prediction
from speculation.drafts.recycling import GUIDED_WIDTH, Recycling
from speculation.guide import Forced, Guide
from speculation.protocol.messages import Span
from speculation.source import GRAMMAR, LOOKUP, PREDICTION

#: Candidates of a step while no drafter is asked, all of them the target's own.
LOOKUP_WIDTH: Final = 8
#: Candidates that a step may have, whatever the plan, while a guide leaves no choice: they are all but certain.
FORCED_WIDTH: Final = 16
#: Where a candidate has to be likelier than this, not even looking for some is worth its time: that takes the host as
#: long as three candidates, and finds half a token.
TOO_COSTLY: Final = 0.17
#: The chance that a client's prediction is taken to have, all of it together.
PREDICTED: Final = 0.9
#: The same of what a guide forces: its bytes are certain, which tokens the target spells them with is not.
FORCED: Final = 0.95


class OwnDrafts:
    """Of one text.

    ``prompt``: the text to look up in, None without a lookup. ``prediction``: of the client. ``guide``: that the text
    is held to. ``jumps``: whether what it forces is drafted. ``late``: look up in late drafts, too; not where tokens
    are drawn by drafters, as what is tried must not depend on what was drawn. ``recycling``: None: nothing is recycled.
    """

    def __init__(
        self,
        prompt: bytes | None,
        *,
        prediction: bytes = b"",
        guide: Guide | None = None,
        jumps: bool = True,
        late: bool = True,
        recycling: Recycling | None = None,
    ) -> None:
        self._lookup = OwnLookup(prompt) if prompt is not None else None
        self._late = LateDrafts() if prompt is not None and late else None
        self._prediction = Prediction(prediction)
        self._guide = guide
        self._jumps = jumps and guide is not None
        self.recycling = recycling
        self._costly = False  # to look for anything, in the step that comes

    @property
    def guided(self) -> bool:
        """Whether there is a guide."""
        return self._guide is not None

    def hear(self, span: Span) -> None:
        """What a drafter sent, late or not."""
        if self._late is not None:
            self._late.hear(span)

    def forced(self) -> Forced:
        """What must come next, if that is drafted."""
        return self._guide.forced() if self._guide is not None and self._jumps else Forced()

    def width(self, planned: int, forced: Forced) -> int:
        """Draft tokens that a step wants, of which the plan for drafters says ``planned``."""
        own = (self._lookup is not None or self.recycling is not None) and not self._costly
        wanted = planned or (LOOKUP_WIDTH if own else 0)
        return max(wanted, min(FORCED_WIDTH, len(forced.data)))

    @property
    def filled_width(self) -> int:
        """Up to how many draft tokens a step is filled with what is recycled, if the plan does not say more."""
        if self.recycling is None:
            return 0
        return min(self.recycling.width, GUIDED_WIDTH) if self.guided else self.recycling.width

    def begin(self, tail: Sequence[int], least: float = 0.0) -> None:
        """The coming step follows ``tail``, the last committed ids. ``least``: see ``TargetSession.next_step``."""
        self._costly = least > TOO_COSTLY
        if self.recycling is not None:
            self.recycling.begin(tail, least)

    @property
    def grow(self) -> Grow:
        """What adds recycled tokens to the candidates of the step."""
        return grow_nothing if self.recycling is None or self._costly else self.recycling.grow

    def offer(self, pool: DraftPool, forced: Forced, *, limit: int) -> None:
        """Into the pool. ``limit``: tokens that the step can take."""
        end, most = pool.committed, draft_bytes(limit)
        if not self._costly:
            self._look_up(pool, limit)
        if guess := self._prediction.ahead(most):
            pool.add_span(Span(len(end), end.digest, guess, confidence=PREDICTED, source=PREDICTION))
        if forced.data:
            ends = forced.ends and len(forced.data) <= most
            data = forced.data[:most]
            pool.add_span(Span(len(end), end.digest, data, ends=ends, confidence=FORCED, source=GRAMMAR))

    def _look_up(self, pool: DraftPool, limit: int) -> None:
        if self._lookup is not None:
            pool.add_words(self._lookup.words(pool.committed, tokens=limit), LOOKUP)
        if self._late is not None and not pool.has_sent:  # or a drafter's word of now would be overruled by its own
            pool.add_words(self._late.words(pool.committed, tokens=limit), LOOKUP)

    def hear_best(self, tree: CandidateTree, best: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> None:
        """See ``Recycling.hear``."""
        if self.recycling is not None:
            self.recycling.hear(tree, best, rows)

    def allowed(self, candidates: CandidateTree) -> CandidateTree:
        """Those that the guide allows: the target cannot draw others, so their rows would be wasted."""
        if self._guide is None or not candidates.tokens:
            return candidates
        keep: list[bool] = []
        for node, parent in enumerate(candidates.parents):
            path = tuple(candidates.tokens[each] for each in candidates.path(node))
            keep.append((parent < 0 or keep[parent]) and self._guide.fits(path))
        return candidates if all(keep) else candidates.kept(keep)

    def advance(self, base: int, text: bytes, token_ids: Sequence[int]) -> None:
        """``text``, which these tokens spell, was committed after ``base`` bytes."""
        if self.recycling is not None:
            self.recycling.settle(token_ids)
        if self._lookup is not None:
            self._lookup.reliability.settle(base, text)
        if self._late is not None:
            self._late.settle(base, text)
        self._prediction.advance(text)
