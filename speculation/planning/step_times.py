"""How long a verify step takes, beside a working drafter and while none works.

Where target and drafter share a device or processors, each makes the other slower, so the speed of the target alone
cannot be seen while drafts are made. Now and then all sessions rest from drafting for a few steps, which are compared
with what is expected of steps beside drafters. The rest is short, so texts that differ do no harm.

All is of whole steps, however many sessions share one: what a step takes depends on the draft tokens of all of them,
and a step that was slow by accident is one accident.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from statistics import median
from typing import Final

from speculation.planning.fits import LinearFit

#: A step while no drafter works is not believed to take less than this share of another.
LEAST_ALONE_SHARE: Final = 0.1
#: From here on the difference is taken for noise.
_SHARES_NOTHING: Final = 0.93
#: Steps beside drafters before the first rest, and between rests while processors are shared, and while they are not.
FIRST_REST, REST_EVERY, REST_SELDOM = 48, 512, 4096
#: Observed steps of a rest, and the seconds or steps, whichever is longer, after which it ends all the same.
REST_STEPS: Final = 6
LONGEST_REST: Final = 3.0
_LONGEST_REST_STEPS: Final = 2 * REST_STEPS
#: Steps that sessions which have not heard of a rest put its end off by, in all: each hears of it at its own step.
_PUT_OFF_STEPS: Final = 256
#: A drafter hears of a rest after half a round trip, and ends what it had begun: so many steps more are not counted.
_SETTLING_STEPS: Final = 2
#: What a draft token is taken to cost until that is seen, as a share of a step: of a processor, and of a device with so
#: many of them free.
_DRAFT_TOKEN, _FREE_TOKEN, _MANY_FREE = 0.02, 0.001, 16
_SMOOTHING: Final = 0.1
#: Times the expected seconds, beyond which a lone step is an accident.
_SLOW: Final = 2.0
_USUAL_STEPS: Final = 17


class StepTimes:
    """One for all sessions of a verifier. ``learns``: let sessions rest, to find out what they cannot see otherwise.

    ``free``: draft tokens that cost a step next to nothing, as those of a device that waits for its weights anyway.
    Seconds throughout, of any steady clock. Any thread may read, one at a time may observe.
    """

    def __init__(self, *, learns: bool = True, free: int = 0) -> None:
        self._learns = learns
        # Of steps beside drafters; others are scaled.
        self._fit = LinearFit(_FREE_TOKEN if free >= _MANY_FREE else _DRAFT_TOKEN)
        self._until_rest, self._vain = FIRST_REST, 0  # steps of the verifier; rests in a row that measured nothing
        self._rest: _Rest | None = None
        self._known: set[int] = set()  # drafters that worked before the share was measured, or have joined since
        self._worked: set[int] = set()  # since it was measured
        self._usual: deque[tuple[int, float]] = deque(maxlen=_USUAL_STEPS)  # of the fit: draft tokens, seconds
        self._was_slow = False
        self._others = 0.0  # draft tokens in a step beside those of one session
        self._measured = False  # the share, ever
        self._ended_at = self._drafted_at = -math.inf  # the last step, and the last beside a drafter
        self._drafts_again = -math.inf  # when drafters work again after a rest
        #: What a step takes while no drafter works, as a share of what it takes beside one.
        self.alone_share = 1.0

    @property
    def seen(self) -> bool:
        """Whether there is anything to predict from. It stays so."""
        return self._fit.seen

    @property
    def line(self) -> tuple[float, float]:
        """Of a session's step beside drafters: seconds without draft tokens of its own, and for each."""
        step, per_token = self._fit.line
        return step + per_token * self._others, per_token

    @property
    def resting(self) -> bool:
        """Whether no session shall be drafted for."""
        return self._rest is not None

    @property
    def settling(self) -> bool:
        """Whether drafts are not due: in a rest, and until drafters have heard of its end."""
        return self._rest is not None or self._ended_at < self._drafts_again

    def observe_step(
        self,
        draft_tokens: int,
        seconds: float,
        *,
        drafters: Collection[int] = (),
        now: float = 0.0,
        round_trip: float = 0.0,
        sessions: int = 1,
    ) -> None:
        """A step ended ``now``, with so many ``draft_tokens`` of ``sessions`` together. ``drafters``: the numbers of
        those that were to work meanwhile, ``round_trip`` away at most."""
        self._ended_at = now
        drafted = bool(drafters)
        if self._rest is None:
            self._others += _SMOOTHING * (draft_tokens * (sessions - 1) / sessions - self._others)
            self._learn(draft_tokens, seconds, drafted=drafted, now=now)
            if self._learns and self._is_time_to_rest(drafters):
                self._rest = _Rest(now, seconds=seconds, round_trip=round_trip)
        else:
            if drafted:  # for a session that has not heard of the rest
                self._rest.begin_again(now, seconds=seconds, round_trip=round_trip)
            else:
                self._rest.observe_step(seconds / self._fit.predict(draft_tokens), seconds=seconds, now=now)
            if self._rest.measured or now > self._rest.ends_by:
                self._end_rest(self._rest, now, seconds)
        if drafted:
            self._drafted_at = now

    def _is_time_to_rest(self, drafters: Collection[int]) -> bool:
        self._worked.update(drafters)
        if not self._known.issuperset(drafters):  # one of them may share what the others do not
            self._known.update(drafters)
            self._until_rest = min(self._until_rest, FIRST_REST)
        # Where sharing was found, drafting may be off for it: then it is in few steps, and still to be found out again.
        if drafters or self.alone_share < 1.0:
            self._until_rest -= 1
        return bool(drafters) and self._until_rest <= 0

    def _learn(self, draft_tokens: int, seconds: float, *, drafted: bool, now: float) -> None:
        nothing_shared = self._measured and self.alone_share == 1.0
        if drafted:
            if now >= self._drafts_again and not self._is_accident(draft_tokens, seconds):
                self._fit.observe_point(draft_tokens, seconds)
                self._usual.append((draft_tokens, seconds))
        elif nothing_shared or now - seconds > self._drafted_at + LONGEST_REST:  # no drafter works for others either
            self._fit.observe_point(draft_tokens, seconds / self.alone_share)

    def _is_accident(self, draft_tokens: int, seconds: float) -> bool:
        """Whether the step took far longer than expected, and the one before did not: two are no accident."""
        before, self._was_slow = self._was_slow, self.seen and seconds > _SLOW * self._fit.predict(draft_tokens)
        return self._was_slow and not before

    def _end_rest(self, rest: _Rest, now: float, seconds: float) -> None:
        self._rest = None
        self._drafts_again = now + rest.round_trip + _SETTLING_STEPS * seconds
        if not rest.measured:  # its session ended, or steps were too few
            self._until_rest = min(FIRST_REST << self._vain, REST_EVERY)
            self._vain += 1
            return
        self._vain = 0
        self._known, self._worked = self._worked, set()  # those that left are forgotten
        # Medians on both sides: of steps that vary the mean, which the fit is near, lies above.
        usual = median([seconds / self._fit.predict(tokens) for tokens, seconds in self._usual] or [1.0])
        share = min(max(rest.share / usual, LEAST_ALONE_SHARE), 1.0)
        self._measured, self.alone_share = True, 1.0 if share > _SHARES_NOTHING else share
        self._until_rest = REST_SELDOM if self.alone_share == 1.0 else REST_EVERY


class _Rest:
    def __init__(self, now: float, *, seconds: float, round_trip: float) -> None:
        self.round_trip = round_trip
        #: When it ends though nothing was seen of it.
        self.ends_by = now
        self._may_begin = 1 + _PUT_OFF_STEPS
        self.begin_again(now, seconds=seconds, round_trip=round_trip)

    def begin_again(self, now: float, *, seconds: float, round_trip: float) -> None:
        """A drafter was at work until now."""
        self.round_trip = max(self.round_trip, round_trip)
        self._settled_at = now + self.round_trip + _SETTLING_STEPS * seconds
        if self._may_begin:
            self._may_begin -= 1
            self.ends_by = now + self.round_trip + max(LONGEST_REST, _LONGEST_REST_STEPS * seconds)
        self._ratios: list[float] = []
        self.measured = False

    @property
    def share(self) -> float:
        """Of the steps so far, over what was expected."""
        return median(self._ratios)

    def observe_step(self, ratio: float, *, seconds: float, now: float) -> None:
        """A step that took ``ratio`` times what was expected."""
        if now - seconds >= self._settled_at:
            self._ratios.append(ratio)
            self.measured = len(self._ratios) >= REST_STEPS
