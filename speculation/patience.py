"""Whether to hold a verify step back for a draft that is on its way.

Where target and drafter have machines of their own and a round trip lies between them, holding back hardly ever
pays: the step and the draft overlap. Where they share processors, overlapping only makes both slower, and taking
turns wins (README, "Figures"). Which it is shows in what counts, seconds per committed token: steps run in phases,
held and not held, each kind keeps its own running figure, the better one goes on, and the other is tried now and then.
"""

from __future__ import annotations

PHASE_STEPS = 8
_SMOOTHING = 0.4
#: Phases between trials of the kind that is behind; doubled while it stays clearly behind.
_FIRST_INTERVAL, _LONGEST_INTERVAL = 4, 64
_CLEARLY = 1.1


class Patience:
    """One for all sessions of a verifier. ``longest``: seconds that a step may be held back if its plan says nothing.

    ``learns``: find out whether it pays; else every step is held, except for a while after a draft failed to come.
    """

    def __init__(self, longest: float, *, learns: bool = True) -> None:
        self._longest = longest
        self._learns = learns
        self._holding = True
        self._seconds_per_token: dict[bool, float | None] = {True: None, False: None}
        self._phase: list[tuple[float, int]] = []
        self._interval = _FIRST_INTERVAL
        self._phases_until_trial = 2

    def hold(self, planned: float = 0.0) -> float:
        """Seconds that the coming step may wait for a draft; ``planned``: as its plan has it."""
        return max(self._longest, planned) if self._holding else 0.0

    def observe(self, *, seconds: float, tokens: int, planned: float = 0.0, unanswered: bool = False) -> None:
        """A step ended: ``seconds`` since the one before it, ``tokens`` committed.

        ``unanswered``: it was held back to the end, and no draft came; no need to see more of that.
        """
        if max(self._longest, planned) <= 0:
            return
        self._phase.append((seconds, tokens))
        if unanswered and self._holding:
            self._end_phase()
            self._holding = False
            self._phases_until_trial = self._interval
            self._interval = min(_LONGEST_INTERVAL, 2 * self._interval)
        elif len(self._phase) >= PHASE_STEPS:
            self._end_phase()

    def _end_phase(self) -> None:
        figure = sum(seconds for seconds, _ in self._phase) / max(1, sum(tokens for _, tokens in self._phase))
        self._phase.clear()
        known = self._seconds_per_token[self._holding]
        self._seconds_per_token[self._holding] = figure if known is None else known + _SMOOTHING * (figure - known)
        self._phases_until_trial -= 1
        if not self._learns:
            self._holding = self._holding or self._phases_until_trial <= 0
            return
        held, free = self._seconds_per_token[True], self._seconds_per_token[False]
        better = held is not None if held is None or free is None else held <= free
        if self._holding is not better:  # a trial ended
            far_apart = held is not None and free is not None and max(held, free) > _CLEARLY * min(held, free)
            self._interval = min(_LONGEST_INTERVAL, 2 * self._interval) if far_apart else _FIRST_INTERVAL
            self._phases_until_trial = self._interval
        self._holding = better if self._phases_until_trial > 0 else not better
