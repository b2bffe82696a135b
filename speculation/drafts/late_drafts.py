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

from speculation.drafts.lookup import MAX_MATCH, WORDS, longest_suffix_match, match_confidence, words_after
from speculation.drafts.reliability import Reliability
from speculation.protocol.messages import Span
from speculation.source import Source
from speculation.text.digest import DigestedText, extend_digest

#: Bytes that are kept of each drafter, and of how many drafters.
KEPT: Final = 2048
DRAFTERS: Final = 8
#: Between guesses that do not follow each other. Words with this byte in them are not looked up.
_BREAK: Final = b"\0"


class _Heard:
    """Of one drafter: its first choices in order of arrival. ``end``: digest of the text up to there."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.end: int | None = None
        self.reliability = Reliability()

    def add(self, span: Span) -> None:
        self.text += span.text if span.base_digest == self.end else _BREAK + span.text
        self.end = extend_digest(span.base_digest, span.text)
        if len(self.text) > 2 * KEPT:
            del self.text[:-KEPT]


class LateDrafts:
    """Of all drafters of one text."""

    def __init__(self) -> None:
        self._heard: OrderedDict[Source, _Heard] = OrderedDict()  # who sent last, last

    def hear(self, span: Span) -> None:
        """A span came, whatever becomes of it. Alternatives to a first choice are not kept."""
        if span.alternative or not span.text:
            return
        if span.source not in self._heard and len(self._heard) >= DRAFTERS:
            self._heard.popitem(last=False)
        self._heard.setdefault(span.source, _Heard()).add(span)
        self._heard.move_to_end(span.source)

    def words(self, committed: DigestedText, *, tokens: int = WORDS) -> Iterator[tuple[bytes, float]]:
        """How ``committed`` may go on, by the drafter whose word is worth the most. See ``words_after``."""
        tail = committed.since(max(0, len(committed) - MAX_MATCH))
        found = [(heard, longest_suffix_match(heard.text, tail)) for heard in self._heard.values()]
        if not found:
            return iter(())
        best, match = max(found, key=lambda each: match_confidence(each[1][1]) * each[0].reliability.factor)
        return words_after(
            best.text, match, offset=len(committed), reliability=best.reliability, tokens=tokens, barrier=_BREAK
        )

    def settle(self, offset: int, text: bytes) -> None:
        """See ``Reliability.settle``."""
        for heard in self._heard.values():
            heard.reliability.settle(offset, text)
