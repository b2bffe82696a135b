"""What is counted of a session."""

from __future__ import annotations

from dataclasses import dataclass, field

from speculation.candidates import CandidateTree
from speculation.draft_tree import common_prefix


@dataclass(slots=True)
class SessionStats:
    """Counts of one session, in vLLM's meanings: draft tokens are those that a step verified.

    ``first_choices``: those of them on the likeliest path, which a plan's forecast rests on.
    """

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    first_choices: int = 0
    accepted_first_choices: int = 0
    spans: int = 0
    stale_spans: int = 0
    accepted_per_pos: list[int] = field(default_factory=list)

    def count_step(self, candidates: CandidateTree, path: tuple[int, ...]) -> None:
        """``path``: the accepted candidates."""
        self.steps += 1
        self.draft_tokens += len(candidates)
        accepted = len(path)
        self.accepted_tokens += accepted
        self.first_choices += len(candidates.first_choices)
        self.accepted_first_choices += common_prefix(candidates.first_choices, path)
        self.accepted_per_pos.extend([0] * (accepted - len(self.accepted_per_pos)))
        for position in range(accepted):
            self.accepted_per_pos[position] += 1
