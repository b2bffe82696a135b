"""The fleet as the page draws it, asked for not more often than twice a second, however many watch."""

from __future__ import annotations

from typing import Any, Final

from gateway.backend import Backend
from gateway.shared_answer import SharedAnswer
from speculation.protocol.status import FleetDrafter, FleetStatus, FleetVerifier

#: Seconds for which an answer counts.
_FRESH_SECONDS: Final = 0.5


class FleetView:
    """Of a backend, as JSON."""

    def __init__(self, backend: Backend) -> None:
        self._latest = SharedAnswer(backend.fleet, fresh=_FRESH_SECONDS)

    async def body(self) -> dict[str, Any]:
        """Raises what ``Backend.fleet`` raises, NoVerifierError if nobody answers in time."""
        latest: FleetStatus = await self._latest()
        return {
            "verifiers": [_verifier(verifier) for verifier in latest.verifiers],
            "drafters": [_drafter(drafter) for drafter in latest.drafters],
        }


def _verifier(verifier: FleetVerifier) -> dict[str, Any]:
    return {
        "name": verifier.name,
        "model": verifier.model,
        "sessions": verifier.sessions,
        "max_sessions": verifier.max_sessions,
        "tokens_per_second": verifier.tokens_per_second,
        "draining": verifier.draining,
    }


def _drafter(drafter: FleetDrafter) -> dict[str, Any]:
    return {
        "name": drafter.name,
        "model": drafter.model,
        "sessions": drafter.sessions,
        "max_sessions": drafter.max_sessions,
        "drafts_for": list(drafter.verifiers),
        "round_trip_ms": _milliseconds(drafter.round_trip),
        "ms_per_token": _milliseconds(drafter.seconds_per_token),
        "acceptance_rate": drafter.acceptance_rate,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return seconds * 1000 if seconds is not None else None
