"""What the word of a drafter is worth: how often its guesses came true, against how often it said they would.

A guess is judged by the committed text alone, whether it was verified or not; so a drafter that is not believed any
more costs the target nothing, and is believed again when it is right.
"""

from __future__ import annotations

from typing import Final

_FAITH: Final = 4.0  # expected hits that the first belief weighs
_DECAY: Final = 0.98  # per guess
#: Confidences are rather too low than too high where they are middling; more is not believed.
_MOST: Final = 1.2


class Reliability:
    """Of one source of guesses in one text."""

    def __init__(self) -> None:
        self._expected = self._hits = 0.0
        self._guess: tuple[int, bytes, float] | None = None

    @property
    def factor(self) -> float:
        """Hits by expected hits: a stated chance times this is the chance."""
        return min(_MOST, (_FAITH + self._hits) / (_FAITH + self._expected))

    def guess(self, offset: int, text: bytes, chance: float) -> None:
        """The source says that ``text`` comes after ``offset`` bytes, with this chance. Replaces the guess before.

        An empty text is no guess.
        """
        self._guess = (offset, text, chance) if text else None

    def settle(self, offset: int, text: bytes) -> None:
        """``text`` was committed after ``offset`` bytes: did the guess come true? Too short a text says nothing."""
        guess, self._guess = self._guess, None
        if guess is None or guess[0] != offset:
            return
        _, guessed, chance = guess
        followed = text[: len(guessed)]
        if followed == guessed or not guessed.startswith(followed):
            self._expected = _DECAY * self._expected + chance
            self._hits = _DECAY * self._hits + (followed == guessed)
