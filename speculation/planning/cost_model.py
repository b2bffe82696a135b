"""How fast a drafter and a target are together, on paper, and which plan makes them fastest.

A free-running system (the target waits for no draft, the drafter for no verdict; Timor et al. 2025, "Distributed
Speculative Inference", arXiv 2405.14105) is a renewal process. A cycle begins when a step ends whose verdict threw
the draft away, and ends with the step that commits the next token on which the two disagree. With L the length of
the run of agreed tokens before it, tokens per second = E[L + 1] / E[duration of a cycle].

What happens before the miss does not depend on where the miss lies. So one timeline, that of a run without end, gives
the cycle of every L: a step that starts with c committed tokens and k draft tokens happens with probability P(L >= c),
and is the last of its cycle if c <= L <= c + k. For a drafter that waits this comes to Leviathan et al. 2023
(arXiv 2211.17192). Times are seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate, chain, count, repeat, takewhile
from operator import mul
from typing import Final, NamedTuple

from speculation.errors import InputError
from speculation.protocol.messages import SpeculationPlan

_HORIZON: Final = 64  # a timeline is followed for so many tokens, and some more; what comes later is extrapolated


@dataclass(frozen=True, slots=True)
class PairCosts:
    """What the model knows of a drafter and a target. Times in seconds.

    ``step``: a verify step without draft tokens; ``step_per_token``: what each draft token adds to it; ``overhead``:
    what session and wire add to each step. ``draft_token``: the drafter's time per token. ``acceptance``: the chance
    that a draft token agrees if all before it did, by position since the last miss; the last entry holds for all
    later positions. ``recovery``: the share of misses at which one of the first 1, 2, ... alternatives was right;
    ``alternative_cost``: the relative extra time per draft token for that many. ``alone_share``: what a step takes
    while no drafter works, as a share of what it takes beside one; below 1 where they share processors. Raises
    InputError with the field.
    """

    step: float
    step_per_token: float
    draft_token: float
    round_trip: float
    acceptance: tuple[float, ...]
    recovery: tuple[float, ...] = (0.20, 0.36)
    alternative_cost: tuple[float, ...] = (0.15, 0.25)
    overhead: float = 0.0
    alone_share: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) and number >= 0 for number in numbers):
                raise InputError(field.name, value, "must be finite and not negative", remedy="give 0 or more")
            if field.name in ("acceptance", "recovery", "alone_share") and any(share > 1 for share in numbers):
                raise InputError(field.name, value, "must lie in 0..1", remedy="70 % is 0.7")
        if not self.step:
            raise InputError("step", self.step, "must be above 0", remedy="give the time of one step of the target")
        if not self.alone_share:
            raise InputError("alone_share", self.alone_share, "must be above 0", remedy="1 if nothing is shared")
        if not self.acceptance:
            raise InputError("acceptance", self.acceptance, "is empty", remedy="give at least one rate")


@dataclass(frozen=True, slots=True)
class StepCosts:
    """The target's part of ``PairCosts``, and the number of steps with drafts that ``acceptance`` rests on."""

    step: float
    step_per_token: float
    acceptance: tuple[float, ...]
    drafted_steps: int
    alone_share: float = 1.0


@dataclass(frozen=True, slots=True)
class PredictedSpeed:
    """``speed_up``: over the target alone. ``wasted_share``: of the verified draft tokens, those not accepted."""

    tokens_per_second: float
    speed_up: float
    tokens_per_step: float
    wasted_share: float


class _Step(NamedTuple):
    duration: float  # waiting for a draft included
    committed: int  # tokens of the cycle before this step
    draft_tokens: int
    arrived: int = 0  # the last draft token at the target when the step ended


class _Cycle(NamedTuple):
    """Means over cycles. ``ready``: chance that the alternatives to the missed token were there when it was missed."""

    seconds: float
    steps: float
    verified: float
    accepted: float
    ready: float


