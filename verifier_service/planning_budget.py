"""How much of a verifier's time may go into choosing plans, and whose turn it is.

A choice takes some milliseconds, in which no step begins. With one session that is nothing; with many that each choose
anew as their drafts agree better or worse, it was a sixth of the time. So all sessions share one budget, in turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Of the time.
SHARE: Final = 0.03
#: After one choice nobody waits longer than this for the next, however long it took.
LONGEST_PAUSE: Final = 1.0
#: Who has not asked again for so long does not wait any more.
PATIENCE: Final = 2.0


class PlanningBudget:
    """``clock``: steady seconds. ``spent``: seconds of work of the thread that asks. None: the system's."""

    def __init__(
        self,
        share: float = SHARE,
        *,
        clock: Callable[[], float] | None = None,
        spent: Callable[[], float] | None = None,
    ) -> None:
        self._share = share
        self._clock = clock or time.monotonic
        self._spent = spent or time.thread_time
        self._free_from = 0.0
        self._asking = threading.Lock()  # from the event loop, and from the thread of the engine
        self._waiting: dict[object, float] = {}  # in order, and when each asked last

    @contextmanager
    def choosing(self, who: object) -> Iterator[Callable[[], bool]]:
        """Yields whom to ask for leave before the work is done. Leave is paid with a pause in which nobody has it."""
        began: list[float] = []

        def leave() -> bool:
            if self._is_turn(who):
                began.append(self._spent())
            return bool(began)

        try:
            yield leave
        finally:
            if began:
                pause = (self._spent() - began[0]) * (1 / self._share - 1)
                self._free_from = self._clock() + min(pause, LONGEST_PAUSE)

    def _is_turn(self, who: object) -> bool:
        """Of those that wait, the first to ask goes first; who asks for the first time waits behind them."""
        now = self._clock()
        with self._asking:
            self._waiting = {each: asked for each, asked in self._waiting.items() if asked >= now - PATIENCE}
            self._waiting[who] = now
            if now < self._free_from or next(iter(self._waiting)) is not who:
                return False
            del self._waiting[who]
            return True
