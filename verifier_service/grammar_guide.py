"""A guide by llguidance (Earley parsing over the vocabulary's trie; https://github.com/guidance-ai/llguidance, MIT).

Two matchers follow the text. The one that makes the masks does not force: it allows every spelling of what may come, so
that a mask depends on the bytes before it alone, and the text's distribution is the model's own, restricted. The other
says which bytes are the only ones possible; they are a draft like any other.

What the end token does to a matcher cannot be rolled back, so it is never told of one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from llguidance import LLMatcher

from speculation.errors import SessionError
from speculation.guide import Forced, Path
from speculation.shared_length import shared_length
from speculation.text.byte_vocab import ByteVocab

#: Of the processor, for the rows of one step: others wait meanwhile. Mostly it takes less than a millisecond.
MASK_SECONDS: Final = 2.0
#: Of the processor, for what is forced; beyond it a text goes on without.
FORCED_SECONDS: Final = 0.1
#: As far as a draft looks ahead.
FORCED_BYTES: Final = 512


class GrammarGuide:
    """See ``speculation.guide.Guide``. ``matcher``: without forcing, ``forcing``: with it, None where what is forced is
    not to be known; both at the beginning. ``spoken``: see ``spoken_tokens``."""

    def __init__(self, matcher: LLMatcher, forcing: LLMatcher | None, vocab: ByteVocab, *, spoken: int) -> None:
        self._matcher = matcher
        self._fresh = matcher.deep_copy()
        self._written: list[int] = []
        #: Of drafts that led to a limit of the parser: the text must not go there, and it is none of its business yet.
        self._limits: set[Path] = set()
        self._forcing = forcing
        self._vocab = vocab
        self._over = False
        self._spoken = spoken
        self._ends = _bits(vocab.end_ids, _size(vocab))

    def fresh(self) -> GrammarGuide:
        """Another one, at its beginning, with what this one has found out. Only of one that was not advanced."""
        assert not self._written and not self._over
        forcing = None if self._forcing is None else self._forcing.deep_copy()
        return GrammarGuide(self._matcher.deep_copy(), forcing, self._vocab, spoken=self._spoken)

    def advance(self, token: int) -> None:
        """Raises SessionError for one that is not allowed."""
        if token in self._vocab.end_ids:
            self._over = True
        elif self._over or self._matcher.validate_tokens([token]) != 1 or not self._matcher.consume_token(token):
            raise self._lost()
        else:
            self._written.append(token)
            self._limits = {path[1:] for path in self._limits if path[0] == token}
            if () in self._limits:
                raise self._lost()
            self._force(token)

    def _force(self, token: int) -> None:
        if self._forcing is not None and not self._forcing.consume_token(token):
            self._forcing = None  # its limits: the text goes on without what it knew

    def masks(self, paths: Sequence[Path]) -> list[bytes]:
        """Raises SessionError where the text has reached the matcher's limits. A draft that does harms only itself."""
        began = time.thread_time()
        found: list[bytes] = []
        at: Path = ()
        for path in paths:  # those that begin others mostly come first
            common = shared_length(at, path)
            self._matcher.rollback(len(at) - common)
            at = path[:common]
            mask = b""
            if not self._over and self._go(path[common:]):
                at = path
                mask = self._mask()
            if self._matcher.is_error() or (at == path and not mask and not self._over):
                if not path:
                    raise self._lost()
                self._begin_again()
                self._limits.add(path)
                at, mask = (), b""
            found.append(mask or self._ends)
            if time.thread_time() - began > MASK_SECONDS:
                problem = f"the guide takes longer than {MASK_SECONDS:.0f} s of a step"
                raise SessionError(problem, remedy="make it simpler")
        self._matcher.rollback(len(at))
        return found

    def fits(self, path: Path) -> bool:
        """See ``speculation.guide.Guide``. The end token only as the last."""
        if path and path[-1] in self._vocab.end_ids:
            [mask] = self.masks([path[:-1]])
            return (
                path[:-1] not in self._limits and self.fits(path[:-1]) and bool(mask[path[-1] // 8] >> path[-1] % 8 & 1)
            )
        if self._over:
            return False
        allowed = self._matcher.validate_tokens(list(path)) == len(path)
        if self._matcher.is_error():
            self._begin_again()
            return False
        return allowed

    def forced(self) -> Forced:
        """Empty once that is not known any more."""
        if self._over or self._forcing is None:
            return Forced()
        began = time.thread_time()
        data = bytes(self._forcing.compute_ff_bytes())
        if self._forcing.is_error() or time.thread_time() - began > FORCED_SECONDS:
            self._forcing = None
            return Forced()
        if len(data) > FORCED_BYTES:
            return Forced(data[:FORCED_BYTES])
        return Forced(data, bool(data) and self._over_after(data))

    def _over_after(self, data: bytes) -> bool:
        """Whether nothing but the end can follow."""
        path: list[int] = []
        at = 0
        while (token := self._vocab.longest_match(data, at)) is not None:
            path.append(token)
            at += len(self._vocab.bytes_of(token))
        return at == len(data) and self.masks([tuple(path)]) == [self._ends]

    def _go(self, path: Path) -> bool:
        """Along the path; not at all if it is not allowed."""
        if self._matcher.validate_tokens(list(path)) < len(path):
            return False
        return not path or bool(self._matcher.consume_tokens(list(path)))

    def _mask(self) -> bytes:
        """Empty if no token is allowed."""
        mask = int.from_bytes(bytes(self._matcher.compute_bitmask()), "little") & self._spoken
        return mask.to_bytes(len(self._ends), "little") if mask else b""

    def _begin_again(self) -> None:
        """Errors of a matcher are for good."""
        self._matcher = self._fresh.deep_copy()
        if self._written and not self._matcher.consume_tokens(self._written):
            raise self._lost()

    def _lost(self) -> SessionError:
        why = self._matcher.get_error().partition("\n")[0] or "it allows no token here"
        return SessionError(f"the text cannot be held to its guide any more: {why}", remedy="make the guide simpler")


def spoken_tokens(vocab: ByteVocab) -> int:
    """A bit for each token that is text or an end: a grammar may name special tokens, which are neither."""
    text = (token for token, data in enumerate(vocab.token_bytes) if data)
    return int.from_bytes(_bits([*vocab.end_ids, *text], _size(vocab)), "little")


def _size(vocab: ByteVocab) -> int:
    """Of a mask, in bytes."""
    return 4 * -(-vocab.size // 32)


def _bits(ids: Sequence[int], size: int) -> bytes:
    mask = bytearray(size)
    for token in ids:
        mask[token // 8] |= 1 << token % 8
    return bytes(mask)
