"""How long a verify step takes, beside a working drafter and while none works.

Where target and drafter share a device or processors, each makes the other slower, so the speed of the target alone
cannot be seen while drafts are made. Now and then all sessions rest from drafting for a few steps, which are compared
with what is expected of steps beside drafters. The rest is short, so texts that differ do no harm.
"""

from __future__ import annotations

import math
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
#: A drafter hears of a rest after half a round trip, and ends what it had begun: so many steps more are not counted.
_SETTLING_STEPS: Final = 2


class StepTimes:
    """One for all sessions of a verifier. ``learns``: let sessions rest, to find out what they cannot see otherwise.

    Seconds throughout, of any steady clock. Any thread may read, one at a time may observe.
    """

    def __init__(self, *, learns: bool = True) -> None:
        self._learns = learns
        self._fit = LinearFit()  # of steps beside drafters; others are scaled
        self._until_rest, self._counted_at = FIRST_REST, -math.inf  # steps of the verifier, and when the last ended
        self._rest: _Rest | None = None
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
        """Of a step beside drafters: seconds without draft tokens, and for each."""
        return self._fit.line

    @property
    def resting(self) -> bool:
        """Whether no session shall be drafted for."""
        return self._rest is not None

    @property
    def settling(self) -> bool:
        """Whether drafts are not due: in a rest, and until drafters have heard of its end."""
        return self._rest is not None or self._ended_at < self._drafts_again

    def observe_step(
        self, draft_tokens: int, seconds: float, *, drafted: bool = True, now: float = 0.0, round_trip: float = 0.0
    ) -> None:
        """A step of one session ended ``now``. ``drafted``: for it drafters were to work meanwhile, ``round_trip``
        away at most."""
        self._ended_at = now
        if self._rest is None:
            self._learn(draft_tokens, seconds, drafted=drafted, now=now)
            if drafted and self._learns and self._is_time_to_rest(seconds, now):
                self._rest = _Rest(now, seconds=seconds, round_trip=round_trip)
        else:
            if drafted:  # for a session that has not heard of the rest
                self._rest.begin_again(now, seconds=seconds)
            else:
                self._rest.observe_step(seconds / self._fit.predict(draft_tokens), seconds=seconds, now=now)
            if self._rest.measured or now > self._rest.ends_by:
                self._end_rest(self._rest, now, seconds)
        if drafted:
            self._drafted_at = now

    def _is_time_to_rest(self, seconds: float, now: float) -> bool:
        if now >= self._counted_at + seconds / 2:  # not another session of the same step
            self._counted_at = now
            self._until_rest -= 1
        return self._until_rest <= 0

    def _learn(self, draft_tokens: int, seconds: float, *, drafted: bool, now: float) -> None:
        nothing_shared = self._measured and self.alone_share == 1.0
        if drafted:
            if now >= self._drafts_again:
                self._fit.observe_point(draft_tokens, seconds)
        elif nothing_shared or now - seconds > self._drafted_at + LONGEST_REST:  # no drafter works for others either
            self._fit.observe_point(draft_tokens, seconds / self.alone_share)

    def _end_rest(self, rest: _Rest, now: float, seconds: float) -> None:
        self._rest = None
        self._drafts_again = now + rest.round_trip + _SETTLING_STEPS * seconds
        if not rest.measured:  # its session ended, or steps were too few
            self._until_rest = FIRST_REST
            return
        share = min(max(rest.share, LEAST_ALONE_SHARE), 1.0)
        self._measured, self.alone_share = True, 1.0 if share > _SHARES_NOTHING else share
        self._until_rest = REST_SELDOM if self.alone_share == 1.0 else REST_EVERY


class _Rest:
    def __init__(self, now: float, *, seconds: float, round_trip: float) -> None:
        self.round_trip = round_trip
        #: When it ends though nothing was seen of it.
        self.ends_by = now + round_trip + max(LONGEST_REST, _LONGEST_REST_STEPS * seconds)
        self.begin_again(now, seconds=seconds)

    def begin_again(self, now: float, *, seconds: float) -> None:
        """A drafter was at work until now."""
        self._settled_at = now + self.round_trip + _SETTLING_STEPS * seconds
        self._ratios: list[float] = []
        self._first: float | None = None  # when the first of them ended
        self.measured = False

    @property
    def share(self) -> float:
        """Of the steps so far, over what was expected."""
        return median(self._ratios)

    def observe_step(self, ratio: float, *, seconds: float, now: float) -> None:
        """A step that took ``ratio`` times what was expected.

        Of many sessions that share a step all tell of it, so being measured takes some time as well.
        """
        if now - seconds < self._settled_at:
            return
        self._ratios.append(ratio)
        self._first = now if self._first is None else self._first
        self.measured = len(self._ratios) >= REST_STEPS and now - self._first >= (REST_STEPS - 2) * seconds
