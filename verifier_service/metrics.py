"""What the verifier counts, once for every system that collects: names and meanings are vLLM's where it has them.

Counters, not ratios: ratios are for whoever asks, for example
rate(dragoman_spec_decode_num_accepted_tokens_total) / rate(dragoman_spec_decode_num_draft_tokens_total), and the mean
acceptance length 1 + rate(..._num_accepted_tokens_total) / rate(..._num_drafts_total), which counts the bonus token.

vLLM's totals hold the draft tokens of all sources. Who guessed them is told by counters of their own, "per_source".
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from speculation.sessions.statistics import SourceCounts
from speculation.source import Source, SourceKind
from verifier_service.open_session import OpenSession
from verifier_service.quotas import Quota
from verifier_service.step_report import StepReport

PREFIX: Final = "dragoman_"
#: Seconds, and tokens.
_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LENGTHS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)
#: A session's counts are passed on that often, in seconds: a step takes milliseconds, and collectors come by rarely.
_FLUSH_SECONDS: Final = 0.25
#: Names of drafters that are labels. They are the drafters' own word, and every one is a series for good.
_NAMES: Final = 64

#: Adds to a counter, sets a gauge, or observes into a histogram; keywords are labels.
Record = Callable[..., None]


class Instruments(Protocol):
    """Where figures go. Names come without prefix; a counter's ends in ``_total``."""

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record: ...

    def gauge(self, name: str, meaning: str) -> Record: ...

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record: ...


class NoInstruments:
    """Nobody collects."""

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record:
        return _ignore

    def gauge(self, name: str, meaning: str) -> Record:
        return _ignore

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record:
        return _ignore


def _ignore(value: float, **labels: str) -> None:
    """Nobody collects."""


class PrometheusInstruments:
    """Those of ``registry``, every one with the labels ``model_name`` and ``replica``, the verifier's name."""

    def __init__(self, registry: CollectorRegistry, model_name: str, replica: str = "") -> None:
        self._registry = registry
        self._labels = {"model_name": model_name, "replica": replica}

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record:
        made = Counter(PREFIX + name, meaning, (*self._labels, *labels), registry=self._registry)
        if not labels:
            return made.labels(**self._labels).inc

        def add(value: float, **given: str) -> None:
            made.labels(**self._labels, **given).inc(value)

        return add

    def gauge(self, name: str, meaning: str) -> Record:
        return Gauge(PREFIX + name, meaning, self._labels, registry=self._registry).labels(**self._labels).set

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record:
        made = Histogram(PREFIX + name, meaning, self._labels, registry=self._registry, buckets=bounds)
        return made.labels(**self._labels).observe


