"""What one step of a session brought."""

from __future__ import annotations

from dataclasses import dataclass, field

from speculation.protocol.generation import Chunk, FinishReason
from speculation.protocol.messages import SessionOffer, Verdict
from verifier_service.drafter_link import DrafterLink
from verifier_service.round_report import Round
from verifier_service.session_run import StepResult

#: For drafters.
Message = Verdict | SessionOffer
#: With whom it is for; None: all that take part.
Addressed = tuple[DrafterLink | None, Message]


@dataclass(slots=True)
class StepReport:
    """What one step brought: text for the client, messages for drafters.

    ``new_tokens``: without those of a replay. ``draft_tokens``: that the step verified, likewise. ``goes_on``: nothing
    but its turn stands between the session and its next step, which may run already. ``round``: of a session whose
    span is recorded.
    """

    chunk: Chunk = field(default_factory=lambda: Chunk((), ()))
    messages: list[Addressed] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    new_tokens: int = 0
    draft_tokens: int = 0
    goes_on: bool = False
    round: Round | None = None

    def take_messages(self) -> list[Addressed]:
        """All of them, once."""
        taken, self.messages = self.messages, []
        return taken


@dataclass(frozen=True, slots=True)
class EndedStep:
    """Of which is still to be learned; ``held`` and ``unanswered`` as in ``OpenSession``."""

    result: StepResult
    tokens: int
    held: float
    unanswered: bool
