"""A run of bytes in the pool of drafts: who guessed it, how sure they are, and what they guess to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speculation.protocol.proposal import Proposal
from speculation.source import Source

#: Where nothing is known of any source.
NO_TRUST: Mapping[Source, float] = {}


@dataclass(slots=True)
class Voice:
    """One source's word for a run. ``rank``: which of its choices it is, and when it came.

    ``share``: the chance that it gives the first byte, if those before it come true; the others follow for certain.
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
    """Bytes that the same sources guess in the same order, none of them a turning, and the place after them.

    ``digest``: of the text up to that place, None until somebody asks for it. ``ends``: who guesses that the text ends
    there. ``proposal``: what was drawn to follow, its bytes, and by whom. ``children``: the runs that may follow, by
    their first bytes.
    """

    __slots__ = ("children", "digest", "ends", "proposal", "text", "voices")

    def __init__(self, text: bytes = b"", voices: Voices | None = None, digest: int | None = None) -> None:
        self.text = text
        self.children: dict[int, DraftNode] = {}
        self.digest = digest
        self.voices: Voices = {} if voices is None else voices
        self.ends: Voices = {}
        self.proposal: tuple[Proposal, bytes, Source] | None = None

    @property
    def brought_by(self) -> Source:
        """Who guessed the run first. Of runs with text only."""
        return next(iter(self.voices))

    def grow(self, text: bytes, source: Source, rank: tuple[int, int], share: float) -> DraftNode:
        """A new run after this one, of one source."""
        child = DraftNode(text, {source: Voice(rank, share)})
        self.children[text[0]] = child
        return child

    def split(self, byte: int, length: int) -> DraftNode:
        """Make two runs of the one that follows with ``byte``; returns the first, of ``length`` bytes.

        The place after the second is that of the whole run before.
        """
        rest = self.children[byte]
        first = DraftNode(rest.text[:length], rest.voices)
        rest.text = rest.text[length:]
        rest.voices = {source: Voice(voice.rank) for source, voice in first.voices.items()}
        first.children[rest.text[0]] = rest
        self.children[byte] = first
        return first

    def follow(self, text: bytes) -> DraftNode | None:
        """The place so far beyond this one, made one if it lies inside a run; None if the runs do not spell that."""
        node, at = self, 0
        while at < len(text):
            child = node.children.get(text[at])
            if child is None:
                return None
            agreed = agreement(child.text, text, at)
            at += agreed
            if agreed < len(child.text):
                return node.split(child.text[0], agreed) if at == len(text) else None
            node = child
        return node

    def hear(self, source: Source, rank: tuple[int, int], share: float) -> float:
        """A source guesses this run, perhaps again. Returns the chance that is left to the bytes after it."""
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

    def choices_of(self, source: Source) -> int:
        """How many different bytes the source guesses to follow."""
        return sum(source in child.voices for child in self.children.values())

    def best_child(self, trust: Mapping[Source, float] = NO_TRUST) -> DraftNode | None:
        """The first in the order; None if there is none, or if the guess that the text ends here precedes."""
        if len(self.children) == 1 and not self.ends:
            return next(iter(self.children.values()))
        order, _, best = min(
            ((first_of(child.voices, trust)[0], byte, child) for byte, child in self.children.items()),
            default=(None, 0, None),
        )
        if order is None or (self.ends and first_of(self.ends, trust)[0] < order):
            return None
        return best

    def weigh(
        self, before: Mapping[Source, float], chance: float, trust: Mapping[Source, float]
    ) -> tuple[dict[Source, float], float, Source]:
        """The chance of the text up to any byte of the run, by each source of it, the best of these, its first source.

        ``before``: the same of the byte before, weighed by the trust in each source; ``chance``: the best of these.
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


def agreement(run: bytes, text: bytes, at: int) -> int:
    """How many bytes of a run ``text`` spells from ``at`` on; its first byte is known to agree."""
    if text.startswith(run, at):
        return len(run)
    most = min(len(run), len(text) - at)
    return next((number for number in range(1, most) if run[number] != text[at + number]), most)
