"""How much of a verifier's time may go into choosing plans.

A choice takes some milliseconds, in which no step begins. With one session that is nothing; with many that each choose
anew as their drafts agree better or worse, it was a sixth of the time. So all sessions share one budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Of the time.
SHARE: Final = 0.02


class PlanningBudget:
    """Used where sessions are stepped, in one thread at a time. ``clock``: seconds, steady."""

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self._share = share
        self._clock = clock
        self._free_from = 0.0
        self._taken = False

    @property
    def open(self) -> bool:
        """Whether a choice may be made now."""
        return self._clock() >= self._free_from

    def take(self) -> bool:
        """The same, asked in ``choosing`` by who then makes it."""
        self._taken = self.open
        return self._taken

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """If leave was taken in it, what it lasted is paid with time in which nobody chooses."""
        began, self._taken = self._clock(), False
        try:
            yield
        finally:
            if self._taken:
                now = self._clock()
                self._free_from = now + (now - began) * (1 / self._share - 1)
