"""What one session brings to the figures, and to its span."""

from __future__ import annotations

import dataclasses
import time
from typing import Final

from speculation.protocol.generation import FinishReason
from speculation.sessions.statistics import SourceCounts
from speculation.source import Source
from verifier_service.metrics import FinishedReason, VerifierMetrics
from verifier_service.open_session import OpenSession
from verifier_service.session_trace import SessionTrace
from verifier_service.step_report import StepReport

#: A session's counts are passed on that often, in seconds: a step takes milliseconds, and collectors come by rarely.
_FLUSH_SECONDS: Final = 0.25


class SessionMeter:
    """Passes on what one session's steps bring, from when it is made: that is when the request came."""

    def __init__(self, metrics: VerifierMetrics, opened: OpenSession) -> None:
        self._metrics = metrics
        self._opened = opened
        self._trace = SessionTrace(opened)
        self._began = self._flushed = time.monotonic()
        self._first: float | None = None  # when its first token came
        self._last = self._began
        self._reason = FinishedReason.ERROR  # until it is known
        self._tokens = self._alone = self._first_tokens = 0
        self._drafts = self._draft_tokens = self._accepted = self._stale = 0
        self._positions: list[int] = []
        self._sources: dict[Source, SourceCounts] = {}
        metrics.prompt_tokens(len(opened.session.request.prompt_ids))
        opened.figures.on_begun = metrics.stand  # in the engine's thread
        metrics.stand()

    def stepped(self, report: StepReport) -> None:
        """A step ended, perhaps some time ago: the session may have gone on."""
        now, metrics, tokens = time.monotonic(), self._metrics, report.new_tokens
        self._trace.stepped(report.round)
        if tokens:
            if self._first is None:
                self._first, self._first_tokens = now, tokens
                metrics.first_token(now - self._began)
            else:
                metrics.inter_token(now - self._last)
            self._last = now
            metrics.speculation_length(report.draft_tokens)
            self._drafts += report.draft_tokens > 0
        self._tokens += tokens
        self._alone += 0 if self._opened.drafters else tokens
        if now >= self._flushed + _FLUSH_SECONDS:
            self.flush()
            self._flushed = now

    def finished(self, reason: FinishReason) -> None:
        """The text is whole."""
        metrics, request, now = self._metrics, self._opened.session.request, time.monotonic()
        self._reason = FinishedReason(reason.value)
        begun, tokens = self._opened.figures.began_at or now, self._opened.new_tokens
        first = self._first if self._first is not None else self._last
        metrics.end_to_end(now - self._began)
        metrics.queued(begun - self._began)
        metrics.prefilled(max(0.0, first - begun))
        metrics.decoded(self._last - first)
        metrics.inferred(max(0.0, self._last - begun))
        if tokens > self._first_tokens:
            metrics.per_token((self._last - first) / (tokens - self._first_tokens))
        metrics.request_prompt(len(request.prompt_ids))
        metrics.request_generation(tokens)
        metrics.request_most(request.max_tokens)

    def left(self) -> None:
        """Nobody waits for the rest of it."""
        self._reason = FinishedReason.ABORT

    def end(self) -> None:
        """The session is over, however that came."""
        self.flush()
        self._trace.end(self._reason.value)
        self._metrics.success(1, finished_reason=self._reason.value)

    def flush(self) -> None:
        """What came together since the last time; idempotent."""
        metrics, stats = self._metrics, self._opened.session.stats
        metrics.generation_tokens(self._tokens)
        metrics.alone(self._alone)
        metrics.drafts(self._drafts)
        self._tokens = self._alone = self._drafts = 0
        metrics.plan_width(self._opened.session.plan.width)
        metrics.plan_lookahead(self._opened.session.plan.lookahead)
        metrics.stand()
        metrics.flush_prefixes()
        # At once, and no more accepted than drafted: the engine's thread may add to them.
        accepted, drafted, stale = stats.accepted_tokens, stats.draft_tokens, stats.stale_spans
        metrics.draft_tokens(drafted - self._draft_tokens)
        metrics.accepted_tokens(accepted - self._accepted)
        metrics.stale_drafts(stale - self._stale)
        self._draft_tokens, self._accepted, self._stale = drafted, accepted, stale
        self._flush_sources()
        for position, accepted in enumerate(stats.accepted_per_pos):
            if position == len(self._positions):
                self._positions.append(0)
            if accepted > self._positions[position]:
                metrics.accepted_per_position(accepted - self._positions[position], position=str(position))
                self._positions[position] = accepted

    def _flush_sources(self) -> None:
        counted = dict(self._opened.session.stats.by_source)  # at once: the engine's thread may add to it
        for source, counts in counted.items():
            before = self._sources.get(source, SourceCounts())
            now = self._sources[source] = dataclasses.replace(counts)
            drafted, accepted = now.draft_tokens - before.draft_tokens, now.accepted_tokens - before.accepted_tokens
            link = self._opened.drafters.link_of(source)
            self._metrics.drafted(source.kind, link.hello.name if link is not None else "", drafted, accepted)
            if link is not None:
                link.draft_tokens += drafted
                link.accepted_tokens += accepted
