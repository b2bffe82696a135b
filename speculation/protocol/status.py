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
class ServedModel:
    """A model that texts may be asked of. ``context_length``: in tokens; None: no verifier of it could be asked."""

    name: str
    vocab_hash: str
    dtype: str
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class FleetVerifier:
    """A verifier of a fleet. None: not known."""

    name: str
    model: str
    sessions: int
    max_sessions: int | None = None
    tokens_per_second: float | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class FleetDrafter:
    """A drafter of a fleet, and for which verifiers it drafts: their places in the fleet. Seconds; None: not known."""

    name: str
    model: str
    sessions: int
    verifiers: tuple[int, ...]
    max_sessions: int | None = None
    round_trip: float | None = None
    seconds_per_token: float | None = None
    acceptance_rate: float | None = None


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Who is there, and who drafts for whom."""

    verifiers: tuple[FleetVerifier, ...]
    drafters: tuple[FleetDrafter, ...]


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
