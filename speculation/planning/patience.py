"""Whether to hold a verify step back for a draft that is on its way.

Where target and drafter have machines of their own and a round trip lies between them, holding back hardly ever
pays: the step and the draft overlap. Where they share processors, overlapping only makes both slower, and taking
turns wins (README, "Figures"). So both are tried (``speculation/planning/trial.py``); what steps take that no plan
wants held back is known by then.
"""

from __future__ import annotations

import math
from typing import Final

from speculation.planning.trial import Trial

#: Between two failures that are forgiven, in seconds: a drafter that dials in again and again and then says nothing
#: shall not hold steps each time.
FORGIVE_EVERY: Final = 5.0


class Patience:
    """One for all sessions of a verifier that run one rule.

    ``longest``: seconds that a step may be held back if its plan says nothing. ``learns``: find out whether it pays;
    else every step is held, except for a while after a draft failed to come.
    """

    def __init__(self, longest: float, *, learns: bool = True) -> None:
        self._longest = longest
        self._trial = Trial(learns=learns)
        self._forgave_at = -math.inf

    def forgive(self, now: float) -> None:
        """A first draft came over a new link: that none came before was the fault of one that was lost, perhaps. Steps
        need not go on without drafts until a trial is due. ``now``: seconds of any steady clock."""
        if now >= self._forgave_at + FORGIVE_EVERY and self._trial.forgive():
            self._forgave_at = now

    def hold(self, planned: float = 0.0) -> float:
        """Seconds that the coming step may wait for a draft; ``planned``: as its plan has it."""
        return max(self._longest, planned) if self._trial.taken else 0.0

    def observe_step(self, *, seconds: float, tokens: int, planned: float = 0.0, unanswered: bool = False) -> None:
        """A step ended: ``seconds`` since the one before it, ``tokens`` committed.

        ``unanswered``: it was held back to the end, and no draft came; no need to see more of that.
        """
        if max(self._longest, planned) > 0:
            self._trial.observe_step(seconds=seconds, tokens=tokens, failed=unanswered)
        else:
            self._trial.observe_other(seconds=seconds, tokens=tokens)