class _Drafter:
    """The drafter's side of the timeline of a run without misses; see ``DrafterSession`` for the real one."""

    def __init__(self, token_time: float, delay: float, span: int, limits: tuple[int, ...], arrived: int) -> None:
        self.verdicts = [(delay, 0)]  # when it hears of them, tokens committed by then
        self._token_time, self._delay, self._span, self._limits = token_time, delay, span, limits
        # Free from, next token, unshipped tokens; and the last token that has arrived at the target.
        self.state = (delay, arrived + 1, 0, arrived)
        #: From when on it waits for a verdict that it cannot have heard yet.
        self.idle_from = math.inf

    def next_arrival(self, deadline: float) -> float | None:
        """When the next span arrives, if it does by ``deadline``."""
        verdicts, limits = self.verdicts, self._limits
        free, token, unshipped, arrived = self.state
        time, self.idle_from = None, math.inf
        while time is None:
            heard = bisect_right(verdicts, (free, math.inf))
            known = verdicts[heard - 1][1]
            if known >= token:  # the target was faster: go on behind what it committed
                token, unshipped = known + 1, 0
            if token - known > limits[min(known, len(limits) - 1)]:
                if heard == len(verdicts):
                    self.idle_from = free
                    break
                free = verdicts[heard][0]
                continue
            if free + self._token_time + self._delay > deadline:
                break
            free += self._token_time
            known = verdicts[bisect_right(verdicts, (free, math.inf)) - 1][1]
            unshipped = min(unshipped + 1, max(token - known, 0))
            if unshipped and (unshipped >= self._span or token - known >= limits[min(known, len(limits) - 1)]):
                time, unshipped, arrived = free + self._delay, 0, token
            token += 1
        self.state = (free, token, unshipped, arrived)
        return time

    def arrived_by(self, time: float) -> int:
        """The last draft token at the target then."""
        while self.next_arrival(time) is not None:
            pass
        return self.state[-1]

    def working_seconds(self, start: float, within: float) -> float:
        """How long it works of that time, as far as the verdicts say that it has heard of so far."""
        before = self.state
        self.arrived_by(start + within)
        self.state = before
        return min(max(self.idle_from - start, 0.0), within)


@lru_cache(maxsize=16)
def _survival(acceptance: tuple[float, ...]) -> tuple[float, ...]:
    """P(L >= l) for l = 0, 1, ..., as far as timelines reach."""
    later = repeat(acceptance[-1], _HORIZON + len(acceptance) + 6 * SpeculationPlan.MAX_TOKENS)
    return tuple(accumulate(chain(acceptance, later), mul, initial=1.0))


@lru_cache(maxsize=512)
def _limits(acceptance: tuple[float, ...], lookahead: int, threshold: float) -> tuple[int, ...]:
    """How many tokens are drafted beyond 0, 1, ... agreed ones; the last entry holds for all later places."""
    later = [acceptance[-1]] * lookahead
    runs = (accumulate(chain(acceptance[first:], later), mul) for first in range(len(acceptance)))
    return tuple(min(lookahead, 1 + sum(chance >= threshold for chance in run)) for run in runs)


def _goes_on(acceptance: tuple[float, ...], committed: int, width: int) -> bool:
    """Whether to follow the timeline beyond ``committed`` tokens: it is not too long, and there is enough to come."""
    enough = 1e-4 * (1 - acceptance[-1])
    return committed < _HORIZON + len(acceptance) + 4 * width and _survival(acceptance)[committed] > enough


def _timeline(costs: PairCosts, plan: SpeculationPlan, *, covered: bool) -> list[_Step]:
    """The steps of a run without end. ``covered``: an alternative was right at the miss before it."""
    limits = _limits(costs.acceptance, plan.lookahead, plan.stop_threshold)
    there = min(limits[0], plan.span_tokens) if covered else 0
    delay = costs.round_trip / 2
    drafter = _Drafter(
        token_time=draft_token_time(costs, plan), delay=delay, span=plan.span_tokens, limits=limits, arrived=there
    )
    now, committed, steps = 0.0, 0, []
    while _goes_on(costs.acceptance, committed, plan.width):
        start, arrived = now, drafter.arrived_by(now)
        if plan.patience and arrived <= committed:
            before = drafter.state
            while arrived <= committed and (time := drafter.next_arrival(now + plan.patience)) is not None:
                start, arrived = time, drafter.arrived_by(time)
            if arrived <= committed:
                # No draft comes in time, so the target does not wait, and the drafter will hear of the step.
                start, drafter.state = now, before
        tokens = min(plan.width, max(0, arrived - committed))
        end = start + costs.overhead + _forward_seconds(costs, tokens, drafter, start)
        steps.append(
            _Step(duration=end - now, committed=committed, draft_tokens=tokens, arrived=drafter.arrived_by(end))
        )
        now, committed = end, committed + tokens + 1
        drafter.verdicts.append((now + delay, committed))
    return steps


