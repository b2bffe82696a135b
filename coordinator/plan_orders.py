"""How far each session speculates: the plans that the coordinator orders, and when it repeats an order.

Plans are chosen in the coordinator's event loop, so for a few sessions per round only.
"""

from __future__ import annotations

from typing import Final

from coordinator.config import PlanLimitSettings
from speculation.planning.cost_model import PairCosts
from speculation.planning.plan import OFF, PlanLimits
from speculation.planning.plan_chooser import PlanChooser
from speculation.protocol.messages import SpeculationPlan

#: An order is repeated after so many seconds: a verifier that hears none for 5 s plans for itself.
RESEND_SECONDS: Final = 1.0
#: Plans chosen per round, for all sessions together.
CHOICES: Final = 8


class Budget:
    """How many plans may still be chosen in this round."""

    def __init__(self, choices: int = CHOICES) -> None:
        self._left = choices

    def take(self) -> bool:
        """Whether there was one left; then it is spent."""
        self._left -= 1
        return self._left >= 0


class PlanOrders:
    """The plan of one session. ``settings``: the limits that no plan exceeds."""

    def __init__(self, settings: PlanLimitSettings) -> None:
        self._limits = plan_limits(settings)
        self._chooser = PlanChooser(margin=settings.margin)
        self.plan: SpeculationPlan | None = None
        self._sent: SpeculationPlan | None = None
        self._sent_at = 0.0

    @property
    def chosen_at(self) -> float:
        """When its plan was last chosen."""
        return self._chooser.decided_at

    def order(
        self, costs: PairCosts | None, *, steps: int, running: SpeculationPlan | None, now: float, budget: Budget
    ) -> SpeculationPlan | None:
        """The plan to send, if one is due.

        ``costs``: None if too little is known, and then nothing is ordered. ``steps``: of the session, in total.
        ``running``: the plan that its verifier follows. ``now``: seconds of a steady clock.
        """
        if costs is None:
            self.plan = self._sent = None
            self._chooser.forget()
            return None
        self._choose(costs, steps, running, now, budget)
        if self.plan is None or (self.plan == self._sent and now < self._sent_at + RESEND_SECONDS):
            return None
        self._sent, self._sent_at = self.plan, now
        return self.plan

    def _choose(
        self, costs: PairCosts, steps: int, running: SpeculationPlan | None, now: float, budget: Budget
    ) -> None:
        current, limits, choose = self.plan, self._limits, self._chooser.choose
        if current is not None:
            self.plan = choose(costs, limits, current=current, steps=steps, now=now, may_choose=budget.take)
        elif budget.take():
            allowed = running is not None and limits.clip(running) == running
            self.plan = choose(costs, limits, current=running if running and allowed else OFF, steps=steps, now=now)


def plan_limits(settings: PlanLimitSettings) -> PlanLimits:
    return PlanLimits(settings.max_width, settings.max_lookahead, settings.max_alternatives)
