"""Pairs of tiny vocabularies that spell the same texts differently, with Markov models over them.

Duplicates, byte fallback, special tokens, padding, tokens of one side only; small enough to enumerate every text.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from speculation.sampling.alignment import Alignment
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.string_rejection import FirstToken, Path, psi


def vocabulary(
    *texts: str | None, end: int, special: Mapping[int, str] | None = None, fallback: Collection[int] = ()
) -> ByteVocab:
    """Tokens by their text; None for ``end``, specials and padding."""
    return ByteVocab(
        tuple(None if text is None else text.encode() for text in texts),
        {end: "<end>", **(special or {})},
        (end,),
        frozenset(fallback),
    )


class MarkovModel:
    """Logits [V] from the last two bytes of the text, the count of tokens without bytes after them, and a salt."""

    def __init__(self, vocab: ByteVocab, salt: int, *, end_bias: float = -0.5) -> None:
        self.vocab = vocab
        self.noise = RaceNoise(vocab)
        self._salt = salt
        self._end_bias = end_bias
        self._rows: dict[bytes, torch.Tensor] = {}

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[V], of the next token after these."""
        zero_width = next((i for i, token in enumerate(reversed(ids)) if self.vocab.bytes_of(token)), len(ids))
        context = self.vocab.text(ids)[-2:] + bytes((zero_width,))
        if context not in self._rows:
            whims = [zlib.crc32(context + bytes((token,)), self._salt) % 1009 / 300 for token in range(self.vocab.size)]
            for token in self.vocab.end_ids:
                whims[token] += self._end_bias
            self._rows[context] = torch.tensor(whims)
        return self._rows[context]


@dataclass(frozen=True)
class TinyPair:
    """A target and a drafter, and how the drafter drafts in target tokens."""

    target: MarkovModel
    drafter: MarkovModel
    top_k: int = 3
    depth: int = 2
    _known: dict[tuple[Rule, bytes, SamplingParams], dict[int, float]] = field(default_factory=dict, compare=False)

    def draft_distribution(self, rule: Rule, text: bytes, params: SamplingParams) -> dict[int, float]:
        """q of the next target token after ``text``, which the drafter spells with its longest tokens."""
        key = rule, text, params
        if key not in self._known:
            self._known[key] = self._distribution(rule, text, params)
        return self._known[key]

    def drawing_from(self, top_k: int) -> TinyPair:
        """The same pair, its drafter cut to so many tokens."""
        return TinyPair(self.target, self.drafter, top_k, self.depth)

    def _distribution(self, rule: Rule, text: bytes, params: SamplingParams) -> dict[int, float]:
        vocab = self.drafter.vocab
        ids: list[int] = []
        done = 0
        while done < len(text):
            token = vocab.longest_match(text, done)
            assert token is not None
            ids.append(token)
            done += len(vocab.bytes_of(token))
        alignment = Alignment(vocab, self.target.vocab)
        if rule is Rule.REJECTION:
            return dict(alignment.in_target_ids(self._likeliest(ids, params, alignment.masked)))

        def next_tokens(paths: Sequence[Path]) -> list[list[tuple[int, float]]]:
            return [self._likeliest([*ids, *path], params, self._without_special) for path in paths]

        return dict(psi(next_tokens, vocab, FirstToken(self.target.vocab), depth=self.depth))

    def _without_special(self, logits: torch.Tensor) -> torch.Tensor:
        vocab = self.drafter.vocab
        kept = [bool(vocab.bytes_of(token)) or token in vocab.end_ids for token in range(vocab.size)]
        return logits.masked_fill(~torch.tensor(kept), -torch.inf)

    def _likeliest(
        self, ids: Sequence[int], params: SamplingParams, mask: Callable[[torch.Tensor], torch.Tensor]
    ) -> list[tuple[int, float]]:
        sampler = TokenSampler(params, self.drafter.vocab, self.drafter.noise)
        for token in ids:
            sampler.advance(token)
        top = sampler.log_probs(mask(self.drafter.logits(ids))).double().topk(self.top_k)
        shares = torch.softmax(top.values, 0).tolist()
        return [(token, share) for token, share in zip(top.indices.tolist(), shares, strict=True) if share > 0]


def true_sequences(
    model: MarkovModel,
    params: SamplingParams,
    length: int,
    *,
    stop_at_end: bool = True,
    allowed: Callable[[bytes], Sequence[bool]] | None = None,
) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of ``length`` tokens (fewer if it ends before), by the definition.

    ``allowed``: which tokens may follow a text, others have no share in the model's distribution.
    """
    sequences: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for ids, share in sequences.items():
            if stop_at_end and ids and ids[-1] in model.vocab.end_ids:
                longer[ids] = share
                continue
            sampler = TokenSampler(params, model.vocab, model.noise)
            for token in ids:
                sampler.advance(token)
            logits = model.logits(ids)
            if allowed is not None:
                logits = logits.masked_fill(~torch.tensor(allowed(model.vocab.text(ids))), -torch.inf)
            for token, p in enumerate(sampler.probabilities(logits).tolist()):
                if p > 0:
                    longer[*ids, token] = share * p
        sequences = longer
    return sequences


# Other tokenisations of the same texts, another order, and an end of its own.
WORDS = TinyPair(
    MarkovModel(vocabulary("a", "b", "ab", None, end=3), 1), MarkovModel(vocabulary("ba", None, "b", "a", end=1), 2)
)
# A duplicate and a byte-fallback double on both sides, a pause, padding.
DOUBLES = TinyPair(
    MarkovModel(
        vocabulary("a", "\n", None, "a", None, "b", "\n", None, end=2, special={4: "<pause>"}, fallback=(6,)), 3
    ),
    MarkovModel(vocabulary("b", "\n", "a", "a", None, "\n", "aa", None, end=4, special={7: "<x>"}, fallback=(1,)), 4),
    top_k=5,
)
# One vocabulary, of which the drafter's copy is padded.
SAME = TinyPair(
    MarkovModel(vocabulary("a", "b", None, "ab", None, end=2, special={4: "<pause>"}), 5),
    MarkovModel(vocabulary("a", "b", None, "ab", None, None, None, end=2, special={4: "<pause>"}), 6),
    top_k=4,
)
PAIRS = {"words": WORDS, "doubles": DOUBLES, "same": SAME}
# What is left of a cut "ab" and the next draft "a" would be spelled as one "ba".
CROSSING = TinyPair(
    MarkovModel(vocabulary("a", "b", "ab", "ba", None, end=4), 1, end_bias=-9.0),
    MarkovModel(vocabulary("a", "b", "ab", "ba", None, end=4), 2, end_bias=-9.0),
    top_k=2,
)
