"""Drafting in the target's tokens: each comes with the distribution that it was drawn from (rejection rules).

The model is only ever run on its own tokens; the restriction to tokens that the target has too happens on its logits.
So each draft token is one of the model's own, and the tree grows in batches as under the other rules. Beside the token
that was drawn it has the likeliest others as alternatives, which are text like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from drafter_service.draft_source import Path
from drafter_service.kept_caches import KeptCaches
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.target_vocabularies import TargetView
from speculation.errors import SessionError
from speculation.protocol.messages import SessionOffer
from speculation.protocol.proposal import Proposal, propose
from speculation.sampling.noise import place_bits
from speculation.sampling.race import RaceNoise
from speculation.sessions.drafter_session import DraftToken
from speculation.verification.rejection import draft_stream


class ProposingSource(ModelDraftSource):
    """Drafts tokens of the target's vocabulary, each with the distribution that it was drawn from."""

    #: How many of the likeliest tokens are drawn from, where the plan leaves it to the rule.
    TOP_K = 256
    RANKS_ROWS = False

    def __init__(self, kept: KeptCaches, noise: RaceNoise, offer: SessionOffer, view: TargetView) -> None:
        self._offer = offer
        self.view = view
        self._top_k = offer.plan.top_k or self.TOP_K
        self._attempts: Counter[tuple[int, int]] = Counter()
        self._check()
        super().__init__(kept, noise, offer)

    def _check(self) -> None:
        """Raises SessionError if this drafter cannot draft for this target."""
        if not self.view.alignment.common:
            raise SessionError("the drafter has no token in common with the target", remedy="use the rule race")

    def _choices(self, path: Path, logits: Tensor, zero_width: int, count: int) -> list[DraftToken]:
        """What is drawn after ``path``, and the likeliest others.

        By likelihood alone: they are there for what the target draws without this draft, or after its rejection.
        """
        self.advance(path)
        drawn = self._draw(self._common(logits), 0 if path else zero_width)
        self._sampler.truncate(len(self._ids))
        if drawn is None:
            return [DraftToken(b"", stops=True)]
        shares = sorted(zip(drawn.weights, drawn.ids, strict=True), reverse=True)
        others = [(token, weight / drawn.total) for weight, token in shares[:count] if token != drawn.token]
        target, own = self.view.alignment.target, self.view.alignment.drafter_id
        alternatives = [DraftToken(target.bytes_of(token), share, token=own(token)) for token, share in others]
        return [self._drawn_token(drawn, path), *alternatives[: count - 1]]

    def _draw(self, q: Mapping[int, float], zero_width: int) -> Proposal | None:
        """Where the sampler stands. Another draw at that place, for another branch or after a correction, has noise of
        its own."""
        place = self._sampler.offset, zero_width
        stream = draft_stream(self._offer.number, self._attempts[place])
        self._attempts[place] += 1
        return propose(q, place_bits(self._offer.sampling.seed, *place, stream))

    def _drawn_token(self, proposal: Proposal, tokens: Sequence[int]) -> DraftToken:
        """What was drawn after the model's own ``tokens``, which follow the root.

        Its confidence is a figure of the distribution, not of what was drawn: it decides what is sent and verified.
        """
        target = self.view.alignment.target
        confidence = max(proposal.weights) / proposal.total
        text = target.bytes_of(proposal.token)
        if text:
            return DraftToken(text, confidence, token=self._handle(proposal.token, text, tokens), proposal=proposal)
        ends = proposal.token in target.end_ids
        return DraftToken(b"", confidence, ends=ends, stops=not ends, proposal=proposal)

    def own_tokens(self, path: Path) -> list[int]:
        """The model's own tokens of a path."""
        return list(path)

    def _handle(self, target_id: int, text: bytes, tokens: Sequence[int]) -> int:
        """By which a path names a drawn token."""
        return self.view.alignment.drafter_id(target_id)

    @torch.inference_mode()
    def distribution(self, tokens: Sequence[int] = ()) -> Mapping[int, float]:
        """Target id -> probability after own ``tokens``, with which the sampler has advanced; not rounded yet.

        No branch is left.
        """
        return self._common(self.logits_after(tokens))

    @torch.inference_mode()
    def probabilities(self, *, common: bool = False) -> Tensor:
        """The model's own distribution at the root: float64 [V]. ``common``: over the tokens the target has too."""
        logits = self.logits_after(())
        return self._sampler.probabilities(self.view.alignment.masked(logits) if common else logits)

    def _common(self, logits: Tensor) -> Mapping[int, float]:
        """The likeliest of the tokens that the target has too: target id -> probability."""
        return self.view.alignment.in_target_ids(self.likeliest(self.view.alignment.masked(logits)))

    def likeliest(self, logits: Tensor) -> list[tuple[int, float]]:
        """The top K of the drafter's tokens with their probabilities, which add up to 1."""
        top = self._sampler.log_probs(logits).double().topk(min(self._top_k, len(logits)))
        shares = torch.softmax(top.values, 0).tolist()
        return [(token, share) for token, share in zip(top.indices.tolist(), shares, strict=True) if share > 0]

    def advance(self, tokens: Sequence[int]) -> None:
        """The sampler goes on by own tokens, until it is set back."""
        for token in tokens:
            self._sampler.advance(token)

    def logits_after(self, tokens: Sequence[int]) -> Tensor:
        """Of the token after prompt, text and ``tokens``, which the cache then holds no longer."""
        logits = self._logits_at_root()
        if tokens:
            logits = self.model.forward(tokens, self._cache)[-1]
            self._cache.rollback(len(tokens))
        return logits
