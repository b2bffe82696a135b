"""One request as the client saw it: when text came, how much, and what drafts did for it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from speculation.protocol.messages import Prompt


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """``number``: from 0 on, in the order of asking. ``draft`` False: the target alone."""

    number: int
    prompt: Prompt
    seed: int = 0
    draft: bool = True


@dataclass(frozen=True, slots=True)
class Speculation:
    """Counts of one text. ``committed_tokens``: of its verify steps, bonus tokens included.

    ``accepted_tokens_per_pos``: how often the draft token at each position of a step was accepted; empty if that is not
    told.
    """

    steps: int
    committed_tokens: int
    draft_tokens: int
    accepted_tokens: int
    accepted_tokens_per_pos: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, told: object) -> Self | None:
        """Of the object "speculation" of an answer; None if it is none of Dragoman's."""
        if not isinstance(told, Mapping):
            return None
        steps, drafts, accepted = (told.get(name) for name in ("steps", "draft_tokens", "accepted_tokens"))
        if not (isinstance(steps, int) and isinstance(drafts, int) and isinstance(accepted, int)):
            return None
        positions = told.get("accepted_tokens_per_pos")
        return cls(
            steps=steps,
            committed_tokens=round((told.get("tokens_per_step") or 0.0) * steps),
            draft_tokens=drafts,
            accepted_tokens=accepted,
            accepted_tokens_per_pos=tuple(positions) if isinstance(positions, list | tuple) else (),
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """An answer, or with ``error`` that there is none. All times are seconds on the client's clock.

    ``started``: when it was sent, on any steady clock. ``arrivals``: when chunks with text came, after ``started``.
    ``e2el``: when the last chunk came, also after ``started``. ``output_tokens``: as the server counts them.
    """

    request: BenchRequest
    started: float
    arrivals: tuple[float, ...] = ()
    e2el: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    speculation: Speculation | None = None
    error: str = ""

    @property
    def ttft(self) -> float:
        """To the first chunk with text; of an answer without text, to its end."""
        return self.arrivals[0] if self.arrivals else self.e2el

    @property
    def tpot(self) -> float | None:
        """Seconds per output token but the first, as vLLM has it; None for a text of one token."""
        return (self.e2el - self.ttft) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    @property
    def itls(self) -> list[float]:
        """Between chunks with text, each of which may hold several tokens."""
        return [later - earlier for earlier, later in itertools.pairwise(self.arrivals)]

    @property
    def row(self) -> dict[str, Any]:
        """Figures by name, in milliseconds, as those of all requests are made of."""
        return {
            "output_tokens": self.output_tokens,
            "ttft_ms": self.ttft * 1000,
            "tpot_ms": None if self.tpot is None else self.tpot * 1000,
            "e2el_ms": self.e2el * 1000,
            "output_throughput": self.output_tokens / self.e2el if self.e2el else 0.0,
        }
