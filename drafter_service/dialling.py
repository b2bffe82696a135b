"""When a drafter dials its verifier again."""

from __future__ import annotations

from transport.backoff import Backoff


class Dialling:
    """Attempts to reach one verifier, sans-IO. All times are seconds of one clock."""

    def __init__(self, backoff: Backoff) -> None:
        self.failures = 0  # since it was reached
        self._backoff = backoff
        self._began = 0.0
        self._reached = self._lost = False
        #: Whether the attempt may be given up for another one. The one that follows has its time, or whoever answers
        #: connections, but nothing else, would be dialled without a pause.
        self.may_be_lost = True

    def begin(self, now: float) -> None:
        """An attempt begins."""
        self.may_be_lost = not self._lost
        self._began, self._reached, self._lost = now, False, False

    def lost(self) -> None:
        """The attempt is given up: one that begins now gets through."""
        self._lost = True

    def reached(self) -> None:
        """The verifier answered."""
        self._reached, self.failures = True, 0

    def ended(self, now: float) -> float:
        """The attempt failed, or the link that came of it ended. Returns the pause before the next.

        Attempts begin so far apart as the back-off says; after a link that stood there is a pause.
        """
        delay = self._backoff.delay(self.failures)
        self.failures += 1
        if self._lost:
            return 0.0
        return delay if self._reached else max(0.0, delay - (now - self._began))
