"""What is counted of a session."""

from __future__ import annotations

from dataclasses import dataclass, field

from speculation.drafts.candidates import CandidateTree
from speculation.drafts.drafter_tree import common_prefix
from speculation.source import Source


@dataclass(slots=True)
class SourceCounts:
    """Draft tokens of one source: those that a step verified."""

    draft_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(slots=True)
class SessionStats:
    """Counts of one session, in vLLM's meanings: draft tokens are those that a step verified.

    ``first_choices``: those of them on the drafters' likeliest path, which a plan's forecast rests on. ``by_source``:
    who guessed them, each token counted once; without the recorded ones of a replay, which the totals leave out, its
    sums are the totals.
    """

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    first_choices: int = 0
    accepted_first_choices: int = 0
    spans: int = 0
    stale_spans: int = 0
    accepted_per_pos: list[int] = field(default_factory=list)
    by_source: dict[Source, SourceCounts] = field(default_factory=dict)

    def count_step(self, candidates: CandidateTree, path: tuple[int, ...]) -> None:
        """``path``: the accepted candidates."""
        self.steps += 1
        if not candidates.tokens:
            return
        self.draft_tokens += len(candidates)
        accepted = len(path)
        self.accepted_tokens += accepted
        self.first_choices += len(candidates.first_choices)
        self.accepted_first_choices += common_prefix(candidates.first_choices, path)
        self.accepted_per_pos.extend([0] * (accepted - len(self.accepted_per_pos)))
        for position in range(accepted):
            self.accepted_per_pos[position] += 1
        self._count_sources(candidates, path)

    def count_replay(self, candidates: CandidateTree, path: tuple[int, ...]) -> None:
        """A step over text that was counted before: nothing but what its source says."""
        self._count_sources(candidates, path)

    def _count_sources(self, candidates: CandidateTree, path: tuple[int, ...]) -> None:
        for number, source in enumerate(candidates.sources):
            counts = self.by_source.setdefault(source, SourceCounts())
            counts.draft_tokens += 1
            counts.accepted_tokens += number in path
