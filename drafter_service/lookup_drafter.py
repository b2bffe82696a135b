"""A drafter without a model: texts repeat themselves, so copy what followed last time.

It looks for the longest suffix of prompt + generated text that occurred before, by bytes, and drafts what came
after its latest occurrence (prompt lookup, Saxena 2023, with the longest match instead of a fixed n-gram). It costs
microseconds, and fits tasks that copy from the prompt: editing, summarising, translating names and code.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from drafter_service.draft_source import Path
from speculation.drafter_session import DraftToken
from speculation.messages import Prompt, SessionOffer

#: Shorter matches say too little.
MIN_MATCH = 4
MAX_MATCH = 128
#: A draft "token" here is a word with the white space before it.
_WORD = re.compile(rb"\s{0,8}[\w\x80-\xff]{1,24}|\s{0,8}[^\s\w]|\s{1,24}")


def prompt_bytes(prompt: Prompt) -> bytes:
    """The text that a prompt holds, whatever template a model would put around it."""
    if prompt.text is not None:
        return prompt.text.encode()
    return "\n".join(message.content for message in prompt.messages).encode() + b"\n"


def longest_suffix_match(text: bytes) -> tuple[int, int]:
    """(where the text goes on after the latest earlier occurrence of its longest repeated suffix, its length).

    Lengths are at most MAX_MATCH; (0, 0) if nothing of MIN_MATCH bytes occurs twice. If a suffix occurs earlier,
    so do all shorter ones: the length is found by bisection, each probe one search in C.
    """
    low, high, found = MIN_MATCH, min(MAX_MATCH, len(text) - 1), (0, 0)
    while low <= high:
        length = (low + high) // 2
        at = text.rfind(text[-length:], 0, len(text) - 1)
        if at < 0:
            high = length - 1
        else:
            found = (at + length, length)
            low = length + 1
    return found


class LookupDrafter:
    """Drafts from the text itself."""

    model_name = "lookup"
    vocab_size = 0
    vocab_hash = ""

    def open(self, offer: SessionOffer) -> LookupDraftSource:
        return LookupDraftSource(offer)

    def measure(self) -> float:
        text = b"the quick brown fox jumps over the lazy dog; " * 50
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
        word = _WORD.match(text, at) if length else None
        if word is None:
            return DraftToken(b"", stops=True)
        self._words.append(word.group())
        return DraftToken(word.group(), length / (length + MIN_MATCH), token=len(self._words) - 1)

    def close(self) -> None:
        self._text.clear()
