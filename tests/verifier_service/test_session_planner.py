"""How a session plans for itself: from measured costs, with probes after giving up, and under orders."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.drafts.candidates import CandidateTree
from speculation.errors import ProtocolError
from speculation.planning.best_plan import OFF, PAIRS_FROM, tokens_a_span, worth_sending
from speculation.planning.cost_model import PairCosts
from speculation.planning.fits import SHORTEST_SECONDS
from speculation.planning.plan import SPAN_SECONDS, PlanLimits
from speculation.planning.plan_chooser import PROBE, PROBE_EVERY, PROBE_STEPS, PlanChooser, coarse
from speculation.planning.step_times import StepTimes
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sessions.statistics import SessionStats
from speculation.source import LOOKUP
from tests.support.drafter_links import measured_link, next_ping
from verifier_service.drafter_link import DrafterLink
from verifier_service.planning_budget import PlanningBudget
from verifier_service.session_planner import ORDER_SECONDS, REPLAN_SECONDS, SessionPlanner

START = SpeculationPlan(width=5, lookahead=5)


class Clock:
    """A session that steps every 25 ms; ``accepts`` of each step's draft tokens agree."""

    def __init__(self, planner: SessionPlanner, links: list[DrafterLink], times: StepTimes) -> None:
        self.now = 0.0
        self._planner, self._times = planner, times
        self._links = links
        self._stats = SessionStats()

    def run(self, steps: int, *, accepts: int, seconds: float = 0.025) -> list[int]:
        """The widths of the plans, step by step."""
        widths = []
        for _ in range(steps):
            self.now += seconds
            width = self._planner.current(None).width
            self._stats.count_step(CandidateTree.chain(range(width)), tuple(range(min(accepts, width))))
            drafters = [link.number for link in self._links] if width else []
            delay = max((link.round_trip.mean or 0.0 for link in self._links), default=0.0)
            self._times.observe_step(width, seconds, now=self.now, drafters=drafters, round_trip=delay)
            self._planner.observe_step(self._stats)
            self._planner.replan(self.now, self._links)
            widths.append(self._planner.plan.width)
        return widths


def test_without_measurements_the_start_stands():
    planner = SessionPlanner(START, StepTimes(), adaptive=True)
    assert not planner.replan(100.0, [])
    unmeasured = DrafterLink(pb.Hello(name="d", max_sessions=4))
    assert not planner.replan(200.0, [unmeasured]) and planner.plan == START


def test_a_plan_that_loses_against_the_target_alone_is_left():
    """Hysteresis protects a plan from a slightly better one, not from the truth."""
    waiting = SpeculationPlan(width=5, lookahead=5, patience=0.1)
    times = StepTimes()
    planner = SessionPlanner(waiting, times, adaptive=True)
    Clock(planner, [measured_link(round_trip=0.002)], times).run(600, accepts=0)
    assert planner.plan.width == 0 or planner.plan.patience == 0


def test_a_session_without_speculation_tries_again_now_and_then():
    times = StepTimes()
    planner = SessionPlanner(SpeculationPlan(width=0, lookahead=0), times, adaptive=True)
    widths = Clock(planner, [measured_link(draft_token=0.5)], times).run(1500, accepts=0)
    assert PROBE.width in widths
    assert widths.count(0) / len(widths) > 1 - 2.5 * (PROBE_STEPS + 10) / PROBE_EVERY


def test_a_probe_lasts_long_enough_to_see_something_of_slow_steps():
    times = StepTimes()
    planner = SessionPlanner(SpeculationPlan(width=0, lookahead=0), times, adaptive=True)
    widths = Clock(planner, [measured_link(draft_token=0.5)], times).run(
        PROBE_EVERY + PROBE_STEPS, accepts=0, seconds=0.4
    )
    assert widths.count(PROBE.width) == PROBE_STEPS


def test_a_drafter_that_becomes_good_is_used_again():
    times = StepTimes()
    planner = SessionPlanner(SpeculationPlan(width=0, lookahead=0), times, adaptive=True)
    assert Clock(planner, [measured_link(round_trip=0.002)], times).run(1000, accepts=99)[-1] > PROBE.width


def test_fixed_plans_stay():
    times = StepTimes()
    planner = SessionPlanner(START, times, adaptive=False)
    assert set(Clock(planner, [measured_link()], times).run(200, accepts=0)) == {START.width}


def test_plans_change_at_most_so_often():
    times = StepTimes()
    planner = SessionPlanner(START, times, adaptive=True)
    clock = Clock(planner, [measured_link()], times)
    clock.run(20, accepts=3)
    planned_at = clock.now
    assert planner.replan(planned_at + REPLAN_SECONDS, [measured_link()]) in (True, False)
    assert not planner.replan(planned_at + REPLAN_SECONDS * 1.01, [measured_link(round_trip=1.0)])


