"""The fastest plan by the cost model, found in stages: each settles one or two fields, the rest of the plan as it was.

A full grid over all fields would be some thousand predictions of a millisecond; the stages need about a hundred and
fifty, and lose nothing that ``tests/speculation/test_cost_model.py`` could find by a full search.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace
from typing import Final

from speculation.planning.cost_model import PairCosts, draft_token_time, predict
from speculation.protocol.messages import SpeculationPlan

#: No speculation.
OFF: Final = SpeculationPlan(width=0, lookahead=0)
_ALIKE: Final = 1e-3  # between plans that differ by no more than this share, the one that costs less is taken
_WIDTHS, _SPANS = (1, 2, 3, 4, 6, 8, 12, 16), (8, 4, 2, 1)
_SHORTLIST: Final = 4
#: A threshold is left for another one where it is this many times too large or too small.
_NEAR: Final = 1.8
_LONGEST_PATIENCE: Final = 10.0
#: See ``tokens_a_span``.
PAIRS_FROM: Final = 0.05
#: What a candidate of the target's own takes the host, to be found, laid out and judged (an H200's, profiled: 20 us).
CANDIDATE_SECONDS: Final = 2e-5
#: Sessions in a step from which on they wait for each other's candidates.
MANY: Final = 4


def best_plan(
    costs: PairCosts,
    *,
    max_width: int = 16,
    max_lookahead: int = 32,
    current: SpeculationPlan | None = None,
    margin: float = 0.03,
) -> SpeculationPlan:
    """The plan of highest predicted speed, at most ``max_width`` wide and ``max_lookahead`` ahead.

    ``current`` is kept unless the best plan is faster by more than the share ``margin``.
    """
    speed, best = 1.0, OFF
    if shapes := _shapes(costs, max_width, max_lookahead):
        shortlist = _fastest_shapes(costs, shapes)
        best = _with_alternatives(costs, shortlist)
        best = _with_spans(costs, best)
        speed, best = _with_patience_or_off(costs, best)
    if current is not None and speed <= predict(costs, current).speed_up * (1 + margin):
        return current
    return best


def _shapes(costs: PairCosts, max_width: int, max_lookahead: int) -> list[SpeculationPlan]:
    """Every width, lookahead and span length, narrow before wide."""
    threshold = worth_verifying(costs.step, costs.step_per_token, 1.0)
    return [
        SpeculationPlan(width=width, lookahead=lookahead, stop_threshold=threshold, span_tokens=span)
        for width in _WIDTHS
        if width <= max_width
        for lookahead in sorted({min(width * n, max_lookahead) for n in (1, 2, 3)})
        for span in _SPANS
        if span <= lookahead
    ]


def _fastest_shapes(costs: PairCosts, shapes: list[SpeculationPlan]) -> list[SpeculationPlan]:
    """The fastest few, with the threshold that fits their speed: a faster pair has less time per token to verify."""
    ranked = _ranked(costs, shapes)
    threshold = worth_verifying(costs.step, costs.step_per_token, ranked[0][0])
    return [replace(plan, stop_threshold=threshold) for _, plan in ranked[:_SHORTLIST]]


def _with_alternatives(costs: PairCosts, shortlist: list[SpeculationPlan]) -> SpeculationPlan:
    """The fastest of them with none or some alternatives."""
    return _fastest(costs, [replace(plan, alternatives=n) for plan in shortlist for n in _numbers(costs)])


def _with_spans(costs: PairCosts, plan: SpeculationPlan) -> SpeculationPlan:
    """Alternatives make tokens slower, so another span length may suit, and then another number of them."""
    spans = [replace(plan, span_tokens=span) for span in _SPANS if span <= plan.lookahead]
    return _fastest(costs, [plan, *(replace(each, alternatives=n) for each in spans for n in _numbers(costs))])


def _with_patience_or_off(costs: PairCosts, plan: SpeculationPlan) -> tuple[float, SpeculationPlan]:
    """Speed-up and plan: none at all, as it is, or with steps that are held back for the first span."""
    first_span = costs.round_trip + plan.span_tokens * draft_token_time(costs, plan)
    patient = replace(plan, patience=min(1.25 * first_span, _LONGEST_PATIENCE))
    return _ranked(costs, [OFF, plan, patient])[0]


def _numbers(costs: PairCosts) -> range:
    """Of alternatives, as far as it is known what they recover."""
    return range(len(costs.recovery) + 1)


def _fastest(costs: PairCosts, plans: list[SpeculationPlan]) -> SpeculationPlan:
    return _ranked(costs, plans)[0][1]


def _ranked(costs: PairCosts, plans: list[SpeculationPlan]) -> list[tuple[float, SpeculationPlan]]:
    """Speed-ups and plans, fastest first, but those about as fast as the fastest in the order given."""
    speeds = [(predict(costs, plan).speed_up, plan) for plan in plans]
    enough = max(speed for speed, _ in speeds) * (1 - _ALIKE)
    return sorted(speeds, key=lambda ranked: -min(ranked[0], enough))


def _worth(step: float, seconds: float, speed_up: float = 2.0) -> float:
    """The chance from which on a draft token earns so many seconds: ``speed_up`` tokens are committed in each step."""
    return seconds / max(step, 1e-9) * speed_up


def worth_verifying(step: float, step_per_token: float, speed_up: float = 2.0) -> float:
    """The chance of acceptance from which on a draft token earns the verify time that it costs. Rounded: stable."""
    return round(min(max(_worth(step, step_per_token, speed_up), 0.01), 0.6), 2)


def worth_hosting(step: float | None, sessions: int) -> float:
    """The chance from which on a candidate of the target's own earns the time for which it keeps so many sessions in a
    step of so many seconds. 0 for few, which hardly wait for each other, and where no step was seen."""
    if step is None or sessions < MANY:
        return 0.0
    return min(_worth(step, CANDIDATE_SECONDS * sessions), 1.0)


def worth_sending(step: float, span: float, before: float = 0.0) -> float:
    """The chance of acceptance from which on a draft token earns the time for which its span keeps other sessions;
    0 if it keeps none. A power of two, and ``before`` as long as that is near enough: stable.

    ``step``: seconds of one. ``span``: seconds that a span keeps the host, times the other sessions that wait.
    """
    share = min(_worth(step, span), 0.5)
    if share < 1e-6:
        return 0.0
    if before and 1 / _NEAR < share / before < _NEAR:
        return before
    return float(2.0 ** round(math.log2(share)))


def tokens_a_span(share: float, before: int = 1) -> int:
    """How many tokens a drafter that runs freely sends at once: 1 or 2. ``before`` stands as long as that is near
    enough: stable.

    ``share``: of its time, for which the spans that a drafter sends token by token keep the target's host. A token that
    is sent by itself is there the soonest; where drafters are quick, pairs are worth more: they are a third of the
    spans, as fewer of the alternatives are still likely by then (measured: docs/benchmarks.md, "Distance").
    """
    return 2 if share > (PAIRS_FROM / _NEAR if before > 1 else PAIRS_FROM) else 1


def break_even_round_trip(costs: PairCosts) -> float | None:
    """The longest round trip at which the best plan gains 2 %: seconds, to the millisecond, at most 2. None: never."""

    def loses(milliseconds: int) -> bool:
        there = replace(costs, round_trip=milliseconds / 1000)
        return predict(there, best_plan(there)).speed_up < 1.02

    paying = bisect_left(range(2001), True, key=loses)
    return (paying - 1) / 1000 if paying else None