class VerifierMetrics:
    """Everything that is counted."""

    def __init__(self, instruments: Instruments) -> None:
        count, gauge, histogram = instruments.counter, instruments.gauge, instruments.histogram
        self.drafts = count("spec_decode_num_drafts_total", "Verify steps that had draft tokens.")
        self.draft_tokens = count("spec_decode_num_draft_tokens_total", "Draft tokens verified.")
        self.accepted_tokens = count("spec_decode_num_accepted_tokens_total", "Draft tokens accepted.")
        self.accepted_per_position = count(
            "spec_decode_num_accepted_tokens_per_pos_total", "Draft tokens accepted, by position.", ("position",)
        )
        self._draft_tokens_of = count(
            "spec_decode_num_draft_tokens_per_source_total",
            "Draft tokens verified, by who guessed them; those of a replay are in no other figure.",
            ("source", "drafter"),
        )
        self._accepted_tokens_of = count(
            "spec_decode_num_accepted_tokens_per_source_total",
            "Draft tokens accepted, by who guessed them; those of a replay are in no other figure.",
            ("source", "drafter"),
        )
        self.preemptions = count("num_preemptions_total", "Texts that gave their KV memory up to older ones.")
        self.prompt_tokens = count("prompt_tokens_total", "Tokens of prompts.")
        self.generation_tokens = count("generation_tokens_total", "Tokens committed.")
        self.stale_drafts = count("stale_drafts_total", "Spans that came for text that went on differently.")
        self._refused = count("refused_total", "Calls beyond what one identity may have.", ("quota",))
        self.reconnects = count("drafter_reconnects_total", "Drafters that dialled in again.")
        self.drafters = gauge("drafters_connected", "Drafters whose streams are open.")
        self.sessions = gauge("sessions_active", "Texts being written.")
        self.plan_width = gauge("plan_width", "Draft tokens per verify step that the latest plan allows.")
        self.plan_lookahead = gauge("plan_lookahead", "Tokens that a drafter may run ahead by the latest plan.")
        self.first_token = histogram("time_to_first_token_seconds", "From the request to its first token.", _LATENCIES)
        self.inter_token = histogram(
            "inter_token_latency_seconds", "Between two steps that brought tokens, however many each.", _LATENCIES
        )
        self.end_to_end = histogram("e2e_request_latency_seconds", "From the request to its last token.", _LATENCIES)
        self.round_trip = histogram("round_trip_seconds", "To a drafter and back.", _LATENCIES)
        self.speculation_length = histogram("speculation_length", "Draft tokens in a verify step.", _LENGTHS)
        self._names: set[str] = set()
        for quota in Quota:
            self._refused(0, quota=quota.value)
        for kind in SourceKind:  # a rate needs a zero to begin from
            if kind is not SourceKind.DRAFTER:
                self.drafted(kind, "", 0, 0)

    def refused_by(self, quota: Quota) -> None:
        """A call was refused."""
        self._refused(1, quota=quota.value)

    def drafted(self, kind: SourceKind, name: str, draft_tokens: int, accepted_tokens: int) -> None:
        """So many more tokens were guessed by a source. ``name``: of a drafter, else empty."""
        if name and len(self._names) < _NAMES:
            self._names.add(name)
        labels = {"source": kind.label, "drafter": name if not name or name in self._names else "others"}
        self._draft_tokens_of(draft_tokens, **labels)
        self._accepted_tokens_of(accepted_tokens, **labels)


class SessionMeter:
    """Passes on what one session's steps bring. ``now``: seconds of a steady clock."""

    def __init__(self, metrics: VerifierMetrics, opened: OpenSession) -> None:
        self._metrics = metrics
        self._opened = opened
        self._began = self._flushed = time.monotonic()
        self._last: float | None = None
        self._tokens = self._drafts = self._draft_tokens = self._accepted = self._stale = 0
        self._positions: list[int] = []
        self._sources: dict[Source, SourceCounts] = {}
        metrics.prompt_tokens(len(opened.session.request.prompt_ids))

    def stepped(self, report: StepReport) -> None:
        """A step ended, perhaps some time ago: the session may have gone on."""
        now, metrics, tokens = time.monotonic(), self._metrics, report.new_tokens
        if tokens:
            if self._last is None:
                metrics.first_token(now - self._began)
            else:
                metrics.inter_token(now - self._last)
            self._last = now
            metrics.speculation_length(report.draft_tokens)
            self._drafts += report.draft_tokens > 0
        self._tokens += tokens
        if now >= self._flushed + _FLUSH_SECONDS:
            self.flush()
            self._flushed = now

    def finished(self) -> None:
        """The text is whole."""
        self._metrics.end_to_end(time.monotonic() - self._began)

    def flush(self) -> None:
        """What came together since the last time; idempotent."""
        metrics, stats = self._metrics, self._opened.session.stats
        metrics.generation_tokens(self._tokens)
        metrics.drafts(self._drafts)
        self._tokens = self._drafts = 0
        metrics.plan_width(self._opened.session.plan.width)
        metrics.plan_lookahead(self._opened.session.plan.lookahead)
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
