"""One branch of the pool of drafts, as a step sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DraftPath:
    """One branch from the committed end: its bytes, and whether the drafter thinks the text ends there.

    ``chances``: by the drafter's word, that the target writes the text up to and with each byte. ``turning_chance``:
    that it turns off here from the branches before this one. ``sent``: how many bytes of it drafters sent; the rest the
    target looked up.
    """

    text: bytes
    ends: bool
    chances: tuple[float, ...] = ()
    turning_chance: float = 1.0
    sent: int = 0
