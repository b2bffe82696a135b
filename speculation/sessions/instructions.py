"""What a target session asks of its shell: what to keep, to show and to send; ``Step`` is what to run."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.protocol.generation import FinishReason
from speculation.protocol.messages import Verdict
from speculation.text.text_stream import TextRun


@dataclass(frozen=True, slots=True)
class Keep:
    """Of the entries that the step just run added to the KV cache, keep these rows, in order; row 0: ``Step.last``."""

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
