"""An answer, whole and in pieces, as a client sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protos import codec
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.text_stream import TextRun


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one verify step committed. ``runs`` are cut at whole characters; joined they are the text."""

    runs: tuple[TextRun, ...]
    token_ids: tuple[int, ...]


@dataclass(slots=True)
class Completion:
    """A whole answer. Times are seconds on the client's clock."""

    runs: list[TextRun] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int = 0
    stats: pb.SpeculationStats = field(default_factory=pb.SpeculationStats)
    ttft: float = 0.0
    e2el: float = 0.0
    first_tokens: int = 0  # how many came at once at ``ttft``
    #: How often it was resumed after a verifier was lost, and the tokens that the last one wrote anew for that.
    #: ``stats`` is what the last verifier tells of the other tokens.
    resumes: int = 0
    replayed_tokens: int = 0

    @property
    def data(self) -> bytes:
        """The text's bytes; ``max_tokens`` may have cut the last character."""
        return b"".join(run.text for run in self.runs)

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after those of the first chunk; None if there are none.

        The usual division by all tokens but one would count drafts that came with the first token as written in no
        time.
        """
        return self.decode_seconds / self.decode_tokens if self.decode_tokens > 0 else None

    @property
    def decode_seconds(self) -> float:
        """From the first chunk to the end."""
        return self.e2el - self.ttft

    @property
    def decode_tokens(self) -> int:
        """That came after the first chunk."""
        return self.completion_tokens - self.first_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding: prefill and the first chunk are not in it."""
        return 1 / self.tpot if self.tpot else None

    @property
    def tokens_per_step(self) -> float | None:
        """Mean acceptance length: tokens committed per verify step, the target's own included."""
        return (self.completion_tokens - self.replayed_tokens) / self.stats.steps if self.stats.steps else None

    @property
    def acceptance_rate(self) -> float | None:
        return self.stats.accepted_tokens / self.stats.draft_tokens if self.stats.draft_tokens else None

    def to_json(self) -> dict[str, Any]:
        """The object that `dragoman generate --json` prints. What is not defined is null."""
        stats = self.stats
        return {
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
            "resumes": self.resumes,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "speculation": {
                "rule": codec.rule_from_wire(stats.rule).value,
                "steps": stats.steps,
                "draft_tokens": stats.draft_tokens,
                "accepted_tokens": stats.accepted_tokens,
                "acceptance_rate": self.acceptance_rate,
                "tokens_per_step": self.tokens_per_step,
                "spans": stats.spans,
                "stale_spans": stats.stale_spans,
                "bytes_up": stats.bytes_up,
                "bytes_down": stats.bytes_down,
            },
            "timing": {
                "ttft_ms": self.ttft * 1000,
                "tpot_ms": self.tpot * 1000 if self.tpot is not None else None,
                "e2el_ms": self.e2el * 1000,
                "tokens_per_second": self.tokens_per_second,
            },
        }
