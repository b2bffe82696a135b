"""Verification of one session's steps: its rule, with the sampler that draws the target's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from speculation.protocol.session_request import SessionRequest
from speculation.sampling.noise import next_place
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import Draw, RowsToDraw
from speculation.sampling.sampler import TokenSampler
from speculation.sampling.warpers import counts_matter
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
        self._settings = replace(sampler.params, seed=0)
        self._counts_matter = counts_matter(sampler.params)

    @classmethod
    def of(cls, request: SessionRequest, vocab: ByteVocab, noise: RaceNoise) -> DraftVerifier:
        """For a session that begins. Draws are made on the device of ``noise``."""
        stream = target_stream(request.rule)
        sampler = TokenSampler(request.sampling, vocab, noise, prompt_ids=request.prompt_ids, stream=stream)
        return cls(request.rule, sampler)

    def rows_to_draw(self, step: Step) -> RowsToDraw | None:
        """What has to be known to draw all rows of the step at once; None under a rule that needs p itself."""
        if self._rule.proposes:
            return None
        sampler, candidates = self._sampler, step.candidates
        places = [(sampler.offset, sampler.zero_width)]
        paths: list[tuple[int, ...]] = [()] if self._counts_matter else []
        for token, parent in zip(candidates.tokens, candidates.parents, strict=True):
            places.append(next_place(*places[parent + 1], sampler.vocab.bytes_of(token)))
            if self._counts_matter:
                paths.append((*paths[parent + 1], token))
        return RowsToDraw(
            settings=self._settings,
            seed=sampler.params.seed,
            stream=sampler.stream,
            places=tuple(places),
            counts=sampler.counts,
            paths=tuple(paths),
            prompt_ids=sampler.prompt_ids,
        )

    def verify_draws(self, step: Step, draws: Sequence[Draw]) -> Acceptance:
        """From the draws of all rows. Raises ModelError if the logits of one that counts were not usable."""
        return accept_draws(draws, step.candidates, self._sampler, max_tokens=step.max_tokens)

    def verify(self, step: Step, logits: Tensor) -> Acceptance:
        """``logits``: [1 + candidates, V] float32. Raises ModelError if they are not usable."""
        sampler, room = self._sampler, step.max_tokens
        return accept(self._rule, logits, step.candidates, step.proposals, sampler, max_tokens=room)
