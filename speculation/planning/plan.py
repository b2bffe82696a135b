"""Which plan to follow: the cost model says whether speculation pays, and whether to take turns; the rest follows.

A drafter that runs freely has nothing better to do than to draft on, wide and deep: what it drafts in vain costs only
its own time. What costs the target time is verifying, so there a chance is weighed against the cost, candidate by
candidate, in ``verify_threshold``; and where sessions share a step, all of them wait while the host takes in the spans
of each, so an unlikely one is not sent: ``stop_threshold``. Replaying recorded pairs in virtual time
(``benchmarks/simulation.py``) confirms it for one session: no plan of a sweep was more than some per cent faster than
the generous one, at no distance and at no speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from speculation.planning.best_plan import OFF, best_plan, worth_verifying
from speculation.planning.cost_model import PairCosts, predict
from speculation.protocol.messages import SpeculationPlan

#: The share of misses that alternatives recover, at an acceptance of 0.6 (SmolLM2-135M, HumanEval: the second choice is
#: right in 20 % of misses, the second or third in 36 %); a drafter that is worse is worse at alternatives too.
_RECOVERY: Final = 0.36
_AT_ACCEPTANCE: Final = 0.6
#: What speculation must be expected to gain, or a drafter is kept busy for nothing.
WORTHWHILE: Final = 1.01
#: What a verifier's host does for a span that comes: decoding, its place in the pool (measured: 40 to 80 microseconds).
SPAN_SECONDS: Final = 6e-5
#: Where to begin while nothing is measured.
START: Final = SpeculationPlan(
    width=16,
    lookahead=16,
    stop_threshold=0.001,
    span_tokens=1,
    alternatives=3,
    alternative_threshold=0.9,
    verify_threshold=0.05,
)


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What no plan exceeds."""

    width: int = 16
    lookahead: int = 32
    alternatives: int = 3

    def clip(self, plan: SpeculationPlan) -> SpeculationPlan:
        """The plan, as far as it goes within them."""
        lookahead = min(plan.lookahead, self.lookahead)
        return replace(
            plan,
            width=min(plan.width, self.width),
            lookahead=lookahead,
            span_tokens=max(1, min(plan.span_tokens, lookahead)),
            alternatives=min(plan.alternatives, self.alternatives),
        )


def generous_plan(costs: PairCosts, limits: PlanLimits) -> SpeculationPlan:
    """For a drafter that runs freely."""
    batches = (costs.round_trip + 2 * costs.step) / max(costs.draft_token, 1e-6)  # while a verdict comes and goes
    return replace(
        START,
        width=min(START.width, limits.width),
        lookahead=max(1, min(max(math.ceil(batches) + 2, 8), limits.lookahead)),
        alternatives=min(START.alternatives, limits.alternatives),
        verify_threshold=worth_verifying(costs.step, costs.step_per_token),
    )


def choose_plan(
    costs: PairCosts, limits: PlanLimits, *, current: SpeculationPlan | None = None, margin: float = 0.03
) -> SpeculationPlan:
    """The plan to follow. ``current``, if it takes turns, is kept unless another gains more than ``margin``."""
    if not (limits.width and limits.lookahead):
        return OFF
    known = limits.alternatives  # of those that no plan may have nothing is expected
    costs = replace(costs, recovery=costs.recovery[:known], alternative_cost=costs.alternative_cost[:known])
    patient = current if current is not None and current.patience else None
    best = best_plan(costs, max_width=limits.width, max_lookahead=limits.lookahead, current=patient, margin=margin)
    generous = generous_plan(costs, limits)
    expected = predict(_with_alternatives(costs) if limits.alternatives else costs, generous).speed_up
    if best.patience and predict(costs, best).speed_up > expected:
        return best
    if best.width or expected >= WORTHWHILE:
        return generous
    return replace(OFF, verify_threshold=generous.verify_threshold)


def _with_alternatives(costs: PairCosts) -> PairCosts:
    """As if what an alternative gets right had been the first choice: they are verified in the same step."""

    def either(rate: float) -> float:
        return rate + (1 - rate) * _RECOVERY * min(1.0, rate / _AT_ACCEPTANCE)

    return replace(costs, acceptance=tuple(either(rate) for rate in costs.acceptance), recovery=())
