"""How much two sequences have in common at their beginning."""

from __future__ import annotations

from collections.abc import Sequence


def shared_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Items, from the first on, that are equal in both."""
    shortest = min(len(one), len(other))
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), shortest)
