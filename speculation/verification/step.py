"""What is verified at once, and what came of it: plain values, without a tensor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from speculation.drafts.candidates import CandidateTree
from speculation.protocol.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Step:
    """Run the target on ``last``, the last committed id, and the candidates, each after ``last`` and its own ancestors;
    logits [1 + candidates, V] come back. ``proposals``: what the candidates were drawn from, if the rule needs that.

    ``max_tokens``: how many may be committed, 1 or more.
    """

    last: int
    candidates: CandidateTree
    proposals: tuple[Proposal | None, ...] = ()
    max_tokens: int = 1

    def narrowed(self, width: int) -> Step:
        """With the first ``width`` candidates only, which are the likeliest; itself if it has no more."""
        if len(self.candidates) <= width:
            return self
        return dataclasses.replace(self, candidates=self.candidates.first(width), proposals=self.proposals[:width])


@dataclass(frozen=True, slots=True)
class Acceptance:
    """``tokens``: what the target committed, 1 or more; the first ``accepted`` of them are draft tokens.

    ``path``: those draft tokens' numbers among the candidates.
    """

    tokens: tuple[int, ...]
    accepted: int
    path: tuple[int, ...] = ()
