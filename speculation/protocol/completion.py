"""An answer as a client sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speculation.protocol.generation import FinishReason, SourceStats, SpeculationStats
from speculation.protocol.logprobs import TokenLogprobs
from speculation.protocol.tools import ToolFormat
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun


@dataclass(slots=True)
class Completion:
    """A whole answer. Times are seconds on the client's clock.

    As in vLLM, ``token_ids`` are all tokens that were written: the end token, or those that a stop string is made of,
    are among them and are counted, though ``text`` ends before them.
    """

    runs: list[TextRun] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    #: Of each of ``token_ids``, if they were asked for.
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    #: The stop string or the end token's id that ended the text; None for ``length``, or from an old verifier. (vLLM
    #: says None for the end token as well.)
    stop_reason: str | int | None = None
    prompt_tokens: int = 0
    stats: SpeculationStats = field(default_factory=SpeculationStats)
    ttft: float = 0.0
    e2el: float = 0.0
    first_tokens: int = 0  # how many came at once at ``ttft``
    #: How often it was resumed after a verifier was lost, and the tokens that the last one wrote anew for that.
    #: ``stats`` is what the last verifier tells of the other tokens.
    resumes: int = 0
    replayed_tokens: int = 0
    #: How the model writes calls, where the prompt has tools.
    tool_format: ToolFormat | None = None
    #: Whether drafters were allowed to help.
    drafters_allowed: bool = True

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
        """Of all draft tokens, whoever guessed them."""
        return self.stats.accepted_tokens / self.stats.draft_tokens if self.stats.draft_tokens else None

    @property
    def drafters_connected(self) -> int | None:
        """Drafters that were connected to the verifier at the end, whether they took part or not.

        None: the verifier is too old to say, and to tell apart who drafted.
        """
        return self.stats.drafters_connected

    @property
    def shares(self) -> list[SourceStats]:
        """Who drafted: every drafter that took part, the one with the most draft tokens first, and other sources."""
        return sorted(self.stats.sources, key=lambda share: (share.source, -share.draft_tokens))

    def shares_of(self, source: SourceKind) -> list[SourceStats]:
        """Those of one kind of source: of drafters any number, of others one at most."""
        return [share for share in self.shares if share.source is source]

    @property
    def drafter_acceptance_rate(self) -> float | None:
        """Of the draft tokens that drafters guessed; None if there are none, or if the verifier cannot tell."""
        drafters = self.shares_of(SourceKind.DRAFTER)
        drafted = sum(share.draft_tokens for share in drafters)
        return sum(share.accepted_tokens for share in drafters) / drafted if drafted else None

    def to_json(self) -> dict[str, Any]:
        """The object that `dragoman generate --json` prints. What is not defined is null; ``logprobs``, one for each
        token, are there if they were asked for."""
        return {
            "text": self.text,
            "token_ids": self.token_ids,
            **({"logprobs": [place.to_json() for place in self.logprobs]} if self.logprobs else {}),
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "resumes": self.resumes,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "speculation": self.speculation_json(),
            "timing": {
                "ttft_ms": self.ttft * 1000,
                "tpot_ms": self.tpot * 1000 if self.tpot is not None else None,
                "e2el_ms": self.e2el * 1000,
                "tokens_per_second": self.tokens_per_second,
            },
        }

    def speculation_json(self) -> dict[str, Any]:
        """Of ``to_json``: what drafts did for the text."""
        stats = self.stats
        return {
            "rule": stats.rule.value,
            "steps": stats.steps,
            "draft_tokens": stats.draft_tokens,
            "accepted_tokens": stats.accepted_tokens,
            "acceptance_rate": self.acceptance_rate,
            "tokens_per_step": self.tokens_per_step,
            "accepted_tokens_per_pos": list(stats.accepted_tokens_per_pos),
            "spans": stats.spans,
            "stale_spans": stats.stale_spans,
            "bytes_up": stats.bytes_up,
            "bytes_down": stats.bytes_down,
            "drafters_connected": self.drafters_connected,
            "drafters": [
                {"name": share.name, "model": share.model, **_counts(share)}
                for share in self.shares_of(SourceKind.DRAFTER)
            ],
            **{kind.label: self._other(kind) for kind in SourceKind if kind is not SourceKind.DRAFTER},
        }

    def _other(self, source: SourceKind) -> dict[str, Any] | None:
        """The only share of its kind; None where the verifier does not tell sources apart."""
        if self.drafters_connected is None:
            return None
        return _counts(next(iter(self.shares_of(source)), SourceStats(source)))


def _counts(share: SourceStats) -> dict[str, Any]:
    return {
        "draft_tokens": share.draft_tokens,
        "accepted_tokens": share.accepted_tokens,
        "acceptance_rate": share.acceptance_rate,
    }
