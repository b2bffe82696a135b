"""Online fits of what the cost model needs."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.errors import InputError
from speculation.planning import fits
from speculation.planning.best_plan import best_plan
from speculation.planning.cost_model import predict
from speculation.planning.fits import SHORTEST_SECONDS, AcceptanceByPosition, LinearFit, Smoothed
from tests.support.learned_pairs import LearnedPair


def test_whoever_reads_while_another_thread_observes_sees_a_line_of_some_observations():
    """Looked at before every line of it; levels change, so that the past is forgotten."""
    fit = LinearFit()
    fit.observe_point(0, 1.0)
    seen: list[float] = []

    def look(frame: FrameType, event: str, argument: object) -> Callable[..., object]:
        if frame.f_code.co_filename == fits.__file__:
            seen.append(fit.line[0] if fit.seen else 0.0)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        for y in (1.0, *[100.0] * 4, *[1.0] * 4):
            fit.observe_point(0, y)
    finally:
        sys.settrace(before)
    assert len(seen) > 50 and min(seen) > 0.9 and max(seen) < 501


def fitted(points: list[tuple[float, float]]) -> LinearFit:
    fit = LinearFit()
    for x, y in points:
        fit.observe_point(x, y)
    return fit


def noisy_line(
    rng: random.Random, count: int, intercept: float = 0.4, slope: float = 0.01
) -> list[tuple[float, float]]:
    xs = [rng.choice((0, 4, 8)) for _ in range(count)]
    return [(x, (intercept + slope * x) * rng.uniform(0.95, 1.05)) for x in xs]


# ---- the line ---------------------------------------------------------------------------------------------------


def test_the_first_observation_is_split_by_the_prior():
    fit = fitted([(5, 0.55)])
    assert fit.line[0] == pytest.approx(0.5)
    assert fit.line[1] == pytest.approx(0.01)
    assert fit.predict(5) == pytest.approx(0.55)


def test_the_prior_stands_until_x_spreads():
    rng = random.Random(0)
    fit = fitted([(8, rng.uniform(0.4, 0.5)) for _ in range(200)])
    assert fit.line[1] == pytest.approx(0.02 * fit.line[0], rel=0.01)


@given(st.floats(0.01, 1), st.floats(0, 0.2), st.integers(0, 5))
def test_finds_a_line(intercept: float, share: float, seed: int):
    fit = fitted(noisy_line(random.Random(seed), 200, intercept, share * intercept))
    assert fit.predict(0) == pytest.approx(intercept, rel=0.1)
    assert fit.predict(8) == pytest.approx(intercept * (1 + 8 * share), rel=0.1)
    assert fit.line[1] == pytest.approx(share * intercept, abs=0.1 * fit.predict(8) / 8)


def test_a_freak_hardly_counts():
    calm = noisy_line(random.Random(1), 100)
    assert fitted([*calm, (4, 1000.0)]).predict(4) < 1.2 * fitted(calm).predict(4)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_new_level_is_taken_over(factor: float):
    rng = random.Random(2)
    changed = [(x, factor * y) for x, y in noisy_line(rng, 6)]
    assert fitted(noisy_line(rng, 100) + changed).predict(4) == pytest.approx(factor * 0.44, rel=0.15)


def test_a_slow_first_step_is_soon_forgotten():
    assert fitted([(0, 30.0), *noisy_line(random.Random(3), 10)]).predict(4) == pytest.approx(0.44, rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 16), st.floats(1e-6, 1e3)), min_size=1, max_size=40))
def test_a_fit_is_a_cost(points: list[tuple[float, float]]):
    fit = fitted(points)
    assert fit.line[0] >= SHORTEST_SECONDS
    assert fit.line[1] >= 0
    assert math.isfinite(fit.predict(256))


# ---- the average ------------------------------------------------------------------------------------------------


def smoothed(*values: float) -> float | None:
    average = Smoothed()
    for value in values:
        average.observe_value(value)
    return average.mean


def test_average_of_nothing_is_unknown():
    assert smoothed() is None
    assert smoothed(3.0) == 3.0


def test_average_moves_slowly_over_noise_and_single_freaks():
    assert smoothed(*[1.0] * 50, 1.2, 0.9, 5.0, 1.0, 1.0) == pytest.approx(1.4, abs=0.1)
    assert smoothed(*[1.0] * 50, 5.0, 5.0) < 2


@pytest.mark.parametrize("level", [0.2, 5.0])
def test_three_in_a_row_are_a_new_level(level: float):
    assert smoothed(*[1.0] * 50, level, 1.1 * level, 0.9 * level) == pytest.approx(level)


def test_three_on_different_sides_are_not():
    assert smoothed(*[1.0] * 50, 5.0, 0.1, 5.0) < 2


def test_a_link_without_delay_may_get_one():
    assert smoothed(0.0, 0.0, 0.04, 0.04, 0.04) == 0.04


# ---- acceptance -------------------------------------------------------------------------------------------------


def test_unseen_positions_have_the_prior_and_then_the_rate_of_the_others():
    counts = AcceptanceByPosition(0.7)
    assert counts.rates(3) == pytest.approx((0.7, 0.7, 0.7))
    for _ in range(300):
        counts.observe_step(1, 0)
    assert counts.rates(3) == pytest.approx((0, 0, 0), abs=0.05)


def test_one_miss_moves_the_first_position_by_its_beta_prior():
    counts = AcceptanceByPosition(0.5)
    counts.observe_step(4, 0)
    overall = 1 / 3  # Beta(1, 1) and one miss
    assert counts.rates(2) == pytest.approx((2 * overall / 3, overall))


@pytest.mark.parametrize("width", [2, 3, 8])
def test_finds_the_rates_by_position(width: int):
    rates, rng, counts = (0.4, 0.6, 0.8), random.Random(4), AcceptanceByPosition()
    averages, run = [0.0, 0.0, 0.0], 0
    for step in range(6000):
        agreed = 0
        while agreed < width and rng.random() < rates[min(run + agreed, 2)]:
            agreed += 1
        # The target's own token takes a place of the run as well, if the drafter would have agreed.
        goes_on = agreed == width and rng.random() < rates[min(run + agreed, 2)]
        counts.observe_step(width, agreed)
        run = run + agreed + 1 if goes_on else 0
        if not goes_on:
            counts.observe_step(0, 0)
        if step >= 500:
            averages = [a + rate / 5500 for a, rate in zip(averages, counts.rates(3), strict=True)]
    # A miss on the target's own token goes unseen: then a first position is taken for a later one.
    assert averages == pytest.approx(rates, abs=0.12 if width < 8 else 0.05)


def test_steps_without_drafts_say_nothing():
    counts = AcceptanceByPosition()
    counts.observe_step(4, 2)
    before = counts.rates(4)
    for _ in range(100):
        counts.observe_step(0, 0)
    assert counts.rates(4) == before


def test_forgets():
    counts = AcceptanceByPosition()
    for accepted in [4] * 300 + [0] * 300:
        counts.observe_step(4, accepted)
    assert counts.rates(1)[0] < 0.25


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="prior"):
        AcceptanceByPosition(1.5)
    for n in (0, 33):
        with pytest.raises(InputError, match="n="):
            AcceptanceByPosition().rates(n)


# ---- all of it --------------------------------------------------------------------------------------------------


def test_costs_are_unknown_until_a_step_and_a_drafter_were_seen():
    pair = LearnedPair()
    assert pair.costs() is None
    pair.round_trip.observe_value(0.05)
    pair.observe_step(4, 2, 0.4)
    assert pair.costs() is None
    pair.draft_token.observe_value(0.06)
    costs = pair.costs()
    assert costs is not None
    assert (costs.round_trip, costs.draft_token) == (0.05, 0.06)
    assert costs.step + 4 * costs.step_per_token == pytest.approx(0.4)


times = st.floats(0, 1e300) | st.floats(0, 10)
steps = st.integers(0, 20).flatmap(lambda drafted: st.tuples(st.just(drafted), st.integers(0, drafted), times))


@given(st.lists(steps, min_size=1, max_size=30), st.lists(times, min_size=1), st.lists(times))
@settings(deadline=None, max_examples=60)
def test_whatever_is_observed_the_costs_can_be_planned_with(
    observed: list[tuple[int, int, float]], draft_tokens: list[float], round_trips: list[float]
):
    pair = LearnedPair()
    for step in observed:
        pair.observe_step(*step)
    for seconds in draft_tokens:
        pair.draft_token.observe_value(seconds)
    for seconds in round_trips:
        pair.round_trip.observe_value(seconds)
    costs = pair.costs()
    assert costs is not None and predict(costs, best_plan(costs)).speed_up >= 1


def test_a_pair_is_learned_well_enough_to_plan():
    rng, pair = random.Random(5), LearnedPair()
    for _ in range(300):
        pair.round_trip.observe_value(0.04 * rng.uniform(0.8, 1.2))
        pair.draft_token.observe_value(0.059 * rng.uniform(0.8, 1.2))
        drafted = rng.choice((0, 4, 8))
        accepted = next((i for i in range(drafted) if rng.random() > 0.62), drafted)
        pair.observe_step(drafted, accepted, (0.373 + 0.00825 * drafted) * rng.uniform(0.95, 1.05))
    costs = pair.costs()
    assert costs is not None
    assert costs.step == pytest.approx(0.373, rel=0.05)
    assert costs.step_per_token == pytest.approx(0.00825, abs=0.003)
    assert costs.draft_token == pytest.approx(0.059, rel=0.1)
    assert costs.round_trip == pytest.approx(0.04, rel=0.1)
    assert costs.acceptance == pytest.approx((0.62,) * 4, abs=0.15)
    assert best_plan(costs).width in (4, 6, 8)
