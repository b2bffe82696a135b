"""Keys and values of texts that ended, kept for what goes on from them: the next turn of a conversation, or the same
text when it is offered again over another link. A prompt is then not run anew, which takes a small machine seconds.

A cache has one owner: who takes one has it alone, so nothing is copied. The least recently put go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from drafter_service.draft_model import DraftCache, DraftModel

#: Fewer tokens in common are run as fast as they are found.
LEAST_TOKENS = 16


@runtime_checkable
class KeepableCache(DraftCache, Protocol):
    """A cache whose memory is its own. An engine's pages are not: others wait for them, and a GPU runs prompts fast."""

    @property
    def lengths(self) -> set[int]:
        """``length`` by every layer: more than one number is left of a pass that failed in its middle."""
        ...

    @property
    def nbytes(self) -> int: ...


class KeptCaches:
    """Of one model. ``most_bytes``: that they may hold together; 0: none are kept. Used from one thread."""

    def __init__(self, model: DraftModel, most_bytes: int) -> None:
        self.model = model
        self._most_bytes = most_bytes
        self._kept: list[tuple[tuple[int, ...], KeepableCache]] = []

    @property
    def nbytes(self) -> int:
        """Of all that are kept."""
        return sum(cache.nbytes for _, cache in self._kept)

    def put(self, token_ids: Sequence[int], cache: DraftCache) -> None:
        """Give a cache away. It holds a beginning of ``token_ids``, or all of them and more, which is forgotten."""
        held = min(cache.length, len(token_ids))
        if not _is_sound(cache) or held < LEAST_TOKENS or cache.length - held > cache.max_rollback:
            cache.close()
            return
        cache.rollback(cache.length - held)
        self._kept.append((tuple(token_ids[:held]), cache))
        while self.nbytes > self._most_bytes:
            self._kept.pop(0)[1].close()

    def take(self, token_ids: Sequence[int]) -> DraftCache | None:
        """One that holds as much as possible of a beginning of ``token_ids``, and nothing else."""
        shared = [_common(held, token_ids) for held, _ in self._kept]
        for number in sorted(range(len(shared)), key=shared.__getitem__, reverse=True):
            if shared[number] < LEAST_TOKENS:
                break
            cache = self._kept[number][1]
            if (surplus := cache.length - shared[number]) <= cache.max_rollback:
                del self._kept[number]
                cache.rollback(surplus)
                return cache
        return None


def _is_sound(cache: DraftCache) -> TypeGuard[KeepableCache]:
    return isinstance(cache, KeepableCache) and len(cache.lengths) == 1


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
