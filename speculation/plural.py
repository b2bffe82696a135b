"""Numbers with their nouns, for people: 1 session, 2 sessions."""

from __future__ import annotations


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``number`` with thousands separated and the noun in its form; ``plural`` where that is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
