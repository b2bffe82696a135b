"""What one verify step of a traced session did."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.sessions.statistics import SessionStats
from speculation.source import Source
from verifier_service.session_run import StepResult


@dataclass(frozen=True, slots=True)
class Round:
    """``sources``: who guessed, with the draft tokens that were verified of each and those that were accepted.
    ``width``: draft tokens that the plan allowed. ``seconds``, ``ended``: of the forward pass, and by
    ``time.perf_counter``."""

    sources: tuple[tuple[Source, int, int], ...]
    committed_tokens: int
    width: int
    seconds: float
    ended: float

    @property
    def draft_tokens(self) -> int:
        """Of all sources."""
        return sum(drafted for _, drafted, _ in self.sources)

    @property
    def accepted_tokens(self) -> int:
        """Likewise."""
        return sum(accepted for _, _, accepted in self.sources)


class RoundCounter:
    """Made in the engine's thread before a step is verified."""

    def __init__(self, stats: SessionStats, *, width: int) -> None:
        self._stats = stats
        self._width = width
        self._before = {
            source: (counts.draft_tokens, counts.accepted_tokens) for source, counts in stats.by_source.items()
        }

    def ended(self, result: StepResult, *, committed_tokens: int) -> Round:
        """It was verified, and committed so many tokens."""
        sources = []
        for source, counts in self._stats.by_source.items():
            drafted, accepted = self._before.get(source, (0, 0))
            if counts.draft_tokens > drafted:
                sources.append((source, counts.draft_tokens - drafted, counts.accepted_tokens - accepted))
        return Round(
            sources=tuple(sources),
            committed_tokens=committed_tokens,
            width=self._width,
            seconds=result.forward_seconds,
            ended=result.forward_ended,
        )
