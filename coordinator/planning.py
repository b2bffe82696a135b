"""How far each session speculates: the plans that the coordinator orders.

Choosing a plan takes some milliseconds of processor time, in the coordinator's event loop. So it is done only for a
session whose rounded figures changed, for a few sessions per round, and once for all sessions whose figures are alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from coordinator.config import PlanSettings
from speculation.cost_model import PairCosts, predict
from speculation.messages import SpeculationPlan
from speculation.plan import WORTHWHILE, PlanLimits, choose_plan
from verifier_service.planning import PROBE, PROBE_EVERY, PROBE_STEPS, coarse

#: An order is repeated after so many seconds: a verifier that hears none for 5 s plans for itself.
RESEND_SECONDS: Final = 1.0
#: Plans chosen per round, for all sessions together.
CHOICES: Final = 8
#: A probe that brought no steps for so long, in seconds, is over all the same.
PROBE_SECONDS: Final = 5.0


class Budget:
    """How many plans may still be chosen in this round."""

    def __init__(self, choices: int = CHOICES) -> None:
        self._left = choices

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0


class PlanDesk:
    """The plan of one session. ``settings``: the limits that no plan exceeds."""

    def __init__(self, settings: PlanSettings) -> None:
        self._settings = settings
        self.chosen_at = 0.0
        self._forget()

    def _forget(self) -> None:
        self.plan: SpeculationPlan | None = None
        self._planned_for: PairCosts | None = None
        self._sent: SpeculationPlan | None = None
        self._sent_at = 0.0
        self._off_since: int | None = None  # steps
        self._probing: tuple[int, float] | None = None  # steps and time when it began

    def order(
        self, costs: PairCosts | None, *, steps: int, running: SpeculationPlan | None, now: float, budget: Budget
    ) -> SpeculationPlan | None:
        """The plan to send, if one is due.

        ``costs``: None if too little is known, and then nothing is ordered. ``steps``: of the session, in total.
        ``running``: the plan that its verifier follows. ``now``: seconds of a steady clock.
        """
        if costs is None:
            self._forget()
            return None
        self._choose(costs, steps, running, now, budget)
        if self.plan is None or (self.plan == self._sent and now < self._sent_at + RESEND_SECONDS):
            return None
        self._sent, self._sent_at = self.plan, now
        return self.plan

    def _choose(
        self, costs: PairCosts, steps: int, running: SpeculationPlan | None, now: float, budget: Budget
    ) -> None:
        before = self.plan
        if before is not None and before.width == 0:
            # Alone it learns nothing about its drafter, and has to find out now and then.
            self._off_since = steps if self._off_since is None else min(self._off_since, steps)
            if steps - self._off_since >= PROBE_EVERY:
                probe = plan_limits(self._settings).clip(PROBE)
                self.plan, self._probing, self._off_since = probe, (steps, now), None
                return
        if self._probing is not None:
            since, began = self._probing
            if steps < since + PROBE_STEPS and now < began + PROBE_SECONDS:
                return
        rounded = coarse(costs)
        if rounded == self._planned_for and self._probing is None:
            return
        if not budget.take():
            return
        if before is None and running is not None and self._allowed(running):
            before = running
        # No loyalty to a probe, or to a plan that gains nothing over the target alone: it keeps a drafter busy.
        loyal = self._probing is None and before is not None and predict(rounded, before).speed_up >= WORTHWHILE
        self.plan = _chosen(rounded, before if loyal else None, self._settings)
        self._planned_for, self._probing, self.chosen_at = rounded, None, now
        if self.plan.width:
            self._off_since = None

    def _allowed(self, plan: SpeculationPlan) -> bool:
        limits = self._settings
        return (
            plan.width <= limits.max_width
            and plan.lookahead <= limits.max_lookahead
            and plan.alternatives <= limits.max_alternatives
        )


def plan_limits(settings: PlanSettings) -> PlanLimits:
    return PlanLimits(settings.max_width, settings.max_lookahead, settings.max_alternatives)


@lru_cache(maxsize=4096)
def _chosen(costs: PairCosts, current: SpeculationPlan | None, limits: PlanSettings) -> SpeculationPlan:
    return choose_plan(costs, plan_limits(limits), current=current, margin=limits.margin)
