"""The online fits against their definitions: weighted least squares, a moving average, a Beta posterior."""

from __future__ import annotations

import pytest

from speculation.planning.fits import AcceptanceByPosition, LinearFit, Smoothed
from tests.support.learned_pairs import LearnedPair

POINTS: list[tuple[float, float]] = [(0, 0.40), (4, 0.46), (8, 0.47), (2, 0.40), (16, 0.60), (1, 0.43)]


def defined(points: list[tuple[float, float]], share: float) -> tuple[float, float]:
    """Intercept and slope: each point weighs 0.97 of the one after it, the prior slope as four points a unit off."""
    weights = [0.97 ** (len(points) - 1 - n) for n in range(len(points))]
    x_mean, y_mean = (sum(w * p[at] for w, p in zip(weights, points, strict=True)) / sum(weights) for at in (0, 1))
    xx = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    xy = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points, strict=True))
    prior = share * y_mean / (1 + share * x_mean)
    slope = (xy + 4 * prior) / (xx + 4)
    return y_mean - slope * x_mean, slope


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_line_is_fitted_by_weighted_least_squares(share: float):
    fit = LinearFit(share)
    assert not fit.seen
    for count, (x, y) in enumerate(POINTS, start=1):
        fit.observe_point(x, y)
        intercept, slope = defined(POINTS[:count], share)
        assert fit.seen
        assert fit.line == pytest.approx((intercept, slope), rel=1e-9)
        assert fit.predict(3) == pytest.approx(intercept + 3 * slope, rel=1e-9)


def test_the_slope_is_a_fiftieth_where_nothing_else_is_known():
    fit = LinearFit()
    fit.observe_point(0, 2.0)
    assert fit.line == (2.0, 0.04)


def test_a_slope_is_never_negative_and_leaves_an_intercept():
    falling, steep = LinearFit(0.0), LinearFit(0.0)
    for _ in range(60):
        for x, y in ((0, 2.0), (8, 1.0)):
            falling.observe_point(x, y)
        for x, y in ((7, 1.0), (9, 2.0)):
            steep.observe_point(x, y)
    assert falling.line[1] == 0.0 and 1.0 < falling.line[0] < 2.0
    assert steep.line[0] == 1e-6 and steep.line[1] == pytest.approx(steep.predict(8) / 8, rel=1e-4)


def test_an_outlier_counts_as_five_times_what_was_expected():
    def level(*values: float) -> float:
        fit = LinearFit()
        for value in values:
            fit.observe_point(0, value)
        return fit.line[0]

    assert level(1, 1, 1, 9) == pytest.approx(level(1, 1, 1, 5))
    assert level(1, 1, 1, 4.9) < level(1, 1, 1, 5)
    assert level(1, 1, 1, 90, 90) < 9, "two are no new level"
    assert level(1, 1, 1, 90, 1, 90, 90) < 9, "nor are three with another between them"
    assert level(1, 1, 1, 90, 91, 92) == pytest.approx((0.97**2 * 90 + 0.97 * 91 + 92) / (0.97**2 + 0.97 + 1))
    assert level(1, 1, 1, 0.1, 0.1, 0.1) == pytest.approx(0.1)
    assert level(*[1] * 30, 0.25, 0.25, 0.25) > 0.8, "a quarter is no outlier"
    assert level(*[1] * 30, 0.1, 90, 0.1) > 0.8, "nor are some high and some low a level"


def test_an_average_moves_by_a_tenth_or_to_the_median_of_three():
    def mean(*values: float) -> float | None:
        average = Smoothed()
        for value in values:
            average.observe_value(value)
        return average.mean

    assert mean(1, 2) == pytest.approx(1.1) and mean(1, 2, 2) == pytest.approx(1.19)
    assert mean(1, 3, 2, 2.5) == 2.5
    assert mean(1, *[1.75] * 3) == 1.75 and mean(1, *[1.65] * 3) == pytest.approx(1 + 0.271 * 0.65)
    assert mean(1, *[0.6] * 3) == 0.6 and mean(1, *[0.64] * 3) == pytest.approx(1 - 0.271 * 0.36)
    assert mean(1, 3, 2, 2.5, 5) == pytest.approx(2.75), "the three are forgotten then"
    assert mean(1, 3, 2, 2.5, 5, 5) == pytest.approx(2.975)


def test_rates_are_posteriors_by_position():
    counts = AcceptanceByPosition()
    assert counts.rates(1) == (0.6,)
    counts.observe_step(3, 1)  # agrees at 0, not at 1; the third was not reached
    overall = (1 + 2 * 0.6) / (2 + 2)
    assert counts.rates(1) == pytest.approx(((1 + 2 * overall) / 4,))
    assert counts.rates(3) == pytest.approx(((1 + 2 * overall) / 3, 2 * overall / 3, overall))
    counts.observe_step(2, 2)  # a new run: 0 and 1 agree, and the target's own token takes 2
    counts.observe_step(1, 0)  # a miss at 3
    first, second, fourth = (0.99**2 + 0.99, 0.99**2 + 0.99), (0.99, 0.99**2 + 0.99), (0.0, 1.0)
    agreed, seen = (sum(place[at] for place in (first, second, fourth)) for at in (0, 1))
    overall = (agreed + 2 * 0.6) / (seen + 2)
    expected = [(place[0] + 2 * overall) / (place[1] + 2) for place in (first, second, (0.0, 0.0), fourth)]
    assert counts.rates(4) == pytest.approx(expected)
    counts.observe_step(1, 1)  # the miss began anew at 0
    assert counts.rates(4)[0] > expected[0] and len(counts.rates(32)) == 32


def test_positions_beyond_the_last_count_as_the_last():
    counts = AcceptanceByPosition()
    counts.observe_step(40, 33)
    overall = (33 + 1.2) / (34 + 2)
    assert counts.rates(32)[-1] == pytest.approx((2 + 2 * overall) / (3 + 2)), "places 31 and 32 agreed, 33 did not"
    assert counts.rates(32)[30] == pytest.approx((1 + 2 * overall) / (1 + 2))


def test_priors_take_the_ends_of_their_range():
    assert AcceptanceByPosition(0).rates(1) == (0.0,) and AcceptanceByPosition(1).rates(2) == (1.0, 1.0)


def test_a_pair_is_told_as_it_was_seen():
    pair = LearnedPair()
    pair.observe_step(0, 0, 0.5)
    assert pair.costs() is None
    pair.draft_token.observe_value(0.0)
    costs = pair.costs()
    assert costs is not None
    assert (costs.step, costs.draft_token, costs.round_trip, costs.overhead) == (0.5, 0.0, 0.0, 0.0)
    assert costs.acceptance == (0.6,) * 4
