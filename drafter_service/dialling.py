"""When a drafter dials its verifier again, and how long an attempt may take.

A network that is gone loses what is sent and says nothing. TCP asks again after a second, so an attempt that began
while the network was gone finds out late that it is back. While nothing answers, most attempts are therefore short, and
the next one begins as soon as one has failed: short for this link, which is known from when it stood.
"""

from __future__ import annotations

from typing import Final

from transport.backoff import Backoff
from transport.grpc_options import CONNECT_SECONDS

#: What an attempt may take at least, in seconds, however near the verifier is: it may be a busy machine.
SHORTEST_ATTEMPT: Final = 0.4
#: Times what the last successful one took.
_MARGIN: Final = 2.0
#: The fourth attempt may take as long as the very first, and then each so many-th: the way may have become longer.
_FIRST_PATIENT, _PATIENT_EVERY = 4, 16


class Dialling:
    """Attempts to reach one verifier, sans-IO. All times are seconds of one clock."""

    def __init__(self, backoff: Backoff) -> None:
        self.failures = 0  # since it was reached
        self._backoff = backoff
        self._began = 0.0
        self._reached = False
        self._took: float | None = None

    def begin(self, now: float) -> float:
        """An attempt begins. Returns what it may take until there is a connection."""
        self._began, self._reached = now, False
        attempt = self.failures + 1
        if self._took is None or attempt == _FIRST_PATIENT or attempt % _PATIENT_EVERY == 0:
            return CONNECT_SECONDS
        return min(CONNECT_SECONDS, max(SHORTEST_ATTEMPT, _MARGIN * self._took))

    def reached(self, now: float) -> None:
        """The verifier answered."""
        self._took, self._reached, self.failures = now - self._began, True, 0

    def ended(self, now: float) -> float:
        """The attempt failed, or the link that came of it ended. Returns the pause before the next.

        Attempts begin so far apart as the back-off says; after a link that stood there is a pause.
        """
        delay = self._backoff.delay(self.failures)
        self.failures += 1
        return delay if self._reached else max(0.0, delay - (now - self._began))
