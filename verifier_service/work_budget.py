"""How much of a verifier's time may go into taking in what one drafter sends.

What a span costs depends on the drafts that it meets: one that names a place far inside a long draft takes a thousand
times as long as one that begins where the text ends. So it is no number of messages that bounds what a drafter may
cost the others, but the time that its messages took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Of the time; and of it, for each session that it drafts for. A drafter on an H200 took 0.042 for 16 sessions.
SHARE, SHARE_PER_SESSION = 0.03, 0.01
#: Seconds of work that may come all at once.
AT_ONCE: Final = 0.005


class WorkBudget:
    """``clock``: steady seconds. ``spent``: seconds of work of the thread that asks. None: the system's.

    For any thread: sessions of one drafter may be the engine's and the event loop's at a time.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None, spent: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._spent = spent or time.thread_time
        self._left, self._then = AT_ONCE, self._clock()
        self._lock = threading.Lock()

    def has_left(self, sessions: int) -> bool:
        """Whether any is left, for one that drafts for so many sessions now."""
        share = SHARE + sessions * SHARE_PER_SESSION
        with self._lock:
            now = self._clock()
            self._left = min(AT_ONCE, self._left + (now - self._then) * share)
            self._then = now
            return self._left > 0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Around the work. More may be spent than is left; it is missing afterwards."""
        began = self._spent()
        try:
            yield
        finally:
            with self._lock:
                self._left -= self._spent() - began