def test_an_order_stands_for_a_while_and_then_the_session_plans_for_itself():
    times = StepTimes()
    planner = SessionPlanner(START, times, adaptive=True)
    clock = Clock(planner, [measured_link()], times)
    clock.run(100, accepts=5)
    ordered = SpeculationPlan(width=1, lookahead=1)
    planner.order(ordered, clock.now)
    assert set(clock.run(int(ORDER_SECONDS / 0.025) - 2, accepts=5)) == {1}
    assert clock.run(100, accepts=5)[-1] > 1


def test_an_order_that_comes_while_a_plan_is_chosen_stands(monkeypatch: pytest.MonkeyPatch):
    """Orders come in the event loop, plans are chosen in the engine's thread."""
    times = StepTimes()
    planner = SessionPlanner(START, times, adaptive=True)
    clock = Clock(planner, [measured_link()], times)
    clock.run(100, accepts=5)
    ordered = SpeculationPlan(width=1, lookahead=1)
    order = threading.Thread(target=planner.order, args=(ordered, clock.now))

    def choose(*args: object, **kwargs: object) -> SpeculationPlan:
        order.start()
        order.join(0.2)  # as far as it gets
        return replace(START, width=3)

    monkeypatch.setattr(PlanChooser, "choose", choose)
    planner.replan(clock.now + REPLAN_SECONDS, [measured_link()])
    order.join()
    assert planner.plan.width == 1


def test_noise_in_the_measured_steps_never_stops_planning():
    """One hiccup at a wide step, and the fit has it that a step without drafts takes no time."""
    fit = StepTimes()
    for _ in range(33):
        fit.observe_step(15, 1.0)
    fit.observe_step(16, 1.5)
    assert fit.line[0] == SHORTEST_SECONDS
    planner = SessionPlanner(START, fit, adaptive=True)
    costs = planner.costs([measured_link()])
    assert costs is not None and coarse(costs).step > 0
    planner.replan(100.0, [measured_link()])
    told = planner.step_costs()
    assert told is not None and told.step > 0


@pytest.mark.parametrize("step", [1e-300, 1e-9, 9.9e-7, 1e-6, 1.1e-6])
def test_rounding_leaves_a_step_its_time(step: float):
    assert coarse(PairCosts(step, 0.0, 0.0, 0.0, (0.5,))).step > 0


def test_limits_hold_where_the_verifier_plans_by_itself():
    limits = PlanLimits(width=1, lookahead=3, alternatives=0)
    times = StepTimes()
    planner = SessionPlanner(START, times, adaptive=True, limits=lambda: limits)
    clock = Clock(planner, [measured_link(round_trip=0.002)], times)
    plans = []
    for accepts in (9, 0, 9):
        for _ in range(600):
            clock.run(1, accepts=accepts)
            plans.append(planner.plan)
    assert {plan.width for plan in plans} == {0, 1}
    assert all(plan.lookahead <= 3 and plan.alternatives == 0 for plan in plans)


def test_how_many_tokens_a_distribution_has_is_never_planned():
    times = StepTimes()
    planner = SessionPlanner(replace(START, top_k=7), times, adaptive=True)
    clock = Clock(planner, [measured_link()], times)
    clock.run(200, accepts=5)
    assert planner.plan != replace(START, top_k=7) and planner.plan.top_k == 7
    planner.order(SpeculationPlan(width=1, lookahead=1), clock.now)
    assert planner.plan.top_k == 7


def test_links_measure_themselves_and_refuse_nonsense():
    made = DrafterLink(pb.Hello(name="d", max_sessions=4))
    made.ping()
    number = next_ping(made)
    made.on_pong(pb.Pong(number=number, seconds_per_token=0.02))
    assert made.round_trip.mean is not None and made.round_trip.mean >= 0
    assert made.seconds_per_token == 0.02
    made.sessions |= {"a", "b"}
    assert made.seconds_per_token == 0.04
    for pong in (pb.Pong(number=number), pb.Pong(number=10**9)):
        with pytest.raises(ProtocolError, match="no ping"):
            made.on_pong(pong)
    for speed in (math.nan, -1.0, math.inf, 1e308):
        made.ping()
        number = next_ping(made)
        with pytest.raises(ProtocolError, match="seconds_per_token"):
            made.on_pong(pb.Pong(number=number, seconds_per_token=speed))
    assert made.seconds_per_token == 0.04


def test_pings_without_answers_are_forgotten_in_the_end():
    made = DrafterLink(pb.Hello(name="d", max_sessions=4))
    numbers = []
    for _ in range(10 * DrafterLink.PINGS_OUT):
        made.ping()
        numbers.append(next_ping(made))
    for number in numbers[: -DrafterLink.PINGS_OUT]:
        with pytest.raises(ProtocolError, match="no ping"):
            made.on_pong(pb.Pong(number=number))
    for number in numbers[-DrafterLink.PINGS_OUT :]:
        assert made.on_pong(pb.Pong(number=number)) >= 0


