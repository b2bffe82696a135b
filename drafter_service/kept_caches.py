"""Keys and values of texts that ended, kept for what goes on from them: the next turn of a conversation, or the same
text when it is offered again over another link. A prompt is then not run anew, which takes a small machine seconds.

Who goes on with most of a cache takes it; who shares a smaller part, a system message say, gets a copy of that part, so
that the text it belongs to can still go on. The least recently put go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeGuard, runtime_checkable

from drafter_service.draft_model import DraftCache, DraftModel
from speculation.shared_length import shared_length

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

    def without_last(self, tokens: int) -> Self:
        """A copy that has rolled back so many tokens, and takes no more memory than what is left."""
        ...


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
        if self._most_bytes and _is_sound(cache) and held >= LEAST_TOKENS and cache.length - held <= cache.max_rollback:
            self._keep(tuple(token_ids[:held]), cache.without_last(cache.length - held))
        cache.close()

    def _keep(self, token_ids: tuple[int, ...], cache: KeepableCache) -> None:
        if cache.nbytes > self._most_bytes:
            return
        self._kept.append((token_ids, cache))
        while self.nbytes > self._most_bytes:
            del self._kept[0]

    def take(self, token_ids: Sequence[int]) -> DraftCache | None:
        """One that holds as much as possible of a beginning of ``token_ids``, and nothing else."""
        shared = {number: shared_length(held, token_ids) for number, (held, _) in enumerate(self._kept)}
        # Of equals the one that loses least, and of these the latest.
        order = sorted(shared, key=lambda number: (shared[number], -len(self._kept[number][0]), number), reverse=True)
        for number in order:
            cache, surplus = self._kept[number][1], len(self._kept[number][0]) - shared[number]
            if shared[number] < LEAST_TOKENS:
                break
            if surplus > cache.max_rollback:
                continue
            if surplus > shared[number]:
                return cache.without_last(surplus)
            del self._kept[number]
            cache.rollback(surplus)
            return cache
        return None


def _is_sound(cache: DraftCache) -> TypeGuard[KeepableCache]:
    return isinstance(cache, KeepableCache) and len(cache.lengths) == 1
