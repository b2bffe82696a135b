"""A draft token of a rejection rule: what was drawn, and the distribution that it was drawn from.

The distribution travels as integer weights, and the token is drawn from these integers. So drafter and target hold
the same q to the last bit, whatever the drafter's arithmetic: q(t) = weight(t) / sum of the weights, exactly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

from speculation.errors import InputError
from speculation.sampling.noise import BITS

#: A draft's weights add up to about this: what is less likely than half a part of it vanishes. Finer weights cost bytes
#: and gain nothing: SmolLM2 -> Gemma at temperature 1 reaches 98.5 % of the bound with 2^12, 98.7 % with 2^16.
WEIGHT_SCALE = 1 << 12
#: What a peer may send as one weight.
MAX_WEIGHT = 1 << 16
#: Tokens that one distribution may list.
MAX_PAIRS = 1024


@dataclass(frozen=True, slots=True)
class Proposal:
    """``token`` was drawn from q; ``ids``, ascending, and ``weights``, above 0, are q. All ids are the target's.

    Raises InputError if they cannot be: a proposal that exists is a distribution with its token inside.
    """

    token: int
    ids: tuple[int, ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.ids) <= MAX_PAIRS or len(self.weights) != len(self.ids):
            given = f"{len(self.ids)} ids, {len(self.weights)} weights"
            raise InputError("proposal", given, f"needs as many weights as ids, 1..{MAX_PAIRS}")
        if self.ids[0] < 0 or any(a >= b for a, b in pairwise(self.ids)):
            raise InputError("proposal.ids", self.ids[:8], "must ascend from 0 or more")
        if not all(0 < weight <= MAX_WEIGHT for weight in self.weights):
            raise InputError("proposal.weights", self.weights[:8], f"must lie in 1..{MAX_WEIGHT}")
        if self._place() is None:
            raise InputError("proposal.token", self.token, "has no weight: it cannot have been drawn")

    def _place(self) -> int | None:
        place = bisect_left(self.ids, self.token)
        return place if place < len(self.ids) and self.ids[place] == self.token else None

    @property
    def total(self) -> int:
        """The sum of the weights."""
        return sum(self.weights)

    @property
    def probability(self) -> float:
        """q(token)."""
        place = self._place()
        assert place is not None
        return self.weights[place] / self.total


def propose(q: Mapping[int, float], bits: int) -> Proposal | None:
    """Draw from ``q``, target id -> probability, which need not add up to 1. ``bits``: 52 random bits.

    q is cut to its MAX_PAIRS likeliest and rounded; the draw is from what is left: token i where the running sum of
    the weights first exceeds floor(bits * sum / 2^52). None if there is nothing to draw.
    """
    likeliest = sorted(q.items(), key=lambda item: (-item[1], item[0]))[:MAX_PAIRS]
    mass = sum(share for _, share in likeliest)
    if not mass > 0:
        return None
    rounded = ((token, round(share / mass * WEIGHT_SCALE)) for token, share in likeliest)
    pairs = sorted((token, weight) for token, weight in rounded if weight > 0)
    ids, weights = tuple(token for token, _ in pairs), tuple(weight for _, weight in pairs)
    sums = list(accumulate(weights))
    return Proposal(ids[bisect_right(sums, (bits * sums[-1]) >> BITS)], ids, weights)
