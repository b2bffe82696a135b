"""Whether drafting pays under a rejection rule is found out by the clock, and known costs are planned for."""

from __future__ import annotations

import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.planning.cost_model import PairCosts
from speculation.planning.plan import START, PlanLimits, choose_plan
from speculation.planning.step_times import StepTimes
from speculation.planning.trial import Trial
from speculation.sampling.params import Rule
from speculation.verification.string_rejection import ENUMERATION_COST
from tests.support.drafter_links import measured_link
from tests.support.service_drivers import WARM, drafters, drafting, request, serving, text_of
from tests.support.text_engine import TextEngine
from verifier_service.session_planner import SessionPlanner
from verifier_service.verifier import Verifier


@pytest.mark.parametrize("drafted, alone, pays", [(0.3, 0.4, True), (0.5, 0.4, False)])
def test_the_faster_way_is_taken_and_the_other_tried_seldom(drafted: float, alone: float, pays: bool):
    trial, taken = Trial(), []
    for _ in range(2000):
        taken.append(trial.taken)
        trial.observe_step(seconds=drafted if trial.taken else alone, tokens=1)
    assert taken[0]
    assert 0.95 < taken[200:].count(pays) / len(taken[200:]) < 1


def test_what_counts_is_time_per_token_not_tokens_per_step():
    trial = Trial()
    for _ in range(400):  # twice the tokens in thrice the time
        trial.observe_step(seconds=3.0 if trial.taken else 1.0, tokens=2 if trial.taken else 1)
    assert not trial.taken


async def plans_of(rule: Rule, *, pays: bool) -> list[pb.PlanChange]:
    """Of a session with a drafter, after drafting was found to pay or not under the rejection rules."""
    async with serving(TextEngine(step_seconds=0.02)) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        for pacing in verifier.pacing.values():
            if pacing.pays is not None:
                pacing.pays.taken = pays
        _, finished = await text_of(address, request(WARM, rule=rule, max_tokens=40, ignore_end=True))
        assert finished.completion_tokens == 40
        return list(finished.speculation.plans)


@pytest.mark.parametrize("rule, pays, off", [(Rule.REJECTION, False, True), (Rule.RACE, False, False)])
async def test_where_drafting_does_not_pay_the_drafter_is_left_alone(rule: Rule, pays: bool, off: bool):
    changes = (await plans_of(rule, pays=pays))[1:2]
    assert any(change.plan.width == 0 for change in changes) is off


async def test_the_pace_of_drafted_steps_is_observed_rule_by_rule():
    async with serving(TextEngine(step_seconds=0.01)) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        await text_of(address, request(WARM, rule=Rule.REJECTION, max_tokens=40, ignore_end=True))
        trials = {rule: pacing.pays for rule, pacing in verifier.pacing.items() if pacing.pays is not None}
        assert trials.keys() == {Rule.REJECTION, Rule.STRING_REJECTION}
        assert trials[Rule.REJECTION].seconds_per_token(taken=True) is not None
        assert trials[Rule.STRING_REJECTION].seconds_per_token(taken=True) is None


def test_a_plan_that_stays_is_not_put_to_the_test():
    verifier = Verifier(TextEngine(), plan=START, adaptive=False)
    assert all(pacing.pays is None for pacing in verifier.pacing.values())
    verifier.shutdown()


def test_an_enumeration_is_planned_for_at_what_it_costs():
    link = measured_link(round_trip=0.001, draft_token=0.03)
    costs = {}
    for rule in Rule.concrete():
        times = StepTimes()
        times.observe_step(1, 0.1)
        costs[rule] = SessionPlanner(START, times, adaptive=True, rule=rule).costs([link])
    string, plain = costs[Rule.STRING_REJECTION], costs[Rule.REJECTION]
    assert string is not None and plain is not None
    assert string.draft_token == pytest.approx(ENUMERATION_COST * plain.draft_token)
    assert costs[Rule.RACE] == costs[Rule.EXACT] == plain


def test_alternatives_that_no_plan_may_have_are_not_counted_on():
    slow = PairCosts(0.1, 0.004, 0.07, 0.0, (0.1,))
    with_them, without = PlanLimits(), PlanLimits(alternatives=0)
    assert choose_plan(slow, with_them).width and not choose_plan(slow, without).width
    assert START.for_rule(Rule.STRING_REJECTION).alternatives == 0 < START.for_rule(Rule.REJECTION).alternatives
