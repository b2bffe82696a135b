"""A byte in the pool of drafts: who guessed it, how sure they are, and what they guess to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speculation.protocol.proposal import Proposal
from speculation.source import Source

#: Where nothing is known of any source.
NO_TRUST: Mapping[Source, float] = {}


@dataclass(slots=True)
class Voice:
    """One source's word for a byte. ``rank``: which of its choices it is, and when it came.

    ``share``: the chance that it gives the byte, if those before it come true.
    """

    rank: tuple[int, int]
    share: float = 1.0


#: All of those that guess the same.
Voices = dict[Source, Voice]
_Order = tuple[int, int, float, int]


def first_of(voices: Voices, trust: Mapping[Source, float]) -> tuple[_Order, Source]:
    """Who comes first, and its place in the order of all voices at a node.

    By kind of source, by the drafter's own choice, by trust (1 for those not in it), by arrival: no two are equal.
    """
    return min(
        ((source.kind, voice.rank[0], -trust.get(source, 1.0), voice.rank[1]), source)
        for source, voice in voices.items()
    )


class DraftNode:
    """``ends``: who guesses that the text ends here. ``proposal``: what was drawn to follow, its bytes, and by whom."""

    __slots__ = ("children", "digest", "ends", "proposal", "voices")

    def __init__(self, digest: int) -> None:
        self.children: dict[int, DraftNode] = {}
        self.digest = digest
        self.voices: Voices = {}
        self.ends: Voices = {}
        self.proposal: tuple[Proposal, bytes, Source] | None = None

    def hear(self, source: Source, rank: tuple[int, int], share: float) -> float:
        """A source guesses this byte, perhaps again. Returns the chance that is left to the bytes after it."""
        voice = self.voices.get(source)
        if voice is None:
            self.voices[source] = Voice(rank, share)
            return 1.0
        voice.rank = min(voice.rank, rank)
        voice.share = max(voice.share, share)
        return share / voice.share if voice.share else 1.0

    def hear_end(self, source: Source, rank: tuple[int, int]) -> None:
        """A source guesses that the text ends here."""
        self.ends[source] = Voice(min(rank, self.ends[source].rank) if source in self.ends else rank)

    def best_child(self, trust: Mapping[Source, float] = NO_TRUST) -> tuple[int, DraftNode | None]:
        """The first in the order, with its byte; None if there is none, or if the guess that the text ends precedes."""
        if len(self.children) == 1 and not self.ends:
            return next(iter(self.children.items()))
        order, byte, best = min(
            ((first_of(child.voices, trust)[0], byte, child) for byte, child in self.children.items()),
            default=(None, 0, None),
        )
        if order is None or (self.ends and first_of(self.ends, trust)[0] < order):
            return 0, None
        return byte, best

    def weigh(
        self, before: Mapping[Source, float], chance: float, trust: Mapping[Source, float]
    ) -> tuple[dict[Source, float], float, Source]:
        """The chance of the text up to this byte, by each source of it, and the best of these; and its first source.

        ``before``: the same of the byte before it, weighed by the trust in each source; ``chance``: the best of these.
        A source that only continues what others guessed is believed once they are right.
        """
        weights = {
            source: (before[source] if source in before else min(1.0, trust.get(source, 1.0)) * chance) * voice.share
            for source, voice in self.voices.items()
        }
        if len(weights) == 1:  # nearly always, and a step waits for this
            [(source, weight)] = weights.items()
            return weights, min(1.0, weight), source
        return weights, min(1.0, max(weights.values())), first_of(self.voices, trust)[1]
