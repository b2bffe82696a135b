"""What a session would gain from a drafter, on paper: quick enough to be asked for every pair of them.

``planning/cost_model.py`` looks through hundreds of plans for the best; here a few typical ones do. Only the ratios
of the times matter, in steps of some 10 %, so that one answer serves many askers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from speculation.planning.cost_model import PairCosts, predict
from speculation.protocol.messages import SpeculationPlan

_TYPICAL: Final = tuple(
    SpeculationPlan(width=width, lookahead=lookahead, stop_threshold=0.05, span_tokens=span, alternatives=alternatives)
    for width, lookahead, span, alternatives in (
        (2, 4, 2, 0),
        (4, 8, 4, 0),
        (6, 12, 2, 2),
        (8, 24, 4, 0),
        (12, 32, 4, 2),
    )
)
#: Ratios to the step are told apart within these bounds.
_LEAST, _MOST = 1e-3, 1e3


def expected_speed_up(
    *, step: float, step_per_token: float, draft_token: float, round_trip: float, acceptance: float
) -> float:
    """Over the target alone, at least 1: a session need not speculate. Seconds, ``step`` above 0."""
    return _speed_up(
        _coarse(step_per_token / step),
        _coarse(draft_token / step),
        _coarse(round_trip / step),
        min(max(round(acceptance * 20), 0), 20),
    )


def _coarse(ratio: float) -> int:
    """Tenths of the natural logarithm; the lowest stands for 0."""
    return round(math.log(min(max(ratio, _LEAST), _MOST)) * 10)


@lru_cache(maxsize=16384)
def _speed_up(step_per_token: int, draft_token: int, round_trip: int, acceptance: int) -> float:
    nothing = _coarse(0.0)
    per_token, token, trip = (
        0.0 if ratio == nothing else math.exp(ratio / 10) for ratio in (step_per_token, draft_token, round_trip)
    )
    costs = PairCosts(
        step=1.0, step_per_token=per_token, draft_token=token, round_trip=trip, acceptance=(acceptance / 20,)
    )
    return max(1.0, *(predict(costs, plan).speed_up for plan in _TYPICAL))
