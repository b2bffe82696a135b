"""A client's prediction of the text: a draft that costs nothing, where the answer is known in large parts.

An edited file, say, is most of the old one. The prediction starts where the text starts; where the text leaves it, it
is taken up again behind the next place where the text's last bytes stand in it, searched first from where it was left.
"""

from __future__ import annotations

#: The text's last bytes by which the place is found again.
ANCHOR = 12


class Prediction:
    """``advance`` tells it what was committed, ``ahead`` is what it expects then."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at: int | None = 0
        self._left_at = 0
        self._tail = b""

    def ahead(self, limit: int) -> bytes:
        """At most ``limit`` bytes that may come next."""
        return b"" if self._at is None else self._text[self._at : self._at + limit]

    def advance(self, committed: bytes) -> None:
        """The text went on. O(bytes committed) on the way, O(prediction) off it."""
        if not self._text:
            return
        self._tail = (self._tail + committed)[-ANCHOR:]
        if self._at is not None:
            if self._text.startswith(committed, self._at):
                self._at += len(committed)
                return
            self._left_at, self._at = self._at, None
        if len(self._tail) < ANCHOR:
            return
        found = self._text.find(self._tail, max(0, self._left_at - ANCHOR))
        if found < 0:
            found = self._text.find(self._tail)
        if found >= 0:
            self._at = found + ANCHOR
