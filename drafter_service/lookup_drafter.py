"""A drafter without a model: it copies what followed last time (``speculation/drafts/lookup.py``).

It costs microseconds, and fits tasks that copy from the prompt: editing, summarising, translating names and code.
A "token" of it is a word with the white space before it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from drafter_service.draft_source import Path
from speculation.drafts.lookup import longest_suffix_match, match_confidence, word_at
from speculation.protocol.messages import Prompt, SessionOffer
from speculation.sessions.drafter_session import DraftToken


def prompt_bytes(prompt: Prompt) -> bytes:
    """The text that a prompt holds, whatever template a model would put around it."""
    if prompt.text is not None:
        return prompt.text.encode()
    return "\n".join(message.content for message in prompt.messages).encode() + b"\n"


class LookupDrafter:
    """Drafts from the text itself."""

    model_name = "lookup"
    vocab_size = 0
    vocab_hash = ""

    def open(self, offer: SessionOffer) -> LookupDraftSource:
        return LookupDraftSource(offer)

    def measure(self) -> float:
        text = b"the quick brown fox jumps over the lazy dog; " * 50
        return min(_seconds_to_match(text) for _ in range(5))  # once is not enough beside other processes


def _seconds_to_match(text: bytes) -> float:
    started = time.perf_counter()
    longest_suffix_match(text)
    return time.perf_counter() - started


class LookupDraftSource:
    """One session of a ``LookupDrafter``."""

    def __init__(self, offer: SessionOffer) -> None:
        self._text = bytearray(prompt_bytes(offer.prompt))
        self._prompt_length = len(self._text)
        self._text += offer.committed
        self._words: list[bytes] = []  # drafted; their handles are the places here

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        for handle in path:
            self._text += self._words[handle]
        if text is not None:
            del self._text[self._prompt_length + keep :]
            self._text += text

    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        return [[self._next(path)] for path in paths]

    def _next(self, path: Path) -> DraftToken:
        text = bytes(self._text) + b"".join(self._words[handle] for handle in path)
        at, length = longest_suffix_match(text)
        word = word_at(text, at) if length else b""
        if not word:
            return DraftToken(b"", stops=True)
        self._words.append(word)
        return DraftToken(word, match_confidence(length), token=len(self._words) - 1)

    def close(self) -> None:
        self._text.clear()
