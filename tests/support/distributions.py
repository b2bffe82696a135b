"""G-tests with a stated resolution, for tests that draw from a known distribution. All draws are seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.optimize import brentq
from scipy.stats import chi2, chi2_contingency, ncx2, power_divergence

#: A right sampler fails one seeded test in this many.
ALPHA = 1e-4
POWER = 0.999


def g_test(counts: Sequence[int], probabilities: Sequence[float]) -> float:
    """p-value of the counts under the probabilities. Outcomes of probability 0 must not occur at all."""
    total = sum(counts)
    kept = [(count, p * total) for count, p in zip(counts, probabilities, strict=True) if p > 0]
    if sum(count for count, _ in kept) != total:
        return 0.0
    assert min(expected for _, expected in kept) >= 5, "too few draws for a G-test"
    return float(power_divergence([c for c, _ in kept], [e for _, e in kept], lambda_="log-likelihood").pvalue)


def independence_test(table: Sequence[Sequence[int]]) -> float:
    """p-value of "row and column are independent" for a contingency table."""
    return float(chi2_contingency(table, lambda_="log-likelihood").pvalue)


def detectable_tv(draws: int, outcomes: int) -> float:
    """Any sampler at least this far (total variation) from the truth fails with probability POWER.

    chi-square distance >= 4 TV^2, so the statistic's noncentrality is at least 4 n TV^2.
    """
    freedom = outcomes - 1
    critical = chi2.isf(ALPHA, freedom)
    needed = brentq(lambda nc: ncx2.sf(critical, freedom, nc) - POWER, 1.0, 1e4)
    return math.sqrt(needed / (4 * draws))
