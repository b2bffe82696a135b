"""What is counted of a session."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SessionStats:
    """Counts of one session, in vLLM's meanings: draft tokens are those that a step verified."""

    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    spans: int = 0
    stale_spans: int = 0
    accepted_per_pos: list[int] = field(default_factory=list)

    def count_step(self, draft_tokens: int, accepted: int) -> None:
        self.steps += 1
        self.draft_tokens += draft_tokens
        self.accepted_tokens += accepted
        self.accepted_per_pos.extend([0] * (accepted - len(self.accepted_per_pos)))
        for position in range(accepted):
            self.accepted_per_pos[position] += 1
