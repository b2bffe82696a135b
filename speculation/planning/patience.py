"""Whether to hold a verify step back for a draft that is on its way.

Where target and drafter have machines of their own and a round trip lies between them, holding back hardly ever
pays: the step and the draft overlap. Where they share processors, overlapping only makes both slower, and taking
turns wins (README, "Figures"). So both are tried (``speculation/planning/trial.py``); what steps take that no plan
wants held back is known by then.
"""

from __future__ import annotations

import math
import threading

from speculation.planning.trial import Trial

#: Seconds between two failures that are forgiven; doubled as long as drafts come, but none when a step waits for one.
FORGIVE_EVERY, FORGIVE_SELDOM = 5.0, 320.0


class Patience:
    """One for all sessions of a verifier that run one rule.

    ``longest``: seconds that a step may be held back if its plan says nothing. ``learns``: find out whether it pays;
    else every step is held, except for a while after a draft failed to come.
    """

    def __init__(self, longest: float, *, learns: bool = True) -> None:
        self._longest = longest
        self._trial = Trial(learns=learns)
        self._forgives_at, self._forgive_every = -math.inf, FORGIVE_EVERY
        self._changing = threading.Lock()

    def forgive(self, now: float) -> None:
        """A draft came, if perhaps too late for its step: hold steps again, if they are not held because none had come.

        After a link was lost and another came, hundreds of steps would else go on without waiting. ``now``: seconds of
        any steady clock. From any thread, at every draft.
        """
        if self._trial.taken or now < self._forgives_at:
            return
        with self._changing:
            if self._trial.forgive():
                self._forgives_at = now + self._forgive_every
                self._forgive_every = min(2 * self._forgive_every, FORGIVE_SELDOM)

    def hold(self, planned: float = 0.0) -> float:
        """Seconds that the coming step may wait for a draft; ``planned``: as its plan has it."""
        return max(self._longest, planned) if self._trial.taken else 0.0

    def observe_step(self, *, seconds: float, tokens: int, planned: float = 0.0, unanswered: bool = False) -> None:
        """A step ended: ``seconds`` since the one before it, ``tokens`` committed.

        ``unanswered``: it was held back to the end, and no draft came; no need to see more of that.
        """
        with self._changing:
            if max(self._longest, planned) <= 0:
                self._trial.observe_other(seconds=seconds, tokens=tokens)
                return
            if self._trial.taken and not unanswered:
                self._forgive_every = FORGIVE_EVERY
            self._trial.observe_step(seconds=seconds, tokens=tokens, failed=unanswered)
