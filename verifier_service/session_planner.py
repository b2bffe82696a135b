"""How far to speculate in one session: its plan, chosen anew a few times a second from what was measured.

What a step costs is the verifier's to know, the drafter's speed and distance belong to its link, and how often its
drafts agree to the session. ``speculation/planning`` does the choosing; a coordinator may overrule it.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from speculation.planning.best_plan import tokens_a_span, worth_sending, worth_verifying
from speculation.planning.cost_model import PairCosts, StepCosts
from speculation.planning.fits import AcceptanceByPosition
from speculation.planning.patience import Patience
from speculation.planning.plan import SPAN_SECONDS, START, PlanLimits
from speculation.planning.plan_chooser import PlanChooser
from speculation.planning.step_times import StepTimes
from speculation.planning.trial import Trial
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sessions.statistics import SessionStats
from speculation.verification.string_rejection import ENUMERATION_COST
from verifier_service.drafter_link import DrafterLink
from verifier_service.planning_budget import PlanningBudget
from verifier_service.step_report import EndedStep

#: Seconds between two plans of a session.
REPLAN_SECONDS = 0.25
#: Acceptance rates told apart, by position since the last miss.
POSITIONS = 4
#: An order of the coordinator stands for so long; then the verifier plans by itself again.
ORDER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """What is learned over all sessions of one rule: whether to wait for drafts, and whether drafting pays at all."""

    patience: Patience
    pays: Trial | None = None

    @classmethod
    def of(cls, rule: Rule, plan: SpeculationPlan, *, adaptive: bool) -> Self:
        """Whether drafting pays is learned where it may not: under rules whose drafts are met by chance when late."""
        patience = Patience(plan.patience, learns=adaptive)
        return cls(patience, Trial() if rule.proposes and adaptive else None)

    def observe_step(self, plan: SpeculationPlan, *, own: SpeculationPlan, seconds: float, ended: EndedStep) -> None:
        """A step under ``plan``, with all that came between it and the one before, took so long.

        ``own``: the session's plan, of which ``plan`` may be a pause.
        """
        if plan.width:
            self.patience.observe_step(
                seconds=seconds, tokens=ended.tokens, planned=plan.patience, unanswered=ended.unanswered
            )
        if self.pays is not None and own.width:
            self.pays.observe_step(seconds=seconds, tokens=ended.tokens)


class SessionPlanner:
    """Orders come in the event loop, all else is asked for by who steps the session.

    ``start``: the plan while too little is known. ``step_times``: of all sessions of the verifier.

    ``limits``: asked for what no adaptive plan exceeds. ``rule``: which the session runs. ``budget``: of time for
    choosing plans; by default all that it takes. ``sessions``: asked for how many the verifier serves.
    """

    def __init__(
        self,
        start: SpeculationPlan,
        step_times: StepTimes,
        *,
        adaptive: bool,
        limits: Callable[[], PlanLimits] = PlanLimits,
        rule: Rule = Rule.RACE,
        budget: PlanningBudget | None = None,
        sessions: Callable[[], int] = lambda: 1,
    ) -> None:
        self._top_k = start.top_k
        self._step_times = step_times
        self._adaptive = adaptive
        self._limits = limits
        self._rule = rule
        self._sessions = sessions
        self._budget = budget or PlanningBudget(share=1.0)
        self._refused_at = -math.inf  # leave to choose
        self._chooser = PlanChooser()
        self._acceptance = AcceptanceByPosition()
        self._steps = 0
        self._drafted_steps = 0
        self._seen = (0, 0)  # first choices, accepted first choices
        self._ordered_until = 0.0
        self._choosing = threading.Lock()  # or an order that comes while a plan is chosen would be lost
        self._least, self._span_tokens = 0.0, 1  # how likely a token must be to be sent, and how many are at once
        self._tokens_a_second = 0.0  # of the quickest drafter, for all its sessions
        self._chosen = limits().clip(start) if adaptive else start
        self.plan = self._sparing(self._chosen) if adaptive else start

    def step_costs(self) -> StepCosts | None:
        """For the coordinator; None before the first step."""
        if not self._step_times.seen:
            return None
        step, step_per_token = self._step_times.line
        return StepCosts(
            step=step,
            step_per_token=step_per_token,
            acceptance=self._acceptance.rates(POSITIONS),
            drafted_steps=self._drafted_steps,
            alone_share=self._step_times.alone_share,
        )

    def current(self, pays: Trial | None) -> SpeculationPlan:
        """The plan to follow: none while all sessions rest, or while drafting is found not to pay."""
        if self.plan.width and (self._step_times.resting or (pays is not None and not pays.taken)):
            return dataclasses.replace(self.plan, width=0, lookahead=0, patience=0.0)
        return self.plan

    @property
    def settling(self) -> bool:
        """Whether drafts of the plan are not due yet, during a rest and shortly after it."""
        return self._step_times.settling

    def observe_step(self, stats: SessionStats) -> None:
        """A step ended. ``stats``: of the session, this step included."""
        totals = stats.first_choices, stats.accepted_first_choices
        first_choices, accepted = (total - before for total, before in zip(totals, self._seen, strict=True))
        self._seen = totals
        self._acceptance.observe_step(first_choices, accepted)
        self._drafted_steps += first_choices > 0
        self._steps += 1

    def order(self, plan: SpeculationPlan, now: float) -> None:
        """The coordinator decides."""
        if self._adaptive:
            with self._choosing:
                self._follow(plan)
                self._ordered_until = now + ORDER_SECONDS

    def replan(self, now: float, links: Iterable[DrafterLink]) -> bool:
        """Choose anew if it is time; whether the plan changed. ``now`` in seconds of any steady clock."""
        if not self._adaptive or now < max(self._chooser.decided_at, self._refused_at) + REPLAN_SECONDS:
            return False
        with self._choosing, self._budget.choosing(self) as leave:
            if now < self._ordered_until:
                return False
            links = list(links)
            before, chosen, costs, limits = self.plan, self._chosen, self.costs(links), self._limits()
            speeds = [1 / seconds for link in links if (seconds := link.seconds_per_token_alone)]
            self._tokens_a_second = max(speeds, default=self._tokens_a_second)
            alternatives = START.for_rule(self._rule).alternatives and limits.alternatives
            limits = dataclasses.replace(limits, alternatives=alternatives)

            def may_choose() -> bool:
                granted = leave()
                self._refused_at = -math.inf if granted else now
                return granted

            self._follow(
                self._chooser.choose(costs, limits, current=chosen, steps=self._steps, now=now, may_choose=may_choose)
            )
            if costs is None and self._chosen == chosen:
                self._weigh_lookups()
            return self.plan != before

    def _follow(self, plan: SpeculationPlan) -> None:
        """How many tokens a distribution has is asked for, never chosen."""
        self._chosen = dataclasses.replace(plan, top_k=self._top_k)
        self.plan = self._sparing(self._chosen)

    def _sparing(self, plan: SpeculationPlan) -> SpeculationPlan:
        """At once as sparing of spans as the load wants it: a choice may take its time, with many sessions seconds."""
        if self._step_times.seen:
            kept = SPAN_SECONDS * (self._sessions() - 1)
            self._least = worth_sending(self._step_times.line[0], kept, self._least)
        plan = dataclasses.replace(plan, stop_threshold=max(plan.stop_threshold, self._least))
        if plan.patience or not plan.lookahead or self._rule.proposes:  # taking turns is chosen; drawn tokens go alone
            return plan
        self._span_tokens = tokens_a_span(
            (1 + plan.alternatives) * SPAN_SECONDS * self._tokens_a_second, self._span_tokens
        )
        return dataclasses.replace(plan, span_tokens=max(plan.span_tokens, min(self._span_tokens, plan.lookahead)))

    def _weigh_lookups(self) -> None:
        """Without a measured drafter: what a candidate costs is known all the same."""
        if not self._step_times.seen:
            return
        threshold = worth_verifying(*self._step_times.line)
        if abs(threshold - self._chosen.verify_threshold) >= 0.01:
            self._follow(dataclasses.replace(self._chosen, verify_threshold=threshold))

    def costs(self, links: Iterable[DrafterLink]) -> PairCosts | None:
        """What is known of the session and its quickest drafter; None if too little."""
        measured = [link for link in links if link.seconds_per_token is not None and link.round_trip.mean is not None]
        if not measured or not self._step_times.seen:
            return None
        quickest = min(measured, key=DrafterLink.seconds_to_first_span)
        assert quickest.seconds_per_token is not None and quickest.round_trip.mean is not None
        step, step_per_token = self._step_times.line
        return PairCosts(
            step=step,
            step_per_token=step_per_token,
            draft_token=quickest.seconds_per_token * (ENUMERATION_COST if self._rule is Rule.STRING_REJECTION else 1.0),
            round_trip=quickest.round_trip.mean,
            acceptance=self._acceptance.rates(POSITIONS),
            alone_share=self._step_times.alone_share,
        )
