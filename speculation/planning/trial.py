"""Which of two ways of running steps is the faster one, found out by what counts: seconds per committed token.

Steps run in phases, each kind keeps its own running figure, the better one goes on, and the other is tried now and
then, the more seldom the clearer it is behind. A phase that has clearly lost ends early, unless its kind is known to be
the better one: where steps wait for a round trip, eight of them may take a second.
"""

from __future__ import annotations

from collections.abc import Sequence

PHASE_STEPS = 8
_SMOOTHING = 0.4
#: Phases between trials of the kind that is behind; doubled while it stays clearly behind.
_FIRST_INTERVAL, _LONGEST_INTERVAL = 4, 64
_CLEARLY = 1.1
#: From so many steps on a phase may be lost, once it took so many times what the other way takes for its tokens.
_LOST_STEPS, _LOST = 3, 1.5


class Trial:
    """``taken``: whether the coming step goes the way in question, which is the first that is tried.

    ``learns``: find out whether it pays; else every step goes that way, except for a while after it failed.
    """

    def __init__(self, *, learns: bool = True) -> None:
        self.taken = True
        self._learns = learns
        self._seconds_per_token: dict[bool, float | None] = {True: None, False: None}
        self._phase: list[tuple[float, int]] = []
        self._others: list[tuple[float, int]] = []
        self._interval = _FIRST_INTERVAL
        self._phases_until_trial = 2
        self._failed = False  # which is why the other way is taken
        self._before_failure: float | None = None  # seconds per token of the way in question, before it first failed

    def seconds_per_token(self, *, taken: bool) -> float | None:
        """The running figure of one of the two ways; None before its first phase ended."""
        return self._seconds_per_token[taken]

    def observe_step(self, *, seconds: float, tokens: int, failed: bool = False) -> None:
        """A step ended: ``seconds`` since the one before it, ``tokens`` committed.

        ``failed``: it went the way in question for nothing; no need to see more of that.
        """
        self._phase.append((seconds, tokens))
        if failed and self.taken:
            if not self._failed:
                self._before_failure = self._seconds_per_token[True]
            self._failed = True
            self._end_phase()
            self.taken = False
            self._phases_until_trial = self._interval
            self._interval = min(_LONGEST_INTERVAL, 2 * self._interval)
        elif len(self._phase) >= PHASE_STEPS or self._is_lost():
            self._failed = self._failed and not self.taken
            self._end_phase()

    def forgive(self) -> bool:
        """What it failed of is over: if that is why the way in question is not taken, take it again, and forget what it
        took when it failed. Trials stay as seldom as failures have made them. Returns whether it was so."""
        if self.taken or not self._failed or self._was_behind():
            return False
        if self._phase:
            self._note(self._phase, taken=False)
        self.taken, self._failed = True, False
        self._seconds_per_token[True] = self._before_failure
        return True

    def _was_behind(self) -> bool:
        """Before it failed, so that it would not be taken anyway."""
        before, other = self._before_failure, self._seconds_per_token[False]
        return self._learns and before is not None and other is not None and before > other

    def observe_other(self, *, seconds: float, tokens: int) -> None:
        """A step for which there was no choice, and that went the other way. It counts until that way was tried: it may
        be of a text that is not like those with a choice."""
        if self._seconds_per_token[False] is None:
            self._others.append((seconds, tokens))
            if len(self._others) >= PHASE_STEPS:
                self._note(self._others, taken=False)

    def _is_lost(self) -> bool:
        """Only of a way that is not known to be better, or a few unlucky steps would weigh as much as a phase."""
        this, other = self._seconds_per_token[True], self._seconds_per_token[False]
        if not (self._learns and self.taken and other is not None and len(self._phase) >= _LOST_STEPS):
            return False
        return (this is None or this > other) and _figure(self._phase) > _LOST * other

    def _note(self, steps: list[tuple[float, int]], *, taken: bool) -> None:
        figure, known = _figure(steps), self._seconds_per_token[taken]
        steps.clear()
        self._seconds_per_token[taken] = figure if known is None else known + _SMOOTHING * (figure - known)

    def _end_phase(self) -> None:
        self._note(self._phase, taken=self.taken)
        self._phases_until_trial -= 1
        if not self._learns:
            self.taken = self.taken or self._phases_until_trial <= 0
            return
        this_way, other_way = self._seconds_per_token[True], self._seconds_per_token[False]
        better = this_way is not None if this_way is None or other_way is None else this_way <= other_way
        if self.taken is not better:  # a trial ended
            slower, faster = max(this_way or 0.0, other_way or 0.0), min(this_way or 0.0, other_way or 0.0)
            far_apart = faster > 0 and slower > _CLEARLY * faster
            self._interval = min(_LONGEST_INTERVAL, 2 * self._interval) if far_apart else _FIRST_INTERVAL
            self._phases_until_trial = self._interval
        self.taken = better if self._phases_until_trial > 0 else not better


def _figure(steps: Sequence[tuple[float, int]]) -> float:
    """Seconds per token."""
    return sum(seconds for seconds, _ in steps) / max(1, sum(tokens for _, tokens in steps))
