"""Exact enumeration of a program that draws random numbers: it is run once for every outcome of its draws."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from torch import Tensor

from speculation.protocol.proposal import Proposal, propose
from speculation.sampling.sampler import TokenSampler

Outcome = TypeVar("Outcome", bound=Hashable)


class Chooser:
    """One run: the first draws are given, later ones take the first outcome that is possible."""

    def __init__(self, given: tuple[int, ...]) -> None:
        self._given = given
        self.taken: list[int] = []
        self.odds: list[list[float]] = []

    def choose(self, weights: Sequence[float]) -> int:
        """An outcome's number, with probability proportional to its weight."""
        total = math.fsum(weights)
        odds = [weight / total for weight in weights]
        at = len(self.taken)
        taken = self._given[at] if at < len(self._given) else next(i for i, p in enumerate(odds) if p > 0)
        self.taken.append(taken)
        self.odds.append(odds)
        return taken

    @property
    def probability(self) -> float:
        """Of this run: all its draws came out as they did."""
        return math.prod(odds[taken] for odds, taken in zip(self.odds, self.taken, strict=True))

    def others(self) -> list[tuple[int, ...]]:
        """The beginnings of the runs that this one did not take."""
        return [
            (*self.taken[:at], other)
            for at in range(len(self._given), len(self.taken))
            for other, p in enumerate(self.odds[at])
            if p > 0 and other != self.taken[at]
        ]


def distribution(run: Callable[[Chooser], Outcome], *, at_most: int = 200_000) -> dict[Outcome, float]:
    """The probability of every outcome of ``run``, exactly."""
    shares: dict[Outcome, list[float]] = defaultdict(list)
    waiting: list[tuple[int, ...]] = [()]
    runs = 0
    while waiting:
        chooser = Chooser(waiting.pop())
        shares[run(chooser)].append(chooser.probability)
        waiting += chooser.others()
        runs += 1
        assert runs <= at_most, "too many outcomes to enumerate"
    found = {outcome: math.fsum(parts) for outcome, parts in shares.items()}
    assert math.isclose(math.fsum(found.values()), 1, abs_tol=1e-12)
    return found


def largest_gap(found: dict[Outcome, float], truth: dict[Outcome, float]) -> float:
    """The largest difference of two distributions at one outcome."""
    return max(abs(found.get(outcome, 0.0) - truth.get(outcome, 0.0)) for outcome in {*found, *truth})


#: Probabilities of rows that were met before. Runs differ in few of their rows, and each begins from nothing.
_KNOWN: dict[Hashable, Tensor] = {}


class BranchingSampler(TokenSampler):
    """Every draw is a branch. Set ``chooser`` before use."""

    chooser: Chooser

    def probabilities(self, logits: Tensor) -> Tensor:
        """The sampler's own, reckoned once for each row, text, settings and mask of a guide."""
        prompt = () if self._prompt_ids is None else tuple(self._prompt_ids.tolist())
        generated = tuple(sorted(self._counts.items()))
        mask = self._guide.masks([()])[0] if self._guide is not None else None
        row = self.vocab.content_hash, self.params, prompt, generated, mask, logits.dtype, logits.numpy().tobytes()
        if row not in _KNOWN:
            _KNOWN[row] = super().probabilities(logits)
        return _KNOWN[row].clone()

    def draw(self, logits: Tensor, *, zero_width: int | None = None) -> int:
        """A token by its probability, which no noise decides."""
        return self.draw_from(self.probabilities(logits), self.stream)

    def draw_from(self, weights: Tensor, stream: str) -> int:
        """An outcome by its weight, whatever the stream."""
        return self.chooser.choose(weights.tolist())

    def happens(self, probability: float, stream: str) -> bool:
        """Yes is the first outcome, no the second."""
        return self.chooser.choose([probability, 1 - probability]) == 0


def draw_proposal(q: dict[int, float], chooser: Chooser) -> Proposal:
    """As ``propose`` draws, every outcome with its share of the rounded weights."""
    rounded = propose(q, 0)
    assert rounded is not None
    token = rounded.ids[chooser.choose(rounded.weights)]
    return Proposal(token, rounded.ids, rounded.weights)
