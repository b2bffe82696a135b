"""The plan of one session, chosen anew as its figures change: for the verifier that plans by itself, and for the
coordinator that plans for all.

Choosing takes some milliseconds of processor time. So it is done only when the rounded figures changed, and once for
all sessions whose figures are alike. A session that does not speculate learns nothing about its drafter, so it probes:
now and then it speculates a little, for a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from speculation.planning.cost_model import PairCosts, predict
from speculation.planning.fits import SHORTEST_SECONDS
from speculation.planning.plan import WORTHWHILE, PlanLimits, choose_plan
from speculation.protocol.messages import SpeculationPlan

#: A session that speculates no more tries again after so many steps, for so many, with this plan.
PROBE_EVERY, PROBE_STEPS = 64, 8
PROBE: Final = SpeculationPlan(width=2, lookahead=4, span_tokens=2)
#: A probe that brought no steps for so long, in seconds, is over all the same.
PROBE_SECONDS: Final = 5.0


#: Plans chosen before, by all that they depend on.
_choices: dict[tuple[PairCosts, PlanLimits, SpeculationPlan | None, float], SpeculationPlan] = {}
_MOST_CHOICES: Final = 4096


class _Probe(NamedTuple):
    before: SpeculationPlan
    plan: SpeculationPlan
    steps: int
    time: float


class PlanChooser:
    """``margin``: a plan is left for another that gains at least this share."""

    def __init__(self, *, margin: float = 0.03) -> None:
        self._margin = margin
        self.decided_at = -math.inf  # when a plan was last chosen or a probe began, by the clock of ``choose``
        self.forget()

    def forget(self) -> None:
        """Begin anew, as with a session of which nothing is known."""
        self._chosen_for: PairCosts | None = None
        self._probe: _Probe | None = None  # the one that runs
        self._off_since: int | None = None  # steps

    def choose(
        self,
        costs: PairCosts | None,
        limits: PlanLimits,
        *,
        current: SpeculationPlan,
        steps: int,
        now: float,
        may_choose: Callable[[], bool] = lambda: True,
    ) -> SpeculationPlan:
        """The plan to follow from now on.

        costs: None if too little is known. current: the plan that is followed. steps: of the session, in total. now:
        seconds of any steady clock. may_choose: asked before work is done, which is none if other sessions had the
        same figures; without leave ``current`` stands, or after a probe what stood before it.
        """
        if self._is_time_to_probe(current, steps):
            probe = replace(limits.clip(PROBE), top_k=current.top_k)
            self._probe, self._off_since, self._chosen_for = (
                _Probe(before=current, plan=probe, steps=steps, time=now),
                None,
                None,
            )
            self.decided_at = now
            return probe
        if self._probing(current, steps, now) or costs is None:
            return current
        rounded = coarse(costs)
        if rounded == self._chosen_for:
            return current
        if not (_chosen_before(rounded, limits, current, self._margin) or may_choose()):
            return current if self._probe is None or current != self._probe.plan else self._probe.before
        # No loyalty to a probe, or to a plan that gains nothing over the target alone: it keeps a drafter busy.
        loyal = self._probe is None and predict(rounded, current).speed_up >= WORTHWHILE
        self._chosen_for, self._probe, self.decided_at = rounded, None, now
        return _chosen(rounded, limits, current if loyal else None, self._margin)

    def _is_time_to_probe(self, current: SpeculationPlan, steps: int) -> bool:
        if current.width:
            self._off_since = None
            return False
        self._off_since = steps if self._off_since is None else min(self._off_since, steps)
        return steps - self._off_since >= PROBE_EVERY

    def _probing(self, current: SpeculationPlan, steps: int, now: float) -> bool:
        probe = self._probe
        return (
            probe is not None
            and current == probe.plan
            and steps < probe.steps + PROBE_STEPS
            and now < probe.time + PROBE_SECONDS
        )


def _chosen(costs: PairCosts, limits: PlanLimits, current: SpeculationPlan | None, margin: float) -> SpeculationPlan:
    key = costs, limits, current if current is not None and current.patience else None, margin
    if (known := _choices.get(key)) is not None:
        return known
    if len(_choices) >= _MOST_CHOICES:
        _choices.clear()  # another thread may be reading
    _choices[key] = chosen = choose_plan(costs, limits, current=current, margin=margin)
    return chosen


def _chosen_before(costs: PairCosts, limits: PlanLimits, current: SpeculationPlan, margin: float) -> bool:
    """Whether the choice is known. Only loyalty to a plan that takes turns matters for it."""
    return not current.patience and (costs, limits, None, margin) in _choices


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
        alone_share=max(round(costs.alone_share * 20), 1) / 20,
    )