def _forward_seconds(costs: PairCosts, tokens: int, drafter: _Drafter, start: float) -> float:
    """Of a step that starts then, in which less is done while the drafter works beside it."""
    beside = costs.step + costs.step_per_token * tokens
    if costs.alone_share == 1.0:
        return beside
    return costs.alone_share * beside + (1 - costs.alone_share) * drafter.working_seconds(start, beside)


def _cycle(acceptance: tuple[float, ...], steps: Sequence[_Step]) -> _Cycle:
    """Means over the cycles of every length, from the timeline of the endless run."""
    chance = _survival(acceptance)
    end, middle = steps[-1].committed + steps[-1].draft_tokens + 1, len(steps) // 2
    # The second half of the timeline repeats, each time with the chance that the run lasts as long again. The bound
    # keeps a run that never ends finite.
    repeats = 1 / (1 - min(chance[end] / chance[steps[middle].committed], 1 - 1e-9))
    seconds = number = verified = accepted = ready = 0.0
    for index, (duration, first, tokens, arrived) in enumerate(steps):
        times = repeats if index >= middle else 1.0
        last = first + tokens
        reached = times * chance[first]
        seconds += reached * duration
        number += reached
        verified += reached * tokens
        accepted += times * sum(chance[first + 1 : last + 1])
        ready += times * (chance[first] - chance[min(max(arrived, first), last + 1)])
    return _Cycle(seconds=seconds, steps=number, verified=verified, accepted=accepted, ready=ready)


def _predicted(costs: PairCosts, cycle: _Cycle) -> PredictedSpeed:
    tokens = cycle.steps + cycle.accepted
    wasted = max(0.0, 1 - cycle.accepted / cycle.verified) if cycle.verified else 0.0
    return PredictedSpeed(
        tokens_per_second=tokens / cycle.seconds,
        speed_up=tokens / cycle.seconds * alone_step(costs),
        tokens_per_step=tokens / cycle.steps,
        wasted_share=wasted,
    )


def _last_known(values: tuple[float, ...], count: int) -> float:
    return values[min(count, len(values)) - 1] if count and values else 0.0


def alone_step(costs: PairCosts) -> float:
    """Seconds of a step without draft tokens while no drafter works."""
    return costs.step * costs.alone_share


def draft_token_time(costs: PairCosts, plan: SpeculationPlan) -> float:
    """Seconds that the drafter takes for a token, its alternatives included."""
    return costs.draft_token * (1 + _last_known(costs.alternative_cost, plan.alternatives))


def predict(costs: PairCosts, plan: SpeculationPlan) -> PredictedSpeed:
    """What ``plan`` comes to in a free-running system. Without speculation: the target alone, exactly."""
    if not (plan.width and plan.lookahead):
        return PredictedSpeed(1 / alone_step(costs), speed_up=1.0, tokens_per_step=1.0, wasted_share=0.0)
    plain = _cycle(costs.acceptance, _timeline(costs, plan, covered=False))
    recovery = _last_known(costs.recovery, plan.alternatives)
    if not (recovery and plain.ready):
        return _predicted(costs, plain)
    covered = _cycle(costs.acceptance, _timeline(costs, plan, covered=True))
    # A Markov chain of two kinds of cycles: alternatives help only at a miss that they reached the target before.
    share = recovery * plain.ready / (1 + recovery * (plain.ready - covered.ready))
    return _predicted(costs, _Cycle(*(a + share * (b - a) for a, b in zip(plain, covered, strict=True))))


def predict_synchronous(costs: PairCosts, width: int) -> PredictedSpeed:
    """Classic speculative decoding (Leviathan et al. 2023): draft ``width`` tokens, send, wait for the verdict."""
    plan = SpeculationPlan(width=width, lookahead=width)
    if not width:
        return predict(costs, plan)
    verifying = alone_step(costs) + costs.alone_share * costs.step_per_token * width
    duration = costs.round_trip + width * costs.draft_token + verifying + costs.overhead
    starts = takewhile(lambda committed: _goes_on(costs.acceptance, committed, width), count(0, width + 1))
    steps = [_Step(duration, committed, width) for committed in starts]
    return _predicted(costs, _cycle(costs.acceptance, steps))
