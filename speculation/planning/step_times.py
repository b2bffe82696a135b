"""How long a verify step takes, beside a working drafter and while none works.

Where target and drafter share a device or processors, each makes the other slower, so the speed of the target alone
cannot be seen while drafts are made. Now and then all sessions rest from drafting for a few steps, which are compared
with what is expected of steps beside drafters. Steps alternate with resting in time, so texts that differ do no harm.
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
#: Observed steps of a rest, and the seconds after which it ends all the same.
REST_STEPS: Final = 6
LONGEST_REST: Final = 3.0
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
        self._drafts_again = -math.inf  # when drafters work again after a rest
        self._drafted_at = -math.inf
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

    def observe_step(
        self, draft_tokens: int, seconds: float, *, drafted: bool = True, now: float = 0.0, round_trip: float = 0.0
    ) -> None:
        """A step of one session ended ``now``. ``drafted``: for it drafters were to work meanwhile, ``round_trip``
        away at most."""
        if self._rest is None:
            self._learn(draft_tokens, seconds, drafted=drafted, now=now)
            if drafted and self._learns and self._is_time_to_rest(seconds, now):
                self._rest = _Rest(now, settled_at=now + round_trip + _SETTLING_STEPS * seconds)
        else:
            expected = self._fit.predict(draft_tokens)
            if not drafted and self._rest.observe_step(seconds / expected, seconds=seconds, now=now):
                self._measured(self._rest.share)
            if self._rest.measured or now > self._rest.began + LONGEST_REST + round_trip:
                self._end_rest(now + round_trip + _SETTLING_STEPS * seconds)
        if drafted:
            self._drafted_at = now

    def _is_time_to_rest(self, seconds: float, now: float) -> bool:
        if now >= self._counted_at + seconds / 2:  # not another session of the same step
            self._counted_at = now
            self._until_rest -= 1
        return self._until_rest <= 0

    def _learn(self, draft_tokens: int, seconds: float, *, drafted: bool, now: float) -> None:
        if drafted and now >= self._drafts_again:
            self._fit.observe_point(draft_tokens, seconds)
        elif not drafted and (self.alone_share == 1.0 or now > self._drafted_at + LONGEST_REST):
            self._fit.observe_point(draft_tokens, seconds / self.alone_share)

    def _measured(self, share: float) -> None:
        share = min(max(share, LEAST_ALONE_SHARE), 1.0)
        self.alone_share = 1.0 if share > _SHARES_NOTHING else share

    def _end_rest(self, drafts_again: float) -> None:
        self._rest, self._drafts_again = None, drafts_again
        self._until_rest = REST_SELDOM if self.alone_share == 1.0 else REST_EVERY


class _Rest:
    def __init__(self, began: float, *, settled_at: float) -> None:
        self.began = began
        self._settled_at = settled_at
        self._ratios: list[float] = []
        self._first: float | None = None  # when the first of them ended
        self.measured = False

    @property
    def share(self) -> float:
        """Of the steps so far, over what was expected."""
        return median(self._ratios)

    def observe_step(self, ratio: float, *, seconds: float, now: float) -> bool:
        """A step that took ``ratio`` times what was expected; whether that is enough of them.

        Of many sessions that share a step all tell of it, so it takes some time as well.
        """
        if now - seconds < self._settled_at:
            return False
        self._ratios.append(ratio)
        self._first = now if self._first is None else self._first
        self.measured = len(self._ratios) >= REST_STEPS and now - self._first >= (REST_STEPS - 2) * seconds
        return self.measured
