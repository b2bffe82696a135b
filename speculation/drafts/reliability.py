"""What the word of a source of drafts is worth: how often its guesses came true, against how often it said they would.

A guess is judged by the committed text alone, whether it was verified or not; so one that is not believed any
more costs the target nothing, and is believed again when it is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from speculation.drafts.draft_pool import DraftPool
from speculation.source import Source

_FAITH: Final = 4.0  # expected hits that the first belief weighs
_DECAY: Final = 0.98  # per guess
#: Confidences are rather too low than too high where they are middling; more is not believed.
_MOST: Final = 1.2


class Reliability:
    """Of one source of guesses in one text."""

    def __init__(self) -> None:
        self._expected = self._hits = 0.0
        self._guesses: tuple[int, tuple[tuple[bytes, float], ...]] = (0, ())

    @property
    def factor(self) -> float:
        """Hits by expected hits: a stated chance times this is the chance."""
        return min(_MOST, (_FAITH + self._hits) / (_FAITH + self._expected))

    def guess(self, offset: int, guesses: Iterable[tuple[bytes, float]]) -> None:
        """The source says what may come after ``offset`` bytes, texts with their chances. Replaces what it said before.

        All of its guesses count together: one that promises little with its first choice and much with the second is
        held to both.
        """
        self._guesses = offset, tuple((text, chance) for text, chance in guesses if text)

    def settle(self, offset: int, text: bytes) -> None:
        """``text`` was committed after ``offset`` bytes: which guesses came true? Too short a text says nothing."""
        (said_at, guesses), self._guesses = self._guesses, (0, ())
        if said_at != offset or not text:
            return
        expected = hits = 0.0
        for guessed, chance in guesses:
            followed = text[: len(guessed)]
            if followed == guessed or not guessed.startswith(followed):
                expected += chance
                hits += followed == guessed
        if expected or hits:
            self._expected = _DECAY * self._expected + expected
            self._hits = _DECAY * self._hits + min(hits, 1.0)


class Reliabilities:
    """Of all sources in one text, each by its own word only: one that lies costs no other its trust."""

    def __init__(self) -> None:
        self._of: dict[Source, Reliability] = {}

    def meet(self, source: Source) -> None:
        """The source sends drafts from now on."""
        self._of.setdefault(source, Reliability())

    def factors(self) -> dict[Source, float]:
        """See ``Reliability.factor``; one that was never met is not in it."""
        return {source: reliability.factor for source, reliability in self._of.items()}

    def guess(self, source: Source, offset: int, guesses: Iterable[tuple[bytes, float]]) -> None:
        """See ``Reliability.guess``. Raises KeyError for a source that was never met."""
        self._of[source].guess(offset, guesses)

    def take_guesses(self, pool: DraftPool) -> None:
        """What each of them has in the pool about the coming bytes is its guess."""
        for source in self._of:
            self.guess(source, len(pool.committed), pool.guesses(source).items())

    def settle(self, offset: int, text: bytes) -> None:
        """See ``Reliability.settle``."""
        for reliability in self._of.values():
            reliability.settle(offset, text)
