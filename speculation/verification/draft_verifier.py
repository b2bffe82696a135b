"""Verification of one session's steps: its rule, with the sampler that draws the target's tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speculation.guide import Guide
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import Draw, RowsToDraw
from speculation.sampling.sampler import LogitsProcessor, TokenSampler
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.rules import accept, accept_draws, target_stream
from speculation.verification.step import Acceptance, Step


class DraftVerifier:
    """From the logits of a session's steps, in their order, to what they commit.

    The sampler holds the place in the text and the counts of what was committed; its stream must be the rule's.
    """

    def __init__(self, rule: Rule, sampler: TokenSampler) -> None:
        self._rule = rule
        self._sampler = sampler

    @classmethod
    def of(
        cls,
        request: SessionRequest,
        vocab: ByteVocab,
        noise: RaceNoise,
        *,
        guide: Guide | None = None,
        processor: LogitsProcessor | None = None,
    ) -> DraftVerifier:
        """For a session that begins. Draws are made on the device of ``noise``. ``guide``: what the text is held to.
        ``processor``: of the caller; it does what the request's settings ask for, all but the draw."""
        sampling = request.sampling
        if processor is not None:
            sampling = SamplingParams(temperature=0.0 if sampling.greedy else 1.0, seed=sampling.seed)
        sampler = TokenSampler(
            params=sampling,
            vocab=vocab,
            noise=noise,
            prompt_ids=request.prompt_ids,
            stream=target_stream(request.rule),
            guide=guide,
            processor=processor,
        )
        return cls(request.rule, sampler)

    def rows_to_draw(self, step: Step) -> RowsToDraw | None:
        """What has to be known to draw all rows of the step at once; None under a rule that needs p itself, and where
        each draw waits for the one before it."""
        if self._rule.proposes or self._sampler.draws_one_by_one:
            return None
        tree = step.candidates
        paths: list[tuple[int, ...]] = [()]
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            paths.append((*paths[parent + 1], token))
        return self._sampler.rows_after(paths)

    def verify_draws(self, step: Step, draws: Sequence[Draw]) -> Acceptance:
        """From the draws of all rows. Raises ModelError if the logits of one that counts were not usable."""
        return accept_draws(draws, step.candidates, self._sampler, max_tokens=step.max_tokens)

    def verify(self, step: Step, logits: Tensor) -> Acceptance:
        """``logits``: [1 + candidates, V] float32. Raises ModelError if they are not usable."""
        sampler, room = self._sampler, step.max_tokens
        return accept(self._rule, logits, step.candidates, step.proposals, sampler, max_tokens=room)
