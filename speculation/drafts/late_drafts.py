"""Drafts that came too late, or went another way than the text did: they may still say how it goes on.

Most of what a drafter that is far away sends begins after a place where the target has turned off already, so its spans
are stale. But a text that says one thing otherwise often goes on alike. So what drafters guessed first is kept for a
while and looked up like the text itself (``lookup.py``): what followed where they wrote what the text ends with. That
needs no round trip (compare Token Recycling, arXiv 2408.08696, which keeps the target's own discarded candidates).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from speculation.drafts.lookup import MAX_MATCH, WORDS, longest_suffix_match, words_after
from speculation.drafts.reliability import Reliability
from speculation.protocol.messages import Span
from speculation.source import Source
from speculation.text.digest import DigestedText

#: Bytes that are kept of each drafter, and of how many drafters.
KEPT: Final = 2048
_DRAFTERS: Final = 4
#: Between guesses that do not follow each other. Words with this byte in them are not looked up.
_BREAK: Final = b"\0"


class _Heard:
    """Of one drafter: its first choices in the order in which they came; ``end``: where the last of them ended."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.end = -1

    def add(self, span: Span) -> None:
        self.text += span.text if span.base_offset == self.end else _BREAK + span.text
        self.end = span.base_offset + len(span.text)
        if len(self.text) > 2 * KEPT:
            del self.text[:-KEPT]


class LateDrafts:
    """Of all drafters of one text."""

    def __init__(self) -> None:
        self._heard: OrderedDict[Source, _Heard] = OrderedDict()
        self.reliability = Reliability()

    def hear(self, span: Span) -> None:
        """A span came, whatever becomes of it. Alternatives to a first choice are not kept."""
        if span.alternative or not span.text:
            return
        if span.source not in self._heard and len(self._heard) >= _DRAFTERS:
            self._heard.popitem(last=False)
        self._heard.setdefault(span.source, _Heard()).add(span)

    def words(self, committed: DigestedText, *, tokens: int = WORDS) -> Iterator[tuple[bytes, float]]:
        """How ``committed`` may go on, by the drafter that wrote the most of its end. See ``words_after``."""
        tail = committed.since(max(0, len(committed) - MAX_MATCH))
        texts = [heard.text for heard in self._heard.values()]
        if len(texts) > 1:
            texts.sort(key=lambda text: longest_suffix_match(text, tail)[1])
        best = texts[-1] if texts else b""
        return words_after(
            best, tail, offset=len(committed), reliability=self.reliability, tokens=tokens, barrier=_BREAK
        )
