"""What a target session asks of its shell: what to run, to keep, to show and to send."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from speculation.candidates import CandidateTree
from speculation.messages import Verdict
from speculation.proposal import Proposal
from speculation.text_stream import TextRun


class FinishReason(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Step:
    """Run the target on ``last``, the last committed id, and the candidates, each after ``last`` and its own ancestors;
    logits [1 + candidates, V] come back. ``proposals``: what the candidates were drawn from, if the rule needs that."""

    last: int
    candidates: CandidateTree
    proposals: tuple[Proposal | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """Of the KV cache's entries of the step just run, keep these rows, in this order; row 0 is ``Step.last``."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Emit:
    """Show the client ``runs`` of text, and the ids committed with them."""

    runs: tuple[TextRun, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendVerdict:
    """Tell every attached drafter."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Finish:
    """``stopped_by``: the stop string or the end token, if one ended the text."""

    reason: FinishReason
    stopped_by: bytes | int | None = None


Instruction = Keep | Emit | SendVerdict | Finish
