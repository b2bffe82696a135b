"""What a client that watches is told of a verify step, beside its text."""

from __future__ import annotations

from speculation.drafts.candidates import ROOT
from speculation.protocol.generation import VerifyStep
from speculation.protocol.messages import SpeculationPlan
from speculation.source import SourceKind
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.step import Acceptance, Step


def told_step(
    step: Step, acceptance: Acceptance, *, committed: int, plan: SpeculationPlan, vocab: ByteVocab
) -> VerifyStep:
    """``committed``: tokens that the text got of the accepted ones and the bonus token; a stop string may have cut it.
    ``plan``: that the step was made by. The round trip is not known here. What was recycled is not shown where it was
    rejected: it may come from another text."""
    candidates, path = step.candidates, acceptance.path
    rejected = candidates.beyond(path[-1] if path else ROOT, without=SourceKind.RECYCLED)
    return VerifyStep(
        draft_tokens=len(candidates),
        accepted_tokens=min(len(path), committed),
        positions=candidates.depth,
        plan=plan,
        rejected=vocab.text([candidates.tokens[node] for node in rejected]),
        rejected_source=candidates.sources[rejected[0]].kind if rejected else None,
    )
