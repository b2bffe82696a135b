"""Drafting in the target's tokens: each comes with the distribution that it was drawn from (rejection rules).

A draft is one chain, no branches. Handles are places in ``_drafted``, since one target token may take several of the
model's own. The model is only ever run on its own tokens; the restriction to common tokens happens on its logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from drafter_service.draft_source import Path
from drafter_service.model_draft_source import LOOK_BACK_TOKENS, ModelDraftSource
from drafter_service.target_vocabularies import TargetView
from language_models.causal_lm import CausalLM
from speculation.drafter_session import DraftToken
from speculation.errors import SessionError
from speculation.messages import SessionOffer
from speculation.proposal import Proposal, propose
from speculation.race import RaceNoise, place_bits
from speculation.rejection import draft_stream
from speculation.sampling import Rule
from speculation.string_rejection import DEPTH, check_enumeration, psi

#: How many of the likeliest tokens are drawn from, where the plan leaves it to the rule. Under string-rejection of the
#: drafter's own tokens, at each of DEPTH levels.
TOP_K: Mapping[Rule, int] = {Rule.REJECTION: 256, Rule.STRING_REJECTION: 16}


class ProposingSource(ModelDraftSource):
    """See the module."""

    def __init__(self, model: CausalLM, noise: RaceNoise, offer: SessionOffer, view: TargetView) -> None:
        self._offer = offer
        self._view = view
        self._top_k = offer.plan.top_k or TOP_K[offer.rule]
        self._drafted: list[tuple[int, ...]] = []
        self._attempts: Counter[tuple[int, int]] = Counter()
        self._run: list[int] = []  # the tokens that the cache began with when it was last longer
        if offer.rule is Rule.STRING_REJECTION:
            check_enumeration(self._top_k)
        elif not view.alignment.common:
            raise SessionError(f"{model.name} has no token in common with the target", remedy="use the rule race")
        super().__init__(model, noise, offer)

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        for token in self._own_tokens(path):
            self._append(token)
        if text is not None:
            self._correct(keep, text)

    @torch.inference_mode()
    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        return [[self._next(self._own_tokens(path), 0 if path else zero_width)] for path in paths]

    def _own_tokens(self, path: Path) -> list[int]:
        return [token for handle in path for token in self._drafted[handle]]

    def _next(self, tokens: list[int], zero_width: int) -> DraftToken:
        """Draw after ``tokens``, which follow the root."""
        if len(self._prompt) + len(self._ids) + len(tokens) + DEPTH >= self._model.context_length:
            return DraftToken(b"", stops=True)
        self._advance(tokens)
        place = self._sampler.offset, zero_width
        q = self.distribution(tokens)
        self._sampler.truncate(len(self._ids))
        # Another draw at this place, for another branch or after a correction, has noise of its own.
        stream = draft_stream(self._offer.number, self._attempts[place])
        self._attempts[place] += 1
        proposal = propose(q, place_bits(self._offer.sampling.seed, *place, stream))
        return self._draft_token(proposal, tokens) if proposal is not None else DraftToken(b"", stops=True)

    @torch.inference_mode()
    def distribution(self, tokens: Sequence[int] = ()) -> Mapping[int, float]:
        """Target id -> probability after ``tokens``, with which the sampler has advanced; not rounded yet."""
        logits = self._logits_after(tokens)
        if self._offer.rule is Rule.REJECTION:
            return self._view.alignment.in_target_ids(self._likeliest(self._view.alignment.masked(logits)))
        context = len(self._sampler.tokens)

        def next_tokens(paths: Sequence[Path]) -> list[list[tuple[int, float]]]:
            rows = self._logits_in_tree(paths) if paths[0] else [logits]
            found = []
            for path, row in zip(paths, rows, strict=True):
                self._advance(path)
                special = self._view.without_text.to(row.device)
                found.append(self._likeliest(row.index_fill(0, special, -torch.inf)))
                self._sampler.truncate(context)
            return found

        try:
            shares = psi(next_tokens, self._vocab, self._view.first)
            # Nothing is drawn that could not be drafted on from: a drafter must not stop because of what it drew.
            return {token: share for token, share in shares.items() if self._view.can_spell(token)}
        finally:
            self._drop_tree()

    @torch.inference_mode()
    def probabilities(self, *, common: bool = False) -> Tensor:
        """The model's own distribution at the root: float64 [V]. ``common``: over the tokens the target has too."""
        logits = self._logits_after(())
        return self._sampler.probabilities(self._view.alignment.masked(logits) if common else logits)

    def _likeliest(self, logits: Tensor) -> list[tuple[int, float]]:
        """The top K of the drafter's tokens with their probabilities, which add up to 1."""
        top = self._sampler.log_probs(logits).double().topk(min(self._top_k, len(logits)))
        shares = torch.softmax(top.values, 0).tolist()
        return [(token, share) for token, share in zip(top.indices.tolist(), shares, strict=True) if share > 0]

    def _draft_token(self, proposal: Proposal, tokens: list[int]) -> DraftToken:  # type: ignore[override]
        target = self._view.alignment.target
        confidence = max(proposal.weights) / proposal.total
        text = target.bytes_of(proposal.token)
        if not text:
            ends = proposal.token in target.end_ids
            return DraftToken(b"", confidence, ends=ends, stops=not ends, proposal=proposal)
        if self._offer.rule is Rule.REJECTION:
            own: tuple[int, ...] = (self._view.alignment.drafter_id(proposal.token),)
        else:
            own = tuple(self._spell(text, (self._prompt + self._ids + tokens)[-2 * LOOK_BACK_TOKENS :]))
        self._drafted.append(own)
        return DraftToken(text, confidence, token=len(self._drafted) - 1, proposal=proposal)

    def _advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._sampler.advance(token)

    def _logits_after(self, tokens: Sequence[int]) -> Tensor:
        """Of the token after prompt, text and ``tokens``; what of these the cache holds already is not run again."""
        context = [*self._prompt, *self._ids, *tokens]
        known = self._run[: self._cache.length]
        shared = next((i for i, (a, b) in enumerate(zip(known, context, strict=False)) if a != b), len(known))
        self._roll_back_to(min(shared, len(context) - 1))
        *missing, last = context[self._cache.length :]
        if missing:
            self._model.prefill(missing, self._cache)
        self._run = context
        return self._model.forward([last], self._cache)[-1]
