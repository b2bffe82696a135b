"""What is learned online of a drafter and a target: the figures that the cost model needs.

All of it forgets, because machines, links and texts change, and shrugs off single outliers: a first step that compiles,
a lost packet. Seconds throughout.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Final, NamedTuple

from speculation.errors import InputError

#: Seconds that a step, a draft token or a round trip may take and still be believed.
LONGEST_SECONDS: Final = 3600.0
#: The least that a step is taken to cost.
SHORTEST_SECONDS: Final = 1e-6
_IN_A_ROW: Final = 3  # so many observations that all say the same are no accident
_OUTLIER: Final = 5.0  # times the expected value, or this part of it
_QUICK: Final = 1.5
_SMOOTHING: Final = 0.1
_FIT_DECAY: Final = 0.97  # per step
_COUNT_DECAY: Final = 0.99  # per step with a draft
_PRIOR_WEIGHT: Final = 4.0  # of a slope: that of so many observations with x one unit off the mean
_POSITIONS: Final = 32  # positions since the last miss that are told apart


class _Moments(NamedTuple):
    """Of the weighted observations: the sum of weights, means, and centred sums of products."""

    weight: float
    x: float
    y: float
    xx: float
    xy: float

    def with_point(self, x: float, y: float) -> _Moments:
        before = self.weight * _FIT_DECAY
        weight = before + 1
        dx, dy, share = x - self.x, y - self.y, 1 / weight
        return _Moments(
            weight,
            x=self.x + dx * share,
            y=self.y + dy * share,
            xx=self.xx * _FIT_DECAY + dx * dx * before * share,
            xy=self.xy * _FIT_DECAY + dx * dy * before * share,
        )


_NOTHING_SEEN: Final = _Moments(0.0, x=0.0, y=0.0, xx=0.0, xy=0.0)


class LinearFit:
    """Seconds = intercept + slope * x by least squares whose weights decay exponentially.

    The slope is never negative, the intercept at least ``SHORTEST_SECONDS``: noise may have a step cost nothing but its
    draft tokens, but costs and ratios of them must stay finite.
    ``prior_share``: the slope as a share of the intercept, taken until x has spread. Observations must be finite.
    Any thread may read what one observes.
    """

    def __init__(self, prior_share: float = 0.02) -> None:
        self._prior_share = prior_share
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=_IN_A_ROW)  # x, y, side on which it was a outlier
        self._moments = _NOTHING_SEEN  # replaced as one: another thread may be reading

    @property
    def seen(self) -> bool:
        """Whether there is anything to predict from. It stays so."""
        return self._moments.weight > 0

    def observe_point(self, x: float, y: float) -> None:
        """Take in a measurement. Above five times the prediction it counts as five times the prediction.

        Three in a row that are all so high, or all as low, are the new truth, and the past is forgotten. One thread at
        a time.
        """
        expected = self.predict(x) if self.seen else y
        side = (y > _OUTLIER * expected) - (y < expected / _OUTLIER)
        self._recent.append((x, y, side))
        if side and len(self._recent) == _IN_A_ROW and all(other == side for *_, other in self._recent):
            moments = _NOTHING_SEEN
            for x_then, y_then, _ in self._recent:
                moments = moments.with_point(x_then, y_then)
            self._moments = moments
            self._recent.clear()
        else:
            self._moments = self._moments.with_point(x, min(y, _OUTLIER * expected))

    @property
    def line(self) -> tuple[float, float]:
        """Intercept and slope, of the same observations."""
        moments = self._moments
        x, y = moments.x, moments.y
        # The slope between the prior and what the observations say, by how much they spread.
        prior = self._prior_share * y / (1 + self._prior_share * x)
        slope = (moments.xy + _PRIOR_WEIGHT * prior) / (moments.xx + _PRIOR_WEIGHT)
        highest = y / x if x > 0 else math.inf  # leaves the intercept at 0
        slope = min(max(slope, 0.0), highest)
        return max(y - slope * x, SHORTEST_SECONDS), slope

    def predict(self, x: float) -> float:
        """The expected y."""
        intercept, slope = self.line
        return intercept + slope * x


class Smoothed:
    """An exponential moving average that follows a change of level at once.

    Three observations in a row that all lie above 1.5 times the mean, or all below the 1.5th part of it, move it to
    their median. ``mean`` is None before the first.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_IN_A_ROW)
        self.mean: float | None = None

    def observe_value(self, value: float) -> None:
        """Take in a finite measurement."""
        if self.mean is None:
            self.mean = value
            return
        self._recent.append(value)
        moved = min(self._recent) > self.mean * _QUICK or max(self._recent) < self.mean / _QUICK
        if len(self._recent) == _IN_A_ROW and moved:
            self.mean = median(self._recent)
            self._recent.clear()
        else:
            self.mean += _SMOOTHING * (value - self.mean)


class AcceptanceByPosition:
    """How often draft tokens agree, by their position since the last miss.

    The prior of a position is Beta(2p, 2(1 - p)), where p is the rate over all positions, whose own prior has
    p = ``prior``: a position seldom seen is taken to be like the others.
    """

    def __init__(self, prior: float = 0.6) -> None:
        if not 0 <= prior <= 1:
            raise InputError("prior", prior, "must lie in 0..1")
        self._prior = prior
        self._agreed, self._seen = [0.0] * _POSITIONS, [0.0] * _POSITIONS
        self._run = 0  # tokens since the last miss

    def observe_step(self, draft_tokens: int, accepted: int) -> None:
        """A step verified ``draft_tokens``, of which the first ``accepted`` agreed. Steps without any say nothing."""
        if not draft_tokens:
            return
        self._agreed = [_COUNT_DECAY * count for count in self._agreed]
        self._seen = [_COUNT_DECAY * count for count in self._seen]
        for place in range(self._run, self._run + min(accepted + 1, draft_tokens)):
            position = min(place, _POSITIONS - 1)
            self._seen[position] += 1
            self._agreed[position] += place < self._run + accepted
        # The target's own token after a draft that agreed in full takes a place of the run, unseen.
        self._run = self._run + accepted + 1 if accepted == draft_tokens else 0

    def rates(self, n: int) -> tuple[float, ...]:
        """The chances to agree at the first ``n`` positions; the last one is that of all from there on."""
        if not 1 <= n <= _POSITIONS:
            raise InputError("n", n, f"must lie in 1..{_POSITIONS}")
        overall = _posterior(sum(self._agreed), sum(self._seen), self._prior)
        places = (slice(start, end) for start, end in enumerate([*range(1, n), _POSITIONS]))
        return tuple(_posterior(sum(self._agreed[at]), sum(self._seen[at]), overall) for at in places)


def _posterior(agreed: float, seen: float, prior: float) -> float:
    return (agreed + 2 * prior) / (seen + 2)
