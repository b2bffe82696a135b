"""What a request's span is told of its session: an event for each verify step, and the sums at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from speculation.source import Source, SourceKind
from transport.tracing import Attribute
from verifier_service.drafter_link import DrafterLink
from verifier_service.open_session import OpenSession
from verifier_service.round_report import Round
from verifier_service.session_drafters import SessionDrafters

#: Of the events. OpenTelemetry's SDK keeps the latest 128 of a span, unless OTEL_SPAN_EVENT_COUNT_LIMIT says otherwise,
#: and tells how many it dropped; the sums are of all.
ROUND: Final = "dragoman.round"


class SessionTrace:
    """Of one session, from when it is made; does nothing where the span is not recorded. In the event loop."""

    def __init__(self, opened: OpenSession) -> None:
        self._opened = opened
        self._span = opened.span
        self._began = time.monotonic()
        self._rounds = 0
        if self._span.recording:
            request = opened.session.request
            self._span.set(
                {
                    "dragoman.session": opened.name,
                    "dragoman.rule": request.rule.value,
                    "dragoman.resumed_bytes": len(request.received),
                    "gen_ai.usage.input_tokens": len(request.prompt_ids),
                }
            )

    def stepped(self, told: Round | None) -> None:
        """A verify step ended, perhaps some time ago. None: nobody wanted to know of it."""
        if told is None:
            return
        if not self._rounds:
            self._span.set({"gen_ai.response.time_to_first_chunk": time.monotonic() - self._began})
        self._rounds += 1
        attributes: dict[str, Attribute] = {
            "dragoman.step": self._rounds,
            "dragoman.draft_tokens": told.draft_tokens,
            "dragoman.accepted_tokens": told.accepted_tokens,
            "dragoman.committed_tokens": told.committed_tokens,
            "dragoman.plan.width": told.width,
            "dragoman.step_seconds": told.seconds,
        }
        attributes |= by_source(told.sources, self._opened.drafters)
        self._span.event(ROUND, attributes, at=told.ended)

    def end(self, finish_reason: str) -> None:
        """The session is over, and so still has its drafters. ``finish_reason``: as of the metrics."""
        if not self._span.recording:
            return
        opened, stats = self._opened, self._opened.session.stats
        counted = dict(stats.by_source)  # at once: the engine's thread may add to it
        plan = opened.session.plan
        attributes: dict[str, Attribute] = {
            "gen_ai.response.finish_reasons": [finish_reason],
            "gen_ai.usage.output_tokens": len(opened.session.token_ids),
            "dragoman.steps": self._rounds,
            "dragoman.drafters": sum(each.source is SourceKind.DRAFTER for each in opened.drafters.stats(stats)),
            "dragoman.plan.width": plan.width,
            "dragoman.plan.lookahead": plan.lookahead,
            "dragoman.plan.alternatives": plan.alternatives,
        }
        sources = [(source, counts.draft_tokens, counts.accepted_tokens) for source, counts in counted.items()]
        attributes["dragoman.draft_tokens"] = sum(drafted for _, drafted, _ in sources)
        attributes["dragoman.accepted_tokens"] = sum(accepted for _, _, accepted in sources)
        attributes |= by_source(sources, opened.drafters)
        if opened.cached_tokens:
            attributes["gen_ai.usage.cache_read.input_tokens"] = opened.cached_tokens
        if opened.figures.began_at is not None:
            attributes["dragoman.queue_seconds"] = max(0.0, opened.figures.began_at - self._began)
        self._span.set(attributes)


def by_source(counts: Iterable[tuple[Source, int, int]], drafters: SessionDrafters) -> dict[str, Attribute]:
    """Who drafted, and of each in the same order the draft tokens that were verified and those accepted. Lists are as
    long as those who drafted: a drafter and the lookup, mostly."""
    told = [(_name(source, drafters.link_of(source)), drafted, accepted) for source, drafted, accepted in counts]
    if not told:
        return {}
    names, drafted, accepted = zip(*told, strict=True)
    return {
        "dragoman.sources": list(names),
        "dragoman.draft_tokens_per_source": list(drafted),
        "dragoman.accepted_tokens_per_source": list(accepted),
    }


def _name(source: Source, link: DrafterLink | None) -> str:
    return source.kind.label if link is None else f"{source.kind.label} {link.hello.name}"
