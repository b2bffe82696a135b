"""Tiny exact language models over bytes, for tests of the sessions: no weights, every probability is a formula.

All of them like to tell the same story, so two models with different vocabularies agree often; a hash of the recent
text makes them disagree at other places, each in its own way.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache

import torch

from drafter_service.draft_source import Path
from speculation.protocol.messages import SessionOffer
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.sessions.drafter_session import DraftToken
from speculation.text.byte_vocab import ByteVocab
from speculation.text.retokenize import retokenize

STORY = "the cat sat on the mat, 猫が座った. the dog 🐶 sat too.\n"


def byte_level_vocab(words: Sequence[str], *, single_bytes: bool = True) -> ByteVocab:
    """All single bytes, then ``words``, one special token, an end token, and padding."""
    tokens: list[bytes | None] = [bytes((b,)) for b in range(256)] if single_bytes else []
    tokens += [word.encode() for word in words]
    special, end = len(tokens), len(tokens) + 1
    tokens += [None, None, None]
    return ByteVocab(
        token_bytes=tuple(tokens),
        special={special: "<pause>", end: "<end>"},
        end_ids=(end,),
        byte_fallback=frozenset(),
    )


TARGET_VOCAB = byte_level_vocab(
    ["the", " cat", " sat", " on", " the", " mat", "猫", "が", "座", ". ", "the d", "og", " too", "🐶"]
)
DRAFTER_VOCAB = byte_level_vocab(
    ["th", "e ", "cat ", "sat ", "on ", "mat", ", ", "猫が", "った", "dog", " s", "at ", ".\n", "too", "t"]
)


class TextModel:
    """Logits [V] from the generated ids alone. ``salt`` makes models differ; ``story`` is what they like to tell."""

    def __init__(self, vocab: ByteVocab, salt: int, story: str = STORY) -> None:
        self.vocab = vocab
        self._story = story.encode()
        self.salt = salt
        self.noise = RaceNoise(vocab)
        self._logits = cache(self._compute)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[V], of the next token after these."""
        text = self.vocab.text(ids)
        zero_width = next((i for i, t in enumerate(reversed(ids)) if self.vocab.bytes_of(t)), len(ids))
        return self._logits(text[-3:] + bytes((zero_width % 256,)), len(text) % len(self._story))

    def _compute(self, context: bytes, at: int) -> torch.Tensor:
        story = self._story
        ahead = (story + story)[at:]
        rows = []
        for token in range(self.vocab.size):
            data = self.vocab.bytes_of(token)
            whim = zlib.crc32(context + token.to_bytes(2, "big"), self.salt) % 997 / 997
            likes = 7.0 + len(data) if data and ahead.startswith(data) else 0.0
            rows.append(likes + 8.0 * whim**24)
        if self.vocab.end_ids:
            rows[self.vocab.end_ids[0]] = 9.0 if at > len(story) - 4 else -3.0
        return torch.tensor(rows)


def characters(text: str) -> list[int]:
    """A tokenizer for TARGET_VOCAB and DRAFTER_VOCAB that knows only single bytes (retokenisation must cope)."""
    return list(text.encode())


def longest_words(vocab: ByteVocab) -> Callable[[str], list[int]]:
    """A greedy longest-match tokenizer for ``vocab``."""

    def encode(text: str) -> list[int]:
        data, ids, at = text.encode(), [], 0
        while at < len(data):
            token = vocab.longest_match(data, at)
            assert token is not None
            ids.append(token)
            at += len(vocab.bytes_of(token))
        return ids

    return encode


class TextModelSource:
    """The simplest right DraftSource over a TextModel: it recomputes everything."""

    def __init__(self, model: TextModel, offer: SessionOffer) -> None:
        self._model = model
        self._offer = offer
        self._text = offer.committed

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        """The path is text now; with ``text``, what the verifier has after the first ``keep`` bytes."""
        self._text += self._model.vocab.text(path)
        if text is not None:
            assert keep <= len(self._text), "a correction beyond what was drafted"
            self._text = self._text[:keep] + text

    @property
    def text(self) -> bytes:
        """All text up to the root, as far as this source knows it."""
        return self._text

    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        """For each path the likeliest next tokens, the drawn one first."""
        return [self._choices(path, zero_width, choices) for path in paths]

    def _choices(self, path: Path, zero_width: int, count: int) -> list[DraftToken]:
        vocab = self._model.vocab
        ids = retokenize(self._text, [], vocab, longest_words(vocab), limit=len(self._text) + 1)
        for byte in self._text[len(vocab.text(ids)) :]:
            ids.append(byte)
        ids += path
        stream = "race" if self._offer.rule is Rule.RACE else "drafter"
        sampler = TokenSampler(self._offer.sampling, vocab, self._model.noise, stream=stream)
        for token in ids:
            sampler.advance(token)
        logits = self._model.logits(ids)
        ranked = sampler.draw_ranked(logits, count, zero_width=None if path else zero_width)
        return [self._draft_token(token, float(torch.softmax(logits, -1)[token])) for token in ranked]

    def _draft_token(self, token: int, probability: float) -> DraftToken:
        if token in self._model.vocab.end_ids:
            return DraftToken(b"", probability, ends=True)
        text = self._model.vocab.bytes_of(token)
        return DraftToken(text, probability, stops=not text, token=token)

    def close(self) -> None:
        """Forgets the text."""
        self._text = b""
