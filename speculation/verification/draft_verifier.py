"""Verification of one session's steps: its rule, with the sampler that draws the target's tokens."""

from __future__ import annotations

from torch import Tensor

from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.rules import accept, target_stream
from speculation.verification.step import Acceptance, Step


class DraftVerifier:
    """From the logits of a session's steps, in their order, to what they commit.

    The sampler holds the place in the text and the counts of what was committed; its stream must be the rule's.
    """

    def __init__(self, rule: Rule, sampler: TokenSampler) -> None:
        self._rule = rule
        self._sampler = sampler

    @classmethod
    def of(cls, request: SessionRequest, vocab: ByteVocab, noise: RaceNoise) -> DraftVerifier:
        """For a session that begins. Draws are made on the device of ``noise``."""
        stream = target_stream(request.rule)
        sampler = TokenSampler(request.sampling, vocab, noise, prompt_ids=request.prompt_ids, stream=stream)
        return cls(request.rule, sampler)

    def verify(self, step: Step, logits: Tensor) -> Acceptance:
        """``logits``: [1 + candidates, V] float32. Raises ModelError if they are not usable."""
        sampler, room = self._sampler, step.max_tokens
        return accept(self._rule, logits, step.candidates, step.proposals, sampler, max_tokens=room)
