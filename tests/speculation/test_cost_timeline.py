"""The cost model's parts by hand: the drafter's timeline, cycles of synchronous steps, how far a plan drafts."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from operator import mul

import pytest

from speculation.errors import InputError
from speculation.planning.best_plan import best_plan, break_even_round_trip, worth_hosting, worth_verifying
from speculation.planning.cost_model import (
    PairCosts,
    _Drafter,
    _timeline,
    draft_token_time,
    predict,
    predict_synchronous,
)
from speculation.protocol.messages import SpeculationPlan

COSTS = PairCosts(step=0.4, step_per_token=0.01, draft_token=0.05, round_trip=0.04, acceptance=(0.4, 0.6, 0.8))


def arrivals(drafter: _Drafter, until: float) -> list[tuple[float, int]]:
    """When spans arrive, and their last tokens."""
    found = []
    while (time := drafter.next_arrival(until)) is not None:
        found.append((time, drafter.state[-1]))
    return found


def test_a_drafter_ships_full_spans_after_half_a_round_trip():
    drafter = _Drafter(1.0, 0.5, 2, (9,), 0)
    assert arrivals(drafter, 7.0) == [(3.0, 2), (5.0, 4), (7.0, 6)]
    assert drafter.arrived_by(6.9) == 6, "what has arrived stays"
    assert _Drafter(1.0, 0.5, 2, (9,), 0).arrived_by(6.9) == 4
    assert arrivals(_Drafter(1.0, 0.0, 1, (9,), 3), 2.0) == [(1.0, 4), (2.0, 5)], "it begins behind what was there"


def test_a_drafter_rests_at_its_limit_and_ships_what_it_has():
    drafter = _Drafter(1.0, 0.0, 2, (3,), 0)
    assert arrivals(drafter, 99.0) == [(2.0, 2), (3.0, 3)]
    drafter.verdicts.append((5.0, 2))
    assert arrivals(drafter, 99.0) == [(7.0, 5)]


def test_a_drafter_that_was_overtaken_goes_on_behind_the_text():
    drafter = _Drafter(1.0, 0.5, 1, (9,), 0)
    assert arrivals(drafter, 2.0) == [(2.0, 1)]
    drafter.verdicts.append((1.6, 5))
    assert arrivals(drafter, 5.0) == [(4.0, 6), (5.0, 7)]


def test_how_far_it_drafts_depends_on_what_agreed_before():
    drafter = _Drafter(1.0, 0.0, 1, (1, 3), 0)
    assert arrivals(drafter, 99.0) == [(1.0, 1)]
    drafter.verdicts.append((2.0, 1))
    assert arrivals(drafter, 99.0) == [(3.0, 2), (4.0, 3), (5.0, 4)]


@pytest.mark.parametrize("width", [1, 3, 8])
def test_synchronous_steps_by_position(width: int):
    """Steps of a cycle begin after every width + 1 tokens that agreed; a cycle has E[L] + 1 tokens."""
    chances = list(accumulate((*COSTS.acceptance, *[0.8] * 400), mul, initial=1.0))
    steps = sum(chances[:: width + 1])
    tokens = sum(chances)
    predicted = predict_synchronous(COSTS, width)
    assert predicted.tokens_per_step == pytest.approx(tokens / steps, rel=1e-3)
    duration = COSTS.round_trip + width * 0.06 + COSTS.step
    assert predicted.tokens_per_second == pytest.approx(tokens / steps / duration, rel=1e-3)


def test_a_drafter_rests_behind_the_token_that_falls_below_the_threshold():
    costs = replace(COSTS, acceptance=(0.5,))

    def speed(threshold: float) -> float:
        return predict(costs, SpeculationPlan(width=4, lookahead=4, span_tokens=1, stop_threshold=threshold)).speed_up

    assert speed(0.5) == speed(0.3) != speed(0.51) == speed(0.9)
    assert speed(0.25) == speed(0.2) != speed(0.26) == speed(0.5)


def test_alternatives_take_the_drafters_time():
    costs = replace(COSTS, alternative_cost=(0.2, 0.5), recovery=(0.1, 0.2))
    plans = [SpeculationPlan(alternatives=n) for n in range(4)]
    assert [draft_token_time(costs, plan) for plan in plans] == pytest.approx([0.05, 0.06, 0.075, 0.075])
    assert draft_token_time(replace(costs, alternative_cost=()), plans[2]) == 0.05


def test_the_chance_from_which_a_token_is_worth_verifying():
    assert worth_verifying(0.1, 0.01) == 0.2 and worth_verifying(0.1, 0.01, 1.0) == 0.1
    assert worth_verifying(0.1, 0.0) == 0.01 and worth_verifying(0.1, 9.0) == 0.6 and worth_verifying(0.0, 0.1) == 0.6
    assert worth_verifying(0.1, 0.0112, 1.0) == 0.11


def test_where_no_plan_is_allowed_a_bad_one_is_left():
    bad = SpeculationPlan(width=16, lookahead=16, patience=1.0)
    dear = replace(COSTS, step_per_token=0.3)
    assert predict(dear, bad).speed_up < 0.9 and best_plan(dear, max_width=0, current=bad).width == 0


def test_break_even_is_found_to_the_millisecond():
    costs = PairCosts(0.025, 0.0004, 0.0031, 0.0, (0.4, 0.6, 0.8), overhead=0.0011)
    far = break_even_round_trip(costs)
    assert far is not None and far * 1000 == pytest.approx(round(far * 1000))

    def gain(round_trip: float) -> float:
        there = replace(costs, round_trip=round_trip)
        return predict(there, best_plan(there)).speed_up

    assert gain(far) >= 1.02 > gain(far + 0.001)


def test_a_drafter_works_until_it_waits_for_a_verdict():
    drafter = _Drafter(1.0, 0.0, 1, (3,), 0)
    assert drafter.working_seconds(0.0, 2.0) == 2.0
    assert drafter.working_seconds(2.0, 4.0) == pytest.approx(1.0), "three tokens, then nothing more to do"
    assert drafter.working_seconds(3.0, 4.0) == 0.0
    assert drafter.state == (0.0, 1, 0, 0), "it was a look ahead"
    assert arrivals(drafter, 9.0) == [(1.0, 1), (2.0, 2), (3.0, 3)]
    drafter.verdicts.append((7.0, 1))
    assert drafter.working_seconds(6.0, 4.0) == pytest.approx(2.0), "a token for the one that was committed"


def test_a_step_is_longer_by_what_is_not_done_while_the_drafter_works():
    """Alone 10, beside a drafter 20: while it works for 10, half of the step is done, and the rest takes 5."""
    costs = PairCosts(20.0, 0.0, draft_token=10.0, round_trip=0.0, acceptance=(0.5,), recovery=(), alone_share=0.5)
    turns = SpeculationPlan(width=1, lookahead=1, span_tokens=1, stop_threshold=0.0)
    assert _timeline(costs, turns, covered=False)[0].duration == pytest.approx(15.0)
    quick, slow = replace(costs, draft_token=5.0), replace(costs, draft_token=50.0)
    assert _timeline(quick, turns, covered=False)[0].duration == pytest.approx(12.5)
    assert _timeline(slow, turns, covered=False)[0].duration == pytest.approx(20.0)


def test_shared_processors_cost_a_free_drafter_its_target_time():
    """Beside a drafter that never stops all steps take longer than alone; the gain is over the target alone."""
    free = SpeculationPlan(width=8, lookahead=64, stop_threshold=0.0)
    shared = replace(COSTS, alone_share=0.6, round_trip=0.0)
    apart = predict(replace(shared, alone_share=1.0), free)
    together = predict(shared, free)
    assert together.tokens_per_second == pytest.approx(apart.tokens_per_second)
    assert together.speed_up == pytest.approx(0.6 * apart.speed_up)
    off = predict(shared, SpeculationPlan(width=0, lookahead=0))
    assert off.tokens_per_second == pytest.approx(1 / (0.6 * COSTS.step)) and off.speed_up == 1.0


def test_taking_turns_makes_no_step_longer():
    """A drafter that has nothing to do while its draft is verified costs the target nothing."""
    turns = SpeculationPlan(width=4, lookahead=4, span_tokens=4, patience=9.0)
    apart = replace(COSTS, round_trip=0.0, acceptance=(0.5,))
    shared = replace(apart, step=apart.step / 0.5, step_per_token=apart.step_per_token / 0.5, alone_share=0.5)
    alone, beside = predict(apart, turns), predict(shared, turns)
    assert beside.speed_up == pytest.approx(alone.speed_up, rel=0.12)
    free = replace(turns, patience=0.0, lookahead=64, stop_threshold=0.0)
    assert predict(shared, free).speed_up < 0.7 * predict(apart, free).speed_up
    synchronous = predict_synchronous(shared, 4)
    assert synchronous.speed_up == pytest.approx(predict_synchronous(apart, 4).speed_up)


def test_what_gains_nothing_over_the_target_alone_is_no_plan():
    """A third more for drafts that agree now and then does not pay for steps that take half as long again."""
    apart = PairCosts(0.016, 1e-5, draft_token=0.008, round_trip=0.0, acceptance=(0.2,), recovery=())
    assert best_plan(apart).width and not best_plan(replace(apart, alone_share=0.68)).width


def test_a_share_of_a_step_must_be_one():
    for share in (0.0, 1.01, float("nan")):
        with pytest.raises(InputError, match="alone_share"):
            replace(COSTS, alone_share=share)


@pytest.mark.parametrize(
    ("sessions", "step", "least"),
    [(1, 0.0018, 0.0), (3, 1e-6, 0.0), (16, None, 0.0), (16, 0.016, 0.04), (32, 0.0064, 0.2), (64, 1e-6, 1.0)],
)
def test_what_a_candidate_has_to_be_worth_where_many_wait_for_it(sessions: int, step: float | None, least: float):
    assert worth_hosting(step, sessions) == pytest.approx(least)
