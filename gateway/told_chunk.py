"""What a client that asked for it is told beside each chunk of a stream: who wrote what, and what was tried for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from speculation.protocol.generation import Chunk, VerifyStep
from speculation.source import SourceKind

#: Of what nobody guessed.
_TARGET: Final = "target"


def told_chunk(index: int, chunk: Chunk, runs: Sequence[tuple[str, SourceKind | None]]) -> dict[str, Any]:
    """``index``: of the choice. ``runs``: the chunk's, as whole characters, with whose guess each was."""
    told: dict[str, Any] = {
        "index": index,
        "tokens": len(chunk.token_ids),
        "runs": [{"text": text, "source": _label(source)} for text, source in runs if text],
    }
    return told | (_step(chunk.step) if chunk.step is not None else {})


def _step(step: VerifyStep) -> dict[str, Any]:
    plan = step.plan
    rejected = None
    if step.rejected:
        rejected = {"text": step.rejected.decode(errors="replace"), "source": _label(step.rejected_source)}
    return {
        "draft_tokens": step.draft_tokens,
        "accepted_tokens": step.accepted_tokens,
        "positions": step.positions,
        "rejected": rejected,
        "plan": {"width": plan.width, "lookahead": plan.lookahead, "alternatives": plan.alternatives},
        "round_trip_ms": step.round_trip * 1000 if step.round_trip is not None else None,
    }


def _label(source: SourceKind | None) -> str:
    return source.label if source is not None else _TARGET
