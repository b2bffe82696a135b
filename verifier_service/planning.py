"""How far to speculate in one session: its plan, chosen anew a few times a second from what was measured.

What a step costs is the verifier's to know, the drafter's speed and distance belong to its link, and how often its
drafts agree to the session. ``speculation/cost_model.py`` does the choosing; a coordinator may overrule it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.cost_model import PairCosts, predict, worth_verifying
from speculation.messages import SpeculationPlan
from speculation.plan import START, WORTHWHILE, PlanLimits, choose_plan
from speculation.sampling import Rule
from speculation.session_stats import SessionStats
from speculation.string_rejection import ENUMERATION_COST
from speculation.telemetry import SHORTEST_SECONDS, AcceptanceByPosition, LinearFit
from verifier_service.drafter_link import DrafterLink

#: Seconds between two plans of a session.
REPLAN_SECONDS = 0.25
#: A session that speculates no more tries again after so many steps, for so many, this far.
PROBE_EVERY, PROBE_STEPS = 64, 8
PROBE = SpeculationPlan(width=2, lookahead=4, span_tokens=2)
#: Acceptance rates told apart, by position since the last miss.
POSITIONS = 4
#: An order of the coordinator stands for so long; then the verifier plans by itself again.
ORDER_SECONDS = 5.0


class SessionPlanner:
    """``start``: the plan while too little is known. ``step_fit``: seconds of a step by draft tokens in it.

    ``limits``: asked for what no adaptive plan exceeds. ``rule``: which the session runs.
    """

    def __init__(
        self,
        start: SpeculationPlan,
        step_fit: LinearFit,
        *,
        adaptive: bool,
        limits: Callable[[], PlanLimits] = PlanLimits,
        rule: Rule = Rule.RACE,
    ) -> None:
        self.plan = limits().clip(start) if adaptive else start
        self._top_k = start.top_k
        self._step_fit = step_fit
        self._adaptive = adaptive
        self._limits = limits
        self._rule = rule
        self._probe: SpeculationPlan | None = None  # the one that runs
        self._acceptance = AcceptanceByPosition()
        self._planned_at = 0.0
        self._planned_for: PairCosts | None = None
        self._steps_off = 0
        self._drafted_steps = 0
        self._seen = SessionStats()
        self._ordered_until = 0.0

    def step_costs(self) -> pb.StepCosts | None:
        """For the coordinator; None before the first step."""
        if not self._step_fit.seen:
            return None
        return pb.StepCosts(
            step=self._step_fit.intercept,
            step_per_token=self._step_fit.slope,
            acceptance=self._acceptance.rates(POSITIONS),
            drafted_steps=self._drafted_steps,
        )

    def observe_step(self, stats: SessionStats, seconds: float) -> None:
        """A step ended. ``stats``: of the session, this step included."""
        draft_tokens = stats.draft_tokens - self._seen.draft_tokens
        first_choices = stats.first_choices - self._seen.first_choices
        accepted = stats.accepted_first_choices - self._seen.accepted_first_choices
        self._seen = dataclasses.replace(stats)
        self._step_fit.observe(draft_tokens, seconds)
        self._acceptance.observe_step(first_choices, accepted)
        self._drafted_steps += first_choices > 0
        probing = self._steps_off < 0
        self._steps_off = self._steps_off + 1 if self.plan.width == 0 or probing else 0

    def order(self, plan: SpeculationPlan, now: float) -> None:
        """The coordinator decides."""
        if self._adaptive:
            self._follow(plan)
            self._ordered_until = now + ORDER_SECONDS

    def replan(self, now: float, links: Iterable[DrafterLink]) -> bool:
        """Choose anew if it is time; whether the plan changed. ``now`` in seconds of any steady clock."""
        if not self._adaptive or now < self._planned_at + REPLAN_SECONDS or now < self._ordered_until:
            return False
        before = self.plan
        limits = self._limits()
        if before.width == 0 and self._steps_off >= PROBE_EVERY:
            self._follow(limits.clip(PROBE))
            self._probe = self.plan
            self._steps_off = -PROBE_STEPS
            self._planned_for = None
        elif before == self._probe and self._steps_off < 0:
            return False
        else:
            costs = self.costs(links)
            if costs is None:
                return self._weigh_lookups()
            costs = coarse(costs)
            if costs == self._planned_for:  # choosing takes some milliseconds of processor time
                return False
            self._planned_for = costs
            # No loyalty to a probe, or to a plan that gains nothing over the target alone.
            loyal = before != self._probe and predict(costs, before).speed_up >= WORTHWHILE
            possible = dataclasses.replace(
                limits, alternatives=START.for_rule(self._rule).alternatives and limits.alternatives
            )
            self._follow(choose_plan(costs, possible, current=before if loyal else None))
        self._planned_at = now
        return self.plan != before

    def _follow(self, plan: SpeculationPlan) -> None:
        """How many tokens a distribution has is asked for, never chosen."""
        self.plan = dataclasses.replace(plan, top_k=self._top_k)

    def _weigh_lookups(self) -> bool:
        """Without a measured drafter: what a candidate costs is known all the same."""
        if not self._step_fit.seen:
            return False
        threshold = worth_verifying(self._step_fit.intercept, self._step_fit.slope)
        if abs(threshold - self.plan.verify_threshold) < 0.01:
            return False
        self.plan = dataclasses.replace(self.plan, verify_threshold=threshold)
        return True

    def costs(self, links: Iterable[DrafterLink]) -> PairCosts | None:
        """What is known of the session and its quickest drafter; None if too little."""
        measured = [link for link in links if link.seconds_per_token is not None and link.round_trip.mean is not None]
        if not measured or not self._step_fit.seen:
            return None
        quickest = min(measured, key=DrafterLink.seconds_to_first_span)
        assert quickest.seconds_per_token is not None and quickest.round_trip.mean is not None
        return PairCosts(
            step=self._step_fit.intercept,
            step_per_token=self._step_fit.slope,
            draft_token=quickest.seconds_per_token * (ENUMERATION_COST if self._rule is Rule.STRING_REJECTION else 1.0),
            round_trip=quickest.round_trip.mean,
            acceptance=self._acceptance.rates(POSITIONS),
        )


def coarse(costs: PairCosts) -> PairCosts:
    """Times to some 10 %, shares to 0.05: what differs by less needs no new plan."""

    def rounded(seconds: float) -> float:
        return math.exp(round(math.log(seconds) * 10) / 10) if seconds > SHORTEST_SECONDS else 0.0

    return PairCosts(
        step=rounded(costs.step) or SHORTEST_SECONDS,
        step_per_token=rounded(costs.step_per_token),
        draft_token=rounded(costs.draft_token),
        round_trip=rounded(costs.round_trip),
        acceptance=tuple(round(rate * 20) / 20 for rate in costs.acceptance),
    )
