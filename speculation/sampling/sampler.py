"""What drawing a text's next token needs to remember: the place in the text, and what was generated.

A draw depends on (logits, settings, seed, place, counts) and on nothing else: not on how many draws were made, in
what batch, or after how many retries. So the same text gives the same draw wherever and whenever it is made.

Invariant: ``offset`` is the number of bytes of ``tokens``; ``zero_width`` is how many of the last of them add none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from speculation.errors import ModelError
from speculation.guide import Guide
from speculation.sampling.mask import allowed_rows
from speculation.sampling.noise import RACE_STREAM, next_place, place_uniform
from speculation.sampling.params import SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import RowsToDraw
from speculation.sampling.warpers import check_top, counts_matter, penalise, warp, warp_rows
from speculation.text.byte_vocab import ByteVocab

#: (tokens generated so far, logits [V], not to be changed) -> logits [V] to draw from. Called once for each draw, in
#: the order of the text.
LogitsProcessor = Callable[[Sequence[int], Tensor], Tensor]


class TokenSampler:
    """Draws one session's tokens. ``stream``: see ``RaceNoise.gumbel``; target and drafter share it in a race.

    ``guide``: draws nothing else than what it allows; it is told what the text goes on with. ``processor``: of the
    caller, before everything else.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab: ByteVocab,
        noise: RaceNoise,
        *,
        prompt_ids: Sequence[int] = (),
        stream: str = RACE_STREAM,
        guide: Guide | None = None,
        processor: LogitsProcessor | None = None,
    ) -> None:
        self.params = params
        self.vocab = vocab
        self.stream = stream
        self._settings = replace(params, seed=0)
        self._counts_matter = counts_matter(params)
        self._noise = noise
        self._guide = guide
        self._processor = processor
        self._device = noise.device
        self._prompt_ids: Tensor | None = None
        if params.repetition_penalty != 1:
            self._prompt_ids = torch.tensor(sorted(set(prompt_ids)), dtype=torch.int64, device=self._device)
        self._padding = torch.tensor(vocab.padding_ids, dtype=torch.int64, device=self._device)
        self._tokens: list[int] = []
        self._counts: Counter[int] = Counter()
        self._places: list[tuple[int, int]] = [(0, 0)]  # (offset, zero_width) before each token, and now

    @property
    def tokens(self) -> tuple[int, ...]:
        """Generated so far."""
        return tuple(self._tokens)

    @property
    def draws_one_by_one(self) -> bool:
        """Whether a row can only be drawn when the text has come to it: a processor of the caller may remember."""
        return self._processor is not None

    def rows_after(self, paths: Sequence[tuple[int, ...]], *, zero_width: int | None = None) -> RowsToDraw:
        """All that the draws behind these paths need beside logits. ``zero_width``: see ``draw``; for an empty path."""
        known: dict[tuple[int, ...], tuple[int, int]] = {(): self._places[-1]}
        for path in paths:  # those that begin others mostly come first
            for length in range(1, len(path) + 1):
                if path[:length] not in known:
                    known[path[:length]] = next_place(*known[path[: length - 1]], self.vocab.bytes_of(path[length - 1]))
        places = [known[path] for path in paths]
        if zero_width is not None:
            places = [
                (offset, count if path else zero_width) for (offset, count), path in zip(places, paths, strict=True)
            ]
        return RowsToDraw(
            settings=self._settings,
            seed=self.params.seed,
            stream=self.stream,
            places=tuple(places),
            counts=self._counts,
            paths=tuple(paths) if self._counts_matter else (),
            prompt_ids=self._prompt_ids,
            masks=tuple(self._guide.masks(paths)) if self._guide is not None else (),
        )

    @property
    def offset(self) -> int:
        """Bytes generated so far."""
        return self._places[-1][0]

    @property
    def zero_width(self) -> int:
        """Tokens at the end of the text that added no bytes."""
        return self._places[-1][1]

    def advance(self, token: int) -> None:
        """The text goes on with ``token``."""
        self._places.append(next_place(*self._places[-1], self.vocab.bytes_of(token)))
        self._tokens.append(token)
        if self._counts_matter:
            self._counts[token] += 1
        if self._guide is not None:
            self._guide.advance(token)

    def truncate(self, n_tokens: int) -> None:
        """Go back to the first ``n_tokens`` generated tokens. Not with a guide, which only goes on."""
        assert self._guide is None
        if self._counts_matter:
            self._counts.subtract(self._tokens[n_tokens:])
            self._counts = +self._counts  # without those that are down to none
        del self._tokens[n_tokens:], self._places[n_tokens + 1 :]

    def draw(self, logits: Tensor, *, zero_width: int | None = None) -> int:
        """The next token by ``logits`` [V]; padding is never drawn. The sampler does not advance.

        ``zero_width`` overrides the own count: a drafter learns the target's from its verdicts.
        Raises ModelError if the logits are not usable.
        """
        scores = self._scores(logits, zero_width)
        best = int(scores.argmax())  # the first of equals
        if self.params.greedy:
            check_top(scores, best)
        return best

    def draw_ranked(self, logits: Tensor, count: int, *, zero_width: int | None = None) -> list[int]:
        """What ``draw`` draws, then those that it would have drawn without it; at most ``count`` possible tokens."""
        best = self.draw(logits, zero_width=zero_width)
        if count == 1:
            return [best]
        scores = self._scores(logits, zero_width).clone()
        scores[best] = -torch.inf
        runners_up = torch.topk(scores, min(count - 1, len(scores) - 1))
        possible = zip(runners_up.indices.tolist(), runners_up.values.tolist(), strict=True)
        return [best, *(token for token, score in possible if score > -torch.inf)]

    def _scores(self, logits: Tensor, zero_width: int | None) -> Tensor:
        """[V]; the highest is drawn. Greedy: penalised logits; else the race: log p(v) + G_v over the support of p."""
        scores = penalise(self._possible(logits), self.params, prompt_ids=self._prompt_ids, generated=self._counts)
        if self.params.greedy:
            return scores
        # The logarithm of p but for a constant, which changes no race.
        scores = warp_rows(scores[None], check_top(scores, int(scores.argmax())), self.params)[0]
        zero_width = self.zero_width if zero_width is None else zero_width
        possible = scores.isfinite()
        support = None if possible.all() else possible.nonzero().squeeze(-1)
        noise = self._noise.gumbel(self.params.seed, self.offset, zero_width, stream=self.stream, ids=support)
        if support is None:
            return scores + noise
        race = torch.full(scores.shape, -torch.inf, dtype=noise.dtype, device=noise.device)
        return race.index_put_((support,), scores[support] + noise)

    def log_probs(self, logits: Tensor) -> Tensor:
        """The distribution that ``draw`` draws from: log-probabilities [V], float32."""
        logits = self._possible(logits)
        return warp(logits, self.params, prompt_ids=self._prompt_ids, generated=self._counts)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The same as probabilities: float64 [V] whose sum is 1 to the last place."""
        p = self.log_probs(logits).double().exp_()
        return p.div_(p.sum())

    def happens(self, probability: float, stream: str) -> bool:
        """True with that probability; one decision for each place and ``stream``."""
        return place_uniform(self.params.seed, self.offset, self.zero_width, stream) < probability

    def draw_from(self, weights: Tensor, stream: str) -> int:
        """A token with probability proportional to ``weights`` [V] (not negative, one of them above 0)."""
        support = weights.nonzero().squeeze(-1)
        noise = self._noise.gumbel(self.params.seed, self.offset, self.zero_width, stream=stream, ids=support)
        return int(support[(weights[support].log() + noise).argmax()])

    def _possible(self, logits: Tensor) -> Tensor:
        """As the processor leaves them, without padding, and what the guide does not allow."""
        if self._processor is not None:
            logits = self._processor(self.tokens, logits)
        if logits.shape != (self.vocab.size,):
            raise ModelError(f"logits of shape {tuple(logits.shape)} for a vocabulary of {self.vocab.size} tokens")
        logits = logits.to(self._device)
        if self._padding.numel():
            logits = logits.index_fill(0, self._padding, -torch.inf)
        if self._guide is not None:
            allowed = allowed_rows(self._guide.masks([()]), self.vocab.size, self._device)[0]
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits
