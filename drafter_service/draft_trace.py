"""The span of one session that a drafter drafts for."""

from __future__ import annotations

from typing import Final

from speculation.protocol.messages import SessionOffer, Span, Verdict
from transport import tracing
from transport.trace_context import checked
from transport.tracing import SpanKind

#: Of the events, one for each verdict; of their number see ``verifier_service/session_trace.py``.
VERDICT: Final = "dragoman.verdict"


class DraftTrace:
    """From the offer on, as a child of the request's span at the verifier. ``model``: that drafts. Calls but ``end``
    are the event loop's."""

    def __init__(self, offer: SessionOffer, *, model: str) -> None:
        self._verdicts = self._spans = self._tokens = 0
        self._span = tracing.start_span(
            f"draft {model}",
            kind=SpanKind.CONSUMER,
            parent=checked(offer.traceparent),
            attributes={
                "dragoman.session": offer.session,
                "dragoman.rule": offer.rule.value,
                "dragoman.drafter.model": model,
                "dragoman.offer": offer.number,
                "dragoman.plan.lookahead": offer.plan.lookahead,
            },
        )

    def verdict(self, verdict: Verdict) -> None:
        """What the target committed."""
        if not self._span.recording:
            return
        self._verdicts += 1
        attributes: dict[str, tracing.Attribute] = {
            "dragoman.offset_bytes": verdict.base_offset,
            "dragoman.committed_bytes": len(verdict.text),
            "dragoman.draft_tokens": verdict.draft_tokens,
            "dragoman.accepted_tokens": verdict.accepted_tokens,
        }
        self._span.event(VERDICT, attributes)

    def sent(self, span: Span) -> None:
        """To the verifier."""
        self._spans += 1
        self._tokens += span.tokens

    def declined(self, error: Exception) -> None:
        """The session is given up. ``error``: its class is told, its words may quote the text."""
        self._span.fail(type(error).__name__)

    def end(self) -> None:
        """Idempotent; in any thread."""
        if self._span.recording:
            self._span.set(
                {
                    "dragoman.verdicts": self._verdicts,
                    "dragoman.sent_spans": self._spans,
                    "dragoman.sent_tokens": self._tokens,
                }
            )
        self._span.end()
