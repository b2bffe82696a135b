"""Drafting under string-rejection: target tokens, each drawn from psi, the sum over all its tokenisations.

A target token may take several of the model's own, so handles are places in ``_drafted``. A draft is one chain: each
branch would take an enumeration of its own.

The enumeration runs the model behind each of its likeliest tokens; where the token that is drawn is one of them, the
next enumeration begins with what that gave, and the model need not be run on it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from drafter_service.draft_source import Path
from drafter_service.kept_caches import KeptCaches
from drafter_service.model_draft_source import LOOK_BACK_TOKENS
from drafter_service.proposing_source import ProposingSource
from drafter_service.target_vocabularies import TargetView
from speculation.protocol.messages import SessionOffer
from speculation.sampling.race import RaceNoise
from speculation.sessions.drafter_session import DraftToken
from speculation.shared_length import shared_length
from speculation.verification.string_rejection import DEPTH, check_enumeration, psi


class StringProposingSource(ProposingSource):
    """Drafts target tokens with psi, summed over the drafter's tokenisations of each."""

    #: At each of DEPTH levels.
    TOP_K = 16

    def __init__(self, kept: KeptCaches, noise: RaceNoise, offer: SessionOffer, view: TargetView) -> None:
        self._drafted: list[tuple[int, ...]] = []
        #: The tokens that the cache began with when it was last longer; the enumeration's own come after them.
        self.run_ids: list[int] = []
        #: Of the last enumeration: the logits behind each token that the model was run on.
        self._behind: dict[Path, Tensor] = {}
        super().__init__(kept, noise, offer, view)
        self.run_ids = self.context_ids[: self.cached_tokens]

    @property
    def cached_ids(self) -> Sequence[int]:
        return self.run_ids

    def _check(self) -> None:
        check_enumeration(self._top_k)

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        for token in self.own_tokens(path):
            self.append(token)
        if text is not None:
            self._drop_tree()
            self._correct(keep, text)

    @torch.inference_mode()
    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        return [[self._next(self.own_tokens(path), 0 if path else zero_width)] for path in paths]

    def own_tokens(self, path: Path) -> list[int]:
        return [token for handle in path for token in self._drafted[handle]]

    def _next(self, tokens: list[int], zero_width: int) -> DraftToken:
        """Draw after ``tokens``, which follow the root."""
        if len(self._prompt) + len(self._ids) + len(tokens) + DEPTH >= self.model.context_length:
            return DraftToken(b"", stops=True)
        self.advance(tokens)
        proposal = self._draw(self.distribution(tokens), zero_width)
        self._sampler.truncate(len(self._ids))
        return self._drawn_token(proposal, tokens) if proposal is not None else DraftToken(b"", stops=True)

    @torch.inference_mode()
    def distribution(self, tokens: Sequence[int] = ()) -> Mapping[int, float]:
        logits = self.logits_after(tokens)
        context = len(self._sampler.tokens)

        def next_tokens(paths: Sequence[Path]) -> list[list[tuple[int, float]]]:
            rows = self.logits_in_tree(paths) if paths[0] else [logits]
            self._behind |= zip(paths, rows, strict=True)
            found = []
            for path, row in zip(paths, rows, strict=True):
                self.advance(path)
                special = self.view.without_text.to(row.device)
                found.append(self.likeliest(row.index_fill(0, special, -torch.inf)))
                self._sampler.truncate(context)
            return found

        shares = psi(next_tokens, self._vocab, self.view.first)
        # Nothing is drawn that could not be drafted on from: a drafter must not stop because of what it drew.
        return {token: share for token, share in shares.items() if self.view.can_spell(token)}

    @property
    def joins_passes(self) -> bool:
        return False  # each of its draws takes many passes, whose rows follow from those before

    def logits_in_tree(self, paths: Sequence[Path]) -> Tensor:
        """After each path, whose last token is run now; those before it are in the cache. [len(paths), V]."""
        logits = self._tree(paths).run(self.model)
        self.was_run(paths)
        return logits

    def _handle(self, target_id: int, text: bytes, tokens: Sequence[int]) -> int:
        behind = [*self.context_ids, *tokens][-2 * LOOK_BACK_TOKENS :]
        self._drafted.append(tuple(self._spell(text, behind)))
        return len(self._drafted) - 1

    def logits_after(self, tokens: Sequence[int]) -> Tensor:
        """Of the token after prompt, text and ``tokens``; what of these was run already is not run again."""
        context = [*self.context_ids, *tokens]
        known = len(self.run_ids)
        onward, goes_on = tuple(context[known : known + 1]), context[:known] == self.run_ids
        if goes_on and onward in self._rows:
            self._cache.keep_rows(self.base, [self._rows[onward]])
            self._rows.clear()
            self.run_ids = context[: known + 1]
        behind, self._behind = self._behind, {}
        if goes_on and onward in behind and len(context) == len(self.run_ids) == self._cache.length:
            return behind[onward]
        self._drop_tree()
        held = self.run_ids[: self._cache.length]
        self._roll_back_to(min(shared_length(held, context), len(context) - 1))
        self.run_ids = context
        *missing, last = context[self._cache.length :]
        if missing:
            self.model.prefill(missing, self._cache)
        return self.model.forward([last], self._cache)[-1]
