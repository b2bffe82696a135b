"""What the verifier counts, once for every system that collects. What vLLM has too has vLLM's name, meaning and bounds,
``vllm:...``; what only Dragoman has is ``dragoman_...``.

Counters, not ratios: ratios are for whoever asks, for example
rate(vllm:spec_decode_num_accepted_tokens_total) / rate(vllm:spec_decode_num_draft_tokens_total), and the mean
acceptance length 1 + rate(..._num_accepted_tokens_total) / rate(..._num_drafts_total), which counts the bonus token.

vLLM's totals hold the draft tokens of all sources. Who guessed them is told by counters of our own, "per_source".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from speculation.source import SourceKind
from transport.metric_buckets import FIRST_TOKEN, PER_TOKEN, REQUEST, token_counts
from verifier_service.engine import Engine
from verifier_service.instruments import Instruments, Record
from verifier_service.open_session import OpenSession
from verifier_service.quotas import Quota

OWN: Final = "dragoman_"
VLLM: Final = "vllm:"
#: Seconds to a drafter and back, and draft tokens of a step.
_ROUND_TRIPS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_LENGTHS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)
#: Names of drafters that are labels. They are the drafters' own word, and every one is a series for good.
_NAMES: Final = 64


class StreamEnding(StrEnum):
    """How a drafter's stream ended: it took leave; the verifier ended it for what it sent; or it broke, as it does when
    a process or a link dies, and when gRPC meets a message larger than any may be."""

    LEFT = "left"
    CUT_OFF = "cut_off"
    BROKEN = "broken"


class FinishedReason(StrEnum):
    """How a request ended, in vLLM's words: by itself; ``abort``: its client left, or it was handed over to another
    verifier; ``error``: it could not go on."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class VerifierMetrics:
    """Everything that is counted. ``sessions``: those that are open, now and later."""

    def __init__(self, instruments: Instruments, *, engine: Engine, sessions: Mapping[str, OpenSession]) -> None:
        self._engine = engine
        self._sessions = sessions
        self._make_gauges(instruments)
        self._make_spec_decode_counters(instruments)
        self._make_request_histograms(instruments, token_counts(engine.context_length))
        count, histogram = instruments.counter, instruments.histogram
        self.preemptions = count(f"{VLLM}num_preemptions_total", "Texts that gave their KV memory up to older ones.")
        self.prompt_tokens = count(f"{VLLM}prompt_tokens_total", "Tokens of prompts.")
        self.generation_tokens = count(f"{VLLM}generation_tokens_total", "Tokens committed.")
        self.success = count(f"{VLLM}request_success_total", "Requests that ended, by how.", ("finished_reason",))
        self._queried = count(f"{VLLM}prefix_cache_queries_total", "Tokens of prompts that were looked for.")
        self._shared = count(f"{VLLM}prefix_cache_hits_total", "Those of them whose keys and values were there.")
        self._positions = [0, 0]
        self.stale_drafts = count(f"{OWN}stale_drafts_total", "Spans that came for text that went on differently.")
        self.alone = count(f"{OWN}tokens_without_drafter_total", "Tokens committed while no drafter took part.")
        self._refused = count(f"{OWN}refused_total", "Calls beyond what one identity may have, or all.", ("quota",))
        self.reconnects = count(f"{OWN}drafter_reconnects_total", "Drafters that dialled in again.")
        self._ended = count(f"{OWN}drafter_streams_ended_total", "Streams of drafters that ended, by how.", ("ending",))
        self.round_trip = histogram(f"{OWN}round_trip_seconds", "To a drafter and back.", _ROUND_TRIPS)
        self.speculation_length = histogram(f"{OWN}speculation_length", "Draft tokens in a verify step.", _LENGTHS)
        self._names: set[str] = set()
        self._begin_at_zero()
        self.stand()

    def _make_gauges(self, instruments: Instruments) -> None:
        gauge = instruments.gauge
        self._running = gauge(f"{VLLM}num_requests_running", "Texts being written, or whose prompts are run.")
        self._waiting = gauge(f"{VLLM}num_requests_waiting", "Texts that wait for KV memory, or for the engine.")
        self._usage = gauge(f"{VLLM}kv_cache_usage_perc", "Of the pages of KV memory those held, 0..1.")
        self._pages = gauge(f"{OWN}kv_pages", "Pages of KV memory; 0: it grows as it has to.")
        self._held = gauge(f"{OWN}kv_pages_held", "Those of them that texts hold.")
        self._bytes = gauge(f"{OWN}kv_cache_bytes", "Of keys and values that texts hold.")
        self.drafters = gauge(f"{OWN}drafters_connected", "Drafters whose streams are open.")
        self.plan_width = gauge(f"{OWN}plan_width", "Draft tokens per verify step that the latest plan allows.")
        self.plan_lookahead = gauge(f"{OWN}plan_lookahead", "Tokens that a drafter may run ahead by the latest plan.")

    def _make_spec_decode_counters(self, instruments: Instruments) -> None:
        count, tokens = instruments.counter, "spec_decode_num_{}_tokens"
        self.drafts = count(f"{VLLM}spec_decode_num_drafts_total", "Verify steps that had draft tokens.")
        self.draft_tokens = count(f"{VLLM}{tokens.format('draft')}_total", "Draft tokens verified.")
        self.accepted_tokens = count(f"{VLLM}{tokens.format('accepted')}_total", "Draft tokens accepted.")
        self.accepted_per_position = count(
            f"{VLLM}{tokens.format('accepted')}_per_pos_total", "Draft tokens accepted, by position.", ("position",)
        )
        by = "by who guessed them; those of a replay are in no other figure."
        labels = ("source", "drafter")
        self._draft_tokens_of = count(
            f"{OWN}{tokens.format('draft')}_per_source_total", f"Draft tokens verified, {by}", labels
        )
        self._accepted_tokens_of = count(
            f"{OWN}{tokens.format('accepted')}_per_source_total", f"Draft tokens accepted, {by}", labels
        )

    def _make_request_histograms(self, instruments: Instruments, counts: list[int]) -> None:
        def histogram(name: str, meaning: str, bounds: Sequence[float] = REQUEST) -> Record:
            return instruments.histogram(VLLM + name, meaning, bounds)

        self.first_token = histogram("time_to_first_token_seconds", "From the request to its first token.", FIRST_TOKEN)
        self.inter_token = histogram(
            "inter_token_latency_seconds", "Between two steps that brought tokens, however many each.", PER_TOKEN
        )
        self.per_token = histogram(
            "request_time_per_output_token_seconds", "Of a text after its first step, for each token.", PER_TOKEN
        )
        self.end_to_end = histogram("e2e_request_latency_seconds", "From the request to its last token.")
        self.queued = histogram("request_queue_time_seconds", "From the request until its prompt is run.")
        self.prefilled = histogram("request_prefill_time_seconds", "From there to its first token.")
        self.decoded = histogram("request_decode_time_seconds", "From there to its last token.")
        self.inferred = histogram("request_inference_time_seconds", "The two together.")
        self.request_prompt = histogram("request_prompt_tokens", "Tokens of a whole text's prompt.", counts)
        self.request_generation = histogram("request_generation_tokens", "Tokens of a whole text.", counts)
        self.request_most = histogram("request_params_max_tokens", "What a request allowed.", counts)

    def _begin_at_zero(self) -> None:
        """A rate needs it."""
        self.accepted_per_position(0, position="0")
        for reason in FinishedReason:
            self.success(0, finished_reason=reason.value)
        for quota in Quota:
            self._refused(0, quota=quota.value)
        for ending in StreamEnding:
            self._ended(0, ending=ending.value)
        for kind in SourceKind:
            if kind is not SourceKind.DRAFTER:
                self.drafted(kind, "", 0, 0)

    def stand(self) -> None:
        """How it stands now: who runs, who waits, what KV memory they have. From any thread."""
        sessions, engine = list(self._sessions.values()), self._engine
        running = sum(opened.figures.runs for opened in sessions)
        self._running(running)
        self._waiting(len(sessions) - running)
        pages, held = engine.kv_pages, engine.kv_pages_held
        self._pages(pages)
        self._held(held)
        self._usage(held / pages if pages else 0.0)
        self._bytes(engine.kv_cache_bytes)

    def flush_prefixes(self) -> None:
        """What the engine found in its prefix cache since the last time. In the event loop."""
        before, now = self._positions, [self._engine.queried_positions, self._engine.shared_positions]
        self._positions = now
        self._queried(now[0] - before[0])
        self._shared(now[1] - before[1])

    def refused_by(self, quota: Quota) -> None:
        """A call was refused."""
        self._refused(1, quota=quota.value)

    def drafter_ended(self, ending: StreamEnding) -> None:
        """A drafter's stream ended."""
        self._ended(1, ending=ending.value)

    def drafted(self, kind: SourceKind, name: str, draft_tokens: int, accepted_tokens: int) -> None:
        """So many more tokens were guessed by a source. ``name``: of a drafter, else empty."""
        if name and len(self._names) < _NAMES:
            self._names.add(name)
        labels = {"source": kind.label, "drafter": name if not name or name in self._names else "others"}
        self._draft_tokens_of(draft_tokens, **labels)
        self._accepted_tokens_of(accepted_tokens, **labels)
