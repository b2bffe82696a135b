"""What speculation did for one text of a program that holds the model."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.protocol.generation import Chunk


@dataclass(slots=True)
class DraftedText:
    """What speculation did for one text, in vLLM's meanings. ``steps``: forward passes after the prompt's."""

    tokens: int = 0
    steps: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def tokens_per_step(self) -> float | None:
        """None before the first."""
        return self.tokens / self.steps if self.steps else None

    def count(self, chunk: Chunk, written: int) -> None:
        """A step brought it. ``written``: tokens of the text so far."""
        self.steps += 1
        if chunk.step is not None:
            self.draft_tokens += chunk.step.draft_tokens
            self.accepted_tokens += min(chunk.step.accepted_tokens, written - self.tokens)
        self.tokens = written
