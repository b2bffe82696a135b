"""Which plan is followed: generous where a drafter runs freely, off where drafts never agree, within its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.planning.cost_model import PairCosts
from speculation.planning.plan import OFF, PlanLimits, choose_plan, generous_plan

#: A 32B target on an H200 and a fast drafter (design figures: 25 ms a step, 3 ms a draft token).
FAST = PairCosts(0.025, 0.0002, 0.003, 0.0, (0.62, 0.65, 0.65, 0.7))
#: Qwen2.5-Coder-1.5B and SmolLM2-135M, one CPU core each.
SLOW = PairCosts(0.3, 0.0135, 0.0225, 0.0, (0.62, 0.65, 0.65, 0.7))


@pytest.mark.parametrize("round_trip", [0.0, 0.01, 0.04, 0.08, 0.16])
@pytest.mark.parametrize("costs", [FAST, SLOW])
def test_a_good_drafter_is_used_at_every_distance(costs: PairCosts, round_trip: float):
    plan = choose_plan(replace(costs, round_trip=round_trip), PlanLimits())
    assert plan.width and plan.lookahead and plan.alternatives and not plan.patience


@pytest.mark.parametrize("costs", [FAST, SLOW])
def test_a_drafter_that_never_agrees_is_left_alone(costs: PairCosts):
    plan = choose_plan(replace(costs, acceptance=(0.0,)), PlanLimits())
    assert plan == replace(OFF, verify_threshold=plan.verify_threshold)


def test_the_farther_away_the_farther_ahead_and_the_dearer_the_choosier():
    near, far = generous_plan(FAST, PlanLimits()), generous_plan(replace(FAST, round_trip=0.05), PlanLimits())
    assert near.lookahead < far.lookahead
    dear = generous_plan(replace(FAST, step_per_token=0.002), PlanLimits())
    assert near.verify_threshold < dear.verify_threshold


@given(
    limits=st.builds(
        PlanLimits, width=st.integers(0, 16), lookahead=st.integers(0, 32), alternatives=st.integers(0, 3)
    ),
    round_trip=st.floats(0, 1),
    draft_token=st.floats(0, 1),
    acceptance=st.floats(0, 1),
)
def test_no_plan_exceeds_its_limits(limits: PlanLimits, round_trip: float, draft_token: float, acceptance: float):
    costs = replace(FAST, round_trip=round_trip, draft_token=draft_token, acceptance=(acceptance,))
    plan = choose_plan(replace(costs, recovery=costs.recovery[: limits.alternatives]), limits)
    assert plan.width <= limits.width and plan.lookahead <= limits.lookahead
    assert plan.alternatives <= limits.alternatives
