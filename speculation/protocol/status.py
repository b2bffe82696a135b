"""How a verifier stands, as it tells whoever asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrafterStatus:
    """A drafter whose stream is open. Seconds; 0.0: not measured yet. Its draft tokens are those of all sessions."""

    name: str
    model: str
    vocab_size: int
    vocab_hash: str
    sessions: int
    spans: int
    stale_spans: int
    rejected_messages: int
    round_trip: float
    seconds_per_token: float
    draft_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class VerifierStatus:
    """``version``: of Dragoman. ``kv_cache_bytes``: in memory for sessions; 0 when none is open."""

    version: str
    model: str
    vocab_size: int
    vocab_hash: str
    context_length: int
    dtype: str
    device: str
    drafters: tuple[DrafterStatus, ...]
    sessions: int
    kv_cache_bytes: int
    parameter_bytes: int
