"""How likely tokens were, by the target's own logits: before temperature, penalties, guide and whatever else is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from speculation.protocol.tokenizing import TokenPiece

#: Likeliest tokens that are told at each place, at most; as in vLLM.
MOST_LOGPROBS: Final = 20


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """``logprob``: natural logarithm. ``piece``: what the token stands for."""

    token: int
    logprob: float
    piece: TokenPiece

    def to_json(self) -> dict[str, Any]:
        """As OpenAI's chats have it; a special token has no bytes."""
        data = None if self.piece.special else list(self.piece.text)
        return {"token": self.piece.shown, "logprob": self.logprob, "bytes": data}


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """At the place of one token: its own, and those of the likeliest tokens, the likeliest first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As OpenAI's chats have it."""
        return {**self.chosen.to_json(), "top_logprobs": [each.to_json() for each in self.top]}