def test_what_the_target_looked_up_says_nothing_about_drafters():
    """Neither what a plan expects of them, nor how many steps the rates rest on."""
    fit, stats = StepTimes(), SessionStats()
    planner = SessionPlanner(START, fit, adaptive=True)
    for _ in range(20):
        stats.count_step(CandidateTree((5, 6), (-1, 0), (), (LOOKUP, LOOKUP)), (0, 1))
        fit.observe_step(2, 0.025)
        planner.observe_step(stats)
    costs = planner.step_costs()
    assert costs is not None and costs.drafted_steps == 0 and costs.acceptance == pytest.approx([0.6] * 4)
    stats.count_step(CandidateTree.chain([5, 6]), (0, 1))
    planner.observe_step(stats)
    costs = planner.step_costs()
    assert costs is not None and costs.drafted_steps == 1 and costs.acceptance[0] > 0.6


def test_where_many_wait_for_a_step_unlikely_drafts_are_not_sent():
    """At once, without leave to choose: each span keeps all of them. With few sessions again, they are."""
    sessions = 1
    fit = StepTimes()
    fit.observe_step(0, 0.01)
    start = replace(START, stop_threshold=0.001)
    budget = PlanningBudget(clock=lambda: -1.0)  # its time never comes
    planner = SessionPlanner(start, fit, adaptive=True, budget=budget, sessions=lambda: sessions)
    link = measured_link(draft_token=0.002)
    assert planner.plan.stop_threshold == 0.001
    sessions, least = 16, worth_sending(0.01, 15 * SPAN_SECONDS)
    assert planner.replan(1.0, [link]) and least > 0.1
    assert planner.plan == replace(start, stop_threshold=least)
    assert not planner.replan(2.0, [link]), "a steady load needs no other plan"
    newcomer = SessionPlanner(start, fit, adaptive=True, budget=budget, sessions=lambda: sessions)
    assert newcomer.plan.stop_threshold == least
    sessions = 1
    assert planner.replan(3.0, [link]) and planner.plan == start


def test_what_is_worth_sending():
    assert worth_sending(0.01, 0.0) == 0.0, "nobody else waits"
    assert worth_sending(0.1, SPAN_SECONDS) == pytest.approx(2**-10) and worth_sending(0.001, 1.0) == 0.5


@given(share=st.floats(1e-4, 0.4), noise=st.lists(st.floats(0.8, 1.25), max_size=20))
def test_what_is_worth_sending_is_not_another_thing_at_every_step(share: float, noise: list[float]):
    found = worth_sending(1.0, share / 2)
    for factor in noise:
        assert worth_sending(1.0, share / 2 * factor, found) == found
    assert worth_sending(1.0, share * 2, found) > found or found == 0.5


@pytest.mark.parametrize(("draft_token", "tokens"), [(0.002, 2), (0.03, 1)])
def test_quick_drafters_send_tokens_in_pairs(draft_token: float, tokens: int):
    fit = StepTimes()
    fit.observe_step(0, draft_token * 10)
    link, start = measured_link(draft_token=draft_token), replace(START, span_tokens=1, alternatives=3)
    planner = SessionPlanner(start, fit, adaptive=True)
    assert planner.plan == start, "no drafter is known"
    planner.replan(1.0, [link, measured_link(draft_token=0.1)])
    assert planner.plan.width and not planner.plan.patience and planner.plan.span_tokens == tokens
    planner.order(replace(START, span_tokens=4), 2.0)
    assert planner.plan.span_tokens == 4, "never shorter than was chosen"
    turns = replace(start, patience=0.1)
    planner.order(turns, 3.0)
    assert planner.plan == turns, "who takes turns is waited for"
    planner.order(replace(start, lookahead=1), 4.0)
    assert planner.plan == replace(start, lookahead=1)
    planner.order(OFF, 5.0)
    assert planner.plan == OFF
    alone = SessionPlanner(start, fit, adaptive=True, rule=Rule.REJECTION)
    alone.replan(1.0, [link])
    assert alone.plan.width and alone.plan.span_tokens == 1, "what is drawn travels alone"


def test_how_many_tokens_a_span_has_changes_seldom():
    assert [tokens_a_span(PAIRS_FROM * times) for times in (0.1, 0.99, 1.01, 10.0)] == [1, 1, 2, 2]
    assert [tokens_a_span(PAIRS_FROM * times, 2) for times in (0.5, 0.6, 0.99, 1.01)] == [1, 2, 2, 2]
