"""When a session's plan is chosen anew, when it probes, and what a difference in its figures is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from speculation.planning import plan_chooser
from speculation.planning.best_plan import OFF
from speculation.planning.cost_model import PairCosts, predict
from speculation.planning.outlook import expected_speed_up
from speculation.planning.plan import START, PlanLimits, choose_plan, generous_plan
from speculation.planning.plan_chooser import PROBE, PlanChooser, coarse
from speculation.protocol.messages import SpeculationPlan

GOOD = PairCosts(0.025, 0.0002, 0.003, 0.0, (0.6, 0.65))
BAD = replace(GOOD, acceptance=(0.0,))
LIMITS = PlanLimits()


@pytest.fixture(autouse=True)
def _nothing_chosen_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan_chooser, "_choices", {})


def choose(chooser: PlanChooser, current: SpeculationPlan, steps: int, now: float = 0.0, costs=GOOD, **kwargs):
    return chooser.choose(costs, LIMITS, current=current, steps=steps, now=now, **kwargs)


def test_a_plan_is_chosen_once_for_figures_that_are_alike():
    chooser, asked = PlanChooser(), []
    assert chooser.decided_at == -math.inf

    def may() -> bool:
        asked.append(True)
        return True

    chosen = choose(chooser, START, 1, 3.0, may_choose=may)
    assert chosen == choose_plan(coarse(GOOD), LIMITS, current=START) != START and chooser.decided_at == 3.0
    assert choose(chooser, START, 2, 4.0, may_choose=may) == START, "whatever plan is followed meanwhile"
    assert choose(chooser, START, 3, 5.0, replace(GOOD, step=0.0251), may_choose=may) == START
    assert len(asked) == 1 and chooser.decided_at == 3.0
    chooser.forget()
    assert choose(chooser, START, 4, 6.0) == chosen and chooser.decided_at == 6.0


def test_a_choice_that_was_made_before_needs_no_leave():
    """Of another session with the same figures: it is no work. Loyalty to a plan that takes turns is."""
    chosen, turns = choose(PlanChooser(), START, 1), replace(START, patience=0.5)
    assert choose(PlanChooser(), START, 1, may_choose=lambda: False) == chosen != START
    assert choose(PlanChooser(), turns, 1, may_choose=lambda: False) == turns
    assert choose(PlanChooser(), START, 1, costs=BAD, may_choose=lambda: False) == START
    assert choose(PlanChooser(margin=0.5), START, 1, may_choose=lambda: False) == START


def test_so_many_choices_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan_chooser, "_MOST_CHOICES", 2)
    for step in (0.02, 0.04, 0.08):
        choose(PlanChooser(), START, 1, costs=replace(GOOD, step=step))
    assert choose(PlanChooser(), START, 1, costs=replace(GOOD, step=0.02), may_choose=lambda: False) == START
    assert choose(PlanChooser(), START, 1, costs=replace(GOOD, step=0.08), may_choose=lambda: False) != START


def test_without_figures_or_leave_the_plan_stands():
    chooser = PlanChooser()
    assert choose(chooser, START, 1, costs=None) == START
    assert choose(chooser, START, 2, may_choose=lambda: False) == START and chooser.decided_at == -math.inf
    assert choose(chooser, START, 3) != START


def test_a_session_that_is_off_probes_after_sixty_four_steps_for_eight():
    chooser, off = PlanChooser(), replace(OFF, top_k=7)
    assert choose(chooser, off, 10, costs=BAD).width == 0
    assert choose(chooser, off, 73, costs=BAD) == off
    probe = choose(chooser, off, 74, 9.0, costs=BAD)
    assert probe == replace(PROBE, top_k=7) == SpeculationPlan(width=2, lookahead=4, span_tokens=2, top_k=7)
    assert chooser.decided_at == 9.0
    assert choose(chooser, probe, 75, 10.0, costs=BAD) == probe
    assert choose(chooser, probe, 81, 13.9, costs=BAD) == probe
    after = choose(chooser, probe, 82, 13.9, costs=BAD)
    assert after.width == 0 and chooser.decided_at == 13.9
    assert choose(chooser, after, 90, costs=None) == after
    assert choose(chooser, after, 153, costs=None) == after
    assert choose(chooser, after, 154, costs=None) == PROBE, "the count begins where it was off again"


def test_a_probe_ends_without_leave_to_choose_as_well():
    """With what stood before it, until there is leave; or it would speculate where that does not pay."""
    chooser, off = PlanChooser(), replace(OFF, top_k=7)
    choose(chooser, off, 0, 0.0, costs=BAD)
    probe = choose(chooser, off, 64, 1.0, costs=BAD)
    assert probe.width
    limits = PlanLimits()
    seen = replace(BAD, step=0.1)
    after = chooser.choose(seen, limits, current=probe, steps=72, now=2.0, may_choose=lambda: False)
    assert after == off
    assert chooser.choose(seen, limits, current=after, steps=73, now=2.1, may_choose=lambda: False) == off
    assert chooser.choose(BAD, limits, current=after, steps=74, now=2.2).width == 0


def test_a_probe_without_steps_ends_after_five_seconds():
    for now, over in ((4.9, False), (5.0, True)):
        chooser = PlanChooser()
        choose(chooser, OFF, 0, costs=None)
        probe = choose(chooser, OFF, 64, 0.0, costs=None)
        assert (choose(chooser, probe, 65, now) != probe) is over


def test_a_plan_ordered_meanwhile_ends_a_probe():
    chooser = PlanChooser()
    choose(chooser, OFF, 0, costs=None)
    choose(chooser, OFF, 64, 0.0, costs=None)
    assert choose(chooser, START, 65, 0.1) != START


def test_steps_that_are_counted_anew_do_not_delay_a_probe():
    chooser = PlanChooser()
    choose(chooser, OFF, 100, costs=None)
    choose(chooser, OFF, 3, costs=None)
    assert choose(chooser, OFF, 66, costs=None) == OFF and choose(chooser, OFF, 67, costs=None) == PROBE


def test_speculating_forgets_since_when_it_was_off():
    chooser = PlanChooser()
    choose(chooser, OFF, 0, costs=None)
    choose(chooser, START, 60, costs=None)
    assert choose(chooser, OFF, 70, costs=None) == OFF and choose(chooser, OFF, 133, costs=None) == OFF
    assert choose(chooser, OFF, 134, costs=None) == PROBE


@pytest.mark.parametrize("loyal", [True, False])
def test_loyalty_is_to_plans_that_gain_and_to_no_probe(loyal: bool, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def chosen(costs, limits, current, margin):
        asked.append((current, margin))
        return START

    monkeypatch.setattr(plan_chooser, "_chosen", chosen)
    current = SpeculationPlan(width=4, lookahead=8, span_tokens=2)
    choose(PlanChooser(margin=0.07), current, 1, costs=GOOD if loyal else BAD)
    assert asked == [(current if loyal else None, 0.07)]
    chooser = PlanChooser()
    choose(chooser, OFF, 0, costs=None)
    probe = choose(chooser, OFF, 64, costs=None)
    choose(chooser, probe, 72, 0.1)
    assert asked[1:] == [(None, 0.03)]


def test_figures_are_told_apart_by_a_tenth_and_rates_by_a_twentieth():
    rounded = coarse(PairCosts(0.1, 1e-6, 1.1e-6, 0.04, (0.62, 0.63, 1.0)))
    assert rounded.step == pytest.approx(math.exp(-2.3)) and rounded.round_trip == pytest.approx(math.exp(-3.2))
    assert rounded.step_per_token == 0.0 and rounded.draft_token == pytest.approx(math.exp(-13.7))
    assert rounded.acceptance == (0.6, 0.65, 1.0)
    assert coarse(PairCosts(1e-9, 0, 0, 0, (0.5,))).step == 1e-6
    shares = [coarse(replace(GOOD, alone_share=share)).alone_share for share in (1.0, 0.66, 0.64, 0.01)]
    assert shares == [1.0, 0.65, 0.65, 0.05]


def test_limits_cut_a_plan():
    limits = PlanLimits(width=3, lookahead=2, alternatives=1)
    assert PlanLimits() == PlanLimits(16, 32, 3)
    cut = limits.clip(SpeculationPlan(width=8, lookahead=8, span_tokens=4, alternatives=2, top_k=5))
    assert cut == SpeculationPlan(width=3, lookahead=2, span_tokens=2, alternatives=1, top_k=5)
    small = SpeculationPlan(width=1, lookahead=1, span_tokens=1)
    assert limits.clip(small) == small
    assert PlanLimits(lookahead=0).clip(small).span_tokens == 1


def test_a_drafter_that_runs_freely_runs_two_tokens_beyond_the_answer():
    costs = PairCosts(0.025, 0.0005, 0.01, 0.05, (0.6,))
    assert generous_plan(costs, LIMITS) == replace(START, lookahead=12, verify_threshold=0.04)
    assert generous_plan(replace(costs, round_trip=0.051), LIMITS).lookahead == 13
    assert generous_plan(replace(costs, round_trip=0.0), LIMITS).lookahead == 8, "at least eight"
    assert generous_plan(replace(costs, draft_token=0.0), LIMITS).lookahead == 32, "as far as it may"
    small = generous_plan(costs, PlanLimits(width=4, lookahead=0, alternatives=1))
    assert (small.width, small.lookahead, small.alternatives) == (4, 1, 1)


def test_without_room_there_is_no_plan():
    assert choose_plan(GOOD, PlanLimits(width=0)) == choose_plan(GOOD, PlanLimits(lookahead=0)) == OFF


def outlook(**kwargs: float) -> float:
    figures = {"step": 0.1, "step_per_token": 0.001, "draft_token": 0.01, "round_trip": 0.02, "acceptance": 0.7}
    return expected_speed_up(**{**figures, **kwargs})


def test_an_outlook_follows_ratios_and_is_never_below_one():
    assert outlook(acceptance=0.0) == outlook(draft_token=100.0) == 1.0
    usual = outlook()
    assert usual > 1.3
    twice = outlook(step=0.2, step_per_token=0.002, draft_token=0.02, round_trip=0.04)
    assert twice == usual, "only ratios count"
    slow = outlook(step=10.0, step_per_token=5.0, draft_token=1.0, round_trip=2.0)
    assert slow == outlook(step_per_token=0.05) < usual
    assert outlook(acceptance=0.9) > usual > outlook(acceptance=0.5)
    assert outlook(draft_token=0.1) < usual and outlook(round_trip=0.2) < usual and outlook(step_per_token=0.05) < usual
    assert outlook(acceptance=2.0) == outlook(acceptance=1.0) and outlook(acceptance=-1.0) == 1.0
    assert outlook(draft_token=0.0) == outlook(draft_token=1e-9) > usual
    assert outlook(acceptance=0.71) == usual != outlook(acceptance=0.75)


def test_an_outlook_is_the_best_of_five_typical_plans():
    fields = ("width", "lookahead", "span_tokens", "alternatives")
    shapes = ((2, 4, 2, 0), (4, 8, 4, 0), (6, 12, 2, 2), (8, 24, 4, 0), (12, 32, 4, 2))
    plans = [replace(SpeculationPlan(stop_threshold=0.05), **dict(zip(fields, shape, strict=True))) for shape in shapes]
    cases = [  # tenths of the logarithm of each time's ratio to the step, acceptance
        ((-46, -10, -10), 0.7),
        ((-10, -20, -10), 0.9),
        ((-46, -20, -10), 0.5),
        ((-46, -20, -10), 0.7),
        ((-46, -40, -30), 0.5),
    ]
    for best, (tenths, acceptance) in enumerate(cases):
        per_token, draft_token, round_trip = (math.exp(ratio / 10) for ratio in tenths)
        costs = PairCosts(1.0, per_token, draft_token, round_trip, (acceptance,))
        speeds = [predict(costs, plan).speed_up for plan in plans]
        assert speeds.index(max(speeds)) == best
        times = {"step_per_token": per_token, "draft_token": draft_token, "round_trip": round_trip}
        assert outlook(step=1.0, acceptance=acceptance, **times) == speeds[best]
