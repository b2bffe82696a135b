"""Drafting without a model: texts repeat themselves, so copy what followed last time.

The longest suffix of prompt + generated text that occurred before, by bytes, says what may come next (prompt lookup,
Saxena 2023, with the longest match instead of a fixed n-gram). It costs microseconds and no distance, so a target can
do it by itself while a drafter's text is on its way; it fits texts that copy from the prompt or from themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from speculation.drafts.reliability import Reliability
from speculation.text.digest import DigestedText

#: Shorter matches say too little.
MIN_MATCH: Final = 4
MAX_MATCH: Final = 128
#: A match of so many bytes is right every other time, measured on code: 0.33, 0.31, 0.47, 0.56, 0.75, 0.85 of the next
#: words were right after 4, 6, 8, 12, 16, 24 or more bytes (305 places in 8 HumanEval texts).
_EVEN: Final = 10
_SHORTEST_FIRST: Final = 3
#: Words that a target copies at most, and that one of its tokens spells: a sign is a word, and a token may be several.
_WORDS: Final = 12
_WORDS_A_TOKEN: Final = 2
_WORD = re.compile(rb"\s{0,8}[\w\x80-\xff]{1,24}|\s{0,8}[^\s\w]|\s{1,24}")


def longest_suffix_match(text: bytes | bytearray) -> tuple[int, int]:
    """(where the text goes on after the latest earlier occurrence of its longest repeated suffix, its length).

    Lengths are at most MAX_MATCH; (0, 0) if nothing of MIN_MATCH bytes occurs twice. Each probe is one search in C.
    If a suffix occurs earlier, so do all shorter ones. Mostly nothing occurs, or nothing longer than what the first
    probe finds: so the shortest are tried first, and only what goes on and on is found by bisection.
    """
    low, high, found, probes = MIN_MATCH, min(MAX_MATCH, len(text) - 1), (0, 0), 0
    while low <= high:
        length = low if probes < _SHORTEST_FIRST else (low + high) // 2
        at = text.rfind(text[-length:], 0, len(text) - 1)
        probes += 1
        if at < 0:
            high = length - 1
        else:
            end = at + length
            while length < high and end > length and text[end - length - 1] == text[-length - 1]:
                length += 1
            found = (end, length)
            low = length + 1
    return found


def word_at(text: bytes | bytearray, at: int) -> bytes:
    """The word that begins there, with the white space before it; empty at the end of the text."""
    word = _WORD.match(text, at)
    return bytes(word.group()) if word else b""


def match_confidence(length: int) -> float:
    """The chance that the text goes on as it did after an earlier match of so many bytes."""
    return length / (length + _EVEN)


class OwnLookup:
    """A target's own lookup in one session. ``prompt``: the text that the prompt's tokens spell."""

    def __init__(self, prompt: bytes) -> None:
        self._text = bytearray(prompt)
        self._prompt_length = len(prompt)
        self.reliability = Reliability()

    def words(self, committed: DigestedText, *, tokens: int = _WORDS) -> Iterator[tuple[bytes, float]]:
        """How ``committed``, which only grows, may go on: word by word, each with its confidence.

        ``tokens``: that a step can take; there are no more words than they are likely to spell.
        """
        self._text += committed.since(len(self._text) - self._prompt_length)
        at, length = longest_suffix_match(self._text)
        if not length:
            return
        for number in range(min(_WORDS, _WORDS_A_TOKEN * (tokens + 1))):
            word = word_at(self._text, at)
            if not word:
                return
            confidence = match_confidence(length)
            if number == 0:
                self.reliability.guess(len(committed), [(word, confidence)])
                confidence = min(1.0, confidence * self.reliability.factor)
            yield word, confidence
            at, length = at + len(word), length + len(word)
